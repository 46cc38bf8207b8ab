"""Affine attachment: splats deform as their triangles do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.avatar.binding import face_frames, local_to_world, quaternion_to_matrix
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.initialise import folded_to_rest, initialise_on_surface
from fc4d_ray.avatar.poses import PoseCache
from fc4d_ray.avatar.splatting import render_splats, rows_in_view
from fc4d_ray.avatar.stretch import (
    inverse_stretch,
    largest_stretch,
    stretch_of,
    stretch_points,
    stretch_splats,
    triangle_shape,
)
from fc4d_ray.cameras import orbit_camera
from fc4d_ray.errors import StoreError

RANDOM = np.random.default_rng(5)


def random_triangles(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Corners (3 count, 3) and faces (count, 3), none of them a sliver."""
    corners = RANDOM.normal(0, 1, (count, 3, 3))
    corners[:, 2, 1] += 2
    return torch.from_numpy(corners.reshape(-1, 3)), torch.arange(3 * count).reshape(-1, 3)


def random_gaussians(count: int) -> Gaussians:
    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy(RANDOM.normal(0, 0.5, shape))

    return Gaussians(
        positions=draw(count, 3),
        log_scales=draw(count, 3),
        quats=draw(count, 4),
        opacity_logits=draw(count),
        sh0=draw(count, 3),
        shN=torch.zeros(count, 0, 3, dtype=torch.float64),
        binding=torch.arange(count),
    )


def covariances(quats: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    arms = quaternion_to_matrix(quats) * scales[:, None, :]
    return arms @ arms.transpose(1, 2)


def deformation(rest: torch.Tensor, posed: torch.Tensor) -> torch.Tensor:
    """The map (N, 3, 3) of two edges to two edges, and of the normals by the isotropic scale."""

    def columns(corners: torch.Tensor) -> torch.Tensor:
        edge, side = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        normal = torch.linalg.cross(edge, side)
        return torch.stack([edge, side, normal / normal.norm(dim=1, keepdim=True)], -1)

    frames = [
        face_frames(c.reshape(-1, 3), torch.arange(3 * len(c)).reshape(-1, 3)).scale
        for c in (rest, posed)
    ]
    after = columns(posed)
    after[..., 2] *= (frames[1] / frames[0])[:, None]
    return after @ torch.linalg.inv(columns(rest))


def test_places_and_covariances_follow_the_deformation_gradient():
    (rest, faces), (posed, _) = random_triangles(40), random_triangles(40)
    gaussians = random_gaussians(40)
    still = local_to_world(gaussians, face_frames(rest, faces))
    moved = local_to_world(gaussians, face_frames(posed, faces, triangle_shape(rest, faces)))
    gradient = deformation(rest.reshape(-1, 3, 3), posed.reshape(-1, 3, 3))
    centres = rest.reshape(-1, 3, 3).mean(1), posed.reshape(-1, 3, 3).mean(1)
    expected = (gradient @ (still.means - centres[0])[..., None])[..., 0] + centres[1]
    torch.testing.assert_close(moved.means, expected)
    expected = gradient @ covariances(still.quats, still.scales) @ gradient.transpose(1, 2)
    torch.testing.assert_close(covariances(moved.quats, moved.scales), expected)


def test_rest_and_similar_triangles_are_as_with_similarity_attachment():
    rest, faces = random_triangles(20)
    turn, _ = torch.linalg.qr(torch.from_numpy(RANDOM.normal(0, 1, (3, 3))))
    turn = turn * torch.linalg.det(turn)
    shape = triangle_shape(rest, faces)
    gaussians = random_gaussians(20)
    for vertices in (rest, 1.7 * rest @ turn.T + 0.3):
        plain = local_to_world(gaussians, face_frames(vertices, faces))
        affine = local_to_world(gaussians, face_frames(vertices, faces, shape))
        torch.testing.assert_close(affine.means, plain.means)
        torch.testing.assert_close(affine.scales, plain.scales)
        torch.testing.assert_close(affine.quats, plain.quats)


def test_inverse_and_largest_stretch():
    rest, faces = random_triangles(30)
    posed, _ = random_triangles(30)
    stretch = stretch_of(triangle_shape(posed, faces), triangle_shape(rest, faces))
    points = torch.from_numpy(RANDOM.normal(0, 1, (30, 3)))
    back = stretch_points(stretch_points(points, stretch), inverse_stretch(stretch))
    torch.testing.assert_close(back, points)
    matrices = torch.zeros(30, 2, 2, dtype=torch.float64)
    matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 1] = stretch.unbind(-1)
    expected = torch.linalg.matrix_norm(matrices, ord=2).clamp_min(1)
    torch.testing.assert_close(largest_stretch(stretch), expected)


def test_degenerate_triangles_give_no_nan():
    rest, faces = random_triangles(4)
    flat = rest.clone().reshape(-1, 3, 3)
    flat[0, 2] = flat[0, 1]
    flat[1] = 0.5
    flat = flat.reshape(-1, 3).requires_grad_()
    for vertices, shape in (
        (flat, triangle_shape(rest, faces)),
        (rest, triangle_shape(flat, faces)),
    ):
        world = local_to_world(random_gaussians(4), face_frames(vertices, faces, shape))
        for tensor in (world.means, world.scales, world.quats):
            assert torch.isfinite(tensor).all()
    world = local_to_world(
        random_gaussians(4), face_frames(flat, faces, triangle_shape(rest, faces))
    )
    (world.means.sum() + world.scales.sum()).backward()
    assert torch.isfinite(flat.grad).all()


def test_round_splats_and_round_results_keep_finite_gradients():
    eye = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    scales = torch.tensor([[1.0, 0.1, 1.0], [0.5, 0.1, 1.0]], dtype=torch.float64)
    scales.requires_grad_()
    stretch = torch.tensor([[2.0, 0.0, 0.5], [2.0, 0.0, 1.0]], dtype=torch.float64)
    rows, axes, lengths = stretch_splats(eye, scales, stretch)
    assert rows.tolist() == [0, 1]
    torch.testing.assert_close(torch.linalg.det(axes), torch.ones(2, dtype=torch.float64))
    expected = torch.tensor([[0.1, 0.5, 2.0], [0.1, 1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(lengths.detach().sort(1).values, expected)
    lengths.sum().backward()
    expected = torch.tensor([[2.0, 1.0, 0.5], [2.0, 1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(scales.grad, expected)


class Sheet:
    """A square of 8 x 8 quads that ``grow`` makes four times as high and no wider."""

    kind = "sheet"
    parameter_sizes = {"grow": 1}  # noqa: RUF012

    def __init__(self) -> None:
        side = np.linspace(-0.02, 0.02, 9)
        x, y = np.meshgrid(side, side)
        self.vertices = np.stack([x, y, 0 * x], -1).reshape(-1, 3).astype(np.float32)
        grid = np.arange(81).reshape(9, 9)
        a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]
        self.faces = np.stack([a, b, d, a, d, c], -1).reshape(-1, 3)

    def pose(self, parameters):
        factor = torch.ones(1, 3) + parameters["grow"] * torch.tensor([[0.0, 3.0, 0.0]])
        return torch.from_numpy(self.vertices)[None] * factor[:, None]

    def to_arrays(self):
        return {"faces": self.faces}

    @staticmethod
    def from_arrays(arrays):
        return Sheet()


def splats_of(sheet: Sheet, grow: float = 0.0) -> Gaussians:
    """One splat per triangle, as far apart as they are in the pose."""
    faces = torch.from_numpy(sheet.faces)
    vertices = sheet.pose({"grow": torch.tensor([[grow]])})[0]
    spacing = float(np.sqrt(0.04**2 * (1 + 3 * grow) / len(faces) / 0.866))
    thirds = torch.full((len(faces), 3), 1 / 3)
    colours = torch.full((len(faces), 3), 0.5)
    return initialise_on_surface(
        vertices, faces, torch.arange(len(faces)), thirds, colours, spacing, opacity=0.95
    )


def alpha_within(gaussians: Gaussians, attachment: str, left_m: float, right_m: float):
    """Alpha of the grown sheet between two distances from its middle."""
    avatar = Avatar(gaussians, Sheet(), {}, attachment)
    camera = orbit_camera(0, size=256, fov_deg=6.0)
    alpha = avatar.render(camera, {"grow": torch.ones(1)})[..., 3]
    corner, _ = camera.project(np.array([[left_m, 0.06, 0.0], [right_m, -0.06, 0.0]]))
    (left, top), (right, bottom) = corner.round().astype(int)
    return alpha[top:bottom, left:right]


def test_a_sheet_that_grows_one_way_stays_whole_and_within_its_outline():
    gaussians = splats_of(Sheet())
    assert alpha_within(gaussians, "affine", -0.015, 0.015).min() > 0.95
    assert alpha_within(gaussians, "affine", 0.025, 0.028).max() < 0.05
    assert alpha_within(gaussians, "similarity", 0.025, 0.028).min() > 0.05


def test_splats_laid_out_unfolded_are_round_there():
    sheet = Sheet()
    faces = torch.from_numpy(sheet.faces)
    rest, grown = (
        triangle_shape(sheet.pose({"grow": torch.tensor([[g]])})[0], faces) for g in (0.0, 1.0)
    )
    laid_out = splats_of(sheet, grow=1.0)
    stored = folded_to_rest(laid_out, grown, rest)
    vertices = sheet.pose({"grow": torch.tensor([[1.0]])})[0]
    shown = local_to_world(stored, face_frames(vertices, faces, rest))
    wanted = local_to_world(laid_out, face_frames(vertices, faces))
    torch.testing.assert_close(shown.means, wanted.means, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(
        covariances(shown.quats, shown.scales), covariances(wanted.quats, wanted.scales),
        atol=1e-9, rtol=1e-3,
    )  # fmt: skip


def test_culling_keeps_every_splat_that_touches_the_window():
    sheet = Sheet()
    poses = PoseCache(sheet, {"grow": torch.tensor([[1.0]])}, torch.device("cpu"), "affine")
    gaussians, frames = splats_of(sheet), poses.frames(0)
    window = orbit_camera(0, size=256, fov_deg=6.0).cropped(120, 90, 16, 16)
    background = torch.zeros(3)
    whole = render_splats(
        local_to_world(gaussians, frames.gather(gaussians.binding)), window, background
    )
    rows = rows_in_view(gaussians, frames, window)
    assert 0 < len(rows) < len(gaussians)
    part = gaussians.select(rows)
    seen = render_splats(local_to_world(part, frames.gather(part.binding)), window, background)
    torch.testing.assert_close(seen.image, whole.image, atol=0, rtol=0)


def test_files_keep_the_attachment_and_refuse_unknown_ones(tmp_path):
    sheet = Sheet()
    Avatar(splats_of(sheet), sheet, {}, "affine").save(tmp_path)
    loaded = Avatar.load(tmp_path, {"sheet": Sheet})
    assert loaded.attachment == "affine"
    with np.load(tmp_path / "rig.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "rig.npz", **arrays | {"attachment": np.array("glued")})
    with pytest.raises(StoreError, match="glued"):
        Avatar.load(tmp_path, {"sheet": Sheet})
    with pytest.raises(ValueError, match="attachment"):
        Avatar(splats_of(sheet), sheet, {}, "glued")
