"""Metrics as pure functions of arrays: embeddings in, figures out; no files, no models."""
