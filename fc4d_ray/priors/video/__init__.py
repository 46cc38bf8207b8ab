"""Motion of the face: driving clips and the priors that show them in every view."""

from __future__ import annotations
