"""One synthetic person, photographed turned by 20 degrees, and what the shape prior makes of it."""

from __future__ import annotations

import pytest

from fc4d_ray.evaluation.synthetic import SyntheticPerson, SyntheticPortrait, make_person
from fc4d_ray.heads.anny import AnnyHead, load_anny_head
from fc4d_ray.priors.shape.anny import AnnyShapeConfig, FittedPerson, fit_person
from fc4d_ray.priors.shape.fitting import FitConfig
from fc4d_ray.priors.shape.outer_shell import ShellConfig

SIZE = 256


@pytest.fixture(scope="session")
def head() -> AnnyHead:
    """The compact head model; the first run on a machine builds it."""
    return load_anny_head()


@pytest.fixture(scope="session")
def person(head: AnnyHead) -> SyntheticPerson:
    """Thick dark hair, striped clothes."""
    return make_person(1, head)


@pytest.fixture(scope="session")
def portrait(person: SyntheticPerson) -> SyntheticPortrait:
    return person.portrait(person.portrait_camera(20, SIZE, fov_deg=23))


@pytest.fixture(scope="session")
def shape_config() -> AnnyShapeConfig:
    return AnnyShapeConfig(
        view_size=160, fit=FitConfig(steps=250), shell=ShellConfig(voxel_m=0.008)
    )


@pytest.fixture(scope="session")
def fitted(
    head: AnnyHead, portrait: SyntheticPortrait, shape_config: AnnyShapeConfig
) -> FittedPerson:
    return fit_person(
        head, portrait.image, portrait.matte, portrait.labels, portrait.landmarks, shape_config
    )
