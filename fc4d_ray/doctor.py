"""``fc4d doctor``: what this machine can run, found out without loading a model.

Every check answers with what was found and, where something is missing, with what to do.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fc4d_ray.assets.registry import assets_directory, missing_for

Verdict = Literal["ok", "missing", "note"]
PROFILES = ("embedded", "paper", "evaluation")
MEMORY_PER_WORKER_GIB = 4.0
PAPER_GPU_MEMORY_GIB = 16.0
EXTRA_MODULES: dict[str, tuple[str, ...]] = {
    "gpu": ("gsplat",),
    "paper": ("diffusers", "transformers", "accelerate", "insightface", "onnxruntime", "lpips"),
    "eval": ("cleanfid", "open_clip", "lpips", "insightface", "onnxruntime"),
    "viewer": ("viser",),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    topic: str
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """Findings, and per profile why it cannot run here (empty: it can)."""

    findings: tuple[Finding, ...]
    obstacles: dict[str, tuple[str, ...]]

    def can_run(self, profile: str) -> bool:
        return not self.obstacles[profile]

    def to_json(self) -> dict[str, Any]:
        return {
            "findings": [vars(finding) for finding in self.findings],
            "profiles": {
                profile: {"runs": not reasons, "obstacles": list(reasons)}
                for profile, reasons in self.obstacles.items()
            },
        }


def diagnose(assets: Path | None = None, workspace: Path | None = None) -> Diagnosis:
    """Look at this machine; takes a second or two, mostly the import of torch."""
    checks: tuple[Callable[[], Finding], ...] = (
        _check_python,
        _check_processors,
        _check_memory,
        lambda: _check_disk(workspace or Path.cwd()),
        _check_torch,
        _check_gpu,
        _check_ffmpeg,
        _check_ray,
        _check_head_cache,
    )
    findings = [check() for check in checks]
    findings += [_check_extra(extra, modules) for extra, modules in EXTRA_MODULES.items()]
    findings.append(Finding("user files", "note", f"looked for in {assets or assets_directory()}"))
    return Diagnosis(
        tuple(findings), {profile: _obstacles(profile, assets) for profile in PROFILES}
    )


def _obstacles(profile: str, assets: Path | None) -> tuple[str, ...]:
    reasons = []
    told: set[str] = set()
    for state in missing_for(profile, assets):
        others = state.asset.alternatives
        if told.isdisjoint(others):
            choice = f" (or {', '.join(others)})" if others else ""
            reasons.append(f"{state.asset.key}{choice}: get it from {state.asset.source}")
        told.add(state.asset.key)
    if profile == "embedded" and not _has_ffmpeg():
        reasons.append("no ffmpeg: pip install imageio-ffmpeg")
    if profile == "paper":
        reasons += _missing_extras("gpu", "paper")
        memory_gib = _gpu_memory_gib()
        if memory_gib < PAPER_GPU_MEMORY_GIB:
            reasons.append(f"no CUDA device with {PAPER_GPU_MEMORY_GIB:g} GiB")
    if profile == "evaluation":
        reasons += _missing_extras("eval")
    return tuple(reasons)


def _missing_extras(*extras: str) -> list[str]:
    return [
        f"extra [{extra}] is not installed: pip install 'fc4d-ray[{extra}]'"
        for extra in extras
        if _absent(EXTRA_MODULES[extra])
    ]


def _absent(modules: tuple[str, ...]) -> list[str]:
    return [name for name in modules if importlib.util.find_spec(name) is None]


def _check_python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")


def _check_processors() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("processors", "ok", f"{usable} usable cores")


def _check_memory() -> Finding:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return Finding("memory", "note", "size unknown on this system")
    size_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    workers = int(size_gib // MEMORY_PER_WORKER_GIB)
    verdict: Verdict = "ok" if workers else "missing"
    return Finding("memory", verdict, f"{size_gib:.1f} GiB: {workers} workers of 4 GiB at a time")


def _check_disk(workspace: Path) -> Finding:
    free_gib = shutil.disk_usage(workspace).free / 2**30
    verdict: Verdict = "ok" if free_gib > 5 else "missing"
    return Finding("disk", verdict, f"{free_gib:.0f} GiB free at {workspace}")


def _check_torch() -> Finding:
    import torch

    return Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _check_gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("gpu", "note", "no CUDA device: the embedded profile runs on the CPU")
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    names = ", ".join(f"{d.name} ({d.total_memory / 2**30:.0f} GiB)" for d in devices)
    return Finding("gpu", "ok", names)


def _gpu_memory_gib() -> float:
    import torch

    if not torch.cuda.is_available():
        return 0.0
    sizes = [
        torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())
    ]
    return max(sizes) / 2**30


def _has_ffmpeg() -> bool:
    import imageio_ffmpeg

    try:
        return bool(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        return False


def _check_ffmpeg() -> Finding:
    if _has_ffmpeg():
        import imageio_ffmpeg

        return Finding("ffmpeg", "ok", imageio_ffmpeg.get_ffmpeg_version())
    return Finding("ffmpeg", "missing", "no video can be written: pip install imageio-ffmpeg")


def _check_ray() -> Finding:
    try:
        return Finding("ray", "ok", importlib.metadata.version("ray"))
    except importlib.metadata.PackageNotFoundError:
        return Finding("ray", "missing", "pip install 'ray[data]', or use --runner local")


def _check_head_cache() -> Finding:
    from fc4d_ray.heads.anny import cache_path

    path = cache_path()
    if path.is_file():
        return Finding("head model", "ok", f"prepared: {path}")
    return Finding("head model", "note", f"built on first use (about a minute) into {path}")


def _check_extra(extra: str, modules: tuple[str, ...]) -> Finding:
    absent = _absent(modules)
    if not absent:
        return Finding(f"extra [{extra}]", "ok", "installed")
    return Finding(f"extra [{extra}]", "note", f"not installed ({', '.join(absent)})")
