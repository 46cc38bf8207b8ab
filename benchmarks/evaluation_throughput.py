"""Images per second of each measurement, and what an evaluation's bookkeeping costs.

Extraction against looking up what is known (CLIP-I and its pairs share one extraction, FID and KID
do), with random weights in the released architecture. Then the bookkeeping of many subjects:
reading what ``measure_subject`` left and scoring it.

    python benchmarks/evaluation_throughput.py --images 32 --subjects 100 1000 \\
        --out docs/evaluation_results.md
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from quality_tables import markdown_table

from fc4d_ray.assets.torchvision_shim import ensure_torchvision_importable
from fc4d_ray.evaluation.features import FeatureConfig, FeatureExtractor, make_extractor
from fc4d_ray.evaluation.features.cache import embeddings_of
from fc4d_ray.evaluation.report.frames import per_image_table, per_subject_table
from fc4d_ray.evaluation.scores import SubjectFigures, score
from fc4d_ray.store.digests import readable_json
from fc4d_ray.store.filesystem import Storage

SIZE = 512
VIEWS = ("frontal", "left_frontal", "left", "right_frontal", "right", "back")


def random_clip(folder: Path) -> Path:
    """CLIP ViT-B/32's vision tower with random weights, as transformers stores it."""
    ensure_torchvision_importable()
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=512)).save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    return folder


def seconds_of(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def extraction_rows(extractors: Sequence[tuple[str, FeatureExtractor]], n: int) -> list[list[str]]:
    """Per extractor: images per second by itself, and the gain of extracting once for all."""
    images = list(np.random.default_rng(0).integers(0, 255, (n, SIZE, SIZE, 3), np.uint8))
    rows = []
    for title, extractor in extractors:
        extractor.extract(images[:1])
        with tempfile.TemporaryDirectory() as folder:
            storage = Storage(folder)
            once = seconds_of(lambda s=storage, e=extractor: embeddings_of(s, e, images))
            again = seconds_of(lambda s=storage, e=extractor: embeddings_of(s, e, images))
        rows.append([title, f"{n / once:.2f}", f"{once / again:.0f}"])
    return rows


def bookkeeping_rows(counts: Sequence[int]) -> list[list[str]]:
    """Seconds to read and score what many subjects left."""
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            storage = Storage(folder)
            written = seconds_of(lambda s=storage, c=count: _write_subjects(s, c))
            names = storage.names("subjects")
            figures: list[SubjectFigures] = []
            read = seconds_of(
                lambda s=storage, f=figures, k=names: f.extend(
                    SubjectFigures.from_document(s.read_json(f"subjects/{name}")) for name in k
                )
            )
            scored = seconds_of(lambda f=figures: score(f, {"arcface": "no weights"}))
            tables = seconds_of(lambda f=figures: (per_image_table(f), per_subject_table(f)))
        rows.append([str(count), *(f"{value:.2f}" for value in (written, read, scored, tables))])
    return rows


def _write_subjects(storage: Storage, count: int) -> None:
    random = np.random.default_rng(0)
    for index in range(count):
        images = [
            {
                "view": view, "frame": -1, "azimuth_deg": 60.0 * i, "elevation_deg": 0.0,
                "uri": f"/{index}/{view}.png", "image": f"{index}-{i}",
                "clip_i": random.random(), "id_dlib_distance": random.random(),
            }
            for i, view in enumerate(VIEWS)
        ]  # fmt: skip
        subject = f"s{index:06d}"
        document = {
            "method": "ours", "subject": subject, "models": {"clip": "x"}, "features": {},
            "figures": {"has_reference": True, "clip_i_pair": random.random()}, "images": images,
        }  # fmt: skip
        storage.replace(f"subjects/{subject}.json", readable_json(document))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--subjects", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--out", type=Path, metavar="FILE.md")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        clip = random_clip(Path(folder) / "clip-vit-b-32-random")
        config = FeatureConfig(clip=str(clip))
        extractors = [
            ("CLIP ViT-B/32 (random weights)", make_extractor("clip", config)),
            ("dlib descriptor (no face in noise: detection only)", make_extractor("dlib", config)),
        ]
        first = extraction_rows(extractors, arguments.images)
    second = bookkeeping_rows(arguments.subjects)
    extraction_header = ["measurement", f"images/s at {SIZE}²", "speed-up where known already"]
    bookkeeping_header = ["subjects × 6 views", "write, s", "read, s", "score, s", "tables, s"]
    threads = torch.get_num_threads()
    text = (
        f"# Evaluation: throughput\n\n{threads} threads, {arguments.images} images.\n\n"
        f"{markdown_table(extraction_header, first)}\n\n"
        f"{markdown_table(bookkeeping_header, second)}\n"
    )
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
