from __future__ import annotations

import numpy as np
import pytest
import torch

from fc4d_ray.cameras import orbit_camera
from fc4d_ray.rendering.mesh import rasterize_mesh
from fc4d_ray.tracking.visibility import depth_maps, facing_and_visible

CAMERAS = [orbit_camera(a, size=96) for a in (0.0, 90.0, 180.0)]


def _two_plates() -> tuple[torch.Tensor, np.ndarray]:
    """A large plate at z = 0 and a small one 5 cm before it, both facing +z."""
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], float)
    grid = np.array([[x, y, 0] for x in np.linspace(-1, 1, 9) for y in np.linspace(-1, 1, 9)])
    faces = []
    for i in range(8):
        for j in range(8):
            a, b, c, d = i * 9 + j, (i + 1) * 9 + j, (i + 1) * 9 + j + 1, i * 9 + j + 1
            faces += [[a, b, c], [a, c, d]]
    large = 0.12 * grid
    small = 0.03 * corners + [0, 0, 0.05]
    faces += [[81, 82, 83], [81, 83, 84]]
    return torch.from_numpy(np.concatenate([large, small]))[None], np.array(faces)


def test_what_is_behind_turned_away_or_at_an_edge_is_not_seen() -> None:
    vertices, faces = _two_plates()
    chosen = torch.arange(81)
    normals, cosine, unhidden = facing_and_visible(vertices, faces, chosen, CAMERAS, 1)
    assert normals.shape == (1, 81, 3) and unhidden.shape == (1, 3, 81)
    torch.testing.assert_close(normals[0, :, 2], torch.ones(81).double())
    assert (cosine[0, 0] > 0.99).all() and (cosine[0, 2] < -0.99).all()
    place = vertices[0, :81]
    behind = place.abs().amax(-1) < 0.02
    inner = (place.abs().amax(-1) < 0.1) & (place.abs().amax(-1) > 0.05)
    assert not unhidden[0, 0][behind].any()
    assert unhidden[0, 0][inner].all()
    assert not unhidden[0, 0][place.abs().amax(-1) > 0.119].any(), "the plate's own edge"


def test_depth_does_not_depend_on_threads() -> None:
    vertices, faces = _two_plates()
    one, two = (depth_maps(vertices, faces, CAMERAS, n) for n in (1, 2))
    assert torch.equal(one, two) and one.shape == (1, 3, 96, 96)


def test_pytorch3d_draws_what_numba_draws() -> None:
    pytest.importorskip("pytorch3d", reason="pytorch3d is not installed here")
    from fc4d_ray.rendering.pytorch3d_backend import rasterize

    vertices, faces = _two_plates()
    for camera in (CAMERAS[0], orbit_camera(30.0, 10.0, size=96).cropped(8, 20, 80, 48)):
        found = rasterize(vertices.float(), faces, camera)
        expected = rasterize_mesh(vertices[0], faces, camera)
        same = found.face[0].numpy() == expected.face
        assert same.mean() > 0.995, "pixels on shared edges may go either way"
        np.testing.assert_allclose(
            found.z_depth[0].numpy()[same], expected.z_depth[same], atol=1e-4
        )
        covered = same & expected.covered
        np.testing.assert_allclose(
            found.barycentric[0].numpy()[covered], expected.barycentric[covered], atol=1e-3
        )
