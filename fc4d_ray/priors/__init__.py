"""What invents the unseen: geometry, views, motion."""

from __future__ import annotations
