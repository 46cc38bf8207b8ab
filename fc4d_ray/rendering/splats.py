"""Rasterization of 3D Gaussians with gsplat's signature, on CPU (numba) and CUDA (gsplat).

Names, argument order, conventions and results are those of gsplat 1.5.3; docs/rendering.md lists
what the CPU backend leaves out and what each backend guarantees.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fc4d_ray.rendering.compositing import composite_splats
from fc4d_ray.rendering.projection import ProjectedSplats, ProjectionSettings, project_splats
from fc4d_ray.rendering.spherical_harmonics import spherical_harmonics_colors

GSPLAT_ALPHA_CAP = 0.999

RenderMode = Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"]
Backend = Literal["numba", "gsplat"]


def rasterization(
    means: Tensor,  # [N, 3] world
    quats: Tensor,  # [N, 4] wxyz, any norm
    scales: Tensor,  # [N, 3] linear
    opacities: Tensor,  # [N] in 0..1
    colors: Tensor,  # [(C,) N, D] or [(C,) N, K, 3]
    viewmats: Tensor,  # [C, 4, 4] world to camera, OpenCV axes
    Ks: Tensor,  # [C, 3, 3] pixels
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = True,
    tile_size: int = 16,
    backgrounds: Tensor | None = None,  # [C, D]
    render_mode: RenderMode = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: Literal["classic", "antialiased"] = "classic",
    channel_chunk: int = 32,
    distributed: bool = False,
    camera_model: str = "pinhole",
    segmented: bool = False,
    covars: Tensor | None = None,
    with_ut: bool = False,
    with_eval3d: bool = False,
    radial_coeffs: Tensor | None = None,
    tangential_coeffs: Tensor | None = None,
    thin_prism_coeffs: Tensor | None = None,
    ftheta_coeffs: Any = None,
    rolling_shutter: Any = None,
    viewmats_rs: Tensor | None = None,
    *,
    alpha_cap: float = GSPLAT_ALPHA_CAP,
    backend: Backend | None = None,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Render splats into C cameras: ``(colors [C, H, W, X], alphas [C, H, W, 1], meta)``.

    ``colors`` are D channels (any D), or SH coefficients where ``sh_degree`` (0 to 3) is given.
    ``render_mode`` RGB gives the D channels over ``backgrounds`` (None = black), D the accumulated
    and ED the expected camera z, RGB+D and RGB+ED append it as the last channel. ``alpha_cap``
    bounds one splat's alpha (0.99 in the original 3DGS). ``backend`` None takes numba for CPU
    tensors and gsplat for CUDA tensors.

    The numba backend takes float32 or float64, one dtype for all tensors; its results and
    gradients are the same bits on every run and for any number of threads. It differentiates with
    respect to means, quats, scales, opacities, colors, backgrounds and viewmats. ``tile_size`` and
    ``channel_chunk`` change nothing there. ``meta`` holds radii (int32, 0 = culled), means2d
    (``retain_grad`` works; ``.absgrad`` after backward when ``absgrad``), depths, conics,
    opacities as (C, N, ...) or, when ``packed``, as (nnz, ...) with batch_ids, camera_ids and
    gaussian_ids; and width, height, tile_size, n_cameras, n_batches.

    Raises ``NotImplementedError`` naming an argument the backend does not support, ``ValueError``
    for wrong shapes, dtypes or devices, ``ImportError`` where gsplat is needed and missing.
    """
    arguments = dict(locals())
    backend = backend or ("gsplat" if means.is_cuda else "numba")
    if backend == "gsplat":
        from fc4d_ray.rendering.gsplat_backend import rasterize_with_gsplat

        return rasterize_with_gsplat(arguments)
    if backend != "numba":
        raise ValueError(f"backend: expected 'numba', 'gsplat' or None, found {backend!r}")
    _refuse_unsupported(arguments)
    _check_tensors(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds, sh_degree)
    if render_mode not in ("RGB", "D", "ED", "RGB+D", "RGB+ED"):
        raise ValueError(f"render_mode: unknown mode {render_mode!r}")
    if rasterize_mode not in ("classic", "antialiased"):
        raise ValueError(f"rasterize_mode: unknown mode {rasterize_mode!r}")

    settings = ProjectionSettings(
        width,
        height,
        near_plane,
        far_plane,
        radius_clip,
        eps2d,
        antialiased=rasterize_mode == "antialiased",
    )
    projected = project_splats(means, quats, scales, opacities, viewmats, Ks, settings)
    splats = _image_splats(projected, opacities, settings.antialiased)
    splats["features"], background = _features(
        means, colors, viewmats, backgrounds, projected.depths, sh_degree, render_mode
    )
    visible = (projected.radii > 0).any(-1)
    if packed:
        ids = visible.nonzero()
        splats = {name: value[visible] for name, value in splats.items()}
        splats |= {"batch_ids": torch.zeros_like(ids[:, 0])}
        splats |= {"camera_ids": ids[:, 0], "gaussian_ids": ids[:, 1]}
        camera = ids[:, 0].numpy()
        camera_splats = [np.flatnonzero(camera == index) for index in range(len(viewmats))]
    else:
        flat = visible.numpy()
        camera_splats = [np.flatnonzero(row) + index * len(means) for index, row in enumerate(flat)]
    image, alpha = composite_splats(
        splats["means2d"],
        splats["conics"],
        splats["opacities"],
        splats.pop("features"),
        background,
        splats["depths"],
        camera_splats,
        width,
        height,
        alpha_cap=alpha_cap,
        absgrad=absgrad,
    )
    alpha = alpha[..., None]
    if render_mode in ("ED", "RGB+ED"):
        expected = image[..., -1:] / alpha.clamp_min(1e-10)
        image = torch.cat([image[..., :-1], expected], -1)
    meta = {"width": width, "height": height, "tile_size": tile_size}
    meta |= {"n_cameras": len(viewmats), "n_batches": 1}
    return image, alpha, splats | meta


def _image_splats(
    projected: ProjectedSplats, opacities: Tensor, antialiased: bool
) -> dict[str, Tensor]:
    """What the compositor draws, (C, N, ...), under the names of gsplat's meta."""
    opacity = opacities.expand(len(projected.depths), -1)
    if antialiased:
        opacity = opacity * projected.compensations
    return {
        "radii": projected.radii,
        "means2d": projected.means2d,
        "depths": projected.depths,
        "conics": projected.conics,
        "opacities": opacity,
    }


def _features(
    means: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    backgrounds: Tensor | None,
    depths: Tensor,  # [C, N]
    sh_degree: int | None,
    render_mode: RenderMode,
) -> tuple[Tensor, Tensor]:
    """Channels to composite (C, N, X) and their backgrounds (C, X)."""
    n_cameras = len(viewmats)
    channels, background = [], []
    if render_mode.startswith("RGB"):
        if sh_degree is not None:
            centres = torch.linalg.inv(viewmats)[:, None, :3, 3]
            colors = spherical_harmonics_colors(sh_degree, colors, means - centres)
        channels.append(colors.expand(n_cameras, *colors.shape[-2:]))
        if backgrounds is None:
            backgrounds = means.new_zeros(n_cameras, colors.shape[-1])
        background.append(backgrounds)
    if render_mode != "RGB":
        channels.append(depths[..., None])
        background.append(means.new_zeros(n_cameras, 1))
    return torch.cat(channels, -1), torch.cat(background, -1)


def _refuse_unsupported(arguments: dict[str, Any]) -> None:
    """Arguments of gsplat the numba backend has no code for must keep their defaults."""
    for name in ("sparse_grad", "distributed", "segmented", "with_ut", "with_eval3d"):
        if arguments[name]:
            raise NotImplementedError(f"{name}: not supported by the numba backend")
    for name in (
        "covars",
        "radial_coeffs",
        "tangential_coeffs",
        "thin_prism_coeffs",
        "ftheta_coeffs",
        "viewmats_rs",
    ):
        if arguments[name] is not None:
            raise NotImplementedError(f"{name}: not supported by the numba backend")
    if arguments["camera_model"] != "pinhole":
        raise NotImplementedError(
            f"camera_model: the numba backend knows 'pinhole', found {arguments['camera_model']!r}"
        )
    shutter = arguments["rolling_shutter"]
    if shutter is not None and getattr(shutter, "name", shutter) != "GLOBAL":
        raise NotImplementedError("rolling_shutter: the numba backend knows only GLOBAL")
    if arguments["means"].dim() != 2:
        raise NotImplementedError(
            "means: batches of scenes are not supported by the numba backend, expected (N, 3), "
            f"found {tuple(arguments['means'].shape)}"
        )


def _check_tensors(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    backgrounds: Tensor | None,
    sh_degree: int | None,
) -> None:
    n, c = len(means), len(viewmats)
    tensors = {
        "means": (means, (n, 3)),
        "quats": (quats, (n, 4)),
        "scales": (scales, (n, 3)),
        "opacities": (opacities, (n,)),
        "viewmats": (viewmats, (c, 4, 4)),
        "Ks": (Ks, (c, 3, 3)),
    }
    tail = 2 if sh_degree is not None else 1
    lead = (c, n) if colors.dim() == 2 + tail else (n,)
    tensors["colors"] = (colors, (*lead, *colors.shape[-tail:]))
    if backgrounds is not None:
        n_channels = 3 if sh_degree is not None else colors.shape[-1]
        tensors["backgrounds"] = (backgrounds, (c, n_channels))
    if sh_degree is not None:
        if not 0 <= sh_degree <= 3:
            raise ValueError(f"sh_degree: expected 0 to 3, found {sh_degree}")
        needed = (sh_degree + 1) ** 2
        if colors.dim() < 3 or colors.shape[-2] < needed or colors.shape[-1] != 3:
            raise ValueError(
                f"colors: degree {sh_degree} takes coefficients (..., K >= {needed}, 3), "
                f"found {tuple(colors.shape)}"
            )
    for name, (tensor, shape) in tensors.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: expected shape {shape}, found {tuple(tensor.shape)}")
        if tensor.device.type != "cpu":
            raise ValueError(f"{name}: the numba backend takes CPU tensors, found {tensor.device}")
        if tensor.dtype != means.dtype or tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"{name}: expected float32 or float64 like means ({means.dtype}), "
                f"found {tensor.dtype}"
            )
