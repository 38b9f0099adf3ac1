"""Bad and odd input, kind by kind, and what each part of the project does with it.

A row of a table is a name, the input, and what happens: a text is what the error says, with the field, the place and
the remedy; anything else is what comes out. Odd is what looks wrong and is right: it has to work.
"""

import io
import json
import math
import os
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import PartialState
from datasets import Dataset, Features, Value
from helpers import WORDS, draw, free_port, product_rows
from PIL import Image
from transformers import AutoTokenizer, BertTokenizer

from acebert import evaluate_accelerate, train_accelerate
from acebert.catalog.product_catalog import ProductCatalog
from acebert.data import cleaning
from acebert.data.cleaning import BadRow, find_photo_error, keep_good_rows
from acebert.data.collators import PairCollator
from acebert.data.columns import Columns
from acebert.data.corpus import Corpus
from acebert.data.pairs import PairDataset
from acebert.data.query_templates import QueryTemplates
from acebert.data.sources import hold_out, load_products
from acebert.encoding.corpus_encoder import collate_queries
from acebert.evaluation.queries import read_queries, read_query_config
from acebert.evaluation.shopper_queries import Synonyms
from acebert.evaluation.tasks import judged_task
from acebert.image_processing_acebert import AceBertImageProcessor
from acebert.modeling_acebert import AceBertForRetrieval, AceBertModel
from acebert.processing_acebert import AceBertProcessor
from acebert.space.uploads import open_upload
from acebert.space.uploads.columns import UploadColumns
from acebert.space.uploads.limits import Limits
from acebert.space.uploads.photo_zip import check_photo
from acebert.space.uploads.products import read_products


def table(*rows: tuple[Any, ...]) -> pytest.MarkDecorator:
    """Runs a test for each row, under the row's name."""
    return pytest.mark.parametrize(("given", "happens"), [pytest.param(*row[1:], id=row[0]) for row in rows])


def encode(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def parquet(**columns: list[Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def claim_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is as large as that."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(100))),
        (b"IEND", b""),
    ]
    packed = [struct.pack(">I", len(data)) + name + data for name, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(part + struct.pack(">I", zlib.crc32(part[4:])) for part in packed)


def closed(image: Image.Image) -> Image.Image:
    image.close()
    return image


PHOTO = draw("shirt", "red", 0)
PNG, JPEG = encode(PHOTO), encode(PHOTO.resize((180, 240)), "JPEG")
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 36, 3), dtype=np.uint8))
HUNDRED_THOUSAND = "red " * 25_000
HALF = "red \ud800 shirt"  # half of an emoji, as JSON may hold

BROKEN_FILES = (
    ("zero bytes", b"", "its 0 bytes are in no image format"),
    ("one byte", b"\xff", "its 1 bytes are in no image format"),
    ("text", b"not a photo", "in no image format"),
    ("web page", b"<!DOCTYPE html><title>404</title>", "in no image format"),
    ("PDF", b"%PDF-1.7 1 0 obj", "in no image format"),
    ("zip", b"PK\3\4" + bytes(40), "in no image format"),
    ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "in no image format"),
    ("PNG of a header alone", PNG[:33], "in no image format"),
    ("PNG cut off", encode(NOISE)[:900], "truncated"),
    ("JPEG cut off", JPEG[:-300], "truncated"),
    ("GIF cut off", encode(NOISE, "GIF")[:1200], "truncated"),
    ("WebP cut off", encode(NOISE, "WEBP")[:200], "."),
    ("decompression bomb", claim_size(30_000, 30_000), "900000000 pixels"),
)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n"


@pytest.fixture(scope="module")
def processor() -> AceBertProcessor:
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    return AceBertProcessor(AceBertImageProcessor(patch_size=8, max_num_patches=12), tokenizer)


@pytest.fixture(scope="module")
def model(tiny_config: Callable[..., Any]) -> AceBertModel:
    torch.manual_seed(0)
    return AceBertModel(tiny_config()).eval()


# ----------------------------------------------------------------------------------------------------------------------
# Processor
# ----------------------------------------------------------------------------------------------------------------------


@table(
    *BROKEN_FILES,
    ("EPS, which would start a program", EPS, "none is started here"),
    ("path of nothing", "no/such.jpg", "No such file"),
    ("path of a folder", "/", "Is a directory"),
    ("empty path", "", "the path is empty"),
    ("blank path", " ", "the path is empty"),
    ("path with a NUL", "a\0b.jpg", "null"),
    ("address", "https://example.com/a.jpg", "opens no network"),
    ("base64", "data:image/png;base64,iVBORw0KGgo=", "No such file"),
    ("dict of nothing", {"bytes": None, "path": None}, 'under "bytes" or "path"'),
    ("dict of other keys", {"url": "a.jpg"}, 'under "bytes" or "path"'),
    ("dict of a number", {"bytes": None, "path": 3}, "int is no photo"),
    ("0x0 pixels", Image.new("RGB", (0, 0)), "its size is 0x0"),
    ("0x5 pixels", Image.new("RGB", (0, 5)), "its size is 0x5"),
    ("closed image", closed(PHOTO.copy()), "closed"),
    ("NaN pixels", np.full((4, 4, 3), np.nan), "must lie between 0 and 1, got nan"),
    ("infinite pixels", np.full((4, 4, 3), np.inf), "must lie between 0 and 1, got inf"),
    ("floats up to 255", np.full((4, 4, 3), 255.0), "must lie between 0 and 1"),
    ("negative floats", np.full((4, 4, 3), -0.5), "must lie between 0 and 1"),
    ("integers up to 300", np.full((4, 4, 3), 300), "must lie between 0 and 255"),
    ("negative integers", np.full((4, 4, 3), -1, np.int8), "must lie between 0 and 255"),
    ("NaN in mode F", Image.fromarray(np.full((4, 4), np.nan, np.float32)), "must lie between 0 and 1"),
    ("negative in mode I", Image.fromarray(np.full((4, 4), -5, np.int32)), "must lie between 0 and 65535"),
    ("complex pixels", np.zeros((4, 4, 3), complex), "dtype complex128"),
    ("array of objects", np.array([[None, 1]]), "dtype object"),
    ("array of texts", np.array([["a", "b"]]), "dtype <U1"),
    ("2 channels", np.zeros((8, 8, 2), np.uint8), "which axis of the shape"),
    ("5 channels", np.zeros((8, 8, 5), np.uint8), "which axis of the shape"),
    ("channels first or last", np.zeros((3, 9, 3), np.uint8), "input_data_format"),
    ("no dimension", np.array(3), "must hold pixels"),
    ("one dimension", np.zeros(5), "must hold pixels"),
    ("five dimensions", np.zeros((1, 1, 8, 8, 3)), "must hold pixels"),
    ("empty array", np.zeros((0, 4, 3), np.uint8), "must hold pixels"),
    ("tensor without data", torch.zeros(3, 8, 8, device="meta"), "no data"),
    ("number", 3, "int is no photo"),
    ("NaN", math.nan, "float is no photo"),
    ("open file", io.BytesIO(PNG), "BytesIO is no photo"),
)
def test_bad_photos(given: Any, happens: str, processor: AceBertProcessor) -> None:
    with pytest.raises(ValueError, match=rf"images\[1\] can't be used: .*{happens}.*pass None for no photo"):
        processor(text=["red shirt", "mug"], images=[PHOTO, given], return_tensors="pt")


def oriented(orientation: int) -> bytes:
    """The photo as a camera that was held in another way stores it: its pixels turned, and a note of how."""
    stored = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    image, exif = PHOTO, Image.Exif()
    for turn in stored.get(orientation, []):
        image = image.transpose(turn)
    exif[0x0112] = orientation
    return encode(image, exif=exif)


def with_hole(mode: str) -> tuple[Image.Image, Image.Image]:
    """The photo with a transparent corner, and on white."""
    image = PHOTO.convert("RGBA")
    image.paste((0, 0, 0, 0), (15, 20, 36, 48))
    on_white = Image.new("RGB", image.size, "white")
    on_white.paste(image, mask=image.getchannel("A"))
    if mode == "LA":
        return image.convert("LA"), on_white.convert("L").convert("RGB")
    return image.convert(mode), on_white


def frames(image_format: str) -> bytes:
    return encode(PHOTO, image_format, save_all=True, append_images=[NOISE, PHOTO.rotate(180)])


RAMP = np.linspace(0, 65535, 36 * 48).reshape(48, 36)
GREY = Image.fromarray((RAMP / 257).round().astype(np.uint8)).convert("RGB")
IS_RED = (np.asarray(PHOTO) == (200, 30, 30)).all(-1, keepdims=True)
SILHOUETTE = Image.fromarray(np.where(IS_RED, 128, np.asarray(PHOTO)).astype(np.uint8))
ROUGHLY, EXACTLY = 12, 1  # of 255: what a lossy format, or a rounding, may change


@table(
    ("CMYK JPEG", encode(PHOTO.convert("CMYK"), "JPEG", quality=100), (PHOTO, ROUGHLY)),
    ("CMYK TIFF", encode(PHOTO.convert("CMYK"), "TIFF"), (PHOTO, EXACTLY)),
    ("16-bit PNG", encode(Image.fromarray(RAMP.astype(np.uint16))), (GREY, EXACTLY)),
    ("16-bit TIFF", encode(Image.fromarray(RAMP.astype(np.uint16)), "TIFF"), (GREY, EXACTLY)),
    ("16-bit big-endian", Image.fromarray(RAMP.astype(">u2")), (GREY, EXACTLY)),
    ("32-bit integers", Image.fromarray(RAMP.astype(np.int32)), (GREY, EXACTLY)),
    ("floats from 0 to 1", Image.fromarray((RAMP / 65535).astype(np.float32)), (GREY, EXACTLY)),
    ("array of halves", (np.asarray(PHOTO) / 255).astype(np.float16), (PHOTO, EXACTLY)),
    ("array of booleans", np.asarray(PHOTO.convert("1")), (PHOTO.convert("1").convert("RGB"), EXACTLY)),
    ("bfloat16 tensor", torch.tensor(np.asarray(PHOTO) / 255).bfloat16(), (PHOTO, ROUGHLY)),
    ("black and white", encode(PHOTO.convert("1")), (PHOTO.convert("1").convert("RGB"), EXACTLY)),
    ("greyscale", encode(PHOTO.convert("L")), (PHOTO.convert("L").convert("RGB"), EXACTLY)),
    ("palette", encode(PHOTO.quantize(8)), (PHOTO, ROUGHLY)),
    ("animated GIF", frames("GIF"), (PHOTO, ROUGHLY)),
    ("animated PNG", frames("PNG"), (PHOTO, EXACTLY)),
    ("animated WebP", encode(PHOTO, "WEBP", save_all=True, append_images=[NOISE], lossless=True), (PHOTO, EXACTLY)),
    ("TIFF of three pages", frames("TIFF"), (PHOTO, EXACTLY)),
    ("transparent PNG", encode(with_hole("RGBA")[0]), (with_hole("RGBA")[1], EXACTLY)),
    ("transparent WebP", encode(with_hole("RGBA")[0], "WEBP", lossless=True), (with_hole("RGBA")[1], EXACTLY)),
    ("transparent grey", encode(with_hole("LA")[0]), (with_hole("LA")[1], EXACTLY)),
    ("transparent colour on white", encode(PHOTO, transparency=(200, 30, 30)), (SILHOUETTE, EXACTLY)),
    *((f"EXIF orientation {n}", oriented(n), (PHOTO, EXACTLY)) for n in range(2, 9)),
    ("unknown EXIF orientation", oriented(99), (PHOTO, EXACTLY)),
    ("broken EXIF", encode(PHOTO, exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(20)), (PHOTO, EXACTLY)),
    ("1x1 pixel", encode(Image.new("RGB", (1, 1), "red")), (Image.new("RGB", (50, 50), "red"), EXACTLY)),
    ("1x10000 pixels", encode(Image.new("RGB", (1, 10_000), "red")), (Image.new("RGB", (12, 120_000), "red"), EXACTLY)),
    ("10000x1 pixels", encode(Image.new("RGB", (10_000, 1), "red")), (Image.new("RGB", (120_000, 12), "red"), EXACTLY)),
    ("memory view", memoryview(PNG), (PHOTO, EXACTLY)),
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_odd_photos_are_read_as_they_look(
    given: Any, happens: tuple[Image.Image, int], processor: AceBertProcessor
) -> None:
    odd, plain = (processor(images=[photo], return_tensors="np") for photo in (given, happens[0]))
    assert odd["spatial_shapes"].tolist() == plain["spatial_shapes"].tolist()
    assert odd["pixel_position_ids"].tolist() == plain["pixel_position_ids"].tolist()
    assert np.abs(odd["pixel_values"] - plain["pixel_values"]).max() * 127.5 <= happens[1] + 0.01


def test_a_wrong_extension_does_not_matter(processor: AceBertProcessor, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(PNG)
    odd, plain = processor(images=[tmp_path / "photo.jpg", PNG], return_tensors="pt")["pixel_values"]
    assert torch.equal(odd, plain)


@pytest.mark.parametrize("field", ["query", "title", "hot_query"])
@table(
    ("empty", "", "is empty: "),
    ("spaces", " \t\n", "is empty: "),
    ("no-break spaces", "\u00a0\u2003", "is empty: "),
    ("zero-width space", "\u200b", "holds no token: pass text"),
    ("byte order mark", "\ufeff", "holds no token: pass text"),
    ("control characters", "\0\1\2\x7f", "holds no token: pass text"),
    ("lost characters", "\ufffd\ufffd", "holds no token: pass text"),
    ("half of an emoji", HALF, "a lone surrogate.*read it as UTF-8"),
    ("bytes", b"red shirt", "must be a string, got bytes"),
    ("number", 42, "must be a string, got int"),
    ("NaN", math.nan, "must be a string, got float"),
    ("boolean", True, "must be a string, got bool"),
    ("list", ["red"], "must be a string, got list"),
    ("dict", {"en": "red"}, "must be a string, got dict"),
)
def test_bad_texts(field: str, given: Any, happens: str, processor: AceBertProcessor) -> None:
    texts = ["red shirt", given]
    batch = {"text": texts}
    if field != "query":
        batch = {"text": texts if field == "title" else ["a", "b"], "images": [PHOTO, PHOTO]}
        batch |= {"hot_queries": texts} if field == "hot_query" else {}
    with pytest.raises(ValueError, match=rf"{field}\[1\] .*{happens}"):
        processor(**batch, return_tensors="pt")


@table(
    ("nothing", {}, "pass text, images or hot_queries"),
    ("no query in a list", {"text": []}, "query is empty: pass at least one"),
    ("no photo in a list", {"images": []}, "all fields must hold|images is empty"),
    ("missing query", {"text": ["red", None]}, r"query\[1\] is None: a query needs text"),
    ("product without anything", {"text": ["red", None], "images": [PHOTO, None]}, "product 1 has nothing in titles"),
    ("more photos than titles", {"text": ["red"], "images": [PHOTO] * 2}, "one entry per product"),
    ("unknown side", {"text": ["red"], "side": "shop"}, 'side must be "query", "product" or None'),
    ("tensors of another library", {"text": ["red"], "return_tensors": "tf"}, "tf is not a valid TensorType"),
    ("too long where nothing may be cut", {"text": ["red " * 99], "truncation": False}, "query.0. has 99 tokens"),
    ("no patches", {"images": [PHOTO], "max_num_patches": 0}, "max_num_patches must be at least 1"),
)
def test_bad_batches(given: dict[str, Any], happens: str, processor: AceBertProcessor) -> None:
    with pytest.raises(ValueError, match=happens):
        processor(**given)


@table(
    ("right to left", "قميص احمر", ["قميص", "احمر"]),
    ("right to left among others", "red قميص shirt", ["red", "قميص", "shirt"]),
    ("marks of direction", "\u202ered shirt\u202c", ["red", "shirt"]),
    ("emoji", "red 👗 shirt", ["red", "👗", "shirt"]),
    ("joined emoji", "👩\u200d👧 shirt", ["👩👧", "shirt"]),
    ("control characters", "red\0 \x1bshirt\x07", ["red", "shirt"]),
    ("zero-width spaces", "re\u200bd shirt\ufeff", ["red", "shirt"]),
    ("line breaks", "red\r\n\tshirt", ["red", "shirt"]),
    ("accents, composed or not", "chemise\u0301 é e\u0301", ["chemise", "e", "e"]),
    ("HTML", "<b>red</b>", ["<", "b", ">", "red", "<", "/", "b", ">"]),
    ("spelt special token", "[SEP] red", ["[", "sep", "]", "red"]),
    ("text of NumPy", np.str_("red shirt"), ["red", "shirt"]),
)
def test_odd_texts_are_read_word_by_word(given: str, happens: list[str], minilm: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    processor = AceBertProcessor(AceBertImageProcessor(), tokenizer)
    ids = processor(text=[given])["input_ids"][0]
    words = [token for word in happens for token in tokenizer(word, add_special_tokens=False)["input_ids"]]
    assert ids == [tokenizer.cls_token_id, *words, tokenizer.sep_token_id]


def test_a_hundred_thousand_characters_are_cut_and_counted(processor: AceBertProcessor) -> None:
    processor.truncation_report.clear()
    inputs = processor(text=["mug", HUNDRED_THOUSAND], images=[PHOTO, PHOTO], return_tensors="pt")
    assert inputs["input_ids"].shape == (2, processor.title_max_length)
    assert processor.truncation_report["title"] == {"cut": 1, "seen": 2, "longest": 25_000}


# ----------------------------------------------------------------------------------------------------------------------
# Catalogue
# ----------------------------------------------------------------------------------------------------------------------

FEATURES = Features(
    {
        "id": Value("int64"),
        "title": Value("string"),
        "image": datasets.Image(),
        "price": Value("float64"),
        "year": Value("int64"),
        "colour": Value("string"),
        "sizes": datasets.List(Value("string")),
    }
)
FULL = {"title": "red shirt", "price": 5.0, "year": 2020, "colour": "red", "sizes": ["s", "m"]}


def file_of(data: bytes | None) -> dict[str, Any]:
    return {"bytes": data, "path": None}


def shop_rows(count: int = 4) -> list[dict[str, Any]]:
    return [{"id": row, "image": file_of(PNG), **FULL} for row in range(count)]


@pytest.fixture
def build(model: AceBertModel, processor: AceBertProcessor, tmp_path: Path) -> Callable[..., ProductCatalog]:
    def build(rows: list[dict[str, Any]] | Dataset, features: Features = FEATURES, **settings: Any) -> ProductCatalog:
        dataset = Dataset.from_list(rows, features=features) if isinstance(rows, list) else rows
        settings = {"index": "memory", "sides": False} | settings
        return ProductCatalog.build(model, processor, dataset, tmp_path / "catalog", **settings)

    return build


def listed(file: Path) -> list[tuple[int, str]]:
    """Row and field of each bad row in a file."""
    return [(bad["row"], bad["field"]) for bad in map(json.loads, file.read_text().splitlines())]


KEPT, LEFT_OUT = True, False


@table(
    ("missing id", {"id": None}, ("id", "is missing: give every product an id", LEFT_OUT)),
    ("repeated id", {"id": 0}, ("id", "is row 0's too: ids must be unique", LEFT_OUT)),
    ("nothing to show", {"title": None, "image": None}, ("title and image", "needs a title or a photo", LEFT_OUT)),
    ("blank title alone", {"title": " \n", "image": None}, ("title and image", "is empty", LEFT_OUT)),
    ("invisible title alone", {"title": "\u200b\0", "image": None}, ("title and image", "is empty", LEFT_OUT)),
    ("empty file of a photo", {"image": file_of(b"")}, ("image", "its 0 bytes are in no image format", KEPT)),
    *((f"photo: {name}", {"image": file_of(data)}, ("image", reason, KEPT)) for name, data, reason in BROKEN_FILES[2:]),
    ("broken photo alone", {"title": None, "image": file_of(PNG[:60])}, ("image", "can't be read", LEFT_OUT)),
    ("photo's file is gone", {"image": {"bytes": None, "path": "no.jpg"}}, ("image", "No such file", KEPT)),
    ("infinite price", {"price": math.inf}, ("price", "must be a finite number, got inf", LEFT_OUT)),
    ("number beyond 2^53", {"year": 2**60}, ("year", "must be an integer between", LEFT_OUT)),
    ("null in a list", {"sizes": ["s", None]}, ("sizes", "must be a list of strings", LEFT_OUT)),
)
def test_bad_products_stop_a_build_or_are_listed(
    given: dict[str, Any], happens: tuple[str, str, bool], build: Callable[..., ProductCatalog], tmp_path: Path
) -> None:
    field, reason, kept = happens
    rows = shop_rows()
    rows[1] |= given
    with pytest.raises(ValueError, match=rf"row 1 \(id .*\), {field}: .*{reason}.*on_bad_row='skip'"):
        build(rows)
    with build(rows, on_bad_row="skip", overwrite=True) as catalog:
        assert len(catalog) == (4 if kept else 3)
        assert listed(tmp_path / "catalog" / "bad_rows.jsonl") == [(1, field)]


def test_blank_ids_are_missing(build: Callable[..., ProductCatalog], tmp_path: Path) -> None:
    rows = [row | {"id": name} for row, name in zip(shop_rows(), ["a", "", "  ", "\u200b"], strict=True)]
    with build(rows, Features({**FEATURES, "id": Value("string")}), on_bad_row="skip") as catalog:
        assert len(catalog) == 1
        assert listed(tmp_path / "catalog" / "bad_rows.jsonl") == [(1, "id"), (2, "id"), (3, "id")]


def test_a_title_that_may_not_be_cut_is_named(
    build: Callable[..., ProductCatalog], processor: AceBertProcessor
) -> None:
    rows = shop_rows()
    rows[2] |= {"title": HUNDRED_THOUSAND}
    processor.truncation = False
    try:
        with pytest.raises(ValueError, match=r"row 2 \(id 2\), title: has 25000 tokens.*shorten it"):
            build(rows)
    finally:
        processor.truncation = True


def column(name: str, feature: Any, value: Any) -> tuple[list[dict[str, Any]], Features]:
    """Products with another type of value in one column."""
    return [row | {name: value} for row in shop_rows()], Features({**FEATURES, name: feature})


@table(
    (
        "no product",
        {"rows": Dataset.from_dict({name: [] for name in FEATURES}, features=FEATURES)},
        "The dataset is empty",
    ),
    ("list in place of a dataset", {"rows": iter([])}, "must be a datasets.Dataset, got list_iterator"),
    ("no such id column", {"id_column": "sku"}, "no column 'sku': it has .*Name yours by id_column"),
    ("no such title column", {"title_column": "name"}, "no column 'name'"),
    ("no title and no photo column", {"title_column": None, "image_column": None}, "needs a title or a photo"),
    ("ids with fractions", column("id", Value("float64"), 1.5), r"id column 'id' holds fractions.* 1\.5.*cast_column"),
    ("ids of True", column("id", Value("bool"), True), "id column 'id' holds .*bool"),
    ("ids in lists", column("id", datasets.List(Value("string")), ["a"]), "id column 'id' holds List"),
    ("titles of numbers", column("title", Value("int64"), 501), "title column 'title' holds .*cast_column"),
    ("titles of bytes", column("title", Value("binary"), b"red"), "title column 'title' holds"),
    ("titles in lists", column("title", datasets.List(Value("string")), ["red"]), "title column 'title' holds"),
    ("photos of numbers", column("image", Value("int64"), 7), "image column 'image' holds .*lists of them"),
    ("dates as attributes", {"attribute_columns": ["day"]}, "no column 'day'"),
    ("title as an attribute", {"attribute_columns": ["title"]}, "can't be named 'title'"),
    ("batches of nothing", {"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ("batches of less than nothing", {"batch_size": -1}, "batch_size must be at least 1, got -1"),
    ("photos smaller than nothing", {"photo_size": -1}, "photo_size must be at least 0, got -1"),
    ("index that is none", {"index": 3}, "index must be 'edge', 'memory' or a server's URL, got 3"),
    ("unknown way with bad rows", {"on_bad_row": "ignore"}, "on_bad_row must be 'raise' or 'skip'"),
)
def test_bad_datasets(given: Any, happens: str, build: Callable[..., ProductCatalog]) -> None:
    rows, features, settings = shop_rows(), FEATURES, {}
    if isinstance(given, dict):
        settings = {name: value for name, value in given.items() if name != "rows"}
        rows = given.get("rows", rows)
    else:
        rows, features = given
    with pytest.raises(ValueError, match=happens):
        build(rows, features, **settings)


def test_only_bad_rows_make_no_catalogue(build: Callable[..., ProductCatalog]) -> None:
    with pytest.raises(ValueError, match=r"None of the dataset's 2 rows can be used, the first is row 0 \(id 0\)"):
        build([row | {"title": None, "image": None} for row in shop_rows(2)], on_bad_row="skip")


def test_a_file_is_no_folder_for_a_catalogue(build: Callable[..., ProductCatalog], tmp_path: Path) -> None:
    (tmp_path / "catalog").write_text("notes")
    with pytest.raises(FileExistsError, match="is a file: choose a folder"):
        build(shop_rows(), overwrite=True)
    assert (tmp_path / "catalog").read_text() == "notes"


ODD_PRODUCTS = (
    ("one without a photo", {"image": None}, {}),
    ("blank title with a photo", {"title": "\t"}, {"title": None}),
    ("invisible title with a photo", {"title": "\u200b\x07"}, {"title": None}),
    ("emoji", {"title": "👗 red"}, {"title": "👗 red"}),
    ("right to left", {"title": "قميص احمر"}, {"title": "قميص احمر"}),
    ("control characters", {"title": "red\0 \x1bshirt"}, {"title": "red\0 \x1bshirt"}),
    ("100,000 characters", {"title": HUNDRED_THOUSAND}, {"title": HUNDRED_THOUSAND.strip()}),
    ("HTML", {"title": "<b>red</b> &amp; dry <3"}, {"title": "red & dry <3"}),
    ("NaN price", {"price": math.nan}, {"price": None}),
    ("negative price", {"price": -5.0}, {"price": -5.0}),
    (
        "missing attributes",
        {"price": None, "year": None, "colour": None, "sizes": None},
        {"price": None, "sizes": None},
    ),
    ("blank attribute", {"colour": "  "}, {"colour": None}),
    ("no size", {"sizes": []}, {"sizes": None}),
    ("1x10000 photo", {"image": file_of(encode(Image.new("RGB", (1, 10_000), "red")))}, {"photo": (1, 512)}),
    ("CMYK photo", {"image": file_of(encode(PHOTO.convert("CMYK"), "JPEG"))}, {"photo": PHOTO.size}),
    ("16-bit photo", {"image": file_of(encode(Image.fromarray(RAMP.astype(np.uint16))))}, {"photo": PHOTO.size}),
    ("rotated photo", {"image": file_of(oriented(6))}, {"photo": PHOTO.size[::-1]}),  # kept as it is, with its note
)


@pytest.fixture(scope="module")
def odd_catalog(
    model: AceBertModel, processor: AceBertProcessor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProductCatalog]:
    rows = [{"id": i, "image": file_of(PNG), **FULL, **row[1]} for i, row in enumerate(ODD_PRODUCTS)]
    dataset, folder = Dataset.from_list(rows, features=FEATURES), tmp_path_factory.mktemp("odd") / "catalog"
    with ProductCatalog.build(model, processor, dataset, folder, index="memory", attribute_columns=None) as catalog:
        yield catalog


@table(*((name, number, happens) for number, (name, _, happens) in enumerate(ODD_PRODUCTS)))
def test_odd_products_are_found_as_they_are(given: int, happens: dict[str, Any], odd_catalog: ProductCatalog) -> None:
    assert len(odd_catalog) == len(ODD_PRODUCTS) and listed(odd_catalog.path / "bad_rows.jsonl") == []
    product = odd_catalog.get(given)
    for name, value in happens.items():
        if name == "photo":
            assert Image.open(io.BytesIO(odd_catalog.photo(product))).size == value
        else:
            assert (product.title if name == "title" else product.attributes.get(name)) == value
    assert given in [hit.id for hit in odd_catalog.search("red shirt", top_k=len(ODD_PRODUCTS))]


def test_a_catalogue_of_one_product(build: Callable[..., ProductCatalog]) -> None:
    with build(shop_rows(1)) as catalog:
        assert [hit.id for hit in catalog.search("👗", top_k=10**12)] == [0]
        assert catalog.search(like=0) == []


def nested(levels: int) -> dict[str, Any]:
    filters: dict[str, Any] = {"price": 5}
    for _ in range(levels):
        filters = {"$not": filters}
    return filters


CYCLE: dict[str, Any] = {}
CYCLE["$or"] = [CYCLE]


@table(
    ("nothing asked", {}, "needs a text, an image or both"),
    ("everything asked", {"text": "red", "like": 1}, "got .'text or image', 'like'"),
    ("empty query", {"text": ""}, "text 0 must hold words"),
    ("blank query", {"text": ["red", " \n"]}, "text 1 must hold words"),
    ("invisible query", {"text": "\u200b"}, "query.0. '.u200b' holds no token"),
    ("half of an emoji", {"text": HALF}, "text 0 must hold words"),
    ("half of an emoji, by words", {"text": HALF, "using": "words"}, "text 0 must hold words"),
    ("query of bytes", {"text": b"red"}, "text 0 must hold words, got b'red'"),
    ("query of a number", {"text": 3}, "text 0 must hold words, got 3"),
    ("no query in a list", {"text": []}, "no query in the list"),
    ("missing query in a list", {"text": ["red", None]}, "text 1 must hold words, got None"),
    ("missing photo in a list", {"image": [PHOTO, None]}, "image 1 is None"),
    ("broken photo", {"image": PNG[:60]}, r"images\[0\] can't be used"),
    ("more texts than photos", {"text": ["red", "blue"], "image": [PHOTO]}, "2 texts and 1 images"),
    ("no hits wanted", {"text": "red", "top_k": 0}, "top_k must be a positive integer, got 0"),
    ("fewer than none wanted", {"text": "red", "top_k": -1}, "top_k must be a positive integer"),
    ("True hits wanted", {"text": "red", "top_k": True}, "top_k must be a positive integer, got True"),
    ("half a hit wanted", {"text": "red", "top_k": 0.5}, "top_k must be a positive integer"),
    ("id of another type", {"like": "0"}, "id must be of the type integer"),
    ("id beyond 64 bits", {"like": 2**70}, "id must be an integer of 64 bits"),
    ("vector with NaN", {"vector": [math.nan] * 16}, "vector must hold 16 finite numbers"),
    ("vector of another width", {"vector": [0.5] * 3}, "vector must hold 16 finite numbers a query, got the shape"),
    ("vector of zeros", {"vector": [0.0] * 16}, "has no direction"),
    ("vector of text", {"vector": "red"}, "vector must hold 16 numbers a query, got 'red'"),
    ("vectors of several widths", {"vector": [[1.0, 2.0], [3.0]]}, "vector must hold 16 numbers a query"),
    ("unknown vectors", {"text": "red", "using": "price"}, "using must be one of"),
    ("unknown attribute", {"text": "red", "filters": {"brand": "x"}}, "Unknown attribute 'brand': it must be one of"),
    ("unknown operator", {"text": "red", "filters": {"price": {"$ne": 1}}}, "Unknown operator '.ne' in the filter on"),
    ("unknown logic", {"text": "red", "filters": {"$xor": []}}, "Unknown operator '.xor'"),
    ("filters in a list", {"text": "red", "filters": [{"price": 1}]}, "filters must be a dict"),
    ("filters in a text", {"text": "red", "filters": "price<3"}, "filters must be a dict"),
    ("no value", {"text": "red", "filters": {"colour": []}}, "'colour' is an empty list"),
    ("missing value", {"text": "red", "filters": {"colour": None}}, "'colour' is a string, got None"),
    ("value of another type", {"text": "red", "filters": {"price": "5"}}, "'price' is a finite number, got '5'"),
    ("NaN value", {"text": "red", "filters": {"price": math.nan}}, "'price' is a finite number, got nan"),
    ("infinite end", {"text": "red", "filters": {"price": (0, math.inf)}}, "'price' is a finite number, got inf"),
    ("range from high to low", {"text": "red", "filters": {"price": (3, 1)}}, "lowest value 3.0 is above its highest"),
    ("range of three", {"text": "red", "filters": {"price": (1, 2, 3)}}, "must have 2 values"),
    ("range of texts", {"text": "red", "filters": {"colour": ("a", "b")}}, "ranges need numbers"),
    ("half of an emoji as a value", {"text": "red", "filters": {"colour": HALF}}, "'colour' has .*lone surrogate"),
    ("key that is no name", {"text": "red", "filters": {None: 1}}, "Unknown attribute None"),
    ("filters 5,000 deep", {"text": "red", "filters": nested(5000)}, "nested more than 20 levels"),
    ("filters within themselves", {"text": "red", "filters": CYCLE}, "nested more than 20 levels"),
)
def test_bad_searches(given: dict[str, Any], happens: str, odd_catalog: ProductCatalog) -> None:
    with pytest.raises(ValueError, match=happens):
        odd_catalog.search(**given)


@table(
    ("no dict", 7, "product 1 must be a dict"),
    ("no id", {"title": "mug"}, "product 1 has no id"),
    ("missing id", {"id": None, "title": "mug"}, r"product 1 \(id None\): id must be of the type integer"),
    ("id of another type", {"id": "9", "title": "mug"}, r"product 1 \(id '9'\): id must be of the type integer"),
    ("id beyond 64 bits", {"id": 2**70, "title": "mug"}, "product 1 .*id must be an integer of 64 bits"),
    ("repeated id", {"id": 50, "title": "mug"}, "id 50 is given twice"),
    ("nothing to show", {"id": 9}, "product 1 .*neither title nor image"),
    ("invisible title", {"id": 9, "title": "\u200b"}, "product 1 .*neither title nor image"),
    ("title of bytes", {"id": 9, "title": b"mug"}, "product 1 .*title must be a text or None, got b'mug'"),
    ("half of an emoji", {"id": 9, "title": HALF}, r"product 1 \(id 9\): title .*lone surrogate"),
    ("broken photo", {"id": 9, "image": PNG[:60]}, r"product 1 \(id 9\): image can't be read"),
    ("NaN photo", {"id": 9, "image": np.full((4, 4, 3), np.nan)}, "product 1 .*image can't be read: .*between 0 and 1"),
    ("unknown attribute", {"id": 9, "title": "mug", "brand": "x"}, r"product 1 .*has \['brand'\]: a product has id"),
    ("NaN attribute", {"id": 9, "title": "mug", "price": math.nan}, "product 1 .*'price' is a finite number, got nan"),
    ("half of an emoji as a value", {"id": 9, "title": "mug", "colour": HALF}, "product 1 .*'colour' .*lone surrogate"),
    ("nested list", {"id": 9, "title": "mug", "sizes": [["s"]]}, "product 1 .*'sizes' is a list of strings"),
)
def test_bad_changes_change_nothing(given: Any, happens: str, odd_catalog: ProductCatalog) -> None:
    with pytest.raises(ValueError, match=happens):
        odd_catalog.upsert([{"id": 50, "title": "blue mug"}, given])
    assert 50 not in odd_catalog and len(odd_catalog) == len(ODD_PRODUCTS)


# ----------------------------------------------------------------------------------------------------------------------
# Training data
# ----------------------------------------------------------------------------------------------------------------------

TEMPLATES = QueryTemplates(["{colour}"], drop_probability=0.0)
TRAINING = Columns(query="query", attributes=["colour"])


@table(
    ("empty file", ("a.csv", b""), "a.csv' is empty"),
    ("header alone", ("a.csv", b"id,title\n"), "no products in .*a.csv'"),
    ("quotation mark left open", ("a.csv", b'id,title\n1,"a\n2,b'), "a.csv'. Row 2: its quotation marks don't match"),
    ("rows of several lengths", ("a.csv", b"id,title\n1,a\n2,b,c,d"), "1 rows of .*a.csv' can't be read.*4 cells"),
    (
        "photo in place of a table",
        ("a.csv", JPEG),
        "a.csv' is not a table .* This kind isn't read: what is read is CSV",
    ),
    ("a feed of XML", ("a.xml", b"<?xml?><rss/>"), "a.xml' is a web page or XML. This kind isn't read: what is read"),
    ("broken JSON", ("a.jsonl", b"{broken"), "a.jsonl'. Row 1: it is not valid JSON"),
    ("broken Parquet", ("a.parquet", b"PAR1 broken"), "a.parquet' can't be read"),
    (
        "missing column",
        ("a.csv", b"sku,title\n1,a"),
        r"No column \['id'\].*the columns are \['sku', 'title'\].*--id_column",
    ),
    ("missing id", ("a.csv", b"id,title\n1,a\n,b"), "Row 1 has no id: give every product an id.*--on_bad_row skip"),
    ("blank id", ("a.csv", b'id,title\nx,a\n"  ",b'), "Row 1 has no id"),
    ("no id at all", ("a.csv", b"id,title\n,a\n,b"), "has no id: give every product an id"),
    ("ids with fractions", ("a.parquet", parquet(id=[1, 2.5], title=["a", "b"])), "The id column 'id' holds fractions"),
    ("titles in lists", ("a.jsonl", b'{"id": 1, "title": ["a"]}'), "The title column 'title' holds lists.*, not texts"),
    ("photos of numbers", ("a.jsonl", b'{"id": 1, "title": "a", "image": 5}'), "image of row 0 is '5', .*no such file"),
    (
        "photos that are lost",
        ("a.csv", b"id,title,image\n1,a,x.png\n2,b,y.png"),
        "2 of 2 photos can't be had.* 'x.png'",
    ),
    ("addresses of photos", ("a.csv", b"id,title,image\n1,a,https://x/y.png"), "image of row 0 is the URL"),
)
def test_bad_training_tables(given: tuple[str, bytes], happens: str, tmp_path: Path) -> None:
    file = tmp_path / given[0]
    file.write_bytes(given[1])
    columns = Columns(image="image" if b"image" in given[1] else None)
    with pytest.raises(ValueError, match=happens):
        load_products([str(file)], "train", columns)


@table(
    ("ids of letters and numbers", b"id,title\n1,a\nx2,b", {"id": ["1", "x2"], "title": ["a", "b"]}),
    ("codes that look like numbers", b"id,title\n0123,a\n1.0,b\n1e3,c", {"id": ["0123", "1.0", "1e3"]}),
    ("words that look like nothing", b"id,title\nNA,None\nnan,null", {"id": ["NA", "nan"], "title": ["None", "null"]}),
    ("lines that end with a comma", b"id,title\n1,a,\n2,b,", {"id": ["1", "2"], "title": ["a", "b"]}),
    ("byte order mark", b"\xef\xbb\xbfid,title\n1,a", {"id": ["1"], "title": ["a"]}),
    ("not UTF-8", "id,title\n1,Röck".encode("latin-1"), {"title": ["Röck"]}),
    ("emoji and right to left", "id,title\n1,👗\n2,قميص".encode(), {"id": ["1", "2"], "title": ["👗", "قميص"]}),
    ("blank path of a photo", b'id,title,image\n1,a," "\n2,b,y.png', {"id": ["1", "2"], "image": [None, "y.png"]}),
)
def test_odd_training_tables(given: bytes, happens: dict[str, list[Any]], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(given)
    (tmp_path / "y.png").write_bytes(PNG)
    products = load_products([str(tmp_path / "a.csv")], "train", Columns(image="image" if b"image" in given else None))
    for name, values in happens.items():
        found = products[name][:]
        if name == "image":
            found = [photo and Path(photo["path"]).name for photo in found]
        assert found == values


@table(
    ("missing", [7.0, math.nan, 9.0], "Row 1 has no id: give every product an id.*--on_bad_row skip"),
    ("infinite", [7.0, math.inf, 9.0], "Row 1 has no id"),
    ("all missing", [math.nan] * 3, "Row 0 has no id"),
    ("fraction", [7.0, 8.5, 9.0], r"The id column 'id' holds fractions.*8\.5 in row 1"),
    ("too large for a float", [7.0, 2.0**53 + 2, 9.0], r"too large to be exact, as 9007199254740994 in row 1"),
)
def test_numbers_that_are_no_ids(given: list[float], happens: str, tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": pa.array(given, pa.float64(), from_pandas=False), "title": ["a", "b", "c"]}), file)
    columns = Columns(image=None)
    with pytest.raises(ValueError, match=happens):
        load_products([str(file)], "train", columns)
    if given[2] == 9 and not math.isfinite(given[1]):
        products = load_products([str(file)], "train", columns, on_bad_row="skip")
        assert products["id"][:] == [7, None, 9] and products.column_names == ["id", "title"]
        assert keep_good_rows(products, columns, tmp_path / "bad.jsonl")[1] == [0, 2]


def test_ids_that_single_precision_may_have_rounded(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    for number, is_exact in ((2**24 - 1, True), (2**24 + 1, False)):
        pq.write_table(pa.table({"id": pa.array(np.array([7, number], np.float32)), "title": ["a", "b"]}), file)
        if is_exact:
            assert load_products([str(file)], "train", Columns(image=None))["id"][:] == [7, number]
        else:
            with pytest.raises(ValueError, match=r"too large to be exact, as 16777216 in row 1"):
                load_products([str(file)], "train", Columns(image=None))


def training_rows(**change: Any) -> Dataset:
    """Three products, the second of which is changed."""
    row = {"title": "red shirt", "query": "shirt", "colour": "red", "image": file_of(PNG)}
    return Dataset.from_list([{"id": f"p{i}", **row, **(change if i == 1 else {})} for i in range(3)])


@table(
    ("missing id", {"id": None}, ("id", None)),
    ("nothing to show", {"title": None, "image": file_of(None)}, ("title and image", "neither a title nor a photo")),
    (
        "nothing to learn from",
        {"query": None, "colour": None, "image": file_of(None)},
        ("title and image", "neither a query nor both title and photo"),
    ),
    *((f"photo: {n}", {"image": file_of(data)}, ("image", f"the photo can't be.*{w}")) for n, data, w in BROKEN_FILES),
    ("photo's file is gone", {"image": {"bytes": None, "path": "no.jpg"}}, ("image", "No such file")),
)
def test_bad_training_rows_stop_or_are_listed(
    given: dict[str, Any],
    happens: tuple[str, str | None],
    processor: AceBertProcessor,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    products, (field, error) = training_rows(**given), happens
    if error is not None:
        pairs = PairDataset(products, TRAINING, TEMPLATES, drop_image_probability=0.0)
        with pytest.raises(ValueError, match=rf"Product 'p1' \(row 1\).*{error}.*--on_bad_row skip"):
            PairCollator(processor)([pairs[row] for row in range(3)])
    good = keep_good_rows(products, TRAINING, tmp_path / "bad.jsonl", learns_from=["query", "colour"])[1]
    assert good == [0, 2] and listed(tmp_path / "bad.jsonl") == [(1, field)]
    assert len(PairCollator(processor)([PairDataset(products.select(good), TRAINING)[row] for row in (0, 1)]))


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_processes_share_the_photos_that_are_checked(
    processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Threads stand for the processes: their own state, and a gather at which each waits for the others."""
    rows = [{"id": i, "title": "x", "image": file_of(b"no photo" if i == 2 else PNG)} for i in range(4)]
    rows[1] |= {"image": file_of(None)}
    rows[3] |= {"title": None, "image": file_of(None)}
    products = Dataset.from_list(rows)
    own, meet, parts = threading.local(), threading.Barrier(processes, timeout=20), {}
    decoded: list[int] = []

    class State:
        num_processes = processes
        process_index = property(lambda self: own.index)
        is_main_process = property(lambda self: own.index == 0)
        split_between_processes = PartialState.split_between_processes

    def gather(found: list[Any]) -> list[Any]:
        parts[own.index] = found
        meet.wait()
        return [each for index in range(processes) for each in parts[index]]

    def decode(photo: Any) -> str | None:
        decoded.append(own.index)
        return find_photo_error(photo)

    def run(index: int) -> list[int]:
        own.index = index
        return keep_good_rows(products, Columns(), tmp_path / f"bad{index}.jsonl")[1]

    monkeypatch.setattr(cleaning, "PartialState", State)
    monkeypatch.setattr(cleaning, "gather_object", gather)
    monkeypatch.setattr(cleaning, "find_photo_error", decode)
    with ThreadPoolExecutor(processes) as pool:
        found = list(pool.map(run, range(processes)))
    assert found == [[0, 1]] * processes
    assert len(decoded) == 2 and len(set(decoded)) == min(processes, 2)  # each photo once, by different ones
    assert [path.name for path in tmp_path.glob("*")] == ["bad0.jsonl"]
    assert listed(tmp_path / "bad0.jsonl") == [(2, "image"), (3, "title and image")]
    assert caplog.text.count("2 of 4 rows are left out") == 1


@pytest.mark.parametrize(("name", "data", "reason"), BROKEN_FILES, ids=[row[0] for row in BROKEN_FILES])
def test_broken_photos_are_named_where_they_are_mirrored(name: str, data: bytes, reason: str) -> None:
    pairs = PairDataset(training_rows(image=file_of(data)), TRAINING, flip_probability=1.0)
    with pytest.raises(ValueError, match=rf"photo of product 'p1' \(row 1\) can't be read: .*{reason}"):
        pairs[1]


@table(
    ("missing title", {"title": None}, {"title": None}),
    ("invisible title", {"title": "\u200b\0"}, {"title": None}),
    ("missing photo", {"image": file_of(None)}, {"image": None}),
    ("missing query", {"query": None}, {"query": "red"}),
    ("invisible query", {"query": "\x07"}, {"query": "red"}),
    ("emoji as a query", {"query": "👗"}, {"query": "👗"}),
    ("right to left", {"query": "قميص احمر"}, {"query": "قميص احمر"}),
    ("100,000 characters", {"query": HUNDRED_THOUSAND}, {"query": HUNDRED_THOUSAND}),
    ("NaN attribute", {"query": None, "colour": "nan", "hot": "a"}, {"query": "nan"}),  # a text, and not the number
    ("attribute with braces", {"query": None, "colour": "{x}"}, {"query": "{x}"}),
    ("repeated id", {"id": "p0"}, {"product_id": 0}),
)
def test_odd_training_rows(given: dict[str, Any], happens: dict[str, Any], processor: AceBertProcessor) -> None:
    templates = TEMPLATES if given.get("query", "") is None or given.get("query") == "\x07" else None
    none_dropped = {"title_query_probability": 0.0, "drop_title_probability": 0.0, "drop_image_probability": 0.0}
    pairs = PairDataset(training_rows(**given), TRAINING, templates, **none_dropped)
    assert {name: pairs[1][name] for name in happens} == happens
    batch = PairCollator(processor)([pairs[row] for row in range(3)])
    assert sum(len(chunk["input_ids"]) for chunk in batch["chunks"]) == 3


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_attributes_that_are_no_numbers_make_no_query(value: float | None) -> None:
    rows = [{"id": i, "title": "x", "size": size, "image": file_of(PNG)} for i, size in enumerate([42.0, value])]
    pairs = PairDataset(Dataset.from_list(rows), Columns(), QueryTemplates(["{size}"]), title_query_probability=0.0)
    assert [pairs[row]["query"] for row in (0, 1)] == ["42", "x"]


@table(
    ("no product", lambda: PairDataset(training_rows().select([]), TRAINING), "The catalogue has no product"),
    ("no ids", lambda: PairDataset(training_rows(), Columns(id="sku")), "No column 'sku' for the ids"),
    ("probability of 2", lambda: PairDataset(training_rows(), TRAINING, flip_probability=2), "flip_probability"),
    (
        "probability of NaN",
        lambda: PairDataset(training_rows(), TRAINING, crop_probability=math.nan),
        "crop_probability",
    ),
    ("one product to hold out", lambda: hold_out(training_rows().select([0]), TRAINING, 0.5), "--validation_share"),
    ("template that is no list", lambda: QueryTemplates("{colour}"), "must be a list of texts"),
    ("template that is no text", lambda: QueryTemplates([None]), "must be a list of texts"),
    ("template that looks into objects", lambda: QueryTemplates(["{colour.__class__}"]), "name columns plainly"),
    (
        "attribute in lists",
        lambda: PairDataset(Dataset.from_list([{"id": 1, "title": "x", "colour": ["red"]}]), TRAINING, TEMPLATES),
        "colour of row 0 is .*single value",
    ),
    (
        "only bad rows",
        lambda: keep_good_rows(training_rows(id=None).select([1]), TRAINING, None),
        r"None of 1 rows can be used; the first: row 0 \(id None\), id: is missing",
    ),
)
def test_bad_training_settings(given: Callable[[], Any], happens: str) -> None:
    with pytest.raises(ValueError, match=happens):
        given()


def save_splits(folder: Path) -> str:
    """A dataset with a bad row of every sort in its training split."""
    rows = product_rows(24)
    rows = [row | {"image": file_of(encode(row["image"]))} for row in rows]
    rows[3] |= {"image": file_of(b"no photo")}
    rows[5] |= {"title": None, "image": None}
    rows[7] |= {"id": None}
    features = Features(
        {name: Value("string") for name in ("title", "kind", "colour", "gender", "hot_query")}
        | {"id": Value("int64"), "image": datasets.Image()}
    )
    (folder / "data").mkdir(parents=True)
    for split, part in (("train", rows[:16]), ("validation", rows[16:])):
        Dataset.from_list(part, features=features).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return str(folder)


def test_a_training_run_leaves_bad_rows_out(
    flags: Callable[..., list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = save_splits(tmp_path / "shop")
    options = {"dataset_name": data, "per_device_batch_size": 4, "max_train_steps": 1, "eval_steps": 1}
    with pytest.raises(ValueError, match=r"Row 7 has no id.*--on_bad_row skip"):
        train_accelerate.main(flags(**options))
    train_accelerate.main(flags(**options, on_bad_row="skip"))
    assert listed(tmp_path / "run" / "bad_rows_train.jsonl") == [(3, "image"), (5, "title and image"), (7, "id")]
    assert listed(tmp_path / "run" / "bad_rows_validation.jsonl") == []


@pytest.mark.slow
def test_two_processes_leave_the_same_rows_out(flags: Callable[..., list[str]], tmp_path: Path) -> None:
    """In training, and in evaluation of what was trained."""

    def launch(script: Any, arguments: list[str]) -> None:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port"]
        command += [str(free_port()), script.__file__, *arguments]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "1"}
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert run.returncode == 0, run.stderr
        assert run.stderr.count("rows are left out") == 1

    data, run = save_splits(tmp_path / "shop"), tmp_path / "run"
    options = {"dataset_name": data, "per_device_batch_size": 4, "max_train_steps": 1, "eval_steps": 1}
    launch(train_accelerate, flags(**options, on_bad_row="skip"))
    assert listed(run / "bad_rows_train.jsonl") == [(3, "image"), (5, "title and image"), (7, "id")]
    arguments = f"--model_name_or_path {run} --dataset_name {data} --split train --title_column title --on_bad_row skip"
    arguments += f" --attribute_columns kind --text_baselines none --no_plots --output_dir {tmp_path / 'report'}"
    launch(evaluate_accelerate, arguments.split())
    assert listed(tmp_path / "report" / "bad_rows.jsonl") == [(3, "image"), (5, "title and image"), (7, "id")]
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["dataset"]["num_products"] == 13 and report["dataset"]["local"]


# ----------------------------------------------------------------------------------------------------------------------
# Evaluation
# ----------------------------------------------------------------------------------------------------------------------

JUDGED = Columns(image=None, attributes=["colour"])


def test_a_query_that_can_t_be_read_is_named_with_its_own_remedy(processor: AceBertProcessor) -> None:
    with pytest.raises(ValueError, match=r"The query '\\ud800': .*lone surrogate.*the file or the column") as error:
        collate_queries([0, 1], ["red shirt", "\ud800"], processor)
    assert "on_bad_row" not in str(error.value)  # which would leave a product out


def corpus(*rows: dict[str, Any]) -> Corpus:
    return Corpus.from_products(Dataset.from_list(list(rows)), ["train"] * len(rows), JUDGED, "the shop")


@table(
    ("empty file", b"", "q.json can't be read: .*expected a JSON object"),
    ("no JSON", b"red: 1", "q.json can't be read"),
    ("not UTF-8", '{"Röck": {"1": 1}}'.encode("latin-1"), "q.json can't be read: .*in UTF-8"),
    ("nested 100,000 deep", b"[" * 100_000, "q.json can't be read"),
    ("list", b'["red"]', "q.json holds no queries"),
    ("no query", b"{}", "q.json holds no queries"),
    ("the same query twice", b'{"red": {"1": 1}, "red": {"2": 1}}', "'red' is there twice"),
    ("empty query", b'{"": {"1": 1}}', "q.json: query '' has"),
    ("invisible query", b'{"\\u200b": {"1": 1}}', "q.json: query '.u200b' has"),
    ("half of an emoji", b'{"\\ud800": {"1": 1}}', "q.json: query '.ud800' has"),
    ("grades in a list", b'{"red": ["1"]}', r"query 'red' has \['1'\]; expected a text and {product id: grade}"),
    ("grade of text", b'{"red": {"1": "1"}}', "query 'red' has"),
    ("grade of true", b'{"red": {"1": true}}', "query 'red' has"),
    ("missing grade", b'{"red": {"1": null}}', "query 'red' has"),
    ("NaN grade", b'{"red": {"1": NaN}}', "query 'red' has"),
    ("infinite grade", b'{"red": {"1": Infinity}}', "query 'red' has"),
)
def test_bad_query_files(given: bytes, happens: str, tmp_path: Path) -> None:
    (tmp_path / "q.json").write_bytes(given)
    with pytest.raises(ValueError, match=happens):
        read_queries(str(tmp_path / "q.json"))


@table(
    ("byte order mark", b'\xef\xbb\xbf{"red": {"1": 1}}', {"red": {"1": 1}}),
    ("emoji and right to left", '{"👗": {"1": 1}, "قميص": {"2": 0.5}}'.encode(), {"👗": {"1": 1}, "قميص": {"2": 0.5}}),
    ("negative grade", b'{"red": {"1": -1, "2": 1}}', {"red": {"1": -1, "2": 1}}),
)
def test_odd_query_files(given: bytes, happens: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "q.json").write_bytes(given)
    assert read_queries(str(tmp_path / "q.json")) == happens


@table(
    (
        "unknown product",
        {"red": {"99": 1}},
        "1 judged product ids, of 1 queries, are not in the catalogue.*'99'.*--drop",
    ),
    ("no product", {"blue": {"1": 1}, "red": {}}, "1 queries have no product of grade 1 or more, the first is 'red'"),
    ("only grades of 0", {"red": {"1": 0}}, "1 queries have no product of grade 1 or more.*--drop_missing_relevant"),
)
def test_bad_relevance(given: dict[str, dict[str, float]], happens: str) -> None:
    catalog = corpus({"id": "1", "title": "red shirt"})
    fields = {"name": "n", "description": "", "rows": np.arange(1), "metrics": (), "main_metric": ""}
    with pytest.raises(ValueError, match=happens):
        judged_task(given, "q.json", catalog, False, **fields)
    task = judged_task({**given, "shirt": {"1": 1}}, "q.json", catalog, True, **fields)
    assert "red" not in task.queries and task.num_dropped_queries == 1


@table(
    ("missing query", {"query": None}, "row 1: query None has"),
    ("blank query", {"query": " "}, "row 1: query ' ' has"),
    ("repeated query", {"query": "q0"}, "row 1: query 'q0' has"),
    ("missing ids", {"relevant_ids": None}, "row 1: query 'q1' has None"),
    ("null among the ids", {"relevant_ids": ["1", None]}, r"row 1: query 'q1' has \['1', None\]"),
    ("no such column", {"missing": "relevant_ids"}, "has no column 'relevant_ids'.*--relevant_ids_column"),
    ("numbers as queries", {"numbers": True}, "row 0: query 0 has"),
)
def test_bad_query_configurations(given: dict[str, Any], happens: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"query": f"q{i}", "relevant_ids": ["1"]} for i in range(3)]
    rows[1] |= {name: value for name, value in given.items() if name in rows[1]}
    if "numbers" in given:
        rows = [row | {"query": i} for i, row in enumerate(rows)]
    queries = Dataset.from_list(rows)
    if "missing" in given:
        queries = queries.remove_columns(given["missing"])
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: datasets.DatasetDict(test=queries))
    with pytest.raises(ValueError, match=happens):
        read_query_config("the shop", "queries", "query", "relevant_ids")


@table(
    ("repeated id", [{"id": "1", "title": "a"}, {"id": "1", "title": "b"}], "share the id '1'.*--on_bad_row skip"),
    ("titles of numbers", [{"id": "1", "title": 501}], "title column 'title' holds .*, not texts"),
    ("titles that are all missing", [{"id": "1", "title": None}], "title column 'title' holds .*, not texts"),
    ("attribute in lists", [{"id": "1", "title": "a", "colour": ["red"]}], "colour of row 0 is .*single value"),
)
def test_bad_corpora(given: list[dict[str, Any]], happens: str) -> None:
    with pytest.raises(ValueError, match=happens):
        corpus(*given)


def test_an_empty_split_has_no_product() -> None:
    empty = Dataset.from_dict({"id": [], "title": []})
    with pytest.raises(ValueError, match="the shop has no product: check the source and the split"):
        Corpus.from_products(empty, [], JUDGED, "the shop")


def test_odd_corpora() -> None:
    catalog = corpus({"id": 1.0, "title": "\u200b", "colour": math.nan}, {"id": 2.0, "title": "👗", "colour": 2.0})
    assert (catalog.ids, catalog.titles) == (["2", "1"], ["👗", None])
    assert catalog.attributes == {"colour": ["2", None]}  # and no query for "nan"


@table(
    ("broken JSON", "{", "can't be read"),
    ("list", "[1]", "holds no synonyms"),
    ("column of nothing", '{"colour": null}', "column 'colour' holds None"),
    ("empty word", '{"colour": {"red": [""]}}', "consists of words of the catalogue's own"),
    ("the same column twice", '{"colour": {}, "colour": {}}', "'colour' is there twice"),
)
def test_bad_synonyms(given: str, happens: str, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(given)
    with pytest.raises(ValueError, match=happens):
        Synonyms.read(str(tmp_path / "s.json"), corpus({"id": "1", "title": "a", "colour": "red"}))


def test_an_evaluation_leaves_bad_rows_out(
    tiny_config: Callable[..., Any], processor: AceBertProcessor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, checkpoint = save_splits(tmp_path / "shop"), tmp_path / "checkpoint"
    AceBertForRetrieval(tiny_config()).save_pretrained(checkpoint)
    processor.save_pretrained(checkpoint)
    flags = ["--model_name_or_path", str(checkpoint), "--dataset_name", data, "--output_dir", str(tmp_path / "report")]
    flags += ["--title_column", "title", "--attribute_columns", "kind", "--text_baselines", "none", "--no_plots"]
    with pytest.raises(ValueError, match=r"Row 7 has no id.*--on_bad_row skip"):
        evaluate_accelerate.main(flags)
    report = evaluate_accelerate.main([*flags, "--on_bad_row", "skip"])
    assert report["dataset"]["num_products"] == 21
    assert listed(tmp_path / "report" / "bad_rows.jsonl") == [(3, "image"), (5, "title and image"), (7, "id")]


# ----------------------------------------------------------------------------------------------------------------------
# Space
# ----------------------------------------------------------------------------------------------------------------------

TITLED = UploadColumns("id", "title", None)


@table(
    ("empty file", b"", "is empty"),
    ("blank file", b" \n\n", "is empty"),
    ("header alone", b"id,title\n", "There are no products"),
    ("columns of one name", b"id,title,id\n1,a,2", "Several columns are named 'id'"),
    ("photo in place of a table", PNG, "not a table that can be read"),
    ("workbook", b"PK\3\4" + bytes(40), "Excel workbook"),
    ("web page", b"<html></html>", "a web page or XML"),
    ("broken Parquet", b"PAR1 broken", "is damaged, cut off"),
    ("broken JSON", b"[{", "is not valid JSON"),
    ("nested 100,000 deep", b"[" * 100_000, "is not valid JSON"),
    ("too many columns", ",".join(map(str, range(300))).encode() + b"\n1", "more than 200 columns"),
    ("no such title column", b"id,name\n1,a", "'title' is not there"),
    ("text", "as number", "no number"),
)
def test_bad_uploads(given: Any, happens: str, tmp_path: Path) -> None:
    columns = TITLED
    if given == "as number":
        given, happens = b"id,title,price\n1,a,ask\n2,b,ask", "2 of the 2 values of 'price' are no numbers"
        columns = UploadColumns("id", "title", None, {"price": "number"})
    (tmp_path / "shop.csv").write_bytes(given)
    with pytest.raises(ValueError, match=happens) as caught:
        read_products(open_upload(tmp_path / "shop.csv", None, None, tmp_path / "kept", Limits()), columns)
    assert str(tmp_path) not in str(caught.value)


@table(
    ("missing id", b"id,title\n1,a\n,b", [(3, "id", "the product has no id")]),
    ("blank id", b'id,title\n1,a\n"  ",b', [(3, "id", "the product has no id")]),
    ("repeated id", b"id,title\n1,a\n1,b", [(3, "id", "row 2 has the same id")]),
    ("missing title", b"id,title\n1,a\n2,", [(3, "", "neither a title nor a photo")]),
    ("row that is too short", b"id,title\n1,a\n2", [(3, "", "it has 1 cells where the header has 2")]),
    ("row that is too long", b"id,title\n1,a\n2,b,c", [(3, "", "quote cells that hold separators")]),
    ("quotation mark left open", b'id,title\n1,a\n2,"b', [(3, "", "quotation marks don't match")]),
    ("line that is no JSON", b'{"id": 1, "title": "a"}\n{broken', [(2, "", "is not valid JSON")]),
    ("line that is no object", b'[{"id": 1, "title": "a"}, 7]', [(2, "", "it is not an object")]),
    ("missing values of pandas", b'[{"id": 1, "title": "a"}, {"id": 2, "title": NaN}]', [(2, "", "neither a title")]),
    ("emoji", "id,title\n1,👗\n2,قميص".encode(), []),
    ("half of an emoji", b'[{"id": 1, "title": "red \\ud800"}]', []),
    ("ids of letters and numbers", b'[{"id": 1, "title": "a"}, {"id": "x", "title": "b"}]', []),
    ("100,000 characters", b"id,title\n1," + b"red " * 25_000, []),
)
def test_bad_rows_of_uploads_are_listed(given: bytes, happens: list[tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_bytes(given)
    upload = open_upload(tmp_path / "shop.csv", None, None, tmp_path / "kept", Limits())
    products, bad = read_products(upload, TITLED)
    assert [(found.row, found.field) for found in bad] == [(row, field) for row, field, _ in happens]
    assert all(reason in found.reason for found, (_, _, reason) in zip(bad, happens, strict=True))
    assert len(products) + len(bad) == upload.num_rows


@pytest.mark.parametrize(("name", "data", "_"), BROKEN_FILES, ids=[row[0] for row in BROKEN_FILES])
def test_bad_photos_of_uploads(name: str, data: bytes, _: str) -> None:
    with pytest.raises(ValueError, match=r"no photo that can be read|is damaged|more than 40 million pixels"):
        check_photo(data, Limits())


# ----------------------------------------------------------------------------------------------------------------------


def test_a_bad_row_says_where_and_what() -> None:
    assert str(BadRow(7, "p7", "title", "is empty: give one")) == "row 7 (id 'p7'), title: is empty: give one"
