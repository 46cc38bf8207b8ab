from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest

from fc4d_ray.errors import StoreError
from fc4d_ray.store.artifacts import ArtifactStore, Work, work_key
from fc4d_ray.store.filesystem import Storage

WORK = Work("ab12", "shape", "0123abcd")


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    uri = str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    return ArtifactStore(Storage(uri), tmp_path / "scratch")


def make(store: ArtifactStore, text: str = "content", work: Work = WORK) -> bool:
    with store.attempt(work) as attempt:
        (attempt.directory / "views").mkdir()
        (attempt.directory / "views" / "a.txt").write_text(text)
        _, is_ours = store.commit(attempt, {"fact": 1}, {"seconds": 2.5})
    return is_ours


def attempts(store: ArtifactStore) -> list[str]:
    names = store.storage.names("avatars/ab/ab12/shape")
    return [name for name in names if name.startswith("attempt-")]


def test_committed_files_are_found_and_opened(store: ArtifactStore) -> None:
    assert store.find(WORK) is None
    assert make(store)
    artifact = store.find(WORK)
    assert artifact is not None
    assert artifact.facts == {"fact": 1} and artifact.seconds == 2.5
    assert (store.open(artifact) / "views" / "a.txt").read_text() == "content"


def test_files_are_read_back_by_a_worker_elsewhere(store: ArtifactStore, tmp_path: Path) -> None:
    make(store)
    other = ArtifactStore(store.storage, tmp_path / "elsewhere")
    artifact = other.find(WORK)
    assert artifact is not None
    assert (other.open(artifact) / "views" / "a.txt").read_text() == "content"


def test_the_first_attempt_wins_and_the_loser_leaves_nothing(store: ArtifactStore) -> None:
    with store.attempt(WORK) as slow:
        (slow.directory / "x").write_text("slow")
        assert make(store, "fast")
        artifact, is_ours = store.commit(slow, {}, {})
    assert not is_ours
    assert artifact.facts == {"fact": 1}
    assert attempts(store) == [f"attempt-{artifact.attempt_id}"]


def test_an_attempt_that_raises_leaves_nothing(store: ArtifactStore) -> None:
    with pytest.raises(ValueError), store.attempt(WORK) as attempt:
        (attempt.directory / "x").write_text("half")
        raise ValueError
    assert attempts(store) == []
    assert store.find(WORK) is None


def test_an_artifact_that_lost_a_file_is_withdrawn(store: ArtifactStore) -> None:
    make(store)
    artifact = store.find(WORK)
    assert artifact is not None
    store.storage.remove(f"{artifact.path}/views/a.txt")
    assert store.find(WORK) is None
    assert make(store, "again"), "the work can be done again"


def test_changed_remote_bytes_are_noticed(tmp_path: Path) -> None:
    store = ArtifactStore(Storage(f"memory://{uuid.uuid4().hex}"), tmp_path / "a")
    make(store)
    artifact = store.find(WORK)
    assert artifact is not None
    store.storage.replace(f"{artifact.path}/views/a.txt", b"CONTENT")
    other = ArtifactStore(store.storage, tmp_path / "b")
    with pytest.raises(StoreError, match="checksum"):
        other.open(artifact)


def test_ids_that_would_leave_the_output_are_refused(store: ArtifactStore) -> None:
    for bad in ("../x", "a/b", "", "a..b"):
        with pytest.raises(StoreError, match="cannot be used in a path"):
            store.find(Work(bad, "shape", "00"))


def test_links_are_refused(tmp_path: Path) -> None:
    store = ArtifactStore(Storage(str(tmp_path)))
    with pytest.raises(StoreError, match="symbolic link"), store.attempt(WORK) as attempt:
        (attempt.directory / "link").symlink_to("/etc/hostname")
        store.commit(attempt, {}, {})


def test_the_key_depends_on_everything_that_shapes_the_result() -> None:
    base = {
        "stage": "shape",
        "version": "1",
        "section_digest": "s",
        "weights_digest": "w",
        "seed": 1,
        "source": "id",
        "inputs": {"ingest": "d"},
    }
    changes = [{name: f"{value}x"} for name, value in base.items() if isinstance(value, str)]
    changes += [{"seed": 2}, {"inputs": {"ingest": "e"}}]
    keys = {work_key(**base | change) for change in [{}, *changes]}
    assert len(keys) == len(changes) + 1
    assert work_key(**base) == work_key(**base)


def test_the_digest_depends_on_the_bytes(tmp_path: Path) -> None:
    digests = set()
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        store = ArtifactStore(Storage(str(tmp_path / name)))
        make(store, text)
        artifact = store.find(WORK)
        assert artifact is not None
        digests.add(artifact.digest)
    assert len(digests) == 2


CRASHING_WRITER = textwrap.dedent(
    """
    import os, sys
    from fc4d_ray.store.artifacts import ArtifactStore, Work
    from fc4d_ray.store.filesystem import Storage

    out, wanted = sys.argv[1], int(sys.argv[2])
    calls = 0

    def crash_at(function):
        def wrapped(*arguments, **options):
            global calls
            calls += 1
            if calls == wanted:
                os.kill(os.getpid(), 9)
            return function(*arguments, **options)
        return wrapped

    for name in ("fsync", "link", "unlink", "mkdir", "open"):
        setattr(os, name, crash_at(getattr(os, name)))
    store = ArtifactStore(Storage(out))
    with store.attempt(Work("ab12", "shape", "0123abcd")) as attempt:
        (attempt.directory / "a.txt").write_text("content")
        store.commit(attempt, {"fact": 1}, {})
    print(calls)
    """
)


def run_writer(out: Path, crash_at: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CRASHING_WRITER, str(out), str(crash_at)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_killed_at_any_step_nothing_half_done_is_ever_seen(tmp_path: Path) -> None:
    whole = run_writer(tmp_path / "whole", 0)
    steps = int(whole.stdout)
    assert steps >= 8, "the steps that are to be interrupted"
    for step in range(1, steps + 1):
        out = tmp_path / str(step)
        assert run_writer(out, step).returncode == -9
        store = ArtifactStore(Storage(str(out)))
        artifact = store.find(WORK)
        if artifact is not None:
            assert (store.open(artifact) / "a.txt").read_text() == "content"
            continue
        assert make(store), "the work is simply done again"
        assert store.find(WORK) is not None


def test_a_full_disk_during_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore(Storage(str(tmp_path)))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", full)
        with pytest.raises(StoreError, match="the disk is full"):
            make(store)
    assert attempts(store) == []
    assert make(store)
