"""What people look at: videos, contact sheets, quality figures of a finished avatar."""

from __future__ import annotations
