"""Identity and motion of a head from several known cameras, all frames at once.

Stages follow the trackers that prepare data for head avatars, with what known cameras make
easier: the pose starts in closed form from triangulated landmarks; landmarks alone then give
identity and expression; at last the skin's own colour, compared with an albedo under spherical
harmonics light that all views and frames share, and the matte's outline align the surface, coarse
to fine. Each step is Gauss-Newton's over the shared identity and every frame together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.cameras import Camera
from fc4d_ray.errors import TrackingFailed
from fc4d_ray.heads.rig import Region
from fc4d_ray.heads.trackable import ParameterPrior, TrackableHead
from fc4d_ray.tracking.appearance import Appearance, Observations, fit_appearance
from fc4d_ray.tracking.arrow_system import ArrowSystem
from fc4d_ray.tracking.evidence import (
    N_LANDMARKS,
    MultiviewFrames,
    Scale,
    make_scale,
    sample_with_slope,
)
from fc4d_ray.tracking.initial_pose import initial_poses
from fc4d_ray.tracking.multiview_config import MultiviewConfig
from fc4d_ray.tracking.normal_equations import (
    PointEvidence,
    colour_evidence,
    landmark_evidence,
    outline_evidence,
    to_parameters,
)
from fc4d_ray.tracking.visibility import facing_and_visible, project_all

_RIGID = ("rotation", "translation")
_RIGID_STEPS = 3
_START_DAMPING, _DAMPING_GROWTH, _TRIES = 1e-3, 10.0, 3
_SQUARE_ON, _RIM = 0.45, 0.1
_BARE = (Region.FACE,)
_BOUNDED = (Region.FACE, Region.EAR, Region.SCALP, Region.NECK)


@dataclass(frozen=True)
class MultiviewTrack:
    """What was found."""

    identity: NDArray[np.float32]  # [K]
    parameters: Mapping[str, NDArray[np.float32]]  # (T, d) by name
    scale: float
    """World units per metre: given cameras see a head this much larger than the model's."""
    cameras: tuple[Camera, ...]
    """The given cameras, brought to metres where the scale was estimated."""
    albedo: NDArray[np.float32]  # [N, 3] of the compared vertices
    light: NDArray[np.float32]  # [9, 3]
    colour_vertices: NDArray[np.int64]  # [N]
    landmark_error_px: NDArray[np.float64]  # [T, views] mean of the inner 51, NaN without any
    photometric_error: float
    """Mean absolute colour difference of the skin in sight, 0…1."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time by stage."""


def track_multiview(
    head: TrackableHead,
    frames: MultiviewFrames,
    config: MultiviewConfig | None = None,
    *,
    identity: NDArray[np.floating] | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> MultiviewTrack:
    """Track all frames.

    ``identity`` (K,) fixes the person where it is known. Equal inputs give equal bytes on one
    machine with one number of threads. Raises ``TrackingFailed`` where landmarks are too few or
    the result is not finite.
    """
    return _Tracker(head, frames, config or MultiviewConfig(), identity, device).run(progress)


@dataclass(frozen=True)
class _Appearances:
    """What is held still while a step is taken at one picture size."""

    scale: Scale
    appearance: Appearance
    expected: Tensor  # [T, N, 3]
    trust: Tensor  # [T, views, N]
    is_rim: Tensor  # [T, views, S]


class _Tracker:
    def __init__(
        self,
        head: TrackableHead,
        frames: MultiviewFrames,
        config: MultiviewConfig,
        identity: NDArray[np.floating] | None,
        device: torch.device | str,
    ) -> None:
        self.head, self.frames, self.config, self.device = head, frames, config, device
        self.cameras: tuple[Camera, ...] = tuple(frames.cameras)
        self.sizes = head.parameter_sizes
        self.identity_is_known = identity is not None
        self.identity = torch.zeros(head.identity_size, device=device)
        if identity is not None:
            self.identity = torch.as_tensor(np.asarray(identity, np.float32), device=device)
        self.parameters = {
            n: torch.zeros(frames.n_frames, d, device=device) for n, d in self.sizes.items()
        }
        self.colour_vertices = _spread(head.region, (Region.FACE,), config.photometric_points)
        self.outline_vertices = _spread(head.region, _BOUNDED, config.silhouette_points)
        corners = head.landmark_corners().ravel()
        self.points = head.points(
            np.concatenate([corners, self.colour_vertices, self.outline_vertices])
        )
        self.marks = torch.from_numpy(np.nan_to_num(frames.landmarks).astype(np.float32)).to(device)
        self.confidence = torch.from_numpy(frames.confidence.astype(np.float32)).to(device)
        self.barycentric = torch.from_numpy(head.landmark_barycentric.astype(np.float32)).to(device)
        self.seconds: dict[str, float] = {}

    def run(self, progress: Callable[[float, str], None]) -> MultiviewTrack:
        config = self.config
        started = time.perf_counter()
        scale = self._place()
        for step in range(config.landmark_iterations):
            names = _RIGID if step < _RIGID_STEPS else tuple(self.sizes)
            self._step(names, step >= _RIGID_STEPS, None)
        started = self._note("landmarks", started)
        seen = None
        for number, divisor in enumerate(config.divisors):
            progress(0.2 + 0.8 * number / len(config.divisors), f"photometric, 1/{divisor}")
            pictures = make_scale(self._at_scale(scale), divisor).to(self.device)
            for _ in range(config.iterations):
                seen = self._look(pictures)
                self._step(tuple(self.sizes), True, seen)
            started = self._note(f"photometric_{divisor}", started)
        return self._result(scale, seen)

    def _note(self, stage: str, started: float) -> float:
        now = time.perf_counter()
        self.seconds[stage] = now - started
        return now

    # --- start ----------------------------------------------------------------------------------

    def _place(self) -> float:
        rotation, translation, scale = initial_poses(self.head, self.frames)
        if self.config.estimate_scale:
            self.cameras = tuple(_in_metres(camera, scale) for camera in self.cameras)
            rotation, translation, _ = initial_poses(
                self.head, replace(self.frames, cameras=self.cameras)
            )
        else:
            scale = 1.0
        for name, value in (("rotation", rotation), ("translation", translation)):
            self.parameters[name] = torch.from_numpy(value.astype(np.float32)).to(self.device)
        return scale

    def _at_scale(self, scale: float) -> MultiviewFrames:
        return self.frames if scale == 1.0 else replace(self.frames, cameras=self.cameras)

    # --- what is seen ---------------------------------------------------------------------------

    @torch.no_grad()
    def _look(self, pictures: Scale) -> _Appearances:
        """Visibility, albedo and light for the head as it is believed to be now."""
        chosen = torch.from_numpy(np.concatenate([self.colour_vertices, self.outline_vertices])).to(
            self.device
        )
        n_colour = len(self.colour_vertices)
        bare = torch.from_numpy(np.isin(self.head.region[self.outline_vertices], _BARE)).to(
            self.device
        )
        normals, trust, rim, weight, colour = [], [], [], [], []
        for rows in self._chunks():
            parameters = {n: v[rows] for n, v in self.parameters.items()}
            vertices = self.head.vertices(self.identity, parameters)
            turned, cosine, unhidden = facing_and_visible(
                vertices, self.head.faces, chosen, pictures.cameras, torch.get_num_threads()
            )
            square_on = ((cosine - _SQUARE_ON) / (1 - _SQUARE_ON)).clamp(0, 1)
            trusted = (square_on * unhidden)[..., :n_colour]
            pixels, _ = project_all(vertices[:, chosen[:n_colour]], pictures.cameras)
            values = _values(pictures.images[rows], pixels)
            normals.append(turned[:, :n_colour])
            trust.append(trusted)
            edge = (cosine.abs() < _RIM) & unhidden
            rim.append(edge[..., n_colour:] & bare)
            weight.append(trusted.sum(1))
            colour.append((trusted[..., None] * values).sum(1))
        all_normals = torch.cat(normals)
        appearance = fit_appearance(Observations(torch.cat(weight), torch.cat(colour)), all_normals)
        return _Appearances(
            pictures, appearance, appearance.colours(all_normals), torch.cat(trust), torch.cat(rim)
        )

    # --- one step -------------------------------------------------------------------------------

    @torch.no_grad()
    def _step(self, names: tuple[str, ...], with_identity: bool, seen: _Appearances | None) -> None:
        """A damped Gauss-Newton step of the named parameters that lowers the energy, or none."""
        system, energy = self._system(seen)
        frozen_shared, frozen = self._frozen(names, with_identity, system)
        system = system.frozen(frozen_shared, frozen)
        damping = _START_DAMPING
        before = self.identity, self.parameters
        for _ in range(_TRIES):
            shared, step = system.solve(damping)
            self._move(before, shared.float(), step.float())
            if self._energy(seen) < energy:
                return
            damping *= _DAMPING_GROWTH
        self.identity, self.parameters = before

    def _frozen(
        self, names: tuple[str, ...], with_identity: bool, system: ArrowSystem
    ) -> tuple[Tensor, Tensor]:
        """(K,) and (T, P): what does not move, by name or because it stands at its limit."""
        columns = []
        offset = 0
        for name, size in self.sizes.items():
            value, limits = self.parameters[name], self.head.priors[name].limits
            stands = torch.full_like(value, name not in names).bool()
            if limits is not None:
                push = system.frames_right[:, offset : offset + size]
                stands |= ((value <= limits[0]) & (push < 0)) | ((value >= limits[1]) & (push > 0))
            columns.append(stands)
            offset += size
        moves = with_identity and not self.identity_is_known
        return torch.full_like(self.identity, not moves).bool(), torch.cat(columns, 1)

    def _move(self, start, shared: Tensor, step: Tensor) -> None:
        identity, parameters = start
        self.identity = identity + shared
        moved, offset = {}, 0
        for name, size in self.sizes.items():
            value = parameters[name] + step[:, offset : offset + size]
            limits = self.head.priors[name].limits
            moved[name] = value if limits is None else value.clamp(*limits)
            offset += size
        self.parameters = moved

    # --- the normal equations -------------------------------------------------------------------

    def _system(self, seen: _Appearances | None) -> tuple[ArrowSystem, float]:
        k, n_frames = self.head.identity_size, self.frames.n_frames
        width = sum(self.sizes.values())
        kind = {"dtype": torch.float64, "device": self.device}
        shared, shared_right = torch.zeros(k, k, **kind), torch.zeros(k, **kind)
        blocks, right = (
            torch.zeros(n_frames, width, width, **kind),
            torch.zeros(n_frames, width, **kind),
        )
        coupling = torch.zeros(n_frames, width, k, **kind)
        energy = 0.0
        for rows in self._chunks():
            parameters = {n: v[rows] for n, v in self.parameters.items()}
            slope = self.points.jacobian(self.identity, parameters)
            positions = self.points.positions(self.identity, parameters)
            for evidence, part in self._evidence(positions, slope, rows, seen):
                matrix, vector = to_parameters(evidence, part)
                matrix, vector = matrix.double(), vector.double()
                shared += matrix[:, :k, :k].sum(0)
                shared_right += vector[:, :k].sum(0)
                blocks[rows] += matrix[:, k:, k:]
                right[rows] += vector[:, k:]
                coupling[rows] += matrix[:, k:, :k]
                energy += float(evidence.energy)
        system = ArrowSystem(shared, shared_right, blocks, right, coupling,
                             torch.zeros(n_frames - 1, width, **kind))  # fmt: skip
        return self._with_priors(system), energy + self._prior_energy()

    def _evidence(
        self, positions: Tensor, slope: Tensor, rows: slice, seen: _Appearances | None
    ) -> Iterator[tuple[PointEvidence, Tensor]]:
        """Evidence of each kind with the derivatives of its points; ``slope`` may be empty."""
        config, n_corners = self.config, 3 * N_LANDMARKS
        marks = self._landmarks_of(positions[:, :n_corners])
        confidence = self.confidence[rows].clone()
        confidence[..., :17] *= config.jaw_share
        found = landmark_evidence(
            marks, self.cameras, self.marks[rows], confidence, config.landmark_deviation_m
        )
        share = 1.0 if seen is None else config.landmark_share
        yield found.weighted(share), self._landmark_slope(slope[:, :n_corners])
        if seen is None:
            return
        n_colour = len(self.colour_vertices)
        colour = slice(n_corners, n_corners + n_colour)
        pictures = seen.scale
        yield (
            colour_evidence(
                positions[:, colour], pictures.cameras, pictures.images[rows].float() / 255,
                seen.expected[rows], seen.trust[rows], config.photometric_deviation,
                config.photometric_count,
            ),
            slope[:, colour],
        )  # fmt: skip
        if pictures.outside is None or config.silhouette_count == 0:
            return
        outline = slice(n_corners + n_colour, None)
        yield (
            outline_evidence(
                positions[:, outline], pictures.cameras, pictures.outside[rows].float(),
                seen.is_rim[rows], config.silhouette_deviation_m, config.silhouette_count,
            ),
            slope[:, outline],
        )  # fmt: skip

    def _energy(self, seen: _Appearances | None) -> float:
        energy = self._prior_energy()
        for rows in self._chunks():
            parameters = {n: v[rows] for n, v in self.parameters.items()}
            positions = self.points.positions(self.identity, parameters)
            empty = positions.new_zeros(*positions.shape, 0)
            energy += sum(float(e.energy) for e, _ in self._evidence(positions, empty, rows, seen))
        return energy

    def _landmarks_of(self, corners: Tensor) -> Tensor:
        return (corners.unflatten(1, (N_LANDMARKS, 3)) * self.barycentric[..., None]).sum(2)

    def _landmark_slope(self, slope: Tensor) -> Tensor:
        corners = slope.unflatten(1, (N_LANDMARKS, 3))
        return (corners * self.barycentric[..., None, None]).sum(2)

    # --- priors ---------------------------------------------------------------------------------

    def _with_priors(self, system: ArrowSystem) -> ArrowSystem:
        strength = 1 / torch.as_tensor(self.head.identity_prior, device=self.device).square()
        shared = system.shared + torch.diag(strength)
        shared_right = system.shared_right - strength * self.identity.double()
        blocks, right, chain = system.frames.clone(), system.frames_right.clone(), []
        diagonal = blocks.diagonal(dim1=-2, dim2=-1)
        offset = 0
        for name, size in self.sizes.items():
            prior, value = self.head.priors[name], self.parameters[name].double()
            columns = slice(offset, offset + size)
            diagonal[:, columns] += prior.deviation**-2
            right[:, columns] -= prior.deviation**-2 * value + 0.5 * prior.slope
            tie = self._ties(prior)[:, None].expand(-1, size)
            change = value[1:] - value[:-1]
            diagonal[1:, columns] += tie
            diagonal[:-1, columns] += tie
            right[1:, columns] -= tie * change
            right[:-1, columns] += tie * change
            chain.append(-tie)
            offset += size
        return ArrowSystem(
            shared, shared_right, blocks, right, system.coupling, torch.cat(chain, 1)
        )

    def _ties(self, prior: ParameterPrior) -> Tensor:
        """(T - 1,) how strongly a parameter of one frame holds to the next one's."""
        follows = torch.from_numpy(self.frames.continues()).double().to(self.device)
        return follows * prior.smooth_deviation**-2

    def _prior_energy(self) -> float:
        strength = 1 / torch.as_tensor(self.head.identity_prior, device=self.device).square()
        energy = (strength * self.identity.double().square()).sum()
        for name in self.sizes:
            prior, value = self.head.priors[name], self.parameters[name].double()
            energy = energy + prior.deviation**-2 * value.square().sum()
            energy = energy + prior.slope * value.sum()
            change = (value[1:] - value[:-1]).square().sum(-1)
            energy = energy + (self._ties(prior) * change).sum()
        return float(energy)

    # --- result ---------------------------------------------------------------------------------

    def _chunks(self) -> Iterator[slice]:
        step = self.config.frames_at_once
        for start in range(0, self.frames.n_frames, step):
            yield slice(start, min(start + step, self.frames.n_frames))

    @torch.no_grad()
    def _result(self, scale: float, seen: _Appearances | None) -> MultiviewTrack:
        for name, value in {"identity": self.identity, **self.parameters}.items():
            if not bool(torch.isfinite(value).all()):
                raise TrackingFailed(f"tracking diverged: {name} is not finite")
        errors = [self._landmark_errors(rows) for rows in self._chunks()]
        look = seen.appearance if seen else Appearance(torch.zeros(0, 3), torch.zeros(9, 3))
        return MultiviewTrack(
            self.identity.cpu().numpy(),
            {n: v.cpu().numpy() for n, v in self.parameters.items()},
            scale, self.cameras, look.albedo.cpu().numpy(), look.light.cpu().numpy(),
            self.colour_vertices, torch.cat(errors).double().cpu().numpy(),
            self._photometric_error(seen) if seen else float("nan"), dict(self.seconds),
        )  # fmt: skip

    def _landmark_errors(self, rows: slice) -> Tensor:
        """(t, views) mean distance in px of the confident inner landmarks."""
        parameters = {n: v[rows] for n, v in self.parameters.items()}
        positions = self.points.positions(self.identity, parameters)
        marks = self._landmarks_of(positions[:, : 3 * N_LANDMARKS])
        pixels, _ = project_all(marks, self.cameras)
        distance = (pixels - self.marks[rows]).norm(dim=-1)[..., 17:]
        known = (self.confidence[rows][..., 17:] > 0).float()
        return (distance * known).sum(-1) / torch.where(known.sum(-1) > 0, known.sum(-1), torch.nan)

    def _photometric_error(self, seen: _Appearances) -> float:
        total = weight = 0.0
        for rows in self._chunks():
            parameters = {n: v[rows] for n, v in self.parameters.items()}
            positions = self.points.positions(self.identity, parameters)
            first = 3 * N_LANDMARKS
            skin = positions[:, first : first + len(self.colour_vertices)]
            pixels, _ = project_all(skin, seen.scale.cameras)
            values = _values(seen.scale.images[rows], pixels)
            gap = (values - seen.expected[rows][:, None]).abs().mean(-1)
            total += float((gap * seen.trust[rows]).sum())
            weight += float(seen.trust[rows].sum())
        return total / max(weight, 1e-9)


def _values(images: Tensor, pixels: Tensor) -> Tensor:
    """Colours (T, views, N, 3) of uint8 images (T, views, 3, H, W) at pixels (T, views, N, 2)."""
    shape = images.shape[:2]
    values, _ = sample_with_slope(images.flatten(0, 1).float() / 255, pixels.flatten(0, 1))
    return values.unflatten(0, shape)


def _spread(region: NDArray[np.uint8], wanted: tuple[Region, ...], most: int) -> NDArray[np.int64]:
    """At most ``most`` vertices of the regions, evenly over their numbers."""
    found = np.flatnonzero(np.isin(region, wanted))
    return found[:: max(1, -(-len(found) // most))]


def _in_metres(camera: Camera, scale: float) -> Camera:
    """The same view of a world whose lengths are divided by ``scale``."""
    pose = camera.world_to_camera.copy()
    pose[:3, 3] /= scale
    return Camera(camera.K, pose, camera.width, camera.height)
