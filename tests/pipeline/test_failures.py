from __future__ import annotations

import errno

import pytest

from fc4d_ray.errors import StageFailed, StoreError
from fc4d_ray.pipeline.failures import Meaning, meaning_of


class OutOfMemoryError(RuntimeError):
    """torch's, by name."""


class AcceleratorError(RuntimeError):
    """torch's, by name."""


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (ValueError("bad"), Meaning.PORTRAIT),
        (StageFailed("no fit"), Meaning.PORTRAIT),
        (StoreError("x.clip is corrupt at frame 4"), Meaning.PORTRAIT),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), Meaning.PORTRAIT),
        (RuntimeError("CUDA error: no kernel image is available"), Meaning.PORTRAIT),
        (ConnectionResetError(), Meaning.TRANSIENT),
        (raised_from(StageFailed("no licence"), TimeoutError()), Meaning.TRANSIENT),
        (OutOfMemoryError("CUDA out of memory."), Meaning.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory"), Meaning.OUT_OF_MEMORY),
        (RuntimeError("cuBLAS: CUBLAS_STATUS_ALLOC_FAILED"), Meaning.OUT_OF_MEMORY),
        (AcceleratorError("CUDA error: device-side assert triggered"), Meaning.POISONED),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), Meaning.POISONED),
        (raised_from(StageFailed("x"), AcceleratorError("CUDA error: 700")), Meaning.POISONED),
        (OSError(errno.ENOSPC, "full"), Meaning.UNWRITABLE),
        (raised_from(StoreError("cannot write"), OSError(errno.EROFS, "")), Meaning.UNWRITABLE),
    ],
)
def test_what_an_exception_means(error: Exception, meaning: Meaning) -> None:
    assert meaning_of(error) is meaning


def test_an_error_raised_while_another_was_handled_counts_as_well() -> None:
    try:
        try:
            raise AcceleratorError("CUDA error: unspecified launch failure")
        finally:
            raise ValueError("tidying up failed, too")
    except ValueError as error:
        assert meaning_of(error) is Meaning.POISONED
