"""The state of one avatar training and its single steps; trainer.py runs them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fc4d_ray.avatar.binding import FaceFrames, local_to_world
from fc4d_ray.avatar.coin import CoinNetwork, bake_offsets, normalise_places, position_code
from fc4d_ray.avatar.config import TrainConfig
from fc4d_ray.avatar.density import (
    DensityConfig,
    DensityStatistics,
    densify_and_prune,
    reset_opacities,
)
from fc4d_ray.avatar.frames import (
    FocusedFrameSource,
    FrameCache,
    FrameSource,
    Sample,
    choose_window,
)
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.learning_rates import log_linear
from fc4d_ray.avatar.losses import psnr
from fc4d_ray.avatar.objective import Objective, OffsetModel, Picture, objective
from fc4d_ray.avatar.optimiser import AvatarOptimiser
from fc4d_ray.avatar.poses import PoseCache
from fc4d_ray.avatar.structure import StructureLoss
from fc4d_ray.cameras import Camera
from fc4d_ray.errors import ConfigError, TrainingDiverged
from fc4d_ray.heads.protocol import PosableMesh

_WINDOW_STREAM, _NOISE_STREAM, _NETWORK_STREAM, _PLACE_STREAM = 2, 3, 4, 5
_PLACES = "coin.places"
_FOLDED_SHARE = 0.7
"""Share of its greatest area below which skin that folds shows nothing of itself."""
_RATE_NAMES = {
    "positions": "position", "log_scales": "scale", "quats": "rotation",
    "opacity_logits": "opacity", "sh0": "sh0", "shN": "shN",
}  # fmt: skip


class Training:
    """Everything that changes while an avatar is trained.

    ``step`` counts finished steps of both stages. Randomness of a step depends on the seed and its
    number alone, so a restored state goes on exactly as if it had never stopped.
    """

    def __init__(
        self,
        mesh: PosableMesh,
        source: FrameSource,
        gaussians: Gaussians,
        config: TrainConfig,
        seed: int,
        structure: StructureLoss | None,
        grown: np.ndarray | None = None,  # [F] areas at rest
    ) -> None:
        self.config = config
        self.source = source
        self.seed = seed
        self.step = 0
        self.device = torch.device(config.device)
        self.extent = scene_extent(list(source.views))
        self.structure = structure
        self.seconds: dict[str, float] = {}
        self._frames = FrameCache(source, config.frame_cache_mb << 20)
        self._set_gaussians(gaussians.detached().to(self.device).with_sh_degree(config.sh_degree))
        self.statistics = DensityStatistics.zeros(len(gaussians), self.device)
        self.parameters = self._head_parameters()
        self.poses = PoseCache(mesh, self.parameters, self.device, config.attachment)
        self._folding = None if grown is None else self._folding_faces(grown)
        self.network: CoinNetwork | None = None
        self.code: Tensor | None = None
        self.places: Tensor | None = None
        self.optimiser = self._new_optimiser()

    # --- one step -------------------------------------------------------------------------------

    @property
    def in_coin(self) -> bool:
        """Whether the next step belongs to the second stage."""
        return self.step >= self.config.static_steps

    def advance(self, sample: Sample) -> dict[str, float]:
        """Do one step on a picture; returns the loss terms and the window's PSNR in dB.

        Raises ``TrainingDiverged`` where the loss is not finite.
        """
        if self.in_coin and self.config.coin.enabled and self.network is None:
            self._start_coin()
        self._set_rates()
        with self._timed("load"):
            picture, share = self._picture(sample)
        with self._timed("pose"):
            frames = self.poses.frames(sample.time)
        with self._timed("render"):
            result = objective(
                self.gaussians,
                frames,
                picture,
                self.config.losses,
                self._degree(),
                self._offsets(),
                self._held(frames),
            )
        collects = self._collects_statistics()
        if collects:
            result.drawn.means2d.retain_grad()
        with self._timed("backward"):
            result.loss.backward()
        values = {name: float(term.detach()) for name, term in result.terms.items()}
        values["loss"] = float(result.loss.detach())
        if not np.isfinite(values["loss"]):
            raise TrainingDiverged(
                f"the loss became {values['loss']} at step {self.step} "
                f"(view {sample.view}, time {sample.time}); terms: {values}"
            )
        values["psnr"] = float(psnr(result.image.detach(), picture.target))
        if collects:
            self._collect(result, self.source.views[sample.view], share)
        with self._timed("optimise"):
            self.optimiser.step()
        self.step += 1
        with self._timed("density"):
            self._control_density(sample)
        return values

    def check_finite(self) -> None:
        """Raise ``TrainingDiverged`` where a parameter is not finite."""
        for name, tensor in self.optimiser.tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise TrainingDiverged(f"{name} holds non-finite values after step {self.step}")

    def _picture(self, sample: Sample) -> tuple[Picture, float]:
        """The window to render, and its share of the whole picture's pixels."""
        frame = self._frames.load(sample)
        focus = None
        if isinstance(self.source, FocusedFrameSource):
            focus = self.source.focus_box(sample)
        random = np.random.default_rng([self.seed, _WINDOW_STREAM, self.step])
        window = choose_window(frame, focus, self.config.window, random)
        if self.config.background == "random":
            background = random.random(3).astype(np.float32)
        else:
            background = np.full(3, self.config.background == "white", np.float32)
        camera = self.source.views[sample.view].cropped(
            window.left, window.top, window.width, window.height
        )
        share = window.width * window.height / (frame.shape[0] * frame.shape[1])
        return self.picture_of(window.crop(frame), camera, sample.view, background), share

    def picture_of(
        self, frame: np.ndarray, camera: Camera, view: int, background: np.ndarray
    ) -> Picture:
        """A (H, W, 4) uint8 frame composited over a (3,) background."""
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).to(self.device).float() / 255
        alpha = pixels[..., 3]
        colour = torch.from_numpy(background).to(self.device)
        target = torch.lerp(colour.expand_as(pixels[..., :3]), pixels[..., :3], alpha[..., None])
        return Picture(camera, view, target, alpha, colour)

    def _folding_faces(self, grown: np.ndarray) -> tuple[Tensor, Tensor]:
        """Faces that fold (F,), and the relative area below which each counts as folded."""
        sizes = torch.from_numpy(np.asarray(grown, np.float32)).to(self.device)
        at_rest = self.poses.frames_of(self.poses.neutral_vertices()).relative_area()
        return sizes > 1, _FOLDED_SHARE * sizes * at_rest

    def _held(self, frames: FaceFrames) -> Tensor | None:
        """Faces (F,) whose skin is folded in this pose."""
        if self._folding is None:
            return None
        folds, least_area = self._folding
        return folds & (frames.relative_area() < least_area)

    def _degree(self) -> int:
        available = self.gaussians.sh_degree
        return available if self.in_coin else min(self.step // self.config.sh_interval, available)

    def _offsets(self) -> OffsetModel | None:
        if self.network is None:
            return None
        step = self.step - self.config.static_steps
        return OffsetModel(
            self.network, self.code, self.config.coin, self.structure, step, self.places
        )

    def _set_rates(self) -> None:
        rates, coin = self.config.rates, self.config.coin
        values = {name: getattr(rates, kind) for name, kind in _RATE_NAMES.items()}
        values["positions"] = self.extent * log_linear(
            self.step, rates.position, rates.position_final, self.config.static_steps
        )
        progress = self.step - self.config.static_steps
        last = coin.learning_rate * coin.learning_rate_decay
        network_rate = log_linear(progress, coin.learning_rate, last, self.config.coin_steps)
        for name in self.optimiser.tensors:
            if name.startswith("head."):
                values[name] = rates.head[name.removeprefix("head.")]
            elif name.startswith("coin."):
                values[name] = network_rate
        self.optimiser.set_rates(values)

    # --- density control ------------------------------------------------------------------------

    def _density_schedule(self, number: int) -> tuple[int, DensityConfig]:
        """Position of step ``number`` (from 1) within its stage, and that stage's schedule."""
        density, coin = self.config.density, self.config.coin
        if number <= self.config.static_steps:
            return number, density
        stop = 0 if coin.density == "off" else min(density.stop_step, self.config.coin_steps // 2)
        return number - self.config.static_steps, replace(density, stop_step=stop)

    def _collects_statistics(self) -> bool:
        step, density = self._density_schedule(self.step + 1)
        return density.enabled and step < density.stop_step

    def _collect(self, result: Objective, camera: Camera, share: float) -> None:
        """Count this view; a window's mean loss is scaled to what the whole picture's would be."""
        visible = result.drawn.visible
        gradient = result.drawn.means2d.grad.reshape(-1, 2)[visible] * share
        self.statistics.add(gradient, result.rows[visible], camera.width, camera.height)

    def _control_density(self, sample: Sample) -> None:
        step, density = self._density_schedule(self.step)
        if density.edits_at(step):
            scales = self.poses.frames(sample.time).scale.detach()[self.gaussians.binding]
            with torch.no_grad():
                edit = densify_and_prune(
                    self.gaussians.detached(),
                    scales,
                    self.statistics.mean(),
                    density,
                    extent=self.extent,
                    prune_large=step > density.prune_size_after,
                    draw_noise=self._draw_noise,
                )
            if self.code is not None:
                self.code = self.code[edit.parent]
            if self.places is not None:
                self.places = self.places.detach()[edit.parent].requires_grad_()
            self._set_gaussians(edit.gaussians)
            self.optimiser.replace_rows(self._optimised_splats(), edit.parent, edit.is_new)
            self.statistics = DensityStatistics.zeros(len(self.gaussians), self.device)
        if density.resets_at(step, self.config.background == "white"):
            logits = self.gaussians.opacity_logits
            logits.data = reset_opacities(logits.data, density.reset_opacity)
            self.optimiser.clear_moments("opacity_logits")

    def _draw_noise(self, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(_mixed(self.seed, _NOISE_STREAM, self.step))
        return torch.randn(count, 3, generator=generator).to(self.device)

    # --- making and remaking --------------------------------------------------------------------

    def _set_gaussians(self, gaussians: Gaussians) -> None:
        leaves = {
            n: t.detach().contiguous().requires_grad_() for n, t in gaussians.learned().items()
        }
        self.gaussians = Gaussians(**leaves, binding=gaussians.binding)

    def _optimised_splats(self) -> dict[str, Tensor]:
        tensors = {n: t for n, t in self.gaussians.learned().items() if t.numel() > 0}
        return tensors if self.places is None else {**tensors, _PLACES: self.places}

    def _head_parameters(self) -> dict[str, Tensor]:
        unknown = set(self.config.rates.head) - set(self.source.parameters)
        if unknown:
            raise ConfigError(
                f"train.rates.head names {sorted(unknown)}; the head has "
                f"{sorted(self.source.parameters)}"
            )
        return {
            name: rows.detach()
            .clone()
            .to(self.device)
            .requires_grad_(name in self.config.rates.head)
            for name, rows in self.source.parameters.items()
        }

    def _new_optimiser(self) -> AvatarOptimiser:
        optimiser = AvatarOptimiser(self.device, self.config.rates.epsilon)
        for name, tensor in self._optimised_splats().items():
            optimiser.add(name, tensor)
        for name, rows in self.parameters.items():
            if rows.requires_grad:
                optimiser.add(f"head.{name}", rows)
        return optimiser

    def _start_coin(self) -> None:
        """Enter the second stage: network, place codes, and the base's degree."""
        coin = self.config.coin
        if coin.sh_degree is not None and coin.sh_degree != self.gaussians.sh_degree:
            self._drop_view_dependence(coin.sh_degree)
        self._make_network()
        vertices = self.poses.neutral_vertices()
        with torch.no_grad():
            frames = self.poses.frames_of(vertices).gather(self.gaussians.binding)
            places = normalise_places(local_to_world(self.gaussians, frames).means, vertices)
            self.code = position_code(places, coin.position_octaves)
        if coin.place_size > 0:
            generator = torch.Generator().manual_seed(_mixed(self.seed, _PLACE_STREAM, 0))
            drawn = torch.randn(len(self.gaussians), coin.place_size, generator=generator)
            self._set_places(drawn * coin.place_deviation)
        self.statistics = DensityStatistics.zeros(len(self.gaussians), self.device)

    def _make_network(self) -> None:
        generator = torch.Generator().manual_seed(_mixed(self.seed, _NETWORK_STREAM, 0))
        network = CoinNetwork(len(self.source.views), self.config.coin, generator)
        self.network = network.to(self.device)
        for name, tensor in self.network.named_parameters():
            self.optimiser.add(f"coin.{name}", tensor)

    def _set_places(self, places: Tensor) -> None:
        self.places = places.to(self.device).requires_grad_()
        self.optimiser.add(_PLACES, self.places)

    def _drop_view_dependence(self, degree: int) -> None:
        cut = self.gaussians.with_sh_degree(degree)
        if "shN" in self.optimiser.tensors:
            self.optimiser.remove("shN")
        shN = cut.shN.detach().contiguous().requires_grad_()
        self.gaussians = replace(self.gaussians, shN=shN)
        if shN.numel() > 0:
            self.optimiser.add("shN", shN)

    # --- results and checkpoints ----------------------------------------------------------------

    def playback(self, view: int | None = None) -> Gaussians:
        """The avatar with the offsets of a view added; by default the reference's, for showing."""
        base = self.gaussians.detached()
        if self.network is None:
            return base
        view = self.source.reference_view if view is None else view
        everywhere = torch.arange(len(base), device=self.device)
        with torch.no_grad():
            code = self._offsets().code_of(everywhere)
        return bake_offsets(base, self.network, code, view)

    def state(self) -> dict[str, Any]:
        """Tensors and plain values to go on from."""
        return {
            "step": self.step,
            "gaussians": {
                **{name: tensor.detach() for name, tensor in self.gaussians.learned().items()},
                "binding": self.gaussians.binding,
            },
            "parameters": {name: rows.detach() for name, rows in self.parameters.items()},
            "network": None if self.network is None else self.network.state_dict(),
            "code": self.code,
            "places": None if self.places is None else self.places.detach(),
            "statistics": [self.statistics.gradient_sum, self.statistics.count],
            "optimiser": self.optimiser.state(),
            "seconds": dict(self.seconds),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of ``state`` for a training made with the same arguments."""
        self.step = state["step"]
        self._set_gaussians(Gaussians(**state["gaussians"]).to(self.device))
        for name, rows in state["parameters"].items():
            self.parameters[name].data.copy_(rows)
        self.statistics = DensityStatistics(*(t.to(self.device) for t in state["statistics"]))
        self.seconds = dict(state["seconds"])
        self.optimiser = self._new_optimiser()
        if state["network"] is not None:
            self._make_network()
            self.network.load_state_dict(state["network"])
            self.code = state["code"].to(self.device)
        if state["places"] is not None:
            self._set_places(state["places"])
        self.optimiser.restore(state["optimiser"])

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start


def scene_extent(cameras: list[Camera]) -> float:
    """1.1 times the largest distance of a camera from the cameras' mean, metres (3DGS)."""
    centres = np.stack([camera.position for camera in cameras])
    radius = np.linalg.norm(centres - centres.mean(0), axis=1).max()
    return float(1.1 * radius) if radius > 0 else 1.0


def _mixed(seed: int, stream: int, step: int) -> int:
    """One seed for torch from several numbers."""
    return int(np.random.SeedSequence([seed, stream, step]).generate_state(1, np.uint64)[0] >> 1)
