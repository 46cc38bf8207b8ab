"""Cheap stages for tests of the machinery; what they do is steered by the portrait's own text.

A portrait is a text file such as ``ann``, ``bob fail:shape``, ``eve kill:train``; see
``FakeStage.process`` for the words. Workers import
this module by name: the folder it lies in is on ``PYTHONPATH`` (tests/conftest.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fc4d_ray.errors import NoFaceFound, StageFailed, StoreError
from fc4d_ray.stages import StageEntry, StageVariant, single
from fc4d_ray.stages.protocol import Facts, StageContext


@dataclass(frozen=True)
class FakeConfig:
    """What all fake stages can be told."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    strength: float = 1.0
    """Changes the output."""
    seconds: float = 0.0
    """Time the work takes."""
    journal: str | None = None
    """File that gets a line for every piece of work really begun."""


class FakeStage:
    """Writes one file made from its inputs, seed and config."""

    name = "fake"
    requires: tuple[str, ...] = ()
    version = "1"

    def weights_digest(self, config: FakeConfig) -> str:
        return "none"

    def setup(self, config: FakeConfig) -> None:
        """Nothing to load."""

    def process(self, context: StageContext) -> Facts:
        text = context.source.read_text()
        words = dict(word.split(":", 1) for word in text.split() if ":" in word)
        if context.config.journal:
            with open(context.config.journal, "a") as file:
                file.write(f"{text.split()[0] if text.split() else ''} {self.name}\n")
        if words.get("ask") == self.name:
            raise NoFaceFound("no face in the picture")
        if words.get("fail") == self.name:
            raise StageFailed("the fit went astray")
        if words.get("bug") == self.name:
            raise ZeroDivisionError("a bug")
        if words.get("flaky") == self.name and not context.output.with_name("again").exists():
            context.output.with_name("again").touch()
            (context.output / "half.txt").write_text("half of a result")
            raise ConnectionResetError("the licence server hung up")
        if words.get("oom") == self.name:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        if words.get("poison") == self.name:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if words.get("hang") == self.name:
            time.sleep(600)
        if words.get("kill") == self.name:
            os.kill(os.getpid(), signal.SIGKILL)
        if words.get("read") == self.name:
            self._read_inputs(context)
        if words.get("killonce") == self.name:
            self._kill_once(context)
        _work(context)
        parts = [text, str(context.seed), str(context.config.strength)]
        parts += [(context.inputs[name] / "result.txt").read_text() for name in self.requires]
        digest = hashlib.sha256("|".join(parts).encode()).hexdigest()
        (context.output / "result.txt").write_text(digest + "\n")
        return self.facts(context)

    def facts(self, context: StageContext) -> Facts:
        return {}

    def _read_inputs(self, context: StageContext) -> None:
        """Complain about a damaged file as the clip reader does."""
        for name in self.requires:
            if not (context.inputs[name] / "result.txt").read_text().strip().isalnum():
                raise StoreError(f"{name}/result.txt is corrupt at frame 4")

    def _kill_once(self, context: StageContext) -> None:
        marker = Path(context.config.journal + ".killed")
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def _work(context: StageContext) -> None:
    until = time.monotonic() + context.config.seconds
    while (left := until - time.monotonic()) > 0:
        context.progress(1 - left / context.config.seconds, "working")
        time.sleep(min(0.05, left))


class IngestStage(FakeStage):
    name = "ingest"

    def facts(self, context: StageContext) -> Facts:
        several = "faces" in context.source.read_text()
        return {"warnings": ["several faces, the largest taken"] if several else []}


class ShapeStage(FakeStage):
    name = "shape"
    requires = ("ingest",)

    def facts(self, context: StageContext) -> Facts:
        return {"silhouette_iou": 0.9, "ignored": float("nan")}


class TrainStage(FakeStage):
    name = "train"
    requires = ("ingest", "shape")

    def facts(self, context: StageContext) -> Facts:
        return {"n_splats": 1000}


class PublishStage(FakeStage):
    name = "publish"
    requires = ("train",)

    def facts(self, context: StageContext) -> Facts:
        seen: dict[str, Any] = {"facts": dict(context.facts), "row": dict(context.row)}
        (context.output / "record.json").write_text(json.dumps(seen, sort_keys=True))
        return {"id_distance_0": 0.2, "id_distance_30": None, "id_distance_45": 0.5}


_CONFIG = "fake_stages:FakeConfig"

REGISTRY = (
    StageEntry("ingest", single("fake_stages:IngestStage", _CONFIG)),
    StageEntry("shape", {"plain": StageVariant("fake_stages:ShapeStage", _CONFIG)}),
    StageEntry("train", single("fake_stages:TrainStage", _CONFIG), part="training"),
    StageEntry("publish", single("fake_stages:PublishStage", _CONFIG), part="training"),
)
