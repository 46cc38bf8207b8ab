from __future__ import annotations

import json
from pathlib import Path

from fc4d_ray import doctor


def test_this_machine_runs_the_embedded_profile(tmp_path: Path) -> None:
    diagnosis = doctor.diagnose(tmp_path, tmp_path)
    assert diagnosis.can_run("embedded"), diagnosis.obstacles["embedded"]
    topics = {finding.topic for finding in diagnosis.findings}
    assert {"python", "memory", "disk", "torch", "gpu", "ffmpeg", "ray", "head model"} <= topics
    report = json.loads(json.dumps(diagnosis.to_json()))
    assert report["profiles"]["embedded"] == {"runs": True, "obstacles": []}


def test_paper_profile_names_what_is_missing(tmp_path: Path) -> None:
    diagnosis = doctor.diagnose(tmp_path, tmp_path)
    assert not diagnosis.can_run("paper")
    obstacles = "\n".join(diagnosis.obstacles["paper"])
    assert "panohead: get it from" in obstacles
    assert "flame2020 (or flame2023, flame2023-open)" in obstacles
    assert obstacles.count("flame2023-open") == 1, "alternatives are told once"
    assert "liveportrait" in obstacles
    assert "cosmicman-sdxl" not in obstacles
