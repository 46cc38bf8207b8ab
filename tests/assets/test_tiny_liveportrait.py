from __future__ import annotations

from pathlib import Path

import torch

from fc4d_ray.assets.tiny_liveportrait import make_tiny_networks, write_tiny_liveportrait
from fc4d_ray.priors.video.liveportrait.checkpoint import RELEASED_FILES, read_networks


def test_written_files_are_read_strictly_and_repeatable(tmp_path: Path) -> None:
    files = write_tiny_liveportrait(tmp_path, seed=3)
    assert [str(path.relative_to(tmp_path)) for path in files] == list(RELEASED_FILES)
    networks = read_networks(files)
    again = make_tiny_networks(3)
    for name, network in zip(again, networks.modules, strict=True):
        state = again[name].state_dict()
        assert all(torch.equal(state[k], v) for k, v in network.state_dict().items()), name
    other = make_tiny_networks(4)["motion_extractor"].state_dict()
    assert not torch.equal(
        other["detector.fc_exp.weight"], networks.motion.state_dict()["detector.fc_exp.weight"]
    )
    assert sum(path.stat().st_size for path in files) < 3_000_000


def test_the_random_state_of_the_caller_is_left_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    make_tiny_networks(1)
    assert torch.equal(torch.rand(3), expected)
