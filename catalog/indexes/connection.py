"""The way to a Qdrant server: its address, its options, what is repeated when it fails, and what an error says.

A request fails for two kinds of reasons. Some pass by themselves (the server restarts or is busy, a node of the cluster
is down): such a request goes to the next address, and after all of them again, with longer and longer pauses. Repeating
is safe for writes too: they name products by their keys, so that a second time makes no difference. Other reasons stay
(a wrong key, a collection that isn't there): these end the operation at once.
"""

import contextlib
import ipaddress
import json
import random
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit, urlunsplit

from transformers.utils import logging

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

logger = logging.get_logger(__name__)

TRIED = "1.18.2"  # the server that the whole contract was run against, by qdrant-client 1.20
LEAST_VERSION = (1, 16)  # the first whose collections keep metadata, which say whose they are
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between attempts; each is twice the one before
PROBE_SECONDS = 0.5  # for the gRPC port to answer
NOT_QDRANT = "its answer is none of a Qdrant server's: look at the address."
PASSING = (408, 429, 500, 502, 503, 504)  # HTTP statuses of failures that may pass

T = TypeVar("T")


class IndexUnavailableError(ConnectionError):
    """The server can't be reached, or is too busy, for longer than the options allow."""


@dataclass(frozen=True)
class ServerOptions:
    """How a collection is made on a Qdrant server, and how it is spoken to.

    Args:
        shard_number: parts that the collection is split into, over the nodes of a cluster.
        replication_factor: nodes that hold each part.
        write_consistency_factor: of these, how many must have a write before it counts.
        on_disk: leave the product vectors on disk, and read them from there.
        quantization: "scalar" keeps the product vectors in one byte a number in memory beside the full ones, "binary"
            in one bit; candidates found by these are scored again by the full vectors.
        oversampling: with quantization, how many times `top_k` candidates are scored again.
        hnsw_m: edges of the graph per product.
        hnsw_ef_construct: candidates looked at for each of them.
        hnsw_ef: candidates that a search keeps.
        timeout: seconds that a request may take, and after which a failed operation isn't repeated any more.
        retries: how often a failed operation is repeated within `timeout`, at each of the addresses.
        grpc: write by gRPC; None where its port answers.
        grpc_port: of all addresses.
        parallel: requests that are written at a time.
        api_key: of the server; without, the environment variable QDRANT_API_KEY. Never kept on disk.

    Raises:
        ValueError: for a value that can't be, naming it.
    """

    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
    on_disk: bool = False
    quantization: Literal["none", "scalar", "binary"] = "none"
    oversampling: float = 3.0
    hnsw_m: int = 16
    hnsw_ef_construct: int = 100
    hnsw_ef: int = 512
    timeout: float = 10.0
    retries: int = 8
    grpc: bool | None = None
    grpc_port: int = 6334
    parallel: int = 4
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.quantization not in ("none", "scalar", "binary"):
            raise ValueError(f"quantization must be 'none', 'scalar' or 'binary', got {self.quantization!r}.")
        numbers: list[tuple[str, Any, float]] = [
            *((name, int, 1) for name in ("hnsw_m", "hnsw_ef_construct", "hnsw_ef", "grpc_port", "parallel")),
            *((name, int, 1) for name in ("shard_number", "replication_factor", "write_consistency_factor")),
            ("retries", int, 0),
            ("timeout", (int, float), 0.001),
            ("oversampling", (int, float), 1),
        ]
        for name, kinds, least in numbers:
            value = getattr(self, name)
            if value is None and type(self).__dataclass_fields__[name].default is None:
                continue
            if isinstance(value, bool) or not isinstance(value, kinds) or value < least:
                raise ValueError(f"{name} must be a number of at least {least}, got {value!r}.")
        for name in ("on_disk", "grpc"):
            if getattr(self, name) not in (True, False, None):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}.")

    @classmethod
    def of(cls, values: Mapping[str, Any] | None) -> "ServerOptions":
        """Options by name.

        Raises:
            ValueError: for an unknown name, or a value that can't be.
        """
        known = [each.name for each in fields(cls)]
        for name in values or {}:
            if name not in known:
                raise ValueError(f"Unknown index option {name!r}: a server's index takes {', '.join(known)}.")
        return cls(**(values or {}))

    @classmethod
    def read_flags(cls, flags: Sequence[str]) -> dict[str, Any]:
        """Options as a command takes them, `name=value` each.

        Raises:
            ValueError: for another spelling, an unknown name, a value that can't be, or the key.
        """
        values: dict[str, Any] = {}
        for flag in flags:
            name, equals, text = flag.partition("=")
            if not equals:
                raise ValueError(f"An index option is written name=value, as shard_number=6; got {flag[:80]!r}.")
            if name == "api_key":
                raise ValueError("The key isn't taken as a flag, which others could read: set QDRANT_API_KEY.")
            try:
                values[name] = json.loads(text)
            except json.JSONDecodeError:
                values[name] = text
        cls.of(values)
        return values

    def to_keep(self) -> dict[str, Any]:
        """What differs from the defaults, without the key: a catalogue keeps it on disk."""
        default = ServerOptions()
        return {k: v for k, v in asdict(self).items() if k != "api_key" and v != getattr(default, k)}


class Address(NamedTuple):
    """Where a collection is.

    Args:
        urls: of the servers, without the collection, tried in turn.
        collection: its name, or an alias of it.
    """

    urls: tuple[str, ...]
    collection: str

    def __str__(self) -> str:
        return ",".join(f"{url}/{self.collection}" for url in self.urls)


def parse_address(text: str) -> Address:
    """Reads `http(s)://host:port/collection`, perhaps with a prefix in the path, or several such URLs joined by commas.

    Raises:
        ValueError: for anything else, saying what is wrong.
    """
    urls, collections = [], []
    for url in text.split(","):
        parts = urlsplit(url.strip())
        prefix, _, collection = parts.path.strip("/").rpartition("/")
        bare = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or not collection or port == -1:
            raise ValueError(f"The url of a server's collection is http(s)://host:port/collection, got {bare!r}.")
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                f"The url {bare!r} was given with a user or password, which a Qdrant server doesn't know: leave them "
                "out. Its key comes from QDRANT_API_KEY or api_key=."
            )
        if parts.query or parts.fragment:
            extra = parts.query or parts.fragment
            raise ValueError(f"The url {bare!r} was given with {extra!r}, which has no meaning here: leave it out.")
        if re.search(r'[<>:"\\|?*\s]', collection):
            raise ValueError(f"A collection can't be named {collection!r}: take letters, digits, '-', '_' and '.'.")
        urls.append(f"{parts.scheme}://{parts.netloc}" + (f"/{prefix}" if prefix else ""))
        collections.append(collection)
    if len(set(collections)) > 1:
        raise ValueError(f"All urls must name one collection, got {', '.join(sorted(set(collections)))}.")
    return Address(tuple(urls), collections[0])


class Failure(NamedTuple):
    """Why a request failed.

    Args:
        passes: whether it may succeed when it is repeated.
        reason: in words.
        kind: of the error to raise.
        pause: seconds that the server asks to wait.
    """

    passes: bool
    reason: str
    kind: type[Exception] = RuntimeError
    pause: float = 0.0


class Server:
    """One or several addresses of a Qdrant server or cluster. Threads may share one.

    Args:
        urls: without the collection; where several are given, one after another is tried.
        options: how to speak to it.
        client: a connection to use instead of one to the urls.
    """

    def __init__(self, urls: Sequence[str], options: ServerOptions, client: "QdrantClient | None" = None):
        try:
            import qdrant_client
        except ImportError as error:
            raise ImportError('A Qdrant server needs qdrant-client: pip install "acebert[server]"') from error
        self.urls, self.options = tuple(urls), options
        self._make: Callable[..., QdrantClient] = qdrant_client.QdrantClient
        self._given = client
        self._clients: dict[tuple[int, bool], QdrantClient] = {}
        self._making = threading.Lock()
        self._first = 0  # the address that answered last
        self._key = options.api_key or environ.get("QDRANT_API_KEY") or None
        if self._key:
            for url in self.urls:
                if urlsplit(url).scheme == "http" and not _is_loopback(urlsplit(url).hostname or ""):
                    logger.warning_once(
                        f"The key of {url} goes over the network unencrypted: take https:// where others may listen."
                    )

    def client(self, number: int, grpc: bool = False) -> "QdrantClient":
        if self._given is not None:
            return self._given
        with self._making:
            if (number, grpc) not in self._clients:
                options = self.options
                with warnings.catch_warnings():  # what they say about keys and versions, the project says itself
                    warnings.simplefilter("ignore")
                    self._clients[number, grpc] = self._make(
                        url=self.urls[number],
                        port=6333,
                        api_key=self._key,
                        timeout=options.timeout,
                        prefer_grpc=grpc,
                        grpc_port=options.grpc_port,
                        check_compatibility=False,
                    )
            return self._clients[number, grpc]

    def call(
        self,
        operation: str,
        function: Callable[["QdrantClient"], T],
        grpc: bool = False,
        retries: int | None = None,
    ) -> T:
        """What a function of a client returns, at the first address that answers.

        Args:
            operation: what is done, for errors, as "search in 'products'".
            function: makes one request; it may be called several times.
            grpc: give it a client that prefers gRPC.
            retries: instead of those of the options.

        Raises:
            IndexUnavailableError: the server can't be reached, or refuses for the moment, however often it is asked.
            PermissionError: it needs a key, or another one.
            FileNotFoundError: there is no such collection.
            RuntimeError: it refuses for another reason.
        """
        options, started = self.options, time.monotonic()
        retries = options.retries if retries is None else retries
        pause, attempt = FIRST_PAUSE, 0
        while True:
            asked = 0.0
            for step in range(len(self.urls)):
                number = (self._first + step) % len(self.urls)
                try:
                    result = function(self.client(number, grpc))
                except Exception as error:  # qdrant-client, httpx and gRPC raise errors without a common class
                    failure = explain_failure(error, options, bool(self._key))
                    if failure is None:
                        raise
                    if not failure.passes:
                        where = f"The Qdrant server at {self.urls[number]}"
                        raise failure.kind(f"{where}, asked to {operation}: {failure.reason}") from error
                    last, asked = error, max(asked, failure.pause)
                else:
                    self._first = number
                    return result
            attempt += 1
            wait = max(asked, pause * random.uniform(0.75, 1.25))
            passed = time.monotonic() - started
            if attempt > retries or passed + wait > options.timeout:
                several = "Qdrant server at " if len(self.urls) == 1 else "Qdrant servers at "
                raise IndexUnavailableError(
                    f"The {several}{', '.join(self.urls)}, asked to {operation}: {failure.reason} "
                    f"Tried {attempt} time{'s' * (attempt > 1)} in {passed:.1f} s. Look whether it runs and can be "
                    f"reached from here; index_options={{'timeout': ..., 'retries': ...}} (now {options.timeout:g} s, "
                    f"{options.retries}) allow more time."
                ) from last
            time.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    def check(self, retries: int | None = None) -> None:
        """Asks the server for its version and its collections: whether it is there, new enough, and takes the key.

        Raises:
            IndexUnavailableError, PermissionError: as [`Server.call`].
            RuntimeError: it is too old, or is no Qdrant server.
        """
        version = self.call("tell its version", lambda client: client.info().version, retries=retries)
        self.call("list its collections", lambda client: client.get_collections(), retries=retries)
        if self._given is not None:
            return
        numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
        where = f"The Qdrant server at {self.urls[self._first]} is version {version}"
        if numbers < LEAST_VERSION:
            least = ".".join(map(str, LEAST_VERSION))
            raise RuntimeError(
                f"{where}, and at least {least} is needed: its collections say whose they are. Update it."
            )
        if numbers != tuple(int(number) for number in TRIED.split(".")[:2]):
            logger.warning_once(f"{where}; ACE-BERT was tried with {TRIED}. Other versions should do, too.")

    def is_up(self) -> bool:
        """Whether the server answers at this moment."""
        with contextlib.suppress(Exception):  # whatever is wrong, it isn't up
            self.call("list its collections", lambda client: client.get_collections(), retries=0)
            return True
        return False

    def has_grpc(self) -> bool:
        """Whether writes may go by gRPC: it is wanted, or its port answers."""
        if self._given is not None or self.options.grpc is False:
            return False
        if self.options.grpc:
            return True
        parts = urlsplit(self.urls[self._first])
        if parts.path.strip("/"):  # a proxy hands on one path of its own port, not another port
            return False
        with contextlib.suppress(Exception):  # anything else than an answer by gRPC is none
            socket.create_connection((parts.hostname, self.options.grpc_port), PROBE_SECONDS).close()
            self.client(self._first, grpc=True).get_collections()
            return True
        return False

    def download(self, path: str, file: Path) -> None:
        """Saves what the server gives at a path, piece by piece: it may be larger than memory."""
        import httpx

        url = self.urls[self._first] + path
        headers = {"api-key": self._key} if self._key else {}

        def fetch(client: "QdrantClient") -> None:
            try:
                with (
                    httpx.stream("GET", url, headers=headers, timeout=self.options.timeout) as response,
                    open(file, "wb") as target,
                ):
                    response.raise_for_status()
                    for piece in response.iter_bytes():
                        target.write(piece)
            except httpx.HTTPError as error:
                raise RuntimeError(f"{url} can't be downloaded: {_one_line(str(error))}") from error

        self.call(f"give {path}", fetch)

    # Collections and aliases

    def find(self, name: str) -> str | None:
        """The collection of this name, or that an alias of this name stands for."""
        collections = self.call("list its collections", lambda client: client.get_collections()).collections
        if name in {each.name for each in collections}:
            return name
        aliases = self.call("list its aliases", lambda client: client.get_aliases()).aliases
        return next((each.collection_name for each in aliases if each.alias_name == name), None)

    def set_alias(self, alias: str, collection: str) -> None:
        """Has an alias stand for a collection, from one moment to the next where it stood for another."""
        from qdrant_client import models

        create = models.CreateAlias(collection_name=collection, alias_name=alias)
        delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
        actions: list[Any] = [models.CreateAliasOperation(create_alias=create)]
        if self.find(alias) is not None:
            actions.insert(0, delete)
        self.call(f"set the alias {alias!r}", lambda client: client.update_collection_aliases(actions))

    def drop(self, collection: str) -> None:
        """Removes a collection and its aliases, if it is there."""
        self.call(f"remove {collection!r}", lambda client: client.delete_collection(collection))

    def close(self) -> None:
        for client in [*self._clients.values(), *([self._given] if self._given is not None else [])]:
            client.close()


def explain_failure(error: Exception, options: ServerOptions, has_key: bool) -> Failure | None:
    """What an error of qdrant-client means; None where it is none of the server's."""
    import httpx
    from grpc import RpcError
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    if isinstance(error, json.JSONDecodeError):
        return Failure(False, NOT_QDRANT)
    if isinstance(error, ResponseHandlingException):
        source = error.source
        if isinstance(source, httpx.TimeoutException):
            return Failure(True, f"it did not answer within {options.timeout:g} s.")
        if isinstance(source, httpx.TransportError):
            return Failure(True, f"it can't be reached ({str(source) or type(source).__name__}).")
        return Failure(False, NOT_QDRANT)
    if isinstance(error, ResourceExhaustedResponse):
        return Failure(True, f"it is too busy ({_one_line(str(error))}).", pause=float(error.retry_after_s))
    if isinstance(error, UnexpectedResponse):
        return _explain_status(error.status_code or 0, _read_reason(error), has_key)
    if isinstance(error, RpcError):
        code = getattr(error, "code", lambda: None)()
        name = getattr(code, "name", "UNKNOWN")
        status = {
            "UNAVAILABLE": 503,
            "DEADLINE_EXCEEDED": 504,
            "RESOURCE_EXHAUSTED": 429,
            "INTERNAL": 500,
            "UNAUTHENTICATED": 401,
            "PERMISSION_DENIED": 403,
            "NOT_FOUND": 404,
        }.get(name, 400)
        if name == "DEADLINE_EXCEEDED":
            return Failure(True, f"it did not answer within {options.timeout:g} s.")
        return _explain_status(status, _one_line(getattr(error, "details", lambda: "")() or name), has_key)
    return None


def _explain_status(status: int, reason: str, has_key: bool) -> Failure:
    if status in (401, 403):
        if not has_key:
            return Failure(False, f"it needs a key: QDRANT_API_KEY or api_key= ({reason}).", PermissionError)
        return Failure(False, f"it doesn't take the key of QDRANT_API_KEY or api_key= ({reason}).", PermissionError)
    if status == 404:
        return Failure(False, f"it isn't there ({reason}).", FileNotFoundError)
    if status == 429:
        return Failure(True, f"it is too busy ({reason}).")
    return Failure(status in PASSING, f"it fails with the status {status} ({reason}).")


def _read_reason(error: Any) -> str:
    """The server's own words, or those of a proxy before it."""
    with contextlib.suppress(Exception):  # not JSON, or not Qdrant's
        return _one_line(error.structured()["status"]["error"])
    return _one_line(re.sub(r"<[^>]*>", " ", error.content.decode("utf-8", "replace"))) or error.reason_phrase


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:197] + "..."


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
