"""Our own runs as image sets: the protocol's views of every avatar of an output.

Each subject is one piece of work that any process can do: it renders what is missing and leaves a
part of the manifest, named by what it depends on, so that a second evaluation finds it done.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.avatar.splatting import render_depth
from fc4d_ray.cameras import Camera, orbit_camera
from fc4d_ray.evaluation.image_sets.contract import (
    ImageKey,
    ImageSet,
    SetImage,
    check_keys,
    image_from_json,
    picture_name,
)
from fc4d_ray.evaluation.protocols import Protocol
from fc4d_ray.images import DEPTH_LEVELS
from fc4d_ray.playback import Performance, render_rgba
from fc4d_ray.priors.video.motion import MotionClip, load_clip
from fc4d_ray.store.avatars import avatar_files
from fc4d_ray.store.digests import digest_bytes, digest_json, readable_json
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.location import open_output
from fc4d_ray.store.manifest import read_manifest

if TYPE_CHECKING:
    import pyarrow as pa

RENDER_VERSION = "1"
"""Raised when rendering for evaluation changes, so that older pictures are made anew."""
REFERENCES = "references"
REFERENCE_FILE = "reference.png"
_PARTS = "parts"


@dataclass(frozen=True)
class RunSubject:
    """A finished avatar of a run, under the name its figures are listed by."""

    name: str
    avatar_id: str
    avatar_uri: str
    plan_digest: str

    def key(self, protocol: Protocol) -> str:
        """Digest of all that its pictures depend on."""
        return digest_json([self.avatar_id, self.plan_digest, protocol.camera_set, RENDER_VERSION])


def read_run_subjects(out: str) -> list[RunSubject]:
    """The finished avatars of an output, in the manifest's order."""
    table = read_manifest(open_output(out))
    columns = ["avatar_id", "avatar_uri", "plan_digest"]
    rows = table.select(columns).to_pylist()
    return [
        RunSubject(name, row["avatar_id"], row["avatar_uri"], row["plan_digest"])
        for name, row in zip(subject_names(table), rows, strict=True)
        if name is not None
    ]


def subject_names(manifest: pa.Table) -> list[str | None]:
    """The name each row of a manifest is evaluated under; None for rows without an avatar.

    The portrait's file name without its ending, with the avatar's id where that is ambiguous.
    """
    rows = manifest.select(["avatar_id", "source_uri", "status"]).to_pylist()
    stems = [
        _subject_name(row["source_uri"]) if row["status"] == "succeeded" else None for row in rows
    ]
    repeated = {stem for stem, count in Counter(stems).items() if count > 1}
    return [
        f"{stem}-{row['avatar_id'][:8]}" if stem is not None and stem in repeated else stem
        for stem, row in zip(stems, rows, strict=True)
    ]


def finished_part(target: Storage, subject: RunSubject, protocol: Protocol) -> str:
    """Path of the part that says a subject's pictures are all there."""
    return f"{_PARTS}/{subject.name}-{subject.key(protocol)}.json"


def render_subject(target: Storage, subject: RunSubject, protocol: Protocol) -> str:
    """Draw one avatar's views below ``target`` and return the path of its part of the manifest.

    Depth comes with the views at rest, for cross-view agreement; the driver's landmarks with those
    of a clip. Raises ``StoreError`` where the avatar or the target cannot be read or written.
    """
    part = finished_part(target, subject, protocol)
    if target.exists(part):
        return part
    with avatar_files(subject.avatar_uri) as folder:
        avatar = Avatar.load(folder)
        reference = folder / REFERENCE_FILE
        if reference.is_file():
            target.replace(f"{REFERENCES}/{subject.name}.png", reference.read_bytes())
    images = [
        _render(target, avatar, subject.name, protocol, view, frame, performance)
        for frame, performance in _performances(protocol)
        for view in range(len(protocol.views))
    ]
    target.replace(part, readable_json([image.to_json() for image in images]))
    return part


def assemble_set(
    target: Storage, method: str, parts: Sequence[str], protocol: Protocol, version: str
) -> ImageSet:
    """Put the subjects' parts together as ``manifest.json``.

    Raises ``InvalidImageSet`` where there is nothing to put together.
    """
    images = tuple(image_from_json(item, part) for part in parts for item in target.read_json(part))
    check_keys(images, target.uri)
    assembled = ImageSet(method, target, images, protocol.camera_set, version)
    assembled.write()
    return assembled


def _performances(protocol: Protocol) -> list[tuple[int, Performance]]:
    """(frame number across all clips, what the face does then); -1 at rest."""
    if not protocol.clips:
        return [(-1, Performance())]
    chosen: list[tuple[int, Performance]] = []
    for name in protocol.clips:
        clip = load_clip(name)
        frames = np.linspace(0, clip.n_frames - 1, protocol.frames_per_clip + 2)[1:-1]
        for frame in np.rint(frames).astype(int):
            acted = Performance(clip=_single_frame(clip, int(frame)))
            chosen.append((len(chosen), acted))
    return chosen


def _single_frame(clip: MotionClip, frame: int) -> MotionClip:
    return replace(clip, actions=clip.actions[frame : frame + 1], neck=clip.neck[frame : frame + 1])


def _render(
    target: Storage,
    avatar: Avatar,
    subject: str,
    protocol: Protocol,
    view_index: int,
    frame: int,
    performance: Performance,
) -> SetImage:
    view = protocol.views[view_index]
    camera = orbit_camera(
        view.azimuth_deg,
        view.elevation_deg,
        size=protocol.size,
        radius_m=protocol.radius_m,
        fov_deg=protocol.fov_deg,
    )
    parameters = performance.parameters(0)
    key = ImageKey(subject, view.name, frame)
    stem = picture_name(key).removesuffix(".png")
    target.replace(f"{stem}.png", encode_png(render_rgba(avatar, camera, parameters)))
    extra: dict[str, Any] = {}
    if frame < 0:
        depth = render_depth(avatar.splats(parameters), camera).cpu().numpy()
        unit_m = max(float(depth.max()), 1e-3) / DEPTH_LEVELS
        target.replace(f"{stem}.depth.png", encode_png(np.rint(depth / unit_m).astype(np.uint16)))
        extra = {"depth": f"{stem}.depth.png", "depth_unit_m": unit_m, "camera": camera.to_json()}
    else:
        extra["driver_landmarks"] = _driver_landmarks(avatar, camera, parameters)
    return SetImage(
        key,
        view.azimuth_deg,
        view.elevation_deg,
        f"{stem}.png",
        **extra,
    )


@torch.no_grad()
def _driver_landmarks(
    avatar: Avatar, camera: Camera, parameters: Mapping[str, torch.Tensor]
) -> tuple[tuple[float, float], ...] | None:
    """Where the rig itself has its 68 landmarks under the driving signal; None without any."""
    locate = getattr(avatar.rig, "landmarks", None)
    if locate is None:
        return None
    points = locate(avatar.rig.pose(dict(parameters)))[0].numpy()
    pixels, _ = camera.project(points)
    return tuple((round(float(x), 2), round(float(y), 2)) for x, y in pixels)


def encode_png(image: NDArray) -> bytes:
    """PNG bytes of a grey (8 or 16 bit), RGB or RGBA picture; equal pictures give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _subject_name(source_uri: str) -> str:
    """A file stem that can be a folder's name."""
    stem = PurePosixPath(source_uri.split("?")[0]).stem
    kept = "".join(c if (c.isalnum() and c.isascii()) or c in "._-" else "_" for c in stem)
    kept = kept.strip("._-")[:64]
    return kept or digest_bytes(source_uri.encode())[:12]
