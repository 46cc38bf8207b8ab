"""A Delta table that gets a row for every end while a run goes on, for those who query meanwhile.

The rows are the outcomes, each exactly once, identified by (``plan_digest``, ``rank``): a portrait
that failed, was retried and succeeded has two, and the one with the highest rank counts. Which ones
are missing is found out from the table itself, so that a killed driver leaves nothing out, and an
application transaction numbered after the one that was read keeps two drivers from appending the
same rows: of two with the same number Delta lets one pass, the other looks again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fc4d_ray.errors import ConfigError, StoreError
from fc4d_ray.store.filesystem import Storage
from fc4d_ray.store.outcomes import addresses, identities

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

_TRIES = 20


class DeltaSink:
    """Appends outcomes to the Delta table at ``uri``."""

    def __init__(self, uri: str, storage: Storage) -> None:
        """Raises ``ConfigError`` where the ``deltalake`` package is missing."""
        try:
            import deltalake  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                'run.delta_table needs the package deltalake: pip install "fc4d-ray[delta]"'
            ) from error
        self._uri = uri
        self._storage = storage
        self._application = f"fc4d:{storage.uri}"
        self._known: tuple[int, pa.StringArray] | None = None
        """Version of the table, and the identities in it."""

    def catch_up(self, outcomes: pa.Table) -> int:
        """Append what the table lacks of ``outcomes``; returns how many rows that were.

        Raises ``StoreError`` where the table cannot be read or written.
        """
        from deltalake.exceptions import DeltaError

        last: Exception | None = None
        for _ in range(_TRIES):
            try:
                return self._append(outcomes)
            except DeltaError as error:
                last, self._known = error, None
            except OSError as error:
                raise StoreError(f"cannot write the Delta table {self._uri}: {error}") from error
        raise StoreError(f"cannot write the Delta table {self._uri}: {last}") from last

    def _append(self, outcomes: pa.Table) -> int:
        import pyarrow.compute as pc
        from deltalake import CommitProperties, Transaction, write_deltalake

        table = self._open()
        own = identities(outcomes)
        is_known = pc.is_in(own, value_set=self._identities(table))
        rows = _as_delta(outcomes.filter(pc.invert(is_known)), self._storage)
        if not rows.num_rows:
            return 0
        number = 0 if table is None else table.transaction_version(self._application) or 0
        properties = CommitProperties(
            app_transactions=[Transaction(self._application, number + 1)], max_commit_retries=0
        )
        write_deltalake(
            self._uri if table is None else table,
            rows,
            mode="error" if table is None else "append",
            schema_mode=None if table is None else "merge",
            commit_properties=properties,
            storage_options=self._options(),
        )
        return rows.num_rows

    def _open(self) -> DeltaTable | None:
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            return DeltaTable(self._uri, storage_options=self._options())
        except TableNotFoundError:
            return None

    def _identities(self, table: DeltaTable | None) -> pa.StringArray:
        import pyarrow as pa

        if table is None:
            return pa.array([], pa.string())
        if self._known is None or self._known[0] != table.version():
            columns = table.to_pyarrow_table(columns=["plan_digest", "rank"])
            self._known = (table.version(), identities(columns))
        return self._known[1]

    def _options(self) -> dict[str, str] | None:
        """Object stores are told to refuse a log entry that exists; the rest is environment."""
        if not self._uri.startswith(("s3://", "s3a://")):
            return None
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
        http = {"aws_allow_http": "true"} if endpoint.startswith("http://") else {}
        return {"aws_conditional_put": "etag"} | http


def _as_delta(outcomes: pa.Table, storage: Storage) -> pa.Table:
    """Addresses instead of paths, and types that Delta knows."""
    import pyarrow as pa

    columns: dict[str, Any] = {}
    for name in outcomes.column_names:
        column = outcomes[name]
        if name.endswith("_path"):
            name, column = f"{name.removesuffix('_path')}_uri", addresses(storage, column)
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", tz="UTC"))
        columns[name] = column
    return pa.table(columns)
