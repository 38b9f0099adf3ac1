"""The Space: search a shop's catalogue by words, by a photo, or by both.

    python app.py --model_name_or_path <Hub id or folder> --catalog <Hub id or folder>

At the first start every product is encoded, once; the catalogue is kept in the cache folder and opened again at the
next start, for as long as model and dataset stay the same.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import ChainMap
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from huggingface_hub import snapshot_download

FOLDER = Path(__file__).parent
PACKAGE_PARTS = ("utils", "metrics", "data", "encoding", "catalog")  # what the Space needs beside the root's modules
SPACE_PARTS = ("static", "tabs", "templates", "uploads")
PUBLISHED = FOLDER / "settings.json"  # written by `acebert publish`
DEFAULTS = {
    "catalog": "ashraq/fashion-product-images-small",
    "split": "all",
    "id_column": "id",
    "title_column": "title",
    "image_column": "image",
    "examples": "",
    "cache": "build/space-cache",
}
_FASHION = {
    "title_column": "productDisplayName",
    "examples": "striped red t-shirt,black high heels,floral summer dress,brown leather wallet,running shoes",
}
# Settings of catalogues that are known: a Hub id stands for itself, other names are for --preset.
PRESETS = {
    "ashraq/fashion-product-images-small": _FASHION | {"attribute_columns": "gender,articleType,baseColour,usage"},
    # That of `acebert sample-catalog`.
    "sample": _FASHION | {"attribute_columns": "gender,articleType,baseColour,pattern,usage,price"},
}


def split_list(text: str) -> tuple[str, ...]:
    """`"a, b"` as `("a", "b")`."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Settings from flags, else environment variables, else the Space's publication, else a preset, else the default.

    The variables, named in each flag's help, are for a Space's settings page.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)

    def setting(name: str, text: str) -> None:
        shown = f" (default: {DEFAULTS[name]})" if DEFAULTS.get(name) else ""
        parser.add_argument(f"--{name}", help=f"{text}{shown}. [{_variable(name)}]")

    setting("model_name_or_path", "Checkpoint: a Hub id or a folder")
    setting("revision", "The checkpoint's branch, tag or commit on the Hub")
    setting("catalog", "What to search: a dataset, or a catalogue of build-catalog; a Hub id or a folder")
    setting("catalog_revision", "The catalogue's branch, tag or commit on the Hub")
    setting("preset", "Settings of a known catalogue; by default those of the catalogue's Hub id")
    setting("split", "Split of the dataset")
    setting("id_column", "Column of product ids")
    setting("title_column", "Column of titles")
    setting("image_column", "Column of photos")
    setting("group_column", "Column that the variants of a product share, as their parent's id, to show them as one")
    setting(
        "attribute_columns",
        "Columns to show and to filter by, separated by commas; of a built catalogue all by default",
    )
    setting("examples", "Example queries to offer, separated by commas")
    setting("cache", "Folder that keeps encoded catalogues")
    parser.add_argument("--port", type=int, help="Port to serve on; by default the first free one from 7860.")
    flags = vars(parser.parse_args(argv))

    published = json.loads(PUBLISHED.read_text(encoding="utf-8")) if PUBLISHED.exists() else {}
    environment = {name: value for name in flags if name != "port" and (value := os.environ.get(_variable(name)))}
    chosen = ChainMap({name: value for name, value in flags.items() if value is not None}, environment, published)
    if (named := chosen.get("preset")) and named not in PRESETS:
        parser.error(f"There is no preset {named[:80]!r}: choose one of {', '.join(PRESETS)}.")
    preset = PRESETS.get(named or chosen.get("catalog", DEFAULTS["catalog"]), {})
    settings = ChainMap(*chosen.maps, preset, DEFAULTS)
    args = argparse.Namespace(**{name: settings.get(name) for name in flags})
    if not args.model_name_or_path:
        variable = _variable("model_name_or_path")
        parser.error(f"Which checkpoint? Give --model_name_or_path or set {variable}: a Hub id or a folder.")
    # A published commit belongs to the published repository, not to another that a flag or a variable names.
    for name, revision in (("model_name_or_path", "revision"), ("catalog", "catalog_revision")):
        if getattr(args, name) != published.get(name) and getattr(args, revision) == published.get(revision):
            setattr(args, revision, None)
    args.examples, args.cache = split_list(args.examples), Path(args.cache)
    args.attribute_columns = split_list(args.attribute_columns or "") or None
    return args


def _variable(name: str) -> str:
    return f"ACEBERT_{name.upper()}"


def provide_package(model: str, revision: str | None, cache: Path) -> str | None:
    """Makes `import acebert` work where the package isn't installed, by the code that comes with the checkpoint.

    It is the same code from the same place as what `AutoModel` runs with `trust_remote_code`; the Space's own,
    `acebert.space`, is the one beside this file.

    Args:
        model: a Hub id or a folder with a checkpoint.
        revision: branch, tag or commit on the Hub.
        cache: folder to put the code in.

    Returns:
        The revision to load the model by: the commit that the code is of, or as given.
    """
    if find_spec("acebert"):
        return revision
    if Path(model).is_dir():
        source, package = Path(model), cache / "code" / "local" / "acebert"
    else:
        source = Path(snapshot_download(model, revision=revision, allow_patterns=["*.py", "*.txt.gz"]))
        revision = source.name
        package = cache / "code" / revision / "acebert"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    no_caches = shutil.ignore_patterns("__pycache__")
    for file in source.glob("*.py"):
        shutil.copy(file, package)
    for part in PACKAGE_PARTS:
        shutil.copytree(source / part, package / part, ignore=no_caches)
    for part in SPACE_PARTS:
        shutil.copytree(FOLDER / part, package / "space" / part, ignore=no_caches)
    for file in FOLDER.glob("*.py"):
        shutil.copy(file, package / "space")
    sys.path.append(str(package.parent.resolve()))
    return revision


def main(argv: Sequence[str] | None = None) -> None:
    """Loads model and catalogue, then serves the page."""
    args = parse_args(argv)
    revision = provide_package(args.model_name_or_path, args.revision, args.cache)
    # They need the package.
    from acebert.space.guard import keep_sweeping
    from acebert.space.page import build_page, launch
    from acebert.space.shop import Shop, load_model, open_catalog

    model, processor = load_model(args.model_name_or_path, revision)
    catalog = open_catalog(
        model,
        processor,
        args.catalog,
        args.cache,
        revision=args.catalog_revision,
        split=args.split,
        id_column=args.id_column,
        title_column=args.title_column,
        image_column=args.image_column,
        attributes=args.attribute_columns or (),
        group_column=args.group_column,
    )
    # Encoding the catalogue used all cores for one batch; searches are many and small, each does best on one.
    torch.set_num_threads(1)
    shop = Shop(catalog, args.cache, args.attribute_columns)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that nothing that was uploaded stays behind
    with tempfile.TemporaryDirectory(prefix="acebert-uploads-", ignore_cleanup_errors=True) as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        keep_sweeping(Path(uploads))
        launch(build_page(shop, args.examples), shop, server_port=args.port)


if __name__ == "__main__":
    main()
