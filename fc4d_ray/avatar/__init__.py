"""Gaussians bound to a mesh: binding, density control, COIN, trainer, playback, file formats."""
