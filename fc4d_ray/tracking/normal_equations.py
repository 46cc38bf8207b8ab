"""Gauss-Newton's normal equations of everything the pictures say, batched over frames and views.

Every measurement concerns a point of the head, so a point's evidence from all cameras first adds
up to a 3 x 3 matrix and a vector; only then the head's derivatives at the point are needed, once
per frame instead of once per picture. That is where batching saves its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fc4d_ray.cameras import Camera
from fc4d_ray.tracking.evidence import sample_with_slope
from fc4d_ray.tracking.visibility import project_all, projection_slope

_LANDMARK_BEND = 3.0
"""Deviations up to which a landmark's distance counts squared; beyond it counts as its amount."""
_COLOUR_BEND = 4.0
_OUTLINE_BEND = 4.0


@dataclass(frozen=True)
class PointEvidence:
    """Normal equations in the points' own places."""

    matrix: Tensor  # [T, N, 3, 3]
    right: Tensor  # [T, N, 3] minus half the gradient
    energy: Tensor  # [] sum of robust losses

    def weighted(self, weight: float) -> PointEvidence:
        return PointEvidence(weight * self.matrix, weight * self.right, weight * self.energy)


def landmark_evidence(
    points: Tensor,  # [T, L, 3]
    cameras: Sequence[Camera],
    pixels: Tensor,  # [T, views, L, 2]
    confidence: Tensor,  # [T, views, L]
    deviation_m: float,
) -> PointEvidence:
    """Distances in the pictures, as lengths at the head; Huber's loss."""
    found, depth = project_all(points, cameras)
    slope = projection_slope(points, cameras)
    focal = points.new_tensor([float(camera.K[0, 0]) for camera in cameras])[:, None]
    per_pixel = depth.detach() / focal / deviation_m
    known = confidence > 0
    gap = torch.where(known[..., None], pixels - found, 0.0) * per_pixel[..., None]
    slope = slope * per_pixel[..., None, None]
    distance = gap.norm(dim=-1)
    bend = _LANDMARK_BEND
    weight = confidence * (bend / distance.clamp_min(bend))
    square = torch.where(distance < bend, distance.square(), 2 * bend * distance - bend**2)
    return PointEvidence(
        torch.einsum("tvn,tvnka,tvnkb->tnab", weight, slope, slope),
        torch.einsum("tvn,tvnka,tvnk->tna", weight, slope, gap),
        (confidence * square).sum(),
    )


def colour_evidence(
    points: Tensor,  # [T, N, 3]
    cameras: Sequence[Camera],
    images: Tensor,  # [T, views, 3, H, W] 0…1
    expected: Tensor,  # [T, N, 3] the head's own colours
    trust: Tensor,  # [T, views, N] 0 where hidden
    deviation: float,
    count: float,
) -> PointEvidence:
    """Colours at the points' pixels against the head's; Geman and McClure's loss.

    The evidence of a picture counts as ``count`` measurements, however many points it shows.
    """
    n_frames, n_views = images.shape[:2]
    pixels, _ = project_all(points, cameras)
    values, slopes = sample_with_slope(images.flatten(0, 1), pixels.flatten(0, 1))
    values = values.unflatten(0, (n_frames, n_views)) / deviation
    slopes = slopes.unflatten(0, (n_frames, n_views)) / deviation
    gap = expected[:, None] / deviation - values
    square = gap.square().sum(-1) / _COLOUR_BEND**2
    share = trust * (count / trust.sum(-1, keepdim=True).clamp_min(30.0))
    weight = share / (1 + square).square()
    image_slope = torch.einsum("tvnck,tvnka->tvnca", slopes, projection_slope(points, cameras))
    return PointEvidence(
        torch.einsum("tvn,tvnca,tvncb->tnab", weight, image_slope, image_slope),
        torch.einsum("tvn,tvnca,tvnc->tna", weight, image_slope, gap),
        (share * _COLOUR_BEND**2 * square / (1 + square)).sum(),
    )


def outline_evidence(
    points: Tensor,  # [T, N, 3]
    cameras: Sequence[Camera],
    outside: Tensor,  # [T, views, 1, H, W] px, positive outside the matte
    is_rim: Tensor,  # [T, views, N] whether the point lies on the head's bare outline
    deviation_m: float,
    count: float,
) -> PointEvidence:
    """No point may lie outside the matte; the bare outline lies on its edge where that is near."""
    n_frames, n_views = outside.shape[:2]
    pixels, depth = project_all(points, cameras)
    distance, slopes = sample_with_slope(outside.flatten(0, 1), pixels.flatten(0, 1))
    focal = points.new_tensor([float(camera.K[0, 0]) for camera in cameras])[:, None]
    per_pixel = depth.detach() / focal / deviation_m
    gap = -distance.unflatten(0, (n_frames, n_views))[..., 0] * per_pixel
    slope = slopes.unflatten(0, (n_frames, n_views))[..., 0, :] * per_pixel[..., None]
    slope = torch.einsum("tvnk,tvnka->tvna", slope, projection_slope(points, cameras))
    square = gap.square() / _OUTLINE_BEND**2
    counted = (gap < 0) | is_rim
    share = counted * (count / counted.sum(-1, keepdim=True).clamp_min(count))
    weight = share / (1 + square).square()
    return PointEvidence(
        torch.einsum("tvn,tvna,tvnb->tnab", weight, slope, slope),
        torch.einsum("tvn,tvna,tvn->tna", weight, slope, gap),
        (share * _OUTLINE_BEND**2 * square / (1 + square)).sum(),
    )


def to_parameters(evidence: PointEvidence, slope: Tensor) -> tuple[Tensor, Tensor]:
    """(T, M, M) and (T, M) of point evidence and the points' derivatives (T, N, 3, M)."""
    carried = (evidence.matrix @ slope).flatten(1, 2)
    flat = slope.flatten(1, 2)
    right = torch.einsum("tnm,tn->tm", flat, evidence.right.flatten(1))
    return flat.transpose(1, 2) @ carried, right
