"""The stand-in for FLAME's files is read by the reader of the real ones, and is a head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fc4d_ray.assets.tiny_flame import write_tiny_flame
from fc4d_ray.heads.flame_files import FlameFiles, import_flame, load_flame
from fc4d_ray.heads.flame_regions import vertex_regions
from fc4d_ray.heads.flame_rig import FlameRig, flame_rig
from fc4d_ray.heads.rig import Region


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> FlameFiles:
    folder = tmp_path_factory.mktemp("flame")
    model = write_tiny_flame(folder / "download")
    report = import_flame(model.parent, directory=folder / "assets")
    assert report.edition == "flame2023-open" and report.has_landmarks and report.has_masks
    return load_flame("flame2023-open", folder / "assets")


@pytest.fixture(scope="module")
def rig(files: FlameFiles) -> FlameRig:
    return flame_rig(files, np.zeros(10))


def test_it_is_a_closed_head_seen_from_outside(files: FlameFiles) -> None:
    vertices, faces = files.arrays.template, files.arrays.faces
    assert len({tuple(sorted(f)) for f in faces.tolist()}) == len(faces) == 9976
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (np.linalg.norm(normals, axis=1) > 0).mean() > 0.99
    outwards = (normals * corners.mean(1)).sum(1)
    assert (outwards > 0).mean() > 0.97
    height = np.ptp(vertices[:, 1])
    assert 0.2 < height < 0.5 and 0.1 < np.ptp(vertices[:, 0]) < 0.5


def test_landmarks_lie_where_the_face_has_them(rig: FlameRig) -> None:
    points = rig.landmarks(torch.from_numpy(rig.neutral)).numpy()
    assert (points[:, 2] > -0.03).all()
    eyes, mouth, chin = points[36:48].mean(0), points[48:68].mean(0), points[8]
    assert eyes[1] > points[30, 1] > mouth[1] > chin[1]
    assert points[36:42, 0].max() < 0 < points[42:48, 0].min(), "the left eye is on the +x side"
    assert abs(points[[27, 30, 33, 51, 57, 8], 0]).max() < 0.006


def test_the_jaw_opens_and_teeth_follow(rig: FlameRig) -> None:
    parameters = {n: torch.zeros(2, d) for n, d in rig.parameter_sizes.items()}
    parameters["jaw"][1, 0] = 0.3
    rest, opened = rig.pose(parameters).numpy()
    points = [rig.landmarks(torch.from_numpy(v)).numpy() for v in (rest, opened)]
    drop = points[0] - points[1]
    assert drop[57, 1] > 0.008 and drop[8, 1] > 0.008 and np.abs(drop[36:48]).max() < 0.002
    teeth = rig.region == Region.TEETH
    assert teeth.sum() == 120
    assert np.linalg.norm(rest[teeth].mean(0) - points[0][48:68].mean(0)) < 0.03
    moved = np.linalg.norm(opened - rest, axis=1)[teeth]
    assert (moved > 0.005).sum() == 60 and (moved < 1e-6).sum() == 60


def test_identities_and_expressions_are_annys(rig: FlameRig, files: FlameFiles) -> None:
    basis = files.arrays.shape_basis
    assert np.abs(basis[..., 0]).max() > 1e-3 and np.abs(basis[..., 300:352]).max() > 3e-3
    assert not basis[..., 352:].any()
    smile = np.abs(rig.expression_basis).max((1, 2))
    assert (smile[:52] > 1e-4).sum() > 40


def test_regions_cover_the_head(files: FlameFiles) -> None:
    region = vertex_regions(files.masks)
    share = {label: (region == label).mean() for label in Region}
    assert share[Region.FACE] > 0.2 and share[Region.SCALP] > 0.1 and share[Region.EYE] > 0.002
    lips = files.arrays.template[files.masks["lips"]]
    assert len(lips) > 30 and (lips[:, 2] > 0.05).all()
