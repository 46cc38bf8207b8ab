from __future__ import annotations

import numpy as np
import pytest
from ball_avatars import ball_avatar

from fc4d_ray.avatar.splatting import render_depth
from fc4d_ray.cameras import orbit_camera
from fc4d_ray.evaluation.metrics.agreement import PosedView, neighbour_agreement
from fc4d_ray.playback import Performance, on_white, render_rgba


def views(azimuths: tuple[float, ...], tint: float = 0.0) -> list[PosedView]:
    avatar = ball_avatar()
    found = []
    for i, azimuth in enumerate(azimuths):
        camera = orbit_camera(azimuth, size=96)
        image = on_white(render_rgba(avatar, camera, Performance().parameters(0)))
        image = np.clip(image + tint * (-1) ** i, 0, 255).astype(np.uint8)
        depth = render_depth(avatar.splats({}), camera).numpy()
        found.append(PosedView(azimuth, image, depth, camera))
    return found


def test_one_object_agrees_with_itself_and_tinted_views_do_not() -> None:
    same, tinted = (neighbour_agreement(views((0, 20, 40), tint)) for tint in (0.0, 25.0))
    assert same.pairs == 2 and 0.6 < same.coverage < 1
    assert same.psnr > tinted.psnr + 3
    assert same.lpips is None
    scored = neighbour_agreement(views((0, 20)), lambda a, b: (a - b).abs().mean())
    assert 0 < scored.lpips < 0.05


def test_a_closed_orbit_pairs_the_last_view_with_the_first() -> None:
    assert neighbour_agreement(views((0, 90, 180, -90))).pairs == 4
    assert neighbour_agreement(views((-90, 0, 90))).pairs == 2


def test_views_that_share_nothing_have_no_figure() -> None:
    front, back = views((0, 180))
    assert neighbour_agreement([front]) is None
    assert neighbour_agreement([front, back]) is None or (
        neighbour_agreement([front, back]).coverage == pytest.approx(0, abs=0.1)
    )
