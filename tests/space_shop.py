"""A small shop, and tabs of the Space served on their own, for the tests of the Space's tabs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from datasets import Dataset, Features, Image, Value
from gradio_client import Client
from helpers import product_rows

from acebert.catalog.product_catalog import ProductCatalog
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor
from acebert.space.page import launch
from acebert.space.shop import Shop

COLUMNS = ("title", "kind", "colour", "gender")
FEATURES = Features({name: Value("string") for name in COLUMNS} | {"id": Value("int64"), "image": Image()})
NASTY = '<svg src=x onerror="alert(1)"> & co'


def make_shop(
    config: Any, processor: AceBertProcessor, folder: Path, rows: list[dict[str, Any]] | None = None, **build: Any
) -> Shop:
    """A shop with 32 products, or those given, and a model that has learnt nothing."""
    torch.manual_seed(0)
    model = AceBertModel(config).eval()
    rows = product_rows(32) if rows is None else rows
    dataset = Dataset.from_list([{name: row[name] for name in FEATURES} for row in rows], features=FEATURES)
    catalog = ProductCatalog.build(model, processor, dataset, folder / "catalog", index="memory", **build)
    return Shop(catalog, folder / "cache", COLUMNS[1:])


@contextmanager
def served(lay_out: Callable[[Shop], None], shop: Shop) -> Iterator[str]:
    """Serves what `lay_out` adds to a page; the value is the page's address."""
    with gr.Blocks(analytics_enabled=False) as page:
        lay_out(shop)
    _, url, _ = launch(page, shop, prevent_thread_lock=True, quiet=True)
    try:
        yield url
    finally:
        page.close()


@contextmanager
def client_of(lay_out: Callable[[Shop], None], shop: Shop) -> Iterator[Client]:
    with served(lay_out, shop) as url:
        yield Client(url, verbose=False)
