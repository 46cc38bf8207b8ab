"""One worker and its portraits, without Ray: what is repaired, tried again, given up."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fc4d_ray.config import load_config
from fc4d_ray.errors import DevicePoisoned, StoreError
from fc4d_ray.pipeline import worker as worker_module
from fc4d_ray.pipeline.plan import make_plan
from fc4d_ray.pipeline.portrait import Outcome, Portrait
from fc4d_ray.pipeline.scratch import open_scratch
from fc4d_ray.pipeline.sources import identify
from fc4d_ray.pipeline.worker import StageWorker
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.ledger import CRASHES_ALLOWED, ProcessIdentity, Witness
from fc4d_ray.store.location import open_output

Make = Callable[..., StageWorker]
FRONT, TRAINING = ("ingest", "shape"), ("train", "publish")
STAGES = (*FRONT, *TRAINING)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_output(str(tmp_path / "out"), create=True)


@pytest.fixture
def make(storage: Storage, fake_config: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Workers of one run: ``make("ingest", "shape")``."""
    monkeypatch.setattr(worker_module, "_PAUSE_SECONDS", 0.0)
    made: list[StageWorker] = []

    def build(*stages: str, options: tuple[str, ...] = ()) -> StageWorker:
        plan = make_plan(load_config(fake_config, options))
        witness = Witness(ProcessIdentity("run", "node", os.getpid()), lambda node_id: True)
        made.append(StageWorker(storage, plan, stages or STAGES, witness, leave=None))
        return made[-1]

    yield build
    for worker in made:
        worker.close()


def portrait(tmp_path: Path, text: str, **columns: object) -> Portrait:
    path = tmp_path / f"{text.split()[0]}.png"
    path.write_text(text)
    return Portrait(identify(path.read_bytes()), str(path), columns=columns)


def works(fake_config: Path) -> Counter[str]:
    path = fake_config.parent / "journal"
    return Counter(path.read_text().splitlines()) if path.exists() else Counter()


def damage(storage: Storage, stage: str) -> None:
    """Change a stored file without changing its size."""
    (path,) = Path(storage.uri).glob(f"avatars/*/*/{stage}/attempt-*/result.txt")
    path.write_text("?" * path.stat().st_size)


def error(outcome: Outcome) -> tuple[str, str | None, str | None]:
    return outcome.status, outcome.stage, outcome.error_type


def test_a_stage_tries_again_what_passes_by_itself(
    make: Make, tmp_path: Path, fake_config: Path, storage: Storage
) -> None:
    outcome = make().work(portrait(tmp_path, "ann flaky:shape"))
    assert outcome.status == "succeeded"
    assert works(fake_config)["ann shape"] == 2
    (folder,) = Path(storage.uri).glob("avatars/*/*/shape/attempt-*")
    assert [path.name for path in folder.iterdir()] == ["result.txt"], "nothing of the first try"
    assert outcome.own_cpu_s > 0


def test_full_gpu_memory_is_tried_again_and_told_with_the_option(
    make: Make, tmp_path: Path, fake_config: Path
) -> None:
    outcome = make().work(portrait(tmp_path, "ann oom:train"))
    assert error(outcome) == ("failed", "train", "OutOfGpuMemory")
    assert "run.stages.train.gpus" in str(outcome.error_message)
    assert works(fake_config)["ann train"] == 3


def test_a_poisoned_device_asks_for_another_process_and_counts_as_a_crash(
    make: Make, tmp_path: Path, fake_config: Path
) -> None:
    ann = portrait(tmp_path, "ann poison:train")
    for _ in range(CRASHES_ALLOWED):
        with pytest.raises(DevicePoisoned, match="illegal memory access"):
            make().work(ann)
    assert error(make().work(ann)) == ("failed", "train", "PoisonInput")
    assert works(fake_config)["ann train"] == CRASHES_ALLOWED
    assert make().work(portrait(tmp_path, "bob")).status == "succeeded"


def test_damaged_files_are_made_again_by_the_worker_that_can(
    make: Make, tmp_path: Path, fake_config: Path, storage: Storage
) -> None:
    ann = portrait(tmp_path, "ann read:train")
    assert make(*FRONT).work(ann).status == "running"
    damage(storage, "shape")
    assert make().work(ann).status == "succeeded"
    assert works(fake_config) == {"ann ingest": 1, "ann shape": 2, "ann train": 2, "ann publish": 1}


def test_damage_in_front_of_a_training_sends_the_portrait_back(
    make: Make, tmp_path: Path, fake_config: Path, storage: Storage
) -> None:
    ann = portrait(tmp_path, "ann read:train")
    front, training = make(*FRONT), make(*TRAINING)
    front.work(ann)
    damage(storage, "shape")
    assert training.work(ann).status == "returned"
    assert front.work(ann).status == "running"
    assert training.work(ann).status == "succeeded"
    assert works(fake_config)["ann ingest"] == 1 and works(fake_config)["ann shape"] == 2


def test_files_that_are_deleted_send_the_portrait_back_too(
    make: Make, tmp_path: Path, storage: Storage
) -> None:
    ann = portrait(tmp_path, "ann")
    front, training = make(*FRONT), make(*TRAINING)
    front.work(ann)
    for path in Path(storage.uri).glob("avatars/*/*/shape/*.json"):
        path.unlink()
    assert training.work(ann).status == "returned"
    assert [front.work(ann).status, training.work(ann).status] == ["running", "succeeded"]


def test_a_store_error_out_of_a_stage_is_the_row_s_unless_nothing_can_be_written(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fake_stages

    def complain(self: object, context: object) -> None:
        raise StoreError("a.clip is format 9")

    def fill_up(self: object, context: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fake_stages.ShapeStage, "process", complain)
    assert error(make().work(portrait(tmp_path, "ann"))) == ("failed", "shape", "StoreError")
    monkeypatch.setattr(fake_stages.ShapeStage, "process", fill_up)
    with pytest.raises(StoreError, match="shape cannot write"):
        make().work(portrait(tmp_path, "bob"))


def test_a_changed_licence_renews_the_record_and_nothing_before_it(
    make: Make, tmp_path: Path, fake_config: Path, storage: Storage
) -> None:
    worker = make()
    for licence in ("CC0", "CC-BY", "CC0"):
        ann = portrait(tmp_path, "ann", licence=licence, uri="ann.png")
        assert worker.work(ann).status == "succeeded"
    assert works(fake_config) == {"ann ingest": 1, "ann shape": 1, "ann train": 1, "ann publish": 2}
    found = {
        json.loads(path.read_text())["row"]["licence"]
        for path in Path(storage.uri).glob("avatars/*/*/publish/*/record.json")
    }
    assert found == {"CC0", "CC-BY"}


def test_folders_of_killed_workers_are_tidied_up(tmp_path: Path) -> None:
    import tempfile

    left = Path(tempfile.gettempdir()) / "fc4d-worker-999999999-abc"
    left.mkdir(exist_ok=True)
    mine = open_scratch()
    assert not left.exists() and mine.is_dir()
    mine.rmdir()
