"""What the tests of the catalogue share besides fixtures."""

import io
from typing import Any

from datasets import Features, Image, List, Value
from PIL import Image as PilImage

from acebert.catalog import ProductCatalog

COUNT = 40

FEATURES = Features(
    {name: Value("string") for name in ("title", "kind", "colour", "gender")}
    | {
        "id": Value("int64"),
        "image": Image(),
        "price": Value("float64"),
        "stock": Value("int32"),
        "sale": Value("bool"),
    }
    | {"sizes": List(Value("string"))}
)


def reopen(catalog: ProductCatalog, **settings: Any) -> ProductCatalog:
    """As after a kill: nothing of the old one is flushed, only its lock is let go of, as the system does."""
    encoder = catalog._encoder
    catalog._live.abandon()
    return ProductCatalog.load(catalog.path, encoder.model, encoder.processor, **settings)


def ids(hits: list[Any]) -> list[Any]:
    return [hit.id for hit in hits]


def png(image: PilImage.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
