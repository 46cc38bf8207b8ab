"""Time, peak memory and device of one stage's work."""

from __future__ import annotations

import contextlib
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_RESET_PEAK = "5"


@dataclass
class Measurement:
    """Filled while the block of ``measured`` runs."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0

    def to_record(self, seed: int) -> dict[str, Any]:
        """What the completion record keeps."""
        return {
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "peak_memory_bytes": self.peak_memory_bytes,
            "device": device_name(),
            "host": platform.node(),
            "seed": seed,
        }


@contextlib.contextmanager
def measured() -> Iterator[Measurement]:
    """Measure the block; peak memory is the process's resident set, reset at the start."""
    measurement = Measurement()
    _reset_peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield measurement
    finally:
        measurement.seconds = time.perf_counter() - wall
        measurement.cpu_seconds = time.process_time() - cpu
        measurement.peak_memory_bytes = _peak_memory_bytes()


def _reset_peak_memory() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write(_RESET_PEAK)


def _peak_memory_bytes() -> int:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024


def device_name() -> str:
    """``cpu`` or the name of the CUDA device, without loading torch for it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "cpu"
