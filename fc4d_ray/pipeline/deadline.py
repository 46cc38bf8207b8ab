"""A wall-clock limit on work that cannot be interrupted: the process ends itself.

Ray has no time limit per task, and a stage may hang inside a C library where no Python exception
reaches it. A timer thread notes the portrait's failure and leaves the process, which whoever
started it replaces. Where the hanging code also holds the interpreter's lock, the timer cannot
run; then the fault handler's own thread, which needs no lock, writes where it hangs and ends the
process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator

_log = logging.getLogger(__name__)

GRACE_SECONDS = 60.0
"""From the deadline to the moment the process is ended without asking it."""
EXIT_CODE = 70


def leave_process() -> None:
    """End this process at once, without tidying up: its threads may hang."""
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    os._exit(EXIT_CODE)


@contextlib.contextmanager
def deadline(
    seconds: float,
    note: Callable[[], None],
    leave: Callable[[], None] = leave_process,
    *,
    grace_s: float = GRACE_SECONDS,
) -> Iterator[None]:
    """After ``seconds`` in the block, call ``note`` and ``leave`` from another thread.

    Either the block ends or the process does: a block that ends in time is never noted. An infinite
    number of seconds sets no limit.
    """
    if math.isinf(seconds):
        yield
        return
    lock = threading.Lock()
    over = False

    def expire() -> None:
        with lock:
            if not over:
                try:
                    note()
                except Exception:
                    _log.exception("a missed deadline could not be recorded")
                leave()

    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), expire)
    timer.daemon = True
    timer.start()
    if leave is leave_process:
        faulthandler.dump_traceback_later(seconds + grace_s, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        with lock:
            over = True
        timer.cancel()
        if leave is leave_process:
            faulthandler.cancel_dump_traceback_later()
