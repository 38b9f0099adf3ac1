"""Uploads a model to the Hub, with the Space that shows it and the catalogue that the Space searches.

The functions that talk to the Hub take a `huggingface_hub.HfApi`, and so work against any endpoint: `HF_ENDPOINT`, or
`HfApi(endpoint=...)`.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, TypeAlias

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError, safe_open

from acebert.hub.model_card import is_edited

PACKAGE = Path(__file__).parent.parent
SPACE = PACKAGE / "space"

RepoType: TypeAlias = Literal["model", "space", "dataset"]
Files: TypeAlias = dict[str, Path | bytes]
"""Path in the repository to the file here, or to its content."""

WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
REQUIRED = ("config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")
# Written by other versions of transformers, and by sentence-transformers.
OPTIONAL = (
    "special_tokens_map.json", "added_tokens.json", "vocab.txt", "modules.json", "sentence_bert_config.json",
    "config_sentence_transformers.json",
)  # fmt: skip
IMPORT = re.compile(r"^\s*from \.(\w+) import", re.MULTILINE)
# The parts of the package that the Space needs, with all that they import by the layers in pyproject.toml.
PACKAGE_PARTS = ("utils", "metrics", "data", "encoding", "catalog")
PACKAGE_FILES = ("*.py", "*.txt.gz")
PICTURE = re.compile(r"!\[[^\]]*\]\(([\w.-][\w./-]*\.(?:gif|jpe?g|png|svg|webp))\)")
SPACE_ROOT = ("app.py", "requirements.txt")
SPACE_PARTS = ("static", "tabs", "templates", "uploads")
SPACE_SUFFIXES = (".py", ".css", ".js", ".json", ".html", ".svg")
SPACE_SETTINGS = ("split", "id_column", "title_column", "image_column", "group_column", "attribute_columns", "examples")
# A repository that holds this file was written by this module.
MARKS: dict[RepoType, str] = {"model": "config.json", "space": "settings.json", "dataset": "catalog.json"}
# Files of an earlier publication that would be loaded beside the new ones, or instead of them.
QUERY_ENCODER = "query"
OLD_WEIGHTS = (WEIGHTS, WEIGHTS_INDEX, "model-*-of-*.safetensors", f"{QUERY_ENCODER}/*")
OLD_PRODUCTS = ("products/*", "changes/*")
WRITE_CARD = "Write the card"  # title of a commit that uploaded the card from the folder of a checkpoint


class PublishError(RuntimeError):
    """Why publishing isn't possible, with its remedy."""


@dataclass(frozen=True)
class Published:
    """A repository, and the commit that has the published files."""

    repo_id: str
    revision: str


# ----------------------------------------------------------------------------------------------------------------------
# Files to upload
# ----------------------------------------------------------------------------------------------------------------------


def model_files(folder: Path, query_encoder: Path | None = None) -> Files:
    """The files that loading the model takes: weights, configuration, processor, tokenizer, code and licence.

    Args:
        folder: of the checkpoint.
        query_encoder: folder that `write_query_encoder` made of it, to be published as `query/`.

    Raises:
        ValueError: for a folder that isn't a complete checkpoint of ACE-BERT.
    """
    for name in REQUIRED:
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}: name the folder of a checkpoint, as training saves it.")
    if _model_type(folder / "config.json") != "acebert":
        raise ValueError(f"{folder / 'config.json'} isn't that of an ACE-BERT checkpoint.")
    names = [*REQUIRED, *(name for name in OPTIONAL if (folder / name).is_file()), *_weights(folder), *_code(folder)]
    files: Files = {name: folder / name for name in names}
    if query_encoder is not None:
        paths = sorted(path for path in query_encoder.rglob("*") if path.is_file())
        files |= {f"{QUERY_ENCODER}/{path.relative_to(query_encoder).as_posix()}": path for path in paths}
    return files | _license(folder)


def _model_type(config: Path) -> str | None:
    return json.loads(config.read_text(encoding="utf-8")).get("model_type")


def _weights(folder: Path) -> list[str]:
    if (folder / WEIGHTS).is_file():
        names = shards = [WEIGHTS]
    elif (folder / WEIGHTS_INDEX).is_file():
        shards = sorted(set(json.loads((folder / WEIGHTS_INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        names = [WEIGHTS_INDEX, *shards]
    else:
        raise ValueError(f"{folder} has neither {WEIGHTS} nor {WEIGHTS_INDEX}: only safetensors are published.")
    for name in shards:
        try:
            with safe_open(folder / name, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{folder / name} is damaged or missing ({error}): save the model again.") from error
    return names


def _code(folder: Path) -> list[str]:
    """The modules that the checkpoint's `auto_map` and `modules.json` name, and those that they import."""
    entries: set[str] = set()
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        for part in (settings, settings.get("image_processor", {})):
            entries.update(reference.split(".")[0] for reference in part.get("auto_map", {}).values())
    if (folder / "modules.json").is_file():
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        more = [module["path"] for module in modules if module["path"]]
        if more:
            raise ValueError(
                f"{folder / 'modules.json'} names more modules of sentence-transformers ({', '.join(more)}), which are "
                "not published with it: take them out, or push the SentenceTransformer itself."
            )
        entries.update(module["type"].split(".")[0] for module in modules)
    sources = [folder / f"{entry}.py" for entry in sorted(entries)]
    return sorted(path.name for path in {*sources, *imported_modules(sources, folder)})


def _license(folder: Path) -> Files:
    for place in (folder, PACKAGE):
        if (place / "LICENSE").is_file():
            return {"LICENSE": place / "LICENSE"}
    raise ValueError(f"{folder} has no LICENSE: add the text of the licence of the model.")


def card_files(card: str, folder: Path) -> Files:
    """The card, and the pictures of the folder that it shows."""
    pictures = [name for name in PICTURE.findall(card) if ".." not in name and (folder / name).is_file()]
    return {"README.md": card.encode(), **{name.removeprefix("./"): folder / name for name in pictures}}


def catalog_files(folder: Path) -> Files:
    """A catalogue that `ProductCatalog.build` wrote, without its index, which is rebuilt where the catalogue is opened.

    Raises:
        ValueError: for a folder that isn't a complete catalogue.
    """
    if not (folder / "catalog.json").is_file() or (folder / "building.json").exists():
        raise ValueError(f"{folder} holds no finished catalogue: build one by `acebert build-catalog`.")
    parts = [*folder.glob("products/*/*.parquet"), *folder.glob("changes/*.parquet")]
    paths = [folder / "catalog.json", folder / "README.md", *sorted(parts)]
    return {path.relative_to(folder).as_posix(): path for path in paths}


def space_files(
    model: "Published",
    catalog: "Published | None" = None,
    settings: Mapping[str, str] | None = None,
    readme: str | None = None,
    folder: Path = SPACE,
) -> Files:
    """The Space: app.py, which is run there, the parts of this package that it needs, and its settings.

    The Space's other modules are one of the parts, `acebert.space`, so that their names can't clash with any other's.

    Args:
        model: what it searches with.
        catalog: what it searches; the app's default otherwise.
        settings: of the app, any of `SPACE_SETTINGS`, and "catalog", a dataset on the Hub, with "catalog_revision".
        readme: the README to keep the text and the front matter of, but for what the Space needs to run and the links
            to model and catalogue; the folder's own by default.
        folder: with the Space's files.

    Raises:
        ValueError: for a folder without the Space.
    """
    if not (folder / "app.py").is_file():
        raise ValueError(f"{folder} has no app.py: publish a Space from a clone of the repository.")
    package = [PACKAGE / "__init__.py", *PACKAGE.glob("*_acebert.py")]
    package += [path for part in PACKAGE_PARTS for kind in PACKAGE_FILES for path in (PACKAGE / part).rglob(kind)]
    files: Files = {name: folder / name for name in SPACE_ROOT}
    files |= {f"acebert/{path.relative_to(PACKAGE).as_posix()}": path for path in sorted(package)}
    own = [*folder.glob("*.py"), *(path for part in SPACE_PARTS for path in (folder / part).rglob("*"))]
    for path in sorted(own):
        if path.suffix in SPACE_SUFFIXES and path.name not in SPACE_ROOT:
            files[f"acebert/space/{path.relative_to(folder).as_posix()}"] = path

    chosen: dict[str, Any] = {"model_name_or_path": model.repo_id, "revision": model.revision, **(settings or {})}
    if catalog:
        chosen |= {"catalog": catalog.repo_id, "catalog_revision": catalog.revision}
    ours = RepoCard((folder / "README.md").read_text(encoding="utf-8"))
    card = RepoCard(readme or ours.content)
    for name in ("sdk", "sdk_version", "python_version", "app_file"):
        card.data[name] = ours.data[name]
    card.data["models"] = [model.repo_id]
    card.data["datasets"] = [chosen["catalog"]] if "catalog" in chosen else ours.data["datasets"]
    written = {MARKS["space"]: json.dumps(chosen, indent=2) + "\n", "README.md": card.content}
    return files | _license(folder) | {name: text.encode() for name, text in written.items()}


def imported_modules(sources: Iterable[Path], package: Path) -> set[Path]:
    """The modules in the folder `package` that Python files import, directly or not.

    Imports are lines such as `from .name import ...`: transformers finds the code of a checkpoint by the same rule.

    Raises:
        ValueError: for a module that is missing.
    """
    found: set[Path] = set()
    waiting = list(sources)
    while waiting:
        source = waiting.pop()
        if not source.is_file():
            raise ValueError(f"{source} is missing, but the code of the model imports it: save the model again.")
        names = IMPORT.findall(source.read_text(encoding="utf-8"))
        new = {package / f"{name}.py" for name in names} - found
        found |= new
        waiting += new
    return found


def size_of(file: Path | bytes) -> int:
    """Size in bytes."""
    return len(file) if isinstance(file, bytes) else file.stat().st_size


# ----------------------------------------------------------------------------------------------------------------------
# Repositories
# ----------------------------------------------------------------------------------------------------------------------


def open_repository(api: HfApi, repo_id: str, repo_type: RepoType, private: bool | None = None) -> str:
    """Makes sure that a repository exists and may be written to, and creates it if needed.

    Args:
        api, repo_id, repo_type: as for [`check_repository`].
        private: visibility of a new repository, None for the owner's default; an existing one must have it already.

    Returns:
        "owner/name".

    Raises:
        PublishError: see [`check_repository`].
    """
    repo_id = check_repository(api, repo_id, repo_type, private)
    with clear_errors(api, repo_id):
        if not api.repo_exists(repo_id, repo_type=repo_type):
            sdk = {"space_sdk": "gradio"} if repo_type == "space" else {}
            api.create_repo(repo_id, repo_type=repo_type, private=private, **sdk)
            api.auth_check(repo_id, repo_type=repo_type, write=True)
    return repo_id


def check_repository(api: HfApi, repo_id: str, repo_type: RepoType, private: bool | None = None) -> str:
    """Checks that publishing to a repository is possible, without writing anything.

    Args:
        api: client with the publisher's token.
        repo_id: "name", or "owner/name".
        repo_type: kind of the repository.
        private: visibility that an existing repository must have; None for either.

    Returns:
        "owner/name".

    Raises:
        PublishError: without a token or a connection, for a token without the right to write there, and for a
            repository that holds something else or has another visibility.
    """
    with clear_errors(api, repo_id):
        owner = api.whoami()["name"]
    repo_id = repo_id if "/" in repo_id else f"{owner}/{repo_id}"
    with clear_errors(api, repo_id):
        if not api.repo_exists(repo_id, repo_type=repo_type):
            return repo_id
        api.auth_check(repo_id, repo_type=repo_type, write=True)
        info = api.repo_info(repo_id, repo_type=repo_type)
        names, mark = [file.rfilename for file in info.siblings], MARKS[repo_type]
        others = [name for name in names if not name.endswith(".md") and name not in (".gitattributes", "LICENSE")]
        ours = mark in names
        if ours and repo_type == "model":
            ours = _model_type(Path(api.hf_hub_download(repo_id, mark, revision=info.sha))) == "acebert"
    if others and not ours:
        raise PublishError(
            f"The {repo_type} repository {repo_id} exists and holds something else "
            f"({', '.join(sorted(others)[:3])}): choose another name."
        )
    if private is not None and info.private != private:
        now, wanted = ("private", "public") if info.private else ("public", "private")
        page = repo_id if repo_type == "model" else f"{repo_type}s/{repo_id}"
        raise PublishError(
            f"{repo_id} exists and is {now}, but was to be {wanted}: change that in its settings, at "
            f"{api.endpoint}/{page}/settings, or choose another name."
        )
    return repo_id


@contextmanager
def clear_errors(api: HfApi, repo_id: str) -> Iterator[None]:
    """Turns errors of the Hub and of the connection into a [`PublishError`] with the cause and the remedy.

    Raises:
        PublishError: for any of these errors.
    """
    try:
        yield
    except PublishError:
        raise
    except (OSError, HTTPError, RuntimeError, ValueError) as error:
        raise PublishError(_explain(error, api.endpoint, repo_id)) from error


def _explain(error: BaseException, endpoint: str, repo_id: str) -> str:
    tokens = f"{endpoint}/settings/tokens"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LocalTokenNotFoundError):
            return f"There is no token to publish {repo_id} with: run `hf auth login`, or set HF_TOKEN; see {tokens}."
        if isinstance(cause, OfflineModeIsEnabled):
            return f"HF_HUB_OFFLINE is set, so {repo_id} can't be published: unset it."
        if isinstance(cause, HfHubHTTPError):
            status, said = cause.response.status_code, cause.server_message or str(cause).split("\n")[0]
            if status == 401:
                return (
                    f"{endpoint} doesn't know the token ({said}): run `hf auth login --force`, or set a valid HF_TOKEN."
                )
            if status == 403:
                return (
                    f"The token may not write to {repo_id} ({said}): create one with the role 'write', or a "
                    f"fine-grained one for that owner, at {tokens}; or publish under a name of your own."
                )
            if status == 412:
                return (
                    f"{repo_id} was changed by someone else just now ({said}): review that and run the command again."
                )
            return f"{endpoint} refused to publish {repo_id} ({status}: {said})."
        if isinstance(cause, HTTPError | ConnectionError):
            no_xet = " An endpoint without Xet storage needs HF_HUB_DISABLE_XET=1." if "xet" in str(cause) else ""
            return (
                f"The connection to {endpoint} failed while {repo_id} was published ({cause}): run the command again. "
                f"Large files that arrived aren't sent again.{no_xet}"
            )
        cause = cause.__cause__
    return f"{repo_id} can't be published: {error}"


def commit(
    api: HfApi, repo_id: str, repo_type: RepoType, files: Files, message: str, replaced: Iterable[str] = ()
) -> str:
    """Uploads files in one commit; makes no commit if the repository has all of them already.

    Large files that reached the Hub before are not sent again, even if their commit failed. Files that match a pattern
    of `replaced` are deleted; all others are kept.

    Returns:
        The last commit that changed one of the files.
    """
    with clear_errors(api, repo_id):
        info = api.repo_info(repo_id, repo_type=repo_type)
        others = [file.rfilename for file in info.siblings if file.rfilename not in files]
        old = [path for path in others if any(fnmatch(path, pattern) for pattern in replaced)]
        operations = [CommitOperationAdd(path, file) for path, file in files.items()]
        operations += [CommitOperationDelete(path) for path in old]
        # `parent_commit`: if someone else committed in the meantime, this commit is refused.
        api.create_commit(
            repo_id, operations, commit_message=message, repo_type=repo_type, parent_commit=info.sha, num_threads=2
        )
        found = [
            file
            for start in range(0, len(files), 500)  # the Hub takes a thousand paths at most
            for file in api.get_paths_info(repo_id, list(files)[start : start + 500], expand=True, repo_type=repo_type)
        ]
    return max((file.last_commit for file in found), key=lambda last: last.date).oid


# ----------------------------------------------------------------------------------------------------------------------
# Publishing
# ----------------------------------------------------------------------------------------------------------------------


def publish_model(
    api: HfApi,
    folder: Path,
    repo_id: str,
    write_card: Callable[[str], str],
    *,
    message: str = "Publish the model",
    overwrite_card: bool = False,
    tag: str | None = None,
    query_encoder: Path | None = None,
) -> Published:
    """Uploads a checkpoint, and then its card, which names the commit to load it by.

    A card that was edited by hand, on the Hub or in the folder, is kept; if both were, each stays where it is. A folder
    whose card wasn't edited gets the published one.

    Args:
        api: client with the publisher's token.
        folder: folder of the checkpoint.
        repo_id: name that [`open_repository`] returned.
        write_card: makes the card for a commit.
        message: message of the model's commit.
        overwrite_card: overwrite the card even if it was edited by hand.
        tag: tag for the model's commit.
        query_encoder: see [`model_files`]; without it, one that was published before is removed.

    Raises:
        PublishError: see [`open_repository`]; and for a tag that another commit has.
        ValueError: see [`model_files`].
    """
    revision = commit(api, repo_id, "model", model_files(folder, query_encoder), message, OLD_WEIGHTS)
    card, local = write_card(revision), folder / "README.md"
    here = local.read_text(encoding="utf-8") if local.is_file() else None
    edited_here = here is not None and is_edited(here) and not overwrite_card
    there = None if overwrite_card else read_card(api, repo_id, "model")
    edited_there = there is not None and is_edited(there) and there != here
    # An edited card on the Hub that came from such a folder is replaced by a newer one.
    if there is not None and edited_there and not (edited_here and _came_from_here(api, repo_id)):
        card = there
        kept = f"; {local}, which was edited too, is not published" if edited_here else ""
        print(f"The card of {repo_id} was edited on the Hub and is kept{kept}. --overwrite_card replaces it.")
    elif here is not None and edited_here:
        card = here
        print(f"{local} was edited by hand and is published as it is. --overwrite_card replaces it.")
    commit(api, repo_id, "model", card_files(card, folder), WRITE_CARD)
    if not edited_here:
        local.write_text(card, encoding="utf-8", newline="")
    if tag:
        with clear_errors(api, repo_id):
            try:
                api.create_tag(repo_id, tag=tag, revision=revision)
            except HfHubHTTPError as error:
                if error.response.status_code != 409:
                    raise
                if api.repo_info(repo_id, revision=tag).sha != revision:
                    raise PublishError(f"{repo_id} has a tag {tag} at another commit: choose another --tag.") from error
    return Published(repo_id, revision)


def _came_from_here(api: HfApi, repo_id: str) -> bool:
    with clear_errors(api, repo_id):
        (file,) = api.get_paths_info(repo_id, ["README.md"], expand=True)
    return file.last_commit.title == WRITE_CARD


def publish_catalog(api: HfApi, folder: Path, repo_id: str, model: Published) -> Published:
    """Uploads a catalogue as a dataset repository, from which `ProductCatalog.load` and the Space open it.

    Its settings there name the published model, and no folder or server of the machine that built it.
    """
    settings = json.loads((folder / "catalog.json").read_text(encoding="utf-8"))
    settings["model"] |= {"name": model.repo_id, "revision": model.revision}
    settings["index"] = "memory"
    files = catalog_files(folder) | {"catalog.json": (json.dumps(settings, indent=2) + "\n").encode()}
    return Published(repo_id, commit(api, repo_id, "dataset", files, "Publish the catalogue", OLD_PRODUCTS))


def publish_space(
    api: HfApi,
    repo_id: str,
    model: Published,
    catalog: Published | None = None,
    settings: Mapping[str, str] | None = None,
) -> Published:
    """Uploads the Space, which loads this model and this catalogue by id and commit; see [`space_files`]."""
    files = space_files(model, catalog, settings, read_card(api, repo_id, "space"))
    return Published(repo_id, commit(api, repo_id, "space", files, f"Show {model.repo_id} at {model.revision[:12]}"))


def read_card(api: HfApi, repo_id: str, repo_type: RepoType) -> str | None:
    """The README on the Hub; None if the repository has none."""
    with clear_errors(api, repo_id):
        info = api.repo_info(repo_id, repo_type=repo_type)
        if "README.md" not in [file.rfilename for file in info.siblings]:
            return None
        path = api.hf_hub_download(repo_id, "README.md", repo_type=repo_type, revision=info.sha)
        return Path(path).read_bytes().decode()
