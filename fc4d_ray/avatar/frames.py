"""Where training pictures come from, in which order, and which window of them a step looks at."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fc4d_ray.cameras import Camera
from fc4d_ray.errors import ConfigError, StageFailed


class Sample(NamedTuple):
    """One training picture."""

    view: int
    """Index into ``FrameSource.views``, which is also that of the view's embedding."""
    time: int
    """Row of ``FrameSource.parameters``."""


class FrameSource(Protocol):
    """The pictures an avatar is trained on."""

    @property
    def views(self) -> Sequence[Camera]:
        """Every camera there is a picture of; shared by static and animated pictures."""

    @property
    def reference_view(self) -> int:
        """Index of the view whose appearance is played back: the portrait's own."""

    @property
    def static_samples(self) -> Sequence[Sample]:
        """Pictures of the orbit, one expression; plain (view, time) pairs will do."""

    @property
    def animated_samples(self) -> Sequence[Sample]:
        """Frames of the clips; may be empty."""

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """Head-model parameters (T, d) by name, one row per time index."""

    def load(self, sample: Sample) -> NDArray[np.uint8]:
        """(H, W, 4) RGBA with straight alpha, as large as the view's camera says."""


@runtime_checkable
class FocusedFrameSource(Protocol):
    """A source that also knows where people look."""

    def focus_box(self, sample: Sample) -> tuple[float, float, float, float] | None:
        """(left, top, right, bottom) in pixels of this picture's face, None if out of sight."""


@dataclass(frozen=True)
class WindowConfig:
    """Which part of a picture one step renders."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    size: int = 0
    """Side of the rendered window in pixels; 0 renders whole pictures."""
    focus_fraction: float = 0.5
    """Share of windows centred in the picture's focus box, where there is one."""

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ConfigError(f"window.size must not be negative, got {self.size}")
        if not 0 <= self.focus_fraction <= 1:
            raise ConfigError(f"window.focus_fraction must be in 0..1, got {self.focus_fraction}")


@dataclass(frozen=True)
class Window:
    """A rectangle of whole pixels."""

    left: int
    top: int
    width: int
    height: int

    def crop(self, image: NDArray) -> NDArray:
        """That part of an (H, W, ...) image."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def choose_window(
    frame: NDArray[np.uint8],
    focus: tuple[float, float, float, float] | None,
    config: WindowConfig,
    random: np.random.Generator,
) -> Window:
    """A window of the picture that shows some of the head.

    Its centre is uniform in the focus box for ``focus_fraction`` of the draws and in the matte's
    bounding box for the others; windows are then moved inside the picture.
    """
    height, width = frame.shape[:2]
    if config.size == 0 or config.size >= max(height, width):
        return Window(0, 0, width, height)
    box = _matte_box(frame[..., 3])
    if focus is not None and random.random() < config.focus_fraction:
        box = focus
    window_width, window_height = min(config.size, width), min(config.size, height)
    centre_x, centre_y = random.uniform(box[0], box[2]), random.uniform(box[1], box[3])
    left = round(min(max(centre_x - window_width / 2, 0), width - window_width))
    top = round(min(max(centre_y - window_height / 2, 0), height - window_height))
    return Window(left, top, window_width, window_height)


def _matte_box(alpha: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    columns = np.flatnonzero(alpha.max(0) > 127)
    rows = np.flatnonzero(alpha.max(1) > 127)
    if len(columns) == 0:
        return 0.0, 0.0, float(alpha.shape[1]), float(alpha.shape[0])
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


class FrameCache:
    """Decoded pictures, the latest kept within a number of bytes."""

    def __init__(self, source: FrameSource, max_bytes: int) -> None:
        self._source = source
        self._room = max_bytes
        self._frames: OrderedDict[Sample, NDArray[np.uint8]] = OrderedDict()

    def load(self, sample: Sample) -> NDArray[np.uint8]:
        """The picture; raises ``StageFailed`` where it does not fit its camera."""
        if sample in self._frames:
            self._frames.move_to_end(sample)
            return self._frames[sample]
        frame = self._source.load(sample)
        camera = self._source.views[sample.view]
        if frame.shape != (camera.height, camera.width, 4) or frame.dtype != np.uint8:
            raise StageFailed(
                f"training picture of view {sample.view} at time {sample.time} is {frame.dtype} "
                f"{frame.shape}, its camera expects uint8 ({camera.height}, {camera.width}, 4)"
            )
        self._room -= frame.nbytes
        self._frames[sample] = frame
        while self._room < 0 and self._frames:
            _, dropped = self._frames.popitem(last=False)
            self._room += dropped.nbytes
        return frame


def check_source(source: FrameSource) -> None:
    """Raise ``StageFailed`` where samples point outside the views or the parameters."""
    if not source.static_samples:
        raise StageFailed("there are no static pictures to train on")
    n_times = min((len(rows) for rows in source.parameters.values()), default=0)
    for sample in (*source.static_samples, *source.animated_samples):
        if not (0 <= sample[0] < len(source.views) and 0 <= sample[1] < n_times):
            raise StageFailed(
                f"training sample {tuple(sample)} is outside {len(source.views)} views and "
                f"{n_times} time steps"
            )
    if not 0 <= source.reference_view < len(source.views):
        raise StageFailed(f"reference view {source.reference_view} of {len(source.views)} views")


def sample_order(
    source: FrameSource,
    *,
    static_steps: int,
    coin_steps: int,
    static_fraction: float,
    reference_fraction: float,
    seed: int,
) -> list[Sample]:
    """The picture of every step, both stages, a function of the arguments alone.

    Each pool is dealt out in random order before any of its pictures comes again.
    ``reference_fraction`` of the steps take the reference view's pictures of the pool at hand.
    """
    random = np.random.default_rng([seed, 1])
    reference = source.reference_view
    static = _Deck([Sample(*s) for s in source.static_samples], reference, random)
    animated = _Deck([Sample(*s) for s in source.animated_samples], reference, random)
    order = []
    for step in range(static_steps + coin_steps):
        in_coin = step >= static_steps and animated.size > 0
        deck = animated if in_coin and random.random() >= static_fraction else static
        order.append(deck.draw(prefer_reference=random.random() < reference_fraction))
    return order


class _Deck:
    """Samples in random order, reshuffled when used up; the reference view's also by themselves."""

    def __init__(self, samples: list[Sample], reference: int, random: np.random.Generator) -> None:
        self._random = random
        self._piles = {False: samples, True: [s for s in samples if s.view == reference] or samples}
        self._left: dict[bool, list[Sample]] = {False: [], True: []}
        self.size = len(samples)

    def draw(self, prefer_reference: bool) -> Sample:
        left = self._left[prefer_reference]
        if not left:
            pile = self._piles[prefer_reference]
            left.extend(pile[i] for i in self._random.permutation(len(pile)))
        return left.pop()
