from __future__ import annotations

import math
import subprocess
import sys
import time

import pytest

from fc4d_ray.pipeline.deadline import EXIT_CODE, deadline


def test_work_in_time_is_never_noted() -> None:
    noted: list[str] = []
    for seconds in (math.inf, 30.0):
        with deadline(seconds, lambda: noted.append("note"), lambda: noted.append("left")):
            pass
    assert not noted


def test_work_beyond_its_time_is_noted_and_ended_once() -> None:
    noted: list[str] = []
    with deadline(0.02, lambda: noted.append("note"), lambda: noted.append("left")):
        until = time.monotonic() + 10
        while len(noted) < 2 and time.monotonic() < until:
            time.sleep(0.005)
    assert noted == ["note", "left"]


def test_the_process_ends_even_if_the_note_cannot_be_written() -> None:
    noted: list[str] = []

    def fail() -> None:
        noted.append("note")
        raise OSError("the storage is gone")

    with deadline(0.01, fail, lambda: noted.append("left")):
        time.sleep(0.2)
    assert noted == ["note", "left"]


@pytest.mark.parametrize(
    ("work", "returncode"),
    [
        ("import time; time.sleep(60)", EXIT_CODE),
        # ctypes.PyDLL keeps the interpreter's lock: the timer thread never runs.
        ("import ctypes; ctypes.PyDLL(None).sleep(60)", 1),
    ],
)
def test_a_process_that_hangs_ends_itself(work: str, returncode: int) -> None:
    code = (
        "from fc4d_ray.pipeline.deadline import deadline\n"
        "with deadline(0.2, lambda: None, grace_s=0.5):\n"
        f"    {work}\n"
    )
    began = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50
    )
    assert process.returncode == returncode, process.stderr
    assert time.monotonic() - began < 45
    if returncode == 1:
        assert "Timeout" in process.stderr and "line 3" in process.stderr, "it says where it hung"
