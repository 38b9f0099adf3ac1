"""The tab "The common space": products and queries on one map, and the modality gap between the two."""

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from markupsafe import Markup
from safetensors.numpy import load_file, save
from sklearn.manifold import TSNE

from acebert.catalog.product_catalog import Product, ProductCatalog
from acebert.losses_acebert import modality_gap
from acebert.space.cards import label, notice, show_facts, show_title
from acebert.space.rendering import STATIC, read_script, render
from acebert.space.shop import Shop, read_text
from acebert.utils.files import atomic_write
from acebert.utils.fingerprints import content_sha256

PRODUCTS = 1500
QUERIES = 100
FEWEST_PRODUCTS = 10
NEIGHBOURS = 5
COLOURS = 9  # values of an attribute with a colour of their own
OTHER_COLOUR = "c-other"
LONGEST_VALUE = 40  # characters; longer ones are descriptions
SEED = 0
WIDTH, HEIGHT, MARGIN = 1000, 700, 20  # of the drawing, in its own units
ADVERSARY = STATIC / "adversary.json"


@dataclass(frozen=True)
class Map:
    """Some products and queries in two dimensions.

    Args:
        products: a sample of the catalogue.
        vectors: (products, dim) unit vectors.
        positions: (products, 2), in the drawing's units.
        queries: words.
        query_positions: (queries, 2).
        gap: distance between the mean of the queries' and the mean of the products' vectors.
    """

    products: list[Product]
    vectors: np.ndarray
    positions: np.ndarray
    queries: list[str]
    query_positions: np.ndarray
    gap: float

    def place(self, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where a (dim,) query is drawn: at the mean of its nearest products' positions. And these products' rows.

        t-SNE has no place for a new point; this one says near which products it lies, not how near.
        """
        nearest = np.argsort(-(self.vectors @ vector), kind="stable")[:NEIGHBOURS]
        return self.positions[nearest].mean(0), nearest


def make_attribute_queries(
    products: Sequence[Product], attributes: Sequence[str], count: int = QUERIES, seed: int = SEED
) -> list[str]:
    """Synthetic queries: for products drawn at random, one to three values of their attributes, in lower case."""
    rng = np.random.default_rng(seed)
    queries: dict[str, None] = {}
    for row in rng.permutation(len(products)):
        texts = [products[row].attributes.get(name) for name in attributes]
        values = [text.lower() for text in texts if isinstance(text, str) and 0 < len(text) <= LONGEST_VALUE]
        if values:
            number = min(len(values), int(rng.integers(1, 4)))
            shown = sorted(rng.permutation(len(values))[:number])
            queries[" ".join(values[i] for i in shown)] = None
        if len(queries) == count:
            break
    return list(queries)


def lay_out(vectors: np.ndarray) -> np.ndarray:
    """(n, 2) positions of (n, dim) unit vectors by t-SNE, in the drawing's units."""
    tsne = TSNE(metric="cosine", init="pca", perplexity=min(30, (len(vectors) - 1) / 3), random_state=SEED)
    raw = tsne.fit_transform(vectors)
    low, high = raw.min(0), raw.max(0)
    size = np.array([WIDTH, HEIGHT]) - 2 * MARGIN
    return ((raw - low) / (high - low) * size + MARGIN).astype(np.float32)


def make_map(catalog: ProductCatalog, attributes: Sequence[str], cache: Path) -> Map:
    """The map of a catalogue; its positions are kept in the cache folder and found again.

    Args:
        catalog: what to draw.
        attributes: those that make queries.
        cache: folder.

    Raises:
        ValueError: where the catalogue is too small.
    """
    products, vectors = catalog.sample(PRODUCTS, SEED)
    if len(products) < FEWEST_PRODUCTS:
        raise ValueError(f"A map needs {FEWEST_PRODUCTS} products or more, and this catalogue has {len(products)}.")
    queries = make_attribute_queries(products, attributes)
    query_vectors = catalog.encode_queries(queries) if queries else vectors[:0]
    key = content_sha256(vectors.tobytes() + json.dumps([queries, catalog.settings.model]).encode())[:32]
    file = cache / f"map-{key}.safetensors"
    if file.exists():
        positions = load_file(file)["positions"]
    else:
        positions = lay_out(np.concatenate([vectors, query_vectors]))
        cache.mkdir(parents=True, exist_ok=True)
        atomic_write(file, save({"positions": positions}))
    gap = float(modality_gap(torch.from_numpy(query_vectors), torch.from_numpy(vectors))) if queries else float("nan")
    return Map(products, vectors, positions[: len(products)], queries, positions[len(products) :], gap)


# ----------------------------------------------------------------------------------------------------------------------
# What is shown
# ----------------------------------------------------------------------------------------------------------------------


def draw(chart: Map, attribute: str, query: str = "", vector: np.ndarray | None = None) -> Markup:
    """The map as SVG in HTML, coloured by the most frequent values of an attribute, with a legend."""
    values = [str(product.attributes.get(attribute, "")) for product in chart.products]
    names, counts = np.unique([value for value in values if value], return_counts=True)
    colours = {str(name): f"c{i}" for i, name in enumerate(names[np.argsort(-counts, kind="stable")][:COLOURS])}
    legend = [(colour, name) for name, colour in colours.items()]
    if any(value not in colours for value in values):
        legend.append((OTHER_COLOUR, "other"))
    return render(
        "map",
        width=WIDTH,
        height=HEIGHT,
        shown=f"{len(chart.products):,} products and {len(chart.queries)} synthetic queries by t-SNE",
        points=[
            {"x": x, "y": y, "colour": colours.get(value, OTHER_COLOUR), "title": show_title(product), "value": value}
            for product, value, (x, y) in zip(chart.products, values, _whole(chart.positions), strict=True)
        ],
        queries=[
            {"x": x, "y": y, "text": text}
            for text, (x, y) in zip(chart.queries, _whole(chart.query_positions), strict=True)
        ],
        typed=None if vector is None else _place_typed(chart, query, vector),
        legend=legend,
    )


def _place_typed(chart: Map, query: str, vector: np.ndarray) -> dict[str, Any]:
    """Where a query is drawn, and what it is joined to by lines."""
    position, nearest = chart.place(vector)
    x, y = _whole(position)
    return {"text": query, "x": x, "y": y, "nearest": _whole(chart.positions[nearest])}


def _whole(positions: np.ndarray) -> list:
    """Positions in whole units of the drawing, which are finer than a screen's pixels."""
    return positions.round().astype(int).tolist()


def show_gap(gap: float, adversary: Mapping[str, Any] | None) -> Markup:
    """The modality gap as HTML: this catalogue's, and what the adversary does to it where that was measured."""
    return render("gap", gap=gap, adversary=adversary)


def show_product(shop: Shop, product: Product) -> Markup:
    return render(
        "map_product",
        title=show_title(product),
        photo=shop.photo_address(shop.catalog, product),
        facts=show_facts(product, shop.attributes),
    )


class EmbeddingMapTab:
    """A map of the shop's products and of queries, and the endpoints `/map` and `/place`."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.attributes = [name for name in shop.attributes if shop.catalog.attributes[name] == "string"]
        self.adversary = json.loads(ADVERSARY.read_text(encoding="utf-8")) if ADVERSARY.exists() else None
        self._lock = threading.Lock()
        self._map: Map | None = None

    def lay_out(self) -> None:
        """Adds the tab's content and its endpoints to the `gr.Blocks` that is being made."""
        with gr.Row(elem_id="space-controls"):
            self._lay_out_controls()
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                self.chart = gr.HTML(
                    notice("Drawing the map", "The first time, this takes about half a minute."),
                    elem_id="space-map",
                    elem_classes="results",
                    apply_default_css=False,
                    js_on_load=read_script("embedding_map"),
                )
                gr.HTML(
                    render("map_note", products=f"{PRODUCTS:,}", queries=QUERIES, neighbours=NEIGHBOURS),
                    elem_id="space-note",
                    apply_default_css=False,
                )
            with gr.Column(scale=1, min_width=260):
                self.detail = gr.HTML(
                    render("map_intro"),
                    elem_id="space-detail",
                    apply_default_css=False,
                    js_on_load=read_script("no_photo"),
                )
                self.gap = gr.HTML(elem_id="space-gap", apply_default_css=False)
        self._connect_events()
        self._add_endpoints()

    def _lay_out_controls(self) -> None:
        self.query = gr.Textbox(
            "",
            label="Put a query on the map",
            placeholder="striped red t-shirt",
            submit_btn="Show",
            max_length=300,
            scale=3,
            min_width=260,
            elem_id="space-query",
            elem_classes="query",
            html_attributes=gr.InputHTMLAttributes(enterkeyhint="search", autocomplete="off"),
        )
        self.attribute = gr.Dropdown(
            [(label(name), name) for name in self.attributes],
            value=next(iter(self.attributes), None),
            label="Colour by",
            filterable=False,
            min_width=160,
            elem_id="space-attribute",
        )

    def _connect_events(self) -> None:
        quiet = {"api_visibility": "private", "show_progress": "hidden"}
        asked = [self.query, self.attribute]
        gr.on([self.chart.expand, self.query.submit], self.show, asked, [self.chart, self.detail, self.gap], **quiet)
        self.attribute.input(self.recolour, asked, self.chart, **quiet)
        self.chart.select(self.show_point, None, self.detail, **quiet)

    def _add_endpoints(self) -> None:
        with gr.Row(visible=False):
            name, answer, map_button, place_button = gr.Textbox(""), gr.JSON(), gr.Button(), gr.Button()
        map_button.click(self.map_products, name, answer, api_name="map")
        place_button.click(self.place_query, self.query, answer, api_name="place")

    # ------------------------------------------------------------------------------------------------------------------
    # Events
    # ------------------------------------------------------------------------------------------------------------------

    def show(self, query: str, attribute: str | None) -> tuple[str, str, str]:
        """When the map is first seen, and after a query."""
        chart, query = self._get_map(), read_text(query)
        if not query:
            return draw(chart, attribute or ""), render("map_intro"), show_gap(chart.gap, self.adversary)
        vector = self._encode(query)
        nearest = [show_product(self.shop, chart.products[row]) for row in chart.place(vector)[1]]
        detail = render("map_nearest", query=query, products=nearest)
        return draw(chart, attribute or "", query, vector), detail, show_gap(chart.gap, self.adversary)

    def recolour(self, query: str, attribute: str | None) -> str:
        """After another attribute to colour by."""
        return self.show(query, attribute)[0]

    def show_point(self, event: gr.EventData) -> str:
        """After a click on a product's point."""
        products = self._get_map().products
        if not isinstance(event.row, int) or event.row not in range(len(products)):
            raise gr.Error("There is no such point on the map.", print_exception=False)
        return show_product(self.shop, products[event.row])

    def _get_map(self) -> Map:
        with self._lock:
            if self._map is None:
                try:
                    self._map = make_map(self.shop.catalog, self.attributes, self.shop.cache)
                except ValueError as error:
                    raise gr.Error(str(error), print_exception=False) from error
            return self._map

    def _encode(self, query: str) -> np.ndarray:
        try:
            return self.shop.encode(query)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    # ------------------------------------------------------------------------------------------------------------------
    # The API
    # ------------------------------------------------------------------------------------------------------------------

    def map_products(self, attribute: str = "") -> dict[str, Any]:
        """A map of products and synthetic queries by t-SNE.

        Args:
            attribute: its value is given for each product.

        Returns:
            The products and the queries with their x and y, and the modality gap: the distance between the mean of the
            queries' and the mean of the products' vectors.
        """
        if attribute and attribute not in self.shop.catalog.attributes:
            choices = list(self.shop.catalog.attributes)
            raise gr.Error(f"There is no attribute {attribute!r}: there are {choices}.", print_exception=False)
        chart = self._get_map()
        return {
            "products": [
                {"id": p.id, "title": p.title, "value": p.attributes.get(attribute), "x": float(x), "y": float(y)}
                for p, (x, y) in zip(chart.products, chart.positions, strict=True)
            ],
            "queries": [
                {"text": text, "x": float(x), "y": float(y)}
                for text, (x, y) in zip(chart.queries, chart.query_positions, strict=True)
            ],
            "gap": None if chart.gap != chart.gap else round(chart.gap, 4),
        }

    def place_query(self, query: str) -> dict[str, Any]:
        """Where a query lies on the map: at the mean of the positions of its 5 nearest products, which are given too.

        Args:
            query: what a shopper types.
        """
        query = read_text(query)
        if not query:
            raise gr.Error("Write a query.", print_exception=False)
        chart = self._get_map()
        (x, y), nearest = chart.place(self._encode(query))
        products = [chart.products[row] for row in nearest]
        return {"x": float(x), "y": float(y), "nearest": [{"id": p.id, "title": p.title} for p in products]}
