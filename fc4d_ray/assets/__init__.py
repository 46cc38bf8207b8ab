"""Model files: what they are, whether they are here, and a reader that never trusts them."""

from __future__ import annotations
