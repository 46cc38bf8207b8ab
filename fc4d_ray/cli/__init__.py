"""The ``fc4d`` command. Importing it stays cheap: every command imports what it needs itself."""

from __future__ import annotations

from fc4d_ray.cli.app import app

__all__ = ["app"]
