"""The Space: search a shop's catalogue by words, by a photo, or by both.

    python app.py --model <Hub id or folder> --catalog <Hub id or folder>

At the first start every product is encoded, once; its vectors are kept in the cache folder and found again at the next
start, for as long as model and catalogue stay the same. A search is an exact matrix product over all of them. The model
is loaded as any Hub user loads it, so this folder runs by itself, away from the repository that it comes with.
"""

import argparse
import base64
import hashlib
import html
import inspect
import io
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import gradio as gr
import numpy as np
import torch
from datasets import Dataset, Image, load_dataset
from PIL.Image import DecompressionBombError
from PIL.Image import Image as Photo
from safetensors import safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm
from transformers import AutoModel, AutoProcessor

ENCODING_BATCH = 64  # products per forward pass
THUMBNAIL_SIZE = 400  # longest side of a photo as it is sent to the browser, in pixels
COUNTS = (12, 24, 48, 96)
DEFAULT_COUNT = 24
DEFAULT_ATTRIBUTES = ("gender", "articleType", "baseColour", "pattern", "usage")
DEFAULT_EXAMPLES = (
    "striped red t-shirt",
    "black high heels",
    "floral summer dress",
    "brown leather wallet",
    "running shoes",
)


@dataclass(frozen=True)
class Columns:
    """Which columns of the dataset hold the product's id, title, photo and attributes."""

    id: str
    title: str
    image: str
    attributes: tuple[str, ...]


@dataclass(frozen=True)
class Hit:
    """One product found: its row in the catalogue and, where it was searched for, its cosine similarity."""

    row: int
    score: float | None = None


class Encoder:
    """The model and its processor, from words, photos and products to unit vectors.

    Args:
        model (`str`): a Hub id or a folder with a checkpoint.
        revision (`str`, *optional*): branch, tag or commit on the Hub.

    Raises:
        `ValueError`: where the checkpoint carries no processor for photos.
    """

    def __init__(self, model: str, revision: str | None = None) -> None:
        source = str(Path(model).resolve()) if Path(model).is_dir() else model
        self.processor = AutoProcessor.from_pretrained(source, revision=revision, trust_remote_code=True)
        if not hasattr(self.processor, "image_processor"):
            raise ValueError(f"{model!r} has no image processor, so it can't read photos: name an ACE-BERT checkpoint.")
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        # The released weights are bfloat16, which many a CPU only emulates.
        dtype = "auto" if self.device == "cuda" else torch.float32
        model = AutoModel.from_pretrained(source, revision=revision, dtype=dtype, trust_remote_code=True)
        self.model = model.to(self.device).eval()
        self.fingerprint = self._fingerprint()
        # A fast tokenizer keeps its padding as state and can't be shared by two threads at once.
        self._lock = threading.Lock()

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(self.model.config.to_json_string().encode())
        digest.update(Path(inspect.getfile(type(self.model))).read_bytes())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        with tempfile.TemporaryDirectory() as folder:
            self.processor.save_pretrained(folder)
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def _vectors(self, method: str, **inputs: Any) -> np.ndarray:
        with self._lock:
            batch = self.processor(**inputs, return_tensors="pt").to(self.device)
            vectors = getattr(self.model, method)(**batch).pooler_output
        return vectors.float().cpu().numpy()

    def query(self, text: str = "", photo: Photo | None = None) -> np.ndarray:
        """The unit vector, of shape `(dim,)`, of what the shopper gave: words, a photo, or the mean of the two."""
        vectors = []
        if text:
            vectors.append(self._vectors("get_text_features", text=[text])[0])
        if photo is not None:
            vectors.append(self._vectors("get_image_features", images=[photo])[0])
        if not vectors:
            raise ValueError("A search needs words, a photo, or both.")
        mean = np.mean(vectors, axis=0)
        return mean / np.linalg.norm(mean)

    def products(self, titles: Sequence[str | None], photos: Sequence[Photo | dict | None]) -> np.ndarray:
        """Unit vectors of shape `(products, dim)`; a product may lack its title or its photo.

        A photo is a PIL image or, not decoded yet, `{"bytes": ..., "path": ...}`.
        """
        return self._vectors("get_product_features", text=list(titles), images=list(photos))


class Catalog:
    """A catalogue whose products are encoded once and searched exactly.

    Args:
        dataset (`Dataset`): one row per product.
        columns (`Columns`): where its id, title, photo and attributes are.
        encoder (`Encoder`): encodes products and queries.
        cache (`Path`): folder that keeps the products' vectors between two starts.

    Raises:
        `ValueError`: where a column is missing, the catalogue is empty, or a product has neither title nor photo.
    """

    def __init__(self, dataset: Dataset, columns: Columns, encoder: Encoder, cache: Path) -> None:
        for column in (columns.id, columns.title, columns.image, *columns.attributes):
            if column not in dataset.column_names:
                raise ValueError(
                    f"The catalogue has no column {column!r}; it has {dataset.column_names}. "
                    "Name the right ones with --id-column, --title-column, --image-column and --attributes."
                )
        if not isinstance(dataset.features[columns.image], Image):
            raise ValueError(f"Column {columns.image!r} holds {dataset.features[columns.image]}, and not photos.")
        if not len(dataset):
            raise ValueError("The catalogue is empty.")
        self.dataset, self.columns, self.encoder = dataset, columns, encoder
        self.ids = [str(value) for value in dataset[columns.id]]
        self.titles = [(value or "").strip() for value in dataset[columns.title]]
        self.attributes = {
            name: np.array(["" if value is None else str(value) for value in dataset[name]], dtype=object)
            for name in columns.attributes
        }
        self._row_of = {product: row for row, product in enumerate(self.ids)}
        self.vectors = self._load_or_encode(cache)
        self.thumbnail = lru_cache(maxsize=4096)(self._thumbnail)

    def _load_or_encode(self, cache: Path) -> np.ndarray:
        # `_fingerprint` is what datasets keys its own caches on: the data files' content and every transform since.
        parts = (self.encoder.fingerprint, self.dataset._fingerprint, self.columns.title, self.columns.image)
        path = cache / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}.safetensors"
        if path.exists():
            with safe_open(path, framework="numpy") as file:
                return file.get_tensor("vectors")
        undecoded = self.dataset.cast_column(self.columns.image, Image(decode=False))
        batches = []
        with tqdm(total=len(self.dataset), desc="Encoding the catalogue", unit="product") as progress:
            for start in range(0, len(self.dataset), ENCODING_BATCH):
                titles = [title or None for title in self.titles[start : start + ENCODING_BATCH]]
                photos = undecoded[start : start + ENCODING_BATCH][self.columns.image]
                for row, pair in enumerate(zip(titles, photos, strict=True), start=start):
                    if pair == (None, None):
                        raise ValueError(
                            f"Product {self.ids[row]} (row {row}) has neither title nor photo: take it out."
                        )
                try:
                    batches.append(self.encoder.products(titles, photos))
                except ValueError as error:
                    raise ValueError(f"Among the {len(photos)} products from row {start}: {error}") from error
                progress.update(len(titles))
        vectors = np.concatenate(batches)
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        save_file({"vectors": vectors}, unfinished)
        unfinished.replace(path)
        return vectors

    def __len__(self) -> int:
        return len(self.ids)

    def choices(self, attribute: str) -> list[str]:
        """The values of an attribute, the commonest first."""
        return [value for value, _ in Counter(self.attributes[attribute]).most_common() if value]

    def row(self, product: str) -> int:
        """The row of a product by its id.

        Raises:
            `ValueError`: where the catalogue has no such product.
        """
        if product not in self._row_of:
            raise ValueError(f"There is no product {product} in this catalogue.")
        return self._row_of[product]

    def matching(self, filters: dict[str, Sequence[str]]) -> np.ndarray:
        """Rows whose every filtered attribute has one of the values asked for. An empty list of values filters nothing.

        Raises:
            `ValueError`: where the catalogue has no such attribute.
        """
        keep = np.ones(len(self), dtype=bool)
        for name, values in filters.items():
            if name not in self.attributes:
                raise ValueError(f"There is no attribute {name!r} in this catalogue: it has {list(self.attributes)}.")
            if values:
                keep &= np.isin(self.attributes[name].astype(str), list(values))
        return np.flatnonzero(keep)

    def nearest(self, vector: np.ndarray, count: int, filters: dict[str, Sequence[str]]) -> list[Hit]:
        """The `count` products nearest to a unit vector of shape `(dim,)`, best first, equal ones by row.

        Raises:
            `ValueError`: where `count` is below 1.
        """
        if count < 1:
            raise ValueError(f"A search returns 1 product or more, and {count} were asked for.")
        rows = self.matching(filters)
        scores = self.vectors[rows] @ vector
        order = np.argsort(-scores, kind="stable")[:count]
        return [Hit(int(rows[i]), float(scores[i])) for i in order]

    def similar(self, product: str, count: int, filters: dict[str, Sequence[str]]) -> list[Hit]:
        """The products nearest to a product, itself left out."""
        row = self.row(product)
        return [hit for hit in self.nearest(self.vectors[row], count + 1, filters) if hit.row != row][:count]

    def window(self, count: int, filters: dict[str, Sequence[str]]) -> list[Hit]:
        """Products from all over the catalogue, for a shopper who hasn't searched yet."""
        rows = self.matching(filters)
        picks = np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int)) if len(rows) else []
        return [Hit(int(rows[i])) for i in picks]

    def facts(self, row: int) -> dict[str, str]:
        """The attributes that a product has."""
        return {name: str(values[row]) for name, values in self.attributes.items() if values[row]}

    def _thumbnail(self, row: int) -> str | None:
        """A product's photo as a `data:` address, small enough for a page of them, or None."""
        photo = self.dataset[row][self.columns.image]
        if photo is None:
            return None
        photo = photo.convert("RGBA" if photo.has_transparency_data else "RGB")
        photo.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
        buffer = io.BytesIO()
        photo.save(buffer, "WEBP", quality=88)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def label(column: str) -> str:
    """A column's name as a shopper reads it: `baseColour` is "Base colour"."""
    words = "".join(f" {char.lower()}" if char.isupper() else char for char in column.replace("_", " "))
    return words.strip().capitalize()


def address(query: str, like: str, count: int, filters: dict[str, Sequence[str]]) -> str:
    """The query string that opens the page on the same search. A shopper's own photo can't be part of it."""
    fields: list[tuple[str, str]] = [("like", like)] if like else [("q", query)] if query else []
    if count != DEFAULT_COUNT:
        fields.append(("n", str(count)))
    fields += [(name, value) for name, values in filters.items() for value in values]
    return "?" + urlencode(fields) if fields else "."


def card(catalog: Catalog, hit: Hit) -> str:
    """One product as HTML; whatever the shop wrote is text."""
    title = catalog.titles[hit.row] or f"Product {catalog.ids[hit.row]}"
    safe, product = html.escape(title), catalog.ids[hit.row]
    thumbnail = catalog.thumbnail(hit.row)
    photo = f'<img src="{thumbnail}" alt="{safe}" decoding="async">' if thumbnail else "<span>No photo</span>"
    facts = "&nbsp;· ".join(html.escape(value) for value in catalog.facts(hit.row).values())
    score = (
        f'<span class="score" title="Cosine similarity">{hit.score:.2f} match</span>' if hit.score is not None else ""
    )
    more = html.escape("?" + urlencode({"like": product}))
    return (
        f'<li class="card"><div class="photo">{photo}</div><h3>{safe}</h3><p class="facts">{facts}</p>'
        f'<p class="foot">{score}<a href="{more}" data-like="{html.escape(product)}">More like this'
        f'<span class="unseen">: {safe}</span></a></p></li>'
    )


def notice(heading: str, text: str, link: str, action: str) -> str:
    """What stands in for products where there are none: why, and a way on."""
    return (
        f'<div class="notice" role="status"><h2 tabindex="-1">{html.escape(heading)}</h2><p>{html.escape(text)}</p>'
        f'<a href="{html.escape(link)}">{html.escape(action)}</a></div>'
    )


# Runs in the browser: "more like this" without a reload, and an address that follows the search.
PAGE_SCRIPT = """
let opened = false, followed = false;
element.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-like]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  followed = true;
  trigger("select", { product: link.dataset.like });
});
watch("value", () => {
  const address = element.querySelector("[data-address]").dataset.address;
  history[opened ? "pushState" : "replaceState"](null, "", address);
  opened = true;
  if (!followed) return;
  followed = false;
  element.querySelector("h2").focus({ preventScroll: true });
  window.scrollTo({ top: 0 });
});
window.addEventListener("popstate", () => location.reload());
"""


def friendly(read: Callable[[Any], Photo | None]) -> Callable[[Any], Photo | None]:
    """`read`, with an error that a shopper understands for a file that is no photo."""

    def read_photo(payload: Any) -> Photo | None:
        try:
            return read(payload)
        except (OSError, DecompressionBombError) as error:
            raise gr.Error("That file can't be read as a photo: try a JPEG or PNG.", print_exception=False) from error

    return read_photo


class Shop:
    """The page and the API over one catalogue."""

    def __init__(self, catalog: Catalog, examples: Sequence[str] = DEFAULT_EXAMPLES) -> None:
        self.catalog, self.examples = catalog, examples

    def search(
        self, query: str = "", photo: Photo | None = None, count: int = DEFAULT_COUNT, filters: dict | None = None
    ) -> list[dict[str, Any]]:
        """The products for words, a photo, or both, as JSON; `filters` are `{"attribute": ["value", ...]}`."""
        try:
            vector = self.catalog.encoder.query((query or "").strip(), photo)
            hits = self.catalog.nearest(vector, int(count), filters or {})
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return [
            {
                "id": self.catalog.ids[hit.row],
                "title": self.catalog.titles[hit.row],
                "score": round(hit.score, 4),
                "attributes": self.catalog.facts(hit.row),
            }
            for hit in hits
        ]

    def page(self, query: str, photo: Photo | None, like: str, count: int, *chosen: Sequence[str]) -> str:
        """The results as HTML: of a search, of "more like this", or a look around where there is neither."""
        query, count = query.strip(), int(count)
        filters = dict(zip(self.catalog.columns.attributes, chosen, strict=True))
        here = html.escape(address(query, like, count, filters))
        try:
            heading, hits = self.find(query, photo, like, count, filters)
        except ValueError as error:
            body = notice("That didn't work", str(error), ".", "Start again")
        else:
            if hits:
                searched = hits[0].score is not None
                note = f"{len(hits)} of {len(self.catalog):,} products" + (", best match first" if searched else "")
                link = f'<a href="{here}">Link to this search</a>' if searched and photo is None else ""
                body = (
                    f'<header role="status"><h2 tabindex="-1">{html.escape(heading)}</h2><p>{note}{link}</p></header>'
                    f'<ol class="grid">{"".join(card(self.catalog, hit) for hit in hits)}</ol>'
                )
            else:
                unfiltered = address(query, like, count, {})
                body = notice("Nothing fits these filters", "Take one away to see more.", unfiltered, "Take all away")
        return f'<section data-address="{here}">{body}</section>'

    def find(
        self, query: str, photo: Photo | None, like: str, count: int, filters: dict[str, Sequence[str]]
    ) -> tuple[str, list[Hit]]:
        """A heading, and the products under it."""
        if like:
            title = self.catalog.titles[self.catalog.row(like)] or f"product {like}"
            return f"More like “{title}”", self.catalog.similar(like, count, filters)
        if not query and photo is None:
            return "From the catalogue", self.catalog.window(count, filters)
        vector = self.catalog.encoder.query(query, photo)
        heading = "Like your photo" if not query else f"“{query}” and your photo" if photo is not None else f"“{query}”"
        return heading, self.catalog.nearest(vector, count, filters)

    def open(self, request: gr.Request) -> tuple:
        """What the page shows for the query string that it was opened with; values that it can't have are left out."""
        fields = parse_qs(str(request.query_params))
        query, like = fields.get("q", [""])[0], fields.get("like", [""])[0]
        counts = [count for count in COUNTS if str(count) in fields.get("n", [])]
        count = counts[0] if counts else DEFAULT_COUNT
        chosen = [
            [value for value in fields.get(name, []) if value in self.catalog.choices(name)]
            for name in self.catalog.columns.attributes
        ]
        results = self.page(query, None, like, count, *chosen)
        return query, None, like, count, *chosen, gr.Accordion(open=any(chosen)), results

    def build(self) -> gr.Blocks:
        """The page, ready to launch."""
        with gr.Blocks(title="ACE-BERT product search", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
            gr.HTML(
                f"<h1>Find it by words, by photo, or both</h1><p>{len(self.catalog):,} products, "
                "found by what their photos show as much as by what their titles say.</p>",
                elem_id="masthead",
                apply_default_css=False,
            )
            with gr.Row(elem_id="search"):
                with gr.Column(scale=4, min_width=280):
                    query = gr.Textbox(
                        "",
                        label="What are you looking for?",
                        placeholder="striped red t-shirt",
                        submit_btn="Search",
                        max_length=300,
                        elem_id="query",
                        html_attributes=gr.InputHTMLAttributes(enterkeyhint="search", autocomplete="off"),
                    )
                    with gr.Row(elem_id="examples"):
                        chips = [gr.Button(example, size="sm", min_width=0) for example in self.examples]
                photo = gr.Image(
                    label="Or a photo like it",
                    type="pil",
                    sources=["upload"],
                    placeholder="Drop or choose a photo",
                    height=140,
                    scale=1,
                    min_width=200,
                    buttons=[],
                    elem_id="photo",
                    alt_text="The photo that you search with",
                )
                # Not by a subclass: for one, Gradio writes a stub file beside this one.
                photo.preprocess = friendly(photo.preprocess)
            with gr.Accordion("Filters", open=False) as drawer, gr.Row():
                filters = [
                    gr.Dropdown(
                        self.catalog.choices(name), multiselect=True, value=[], label=label(name), min_width=160
                    )
                    for name in self.catalog.columns.attributes
                ]
                count = gr.Dropdown(COUNTS, value=DEFAULT_COUNT, label="Results", filterable=False, min_width=120)
            results = gr.HTML(elem_id="results", apply_default_css=False, js_on_load=PAGE_SCRIPT)
            like = gr.State("")

            state = [query, photo, like, count, *filters]
            private = {"api_visibility": "private", "show_progress_on": results}

            def start_over(query: str, photo: Photo | None, count: int, *chosen: Sequence[str]) -> tuple[str, str]:
                return "", self.page(query, photo, "", count, *chosen)

            def show_similar(event: gr.EventData, count: int, *chosen: Sequence[str]) -> tuple:
                return "", None, event.product, self.page("", None, event.product, count, *chosen)

            def try_example(text: str, count: int, *chosen: Sequence[str]) -> tuple:
                return text, None, "", self.page(text, None, "", count, *chosen)

            gr.on(
                [query.submit, photo.upload, photo.clear],
                start_over,
                [query, photo, count, *filters],
                [like, results],
                **private,
            )
            gr.on([part.input for part in (count, *filters)], self.page, state, results, **private)
            results.select(show_similar, [count, *filters], [query, photo, like, results], **private)
            for chip in chips:
                chip.click(try_example, [chip, count, *filters], [query, photo, like, results], **private)
            page.load(self.open, None, [*state, drawer, results], **private)

            with gr.Row(visible=False):
                api_count, api_filters, api_results = gr.Number(DEFAULT_COUNT), gr.JSON({}), gr.JSON()
                api = gr.Button()
            api.click(self.search, [query, photo, api_count, api_filters], api_results, api_name="search")
        return page


def split_list(text: str) -> tuple[str, ...]:
    """`"a, b"` as `("a", "b")`."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_args(argv: Iterable[str] | None = None) -> argparse.Namespace:
    """Settings from flags; each has an environment variable, named in its help, for a Space's settings page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])

    def setting(flag: str, default: str | None, text: str, **kwargs: Any) -> None:
        variable = "ACEBERT_" + flag.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(flag, default=os.environ.get(variable) or default, help=f"{text} [{variable}]", **kwargs)

    setting("--model", None, "checkpoint: a Hub id or a folder")
    setting("--revision", None, "the checkpoint's branch, tag or commit on the Hub")
    setting("--catalog", "ashraq/fashion-product-images-small", "the products: a Hub dataset or a folder")
    setting("--split", "all", "the catalogue's split")
    setting("--id-column", "id", "column with the product's id")
    setting("--title-column", "productDisplayName", "column with the title")
    setting("--image-column", "image", "column with the photo")
    setting("--attributes", None, "columns to show and filter by, with commas", type=split_list)
    setting("--examples", ",".join(DEFAULT_EXAMPLES), "queries to start from, with commas", type=split_list)
    setting("--cache", "build/space-cache", "folder that keeps the products' vectors", type=Path)
    parser.add_argument("--port", type=int, help="port to serve on, by default the first free one from 7860")
    args = parser.parse_args(argv)
    if not args.model:
        parser.error("which checkpoint? Give --model or set ACEBERT_MODEL: a Hub id or a folder")
    return args


def main(argv: Iterable[str] | None = None) -> None:
    """Load model and catalogue, then serve the page."""
    args = parse_args(argv)
    dataset = load_dataset(args.catalog, split=args.split)
    attributes = args.attributes
    if attributes is None:
        attributes = tuple(name for name in DEFAULT_ATTRIBUTES if name in dataset.column_names)
    columns = Columns(args.id_column, args.title_column, args.image_column, attributes)
    catalog = Catalog(dataset, columns, Encoder(args.model, args.revision), args.cache)
    launch(Shop(catalog, args.examples).build(), server_port=args.port)


def launch(page: gr.Blocks, **kwargs: Any) -> tuple:
    """Serve the page with its own fonts and styles, so that the browser asks no other host."""
    # The theme's own fonts are a service's; style.css asks for the system's instead.
    theme = gr.themes.Default(primary_hue="teal", neutral_hue="slate", font=("sans-serif",), font_mono=("monospace",))
    style = Path(__file__).with_name("style.css")
    return page.launch(theme=theme, css_paths=style, footer_links=[], enable_monitoring=False, **kwargs)


if __name__ == "__main__":
    main()
