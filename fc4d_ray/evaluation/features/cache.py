"""Embeddings kept by content: one batch of images, one model, one computation, whoever asks again.

``features/<model id>/<digest of the images>.parquet`` holds the images' digests and vectors in
order. Equal work has an equal name, so evaluations share what they have in common and a killed one
goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fc4d_ray.evaluation.features.protocol import Embeddings, FeatureExtractor
from fc4d_ray.store.digests import digest_bytes, digest_json
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.layout import safe_name
from fc4d_ray.store.parquet import table_from_bytes, table_to_bytes

FOLDER = "features"


def image_digest(image: NDArray[np.uint8]) -> str:
    """Digest of a prepared image's pixels and shape."""
    return digest_bytes(f"{image.shape}".encode() + np.ascontiguousarray(image).tobytes())


def embeddings_of(
    storage: Storage, extractor: FeatureExtractor, images: Sequence[NDArray[np.uint8]]
) -> tuple[Embeddings, str]:
    """Embeddings of the images, from the storage or put there, and the path they lie at.

    An image that occurs several times is looked at once.
    """
    digests = [image_digest(image) for image in images]
    path = f"{FOLDER}/{safe_name(extractor.model_id())}/{digest_json(digests)}.parquet"
    if storage.exists(path):
        return read_embeddings(storage, path), path
    unique = {digest: i for i, digest in enumerate(digests)}
    found = extractor.extract([images[i] for i in unique.values()]).vectors
    row = {digest: i for i, digest in enumerate(unique)}
    embeddings = Embeddings(found[[row[digest] for digest in digests]])
    storage.replace(path, _to_bytes(digests, embeddings.vectors))
    return embeddings, path


def read_embeddings(storage: Storage, path: str) -> Embeddings:
    """What ``embeddings_of`` put there."""
    column = table_from_bytes(storage.read(path))["vector"].combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False)
    return Embeddings(values.reshape(len(column), -1).astype(np.float32))


def _to_bytes(digests: Sequence[str], vectors: NDArray[np.float32]) -> bytes:
    import pyarrow as pa

    width = vectors.shape[1]
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width)
    return table_to_bytes(pa.table({"image": pa.array(digests), "vector": values}))
