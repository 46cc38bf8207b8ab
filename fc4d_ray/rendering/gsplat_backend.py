"""The CUDA backend: gsplat's own ``rasterization`` behind our signature."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor


def rasterize_with_gsplat(arguments: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Call gsplat with the ``arguments`` of ``rasterization``, by name.

    Raises ``ImportError`` where gsplat is not installed, ``ValueError`` for CPU tensors and
    ``NotImplementedError`` for an ``alpha_cap`` other than the one gsplat was compiled with.
    """
    try:
        import gsplat
    except ImportError as error:
        raise ImportError(
            "CUDA tensors need gsplat: install the optional extra with `pip install "
            "'fc4d-ray[gpu]'`, or move the tensors to the CPU"
        ) from error
    if not arguments["means"].is_cuda:
        raise ValueError("backend: gsplat takes CUDA tensors, found tensors on the CPU")
    passed = {k: v for k, v in arguments.items() if k not in ("alpha_cap", "backend")}
    if passed["rolling_shutter"] is None:
        del passed["rolling_shutter"]
    known = inspect.signature(gsplat.rasterization).parameters
    for name in [name for name in passed if name not in known]:
        value = passed.pop(name)
        if value is not None and value is not False:
            raise NotImplementedError(f"{name}: not known to gsplat {gsplat.__version__}")
    expected_cap = compiled_alpha_cap(gsplat.__version__)
    if arguments["alpha_cap"] != expected_cap:
        raise NotImplementedError(
            f"alpha_cap: gsplat {gsplat.__version__} is compiled with {expected_cap}, "
            f"found {arguments['alpha_cap']}"
        )
    return gsplat.rasterization(**passed)


def compiled_alpha_cap(version: str) -> float:
    """The bound on one splat's alpha in a release of gsplat: 0.999 up to 1.5, 0.99 from 1.6."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return 0.999 if (major, minor) < (1, 6) else 0.99
