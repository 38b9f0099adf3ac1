"""What stands before every request: its key, its size, how many there may be at once, and the metrics of all."""

import hmac
import os
import time

from fastapi import Request, Security
from fastapi.security import APIKeyHeader
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from acebert.serving.errors import ApiError
from acebert.serving.settings import SEARCH_KEY, WRITE_KEY, Keys

KEY = APIKeyHeader(name="X-API-Key", auto_error=False, description=f"As in {SEARCH_KEY} or {WRITE_KEY} of the service.")
UNLIMITED = ("/health", "/ready", "/metrics")  # answered however busy the service is
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"  # where workers add up their metrics

REQUESTS = Counter("acebert_requests_total", "Requests answered.", ["route", "status"])
SECONDS = Histogram(
    "acebert_request_seconds",
    "Seconds from a request to its answer.",
    ["route"],
    buckets=(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10),
)
WAITING = Gauge("acebert_requests_in_progress", "Requests in progress.", multiprocess_mode="livesum")
PRODUCTS = Gauge("acebert_products", "Products in the catalogue.", multiprocess_mode="max")


async def may_search(request: Request, key: str | None = Security(KEY)) -> None:
    """Lets a request through that shows one of the keys, or any if there is no key for searches."""
    keys: Keys = request.app.state.keys
    if keys.search is not None and not (_same(key, keys.search) or _same(key, keys.write)):
        raise ApiError(401, "The key is missing or wrong.", "Send the key for searches as X-API-Key.", "X-API-Key")


async def may_write(request: Request, key: str | None = Security(KEY)) -> None:
    """Lets a request through that shows the key for changes."""
    keys: Keys = request.app.state.keys
    if keys.write is None:
        raise ApiError(403, "This service takes no changes.", f"Start it with {WRITE_KEY} in its environment.")
    if not _same(key, keys.write):
        raise ApiError(401, "The key is missing or wrong.", "Send the key for changes as X-API-Key.", "X-API-Key")


def _same(given: str | None, key: str | None) -> bool:
    """Compares in a time that doesn't tell how much of the key was right."""
    return given is not None and key is not None and hmac.compare_digest(given.encode(), key.encode())


def read_metrics() -> Response:
    """The metrics of all workers, as Prometheus reads them."""
    registry = REGISTRY
    if MULTIPROCESS in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class Guard:
    """Middleware that refuses what is too large or too much at once, and counts and times the rest.

    Args:
        app: what it stands before.
        max_body_bytes: of a request.
        max_waiting: requests at once.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_waiting: int):
        self.app, self.max_body_bytes, self.max_waiting = app, max_body_bytes, max_waiting
        self.waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNLIMITED:
            await self.app(scope, receive, send)
            return
        status, start, began = 500, time.perf_counter(), False

        async def note(message: Message) -> None:
            nonlocal status, began
            if message["type"] == "http.response.start":
                status, began = message["status"], True
            await send(message)

        self.waiting += 1
        WAITING.inc()
        try:
            if self.waiting > self.max_waiting:
                raise ApiError(503, f"{self.max_waiting} requests are in progress.", "Try again.", retry_after=1)
            length = dict(scope["headers"]).get(b"content-length", b"0")
            if not length.isdigit() or int(length) > self.max_body_bytes:
                raise self._too_large()
            await self.app(scope, self._limit(receive), note)
        except ApiError as error:
            if began:
                raise
            await error.to_response()(scope, receive, note)
        finally:
            self.waiting -= 1
            WAITING.dec()
            # The route's pattern, not the address: there are as many of those as products.
            route = getattr(scope.get("route"), "path", "none")
            REQUESTS.labels(route, str(status)).inc()
            SECONDS.labels(route).observe(time.perf_counter() - start)

    def _limit(self, receive: Receive) -> Receive:
        had = 0

        async def limited() -> Message:
            nonlocal had
            message = await receive()
            had += len(message.get("body", b""))
            if had > self.max_body_bytes:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        remedy = "Send a smaller photo, or fewer products at a time."
        return ApiError(413, f"The request is larger than {self.max_body_bytes:,} bytes.", remedy, "body")
