"""``fc4d filter`` and ``fc4d export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fc4d_ray.cli.console import exit_codes, notice, say

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN_MISSING = 10

Run = Annotated[str, typer.Argument(metavar="OUT", help="Output of fc4d run.")]
Where = Annotated[
    str | None,
    typer.Option(
        "--where", help='A condition on columns: "id_distance_30 < 0.5 and n_splats > 0".'
    ),
]
Scores = Annotated[
    str | None,
    typer.Option("--scores", help="per_subject.parquet of fc4d eval, whose columns join in."),
]


def filter_manifest(
    run: Run,
    where: Annotated[str, typer.Option("--where", help="A condition on the manifest's columns.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file for the chosen rows.")],
    scores: Scores = None,
) -> None:
    """Write a manifest of the avatars that meet a condition."""
    with exit_codes():
        from fc4d_ray.store.parquet import table_to_bytes

        everything, chosen = _chosen(run, where, scores)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(table_to_bytes(chosen))
    say(f"{chosen.num_rows} of {everything.num_rows} rows in {out}")


def export(
    run: Run,
    out: Annotated[str, typer.Option("--out", help="New folder or s3:// location.")],
    format: Annotated[str, typer.Option("--format", help="huggingface or webdataset.")],
    where: Where = None,
    scores: Scores = None,
    name: Annotated[str, typer.Option("--name", help="Title on the card.")] = "Head avatars",
    shard_rows: Annotated[int, typer.Option("--shard-rows", help="Avatars per shard.")] = 500,
) -> None:
    """Write the chosen avatars as a dataset with a card."""
    with exit_codes():
        from fc4d_ray.datasets.export import export_dataset

        _, chosen = _chosen(run, where, scores)
        found = export_dataset(
            chosen,
            out,
            format,
            name=name,
            condition=where,
            shard_rows=shard_rows,  # type: ignore[arg-type]
        )
    for path in found.missing[:_SHOWN_MISSING]:
        notice(f"missing: {path}")
    if len(found.missing) > _SHOWN_MISSING:
        notice(f"… {len(found.missing)} files missing in all")
    say(f"{found.rows} avatars in {len(found.shards)} shards in {out}")


def _chosen(run: str, where: str | None, scores: str | None) -> tuple[pa.Table, pa.Table]:
    """The manifest (with an evaluation's columns, where asked for) and its chosen rows."""
    from fc4d_ray.datasets.selection import select_rows
    from fc4d_ray.store.manifest import read_manifest

    table = read_manifest(run)
    if scores is not None:
        from fc4d_ray.datasets.scores import with_scores

        table = with_scores(table, Path(scores))
    return table, table if where is None else select_rows(table, where)
