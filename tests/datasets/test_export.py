from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fc4d_ray.datasets.export import export_dataset
from fc4d_ray.errors import ConfigError, StoreError


@pytest.fixture
def table(tmp_path: Path) -> pa.Table:
    rows = []
    for i in range(5):
        folder = tmp_path / "run" / f"avatar{i}"
        folder.mkdir(parents=True)
        for name in ("preview.png", "reference.png", "rig.npz", "avatar.ply"):
            (folder / name).write_bytes(f"{name} {i}".encode())
        rows.append(
            {
                "avatar_id": f"id{i}",
                "status": "failed" if i == 4 else "succeeded",
                "avatar_uri": str(folder),
                "config_digest": "c0ffee",
                "id_distance_0": 0.1 * i if i else None,
                "warnings": ["dark"] if i == 1 else [],
                "licence": "CC0" if i < 3 else None,
            }
        )
    return pa.Table.from_pylist(rows)


def test_webdataset_shards_hold_every_file(table: pa.Table, tmp_path: Path) -> None:
    out = tmp_path / "wds"
    found = export_dataset(table, str(out), "webdataset", name="Heads", shard_rows=3)
    assert found.rows == 4 and found.shards == ("shard-000000.tar", "shard-000001.tar")
    with tarfile.open(out / "shard-000001.tar") as archive:
        assert sorted(archive.getnames()) == [
            "id3.avatar.ply", "id3.json", "id3.preview.png", "id3.reference.png", "id3.rig.npz",
        ]  # fmt: skip
        assert archive.extractfile("id3.rig.npz").read() == b"rig.npz 3"
        assert json.load(archive.extractfile("id3.json"))["config_digest"] == "c0ffee"
    first = (out / "shard-000000.tar").read_bytes()
    export_dataset(table, str(tmp_path / "again"), "webdataset", name="Heads", shard_rows=3)
    assert (tmp_path / "again" / "shard-000000.tar").read_bytes() == first


def test_hugging_face_folder(table: pa.Table, tmp_path: Path) -> None:
    found = export_dataset(table, str(tmp_path / "hf"), "huggingface", name="Heads", shard_rows=3)
    assert found.shards == (
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
    )
    shard = pq.ParquetFile(tmp_path / "hf" / found.shards[0]).read()
    assert shard["preview"][1].as_py() == {"bytes": b"preview.png 1", "path": "preview.png"}
    assert shard["rig_npz"][2].as_py() == b"rig.npz 2"
    features = json.loads(shard.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["preview"] == {"_type": "Image"}
    assert features["id_distance_0"] == {"dtype": "float64", "_type": "Value"}
    assert features["warnings"]["_type"] == "List"


def test_the_datasets_library_reads_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("preview.png", "reference.png"):
        buffer = io.BytesIO()
        Image.new("RGB", (4, 3), (9, 8, 7)).save(buffer, "PNG")
        (folder / name).write_bytes(buffer.getvalue())
    for name in ("rig.npz", "avatar.ply"):
        (folder / name).write_bytes(b"x")
    row = {"avatar_id": "a", "status": "succeeded", "avatar_uri": str(folder), "warnings": ["w"]}
    export_dataset(pa.Table.from_pylist([row]), str(tmp_path / "hf"), "huggingface", name="One")
    loaded = datasets.load_dataset(
        str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded[0]["preview"].size == (4, 3) and loaded[0]["warnings"] == ["w"]


def test_the_card_carries_licences_counts_and_configuration(table, tmp_path: Path) -> None:
    out = tmp_path / "hf"
    export_dataset(table, str(out), "huggingface", name="Heads", condition="id_distance_0 < 1")
    text = (out / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["license"] == "other" and header["size_categories"] == ["n<1K"]
    assert "| CC0 | 3 |" in text and "| not stated | 1 |" in text
    assert "clear the rights" in text.replace("\n", " ")
    assert "configuration c0ffee: 4 avatars" in text and "`id_distance_0 < 1`" in text
    assert "| id_distance_0 | 0.200 | 3 |" in text


def test_missing_files_are_listed_and_bad_requests_refused(table, tmp_path: Path) -> None:
    (tmp_path / "run" / "avatar2" / "avatar.ply").unlink()
    found = export_dataset(table, str(tmp_path / "wds"), "webdataset", name="Heads")
    assert [Path(name).parts[-2:] for name in found.missing] == [("avatar2", "avatar.ply")]
    with pytest.raises(StoreError, match="not empty"):
        export_dataset(table, str(tmp_path / "wds"), "webdataset", name="Heads")
    with pytest.raises(ConfigError, match="no finished avatar"):
        export_dataset(table.slice(4), str(tmp_path / "x"), "webdataset", name="Heads")
    with pytest.raises(ConfigError, match="--format"):
        export_dataset(table, str(tmp_path / "x"), "zip", name="Heads")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--shard-rows"):
        export_dataset(table, str(tmp_path / "x"), "webdataset", name="Heads", shard_rows=0)
