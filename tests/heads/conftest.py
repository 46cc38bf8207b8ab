from __future__ import annotations

import pytest

from fc4d_ray.heads.anny import AnnyHead, load_anny_head


@pytest.fixture(scope="session")
def head() -> AnnyHead:
    """The compact head model; the first run on a machine builds it."""
    return load_anny_head()
