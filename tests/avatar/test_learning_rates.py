from __future__ import annotations

import numpy as np
import pytest

from fc4d_ray.avatar.learning_rates import LearningRateConfig, log_linear
from fc4d_ray.errors import ConfigError


def test_parity_of_the_position_schedule(kit):
    rates = [log_linear(int(i), 5e-3, 5e-5, 600_000) for i in kit["lr.iter"]]
    np.testing.assert_allclose(rates, kit["lr.value"], rtol=1e-10)


def test_no_steps_means_the_final_rate():
    assert log_linear(0, 1.0, 0.1, 0) == pytest.approx(0.1)


def test_unusable_rates_are_refused():
    with pytest.raises(ConfigError, match=r"rates\.position must"):
        LearningRateConfig(position=0)
    with pytest.raises(ConfigError, match=r"rates\.opacity"):
        LearningRateConfig(opacity=-1)
