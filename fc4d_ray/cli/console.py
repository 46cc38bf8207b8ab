"""How commands speak and end: messages, exit codes."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from enum import StrEnum

import typer

from fc4d_ray.errors import ConfigError, FC4DError
from fc4d_ray.logs import configure_from_environment, is_structured


class LogFormatName(StrEnum):
    """How log records are written."""

    text = "text"
    json = "json"


EXIT_RUN_FAILED = 1
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Turn this package's errors into a message and an exit code: 2 usage or config, 1 the rest."""
    try:
        yield
    except ConfigError as error:
        complain(str(error))
        raise typer.Exit(EXIT_USAGE) from error
    except FC4DError as error:
        complain(f"{type(error).__name__}: {error}")
        raise typer.Exit(EXIT_RUN_FAILED) from error
    except KeyboardInterrupt:
        complain("interrupted")
        raise typer.Exit(EXIT_RUN_FAILED) from None


def say(text: str) -> None:
    """A line of result."""
    typer.echo(text)


def notice(text: str) -> None:
    """A line about how things go, apart from the result."""
    if is_structured():
        logging.getLogger(__name__).info(text)
    else:
        typer.echo(text, err=True)


def complain(text: str) -> None:
    """An error message, line by line."""
    for line in text.splitlines() or [""]:
        typer.echo(f"fc4d: {line}", err=True)


def run_job(command: Callable[..., None]) -> None:
    """``typer.run`` for the scripts of ``jobs/``, logging in the form the environment names."""

    @functools.wraps(command)
    def job(*arguments: object, **options: object) -> None:
        with exit_codes():
            configure_from_environment()
        command(*arguments, **options)

    typer.run(job)
