"""What a run publishes about itself while it works: progress, metrics, provisional manifest.

Two threads, because a manifest of a million rows takes its time, while the progress document is
also the sign by which others tell a live run from a dead one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from fc4d_ray.store.manifest import ManifestCommitter
from fc4d_ray.store.runs import RunBook

if TYPE_CHECKING:
    from fc4d_ray.pipeline.run import RunSession
    from fc4d_ray.store.delta import DeltaSink

_TICK_SECONDS = 0.2
_MANIFEST_COST_RATIO = 20
"""A provisional manifest is written at most this rarely, measured in its own cost."""
_log = logging.getLogger(__name__)


class Updates:
    """Context manager that publishes while its block runs."""

    def __init__(
        self, session: RunSession, committer: ManifestCommitter, delta: DeltaSink | None = None
    ) -> None:
        self._session = session
        self._committer = committer
        self._delta = delta
        self._runs = RunBook(session.storage)
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._show, daemon=True),
            threading.Thread(target=self._keep_manifest, daemon=True),
        ]

    def __enter__(self) -> Updates:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _show(self) -> None:
        """Thread: the display several times a second, document and metrics now and then."""
        interval = self._session.config.run.progress_interval_s
        due = time.monotonic()
        while not self._over.wait(_TICK_SECONDS):
            self._session.display.tick()
            if time.monotonic() >= due:
                _unless_it_fails(self._tell)
                due = time.monotonic() + interval

    def _tell(self) -> None:
        snapshot = self._session.progress.snapshot()
        self._session.metrics.refresh(snapshot)
        self._runs.progress(self._session.run_id, snapshot)

    def _keep_manifest(self) -> None:
        """Thread: the provisional manifest, as often as its cost allows."""
        published: set[str] = set()
        pause = self._session.config.run.progress_interval_s
        while not self._over.wait(pause):
            news = set(self._session.progress.ended) - published
            if not news:
                continue
            began = time.monotonic()
            if _unless_it_fails(lambda chosen=news: self._publish(chosen)):
                published |= news
            cost = time.monotonic() - began
            pause = max(self._session.config.run.progress_interval_s, _MANIFEST_COST_RATIO * cost)

    def _publish(self, news: set[str]) -> None:
        self._committer.update(news)
        if self._delta is not None:
            self._delta.catch_up(self._committer.outcomes.table)


def _unless_it_fails(publish: Callable[[], object]) -> bool:
    """Publish; a failure is logged only.

    These are derived documents: the work itself must not stop for them, and a storage that is
    really out of order stops the workers' own commits.
    """
    try:
        publish()
    except Exception:
        _log.warning("the progress documents could not be written", exc_info=True)
        return False
    return True
