from __future__ import annotations

import threading

import pytest
import torch

from fc4d_ray.rendering.threads import run_pieces


@pytest.mark.parametrize("n_pieces", [0, 1, 2, 100])
def test_every_piece_runs_once(n_pieces: int) -> None:
    counts = [0] * n_pieces
    lock = threading.Lock()

    def count(piece: int) -> None:
        with lock:
            counts[piece] += 1

    run_pieces(count, n_pieces)
    assert counts == [1] * n_pieces


def test_errors_of_a_piece_reach_the_caller_and_the_pool_survives() -> None:
    def fail(piece: int) -> None:
        if piece == 7:
            raise ArithmeticError("piece 7")

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for _ in range(3):
            with pytest.raises(ArithmeticError, match="piece 7"):
                run_pieces(fail, 20)
        run_pieces(lambda piece: None, 20)
    finally:
        torch.set_num_threads(before)
