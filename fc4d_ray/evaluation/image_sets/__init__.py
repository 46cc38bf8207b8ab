"""Rendered views of many subjects by one method, whoever made them: one contract for all."""
