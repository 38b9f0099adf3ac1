"""Products and notices as the page shows them."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from acebert.catalog.product_catalog import ProductCatalog
from acebert.catalog.records import Hit, Product
from acebert.space.rendering import render
from acebert.space.shop import Shop

CARRIED_BY = {
    "title": ("by title", "Its title alone is closer to your search than its photo alone"),
    "words": ("exact words", "Its title or its name has words of your search"),
    "image": ("by photo", "Its photo alone is closer to your search than its title alone"),
}
NO_BREAK = "\u00a0"


def label(column: str) -> str:
    """A column's name as a shopper reads it: `baseColour` is "Base colour"."""
    words = "".join(f" {char.lower()}" if char.isupper() else char for char in column.replace("_", " "))
    return words.strip().capitalize()


def show_title(product: Product) -> str:
    return product.title or f"Product {product.id}"


def show_value(value: Any) -> str:
    """An attribute's value: "Women", "29.9", "S, M, L"."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def show_facts(product: Product, attributes: Sequence[str]) -> str:
    """The attributes that the product has, in one line of text. A number gets its name, a text needs none."""
    facts = []
    for name in attributes:
        value = product.attributes.get(name)
        if value in (None, "", []):
            continue
        shown = show_value(value)
        facts.append(shown if isinstance(value, str | list) else f"{label(name)}{NO_BREAK}{shown}")
    return f"{NO_BREAK}· ".join(facts)


def show_parts(hit: Hit) -> str:
    """What a hit's score is made of: "Similarity 0.41, words +0.20, stock +0.05"."""
    first, *others = hit.parts.items()
    return ", ".join(
        [f"{label(first[0])} {first[1]:.2f}", *(f"{label(name).lower()} {gain:+.2f}" for name, gain in others)]
    )


def photo_addresses(shop: Shop, catalog: ProductCatalog, product: Product) -> list[str]:
    """Where the page finds a product's photos; of one that has none, what is shown in their place."""
    return [shop.photo_address(catalog, product, number) for number in range(max(product.num_photos or 0, 1))]


def card(shop: Shop, catalog: ProductCatalog, product: Product, attributes: Sequence[str]) -> Markup:
    """One product; a search hit with its score, which side carried the match, and a button to ask why."""
    hit = product if isinstance(product, Hit) else None
    return render(
        "card",
        product=product,
        title=show_title(product),
        photos=photo_addresses(shop, catalog, product),
        facts=show_facts(product, attributes),
        hit=hit,
        carried_by=CARRIED_BY.get(hit.carried_by or "") if hit else None,
        parts=show_parts(hit) if hit else "",
        more="?" + urlencode({"like": product.id}),
    )


def notice(heading: str, text: str, link: str = "", action: str = "") -> Markup:
    """Stands in for products where there are none: why, and a link to what to do next."""
    return render("notice", heading=heading, text=text, link=link, action=action)
