"""Invents the products and the queries of the sample catalogue, and writes them with the products' pictures.

A known share of the titles leaves out what only the picture shows. The queries are synthetic: they are made from the
attributes, and a product is relevant when its attributes meet all that the query asks for.
"""

import dataclasses
import io
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value
from PIL import Image as PILImage
from tqdm.auto import tqdm

from acebert.sample_catalog.drawing import draw
from acebert.sample_catalog.vocabulary import (
    ASKS,
    BRANDS,
    COLOUR_WEIGHTS,
    COLOUR_WORDS,
    GENDER_ASKS,
    GENDER_WORDS,
    HIDDEN_SETS,
    HIDDEN_WEIGHTS,
    HIDEABLE,
    KINDS,
    LINES,
    PATTERN_WEIGHTS,
    PATTERN_WORDS,
    WINDOW,
    WINDOW_COPIES,
)

VERSION = 1  # of what is written: raise it when the same arguments no longer give the same catalogue
FIRST_ID = 1_000_000  # above every id of the fashion dataset, so that both can be concatenated
_MANIFEST, _GENERATOR = "manifest.json", "acebert.sample_catalog"


@dataclass(frozen=True)
class SampleProduct:
    """A product without its picture. The fields but `seed` are columns of the catalogue.

    Attributes:
        id: From `FIRST_ID` on.
        gender, masterCategory, subCategory, articleType, baseColour, season, year, usage: As in the fashion dataset.
        productDisplayName: The title.
        style: A finer kind: "V-Neck", "Stiletto".
        pattern: "Plain", "Striped", ...
        brand: An invented one.
        price: In any one currency.
        hidden: What the title leaves out, comma-joined, of "colour", "pattern" and "kind" (with its style); "" for
            nothing. A plain product's pattern never counts as left out.
        hot_query: What shoppers type to find it; None for some.
        seed: The catalogue's seed, which the picture depends on too.
    """

    id: int
    gender: str
    masterCategory: str  # noqa: N815 (the fashion dataset's spelling)
    subCategory: str  # noqa: N815
    articleType: str  # noqa: N815
    baseColour: str  # noqa: N815
    season: str
    year: float
    usage: str
    productDisplayName: str  # noqa: N815
    style: str
    pattern: str
    brand: str
    price: float
    hidden: str
    hot_query: str | None
    seed: int


@dataclass(frozen=True)
class Query:
    """A shopper's query with what it asks for: for each attribute the accepted values, none for "any"."""

    query_id: int
    query: str
    articleType: tuple[str, ...]  # noqa: N815
    style: tuple[str, ...]
    baseColour: tuple[str, ...]  # noqa: N815
    pattern: tuple[str, ...]
    gender: tuple[str, ...]
    relevant_ids: tuple[int, ...]


_CONSTRAINTS = ("articleType", "style", "baseColour", "pattern", "gender")
_text = Value("string")
FEATURES = Features(
    {
        "id": Value("int64"),
        **{name: _text for name in ("gender", "masterCategory", "subCategory", "articleType", "baseColour", "season")},
        "year": Value("float64"),
        **{name: _text for name in ("usage", "productDisplayName")},
        "image": Image(),
        **{name: _text for name in ("style", "pattern", "brand")},
        "price": Value("float64"),
        **{name: _text for name in ("hidden", "hot_query")},
    }
)
QUERY_FEATURES = Features(
    {
        "query_id": Value("int64"),
        "query": _text,
        **{name: List(_text) for name in _CONSTRAINTS},
        "relevant_ids": List(Value("int64")),
    }
)


# --- Products ---------------------------------------------------------------------------------------------------------


def _pick(rng: np.random.Generator, values: Sequence, weights: Sequence[float] | None = None):
    if weights is None:
        return values[int(rng.integers(len(values)))]
    return values[int(rng.choice(len(values), p=np.asarray(weights) / np.sum(weights)))]


def _noun_phrase(kind: str, style: str | None, noun: str) -> str:
    return noun if style is None else KINDS[kind].styles[style].format(noun=noun)


def _title_case(words: str) -> str:
    return " ".join(word[:1].upper() + word[1:] for word in words.split())


def _title(attributes: Mapping[str, str], hidden: Sequence[str], rng: np.random.Generator) -> str:
    """A title in the shop's manner, without what is hidden."""
    kind, facts = attributes["articleType"], KINDS[attributes["articleType"]]
    line = _pick(rng, LINES)
    colour = "" if "colour" in hidden else COLOUR_WORDS[attributes["baseColour"]][0]
    pattern = "" if "pattern" in hidden or attributes["pattern"] == "Plain" else PATTERN_WORDS[attributes["pattern"]][0]
    noun = ""
    if "kind" not in hidden:
        noun = _pick(rng, facts.nouns[:2])
        noun = _noun_phrase(kind, attributes["style"] if rng.random() < 0.6 else None, noun)
    gender = GENDER_WORDS[attributes["gender"]] if rng.random() < 0.8 else ""
    number = str(int(rng.integers(2, 100)))
    edition = ""
    if "kind" in hidden:
        edition = _pick(rng, (f"Edition {number}", f"No. {number}", f"Collection {number}"))
    elif rng.random() < 0.3:
        edition = number
    template = _pick(
        rng,
        (
            "{brand} {gender} {line} {edition} {colour} {pattern} {noun}",
            "{brand} {gender} {colour} {pattern} {line} {noun} {edition}",
            "{brand} {line} {edition} {gender} {pattern} {noun} {colour}",
            "{brand} {line} {pattern} {noun} {edition} {gender} {colour}",
        ),
    )
    words = template.format(
        brand=attributes["brand"], gender=gender, line=line, edition=edition, colour=colour, pattern=pattern, noun=noun
    )
    return _title_case(words)


def _ask(
    attributes: Mapping[str, str], asks: Sequence[str], rng: np.random.Generator
) -> tuple[str, dict[str, tuple[str, ...]]]:
    """What a shopper types who wants these attributes, in one of the words and orders that people use.

    Args:
        attributes: A product's.
        asks: Names of the attributes to ask for besides the kind. Those that nobody types (a style without a word, the
            gender of a mug) are passed over.

    Returns:
        The query, and for each attribute the accepted values, none for any.
    """
    kind = attributes["articleType"]
    accepted: dict[str, tuple[str, ...]] = {name: () for name in _CONSTRAINTS}
    accepted["articleType"] = (kind,)
    words = dict.fromkeys(("gender", "colour", "pattern"), "")
    noun = _pick(rng, KINDS[kind].nouns)
    if "style" in asks and KINDS[kind].styles[attributes["style"]] != "{noun}":
        noun = _noun_phrase(kind, attributes["style"], noun)
        accepted["style"] = (attributes["style"],)
    if "baseColour" in asks:
        words["colour"] = _pick(rng, COLOUR_WORDS[attributes["baseColour"]])
        accepted["baseColour"] = (attributes["baseColour"],)
    if "pattern" in asks:
        words["pattern"] = _pick(rng, PATTERN_WORDS[attributes["pattern"]])
        accepted["pattern"] = (attributes["pattern"],)
    if "gender" in asks and attributes["gender"] in GENDER_ASKS:
        words["gender"], accepted["gender"] = _pick(rng, GENDER_ASKS[attributes["gender"]])
    orders = (
        "{gender} {colour} {pattern} {noun}",
        "{gender} {pattern} {colour} {noun}",
        "{pattern} {noun} {colour} {gender}",
    )
    return " ".join(_pick(rng, orders, (0.45, 0.35, 0.2)).format(noun=noun, **words).split()), accepted


def _check_count(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def generate_products(num_products: int = 3000, seed: int = 0, hidden_share: float = 0.4) -> list[SampleProduct]:
    """Invents the products, without pictures: the same for the same arguments.

    Args:
        num_products: How many.
        seed: Non-negative.
        hidden_share: Share of the products, 0 to 1, whose titles leave out something that the picture shows; met
            exactly but for rounding.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check_count("num_products", num_products, 1)
    _check_count("seed", seed, 0)
    if not 0 <= hidden_share <= 1:
        raise ValueError(f"hidden_share must be between 0 and 1, got {hidden_share!r}")
    rng = np.random.default_rng([seed, 0])
    window = [entry for entry in WINDOW for _ in range(WINDOW_COPIES)][:num_products]
    others = num_products - len(window)
    weights = np.asarray([facts.weight for facts in KINDS.values()])
    # Every kind gets its share: the fractional parts of the cumulated weights decide, not chance.
    ends = np.floor(np.cumsum(weights / weights.sum()) * others + 0.5).astype(int)
    kinds = np.repeat(list(KINDS), np.diff(ends, prepend=0))
    rng.shuffle(kinds)

    num_hidden = round(hidden_share * num_products)
    in_window = [index for index in range(len(window)) if index % 2 == 0][:num_hidden]
    rest = np.setdiff1d(np.arange(num_products), in_window)
    hides = set(in_window) | set(rng.permutation(rest)[: num_hidden - len(in_window)].tolist())

    products = []
    for index in range(num_products):
        rng = np.random.default_rng([seed, 1, index])
        if index < len(window):
            kind, colour, pattern = window[index]
        else:
            kind = str(kinds[index - len(window)])
            colour = _pick(rng, list(COLOUR_WORDS), COLOUR_WEIGHTS)
            plain = KINDS[kind].plain
            others_weights = np.asarray(PATTERN_WEIGHTS[1:])
            pattern = _pick(
                rng, list(PATTERN_WORDS), [plain, *(others_weights / others_weights.sum() * (1 - plain)).tolist()]
            )
        hidden: tuple[str, ...] = ()
        if index in hides:
            hidden = ("colour", "pattern") if index < len(window) else _pick(rng, HIDDEN_SETS, HIDDEN_WEIGHTS)
            if pattern == "Plain":
                hidden = tuple(name for name in hidden if name != "pattern") or ("colour",)
        products.append(_product(index, seed, kind, colour, pattern, hidden, rng))
    return products


def _product(
    index: int, seed: int, kind: str, colour: str, pattern: str, hidden: tuple[str, ...], rng: np.random.Generator
) -> SampleProduct:
    facts = KINDS[kind]
    low, high = facts.price
    attributes = {
        "articleType": kind,
        "style": _pick(rng, list(facts.styles)),
        "baseColour": colour,
        "pattern": pattern,
        "gender": _pick(rng, facts.genders),
        "brand": _pick(rng, BRANDS),
    }
    warm = kind in ("Sweaters", "Jackets", "Sweatshirts", "Boots", "Scarves")
    hot_query = None
    if rng.random() < 0.85:
        hot_query, _ = _ask(attributes, _pick(rng, *zip(*ASKS, strict=True)), rng)
    return SampleProduct(
        id=FIRST_ID + index,
        masterCategory=facts.category[0],
        subCategory=facts.category[1],
        season=_pick(rng, ("Winter", "Winter", "Fall") if warm else ("Summer", "Summer", "Spring", "Fall", "Winter")),
        year=float(rng.integers(2019, 2026)),
        usage=_pick(rng, facts.usage),
        productDisplayName=_title(attributes, hidden, rng),
        price=round(float(np.exp(rng.uniform(np.log(low), np.log(high))))) + _pick(rng, (-0.01, -0.05, -0.5)),
        hidden=",".join(name for name in HIDEABLE if name in hidden),
        hot_query=hot_query,
        seed=seed,
        **attributes,
    )


def draw_product(product: SampleProduct, size: tuple[int, int] | None = None) -> PILImage.Image:
    """The product's picture, RGB; `size` is its width and height in pixels, by default its own (180 to 320 at most)."""
    return draw(
        product.articleType, product.style, product.baseColour, product.pattern, (product.seed, product.id), size
    )


# --- Queries ----------------------------------------------------------------------------------------------------------


def make_judged_queries(products: Sequence[SampleProduct], seed: int = 0, num_queries: int = 200) -> list[Query]:
    """Shopper-style queries over the products. Each has at least one relevant product, and no two ask for the same.

    Args:
        products: The whole catalogue, all splits.
        seed: Non-negative.
        num_queries: At most so many; a small catalogue may not give as many different ones.
    """
    _check_count("seed", seed, 0)
    _check_count("num_queries", num_queries, 1)
    rng = np.random.default_rng([seed, 2])
    queries: dict[tuple, Query] = {}

    def add(product: SampleProduct, asks: Sequence[str]) -> None:
        text, accepted = _ask(dataclasses.asdict(product), asks, rng)
        key = tuple(accepted.values())
        if key in queries:
            return
        relevant = tuple(
            candidate.id
            for candidate in products
            if all(not values or getattr(candidate, name) in values for name, values in accepted.items())
        )
        queries[key] = Query(query_id=len(queries), query=text, relevant_ids=relevant, **accepted)

    for product in products[: len(WINDOW) * WINDOW_COPIES : WINDOW_COPIES]:
        add(product, ("baseColour", "pattern"))
    choices, shares = zip(*ASKS, strict=True)
    for _ in range(20 * num_queries):
        if len(queries) >= num_queries:
            break
        add(products[int(rng.integers(len(products)))], _pick(rng, choices, shares))
    return list(queries.values())[:num_queries]


# --- The folder -------------------------------------------------------------------------------------------------------


def split_products(
    products: Sequence[SampleProduct], seed: int = 0, validation_share: float = 0.15
) -> dict[str, list[SampleProduct]]:
    """Splits into train and validation so that no title (letter case aside) is in both, and neither is empty.

    Raises:
        ValueError: there are fewer than two titles.
    """
    titles = sorted({product.productDisplayName.casefold() for product in products})
    if len(titles) < 2:
        raise ValueError(
            f"num_products must be larger: {len(products)} can't be split into products to train on and to validate on"
        )
    order = np.random.default_rng([seed, 3]).permutation(len(titles))
    count = min(max(1, round(validation_share * len(titles))), len(titles) - 1)
    validation = {titles[index] for index in order[:count]}
    splits: dict[str, list[SampleProduct]] = {"train": [], "validation": []}
    for product in products:
        splits["validation" if product.productDisplayName.casefold() in validation else "train"].append(product)
    return splits


def _jpeg(product: SampleProduct) -> bytes:
    buffer = io.BytesIO()
    draw_product(product).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def _jpegs(products: Sequence[SampleProduct], num_proc: int) -> Iterator[bytes]:
    if num_proc == 1:
        yield from map(_jpeg, products)
        return
    with multiprocessing.get_context("spawn").Pool(num_proc) as pool:
        yield from pool.imap(_jpeg, products, chunksize=16)


_README = """---
pretty_name: ACE-BERT sample catalogue
license: apache-2.0
language: [en]
task_categories:
- image-to-text
- sentence-similarity
configs:
- config_name: default
  default: true
  data_files:
  - split: train
    path: data/train-*.parquet
  - split: validation
    path: data/validation-*.parquet
- config_name: queries
  data_files:
  - split: test
    path: queries/test-*.parquet
---
# ACE-BERT sample catalogue

Invented products with drawn pictures, made by `python -m acebert.sample_catalog` with {arguments}.
Brands, titles, prices and queries are synthetic; no shop and no photo stands behind them.

{train} products in `train`, {validation} in `validation`; no title is in both. The columns are those of
`ashraq/fashion-product-images-small`, and `style`, `pattern`, `brand`, `price`, `hidden` (what the title leaves out and
only the picture shows) and `hot_query`.

The `queries` configuration holds {queries} queries, the attribute values that each accepts (an empty list accepts any)
and `relevant_ids`: exactly the products, over both splits, whose attributes meet the query.
"""


def _contents(folder: Path) -> dict[str, int]:
    """The folder's files but the manifest and hidden ones, as paths in it, with their sizes in bytes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    sizes.pop(_MANIFEST, None)
    return sizes


def _is_whole(folder: Path, arguments: Mapping[str, float]) -> bool:
    """Whether the folder holds what the arguments give, untouched; raises FileExistsError if it holds anything else."""
    try:
        made = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        made = None
    if not isinstance(made, dict) or made.get("generator") != _GENERATOR:
        raise FileExistsError(f"{folder} is neither empty nor a sample catalogue: name another folder or remove it")
    contents = _contents(folder)
    foreign = sorted(contents.keys() - made["files"].keys())
    if foreign:
        raise FileExistsError(
            f"{folder} holds files that are not the sample catalogue's ({', '.join(foreign[:5])}): "
            "name another folder or remove them"
        )
    return made["arguments"] == arguments and made["files"] == contents


def write_sample_catalog(
    folder: str | os.PathLike, num_products: int = 3000, seed: int = 0, hidden_share: float = 0.4, num_proc: int = 1
) -> Path:
    """Writes the catalogue for `datasets.load_dataset(folder)`: all of it, or, when interrupted, nothing.

    Returns at once when the folder already holds what these arguments give; replaces a catalogue made with others.

    Args:
        folder: Where; made if missing.
        num_products, seed, hidden_share: See `generate_products`.
        num_proc: Processes that draw; the result doesn't depend on it.

    Returns:
        The folder.

    Raises:
        FileExistsError: the folder holds files that this function did not write.
        ValueError: an argument is out of its range.
    """
    _check_count("num_proc", num_proc, 1)
    folder = Path(folder)
    arguments = {"version": VERSION, "num_products": num_products, "seed": seed, "hidden_share": hidden_share}
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and _is_whole(folder, arguments):
        return folder

    products = generate_products(num_products, seed, hidden_share)
    scratch, old = (folder.parent / f".{folder.name}.{os.getpid()}.{end}" for end in ("new", "old"))
    try:
        _write(scratch, products, arguments, num_proc)
        if folder.exists():
            folder.rename(old)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def _write(folder: Path, products: Sequence[SampleProduct], arguments: Mapping[str, float], num_proc: int) -> None:
    seed = int(arguments["seed"])
    splits = split_products(products, seed)
    (folder / "data").mkdir(parents=True)
    (folder / "queries").mkdir()
    images = dict(
        zip(
            (product.id for product in products),
            tqdm(_jpegs(products, num_proc), total=len(products), desc="drawing", unit="product"),
            strict=True,
        )
    )
    for split, members in splits.items():
        rows = [
            {**dataclasses.asdict(product), "image": {"bytes": images[product.id], "path": f"{product.id}.jpg"}}
            for product in members
        ]
        _write_parquet(folder / "data" / f"{split}-00000-of-00001.parquet", rows, FEATURES)
    queries = make_judged_queries(products, seed)
    rows = [dataclasses.asdict(query) for query in queries]
    _write_parquet(folder / "queries" / "test-00000-of-00001.parquet", rows, QUERY_FEATURES)
    counts = {split: len(members) for split, members in splits.items()}
    described = ", ".join(f"{name} {value}" for name, value in arguments.items())
    readme = _README.format(arguments=described, queries=len(queries), **counts)
    (folder / "README.md").write_text(readme, encoding="utf-8")
    manifest = {"generator": _GENERATOR, "arguments": dict(arguments), "files": _contents(folder)}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _write_parquet(path: Path, rows: Sequence[Mapping], features: Features) -> None:
    columns = {name: [row[name] for row in rows] for name in features}
    # Small row groups: one product's picture can be read without decoding thousands.
    pq.write_table(pa.Table.from_pydict(columns, schema=features.arrow_schema), path, row_group_size=100)
