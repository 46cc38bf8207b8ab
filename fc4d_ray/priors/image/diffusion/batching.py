"""How many rows fit into one batch, by measurement; what to do when they did not.

A row is one image in the UNet: a view, or the reference that views of the same batch read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch

from fc4d_ray.errors import StageFailed

T = TypeVar("T")
USABLE_SHARE = 0.85
"""Share of the free memory that is planned with; the allocator's fragments take the rest."""
CPU_ROWS = 6
"""Rows per batch on a CPU: one wave and its reference; more gains nothing there."""
LEAST_ROWS = 2
"""A view and its reference."""


def rows_that_fit(
    measure: Callable[[int], int], free_bytes: int, *, at_most: int, usable: float = USABLE_SHARE
) -> int:
    """Rows per batch, from the peak memory that batches of two and four rows take.

    ``measure(n)`` runs one step with n rows and returns the bytes it took at its peak. Raises
    ``StageFailed`` where not even a view and its reference fit.
    """
    room = usable * free_bytes
    two = measure(2)
    if two > room:
        raise StageFailed(
            f"a view and its reference need {two / 2**30:.1f} GiB beside the weights, "
            f"{room / 2**30:.1f} GiB are free: lower image.size, or use a larger device"
        )
    if 2 * two > room or at_most < 4:
        return LEAST_ROWS
    per_row = max((measure(4) - two) / 2, 1.0)
    return max(LEAST_ROWS, min(at_most, 2 + int((room - two) // per_row)))


def plannable_bytes(free_bytes: int, held_bytes: int, memory_gib: float | None) -> int:
    """What batches may take: the free memory, or less where a worker has a share of the device.

    ``held_bytes``: what this process holds already, weights included; it counts towards the share.
    """
    if memory_gib is None:
        return free_bytes
    return max(0, min(free_bytes, int(memory_gib * 2**30) - held_bytes))


def cuda_peak(run: Callable[[int], None], device: torch.device) -> Callable[[int], int]:
    """``measure`` for ``rows_that_fit`` on a CUDA device."""

    def measure(rows: int) -> int:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run(rows)
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before

    return measure


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is a device's or the CPU allocator's complaint about memory."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "can't allocate memory" in text
    )


class RowBudget:
    """Rows per batch; shrinks for good when a batch did not fit."""

    def __init__(self, rows: int) -> None:
        self.rows = max(LEAST_ROWS, rows)
        self.shrinks = 0

    def run(
        self,
        items: Sequence[T],
        reference_of: Callable[[T], Hashable],
        work: Callable[[Sequence[T]], None],
    ) -> None:
        """Do ``work`` batch by batch; items of one reference share its row.

        A batch that does not fit is done again in smaller ones, so ``work`` must leave nothing
        behind when it fails. Raises ``StageFailed`` where a single view does not fit.
        """
        remaining = list(items)
        while remaining:
            batch = self._first_batch(remaining, reference_of)
            if self._fits(batch, work):
                del remaining[: len(batch)]
            elif torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _first_batch(self, items: list[T], reference_of: Callable[[T], Hashable]) -> list[T]:
        batch: list[T] = []
        references: set[Hashable] = set()
        for item in items:
            references = references | {reference_of(item)}
            if batch and len(batch) + 1 + len(references) > self.rows:
                break
            batch.append(item)
        return batch

    def _fits(self, batch: list[T], work: Callable[[Sequence[T]], None]) -> bool:
        try:
            work(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise StageFailed(
                    "out of memory with a single view in the batch: lower image.size, set "
                    "image.guidance to 1, or use a larger device"
                ) from error
            self.rows = max(LEAST_ROWS, min(self.rows - 1, len(batch) // 2 + 1))
            self.shrinks += 1
            return False
        return True
