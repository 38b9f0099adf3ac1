"""Texts as shops' exports hold them, cleaned: spaces, accents of two characters, HTML, and spellings of one value."""

import html
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Value

from acebert.data.columns import Columns, replace_column
from acebert.data.notes import tell
from acebert.utils.words import cut

BLOCK_TAGS = (
    "address article br blockquote dd div dl dt h1 h2 h3 h4 h5 h6 hr li ol p pre section table tbody td th tr ul"
)
INLINE_TAGS = "a abbr b big center code del em font i img ins kbd mark q s small span strike strong sub sup tt u"
BLOCK = re.compile(
    rf"<!--.*?-->|<(script|style)\b.*?</\1\s*>|</?({'|'.join(BLOCK_TAGS.split())})(\s[^<>]*)?/?>", re.I | re.S
)
INLINE = re.compile(rf"</?({'|'.join(INLINE_TAGS.split())})(\s[^<>]*)?/?>", re.I)
ENTITY = re.compile(r"&(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# What may need cleaning, for Arrow to find: most texts don't, and Python needn't look at them.
SUSPECT = r"^\s|\s$|\s\s|[\t\n\r\f\v]|<[!/A-Za-z]|&[#A-Za-z]|[^\x00-\x7f]"


def clean_words(text: str) -> str:
    """A text without HTML tags, with its entities decoded, single spaces, and each accented letter as one character.

    `<3` and `<M` stay, for they are no tags of HTML, and so does `AT&T`.
    """
    if "<" in text or "&" in text:
        # Twice, for what was escaped twice: "&amp;lt;b&amp;gt;".
        for _ in range(2):
            text = INLINE.sub("", BLOCK.sub(" ", text))
            text = ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
        text = INLINE.sub("", BLOCK.sub(" ", text))
    return unicodedata.normalize("NFC", " ".join(text.split()))


def clean_texts(products: Dataset, columns: Columns) -> Dataset:
    """The products with clean titles, queries and attributes; a warning counts the values that changed.

    An attribute's values that differ in nothing but letter case get the most frequent spelling, so that "Red" and "red"
    are one value to filter by.
    """
    merged = set(columns.attributes)
    counts: dict[str, int] = {}
    example = ""
    for name in dict.fromkeys(name for name in (columns.title, columns.query, columns.hot_query, *merged) if name):
        if name not in products.column_names or products.features[name] != Value("string"):
            continue
        cells = products.select_columns([name]).with_format("arrow")[:].column(name)
        spellings = clean_spellings(cells, name in merged)
        if not spellings:
            continue
        texts = cells.to_pylist()
        values = [spellings.get(text, text) for text in texts]
        counts[name] = sum(text in spellings for text in texts)
        if not example:
            before = next(text for text in texts if text in spellings)
            example = f", as {cut(before)!r}, which is now {cut(spellings[before])!r}"
        products = replace_column(products, name, values, Value("string"))
    if counts:
        shown = ", ".join(f"{count:,} of {cut(name)!r}" for name, count in counts.items())
        tell(f"Cleaned of spaces, HTML, and different spellings of one value: {shown}{example}.")
    return products


def clean_spellings(cells: pa.ChunkedArray, merge_case: bool) -> dict[str, str | None]:
    """Each value of a column that isn't clean, and what it is when clean; None where nothing is left of it."""
    uniques = pc.value_counts(cells.drop_null())
    values, counts = uniques.field("values"), uniques.field("counts")
    suspects = values.filter(pc.match_substring_regex(values, SUSPECT)).to_pylist()
    spellings: dict[str, str | None] = {}
    for text in suspects:
        if (clean := clean_words(text)) != text:
            spellings[text] = clean or None
    if merge_case:
        spellings |= _merge_case(dict(zip(values.to_pylist(), counts.to_pylist(), strict=True)), spellings)
    return spellings


def _merge_case(counts: Mapping[str, int], spellings: Mapping[str, str | None]) -> dict[str, str | None]:
    """Of values that differ in letter case alone, all but the most frequent or the first, and what they become."""
    totals: Counter[str] = Counter()
    for text, count in counts.items():
        if (clean := spellings.get(text, text)) is not None:
            totals[clean] += count
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for text in totals:
        groups[text.casefold()].append(text)
    chosen = {text: max(group, key=totals.__getitem__) for group in groups.values() if len(group) > 1 for text in group}
    renamed = {text: chosen.get(clean, clean) for text in counts if (clean := spellings.get(text, text)) is not None}
    return {text: to for text, to in renamed.items() if to != text}
