"""A toy avatar, and stages that publish it in no time: for tests of what comes after a run.

A portrait is a text file such as ``ann``; its text decides the ball's colour. Workers import this
module by name, as they do ``fake_stages``.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.avatar.initialise import initialise_on_surface
from fc4d_ray.cameras import orbit_camera
from fc4d_ray.heads.rig import HeadRig
from fc4d_ray.images import write_png
from fc4d_ray.playback import Performance, render_rgba
from fc4d_ray.priors.video.motion import ACTION_NAMES
from fc4d_ray.stages import StageEntry, single
from fc4d_ray.stages.protocol import Facts, StageContext

RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def ball_avatar(
    right: tuple[float, float, float] = RED, left: tuple[float, float, float] = BLUE
) -> Avatar:
    """A ball of 10 cm with two halves, whose top rises with jawOpen."""
    rings, spokes = 16, 24
    theta = np.linspace(0.15, np.pi - 0.15, rings)[:, None]
    phi = np.arange(spokes)[None] * 2 * np.pi / spokes
    points = np.stack(
        [np.sin(theta) * np.sin(phi), np.cos(theta) + 0 * phi, np.sin(theta) * np.cos(phi)], -1
    ).reshape(-1, 3)
    faces = []
    for ring in range(rings - 1):
        for spoke in range(spokes):
            a, b = ring * spokes + spoke, ring * spokes + (spoke + 1) % spokes
            faces += [(a, a + spokes, b), (b, a + spokes, b + spokes)]
    faces = np.array(faces)
    vertices = (0.1 * points).astype(np.float32)
    basis = np.zeros((52, len(vertices), 3), np.float32)
    basis[ACTION_NAMES.index("jawOpen"), :, 1] = 0.05 * (points[:, 1] > 0.5)
    rig = HeadRig(
        neutral=vertices,
        faces=faces.astype(np.int32),
        action_basis=basis,
        action_names=ACTION_NAMES,
        neck_pivot=np.array([0, -0.1, 0], np.float32),
        neck_weight=np.ones(len(vertices), np.float32),
        region=np.zeros(len(vertices), np.uint8),
        landmark_faces=np.zeros(68, np.int32),
        landmark_barycentric=np.full((68, 3), 1 / 3, np.float32),
    )
    mesh = torch.from_numpy(vertices), torch.from_numpy(faces)
    index = torch.arange(len(faces)).repeat_interleave(3)
    corners = torch.eye(3).repeat(len(faces), 1) * 0.6 + 0.4 / 3
    is_left = torch.from_numpy(vertices[faces[index, 0], 0] > 0)[:, None]
    colours = torch.where(is_left, torch.tensor(left), torch.tensor(right))
    return Avatar(initialise_on_surface(*mesh, index, corners, colours, 0.012), rig, {})


class IngestStage:
    """Takes the portrait as it is."""

    name = "ingest"
    requires: tuple[str, ...] = ()
    version = "1"

    def weights_digest(self, config: object) -> str:
        return "none"

    def setup(self, config: object) -> None:
        """Nothing to load."""

    def process(self, context: StageContext) -> Facts:
        (context.output / "portrait.txt").write_text(context.source.read_text())
        return {"warnings": []}


class PublishStage(IngestStage):
    """Publishes a ball in a colour of the portrait's own."""

    name = "publish"
    requires = ("ingest",)

    def process(self, context: StageContext) -> Facts:
        digest = hashlib.sha256(context.source.read_bytes()).digest()
        avatar = ball_avatar(right=tuple(byte / 255 for byte in digest[:3]))
        avatar.save(context.output)
        seen = render_rgba(avatar, orbit_camera(0, size=96), Performance().parameters(0))
        for name in ("reference.png", "preview.png"):
            write_png(context.output / name, seen)
        (context.output / "record.json").write_text("{}\n")
        return {
            "id_distance_0": 0.1 + digest[0] / 1000,
            "id_distance_30": None if digest[1] % 2 else 0.4,
            "silhouette_iou": 0.9,
        }


_CONFIG = "fake_stages:FakeConfig"

REGISTRY = (
    StageEntry("ingest", single("ball_avatars:IngestStage", _CONFIG)),
    StageEntry("publish", single("ball_avatars:PublishStage", _CONFIG), part="training"),
)
