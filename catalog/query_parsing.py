"""What a query says about prices, exclusions, sizes and attribute values: filters and boosts that can be taken back.

    "red dress under 50 not striped"

is the words "red dress", `{"price": {"$lt": 50}}`, `{"$not": {"pattern": ["Striped"]}}`, and a boost of what has the
colour red. Only what the catalogue's own attributes can answer is read; the rest stays words.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from acebert.catalog.words import WORDS_ATTRIBUTE, has_digit, naming_attributes, spellings, split_words

PRICE_NAMES = ("price", "preis", "prix", "precio", "prezzo", "cost")
_CURRENCY = r"[$€£¥₹]|(?:eur|euros?|usd|dollars?|bucks|gbp|pounds?|quid|rupees?|rs\.?|inr|chf|yen)(?![\w])"
_AMOUNT = (
    rf"(?P<{{before}}>(?:{_CURRENCY})\s*)?(?P<{{name}}>\d+(?:[.,]\d+)*k?)(?P<{{after}}>\s*(?:{_CURRENCY}))?(?![\w%])"
)
# A number that one of these follows is no price.
_UNIT = (
    r"(?!\s*(?:years?|yrs?|months?|weeks?|days?|hours?|hrs?|minutes?|mins?|inch(?:es)?|feet|ft|cm|mm|km|m|miles?|kg|g|"
    r"grams?|lbs?|oz|ounces?|l|litres?|liters?|ml|mb|gb|tb|hz|mhz|ghz|w|watts?|v|volts?|mah|mp|megapixels?|pieces?|pcs|"
    r"packs?|sets?|people|persons?|players?|pages?|percent|times|x)\b|\s*[\"″'′%])"
)


def _amount(name: str = "number") -> str:
    return _AMOUNT.format(name=name, before=f"{name}_before", after=f"{name}_after") + _UNIT


# English, and German, whose prices look as "1.299,00 €".
_UNDER = r"(?:under|below|less\s+than|cheaper\s+than|lower\s+than|unter|(?:weniger|günstiger|billiger)\s+als|<(?!=))"
_UP_TO = (
    r"(?:up\s+to|at\s+most|(?:not|no)\s+more\s+than|max(?:imum|imal)?\.?|within|not\s+over|bis(?:\s+zu)?|"
    r"höchstens|<=|≤)"
)
_OVER = r"(?:over|above|more\s+than|higher\s+than|über|mehr\s+als|>(?!=))"
_FROM = r"(?:at\s+least|from|starting\s+at|min(?:imum|destens)?\.?|not\s+under|ab|>=|≥)"
_PRICED = r"(?<![\w-])(?:(?P<priced>(?:for|costing|priced?(?:\s+at)?)\s+))?"

RANGE = re.compile(
    rf"{_PRICED}(?P<cue>between\s+|from\s+|zwischen\s+|von\s+)?{_amount('low')}\s*"
    rf"(?:-|–|—|\bto\b|\band\b|\bbis\b|\bund\b)\s*{_amount('high')}",
    re.IGNORECASE,
)
ONE_SIDED: tuple[tuple[re.Pattern, str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), bound)
    for pattern, bound in (
        (rf"{_PRICED}{_UP_TO}\s*{_amount()}", "$lte"),
        (rf"{_PRICED}{_FROM}\s*{_amount()}", "$gte"),
        (rf"{_PRICED}{_UNDER}\s*{_amount()}", "$lt"),
        (rf"{_PRICED}{_OVER}\s*{_amount()}", "$gt"),
        (rf"{_PRICED}{_amount()}\s*(?:or|and)\s+(?:less|under|below|cheaper)\b", "$lte"),
        (rf"{_PRICED}{_amount()}\s*(?:or|and)\s+(?:more|over|above|up)\b", "$gte"),
    )
)
EXCLUDED = re.compile(
    r"(?<![\w-])(?:(?:that|which)(?:['’]s|\s+(?:is|are|has|have))\s+)?(?:but\s+)?"
    r"(?P<cue>not|without|w/o|except(?:\s+for)?|excluding|(?:other|rather)\s+than|apart\s+from|anything\s+but|minus|"
    r"no|non)[\s-]+(?=\w)"
    r"|(?<!\S)[-!](?=[^\W\d_])",
    re.IGNORECASE,
)
AND_ALSO = re.compile(r"\s*(?:,\s*(?:or|and|nor)?|/|\b(?:or|and|nor)\b)\s*(?:not\s+|without\s+|no\s+)?", re.IGNORECASE)
BETWEEN = re.compile(r"(?:any|a|an|the|in|for|from|by|of|with|made)\s+", re.IGNORECASE)  # not and what is excluded
LEFT_OVER = re.compile(r"[(\[]\s*[)\]]|(?<=\s)[,;]+(?=\s)|^[\s,;]+|[\s,;]+$")  # of the signs around what was read
POSSESSIVE = re.compile(r"(?<=\w)['’]s\b|(?<=s)['’](?!\w)", re.IGNORECASE)
APOSTROPHE = re.compile("['’]")
WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
LONGEST_VALUE = 4  # words of an attribute value in a query
LEAST_JOINED = 4  # letters of words that are written as one, or apart: "flipflops", "t shirt"


@dataclass(frozen=True)
class Chip:
    """A part of a query that was understood.

    Args:
        words: that part as typed. `as_words=[words]` of a search takes it as plain words again.
        effect: "filter" leaves out what doesn't meet it, "boost" ranks what meets it higher.
        filters: what it means, as a search's `filters`.
        label: the same in words, "price under 50".
    """

    words: str
    effect: Literal["filter", "boost"]
    filters: dict[str, Any]
    label: str

    def met_by(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a product with these attributes has one of the values that a boost is for."""
        for part in self.filters.get("$or", [self.filters]):
            for name, wanted in part.items():
                value = attributes.get(name)
                if not set(wanted).isdisjoint(value if isinstance(value, list) else [value]):
                    return True
        return False


@dataclass(frozen=True)
class Understood:
    """A query, taken apart.

    Args:
        text: the words that are left for the encoder; all of them where nothing else would be left.
        chips: what the other words mean.
    """

    text: str
    chips: tuple[Chip, ...] = ()


class QueryParser:
    """Reads queries by a catalogue's attributes.

    Args:
        attributes: name to kind.
        values: of the attributes that hold texts, those to recognise.
        find_words: of exact words those that any product has.
    """

    def __init__(
        self,
        attributes: Mapping[str, str],
        values: Mapping[str, Collection[str]],
        find_words: Callable[[Collection[str]], Collection[str]] = lambda words: (),
    ) -> None:
        self.price = _find_price(attributes)
        self.find_words = find_words
        self.values: dict[str, list[tuple[str, str]]] = {}  # a value's words to attribute and value
        self.joined: dict[str, list[tuple[str, str]]] = {}  # likewise its words as one
        self.containing: dict[str, list[tuple[str, str]]] = {}  # likewise each word and pair of words in it
        for name, several in values.items():
            for value in several:
                # "Levi's" is typed as "levi's", "levi" and "levis".
                for words in {tuple(_plain_words(value)), tuple(_plain_words(APOSTROPHE.sub("", value)))}:
                    self._add(name, value, words)
        self.naming = set(naming_attributes(attributes))
        self.names = {" ".join(_plain_words(_spaced(name))): name for name in values}

    def _add(self, name: str, value: str, words: Sequence[str]) -> None:
        """Makes a value of an attribute known by its words."""
        pair = name, value
        if words:
            self.values.setdefault(" ".join(words), []).append(pair)
        for joined in _joined(words):
            self.joined.setdefault(joined, []).append(pair)
        for length in range(1, min(LONGEST_VALUE, len(words)) + 1):
            for first in range(len(words) - length + 1):
                self.containing.setdefault(" ".join(words[first : first + length]), []).append(pair)

    def parse(self, text: str, as_words: Collection[str] = ()) -> Understood:
        """Takes a query apart.

        Args:
            text: as typed.
            as_words: parts of it that are words and nothing else.
        """
        kept = {part.casefold().strip() for part in as_words}
        chips: list[Chip] = []
        left = text
        for read in (self._read_range, self._read_bounds, self._read_exclusions, self._read_named):
            left = read(left, kept, chips)
        left = " ".join(LEFT_OVER.sub(" ", left).split()) if chips else left
        left = " ".join(left.split())
        chips += self._read_values(left, kept)
        return Understood(left if WORD.search(left) else text, tuple(chips))

    def _read_range(self, text: str, kept: Collection[str], chips: list[Chip]) -> str:
        def read(match: re.Match) -> str:
            signs = [match[f"{end}_{side}"] for end in ("low", "high") for side in ("before", "after")]
            marked = match["cue"] or match["priced"] or any(signs)
            low, high = _number(match["low"]), _number(match["high"])
            if self.price is None or not marked or low > high or _is_kept(match[0], kept):
                return match[0]
            label = f"{_spaced(self.price)} {low:g} to {high:g}"
            chips.append(Chip(match[0].strip(), "filter", {self.price: {"$gte": low, "$lte": high}}, label))
            return " "

        return RANGE.sub(read, text)

    def _read_bounds(self, text: str, kept: Collection[str], chips: list[Chip]) -> str:
        words = {"$lte": "up to", "$gte": "from", "$lt": "under", "$gt": "over"}
        for pattern, bound in ONE_SIDED:

            def read(match: re.Match, bound: str = bound) -> str:
                # "air max 90" and "AB 1234" say no price where products are called so.
                name = "".join(_plain_words(match[0]))
                named = not name.isdigit() and self.find_words([name])
                if self.price is None or named or _is_kept(match[0], kept):
                    return match[0]
                number = _number(match["number"])
                label = f"{_spaced(self.price)} {words[bound]} {number:g}"
                chips.append(Chip(match[0].strip(), "filter", {self.price: {bound: number}}, label))
                return " "

            text = pattern.sub(read, text)
        return text

    def _read_exclusions(self, text: str, kept: Collection[str], chips: list[Chip]) -> str:
        start = 0
        while cue := EXCLUDED.search(text, start):
            end, several = cue.end(), []
            while found := self._excluded_term(text, end, surely=(cue["cue"] or "-").casefold() not in ("no", "non")):
                filters, end = found
                several.append(filters)
                also = AND_ALSO.match(text, end)
                if not also or not self._excluded_term(text, also.end(), surely=False):
                    break
                end = also.end()
            part = text[cue.start() : end].strip()
            if not several or _is_kept(part, kept):
                start = cue.end()
                continue
            filters = several[0] if len(several) == 1 else {"$or": several}
            chips.append(Chip(part, "filter", {"$not": filters}, part if part[0] != "-" else f"not {part[1:]}"))
            text = f"{text[: cue.start()]} {text[end:]}"
            start = cue.start()
        return text

    def _excluded_term(self, text: str, start: int, surely: bool) -> tuple[dict[str, Any], int] | None:
        """What is excluded at a place, and where it ends: attribute values, and words that titles have."""
        while between := BETWEEN.match(text, start):
            start = between.end()
        for phrase, end in _phrases(text, start):
            for words in _spelled(phrase):
                if words in self.containing:
                    # Of "not blue", navy blue is one too; but Red Tape is no colour, where another attribute has red.
                    named = {name for name, _ in self.values.get(words, ())}
                    found = [pair for pair in self.containing[words] if not named or pair[0] in named]
                    # A brand, or a word that is no whole value, may stand in the title of a product without the value.
                    if named <= self.naming and (titled := self._titled(phrase)):
                        return {"$or": [_any_of(found), titled]}, end
                    return _any_of(found), end
        phrase, end = next(reversed(list(_phrases(text, start))), ((), start))
        titled = self._titled(phrase) if surely else None
        return None if titled is None else (titled, end)

    def _titled(self, phrase: Sequence[str]) -> dict[str, Any] | None:
        """A filter for products with all words of a phrase; None where no product has one of them."""
        parts = []
        for word in phrase:
            forms = self.find_words(sorted({*spellings(word), *_plurals(word)}))
            if not forms:
                return None
            parts.append({WORDS_ATTRIBUTE: sorted(forms)})
        return {"$and": parts} if len(parts) > 1 else parts[0] if parts else None

    def _read_named(self, text: str, kept: Collection[str], chips: list[Chip]) -> str:
        """Values that are named: "size M", "colour: red"."""
        for name_words, name in self.names.items():
            called = {form for form in (name_words, name_words.split(" ")[-1]) if form}
            called |= {form for word in called for form in (word.removesuffix("s"), f"{word}s")}
            pattern = (
                rf"(?<![\w-])(?:in\s+)?(?:{'|'.join(map(re.escape, sorted(called, key=len, reverse=True)))})\s*[:=]?\s*"
            )
            start = 0
            while cue := re.compile(pattern, re.IGNORECASE).search(text, start):
                start = cue.end()
                for phrase, end in _phrases(text, cue.end()):
                    values = self._values_called(phrase, name)
                    part = text[cue.start() : end].strip()
                    if values and not _is_kept(part, kept):
                        label = f"{_spaced(name)} {', '.join(values)}"
                        chips.append(Chip(part, "filter", {name: values}, label))
                        text, start = f"{text[: cue.start()]} {text[end:]}", cue.start()
                        break
        return text

    def _values_called(self, phrase: Sequence[str], name: str) -> list[str]:
        """The values of an attribute that a phrase says: whole, or a number in them, as "8" in "UK 8"."""
        found = [*self.values.get(" ".join(phrase), ()), *self.joined.get("".join(phrase), ())]
        if not found and len(phrase) == 1 and phrase[0].isdigit():
            alone = re.compile(rf"(?<![\d.,]){phrase[0]}(?![.,]?\d)")
            found = [pair for pair in self.containing.get(phrase[0], ()) if alone.search(pair[1])]
        return list(dict.fromkeys(value for other, value in found if other == name))

    def _read_values(self, text: str, kept: Collection[str]) -> list[Chip]:
        """Values that are said without their attribute's name: a boost, for the same word may mean something else."""
        chips, start = [], 0
        while word := WORD.search(text, start):
            start = word.end()
            for phrase, end in _phrases(text, word.start()):
                found = next((self.values[form] for form in _spelled(phrase) if form in self.values), None)
                if found is None:
                    *first, last = phrase or [""]
                    joined = ("".join((*first, form)) for form in (*spellings(last), *_plurals(last)))
                    found = next((self.joined[form] for form in joined if form in self.joined), None)
                part = text[word.start() : end]
                if found and not _is_kept(part, kept):
                    label = " or ".join(f"{_spaced(name)} {value}" for name, value in found)
                    chips.append(Chip(part, "boost", _any_of(found), label))
                    start = end
                    break
        return chips


def _find_price(attributes: Mapping[str, str]) -> str | None:
    numbers = [name for name, kind in attributes.items() if kind in ("integer", "number")]
    for wanted in PRICE_NAMES:
        called = [name for name in numbers if wanted in name.casefold()]
        if called:
            return min(called, key=len)
    return None


def _any_of(found: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A filter for any of some values of some attributes."""
    by_name: dict[str, list[str]] = {}
    for name, value in found:
        by_name.setdefault(name, []).append(value)
    parts = [{name: sorted(set(values))} for name, values in by_name.items()]
    return parts[0] if len(parts) == 1 else {"$or": parts}


def _phrases(text: str, start: int) -> list[tuple[tuple[str, ...], int]]:
    """The words that begin at a place, and where the last of them ends: four of them first, then three, two, one."""
    found: list[tuple[tuple[str, ...], int]] = []
    end = start
    for _ in range(LONGEST_VALUE):
        word = WORD.match(text, end)
        if word is None:
            break
        words = (*(found[-1][0] if found else ()), *_plain_words(word[0]))
        found.append((words, word.end()))
        end = word.end()
        while end < len(text) and text[end] in " \t":
            end += 1
    return found[::-1]


def _spelled(words: Sequence[str]) -> list[str]:
    """A phrase, also with its last word in the singular and in the plural."""
    if not words:
        return []
    *first, last = words
    return [" ".join((*first, form)) for form in dict.fromkeys((*spellings(last), *_plurals(last)))]


def _plurals(word: str) -> tuple[str, ...]:
    """How the plural of an English word may be written."""
    return (f"{word}s", f"{word}es", f"{word[:-1]}ies" if word.endswith("y") else f"{word}s")


def _joined(words: Sequence[str]) -> list[str]:
    """A value's words as one, where that isn't too short to be meant; a size of two words also the other way round."""
    whole = "".join(words)
    if any(map(has_digit, words)):
        return [whole, "".join(words[::-1])] if len(words) == 2 else [whole]
    return [whole] if len(whole) >= LEAST_JOINED else []


def _plain_words(text: str) -> list[str]:
    """The words of a text, in lower case, without accents and the s of possession."""
    return [word for chunk in split_words(POSSESSIVE.sub("", text)) for word in chunk]


def _spaced(name: str) -> str:
    """An attribute's name in words: `baseColour` is "base colour"."""
    return " ".join(re.sub(r"(?<=[^\W\d_])(?=[A-Z])", " ", name).replace("_", " ").casefold().split())


def _is_kept(part: str, kept: Collection[str]) -> bool:
    return part.casefold().strip() in kept


def _number(text: str) -> float:
    """A number as a shopper types it: the last sign is the decimal one where it has one or two digits after it."""
    digits = text.rstrip("kK")
    decimals = re.search(r"[.,](\d{1,2})$", digits)
    whole = digits[: decimals.start()] if decimals else digits
    number = float(re.sub(r"[.,]", "", whole) + (f".{decimals[1]}" if decimals else ""))
    return number * 1_000 if digits != text else number
