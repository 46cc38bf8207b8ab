from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from fc4d_ray.avatar.binding import WorldSplats
from fc4d_ray.avatar.formats.world_ply import read_world_ply, write_world_ply
from fc4d_ray.errors import StoreError


def splats(n_higher: int, n: int = 7) -> WorldSplats:
    generator = torch.Generator().manual_seed(n_higher)
    return WorldSplats(
        means=torch.randn(n, 3, generator=generator),
        quats=torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=-1),
        scales=torch.rand(n, 3, generator=generator) + 0.01,
        opacities=torch.rand(n, generator=generator) * 0.98 + 0.01,
        sh0=torch.randn(n, 3, generator=generator),
        shN=torch.randn(n, n_higher, 3, generator=generator),
    )


@pytest.mark.parametrize("n_higher", [0, 3, 15])
def test_round_trip(tmp_path, n_higher):
    written = splats(n_higher)
    write_world_ply(tmp_path / "a.ply", written)
    read = read_world_ply(tmp_path / "a.ply")
    assert read.shN.shape == (7, 15, 3)
    assert not read.shN[:, n_higher:].any()
    for field in fields(WorldSplats):
        expected = getattr(written, field.name)
        found = getattr(read, field.name)
        found = found[:, :n_higher] if field.name == "shN" else found
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_layout_is_the_62_floats_of_3dgs(tmp_path):
    written = splats(15)
    write_world_ply(tmp_path / "a.ply", written)
    data = (tmp_path / "a.ply").read_bytes()
    header, body = data.split(b"end_header\n", 1)
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\nelement vertex 7\n")
    assert b"comment" not in header
    assert len(body) == 7 * 62 * 4
    rows = np.frombuffer(body, "<f4").reshape(7, 62)
    np.testing.assert_array_equal(rows[:, :3], written.means)
    np.testing.assert_array_equal(rows[:, 3:6], 0)
    np.testing.assert_array_equal(rows[:, 9:24], written.shN[..., 0])
    np.testing.assert_array_equal(rows[:, 39:54], written.shN[..., 2])
    np.testing.assert_allclose(rows[:, 55:58], written.scales.log(), rtol=1e-6)


def test_an_independent_reader_agrees(tmp_path):
    plyfile = pytest.importorskip("plyfile")
    written = splats(3)
    write_world_ply(tmp_path / "a.ply", written)
    vertex = plyfile.PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    np.testing.assert_array_equal(vertex["f_dc_1"], written.sh0[:, 1])
    np.testing.assert_array_equal(vertex["f_rest_16"], written.shN[:, 1, 1])
    np.testing.assert_array_equal(vertex["rot_0"], written.quats[:, 0])


def test_files_of_other_programs_with_comments_and_other_columns(tmp_path):
    plyfile = pytest.importorskip("plyfile")
    names = ["z", "x", "y", "opacity", "rot_0", "rot_1", "rot_2", "rot_3"]
    names += ["scale_0", "scale_1", "scale_2", "f_dc_0", "f_dc_1", "f_dc_2"]
    table = np.ones(3, [(name, "f8") for name in names] + [("label", "u1")])
    table["z"] = 5
    element = plyfile.PlyElement.describe(table, "vertex")
    plyfile.PlyData([element], byte_order="<", comments=["hello"]).write(str(tmp_path / "b.ply"))
    read = read_world_ply(tmp_path / "b.ply")
    np.testing.assert_array_equal(read.means, [[1, 1, 5]] * 3)
    assert read.shN.shape == (3, 0, 3)


def test_opaque_and_clear_splats_stay_finite(tmp_path):
    extreme = splats(0, 2)
    extreme.opacities.copy_(torch.tensor([0.0, 1.0]))
    write_world_ply(tmp_path / "a.ply", extreme)
    read = read_world_ply(tmp_path / "a.ply")
    torch.testing.assert_close(read.opacities, extreme.opacities, atol=2e-6, rtol=0)


def test_no_splats_at_all(tmp_path):
    write_world_ply(tmp_path / "a.ply", splats(3, 0))
    assert read_world_ply(tmp_path / "a.ply").means.shape == (0, 3)


def test_damaged_files_are_refused_by_name(tmp_path):
    path = tmp_path / "a.ply"
    with pytest.raises(StoreError, match=r"a\.ply"):
        read_world_ply(path)
    write_world_ply(path, splats(0))
    data = path.read_bytes()
    for bad, message in {
        data[:-1]: "cut short",
        b"junk": "no ply",
        data.replace(b"binary_little_endian", b"ascii"): "binary little endian",
        data.replace(b"opacity", b"opaxity"): "lacks opacity",
        data.replace(b"property float f_rest_44\n", b""): "44 f_rest",
    }.items():
        path.write_bytes(bad)
        with pytest.raises(StoreError, match=message):
            read_world_ply(path)
