from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest

from fc4d_ray.pipeline.report import CARDS_AT_MOST, format_duration, render_report
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.manifest_schema import manifest_schema


class _Links(HTMLParser):
    """Collects what the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.cards = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.cards += tag == "article"
        self.targets += [value or "" for name, value in attrs if name in ("href", "src")]


def page(root: Path, **changes: object) -> tuple[str, _Links]:
    row = {
        "avatar_id": "ab12",
        "source_uri": "/photos/ann.png",
        "status": "succeeded",
        "avatar_uri": f"{root}/avatars/ab/ab12/publish/attempt-1",
        "n_splats": 12345,
        "id_distance_0": 0.25,
        "seconds_total": 75.0,
        "seconds_train": 60.0,
        "seconds_shape": 15.0,
        "warnings": [],
    }
    table = pa.Table.from_pylist([row | changes], manifest_schema())
    text = render_report(Storage(str(root)), table)
    links = _Links()
    links.feed(text)
    return text, links


def test_everything_is_reached_by_relative_paths_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    text, links = page(tmp_path)
    folder = "avatars/ab/ab12/publish/attempt-1"
    assert f"{folder}/sheet.png" in links.targets and f"{folder}/avatar.ply" in links.targets
    assert all(target.startswith(folder) for target in links.targets)
    assert "http" not in text and "1 min 15 s" in text and "0.250" in text


def test_what_a_file_name_or_message_holds_is_only_text(tmp_path: Path) -> None:
    text, links = page(
        tmp_path,
        source_uri="/photos/<script>alert(1)</script>.png",
        status="failed",
        error_type="NoFaceFound",
        error_message="<img src=http://elsewhere>",
        failed_stage="ingest",
        avatar_uri=None,
    )
    assert "<script>alert" not in text and "<img src=http" not in text
    assert links.targets == [] and links.cards == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.04, "0.0 s"), (59.94, "59.9 s"), (74.2, "1 min 14 s"), (7384, "2 h 03 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_page_of_very_many_shows_failures_and_counts_all(tmp_path: Path) -> None:
    rows = [
        {"source_uri": f"/{n}.png", "status": "succeeded", "seconds_total": 2.0, "warnings": ["w"]}
        for n in range(5000)
    ]
    failure = {"source_uri": "/z.png", "status": "failed", "error_type": "NoFaceFound"}
    table = pa.Table.from_pylist([*rows, failure], manifest_schema())
    text = render_report(Storage(str(tmp_path)), table)
    assert text.count("<article") == CARDS_AT_MOST
    assert "z.png" in text and "<b>2000</b> of 5001" in text
    assert "<b>5001</b>" in text and "<b>5000</b><span>with warnings" in text


def test_a_thousand_cards_stay_cheap(tmp_path: Path) -> None:
    rows = [{"source_uri": f"/{n}.png", "status": "failed", "warnings": []} for n in range(1000)]
    table = pa.Table.from_pylist(rows, manifest_schema())
    text = render_report(Storage(str(tmp_path)), table)
    assert text.count("<article") == 1000
    assert len(text) < 2_000_000
