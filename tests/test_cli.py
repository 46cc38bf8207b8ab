from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fc4d_ray.cli import app
from fc4d_ray.store import read_manifest

Portraits = Callable[..., Path]


def fc4d(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def run(fake_config: Path, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    def run(*inputs: object) -> tuple[int, str, str]:
        return fc4d(
            "run", *inputs, "--out", tmp_path / "out", "--config", fake_config, "--runner", "local"
        )

    return run


def test_exit_codes(portraits: Portraits, run: Callable, tmp_path: Path) -> None:
    folder = portraits(ann="ann", copy="ann")
    code, said, told = run(folder)
    assert code == 0 and "1 succeeded, 0 failed, 1 duplicates" in said
    code, said, told = run(folder)
    assert code == 0 and "nothing to do" in told
    portraits(eve="eve fail:shape")
    code, said, told = run(folder)
    assert code == 3 and "1 StageFailed" in said
    (folder / "t.csv").write_text("name\nann\n")
    code, said, told = run(folder / "t.csv")
    assert code == 2 and "no column 'uri'" in told
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    code, _, told = fc4d("run", folder, "--out", tmp_path / "other", "--runner", "local")
    assert code == 1 and "StoreError" in told and "not made by fc4d" in told


def test_usage_errors_come_before_any_work(portraits: Portraits, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for wrong in (
        ["--set", "ingest.crop_size=big"],
        ["--set", "nothing"],
        ["--config", tmp_path / "missing.yaml"],
        ["--runner", "moon"],
    ):
        code, _, told = fc4d("run", portraits(ann="ann"), "--out", out, *wrong)
        assert code == 2, told
    assert not out.exists()


def test_status_and_rebuild(portraits: Portraits, run: Callable, tmp_path: Path) -> None:
    run(portraits(ann="ann", eve="eve ask:ingest"))
    code, said, _ = fc4d("status", tmp_path / "out", "--json")
    found = json.loads(said)
    assert code == 0
    assert {k: found[k] for k in ("portraits", "succeeded", "failed", "pending", "failures")} == {
        "portraits": 2,
        "succeeded": 1,
        "failed": 1,
        "pending": 0,
        "failures": {"NoFaceFound": 1},
    }
    assert found["latest_run"]["state"] == "ended"
    assert found["latest_run"]["progress"]["stages"]["train"]["done"] == 1
    _, said, _ = fc4d("status", tmp_path / "out")
    assert "2 portraits: 1 succeeded, 1 failed" in said

    for path in (tmp_path / "out" / "manifest").iterdir():
        path.unlink()
    code, said, _ = fc4d("manifest", "rebuild", tmp_path / "out")
    assert code == 0 and read_manifest(str(tmp_path / "out")).num_rows == 2
    assert fc4d("status", tmp_path / "nowhere")[0] == 1


def test_retry_uses_the_run_s_own_inputs_and_configuration(
    portraits: Portraits, run: Callable, tmp_path: Path
) -> None:
    folder = portraits(ann="ann", eve="eve fail:train")
    run(folder, folder / "late.png")
    portraits(late="late")
    code, _, told = fc4d("retry", tmp_path / "out")
    assert code == 3 and "failed portraits opened again: 1" in told
    statuses = {
        Path(row["source_uri"]).stem: row["status"]
        for row in read_manifest(str(tmp_path / "out")).to_pylist()
    }
    assert statuses == {"ann": "succeeded", "eve": "failed", "late": "succeeded"}


def test_render_finds_avatars_by_any_address(
    portraits: Portraits, run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(portraits(ann="ann"))
    row = read_manifest(str(tmp_path / "out")).to_pylist()[0]
    published = Path(row["avatar_uri"])
    (published / "rig.npz").touch()
    seen = []

    def render_views(avatar_dir: Path, **options: object) -> list[Path]:
        seen.append((avatar_dir, options))
        return [Path("az+030_el+00.png")]

    monkeypatch.setattr("fc4d_ray.playback.render_views", render_views)
    for address in (published, published.parents[1], tmp_path / "out"):
        options = ["--azimuth", "-30,30", "--action", "jawOpen=0.5", "--action", "eyeBlinkLeft"]
        code, said, told = fc4d("render", address, *options, "--size", 256, "--out", tmp_path)
        assert code == 0, told
        assert said.strip() == "az+030_el+00.png"
    assert [folder for folder, _ in seen] == [published] * 3
    assert seen[0][1]["azimuths_deg"] == (-30.0, 30.0)
    assert seen[0][1]["actions"] == {"jawOpen": 0.5, "eyeBlinkLeft": 1.0}
    assert fc4d("render", tmp_path)[0] == 2
    assert fc4d("render", published, "--azimuth", "left")[0] == 2
    assert fc4d("render", published, "--action", "jawOpen=wide")[0] == 2


def test_assets_and_doctor_answer() -> None:
    code, said, _ = fc4d("assets", "list", "--json")
    assert code == 0 and {"anny", "dlib-landmarks"} <= {row["key"] for row in json.loads(said)}
    assert fc4d("assets", "verify", "no-such-asset")[0] == 2
    code, said, _ = fc4d("doctor", "--json")
    assert json.loads(said)["profiles"]["embedded"]["runs"] == (code == 0)
    assert "fc4d" in fc4d("--version")[1]
