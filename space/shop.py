"""What every tab of the Space works with: the model, the shop's catalogue, and the photos of the catalogues shown."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import numpy as np
import torch
from datasets import Image, List, load_dataset
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError
from PIL.Image import Image as Photo
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from transformers import AutoModel, AutoProcessor, PreTrainedModel, ProcessorMixin

from acebert.catalog.product_catalog import Product, ProductCatalog
from acebert.catalog.records import Results
from acebert.encoding.explain import Explanation, explain
from acebert.space.uploads.limits import MB
from acebert.utils.fingerprints import code_sha256, content_sha256, processor_sha256, product_weights_sha256

TEXTS_KEPT = 4096  # vectors of queries: 6 MB
QUERY_CHARACTERS = 1000  # more than the model reads
MOST_HITS = 100  # products that a call of the API returns
PHOTO_BYTES = 128 * MB  # of photos kept as files, of all catalogues together: about 4,000 of 512 pixels
ENTRY_BYTES = 512  # that a photo takes beside its file, so that those of products without one are bounded, too
PHOTO_TYPES = {b"\xff\xd8": "image/jpeg", b"\x89P": "image/png", b"RI": "image/webp", b"GI": "image/gif"}
NO_PHOTO = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 125"><text x="50" y="65" text-anchor="middle"
font-family="system-ui, sans-serif" font-size="8" fill="#64748b">No photo</text></svg>"""


@dataclass
class KeptPhotos:
    """Photos of one catalogue as files, the first that was read first.

    Args:
        files: by product, place and number; None for a product without a photo.
        size: of all of them, in bytes.
    """

    files: dict[tuple, bytes | None] = field(default_factory=dict)
    size: int = 0

    def add(self, key: tuple, photo: bytes | None) -> None:
        if key not in self.files:  # another request may have been quicker
            self.files[key] = photo
            self.size += len(photo or b"") + ENTRY_BYTES

    def drop_first(self) -> None:
        photo = self.files.pop(next(iter(self.files)))
        self.size -= len(photo or b"") + ENTRY_BYTES


class Shop:
    """A catalogue, and the model that made it.

    Args:
        catalog: the shop's catalogue, opened with its model.
        cache: folder to keep things in between two starts.
        attributes: those of the catalogue to show and to filter by; all of them by default.

    Raises:
        ValueError: for a catalogue that was opened without a model, or an attribute that it doesn't have.
    """

    def __init__(self, catalog: ProductCatalog, cache: Path, attributes: Sequence[str] | None = None) -> None:
        if catalog.encoder is None:
            raise ValueError(f"{catalog.path} was opened without a model, which a search needs: give the model.")
        self.catalog, self.cache, self.encoder = catalog, cache, catalog.encoder
        if attributes is None:
            attributes = list(catalog.attributes)
        if unknown := [name for name in attributes if name not in catalog.attributes]:
            raise ValueError(f"The catalogue has no attribute {unknown[0]!r}: it has {list(catalog.attributes)}.")
        self.attributes = list(attributes)
        self._shown: weakref.WeakValueDictionary[str, ProductCatalog] = weakref.WeakValueDictionary()
        self._encode_text = lru_cache(TEXTS_KEPT)(lambda text: self.encoder.encode_queries([text], None)[0])
        # Of each catalogue, and gone with it.
        self._photos: weakref.WeakKeyDictionary[ProductCatalog, KeptPhotos] = weakref.WeakKeyDictionary()

    def encode(self, text: str = "", photo: Photo | None = None) -> np.ndarray:
        """(dim,) unit vector of words, of a photo, or the mean of the two.

        Raises:
            ValueError: where there is neither, or more words than a query can have.
        """
        self.check_query(text)
        if photo is not None:
            return self.encoder.encode_queries([text] if text else None, [photo])[0]
        if not text:
            raise ValueError("A search needs words, a photo, or both.")
        return self._encode_text(text)

    def check_query(self, text: str) -> None:
        """Raises ValueError for more words than a query can have."""
        if len(text) > QUERY_CHARACTERS:
            raise ValueError(f"A query has up to {QUERY_CHARACTERS:,} characters, and this one {len(text):,}: cut it.")

    def explain(self, query: np.ndarray, product: Product, photo: bytes | None) -> Explanation:
        """What the match of a (dim,) query and a product, of whose photo the catalogue has this file, rests on."""
        return explain(self.encoder.model, self.encoder.processor, torch.tensor(query), product.title, photo)

    def photo_address(self, catalog: ProductCatalog, product: Product, number: int = 0) -> str:
        """Where the page finds a product's photo, of several the one with a number.

        The catalogue is known by its folder's name for as long as it lives.
        So the folder of a catalogue that isn't for everyone needs a name that can't be guessed.
        """
        self._shown[catalog.path.name] = catalog
        fields = {"catalog": catalog.path.name, "product": product.id} | ({"number": number} if number else {})
        return "photo?" + urlencode(fields)

    async def serve_photo(self, request: Request) -> Response:
        """Answers a request for an address that [`Shop.photo_address`] gave."""
        catalog = self._shown.get(request.query_params.get("catalog", ""))
        product, photo = None, None
        try:
            if catalog is not None:
                product = find_product(catalog, request.query_params.get("product", ""))
            if catalog is not None and product is not None:
                photo = await self._photo(catalog, product, read_number(request.query_params.get("number", "0")))
        except (RuntimeError, OSError):  # it was closed, and its folder removed, a moment ago
            product = None
        if product is None:
            return Response("There is no such product.", status_code=404, media_type="text/plain")
        media_type = PHOTO_TYPES[photo[:2]] if photo else "image/svg+xml"
        headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
        return Response(photo or NO_PHOTO, media_type=media_type, headers=headers)

    async def _photo(self, catalog: ProductCatalog, product: Product, number: int = 0) -> bytes | None:
        kept = self._photos.setdefault(catalog, KeptPhotos())
        key = product.id, product.location, number
        if key in kept.files:
            return kept.files[key]
        if number and number >= (product.num_photos or 0):
            return None  # and nothing to keep: there is no end to such numbers
        # Only reading a photo is worth a thread.
        if number:
            for place, each in enumerate(await run_in_threadpool(catalog.photos, product)):
                kept.add((*key[:2], place), each)
        else:
            kept.add(key, await run_in_threadpool(catalog.photo, product))
        photo = kept.files.get(key)
        while sum(kept.size for kept in self._photos.values()) > PHOTO_BYTES:
            # Nobody's catalogue pushes the others' photos out.
            max(self._photos.values(), key=lambda kept: kept.size).drop_first()
        return photo


def search_one(catalog: ProductCatalog, **query: Any) -> Results:
    """`catalog.search` with one query, of which it returns one list."""
    return cast("Results", catalog.search(**query))


def read_text(typed: str | None) -> str:
    """What was typed, without surrounding spaces and halves of characters, which JSON may hold."""
    return (typed or "").encode(errors="replace").decode().strip()


def read_number(text: str) -> int:
    """The number of a photo as it stands in an address, 0 for anything else."""
    return int(text) if text.isdecimal() and len(text) < 4 else 0


def find_product(catalog: ProductCatalog, written: str) -> Product | None:
    """A product by its id as it stands in an address; None where there is none."""
    if catalog.settings.id_type == "string":
        return catalog.get(written)
    try:
        return catalog.get(int(written))
    except ValueError:
        return None


def load_model(source: str, revision: str | None = None) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Model and processor as any Hub user loads them, on the GPU where there is one.

    Args:
        source: a Hub id or a folder with a checkpoint.
        revision: branch, tag or commit on the Hub.

    Raises:
        ValueError: where the checkpoint carries no processor for photos.
    """
    source = str(Path(source).resolve()) if Path(source).is_dir() else source
    processor = AutoProcessor.from_pretrained(source, revision=revision, trust_remote_code=True)
    if not hasattr(processor, "image_processor"):
        raise ValueError(f"{source!r} has no image processor, so it can't read photos: name an ACE-BERT checkpoint.")
    # The released weights are bfloat16, which many a CPU only emulates.
    model = AutoModel.from_pretrained(
        source, revision=revision, dtype=torch.float32, use_safetensors=True, trust_remote_code=True
    )
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), processor


def is_catalog_on_hub(source: str, revision: str | None) -> bool:
    """Whether a dataset repository is a catalogue that `ProductCatalog.build` made. Asks the cache where offline."""
    if Path(source).exists():
        return False
    try:
        hf_hub_download(source, "catalog.json", repo_type="dataset", revision=revision)
    except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):
        return False
    return True


def open_catalog(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    source: str,
    cache: Path,
    *,
    revision: str | None = None,
    split: str = "all",
    id_column: str = "id",
    title_column: str = "title",
    image_column: str = "image",
    attributes: Sequence[str] = (),
    group_column: str | None = None,
) -> ProductCatalog:
    """Opens the shop's catalogue, read-only; a dataset is encoded first, once.

    Args:
        model, processor: of [`load_model`].
        source: a catalogue that `ProductCatalog.build` made, or a dataset; each a Hub id or a folder.
        cache: a dataset's catalogue is kept there, under a name made of the fingerprints of the model, its processor
            and code, and the dataset. An encoding that was stopped goes on.
        revision: branch, tag or commit of a source on the Hub.
        split: of the dataset.
        id_column, title_column, image_column: of the dataset.
        attributes: the dataset's columns to show and to filter by.
        group_column: the dataset's column that the variants of a product share, which are shown as one.

    Raises:
        ValueError: for a missing column, a column of photos that holds none, or a catalogue that another model made.
    """
    if Path(source, "catalog.json").exists() or is_catalog_on_hub(source, revision):
        return ProductCatalog.load(source, model, processor, revision=revision, read_only=True)
    dataset = load_dataset(source, split=split, revision=revision)
    for column in (id_column, title_column, image_column, *attributes, *([group_column] if group_column else [])):
        if column not in dataset.column_names:
            raise ValueError(
                f"The catalogue has no column {column!r}; it has {dataset.column_names}. "
                "Name the right ones with --id_column, --title_column, --image_column, --attribute_columns and "
                "--group_column."
            )
    feature = dataset.features[image_column]
    if not isinstance(feature.feature if isinstance(feature, List) else feature, Image):
        raise ValueError(f"Column {image_column!r} holds {feature}, and not photos.")
    # `_fingerprint` is what datasets keys its own caches on: the data files' content and every transform since.
    parts = [product_weights_sha256(model), processor_sha256(processor), code_sha256(model, processor)]
    parts += [dataset._fingerprint, id_column, title_column, image_column, *attributes]
    parts += [f"group {group_column}"] if group_column else []
    path = cache / content_sha256("|".join(map(str, parts)))[:32]
    if not (path / "catalog.json").exists():
        built = ProductCatalog.build(
            model,
            processor,
            dataset,
            path,
            id_column=id_column,
            title_column=title_column,
            image_column=image_column,
            attribute_columns=attributes,
            index="memory",
            on_bad_row="skip",
            group_column=group_column,
        )
        assert built is not None  # as it is to all but the first of several processes
        built.close()
    return ProductCatalog.load(path, model, processor, read_only=True)
