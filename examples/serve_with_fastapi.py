"""A search service over an encoded catalogue.

acebert build-catalog --model_name_or_path . --dataset_name path/to/products.csv --output_dir catalog
CATALOG=catalog MODEL=. uvicorn examples.serve_with_fastapi:app --port 8000
curl "http://127.0.0.1:8000/search?query=blue+mug&top_k=5"
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import torch
from fastapi import FastAPI, HTTPException, Query
from transformers import AutoModel, AutoProcessor

from acebert import ProductCatalog


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opens the catalogue once, read-only: any number of such services may share it."""
    name = os.environ.get("MODEL", ".")
    model = AutoModel.from_pretrained(name, trust_remote_code=True, use_safetensors=True, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
    torch.set_num_threads(1)  # searches are many and small: each does best on one core
    with ProductCatalog.load(os.environ["CATALOG"], model, processor, read_only=True) as app.state.catalog:
        yield


app = FastAPI(title="Product search", lifespan=lifespan)


# Plain functions, so that FastAPI runs them in threads: the catalogue may be searched from several at once.
@app.get("/search")
def search(query: str, top_k: int = Query(10, ge=1, le=100)) -> list[dict[str, Any]]:
    """The products that answer the query best."""
    if not query.strip():
        raise HTTPException(422, "query is empty: say what you look for")
    hits = app.state.catalog.search(query, top_k=top_k)
    return [{"id": hit.id, "title": hit.title, "score": hit.score, "attributes": hit.attributes} for hit in hits]


@app.get("/similar/{product_id}")
def similar(product_id: str, top_k: int = Query(10, ge=1, le=100)) -> list[dict[str, Any]]:
    """Products like this one."""
    catalog = app.state.catalog
    try:
        known = int(product_id) if catalog.settings.id_type == "integer" else product_id
        hits = catalog.search(like=known, top_k=top_k)
    except (KeyError, ValueError) as error:
        raise HTTPException(404, f"there is no product {product_id[:80]!r}") from error
    return [{"id": hit.id, "title": hit.title, "score": hit.score} for hit in hits]
