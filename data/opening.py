"""Where a catalogue's rows come from: a table's file, a folder, a dataset on the Hub, or a database.

Whatever the source is, its splits become `datasets.Dataset`s. Of a table of texts they hold nothing but texts, whose
meaning [`acebert.data.sources`] reads; Parquet, the Hub and databases say themselves what type a column has.
"""

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from huggingface_hub import HfFileSystem

from acebert.data.notes import tell
from acebert.data.photo_cells import beside
from acebert.data.tables import Table, read_table
from acebert.utils.words import cut

TABLE_ENDINGS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".xlsx", ".xlsm", ".xls", ".ods")
# What `datasets` reads a folder's photos with (https://huggingface.co/docs/datasets/image_dataset), and what it writes.
OF_DATASETS = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "dataset_info.json", "dataset_infos.json")
# As `datasets` names the splits of a folder by its files' names.
SPLITS = {
    "validation": re.compile(r"(^|[\W_\d])(validation|valid|val|dev)($|[\W_\d])", re.IGNORECASE),
    "test": re.compile(r"(^|[\W_\d])(test|testing|eval|evaluation)($|[\W_\d])", re.IGNORECASE),
}
DATABASE = re.compile(r"(?!https?:|hf:|s3:|gs:|file:)[a-z][a-z0-9_]*(\+[a-z0-9_]+)?://", re.IGNORECASE)


@dataclass(frozen=True)
class Opened:
    """A source's splits.

    Args:
        splits: with all of their columns.
        is_text: whether every cell is a text, as it stood in the file.
        folder: what the paths of photos are relative to.
        unread: for each split, of how many rows could not be read, and what was wrong with the first.
    """

    splits: DatasetDict
    is_text: bool
    folder: str
    unread: dict[str, tuple[int, str]]


def open_source(
    source: str, revision: str | None = None, config_name: str | None = None, sql_query: str | None = None
) -> Opened:
    """All splits of a source, with all of their columns.

    Args:
        source: a file, a folder, a Hub id, or the URL of a database as SQLAlchemy writes it.
        revision: of a Hub dataset.
        config_name: of a dataset with several configurations.
        sql_query: what to ask a database for.

    Raises:
        ValueError: if it can't be read, naming it and why.
    """
    path = Path(source)
    if DATABASE.match(source):
        return Opened(DatasetDict(train=_ask_database(source, sql_query)), False, ".", {})
    if path.is_file():
        with path.open("rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        if is_parquet:
            return Opened(_load("parquet", source, data_files=glob.escape(source)), False, beside(path), {})
        return _read_tables({"train": [path]}, beside(path))
    if not path.is_dir() and (path.suffix.lower() in (*TABLE_ENDINGS, ".parquet", ".gz", ".xml") or path.is_absolute()):
        raise ValueError(f"{source!r} isn't there: check the path.")
    if path.is_dir() and (tables := _tables_of(path)):
        return _read_tables(tables, source)
    hub_tables = {} if path.is_dir() else _hub_tables(source, revision, config_name)
    if hub_tables:
        return _read_tables(hub_tables, source)
    return Opened(_load(source, source, name=config_name, revision=revision), False, source, {})


def _load(kind: str, source: str, **options: Any) -> DatasetDict:
    try:
        return load_dataset(kind, **options)
    except (DatasetGenerationError, pa.ArrowException, ValueError) as error:
        raise ValueError(
            f"{source!r} can't be read: {cut(error.__cause__ or error)}. It has to be complete, and hold at least one "
            "row."
        ) from error


def _tables_of(folder: Path) -> dict[str, list[Path]]:
    """The tables of texts beside a folder's photos, by the splits that their names tell; none where it has others."""
    names = {path.name.lower() for path in folder.iterdir()}
    if names & set(OF_DATASETS) or any(name.endswith((".parquet", ".arrow")) for name in names):
        return {}
    readme = folder / "README.md"
    if readme.is_file() and "data_files:" in readme.read_text(encoding="utf-8", errors="replace"):
        return {}
    tables = sorted(path for path in folder.iterdir() if path.is_file() and _is_table(path.name))
    # A text beside a table is most likely a note.
    tables = [path for path in tables if _ending(path.name) != ".txt"] or tables
    splits: dict[str, list[Path]] = {}
    for path in tables:
        split = next((split for split, pattern in SPLITS.items() if pattern.search(path.stem)), "train")
        splits.setdefault(split, []).append(path)
    return splits


def _is_table(name: str) -> bool:
    return not name.startswith(".") and _ending(name) in TABLE_ENDINGS


def _ending(name: str) -> str:
    return Path(name.lower().removesuffix(".gz")).suffix


def _hub_tables(source: str, revision: str | None, config_name: str | None) -> dict[str, list[Path]]:
    """The CSV files of a Hub dataset that consists of them, downloaded: `datasets` would take codes for numbers."""
    try:
        builder = load_dataset_builder(source, config_name, revision=revision)
    except (DatasetNotFoundError, FileNotFoundError) as error:
        raise ValueError(
            f"{source!r} is neither a file or folder that is there, nor a dataset on the Hub that can be had: "
            f"{cut(error)}"
        ) from error
    except ValueError as error:  # of several configurations, with their names
        raise ValueError(f"{source!r} can't be read: {error}") from error
    if getattr(builder, "name", None) != "csv" and "csv" not in type(builder).__module__:
        return {}
    from huggingface_hub import hf_hub_download

    files = HfFileSystem()
    splits: dict[str, list[Path]] = {}
    for split, paths in builder.config.data_files.items():
        for path in map(files.resolve_path, paths):
            local = hf_hub_download(path.repo_id, path.path_in_repo, repo_type="dataset", revision=path.revision)
            splits.setdefault(str(split), []).append(Path(local))
    return splits


def _read_tables(files: dict[str, list[Path]], folder: str) -> Opened:
    splits, unread = DatasetDict(), {}
    for split, paths in files.items():
        tables = [_read(path) for path in paths]
        names = list(dict.fromkeys(name for table in tables for name in table.texts))
        parts = [_to_dataset(table, names) for table in tables]
        splits[split] = parts[0] if len(parts) == 1 else concatenate_datasets(parts)
        problems = [problem for table in tables for problem in table.unread]
        if problems:
            unread[split] = len(problems), f"row {problems[0].row} {cut(problems[0].value)!r}: {problems[0].reason}"
    return Opened(splits, True, folder, unread)


def _read(path: Path) -> Table:
    try:
        table = read_table(path)
    except OSError as error:
        raise ValueError(f"{str(path)!r} can't be read: {error}.") from error
    if not table.rows:
        first = f" Row {table.unread[0].row}: {table.unread[0].reason}." if table.unread else ""
        raise ValueError(f"There are no products in {str(path)!r}.{first}")
    if table.photos:
        raise ValueError(f"{str(path)!r} is Parquet packed by gzip: unpack it.")
    for note in table.notes:
        tell(note)
    return table


def _to_dataset(table: Table, names: Sequence[str]) -> Dataset:
    empty = [None] * len(table.rows)
    columns = {name: table.texts.pop(name, empty) for name in names}
    return Dataset.from_dict(columns, Features({name: Value("string") for name in names}))


def _ask_database(url: str, query: str | None) -> Dataset:
    """What a query returns, in the types of its columns.

    Not by `Dataset.from_sql`, which keeps the answer and gives it again for the same query, whatever has changed since.
    """
    try:
        import sqlalchemy
    except ImportError:
        raise ValueError("To read a database install the extra: pip install 'acebert[sql]'.") from None
    import pandas as pd

    shown = re.sub(r"//[^@/]*@", "//…@", url)  # without the password
    if not query:
        raise ValueError(f"What to ask {cut(shown)!r} for? Name it by --sql_query, as in 'select * from products'.")
    try:
        engine = sqlalchemy.create_engine(url)
        with engine.connect() as connection:
            frame = pd.read_sql_query(sqlalchemy.text(query), connection, dtype_backend="pyarrow")
        engine.dispose()
    except (sqlalchemy.exc.SQLAlchemyError, pd.errors.DatabaseError, ImportError) as error:
        raise ValueError(f"{cut(shown)!r} can't be asked {cut(query)!r}: {str(error).splitlines()[0]}") from error
    if frame.empty:
        raise ValueError(f"{cut(shown)!r} has no rows for {cut(query)!r}.")
    return Dataset(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None))
