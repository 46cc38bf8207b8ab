"""What all tests share: where helper modules lie, and one Ray cluster per session."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parent
HELPERS = TESTS / "pipeline"
"""Holds ``fake_stages``, which worker processes import by name."""

if str(HELPERS) not in sys.path:
    sys.path.insert(0, str(HELPERS))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(HELPERS), str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
)
# Before anything imports Ray: loopback only, no files in the home folder, no statistics.
os.environ.update(
    {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One small cluster for all tests that need one; runs join it instead of starting theirs."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=100 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture
def portraits(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of fake portraits: ``portraits(ann="ann", eve="eve fail:shape")``."""

    def make(**texts: str) -> Path:
        folder = tmp_path / "portraits"
        folder.mkdir(exist_ok=True)
        for name, text in texts.items():
            (folder / f"{name}.png").write_text(text)
        return folder

    return make


@pytest.fixture
def fake_config(tmp_path: Path) -> Path:
    """Configuration that runs the fake stages; they note every piece of work in ``journal``."""
    journal = tmp_path / "journal"
    sections = "\n".join(
        f"{stage}: {{journal: {journal}}}" for stage in ("ingest", "shape", "train", "publish")
    )
    path = tmp_path / "fake.yaml"
    path.write_text(
        f"registry: fake_stages:REGISTRY\nrun: {{progress_interval_s: 0.2}}\n{sections}\n"
    )
    return path
