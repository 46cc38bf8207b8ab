from __future__ import annotations

import pydantic
import pytest

from fc4d_ray.avatar.config import TrainConfig

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
