from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fc4d_ray.config import RunSettings
from fc4d_ray.errors import StoreError
from fc4d_ray.pipeline.scatter import scatter


class Doubler:
    """Doubles numbers; dies once at 3, always at 4, refuses 5."""

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder

    def __call__(self, number: int) -> int:
        if number == 5:
            raise StoreError("five is not ours")
        if number == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 3 and self._folder and not (Path(self._folder) / "died").exists():
            (Path(self._folder) / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * number


def test_local_work_gives_results_and_errors() -> None:
    done = list(scatter([1, 5, 2], Doubler, RunSettings(runner="local")))
    assert [(d.piece, d.result, d.error_type) for d in done] == [
        (1, 2, None), (5, None, "StoreError"), (2, 4, None),
    ]  # fmt: skip
    assert done[1].error_message == "five is not ours"
    assert list(scatter([], Doubler, RunSettings(runner="local"))) == []


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(TypeError):
        list(scatter(["a"], lambda: lambda piece: piece - 1, RunSettings(runner="local")))


@pytest.mark.usefixtures("ray_cluster")
def test_over_ray_every_piece_once_whatever_dies(tmp_path: Path) -> None:
    import functools

    make = functools.partial(Doubler, str(tmp_path))
    done = {d.piece: d for d in scatter(range(7), make, RunSettings(workers=2, threads=1))}
    assert {n: d.result for n, d in done.items() if d.error_type is None} == {
        0: 0, 1: 2, 2: 4, 3: 6, 6: 12,
    }  # fmt: skip
    assert done[5].error_type == "StoreError"
    assert done[4].error_type == "WorkerDied"
