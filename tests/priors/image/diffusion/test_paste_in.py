from __future__ import annotations

import pytest
import torch

from fc4d_ray.priors.image.diffusion.paste_in import background_cells, latent_mask, paste


def test_pasting_everything_returns_the_warped_latents_bit_by_bit() -> None:
    warped, latents = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    mask = latent_mask(torch.ones(2, 64, 64, dtype=torch.bool), 8)
    assert torch.equal(mask, torch.ones(2, 1, 8, 8))
    assert torch.equal(paste(latents, warped, mask), warped)


def test_pasting_nothing_changes_nothing() -> None:
    latents = torch.randn(2, 4, 8, 8)
    mask = latent_mask(torch.zeros(2, 64, 64, dtype=torch.bool), 8)
    warped = torch.full_like(latents, torch.nan)
    assert torch.equal(paste(latents, warped, mask), latents)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.05, 1.0, 8.0])
def test_no_cell_with_a_hole_is_ever_marked(seed, share) -> None:
    trusted = torch.rand(1, 48, 48, generator=torch.Generator().manual_seed(seed)) > share / 64
    mask = latent_mask(trusted, 8)
    whole = trusted.reshape(6, 8, 6, 8).all(3).all(1)
    assert (mask[0, 0][~whole] == 0).all()
    assert (mask[0, 0][whole] > 0).all()
    assert mask.max() <= 1


def test_the_mask_fades_inwards_and_a_lower_share_forgives_small_holes() -> None:
    trusted = torch.zeros(1, 64, 64, dtype=torch.bool)
    trusted[:, 16:64, 16:64] = True
    mask = latent_mask(trusted, 8)[0, 0]
    assert mask[2, 2] == 4 / 9 and mask[2, 4] == 6 / 9 and mask[4, 4] == 1
    assert mask[1].sum() == 0
    trusted[0, 32, 32] = False
    assert latent_mask(trusted, 8)[0, 0, 4, 4] == 0
    assert latent_mask(trusted, 8, 0.9)[0, 0, 4, 4] == 1


def test_background_is_held_where_nothing_is_near() -> None:
    alpha = torch.zeros(1, 64, 64)
    alpha[0, 30, 30] = 1
    cells = background_cells(alpha, 8, margin_px=8)[0, 0]
    rows = sorted({int(r) for r in (cells == 0).nonzero()[:, 0]})
    assert rows == [2, 3, 4]
    assert background_cells(torch.zeros(1, 64, 64), 8, 8).min() == 1
