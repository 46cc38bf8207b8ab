from __future__ import annotations

import numpy as np
import pytest
import torch

from fc4d_ray.avatar import spherical_harmonics as sh


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_parity_of_colours(kit, degree):
    coefficients = torch.tensor(kit["sh.coeffs"])
    directions = torch.tensor(kit["sh.dirs"])
    colour = sh.evaluate(coefficients[:, 0], coefficients[:, 1:], directions, degree).clamp_min(0)
    expected = kit[f"sh.rgb_deg{degree}"]
    np.testing.assert_allclose(colour, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_parity_of_the_constant_term(kit):
    rgb, dc = (torch.tensor(row) for row in kit["sh.rgb2sh"])
    np.testing.assert_allclose(sh.rgb_to_dc(rgb), dc, rtol=1e-10)
    np.testing.assert_allclose(sh.dc_to_rgb(dc), rgb, atol=1e-12)


def test_counts_and_degrees_match():
    assert [sh.coefficient_count(d) for d in range(4)] == [1, 4, 9, 16]
    assert [sh.degree_of(n) for n in (1, 4, 9, 16)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="5 spherical"):
        sh.degree_of(5)
    with pytest.raises(ValueError, match="directions"):
        sh.evaluate(torch.zeros(1, 3), torch.zeros(1, 3, 3), None, 1)
