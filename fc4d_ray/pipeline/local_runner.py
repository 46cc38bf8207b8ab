"""The pipeline in one process, portrait after portrait: for debugging, and without Ray."""

from __future__ import annotations

import os
import platform
import threading
from typing import TYPE_CHECKING

from fc4d_ray.errors import DevicePoisoned, RunError
from fc4d_ray.pipeline.other_runs import other_runs
from fc4d_ray.pipeline.resources import limit_threads, usable_cores
from fc4d_ray.pipeline.worker import StageWorker
from fc4d_ray.store.ledger import ProcessIdentity, Witness

if TYPE_CHECKING:
    from fc4d_ray.pipeline.run import RunSession


class _Stopped(BaseException):
    """Leaves a stage when the user asked to stop; no error of the portrait's."""


def run_locally(session: RunSession) -> None:
    """Do every portrait of the session here and now."""
    limit_threads(session.config.run.threads or usable_cores())
    identity = ProcessIdentity(run_id=session.run_id, node_id=platform.node(), pid=os.getpid())
    witness = Witness(
        identity,
        node_is_alive=lambda node_id: node_id == identity.node_id,
        run_is_alive=other_runs(session.storage),
    )
    main = threading.current_thread()

    def report(avatar_id: str, stage: str, event: str, number: float, text: str) -> None:
        session.stage_event(avatar_id, stage, event, number, text)
        if session.stop.requested.is_set() and threading.current_thread() is main:
            raise _Stopped

    names = session.plan.names
    worker = StageWorker(session.storage, session.plan, names, witness, report, leave=None)
    try:
        for portrait in session.portraits:
            if session.stop.requested.is_set():
                break
            outcome = worker.work(portrait)
            session.overhead.add(outcome.own_cpu_s, 0.0)
            session.portrait_ended(outcome)
    except _Stopped:
        pass
    except DevicePoisoned as error:
        raise RunError(f"this process must be replaced, run the command again: {error}") from error
    finally:
        worker.close()
