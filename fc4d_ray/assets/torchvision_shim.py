"""Makes ``import torchvision`` work where its compiled operators cannot load.

Next to a torch build that torchvision's binary was not made for (CPU torch beside the CUDA wheel),
the operator library does not load, torchvision ignores that, and its import then fails with
``operator torchvision::nms does not exist``. lpips, transformers, diffusers and clean-fid import
torchvision and fail with it, though they use its pure-Python parts only. Declaring the two missing
operator schemas beforehand lets the import pass; calling one of the operators still raises.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path

_NAMESPACE = "torchvision"
_SCHEMAS = {
    name: f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms")
}


@functools.cache
def ensure_torchvision_importable() -> None:
    """Declare torchvision's ``nms`` and ``qnms`` where its own library cannot provide them.

    Call before anything that imports torchvision, in every process (Ray workers included); further
    calls cost nothing. Where torchvision works, or is not installed, nothing is changed.
    """
    if _NAMESPACE in sys.modules:
        return
    spec = importlib.util.find_spec(_NAMESPACE)
    if spec is None or spec.origin is None:
        return
    _load_operators(Path(spec.origin).parent)
    missing = tuple(name for name in _SCHEMAS if not _is_declared(name))
    if missing:
        _declare(missing)


def _load_operators(package: Path) -> None:
    """Load torchvision's own operator library, if it loads at all."""
    import torch

    for library in sorted(package.glob("_C*.so")) + sorted(package.glob("_C*.pyd")):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return


def _is_declared(name: str) -> bool:
    import torch

    return hasattr(getattr(torch.ops, _NAMESPACE), name)


@functools.cache  # The schemas live only as long as the library object: the cache keeps it.
def _declare(names: tuple[str, ...]) -> object:
    import torch

    library = torch.library.Library(_NAMESPACE, "FRAGMENT")
    for name in names:
        library.define(_SCHEMAS[name])
    return library
