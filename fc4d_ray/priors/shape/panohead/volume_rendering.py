"""Two-pass volume rendering of a tri-grid, deterministic, with mask and depth.

Lengths are PanoHead units, depth here is distance along the unit ray. Shapes: P people, R rays per
person, n samples. The second pass puts samples where the first found density; the first pass's
features are used again, not dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fc4d_ray.priors.shape.panohead.settings import RaySettings
from fc4d_ray.priors.shape.panohead.trigrid import Decoder, plane_features

CROPPED_DENSITY = -1000.0
"""Raw density of samples outside the crop: empties both intervals they bound."""


@dataclass(frozen=True)
class RayColours:
    """What the rays of one call saw."""

    features: Tensor  # [P, R, 32] weighted sum, without background
    distance: Tensor  # [P, R] along the ray; +inf where a ray met nothing
    opacity: Tensor  # [P, R] sum of the weights, 0…1
    nearest: Tensor  # [] smallest sample distance of all rays
    farthest: Tensor  # [] largest one: what an empty ray reports after clamping

    def clamped_distance(self) -> Tensor:
        """Distance (P, R) within the range of all samples, so that empty rays are finite."""
        return self.distance.clamp(self.nearest.detach(), self.farthest.detach())


def render_rays(
    planes: Tensor,  # [P, 3, 32, D, H, W]
    decoder: Decoder,
    origins: Tensor,  # [P, R, 3]
    directions: Tensor,  # [P, R, 3] unit length
    settings: RaySettings,
    near_shift: Tensor | None = None,  # [P, R] added to near and far, for cameras further away
) -> RayColours:
    """March all rays: coarse samples at the middle of even bins, fine ones where density is."""
    coarse = coarse_depths(settings, origins)
    coarse = coarse.expand(*origins.shape[:2], -1)
    if near_shift is not None:
        coarse = coarse + near_shift[..., None]
    depths = coarse
    density, features = _look_up(planes, decoder, origins, directions, coarse, settings)
    parts = [features]
    if settings.fine_samples:
        with torch.no_grad():
            weights = interval_weights(density, coarse)
            fine = importance_depths(coarse, weights, settings.fine_samples)
        fine_density, fine_features = _look_up(planes, decoder, origins, directions, fine, settings)
        parts.append(fine_features)
        depths = torch.cat([coarse, fine], -1)
        density = torch.cat([density, fine_density], -1)
    return _march(depths, density, parts)


def coarse_depths(settings: RaySettings, like: Tensor) -> Tensor:
    """Even depths (n,), each in the middle of its bin; the last lies half a bin behind far."""
    count = settings.coarse_samples
    steps = torch.arange(count, device=like.device, dtype=torch.float64) + 0.5
    step = (settings.far - settings.near) / (count - 1)
    return (settings.near + steps * step).to(like.dtype)


def interval_weights(density: Tensor, depths: Tensor) -> Tensor:
    """Weights (..., n - 1) of the intervals between samples of raw density at depths (..., n).

    Raw densities are averaged before the softplus, so one cropped sample empties two intervals.
    """
    sigma = F.softplus((density[..., :-1] + density[..., 1:]) / 2 - 1)
    alpha = 1 - torch.exp(-sigma * depths.diff(dim=-1))
    clear = torch.cumprod(1 - alpha + 1e-10, -1)
    return alpha * torch.cat([torch.ones_like(clear[..., :1]), clear[..., :-1]], -1)


def importance_depths(depths: Tensor, weights: Tensor, count: int) -> Tensor:
    """Depths (..., count) drawn evenly from the distribution that weights (..., n - 1) suggest.

    Interval k + 1 is booked between the midpoints k and k + 1 and the last midpoint is never used,
    as in the published network: samples sit half a bin too near.
    """
    flat = F.pad(weights, (1, 1), value=-torch.inf).unfold(-1, 2, 1).amax(-1)
    smooth = flat.unfold(-1, 2, 1).mean(-1) + 0.01
    middles = (depths[..., :-1] + depths[..., 1:]) / 2
    return sample_piecewise(middles[..., :-1], smooth[..., 1:-1], count)


def sample_piecewise(edges: Tensor, weights: Tensor, count: int) -> Tensor:
    """Quantiles (..., count) at 0…1, ends included, of a piecewise constant density.

    ``edges`` (..., m) bound ``weights`` (..., m - 1).
    """
    mass = weights + 1e-5
    mass = mass / mass.sum(-1, keepdim=True)
    cumulative = F.pad(mass.cumsum(-1), (1, 0))
    wanted = torch.linspace(0, 1, count, device=edges.device, dtype=edges.dtype)
    wanted = wanted.expand(*edges.shape[:-1], count).contiguous()
    above = torch.searchsorted(cumulative.contiguous(), wanted, right=True)
    low = (above - 1).clamp_min(0)
    high = above.clamp_max(weights.shape[-1])
    c0, c1 = cumulative.gather(-1, low), cumulative.gather(-1, high)
    e0, e1 = edges.gather(-1, low), edges.gather(-1, high)
    gap = c1 - c0
    gap = torch.where(gap < 1e-5, torch.ones_like(gap), gap)
    return e0 + (wanted - c0) / gap * (e1 - e0)


def _look_up(
    planes: Tensor,
    decoder: Decoder,
    origins: Tensor,
    directions: Tensor,
    depths: Tensor,  # [P, R, n]
    settings: RaySettings,
) -> tuple[Tensor, Tensor]:
    """Raw density (P, R, n), cropped, and features (P, R, n, 32)."""
    points = origins[:, :, None] + depths[..., None] * directions[:, :, None]
    flat = points.flatten(1, 2)
    features = plane_features(planes, flat, settings.box_size).mean(1)
    density, colours = decoder(features)
    limit = settings.box_size / 2 - settings.crop_margin
    outside = (flat[..., 0].abs() > limit) | (flat[..., 2].abs() > limit)
    density = density.masked_fill(outside, CROPPED_DENSITY)
    return density.unflatten(1, depths.shape[1:]), colours.unflatten(1, depths.shape[1:])


def _march(depths: Tensor, density: Tensor, parts: list[Tensor]) -> RayColours:
    """Composite samples (P, R, n) in order of depth; ``parts`` are their features, in columns.

    Neighbouring samples share an interval's weight, so each sample's own weight is the mean of its
    two intervals': only scalars are sorted, features stay where they are.
    """
    ordered, order = depths.sort(-1)
    weights = interval_weights(density.gather(-1, order), ordered)
    opacity = weights.sum(-1)
    middles = (ordered[..., :-1] + ordered[..., 1:]) / 2
    met = opacity > 0
    safe = torch.where(met, opacity, torch.ones_like(opacity))
    distance = torch.where(met, (weights * middles).sum(-1) / safe, torch.inf)
    shared = (F.pad(weights, (1, 0)) + F.pad(weights, (0, 1))) / 2
    own = torch.zeros_like(shared).scatter(-1, order, shared)
    features = 0
    for part, part_weights in zip(parts, own.split([p.shape[-2] for p in parts], -1), strict=True):
        features = features + (part_weights[..., None, :] @ part)[..., 0, :]
    return RayColours(features, distance, opacity, ordered[..., 0].min(), ordered[..., -1].max())
