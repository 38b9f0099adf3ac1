"""The service's contract: what requests and answers hold. The OpenAPI page is made of it."""

from typing import Annotated, Any, Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, StringConstraints, model_validator

ProductId = int | str
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Photo = Annotated[Base64Bytes, Field(description="An image file (JPEG, PNG, WebP or GIF) in base64.")]
Filters = Annotated[
    dict[str, Any],
    Field(
        description='Attribute to a value, a list of values, or bounds ("$gte", "$gt", "$lte", "$lt"), with "$and", '
        '"$or" and "$not" around them.',
        examples=[{"colour": ["red", "blue"], "price": {"$lte": 50}}],
    ),
]
Using = Annotated[
    Literal["product", "title", "image", "words"],
    Field(description="What to compare with: title and photo together, either alone, or the words of titles (BM25)."),
]


class Request(BaseModel):
    """Refuses fields that it doesn't know: a misspelt one would otherwise be passed over in silence."""

    model_config = ConfigDict(extra="forbid")


# ----------------------------------------------------------------------------------------------------------------------
# Searches
# ----------------------------------------------------------------------------------------------------------------------


class SearchRequest(Request):
    """A query by words, by a photo, or by both, whose vectors are then averaged."""

    text: Text | None = Field(None, description="A shopper's words.", examples=["striped red t-shirt"])
    image: Photo | None = None
    top_k: int = Field(10, ge=1, description="Hits wanted; there are fewer only where fewer products match.")
    filters: Filters = {}
    using: Using = "product"
    exact_words: bool = Field(True, description="Rank products higher that have the query's words, part numbers first.")

    @model_validator(mode="after")
    def _has_a_query(self) -> "SearchRequest":
        if self.text is None and self.image is None:
            raise ValueError("a search needs a text, an image or both")
        return self


class SimilarRequest(Request):
    """A product, to find more like it."""

    id: ProductId
    top_k: int = Field(10, ge=1)
    filters: Filters = {}
    using: Using = "product"


class FacetsRequest(Request):
    """Attributes whose values are to be counted."""

    attributes: list[str] = Field(min_length=1, max_length=50, examples=[["colour", "brand"]])
    filters: Filters = {}
    limit: int = Field(100, ge=1, le=1000, description="Values of each attribute, the most frequent first.")


class Product(BaseModel):
    """A product as the catalogue has it."""

    id: ProductId
    title: str | None
    attributes: dict[str, Any]


class Hit(Product):
    """A product that was found."""

    score: float = Field(description="To rank by; not comparable between kinds of searches.")
    title_score: float | None = Field(description="Cosine similarity to the title alone.")
    image_score: float | None = Field(description="Cosine similarity to the photo alone.")


class SearchAnswer(BaseModel):
    hits: list[Hit]
    seconds: float = Field(description="That the search took in the service.")


class Count(BaseModel):
    value: str | int | bool
    count: int


class FacetsAnswer(BaseModel):
    facets: dict[str, list[Count]]
    products: int = Field(description="That meet the filters.")


# ----------------------------------------------------------------------------------------------------------------------
# Changes
# ----------------------------------------------------------------------------------------------------------------------


class NewProduct(Request):
    """A product to add, or to replace the one of its id."""

    id: ProductId
    title: Text | None = None
    image: Photo | None = None
    attributes: dict[str, Any] = Field({}, examples=[{"colour": "red", "price": 9.5}])


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
