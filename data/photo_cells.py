"""Cells that name photos: several in one cell, and files as Windows names them or in another letter case."""

import base64
import binascii
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PureWindowsPath

from acebert.data.values import parse_list
from acebert.utils.words import cut

ADDRESS = re.compile(r"(https?:)?//[^/\s]", re.IGNORECASE)
DATA_ADDRESS = re.compile(r"data:image/[\w.+-]+(;[\w=.-]+)*;base64,", re.IGNORECASE)
BARE_BASE64 = re.compile(r"(/9j/|iVBORw0KGgo|R0lGOD|UklGR)[A-Za-z0-9+/\s]{40,}={0,2}")  # JPEG, PNG, GIF, WebP
SEPARATORS = "|\n;,"
PHOTO_ENDING = re.compile(r"\.(jpe?g|jfif|png|webp|gif|bmp|tiff?|avif|hei[cf])\s*([?#].*)?$", re.IGNORECASE)


def split_photos(cell: str) -> list[str]:
    """The photos that a cell names: one, or several as a JSON list or separated by `,`, `;`, `|` or lines.

    A comma or semicolon separates where each part looks like a photo: a name with a photo's ending or, where the first
    is one, an address. So those within an address or a file's name stay.
    """
    cell = cell.strip()
    if DATA_ADDRESS.match(cell) or BARE_BASE64.match(cell):
        return [cell]
    if (listed := parse_list(cell)) is not None:
        return [part.strip() for part in listed if part.strip()]
    cell = cell.strip(SEPARATORS + " \n")
    for separator in SEPARATORS:
        parts = [part.strip() for part in cell.split(separator) if part.strip()]
        looks_like = ADDRESS.match if parts and ADDRESS.match(parts[0]) else PHOTO_ENDING.search
        if len(parts) > 1 and (separator in "|\n" or all(map(looks_like, parts))):
            return parts
    return [cell] if cell else []


def is_address(name: str) -> bool:
    """Whether a photo's name is a web address."""
    return bool(ADDRESS.match(name)) or "://" in name


def find_placeholder(names: Iterable[str]) -> tuple[str, int] | None:
    """The photo that so many products share that it is likely a placeholder, as "no-image.png", and how many do."""
    counts = Counter(names)
    name, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    return (name, count) if count >= max(4, 0.2 * counts.total()) else None


def decode_photo_text(text: str) -> bytes | None:
    """The bytes of a photo that stands in the cell itself, as a data URI or in base64; None for any other text.

    Raises:
        ValueError: where the base64 is broken.
    """
    start = DATA_ADDRESS.match(text)
    if not start and not BARE_BASE64.match(text):
        return None
    try:
        return base64.b64decode("".join(text[start.end() if start else 0 :].split()), validate=True)
    except binascii.Error as error:
        raise ValueError(f"is a photo in base64 that is broken ({error}): {cut(text)}") from None


class PhotoFolder:
    """Finds photos by the names that a table gives them, relative to a folder.

    Args:
        folder: where the table lies.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = str(folder)
        self._list = lru_cache(maxsize=10_000)(_list_folder)

    def find(self, name: str) -> str | None:
        """The path of the file with this name, None if there is none.

        Tried in this order: the name as it is; with Windows' backslashes as slashes; in any letter case, and with
        accents of one character or two. Of an absolute path that isn't there, as another machine's, the end that is
        below the folder.
        """
        exact = os.path.join(self.folder, name)
        if os.path.isfile(exact):
            return exact
        windows = PureWindowsPath(name)
        parts = [part for part in windows.parts if part != windows.anchor and part != "."]
        starts = range(len(parts)) if windows.anchor else range(1)
        return next((found for start in starts if (found := self._walk(parts[start:]))), None)

    def first(self, names: Iterable[str]) -> str | None:
        """The path of the first of the names that is there."""
        return next((found for name in names if (found := self.find(name))), None)

    def _walk(self, parts: list[str]) -> str | None:
        path = self.folder
        for part in parts:
            if part == "..":
                path = os.path.join(path, part)
                continue
            entry = self._list(path).get(_key(part))
            if entry is None:
                return None
            path = os.path.join(path, entry)
        return path if parts and os.path.isfile(path) else None


def _list_folder(path: str) -> dict[str, str]:
    """A folder's entries by what they are looked up by; of several that differ in letter case, the first by name."""
    try:
        return {_key(name): name for name in sorted(os.listdir(path), reverse=True)}
    except OSError:
        return {}


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def beside(path: Path) -> str:
    """The folder that a source's photos are relative to."""
    return str(path.parent if path.is_file() else path)
