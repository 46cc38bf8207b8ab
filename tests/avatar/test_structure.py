from __future__ import annotations

import pytest
import torch

from fc4d_ray.avatar.structure import gradient_pyramid, make_structure_loss
from fc4d_ray.errors import WeightsMissing


def picture(seed: int) -> torch.Tensor:
    noise = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    big = torch.nn.functional.interpolate(noise, size=72, mode="bicubic")
    return big[0].permute(1, 2, 0).contiguous()


def test_gradient_pyramid_sees_structure_and_not_constant_shifts():
    a, b = picture(0), picture(1)
    assert gradient_pyramid(a, a).item() == 0
    assert gradient_pyramid(a + 0.1, a).item() < 1e-4
    flat = gradient_pyramid(torch.full_like(a, 0.5), a).item()
    assert 0.6 < flat < 1.05
    assert gradient_pyramid(b, a) > gradient_pyramid(a.lerp(b, 0.3), a) > 0


def test_gradient_pyramid_tolerates_small_shifts_more_than_large_ones():
    a = picture(0)
    distances = [gradient_pyramid(a.roll(s, 1), a).item() for s in (1, 3, 8)]
    assert distances == sorted(distances)


def test_auto_takes_the_substitute_and_names_it():
    assert make_structure_loss("auto", None).name == "gradient_pyramid"
    assert make_structure_loss("gradient_pyramid", None).name == "gradient_pyramid"


def test_missing_backbone_is_an_error_that_says_what_to_do(tmp_path):
    for name in ("lpips_alex", "lpips_vgg"):
        with pytest.raises(WeightsMissing, match="lpips_backbone"):
            make_structure_loss(name, None)
    with pytest.raises(WeightsMissing, match="absent"):
        make_structure_loss("auto", str(tmp_path / "absent.pth"))


def test_lpips_runs_without_files_repeatably_and_with_gradients():
    image = picture(2).requires_grad_()
    first = make_structure_loss("lpips_random", None)
    value = first(image, picture(3))
    value.backward()
    assert value.item() > 0
    assert image.grad.abs().sum() > 0
    torch.rand(7)
    again = make_structure_loss("lpips_random", None)(image, picture(3))
    assert again.item() == value.item()


def test_backbone_file_in_torchvision_layout_is_read(tmp_path):
    from fc4d_ray.assets.torchvision_shim import ensure_torchvision_importable

    ensure_torchvision_importable()
    import torchvision

    torch.manual_seed(5)
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), tmp_path / "alex.pth")
    a, b = picture(2), picture(3)
    loss = make_structure_loss("auto", str(tmp_path / "alex.pth"))
    assert loss.name == "lpips_alex"
    same = make_structure_loss("lpips_alex", str(tmp_path / "alex.pth"))
    assert loss(a, b).item() == same(a, b).item() > 0
    assert loss(a, b).item() != make_structure_loss("lpips_random", None)(a, b).item()
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsMissing, match="not the backbone"):
        make_structure_loss("lpips_alex", str(tmp_path / "other.pth"))
