from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fc4d_ray.evaluation.features.cache import embeddings_of, read_embeddings
from fc4d_ray.evaluation.features.protocol import Embeddings
from fc4d_ray.store.filesystem import Storage


class MeanColour:
    """Deterministic stand-in: mean colour; black pictures have no embedding."""

    key = "mean"

    def __init__(self) -> None:
        self.seen = 0

    def unavailable(self) -> str | None:
        return None

    def model_id(self) -> str:
        return "mean-1"

    def extract(self, images: Sequence[np.ndarray]) -> Embeddings:
        self.seen += len(images)
        means = np.array([image.mean((0, 1)) for image in images], np.float32)
        return Embeddings(np.where(means.sum(1, keepdims=True) > 0, means, np.nan))


def picture(level: int) -> np.ndarray:
    return np.full((4, 4, 3), level, np.uint8)


def test_equal_images_are_looked_at_once_and_never_again(tmp_path: Path) -> None:
    storage, extractor = Storage(str(tmp_path)), MeanColour()
    images = [picture(3), picture(7), picture(3), picture(0)]
    found, path = embeddings_of(storage, extractor, images)
    assert extractor.seen == 3
    np.testing.assert_array_equal(found.vectors[:, 0], [3, 7, 3, np.nan])
    assert found.valid.tolist() == [True, True, True, False]
    again, same = embeddings_of(storage, extractor, images)
    assert extractor.seen == 3 and same == path
    np.testing.assert_array_equal(again.vectors, found.vectors)
    np.testing.assert_array_equal(read_embeddings(storage, path).vectors, found.vectors)


def test_other_images_or_another_model_are_other_work(tmp_path: Path) -> None:
    storage, extractor = Storage(str(tmp_path)), MeanColour()
    embeddings_of(storage, extractor, [picture(1)])
    embeddings_of(storage, extractor, [picture(2)])
    other = MeanColour()
    other.model_id = lambda: "mean-2"  # type: ignore[method-assign]
    embeddings_of(storage, other, [picture(1)])
    assert (extractor.seen, other.seen) == (2, 1)
