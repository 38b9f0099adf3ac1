"""What the texts of a column mean: numbers and prices in any locale, dates, booleans, lists. The one parser of them.

A column is read as a whole, for "1.299" alone doesn't tell whether it is thirteen hundred or one and a bit: where
another value of the column has a decimal comma, as "19,99", its points group thousands; where another has a decimal
point, or none tells, the point is a decimal one and the comma groups. A value of a form that tells by itself, as
"1.299,00" or "12,5", is read by its own, and money has no third decimal: "1.299 €" is thirteen hundred. In a column
that has both marks, "1.299" and "1,299" can't be told and aren't read.

- A number: `12`, `-3.5`, `1e3`, `1,299.00`, `1.299,00`, `1 299,00`, `1'299.00`, `1,23,456.00`, `12,-`, each also with a
  currency before or behind it: `$12.50`, `12.50 EUR`, `R$ 9,90`, `19 kr`.
- A text: codes that start with zeros (`007`), two numbers (`10-20`), numbers with units (`12 cm`).
- A date: `2026-01-31`, `31.01.2026`, `2026/01/31`; `31/01/2026` and `01/31/2026` where the column tells which; each
  with or without a time.
- A boolean: `true`, `false`, `yes`, `no`, in any case, where the column holds nothing else.
- Several texts: a JSON list, `["new", "sale"]`.
"""

import json
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from functools import lru_cache
from typing import Any, Literal

from babel.numbers import list_currencies
from datasets import List, Value

from acebert.utils.words import cut

ValueKind = Literal["text", "number", "date", "boolean", "list"]

MAX_WRONG_SHARE = 0.05  # of a column's values, up to which the column still counts as numbers
MAX_WRONG_PRICES = 0.5  # where the others have a currency or the column's name says that they are prices
PRICE_NAME = re.compile(
    r"price|cost|msrp|rrp|preis|uvp|prix|precio|prezzo|preço|preco|prijs|pris(?![a-z])|cena|цена|価格|价格|가격",
    re.IGNORECASE,
)
BOOLEANS = {"true": True, "false": False, "yes": True, "no": False}
DATES = ("%d.%m.%Y", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%y")
TIMES = ("", " %H:%M", " %H:%M:%S")

# What shops write for a currency, beside its sign and its code in ISO 4217.
CURRENCY_WORDS = set(
    [
        "kr",
        "kr.",
        "zł",
        "kč",
        "ft",
        "lei",
        "лв",
        "лв.",
        "руб",
        "руб.",
        "rs",
        "rs.",
        "fr.",
        "tl",
        "rm",
        "rp",
        "eur",
        "usd",
        "gbp",
        "euro",
        "euros",
        "円",
        "元",
    ]
)
# Currency, number, currency; the sign may stand before the currency.
AMOUNT = re.compile(r"([+-]?)\s*([^\d+\-.,]+\.?)?\s*([+-]?(?:[.,](?=\d))?\d(?:.*\d)?)\s*(\D+)?")
DASHES = str.maketrans("−–—’`", "---''")
NO_CENTS = re.compile(r"[.,]-{1,2}(?=\D*$)")  # "12,-"
SPACES = re.compile(r"(?<=\d)[ \u00a0\u2009\u202f](?=\d{3}(?!\d))")
EXPONENT = r"(?:[eE][+-]?[0-9]+)?"
WHOLE = r"(?:0|[1-9][0-9]*)"  # "007" is a code
# Forms of numbers, the first that fits counts, and the decimal mark that each tells: None where it may be either.
FORMS = (
    (re.compile(r"[1-9][0-9]{0,2}[.,][0-9]{3}"), None),
    (re.compile(rf"{WHOLE}{EXPONENT}|[0-9]{{1,3}}('[0-9]{{3}})+"), ""),
    (re.compile(rf"{WHOLE}?\.[0-9]+{EXPONENT}|[1-9][0-9]{{0,2}}(,[0-9]{{2,3}})*,[0-9]{{3}}(\.[0-9]+)?"), "."),
    (re.compile(rf"{WHOLE}?,[0-9]+{EXPONENT}|[1-9][0-9]{{0,2}}(\.[0-9]{{3}})+(,[0-9]+)?"), ","),
    (re.compile(r"[1-9][0-9]{0,2}('[0-9]{3})+\.[0-9]+"), "."),
    (re.compile(r"[1-9][0-9]{0,2}('[0-9]{3})+,[0-9]+"), ","),
)


# ----------------------------------------------------------------------------------------------------------------------
# Numbers
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Amount:
    """A text that is a number.

    Args:
        digits: as they are written, with their sign and marks; groups that spaces set apart have "'" between them.
        decimal: "." or "," where the digits tell the decimal mark, "" where they have none, None where they don't tell.
        has_currency: whether a currency stands beside it.
    """

    digits: str
    decimal: str | None
    has_currency: bool

    def value(self, decimal: str) -> float | None:
        """The number, by its own decimal mark or else this one; None if it is beyond what floats hold."""
        mark = self.decimal or decimal
        plain = self.digits.replace("'", "").replace("," if mark == "." else ".", "").replace(mark, ".")
        number = float(plain)
        return number if math.isfinite(number) else None


@lru_cache(maxsize=2**16)
def read_amount(text: str) -> Amount | None:
    """The number that a text is, None if it is none."""
    text = SPACES.sub("'", NO_CENTS.sub("", text.strip().translate(DASHES)))
    found = AMOUNT.fullmatch(text)
    if not found:
        return None
    currencies = [word.strip() for word in found.group(2, 4) if word and word.strip()]
    sign, digits = found[1], found[3]
    if not all(map(_is_currency, currencies)) or (sign and digits[0] in "+-"):
        return None
    if digits[0] in "+-":
        sign, digits = digits[0], digits[1:]
    for form, decimal in FORMS:
        if form.fullmatch(digits):
            return Amount(sign + digits, decimal, bool(currencies))
    return None


@lru_cache(maxsize=2**10)
def _is_currency(word: str) -> bool:
    letters = [char for char in word if unicodedata.category(char) != "Sc"]
    if len(letters) < len(word):  # "$", or "US$" and "R$"
        return len(letters) <= 3 and all(map(str.isalpha, letters))
    return word in list_currencies() or word.lower() in CURRENCY_WORDS


def parse_numbers(texts: Sequence[str | None]) -> list[float | None]:
    """A column's numbers; None for a text that is none, or that the column doesn't tell how to read.

    Args:
        texts: of the column, in any locale; None for an empty cell.
    """
    amounts = [None if text is None else read_amount(text) for text in texts]
    decimal = _column_decimal(amounts)
    return [None if amount is None else _value(amount, decimal) for amount in amounts]


def _column_decimal(amounts: Sequence[Amount | None]) -> str | None:
    """The decimal mark of the column's values, "" where none tells, None where they differ."""
    told = {amount.decimal for amount in amounts if amount and amount.decimal}
    return "" if not told else told.pop() if len(told) == 1 else None


def _value(amount: Amount, decimal: str | None) -> float | None:
    if amount.decimal is None and not decimal:
        if amount.has_currency:
            return amount.value("," if "." in amount.digits else ".")
        if decimal is None:
            return None
    return amount.value(decimal or ".")


# ----------------------------------------------------------------------------------------------------------------------
# Dates and lists
# ----------------------------------------------------------------------------------------------------------------------


def parse_dates(texts: Sequence[str]) -> list[str] | None:
    """A column's dates in ISO 8601; None if not all are dates, or the column doesn't tell the day from the month."""
    if not texts or not texts[0][:1].isdigit():
        return None
    readings: list[list[str]] = []
    for form in (None, *DATES):
        read: list[str] = []
        for text in texts:
            found = _parse_date(text, form)
            if found is None:
                break
            read.append(found)
        if len(read) == len(texts) and read not in readings:
            readings.append(read)
    return readings[0] if len(readings) == 1 else None


def _parse_date(text: str, form: str | None) -> str | None:
    """A date by a form of `strptime`, with or without a time, or as ISO 8601 where the form is None."""
    for clock in TIMES if form else ("",):
        try:
            if form:
                found = datetime.strptime(text, form + clock)
            elif text[4:5] == "-":
                found = datetime.fromisoformat(text.replace("Z", "+00:00"))
            else:
                return None
        except ValueError:
            continue
        is_day = found.time() == time() and found.tzinfo is None
        return (date(found.year, found.month, found.day) if is_day else found).isoformat()
    return None


def parse_list(text: str) -> list[str] | None:
    """The texts of a JSON list; None for any other text."""
    if not text.startswith("["):
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if any(isinstance(value, list | dict) for value in values):
        return None
    return [str(value) for value in values if value is not None]


def split_tags(text: str) -> list[str]:
    """The values of a cell that holds several, as "new, sale", separated by `,`, `;` or `|`, or a JSON list."""
    return parse_list(text) or [part.strip() for part in re.split(r"[,;|]", text) if part.strip()]


def split_paths(text: str) -> list[str]:
    """The paths of categories in a cell with all of their prefixes: "Home > Kitchen" is ["Home", "Home > Kitchen"].

    Several paths are separated as [`split_tags`] separates; steps by ">", or by "/" where there is no ">".
    """
    step = ">" if ">" in text else "/"
    prefixes: dict[str, None] = {}
    for path in split_tags(text):
        steps = [part.strip() for part in path.split(step) if part.strip()]
        prefixes |= {f" {step} ".join(steps[: depth + 1]): None for depth in range(len(steps))}
    return list(prefixes)


# ----------------------------------------------------------------------------------------------------------------------
# Columns
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReadColumn:
    """A column's values by what they mean.

    Args:
        kind: of all of them.
        values: None for an empty cell and for one that isn't read.
        unread: rows of the cells that aren't read.
        note: what was not read, or why the column stays text, with an example; "" for nothing to say.
    """

    kind: ValueKind
    values: list[Any]
    unread: list[int] = field(default_factory=list)
    note: str = ""

    @property
    def feature(self) -> Value | List:
        """The type of a dataset's column of the values."""
        if self.kind == "number":
            return Value(
                "int64" if all(value is None or isinstance(value, int) for value in self.values) else "float64"
            )
        return List(Value("string")) if self.kind == "list" else Value("bool" if self.kind == "boolean" else "string")


def read_values(name: str, texts: Sequence[str | None]) -> ReadColumn:
    """What a column's texts mean.

    Args:
        name: the column's, for the note.
        texts: None for an empty cell.
    """
    filled = [text for text in texts if text is not None]
    if not filled:
        return ReadColumn("text", list(texts))
    if all(text.lower() in BOOLEANS for text in filled):
        return ReadColumn("boolean", [None if text is None else BOOLEANS[text.lower()] for text in texts])
    if filled[0].startswith("[") and all(parse_list(text) is not None for text in filled):
        return ReadColumn("list", [None if text is None else parse_list(text) for text in texts])
    if dates := parse_dates(filled):
        following = iter(dates)
        return ReadColumn("date", [None if text is None else next(following) for text in texts])
    amounts = [None if text is None else read_amount(text) for text in texts]
    decimal = _column_decimal(amounts)
    numbers = [None if amount is None else _value(amount, decimal) for amount in amounts]
    unread = [row for row, text in enumerate(texts) if text is not None and numbers[row] is None]
    if len(unread) == len(filled):
        return ReadColumn("text", list(texts))
    is_price = PRICE_NAME.search(name) or any(amount and amount.has_currency for amount in amounts)
    wrong = f"{len(unread):,} of the {len(filled):,} values of {cut(name)!r}"
    if unread and len(unread) >= (MAX_WRONG_PRICES if is_price else MAX_WRONG_SHARE) * len(filled):
        example = cut(texts[unread[0]])
        note = f"{cut(name)!r} stays text: {wrong} are no numbers, such as {example!r}."
        return ReadColumn("text", list(texts), note=note if len(unread) < MAX_WRONG_PRICES * len(filled) else "")
    note = f"{wrong} can't be read as numbers and are left out, such as {cut(texts[unread[0]])!r}." if unread else ""
    unclear = next((amount for amount in amounts if amount and amount.decimal is None), None)
    if unclear and decimal == "" and not unclear.has_currency:
        note += (
            f" {unclear.digits!r} in {cut(name)!r} is read as {unclear.value('.'):g}: no other value tells its marks."
        )
    return ReadColumn("number", _to_whole(numbers), unread, note.strip())


def _to_whole(numbers: list[float | None]) -> list[float | int | None]:
    """Numbers as integers where all are whole; beyond 2**53 a float64 skips integers."""
    if all(number is None or (number.is_integer() and abs(number) <= 2**53) for number in numbers):
        return [None if number is None else int(number) for number in numbers]
    return list(numbers)
