"""The shipped configurations hold together: the paper's numbers, ablations of one thing each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fc4d_ray.cameras import ORBIT_VIEWS
from fc4d_ray.config import RunConfig, load_config, to_plain
from fc4d_ray.config_source import profile_directory, profile_names

ABLATIONS = sorted((profile_directory() / "ablations").glob("*.yaml"))
CHANGED = {
    "full": set(),
    "no_warp": {"image.warp.enabled"},
    "no_mutual_attention": {"image.exchange.enabled"},
    "no_warp_no_mutual_attention": {"image.warp.enabled", "image.exchange.enabled"},
    "no_coin": {"train.coin.enabled"},
}
"""Options in which each row of tables 4 and 5 differs from the full method."""


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {path: value}
    parts = (_flat(item, f"{path}.{key}" if path else key) for key, item in value.items())
    return {key: item for part in parts for key, item in part.items()}


def _options(config: RunConfig) -> dict[str, Any]:
    return _flat({section.entry.name: section.to_plain() for section in config.sections})


@pytest.fixture(scope="module")
def paper() -> RunConfig:
    return load_config("paper")


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_loads_and_reproduces_itself(name: str) -> None:
    config = load_config(name)
    from fc4d_ray.config import parse_config

    assert parse_config(config.to_yaml()).digest == config.digest


def test_the_papers_numbers(paper: RunConfig) -> None:
    chosen = {section.entry.name: section.variant_name for section in paper.sections}
    assert (chosen["shape"], chosen["image"], chosen["video"]) == (
        "panohead",
        "diffusion",
        "liveportrait",
    )
    video, train = paper.section("video").config, paper.section("train").config
    assert ORBIT_VIEWS == 24 and paper.section("shape").config.view_size == 512
    assert video.clips == 8 and video.max_azimuth_deg == 75 and video.frame_size == 512
    assert (video.motion.relative, video.motion.region) == (True, "exp")
    assert (train.static_steps, train.coin_steps) == (30_000, 90_000)
    assert (train.losses.l1, train.losses.ssim) == (0.8, 0.2)
    assert (train.coin.structure_weight, train.coin.offset_weight) == (0.05, 1.0)
    assert all(
        paper.run.needs(stage).uses_gpu for stage in ("shape", "image", "video", "track", "train")
    )


def test_the_paper_profile_on_tiny_networks_takes_the_same_parts(paper: RunConfig) -> None:
    tiny = load_config("tiny")
    for section in paper.sections:
        assert tiny.section(section.entry.name).variant == section.variant
    assert not any(tiny.run.needs(stage).uses_gpu for stage in tiny.stage_names)


def test_fast_does_less_of_the_same(paper: RunConfig) -> None:
    fast, slow = load_config("fast"), paper
    assert all(fast.section(s.entry.name).variant == s.variant for s in slow.sections)
    pairs = [
        (c.section("train").config.static_steps + c.section("train").config.coin_steps,
         c.section("video").config.frames_per_clip,
         c.section("shape").config.inversion.latent_steps,
         c.section("image").config.sampling.steps)
        for c in (fast, slow)
    ]  # fmt: skip
    assert all(less < more for less, more in zip(*pairs, strict=True))


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_ablations_change_what_their_row_says(path: Path, paper: RunConfig) -> None:
    config = load_config(path)
    full, ablated = _options(paper), _options(config)
    changed = {key for key in full.keys() | ablated.keys() if full.get(key) != ablated.get(key)}
    if path.stem == "no_video_prior":
        assert {key.split(".")[0] for key in changed} == {"video"}
        assert to_plain(config.section("video").config)["clips"] == ["neutral"]
    else:
        assert changed == CHANGED[path.stem]


def test_every_row_has_its_file() -> None:
    assert {path.stem for path in ABLATIONS} == {*CHANGED, "no_video_prior"}
