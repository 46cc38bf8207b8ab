from __future__ import annotations

import pytest

from fc4d_ray.config import load_config
from fc4d_ray.errors import ConfigError
from fc4d_ray.priors.image.diffusion.config import PROFILES, DiffusionImageConfig


def test_profiles_fill_what_is_left_empty() -> None:
    assert DiffusionImageConfig().sampling == PROFILES["standard"]
    draft = DiffusionImageConfig(profile="draft", strength=0.5)
    assert (draft.sampling.steps, draft.sampling.strength) == (20, 0.5)
    assert draft.sampling.guidance == 1 < PROFILES["standard"].guidance


def test_the_variant_is_chosen_by_name_and_written_out_again() -> None:
    chosen = load_config(None, ["image={name: diffusion, exchange: {mode: union}}"])
    section = chosen.section("image")
    assert section.variant_name == "diffusion" and section.config.exchange.mode == "union"
    assert section.to_plain()["warp"]["propagation"] == "neighbour"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("size: 500", "image.size must be a multiple of 64"),
        ("steps: 1", "image.steps must be 2 or more"),
        ("strength: 0", r"image.strength must be in \(0, 1\]"),
        ("back_strength: 1.5", "image.back_strength"),
        ("guidance: 0.5", "image.guidance must be 1 or more"),
        ("guided_share: 2", "image.guided_share"),
        ("batch_rows: -1", "image.batch_rows"),
        ("background: 2", "image.background"),
        ("exchange: {layers: []}", "image.exchange.layers"),
        ("exchange: {first_layer: -1}", "image.exchange.first_layer"),
        ("exchange: {first_step_share: 1}", "image.exchange.first_step_share"),
        ("exchange: {behind_deg: 200}", "image.exchange.behind_deg"),
        ("warp: {latent_share: 0}", "image.warp.latent_share"),
        ("warp: {paste_until: 1.1}", "image.warp.paste_until"),
        ("warp: {erosion_px: -1}", "image.warp.erosion_px"),
        ("warp: {propagation: wave}", "image.warp.propagation"),
        ("gates: {retries: -1}", "image.gates.retries"),
        ("gates: {retry_noise: 2}", "image.gates.retry_noise"),
        ("model: {memory_gib: 0}", "image.model.memory_gib"),
        ("model: {bass: x}", "image.model.bass"),
        ("prompt: {column: ''}", "image.prompt.column"),
    ],
)
def test_impossible_options_are_refused_by_name(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [f"image={{name: diffusion, {options}}}"])
