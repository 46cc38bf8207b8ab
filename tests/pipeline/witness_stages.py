"""The paper profile's stages, which load their models for real and note where they were run.

Worker processes import this module by name, as they do ``fake_stages``. Each stage's ``process``
writes one file and a line of the journal: what the worker holds of the cluster and which heavy
models live in its process.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from dataclasses import replace
from typing import Any

import ray

from fc4d_ray.stages import REGISTRY as REAL
from fc4d_ray.stages import StageEntry, StageVariant, load
from fc4d_ray.stages.protocol import Facts, StageContext

JOURNAL = "FC4D_TEST_JOURNAL"
"""Environment variable that names the journal."""

HEAVY = {
    "PanoHeadGenerator": "shape",
    "UNet2DConditionModel": "image",
    "WarpingModule": "video",
}
"""Classes of the heavy networks and the stage they belong to."""


def _witness(stage: type) -> type:
    """The stage with its own ``setup`` and a ``process`` that only looks around."""

    class Witness(stage):  # type: ignore[misc, valid-type]
        def process(self, context: StageContext) -> Facts:
            runtime = ray.get_runtime_context()
            note = {
                "stage": self.name,
                "process": os.getpid(),
                "actor": runtime.get_actor_id(),
                "gpus": runtime.get_assigned_resources().get("GPU", 0.0),
                "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
                "models": sorted({kind for kind in _living() if kind in HEAVY}),
            }
            with open(os.environ[JOURNAL], "a") as file:
                file.write(json.dumps(note) + "\n")
            (context.output / f"{self.name}.txt").write_text("seen\n")
            return {}

    Witness.__name__ = Witness.__qualname__ = f"Witness{stage.__name__}"
    return Witness


def _living() -> set[str]:
    """Class names of the networks in this process."""
    torch = sys.modules.get("torch")
    if torch is None:
        return set()
    kinds = {type(thing) for thing in gc.get_objects()}
    return {kind.__name__ for kind in kinds if issubclass(kind, torch.nn.Module)}


def _entry(entry: StageEntry) -> StageEntry:
    variants: dict[str, Any] = {}
    for name, variant in entry.variants.items():
        stage = f"witness_stages:Witness{variant.stage.partition(':')[2]}"
        variants[name] = StageVariant(stage, variant.config)
    return replace(entry, variants=variants)


REGISTRY = tuple(_entry(entry) for entry in REAL)


def __getattr__(name: str) -> type:
    """``Witness<Stage>`` for every stage of the real registry."""
    for entry in REAL:
        for variant in entry.variants.values():
            if name == f"Witness{variant.stage.partition(':')[2]}":
                return _witness(load(variant.stage))
    raise AttributeError(name)
