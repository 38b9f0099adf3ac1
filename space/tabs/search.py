"""The tab "Search", over the shop's catalogue, and its API."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from PIL.Image import Image as Photo

from acebert.space.gradio_compat import describe_as_object, replace_preprocess
from acebert.space.search_panel import (
    DEFAULT_COUNT,
    EXPLANATIONS_AT_A_TIME,
    SEARCHES_AT_A_TIME,
    SearchPanel,
    read_photo,
)
from acebert.space.shop import MOST_HITS, Shop, read_text, search_one
from acebert.space.why import Question, find_reasons


class SearchTab:
    """A search panel over the shop's catalogue, and the endpoints `/search` and `/why` for code and for agents.

    Args:
        shop: what to search.
        examples: queries to start from.
    """

    def __init__(self, shop: Shop, examples: Sequence[str] = ()) -> None:
        self.shop = shop
        self.panel = SearchPanel(
            shop, lambda _: shop.catalog, "shop", attributes=shop.attributes, examples=examples, shareable=True
        )

    def lay_out(self) -> None:
        """Adds the tab's content and its endpoints to the `gr.Blocks` that is being made."""
        self.panel.lay_out()
        self._add_endpoints()

    def _add_endpoints(self) -> None:
        with gr.Row(visible=False):
            product, query, photo = gr.Textbox(), gr.Textbox(""), gr.Image(type="pil")
            replace_preprocess(photo, read_photo)
            count, filters, answer, heat = gr.Number(DEFAULT_COUNT), gr.JSON({}), gr.JSON(), gr.Image()
            describe_as_object(filters, "attribute to what it should be")
            button = gr.Button()
        button.click(
            self.search,
            [query, photo, count, filters],
            answer,
            api_name="search",
            concurrency_id="search",
            concurrency_limit=SEARCHES_AT_A_TIME,
        )
        button.click(
            self.why,
            [product, query, photo],
            [answer, heat],
            api_name="why",
            concurrency_id="why",
            concurrency_limit=EXPLANATIONS_AT_A_TIME,
        )

    # ------------------------------------------------------------------------------------------------------------------
    # The API
    # ------------------------------------------------------------------------------------------------------------------

    def search(
        self, query: str = "", photo: Photo | None = None, count: int = DEFAULT_COUNT, filters: dict | None = None
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
            query = read_text(query)
            if not query and photo is None:
                raise ValueError("A search needs words, a photo, or both.")
            self.shop.check_query(query)
            hits = search_one(self.shop.catalog, text=query or None, image=photo, top_k=int(count), filters=filters)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return [
            {
                "id": hit.id,
                "title": hit.title,
                "score": round(hit.score, 4),
                "carried_by": hit.carried_by,
                "parts": {name: round(part, 4) for name, part in hit.parts.items()},
                "attributes": {name: hit.attributes[name] for name in self.shop.attributes if name in hit.attributes},
            }
            for hit in hits
        ]

    def why(self, product: str, query: str = "", photo: Photo | None = None) -> tuple[dict[str, Any], Photo | None]:
        """Explains why a product of the shop matches a query: by its title or its photo, which words, which parts.

        Args:
            product: the product's id, as /search returns it.
            query: the words that were searched for.
            photo: the photo that was searched by.
        """
        try:
            question = Question(self.shop.encode(read_text(query), photo))
            reasons = find_reasons(self.shop, self.shop.catalog, question, read_text(product))
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return reasons.to_json(), reasons.map
