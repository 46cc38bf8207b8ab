from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fc4d_ray.avatar.binding import face_frames, local_to_world
from fc4d_ray.avatar.coin import (
    CoinConfig,
    CoinNetwork,
    bake_offsets,
    normalise_places,
    position_code,
)
from fc4d_ray.avatar.gaussians import LEARNED, Gaussians
from fc4d_ray.avatar.losses import LossConfig
from fc4d_ray.avatar.objective import OffsetModel, Picture, objective, take_rows
from fc4d_ray.avatar.splatting import rasterize, render_splats, rows_in_view, view_colours
from fc4d_ray.avatar.structure import gradient_pyramid, make_structure_loss

NO_PIXELS = LossConfig(l1=0, ssim=0, position=0, scale=0)
NO_EXTRAS = CoinConfig(structure_weight=0, offset_weight=0, embedding_l2=0)


@pytest.fixture
def scene(ellipsoid, make_frames, make_splats):
    """Gaussians with gradients, face frames, and one whole picture of view 1."""
    gaussians = make_splats(600).with_sh_degree(1)
    generator = torch.Generator().manual_seed(5)
    moved = {
        name: tensor + 0.2 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in gaussians.learned().items()
    }
    gaussians = replace(gaussians, **{n: t.requires_grad_() for n, t in moved.items()})
    source = make_frames(48)
    frames = face_frames(ellipsoid.pose({"stretch": torch.zeros(1, 1)})[0], ellipsoid.faces)
    frame = torch.from_numpy(source.load(source.static_samples[1])).float() / 255
    target = frame[..., :3] + (1 - frame[..., 3:])
    picture = Picture(source.views[1], 1, target, frame[..., 3], torch.ones(3))
    return gaussians, frames, picture


def model(gaussians: Gaussians, config: CoinConfig, moved: bool = True) -> OffsetModel:
    generator = torch.Generator().manual_seed(6)
    network = CoinNetwork(6, config, generator)
    if moved:
        with torch.no_grad():
            network.offset_weight.normal_(0, 0.3, generator=generator)
    places = torch.rand(len(gaussians), 3, generator=generator) * 2 - 1
    code = position_code(places, config.position_octaves)
    return OffsetModel(network, code, config, make_structure_loss("gradient_pyramid", None))


def gradients(gaussians: Gaussians, network: CoinNetwork | None) -> dict[str, float]:
    tensors = dict(gaussians.learned())
    tensors |= {} if network is None else dict(network.named_parameters())
    return {n: 0.0 if t.grad is None else float(t.grad.abs().sum()) for n, t in tensors.items()}


def test_structure_reaches_the_base_and_not_the_offsets(scene):
    gaussians, frames, picture = scene
    offsets = model(gaussians, replace(NO_EXTRAS, structure_weight=0.05))
    objective(gaussians, frames, picture, NO_PIXELS, 1, offsets).loss.backward()
    found = gradients(gaussians, offsets.network)
    assert all(found[name] > 0 for name in LEARNED)
    assert all(found[name] == 0 for name, _ in offsets.network.named_parameters())


def test_splats_on_held_faces_are_drawn_and_learn_nothing(scene):
    gaussians, frames, picture = scene
    held = torch.arange(len(frames.scale)) % 3 == 0
    free = objective(gaussians, frames, picture, LossConfig(), 1, None)
    part = objective(gaussians, frames, picture, LossConfig(), 1, None, held)
    assert torch.equal(part.image, free.image)
    part.loss.backward()
    on_held = held[gaussians.binding]
    for name, tensor in gaussians.learned().items():
        assert tensor.grad[on_held].abs().max() == 0, name
        assert tensor.grad[~on_held].abs().max() > 0, name


def test_lpips_too_reaches_the_base_and_not_the_offsets(scene):
    gaussians, frames, picture = scene
    offsets = model(gaussians, replace(NO_EXTRAS, structure_weight=0.05))
    offsets = replace(offsets, structure=make_structure_loss("lpips_random", None))
    objective(gaussians, frames, picture, NO_PIXELS, 1, offsets).loss.backward()
    found = gradients(gaussians, offsets.network)
    assert found["sh0"] > 0
    assert all(found[name] == 0 for name, _ in offsets.network.named_parameters())


def test_pixels_reach_base_and_offsets(scene):
    gaussians, frames, picture = scene
    offsets = model(gaussians, NO_EXTRAS)
    losses = LossConfig(position=0, scale=0)
    objective(gaussians, frames, picture, losses, 1, offsets).loss.backward()
    found = gradients(gaussians, offsets.network)
    assert all(value > 0 for value in found.values()), found
    used = offsets.network.view_embeddings.grad.abs().sum(1) > 0
    assert used.tolist() == [False, True, False, False, False, False]


def test_offset_regulariser_reaches_the_network_only(scene):
    gaussians, frames, picture = scene
    offsets = model(gaussians, replace(NO_EXTRAS, offset_weight=1.0))
    result = objective(gaussians, frames, picture, NO_PIXELS, 1, offsets)
    result.loss.backward()
    found = gradients(gaussians, offsets.network)
    assert all(found[name] == 0 for name in LEARNED)
    assert found["offset_weight"] > 0
    expected = offsets.network(1, gaussians.sh0[result.rows], offsets.code[result.rows])
    torch.testing.assert_close(result.terms["offset"], expected.abs().mean())


def test_colour_input_is_detached_unless_configured(scene):
    gaussians, frames, picture = scene
    offsets = model(gaussians, replace(NO_EXTRAS, offset_weight=1.0, colour_gradient="attached"))
    objective(gaussians, frames, picture, NO_PIXELS, 1, offsets).loss.backward()
    assert gaussians.sh0.grad.abs().sum() > 0


def test_one_pass_of_six_channels_equals_two_passes(scene):
    gaussians, frames, picture = scene
    config = replace(NO_EXTRAS, structure_weight=0.05)
    offsets = model(gaussians, config)
    losses = LossConfig(ssim=0, position=0, scale=0)
    result = objective(gaussians, frames, picture, losses, 1, offsets)
    result.loss.backward()
    one_pass = {n: t.grad.clone() for n, t in gaussians.learned().items()}
    for tensor in gaussians.learned().values():
        tensor.grad = None

    world = local_to_world(gaussians, frames.gather(gaussians.binding))
    colours = view_colours(world, picture.camera, 1)
    offset = offsets.network(1, gaussians.sh0, offsets.code)
    base = rasterize(world, colours.clamp_min(0), picture.camera, picture.background).image
    full = rasterize(
        world, (colours + offset).clamp_min(0), picture.camera, picture.background
    ).image
    loss = 0.8 * (full - picture.target).abs().mean()
    (loss + 0.05 * gradient_pyramid(base, picture.target)).backward()
    torch.testing.assert_close(result.image, full, atol=1e-6, rtol=1e-5)
    for name, tensor in gaussians.learned().items():
        error = (tensor.grad - one_pass[name]).norm() / tensor.grad.norm()
        assert error < 1e-4, name


def test_offsets_start_at_zero_so_that_the_stage_starts_from_the_avatar(scene):
    gaussians, frames, picture = scene
    plain = objective(gaussians, frames, picture, LossConfig(), 1, None)
    offsets = model(gaussians, NO_EXTRAS, moved=False)
    coin = objective(gaussians, frames, picture, LossConfig(), 1, offsets)
    torch.testing.assert_close(coin.image, plain.image, atol=1e-6, rtol=0)


def test_baked_avatar_shows_what_the_network_showed_for_that_view(scene):
    gaussians, frames, picture = scene
    offsets = model(gaussians, NO_EXTRAS)
    with torch.no_grad():
        live = objective(gaussians, frames, picture, LossConfig(), 1, offsets).image
        baked = bake_offsets(gaussians, offsets.network, offsets.code, 1)
        world = local_to_world(baked, frames.gather(baked.binding))
        shown = render_splats(world, picture.camera, picture.background).image
    torch.testing.assert_close(shown, live, atol=1e-5, rtol=0)
    assert (baked.sh0 - gaussians.sh0).abs().mean() > 0.01


@pytest.mark.parametrize("window", [(0, 0, 48, 48), (14, 10, 16, 12), (-30, 20, 20, 20)])
def test_leaving_out_splats_beyond_the_window_changes_nothing(scene, window):
    gaussians, frames, picture = scene
    camera = picture.camera.cropped(*window)
    rows = rows_in_view(gaussians, frames, camera)
    world = local_to_world(gaussians, frames.gather(gaussians.binding))
    colours = view_colours(world, camera, 1).clamp_min(0)
    whole = rasterize(world, colours, camera, torch.ones(3))
    assert set(whole.visible.nonzero()[:, 0].tolist()) <= set(rows.tolist())
    seen = take_rows(gaussians, rows)
    world = local_to_world(seen, frames.gather(seen.binding))
    part = rasterize(world, view_colours(world, camera, 1).clamp_min(0), camera, torch.ones(3))
    assert torch.equal(part.image, whole.image)
    if window[2] < 48:
        assert len(rows) < 0.75 * len(gaussians)


def test_taken_rows_pass_gradients_back_to_their_places(scene):
    gaussians, _, _ = scene
    rows = torch.tensor([5, 2, 17])
    taken = take_rows(gaussians, rows)
    weights = torch.tensor([[1.0], [2.0], [3.0]])
    (taken.positions * weights).sum().backward()
    expected = torch.zeros_like(gaussians.positions)
    expected[rows] = weights
    assert torch.equal(gaussians.positions.grad, expected)
    assert torch.equal(taken.binding, gaussians.binding[rows])


def test_nothing_in_sight_gives_a_finite_loss(scene):
    gaussians, frames, picture = scene
    away = replace(picture, camera=picture.camera.cropped(5000, 5000, 48, 48))
    result = objective(gaussians, frames, away, LossConfig(), 1, model(gaussians, CoinConfig()))
    result.loss.backward()
    assert torch.isfinite(result.loss)
    assert len(result.rows) == 0
    assert np.allclose(result.image.detach(), 1)


def test_places_are_scaled_into_the_unit_box_and_coded_without_gradient():
    vertices = torch.tensor([[0.0, 1, 2], [4, 2, 3]])
    places = normalise_places(vertices, vertices)
    torch.testing.assert_close(places, torch.tensor([[-1, -0.25, -0.25], [1, 0.25, 0.25]]))
    code = position_code(places.requires_grad_(), 2)
    assert not code.requires_grad
    assert code.shape == (2, 15)
    torch.testing.assert_close(code[1, 3:6], torch.sin(torch.pi * places[1].detach()))
    torch.testing.assert_close(code[0, 12:], torch.cos(2 * torch.pi * places[0].detach()))


@pytest.mark.parametrize("kind", ["splats_in_sight", "all_splats", "pixels"])
def test_what_the_offset_regulariser_is_averaged_over(scene, kind):
    gaussians, frames, picture = scene
    picture = replace(
        picture,
        camera=picture.camera.cropped(14, 10, 16, 12),
        target=picture.target[10:22, 14:30],
        alpha=picture.alpha[10:22, 14:30],
    )
    offsets = model(gaussians, replace(NO_EXTRAS, offset_weight=1.0, offset_mean=kind))
    result = objective(gaussians, frames, picture, NO_PIXELS, 1, offsets)
    expected = offsets.network(1, gaussians.sh0[result.rows], offsets.code[result.rows]).abs()
    assert 0 < len(result.rows) < len(gaussians)
    count = {"splats_in_sight": len(result.rows), "all_splats": len(gaussians), "pixels": 16 * 12}
    torch.testing.assert_close(result.terms["offset"], expected.sum() / (3 * count[kind]))


def test_a_structural_loss_used_every_third_step_pulls_as_much_on_average(scene):
    gaussians, frames, picture = scene
    config = replace(NO_EXTRAS, structure_weight=0.05, structure_interval=3)
    values = []
    for step in range(6):
        offsets = replace(model(gaussians, config), step=step)
        result = objective(gaussians, frames, picture, NO_PIXELS, 1, offsets)
        values.append(float(result.terms["structure"].detach()))
    always = model(gaussians, replace(config, structure_interval=1))
    every = objective(gaussians, frames, picture, NO_PIXELS, 1, always).terms["structure"]
    assert [value > 0 for value in values] == [True, False, False, True, False, False]
    assert np.mean(values) == pytest.approx(float(every.detach()), rel=1e-6)
