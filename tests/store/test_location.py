from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from fc4d_ray.errors import StoreError
from fc4d_ray.store.location import find_output, open_output


def test_a_new_folder_becomes_ours_and_opens_again(tmp_path: Path) -> None:
    open_output(str(tmp_path / "deep" / "out"), create=True)
    assert open_output(str(tmp_path / "deep" / "out")).names("") == ["fc4d.json"]


def test_remote_locations_work_alike() -> None:
    uri = f"memory://{uuid.uuid4().hex}"
    open_output(uri, create=True)
    assert open_output(uri).names("") == ["fc4d.json"]


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    for look in (
        lambda: open_output(str(tmp_path), create=True),
        lambda: find_output(str(tmp_path)),
    ):
        with pytest.raises(StoreError, match=r"not made by fc4d \(it holds holiday\.jpg\)"):
            look()
    assert [p.name for p in tmp_path.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ({"format": "fc4d-output", "schema": 99}, "output schema 99"),
        ({"format": "something else"}, "not written by fc4d"),
        ([1], "not written by fc4d"),
    ],
)
def test_other_schemas_are_refused(tmp_path: Path, marker: object, message: str) -> None:
    (tmp_path / "fc4d.json").write_text(json.dumps(marker))
    with pytest.raises(StoreError, match=message):
        open_output(str(tmp_path), create=True)


def test_a_place_without_runs_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no output"):
        open_output(str(tmp_path / "nothing"))
    assert find_output(str(tmp_path / "nothing")) is None
    assert not (tmp_path / "nothing").exists()


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        open_output(str(tmp_path / "file"), create=True)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot"):
        open_output(str(tmp_path / "file" / "out"), create=True)
