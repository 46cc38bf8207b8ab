from __future__ import annotations

import pytest
import torch

from fc4d_ray.errors import StageFailed
from fc4d_ray.priors.image.diffusion.batching import (
    RowBudget,
    is_out_of_memory,
    plannable_bytes,
    rows_that_fit,
)

GIB = 2**30


def _measured(fixed_gib: float, per_row_gib: float):
    return lambda rows: int((fixed_gib + rows * per_row_gib) * GIB)


def test_rows_follow_from_two_measurements() -> None:
    assert rows_that_fit(_measured(1, 0.5), 20 * GIB, at_most=64, usable=1.0) == 38
    assert rows_that_fit(_measured(1, 0.5), 200 * GIB, at_most=64, usable=1.0) == 64
    assert rows_that_fit(_measured(1, 0.5), 3 * GIB, at_most=64, usable=1.0) == 2


def test_too_little_memory_for_a_view_and_its_reference_is_said_so() -> None:
    with pytest.raises(StageFailed, match=r"need 6.0 GiB .* 4.2 GiB are free: lower image.size"):
        rows_that_fit(_measured(2, 2), 5 * GIB, at_most=64)


def test_a_worker_keeps_to_its_share_of_the_device() -> None:
    assert plannable_bytes(100 * GIB, 8 * GIB, None) == 100 * GIB
    assert plannable_bytes(100 * GIB, 8 * GIB, 24.0) == 16 * GIB
    assert plannable_bytes(10 * GIB, 8 * GIB, 24.0) == 10 * GIB
    assert plannable_bytes(10 * GIB, 8 * GIB, 4.0) == 0


def test_batches_count_their_references() -> None:
    batches: list[list[str]] = []
    RowBudget(5).run(list("aaaaabbbc"), lambda item: item, lambda b: batches.append(list(b)))
    assert batches == [list("aaaa"), list("abb"), list("bc")]
    assert all(len(batch) + len(set(batch)) <= 5 for batch in batches)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        MemoryError(),
    ],
)
def test_a_batch_that_does_not_fit_is_done_in_smaller_ones(error) -> None:
    done: list[int] = []
    budget = RowBudget(9)

    def work(batch) -> None:
        if len(batch) > 3:
            raise error
        done.extend(batch)

    budget.run(list(range(10)), lambda item: 0, work)
    assert done == list(range(10))
    assert budget.shrinks == 2 and budget.rows == 3


def test_a_single_view_that_does_not_fit_is_an_error_that_says_what_to_do() -> None:
    def work(batch) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(StageFailed, match="single view in the batch: lower image.size"):
        RowBudget(8).run([1, 2, 3], lambda item: 0, work)


def test_other_errors_pass_through() -> None:
    def work(batch) -> None:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        RowBudget(8).run([1, 2, 3], lambda item: 0, work)
    assert not is_out_of_memory(ValueError("out of memory"))
