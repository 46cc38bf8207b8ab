from __future__ import annotations

import pyarrow as pa
import pytest

from fc4d_ray.datasets.selection import select_rows
from fc4d_ray.errors import ConfigError

TABLE = pa.table(
    {
        "n": [1, 2, 3, 4, 5],
        "id_distance_30": [0.2, 0.4, None, 0.6, 0.49],
        "silhouette_iou": [0.95, 0.85, 0.99, 0.97, 0.91],
        "licence": ["CC0", "CC-BY", "CC0", None, "secret"],
        "good": [True, False, True, True, None],
    }
)


@pytest.mark.parametrize(
    ("condition", "chosen"),
    [
        ("id_distance_30 < 0.5 and silhouette_iou > 0.9", [1, 5]),
        ("not id_distance_30 < 0.5", [4]),
        ("id_distance_30 is None", [3]),
        ("id_distance_30 is not None and n >= 4", [4, 5]),
        ("0.1 < id_distance_30 <= 0.4", [1, 2]),
        ("licence in ['CC0', 'CC-BY']", [1, 2, 3]),
        ("licence not in ('CC0',) or n == 3", [2, 3, 4, 5]),
        ("licence == 'CC0' or n == 2", [1, 2, 3]),
        ("good", [1, 3, 4]),
        ("1 - silhouette_iou < 0.05 and -n < -3", [4]),
        ("n * 2 + 1 == 7", [3]),
    ],
)
def test_conditions(condition: str, chosen: list[int]) -> None:
    assert select_rows(TABLE, condition)["n"].to_pylist() == chosen


@pytest.mark.parametrize(
    ("condition", "complaint"),
    [
        ("id_distance_3 < 1", "did you mean 'id_distance_30'"),
        ("n <", "is no condition"),
        ("__import__('os').system('true')", "not understood"),
        ("n.__class__ == 1", "not understood"),
        ("[n for n in (1, 2)]", "not understood"),
        ("n ** 2 > 1", "not understood"),
        ("n is 1", "not understood"),
        ("licence < 3", "does not fit the columns' types"),
        ("n", "does not fit the columns' types"),
        ("", "is no condition"),
    ],
)
def test_mistakes_are_told_and_nothing_is_executed(condition: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        select_rows(TABLE, condition)
