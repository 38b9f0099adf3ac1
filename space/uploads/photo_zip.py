"""Photos of products that a stranger sent: found and read in a zip, and checked."""

import io
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from PIL import Image, UnidentifiedImageError
from PIL.Image import Image as Photo

from acebert.data.photo_cells import ADDRESS
from acebert.data.tables.table import megabytes
from acebert.image_processing_acebert import HEIC_BRANDS
from acebert.space.uploads.limits import Limits

# A zip's directory spends 46 bytes on a file, and its name and times; this leaves room for long names.
DIRECTORY_BYTES_PER_FILE = 512

# Pillow reads more formats, one of them (EPS) by starting another program.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
PHOTO_NAME = re.compile(r"[^/\\]\.(jpe?g|jfif|png|webp|gif|bmp|tiff?|avif|hei[cf])([?#]|$)", re.IGNORECASE)
HIDDEN_NAME = re.compile(r"(^|/)(\.|__MACOSX/)")  # what file managers add
NUMBERED = re.compile(r"(.+?)[ _.-]*\(?\d+\)?")  # "A-1_2" and "A-1 (2)" are photos of A-1


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
        self._zip, self._opened = _open_zip(path, limits)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        self._index: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._numbered: dict[str, list[str]] = defaultdict(list)
        for info in self._zip.infolist():
            entry = _entry_name(info.filename)
            if info.is_dir() or HIDDEN_NAME.search(entry):
                continue
            self._infos[entry] = info
            stem = PurePosixPath(entry).stem
            for key in _path_keys(entry) + _stem_keys(stem):
                self._index[key].append(entry)
            if PHOTO_NAME.search(entry) and (numbered := NUMBERED.fullmatch(stem.casefold())):
                self._numbered[numbered[1]].append(entry)
        self.names = sorted(entry for entry in self._infos if PHOTO_NAME.search(entry))
        self.read_names: set[str] = set()

    def close(self) -> None:
        """Closes the file; no photo can be read from then on."""
        self._opened.close()

    @property
    def unread_names(self) -> list[str]:
        """The photos that nobody has read so far."""
        return [name for name in self.names if name not in self.read_names]

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

        Where there is none, it is the first of those that have a number behind it, as "A-1_1" and "A-1_2" of "A-1".

        Raises:
            `ValueError`: where several photos have the name.
        """
        return self._only(_stem_keys(_entry_name(stem))) or next(iter(self.numbered(stem)), None)

    def numbered(self, stem: str) -> list[str]:
        """The paths in the zip of the photos that have a number behind `stem`, in the order of these."""
        return sorted(self._numbered.get(_entry_name(stem).casefold(), []), key=_by_number)

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
        self.read_names.add(name)
        info = self._infos[name]
        # zipfile unpacks these two step by step and checks that the size is the declared one; others it may not.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("it is compressed by a method other than deflate")
        if info.file_size > self.limits.photo_bytes:
            raise ValueError(f"its file is larger than {megabytes(self.limits.photo_bytes)}")
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError) as error:
            raise ValueError("it is damaged in the zip") from error


def _entry_name(name: str) -> str:
    """A path in a zip as it is looked up: with slashes, and with accents as one character each."""
    return unicodedata.normalize("NFC", name.replace("\\", "/")).removeprefix("./")


def _path_keys(path: str) -> list[tuple[str, str]]:
    """What a photo in a zip is looked up by, the most exact first."""
    base = PurePosixPath(path).name
    return [("path", path), ("any case", path.casefold()), ("base name", base), ("any case base", base.casefold())]


def _by_number(path: str) -> tuple[int, str]:
    """By the number at the end of a photo's name."""
    number = re.search(r"(\d+)\)?$", PurePosixPath(path).stem)
    return int(number[1]) if number else 0, path


def _stem_keys(stem: str) -> list[tuple[str, str]]:
    return [("stem", stem), ("any case stem", stem.casefold())]


def _open_zip(path: Path, limits: Limits) -> tuple[zipfile.ZipFile, ExitStack]:
    """The zip, when all that it declares is within the limits and harmless, and what closes it."""
    name = path.name
    if path.stat().st_size > limits.zip_bytes:
        raise ValueError(f"{name!r} is larger than {megabytes(limits.zip_bytes)}: drop fewer or smaller photos.")
    with ExitStack() as opened:
        file = opened.enter_context(path.open("rb"))
        _check_directory(file, name, limits)
        try:
            archive = opened.enter_context(zipfile.ZipFile(file))
        except (zipfile.BadZipFile, NotImplementedError, struct.error, EOFError, ValueError) as error:
            raise ValueError(f"{name!r} is damaged or cut off: make the zip and upload it again.") from error
        entries = archive.infolist()
        if len(entries) > limits.files:
            raise ValueError(f"{name!r} holds more than {limits.files:,} files: drop fewer.")
        if sum(entry.file_size for entry in entries) > limits.unpacked_bytes:
            raise ValueError(f"{name!r} unpacks to more than {megabytes(limits.unpacked_bytes)}: drop smaller photos.")
        for entry in entries:
            if _leads_out(entry):
                raise ValueError(f"{name!r} holds {entry.filename!r}, a link or a path out of the zip: take it out.")
            if entry.flag_bits & 1:
                raise ValueError(f"{name!r} is encrypted: make the zip without a password.")
        return archive, opened.pop_all()  # accepted: the file stays open


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


def check_photo(data: bytes, limits: Limits) -> None:
    """Decodes a photo once, so that nothing broken gets any further.

    Raises:
        `ValueError`: where it is larger than the limits, in no format that is read, or broken.
    """
    # Of a JPEG, all is read but decoded at an eighth of its size, for speed.
    decode_photo(data, limits, draft_size=(1, 1))


def decode_photo(data: bytes, limits: Limits, draft_size: tuple[int, int] | None = None) -> Photo:
    """Decodes a photo; of several frames the first.

    Args:
        data: the file.
        limits: of `photo_bytes` and, before anything is decoded, of the `pixels` that are decoded. A larger JPEG, as of
            48 megapixels, is decoded at a part of its size.
        draft_size: a JPEG may come out smaller than it is, though not than this.

    Raises:
        `ValueError`: where it is larger than the limits, in no format that is read, or broken.
    """
    if len(data) > limits.photo_bytes:
        raise ValueError(f"its file is larger than {megabytes(limits.photo_bytes)}")
    try:
        with Image.open(io.BytesIO(data), formats=PHOTO_FORMATS) as photo:
            if draft_size or photo.width * photo.height > limits.pixels:
                photo.draft("RGB", draft_size or (photo.width // 2, photo.height // 2))
            fits = photo.width * photo.height <= limits.pixels
            if fits:
                photo.load()
    except Image.DecompressionBombError:
        fits = False
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
            raise ValueError("it is HEIC, the format of iPhones, which isn't read here: convert it to JPEG") from None
        raise ValueError(f"it is no photo that can be read: {', '.join(PHOTO_FORMATS)} can") from None
    except Exception as error:  # what Pillow raises for broken files depends on the format
        raise ValueError("the photo is damaged") from error
    if not fits:
        raise ValueError(f"it has more than {limits.pixels / 1e6:,g} million pixels")
    return photo
