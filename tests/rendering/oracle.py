"""Plain PyTorch rasterization of 3D Gaussians: slow, short, differentiable by autograd alone.

The reference the compiled rasterizer is tested against and, as ``render_tiles``, timed against.
Same conventions (gsplat 1.5.3, pinhole); one camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_ALPHA = 1.0 / 255.0
STOP = 1e-4
TILE = 16


@dataclass(frozen=True)
class Ellipses:
    """Visible splats, front to back."""

    rows: Tensor  # [M] index of the splat
    means2d: Tensor  # [M, 2]
    conics: Tensor  # [M, 3]
    opacities: Tensor  # [M]
    depths: Tensor  # [M]
    half_sizes: Tensor  # [M, 2] pixels, of a box outside of which alpha < 1/255


def rotation_matrices(quats: Tensor) -> Tensor:
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def project(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    *,
    near: float = 0.01,
    eps2d: float = 0.3,
    antialiased: bool = False,
) -> Ellipses:
    points = means @ viewmat[:3, :3].T + viewmat[:3, 3]
    rows = torch.nonzero((points[:, 2] >= near) & (opacities >= MIN_ALPHA)).squeeze(1)
    x, y, z = points[rows].unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    tx = z * (x / z).clamp(-(cx / fx + margin_x), (width - cx) / fx + margin_x)
    ty = z * (y / z).clamp(-(cy / fy + margin_y), (height - cy) / fy + margin_y)
    # An unclamped direction must not send gradients through the division above.
    tx = torch.where(tx == z * (x / z), x, tx)
    ty = torch.where(ty == z * (y / z), y, ty)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([fx / z, zero, -fx * tx / z**2], -1),
            torch.stack([zero, fy / z, -fy * ty / z**2], -1),
        ],
        -2,
    )
    axes = viewmat[:3, :3] @ rotation_matrices(quats[rows]) * scales[rows, None, :]
    sharp = jacobian @ axes @ axes.mT @ jacobian.mT
    blurred = sharp + eps2d * torch.eye(2, dtype=means.dtype)
    inverse = torch.linalg.inv(blurred)
    opacity = opacities[rows]
    if antialiased:
        opacity = (
            opacity * (torch.linalg.det(sharp) / torch.linalg.det(blurred)).clamp_min(0).sqrt()
        )
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    order = torch.argsort(z, stable=True)
    half = 3.4 * blurred.detach().diagonal(dim1=-2, dim2=-1).sqrt()
    conics = torch.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], -1)
    values = (rows, means2d, conics, opacity, z, half)
    return Ellipses(*(value[order] for value in values))


def composite(
    ellipses: Ellipses,
    chosen: Tensor,  # [M'] rows of the ellipses, ascending
    features: Tensor,  # [N, D]
    pixels: Tensor,  # [P, 2] centres
    alpha_cap: float,
) -> tuple[Tensor, Tensor]:
    """Sums (P, D) and final transmittances (P,)."""
    delta = pixels[:, None] - ellipses.means2d[chosen]
    a, b, c = ellipses.conics[chosen].unbind(-1)
    dx, dy = delta.unbind(-1)
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (ellipses.opacities[chosen] * torch.exp(-sigma)).clamp_max(alpha_cap)
    alpha = torch.where((sigma >= 0) & (alpha >= MIN_ALPHA), alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, 1)
    alpha = torch.where(after > STOP, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
    final = after[:, -1] if len(chosen) else torch.ones_like(pixels[:, 0])
    return (alpha * before) @ features[ellipses.rows[chosen]], final


def pixel_centres(left: int, top: int, right: int, bottom: int, like: Tensor) -> Tensor:
    y, x = torch.meshgrid(
        torch.arange(top, bottom) + 0.5, torch.arange(left, right) + 0.5, indexing="ij"
    )
    return torch.stack([x, y], -1).reshape(-1, 2).to(like)


def render_dense(
    ellipses: Ellipses,
    features: Tensor,  # [N, D]
    background: Tensor,  # [D]
    width: int,
    height: int,
    alpha_cap: float = 0.999,
) -> tuple[Tensor, Tensor]:
    """Image (H, W, D) and alpha (H, W): every pixel meets every splat."""
    pixels = pixel_centres(0, 0, width, height, features)
    chosen = torch.arange(len(ellipses.rows))
    image, final = composite(ellipses, chosen, features, pixels, alpha_cap)
    image = image + final[:, None] * background
    return image.reshape(height, width, -1), (1 - final).reshape(height, width)


def render_tiles(
    ellipses: Ellipses,
    features: Tensor,
    background: Tensor,
    width: int,
    height: int,
    alpha_cap: float = 0.999,
) -> tuple[Tensor, Tensor]:
    """The same picture, 16 x 16 pixels at a time, each with the splats whose box meets it."""
    low = ellipses.means2d.detach() - ellipses.half_sizes
    high = ellipses.means2d.detach() + ellipses.half_sizes
    image_rows, alpha_rows = [], []
    for top in range(0, height, TILE):
        images, alphas = [], []
        for left in range(0, width, TILE):
            right, bottom = min(left + TILE, width), min(top + TILE, height)
            meets = (high[:, 0] > left) & (low[:, 0] < right)
            meets &= (high[:, 1] > top) & (low[:, 1] < bottom)
            chosen = torch.nonzero(meets).squeeze(1)
            pixels = pixel_centres(left, top, right, bottom, features)
            image, final = composite(ellipses, chosen, features, pixels, alpha_cap)
            shape = (bottom - top, right - left)
            images.append((image + final[:, None] * background).reshape(*shape, -1))
            alphas.append((1 - final).reshape(shape))
        image_rows.append(torch.cat(images, 1))
        alpha_rows.append(torch.cat(alphas, 1))
    return torch.cat(image_rows, 0), torch.cat(alpha_rows, 0)
