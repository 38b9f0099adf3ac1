"""Products, notices and addresses as the page shows them. Whatever a shop or a shopper wrote is text, never HTML."""

import html
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from shop import Shop

from acebert.catalog.product_catalog import Hit, Product, ProductCatalog

CARRIED_BY = {
    "title": ("by title", "Its title alone is closer to your search than its photo alone"),
    "image": ("by photo", "Its photo alone is closer to your search than its title alone"),
}


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
    """The attributes that the product has, as HTML. A number doesn't speak for itself: it gets its name."""
    facts = []
    for name in attributes:
        value = product.attributes.get(name)
        if value in (None, "", []):
            continue
        shown = show_value(value)
        facts.append(
            html.escape(shown) if isinstance(value, str | list) else f"{html.escape(label(name))}&nbsp;{shown}"
        )
    return "&nbsp;· ".join(facts)


def card(shop: Shop, catalog: ProductCatalog, product: Product, attributes: Sequence[str]) -> str:
    """One product as HTML; one that was found, with its score, what carried the match, and a way to ask why."""
    title, product_id = html.escape(show_title(product)), html.escape(str(product.id))
    address = html.escape(shop.photo_address(catalog, product))
    photo = f'<img src="{address}" alt="{title}" loading="lazy" decoding="async">'
    found = ""
    if isinstance(product, Hit):
        found = f'<span class="score" title="Cosine similarity">{product.score:.2f} match</span>'
        if product.carried_by:
            short, long = CARRIED_BY[product.carried_by]
            found += f' <span class="carried {product.carried_by}" title="{long}">{short}</span>'
        found = f'<p class="found">{found}</p>'
    why = (
        f'<button type="button" data-why="{product_id}">Why this?<span class="unseen"> {title}</span></button>'
        if found
        else ""
    )
    more = html.escape("?" + urlencode({"like": product.id}))
    return (
        f'<li class="card"><div class="photo">{photo}</div><h3>{title}</h3>'
        f'<p class="facts">{show_facts(product, attributes)}</p>{found}'
        f'<p class="foot">{why}<a href="{more}" data-like="{product_id}">More like this'
        f'<span class="unseen">: {title}</span></a></p></li>'
    )


def notice(heading: str, text: str, link: str = "", action: str = "") -> str:
    """What stands in for products where there are none: why, and a way on."""
    way = f'<a href="{html.escape(link)}">{html.escape(action)}</a>' if link else ""
    return (
        f'<div class="notice" role="status"><h2 tabindex="-1">{html.escape(heading)}</h2>'
        f"<p>{html.escape(text)}</p>{way}</div>"
    )
