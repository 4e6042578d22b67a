"""Parquet files, row group by row group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pellucid.data.tables import TableBuilder
from pellucid.errors import DataError, need

BATCH_ROWS = 65_536


def open_parquet(path: Path) -> Any:
    """The opened file.

    Raises:
        EngineError: pyarrow is not installed.
        DataError: it is not a Parquet file.
    """
    need("pyarrow", extra="parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as failure:
        raise DataError(f"this is no Parquet file, or a damaged one: {failure}", where=str(path)) from failure


def fill(builder: TableBuilder, file: Any, batch_rows: int = BATCH_ROWS) -> dict[str, Any]:
    """Give every row of a Parquet file to ``builder``; truth values become 0 and 1, dates text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    count = 0
    wanted = [column.name for column in builder.columns if column.kind != "dropped"]
    for batch in file.iter_batches(batch_size=batch_rows, columns=wanted):
        if not len(batch):
            continue
        blocks: list[Any] = []
        for column in builder.columns:
            if column.kind == "dropped":
                blocks.append(())
                continue
            values = batch.column(column.name)
            kind = values.type
            if pa.types.is_boolean(kind):
                values = values.cast(pa.int8())
            elif pa.types.is_decimal(kind):
                values = values.cast(pa.float64())
            if (
                pa.types.is_boolean(kind)
                or pa.types.is_decimal(kind)
                or pa.types.is_integer(kind)
                or pa.types.is_floating(kind)
            ):
                blocks.append(values.to_numpy(zero_copy_only=False).astype(np.float64))
            elif pa.types.is_temporal(kind) and not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
                raise _unusable(column.name, kind, builder.where)
            else:
                if pa.types.is_timestamp(kind):
                    values = pc.strftime(values, "%Y-%m-%dT%H:%M:%S")
                elif pa.types.is_dictionary(kind):
                    values = values.dictionary_decode()
                try:
                    texts = values.cast(pa.string()).to_pylist()
                except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
                    raise _unusable(column.name, kind, builder.where) from None
                blocks.append(["" if text is None else text for text in texts])
        builder.add(blocks, np.arange(count, count + len(batch)))
        count += len(batch)
    if not count:
        raise DataError("there is not a single row", where=builder.where)
    return {"rows": count, "blank": 0}


def _unusable(name: str, kind: Any, where: str) -> DataError:
    return DataError(
        f"column {name!r} holds values that are neither numbers nor text",
        where=where,
        expected="numbers, truth values, text or dates",
        got=str(kind),
        hint=f"drop=[{name!r}] leaves it out",
    )
