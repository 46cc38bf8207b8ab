from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """Imports a module that lies beside the benchmarks."""

    def load_module(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module(name)

    return load_module


@pytest.fixture
def row() -> dict:
    views = dict.fromkeys(("+0", "+30", "-30"), 0.25)
    half = {"right": 0.5, "left": 0.5, "mean": 0.5}
    blinks = {"+0": half, "+30": half, "-30": None}
    return {
        "name": "someone",
        "matte_confidence": None,
        "summary": {
            "portrait_has_face": True, "azimuth_deg": -3.4, "id_0": 0.351, "id_30": 0.4,
            "id_45": 0.5, "id_60": None, "id_own": 0.1, "faces_behind": 0, "silhouette_iou": 0.97,
            "whole": 0.9989, "whole_azimuth_deg": 45.0, "lips": 0.25, "blink": None,
            "smile": 0.25, "focal": 0.01, "peak_memory_gib": 1.6,
        },
        "figures": {
            "expressions": {"lip_growth": views, "blink_fall": blinks, "smile_distance": views},
            "focal_length": {"distances": {"0.5": 0.2, "1": 0.21, "2": None}, "spread": 0.01},
        },
        "costs": {"seconds": {"ingest": 9.2, "train": 120.4}, "seconds_total": 129.6},
        "truth": {
            "views": {"+0": {key: {"psnr": 20.0, "ssim": 0.8} for key in ("head", "shared")}},
            "surface_error_mm": 1.0, "mean_head_error_mm": 1.5,
            "measured": {
                "identity": {"id_distance_0": 0.125, "id_distance_30": 0.2, "id_distance_45": None},
                "expressions": {"lip_growth": views, "blink_fall": blinks, "smile_distance": views},
                "turned": {"+40": 0.31, "-40": None},
            },
        },
    }  # fmt: skip


def test_tables_mark_what_is_missed_and_what_is_missing(load, row: dict) -> None:
    results = {"portraits": [row], "synthetic": [], "failed": [{"name": "alpaca", "reason": "no"}]}
    text = load("quality_tables").quality_markdown(results)
    likeness, motion, cost = (line for line in text.splitlines() if line.startswith("| someone"))
    assert "0.351 ✗" in likeness
    assert "missed: identity 0°, eyes shut" in likeness
    assert "99.89%" in likeness
    assert "50%, 50%, – ✗" in motion
    assert "| 9 | – | – | – | – | 120 | – | 130 | 1.60 |" in cost
    assert "- alpaca: no" in text


def test_truth_is_averaged_over_people(load, row: dict) -> None:
    other = row | {"truth": {
        "views": {"+0": {
            "head": {"psnr": 24.0, "ssim": 0.9}, "shared": {"psnr": 28.0, "ssim": 1.0},
        }},
        "surface_error_mm": 2.0, "mean_head_error_mm": 2.5,
    }}  # fmt: skip
    *_, mean, shared = load("quality_tables").truth_table([row, other]).splitlines()
    assert mean == "| **mean** | 22.0 / 0.850 | 1.50 mm | 2.00 mm |"
    assert shared == "| **mean, where both show it** | 24.0 / 0.900 |  |  |"


def test_every_line_of_a_table_has_as_many_cells(load, row: dict) -> None:
    tables = load("quality_tables")
    for table in (
        tables.identity_table, tables.motion_table, tables.cost_table, tables.ceiling_table,
        tables.truth_table,
    ):  # fmt: skip
        assert len({line.count("|") for line in table([row]).splitlines()}) == 1


def test_people_have_no_verdict(load, row: dict) -> None:
    text = load("quality_tables").ceiling_table([row])
    assert "| someone | 0.125 | 0.200 | – | 0.310, – |" in text
    assert "✗" not in text and "50%, 50%, –" in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "name an output"),
        (["--synthetic", "2"], "need --work"),
        (["somewhere", "--out", "table.txt"], "Markdown"),
    ],
)
def test_unusable_arguments_are_refused(
    load, monkeypatch, capsys, arguments: list[str], complaint: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["embedded_quality.py", *arguments])
    with pytest.raises(SystemExit) as end:
        load("embedded_quality").main()
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


def test_flaws_leave_the_middle_of_a_view_recognisable(load) -> None:
    import numpy as np

    ablation = load("coin_ablation")
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[16:48, 16:48] = (120, 90, 60, 255)
    flaw = ablation.Flaw.random(64, np.random.default_rng(0))
    wrong = flaw.apply(picture)
    assert abs(int((wrong[..., 3] > 127).sum()) - 32 * 32) < 32 * 8
    difference = (wrong[20:44, 20:44, :3].astype(float) - picture[20:44, 20:44, :3]) / 255
    assert 0.01 < np.abs(difference).mean() < 0.3
    np.testing.assert_array_equal(flaw.apply(picture), wrong)
