"""FC4D-Ray: portraits in, animatable 4D head avatars out, distributed with Ray.

The package is divided into rooms (docs/architecture.md); importing it loads none of them.
"""

from __future__ import annotations

__version__ = "0.1.0"
