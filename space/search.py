"""The search panel: words, a photo, filters, results; over the shop's catalogue or any other."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import gradio as gr
import numpy as np
from cards import card, label, notice, show_title
from gradio.data_classes import ImageData
from photo_zip import decode_photo
from PIL.Image import Image as Photo
from shop import MOST_HITS, Shop, find_product, read_text
from upload_limits import Limits
from why import Question, find_reasons, why_page

from acebert.catalog.product_catalog import Product, ProductCatalog

COUNTS = (12, 24, 48, 96)
DEFAULT_COUNT = 24
CHOICE_SLOTS = 6  # filters by value
RANGE_SLOTS = 2  # filters by number, each from and to
SLOTS = CHOICE_SLOTS + 2 * RANGE_SLOTS
# A search costs 20 ms of one core: more at a time than this would only take turns.
SEARCHES_AT_A_TIME = 4
EXPLANATIONS_AT_A_TIME = 1
SCRIPT = Path(__file__).with_name("panel.js").read_text(encoding="utf-8")

Filters = dict[str, Any]


# ----------------------------------------------------------------------------------------------------------------------
# Filters: the panel has slots for them, which a catalogue fills as far as it has attributes
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FilterSlots:
    """Which attribute of a catalogue each slot filters by.

    Args:
        choices: attributes filtered by value, at most `CHOICE_SLOTS`.
        ranges: numbers, filtered by lowest and highest, at most `RANGE_SLOTS`.
    """

    choices: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()

    @classmethod
    def of(cls, catalog: ProductCatalog, attributes: Sequence[str]) -> "FilterSlots":
        numbers = [name for name in attributes if catalog.attributes[name] in ("integer", "number")]
        others = [name for name in attributes if name not in numbers]
        return cls(tuple(others[:CHOICE_SLOTS]), tuple(numbers[:RANGE_SLOTS]))

    def read(self, values: Sequence[Any]) -> Filters:
        """The filters that the slots' values make: a list for each choice, then two numbers for each range."""
        filters = {name: chosen for name, chosen in zip(self.choices, values, strict=False) if chosen}
        bounds = values[CHOICE_SLOTS:]
        for name, low, high in zip(self.ranges, bounds[::2], bounds[1::2], strict=False):
            if (low, high) != (None, None):
                filters[name] = (low, high)
        return filters

    def write(self, filters: Filters) -> list[Any]:
        """The slots' values that make these filters."""
        values = [filters.get(name, []) for name in self.choices]
        values += [[]] * (CHOICE_SLOTS - len(values))
        for name in self.ranges:
            values += filters.get(name, (None, None))
        return values + [None] * (SLOTS - len(values))

    def parse(self, catalog: ProductCatalog, fields: Mapping[str, Sequence[str]]) -> Filters:
        """The filters in an address; values that the catalogue doesn't have are left out."""
        filters: Filters = {}
        for name in self.choices:
            chosen = [value for value in catalog.facets(name) if str(value) in fields.get(name, ())]
            if chosen:
                filters[name] = chosen
        for name in self.ranges:
            bounds = tuple(_read_number(fields.get(f"{name}.{end}", [""])[0]) for end in ("min", "max"))
            if bounds != (None, None) and (None in bounds or bounds[0] <= bounds[1]):
                filters[name] = bounds
        return filters

    def updates(self, catalog: ProductCatalog, filters: Filters) -> list[dict[str, Any]]:
        """What changes in the slots: each value with the number of products it would leave, given the other filters."""
        updates = []
        for name in self.choices:
            others = {other: value for other, value in filters.items() if other != name}
            counts = catalog.facets(name, others)
            # Chosen ones stay, or the shopper couldn't take them away.
            counts |= {value: 0 for value in filters.get(name, ()) if value not in counts}
            choices = [(f"{value} ({count:,})", value) for value, count in counts.items()]
            updates.append(gr.update(choices=choices, label=label(name), visible=True))
        updates += [gr.update(visible=False)] * (CHOICE_SLOTS - len(updates))
        for name in self.ranges:
            updates += [gr.update(label=f"{label(name)} {end}", visible=True) for end in ("from", "to")]
        return updates + [gr.update(visible=False)] * (SLOTS - len(updates))


def _read_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def address(query: str, like: str, count: int, filters: Filters) -> str:
    """The query string that opens the page on the same search. A shopper's own photo can't be part of it."""
    fields: list[tuple[str, Any]] = [("like", like)] if like else [("q", query)] if query else []
    if count != DEFAULT_COUNT:
        fields.append(("n", count))
    for name, value in filters.items():
        if isinstance(value, tuple):
            ends = zip(("min", "max"), value, strict=True)
            fields += [(f"{name}.{end}", f"{bound:.10g}") for end, bound in ends if bound is not None]
        else:
            fields += [(name, part) for part in value]
    return "?" + urlencode(fields) if fields else "."


# ----------------------------------------------------------------------------------------------------------------------
# Searching
# ----------------------------------------------------------------------------------------------------------------------


def look_around(catalog: ProductCatalog, count: int, filters: Filters) -> list[Product]:
    """Products from all over the catalogue, for a shopper who hasn't searched yet."""
    products, vectors = catalog.sample(count)
    if not filters or not products:
        return products
    found = catalog.search(vector=vectors, top_k=count, filters=filters)
    fitting = {hit.id: hit for rank in zip(*found, strict=True) for hit in rank}
    return [Product(hit.id, hit.title, hit.attributes, hit.location) for hit in list(fitting.values())[:count]]


@dataclass(frozen=True)
class Found:
    """Products, the heading that says what they are, and what was asked; nothing where the shopper looks around."""

    heading: str
    products: Sequence[Product]
    question: Question | None = None


def find(
    shop: Shop, catalog: ProductCatalog, query: str, photo: Photo | None, like: str, count: int, filters: Filters
) -> Found:
    """What the panel shows: a search, products like one, or a look around where there is neither.

    Raises:
        ValueError: for an unknown product, or filters that can't be.
    """
    if like:
        product = find_product(catalog, like)
        if product is None:
            raise ValueError(f"There is no product {like} in this catalogue.")
        hits = catalog.search(like=product.id, top_k=count, filters=filters)
        return Found(f"More like “{show_title(product)}”", hits, Question(like=like))
    if not query and photo is None:
        return Found("From the catalogue", look_around(catalog, count, filters))
    vector = shop.encode(query, photo)
    heading = "Like your photo" if not query else f"“{query}” and your photo" if photo is not None else f"“{query}”"
    return Found(heading, catalog.search(vector=vector, top_k=count, filters=filters), Question(vector=vector))


# ----------------------------------------------------------------------------------------------------------------------
# The panel
# ----------------------------------------------------------------------------------------------------------------------


def read_photo(payload: ImageData | None) -> Photo | None:
    """The photo that a shopper uploaded, in place of Gradio's own reading: that knows no limits, and by Pillow any
    format, one of which (EPS) starts another program.

    Raises:
        gr.Error: for a file that is no photo or over the limits; a shopper understands it.
    """
    if payload is None:
        return None
    limits = Limits()
    try:
        if payload.path is None:
            raise ValueError("it was not uploaded")
        with open(payload.path, "rb") as file:
            return decode_photo(file.read(limits.photo_bytes + 1), limits)
    except (ValueError, OSError) as error:
        reason = "it is no longer there" if isinstance(error, OSError) else error
        text = f"That file can't be read as a photo: {reason}. Take it away and try a JPEG or PNG."
        raise gr.Error(text, print_exception=False) from error


@dataclass
class SearchPanel:
    """What happens on a panel. `add_search` lays one out.

    Args:
        shop: whose model encodes what is asked.
        catalog_of: the catalogue that a request searches; None while there is none.
        attributes: those to show and to filter by, None for all of the catalogue's.
        shareable: whether the page's address follows the search.
        asked: the components with a shopper's words and photo.
        outputs: the components that `open` returns values for.
    """

    shop: Shop
    catalog_of: Callable[[gr.Request], ProductCatalog | None]
    attributes: Sequence[str] | None
    shareable: bool
    asked: list[gr.components.Component] = field(default_factory=list)
    outputs: list[gr.components.Component] = field(default_factory=list)

    def open(self, request: gr.Request) -> tuple:
        """When the page is loaded: starts where its address says; values in it that can't be are left out.

        What a shopper typed or dropped meanwhile is left alone, so neither is among the outputs.
        """
        catalog = self.catalog_of(request)
        fields = parse_qs(str(request.query_params)) if self.shareable else {}
        query, like = fields.get("q", [""])[0], fields.get("like", [""])[0]
        count = next((count for count in COUNTS if str(count) in fields.get("n", ())), DEFAULT_COUNT)
        slots, filters, updates = FilterSlots(), {}, [gr.update(visible=False)] * SLOTS
        if catalog is not None:
            slots = self._slots(catalog)
            filters = slots.parse(catalog, fields)
            updates = slots.updates(catalog, filters)
        updates = [update | {"value": value} for update, value in zip(updates, slots.write(filters), strict=True)]
        drawer = gr.update(open=bool(filters), visible=bool(slots.choices or slots.ranges))
        return like, count, *updates, drawer, *self._show(catalog, query, None, like, count, filters)

    def open_another(self, request: gr.Request) -> tuple:
        """When there is another catalogue: starts over."""
        return "", None, *self.open(request)

    def start_over(self, request: gr.Request, query: str, photo: Photo | None, count: int, *values: Any) -> tuple:
        """After another query or photo."""
        catalog, filters = self._read(request, values)
        return "", *self._show(catalog, query, photo, "", count, filters)

    def refine(
        self, request: gr.Request, query: str, photo: Photo | None, like: str, count: int, *values: Any
    ) -> tuple:
        """After another filter: the same search, and the others' numbers of products."""
        catalog, filters = self._read(request, values)
        try:
            updates = self._slots(catalog).updates(catalog, filters) if catalog else [gr.skip()] * SLOTS
        except ValueError:  # a range from high to low, which the results name
            updates = [gr.skip()] * SLOTS
        return *updates, *self._show(catalog, query, photo, like, count, filters)

    def show_similar(self, event: gr.EventData, request: gr.Request, count: int, *values: Any) -> tuple:
        """After "more like this"."""
        catalog, filters = self._read(request, values)
        like = read_text(str(event.product))
        return "", None, like, *self._show(catalog, "", None, like, count, filters)

    def try_example(self, request: gr.Request, text: str, count: int, *values: Any) -> tuple:
        """After an example was chosen."""
        catalog, filters = self._read(request, values)
        return text, None, "", *self._show(catalog, text, None, "", count, filters)

    def show_why(self, event: gr.EventData, request: gr.Request, question: Question | None) -> dict[str, Any]:
        """After "why this?": the panel's content, marked with the ticket of the question that it answers."""
        catalog = self.catalog_of(request)
        product, ticket = read_text(str(event.product)), read_text(str(event.ticket))
        try:
            if catalog is None or question is None:
                raise ValueError("That search is gone: search again.")
            body = why_page(self.shop, catalog, find_reasons(self.shop, catalog, question, product))
        except ValueError as error:
            body = notice("That can't be explained", str(error))
        return gr.update(why=f'<section data-ticket="{html.escape(ticket)}">{body}</section>')

    def _slots(self, catalog: ProductCatalog) -> FilterSlots:
        return FilterSlots.of(catalog, self._columns(catalog))

    def _columns(self, catalog: ProductCatalog) -> Sequence[str]:
        return list(catalog.attributes) if self.attributes is None else self.attributes

    def _read(self, request: gr.Request, values: Sequence[Any]) -> tuple[ProductCatalog | None, Filters]:
        catalog = self.catalog_of(request)
        return catalog, self._slots(catalog).read(values) if catalog else {}

    def _show(
        self,
        catalog: ProductCatalog | None,
        query: str,
        photo: Photo | None,
        like: str,
        count: int,
        filters: Filters,
    ) -> tuple[str, Question | None]:
        """The results as HTML, and what was asked."""
        query, question = read_text(query), None
        here = address(query, like, count, filters)
        if catalog is None:
            body = notice("Nothing to search yet", "Products appear here as soon as there are some.")
        else:
            try:
                found = find(self.shop, catalog, query, photo, like, count, filters)
            except ValueError as error:
                body = notice("That didn't work", str(error), *((".", "Start again") if self.shareable else ()))
            else:
                question = found.question
                unfiltered = address(query, like, count, {})
                body = self._results(catalog, found, filters, here if photo is None else "", unfiltered)
        return f'<section data-address="{html.escape(here)}">{body}</section>', question

    def _results(self, catalog: ProductCatalog, found: Found, filters: Filters, here: str, unfiltered: str) -> str:
        if not found.products:
            way = (unfiltered, "Take all away") if self.shareable else ()
            return notice("Nothing fits these filters", "Take one away to see more.", *way)
        note, share = f"{len(found.products)} of {catalog.count(filters):,} products", ""
        if found.question:
            note += ", best match first"
            if here and self.shareable:
                share = f'<a href="{html.escape(here)}">Link to this search</a>'
        cards = "".join(card(self.shop, catalog, product, self._columns(catalog)) for product in found.products)
        return (
            f'<header role="status"><h2 tabindex="-1">{html.escape(found.heading)}</h2><p>{note}{share}</p></header>'
            f'<ol class="grid">{cards}</ol>'
        )


def add_search(
    shop: Shop,
    catalog_of: Callable[[gr.Request], ProductCatalog | None],
    name: str,
    *,
    attributes: Sequence[str] | None = None,
    examples: Sequence[str] = (),
    shareable: bool = False,
) -> SearchPanel:
    """Lays a search panel out, inside `gr.Blocks`.

    Args:
        shop: whose model encodes what is asked.
        catalog_of: the catalogue that a request searches; None while there is none.
        name: prefix of the elements' ids, as in "shop-query"; another one for each panel.
        attributes: those to show and to filter by, by default all of the catalogue's.
        examples: queries to start from.
        shareable: whether the page's address follows the search, so that its link opens the same one. For one panel of
            a page.
    """
    panel = SearchPanel(shop, catalog_of, attributes, shareable)
    with gr.Row(elem_classes="search"):
        with gr.Column(scale=4, min_width=280):
            query = gr.Textbox(
                "",
                label="What are you looking for?",
                placeholder="striped red t-shirt",
                submit_btn="Search",
                max_length=300,
                elem_id=f"{name}-query",
                elem_classes="query",
                html_attributes=gr.InputHTMLAttributes(enterkeyhint="search", autocomplete="off"),
            )
            with gr.Row(elem_classes="examples", visible=bool(examples)):
                chips = [gr.Button(example, size="sm", min_width=0) for example in examples]
        photo = gr.Image(
            label="Or a photo like it",
            type="pil",
            sources=["upload"],
            placeholder="Drop or choose a photo",
            height=140,
            scale=1,
            min_width=200,
            buttons=[],
            elem_id=f"{name}-photo",
            elem_classes="query-photo",
            alt_text="The photo that you search with",
        )
        # Not by a subclass: for one, Gradio writes a stub file beside this one.
        photo.preprocess = read_photo
    with gr.Accordion("Filters", open=False, elem_id=f"{name}-filters", elem_classes="filters") as drawer, gr.Row():
        slots = [gr.Dropdown(multiselect=True, visible=False, min_width=120) for _ in range(CHOICE_SLOTS)]
        slots += [gr.Number(visible=False, min_width=100) for _ in range(2 * RANGE_SLOTS)]
        count = gr.Dropdown(COUNTS, value=DEFAULT_COUNT, label="Results", filterable=False, min_width=120)
    script = SCRIPT.replace("NAME", name).replace("SHAREABLE", str(shareable).lower())
    results = gr.HTML(
        elem_id=f"{name}-results", elem_classes="results", apply_default_css=False, js_on_load=script, why=""
    )
    like, question = gr.State(""), gr.State()

    private = {"api_visibility": "private", "show_progress_on": results, "concurrency_limit": SEARCHES_AT_A_TIME}
    shown = [results, question]
    gr.on(
        [query.submit, photo.upload, photo.clear],
        panel.start_over,
        [query, photo, count, *slots],
        [like, *shown],
        concurrency_id="search",
        **private,
    )
    choices, bounds = slots[:CHOICE_SLOTS], slots[CHOICE_SLOTS:]
    # A phone's keypad for numbers has no Enter: leaving the box counts, too.
    refined = [part.input for part in (count, *choices)] + [bound.submit for bound in bounds]
    gr.on(
        refined + [bound.blur for bound in bounds],
        panel.refine,
        [query, photo, like, count, *slots],
        [*slots, *shown],
        concurrency_id="search",
        **private,
    )
    results.select(
        panel.show_similar, [count, *slots], [query, photo, like, *shown], concurrency_id="search", **private
    )
    for chip in chips:
        chip.click(panel.try_example, [chip, count, *slots], [query, photo, like, *shown], **private)
    results.expand(
        panel.show_why,
        question,
        results,
        api_visibility="private",
        show_progress="hidden",
        concurrency_limit=EXPLANATIONS_AT_A_TIME,
        concurrency_id="why",
    )
    panel.asked, panel.outputs = [query, photo], [like, count, *slots, drawer, *shown]
    # With no trigger named: when the page is loaded.
    gr.on(None, panel.open, None, panel.outputs, concurrency_id="search", **private)
    if shareable:
        # By the browser, at once: an answer of the server would come over what is being typed.
        read_address = "(typed) => typed || new URLSearchParams(location.search).get('q') || ''"
        gr.on(None, None, query, query, js=read_address, api_visibility="private")
    return panel


# ----------------------------------------------------------------------------------------------------------------------
# The API
# ----------------------------------------------------------------------------------------------------------------------


def add_endpoints(shop: Shop) -> None:
    """Adds `/search` and `/why` over the shop's catalogue, for code and for agents."""

    def search(
        query: str = "", photo: Photo | None = None, count: int = DEFAULT_COUNT, filters: dict | None = None
    ) -> list[dict[str, Any]]:
        """Finds products of the shop by words, by a photo, or by both, best match first.

        Args:
            query: what to look for, in a few English words.
            photo: a photo of something like it.
            count: how many products to return, at most 100.
            filters: attribute to a value, a list of values, or a range as {"price": {"$gte": 10, "$lte": 50}}.
        """
        try:
            if count is None or not 1 <= count <= MOST_HITS:
                asked = "none" if count is None else f"{count:g}"
                raise ValueError(f"A search returns 1 to {MOST_HITS} products, and {asked} were asked for.")
            vector = shop.encode(read_text(query), photo)
            hits = shop.catalog.search(vector=vector, top_k=int(count), filters=filters)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return [
            {
                "id": hit.id,
                "title": hit.title,
                "score": round(hit.score, 4),
                "carried_by": hit.carried_by,
                "attributes": {name: hit.attributes[name] for name in shop.attributes if name in hit.attributes},
            }
            for hit in hits
        ]

    def why(product: str, query: str = "", photo: Photo | None = None) -> tuple[dict[str, Any], Photo | None]:
        """Explains why a product of the shop matches a query: by its title or its photo, which words, which parts.

        Args:
            product: the product's id, as /search returns it.
            query: the words that were searched for.
            photo: the photo that was searched by.
        """
        try:
            question = Question(shop.encode(read_text(query), photo))
            reasons = find_reasons(shop, shop.catalog, question, read_text(product))
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return reasons.to_json(), reasons.map

    with gr.Row(visible=False):
        product, query, photo = gr.Textbox(), gr.Textbox(""), gr.Image(type="pil")
        photo.preprocess = read_photo
        count, filters, answer, heat = gr.Number(DEFAULT_COUNT), gr.JSON({}), gr.JSON(), gr.Image()
        # Of any JSON, Gradio makes a schema that the MCP client takes for a mistake.
        filters.api_info = lambda: {"type": "object", "description": "attribute to what it should be"}
        button = gr.Button()
    button.click(
        search,
        [query, photo, count, filters],
        answer,
        api_name="search",
        concurrency_id="search",
        concurrency_limit=SEARCHES_AT_A_TIME,
    )
    button.click(
        why,
        [product, query, photo],
        [answer, heat],
        api_name="why",
        concurrency_id="why",
        concurrency_limit=EXPLANATIONS_AT_A_TIME,
    )
