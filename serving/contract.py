"""The service's contract: what requests and answers hold. The OpenAPI page is made of it."""

from typing import Annotated, Any, Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints, model_validator

from acebert.catalog import boosts

ProductId = int | str
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Photo = Annotated[Base64Bytes, Field(description="An image file (JPEG, PNG, WebP or GIF) in base64.")]
Filters = Annotated[
    dict[str, Any],
    Field(
        description='Attribute to a value, a list of values, bounds of a number or a date ("$gte", "$gt", "$lte", '
        '"$lt"), or a category path '
        'and all below it ("$under"), with "$and", "$or" and "$not" around them.',
        examples=[{"colour": ["red", "blue"], "price": {"$lte": 50}, "category": {"$under": "Home > Kitchen"}}],
    ),
]
Using = Annotated[
    Literal["product", "title", "image", "words"],
    Field(description="What to compare with: title and photo together, either alone, or the words of titles (BM25)."),
]


class Request(BaseModel):
    """Refuses fields that it doesn't know: a misspelt one would otherwise be passed over in silence."""

    model_config = ConfigDict(extra="forbid")


GroupBy = Annotated[
    str | Literal[False] | None,
    Field(
        description="Attribute of which each value is one hit, its best product; the catalogue's own if left out, "
        "false for no groups."
    ),
]


# ----------------------------------------------------------------------------------------------------------------------
# Searches
# ----------------------------------------------------------------------------------------------------------------------


class Boost(Request):
    """What an attribute adds to a score, in units of the score: 0.05 overturns small differences, 0.3 most of them."""

    weight: FiniteFloat = Field(description="The most that it adds; negative to rank lower.")
    pivot: FiniteFloat = Field(1.0, gt=0, description="The number that gains half of the weight.")
    half_life: FiniteFloat | None = Field(
        None, gt=0, description="For an attribute of days: so many days ago a day gains half of the weight."
    )


class PageRequest(Request):
    """What any search takes."""

    top_k: int = Field(10, ge=1, description="Hits wanted; there are fewer only where fewer products match.")
    offset: int = Field(0, ge=0, description="Hits to pass over, for the pages after the first.")
    filters: Filters = {}
    using: Using = "product"
    group_by: GroupBy = None
    min_score: float | None = Field(None, ge=0, le=1, description="Confidence that a hit needs.")
    sort_by: str | None = Field(
        None, description='Attribute of numbers or dates to sort by, "-price" from high to low.'
    )
    boosts: dict[str, FiniteFloat | Boost] = Field(
        {},
        max_length=20,
        description="Attribute to what it adds to the score: a weight for one that is true or false, "
        "or a weight with a pivot for a number, or with a half-life for a day.",
        examples=[
            {"in_stock": 0.1, "sold": {"weight": 0.05, "pivot": 100}, "added": {"weight": 0.05, "half_life": 30}}
        ],
    )

    def options(self) -> dict[str, Any]:
        """What [`ProductCatalog.search`] takes by the same names."""
        made = {
            name: boosts.Boost(**boost.model_dump()) if isinstance(boost, Boost) else boost
            for name, boost in self.boosts.items()
        }
        return {**dict(self), "boosts": made}


class SearchRequest(PageRequest):
    """A query by words, by a photo, by both, whose vectors are then averaged, or by a vector."""

    text: Text | None = Field(None, description="A shopper's words.", examples=["striped red t-shirt"])
    image: Photo | None = None
    vector: list[FiniteFloat] | None = Field(
        None, min_length=1, description="Instead of both: numbers that the catalogue's model made elsewhere."
    )
    exact_words: bool = Field(True, description="Rank products higher that have the query's words, part numbers first.")
    correct: bool = Field(True, description="Replace words that nobody knows by the catalogue's nearest.")
    expand: bool = Field(True, description="Search also for what the catalogue says in place of words that it doesn't.")
    understand: bool = Field(True, description="Read prices, exclusions, sizes and attribute values in the text.")
    as_words: list[str] = Field(
        [], max_length=50, description="Parts of the text to leave as typed: the words of a chip that was taken away."
    )

    @model_validator(mode="after")
    def _has_a_query(self) -> "SearchRequest":
        if (self.text is None and self.image is None) == (self.vector is None):
            raise ValueError("a search needs a text, an image or both, or else a vector")
        return self


class SimilarRequest(PageRequest):
    """A product, to find more like it; neither it nor its group is among the hits."""

    id: ProductId


class FacetsRequest(Request):
    """Attributes whose values are to be counted."""

    attributes: list[str] = Field(min_length=1, max_length=50, examples=[["colour", "brand"]])
    filters: Filters = {}
    limit: int = Field(100, ge=1, le=1000, description="Values of each attribute, the most frequent first.")
    group_by: GroupBy = None


class Product(BaseModel):
    """A product as the catalogue has it."""

    id: ProductId
    title: str | None
    attributes: dict[str, Any]
    num_photos: int | None = Field(description="Photos, which can be had by their number; null where it isn't known.")


class Hit(Product):
    """A product that was found."""

    score: float = Field(description="To rank by, the sum of parts; not comparable between kinds of searches.")
    parts: dict[str, float] = Field(description="What the score is made of: similarity, words, understood values.")
    carried_by: Literal["words", "title", "image"] | None = Field(description="What the hit owes its place to.")
    group_size: int | None = Field(description="Products of its group that meet the filters.")
    title_score: float | None = Field(description="Cosine similarity to the title alone.")
    image_score: float | None = Field(description="Cosine similarity to the photo alone.")


class Chip(BaseModel):
    """A part of the text that was understood. To take it away, ask again with its words in `as_words`."""

    words: str
    effect: Literal["filter", "boost"]
    filters: dict[str, Any]
    label: str


class SearchAnswer(BaseModel):
    hits: list[Hit]
    total: int = Field(description="Products, or groups, that meet the filters.")
    text: str | None = Field(description="The words that were searched for.")
    corrections: dict[str, str] = Field(description="Typed words to those that were searched for in their place.")
    expansions: dict[str, str] = Field(description="Typed words to those that were searched for as well.")
    chips: list[Chip]
    nothing_fits: bool = Field(description="Chance alone may have found the hits: tell the shopper.")
    near_values: dict[str, list[Any]] = Field(description="Where nothing meets the filters, values near to them.")
    seconds: float = Field(description="That the search took in the service.")


class Count(BaseModel):
    value: str | int | bool
    count: int


class FacetsAnswer(BaseModel):
    facets: dict[str, list[Count]]
    products: int = Field(description="That meet the filters.")
    groups: int | None = Field(description="Groups of them, by which the values are then counted; null for no groups.")


# ----------------------------------------------------------------------------------------------------------------------
# Changes
# ----------------------------------------------------------------------------------------------------------------------


class NewProduct(Request):
    """A product to add, or to replace the one of its id."""

    id: ProductId
    title: Text | None = None
    image: Photo | None = None
    images: list[Photo] = Field([], max_length=20, description="Instead of image: several photos, the first to show.")
    attributes: dict[str, Any] = Field({}, examples=[{"colour": "red", "price": 9.5}])

    @model_validator(mode="after")
    def _has_photos_once(self) -> "NewProduct":
        if self.image is not None and self.images:
            raise ValueError("a product has image or images, not both")
        return self


class UpsertRequest(Request):
    products: list[NewProduct] = Field(min_length=1)


class DeleteRequest(Request):
    ids: list[ProductId] = Field(min_length=1)


class AttributeChange(Request):
    """Attributes of one product to set; null takes a value away."""

    id: ProductId
    attributes: dict[str, Any] = Field(min_length=1)


class AttributesRequest(Request):
    products: list[AttributeChange] = Field(min_length=1)


class ChangeAnswer(BaseModel):
    changed: int = Field(description="Products added, replaced, changed or removed. The next search sees it.")


# ----------------------------------------------------------------------------------------------------------------------
# State and errors
# ----------------------------------------------------------------------------------------------------------------------


class CatalogAnswer(BaseModel):
    """What can be searched and filtered by."""

    products: int
    id_type: Literal["string", "integer"]
    attributes: dict[str, str]
    using: list[str]
    group: str | None = Field(description="The attribute that variants share, by which searches group.")
    model: str | None


class StateAnswer(BaseModel):
    status: Literal["ok"]


class Problem(BaseModel):
    """What is wrong with a request, and what to do."""

    field: str | None = Field(description="The part of the request that is meant.", examples=["filters.colour"])
    value: str | None = Field(description="What it held, cut to 80 characters.")
    problem: str
    remedy: str


class ErrorAnswer(BaseModel):
    error: Problem
