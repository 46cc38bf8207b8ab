"""Quality gates of finished views, and which of several tries is the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.portraits.dlib_models import FaceModels
from fc4d_ray.priors.image.diffusion.compositing import Composite
from fc4d_ray.priors.image.diffusion.config import GateConfig
from fc4d_ray.priors.image.diffusion.views import GuideView, straight_rgba

FaceScore = Callable[[NDArray[np.uint8], NDArray[np.bool_]], float | None]
"""Best score of a face on the head in an RGB picture (S, S, 3), None where there is none."""

_LOOK_SIZE = 512
_HEAD_OVERLAP = 0.5
_SOLID = 0.5


@dataclass(frozen=True)
class ViewVerdict:
    """What one try of a view measured."""

    coverage: float
    """Share of the head's pixels that finished views showed."""
    agreement_db: float | None
    """PSNR against what those views showed, None where they showed nothing."""
    face_score: float | None
    """Score of a face found from behind; None: none found, or not looked for."""
    failures: tuple[str, ...]
    """Names of the gates that were not passed."""

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def order(self) -> tuple[float, float, float]:
        """Larger is better."""
        agreement = self.agreement_db if self.agreement_db is not None else 0.0
        return (-len(self.failures), -(self.face_score or 0.0), agreement)

    def to_json(self) -> dict[str, Any]:
        return {
            "coverage": round(self.coverage, 4),
            "agreement_db": None if self.agreement_db is None else round(self.agreement_db, 2),
            "face_score": None if self.face_score is None else round(self.face_score, 3),
            "failures": list(self.failures),
        }


def judge(
    image: Tensor,  # [3, S, S] 0…1, finished
    view: GuideView,
    composite: Composite,
    config: GateConfig,
    face_score: FaceScore,
) -> ViewVerdict:
    """Measure a finished view. A view that is not finite fails every comparison."""
    failures = []
    agreement = agreement_db(image, composite.image, composite.trusted)
    if agreement is not None and agreement < config.min_agreement_db:
        failures.append("agreement")
    score = None
    if abs((view.azimuth_deg + 180) % 360 - 180) >= config.behind_deg:
        score = _score_from_behind(image, view, face_score)
        if score is not None and score > config.face_threshold:
            failures.append("face_behind")
    if not bool(torch.isfinite(image).all()):
        failures.append("not_finite")
    return ViewVerdict(composite.coverage, agreement, score, tuple(failures))


def agreement_db(image: Tensor, other: Tensor, mask: Tensor) -> float | None:
    """PSNR of two pictures (3, S, S) over a mask (S, S), at most 100; None for an empty mask."""
    if not bool(mask.any()):
        return None
    error = float((image - other)[:, mask].square().mean())
    if not np.isfinite(error):
        return 0.0
    return float(-10 * np.log10(max(error, 1e-10)))


def dlib_face_score(models: FaceModels | None = None) -> FaceScore:
    """dlib's frontal detector, upsampled once; a box counts where half of it is on the head."""
    models = FaceModels() if models is None else models

    def score(picture: NDArray[np.uint8], head: NDArray[np.bool_]) -> float | None:
        found = models.find_hog(picture, upsample=1, threshold=-1.0)
        scores = [one.score for one in found if _share_on(one.box, head) >= _HEAD_OVERLAP]
        return max(scores, default=None)

    return score


def _score_from_behind(image: Tensor, view: GuideView, face_score: FaceScore) -> float | None:
    side = min(_LOOK_SIZE, image.shape[-1])
    alpha = torch.nn.functional.interpolate(view.alpha[None, None], (side, side), mode="area")[0, 0]
    levels = (alpha * 255 + 0.5).to(torch.uint8).cpu().numpy()
    rgba = straight_rgba(image.nan_to_num(0), levels)
    weight = rgba[..., 3:].astype(np.float32) / 255
    picture = rgba[..., :3] * weight + 255 * (1 - weight)
    return face_score(np.rint(picture).astype(np.uint8), levels > 255 * _SOLID)


def _share_on(box: NDArray, head: NDArray[np.bool_]) -> float:
    left, top, right, bottom = np.rint(box).astype(int)
    window = head[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    return float(window.sum()) / max((right - left) * (bottom - top), 1)
