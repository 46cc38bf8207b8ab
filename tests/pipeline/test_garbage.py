"""What ``fc4d gc`` deletes, and what it leaves alone."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from fc4d_ray.config import load_config
from fc4d_ray.errors import RunError
from fc4d_ray.pipeline.garbage import Collected, collect_garbage
from fc4d_ray.pipeline.run import run
from fc4d_ray.pipeline.status import read_status
from fc4d_ray.store import layout, open_output
from fc4d_ray.store.retention import Keep, dispensable

Portraits = Callable[..., Path]


@pytest.fixture
def out(portraits: Portraits, fake_config: Path, tmp_path: Path) -> Path:
    """An output with two avatars and a failure."""
    folder = portraits(ann="ann", bob="bob", eve="eve fail:train")
    run([str(folder)], str(tmp_path / "out"), load_config(fake_config, ["run.runner=local"]))
    return tmp_path / "out"


def files(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*")}


def leave_behind(out: Path) -> set[str]:
    """What workers and writers leave that are killed at the worst moments."""
    record = next(out.glob("avatars/*/*/train/*.json"))
    identity = record.relative_to(out / "avatars").parent.parent.as_posix()
    key = record.stem
    left = [
        f"avatars/{identity}/train/attempt-0123456789ab/half.npz",
        f"avatars/{identity}/train/.{key}.json.{'0' * 32}",
        f"avatars/zz/{'z' * 32}/ingest/attempt-aaaaaaaaaaaa/x.png",
        f"ledger/{identity}/train-{key}/0000/abc.json",
        f"checkpoints/{identity}/train-{key}/state.pt",
        f"records/{identity}/.record-x.json.{'f' * 32}",
        f"_probe-{'1' * 32}",
    ]
    wanted = [
        f"ledger/{identity}/train-{key}/0000/def.crash",
        f"checkpoints/{identity}/train-ffff/state.pt",
    ]
    for name in (*left, *wanted):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    return set(wanted)


def test_only_what_nobody_refers_to_goes(out: Path) -> None:
    before = files(out)
    wanted = leave_behind(out)
    told = collect_garbage(str(out), dry_run=True)
    assert files(out) > before | wanted, "a dry run deletes nothing"
    collected = collect_garbage(str(out))
    assert collected == told == Collected(2, 1, 1, 3, 0, 10)
    after = files(out)
    assert before <= after and wanted <= after
    assert {name for name in after - before if (out / name).is_file()} == wanted
    assert collect_garbage(str(out)) == Collected()


@pytest.mark.parametrize(
    ("keep", "stages"),
    [("avatar", {"train", "publish"}), ("minimal", {"publish"})],
)
def test_intermediates_of_finished_avatars_go(
    keep: str, stages: set[str], out: Path, portraits: Portraits, fake_config: Path, tmp_path: Path
) -> None:
    finished = {p.parent.name for p in (out / "records").glob("*/*/record-*.json")}
    failed = {p.parent.name for p in (out / "records").glob("*/*/failed-*.json")}
    assert collect_garbage(str(out), keep=Keep(keep)).artifacts == 2 * (4 - len(stages))
    for avatar in (out / "avatars").glob("*/*"):
        left = {path.parent.parent.name for path in avatar.glob("*/*/result.txt")}
        assert left == (stages if avatar.name in finished else {"ingest", "shape"})
    assert failed, "what failed keeps its stages for another try"
    work = (tmp_path / "journal").read_text()
    config = load_config(fake_config, ["run.runner=local"])
    assert run([str(portraits())], str(out), config).worked == 0
    assert (tmp_path / "journal").read_text() == work
    changed = load_config(fake_config, ["run.runner=local", "publish.strength=2"])
    assert run([str(portraits())], str(out), changed).succeeded == 2
    trained = (tmp_path / "journal").read_text().splitlines().count("ann train")
    assert trained == (1 if keep == "avatar" else 2), "kept trainings are recognised"
    changed = load_config(fake_config, ["run.runner=local", "shape.strength=2"])
    summary = run([str(portraits())], str(out), changed)
    assert (summary.succeeded, summary.failed) == (2, 1), "what was deleted is made again"


def test_a_run_at_work_refuses_the_collection(out: Path) -> None:
    storage = open_output(str(out))
    run_id = sorted(storage.names(layout.RUNS))[-1]
    storage.remove(layout.run_file(run_id, "end.json"))
    leave_behind(out)
    with pytest.raises(RunError, match="--even-if-running"):
        collect_garbage(str(out))
    assert collect_garbage(str(out), even_if_running=True).attempts == 2
    path = out / layout.run_file(run_id, "progress.json")
    progress = json.loads(path.read_text()) | {"updated_at": "2020-01-01T00:00:00.000+00:00"}
    path.write_text(json.dumps(progress))
    assert collect_garbage(str(out)) == Collected(), "its driver died long ago"


def test_what_each_choice_keeps() -> None:
    stages, training = ("ingest", "shape", "train", "publish"), ("train", "publish")
    assert dispensable(Keep.all, stages, training) == ()
    assert dispensable(Keep.avatar, stages, training) == ("ingest", "shape")
    assert dispensable(Keep.minimal, stages, training) == ("ingest", "shape", "train")


def test_object_stores_are_tidied_alike(portraits: Portraits, fake_config: Path) -> None:
    address = f"memory://garbage-{uuid.uuid4().hex}"
    config = load_config(fake_config, ["run.runner=local"])
    run([str(portraits(ann="ann"))], address, config)
    storage = open_output(address)
    (record,) = (p for p in storage.filesystem.find(storage.path("records")) if "record-" in p)
    avatar_id = record.split("/")[-2]
    orphan = f"{layout.avatar(avatar_id)}/train/attempt-0123456789ab/half.npz"
    storage.create(orphan, b"12345")
    storage.create(f"ledger/{avatar_id[:2]}/{avatar_id}/train-ff/0000/abc.json", b"{}")
    assert collect_garbage(address, keep=Keep.minimal, dry_run=True).artifacts == 3
    collected = collect_garbage(address, keep=Keep.minimal)
    assert (collected.attempts, collected.ledger_entries, collected.artifacts) == (1, 1, 3)
    assert not storage.exists(orphan)
    left = storage.filesystem.find(storage.path(layout.avatar(avatar_id)))
    assert {path.split(f"{avatar_id}/")[1].split("/")[0] for path in left} == {"publish"}
    assert run([str(portraits())], address, config).worked == 0
    assert read_status(address)["succeeded"] == 1
