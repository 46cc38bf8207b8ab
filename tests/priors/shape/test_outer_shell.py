"""The shell grown around the true bare head of synthetic people, from their exact matte."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from fc4d_ray.evaluation.synthetic import (
    SyntheticPerson,
    SyntheticPortrait,
    make_person,
)
from fc4d_ray.heads.anny import AnnyHead
from fc4d_ray.heads.rig import Region
from fc4d_ray.portraits.regions import HAIR, SKIN
from fc4d_ray.priors.shape.outer_shell import (
    OuterShell,
    ShellConfig,
    grow_outer_shell,
)
from fc4d_ray.priors.shape.shell_surface import without_crumbs, without_unseen_pieces
from fc4d_ray.rendering.mesh import rasterize_mesh

CONFIG = ShellConfig(voxel_m=0.008)


def _grow(person: SyntheticPerson, portrait: SyntheticPortrait) -> OuterShell:
    rig = person.head_rig
    return grow_outer_shell(
        rig, rig.neutral, portrait.camera, portrait.matte, portrait.labels, CONFIG
    )


def _whole(person: SyntheticPerson, shell: OuterShell) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, faces and regions of bare head and shell together."""
    rig = person.head_rig
    return (
        np.concatenate([rig.neutral, shell.vertices]),
        np.concatenate([rig.faces, shell.faces + len(rig.neutral)]),
        np.concatenate([rig.region, shell.region]),
    )


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.fixture(scope="module")
def shell(person: SyntheticPerson, portrait: SyntheticPortrait) -> OuterShell:
    return _grow(person, portrait)


@pytest.fixture(scope="module")
def bald(head: AnnyHead) -> tuple[SyntheticPerson, SyntheticPortrait]:
    person = make_person(6, head)
    assert person.hair_thickness_m == 0
    return person, person.portrait(person.portrait_camera(0, 256, 22))


def test_the_silhouette_follows_the_matte(person, portrait, shell: OuterShell) -> None:
    vertices, faces, _ = _whole(person, shell)
    matte = portrait.matte > 127
    bare = rasterize_mesh(person.head_rig.neutral, person.head_rig.faces, portrait.camera).covered
    grown = rasterize_mesh(vertices, faces, portrait.camera).covered
    chin_row = int(portrait.landmarks[8, 1])
    above = np.s_[:chin_row]
    assert _overlap(grown[above], matte[above]) > 0.93
    assert _overlap(grown[above], matte[above]) > _overlap(bare[above], matte[above]) + 0.05


def test_nothing_stands_before_skin_that_the_portrait_shows(person, portrait, shell) -> None:
    vertices, faces, region = _whole(person, shell)
    fragments = rasterize_mesh(vertices, faces, portrait.camera)
    skin = (portrait.labels == SKIN).astype(np.uint8)
    skin = (cv2.erode(skin, np.ones((7, 7), np.uint8)) > 0) & fragments.covered
    front = region[faces[fragments.face, 0]]
    hidden = skin & np.isin(front, (Region.HAIR, Region.CLOTHING))
    assert hidden.sum() < 0.01 * skin.sum()


def test_hair_pixels_show_hair(person, portrait, shell) -> None:
    vertices, faces, region = _whole(person, shell)
    fragments = rasterize_mesh(vertices, faces, portrait.camera)
    hair = cv2.erode((portrait.labels == HAIR).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    front = region[faces[fragments.face, 0]]
    shown = hair & fragments.covered & np.isin(front, (Region.HAIR, Region.SCALP))
    assert shown.sum() > 0.9 * hair.sum()


def test_thickness_is_measured(person, portrait, shell) -> None:
    assert 0.4 * person.hair_thickness_m < shell.hair_thickness_m < 1.3 * person.hair_thickness_m


def test_hair_that_ends_above_the_ear_ends_so_on_the_hidden_side(person) -> None:
    """What hides behind the face is bounded by the outline of its mirror image."""
    turned = person.portrait(person.portrait_camera(40, 256, 22))
    assert turned.camera.position[0] > 0
    labels, matte = turned.labels.copy(), turned.matte.copy()
    ear_row = turned.camera.project(np.zeros((1, 3)))[0][0, 1]
    rows, columns = np.indices(labels.shape)
    cut = (labels == HAIR) & (rows > ear_row) & (columns > turned.landmarks[8, 0])
    labels[cut], matte[cut] = 0, 0
    rig = person.head_rig
    shell = grow_outer_shell(rig, rig.neutral, turned.camera, matte, labels, CONFIG)
    hair = shell.vertices[shell.region == Region.HAIR]
    low = hair[(hair[:, 1] > -0.05) & (hair[:, 1] < -0.02) & (hair[:, 2] < 0)]
    assert low[:, 0].max() == pytest.approx(-low[:, 0].min(), abs=0.015)


def test_the_back_of_the_hair_has_the_measured_depth(person, portrait, shell) -> None:
    """Nobody sees the back: it may be off by a centimetre or two, not by a head."""
    hair = shell.vertices[shell.region == Region.HAIR]
    level = np.abs(hair[:, 1] - 0.05) < 0.03
    truth = person.rest[np.abs(person.rest[:, 1] - 0.05) < 0.03]
    assert hair[level, 2].min() == pytest.approx(truth[:, 2].min(), abs=0.02)
    assert shell.vertices[:, 1].max() == pytest.approx(person.rest[:, 1].max(), abs=0.02)


def test_a_shaved_head_stays_bare(bald) -> None:
    person, portrait = bald
    assert not (portrait.labels == HAIR).any()
    shell = _grow(person, portrait)
    assert shell.hair_thickness_m < 0.002
    assert len(shell.vertices), "clothing"
    assert shell.vertices[:, 1].max() < -0.03, "nothing stands on the head"


def test_a_patch_of_wall_beside_a_bald_head_grows_no_hair(bald) -> None:
    person, portrait = bald
    rig, labels, matte = person.head_rig, portrait.labels.copy(), portrait.matte.copy()
    edge = np.nonzero(labels[110])[0].max()
    wall = np.s_[95:140, edge - 4 : edge + 12]
    labels[wall], matte[wall] = HAIR, 255
    assert (labels == HAIR).mean() > 0.01
    shell = grow_outer_shell(rig, rig.neutral, portrait.camera, matte, labels, CONFIG)
    assert not (shell.region == Region.HAIR).any()
    assert shell.vertices[:, 1].max() < -0.03


def test_a_ribbon_thinner_than_two_voxels_hangs_whole(person, portrait) -> None:
    """A scarf's end beside the neck, as wide as five pixels of the crop."""
    rig = person.head_rig
    metres_per_px = np.linalg.norm(portrait.camera.position) / portrait.camera.K[0, 0]
    width = round(0.011 / metres_per_px)
    top, left = np.nonzero(portrait.labels == HAIR)[0].max() - 12, 0
    columns = np.nonzero((portrait.labels == HAIR)[top])[0]
    left = columns.max() - 1
    ribbon = np.s_[top : top + 60, left : left + width]
    matte, labels = portrait.matte.copy(), portrait.labels.copy()
    matte[ribbon], labels[ribbon] = 255, HAIR
    shell = grow_outer_shell(rig, rig.neutral, portrait.camera, matte, labels, CONFIG)
    vertices, faces, _ = _whole(person, shell)
    covered = rasterize_mesh(vertices, faces, portrait.camera).covered
    assert covered[ribbon].mean() > 0.85
    assert not covered[top + 5 : top + 40, left + width + 8 : left + width + 16].any()


def test_scraps_of_the_surface_are_dropped() -> None:
    grid = np.arange(400).reshape(20, 20)
    quads = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:]], -1).reshape(-1, 3)
    vertices = np.random.default_rng(0).normal(size=(403, 3))
    used = np.unique(quads)
    kept, faces = without_crumbs(vertices, np.concatenate([quads, [[400, 401, 402]]]))
    np.testing.assert_array_equal(kept, vertices[used])
    np.testing.assert_array_equal(kept[faces], vertices[quads])
    both, _ = without_crumbs(vertices[:6], np.array([[0, 1, 2], [3, 4, 5]]))
    assert len(both) == 6, "a small shell of two pieces keeps both"


def test_pieces_inside_the_head_are_dropped(person) -> None:
    rig = person.head_rig
    ball = np.array(
        [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float64
    )
    sides = np.array(
        [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    )
    inside, outside = ball * 0.02 + [0, 0.03, 0], ball * 0.05 + [0, 0.2, 0]
    vertices, faces = without_unseen_pieces(
        np.concatenate([inside, outside]),
        np.concatenate([sides, sides + 6]),
        rig.neutral,
        rig.faces,
    )
    np.testing.assert_array_equal(vertices, outside)
    assert len(faces) == 8


def test_short_hair_is_hair_down_to_its_edge(shell: OuterShell) -> None:
    """Where the neck is bare, hair is a piece of its own."""
    edges = np.concatenate([shell.faces[:, :2], shell.faces[:, 1:]])
    _, piece = connected_components(
        coo_matrix((np.ones(len(edges)), tuple(edges.T)), shape=(len(shell.vertices),) * 2)
    )
    hair = shell.region == Region.HAIR
    share = np.bincount(piece, hair) / np.bincount(piece)
    on_head = [p for p in range(piece.max() + 1) if shell.vertices[piece == p, 1].max() > 0.1]
    assert on_head and all(share[p] == 1 or share[p] < 0.7 for p in on_head)


def test_the_shell_is_a_clean_mesh(shell: OuterShell) -> None:
    assert len(shell.vertices) == len(shell.region) > 500
    assert np.isfinite(shell.vertices).all()
    assert shell.faces.min() == 0 and shell.faces.max() == len(shell.vertices) - 1
    edges = np.concatenate([shell.faces[:, [0, 1]], shell.faces[:, [1, 2]], shell.faces[:, [2, 0]]])
    assert np.unique(edges, axis=0, return_counts=True)[1].max() == 1, "consistent orientation"
    corners = shell.vertices[shell.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    crown = corners.mean(1)[:, 1] > 0.12
    assert normals[crown, 1].sum() > 0, "outward"


def test_an_empty_matte_gives_no_shell(person, portrait) -> None:
    rig = person.head_rig
    nothing = np.zeros_like(portrait.matte)
    shell = grow_outer_shell(rig, rig.neutral, portrait.camera, nothing, nothing, CONFIG)
    assert len(shell.vertices) == len(shell.faces) == len(shell.region) == 0
    assert shell.hair_thickness_m == 0
