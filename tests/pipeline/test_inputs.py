"""From INPUTS to rows with ids."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fc4d_ray.config import RunSettings
from fc4d_ray.errors import ConfigError
from fc4d_ray.pipeline import identification, listing
from fc4d_ray.pipeline.backlog import find_backlog
from fc4d_ray.pipeline.identification import Identity, Source, identify_by, identify_here
from fc4d_ray.pipeline.inputs import Inputs, collect_inputs, identify_again
from fc4d_ray.store.digests import digest_bytes
from fc4d_ray.store.filesystem import Storage


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """600 portraits in folders, two of them the same picture; hidden ones do not count."""
    folder = tmp_path / "people"
    for number in range(600):
        path = folder / f"{number % 3}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"portrait %d" % max(1, number))
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.png").touch()
    (folder / "notes.txt").touch()
    return folder


def column(inputs: Inputs, name: str) -> list[str | None]:
    return inputs.own(name).to_pylist()


def forbidden(portions: Iterable[list[Source]]) -> Iterator[list[Identity]]:
    for portion in portions:
        raise AssertionError(f"these were read again: {portion}")
    return iter(())


def test_every_row_keeps_its_own_id_over_all_portions(people: Path) -> None:
    inputs = collect_inputs([str(people)])
    uris = column(inputs, "source_uri")
    assert uris == sorted(str(p) for p in people.glob("[0-9]/*.png"))
    assert column(inputs, "avatar_id") == [digest_bytes(Path(str(u)).read_bytes()) for u in uris]
    assert len(inputs.first_positions()) == 599, "a repeated picture is one avatar"


def test_unchanged_sources_are_not_read_again(
    people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = collect_inputs([str(people)])
    changed = people / "0" / "0003.png"
    changed.write_bytes(b"another person")
    added = people / "1" / "9999.png"
    added.write_bytes(b"new")
    read: list[str] = []
    original = identification.digest_source
    monkeypatch.setattr(
        identification, "digest_source", lambda uri: read.append(uri) or original(uri)
    )
    second = collect_inputs([str(people)], earlier=[first.table])
    assert sorted(read) == sorted([str(changed), str(added)])
    monkeypatch.undo()
    assert column(second, "avatar_id") == column(collect_inputs([str(people)]), "avatar_id")


def test_an_annotation_that_is_new_makes_a_new_id(people: Path, tmp_path: Path) -> None:
    uri = str(people / "0" / "0000.png")
    boxes = [[[0.0, 0.0, 5.0, 5.0]], [None], [[1.0, 0.0, 5.0, 5.0]]]
    ids = []
    earlier: list[pa.Table] = []
    for number, box in enumerate(boxes):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"uri": [uri], "face_box": box}), path)
        inputs = collect_inputs([str(path)], earlier=earlier)
        earlier.insert(0, inputs.table)
        ids += column(inputs, "avatar_id")
    assert len(set(ids)) == 3
    assert column(identify_again(earlier[-1], earlier=earlier), "avatar_id") == ids[:1]


def test_columns_of_an_earlier_table_stay_with_their_portraits(
    people: Path, tmp_path: Path
) -> None:
    folder = people / "0"
    names = sorted(path.name for path in folder.iterdir())[:4]
    table = pa.table(
        {
            "uri": [f"people/0/{name}" for name in names],
            "licence": ["CC0", "CC-BY", None, "CC0"],
            "face_box": ["[0,0,9,9]", None, None, None],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first = collect_inputs([str(tmp_path / "a.parquet")])
    bare = collect_inputs([str(folder / name) for name in names], earlier=[first.table])
    assert bare.table["licence"].to_pylist() == ["CC0", "CC-BY", None, "CC0"]
    assert "face_box" not in bare.table.column_names
    assert column(bare, "avatar_id")[0] != column(first, "avatar_id")[0], "no box, another avatar"
    assert column(bare, "columns_digest") == column(first, "columns_digest")

    newer = table.select(["uri"]).append_column("licence", [["MIT", None, "MIT", "MIT"]])
    pq.write_table(newer.append_column("year", [[1, 2, 3, 4]]), tmp_path / "b.parquet")
    second = collect_inputs([str(tmp_path / "b.parquet")], earlier=[bare.table, first.table])
    assert second.table["licence"].to_pylist() == ["MIT", None, "MIT", "MIT"]
    third = collect_inputs([str(folder)], earlier=[second.table, bare.table, first.table])
    assert third.table["year"].to_pylist()[:5] == [1, 2, 3, 4, None]
    assert third.table["licence"].to_pylist()[:5] == ["MIT", None, "MIT", "MIT", None]


def test_a_remote_prefix_is_listed_with_all_its_folders_and_read_once() -> None:
    filesystem = fsspec.filesystem("memory")
    root = f"/inputs-{uuid.uuid4().hex}"
    for number in range(30):
        filesystem.pipe(f"{root}/{number % 3}/deep/{number % 5}/{number:02d}.png", b"%d" % number)
    filesystem.pipe(f"{root}/top.jpg", b"top")
    filesystem.pipe(f"{root}/readme.txt", b"no picture")
    first = collect_inputs([f"memory:/{root}"])
    assert len(first) == 31 and len(set(column(first, "avatar_id"))) == 31
    assert None not in column(first, "fingerprint")
    assert column(first, "source_uri") == sorted(map(str, column(first, "source_uri")))
    identify = identify_again(first.table, earlier=[first.table], cluster=forbidden)
    assert column(identify, "avatar_id") == column(first, "avatar_id")
    with pytest.raises(ConfigError, match="cannot list|no images"):
        collect_inputs([f"memory:/{root}/nothing"])


def test_tables_of_remote_addresses_get_fingerprints_from_one_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem = fsspec.filesystem("memory")
    root = f"/inputs-{uuid.uuid4().hex}"
    uris = [f"memory:/{root}/{number:03d}.png" for number in range(70)]
    for uri in uris:
        filesystem.pipe(uri, uri.encode())
    pq.write_table(pa.table({"uri": [*uris, f"memory:/{root}/gone.png"]}), tmp_path / "t.parquet")
    asked: list[str] = []
    monkeypatch.setattr(
        type(filesystem), "info", lambda self, path, **_: asked.append(path) or {}, raising=True
    )
    assert None not in listing.fingerprints(uris)
    assert asked == []
    monkeypatch.undo()
    inputs = collect_inputs([str(tmp_path / "t.parquet")])
    assert column(inputs, "error_type") == [None] * 70 + ["UnreadableSource"]


def test_many_unknown_sources_are_given_to_the_cluster(
    people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fc4d_ray.pipeline.inputs.SPREAD_FROM", 500)
    portions: list[int] = []

    def cluster(work: Iterable[list[Source]]) -> Iterator[list[Identity]]:
        for portion in work:
            portions.append(len(portion))
            yield from identify_here([portion])

    spread = collect_inputs([str(people)], cluster=cluster)
    assert sum(portions) == 600 and max(portions) <= identification.PORTION
    assert spread.table.equals(collect_inputs([str(people)]).table)


def test_a_joined_cluster_reads_what_is_new(
    people: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: None
) -> None:
    monkeypatch.setattr("fc4d_ray.pipeline.inputs.SPREAD_FROM", 500)
    assert identify_by(RunSettings()) is None
    assert identify_by(RunSettings(runner="local", ray_address="auto")) is None
    cluster = identify_by(RunSettings(ray_address="auto"))
    spread = collect_inputs([str(people)], cluster=cluster)
    assert spread.table.equals(collect_inputs([str(people)]).table)


def test_csv_columns_take_their_type_from_all_values(tmp_path: Path) -> None:
    padding = "x" * 10_000
    lines = [f"{number}.png,{number},{padding}" for number in range(300)]
    text = "\n".join(["uri,code,padding", *lines, "last.png,A7,"])
    (tmp_path / "t.csv").write_text(text)
    (tmp_path / "last.png").write_bytes(b"x")
    inputs = collect_inputs([str(tmp_path / "t.csv")])
    assert inputs.table["code"].to_pylist()[-1] == "A7"
    assert column(inputs, "source_uri")[-1] == str(tmp_path / "last.png")
    assert column(inputs, "error_type")[:2] == ["UnreadableSource", "UnreadableSource"]


def test_names_that_look_like_paths_reach_no_path(people: Path, tmp_path: Path) -> None:
    """Ids and columns of the user's never become part of an address below the output."""
    table = pa.table(
        {
            "uri": [str(people / "0" / "0000.png")],
            "avatar_id": ["../../escape"],
            "../../column": ["/etc/passwd"],
            "stage": ["../train"],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    inputs = collect_inputs([str(tmp_path / "t.parquet")])
    backlog = find_backlog(Storage(str(tmp_path / "out")), inputs, "0" * 32)
    portrait = backlog.left[0]
    assert portrait.avatar_id == digest_bytes(b"portrait 1")
    assert portrait.columns["avatar_id"] == "../../escape"
    assert next(iter(backlog.left)) == portrait and len(backlog.left[:0]) == 0
    reserved = pa.table({"uri": ["x.png"], "fc4d:avatar_id": ["../../escape"]})
    pq.write_table(reserved, tmp_path / "r.parquet")
    with pytest.raises(ConfigError, match="reserved"):
        collect_inputs([str(tmp_path / "r.parquet")])


@pytest.mark.parametrize(
    ("name", "content"), [("t.parquet", b"PAR1 nonsense"), ("t.csv", b""), ("u.parquet", None)]
)
def test_tables_that_cannot_be_read_are_usage_errors(
    name: str, content: bytes | None, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match="cannot read the input table"):
        collect_inputs([str(tmp_path / name)])


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    folder = tmp_path / "loop"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"a")
    os.symlink(folder, folder / "again")
    assert len(collect_inputs([str(folder)])) == 1
