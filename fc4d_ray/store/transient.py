"""Errors that pass by themselves, and waiting them out.

An object store under load answers 500 or 503, drops connections and stalls; none of that is a
portrait's fault, nor a reason to end a run of a week. Such operations are tried again with growing,
randomised pauses. What does not pass (no permission, no such bucket, a full disk) is told at once.
"""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

_STATUS_CODES = frozenset((408, 425, 429, 500, 502, 503, 504))
_ERROR_CODES = frozenset(
    (
        *("InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "Throttling"),
        *("ThrottlingException", "RequestTimeTooSkewed", "TooManyRequestsException"),
        *("ConditionalRequestConflict", "OperationAborted", "BadDigest", "IncompleteBody"),
        *("500", "502", "503", "504"),
    )
)
_ERRNOS = frozenset(
    (
        *(errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETIMEDOUT, errno.ESTALE),
        *(errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE),
        *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET),
    )
)
_NETWORK_LIBRARIES = frozenset(("aiohttp", "httpcore", "httpx", "requests", "urllib3"))
_NETWORK_ERRORS = frozenset(
    (
        *("HTTPClientError", "ConnectionError", "EndpointConnectionError", "ReadTimeoutError"),
        *("ConnectTimeoutError", "ConnectionClosedError", "IncompleteReadError", "ProxyError"),
        *("ResponseParserError", "ResponseStreamingError", "SSLError", "FSTimeoutError"),
        *("IncompleteRead", "ClientPayloadError", "ServerDisconnectedError"),
    )
)
"""Names in botocore, fsspec and http.client, which need not be installed here."""


def is_transient(error: BaseException) -> bool:
    """Whether the error, or one it was caused by, tells of something that passes by itself."""
    return any(_is_transient(link) for link in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes, as far as they were raised ``from`` one another."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's ClientError
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status in _STATUS_CODES or response.get("Error", {}).get("Code") in _ERROR_CODES
    if isinstance(error, OSError) and error.errno in _ERRNOS:
        return True
    if getattr(error, "status", None) in _STATUS_CODES:  # aiohttp, gcsfs
        return True
    kinds = type(error).__mro__
    if any(kind.__name__ in _NETWORK_ERRORS for kind in kinds):
        return True
    return any(kind.__module__.split(".")[0] in _NETWORK_LIBRARIES for kind in kinds)


@dataclass(frozen=True)
class Patience:
    """How long to wait for better times."""

    tries: int = 8
    first_pause_s: float = 0.25
    longest_pause_s: float = 15.0

    def pause_s(self, failures: int) -> float:
        """Pause after that many failures: doubling, of which a random half is waited at least."""
        whole = min(self.longest_pause_s, self.first_pause_s * 2 ** (failures - 1))
        return whole * random.uniform(0.5, 1.0)


STORAGE_PATIENCE = Patience()
"""Half a minute on the whole: a restart of a gateway, not a lost region."""


def persist(
    action: Callable[[], Result],
    what: str,
    patience: Patience = STORAGE_PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """The action's result, trying again on transient errors.

    Raises the action's own error: at once where it is none that passes, after the last try else.
    """
    for failures in range(1, patience.tries):
        try:
            return action()
        except Exception as error:
            if not is_transient(error):
                raise
            pause_s = patience.pause_s(failures)
            _log.info("%s: %s, trying again in %.1f s", what, type(error).__name__, pause_s)
            sleep(pause_s)
    return action()
