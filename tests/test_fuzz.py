"""The processor and the catalogue's filter on inputs that nobody thought of: an answer, or a clear error, and no other.

A hundred cases each in the fast tests, always the same; 10,000 each in the slow ones.
"""

import io
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value
from helpers import WORDS, draw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from transformers import BertTokenizer

from acebert.catalog.product_catalog import ProductCatalog
from acebert.data.cleaning import find_photo_error, is_blank
from acebert.image_processing_acebert import AceBertImageProcessor
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor

FAST, SLOW = 100, 10_000
in_both_suites = pytest.mark.parametrize("cases", [FAST, pytest.param(SLOW, marks=pytest.mark.slow)])


def holds_for(cases: int, property_holds: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> None:
    """Tries a property on so many cases of the strategies' values."""
    options = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    settings(max_examples=cases, derandomize=cases == FAST, **options)(given(*strategies)(property_holds))()


@pytest.fixture(scope="module")
def processor() -> AceBertProcessor:
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    return AceBertProcessor(AceBertImageProcessor(patch_size=4, max_num_patches=12), tokenizer, 8, 12)


# ----------------------------------------------------------------------------------------------------------------------
# Processor
# ----------------------------------------------------------------------------------------------------------------------

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=60),  # halves of characters, too
    st.lists(st.sampled_from([*WORDS, "👗", "قميص", "\u200b", "\0", "\u202e"])).map(" ".join),
)
NO_TEXTS = st.one_of(st.none(), st.integers(), st.floats(), st.booleans(), st.binary(), st.lists(st.text()))


@in_both_suites
def test_texts(cases: int, processor: AceBertProcessor) -> None:
    first, last = processor.tokenizer.cls_token_id, processor.tokenizer.sep_token_id

    def tokenizes_or_says_why(text: Any, other: Any) -> None:
        for texts, field, longest in (([text, other], "query", 8), ([text, other], "title", 12)):
            try:
                inputs = processor(text=texts, side="query" if field == "query" else "product", return_tensors="np")
            except ValueError as error:
                assert str(error).startswith((f"{field}[0]", f"{field}[1]", "product 0 has nothing"))
                assert not all(map(is_plain, texts))
                continue
            ids, mask = inputs["input_ids"], inputs["attention_mask"].astype(bool)
            assert ids.shape == mask.shape and ids.shape[1] <= longest
            assert (ids[:, 0] == first).all()
            assert all(row[kept][-1] == last for row, kept in zip(ids, mask, strict=True))

    holds_for(cases, tokenizes_or_says_why, TEXTS | NO_TEXTS, TEXTS)


def is_plain(text: Any) -> bool:
    """Whether nothing is wrong with a text."""
    return isinstance(text, str) and not is_blank(text) and not any("\ud800" <= char <= "\udfff" for char in text)


def check_patches(inputs: Mapping[str, np.ndarray], processor: AceBertProcessor) -> None:
    """Whether what comes out of one photo is a sequence of patches."""
    (rows, columns), mask = inputs["spatial_shapes"][0], inputs["pixel_attention_mask"][0].astype(bool)
    assert 1 <= mask.sum() <= rows * columns <= processor.image_processor.max_num_patches
    places = inputs["pixel_position_ids"][0][mask]
    assert (np.diff(places) > 0).all() and places[0] >= 0 and places[-1] < rows * columns
    values = inputs["pixel_values"][0][mask]
    assert values.min() >= -1.001 and values.max() <= 1.001


PIXEL_TYPES = ["u1", "?", "u2", "i2", ">u2", "i4", "i8", "f2", "f4", "f8", "c8", "U1", "O"]
PIXELS = st.sampled_from(PIXEL_TYPES).flatmap(
    lambda dtype: arrays.arrays(
        dtype,
        arrays.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=9),
        elements=st.floats(0, 1, width=16) if dtype in ("f2", "f4", "f8") else st.none() if dtype == "O" else None,
    )
)


@in_both_suites
def test_pixels(cases: int, processor: AceBertProcessor) -> None:
    def patches_or_says_why(pixels: np.ndarray) -> None:
        try:
            inputs = processor(images=[pixels], return_tensors="np")
        except ValueError as error:
            assert str(error).startswith("images[0] can't be used: ") and "None for no photo" in str(error)
        else:
            check_patches(inputs, processor)

    holds_for(cases, patches_or_says_why, PIXELS)


def encode(image: Image.Image, image_format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format)
    return file.getvalue()


FILES = [encode(draw("bag", "blue", 0), name) for name in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")]


@st.composite
def damaged_files(draw_from: st.DrawFn) -> bytes:
    """A photo's file with some bytes changed, or cut off, or none."""
    data = bytearray(draw_from(st.sampled_from(FILES)))
    for place, value in draw_from(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=4)):
        data[place] = value
    return bytes(data[: draw_from(st.sampled_from([len(data)] * 3) | st.integers(0, len(data)))])


@in_both_suites
@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it finds in broken files
def test_files(cases: int, processor: AceBertProcessor) -> None:
    def patches_or_says_why(data: bytes) -> None:
        error = find_photo_error(data)  # decodes a JPEG at another size, and so may be milder in what it refuses
        assert error is None or error.startswith("can't be read: ")
        try:
            inputs = processor(images=[data], return_tensors="np")
        except ValueError as reason:
            assert str(reason).startswith("images[0] can't be used: ")
        else:
            assert error is None
            check_patches(inputs, processor)

    holds_for(cases, patches_or_says_why, damaged_files() | st.binary(max_size=200))


# ----------------------------------------------------------------------------------------------------------------------
# The catalogue's filter
# ----------------------------------------------------------------------------------------------------------------------

COLOURS, SIZES = ("red", "blue", "👗", "a'b\"c", ""), ("s", "m", "l")
SCHEMA = {"colour": "string", "price": "number", "year": "integer", "sale": "boolean", "sizes": "strings"}


def make_products() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "id": number,
            "title": "red shirt",
            "colour": COLOURS[:4][rng.integers(4)] if rng.random() < 0.8 else None,
            "price": float(rng.integers(-3, 8)) / 2 if rng.random() < 0.8 else None,
            "year": int(rng.integers(0, 4)) if rng.random() < 0.8 else None,
            "sale": bool(rng.random() < 0.5) if rng.random() < 0.8 else None,
            "sizes": [size for size in SIZES if rng.random() < 0.5],
        }
        for number in range(40)
    ]


@pytest.fixture(scope="module")
def catalog(
    tiny_config: Callable[..., Any], processor: AceBertProcessor, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    torch.manual_seed(0)
    types = {"colour": Value("string"), "price": Value("float64"), "year": Value("int64"), "sale": Value("bool")}
    features = Features({"id": Value("int64"), "title": Value("string"), **types, "sizes": List(Value("string"))})
    model = AceBertModel(tiny_config(patch_size=4)).eval()
    with ProductCatalog.build(
        model,
        processor,
        Dataset.from_list(make_products(), features=features),
        tmp_path_factory.mktemp("fuzzed") / "catalog",
        image_column=None,
        index="memory",
    ) as catalog:
        yield catalog


NUMBERS = st.integers(-4, 8).map(lambda number: number / 2)
VALUES = {
    "colour": st.sampled_from(COLOURS),
    "price": NUMBERS,
    "year": st.integers(-1, 4),
    "sale": st.booleans(),
    "sizes": st.sampled_from(SIZES),
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(),
    lambda parts: (
        st.lists(parts, max_size=3)
        | st.tuples(parts, parts)
        | st.dictionaries(st.sampled_from([*SCHEMA, "$or", "$and", "$not", "$gte", "$in", "", "x", 1, None]), parts)
    ),
    max_leaves=6,
)


def conditions_on(name: str) -> st.SearchStrategy[dict[str, Any]]:
    value = VALUES[name]
    conditions = value | st.lists(value, min_size=1, max_size=3)
    if name in ("price", "year"):
        ends = st.none() | NUMBERS
        conditions |= st.tuples(ends, ends)
        conditions |= st.dictionaries(st.sampled_from(["$gte", "$gt", "$lte", "$lt"]), NUMBERS, min_size=1)
    return conditions.map(lambda condition: {name: condition})


FILTERS = st.recursive(
    st.lists(st.sampled_from(list(SCHEMA)).flatmap(conditions_on), min_size=1, max_size=3).map(
        lambda parts: {name: value for part in parts for name, value in part.items()}
    ),
    lambda parts: (
        parts.map(lambda part: {"$not": part})
        | st.lists(parts, min_size=1, max_size=3).map(lambda several: {"$or": several})
        | st.lists(parts, min_size=1, max_size=3).map(lambda several: {"$and": several})
        | st.tuples(parts, conditions_on("year")).map(lambda two: {**two[0], **two[1]})
    ),
    max_leaves=6,
)


def lets_through(filters: Mapping[str, Any], product: Mapping[str, Any]) -> bool:
    """What the filter's documentation says, word by word, on one product."""

    def meets(name: str, asked: Any) -> bool:
        if name == "$not":
            return not lets_through(asked, product)
        if name in ("$and", "$or"):
            return (all if name == "$and" else any)(lets_through(part, product) for part in asked)
        has = product[name]
        if has is None:
            return False
        if isinstance(asked, tuple):
            return (asked[0] is None or has >= asked[0]) and (asked[1] is None or has <= asked[1])
        if isinstance(asked, Mapping):
            tests = {"$gte": operator.ge, "$gt": operator.gt, "$lte": operator.le, "$lt": operator.lt}
            return all(tests[key](has, end) for key, end in asked.items())
        one_of, values = (x if isinstance(x, list) else [x] for x in (asked, has))
        return any(value in one_of for value in values)

    return all(meets(name, asked) for name, asked in filters.items())


@in_both_suites
def test_filters_let_through_what_they_say(cases: int, catalog: ProductCatalog) -> None:
    products, vector = make_products(), catalog.encode_queries(["red"])[0]

    def counts_and_finds_the_same(filters: dict[str, Any]) -> None:
        wanted = {product["id"] for product in products if lets_through(filters, product)}
        try:
            count = catalog.count(filters)
        except ValueError as error:  # a range from high to low, or open at both ends
            assert "The range on" in str(error)
            return
        assert count == len(wanted)
        assert {hit.id for hit in catalog.search(vector=vector, filters=filters, top_k=40)} == wanted

    holds_for(cases, counts_and_finds_the_same, FILTERS)


@in_both_suites
def test_what_is_no_filter_is_refused(cases: int, catalog: ProductCatalog) -> None:
    def counts_or_says_why(filters: Any) -> None:
        try:
            count = catalog.count(filters)
        except ValueError as error:
            assert str(error)
        else:
            assert 0 <= count <= 40

    holds_for(cases, counts_or_says_why, ANYTHING | st.dictionaries(st.sampled_from(list(SCHEMA)), ANYTHING))
