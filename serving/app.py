"""The HTTP service over a catalogue: `acebert serve` runs it in one or several worker processes.

Every worker opens the catalogue as shared: it searches an index of its own, writes changes to the folder, and looks
before each search whether another worker has changed something. So the next search sees a change, whoever answers it.
"""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from prometheus_client.multiprocess import mark_process_dead
from transformers import AutoModel, AutoProcessor, PreTrainedModel, ProcessorMixin

from acebert import __version__
from acebert.catalog import ProductCatalog
from acebert.catalog.filters import parse_filters
from acebert.catalog.records import Results
from acebert.data.cleaning import find_photo_error
from acebert.serving import contract
from acebert.serving.errors import RESPONSES, ApiError, add_error_handlers, catalog_errors
from acebert.serving.guard import MULTIPROCESS, PRODUCTS, Guard, may_search, may_write, read_metrics
from acebert.serving.settings import Keys, Settings

search_routes: dict[str, Any] = {"dependencies": [Depends(may_search)], "responses": RESPONSES}
write_routes: dict[str, Any] = {"dependencies": [Depends(may_write)], "responses": RESPONSES}


def load_model(settings: Settings) -> tuple[PreTrainedModel, ProcessorMixin]:
    """The checkpoint or the ONNX export, and its processor."""
    name, options = settings.model_name_or_path, {"revision": settings.revision, "trust_remote_code": True}
    processor = AutoProcessor.from_pretrained(name, **options)
    if (Path(name) / "export.json").exists():
        # Here, because only an export needs onnxruntime.
        from acebert.encoding.onnx_model import OnnxAceBertModel

        return OnnxAceBertModel(name, num_threads=settings.threads), processor
    return AutoModel.from_pretrained(name, dtype=torch.float32, use_safetensors=True, **options), processor


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opens the catalogue before the first request and closes it after the last."""
    settings: Settings = app.state.settings
    torch.set_num_threads(settings.threads)
    with ProductCatalog.load(settings.catalog, *load_model(settings), shared=True) as app.state.catalog:
        app.state.catalog.calibrate()
        PRODUCTS.set(len(app.state.catalog))
        yield
    if MULTIPROCESS in os.environ:
        mark_process_dead(os.getpid())


def create_app(settings: Settings | None = None, keys: Keys | None = None) -> FastAPI:
    """The service.

    Args:
        settings: by default those that `acebert serve` left in the environment.
        keys: likewise.
    """
    settings = settings or Settings.from_environment()
    app = FastAPI(title="ACE-BERT product search", version=__version__, lifespan=lifespan)
    app.state.settings, app.state.keys = settings, keys or Keys.from_environment()
    add_error_handlers(app)
    app.add_middleware(Guard, max_body_bytes=settings.max_body_bytes, max_waiting=settings.max_waiting)
    if settings.allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allow_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["X-API-Key", "Content-Type"],
        )
    add_state(app)
    add_searches(app)
    add_changes(app)
    return app


def current(request: Request) -> ProductCatalog:
    """The catalogue with what other workers have changed."""
    catalog: ProductCatalog = request.app.state.catalog
    with catalog_errors("catalog"):
        catalog.refresh()
    return catalog


Catalog = Depends(current)


def add_state(app: FastAPI) -> None:
    """What a load balancer, Prometheus and a client ask about the service itself."""

    @app.get("/health", tags=["state"])
    async def health() -> contract.StateAnswer:
        """The process is alive."""
        return contract.StateAnswer(status="ok")

    @app.get("/ready", tags=["state"], responses={503: RESPONSES[503]})
    def ready(catalog: ProductCatalog = Catalog) -> contract.StateAnswer:
        """The catalogue's index answers."""
        with catalog_errors("catalog"):
            PRODUCTS.set(len(catalog))
        return contract.StateAnswer(status="ok")

    @app.get("/metrics", tags=["state"], response_class=Response)
    def metrics() -> Response:
        """Requests, seconds and products of all workers, for Prometheus."""
        return read_metrics()

    @app.get("/v1/catalog", tags=["search"], **search_routes)
    def describe(catalog: ProductCatalog = Catalog) -> contract.CatalogAnswer:
        """What can be searched, and filtered by."""
        settings = catalog.settings
        return contract.CatalogAnswer(
            products=len(catalog),
            id_type=settings.id_type,
            attributes=settings.attributes,
            using=[*settings.vectors, "words"],
            group=settings.group,
            model=settings.model["name"] and Path(settings.model["name"]).name,
        )


def add_searches(app: FastAPI) -> None:
    """What reads the catalogue. Plain functions, which FastAPI runs in threads."""
    limits: Settings = app.state.settings

    def check_top_k(top_k: int) -> None:
        if top_k > limits.max_top_k:
            raise ApiError(422, "top_k is too large.", f"Ask for at most {limits.max_top_k}.", "top_k", top_k)

    def answer(results: Results, start: float) -> contract.SearchAnswer:
        return contract.SearchAnswer(
            hits=[contract.Hit.model_validate(hit, from_attributes=True) for hit in results],
            total=results.total,
            text=results.text,
            corrections=results.corrections,
            expansions=results.expansions,
            chips=[contract.Chip.model_validate(chip, from_attributes=True) for chip in results.chips],
            nothing_fits=results.nothing_fits,
            near_values=results.near_values,
            seconds=round(time.perf_counter() - start, 4),
        )

    @app.post("/v1/search", tags=["search"], **search_routes)
    def search(body: contract.SearchRequest, catalog: ProductCatalog = Catalog) -> contract.SearchAnswer:
        """Finds products by words, by a photo, by both, or by a vector."""
        start = time.perf_counter()
        check_top_k(body.top_k)
        if len(body.text or "") > limits.max_query_length:
            remedy = f"Ask in at most {limits.max_query_length} characters."
            raise ApiError(422, "text is too long.", remedy, "text", body.text)
        check_photo(body.image, "image")
        check_filters(catalog, body.filters)
        with catalog_errors("using", body.using, body):
            return answer(cast("Results", catalog.search(**body.options())), start)

    @app.post("/v1/similar", tags=["search"], **search_routes)
    def similar(body: contract.SimilarRequest, catalog: ProductCatalog = Catalog) -> contract.SearchAnswer:
        """Finds products like one of the catalogue's."""
        start = time.perf_counter()
        check_top_k(body.top_k)
        check_filters(catalog, body.filters)
        options = body.options()
        with catalog_errors("id", body.id, body):
            return answer(cast("Results", catalog.search(like=options.pop("id"), **options)), start)

    @app.post("/v1/facets", tags=["search"], **search_routes)
    def facets(body: contract.FacetsRequest, catalog: ProductCatalog = Catalog) -> contract.FacetsAnswer:
        """Counts the values of attributes among the products that meet the filters."""
        check_filters(catalog, body.filters)
        with catalog_errors("attributes", body.attributes, body):
            counted = {name: catalog.facets(name, body.filters, body.limit, body.group_by) for name in body.attributes}
            products, groups = catalog.count(body.filters), catalog.count_groups(body.filters, body.group_by)
        values = {
            name: [contract.Count(value=value, count=count) for value, count in counts.items()]
            for name, counts in counted.items()
        }
        return contract.FacetsAnswer(facets=values, products=products, groups=groups)

    @app.get("/v1/products/{product_id:path}/photo", tags=["search"], response_class=Response, **search_routes)
    def photo(product_id: str, number: Annotated[int, Query(ge=0)] = 0, catalog: ProductCatalog = Catalog) -> Response:
        """A product's photo, as an image file; of several the first, or that with a number."""
        product = find(catalog, product_id)
        photos = catalog.photos(product) if number else [catalog.photo(product)]
        found = photos[number] if number < len(photos) else None
        if found is None:
            what = f"photo {number}" if number else "photo"
            raise ApiError(404, f"The product has no {what}.", "Show it without one.", "product_id", product_id)
        # What a file holds decides what it is, and never a browser's guess.
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "max-age=300"}
        return Response(found, media_type=image_type(found), headers=headers)

    @app.get("/v1/products/{product_id:path}", tags=["search"], **search_routes)
    def product(product_id: str, catalog: ProductCatalog = Catalog) -> contract.Product:
        """A product by its id."""
        return contract.Product.model_validate(find(catalog, product_id), from_attributes=True)


def add_changes(app: FastAPI) -> None:
    """What changes the catalogue. When a call has answered, the change is on the disk, and the next search sees it."""
    limits: Settings = app.state.settings

    def check_count(items: list[Any], field: str) -> None:
        if len(items) > limits.max_products:
            remedy = f"Send at most {limits.max_products} at a time."
            raise ApiError(422, f"{len(items)} are too many for one change.", remedy, field)

    @app.post("/v1/products/upsert", tags=["changes"], **write_routes)
    def upsert(body: contract.UpsertRequest, catalog: ProductCatalog = Catalog) -> contract.ChangeAnswer:
        """Adds products, or replaces those whose ids are there; all of them, or none if one of them is wrong."""
        check_count(body.products, "products")
        for position, new in enumerate(body.products):
            if taken := new.attributes.keys() & {"id", "title", "image", "images"}:
                field = f"products.{position}.attributes.{min(taken)}"
                raise ApiError(422, f"{min(taken)} is no attribute.", "Give it beside the attributes.", field)
        products = [
            {"id": new.id, "title": new.title, "image": new.images or new.image, **new.attributes}
            for new in body.products
        ]
        with catalog_errors("products"):
            return contract.ChangeAnswer(changed=catalog.upsert(products))

    @app.post("/v1/products/delete", tags=["changes"], **write_routes)
    def delete(body: contract.DeleteRequest, catalog: ProductCatalog = Catalog) -> contract.ChangeAnswer:
        """Removes products; ids that aren't there are passed over."""
        check_count(body.ids, "ids")
        with catalog_errors("ids", body.ids):
            return contract.ChangeAnswer(changed=catalog.delete(body.ids))

    @app.post("/v1/products/attributes", tags=["changes"], **write_routes)
    def set_attributes(body: contract.AttributesRequest, catalog: ProductCatalog = Catalog) -> contract.ChangeAnswer:
        """Sets attributes, as price and stock, without encoding the products again."""
        check_count(body.products, "products")
        values = {change.id: change.attributes for change in body.products}
        with catalog_errors("products"):
            catalog.update_attributes(values)
        return contract.ChangeAnswer(changed=len(values))


def find(catalog: ProductCatalog, product_id: str) -> Any:
    """A product by the id in an address, where numbers are texts.

    Raises:
        ApiError: there is none.
    """
    integer = catalog.settings.id_type == "integer"
    found = None
    with catalog_errors("product_id", product_id):
        if not integer or product_id.removeprefix("-").isdecimal():
            found = catalog.get(int(product_id) if integer else product_id)
    if found is None:
        remedy = "Ask for the id of a product that is there."
        raise ApiError(404, "There is no such product.", remedy, "product_id", product_id)
    return found


def check_filters(catalog: ProductCatalog, filters: dict[str, Any]) -> None:
    """Raises ApiError for filters that the catalogue can't apply."""
    with catalog_errors("filters", filters):
        parse_filters(filters, catalog.attributes, lambda name: ())  # paths are looked up by the search


def check_photo(photo: bytes | None, field: str) -> None:
    """Raises ApiError for a photo that can't be read."""
    if photo is not None and (problem := find_photo_error(photo)):
        raise ApiError(422, f"The photo {problem.split('.')[0]}.", "Send a JPEG, PNG, WebP or GIF in base64.", field)


def image_type(photo: bytes) -> str:
    """The media type of an image file that the catalogue keeps."""
    for start, kind in ((b"\xff\xd8", "jpeg"), (b"\x89PNG", "png"), (b"GIF8", "gif")):
        if photo.startswith(start):
            return f"image/{kind}"
    return "image/webp"
