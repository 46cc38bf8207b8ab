"""The planner, on clusters that exist on paper only."""

from __future__ import annotations

import itertools
import time

import pytest

from fc4d_ray.config import load_config
from fc4d_ray.errors import ConfigError
from fc4d_ray.pipeline.capacity import Capacity, plan_capacity, share_cores, training_slots
from fc4d_ray.pipeline.hardware import Gpu, Hardware, Node
from fc4d_ray.pipeline.makespan import SimulatedPool, makespan_s
from fc4d_ray.pipeline.needs import Needs, all_needs, front_groups, stage_costs
from fc4d_ray.pipeline.prospect import forecast_on_paper

WEEK = 10**6


def needs(name: str, seconds: float, gpus: float = 0.0, **more: object) -> Needs:
    values = {"cpus": 0.0 if gpus else 1.0, "memory_gib": 0.0} | more
    return Needs((name,), gpus, seconds=seconds, **values)  # type: ignore[arg-type]


FRONT = (needs("shape", 1, 0.1), needs("image", 5, 0.45), needs("video", 5, 0.45))
TRAIN = needs("train", 60, 0.25)


def cluster(*kinds: str | None, gpus_per_node: int = 1, cpus: float = 16) -> Hardware:
    return Hardware(tuple(Node(cpus, 64, (Gpu(kind),) * gpus_per_node) for kind in kinds))


def sizes(plan: Capacity) -> list[int]:
    return [pool.size for pool in plan.pools]


@pytest.mark.parametrize("gpus", [2, 4, 8, 64])
def test_a_long_run_loses_little_to_pools(gpus: int) -> None:
    plan = plan_capacity(cluster(*[None] * gpus), FRONT, TRAIN, WEEK)
    work = sum(n.gpus * n.seconds for n in (*FRONT, TRAIN))
    best_rate = gpus / work
    assert plan.bottleneck.needs.name in ("train", "image")
    assert plan.rate >= (0.6 if gpus == 2 else 0.95) * best_rate
    assert plan.rate <= best_rate


def test_no_device_is_promised_twice() -> None:
    """Whatever fits by the planner's word is packed here once more, in another way."""
    for gpus, portraits in itertools.product((2, 3, 8), (1, 20, WEEK)):
        plan = plan_capacity(cluster(*[None] * gpus), FRONT, TRAIN, portraits)
        shares = [pool.needs.gpus for pool in plan.pools for _ in range(pool.size)]
        assert sum(shares) <= gpus + 1e-9
        free = [1.0] * gpus
        for share in sorted(shares, reverse=True):
            place = next(n for n in range(gpus) if free[n] >= share - 1e-9)
            free[place] -= share
        assert all(pool.size <= portraits for pool in plan.pools)


def test_few_portraits_get_a_faster_front() -> None:
    hardware = cluster(*[None] * 8)
    few, many = (plan_capacity(hardware, FRONT, TRAIN, n) for n in (100, WEEK))
    assert sum(sizes(few)[:3]) > sum(sizes(many)[:3])
    assert few.seconds(100) < 0.9 * many.seconds(100)


def test_one_gpu_works_in_turns_where_not_all_fits_at_once() -> None:
    plan = plan_capacity(cluster(None), FRONT, TRAIN, WEEK)
    assert plan.takes_turns and sizes(plan) == [10, 2, 2, 4]
    assert plan.rate == pytest.approx(1 / (1 / 10 + 5 / 2 + 5 / 2 + 60 / 4))
    fits = [needs(n.name, n.seconds, 0.2) for n in FRONT]
    assert not plan_capacity(cluster(None), fits, TRAIN, WEEK).takes_turns


def test_what_fits_nowhere_is_refused_by_name() -> None:
    for bad, message in (
        (needs("image", 5, 0.5, cpus=64.0), "stage image: no machine here has 64 CPUs"),
        (needs("video", 5, 0.5, memory_gib=500.0), "stage video: .* 500 GiB of memory"),
        (needs("video", 5, 0.5, kinds=("H200",)), "0.5 of a GPU of H200"),
    ):
        with pytest.raises(ConfigError, match=message):
            plan_capacity(cluster("H100"), (bad,), TRAIN, 10)


def test_slots_follow_the_nodes() -> None:
    plan = plan_capacity(cluster(*[None] * 4), FRONT, TRAIN, WEEK)
    slots = [training_slots(cluster(*[None] * n), plan.front, TRAIN) for n in (1, 2, 4, 6)]
    assert slots == [0, 4, 12, 20]
    assert training_slots(cluster(*[None] * 4), (), TRAIN) == 16


def test_cpu_stages_stand_beside_the_gpus() -> None:
    front = (needs("ingest", 3), needs("shape", 30, 0.5))
    plan = plan_capacity(cluster("H100", "H100", cpus=8), front, needs("train", 100, 0.5), WEEK)
    assert sizes(plan) == [1, 1, 3]
    assert plan.gpu_seconds() == 65


def test_hundreds_of_gpus_are_planned_in_seconds() -> None:
    began = time.process_time()
    plan = plan_capacity(cluster(*[None] * 32, gpus_per_node=8, cpus=96), FRONT, TRAIN, WEEK)
    assert time.process_time() - began < 10
    assert plan.rate > 0.95 * 256 / 19.6


def test_cores_are_shared_in_proportion_to_the_work() -> None:
    hardware = Hardware((Node(2, 16),))
    plan = share_cores(hardware, (needs("ingest", 40),), needs("train", 80), (2, 2), 1)
    assert plan.rate == pytest.approx(2 / 120)


def test_makespans_by_hand() -> None:
    one = SimulatedPool(1, 5)
    assert makespan_s([one], None, 3) == 15
    assert makespan_s([one, one], None, 3) == 20
    assert makespan_s([one], SimulatedPool(1, 10), 3) == 35
    assert makespan_s([one], SimulatedPool(1, 10), 3, training_alone=9) == 30 - 5
    assert makespan_s([one], SimulatedPool(2, 10), 0) == 0


GPU_STAGES = [
    "run.stages.shape.gpus=0.2",
    "run.stages.image.gpu_memory_gib=30",
    "run.stages.train.gpu_memory_gib=12",
]


def test_heavy_stages_get_workers_of_their_own() -> None:
    config = load_config(None, GPU_STAGES)
    assert front_groups(config) == (("ingest",), ("shape",), ("image",), ("video", "track"))
    together = load_config(
        None, [*GPU_STAGES, "run.front_groups=[[ingest, shape, image], [video, track]]"]
    )
    hardware = cluster("A100-80G", "A100-80G")
    front, training = all_needs(together, hardware, stage_costs(together))
    assert [n.gpus for n in front] == [0.575, 0.0]
    assert training is not None and training.gpus == 0.15


def test_shares_follow_from_memory_and_leave_out_small_gpus() -> None:
    config = load_config(None, GPU_STAGES)
    hardware = cluster("A100", "A100", "L4", "T4")
    front, training = all_needs(config, hardware, stage_costs(config))
    image = front[2]
    assert (image.gpus, image.kinds) == (0.75, ("A100",))
    assert front[1].kinds is None, "a share without a memory says nothing about types"
    assert training is not None and training.kinds == ("A100",), "0.3 of an A100 beats 0.75 of a T4"
    plan = plan_capacity(hardware, front, training, WEEK)
    assert plan.bottleneck.needs.name == "train+publish"


@pytest.mark.parametrize(
    ("options", "gpus", "message"),
    [
        (["run.stages.train.gpu_memory_gib=30"], {"T4": 1}, "stage train needs 30 GiB .* 16 GiB"),
        (["run.stages.train.gpus=0.5"], {}, "stage train needs a GPU and the cluster has none"),
        (
            ["run.stages.shape.gpus=0.1", "run.stages.shape.gpu_memory_gib=10"],
            {"A100": 2},
            "run.stages.shape.gpus = 0.1 gives at most 4 GiB",
        ),
        (
            ["run.stages.shape.gpus=0.6", "run.stages.image.gpus=0.6",
             "run.front_groups=[[ingest, shape, image, video, track]]"],
            {"A100": 2},
            "ask for 1.2 GPUs together",
        ),
        (["run.front_groups=[[shape]]"], {}, "front_groups must hold the front stages"),
    ],
)  # fmt: skip
def test_impossible_configurations(options: list[str], gpus: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        forecast_on_paper(load_config(None, options), 10, gpus)


def test_unknown_memory_needs_a_word_about_the_share() -> None:
    config = load_config(None, ["run.stages.shape.gpu_memory_gib=8"])
    with pytest.raises(ConfigError, match="give run.stages.shape.gpus"):
        all_needs(config, cluster(None), stage_costs(config))


def test_a_forecast_names_cost_and_origin_of_its_times() -> None:
    options = ["run.stages.train.seconds=7200", "run.stages.train.gpus=0.25"]
    forecast = forecast_on_paper(
        load_config(None, options), 1000, {"H100": 8}, price_per_gpu_hour=2.0
    )
    text = "\n".join(forecast.lines())
    assert "8x H100" in text and "bottleneck train+publish" in text
    assert "train (estimate)" in text
    average = 3600 * 1000 / forecast.seconds
    assert f"rate        {average:.3g} portraits/h from start to end" in text
    paid = forecast.gpu_hours_paid
    assert f"{paid * 2:.2f} per avatar" in text
    assert paid * 1000 == pytest.approx(8 * forecast.seconds / 3600)
    assert paid >= forecast.gpu_hours_worked


def test_a_forecast_tells_what_trainings_take_over_from_the_front() -> None:
    forecast = forecast_on_paper(load_config("paper", []), 1000, {"H100": 16})
    assert "96 of them once the front is through" in "\n".join(forecast.lines())


def test_machines_on_paper_have_the_host_memory_of_their_kind() -> None:
    needs_much = ["run.stages.train.gpus=0.1", "run.stages.train.memory_gib=40"]
    slots = {}
    for kind in ("L4", "H100"):
        forecast = forecast_on_paper(load_config(None, needs_much), 10**6, {kind: 1})
        assert forecast.capacity.training is not None
        slots[kind] = forecast.capacity.training.size
    assert slots["L4"] == 1 < slots["H100"] == 5


def test_rays_nodes_become_machines() -> None:
    a100 = {"accelerator_type:A100": 1.0, "accelerator_type:A100-80G": 1.0}
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 2**36} | a100},
        {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"node:10.0.0.1": 1.0}},
        {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0, "accelerator_type:P4": 1.0}},
    ]  # fmt: skip
    found = Hardware.from_ray(nodes)
    assert found.describe() == "2 nodes, 12 CPUs, 2x A100-80G + 1x P4"
    assert [gpu.memory_gib for gpu in found.gpus] == [80, 80, None]
    assert found.nodes[0].memory_gib == 64
