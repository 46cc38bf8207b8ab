"""Views in the form the diffusion loop works with, and back in the form of the stage's files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from fc4d_ray.cameras import Camera
from fc4d_ray.errors import InputError
from fc4d_ray.priors.shape.views import REFERENCE, ShapeView
from fc4d_ray.warping import DEPTH_TOLERANCE, HEAD_HEIGHT_M, resize_depth

_EDGE_M = 3 * DEPTH_TOLERANCE * HEAD_HEIGHT_M
_SOLID_ALPHA = 0.9


class Source(IntEnum):
    """Where a pixel of a finished view comes from; stored as a label image beside each view."""

    NOTHING = 0
    REFERENCE = 1
    BACK = 2
    NEIGHBOUR = 3
    GENERATED = 4


@dataclass(frozen=True)
class GuideView:
    """A coarse view, or the portrait itself, on the working grid of S x S pixels."""

    name: str
    azimuth_deg: float
    camera: Camera  # of S x S pixels
    image: Tensor  # [3, S, S] 0…1, composited on the background
    alpha: Tensor  # [S, S] 0…1
    depth: Tensor  # [S, S] metres, 0 = nothing


@dataclass(frozen=True)
class Portrait:
    """One portrait's part of the work."""

    portrait_id: str
    reference: GuideView
    views: tuple[GuideView, ...]
    sentence: str
    seed: int


def make_portrait(
    portrait_id: str,
    views: Sequence[ShapeView],
    reference_rgba: NDArray[np.uint8],  # [s, s, 4] the portrait's own pixels, completed
    sentence: str,
    seed: int,
    *,
    size: int,
    background: float,
    device: torch.device | str = "cpu",
) -> Portrait:
    """The shape prior's views and the portrait on the working grid.

    Raises ``InputError`` where no view, no reference or a view that is not square was given.
    """
    by_name = {view.name: view for view in views}
    if REFERENCE not in by_name or len(by_name) < 2:
        raise InputError(f"the shape prior gave no usable views: {sorted(by_name)}")
    for view in views:
        if view.camera.width != view.camera.height:
            raise InputError(f"view {view.name} is not square: {view.rgba.shape[:2]}")
    reference = by_name[REFERENCE]
    return Portrait(
        portrait_id,
        _guide(reference, reference_rgba, size, background, device),
        tuple(
            _guide(view, view.rgba, size, background, device)
            for view in views
            if view.name != REFERENCE
        ),
        sentence,
        seed,
    )


def _guide(
    view: ShapeView,
    rgba: NDArray[np.uint8],
    size: int,
    background: float,
    device: torch.device | str,
) -> GuideView:
    pixels = torch.from_numpy(rgba.copy()).to(device).permute(2, 0, 1).float() / 255
    alpha = pixels[3:]
    # Scaled with the colour weighted by alpha, so that no colour of empty pixels seeps in.
    weighted = _resized(torch.cat([pixels[:3] * alpha, alpha]), size)
    colour = (weighted[:3] / weighted[3:].clamp_min(1e-3)).clamp(0, 1)
    alpha = weighted[3].clamp(0, 1)
    depth = torch.from_numpy(view.depth).to(device)
    return GuideView(
        view.name,
        view.azimuth_deg,
        view.camera.resized(size, size),
        colour * alpha + background * (1 - alpha),
        alpha,
        resize_depth(depth, (size, size), _EDGE_M),
    )


def straight_rgba(
    image: Tensor,  # [3, S, S] 0…1 on the background
    alpha: NDArray[np.uint8],  # [s, s] the view's own alpha
    background: float = 1.0,
) -> NDArray[np.uint8]:
    """RGBA (s, s, 4) with straight alpha at the view's own size.

    The background is taken out of nearly solid pixels. The others take the colour of the nearest
    one of these: dividing by a small alpha would only amplify what the generator made of the edge.
    """
    side = alpha.shape[0]
    colour = _resized(image, side).clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    share = (alpha.astype(np.float32) / 255)[..., None]
    inside = np.maximum(share, _SOLID_ALPHA)
    colour = ((colour - background * (1 - inside)) / inside).clip(0, 1)
    solid = (share[..., 0] >= _SOLID_ALPHA).astype(np.uint8)
    if solid.any():
        _, nearest = cv2.distanceTransformWithLabels(
            1 - solid, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        places = np.zeros(nearest.max() + 1, np.int64)
        places[nearest[solid > 0]] = np.flatnonzero(solid)
        colour = colour.reshape(-1, 3)[places[nearest]]
    return np.dstack([(colour * 255 + 0.5).astype(np.uint8), alpha])


def _resized(image: Tensor, size: int) -> Tensor:
    if image.shape[-1] == size:
        return image
    return functional.interpolate(
        image[None], (size, size), mode="bicubic", align_corners=False, antialias=True
    )[0]
