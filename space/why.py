"""Why this product? What the match rests on, as a panel that a shopper understands, and as JSON."""

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL.Image import Image as Photo

from acebert.catalog.product_catalog import Product, ProductCatalog
from acebert.encoding.explain import Explanation, heat_map
from acebert.space.cards import photo_addresses, show_title
from acebert.space.rendering import render
from acebert.space.shop import Shop, find_product

# A word that is worth less than this is never shaded at full strength, however little the others are worth.
LEAST_SCALE = 0.05
MOSTLY = 0.65  # a side with this share of the match is what it mostly rests on


@dataclass(frozen=True)
class Question:
    """What products were searched by.

    Args:
        vector: (dim,) unit vector of words, a photo or both; None where it was a product.
        like: id of that product, as written in an address.
    """

    vector: np.ndarray | None = None
    like: str = ""


@dataclass(frozen=True)
class Reasons:
    """Why a product matches.

    Args:
        product: which.
        explanation: what the match rests on.
        alone: the scores of its "title" and "image" alone; of a side that it has.
        map: its photo with what spoke for the match in orange, against it in blue; None without a photo.
        chosen: number of that photo, of several the one that fits best; the explanation is by it.
    """

    product: Product
    explanation: Explanation
    alone: dict[str, float]
    map: Photo | None
    chosen: int = 0

    @property
    def title_percent(self) -> int | None:
        """How much of the match the title carries; None where title and photo don't both speak for it."""
        shares = self.explanation.title_share, self.explanation.image_share
        if len(self.alone) < 2 or min(shares) < 0 or not sum(shares):
            return None
        return round(100 * shares[0] / sum(shares))

    @property
    def summary(self) -> str:
        """One sentence: which side the match rests on."""
        if len(self.alone) < 2:
            side, other = ("title", "photo") if "title" in self.alone else ("photo", "title")
            return f"It has no {other}: the match rests on its {side}."
        if self.explanation.title_share < 0 and self.explanation.image_share < 0:
            return "Neither its title nor its photo speaks for it."
        if self.title_percent is None:
            side, other = ("title", "photo") if self.explanation.image_share < 0 else ("photo", "title")
            return f"Its {side} speaks for it, its {other} against it."
        if self.title_percent >= 100 * MOSTLY:
            return "The match rests mostly on its title."
        if self.title_percent <= 100 * (1 - MOSTLY):
            return "The match rests mostly on its photo."
        return "The match rests on its title and its photo alike."

    def to_json(self) -> dict[str, Any]:
        """All but the map, for the API. A number that doesn't exist is null."""
        words = [[word, None if math.isnan(value) else round(value, 4)] for word, value in self.explanation.words]
        return {
            "id": self.product.id,
            "title": self.product.title,
            "summary": self.summary,
            "score": round(self.explanation.score, 4),
            "title_share": round(self.explanation.title_share, 4),
            "image_share": round(self.explanation.image_share, 4),
            "title_score": _rounded(self.alone.get("title")),
            "image_score": _rounded(self.alone.get("image")),
            "words": words,
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def find_reasons(shop: Shop, catalog: ProductCatalog, question: Question, product_id: str) -> Reasons:
    """Explains a product of a catalogue. The photo is the one that the catalogue kept to show.

    Raises:
        ValueError: where the catalogue doesn't have the product.
    """
    product = _get(catalog, product_id)
    query = question.vector
    if query is None:
        liked = _get(catalog, question.like)
        query = _encode(shop, catalog, liked)["product"]
    photos = catalog.photos(product)
    if product.title is None and not photos:
        raise ValueError(
            "The catalogue keeps no photo of this product, and it has no title: nothing is left to look at."
        )
    chosen = 0
    if len(photos) > 1 and shop.encoder.model.config.vision_config is not None:  # one stream reads the first alone
        chosen = int(np.argmax(shop.encoder.encode_products([None] * len(photos), photos, ["image"])["image"] @ query))
    photo = photos[chosen] if photos else None
    explanation = shop.explain(query, product, photo)
    alone = {name: float(vector @ query) for name, vector in _encode(shop, catalog, product).items()}
    del alone["product"]
    return Reasons(product, explanation, alone, heat_map(photo, explanation) if photo else None, chosen)


def _get(catalog: ProductCatalog, product_id: str) -> Product:
    product = find_product(catalog, product_id)
    if product is None:
        raise ValueError(f"There is no product {product_id} in this catalogue.")
    return product


def _encode(shop: Shop, catalog: ProductCatalog, product: Product) -> dict[str, np.ndarray]:
    """The (dim,) vectors of a product and of those of its sides that it has."""
    names = ("product", "title", "image")
    vectors = shop.encoder.encode_products([product.title], [catalog.photos(product) or None], names)
    return {name: rows[0] for name, rows in vectors.items() if not np.isnan(rows[0, 0])}


def why_page(shop: Shop, catalog: ProductCatalog, reasons: Reasons) -> Markup:
    """The panel's content as HTML."""
    words = reasons.explanation.words
    return render(
        "why",
        title=show_title(reasons.product),
        photos=photo_addresses(shop, catalog, reasons.product),
        chosen=reasons.chosen,
        map=reasons.map,
        map_address=reasons.map and _data_address(reasons.map),
        words=words,
        scale=max([LEAST_SCALE, *(abs(value) for _, value in words if not math.isnan(value))]),
        summary=reasons.summary,
        percent=reasons.title_percent,
        scores={
            "As a whole": reasons.explanation.score,
            "Title alone": reasons.alone.get("title"),
            "Photo alone": reasons.alone.get("image"),
        },
    )


def _data_address(photo: Photo) -> str:
    buffer = io.BytesIO()
    photo.save(buffer, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
