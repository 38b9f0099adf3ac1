"""The search panel: words, a photo, filters, results; over the shop's catalogue or any other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlencode

import gradio as gr
from gradio.data_classes import ImageData
from markupsafe import Markup
from PIL.Image import Image as Photo

from acebert.catalog.product_catalog import Product, ProductCatalog
from acebert.catalog.query_parsing import Chip
from acebert.catalog.records import Results
from acebert.space.cards import card, label, notice, show_title
from acebert.space.filter_slots import CHOICE_SLOTS, DATE_SLOTS, RANGE_SLOTS, SLOTS, Filters, FilterSlots
from acebert.space.gradio_compat import replace_preprocess
from acebert.space.rendering import read_script, render
from acebert.space.shop import Shop, find_product, read_text, search_one
from acebert.space.uploads.limits import Limits
from acebert.space.uploads.photo_zip import decode_photo
from acebert.space.why import Question, find_reasons, why_page

BEST_FIRST = ("Best match first", "")
COUNTS = (12, 24, 48, 96)
DEFAULT_COUNT = 24
# A search costs 20 ms of one core: more at a time than this would only take turns.
SEARCHES_AT_A_TIME = 4
EXPLANATIONS_AT_A_TIME = 1
# Runs in the browser: the text that the page's address asks for, unless something was typed already.
READ_ADDRESS = "(typed) => typed || new URLSearchParams(location.search).get('q') || ''"


# ----------------------------------------------------------------------------------------------------------------------
# Searching
# ----------------------------------------------------------------------------------------------------------------------


def address(query: str, like: str, count: int, filters: Filters, as_words: Sequence[str] = (), sort: str = "") -> str:
    """The query string that opens the page on the same search. A shopper's own photo can't be part of it."""
    fields: list[tuple[str, Any]] = [("like", like)] if like else [("q", query)] if query else []
    if count != DEFAULT_COUNT:
        fields.append(("n", count))
    if sort:
        fields.append(("sort", sort))
    fields += [("typed", part) for part in as_words]
    for name, value in filters.items():
        if isinstance(value, tuple):
            ends = zip(("min", "max"), value, strict=True)
            fields += [
                (f"{name}.{end}", bound if isinstance(bound, str) else f"{bound:.10g}")
                for end, bound in ends
                if bound is not None
            ]
        else:
            fields += [(name, part) for part in value]
    return "?" + urlencode(fields) if fields else "."


def look_around(catalog: ProductCatalog, count: int, filters: Filters) -> list[Product]:
    """Products from all over the catalogue, for a shopper who hasn't searched yet."""
    products, vectors = catalog.sample(count)
    if not filters or not products:
        return products
    found = search_one(catalog, vector=vectors, top_k=count, filters=filters)
    fitting = {hit.id: hit for rank in zip(*found, strict=True) for hit in rank}
    return [Product(hit.id, hit.title, hit.attributes, hit.location) for hit in list(fitting.values())[:count]]


@dataclass(frozen=True)
class Asked:
    """What a panel is asked to show.

    Args:
        query: words, "" for none.
        photo: one that the shopper uploaded.
        like: id of a product to find more like, as written in an address; "" for none.
        as_words: parts of the query that are taken as typed.
        count: products wanted.
        sort: attribute to sort by, "-" before it for from high to low; "" for the best match first.
        filters: by attribute.
    """

    query: str = ""
    photo: Photo | None = None
    like: str = ""
    as_words: Sequence[str] = ()
    count: int = DEFAULT_COUNT
    sort: str = ""
    filters: Filters = field(default_factory=dict)

    def address(self, **changes: Any) -> str:
        """The query string of the same search, or of one that differs in some of these."""
        asked = replace(self, **changes)
        return address(asked.query, asked.like, asked.count, asked.filters, asked.as_words, asked.sort)


@dataclass(frozen=True)
class Found:
    """Products, the heading that says what they are, and what was asked; nothing where the shopper looks around."""

    heading: str
    products: Sequence[Product]
    question: Question | None = None


def find(shop: Shop, catalog: ProductCatalog, asked: Asked) -> Found:
    """What the panel shows: a search, products like one, or a look around where there is neither.

    Raises:
        ValueError: for an unknown product, or filters that can't be.
    """
    options = {"top_k": asked.count, "filters": asked.filters, "sort_by": asked.sort or None}
    if asked.like:
        product = find_product(catalog, asked.like)
        if product is None:
            raise ValueError(f"There is no product {asked.like} in this catalogue.")
        hits = search_one(catalog, like=product.id, **options)
        return Found(f"More like “{show_title(product)}”", hits, Question(like=asked.like))
    query, photo = asked.query, asked.photo
    if not query and photo is None:
        return Found("From the catalogue", look_around(catalog, asked.count, asked.filters))
    shop.check_query(query)
    hits = search_one(catalog, text=query or None, image=photo, as_words=asked.as_words, **options)
    heading = "Like your photo" if not query else f"“{query}” and your photo" if photo is not None else f"“{query}”"
    return Found(heading, hits, Question(vector=shop.encode(hits.text or "", photo)))


def read_photo(payload: ImageData | None) -> Photo | None:
    """The photo that a shopper uploaded.

    Gradio's own reading has no limits, and opens every format that Pillow knows, one of which (EPS) starts another
    program.

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


# ----------------------------------------------------------------------------------------------------------------------
# The panel
# ----------------------------------------------------------------------------------------------------------------------


class SearchPanel:
    """A search over a catalogue. [`SearchPanel.lay_out`] puts it on the page.

    Args:
        shop: whose model encodes what is asked.
        catalog_of: the catalogue that a request searches; None while there is none.
        name: prefix of the elements' ids, as in "shop-query"; another one for each panel.
        attributes: those to show and to filter by, by default all of the catalogue's.
        examples: queries to start from.
        shareable: whether the page's address follows the search, so that its link opens the same one. For one panel of
            a page.
    """

    def __init__(
        self,
        shop: Shop,
        catalog_of: Callable[[gr.Request], ProductCatalog | None],
        name: str,
        *,
        attributes: Sequence[str] | None = None,
        examples: Sequence[str] = (),
        shareable: bool = False,
    ) -> None:
        self.shop, self.catalog_of, self.name = shop, catalog_of, name
        self.attributes, self.examples, self.shareable = attributes, examples, shareable

    # ------------------------------------------------------------------------------------------------------------------
    # Layout
    # ------------------------------------------------------------------------------------------------------------------

    def lay_out(self) -> None:
        """Adds the panel to the `gr.Blocks` that is being made."""
        with gr.Row(elem_classes="search"):
            self._lay_out_question()
        self._lay_out_filters()
        script = read_script("search_panel").replace("NAME", self.name)
        self.results = gr.HTML(
            elem_id=f"{self.name}-results",
            elem_classes="results",
            apply_default_css=False,
            js_on_load=script.replace("SHAREABLE", str(self.shareable).lower()),
            why="",
        )
        self.like, self.as_words, self.question = gr.State(""), gr.State([]), gr.State()
        self._connect_events()

    def _lay_out_question(self) -> None:
        with gr.Column(scale=4, min_width=280):
            self.query = gr.Textbox(
                "",
                label="What are you looking for?",
                placeholder="striped red t-shirt",
                submit_btn="Search",
                max_length=300,
                elem_id=f"{self.name}-query",
                elem_classes="query",
                html_attributes=gr.InputHTMLAttributes(enterkeyhint="search", autocomplete="off"),
            )
            with gr.Row(elem_classes="examples", visible=bool(self.examples)):
                self.chips = [gr.Button(example, size="sm", min_width=0) for example in self.examples]
        self.photo = gr.Image(
            label="Or a photo like it",
            type="pil",
            sources=["upload"],
            placeholder="Drop or choose a photo",
            height=140,
            scale=1,
            min_width=200,
            buttons=[],
            elem_id=f"{self.name}-photo",
            elem_classes="query-photo",
            alt_text="The photo that you search with",
        )
        replace_preprocess(self.photo, read_photo)

    def _lay_out_filters(self) -> None:
        with (
            gr.Accordion("Filters", open=False, elem_id=f"{self.name}-filters", elem_classes="filters") as self.drawer,
            gr.Row(),
        ):
            self.choices = [gr.Dropdown(multiselect=True, visible=False, min_width=120) for _ in range(CHOICE_SLOTS)]
            self.bounds = [gr.Number(visible=False, min_width=100) for _ in range(2 * RANGE_SLOTS)]
            self.days = [
                gr.Textbox("", visible=False, min_width=120, max_length=30, placeholder="2026-01-31")
                for _ in range(2 * DATE_SLOTS)
            ]
            self.count = gr.Dropdown(COUNTS, value=DEFAULT_COUNT, label="Results", filterable=False, min_width=120)
            self.sort = gr.Dropdown([BEST_FIRST], value="", label="Order", filterable=False, min_width=140)

    def _connect_events(self) -> None:
        slots, shown = [*self.choices, *self.bounds, *self.days], [self.results, self.question]
        view = [self.count, self.sort]
        common = {
            "api_visibility": "private",
            "show_progress_on": self.results,
            "concurrency_limit": SEARCHES_AT_A_TIME,
        }
        search = {**common, "concurrency_id": "search"}
        gr.on(
            [self.query.submit, self.photo.upload, self.photo.clear],
            self.start_over,
            [self.query, self.photo, *view, *slots],
            [self.like, self.as_words, *shown],
            **search,
        )
        # A phone's keypad for numbers has no Enter: leaving the box counts, too.
        refined = [part.input for part in (*view, *self.choices)]
        refined += [event for end in (*self.bounds, *self.days) for event in (end.submit, end.blur)]
        gr.on(
            refined,
            self.refine,
            [self.query, self.photo, self.like, self.as_words, *view, *slots],
            [*slots, *shown],
            **search,
        )
        anew = [self.query, self.photo, self.like, self.as_words, *shown]
        self.results.select(self.follow, [self.query, self.photo, self.as_words, *view, *slots], anew, **search)
        for example in self.chips:
            example.click(self.try_example, [example, *view, *slots], anew, **common)
        self.results.expand(
            self.show_why,
            self.question,
            self.results,
            api_visibility="private",
            show_progress="hidden",
            concurrency_limit=EXPLANATIONS_AT_A_TIME,
            concurrency_id="why",
        )
        # With no trigger named: when the page is loaded.
        gr.on(None, self.open, None, self.opened, **search)
        if self.shareable:
            # By the browser, at once: an answer of the server would come over what is being typed.
            gr.on(None, None, self.query, self.query, js=READ_ADDRESS, api_visibility="private")

    @property
    def opened(self) -> list[gr.components.Component]:
        """The components that [`SearchPanel.open`] returns values for."""
        return [
            self.like,
            self.as_words,
            self.count,
            self.sort,
            *self.choices,
            *self.bounds,
            *self.days,
            self.drawer,
            self.results,
            self.question,
        ]

    @property
    def opened_another(self) -> list[gr.components.Component]:
        """The components that [`SearchPanel.open_another`] returns values for."""
        return [self.query, self.photo, *self.opened]

    # ------------------------------------------------------------------------------------------------------------------
    # Events
    # ------------------------------------------------------------------------------------------------------------------

    def open(self, request: gr.Request) -> tuple:
        """When the page is loaded: starts where its address says; values in it that can't be are left out.

        What a shopper typed or dropped meanwhile is left alone, so neither is among the outputs.
        """
        catalog = self.catalog_of(request)
        fields = parse_qs(str(request.query_params)) if self.shareable else {}
        count = next((count for count in COUNTS if str(count) in fields.get("n", ())), DEFAULT_COUNT)
        slots, filters, updates, orders = FilterSlots(), {}, [gr.update(visible=False)] * SLOTS, [BEST_FIRST]
        if catalog is not None:
            slots = self._slots(catalog)
            filters = slots.parse(catalog, fields)
            updates = slots.updates(catalog, filters)
            orders += slots.orders()
        updates = [update | {"value": value} for update, value in zip(updates, slots.write(filters), strict=True)]
        sort = next((value for _, value in orders if value in fields.get("sort", ())), "")
        query, like = read_text(fields.get("q", [""])[0]), fields.get("like", [""])[0]
        as_words = [part for part in fields.get("typed", ()) if part in query]
        asked = Asked(query, None, like, as_words, count, sort, filters)
        drawer = gr.update(open=bool(filters or sort), visible=slots != FilterSlots())
        order = gr.update(choices=orders, value=sort, visible=len(orders) > 1)
        return like, list(asked.as_words), count, order, *updates, drawer, *self._show(catalog, asked)

    def open_another(self, request: gr.Request) -> tuple:
        """When there is another catalogue: starts over."""
        return "", None, *self.open(request)

    def start_over(
        self, request: gr.Request, query: str, photo: Photo | None, count: int, sort: str, *values: Any
    ) -> tuple:
        """After another query or photo."""
        catalog, filters = self._read(request, values)
        return "", [], *self._show(catalog, Asked(read_text(query), photo, "", (), count, sort, filters))

    def refine(
        self,
        request: gr.Request,
        query: str,
        photo: Photo | None,
        like: str,
        as_words: Sequence[str],
        count: int,
        sort: str,
        *values: Any,
    ) -> tuple:
        """After another filter: the same search, and the others' numbers of products."""
        catalog, filters = self._read(request, values)
        try:
            updates = self._slots(catalog).updates(catalog, filters) if catalog else [gr.skip()] * SLOTS
        except ValueError:  # a range from high to low, which the results name
            updates = [gr.skip()] * SLOTS
        asked = Asked(read_text(query), photo, like, as_words, count, sort, filters)
        return *updates, *self._show(catalog, asked)

    def follow(
        self,
        event: gr.EventData,
        request: gr.Request,
        query: str,
        photo: Photo | None,
        as_words: Sequence[str],
        count: int,
        sort: str,
        *values: Any,
    ) -> tuple:
        """After "more like this", or after a part of the query was to be taken as typed."""
        catalog, filters = self._read(request, values)
        like, part = (read_text(str(getattr(event, name, ""))) for name in ("product", "words"))
        if like:
            return "", None, like, [], *self._show(catalog, Asked("", None, like, (), count, sort, filters))
        kept = [*as_words, part] if part and part in query else list(as_words)
        shown = self._show(catalog, Asked(read_text(query), photo, "", kept, count, sort, filters))
        return gr.skip(), gr.skip(), "", kept, *shown

    def try_example(self, request: gr.Request, text: str, count: int, sort: str, *values: Any) -> tuple:
        """After an example was chosen."""
        catalog, filters = self._read(request, values)
        return text, None, "", [], *self._show(catalog, Asked(text, None, "", (), count, sort, filters))

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
        return gr.update(why=render("section", name="ticket", value=ticket, body=body))

    def _slots(self, catalog: ProductCatalog) -> FilterSlots:
        return FilterSlots.of(catalog, self._columns(catalog))

    def _columns(self, catalog: ProductCatalog) -> Sequence[str]:
        return list(catalog.attributes) if self.attributes is None else self.attributes

    def _read(self, request: gr.Request, values: Sequence[Any]) -> tuple[ProductCatalog | None, Filters]:
        catalog = self.catalog_of(request)
        return catalog, self._slots(catalog).read(values) if catalog else {}

    def _show(self, catalog: ProductCatalog | None, asked: Asked) -> tuple[str, Question | None]:
        """The results as HTML, and what was asked."""
        here, question = asked.address(), None
        if catalog is None:
            body = notice("Nothing to search yet", "Products appear here as soon as there are some.")
        else:
            try:
                found = find(self.shop, catalog, asked)
            except ValueError as error:
                body = notice("That didn't work", str(error), *((".", "Start again") if self.shareable else ()))
            else:
                question = found.question
                body = self._results(catalog, found, asked)
        return render("section", name="address", value=here, body=body), question

    def _results(self, catalog: ProductCatalog, found: Found, asked: Asked) -> Markup:
        results = found.products if isinstance(found.products, Results) else Results(total=catalog.count(asked.filters))
        if not found.products:
            return self._nothing(results, asked)
        attributes = self._columns(catalog)
        order = "best match first" if not asked.sort else "sorted"
        note = f"{len(found.products)} of {results.total:,} products"
        left_out = FilterSlots.left_out(catalog, attributes)
        if left_out:
            note += f" · no filter is shown for {', '.join(map(label, left_out))}"
        return render(
            "results",
            heading=found.heading,
            note=f"{note}, {order}" if found.question else note,
            share=asked.address() if found.question and self.shareable and asked.photo is None else "",
            nothing_fits=results.nothing_fits,
            corrections=[
                {"typed": typed, "meant": meant, "address": self._as_words(asked, typed)}
                for typed, meant in results.corrections.items()
            ],
            expansions=[
                {"typed": typed, "said": said, "address": self._as_words(asked, typed)}
                for typed, said in results.expansions.items()
            ],
            chips=[self._chip(chip, asked) for chip in results.chips],
            cards=[card(self.shop, catalog, product, attributes) for product in found.products],
        )

    def _nothing(self, results: Results, asked: Asked) -> Markup:
        """Stands in for the results of filters that no product meets."""
        near = [f"{label(name)}: {', '.join(values)}" for name, values in results.near_values.items() if values]
        filters = [chip for chip in results.chips if chip.effect == "filter"]
        hint = f"Near to what you asked for: {'; '.join(near)}." if near else "Take one away to see more."
        if filters:
            hint += f" Your search says “{'”, “'.join(chip.words for chip in filters)}”."
        without = asked.address(filters={}, as_words=[*asked.as_words, *(chip.words for chip in filters)])
        return notice("Nothing fits these filters", hint, *((without, "Take all away") if self.shareable else ()))

    def _chip(self, chip: Chip, asked: Asked) -> dict[str, str]:
        effects = {"filter": "Leaves out what isn't so", "boost": "Ranks what is so higher"}
        address = self._as_words(asked, chip.words)
        text = chip.label[:1].upper() + chip.label[1:]
        return {
            "words": chip.words,
            "effect": chip.effect,
            "label": text,
            "title": effects[chip.effect],
            "address": address,
        }

    def _as_words(self, asked: Asked, part: str) -> str:
        return asked.address(as_words=[*asked.as_words, part])
