"""Logging: plain lines for people, one JSON object per line for machines."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Literal

from fc4d_ray.errors import ConfigError

LogFormat = Literal["text", "json"]
PACKAGE = "fc4d_ray"
ENVIRONMENT_VARIABLE = "FC4D_LOG_FORMAT"

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, and what ``extra`` gave.

    ``avatar_id``, ``stage``, ``event``, ``status`` and ``seconds`` are the names used for that.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        values = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            values["trace"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str, ensure_ascii=False)


def configure_logging(verbose: bool = False, form: LogFormat = "text") -> None:
    """Log this package's messages to stderr; ours only, since libraries are noisy.

    Text tells of errors only unless ``verbose``; JSON of every event.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(_TEXT))
    logger = logging.getLogger(PACKAGE)
    logger.handlers[:] = [handler]
    quiet = logging.INFO if form == "json" else logging.ERROR
    logger.setLevel(logging.DEBUG if verbose else quiet)
    logger.propagate = False


def configure_from_environment() -> None:
    """``configure_logging`` in the form ``FC4D_LOG_FORMAT`` names: for jobs and worker processes.

    Raises ``ConfigError`` for another value than ``text`` and ``json``.
    """
    form = os.environ.get(ENVIRONMENT_VARIABLE) or "text"
    if form not in ("text", "json"):
        raise ConfigError(f"{ENVIRONMENT_VARIABLE} must be text or json, found {form!r}")
    configure_logging(form="json" if form == "json" else "text")


def is_structured() -> bool:
    """Whether this process logs JSON."""
    handlers = logging.getLogger(PACKAGE).handlers
    return any(isinstance(handler.formatter, JsonFormatter) for handler in handlers)
