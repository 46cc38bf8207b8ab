"""What all tests share: where helper modules lie, and one Ray cluster per session."""

from __future__ import annotations

import logging
import os
import sys
import uuid
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first: at the end they would leave the other process idle."""
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow_files)


@pytest.fixture(autouse=True)
def package_logger() -> Iterator[None]:
    """Commands called in this process configure the package's logger; no test inherits that."""
    logger = logging.getLogger("fc4d_ray")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], level, logger.propagate = before
    logger.setLevel(level)


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


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of an empty bucket on an S3 server of this test's own, on loopback."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed (extra [dev])")
    import s3fs

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
