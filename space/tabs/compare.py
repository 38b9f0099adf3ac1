"""The tab "Side by side": one query, ranked by five systems over the same products."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr
import numpy as np
from markupsafe import Markup

from acebert.catalog.product_catalog import ProductCatalog
from acebert.catalog.records import Hit
from acebert.space.cards import notice, show_title
from acebert.space.rendering import read_script, render
from acebert.space.shop import MOST_HITS, Shop, read_text, search_one
from acebert.utils.ranking import late_fusion

SHOWN = 10
FUSED = 200  # ranks of each of the two lists that late fusion joins
WITHOUT_SIDES = "This catalogue has no vectors of titles and photos alone."


@dataclass(frozen=True)
class System:
    """A way to rank products.

    Args:
        key: its name in the API.
        name: its name on the page.
        how: what it compares the query with.
        needs_sides: whether the catalogue has to have vectors of titles alone and photos alone.
    """

    key: str
    name: str
    how: str
    needs_sides: bool = False


SYSTEMS = (
    System("bm25", "BM25", "the words of the title"),
    System("title", "Title only", "ACE-BERT's vector of the title", True),
    System("photo", "Photo only", "ACE-BERT's vector of the photo", True),
    System("late_fusion", "Late fusion", f"the mean of title's and photo's score, over the best {FUSED} of each", True),
    System("acebert", "ACE-BERT", "one vector of title and photo together"),
)


def fuse(by_title: Sequence[Hit], by_photo: Sequence[Hit]) -> list[Hit]:
    """Late fusion: all products of two lists by the mean of their title's and their photo's score, best first.

    A product that lacks a side is scored by the other alone.
    """
    hits = list({hit.id: hit for hit in (*by_title, *by_photo)}.values())
    scores = [(hit.title_score, hit.image_score) for hit in hits]
    known = np.array([[score is not None for score in pair] for pair in scores]).reshape(-1, 2)
    values = np.array([[score or 0.0 for score in pair] for pair in scores]).reshape(-1, 2)
    means = late_fusion(values[:, :1], values[:, 1:], known[:, 0], known[:, 1])[:, 0].tolist()
    fused = [replace(hit, score=score) for hit, score in zip(hits, means, strict=True)]
    return sorted(fused, key=lambda hit: -hit.score)


def compare(catalog: ProductCatalog, query: str, vector: np.ndarray, count: int = SHOWN) -> dict[str, list[Hit]]:
    """The best products by each system that the catalogue has vectors for.

    Args:
        catalog: what to search.
        query: words.
        vector: (dim,) unit vector of the query.
        count: products by each.
    """
    found: dict[str, list[Hit]] = {"bm25": search_one(catalog, text=query, top_k=count, using="words")}
    if catalog.settings.sides:
        by_title = search_one(catalog, vector=vector, top_k=max(count, FUSED), using="title")
        by_photo = search_one(catalog, vector=vector, top_k=max(count, FUSED), using="image")
        found |= {"title": by_title[:count], "photo": by_photo[:count]}
        found["late_fusion"] = fuse(by_title, by_photo)[:count]
    return found | {"acebert": search_one(catalog, vector=vector, top_k=count)}


def show_columns(shop: Shop, found: Mapping[str, Sequence[Hit]]) -> Markup:
    """The systems' lists beside each other as HTML; how many lists have a product is marked on it."""
    lists = Counter(hit.id for hits in found.values() for hit in hits)
    everywhere = sum(count == len(found) for count in lists.values())

    def entry(hit: Hit) -> dict[str, Any]:
        photo = shop.photo_address(shop.catalog, hit)
        return {"hit": hit, "title": show_title(hit), "photo": photo, "in_lists": lists[hit.id]}

    columns = [
        {
            "system": system,
            "entries": [entry(hit) for hit in found.get(system.key, ())],
            "empty": "No title has one of these words." if system.key in found else WITHOUT_SIDES,
        }
        for system in SYSTEMS
    ]
    agreement = {0: "No product is", 1: "1 product is"}.get(everywhere, f"{everywhere} products are")
    return render("compare", columns=columns, agreement=agreement, shown=SHOWN, lists=len(found))


class CompareTab:
    """One query, ranked by all systems over the shop's catalogue, and the endpoint `/compare`."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.introduction = notice(
            "One query, five ways to rank",
            "BM25 reads the titles' words. ACE-BERT's title and photo alone, and the mean of the two, are what its one "
            "vector of both has to be better than. See where they differ.",
        )

    def lay_out(self) -> None:
        """Adds the tab's content and its endpoint to the `gr.Blocks` that is being made."""
        self.query = gr.Textbox(
            "",
            label="Compare on",
            placeholder="striped red t-shirt",
            submit_btn="Compare",
            max_length=300,
            elem_id="compare-query",
            elem_classes="query",
            html_attributes=gr.InputHTMLAttributes(enterkeyhint="search", autocomplete="off"),
        )
        results = gr.HTML(
            self.introduction,
            elem_id="compare-results",
            elem_classes="results",
            apply_default_css=False,
            js_on_load=read_script("compare"),
            min_height=600,
        )
        self.query.submit(self.show, self.query, results, show_progress_on=results, api_visibility="private")
        self._add_endpoints()

    def _add_endpoints(self) -> None:
        with gr.Row(visible=False):
            count, answer, button = gr.Number(SHOWN), gr.JSON(), gr.Button()
        button.click(self.compare_systems, [self.query, count], answer, api_name="compare")

    def show(self, query: str) -> str:
        """After a query."""
        return show_columns(self.shop, self._search(query, SHOWN)) if read_text(query) else self.introduction

    def _search(self, query: str, count: float) -> dict[str, list[Hit]]:
        query = read_text(query)
        if not query:
            raise gr.Error("Write what you are looking for.", print_exception=False)
        if count is None or not 1 <= count <= MOST_HITS:
            raise gr.Error(f"count must be 1 to {MOST_HITS}, got {count}.", print_exception=False)
        try:
            return compare(self.shop.catalog, query, self.shop.encode(query), int(count))
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    # ------------------------------------------------------------------------------------------------------------------
    # The API
    # ------------------------------------------------------------------------------------------------------------------

    def compare_systems(self, query: str, count: float = SHOWN) -> dict[str, list[dict[str, Any]]]:
        """Ranks the catalogue's products for a query by five systems, to compare them.

        Args:
            query: what a shopper types.
            count: products by each system, at most 100.

        Returns:
            The products' id, title and score, best first, by "bm25" (on titles), "title" and "photo" (ACE-BERT's vector
            of that side alone), "late_fusion" (the mean of these two scores, over the best 200 of each), and "acebert"
            (one vector of title and photo). A catalogue without vectors of the sides has only the first and the last.
        """
        return {
            system: [{"id": hit.id, "title": hit.title, "score": round(hit.score, 4)} for hit in hits]
            for system, hits in self._search(query, count).items()
        }
