"""Texture for where nobody saw the surface: strands and pores copied from where somebody did.

Small patches of the portrait's hair, turned so that their strands run down, or of its even skin are
laid over each other into one sheet, which is then wrapped round the head as a cylinder. Only the
detail is used (what a blur takes away); colour comes from the completed surface.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fc4d_ray.images import smoothstep

SHEET_HEIGHT_M = 0.5
SHEET_WIDTH = 1024
SHEET_HEIGHT = 512
_STRAND_PX = (5.0, 9.0)
"""Standard deviation, down the sheet, of the blur that makes strands of patches: of short hair,
which stands in tufts, and of long hair, which hangs."""
_STRAND_WIDTH_M = (0.015, 0.007)
"""Coarsest structure of either."""
_LONG_HAIR_M = (0.21, 0.30)
"""Height of the visible hair from which on it is long, by and by."""
_HAIR_HUES = (-15.0, 110.0)
"""CIELAB hues, degrees, that hair grows in: from red over brown and blond to an olive cast."""
_COLOURFUL = 10.0
"""CIELAB chroma from which on a colour has a hue to speak of; black hair shines blue below it."""
_HEADWEAR_SHARE = 0.2


def strand_sheet(
    image: NDArray[np.float32],  # [S, S, 3] 0…1
    hair: NDArray[np.bool_],  # [S, S] pixels surely of hair
    metres_per_px: float,
    seed: int,
) -> NDArray[np.float32] | None:
    """Detail (SHEET_HEIGHT, SHEET_WIDTH, 3) of hair whose strands run down the sheet.

    Around 0 and periodic in x; None for too little hair. Short hair stands in tufts, long hair
    hangs.
    """
    longness = _longness(hair, metres_per_px)
    coarsest_m = float(np.interp(longness, (0, 1), _STRAND_WIDTH_M))
    strand_px = float(np.interp(longness, (0, 1), _STRAND_PX))
    return _detail_sheet(image, hair, metres_per_px, seed, coarsest_m, strand_px)


def texture_sheet(
    image: NDArray[np.float32],  # [S, S, 3] 0…1
    sure: NDArray[np.bool_],  # [S, S] pixels surely of the material
    metres_per_px: float,
    seed: int,
    *,
    coarsest_m: float,
) -> NDArray[np.float32] | None:
    """The same of a material without a direction; structure coarser than ``coarsest_m`` is left
    out."""
    return _detail_sheet(image, sure, metres_per_px, seed, coarsest_m, strand_px=None)


def _detail_sheet(
    image: NDArray,
    sure: NDArray,
    metres_per_px: float,
    seed: int,
    coarsest_m: float,
    strand_px: float | None,  # None: patches are turned at random
) -> NDArray[np.float32] | None:
    sheet_px = SHEET_HEIGHT_M / SHEET_HEIGHT
    patch = round(0.022 / metres_per_px)
    patch = max(9, patch | 1)
    detail = _high_pass(image, sure, sigma=coarsest_m / metres_per_px)
    room = cv2.distanceTransform(sure.astype(np.uint8), cv2.DIST_L2, 5)
    rows, columns = np.nonzero(room > 0.55 * patch)
    if len(rows) < 50:
        return None
    angle = None if strand_px is None else _strand_angle(image, sure, patch)
    generator = np.random.default_rng(seed)
    size = max(8, round(patch * metres_per_px / sheet_px))
    window = np.outer(np.hanning(size + 2), np.hanning(size + 2))[1:-1, 1:-1].astype(np.float32)
    step = max(1, size // 3)
    total = np.zeros((SHEET_HEIGHT + size, SHEET_WIDTH, 3), np.float32)
    energy = np.full((SHEET_HEIGHT + size, SHEET_WIDTH, 1), 1e-6, np.float32)
    for top in range(0, SHEET_HEIGHT, step):
        for left in range(0, SHEET_WIDTH, step):
            pick = generator.integers(len(rows))
            place = rows[pick], columns[pick]
            turn = generator.uniform(0, 2 * np.pi) if angle is None else angle[place]
            tile = _turned_patch(detail, *place, turn, patch, size)
            at = (np.arange(left, left + size) % SHEET_WIDTH)[None]
            down = np.arange(top, top + size)[:, None]
            total[down, at] += tile * window[..., None]
            energy[down, at] += window[..., None] ** 2
    # Dividing by the root of the energy keeps the contrast that plain averaging would lose.
    sheet = (total / np.sqrt(energy))[:SHEET_HEIGHT].mean(-1, keepdims=True)
    if strand_px is not None:
        sheet = _combed(sheet, strand_px)
    # Lightness alone: neighbouring colours of headwear would be speckles.
    return sheet.clip(-0.35, 0.35).repeat(3, -1)


def _longness(hair: NDArray[np.bool_], metres_per_px: float) -> float:
    """0 for short hair … 1 for long, by the height of what is seen of it."""
    rows = np.flatnonzero(hair.any(1))
    height = np.ptp(rows) * metres_per_px if len(rows) else 0.0
    return float(smoothstep(np.float64(height), *_LONG_HAIR_M))


def _combed(sheet: NDArray[np.float32], strand_px: float) -> NDArray[np.float32]:
    """Strands longer than the patches they came from, as contrasty as before."""
    longer = cv2.GaussianBlur(sheet, (0, 0), sigmaX=0.5, sigmaY=strand_px)[..., None]
    return longer * (sheet.std() / max(float(longer.std()), 1e-6))


def even_skin(
    image: NDArray[np.float32],  # [S, S, 3] 0…1
    skin: NDArray[np.bool_],  # [S, S]
    metres_per_px: float,
) -> NDArray[np.bool_]:
    """Skin without features (eyes, brows, lips, a shadow's edge): the calmer half of it."""
    sigma = 0.006 / metres_per_px
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    solid = cv2.erode(skin.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    if not solid.any():
        return solid
    contrast = np.abs(_high_pass(grey[..., None].repeat(3, 2), skin, sigma)[..., 0])
    unrest = cv2.GaussianBlur(contrast, (0, 0), sigma)
    return solid & (unrest < np.median(unrest[solid]))


def is_headwear(
    image: NDArray[np.float32],  # [S, S, 3] 0…1
    hair: NDArray[np.bool_],  # [S, S] what covers the head
) -> bool:
    """Whether what covers the head has colours that hair does not grow in: blue, green, violet."""
    if not hair.any():
        return False
    _, a, b = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2LAB)[hair].T
    hue = np.rad2deg(np.arctan2(b, a))
    unusual = (np.hypot(a, b) > _COLOURFUL) & ((hue > _HAIR_HUES[1]) | (hue < _HAIR_HUES[0]))
    return bool(unusual.mean() > _HEADWEAR_SHARE)


def wrap_sheet(sheet: NDArray[np.float32], points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Detail (H, W, 3) at points (H, W, 3) of the head frame, metres.

    The angle is that round the vertical axis through the crown, so strands fall from the crown.
    """
    azimuth = np.arctan2(points[..., 0], points[..., 2] + 0.02)
    x = (azimuth / (2 * np.pi) + 0.5) * SHEET_WIDTH
    # Over the crown the surface turns level: walk on by the distance from the axis instead.
    radius = np.hypot(points[..., 0], points[..., 2] + 0.02)
    walked = 0.20 - points[..., 1] + 0.9 * np.minimum(radius, 0.09)
    y = walked / SHEET_HEIGHT_M * SHEET_HEIGHT
    return cv2.remap(
        np.concatenate([sheet, sheet[:, :2]], 1),
        (x % SHEET_WIDTH).astype(np.float32),
        (y % (SHEET_HEIGHT - 1)).astype(np.float32),
        cv2.INTER_LINEAR,
    )


def _high_pass(image: NDArray, mask: NDArray, sigma: float) -> NDArray[np.float32]:
    weight = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma)
    mean = cv2.GaussianBlur(image * mask[..., None], (0, 0), sigma) / (weight[..., None] + 1e-4)
    return ((image - mean) * mask[..., None]).astype(np.float32)


def _strand_angle(image: NDArray, hair: NDArray, patch: int) -> NDArray[np.float32]:
    """Angle (S, S), radians, that turns the local strands vertical (structure tensor)."""
    grey = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2GRAY)
    gx, gy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    solid = cv2.erode(hair.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(np.float32)
    blur = [cv2.GaussianBlur(t * solid, (0, 0), patch / 4) for t in (gx * gx, gy * gy, gx * gy)]
    # Across the strands the gradient is strongest; that direction becomes horizontal.
    return 0.5 * np.arctan2(2 * blur[2], blur[0] - blur[1])


def _turned_patch(detail, row, column, angle, patch: int, size: int) -> NDArray[np.float32]:
    scale = patch / size
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    centre = (size - 1) / 2
    matrix = np.array(
        [
            [cos, -sin, column - cos * centre + sin * centre],
            [sin, cos, row - sin * centre - cos * centre],
        ]
    )
    return cv2.warpAffine(
        detail, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )  # fmt: skip
