"""The files of ``cluster/`` against Ray's own validator and KubeRay's definitions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
CLUSTER = REPOSITORY / "cluster"
SHARED = REPOSITORY.parent / "shared"
LAUNCHERS = ("aws.yaml", "gcp.yaml")


def launcher(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / name).read_text())


def validate(config: dict[str, Any]) -> None:
    """What ``ray up`` checks before it asks the provider for anything."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_ray_accepts_the_launcher_files(name: str) -> None:
    config = launcher(name)
    validate(config)
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert {t["labels"]["market"] for t in types.values()} == {"spot", "on-demand"}
    assert all(t["resources"]["GPU"] == 1 for n, t in types.items() if n != "head")
    workers = sum(node_type["max_workers"] for n, node_type in types.items() if n != "head")
    assert workers == config["max_workers"]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_validator_would_notice(name: str) -> None:
    broken = launcher(name)
    broken["available_node_types"]["gpu_spot"]["max_worker"] = 3
    with pytest.raises(Exception, match="max_worker"):
        validate(broken)


def test_only_the_spot_types_are_spot() -> None:
    aws = launcher("aws.yaml")["available_node_types"]
    spot = {name for name, t in aws.items() if "InstanceMarketOptions" in t["node_config"]}
    assert spot == {"gpu_spot"}
    gcp = launcher("gcp.yaml")["available_node_types"]
    spot = {
        name
        for name, node_type in gcp.items()
        if {"provisioningModel": "SPOT"} in node_type["node_config"].get("scheduling", [])
    }
    assert spot == {"gpu_spot"}


def kuberay_schema(kind: str) -> dict[str, Any]:
    path = SHARED / "kuberay" / f"ray.io_{kind}.yaml"
    if not path.exists():
        pytest.skip(f"KubeRay's definition {path.name} is not at hand")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    definition = yaml.load(path.read_text(), loader)
    (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
    return strict(version["schema"]["openAPIV3Schema"])


def strict(schema: Any) -> Any:
    """JSON schema of an OpenAPI one, which lets unknown names pass."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    is_open = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and not is_open:
        result["additionalProperties"] = False
    return result


def problems(document: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    schema = copy.deepcopy(schema)
    # Kubernetes itself defines what metadata may hold.
    schema["properties"]["metadata"] = {"type": "object"}
    errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return [f"{'/'.join(map(str, error.path))}: {error.message}" for error in errors]


def test_kuberay_accepts_the_job() -> None:
    schema = kuberay_schema("rayjobs")
    job = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())
    assert problems(job, schema) == []
    group = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    group["maxReplica"] = group.pop("maxReplicas")
    assert any("maxReplica" in problem for problem in problems(job, schema))


def containers(job: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    cluster = job["spec"]["rayClusterSpec"]
    yield "head", cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    for group in cluster["workerGroupSpecs"]:
        yield group["groupName"], group["template"]["spec"]["containers"][0]


def test_the_job_keeps_the_driver_alone_and_shared_memory_in_memory() -> None:
    job = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == head["rayStartParams"]["num-gpus"] == "0"
    for name, container in containers(job):
        assert "/dev/shm" in [mount["mountPath"] for mount in container["volumeMounts"]], name
        gpus = container["resources"]["limits"].get("nvidia.com/gpu")
        assert gpus == (None if name == "head" else "1")
    assert "jobs/generate.py" in job["spec"]["entrypoint"]


def test_the_files_name_one_version_of_ray() -> None:
    """Driver, head and workers must run the same one; the image decides it."""
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    job = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text())
    version = job["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"rayproject/ray:{version}-" in dockerfile
    constraints = (REPOSITORY / "constraints.txt").read_text()
    assert f"ray=={version}" in constraints.lower()


def test_the_image_holds_what_it_copies() -> None:
    lines = (CLUSTER / "Dockerfile").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY"):
            *sources, _ = [word for word in line.split()[1:] if not word.startswith("--")]
            assert all((REPOSITORY / source).exists() for source in sources), line
