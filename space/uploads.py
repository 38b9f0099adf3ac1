"""From what a user drops to products that can be encoded: a table, a zip of photos, or a dataset's name on the Hub.

    upload = open_upload(Path("products.csv"), Path("photos.zip"), None, folder, Limits())
    columns = guess_columns(upload)  # for the user to correct
    products, bad_rows = read_products(upload, columns)

Whatever comes in was made by a stranger. It is read within `Limits`; names in it are looked up among its own parts and
never opened as paths or addresses; a bad row is listed, and no row disappears without being listed. What can't be read
at all is a `ValueError` that is written for the user.
"""

import csv
import io
import json
import math
import re
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, Value
from huggingface_hub import HfFileSystem
from PIL import Image as PILImage
from PIL import UnidentifiedImageError

MB = 2**20
CANONICAL = ("id", "title", "image")
MAX_WRONG_SHARE = 0.05  # of a column's values, up to which the column still counts as numbers
SHOWN_CHARACTERS = 80  # of a bad value
ROWS_PER_WRITE = 64  # products whose photos are held in memory at a time
# A zip's directory spends 46 bytes on a file, and its name and times; this leaves room for long names.
DIRECTORY_BYTES_PER_FILE = 512

# Pillow reads more formats, one of them (EPS) by starting another program.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
PHOTO_NAME = re.compile(r"[^/\\]\.(jpe?g|jfif|png|webp|gif|bmp|tiff?|avif)([?#]|$)", re.IGNORECASE)
HIDDEN_NAME = re.compile(r"(^|/)(\.|__MACOSX/)")  # what file managers add
ADDRESS = re.compile(r"https?://", re.IGNORECASE)
DATASET_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
# "007" is a code and "1.299,00" could be two numbers; "12,50" can only be a decimal comma.
NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*|(?=\.))(\.[0-9]+|,[0-9]{1,2})?(e[+-]?[0-9]+)?", re.IGNORECASE)

# What shops call these columns, likeliest first, without accents, case and anything but letters and digits.
ID_NAMES = (
    "id productid itemid articleid sku skuid variantsku productsku asin productcode itemcode itemnumber productnumber "
    "articlenumber gtin ean ean13 barcode upc handle code reference ref "
    "produktid artikelid artikelnummer artikelnr artnr produktnummer bestellnummer idproduit codeproduit referencia "
    "idproducto codigo codigoproducto idproduto idprodotto codiceprodotto codice varenummer idproduktu kod "
    "артикул idтовара 商品id 商品编号 商品番号 商品コード 상품코드 상품번호"
)
TITLE_NAMES = (
    "title producttitle itemtitle productdisplayname displayname productname itemname articlename name "
    "titel produkttitel produktname artikelname artikelbezeichnung bezeichnung titre nomproduit nomduproduit nom "
    "libelle designation titulo tituloproducto nombreproducto nombre nomeproduto nomeprodotto nome titolo naam "
    "productnaam produktnamn namn navn tytul nazwa nazwaproduktu название наименование 商品名称 商品名 商品标题 标题 "
    "タイトル 상품명 제품명"
)
IMAGE_NAMES = (
    "image photo picture img imagefile imagefilename imagepath photofile photopath imageurl imagelink imagesrc "
    "imageurls photourl pictureurl mainimage primaryimage images photos pictures filename filepath file path link url "
    "bild bilddatei bildurl foto fotos fichier photoproduit imagen imagenes urlimagen imagem imagens immagine immagini "
    "afbeelding billede zdjecie фото изображение 图片 商品图片 画像 商品画像 이미지 상품이미지"
)

Kind = Literal["text", "number"]


@dataclass(frozen=True)
class Limits:
    """How much is taken from one user.

    Args:
        rows (`int`): of a table; of a Hub dataset the first ones.
        columns (`int`): of a table.
        table_bytes (`int`): of a table's file.
        zip_bytes (`int`): of a zip's file.
        unpacked_bytes (`int`): of all that a zip holds, of all that a Parquet file holds, of all products' photos.
        files (`int`): in a zip.
        photo_bytes (`int`): of one photo's file.
        pixels (`int`): of one photo.
    """

    rows: int = 20_000
    columns: int = 200
    table_bytes: int = 256 * MB
    zip_bytes: int = 512 * MB
    unpacked_bytes: int = 1024 * MB
    files: int = 50_000
    photo_bytes: int = 20 * MB
    pixels: int = 40_000_000


@dataclass(frozen=True)
class BadRow:
    """Something in a row that could not be used.

    Args:
        row (`int`): as the user counts: 1 is a CSV's header, a JSON Lines file's first line, or the first product.
        field (`str`): the column's name, or "" for the whole row.
        value (`str`): what stands there, cut to 80 characters.
        reason (`str`): what is wrong with it.
        skipped (`bool`): whether the row became no product; if not, the product is kept without this value.
    """

    row: int
    field: str
    value: str
    reason: str
    skipped: bool

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", self.value[:SHOWN_CHARACTERS])


@dataclass(frozen=True)
class UploadColumns:
    """Which column of an upload is what.

    Args:
        id (`str`, *optional*): None takes the row's number.
        title (`str`, *optional*): None for products without titles.
        image (`str`, *optional*): a column of photos or of their names in the zip. With None a product's photo is the
            one in the zip that has the product's id for a name, without its extension.
        attributes (`dict[str, str]`): "text" or "number" by name.
    """

    id: str | None
    title: str | None
    image: str | None
    attributes: dict[str, Kind] = field(default_factory=dict)


class PhotoZip:
    """A zip of photos. Nothing of it is unpacked to disk: a photo is read into memory when it is asked for.

    Args:
        path (`Path`): the zip.
        limits (`Limits`): of `zip_bytes`, `files`, `unpacked_bytes` and `photo_bytes`.

    Raises:
        `ValueError`: where it is no zip or is cut off, is over a limit, is encrypted, or holds a name or link that
            leads out of it.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.limits = limits
        self._zip = _open_zip(path, limits)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        self._index: dict[tuple[str, str], list[str]] = defaultdict(list)
        for info in self._zip.infolist():
            entry = _entry_name(info.filename)
            if info.is_dir() or HIDDEN_NAME.search(entry):
                continue
            self._infos[entry] = info
            for key in _path_keys(entry) + _stem_keys(PurePosixPath(entry).stem):
                self._index[key].append(entry)
        self.names = sorted(entry for entry in self._infos if PHOTO_NAME.search(entry))

    def find(self, name: str) -> str | None:
        """The path in the zip of the photo with this path, base name or web address, or None.

        Letter case counts only where it tells two photos apart.

        Raises:
            `ValueError`: where several photos have the name.
        """
        if ADDRESS.match(name):
            name = unquote(urlsplit(name).path).lstrip("/")
        return self._only(_path_keys(_entry_name(name)))

    def find_stem(self, stem: str) -> str | None:
        """The path in the zip of the photo whose base name without extension is `stem`, or None.

        Raises:
            `ValueError`: where several photos have the name.
        """
        return self._only(_stem_keys(_entry_name(stem)))

    def _only(self, keys: list[tuple[str, str]]) -> str | None:
        for key in keys:
            found = self._index.get(key, [])
            if len(found) > 1:
                raise ValueError(f"several photos in the zip have this name, {found[0]!r} and {found[1]!r} among them")
            if found:
                return found[0]
        return None

    def read(self, name: str) -> bytes:
        """The bytes of the photo at this path in the zip.

        Raises:
            `ValueError`: where it is too large or damaged.
        """
        info = self._infos[name]
        # zipfile unpacks these two step by step and checks that the size is the declared one; others it may not.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("it is compressed by a method other than deflate")
        if info.file_size > self.limits.photo_bytes:
            raise ValueError(f"its file is larger than {_megabytes(self.limits.photo_bytes)}")
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError) as error:
            raise ValueError("it is damaged in the zip") from error


@dataclass(frozen=True)
class Upload:
    """What was dropped: opened, every cell as text or as a photo's bytes, no photo decoded.

    Args:
        texts (`dict[str, list[str | None]]`): the columns of text by name, without surrounding spaces, None for empty.
        photos (`dict[str, pa.ChunkedArray]`): the columns of encoded photos by name.
        rows (`list[int]`): each row's number as the user counts, see `BadRow`.
        unread (`list[BadRow]`): rows that could not be read at all.
        zip (`PhotoZip`, *optional*): the zip of photos.
        notes (`list[str]`): what was assumed or left out, for the user to read.
        folder (`Path`): where the products are kept.
        limits (`Limits`): how much is taken.
    """

    texts: dict[str, list[str | None]]
    photos: dict[str, pa.ChunkedArray]
    rows: list[int]
    unread: list[BadRow]
    zip: PhotoZip | None
    notes: list[str]
    folder: Path
    limits: Limits

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return [*self.texts, *self.photos]

    @property
    def num_rows(self) -> int:
        """Rows that were dropped, those that could not be read included."""
        return len(self.rows) + len(self.unread)


class _Table:
    """A table as it grows, row by row or batch by batch, within the limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.texts: dict[str, list[str | None]] = {}
        self.photos: dict[str, list[pa.Array]] = {}
        self.rows: list[int] = []
        self.unread: list[BadRow] = []
        self.notes: list[str] = []
        self.bytes = 0  # of the batches

    def add_row(self, number: int, cells: dict[str, str | None]) -> None:
        if len(self.rows) == self.limits.rows:
            raise ValueError(f"There are more than {self.limits.rows:,} rows: drop a part of them.")
        for name in cells:
            if name not in self.texts:
                self.texts[name] = [None] * len(self.rows)
                self.check_width(len(self.texts))
        for name, values in self.texts.items():
            values.append(_clean(cells.get(name)))
        self.rows.append(number)

    def add_batch(self, columns: dict[str, pa.Array], rows: int) -> bool:
        """Adds as many rows of a batch as fit, and says whether all did. All batches have the same columns."""
        size = sum(values.nbytes for values in columns.values())
        fitting = min(rows, self.limits.rows - len(self.rows))
        if self.bytes + size > self.limits.unpacked_bytes:
            fitting = 0
        self.bytes += size
        self.rows += range(len(self.rows) + 1, len(self.rows) + 1 + fitting)
        for name, values in columns.items():
            if pa.types.is_large_binary(values.type):
                self.photos.setdefault(name, []).append(values[:fitting])
            else:
                self.texts.setdefault(name, []).extend(map(_clean, values[:fitting].to_pylist()))
        return fitting == rows

    def skip_row(self, number: int, value: str, reason: str) -> None:
        if len(self.unread) == self.limits.rows:
            raise ValueError(f"More than {self.limits.rows:,} rows can't be read. Row {number}: {reason}.")
        self.unread.append(BadRow(number, "", value, reason, skipped=True))

    def leave_out(self, names: Iterable[str]) -> None:
        if shown := ", ".join(repr(name) for name in names):
            self.notes.append(f"Left out, for they hold lists or objects: {shown}.")

    def check_width(self, width: int) -> None:
        if width > self.limits.columns:
            raise ValueError(f"There are more than {self.limits.columns} columns: leave some out.")


def open_upload(table: Path | None, photos: Path | None, dataset: str | None, folder: Path, limits: Limits) -> Upload:
    """Opens what a user dropped.

    Args:
        table (`Path`, *optional*): CSV, TSV or other separated text, JSON, JSON Lines or Parquet, whatever its
            extension.
        photos (`Path`, *optional*): a zip. Without a table every photo in it is a product, and its path is the id.
        dataset (`str`, *optional*): "owner/name" of a public dataset on the Hub, instead of a table.
        folder (`Path`): where `read_products` keeps the products; made if need be.
        limits (`Limits`): how much is taken.

    Raises:
        `ValueError`: with a message for the user, where it can't be read.
    """
    dataset = (dataset or "").strip()
    if bool(table) and bool(dataset):
        raise ValueError("Drop a table or name a dataset, not both.")
    if not (table or photos or dataset):
        raise ValueError("Drop a table, a zip of photos, or name a dataset on the Hub.")
    archive = PhotoZip(photos, limits) if photos else None
    if table:
        read = _read_file(table, limits)
    elif dataset:
        read = _read_dataset(dataset, limits)
    else:
        read = _read_names(archive, limits)
    if not read.rows:
        first = f" Row {read.unread[0].row}: {read.unread[0].reason}." if read.unread else ""
        raise ValueError(f"There are no products in it.{first}")
    folder.mkdir(parents=True, exist_ok=True)
    columns = {name: pa.chunked_array(arrays) for name, arrays in read.photos.items()}
    return Upload(read.texts, columns, read.rows, read.unread, archive, read.notes, folder, limits)


def _read_names(archive: PhotoZip, limits: Limits) -> _Table:
    """A zip without a table: a row for every photo."""
    table = _Table(limits)
    for number, name in enumerate(archive.names, start=1):
        table.add_row(number, {"id": name, "image": name})
    return table


def _read_file(path: Path, limits: Limits) -> _Table:
    """A table of any of the formats, which the content tells; the extension may be wrong."""
    name = path.name
    if path.stat().st_size > limits.table_bytes:
        raise ValueError(f"{name!r} is larger than {_megabytes(limits.table_bytes)}: drop a part of it.")
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start == b"PAR1":
            table = _Table(limits)
            if not _add_parquet(table, file, name):
                most = f"{limits.rows:,} rows or {_megabytes(limits.unpacked_bytes)}"
                raise ValueError(f"{name!r} holds more than {most}: drop a part of it.")
            return table
        if start == b"PK\3\4":
            raise ValueError(
                f"{name!r} is a zip or an Excel workbook: save a workbook as CSV; a zip of photos goes to the photos."
            )
        data = file.read()
    text, note = _decode(data, name)
    table = _Table(limits)
    table.notes += [note] if note else []
    begin = text.lstrip()[:1]
    if not begin:
        raise ValueError(f"{name!r} is empty.")
    if begin == "<":
        raise ValueError(f"{name!r} is a web page or XML: drop CSV, TSV, JSON, JSON Lines or Parquet.")
    if begin == "[":
        _add_json(table, text, name)
    elif begin == "{":
        _add_json_lines(table, text)
    else:
        _add_csv(table, text, name)
    return table


def _decode(data: bytes, name: str) -> tuple[str, str | None]:
    """The text of a file, and a note where its encoding had to be assumed."""
    note = None
    try:
        # Excel's "Unicode text" is UTF-16 with a byte order mark.
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        # Browsers, too, read "Latin-1" as Windows-1252, which has the same letters and some more.
        text = data.decode("cp1252", errors="replace")
        note = f"{name!r} is not UTF-8: read as Latin-1 (Windows-1252). If accents look wrong, save it as UTF-8."
    if "\0" in text:
        raise ValueError(f"{name!r} is not a table that can be read: drop CSV, TSV, JSON, JSON Lines or Parquet.")
    return text, note


def _add_csv(table: _Table, text: str, name: str) -> None:
    """Separated text with a header; rows count from 1, the header, as in a spreadsheet."""

    def records(separator: str) -> Iterator[list[str]]:
        return csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)

    def width(separator: str) -> int:
        try:
            return len(next(filter(None, records(separator)), []))
        except csv.Error:
            return 0

    separator = max(",;\t|", key=width)  # the one that finds most columns
    if separator != ",":
        table.notes.append(f"{name!r} is read with {'tabs' if separator == chr(9) else repr(separator)} as separators.")
    header: list[str] | None = None
    reader, number = records(separator), 0
    while True:
        number, line = number + 1, reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            lines = f"line {line}" if reader.line_num == line else f"lines {line} to {reader.line_num}"
            if header is None:
                raise ValueError(f"The header of {name!r} can't be read ({lines}): {error}.") from error
            table.skip_row(number, "", f"its quotation marks don't match or a cell is too long, in {lines}: {error}")
            continue
        if not any(cell.strip() for cell in record):
            continue
        if header is None:
            while not record[-1].strip():
                record.pop()
            # Tables saved by pandas have a column without a name, the index.
            header = [_clean(column) or f"column {place}" for place, column in enumerate(record, start=1)]
            _check_names(header)
            table.check_width(len(header))
            continue
        while len(record) > len(header) and not record[-1].strip():
            record.pop()
        if len(record) == len(header):
            table.add_row(number, dict(zip(header, record, strict=True)))
        else:
            reason = f"it has {len(record)} cells where the header has {len(header)}: quote cells that hold separators"
            table.skip_row(number, separator.join(record), reason)


def _add_json(table: _Table, text: str, name: str) -> None:
    """A list of objects; rows count from 1, the first object."""
    try:
        values = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name!r} is not valid JSON: {error}.") from error
    nested: set[str] = set()
    for number, value in enumerate(values, start=1):
        _add_object(table, number, value, nested)
    table.leave_out(sorted(nested))


def _add_json_lines(table: _Table, text: str) -> None:
    """An object per line; rows count lines from 1."""
    nested: set[str] = set()
    # Not by splitlines, which would split inside of strings, at characters that JSON leaves alone.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            table.skip_row(number, line, f"it is not valid JSON: {error}")
            continue
        _add_object(table, number, value, nested)
    table.leave_out(sorted(nested))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, which by the standard could have a name twice."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("an object has the same name twice")
    return value


def _add_object(table: _Table, number: int, value: Any, nested: set[str]) -> None:
    if not isinstance(value, dict):
        table.skip_row(number, json.dumps(value), "it is not an object")
        return
    cells: dict[str, str | None] = {}
    for name, cell in value.items():
        name = _clean(name) or ""
        if isinstance(cell, dict | list):
            nested.add(name)
            table.texts.pop(name, None)
        elif name not in nested:
            missing = cell is None or (isinstance(cell, float) and math.isnan(cell))
            cells[name] = None if missing else cell if isinstance(cell, str) else json.dumps(cell)
    table.add_row(number, cells)


def _add_parquet(table: _Table, file: BinaryIO, name: str) -> bool:
    """Adds a Parquet file's rows as far as the limits allow, and says whether that was all."""
    try:
        parquet = pq.ParquetFile(file)
        _check_names(parquet.schema_arrow.names)
        table.check_width(len(parquet.schema_arrow.names))
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
    if pa.types.is_nested(kind) or pa.types.is_duration(kind) or isinstance(kind, pa.BaseExtensionType):
        return None
    return lambda values: values.cast(pa.large_string())


def _read_dataset(name: str, limits: Limits) -> _Table:
    """The first rows of a public dataset, from the Parquet files that the Hub makes of every dataset.

    Not by `datasets.load_dataset`: a dataset's card names its data files
    (https://huggingface.co/docs/hub/datasets-manual-configuration), and datasets 5.2 opens whatever it names, be it a
    file of the server. The Hub's conversion has the photos inside (https://huggingface.co/docs/dataset-viewer/parquet).
    """
    if not DATASET_NAME.fullmatch(name) or ".." in name or "--" in name:
        raise ValueError(f"{name!r} is no name of a dataset on the Hub: write it as owner/name.")
    try:
        # Never the server's own token, which may open private datasets.
        hub = HfFileSystem(token=False, skip_instance_cache=True)
        paths = hub.glob(f"datasets/{name}@refs/convert/parquet/**/*.parquet")
    except FileNotFoundError:
        paths = []
    except Exception as error:  # the network fails in the classes of many libraries
        raise ValueError("The Hugging Face Hub can't be reached now: try again later, or drop a file.") from error
    if not paths:
        raise ValueError(
            f"The Hub has no public dataset {name!r}, or no Parquet of it: check the name, or drop a file."
        )
    # .../configuration/split/0000.parquet
    configurations = sorted({path.split("/")[-3] for path in paths})
    chosen = "default" if "default" in configurations else configurations[0]
    table = _Table(limits)
    if len(configurations) > 1:
        table.notes.append(f"Of the dataset's configurations, {', '.join(configurations)}, {chosen!r} is read.")
    paths = [path for path in paths if path.split("/")[-3] == chosen]
    for path in sorted(paths, key=lambda path: (path.split("/")[-2] != "train", path)):
        try:
            with hub.open(path) as file:
                whole = _add_parquet(table, file, name)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError("The Hugging Face Hub stopped answering: try again later, or drop a file.") from error
        if not whole:
            table.notes.append(f"{name!r} is larger than what is taken: these are its first {len(table.rows):,} rows.")
            break
    return table


def guess_columns(upload: Upload) -> UploadColumns:
    """Which column is what, by the names that shops give them and, where those don't tell, by what they hold.

    A column of distinct short values is the id, one of distinct longer texts the title, one of bytes, file names or
    addresses the photo; numbers, and texts that repeat, are attributes.
    """
    profiles = {name: _Profile.of(values) for name, values in upload.texts.items()}
    image = _named(upload.photos, IMAGE_NAMES) or next(iter(upload.photos), None)
    if image is None:
        shown = [name for name, values in upload.texts.items() if _names_photos(values, upload.zip)]
        image = _named(shown, IMAGE_NAMES) or next(iter(shown), None)
    free = [name for name, profile in profiles.items() if name != image and profile.filled]

    title = _named([name for name in free if profiles[name].kind == "text"], TITLE_NAMES)
    distinct = [name for name in free if name != title and profiles[name].distinct >= 0.9 * len(upload.rows)]
    codes = (name for name in distinct if profiles[name].distinct == len(upload.rows) and profiles[name].codes)
    identifier = _named(distinct, ID_NAMES) or next(codes, None)
    if title is None:
        title = next((name for name in free if name != identifier and profiles[name].is_title), None)

    attributes = {
        name: profiles[name].kind
        for name in free
        if name not in (identifier, title, *CANONICAL) and not _named([name], ID_NAMES) and profiles[name].is_attribute
    }
    return UploadColumns(identifier, title, image, attributes)


@dataclass(frozen=True)
class _Profile:
    """What a column of text holds: values that are there, different ones, their mean length, and their type."""

    filled: int
    distinct: int
    length: float
    spaced: float  # share of the values that have a space
    codes: bool  # whether all are letters and digits, with hyphens
    kind: Kind

    @classmethod
    def of(cls, values: Sequence[str | None]) -> "_Profile":
        filled = [value for value in values if value is not None]
        count = max(1, len(filled))
        wrong = sum(_number(value) is None for value in filled)
        return cls(
            len(filled),
            len(set(filled)),
            sum(map(len, filled)) / count,
            sum(" " in value for value in filled) / count,
            all(re.fullmatch(r"\w[\w-]*", value) for value in filled),
            "number" if filled and wrong < MAX_WRONG_SHARE * count else "text",
        )

    @property
    def is_title(self) -> bool:
        """Codes have no spaces, descriptions are longer, categories repeat."""
        words = self.kind == "text" and self.spaced >= 0.5
        return words and 8 <= self.length <= 200 and self.distinct >= 0.5 * self.filled

    @property
    def is_attribute(self) -> bool:
        return self.distinct > 1 and (
            self.kind == "number" or (self.length <= 40 and self.distinct <= max(12, 0.2 * self.filled))
        )


def _names_photos(values: Sequence[str | None], archive: PhotoZip | None) -> bool:
    """Whether at least half of a column's values look like names of photos, or are names in the zip."""
    filled = [value for value in values if value is not None]

    def found(value: str) -> bool:
        if PHOTO_NAME.search(value):
            return True
        try:
            return archive is not None and archive.find(value) is not None
        except ValueError:
            return True

    return bool(filled) and sum(map(found, filled)) >= 0.5 * len(filled)


def _named(columns: Iterable[str], names: str) -> str | None:
    """The column with the likeliest of the names."""
    by_key = {_key(column): column for column in reversed(list(columns))}
    return next((by_key[key] for key in map(_key, names.split()) if key in by_key), None)


def _key(name: str) -> str:
    """A column's name without accents, case and anything but letters and digits: "N° d'Article" is "ndarticle"."""
    # Composed again at the end: what is left of Korean is letters, not accents.
    plain = "".join(char for char in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(char))
    return "".join(char for char in unicodedata.normalize("NFC", plain) if char.isalnum())


def read_products(upload: Upload, columns: UploadColumns) -> tuple[Dataset, list[BadRow]]:
    """Products with clean values, and everything that could not be used.

    Returns:
        `tuple[Dataset, list[BadRow]]`: the products, in order, kept in a file of their own in the upload's folder; and
        the bad rows in order. Products and skipped rows together are `upload.num_rows`. The dataset has the columns
        `id` (string, unique), `title` (string or None), `image` (`Image(decode=False)`, its bytes or None; every
        photo has been decoded once and is none of the bad ones), and each attribute under its own name: string,
        float64, or int64 where all its numbers are whole.

    Raises:
        `ValueError`: where the columns can't be right, or the photos together are over the limit.
    """
    _check_columns(upload, columns)
    bad = list(upload.unread)
    attributes = {name: upload.texts[name] for name, kind in columns.attributes.items() if kind == "text"}
    kinds = dict.fromkeys(attributes, "string")
    for name in columns.attributes.keys() - attributes.keys():
        attributes[name], kinds[name] = _numbers(upload, name, bad)
    features = Features(
        {"id": Value("string"), "title": Value("string"), "image": Image(decode=False)}
        | {name: Value(kinds[name]) for name in columns.attributes}
    )

    ids = upload.texts[columns.id] if columns.id else [str(number) for number in upload.rows]
    titles = upload.texts[columns.title] if columns.title else [None] * len(upload.rows)
    first_rows: dict[str, int] = {}
    photo_bytes = 0

    def products() -> Iterator[dict[str, Any]]:
        nonlocal photo_bytes
        for index, (row, product_id, title) in enumerate(zip(upload.rows, ids, titles, strict=True)):
            if product_id is None:
                bad.append(BadRow(row, columns.id or "", "", "the product has no id", skipped=True))
                continue
            if product_id in first_rows:
                reason = f"row {first_rows[product_id]} has the same id"
                bad.append(BadRow(row, columns.id or "", product_id, reason, skipped=True))
                continue
            first_rows[product_id] = row
            photo = _photo(upload, columns.image, index, product_id, bad)
            if photo is None and title is None:
                bad.append(BadRow(row, "", product_id, "it has neither a title nor a photo", skipped=True))
                continue
            photo_bytes += len(photo or b"")
            if photo_bytes > upload.limits.unpacked_bytes:
                most = _megabytes(upload.limits.unpacked_bytes)
                raise ValueError(f"The products' photos are larger than {most} together: drop fewer or smaller ones.")
            image = None if photo is None else {"bytes": photo, "path": None}
            facts = {name: values[index] for name, values in attributes.items()}
            yield {"id": product_id, "title": title, "image": image, **facts}

    dataset = _keep(products(), features, upload.folder)
    return dataset, sorted(bad, key=lambda entry: entry.row)


def _check_columns(upload: Upload, columns: UploadColumns) -> None:
    """Refuses roles that no column of the upload can play."""
    for role, name in (("id", columns.id), ("title", columns.title), *(("attribute", n) for n in columns.attributes)):
        if name is not None and name not in upload.texts:
            problem = "holds photos" if name in upload.photos else "is not there"
            raise ValueError(
                f"The column {name!r} {problem} and can't be the {role}: take one of {list(upload.texts)}."
            )
    if columns.image is not None and columns.image not in upload.columns:
        raise ValueError(f"The column {columns.image!r} is not there: the photo's is one of {upload.columns}.")
    if columns.title is None and columns.image is None and upload.zip is None:
        raise ValueError("Which column holds the titles, or the photos? A product needs one of them.")
    for name, kind in columns.attributes.items():
        if name in CANONICAL:
            raise ValueError(f"An attribute can't be named {name!r}: rename the column or leave it out.")
        if kind not in ("text", "number"):
            raise ValueError(f"The attribute {name!r} is of type {kind!r}: take 'text' or 'number'.")


def _numbers(upload: Upload, name: str, bad: list[BadRow]) -> tuple[list[float | int | None], str]:
    """A column's numbers and their type; the few values that are none become None and are listed."""
    texts = upload.texts[name]
    numbers = [None if text is None else _number(text) for text in texts]
    wrong = [i for i, (text, number) in enumerate(zip(texts, numbers, strict=True)) if text and number is None]
    filled = sum(text is not None for text in texts)
    if wrong and len(wrong) >= MAX_WRONG_SHARE * filled:
        raise ValueError(
            f"{len(wrong):,} of the {filled:,} values of {name!r} are no numbers, such as {texts[wrong[0]]!r}: "
            "take the column as text."
        )
    bad += [BadRow(upload.rows[i], name, texts[i] or "", "it is not a number", skipped=False) for i in wrong]
    # Beyond 2**53 a float64 skips integers.
    if all(number is None or (number.is_integer() and abs(number) <= 2**53) for number in numbers):
        return [None if number is None else int(number) for number in numbers], "int64"
    return numbers, "float64"


def _photo(upload: Upload, column: str | None, index: int, product_id: str, bad: list[BadRow]) -> bytes | None:
    """The photo of a product, or None where it has none or a bad one, which is listed."""
    shown, value = column or "", ""
    try:
        if column in upload.photos:
            photo = upload.photos[column][index].as_py()
            value = f"{len(photo or b''):,} bytes"
        elif column is not None:
            value = upload.texts[column][index] or ""
            photo = _read_named(upload.zip, value) if value else None
        elif upload.zip is not None:
            value = product_id
            name = upload.zip.find_stem(product_id)
            if name is None:
                raise ValueError("no photo in the zip has the product's id for its name")
            photo = upload.zip.read(name)
        else:
            photo = None
        if photo is not None:
            check_photo(photo, upload.limits)
    except ValueError as error:
        bad.append(BadRow(upload.rows[index], shown, value, str(error), skipped=False))
        return None
    return photo


def _read_named(archive: PhotoZip | None, name: str) -> bytes:
    found = archive.find(name) if archive else None
    if found is None and ADDRESS.match(name):
        raise ValueError("it is a web address, and none is opened here: drop a zip of the photos under the same names")
    if archive is None:
        raise ValueError("it is the name of a photo, but no zip of photos was dropped")
    if found is None:
        raise ValueError("no photo in the zip has this name")
    return archive.read(found)


def check_photo(data: bytes, limits: Limits) -> None:
    """Decodes a photo once, so that nothing broken gets any further.

    Raises:
        `ValueError`: where it is larger than the limits, in no format that is read, or broken.
    """
    if len(data) > limits.photo_bytes:
        raise ValueError(f"its file is larger than {_megabytes(limits.photo_bytes)}")
    try:
        with PILImage.open(io.BytesIO(data), formats=PHOTO_FORMATS) as photo:
            fits = photo.width * photo.height <= limits.pixels
            if fits:
                # Of a JPEG, all is read but decoded at an eighth of its size, for speed.
                photo.draft("RGB", (1, 1))
                photo.load()
    except PILImage.DecompressionBombError:
        fits = False
    except UnidentifiedImageError:
        raise ValueError(f"it is no photo that can be read: {', '.join(PHOTO_FORMATS)} can") from None
    except Exception as error:  # what Pillow raises for broken files depends on the format
        raise ValueError("the photo is damaged") from error
    if not fits:
        raise ValueError(f"it has more than {limits.pixels / 1e6:,g} million pixels")


def _keep(products: Iterable[dict[str, Any]], features: Features, folder: Path) -> Dataset:
    """A dataset in a new Arrow file, so that its photos needn't be held in memory."""
    schema = features.arrow_schema
    rows = iter(products)
    with (
        tempfile.NamedTemporaryFile(dir=folder, prefix="products-", suffix=".arrow", delete=False) as file,
        pa.ipc.new_stream(file, schema) as writer,
    ):
        while part := list(islice(rows, ROWS_PER_WRITE)):
            writer.write_batch(pa.RecordBatch.from_pylist(part, schema))
    return Dataset.from_file(file.name)


def _clean(text: str | None) -> str | None:
    """A cell without surrounding spaces and halves of characters, which JSON may hold; None for an empty one."""
    return text.encode(errors="replace").decode().strip() or None if text else None


def _number(text: str) -> float | None:
    """A finite number, with a point or a decimal comma, or None."""
    if not NUMBER.fullmatch(text):
        return None
    number = float(text.replace(",", "."))
    return number if math.isfinite(number) else None


def _check_names(names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"Several columns are named {twice[0]!r}: rename all but one.")


def _megabytes(size: int) -> str:
    return f"{size / MB:,g} MB"


def _entry_name(name: str) -> str:
    """A path in a zip as it is looked up: with slashes, and with accents as one character each."""
    return unicodedata.normalize("NFC", name.replace("\\", "/")).removeprefix("./")


def _path_keys(path: str) -> list[tuple[str, str]]:
    """What a photo in a zip is looked up by, the most exact first."""
    base = PurePosixPath(path).name
    return [("path", path), ("any case", path.casefold()), ("base name", base), ("any case base", base.casefold())]


def _stem_keys(stem: str) -> list[tuple[str, str]]:
    return [("stem", stem), ("any case stem", stem.casefold())]


def _open_zip(path: Path, limits: Limits) -> zipfile.ZipFile:
    """The zip, when all that it declares is within the limits and harmless."""
    name = path.name
    if path.stat().st_size > limits.zip_bytes:
        raise ValueError(f"{name!r} is larger than {_megabytes(limits.zip_bytes)}: drop fewer or smaller photos.")
    with ExitStack() as refused:
        file = refused.enter_context(path.open("rb"))
        _check_directory(file, name, limits)
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, struct.error, EOFError, ValueError) as error:
            raise ValueError(f"{name!r} is damaged or cut off: make the zip and upload it again.") from error
        entries = archive.infolist()
        if len(entries) > limits.files:
            raise ValueError(f"{name!r} holds more than {limits.files:,} files: drop fewer.")
        if sum(entry.file_size for entry in entries) > limits.unpacked_bytes:
            raise ValueError(f"{name!r} unpacks to more than {_megabytes(limits.unpacked_bytes)}: drop smaller photos.")
        for entry in entries:
            if _leads_out(entry):
                raise ValueError(f"{name!r} holds {entry.filename!r}, a link or a path out of the zip: take it out.")
            if entry.flag_bits & 1:
                raise ValueError(f"{name!r} is encrypted: make the zip without a password.")
        refused.pop_all()  # accepted: the file stays open
    return archive


def _check_directory(file: BinaryIO, name: str, limits: Limits) -> None:
    """Refuses a zip with too large a directory before zipfile makes an object of every file in it.

    Layout: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.15 and 4.3.16.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 22 - 2**16))  # the record that ends a zip, and its comment
    tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) - end < 22:
        raise ValueError(f"{name!r} is no zip, or is cut off: make the zip and upload it again.")
    (directory_bytes,) = struct.unpack_from("<L", tail, end + 12)
    # A zip64 has another such record before this one, that overrides it; only larger zips than these need one.
    zip64 = tail[max(0, end - 20) : end].startswith(b"PK\6\7")
    if zip64 or directory_bytes > limits.files * DIRECTORY_BYTES_PER_FILE:
        raise ValueError(f"{name!r} holds more than {limits.files:,} files, or is a zip64: make a plain zip of fewer.")


def _leads_out(info: zipfile.ZipInfo) -> bool:
    # The name as it was written: zipfile cuts its own copy at a NUL.
    name = info.orig_filename.replace("\\", "/")
    drive = re.match(r"[A-Za-z]:", name)
    link = stat.S_ISLNK(info.external_attr >> 16)
    return bool(name.startswith("/") or ".." in name.split("/") or "\0" in name or drive or link)
