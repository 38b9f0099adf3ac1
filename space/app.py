"""The Space: search a shop's catalogue by words, by a photo, or by both.

    python app.py --model <Hub id or folder> --catalog <Hub id or folder>

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
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download

PACKAGE_PARTS = ("utils", "data", "encoding", "catalog")  # what the Space needs beside the root's modules
PUBLISHED = Path(__file__).with_name("settings.json")  # written by publish.py
DEFAULT_EXAMPLES = (
    "striped red t-shirt",
    "black high heels",
    "floral summer dress",
    "brown leather wallet",
    "running shoes",
)


def split_list(text: str) -> tuple[str, ...]:
    """`"a, b"` as `("a", "b")`."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_args(argv: Iterable[str] | None = None) -> argparse.Namespace:
    """Settings from flags; each has an environment variable, named in its help, for a Space's settings page.

    Where neither is given, those that the Space was published with count.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    published = json.loads(PUBLISHED.read_text(encoding="utf-8")) if PUBLISHED.exists() else {}

    def setting(flag: str, default: str | None, text: str, **kwargs: Any) -> None:
        name = flag.removeprefix("--").replace("-", "_")
        variable = f"ACEBERT_{name.upper()}"
        default = os.environ.get(variable) or published.get(name) or default
        parser.add_argument(flag, default=default, help=f"{text} [{variable}]", **kwargs)

    setting("--model", None, "checkpoint: a Hub id or a folder")
    setting("--revision", None, "the checkpoint's branch, tag or commit on the Hub")
    setting("--catalog", "ashraq/fashion-product-images-small", "the products: a Hub dataset, or a folder with one")
    setting("--catalog-revision", None, "the catalogue's branch, tag or commit on the Hub")
    setting("--split", "all", "the dataset's split")
    setting("--id-column", "id", "column with the product's id")
    setting("--title-column", "productDisplayName", "column with the title")
    setting("--image-column", "image", "column with the photo")
    setting("--attributes", None, "columns to show and filter by, with commas", type=split_list)
    setting("--examples", ",".join(DEFAULT_EXAMPLES), "queries to start from, with commas", type=split_list)
    setting("--cache", "build/space-cache", "folder that keeps encoded catalogues", type=Path)
    parser.add_argument("--port", type=int, help="port to serve on, by default the first free one from 7860")
    args = parser.parse_args(argv)
    if not args.model:
        parser.error("which checkpoint? Give --model or set ACEBERT_MODEL: a Hub id or a folder")
    # A published commit belongs to the published repository, not to another that a flag or a variable names.
    for name, revision in (("model", "revision"), ("catalog", "catalog_revision")):
        if getattr(args, name) != published.get(name) and getattr(args, revision) == published.get(revision):
            setattr(args, revision, None)
    return args


def provide_package(model: str, revision: str | None, cache: Path) -> str | None:
    """Makes `import acebert` work where the package isn't installed, by the code that comes with the checkpoint.

    It is the same code from the same place as what `AutoModel` runs with `trust_remote_code`.

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
        source = Path(snapshot_download(model, revision=revision, allow_patterns=["*.py"]))
        revision = source.name
        package = cache / "code" / revision / "acebert"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    for file in source.glob("*.py"):
        shutil.copy(file, package)
    for part in PACKAGE_PARTS:
        shutil.copytree(source / part, package / part, ignore=shutil.ignore_patterns("__pycache__"))
    sys.path.append(str(package.parent.resolve()))
    return revision


def main(argv: Iterable[str] | None = None) -> None:
    """Loads model and catalogue, then serves the page."""
    args = parse_args(argv)
    revision = provide_package(args.model, args.revision, args.cache)
    # They need the package.
    from guard import keep_sweeping
    from page import build_page, launch
    from shop import Shop, load_model, open_catalog

    model, processor = load_model(args.model, revision)
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
        attributes=args.attributes,
    )
    # Encoding the catalogue used all cores for one batch; searches are many and small, each does best on one.
    torch.set_num_threads(1)
    shop = Shop(model, processor, catalog, args.cache, args.attributes)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that nothing that was uploaded stays behind
    with tempfile.TemporaryDirectory(prefix="acebert-uploads-", ignore_cleanup_errors=True) as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        keep_sweeping(Path(uploads))
        launch(build_page(shop, args.examples), shop, server_port=args.port)


if __name__ == "__main__":
    main()
