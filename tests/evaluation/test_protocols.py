from __future__ import annotations

from pathlib import Path

import pytest

from fc4d_ray.errors import ConfigError
from fc4d_ray.evaluation.protocols import load_protocol, protocol_names
from fc4d_ray.evaluation.published import PUBLISHED_ROWS
from fc4d_ray.priors.video.motion import load_clip


def test_the_shipped_protocols_load_and_name_what_exists() -> None:
    assert {"static", "animation", "ablation_views", "ablation_animation", "timing"} == set(
        protocol_names()
    )
    for name in protocol_names():
        protocol = load_protocol(name)
        assert protocol.name == name
        assert protocol.published in {*PUBLISHED_ROWS, "table 6"}
        for clip in protocol.clips:
            load_clip(clip)


def test_the_camera_set_decides_what_can_be_compared(tmp_path: Path) -> None:
    static = load_protocol("static")
    assert {v.name: v.azimuth_deg for v in static.views}["left"] == 90
    assert static.digest == load_protocol("ablation_views").digest
    assert static.digest != load_protocol("animation").digest


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: a\ntitle: b\n", "views must be one view or more"),
        ("name: a\ntitle: b\nvews: []\n", r"own.yaml, line 3: vews"),
        ("name: a\ntitle: b\nviews: [{name: x}]\n", r"azimuth_deg"),
        (
            "name: a\ntitle: b\nviews: [{name: x, azimuth_deg: 0}, {name: x, azimuth_deg: 1}]",
            "different names",
        ),
    ],
)
def test_a_mistake_in_a_protocol_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        load_protocol(str(path))
    with pytest.raises(ConfigError, match="neither a file nor one of ablation_animation"):
        load_protocol("statik")
