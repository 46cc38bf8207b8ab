from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from fc4d_ray.cameras import Camera, look_at
from fc4d_ray.heads.anny import AnnyHead, cache_path, load_anny_head
from fc4d_ray.heads.rig import Region
from fc4d_ray.priors.video.motion import ACTION_NAMES
from fc4d_ray.rendering.mesh import rasterize_mesh


def _points(head: AnnyHead, vertices: np.ndarray) -> np.ndarray:
    corners = vertices[head.faces[head.landmark_faces]]
    return (corners * head.landmark_barycentric[..., None]).sum(1)


def _action(head: AnnyHead, name: str) -> np.ndarray:
    return head.action_basis[head.action_names.index(name)]


def test_arrays_fit_together(head: AnnyHead) -> None:
    count = len(head.mean)
    assert head.identity_basis.shape[1:] == (count, 3)
    assert head.action_basis.shape == (52, count, 3)
    assert head.action_names == ACTION_NAMES
    assert head.faces.min() == 0 and head.faces.max() == count - 1
    assert len(np.unique(head.faces)) == count, "every vertex is used"
    for name in ("mirror", "region", "neck_weight"):
        assert getattr(head, name).shape == (count,)
    assert head.neck_weight.min() >= 0 and head.neck_weight.max() <= 1
    assert set(np.unique(head.region)) <= {int(r) for r in Region}


def test_it_is_a_head_of_human_size_in_the_head_frame(head: AnnyHead) -> None:
    def of(*regions: Region) -> np.ndarray:
        return head.mean[np.isin(head.region, regions)]

    skull = of(Region.FACE, Region.SCALP)
    assert 0.13 < np.ptp(skull[:, 0]) < 0.19, "width"
    assert 0.17 < np.ptp(skull[:, 2]) < 0.24, "depth"
    assert 0.20 < np.ptp(skull[:, 1]) < 0.28, "crown to chin"
    assert abs(of(Region.EAR)[:, 1].mean()) < 0.01, "the origin is level with the ears"
    assert abs(skull[:, 2].min() + skull[:, 2].max()) < 0.03, "and in the middle of the skull"
    nose = _points(head, head.mean)[30]
    assert nose[2] > skull[:, 2].max() - 0.004, "the face looks along +z"
    assert of(Region.SCALP)[:, 1].max() == skull[:, 1].max(), "+y is up"
    eyes = of(Region.EYE)
    assert 0.055 < np.ptp([eyes[eyes[:, 0] < 0, 0].mean(), eyes[eyes[:, 0] > 0, 0].mean()]) < 0.07


def test_faces_look_outward(head: AnnyHead) -> None:
    corners = head.mean[head.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    centres = corners.mean(1)
    scalp = (head.region[head.faces] == Region.SCALP).all(1)
    outward = centres[scalp] - head.mean[head.region == Region.SCALP].mean(0)
    assert ((normals[scalp] * outward).sum(1) > 0).mean() > 0.97
    assert np.linalg.norm(normals, axis=1).min() > 0, "no face without area"


def test_no_edge_has_more_than_two_faces_and_the_parts_are_separate(head: AnnyHead) -> None:
    edges = np.concatenate([head.faces[:, [0, 1]], head.faces[:, [1, 2]], head.faces[:, [2, 0]]])
    directed, counts = np.unique(edges, axis=0, return_counts=True)
    assert counts.max() == 1, "neighbours run round in the same sense"
    _, sharing = np.unique(np.sort(directed, 1), axis=0, return_counts=True)
    assert sharing.max() == 2
    graph = coo_matrix((np.ones(len(edges)), tuple(edges.T)), shape=(len(head.mean),) * 2)
    _, part = connected_components(graph, directed=False)
    for region, n_parts in ((Region.EYE, 2), (Region.TEETH, 2), (Region.TONGUE, 1)):
        assert len(np.unique(part[head.region == region])) == n_parts, region.name
    skin = np.isin(head.region, (Region.FACE, Region.SCALP, Region.EAR, Region.NECK, Region.BUST))
    assert len(np.unique(part[skin])) == 1


def test_the_mirror_map_mirrors(head: AnnyHead) -> None:
    mirrored = head.mean[head.mirror] * [-1, 1, 1]
    assert np.abs(mirrored - head.mean).max() < 1e-3
    back = head.mirror[head.mirror]
    assert (back == np.arange(len(back))).mean() > 0.99
    same = head.region[head.mirror] == head.region
    assert same.mean() > 0.98
    middle = np.abs(head.mean[:, 0]) < 1e-6
    off = np.abs(head.mean[:, 0]) > 0.002
    assert (head.mirror[off] != np.flatnonzero(off)).all()
    assert (np.abs(head.mean[head.mirror[middle], 0]) < 1e-3).all()


@pytest.mark.parametrize("stem", ["eyeBlink", "mouthSmile", "browOuterUp", "cheekSquint"])
def test_left_actions_mirror_right_ones_and_move_the_left(head: AnnyHead, stem: str) -> None:
    left, right = _action(head, f"{stem}Left"), _action(head, f"{stem}Right")
    size = np.linalg.norm(left, axis=1)
    moved = size > 0.3 * size.max()
    assert head.mean[moved, 0].mean() > 0.005, "+x is the subject's left"
    mirrored = right[head.mirror] * [-1, 1, 1]
    assert np.linalg.norm(mirrored - left, axis=1).mean() < 0.1 * size[moved].mean()


def test_landmarks_lie_where_their_names_say(head: AnnyHead) -> None:
    np.testing.assert_allclose(head.landmark_barycentric.sum(1), 1, atol=1e-5)
    assert head.landmark_barycentric.min() >= 0
    marks = _points(head, head.mean)
    # The person's right (-x) has the low numbers of jaw, brows, eyes and mouth.
    for right, left in ((0, 16), (17, 26), (36, 45), (39, 42), (31, 35), (48, 54)):
        assert marks[right, 0] < 0 < marks[left, 0]
        np.testing.assert_allclose(marks[right] * [-1, 1, 1], marks[left], atol=0.004)
    assert np.abs(marks[[8, 27, 28, 29, 30, 33, 51, 57, 62, 66], 0]).max() < 0.002, "mid-line"
    y = marks[:, 1]
    assert y[17:27].min() > y[36:48].max() > y[30] > y[33] > y[51] > y[57] > y[8]
    assert marks[30, 2] == marks[27:, 2].max(), "the tip of the nose stands out"
    assert 0.08 < np.linalg.norm(marks[36] - marks[45]) < 0.10
    assert 0.038 < np.linalg.norm(marks[48] - marks[54]) < 0.06
    lips = np.linalg.norm(marks[[61, 62, 63]] - marks[[67, 66, 65]], axis=1)
    assert lips.max() < 0.004, "the mouth is closed"
    for i, (_, y_eye, _) in zip(range(36, 48), marks[36:48], strict=True):
        eye = head.mean[head.region == Region.EYE]
        eye = eye[(eye[:, 0] > 0) == (marks[i, 0] > 0)]
        assert abs(y_eye - eye[:, 1].mean()) < 0.012
        assert eye[:, 0].min() - 0.008 < marks[i, 0] < eye[:, 0].max() + 0.008


def test_the_jaw_opens_the_lips_and_takes_the_lower_teeth_along(head: AnnyHead) -> None:
    closed, opened = _points(head, head.mean), _points(head, head.mean + _action(head, "jawOpen"))
    gap = np.linalg.norm(opened[[61, 62, 63]] - opened[[67, 66, 65]], axis=1)
    assert gap.min() > 0.015
    assert 0.01 < closed[8, 1] - opened[8, 1] < 0.05, "the chin sinks"
    np.testing.assert_allclose(opened[27:36], closed[27:36], atol=0.003)
    teeth = head.region == Region.TEETH
    moved = np.linalg.norm(_action(head, "jawOpen")[teeth], axis=1) > 0.005
    assert moved.sum() == teeth.sum() / 2
    lower = head.mean[teeth][moved]
    assert lower[:, 1].mean() < head.mean[teeth][~moved][:, 1].mean()
    distances = np.linalg.norm(lower[:, None] - lower[None], axis=-1)
    after = lower + _action(head, "jawOpen")[teeth][moved]
    turned = np.linalg.norm(after[:, None] - after[None], axis=-1)
    np.testing.assert_allclose(turned, distances, atol=1e-5, err_msg="teeth are rigid")


@pytest.mark.parametrize(("side", "sign"), [("Left", 1), ("Right", -1)])
def test_a_blink_covers_its_eye_and_no_other(head: AnnyHead, side: str, sign: int) -> None:
    K = np.array([[2400.0, 0, 160], [0, 2400, 160], [0, 0, 1]])
    target = np.array([0, 0.017, 0.07])
    camera = Camera(K, look_at(target + np.array([0, 0, 0.9]), target), 320, 320)

    def eye_pixels(vertices: np.ndarray) -> np.ndarray:
        face = rasterize_mesh(vertices, head.faces, camera).face
        eye = (face >= 0) & (head.region[head.faces[face, 0]] == Region.EYE)
        right_half, left_half = eye[:, :160].sum(), eye[:, 160:].sum()
        return np.array([left_half, right_half] if sign > 0 else [right_half, left_half])

    own_open, other_open = eye_pixels(head.mean)
    own_shut, other_shut = eye_pixels(head.mean + _action(head, f"eyeBlink{side}"))
    assert own_open > 400, "an open eye shows"
    assert own_shut < 0.06 * own_open
    assert other_shut == pytest.approx(other_open, rel=0.02)


def test_eyelid_landmarks_follow_a_blink(head: AnnyHead) -> None:
    """Landmarks 37, 38, 43, 44 mark the upper lid's edge, which a blink takes down."""
    blink = _action(head, "eyeBlinkLeft") + _action(head, "eyeBlinkRight")
    before, after = _points(head, head.mean), _points(head, head.mean + blink)
    assert (before - after)[[37, 38, 43, 44], 1].min() > 0.004
    opening = before[[37, 38, 43, 44], 1] - before[[41, 40, 47, 46], 1]
    remaining = after[[37, 38, 43, 44], 1] - after[[41, 40, 47, 46], 1]
    assert (remaining < 0.35 * opening).all()


def test_identities_vary_like_people_around_the_mean(head: AnnyHead) -> None:
    generator = np.random.default_rng(0)
    people = np.stack(
        [head.rig(generator.standard_normal(len(head.identity_basis))).neutral for _ in range(12)]
    )
    skin = head.region == Region.FACE
    spread_mm = 1000 * np.linalg.norm(people[:, skin].std(0), axis=1)
    assert 3 < spread_mm.mean() < 20
    marks = np.stack([_points(head, p) for p in people])
    eyes = np.linalg.norm(marks[:, 36] - marks[:, 45], axis=1)
    assert eyes.min() > 0.07 and eyes.max() < 0.115 and eyes.std() > 0.001
    zero = head.rig(np.zeros(len(head.identity_basis)))
    np.testing.assert_array_equal(zero.neutral, head.mean)
    # Teeth and mouth were added after the analysis.
    grown = slice(0, np.flatnonzero(head.region == Region.TEETH)[0])
    size = np.sqrt(np.square(head.identity_basis[:, grown]).sum((1, 2)))
    assert (np.diff(size) <= 1e-6).all(), "largest components first"


def test_the_cache_is_named_after_version_and_format_and_read_back(
    head: AnnyHead, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("fc4d_ray.heads.anny.build_anny_head", lambda: head)
    path = cache_path(tmp_path)
    assert path.parent == tmp_path and not path.exists()
    built = load_anny_head(tmp_path)
    assert path.exists() and [p.name for p in tmp_path.iterdir()] == [path.name]
    monkeypatch.setattr("fc4d_ray.heads.anny.build_anny_head", None)
    read = load_anny_head(tmp_path)
    for model in (built, read):
        assert model.action_names == head.action_names
        np.testing.assert_array_equal(model.identity_basis, head.identity_basis)
    monkeypatch.setenv("FC4D_CACHE", str(tmp_path / "elsewhere"))
    assert cache_path().parent == tmp_path / "elsewhere" / "fc4d_ray"
