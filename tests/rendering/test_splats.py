from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fc4d_ray.cameras import orbit_camera
from fc4d_ray.rendering import rasterization

NAMES = ("means", "quats", "scales", "opacities", "colors")


def make_splats(n: int, n_channels: int = 3, seed: int = 0, size_m: float = 0.01) -> list[Tensor]:
    """A ball of splats of about a head's size, float64."""
    g = torch.Generator().manual_seed(seed)
    means = 0.08 * torch.randn(n, 3, generator=g, dtype=torch.float64)
    quats = torch.randn(n, 4, generator=g, dtype=torch.float64)
    scales = size_m * torch.exp(0.6 * torch.randn(n, 3, generator=g, dtype=torch.float64))
    opacities = 0.02 + 0.97 * torch.rand(n, generator=g, dtype=torch.float64)
    colors = torch.rand(n, n_channels, generator=g, dtype=torch.float64)
    return [means, quats, scales, opacities, colors]


def make_cameras(
    *azimuths_deg: float, width: int = 70, height: int = 37, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, int, int]:
    cameras = [orbit_camera(a, 10.0, size=64).resized(width, height) for a in azimuths_deg]
    viewmats = torch.from_numpy(np.stack([c.world_to_camera for c in cameras])).to(dtype)
    return viewmats, torch.from_numpy(np.stack([c.K for c in cameras])).to(dtype), width, height


def leaves(tensors: list[Tensor]) -> list[Tensor]:
    return [t.clone().requires_grad_(True) for t in tensors]


def render_with_gradients(
    splats: list[Tensor], cameras: tuple, **options: Any
) -> tuple[Tensor, ...]:
    """Image, alpha and the gradients of a fixed random weighting of both."""
    inputs = leaves(splats)
    viewmats = cameras[0].clone().requires_grad_(True)
    image, alpha, _ = rasterization(*inputs, viewmats, *cameras[1:], **options)
    g = torch.Generator().manual_seed(1)
    weights = [torch.randn(t.shape, generator=g, dtype=t.dtype) for t in (image, alpha)]
    loss = (weights[0] * image).sum() + (weights[1] * alpha).sum()
    gradients = torch.autograd.grad(loss, [*inputs, viewmats])
    return image.detach(), alpha.detach(), *gradients


@pytest.mark.parametrize("antialiased", [False, True], ids=["classic", "antialiased"])
@pytest.mark.parametrize("n_channels", [1, 3, 6, 35])
def test_pictures_and_gradients_match_plain_pytorch(
    oracle: ModuleType, n_channels: int, antialiased: bool
) -> None:
    """Several cameras, an image that is no multiple of the tile, one colour set per camera."""
    splats = make_splats(150, n_channels, size_m=0.025)
    cameras = make_cameras(0.0, 120.0)
    splats[4] = torch.stack([splats[4], 1 - splats[4]])
    background = torch.rand(2, n_channels, dtype=torch.float64)
    options = {"rasterize_mode": "antialiased"} if antialiased else {}
    found = render_with_gradients(splats, cameras, backgrounds=background, packed=False, **options)

    inputs = leaves(splats)
    viewmats, Ks, width, height = cameras
    viewmats = viewmats.clone().requires_grad_(True)
    images, alphas = [], []
    for camera in range(2):
        ellipses = oracle.project(
            *inputs[:4], viewmats[camera], Ks[camera], width, height, antialiased=antialiased
        )
        image, alpha = oracle.render_dense(
            ellipses, inputs[4][camera], background[camera], width, height
        )
        images.append(image)
        alphas.append(alpha[..., None])
    image, alpha = torch.stack(images), torch.stack(alphas)
    assert 0.3 < alpha.mean() < 0.95
    g = torch.Generator().manual_seed(1)
    weights = [torch.randn(t.shape, generator=g, dtype=t.dtype) for t in (image, alpha)]
    loss = (weights[0] * image).sum() + (weights[1] * alpha).sum()
    expected = (image, alpha, *torch.autograd.grad(loss, [*inputs, viewmats]))
    for name, one, other in zip(
        ("image", "alpha", *NAMES, "viewmats"), found, expected, strict=True
    ):
        error = (one - other).norm() / other.norm()
        assert error < 1e-10, f"{name}: {error:.2e}"


def test_tile_loop_of_the_oracle_gives_its_dense_picture(oracle: ModuleType) -> None:
    splats = make_splats(300)
    viewmats, Ks, width, height = make_cameras(40.0)
    ellipses = oracle.project(*splats[:4], viewmats[0], Ks[0], width, height)
    background = torch.ones(3, dtype=torch.float64)
    dense = oracle.render_dense(ellipses, splats[4], background, width, height)
    tiled = oracle.render_tiles(ellipses, splats[4], background, width, height)
    for one, other in zip(dense, tiled, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_float64_gradients_pass_gradcheck() -> None:
    splats = leaves(make_splats(7, 2, seed=3, size_m=0.06))
    viewmats, Ks, width, height = make_cameras(10.0, 200.0, width=9, height=7)
    background = torch.rand(2, 2, dtype=torch.float64)

    def render(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        *splat_tensors, views, backgrounds = tensors
        image, alpha, _ = rasterization(
            *splat_tensors,
            views,
            Ks,
            width,
            height,
            backgrounds=backgrounds,
            render_mode="RGB+ED",
            rasterize_mode="antialiased",
        )
        return image, alpha

    inputs = (*splats, *leaves([viewmats, background]))
    assert torch.autograd.gradcheck(render, inputs, eps=1e-7, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spherical_harmonics_pass_gradcheck(degree: int) -> None:
    splats = make_splats(5, seed=4, size_m=0.06)
    g = torch.Generator().manual_seed(0)
    splats[4] = 0.3 * torch.randn(5, 16, 3, generator=g, dtype=torch.float64)
    viewmats, Ks, width, height = make_cameras(10.0, 60.0, width=5, height=4)

    def render(coefficients: Tensor, means: Tensor, views: Tensor) -> Tensor:
        tensors = (means, *splats[1:4], coefficients, views, Ks, width, height)
        return rasterization(*tensors, sh_degree=degree)[0]

    inputs = leaves([splats[4], splats[0], viewmats])
    assert torch.autograd.gradcheck(render, inputs, eps=1e-7, atol=1e-6, rtol=1e-4)


def test_a_lone_splat_shows_its_opacity_and_depth_at_its_centre() -> None:
    camera = orbit_camera(0.0, size=65)
    tensors = [torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 0.05)]
    tensors += [torch.tensor([0.7]), torch.tensor([[0.2, 0.4, 0.6]])]
    view = torch.from_numpy(camera.world_to_camera).float()[None]
    K = torch.from_numpy(camera.K).float()[None]
    image, alpha, meta = rasterization(*tensors, view, K, 65, 65, render_mode="RGB+ED")
    assert alpha[0, 32, 32, 0].item() == pytest.approx(0.7, abs=1e-6)
    expected = torch.tensor([0.14, 0.28, 0.42, 2.7 * 0.72])
    torch.testing.assert_close(image[0, 32, 32], expected, rtol=0, atol=1e-5)
    assert meta["gaussian_ids"].tolist() == [0] and meta["camera_ids"].tolist() == [0]


def test_splats_behind_the_camera_leave_the_background_and_get_no_gradient() -> None:
    splats = [t.float() for t in make_splats(50)]
    splats[0] = splats[0] + torch.tensor([0.0, 0.0, 5.0])
    viewmats, Ks, width, height = make_cameras(0.0, dtype=torch.float32)
    inputs = leaves(splats)
    background = torch.rand(1, 3)
    for packed in (False, True):
        image, alpha, meta = rasterization(
            *inputs, viewmats, Ks, width, height, backgrounds=background, packed=packed
        )
        assert (image == background).all() and (alpha == 0).all()
        assert (meta["radii"] == 0).all()
        gradients = torch.autograd.grad(image.sum() + alpha.sum(), inputs)
        assert all((g == 0).all() for g in gradients)


def test_extreme_splats_stay_finite() -> None:
    """Pancakes, needles, giants, dust and splats grazing the near plane."""
    g = torch.Generator().manual_seed(5)
    splats = [t.float() for t in make_splats(400, seed=5)]
    splats[2] = 10.0 ** (12 * torch.rand(400, 3, generator=g) - 9)
    splats[0][:100, 2] += 1.9
    splats[1][:10] = 0.0
    viewmats, Ks, width, height = make_cameras(0.0, dtype=torch.float32)
    image, alpha, *gradients = render_with_gradients(splats, (viewmats, Ks, width, height))
    assert image.isfinite().all() and (alpha >= 0).all() and (alpha <= 1).all()
    assert all(g.isfinite().all() for g in gradients)


def test_equal_inputs_give_equal_bits_for_any_number_of_threads() -> None:
    splats = [t.float() for t in make_splats(5000)]
    cameras = make_cameras(0.0, 90.0, width=150, height=90, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        results = []
        for n_threads in (1, 2, 2, 3):
            torch.set_num_threads(n_threads)
            results.append(render_with_gradients(splats, cameras, packed=False))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], result, strict=True))


def test_threads_may_enter_at_once() -> None:
    scenes = [[t.float() for t in make_splats(800, seed=seed)] for seed in range(8)]
    cameras = make_cameras(0.0, 45.0, dtype=torch.float32)
    serial = [render_with_gradients(scene, cameras) for scene in scenes]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda scene: render_with_gradients(scene, cameras), scenes * 3))
    for index, result in enumerate(parallel):
        expected = serial[index % len(scenes)]
        assert all(torch.equal(one, other) for one, other in zip(result, expected, strict=True))


def test_packed_and_dense_agree() -> None:
    splats = make_splats(200)
    cameras = make_cameras(0.0, 120.0)
    dense = render_with_gradients(splats, cameras, packed=False)
    packed = render_with_gradients(splats, cameras, packed=True)
    for one, other in zip(dense, packed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_memory_layout_does_not_matter() -> None:
    splats = make_splats(100)
    cameras = make_cameras(0.0)
    strided = [t.repeat_interleave(2, 0)[::2] for t in splats]
    strided[0] = splats[0].T.contiguous().T
    strided[4] = splats[4][:1].expand(100, -1)
    plain = [t.contiguous() for t in strided]
    for one, other in zip(
        render_with_gradients(strided, cameras), render_with_gradients(plain, cameras), strict=True
    ):
        assert torch.equal(one, other)


def test_two_images_in_one_pass_are_the_two_images() -> None:
    splats = make_splats(200, 6)
    cameras = make_cameras(30.0)
    both, _, _ = rasterization(*splats, *cameras)
    for half in (slice(0, 3), slice(3, 6)):
        one, _, _ = rasterization(*splats[:4], splats[4][:, half], *cameras)
        torch.testing.assert_close(both[..., half], one, rtol=0, atol=0)


def test_later_splats_do_not_show_through_saturation() -> None:
    """After transmittance would reach 1e-4 nothing is added, whatever lies behind."""
    n = 20
    means = torch.zeros(n, 3)
    means[:, 2] = -0.01 * torch.arange(n)
    quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1)
    colors = torch.eye(n)
    scales, opacities = torch.full((n, 3), 0.2), torch.full((n,), 0.8)
    cameras = make_cameras(0.0, dtype=torch.float32)
    image, alpha, _ = rasterization(means, quats, scales, opacities, colors, *cameras)
    centre = image[0, 18, 35]
    assert (centre[:5] > 1e-4).all() and (centre[5:] == 0).all()
    assert alpha.max() < 1 - 1e-4


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("sparse_grad", True),
        ("distributed", True),
        ("camera_model", "fisheye"),
        ("segmented", True),
        ("covars", torch.zeros(1)),
        ("with_ut", True),
        ("with_eval3d", True),
        ("radial_coeffs", torch.zeros(1)),
        ("tangential_coeffs", torch.zeros(1)),
        ("thin_prism_coeffs", torch.zeros(1)),
        ("ftheta_coeffs", object()),
        ("rolling_shutter", "TOP_TO_BOTTOM"),
        ("viewmats_rs", torch.zeros(1)),
    ],
)
def test_unsupported_arguments_are_named(argument: str, value: Any) -> None:
    with pytest.raises(NotImplementedError, match=argument):
        rasterization(*make_splats(2), *make_cameras(0.0), **{argument: value})


@pytest.mark.parametrize(
    ("index", "replacement", "message"),
    [
        (1, torch.zeros(2, 3, dtype=torch.float64), "quats: expected shape"),
        (3, torch.zeros(2, 1, dtype=torch.float64), "opacities: expected shape"),
        (2, torch.zeros(2, 3, dtype=torch.float32), "scales: expected float32 or float64 like"),
    ],
)
def test_wrong_tensors_are_named(index: int, replacement: Tensor, message: str) -> None:
    splats = make_splats(2)
    splats[index] = replacement
    with pytest.raises(ValueError, match=message):
        rasterization(*splats, *make_cameras(0.0))


def test_wrong_options_are_named() -> None:
    splats, cameras = make_splats(2), make_cameras(0.0)
    with pytest.raises(ValueError, match="render_mode"):
        rasterization(*splats, *cameras, render_mode="depth")
    with pytest.raises(ValueError, match="rasterize_mode"):
        rasterization(*splats, *cameras, rasterize_mode="smooth")
    with pytest.raises(ValueError, match="sh_degree"):
        rasterization(*splats[:4], torch.zeros(2, 25, 3).double(), *cameras, sh_degree=4)
    with pytest.raises(ValueError, match="backgrounds"):
        rasterization(*splats, *cameras, backgrounds=torch.zeros(1, 4).double())
    with pytest.raises(ValueError, match="backend"):
        rasterization(*splats, *cameras, backend="cuda")


def test_gsplat_backend_says_what_it_needs() -> None:
    installed = importlib.util.find_spec("gsplat") is not None
    error, message = (ValueError, "CUDA tensors") if installed else (ImportError, "need gsplat")
    with pytest.raises(error, match=message):
        rasterization(*make_splats(2), *make_cameras(0.0), backend="gsplat")
