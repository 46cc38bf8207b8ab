from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from fc4d_ray.priors.video.liveportrait.framing import (
    box_transform,
    crop_transform,
    driving_box,
    inverse,
)


@pytest.mark.parametrize("layout", ["c203", "c106", "c68", "c5"])
def test_crops_match_upstream(vectors: Callable[[str], Mapping[str, NDArray]], layout: str) -> None:
    """Upstream takes the angle by acos in single precision: a few thousandths of a pixel."""
    v = vectors("small")
    points = v[f"crop_{layout}_pts"]
    cases = {
        "rot1": {"size": 512},
        "rot0": {"size": 512, "upright": False},
        "lmk224": {"size": 224, "scale": 1.5, "shift_up": 0.1},
    }
    for name, options in cases.items():
        expected = v[f"crop_{layout}_M_o2c_{name}"][:2]
        ours = crop_transform(points, **options)
        np.testing.assert_allclose(
            points @ ours[:, :2].T + ours[:, 2],
            points @ expected[:, :2].T + expected[:, 2],
            rtol=0, atol=5e-3,
        )  # fmt: skip
    box = v[f"crop_{layout}_bbox_drv"]
    np.testing.assert_allclose(driving_box(points), [*box.min(0), *box.max(0)], rtol=0, atol=5e-3)


def test_a_crop_follows_the_face() -> None:
    points = np.array([[200.0, 210], [300, 215], [255, 270], [215, 325], [290, 330]])
    upright = crop_transform(points, 256)
    eyes_to_mouth = upright[:, :2] @ (points[3:].mean(0) - points[:2].mean(0))
    assert abs(eyes_to_mouth[0]) < 1e-9 and eyes_to_mouth[1] > 0
    back = inverse(upright)
    np.testing.assert_allclose(
        back[:, :2] @ (upright[:, :2] @ points[0] + upright[:, 2]) + back[:, 2], points[0]
    )
    # Twice as large and moved: the same crop.
    other = crop_transform(2 * points + 7, 256)
    np.testing.assert_allclose(
        other[:, :2] @ (2 * points[4] + 7) + other[:, 2],
        upright[:, :2] @ points[4] + upright[:, 2],
    )
    box = box_transform(np.array([10.0, 20, 110, 120]), 50)
    np.testing.assert_allclose(box @ [110, 120, 1], [50, 50])


def test_unusable_landmarks_are_refused() -> None:
    with pytest.raises(ValueError, match="found 7"):
        crop_transform(np.zeros((7, 2)), 256)
    with pytest.raises(ValueError, match="fall together"):
        crop_transform(np.zeros((5, 2)), 256)
