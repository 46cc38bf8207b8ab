"""The shape stage's person on disk: rig and completed surface colour."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fc4d_ray.heads.flame_rig import FlameRig
from fc4d_ray.heads.rig import HeadRig
from fc4d_ray.priors.shape.anny import FittedPerson


@dataclass(frozen=True)
class PersonFiles:
    """``head.npz`` of a shape artifact."""

    rig: HeadRig | FlameRig
    colour: NDArray[np.float32]  # [V, 3] 0…1
    material: NDArray[np.uint8]  # [V] priors/shape/surface_colour.py

    def on(self, rig: FlameRig) -> PersonFiles:
        """The same person on another head that stands in the same place: each of its vertices
        takes the look of the nearest one, hair and clothing included."""
        _, nearest = cKDTree(self.rig.neutral).query(rig.neutral)
        return PersonFiles(rig, self.colour[nearest], self.material[nearest])


def write_person(shape_directory: Path, person: FittedPerson) -> None:
    """``head.npz`` of a fitted head."""
    np.savez_compressed(
        shape_directory / "head.npz",
        colour=person.colour.colour.astype(np.float16),
        material=person.colour.material,
        seen=person.colour.seen.astype(np.float16),
        rest_actions=person.fit.actions,
        **person.rig.to_arrays(),
    )


def read_person(shape_directory: Path) -> PersonFiles:
    with np.load(shape_directory / "head.npz") as arrays:
        return PersonFiles(
            HeadRig.from_arrays(arrays),
            arrays["colour"].astype(np.float32),
            arrays["material"],
        )
