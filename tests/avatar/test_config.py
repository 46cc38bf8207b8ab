from __future__ import annotations

from dataclasses import fields, replace

import pydantic
import pytest
import yaml

from fc4d_ray.avatar.coin import CoinConfig
from fc4d_ray.avatar.config import TrainConfig
from fc4d_ray.avatar.trainer import train_avatar
from fc4d_ray.config import load_config
from fc4d_ray.config_source import profile_path
from fc4d_ray.errors import ConfigError

ADAPTER = pydantic.TypeAdapter(TrainConfig)


def test_a_nested_section_of_a_file_becomes_a_config():
    config = ADAPTER.validate_python(
        {"coin": {"structure": "lpips_alex"}, "rates": {"head": {"neck": 1e-5}}, "window": {}}
    )
    assert config.coin.structure == "lpips_alex"
    assert config.rates.head == {"neck": 1e-5}
    assert (config.static_steps, config.coin_steps) == (30_000, 90_000)


@pytest.mark.parametrize("section", ["window", "losses", "rates", "density", "coin"])
def test_misspelled_options_are_refused_in_every_section(section):
    with pytest.raises(pydantic.ValidationError, match="offset_wait"):
        ADAPTER.validate_python({section: {"offset_wait": 1}})


def test_the_paper_profile_is_the_trainers_own_default_to_the_letter():
    """What differs depends on machine and head; the paper's numbers are stated once more here."""
    train = load_config("paper").section("train").config
    written = yaml.safe_load(profile_path("paper").read_text())["train"]
    plain = {field.name: getattr(train, field.name) for field in fields(TrainConfig)}
    plain |= {"device": "cpu", "rates": replace(train.rates, head={})}
    assert TrainConfig(**plain) == TrainConfig()
    assert (train.device, train.start) == ("cuda", "faces")
    assert (train.static_steps, train.coin_steps, train.sh_degree) == (30_000, 90_000, 3)
    weights = (train.losses.l1, train.losses.ssim, train.coin.structure_weight)
    assert (*weights, train.coin.offset_weight) == (0.8, 0.2, 0.05, 1.0)
    own = {"lpips_backbone"}
    assert set(written["coin"]) == {f.name for f in fields(CoinConfig)} - own, "all are stated"


def test_a_device_that_is_not_there_is_named(ellipsoid, make_frames, make_splats):
    with pytest.raises(ConfigError, match=r"train\.device 'cuda:77' cannot be used"):
        train_avatar(ellipsoid, make_frames(48), make_splats(500), TrainConfig(device="cuda:77"), 0)
