"""Parquet as a table of texts and photos, within limits. One's own Parquet files are read with their types instead."""

import json
from collections.abc import Callable
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from acebert.data.tables.table import Table


def add_parquet(table: Table, file: BinaryIO, name: str) -> bool:
    """Adds a Parquet file's rows as far as the limits allow, and says whether that was all."""
    try:
        parquet = pq.ParquetFile(file)
        table.check_header(parquet.schema_arrow.names)
        columns = {column.name: convert for column in parquet.schema_arrow if (convert := _converter(column.type))}
        if table.rows and columns.keys() != table.texts.keys() | table.photos.keys():
            raise ValueError(f"{name!r} has other columns than the files before it.")
        if not table.rows:
            table.leave_out(column for column in parquet.schema_arrow.names if column not in columns)
        # A file may hold a value once and repeat it in every row, so that its rows are far larger than the file. None
        # is larger than its row group, though: this many rows fit into the limit whatever they hold.
        groups = range(parquet.num_row_groups)
        largest = max((parquet.metadata.row_group(group).total_byte_size for group in groups), default=0)
        batch_size = max(1, min(1000, table.limits.unpacked_bytes // max(1, largest)))
        for batch in parquet.iter_batches(batch_size, columns=list(columns)):
            converted = {column: convert(batch[column]) for column, convert in columns.items()}
            if not table.add_batch(converted, batch.num_rows):
                return False
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name!r} can't be read: it is damaged, cut off or of an unusual kind of Parquet.") from error
    return True


def _converter(kind: pa.DataType) -> Callable[[pa.Array], pa.Array] | None:
    """What makes text or photos' bytes of a column, or None where neither can be made of it."""
    if pa.types.is_dictionary(kind):
        convert = _converter(kind.value_type)
        return convert and (lambda values: convert(values.dictionary_decode()))
    if pa.types.is_struct(kind) and {"bytes", "path"} == {part.name for part in kind}:
        # The Hub's type for photos. A path without bytes stays, so that the row is listed: it is not opened.
        return lambda values: pc.coalesce(
            *(pc.cast(pc.struct_field(values, part), pa.large_binary()) for part in ("bytes", "path"))
        )
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return lambda values: values.cast(pa.large_binary())
    if pa.types.is_floating(kind):
        return lambda values: pc.if_else(pc.is_nan(values), None, values).cast(pa.large_string())
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        # As a CSV file's cell would hold them.
        return lambda values: pa.array(
            [json.dumps(value, ensure_ascii=False) if value else None for value in values.to_pylist()]
        )
    if pa.types.is_nested(kind) or pa.types.is_duration(kind) or isinstance(kind, pa.BaseExtensionType):
        return None
    return lambda values: values.cast(pa.large_string())
