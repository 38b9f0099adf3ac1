"""Filters: what a user writes becomes the right tree, and what can't be asked says why."""

import json
import math
from typing import Any

import numpy as np
import pytest

from acebert.catalog.filters import MAX_DEPTH, And, Filter, Not, OneOf, Or, Range, check_attributes, parse_filters

SCHEMA = {
    "gender": "string",
    "base colour": "string",
    "price": "number",
    "year": "integer",
    "on_sale": "boolean",
    "sizes": "strings",
}
MEN = OneOf("gender", ("Men",))


class TestParseFilters:
    @pytest.mark.parametrize("filters", [None, {}])
    def test_nothing_asked_is_no_filter(self, filters: dict | None) -> None:
        assert parse_filters(filters, SCHEMA) is None

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({"gender": "Men"}, MEN),
            ({"base colour": ["Red", "Blue"]}, OneOf("base colour", ("Blue", "Red"))),
            ({"base colour": {"Red", "Blue", "Green"}}, OneOf("base colour", ("Blue", "Green", "Red"))),
            ({"sizes": "M"}, OneOf("sizes", ("M",))),
            ({"sizes": ["M", "S"]}, OneOf("sizes", ("M", "S"))),
            ({"on_sale": False}, OneOf("on_sale", (False,))),
            ({"year": 2012}, OneOf("year", (2012,))),
            ({"year": np.int64(2012)}, OneOf("year", (2012,))),
            ({"price": [3, 2.5]}, OneOf("price", (2.5, 3.0))),
            ({"price": (10, 50)}, Range("price", gte=10, lte=50)),
            ({"price": (None, 50)}, Range("price", lte=50)),
            ({"price": (10, None)}, Range("price", gte=10)),
            ({"price": (7, 7)}, Range("price", gte=7, lte=7)),
            ({"year": (2010.5, None)}, Range("year", gte=2010.5)),
            ({"price": {"$gt": 10, "$lt": np.float32(50)}}, Range("price", gt=10, lt=50)),
            ({"price": {"$gte": 10, "$lte": None}}, Range("price", gte=10)),
            ({"gender": "Men", "price": (None, 5)}, And((MEN, Range("price", lte=5)))),
            ({"$and": [{"gender": "Men"}, {"year": 2012}]}, And((MEN, OneOf("year", (2012,))))),
            ({"$or": [{"gender": "Men"}, {"year": 2012}]}, Or((MEN, OneOf("year", (2012,))))),
            ({"$not": {"gender": "Men"}}, Not(MEN)),
            ({"$not": {"gender": "Men", "year": 1}}, Not(And((MEN, OneOf("year", (1,)))))),
            (
                {"sizes": "M", "$or": [{"gender": "Men"}, {"$not": {"price": (None, 5), "on_sale": True}}]},
                And(
                    (
                        OneOf("sizes", ("M",)),
                        Or((MEN, Not(And((Range("price", lte=5), OneOf("on_sale", (True,))))))),
                    )
                ),
            ),
        ],
    )
    def test_trees(self, filters: dict[str, Any], expected: Filter) -> None:
        assert parse_filters(filters, SCHEMA) == expected

    def test_values_have_the_type_of_their_attribute(self) -> None:
        """A number asked for by an integer is compared as a float, an integer and a boolean stay what they are."""
        assert type(parse_filters({"price": 3}, SCHEMA).values[0]) is float
        assert type(parse_filters({"year": np.int32(3)}, SCHEMA).values[0]) is int
        assert type(parse_filters({"on_sale": np.bool_(True)}, SCHEMA).values[0]) is bool
        assert type(parse_filters({"price": (np.float32(1), 2)}, SCHEMA).gte) is float

    def test_json_holds_every_filter(self) -> None:
        filters = {"price": {"$gte": 10, "$lt": 50}, "$or": [{"gender": ["Men"]}, {"$not": {"sizes": "M"}}]}
        assert parse_filters(json.loads(json.dumps(filters)), SCHEMA) == parse_filters(filters, SCHEMA)

    @pytest.mark.parametrize(
        ("filters", "message"),
        [
            ({"colour": "Red"}, r"Unknown attribute 'colour'.*one of base colour, gender, on_sale, price, sizes, year"),
            ({3: "Red"}, "Unknown attribute 3"),
            ({"$nor": [{"gender": "Men"}]}, r"Unknown operator '\$nor'.*\$and, \$or or \$not"),
            ({"price": {"$eq": 3}}, r"Unknown operator '\$eq'.*'price'.*\$gte, \$gt, \$lte, \$lt, or \$under"),
            ({"price": {"gte": 3}}, r"Unknown operator 'gte'.*'price'"),
            ({"price": {}}, r"No operator.*'price'.*\$gte"),
            ({"price": "abc"}, "'price' is a finite number, got 'abc'"),
            ({"price": "3"}, "'price' is a finite number, got '3'"),
            ({"price": True}, "'price' is a finite number, got True"),
            ({"price": math.nan}, "'price' is a finite number, got nan"),
            ({"price": (None, math.inf)}, "'price' is a finite number, got inf"),
            ({"price": 10**400}, "'price' is a finite number, got 1000"),
            ({"price": [1, math.nan]}, "'price' is a finite number, got nan"),
            ({"price": ("1", 2)}, "'price' is a finite number, got '1'"),
            ({"year": 2012.0}, r"'year' is an integer.*got 2012\.0"),
            ({"year": True}, "'year' is an integer.*got True"),
            ({"year": 2**53 + 1}, "'year' is an integer between .* got 9007199254740993"),
            ({"gender": 1}, "'gender' is a string, got 1"),
            ({"gender": None}, "'gender' is a string, got None"),
            ({"gender": ["Men", None]}, "'gender' is a string, got None"),
            ({"gender": [["Men"]]}, r"'gender' is a string, got \['Men'\]"),
            ({"sizes": 1}, "'sizes' is a list of strings, got 1"),
            ({"on_sale": 1}, "'on_sale' is True or False, got 1"),
            ({"gender": []}, "'gender' is an empty list"),
            ({"gender": set()}, "'gender' is an empty list"),
            ({"price": (3, 1)}, r"'price' is empty: its lowest value 3\.0 is above its highest 1\.0"),
            ({"price": {"$gt": 3, "$lte": 2}}, "'price' is empty"),
            ({"price": (None, None)}, "'price' is open at both ends"),
            ({"price": (1, 2, 3)}, r"'price' must have 2 values.*list: \[1, 2, 3\]"),
            ({"gender": ("Men", "Women")}, r"'gender' is a string: ranges need numbers.*list: \['Men', 'Women'\]"),
            ({"gender": {"$gte": "A"}}, "'gender' is a string: ranges need numbers"),
            ({"on_sale": (False, True)}, "'on_sale' is True or False: ranges need numbers"),
            ({"sizes": ("M", None)}, "'sizes' is a list of strings: ranges need numbers"),
            ({"$or": []}, r"\$or takes a list of at least one filter, got \[\]"),
            ({"$and": {"gender": "Men"}}, r"\$and takes a list of at least one filter, got \{"),
            ({"$or": [{"gender": "Men"}, {}]}, r"each part of \$or must be a dict with at least one condition"),
            ({"$not": {}}, r"\$not must be a dict with at least one condition"),
            ({"$not": [{"gender": "Men"}]}, r"\$not must be a dict"),
            ([{"gender": "Men"}], "filters must be a dict"),
            ([], "filters must be a dict"),
            ("gender=Men", "filters must be a dict"),
        ],
    )
    def test_what_cannot_be_asked_says_why(self, filters: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            parse_filters(filters, SCHEMA)

    def test_nesting_ends_before_it_can_overflow_a_stack(self) -> None:
        def nested(levels: int) -> dict[str, Any]:
            return {"gender": "Men"} if levels == 1 else {"$not": nested(levels - 1)}

        assert isinstance(parse_filters(nested(MAX_DEPTH), SCHEMA), Not)
        with pytest.raises(ValueError, match=f"more than {MAX_DEPTH} levels"):
            parse_filters(nested(MAX_DEPTH + 1), SCHEMA)


class TestCheckAttributes:
    def test_plain_types_and_what_is_lacking(self) -> None:
        given = {"gender": np.str_("Men"), "price": np.float32(2.5), "year": np.int64(3), "on_sale": np.bool_(True)}
        checked = check_attributes(given | {"sizes": ("S", "M"), "base colour": None}, SCHEMA)
        assert checked == {
            "gender": "Men",
            "price": 2.5,
            "year": 3,
            "on_sale": True,
            "sizes": ["S", "M"],
            "base colour": None,
        }
        assert [type(value) for value in checked.values()] == [str, float, int, bool, list, type(None)]

    @pytest.mark.parametrize(
        ("attributes", "message"),
        [
            ({"colour": "Red"}, "Unknown attribute 'colour'"),
            ({"price": math.nan}, "'price' is a finite number, got nan"),
            ({"sizes": "M"}, "'sizes' is a list of strings, got 'M'"),
            ({"sizes": ["M", None]}, "'sizes' is a list of strings, got None"),
            ({"gender": ["Men"]}, r"'gender' is a string, got \['Men'\]"),
        ],
    )
    def test_what_is_wrong_says_why(self, attributes: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            check_attributes(attributes, SCHEMA)
