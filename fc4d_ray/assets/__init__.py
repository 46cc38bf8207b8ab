"""Model files: what they are, whether they are here, and how they are read without trusting them."""

from __future__ import annotations
