"""Mesh and splat rasterizers: one signature each, whatever the device."""
