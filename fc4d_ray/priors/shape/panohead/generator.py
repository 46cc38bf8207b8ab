"""The whole PanoHead generator: latent and camera to image, mask and depth.

A person's tri-grid and background depend on the latent alone, so they are made once
(``synthesize``) and rendered from any number of cameras (``render``). State-dict names equal the
released checkpoint's. Sizes and conventions: ``settings``, ``labels``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fc4d_ray.priors.shape.panohead.labels import RADIUS, label_rays, move_camera
from fc4d_ray.priors.shape.panohead.layers import ToRGB, resize_image
from fc4d_ray.priors.shape.panohead.mapping import MappingNetwork
from fc4d_ray.priors.shape.panohead.settings import FEATURES, LABEL_SIZE, GeneratorSettings
from fc4d_ray.priors.shape.panohead.superresolution import SuperResolution
from fc4d_ray.priors.shape.panohead.synthesis import SynthesisNetwork
from fc4d_ray.priors.shape.panohead.trigrid import Decoder, split_planes
from fc4d_ray.priors.shape.panohead.volume_rendering import RayColours, render_rays

MASK_SCALE, MASK_SHIFT = 1.002, -0.001
"""The published mask is 1.002 times the opacity minus 0.001, so it may leave 0…1 a little."""

NEAR_SLACK = 0.1
"""Cameras this much nearer or further than ``RADIUS`` keep the published near and far planes: the
learnt offset and upstream's radii of 2.7 and 2.75 stay within it."""


@dataclass(frozen=True)
class Precision:
    """Types the convolutions compute in; weights, look-ups and rays stay float32."""

    synthesis: torch.dtype = torch.float32
    superresolution: torch.dtype = torch.float32


@dataclass(frozen=True)
class HeadVolume:
    """What the latent of P people determines; renders from any camera."""

    planes: Tensor  # [P, 3, 32, D, H, W]
    background: Tensor  # [P, 32, B, B]
    w_last: Tensor  # [P, w]


@dataclass(frozen=True)
class Rendering:
    """P people from V cameras each; N = P * V, the cameras of one person adjacent."""

    features: Tensor  # [N, 32, h, h] over the background
    raw: Tensor  # [N, 3, h, h] nominally -1…1, unclamped
    mask: Tensor  # [N, 1, h, h] -0.001…1.001
    ray_distance: Tensor  # [N, 1, h, h] PanoHead units; empty rays hold the largest sample distance
    z_depth: Tensor  # [N, 1, h, h] PanoHead units along the camera's axis


class _Backbone(nn.Module):
    """Groups synthesis and mapping under the released names."""

    def __init__(self, settings: GeneratorSettings) -> None:
        super().__init__()
        self.synthesis = SynthesisNetwork(
            settings.w_size,
            settings.trigrid_size,
            3 * FEATURES * settings.trigrid_depth,
            settings.channel_base,
            settings.channel_max,
            settings.conv_clamp,
        )
        self.mapping = MappingNetwork(
            settings.z_size,
            settings.w_size,
            settings.mapping_layers,
            rate=0.01,
            last_activation="lrelu",
        )


class PanoHeadGenerator(nn.Module):
    """Latents and camera labels to pictures of heads."""

    def __init__(self, settings: GeneratorSettings) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("dataset_label_std", torch.ones(LABEL_SIZE))
        self.backbone = _Backbone(settings)
        self.superresolution = SuperResolution(settings)
        self.decoder = Decoder(settings)
        self.torgb = ToRGB(FEATURES, 3, settings.w_size)
        self.bcg_synthesis = SynthesisNetwork(
            settings.w_size,
            settings.background_size,
            FEATURES,
            settings.channel_base // 2,
            settings.channel_max,
            settings.conv_clamp,
        )
        self.t_mapping = MappingNetwork(
            settings.z_size, 3, settings.mapping_layers, rate=1.0, last_activation="linear"
        )

    def latents(
        self, z: Tensor, condition: Tensor, truncation: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        """w vectors (P, L, w) of codes (P, z) under conditioning labels (P, 25).

        ``truncation`` moves the first ``cutoff`` vectors (None: all) to the average.
        """
        mapping = self.backbone.mapping
        w = mapping(z, condition * self.settings.condition_scale)
        ws = w[:, None].repeat(1, self.settings.latent_count, 1)
        if truncation != 1:
            end = ws.shape[1] if cutoff is None else cutoff
            ws = torch.cat([mapping.w_avg.lerp(ws[:, :end], truncation), ws[:, end:]], 1)
        return ws

    def camera_offset(self, z: Tensor, label: Tensor, truncation: float = 1.0) -> Tensor:
        """The learnt displacement of the camera (P, 3) in PanoHead units."""
        return self.t_mapping(z, label * self.settings.condition_scale, truncation)

    def synthesize(
        self,
        ws: Tensor,  # [P, L, w]
        *,
        background_ws: Tensor | None = None,
        noise: bool = True,
        precision: Precision | None = None,
    ) -> HeadVolume:
        """Tri-grid and background of P people; the camera plays no part."""
        dtype = (precision or Precision()).synthesis
        image = self.backbone.synthesis(ws, noise=noise, dtype=dtype)
        background = self.bcg_synthesis(
            ws if background_ws is None else background_ws, noise=noise, dtype=dtype
        )
        planes = split_planes(image, self.settings.trigrid_depth)
        return HeadVolume(planes, background, ws[:, -1])

    def render(
        self,
        volume: HeadVolume,
        labels: Tensor,  # [P, V, 25]
        *,
        size: int | None = None,
        ray_chunk: int | None = None,
    ) -> Rendering:
        """Features, raw image, mask and depth, ``size`` pixels per side.

        ``ray_chunk`` bounds the rays marched at a time, and so the memory. Cameras further away
        than PanoHead's own have near and far planes moved along; at its own distance up to the
        learnt offset nothing moves.
        """
        people, views = labels.shape[:2]
        size = self.settings.neural_size if size is None else size
        origins, directions, cosines = label_rays(labels, size)
        shift = self._near_shift(origins)
        rays = directions.shape[2]
        origins = origins[:, :, None].expand(-1, -1, rays, -1).flatten(1, 2)
        shift = shift[..., None].expand(-1, -1, rays).flatten(1, 2)
        seen = self._march(volume.planes, origins, directions.flatten(1, 2), shift, ray_chunk)
        distance = seen.clamped_distance()

        def as_image(values: Tensor) -> Tensor:
            return values.reshape(people * views, size, size, -1).permute(0, 3, 1, 2)

        opacity = as_image(seen.opacity)
        backdrop = resize_image(volume.background, size).repeat_interleave(views, 0)
        features = as_image(seen.features) + (1 - opacity) * backdrop
        return Rendering(
            features,
            self.torgb(features, volume.w_last),
            opacity * MASK_SCALE + MASK_SHIFT,
            as_image(distance),
            as_image(distance * cosines.flatten(1, 2)),
        )

    def super_resolve(
        self, rendering: Rendering, volume: HeadVolume, precision: Precision | None = None
    ) -> Tensor:
        """Images (N, 3, S, S), nominally -1…1."""
        dtype = (precision or Precision()).superresolution
        return self.superresolution(rendering.features, rendering.raw, volume.w_last, dtype)

    def forward(
        self, z: Tensor, condition: Tensor, labels: Tensor | None = None, truncation: float = 1.0
    ) -> tuple[Tensor, Rendering]:
        """Image and rendering of codes (P, z); the learnt offset moves the cameras (P, V, 25).

        Without ``labels`` the conditioning camera itself is rendered.
        """
        labels = condition[:, None] if labels is None else labels
        offset = self.camera_offset(z, condition, truncation)
        volume = self.synthesize(self.latents(z, condition, truncation))
        rendering = self.render(volume, move_camera(labels, offset[:, None]))
        return self.super_resolve(rendering, volume), rendering

    def _near_shift(self, origins: Tensor) -> Tensor:
        """How far (P, V) near and far planes move for cameras beyond the trained distance.

        PanoHead's cameras stand between near + box and far - box of the origin; as long as the box
        stays between the planes, they keep their published place.
        """
        distance = origins.norm(dim=-1)
        slack = (distance - RADIUS).abs() - NEAR_SLACK
        return torch.where(slack > 0, distance - RADIUS, torch.zeros_like(distance))

    def _march(
        self, planes: Tensor, origins: Tensor, directions: Tensor, shift: Tensor, chunk: int | None
    ) -> RayColours:
        count = origins.shape[1]
        step = count if chunk is None else max(chunk // len(origins), 1)
        parts = [
            render_rays(
                planes,
                self.decoder,
                origins[:, i : i + step],
                directions[:, i : i + step],
                self.settings.rays,
                shift[:, i : i + step],
            )
            for i in range(0, count, step)
        ]
        if len(parts) == 1:
            return parts[0]
        return RayColours(
            torch.cat([p.features for p in parts], 1),
            torch.cat([p.distance for p in parts], 1),
            torch.cat([p.opacity for p in parts], 1),
            torch.stack([p.nearest for p in parts]).min(),
            torch.stack([p.farthest for p in parts]).max(),
        )
