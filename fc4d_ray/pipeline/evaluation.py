"""An evaluation from addresses to files: render, measure, score, report; resumable throughout.

::

    OUT/images/<method>/…           our runs' renders, in the layout of ``image_sets.contract``
    OUT/features/<model>/…          embeddings by content
    OUT/subjects/…                  a subject's figures, named by what they depend on
    OUT/<protocol>/per_image.parquet per_subject.parquet metrics.json metrics.md report.html …
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fc4d_ray import __version__
from fc4d_ray.config import RunSettings
from fc4d_ray.errors import ConfigError
from fc4d_ray.evaluation.features import EXTRACTOR_CLASSES, FeatureConfig, make_extractor
from fc4d_ray.evaluation.features.cache import read_embeddings
from fc4d_ray.evaluation.features.protocol import find_weights, package_missing
from fc4d_ray.evaluation.image_sets.contract import (
    ImageSet,
    InvalidImageSet,
    SetImage,
    picture_name,
    read_image_set,
)
from fc4d_ray.evaluation.image_sets.runs import (
    REFERENCES,
    RunSubject,
    assemble_set,
    read_run_subjects,
    render_subject,
)
from fc4d_ray.evaluation.protocols import Protocol
from fc4d_ray.evaluation.scores import ScoreTable, SubjectFigures, score
from fc4d_ray.evaluation.subject import SubjectTask, measure_subject
from fc4d_ray.pipeline.scatter import scatter
from fc4d_ray.store.filesystem import Storage

AZIMUTH_TOLERANCE_DEG = 10.0
"""How far a system's own camera may stand from the protocol's and still show that view."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """A method to evaluate."""

    name: str
    address: str
    """Output of ``fc4d run``, or a folder with an image set's manifest."""
    is_run: bool


@dataclass(frozen=True)
class Failure:
    """A subject that could not be evaluated, and why; part of the report."""

    method: str
    subject: str
    step: str
    error_type: str
    message: str


@dataclass(frozen=True)
class Evaluation:
    """What came out."""

    protocol: Protocol
    table: ScoreTable
    figures: Sequence[SubjectFigures]
    unavailable: Mapping[str, str]
    """Reason by extractor or loss."""
    failures: Sequence[Failure]
    sources: Sequence[Source] = field(default_factory=tuple)


def evaluate(
    sources: Sequence[Source],
    out: str,
    protocol: Protocol,
    *,
    features: FeatureConfig | None = None,
    settings: RunSettings | None = None,
    gpus_per_worker: float = 0.0,
    references: str | None = None,
    truths: str | None = None,
    say: Say = lambda line: None,
) -> Evaluation:
    """Render, measure and score every subject of every method; what is done already is kept.

    ``references``: folder with ``<subject>.png``; by default the first run's own. ``truths``:
    folder with ``<subject>/<view>[_f<frame>].png``, true pictures of the people from the
    protocol's views (such as MEAD's), for PSNR, SSIM and LPIPS. Raises
    ``ConfigError`` and ``InvalidImageSet`` before any work; a subject that fails is a ``Failure``.
    """
    features = features or FeatureConfig()
    settings = settings or RunSettings()
    _check_sources(sources)
    storage = Storage(_root(out))
    unavailable = unavailable_extractors(features)
    for key, reason in unavailable.items():
        say(f"{key} is not available: {reason}")
    failures: list[Failure] = []
    sets = [
        _rendered(source, storage, protocol, settings, gpus_per_worker, failures, say)
        if source.is_run
        else _baseline(source, protocol)
        for source in sources
    ]
    known = _References.find(sets, sources, references)
    true = _Truths.find(truths)
    tasks = [task for images in sets for task in _tasks(images, known, true, protocol, features)]
    say(f"measuring {len(tasks)} subjects of {len(sets)} methods")
    paths: dict[tuple[str, str], str] = {}
    make = functools.partial(_Measurer, storage, features, tuple(unavailable))
    for done in scatter(tasks, make, settings, gpus_per_worker):
        task = done.piece
        if done.error_type is None:
            paths[task.method, task.subject] = done.result
        else:
            failures.append(
                Failure(
                    task.method, task.subject, "measure", done.error_type, str(done.error_message)
                )
            )
    order = [(task.method, task.subject) for task in tasks]
    figures = [_read_figures(storage, paths[key]) for key in order if key in paths]
    if not figures:
        raise InvalidImageSet(f"no subject could be evaluated: {_told(failures)}")
    return Evaluation(
        protocol, score(figures, unavailable), figures, unavailable, failures, tuple(sources)
    )


def unavailable_extractors(features: FeatureConfig) -> dict[str, str]:
    """Reason by extractor, and by ``lpips``, of what cannot be measured on this machine."""
    reasons = {
        key: reason
        for key in EXTRACTOR_CLASSES
        if (reason := make_extractor(key, features).unavailable()) is not None
    }
    if (reason := package_missing("lpips")) is not None:
        return reasons | {"lpips": reason}
    found = find_weights(features.lpips_backbone, "lpips-alex", folder=False)
    return reasons | ({"lpips": found} if isinstance(found, str) else {})


def method_folder(name: str) -> str:
    """A method's name as a folder's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-") or "method"


class _Measurer:
    """Measures subjects in one process, with its models loaded once."""

    def __init__(self, out: Storage, features: FeatureConfig, unavailable: tuple[str, ...]) -> None:
        self._out = out
        self._extractors = {
            key: make_extractor(key, features)
            for key in EXTRACTOR_CLASSES
            if key not in unavailable
        }
        self._lpips = None if "lpips" in unavailable else _perceptual(features)

    def __call__(self, task: SubjectTask) -> str:
        return measure_subject(self._out, task, self._extractors, self._lpips)


def _perceptual(features: FeatureConfig) -> Any:
    from fc4d_ray.avatar.structure import make_structure_loss

    backbone = find_weights(features.lpips_backbone, "lpips-alex", folder=False)
    return make_structure_loss("lpips_alex", str(backbone), features.torch_device)


class _Renderer:
    """Renders subjects in one process."""

    def __init__(self, target: Storage, protocol: Protocol) -> None:
        self._target, self._protocol = target, protocol

    def __call__(self, subject: RunSubject) -> str:
        return render_subject(self._target, subject, self._protocol)


def _rendered(
    source: Source,
    storage: Storage,
    protocol: Protocol,
    settings: RunSettings,
    gpus_per_worker: float,
    failures: list[Failure],
    say: Say,
) -> ImageSet:
    subjects = read_run_subjects(source.address)
    if not subjects:
        raise ConfigError(f"{source.address} holds no finished avatar")
    say(f"rendering {len(subjects)} avatars of {source.name}")
    target = Storage(storage.uri_of(f"images/{method_folder(source.name)}"))
    make = functools.partial(_Renderer, target, protocol)
    parts: dict[str, str] = {}
    for done in scatter(subjects, make, settings, gpus_per_worker):
        name = done.piece.name
        if done.error_type is None:
            parts[name] = done.result
        else:
            message = str(done.error_message)
            failures.append(Failure(source.name, name, "render", done.error_type, message))
    if not parts:
        raise InvalidImageSet(f"no avatar could be rendered: {_told(failures)}")
    ordered = [parts[subject.name] for subject in subjects if subject.name in parts]
    return assemble_set(target, source.name, ordered, protocol, __version__)


def _baseline(source: Source, protocol: Protocol) -> ImageSet:
    """Another system's pictures, refused where they are not of the protocol's views."""
    images = read_image_set(source.address, source.name)
    where = f"{source.name} ({source.address})"
    wanted = {view.name: view for view in protocol.views}
    if images.camera_set is not None and images.camera_set != protocol.camera_set:
        raise InvalidImageSet(
            f"{where} was made for another camera set than protocol {protocol.name}; the two "
            "cannot stand in one table"
        )
    for image in images.images:
        view = wanted.get(image.key.view)
        if view is None:
            raise InvalidImageSet(
                f"{where}: {image.path} is view {image.key.view!r}, which protocol "
                f"{protocol.name} does not have; it has {', '.join(wanted)}"
            )
        off = abs((image.azimuth_deg - view.azimuth_deg + 180) % 360 - 180)
        if off > AZIMUTH_TOLERANCE_DEG:
            raise InvalidImageSet(
                f"{where}: {image.path} is seen from {image.azimuth_deg:g}°, view {view.name} is "
                f"at {view.azimuth_deg:g}°"
            )
    return images


@dataclass(frozen=True)
class _References:
    """Where the portraits lie."""

    folder: Storage | None
    names: frozenset[str]

    @staticmethod
    def find(sets: Sequence[ImageSet], sources: Sequence[Source], given: str | None) -> _References:
        if given is not None:
            folder = Storage(_root(given))
        else:
            runs = [s for s, source in zip(sets, sources, strict=True) if source.is_run]
            first = runs[0] if runs else sets[0]
            folder = Storage(first.storage.uri_of(REFERENCES))
        names = frozenset(
            name.removesuffix(".png") for name in folder.names("") if name.endswith(".png")
        )
        if given is not None and not names:
            raise ConfigError(f"there is no <subject>.png in {given}")
        return _References(folder, names)

    def of(self, subject: str) -> str | None:
        """Address of a subject's portrait."""
        if self.folder is None or subject not in self.names:
            return None
        return self.folder.uri_of(f"{subject}.png")


@dataclass(frozen=True)
class _Truths:
    """Where true pictures lie, besides those that a method's manifest names."""

    folder: Storage | None
    names: frozenset[str]

    @staticmethod
    def find(given: str | None) -> _Truths:
        if given is None:
            return _Truths(None, frozenset())
        folder = Storage(_root(given))
        names = frozenset(
            f"{subject}/{name}"
            for subject, files in folder.names_by_folder("")
            for name in files
            if name.endswith(".png")
        )
        if not names:
            raise ConfigError(f"there is no <subject>/<view>.png in {given}")
        return _Truths(folder, names)

    def of(self, images: ImageSet, image: SetImage) -> str | None:
        """Address of the true picture for an image."""
        if image.truth is not None:
            return images.storage.uri_of(image.truth)
        name = picture_name(image.key)
        return self.folder.uri_of(name) if self.folder and name in self.names else None


def _tasks(
    images: ImageSet,
    references: _References,
    truths: _Truths,
    protocol: Protocol,
    features: FeatureConfig,
) -> list[SubjectTask]:
    by_subject: dict[str, list[SetImage]] = {}
    for image in sorted(images.images, key=lambda image: image.key):
        by_subject.setdefault(image.key.subject, []).append(image)
    return [
        SubjectTask(
            images.method,
            subject,
            images.storage,
            tuple(by_subject[subject]),
            references.of(subject),
            protocol,
            features,
            tuple(truths.of(images, image) for image in by_subject[subject]),
        )
        for subject in images.subjects
    ]


def _read_figures(storage: Storage, path: str) -> SubjectFigures:
    document = storage.read_json(path)
    inception = document["features"].get("inception")
    vectors = None if inception is None else read_embeddings(storage, inception).vectors
    return SubjectFigures.from_document(document, vectors)


def _told(failures: Sequence[Failure]) -> str:
    return "; ".join(f"{f.method}/{f.subject}: {f.error_type}: {f.message}" for f in failures)


def _check_sources(sources: Sequence[Source]) -> None:
    if not sources:
        raise ConfigError("there is nothing to evaluate: name a run or a --baseline")
    names = [source.name for source in sources]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(
            f"two methods are named {', '.join(repeated)}; give them names: NAME=ADDRESS"
        )
    folders = [method_folder(name) for name in names]
    if len(set(folders)) < len(folders):
        raise ConfigError(
            f"the methods' names must differ as folder names, too: {', '.join(names)}"
        )


def _root(address: str) -> str:
    from pathlib import Path

    return address.rstrip("/") if "://" in address else str(Path(address).absolute())
