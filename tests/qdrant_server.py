"""A small HTTP server that answers like Qdrant, by qdrant-client's local mode, and fails on demand.

    with QdrantStandIn() as server:
        index = ServerIndex.create(f"{server.url}/products", ...)
        server.fail(429, times=2)

It knows the requests that this project makes, and no others.
"""

import contextlib
import json
import os
import re
import socket
import threading
import uuid
import warnings
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import grpc
from pydantic import BaseModel
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as wire
from qdrant_client.conversions.conversion import GrpcToRest

Fault = int | str  # a status, or "hang", "break off", "not qdrant", "proxy"


class QdrantStandIn:
    """Answers on a free port of this machine until it is closed.

    Args:
        key: the one that it wants, if any.
        version: the one that it gives as its own.
        prefix: path before all others, as behind a proxy.
    """

    def __init__(self, key: str | None = None, version: str = "1.18.2", prefix: str = ""):
        self.key, self.version, self.prefix = key, version, prefix
        self.requests: list[tuple[str, str, Any]] = []  # method, path, body of all that came
        self._store = QdrantClient(":memory:")
        self._turn = threading.RLock()  # in local mode a search beside a change may fail, as it does on no server
        self._faults: list[tuple[Fault, str]] = []
        self._released = threading.Event()
        self._http: ThreadingHTTPServer | None = None
        self._grpc: grpc.Server | None = None
        self.grpc_port = 0
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    def start(self) -> None:
        """Listens, at the same port as before."""
        self._released.clear()
        self._http = _Listener(("127.0.0.1", self.port), _handler(self))
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuses connections from now on. What was written is kept."""
        self._released.set()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def start_grpc(self) -> None:
        """Takes writes by gRPC, too."""
        self._grpc = grpc.server(futures.ThreadPoolExecutor(4))
        wire.points_service_pb2_grpc.add_PointsServicer_to_server(_Points(self), self._grpc)
        wire.collections_service_pb2_grpc.add_CollectionsServicer_to_server(_Collections(self), self._grpc)
        self.grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._grpc.start()

    def close(self) -> None:
        self.stop()
        if self._grpc is not None:
            self._grpc.stop(None)

    def __enter__(self) -> "QdrantStandIn":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def fail(self, fault: Fault, times: int = 1, path: str = "") -> None:
        """Has the next requests fail whose paths hold a text."""
        self._faults += [(fault, path)] * times

    def next_fault(self, path: str) -> Fault | None:
        with self._turn:
            for position, (fault, part) in enumerate(self._faults):
                if part in path:
                    del self._faults[position]
                    return fault
        return None

    def lose_disk(self) -> None:
        with self._turn:
            self._store = QdrantClient(":memory:")

    def names(self) -> dict[str, str | None]:
        """Collections, and the aliases of collections."""
        with self._turn:
            aliases = {each.alias_name: each.collection_name for each in self._store.get_aliases().aliases}
            return dict.fromkeys(sorted(each.name for each in self._store.get_collections().collections)) | aliases

    def bodies(self, path: str) -> list[Any]:
        return [body for _, asked, body in self.requests if re.search(path, asked)]

    def do(self, function: Any) -> Any:
        """What a function of the store returns, one at a time."""
        with self._turn, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of local mode's limits
            return function(self._store)

    def answer(self, method: str, path: str, body: Any) -> Any:
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts == ["collections"]:
            return self.do(lambda store: store.get_collections())
        if parts == ["aliases"]:
            return self.do(lambda store: store.get_aliases())
        if parts == ["collections", "aliases"]:
            actions = models.ChangeAliasesOperation(**body).actions
            return self.do(lambda store: store.update_collection_aliases(actions))
        name, rest = parts[1], "/".join(parts[2:])
        return self.do(lambda store: _ACTIONS[method, rest](store, name, body))


@contextlib.contextmanager
def qdrant_name(name: str) -> Iterator[str]:
    """The URL of a name that is free, on a stand-in of its own, or on the server that ACEBERT_QDRANT names.

    What a test leaves there is removed.
    """
    given = os.environ.get("ACEBERT_QDRANT")
    if not given:
        with QdrantStandIn() as stand_in:
            yield f"{stand_in.url}/{name}"
        return
    free = f"acebert-test-{uuid.uuid4().hex[:12]}-{name}"
    yield f"{given.rstrip('/')}/{free}"
    client = QdrantClient(url=given, api_key=os.environ.get("QDRANT_API_KEY"), check_compatibility=False)
    for collection in client.get_collections().collections:
        if collection.name.startswith(free):
            client.delete_collection(collection.name)
    client.close()


def _create(store: QdrantClient, name: str, body: Any) -> bool:
    asked = models.CreateCollection(**body)
    return store.create_collection(name, asked.vectors, asked.sparse_vectors, metadata=asked.metadata)


def _upsert(store: QdrantClient, name: str, body: Any) -> Any:
    return store.upsert(name, models.PointsList(**body).points)


def _search(store: QdrantClient, name: str, body: Any) -> Any:
    requests = models.QueryRequestBatch(**body).searches
    return store.query_batch_points(name, requests)


def _retrieve(store: QdrantClient, name: str, body: Any) -> Any:
    asked = models.PointRequest(**body)
    return store.retrieve(name, asked.ids, asked.with_payload, asked.with_vector)


def _facet(store: QdrantClient, name: str, body: Any) -> Any:
    asked = models.FacetRequest(**body)
    return store.facet(name, asked.key, asked.filter, asked.limit or 10, exact=True)


def _snapshot(store: QdrantClient, name: str, body: Any) -> Any:
    count = store.count(name).count
    return models.SnapshotDescription(name=f"{name}.snapshot", size=count, creation_time=None, checksum=None)


_DONE = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)
_ACTIONS: dict[tuple[str, str], Any] = {
    ("GET", ""): lambda store, name, body: store.get_collection(name),
    ("PUT", ""): _create,
    ("DELETE", ""): lambda store, name, body: store.delete_collection(name),
    ("PUT", "index"): lambda store, name, body: _DONE,
    ("PUT", "points"): _upsert,
    ("POST", "points"): _retrieve,
    ("POST", "points/delete"): lambda store, name, body: store.delete(name, models.PointIdsList(**body)),
    ("POST", "points/batch"): lambda store, name, body: store.batch_update_points(
        name, models.UpdateOperations(**body).operations
    ),
    ("POST", "points/query/batch"): _search,
    ("POST", "points/count"): lambda store, name, body: store.count(name, models.CountRequest(**body).filter),
    ("POST", "facet"): _facet,
    ("POST", "snapshots"): _snapshot,
}


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that is gone is no error of the server's


def _handler(stand_in: QdrantStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            path = urlsplit(self.path).path
            stand_in.requests.append((self.command, path, json.loads(raw) if raw else None))
            fault = stand_in.next_fault(path)
            if fault == "hang":
                stand_in._released.wait(60)
                self.close_connection = True
            elif fault == "break off":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b'{"result": [')
                self.wfile.flush()
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            elif fault == "not qdrant":
                self.send(200, b"<html>Welcome</html>")
            elif fault == "proxy":
                self.send(502, b"<html><h1>502 Bad\n Gateway</h1></html>")
            elif isinstance(fault, int):
                self.send_error_of(fault, "asked to fail")
            elif not path.startswith(stand_in.prefix + "/"):
                self.send(404, b"")
            else:
                self.act(path.removeprefix(stand_in.prefix), json.loads(raw) if raw else None)

        def act(self, path: str, body: Any) -> None:
            if path == "/":
                version = {"title": "qdrant - vector search engine", "version": stand_in.version}
                return self.send(200, json.dumps(version).encode())
            if stand_in.key is not None and self.headers.get("api-key") != stand_in.key:
                given = self.headers.get("api-key") is not None
                reason = (
                    "Invalid API key or JWT" if given else "Must provide an API key or an Authorization bearer token"
                )
                return self.send(401, reason.encode())
            if re.fullmatch(r"/collections/[^/]+/snapshots/[^/]+", path):
                if self.command == "DELETE":
                    return self.send(200, b'{"result": true, "status": "ok", "time": 0.0}')
                return self.send(200, b"all points" * 1000)
            try:
                result = stand_in.answer(self.command, path, body)
            except ValueError as error:
                return self.send_error_of(404 if "not found" in str(error) else 400, str(error))
            self.send(200, json.dumps({"result": _to_json(result), "status": "ok", "time": 0.0}).encode())

        def send_error_of(self, status: int, reason: str) -> None:
            self.send(status, json.dumps({"status": {"error": reason}, "time": 0.0}).encode())

        def send(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if status == 429:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = answer  # noqa: N815 (http.server calls them so)

    return Handler


def _to_json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_to_json(each) for each in value] if isinstance(value, list) else value


class _Points(wire.points_service_pb2_grpc.PointsServicer):
    def __init__(self, stand_in: QdrantStandIn):
        self.stand_in = stand_in

    def Upsert(self, request: Any, context: Any) -> Any:  # noqa: N802 (gRPC's name)
        points = []
        for point in request.points:
            rest = GrpcToRest.convert_point_struct(point)
            points.append(models.PointStruct(id=rest.id, vector=rest.vector, payload=rest.payload))
        self.stand_in.requests.append(("GRPC", f"/collections/{request.collection_name}/points", len(points)))
        self.stand_in.do(lambda store: store.upsert(request.collection_name, points))
        return wire.PointsOperationResponse(
            result=wire.UpdateResult(operation_id=0, status=wire.UpdateStatus.Completed)
        )


class _Collections(wire.collections_service_pb2_grpc.CollectionsServicer):
    def __init__(self, stand_in: QdrantStandIn):
        self.stand_in = stand_in

    def List(self, request: Any, context: Any) -> Any:  # noqa: N802 (gRPC's name)
        return wire.ListCollectionsResponse(
            collections=[wire.CollectionDescription(name=name) for name in self.stand_in.names()]
        )
