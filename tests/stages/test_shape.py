from __future__ import annotations

import json

import numpy as np
import pytest

from fc4d_ray.errors import FitFailed
from fc4d_ray.evaluation.synthetic import surface_error_mm
from fc4d_ray.heads.rig import Region
from fc4d_ray.priors.shape.views import REFERENCE, read_views
from fc4d_ray.stages.person_files import read_person
from fc4d_ray.stages.shape import ShapeStage


def test_the_documented_files_are_there_and_nothing_else(shape) -> None:
    names = {p.name for p in shape.directory.iterdir()}
    assert names == {"head.npz", "cameras.json", "views", "depth", "materials", "shape.json"}
    assert len(list((shape.directory / "views").iterdir())) == 25
    assert json.loads((shape.directory / "shape.json").read_text()) == shape.facts


def test_facts_are_plain_and_right(shape) -> None:
    json.dumps(shape.facts)
    assert shape.facts["azimuth_deg"] == pytest.approx(15, abs=4)
    assert 0 < shape.facts["landmark_error"] < 0.02
    assert 0.005 < shape.facts["hair_thickness_m"] < 0.05


def test_the_person_reads_back_whole(shape, person) -> None:
    files = read_person(shape.directory)
    count = len(files.rig.neutral)
    assert files.colour.shape == (count, 3) and files.material.shape == (count,)
    assert shape.facts["n_vertices"] == count
    assert (files.rig.region == Region.HAIR).any()
    assert surface_error_mm(files.rig.neutral, person) < 1.0


def test_the_last_view_is_the_portraits_own(shape, portrait) -> None:
    views = read_views(shape.directory)
    assert len(views) == 25 and views[-1].name == REFERENCE
    assert views[-1].rgba.shape[:2] == portrait.image.shape[:2]
    surface, truth = views[-1].depth > 0, portrait.matte > 127
    above = np.s_[: int(portrait.landmarks[8, 1])]
    overlap = (surface & truth)[above].sum() / (surface | truth)[above].sum()
    assert overlap > 0.9


def test_a_second_run_gives_equal_bytes(shape, ingest, configs, again) -> None:
    other = again(ShapeStage(), {"ingest": ingest}, configs["shape"])
    assert other.facts == shape.facts
    for path in sorted(p for p in shape.directory.rglob("*") if p.is_file()):
        twin = other.directory / path.relative_to(shape.directory)
        if path.suffix == ".npz":
            with np.load(path) as one, np.load(twin) as two:
                assert all(one[k].tobytes() == two[k].tobytes() for k in one.files)
        else:
            assert path.read_bytes() == twin.read_bytes(), path.name


def test_landmarks_of_no_face_fail_typed(ingest, configs, again, tmp_path) -> None:
    for path in ingest.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    facts = json.loads((tmp_path / "ingest.json").read_text())
    facts["landmarks"] = np.random.default_rng(0).uniform(0, 192, (68, 2)).tolist()
    (tmp_path / "ingest.json").write_text(json.dumps(facts))
    with pytest.raises(FitFailed):
        again(ShapeStage(), {"ingest": tmp_path}, configs["shape"])
