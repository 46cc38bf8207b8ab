"""Frames per second of an animated avatar on one CUDA card, mesh and binding included.

Every frame poses the mesh with other parameters, binds the splats to it and draws 512² pixels.
Needs CUDA and gsplat (``pip install 'fc4d-ray[gpu]'``); without them it says so and ends with
status 2.

    python benchmarks/render_gpu.py                          # a synthetic head, 50k to 200k splats
    python benchmarks/render_gpu.py --avatar OUT/…/publish   # one of yours
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from coin_step import Ellipsoid, make_splats
from quality_tables import markdown_table
from torch import Tensor
from train_gpu import why_not

from fc4d_ray.avatar.avatar import Avatar
from fc4d_ray.avatar.binding import face_frames, local_to_world
from fc4d_ray.avatar.gaussians import Gaussians
from fc4d_ray.avatar.splatting import render_splats
from fc4d_ray.cameras import Camera, orbit_camera
from fc4d_ray.heads.protocol import PosableMesh

_WARM_UP = 20


class Player:
    """An avatar on the card, drawn frame by frame."""

    def __init__(self, mesh: PosableMesh, gaussians: Gaussians, n_poses: int) -> None:
        self._mesh = mesh
        self._gaussians = gaussians.to("cuda")
        self._faces = torch.as_tensor(mesh.faces).long().cuda()
        generator = torch.Generator().manual_seed(0)
        self._poses = {
            name: 0.1 * torch.rand(n_poses, width, generator=generator)
            for name, width in mesh.parameter_sizes.items()
        }
        self._n_poses = n_poses

    @torch.no_grad()
    def draw(self, frame: int, camera: Camera) -> Tensor:
        """(H, W, 3) on white."""
        row = frame % self._n_poses
        pose = {name: rows[row : row + 1] for name, rows in self._poses.items()}
        vertices = self._mesh.pose(pose)[0].cuda()
        frames = face_frames(vertices, self._faces).gather(self._gaussians.binding)
        splats = local_to_world(self._gaussians, frames)
        return render_splats(splats, camera, splats.means.new_ones(3)).image


def frames_per_s(player: Player, camera: Camera, n_frames: int) -> float:
    """The card is waited for at both ends only, as a player would."""
    for frame in range(_WARM_UP):
        player.draw(frame, camera)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for frame in range(n_frames):
        player.draw(frame, camera)
    torch.cuda.synchronize()
    return n_frames / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--avatar", type=Path, help="folder with rig.npz")
    parser.add_argument("--splats", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--frames", type=int, default=500)
    arguments = parser.parse_args()
    if (reason := why_not()) is not None:
        print(reason, file=sys.stderr)
        raise SystemExit(2)
    camera = orbit_camera(15, size=arguments.size)
    if arguments.avatar is not None:
        avatar = Avatar.load(arguments.avatar)
        players = [(avatar.rig, avatar.gaussians)]
    else:
        mesh = Ellipsoid()
        players = [(mesh, make_splats(mesh, n)) for n in arguments.splats]
    lines = []
    for mesh, gaussians in players:
        speed = frames_per_s(Player(mesh, gaussians, 100), camera, arguments.frames)
        lines.append([f"{len(gaussians):,}", f"{speed:.0f}"])
    print(f"{torch.cuda.get_device_name()}, {arguments.size}², torch {torch.__version__}\n")
    print(markdown_table(["splats", "frames/s"], lines))


if __name__ == "__main__":
    main()
