"""A small Hugging Face Hub on this machine, to publish to and to load from: set `HF_ENDPOINT` to its address.

It speaks the part of the Hub's HTTP API that `huggingface_hub` calls to create repositories, commit to them, send large
files by Git LFS and download (2.4.0; `hf_api.py`, `_commit_api.py`, `lfs.py`, `file_download.py`). It has no Xet
storage, so clients need `HF_HUB_DISABLE_XET=1`. A repository is a folder: `repo.json` with its branches and tags, a
file for every commit, and the content of files under `objects`, named by what it hashes to.
"""

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE = (".safetensors", ".parquet")  # sent by LFS whatever their size, as the Hub's .gitattributes has it
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE).encode()
REPOSITORY = r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
PREFIXED = r"/(?:(?P<kind>datasets|spaces)/)?(?P<name>[^/]+/[^/]+)"


@dataclass(frozen=True)
class Account:
    """Who a token belongs to.

    Args:
        name: of the user.
        role: "write" or "read".
        organizations: that the user may write to.
    """

    name: str
    role: str = "write"
    organizations: tuple[str, ...] = ()

    def may_write(self, namespace: str) -> bool:
        return self.role == "write" and namespace in (self.name, *self.organizations)


class RefusedError(Exception):
    """An answer other than 200: its status, the Hub's code for it, and its message."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass
class Call:
    """A request: who asks, with which parameters of the query, and what it carries."""

    account: Account | None
    query: dict[str, list[str]]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Repository:
    """A folder with commits, each of which names the whole tree: path to `{"oid", "size", "lfs"}`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def settings(self) -> dict[str, Any]:
        return json.loads((self.folder / "repo.json").read_text())

    def save(self, settings: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "repo.json").write_text(json.dumps(settings))

    def resolve(self, revision: str) -> str:
        """The commit of a branch, a tag or a commit."""
        commit = self.settings["refs"].get(revision, revision)
        if not (self.folder / f"{commit}.json").exists():
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def read(self, commit: str) -> dict[str, Any]:
        return json.loads((self.folder / f"{commit}.json").read_text())

    def files(self, revision: str = "main") -> dict[str, dict[str, Any]]:
        return self.read(self.resolve(revision))["files"]

    def history(self, revision: str = "main") -> Iterator[str]:
        """Commits, the newest first."""
        commit = self.resolve(revision)
        while commit:
            yield commit
            commit = self.read(commit)["parent"]

    def last_commit(self, path: str, revision: str) -> str:
        """The commit that made a file what it is at a revision."""
        content, found = self.files(revision)[path], ""
        for commit in self.history(revision):
            if self.read(commit)["files"].get(path) != content:
                break
            found = commit
        return found

    def commit(self, title: str, files: dict[str, dict[str, Any]], parent: str | None, branch: str = "main") -> str:
        date = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        text = json.dumps({"title": title, "parent": parent, "date": date, "files": files})
        sha = hashlib.sha1(text.encode()).hexdigest()
        settings = self.settings
        settings["refs"][branch] = sha
        (self.folder / f"{sha}.json").write_text(text)
        self.save(settings)
        return sha


class Hub:
    """The server, running in a thread of its own for as long as the `with` block lasts.

    Args:
        folder: where the repositories are kept.
        accounts: token to the account that it belongs to.
        large: size in bytes from which on files are sent by LFS whatever their name.

    Attributes:
        url: its address, for `HF_ENDPOINT`.
        requests: method, path and status of every request, in order.
        received: LFS object to the number of bytes that came in for it, over all tries.
        halfway: called in the middle of each LFS upload with the object's id, where set. A `ConnectionError` drops
            the connection.
    """

    def __init__(self, folder: Path, accounts: dict[str, Account], large: int = 10_000_000) -> None:
        self.folder, self.accounts, self.large = folder, accounts, large
        self.requests: list[tuple[str, str, int]] = []
        self.received: Counter[str] = Counter()
        self.halfway: Callable[[str], None] | None = None
        self.lock = threading.RLock()
        (folder / "objects").mkdir(parents=True)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    # What tests look at.

    def repository(self, name: str, kind: str = "models") -> Repository:
        return Repository(self.folder / kind / name)

    def content(self, name: str, path: str, revision: str = "main", kind: str = "models") -> bytes:
        return self.object(self.repository(name, kind).files(revision)[path])

    def object(self, entry: dict[str, Any]) -> bytes:
        return (self.folder / "objects" / (entry["lfs"] or entry["oid"])).read_bytes()

    # What requests need.

    def find(self, call: Call, kind: str, name: str, write: bool = False) -> Repository:
        """A repository that the account may read, or write to."""
        repository = self.repository(name, kind)
        owner = name.split("/")[0]
        known = repository.folder.is_dir()
        if known and repository.settings["private"]:
            known = call.account is not None and owner in (call.account.name, *call.account.organizations)
        if not known:  # a private one isn't told from one that isn't there
            raise RefusedError(404 if call.account else 401, "Repository not found", "RepoNotFound")
        if write and not (call.account and call.account.may_write(owner)):
            raise RefusedError(403 if call.account else 401, f"You don't have write access to {name}")
        return repository

    def store(self, content: bytes) -> dict[str, Any]:
        oid = git_sha1(content)
        (self.folder / "objects" / oid).write_bytes(content)
        return {"oid": oid, "size": len(content), "lfs": None}

    def describe(self, repository: Repository, path: str, revision: str, expand: bool) -> dict[str, Any]:
        entry = repository.files(revision)[path]
        found = {"type": "file", "path": path, "oid": entry["oid"], "size": entry["size"]}
        if entry["lfs"]:
            found["lfs"] = {"oid": entry["lfs"], "size": entry["size"], "pointerSize": 134}
        if expand:
            commit = repository.last_commit(path, revision)
            about = repository.read(commit)
            found["lastCommit"] = {"id": commit, "title": about["title"], "date": about["date"]}
        return found


# ----------------------------------------------------------------------------------------------------------------------
# What it answers
# ----------------------------------------------------------------------------------------------------------------------

ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = []


def route(method: str, pattern: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        ROUTES.append((method, re.compile(pattern), function))
        return function

    return add


@route("GET", "/api/whoami-v2")
def whoami(hub: Hub, call: Call) -> Any:
    if not call.account:
        raise RefusedError(401, "Invalid username or password.")
    organizations = [{"name": name} for name in call.account.organizations]
    auth = {"accessToken": {"role": call.account.role}}
    return {"type": "user", "name": call.account.name, "orgs": organizations, "auth": auth}


@route("POST", "/api/validate-yaml")
def validate_yaml(hub: Hub, call: Call) -> Any:
    match = re.match(r"---\n(.*?)\n---\n", call.json()["content"], re.DOTALL)
    try:
        data = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError as error:
        data = str(error)
    if not isinstance(data, dict):
        return Answer(json.dumps({"errors": [{"message": f"not a mapping: {data}"}]}).encode(), status=400)
    return {"errors": [], "warnings": []}


@route("POST", "/api/repos/create")
def create(hub: Hub, call: Call) -> Any:
    asked = call.json()
    if not call.account:
        raise RefusedError(401, "Invalid username or password.")
    name, kind = f"{asked['organization'] or call.account.name}/{asked['name']}", asked.get("type", "model") + "s"
    if not call.account.may_write(name.split("/")[0]):
        raise RefusedError(403, f"You don't have the rights to create a repository under {name.split('/')[0]}")
    repository = hub.repository(name, kind)
    url = f"{hub.url}/{'' if kind == 'models' else kind + '/'}{name}"
    if repository.folder.is_dir():
        return Answer(json.dumps({"error": "You already created this repo", "url": url}).encode(), status=409)
    repository.save({"private": asked.get("visibility") == "private", "sdk": asked.get("sdk"), "refs": {}})
    repository.commit("initial commit", {".gitattributes": hub.store(GITATTRIBUTES)}, None)
    return {"url": url, "name": name}


@route("GET", REPOSITORY + "(?:/revision/(?P<revision>[^/]+))?")
def info(hub: Hub, call: Call, kind: str, name: str, revision: str | None) -> Any:
    repository = hub.find(call, kind, name)
    commit = repository.resolve(revision or "main")
    files = [{"rfilename": path} for path in repository.files(commit)]
    return {"id": name, "sha": commit, "private": repository.settings["private"], "siblings": files, "tags": []}


@route("GET", REPOSITORY + "/auth-check(?P<write>/write)?")
def auth_check(hub: Hub, call: Call, kind: str, name: str, write: str | None) -> Any:
    hub.find(call, kind, name, write=bool(write))
    return {}


@route("GET", REPOSITORY + "/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?")
def tree(hub: Hub, call: Call, kind: str, name: str, revision: str, folder: str | None) -> Any:
    repository = hub.find(call, kind, name)
    start = f"{folder}/" if folder else ""
    paths = [path for path in repository.files(revision) if path.startswith(start)]
    if folder and not paths:
        raise RefusedError(404, f"{folder} does not exist on {revision}", "EntryNotFound")
    if call.query.get("recursive", ["false"])[0] != "true":
        paths = [path for path in paths if "/" not in path.removeprefix(start)]
    return [hub.describe(repository, path, revision, "true" in call.query.get("expand", [])) for path in paths]


@route("POST", REPOSITORY + "/paths-info/(?P<revision>[^/]+)")
def paths_info(hub: Hub, call: Call, kind: str, name: str, revision: str) -> Any:
    repository = hub.find(call, kind, name)
    form = parse_qs(call.body.decode())
    found = [path for path in form["paths"] if path in repository.files(revision)]
    return [hub.describe(repository, path, revision, form["expand"][0].lower() == "true") for path in found]


@route("POST", REPOSITORY + "/preupload/(?P<revision>[^/]+)")
def preupload(hub: Hub, call: Call, kind: str, name: str, revision: str) -> Any:
    """How each file is to be sent, and what is there in its place."""
    files, answers = hub.find(call, kind, name, write=True).files(revision), []
    for file in call.json()["files"]:
        is_large = file["path"].endswith(LARGE) or file["size"] >= hub.large
        there = files.get(file["path"])
        answer = {"path": file["path"], "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
        answers.append(answer | ({"oid": there["lfs"] or there["oid"]} if there else {}))
    return {"files": answers}


@route("POST", PREFIXED + r"\.git/info/lfs/objects/batch")
def lfs_batch(hub: Hub, call: Call, kind: str | None, name: str) -> Any:
    """Where to send the objects that aren't there yet."""
    hub.find(call, kind or "models", name, write=True)
    answers = []
    for wanted in call.json()["objects"]:
        answer = {"oid": wanted["oid"], "size": wanted["size"]}
        if not (hub.folder / "objects" / wanted["oid"]).exists():
            answer["actions"] = {"upload": {"href": f"{hub.url}/lfs/{wanted['oid']}"}}
        answers.append(answer)
    return {"transfer": "basic", "objects": answers}


@route("PUT", "/lfs/(?P<oid>[0-9a-f]{64})")
def lfs_upload(hub: Hub, call: Call, oid: str) -> Any:
    if hashlib.sha256(call.body).hexdigest() != oid:
        raise RefusedError(400, "The content doesn't hash to the object's id")
    (hub.folder / "objects" / oid).write_bytes(call.body)
    return {}


@route("POST", REPOSITORY + "/commit/(?P<revision>[^/]+)")
def commit(hub: Hub, call: Call, kind: str, name: str, revision: str) -> Any:
    repository = hub.find(call, kind, name, write=True)
    head, title = repository.resolve(revision), ""
    files = repository.files(head)
    for line in call.body.splitlines():
        operation = json.loads(line)
        value = operation["value"]
        match operation["key"]:
            case "header":
                title = value["summary"]
                if value.get("parentCommit", head) != head:
                    raise RefusedError(412, "A commit has happened since. Please refresh and try again.")
            case "file":
                files[value["path"]] = hub.store(base64.b64decode(value["content"]))
            case "lfsFile":
                if not (hub.folder / "objects" / value["oid"]).exists():
                    raise RefusedError(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
                pointer = (
                    f"version https://git-lfs.github.com/spec/v1\noid sha256:{value['oid']}\nsize {value['size']}\n"
                )
                files[value["path"]] = {"oid": git_sha1(pointer.encode()), "size": value["size"], "lfs": value["oid"]}
            case "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise RefusedError(404, f"A file with this name doesn't exist: {value['path']}", "EntryNotFound")
    sha = repository.commit(title, files, head, revision)
    return {"commitOid": sha, "commitUrl": f"{hub.url}/{'' if kind == 'models' else kind + '/'}{name}/commit/{sha}"}


@route("POST", REPOSITORY + "/tag/(?P<revision>[^/]+)")
def tag(hub: Hub, call: Call, kind: str, name: str, revision: str) -> Any:
    repository = hub.find(call, kind, name, write=True)
    settings, wanted = repository.settings, call.json()["tag"]
    if wanted in settings["refs"]:
        raise RefusedError(409, f"Tag {wanted} already exists")
    settings["refs"][wanted] = repository.resolve(revision)
    repository.save(settings)
    return {}


@route("GET", PREFIXED + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(hub: Hub, call: Call, kind: str | None, name: str, revision: str, path: str) -> Any:
    repository = hub.find(call, kind or "models", name)
    sha = repository.resolve(revision)
    entry = repository.files(sha).get(path)
    if entry is None:
        raise RefusedError(404, f"Entry not found: {path}", "EntryNotFound")
    headers = {"X-Repo-Commit": sha, "ETag": f'"{entry["lfs"] or entry["oid"]}"'}
    if entry["lfs"]:
        headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(entry["size"])}
    return Answer(hub.object(entry), headers)


# ----------------------------------------------------------------------------------------------------------------------
# HTTP
# ----------------------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and content in one packet

    def read_body(self, path: str) -> bytes:
        """Calls `Hub.halfway` in the middle of an LFS upload."""
        size = int(self.headers.get("Content-Length", 0))
        if not path.startswith("/lfs/"):
            return self.rfile.read(size)
        oid = path.removeprefix("/lfs/")
        first = self.rfile.read(size // 2)
        self.hub.received[oid] += len(first)
        if self.hub.halfway:
            self.hub.halfway(oid)
        rest = self.rfile.read(size - len(first))
        self.hub.received[oid] += len(rest)
        return first + rest

    def answer(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        try:
            body = self.read_body(path)
        except ConnectionError:
            self.close_connection = True
            self.connection.close()
            return
        try:
            answer = self.dispatch(path, parse_qs(parts.query), body)
        except RefusedError as refused:
            answer = Answer(json.dumps({"error": str(refused)}).encode(), status=refused.status)
            answer.headers |= {"X-Error-Message": str(refused), "X-Error-Code": refused.code}
        self.hub.requests.append((self.command, path, answer.status))
        self.send_response(answer.status)
        for name, value in ({"Content-Type": "application/json"} | answer.headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content)

    def dispatch(self, path: str, query: dict[str, list[str]], body: bytes) -> Answer:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.accounts:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        call = Call(self.hub.accounts.get(token), query, body)
        method = "GET" if self.command == "HEAD" else self.command
        for wanted, pattern, function in ROUTES:
            if wanted == method and (match := pattern.fullmatch(path)):
                with self.hub.lock:
                    answer = function(self.hub, call, **match.groupdict())
                return answer if isinstance(answer, Answer) else Answer(json.dumps(answer).encode())
        raise RefusedError(404, f"This server has no {self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass
