"""What a stage reports, as values that JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plain_facts(value: Any) -> Any:
    """A stage's facts as plain JSON values: NumPy scalars unwrapped, NaN and infinity as None.

    Raises ``TypeError`` for anything JSON cannot hold.
    """
    if isinstance(value, Mapping):
        return {str(key): plain_facts(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_facts(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return plain_facts(value.tolist())
    raise TypeError(f"a stage's facts cannot hold a {type(value).__name__}: {value!r}")
