"""Every vector of the splat parity kit, within the tolerances its README states."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from fc4d_ray.rendering import rasterization

GRADIENTS = ("means", "quats", "scales", "opacities", "colors", "background", "viewmat")


@dataclass(frozen=True)
class Tolerance:
    dtype: torch.dtype
    device: str
    image: float
    expected_depth: float
    gradient: float
    means2d_px: float


FLOAT64 = Tolerance(torch.float64, "cpu", 1e-9, 1e-8, 1e-8, 1e-9)
FLOAT32 = Tolerance(torch.float32, "cpu", 1e-5, 1e-4, 5e-4, 1e-4)
CUDA = Tolerance(torch.float32, "cuda", 1e-4, 1e-3, 3e-3, 1e-3)
UNSAFE_PIXELS = 6e-3


@dataclass
class Scene:
    """A scene of the kit as leaf tensors, with the golden values under their variant's names."""

    vectors: dict[str, np.ndarray]
    name: str
    variant: str = ""
    tolerance: Tolerance = FLOAT32
    inputs: dict[str, torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        names = (*GRADIENTS, "K")
        self.inputs = {name: self.tensor(f"{self.source}.in_{name}") for name in names}
        if self.variant == "sh3":
            self.inputs["colors"] = self.tensor("a.sh3.in_sh")
        if self.name == "empty":
            for name in ("means", "quats", "scales", "opacities", "colors"):
                self.inputs[name] = self.inputs[name][:0].clone()
        for name in GRADIENTS:
            self.inputs[name].requires_grad_(True)

    @property
    def source(self) -> str:
        return "a" if self.name == "empty" else self.name

    def tensor(self, key: str) -> torch.Tensor:
        array = torch.from_numpy(np.array(self.vectors[key]))
        return array.to(self.tolerance.device, self.tolerance.dtype)

    def golden(self, key: str) -> np.ndarray:
        """The variant's value of ``key``, else the scene's."""
        full = f"{self.name}.{self.variant}.{key}"
        return self.vectors[full if full in self.vectors else f"{self.source}.{key}"]

    def render(self, **options: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        if self.variant == "sh3":
            options["sh_degree"] = 3
        if self.variant == "antialiased":
            options["rasterize_mode"] = "antialiased"
        if self.variant == "amax099":
            options["alpha_cap"] = 0.99
        i = self.inputs
        return rasterization(
            i["means"],
            i["quats"],
            i["scales"],
            i["opacities"],
            i["colors"],
            i["viewmat"][None],
            i["K"][None],
            int(self.vectors[f"{self.source}.in_width"]),
            int(self.vectors[f"{self.source}.in_height"]),
            backgrounds=i["background"][None],
            **options,
        )

    def image_tolerance(self, key: str) -> float:
        # Scene b is stored in float32.
        return max(self.tolerance.image, 1e-6 if self.golden(key).dtype == np.float32 else 0.0)


def as_array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def relative_error(found: torch.Tensor, golden: np.ndarray) -> float:
    return float(np.linalg.norm(as_array(found) - golden) / np.linalg.norm(golden))


def check_images(scene: Scene) -> None:
    safe = scene.golden("safe")
    image, alpha, _ = scene.render(packed=False)
    error = np.abs(as_array(image)[0] - scene.golden("rgb")).max(-1)
    assert error[safe].max() < scene.image_tolerance("rgb")
    assert error.max() < UNSAFE_PIXELS
    error = np.abs(as_array(alpha)[0] - scene.golden("alpha"))
    assert error[safe].max() < scene.image_tolerance("alpha")


def check_depths(scene: Scene) -> None:
    enough = scene.golden("safe") & (scene.golden("alpha")[..., 0] > 0.05)
    image, _, _ = scene.render(render_mode="RGB+ED", packed=False)
    error = np.abs(as_array(image)[0, ..., 3:] - scene.golden("depth_expected"))
    storage = 1e-6 if scene.golden("depth_expected").dtype == np.float32 else 0.0
    assert error[enough].max() < max(scene.tolerance.expected_depth, storage)
    alone, _, _ = scene.render(render_mode="ED", packed=False)
    torch.testing.assert_close(alone[..., 0], image[..., 3], rtol=1e-5, atol=1e-5)
    accumulated, _, _ = scene.render(render_mode="D", packed=False)
    error = np.abs(as_array(accumulated)[0] - scene.golden("depth_acc"))
    assert error[scene.golden("safe")].max() < max(scene.tolerance.expected_depth, 4 * storage)


def check_gradients(scene: Scene, *, packed: bool) -> None:
    safe = torch.from_numpy(scene.golden("safe")).to(scene.tolerance.device)
    image, alpha, meta = scene.render(render_mode="RGB+ED", packed=packed, absgrad=True)
    meta["means2d"].retain_grad()
    weights = {k: scene.tensor(f"{scene.source}.w_{k}") for k in ("rgb", "alpha", "depth")}
    loss = (weights["rgb"] * image[0, ..., :3])[safe].sum()
    loss = loss + (weights["alpha"] * alpha[0])[safe].sum()
    if scene.variant == "rgb_ed":
        deep = safe & (scene.tensor(f"{scene.source}.alpha")[..., 0] > 0.05)
        loss = loss + (weights["depth"] * image[0, ..., 3:])[deep].sum()
    loss.backward()
    golden_loss = float(scene.golden("loss"))
    assert loss.item() == pytest.approx(golden_loss, rel=scene.tolerance.gradient)
    for name in GRADIENTS:
        found = scene.inputs[name].grad
        key = "grad_sh" if (name, scene.variant) == ("colors", "sh3") else f"grad_{name}"
        golden = scene.golden(key)
        if name == "viewmat":
            found, golden = found[:3], golden[:3]
        assert relative_error(found, golden) < scene.tolerance.gradient, name
    rows = meta["gaussian_ids"].cpu().numpy() if packed else slice(None)
    for name, found in (("grad", meta["means2d"].grad), ("absgrad", meta["means2d"].absgrad)):
        golden = scene.golden(f"{name}_means2d")[rows]
        found = found if packed else found[0]
        assert relative_error(found, golden) < scene.tolerance.gradient, name


def check_projection(scene: Scene) -> None:
    _, _, meta = scene.render(packed=False)
    visible = scene.golden("visible")
    radii, golden = meta["radii"][0].cpu().numpy(), scene.golden("radii_opacity_aware")
    seen = (radii > 0).any(-1) & visible
    error = np.abs(as_array(meta["means2d"])[0] - scene.golden("means2d"))
    assert error[seen].max() < scene.tolerance.means2d_px
    np.testing.assert_allclose(
        as_array(meta["depths"])[0][seen], scene.golden("depths")[seen], 1e-5
    )
    error = np.abs(as_array(meta["conics"])[0] - scene.golden("conics"))[seen]
    assert (error <= 1e-3 * np.abs(scene.golden("conics")[seen]).max(-1, keepdims=True)).all()
    if scene.tolerance.device == "cuda":
        # CUDA culls by the box shrunk by opacity; the kit's visibility used the full one.
        golden = golden[seen]
        radii = radii[seen]
    difference = np.abs(radii.astype(int) - golden).max(-1)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.005


TOLERANCES = pytest.mark.parametrize("tolerance", [FLOAT64, FLOAT32], ids=["float64", "float32"])
ALL_VARIANTS = [
    ("a", ""),
    ("a", "antialiased"),
    ("a", "sh3"),
    ("a", "amax099"),
    ("empty", ""),
    ("b", ""),
    ("b", "amax099"),
]


def make_scene(
    request: pytest.FixtureRequest, name: str, variant: str, tolerance: Tolerance
) -> Scene:
    fixture = "all_splat_vectors" if name == "b" else "splat_vectors"
    vectors = request.getfixturevalue(fixture)
    if name == "empty":
        everywhere = np.ones_like(vectors["a.safe"])
        golden = {f"a.{key}": vectors[f"empty.{key}"] for key in ("rgb", "alpha")}
        vectors = vectors | golden | {"a.safe": everywhere}
    return Scene(vectors, name, variant, tolerance)


@TOLERANCES
@pytest.mark.parametrize(("name", "variant"), ALL_VARIANTS)
def test_images(
    request: pytest.FixtureRequest, name: str, variant: str, tolerance: Tolerance
) -> None:
    check_images(make_scene(request, name, variant, tolerance))


@TOLERANCES
@pytest.mark.parametrize(("name", "variant"), [("a", ""), ("a", "antialiased"), ("b", "")])
def test_depths(
    request: pytest.FixtureRequest, name: str, variant: str, tolerance: Tolerance
) -> None:
    check_depths(make_scene(request, name, variant, tolerance))


@TOLERANCES
@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
@pytest.mark.parametrize(
    ("name", "variant"),
    [("a", ""), ("a", "rgb_ed"), ("a", "antialiased"), ("a", "sh3"), ("b", ""), ("b", "rgb_ed")],
)
def test_gradients(
    request: pytest.FixtureRequest, name: str, variant: str, packed: bool, tolerance: Tolerance
) -> None:
    check_gradients(make_scene(request, name, variant, tolerance), packed=packed)


@TOLERANCES
@pytest.mark.parametrize("name", ["a", "b"])
def test_projection(request: pytest.FixtureRequest, name: str, tolerance: Tolerance) -> None:
    check_projection(make_scene(request, name, "", tolerance))


def test_no_splats_give_the_background_and_zero_gradients(
    splat_vectors: dict[str, np.ndarray],
) -> None:
    scene = Scene(splat_vectors, "empty")
    image, alpha, meta = scene.render(packed=False)
    (image.sum() + alpha.sum()).backward()
    assert meta["means2d"].shape == (1, 0, 2)
    assert scene.inputs["means"].grad.shape == (0, 3)
    assert (scene.inputs["viewmat"].grad == 0).all()
    pixels = float(image.shape[1] * image.shape[2])
    assert (scene.inputs["background"].grad == pixels).all()


@pytest.mark.gpu
@pytest.mark.parametrize("check", [check_images, check_depths, check_projection])
@pytest.mark.parametrize("variant", ["", "antialiased", "sh3"])
def test_gsplat_gives_the_same_pictures(
    splat_vectors: dict[str, np.ndarray], check: Any, variant: str
) -> None:
    require_gsplat()
    if variant == "sh3" and check is check_depths:
        pytest.skip("the kit has no depth vectors of its own for the SH variant")
    check(Scene(splat_vectors, "a", variant, CUDA))


@pytest.mark.gpu
@pytest.mark.parametrize("variant", ["", "rgb_ed", "antialiased", "sh3"])
def test_gsplat_gives_the_same_gradients(
    splat_vectors: dict[str, np.ndarray], variant: str
) -> None:
    require_gsplat()
    check_gradients(Scene(splat_vectors, "a", variant, CUDA), packed=False)


def require_gsplat() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    pytest.importorskip("gsplat", reason="gsplat is not installed")
