"""Products as they enter and leave a catalogue: what a search returns, and what a change accepts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from transformers.utils import logging

from acebert.catalog.filters import check_attributes
from acebert.catalog.indexes.base import Match
from acebert.catalog.query_parsing import Chip
from acebert.catalog.store import Location, Settings
from acebert.catalog.words import WORDS_ATTRIBUTE
from acebert.data.cleaning import as_photos, clean_photo, clean_text, is_blank, split_broken
from acebert.data.texts import clean_words
from acebert.processing_acebert import LONE_SURROGATE
from acebert.utils.words import cut

logger = logging.get_logger(__name__)

Photo = Any  # anything that the processor reads as a photo


@dataclass(frozen=True)
class Product:
    """A product as the catalogue has it.

    Args:
        id: as in the dataset.
        title: None where it has none.
        attributes: those that it has.
        location: where its photos lie.
        num_photos: how many of them the catalogue keeps; None where it doesn't say, as it didn't when there was one.
    """

    id: Any
    title: str | None
    attributes: dict[str, Any]
    location: Location
    num_photos: int | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Hit(Product):
    """A product that was found.

    Args:
        score: what it is ranked by, the sum of `parts`.
        parts: what the score is made of: "similarity", the cosine of query and product, in [-1, 1], or "bm25" of a
            search by words alone; "words", what exact words of the query are worth (`acebert.catalog.exact_words`);
            "understood", what attribute values that the query says are worth; and each attribute of `boosts`.
        title_score: cosine similarity of the query and the title alone; None where there is no such vector.
        image_score: likewise, of the photo alone.
        group_size: how many products of its group meet the filters, itself among them; None where nothing is grouped.
    """

    score: float
    parts: dict[str, float] = field(default_factory=dict)
    title_score: float | None = None
    image_score: float | None = None
    group_size: int | None = None

    @property
    def carried_by(self) -> Literal["words", "title", "image"] | None:
        """What the hit owes its place to: "words" where exact words are worth more than the similarity.

        Else the side that alone is closer to the query; None where the catalogue doesn't have both.
        """
        if self.parts.get("words", 0.0) > max(self.parts.get("similarity", 0.0), 0.0):
            return "words"
        if self.title_score is None or self.image_score is None:
            return None
        return "title" if self.title_score >= self.image_score else "image"


class Results(list[Hit]):
    """The hits of one query, best first, and how it was read.

    Args:
        hits: those of the page that was asked for.
        total: products, or groups, that meet the filters, and `min_score` where there is one.
        text: the words that were searched for; None where there were none.
        corrections: typed words to those that were searched for in their place.
        expansions: words of the query that the catalogue hardly says, to what it says for them.
        chips: what the query says beside words, and what was made of it.
        nothing_fits: whether chance alone may have found the hits: nothing the query says is in the catalogue.
        near_values: where no product meets the filters, the values near to those asked for, by attribute.
    """

    def __init__(
        self,
        hits: Iterable[Hit] = (),
        *,
        total: int = 0,
        text: str | None = None,
        corrections: Mapping[str, str] | None = None,
        expansions: Mapping[str, str] | None = None,
        chips: Sequence[Chip] = (),
        nothing_fits: bool = False,
        near_values: Mapping[str, list[Any]] | None = None,
    ) -> None:
        super().__init__(hits)
        self.total, self.text, self.nothing_fits = total, text, nothing_fits
        self.corrections, self.expansions = dict(corrections or {}), dict(expansions or {})
        self.chips, self.near_values = list(chips), dict(near_values or {})


@dataclass(frozen=True)
class NewProducts:
    """Checked products, column by column.

    Args:
        ids: strings or integers, unique.
        titles: None where a product has none.
        photos: as given, a list of several, None where a product has none.
        attributes: name to values, None where a product lacks one.
    """

    ids: list[Any]
    titles: list[str | None]
    photos: list[Photo | None]
    attributes: dict[str, list[Any]]


def to_product(match: Match) -> Product:
    payload = match.payload
    attributes = {
        name: list(value) if isinstance(value, list) else value  # the index keeps its own
        for name, value in payload["attributes"].items()
        if name != WORDS_ATTRIBUTE
    }
    location, photos = tuple(payload["location"]), payload.get("photos")
    return Product(payload["id"], payload["title"], attributes, location, num_photos=photos)


def to_hit(match: Match, parts: Mapping[str, float], query: np.ndarray | None = None, group: int | None = None) -> Hit:
    """A match as a hit; with a (dim,) query, also its cosine similarities to the title and the photo alone."""
    sides = {} if query is None else {f"{name}_score": float(vector @ query) for name, vector in match.vectors.items()}
    fields: dict[str, Any] = vars(to_product(match)) | sides
    return Hit(**fields, score=sum(parts.values()), parts=dict(parts), group_size=group)


def check_id(product_id: Any, id_type: Literal["string", "integer"]) -> str | int:
    """A product's id as the catalogue keeps it.

    Raises:
        ValueError: for one of another type, an integer beyond 64 bits, or a text with half of a character.
    """
    kind = {str: "string", int: "integer"}.get(type(product_id))
    if isinstance(product_id, np.integer):
        product_id, kind = int(product_id), "integer"
    if kind != id_type:
        raise ValueError(f"id must be of the type {id_type}, as all of this catalogue's are; got {product_id!r}.")
    if kind == "integer" and not -(2**63) <= product_id < 2**63:
        raise ValueError(f"id must be an integer of 64 bits, got {product_id}.")
    if isinstance(product_id, str) and LONE_SURROGATE.search(product_id):
        raise ValueError(f"id {product_id[:80]!r} holds half of a character (a lone surrogate).")
    return product_id


def check_new_products(products: Sequence[Mapping[str, Any]], settings: Settings) -> NewProducts:
    """Checks the products of an upsert.

    Raises:
        ValueError: for a bad product, naming it, the field and the remedy.
    """
    new = NewProducts([], [], [], {name: [] for name in settings.attributes})
    has_more = 0
    for position, product in enumerate(products):
        if not isinstance(product, Mapping):
            raise ValueError(
                f'product {position} must be a dict, as {{"id": 7, "title": "mug"}}, got {cut(repr(product))}.'
            )
        named = f"product {position} (id {cut(repr(product.get('id')))})"
        unknown = set(product) - {"id", "title", "image", *settings.attributes}
        if unknown:
            raise ValueError(
                f"{named} has {sorted(unknown)}: a product has id, title, image and {list(settings.attributes)}."
            )
        if "id" not in product:
            raise ValueError(f"product {position} has no id: give every product one.")
        try:
            product_id = check_id(product["id"], settings.id_type)
        except ValueError as error:
            raise ValueError(f"{named}: {error}") from None
        if isinstance(product_id, str) and is_blank(product_id):
            raise ValueError(f"{named}: its id is blank: give it one.")
        title, photos = product.get("title"), as_photos(clean_photo(product.get("image")))
        has_more += len(photos) > settings.max_images
        photo = clean_photo(photos[: settings.max_images])
        if title is not None and not isinstance(title, str):
            raise ValueError(f"{named}: title must be a text or None, got {cut(repr(title))}.")
        title = None if title is None else clean_text(clean_words(title))
        _, problem = split_broken(photo)
        if problem:
            raise ValueError(f"{named}: image {problem}.")
        if title is None and photo is None:
            raise ValueError(f"{named} has neither title nor image: give it one of them.")
        values = check_values({name: product.get(name) for name in settings.attributes}, settings, named)
        new.ids.append(product_id)
        new.titles.append(title)
        new.photos.append(photo)
        for name, column in new.attributes.items():
            column.append(values[name])
    if has_more:
        logger.warning(
            f"{has_more} products have more than {settings.max_images} photos: the first {settings.max_images} are "
            "read, as max_images was when the catalogue was built."
        )
    seen = set()
    for product_id in new.ids:
        if product_id in seen:
            raise ValueError(f"id {product_id!r} is given twice: give each product once.")
        seen.add(product_id)
    return new


def check_values(values: Mapping[str, Any], settings: Settings, named: str) -> dict[str, Any]:
    """Attributes of one product as the catalogue keeps them.

    Args:
        values: attribute to value, None for none.
        settings: of the catalogue.
        named: how an error calls the product.

    Raises:
        ValueError: for an unknown attribute, or a value of another type.
    """
    values = {name: clean_words(value) if isinstance(value, str) else value for name, value in values.items()}
    try:
        return check_attributes(values, settings.attributes)
    except ValueError as error:
        raise ValueError(f"{named}: {error}") from None
