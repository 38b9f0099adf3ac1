"""The tab "The common space": products and queries on one map, and how far apart the two lie as a whole."""

import hashlib
import html
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from cards import label, notice, show_facts, show_title
from safetensors.numpy import load_file, save
from shop import Shop, read_text
from sklearn.manifold import TSNE

from acebert.catalog.product_catalog import Product, ProductCatalog
from acebert.losses_acebert import modality_gap
from acebert.utils.files import atomic_write

PRODUCTS = 1500
QUERIES = 100
FEWEST_PRODUCTS = 10
NEIGHBOURS = 5
COLOURS = 9  # values of an attribute with a colour of their own
LONGEST_VALUE = 40  # characters; longer ones are descriptions
SEED = 0
WIDTH, HEIGHT, MARGIN = 1000, 700, 20  # of the drawing, in its own units
ADVERSARY = Path(__file__).with_name("adversary.json")


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


def make_queries(
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
    queries = make_queries(products, attributes)
    query_vectors = catalog.encode_queries(queries) if queries else vectors[:0]
    key = hashlib.sha256(vectors.tobytes() + json.dumps([queries, catalog.settings.model]).encode()).hexdigest()[:32]
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


def draw(chart: Map, attribute: str, query: str = "", vector: np.ndarray | None = None) -> str:
    """The map as SVG in HTML, coloured by the most frequent values of an attribute, with a legend."""
    values = [str(product.attributes.get(attribute, "")) for product in chart.products]
    names, counts = np.unique([value for value in values if value], return_counts=True)
    colours = {str(name): i for i, name in enumerate(names[np.argsort(-counts, kind="stable")][:COLOURS])}
    points = "".join(
        f'<circle class="c{colours.get(value, "-other")}" data-row="{row}" cx="{x:.0f}" cy="{y:.0f}" r="5" '
        f'data-title="{html.escape(show_title(product))}" data-value="{html.escape(value)}"/>'
        for row, (product, value, (x, y)) in enumerate(zip(chart.products, values, chart.positions, strict=True))
    )
    queries = "".join(
        f'<rect class="query" x="{x - 6:.0f}" y="{y - 6:.0f}" width="12" height="12" '
        f'data-title="“{html.escape(text)}”" data-value="a synthetic query"/>'
        for text, (x, y) in zip(chart.queries, chart.query_positions, strict=True)
    )
    typed = "" if vector is None else _typed(chart, query, vector)
    keys = [(f"c{i}", name) for name, i in colours.items()]
    if any(value not in colours for value in values):
        keys.append(("c-other", "other"))
    legend = "".join(
        f'<li><button type="button" class="{key}" data-colour="{key}" aria-pressed="false">{html.escape(name)}</button>'
        "</li>"
        for key, name in keys
    )
    shown = f"{len(chart.products):,} products and {len(chart.queries)} synthetic queries by t-SNE"
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Map of {shown}">'
        f'{points}{queries}{typed}</svg><div class="tip" hidden></div>'
        f'<figcaption><ul aria-label="Colours">{legend}<li class="query-key">query</li></ul></figcaption></figure>'
    )


def _typed(chart: Map, query: str, vector: np.ndarray) -> str:
    (x, y), nearest = chart.place(vector)
    lines = "".join(f'<line x1="{x:.0f}" y1="{y:.0f}" x2="{a:.0f}" y2="{b:.0f}"/>' for a, b in chart.positions[nearest])
    # Beside the point, on the side that has room.
    anchor, shift = ("end", -18) if x > WIDTH / 2 else ("start", 18)
    return (
        f'<g class="typed">{lines}<circle cx="{x:.0f}" cy="{y:.0f}" r="11"/>'
        f'<text x="{x + shift:.0f}" y="{y + 7:.0f}" text-anchor="{anchor}">{html.escape(query)}</text></g>'
    )


def show_gap(gap: float, adversary: Mapping[str, Any] | None) -> str:
    """The modality gap as HTML: this catalogue's, and what the adversary does to it where that was measured."""
    own = (
        f"<p>On this catalogue the centres of the synthetic queries and of the products are <b>{gap:.2f}</b> apart. "
        "0 would be no gap, 2 is the most there can be.</p>"
        if gap == gap
        else "<p>This catalogue has no attributes to make queries of.</p>"
    )
    if adversary is None:
        return f"<h3>The modality gap</h3>{own}"
    most = max(adversary[arm]["high"] for arm in ("with", "without"))
    bars = "".join(
        f'<div class="bar"><span>{arm} the adversary</span><div><i style="width:{100 * part["mean"] / most:.1f}%"></i>'
        f'<u style="left:{100 * part["low"] / most:.1f}%;width:{100 * (part["high"] - part["low"]) / most:.1f}%"></u>'
        f"</div><b>{part['mean']:.2f}</b></div>"
        for arm, part in ((arm, adversary[arm]) for arm in ("with", "without"))
    )
    runs = adversary["seeds"]
    spread = f"the mean of {runs} runs each, and the line its range" if runs > 1 else "one run each"
    measured = (
        f"Trained with the adversary, queries and products are {adversary['with']['mean']:.2f} apart, without it "
        f"{adversary['without']['mean']:.2f}: {spread}. {adversary['note']}"
    )
    return f"<h3>The modality gap</h3>{bars}<p>{html.escape(measured)}</p>{own}"


def show_product(shop: Shop, product: Product) -> str:
    title, photo = html.escape(show_title(product)), html.escape(shop.photo_address(shop.catalog, product))
    return (
        f'<div class="product"><div class="photo"><img src="{photo}" alt="{title}"><span>No photo</span></div>'
        f'<div><h4>{title}</h4><p class="facts">{show_facts(product, shop.attributes)}</p></div></div>'
    )


# Runs in the browser: draws the map when the tab is first seen; titles at the pointer; a value alone by the legend.
MAP_SCRIPT = """
new IntersectionObserver((entries, observer) => {
  if (!entries.some((entry) => entry.isIntersecting)) return;
  observer.disconnect();
  trigger("expand");
}).observe(element);
element.addEventListener("pointerover", (event) => {
  const tip = element.querySelector(".tip"), point = event.target.closest("[data-title]");
  if (!tip) return;
  tip.hidden = !point;
  if (!point) return;
  tip.textContent = [point.dataset.title, point.dataset.value].filter(Boolean).join(" · ");
  const figure = tip.parentElement.getBoundingClientRect(), box = point.getBoundingClientRect();
  const left = box.left - figure.left, half = tip.offsetWidth / 2;
  tip.style.left = Math.max(half, Math.min(left, figure.width - half)) + "px";
  tip.style.top = box.top - figure.top + "px";
});
element.addEventListener("click", (event) => {
  const point = event.target.closest("circle[data-row]"), key = event.target.closest("[data-colour]");
  if (point) trigger("select", { row: Number(point.dataset.row) });
  if (!key) return;
  const on = key.getAttribute("aria-pressed") !== "true";
  for (const other of element.querySelectorAll("[data-colour]"))
    other.setAttribute("aria-pressed", other === key && on);
  for (const circle of element.querySelectorAll("circle[data-row]"))
    circle.classList.toggle("faint", on && !circle.classList.contains(key.dataset.colour));
});
"""

# Where there is no photo, the words below it show.
NO_PHOTO_SCRIPT = 'element.addEventListener("error", (event) => event.target.remove(), true);'


def add_tab(shop: Shop) -> None:
    """Lays the tab out, inside of a `gr.Tab`."""
    attributes = [name for name in shop.attributes if shop.catalog.attributes[name] == "string"]
    adversary = json.loads(ADVERSARY.read_text(encoding="utf-8")) if ADVERSARY.exists() else None
    lock = threading.Lock()
    made: list[Map] = []

    def the_map() -> Map:
        with lock:
            if not made:
                try:
                    made.append(make_map(shop.catalog, attributes, shop.cache))
                except ValueError as error:
                    raise gr.Error(str(error), print_exception=False) from error
        return made[0]

    def encode(query: str) -> np.ndarray:
        try:
            return shop.encode(query)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def map_products(attribute: str = "") -> dict[str, Any]:
        """A map of products and synthetic queries by t-SNE.

        Args:
            attribute: its value is given for each product.

        Returns:
            The products and the queries with their x and y, and the modality gap: the distance between the mean of the
            queries' and the mean of the products' vectors.
        """
        if attribute and attribute not in shop.catalog.attributes:
            choices = list(shop.catalog.attributes)
            raise gr.Error(f"There is no attribute {attribute!r}: there are {choices}.", print_exception=False)
        chart = the_map()
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

    def place_query(query: str) -> dict[str, Any]:
        """Where a query lies on the map: at the mean of the positions of its 5 nearest products, which are given too.

        Args:
            query: what a shopper types.
        """
        query = read_text(query)
        if not query:
            raise gr.Error("Write a query.", print_exception=False)
        chart = the_map()
        (x, y), nearest = chart.place(encode(query))
        products = [chart.products[row] for row in nearest]
        return {"x": float(x), "y": float(y), "nearest": [{"id": p.id, "title": p.title} for p in products]}

    def show(query: str, attribute: str | None) -> tuple[str, str, str]:
        chart, query = the_map(), read_text(query)
        vector = encode(query) if query else None
        detail = introduction
        if query:
            nearest = "".join(show_product(shop, chart.products[row]) for row in chart.place(vector)[1])
            detail = f"<h3>Nearest to “{html.escape(query)}” on the map</h3>{nearest}"
        return draw(chart, attribute or "", query, vector), detail, show_gap(chart.gap, adversary)

    def recolour(query: str, attribute: str | None) -> str:
        return show(query, attribute)[0]

    def show_point(event: gr.EventData) -> str:
        products = the_map().products
        if not isinstance(event.row, int) or event.row not in range(len(products)):
            raise gr.Error("There is no such point on the map.", print_exception=False)
        return show_product(shop, products[event.row])

    introduction = "<p>Choose a point to see its product, or write a query to see where it falls.</p>"
    with gr.Row(elem_id="space-controls"):
        query = gr.Textbox(
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
        attribute = gr.Dropdown(
            [(label(name), name) for name in attributes],
            value=next(iter(attributes), None),
            label="Colour by",
            filterable=False,
            min_width=160,
            elem_id="space-attribute",
        )
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            chart = gr.HTML(
                notice("Drawing the map", "The first time, this takes about half a minute."),
                elem_id="space-map",
                elem_classes="results",
                apply_default_css=False,
                js_on_load=MAP_SCRIPT,
            )
            gr.HTML(
                f"<p>Up to {PRODUCTS:,} products, drawn at random, and up to {QUERIES} synthetic queries, made of the "
                "products' attributes. t-SNE keeps neighbours together; distances across the map mean little. A query "
                f"that you write stands at the mean of its {NEIGHBOURS} nearest products' places.</p>",
                elem_id="space-note",
                apply_default_css=False,
            )
        with gr.Column(scale=1, min_width=260):
            detail = gr.HTML(introduction, elem_id="space-detail", apply_default_css=False, js_on_load=NO_PHOTO_SCRIPT)
            gap = gr.HTML(elem_id="space-gap", apply_default_css=False)
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    gr.on([chart.expand, query.submit], show, [query, attribute], [chart, detail, gap], **quiet)
    attribute.input(recolour, [query, attribute], chart, **quiet)
    chart.select(show_point, None, detail, **quiet)
    with gr.Row(visible=False):
        name, answer, map_button, place_button = gr.Textbox(""), gr.JSON(), gr.Button(), gr.Button()
    map_button.click(map_products, name, answer, api_name="map")
    place_button.click(place_query, query, answer, api_name="place")
