from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from fc4d_ray.errors import StoreError
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.transient import Patience, is_transient, persist


def client_error(code: str, status: int) -> ClientError:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutObject")  # type: ignore[arg-type]


def caused(cause: Exception) -> Exception:
    error = OSError(errno.EIO, "translated")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        client_error("InternalError", 500),
        client_error("SlowDown", 503),
        client_error("ConditionalRequestConflict", 409),
        caused(client_error("ServiceUnavailable", 503)),
        EndpointConnectionError(endpoint_url="http://127.0.0.1"),
        OSError(errno.EBUSY, "busy"),
    ],
)
def test_what_passes_by_itself(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        client_error("AccessDenied", 403),
        client_error("NoSuchBucket", 404),
        client_error("PreconditionFailed", 412),
        caused(client_error("AccessDenied", 403)),
        OSError(errno.ENOSPC, "full"),
        OSError(errno.EIO, "a disk"),
        FileNotFoundError(),
        FileExistsError(),
        ValueError(),
        StoreError("something"),
    ],
)
def test_what_stays(error: Exception) -> None:
    assert not is_transient(error)


def test_a_store_error_is_judged_by_its_cause() -> None:
    error = StoreError("cannot write")
    error.__cause__ = client_error("SlowDown", 503)
    assert is_transient(error)


def test_trying_again_with_growing_pauses_until_it_works() -> None:
    answers = [ConnectionResetError(), client_error("SlowDown", 503), None]
    pauses: list[float] = []

    def action() -> str:
        answer = answers.pop(0)
        if answer:
            raise answer
        return "done"

    assert persist(action, "test", sleep=pauses.append) == "done"
    assert len(pauses) == 2
    assert 0.125 <= pauses[0] <= 0.25 and 0.25 <= pauses[1] <= 0.5


@pytest.mark.parametrize(
    ("error", "tries"), [(ConnectionResetError(), 4), (PermissionError(), 1), (ValueError(), 1)]
)
def test_the_error_itself_comes_out_in_the_end(error: Exception, tries: int) -> None:
    calls: list[int] = []

    def action() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        persist(action, "test", Patience(tries=4), sleep=lambda pause_s: None)
    assert len(calls) == tries


def test_pauses_stay_bounded() -> None:
    patience = Patience()
    assert max(patience.pause_s(n) for n in range(1, 40)) <= patience.longest_pause_s
    longest = sum(patience.first_pause_s * 2**n for n in range(patience.tries - 1))
    assert longest < 60


class _BadDays:
    """A remote file system whose every operation fails once, as an overloaded store does."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def unstrip_protocol(self, path: str) -> str:
        return f"s3://{path}"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def operation(*arguments: Any, **options: Any) -> Any:
            self.calls[name] += 1
            if self.calls[name] == 1:
                raise client_error("SlowDown", 503)
            return {"du": 7, "ls": ["b/x/one"], "find": ["b/x/f/one"], "cat_file": b"data"}.get(
                name
            )

        return operation


def test_every_operation_of_an_output_waits_a_bad_moment_out(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"data")
    operations: dict[str, Callable[[Storage], Any]] = {
        "read": lambda s: s.read("x/one"),
        "names": lambda s: s.names("x"),
        "names_by_folder": lambda s: list(s.names_by_folder("x")),
        "tree_size": lambda s: s.tree_size("x"),
        "create": lambda s: s.create("x/one", b"data"),
        "replace": lambda s: s.replace("x/one", b"data"),
        "upload": lambda s: s.upload(tmp_path / "source", "x/one"),
        "download": lambda s: s.download("x/one", tmp_path / "target"),
        "remove": lambda s: s.remove("x"),
    }
    for name, operation in operations.items():
        bad_days = _BadDays()
        storage = Storage("s3://b")
        storage._state.update(filesystem=bad_days, root="b", is_local=False)
        operation(storage)
        assert max(bad_days.calls.values()) == 2, name
