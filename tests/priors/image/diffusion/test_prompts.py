from __future__ import annotations

import pytest

from fc4d_ray.errors import ConfigError, InvalidAnnotation
from fc4d_ray.priors.image.diffusion.prompts import PromptConfig, portrait_sentence, view_prompt

CONFIG = PromptConfig(column="caption", template="a person")


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_empty_cells_take_the_template(value) -> None:
    assert portrait_sentence({"caption": value}, CONFIG) == "a person"


def test_a_missing_column_takes_the_template_and_text_is_used() -> None:
    assert portrait_sentence({"prompt": "other"}, CONFIG) == "a person"
    assert portrait_sentence({"caption": " a painter \n"}, CONFIG) == "a painter"


@pytest.mark.parametrize("value", [3, 2.5, ["a"], True, {"a": 1}])
def test_cells_that_are_no_text_are_refused(value) -> None:
    with pytest.raises(InvalidAnnotation, match="column 'caption' must hold text or null, found"):
        portrait_sentence({"caption": value}, CONFIG)


@pytest.mark.parametrize(
    ("azimuth", "phrase"),
    [
        (0, "facing camera"), (-30, "facing camera"), (345, "facing camera"),
        (45, "three-quarter view"), (-90, "side profile view"), (180, "seen from behind"),
        (-150, "seen from behind"), (540, "seen from behind"),
    ],
)  # fmt: skip
def test_the_phrase_follows_the_azimuth(azimuth, phrase) -> None:
    assert view_prompt("a man", azimuth, CONFIG).startswith(f"a man, {phrase}")


def test_phrases_can_be_left_out_and_a_column_must_have_a_name() -> None:
    assert view_prompt("a man", 90, PromptConfig(view_phrases=False)) == "a man"
    with pytest.raises(ConfigError, match="image.prompt.column"):
        PromptConfig(column="")
