"""What an exception out of a stage means, and the record of a portrait that failed."""

from __future__ import annotations

import enum
import errno
import os
import re
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from fc4d_ray.pipeline.plan import Plan
from fc4d_ray.pipeline.portrait import Outcome, Portrait
from fc4d_ray.store import layout
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.plans import avatar_plan, columns_digest
from fc4d_ray.store.records import FailureRecord, RecordBook
from fc4d_ray.store.runs import utc_now
from fc4d_ray.store.transient import is_transient

_MESSAGE_CHARACTERS = 2000
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_POISON = re.compile(
    r"CUDA error|device-side assert|CUBLAS_STATUS_(?!ALLOC)|CUDNN_STATUS_(?!ALLOC|NOT_SUPPORTED)"
    r"|NCCL error|hipError"
)
_HARMLESS = re.compile(r"no kernel image|invalid device ordinal|no CUDA-capable device")
"""CUDA's complaints about the installation: a fresh process would make them as well."""
_OUT_OF_MEMORY = re.compile(r"(CUDA|HIP|XPU).{0,20}out of memory|_ALLOC_FAILED")


class Meaning(enum.Enum):
    """What a stage's exception tells about the portrait, the process and the machine."""

    PORTRAIT = "the portrait or the stage"
    TRANSIENT = "passes by itself"
    OUT_OF_MEMORY = "the GPU's memory is full"
    POISONED = "the process cannot use its device any more"
    UNWRITABLE = "nothing can be written"


def meaning_of(error: BaseException) -> Meaning:
    """Sort a stage's exception; what it was raised from counts, too."""
    links = list(_chain(error))
    if any(isinstance(link, OSError) and link.errno in _UNWRITABLE for link in links):
        return Meaning.UNWRITABLE
    if any(_is_out_of_memory(link) for link in links):
        return Meaning.OUT_OF_MEMORY
    if any(_is_poison(link) for link in links):
        return Meaning.POISONED
    return Meaning.TRANSIENT if is_transient(error) else Meaning.PORTRAIT


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _is_out_of_memory(error: BaseException) -> bool:
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))


def _is_poison(error: BaseException) -> bool:
    """torch raises ``AcceleratorError``, a ``RuntimeError``; older ones a plain one."""
    if not isinstance(error, RuntimeError):
        return False
    text = str(error)
    return bool(_POISON.search(text)) and not _HARMLESS.search(text)


def record_failure(
    storage: Storage,
    plan: Plan,
    portrait: Portrait,
    stage: str,
    error: BaseException,
    *,
    facts: Mapping[str, Any] | None = None,
    seconds: Mapping[str, float] | None = None,
) -> Outcome:
    """Write a portrait's failure record and its stack trace."""
    error_type = type(error).__name__
    message = str(error)[:_MESSAGE_CHARACTERS] or error_type
    trace_path = layout.trace(portrait.avatar_id, stage, os.urandom(6).hex())
    trace = "".join(traceback.format_exception(error))
    storage.create(trace_path, trace.encode(errors="replace"))
    RecordBook(storage).write_failed(
        FailureRecord(
            avatar_id=portrait.avatar_id,
            plan=avatar_plan(plan.base, portrait.avatar_id, columns_digest(portrait.columns)),
            generation=portrait.generation,
            config_digest=plan.config_digest,
            source_uri=portrait.source_uri,
            stage=stage,
            error_type=error_type,
            error_message=message,
            trace_path=trace_path,
            created_at=utc_now(),
            facts=facts or {},
            seconds=seconds or {},
        )
    )
    return Outcome(portrait, "failed", stage, error_type, message)
