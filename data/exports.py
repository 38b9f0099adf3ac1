"""The exports of shop systems: known by their headers, and read as the products that they stand for.

An export spreads a product over several rows: its variants, which share a parent, and photos. Here each variant becomes
a product of its own, with its parent's title, photos and whatever else the parent alone has, and names its parent
in [`GROUP`]. Formats: https://help.shopify.com/en/manual/products/import-export/using-csv,
https://woocommerce.com/document/product-csv-importer-exporter/,
https://experienceleague.adobe.com/en/docs/commerce-admin/systems/data-transfer/data-attributes-product,
https://support.google.com/merchants/answer/7052112, and the header of Amazon's inventory templates.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from acebert.data.columns import column_key
from acebert.data.photo_cells import split_photos
from acebert.data.values import parse_list

GROUP = "item_group_id"  # Google's name of it

Texts: TypeAlias = dict[str, list[str | None]]


@dataclass(frozen=True)
class Export:
    """A shop system's export. Columns are named by their [`column_key`].

    Args:
        system: what it is called.
        needs: columns by which it is known.
        ids: columns that may be the product's id, the likeliest first.
        title: column of the title.
        images: columns of a row's own photos, the main one first.
        group: column of what variants share; "" where it is their parent's id.
        parents: for each row the row of its parent, the parent's own number for the parent itself, None for neither.
        is_sold: whether a parent is a product, too; otherwise its variants are.
        own: columns that a variant doesn't take from its parent.
        gallery: column of photos that a parent's rows list for all of its variants.
    """

    system: str
    needs: tuple[str, ...]
    ids: tuple[str, ...]
    title: str
    images: tuple[str, ...]
    group: str = ""
    parents: Callable[[Texts], list[int | None]] | None = None
    is_sold: bool = False
    own: re.Pattern[str] = re.compile(r"$^")
    gallery: str = ""


def height(texts: Texts) -> int:
    return len(next(iter(texts.values()), []))


def _column(texts: Texts, key: str) -> list[str | None]:
    return next((values for name, values in texts.items() if column_key(name) == key), [None] * height(texts))


# ----------------------------------------------------------------------------------------------------------------------
# How rows name their parents
# ----------------------------------------------------------------------------------------------------------------------


def _same_handle(texts: Texts) -> list[int | None]:
    """Shopify: the first row of a handle has what its variants share."""
    first: dict[str, int] = {}
    handles = [handle or url for handle, url in zip(_column(texts, "handle"), _column(texts, "urlhandle"), strict=True)]
    return [None if handle is None else first.setdefault(handle, row) for row, handle in enumerate(handles)]


def _named_parent(texts: Texts) -> list[int | None]:
    """WooCommerce: a variation names its parent's SKU, or its number, as "id:12"."""
    rows = {f"id:{number}": row for row, number in enumerate(_column(texts, "id")) if number}
    rows |= {sku: row for row, sku in enumerate(_column(texts, "sku")) if sku}
    return _with_themselves([rows.get(parent or "") for parent in _column(texts, "parent")])


def _listed_variations(texts: Texts) -> list[int | None]:
    """Adobe Commerce: a configurable product lists its variations, as "sku=A-S,size=S|sku=A-M,size=M"."""
    rows = {
        sku.strip(): row
        for row, cell in enumerate(_column(texts, "configurablevariations"))
        for sku in re.findall(r"(?:^|[|,])\s*sku=([^,|]+)", cell or "")
    }
    return _with_themselves([rows.get(sku or "") for sku in _column(texts, "sku")])


def _parent_sku(texts: Texts) -> list[int | None]:
    """Amazon: a child names its parent's SKU."""
    rows = {sku: row for row, sku in enumerate(_column(texts, "itemsku")) if sku}
    return _with_themselves([rows.get(parent or "") for parent in _column(texts, "parentsku")])


def _with_themselves(parents: list[int | None]) -> list[int | None]:
    named = set(parents) - {None}
    return [row if row in named else parent for row, parent in enumerate(parents)]


# ----------------------------------------------------------------------------------------------------------------------
# The systems
# ----------------------------------------------------------------------------------------------------------------------

MEASURES = "price|stock|quantity|qty|weight|length|width|height|position"
EXPORTS = (
    Export(
        "Shopify",
        needs=("handle", "title", "imagesrc"),
        ids=("variantsku", "handle"),
        title="title",
        images=("variantimage",),
        group="handle",
        parents=_same_handle,
        is_sold=True,
        own=re.compile(r"variant|option\d(value|linkedto)|image(src|position|alttext)|costperitem"),
        gallery="imagesrc",
    ),
    Export(
        "Shopify",
        needs=("urlhandle", "title", "productimageurl"),
        ids=("sku", "urlhandle"),
        title="title",
        images=("variantimageurl",),
        group="urlhandle",
        parents=_same_handle,
        is_sold=True,
        own=re.compile(rf"variant|option\d(value|linkedto)|.*image|sku|barcode|costperitem|.*({MEASURES}|inventory)"),
        gallery="productimageurl",
    ),
    Export(
        "WooCommerce",
        needs=("type", "sku", "name", "images", "regularprice"),
        ids=("sku", "id"),
        title="name",
        images=("images",),
        parents=_named_parent,
        own=re.compile(rf"id$|type|sku|gtin|parent|attribute|.*({MEASURES})"),
    ),
    Export(
        "Magento or Adobe Commerce",
        needs=("sku", "name", "producttype", "attributesetcode"),
        ids=("sku",),
        title="name",
        images=("baseimage", "additionalimages"),
        parents=_listed_variations,
        own=re.compile(rf"sku|producttype|visibility|configurable|additionalattributes|urlkey|.*({MEASURES})"),
    ),
    Export(
        "Google Merchant Center",
        needs=("id", "title", "link", "imagelink"),
        ids=("id",),
        title="title",
        images=("imagelink", "additionalimagelink"),
        group="itemgroupid",
    ),
    Export(
        "Amazon (inventory template)",
        needs=("itemsku", "itemname", "mainimageurl"),
        ids=("itemsku",),
        title="itemname",
        images=("mainimageurl", *(f"otherimageurl{number}" for number in range(1, 9))),
        parents=_parent_sku,
        own=re.compile(rf"itemsku|parent|relationshiptype|externalproductid|size|color|.*({MEASURES})"),
    ),
    Export("Amazon (listings)", ("sellersku", "itemname", "asin1"), ("sellersku",), "itemname", ("imageurl",)),
)


# ----------------------------------------------------------------------------------------------------------------------
# Reading
# ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Products:
    """An export's products.

    Args:
        system: whose export it is.
        texts: its columns, and [`GROUP`] where products have variants.
        rows: of the table, of each product.
        id, title, image: which columns are what; None where the export has none.
        notes: what was done, for the user.
    """

    system: str
    texts: Texts
    rows: list[int]
    id: str | None
    title: str | None
    image: str | None
    notes: list[str]


def read_export(texts: Texts, join_by: str | None = None) -> Products | None:
    """A table as products, if it is an export of a system that is known; else None.

    Args:
        texts: the table's columns.
        join_by: the column that is to be the id. Where variants share it, they become one product, whose cells list
            what differs.
    """
    keys = {column_key(name): name for name in reversed(texts)}
    export = next((export for export in EXPORTS if all(key in keys for key in export.needs)), None)
    if export is None:
        return None
    texts = {name: list(values) for name, values in texts.items()}
    parents: list[int | None] = export.parents(texts) if export.parents else [None] * height(texts)
    ids = [keys[key] for key in export.ids if key in keys]
    # The first column of which each row has a value of its own.
    identifier = next((name for name in ids if None not in (values := texts[name]) and _all_differ(values)), ids[0])
    if export.group in keys:
        groups = texts[keys[export.group]]
    else:
        groups = [None if parent is None else texts[identifier][parent] for parent in parents]
    own = [name for name in texts if export.own.match(key := column_key(name)) and "image" not in key]
    rows = [
        row
        for row, parent in enumerate(parents)
        # A variant has something of its own, and not only a photo.
        if parent is None or (export.is_sold if parent == row else any(texts[name][row] for name in own))
    ]
    images = [keys[key] for key in (export.gallery, *export.images) if key in keys]
    if images:
        texts[images[0]] = _gather_photos(texts, keys, export, parents)
    _fill_from_parents(texts, export, parents)
    if not _all_differ([group for group in groups if group is not None]):
        texts[GROUP] = groups
    left_out, notes = len(parents) - len(rows), []
    texts = {name: [values[row] for row in rows] for name, values in texts.items()}
    if left_out:
        notes.append(f"{left_out:,} of its rows are no products of their own, but parents or photos of others.")
    if GROUP in texts and join_by is not None and join_by in (GROUP, keys.get(export.group)):
        texts, rows = _join_variants(texts, rows, keys[export.title])
        notes.append(f"Variants that share {join_by!r} are one product, which lists their values.")
    elif export.is_sold and (named := _name_variants(texts, identifier)) != texts[identifier]:
        texts[identifier] = named
        notes.append(f"Products without a {identifier!r} of their own are named by their variant.")
    return Products(export.system, texts, rows, identifier, keys[export.title], next(iter(images), None), notes)


def _all_differ(values: list[str | None]) -> bool:
    return len(set(values)) == len(values)


def _gather_photos(texts: Texts, keys: dict[str, str], export: Export, parents: list[int | None]) -> list[str | None]:
    """Each row's photos as a JSON list: its own, else those of its parent's gallery, else its parent's own."""
    own = [
        [
            photo
            for key in export.images
            if key in keys and (cell := texts[keys[key]][row])
            for photo in split_photos(cell)
        ]
        for row in range(len(parents))
    ]
    galleries: defaultdict[int, list[str]] = defaultdict(list)
    if export.gallery:
        for row in _by_position(texts):
            parent, cell = parents[row], texts[keys[export.gallery]][row]
            if cell:
                galleries[row if parent is None else parent] += split_photos(cell)
    gathered = []
    for row, parent in enumerate(parents):
        # A gallery shows the other variants, too: it is for those that have no photo of their own.
        photos = own[row] or galleries[row if parent is None else parent] or ([] if parent is None else own[parent])
        gathered.append(json.dumps(list(dict.fromkeys(photos)), ensure_ascii=False) if photos else None)
    return gathered


def _by_position(texts: Texts) -> list[int]:
    """Rows in the order of their photos."""
    positions = [
        position or image
        for position, image in zip(_column(texts, "imageposition"), _column(texts, "productimageposition"), strict=True)
    ]
    return sorted(
        range(height(texts)), key=lambda row: int(positions[row] or 0) if (positions[row] or "0").isdigit() else 0
    )


def _fill_from_parents(texts: Texts, export: Export, parents: list[int | None]) -> None:
    """Gives variants what only their parents say, in place."""
    for name, values in texts.items():
        if not export.own.match(column_key(name)):
            for row, parent in enumerate(parents):
                if values[row] is None and parent is not None:
                    values[row] = values[parent]


def _name_variants(texts: Texts, identifier: str) -> list[str | None]:
    """Ids of variants: those that lack one, or share it, get their parent's with their options or their number."""
    options = [values for name, values in texts.items() if re.fullmatch(r"option\dvalue", column_key(name))]
    counts = Counter(texts[identifier])
    taken = {value for value in texts[identifier] if counts[value] == 1}
    ids: list[str | None] = []
    for row, value in enumerate(texts[identifier]):
        if (value is None or counts[value] > 1) and (group := texts[GROUP][row]):
            value = "/".join(
                [group, *(cell for values in options if (cell := values[row]) and cell != "Default Title")]
            )
            while value in taken:
                value += f"/{row}"
            taken.add(value)
        ids.append(value)
    return ids


def _join_variants(texts: Texts, rows: list[int], title: str) -> tuple[Texts, list[int]]:
    """One product for each group; a column in which variants differ becomes JSON lists of what they have."""
    members: dict[object, list[int]] = {}
    for place, group in enumerate(texts[GROUP]):
        members.setdefault(group or (place,), []).append(place)
    joined: Texts = {}
    for name, values in texts.items():
        found = [
            list(dict.fromkeys(part for place in places for part in _parts(values[place])))
            for places in members.values()
        ]
        if name == title or all(len(parts) <= 1 for parts in found):
            joined[name] = [parts[0] if parts else None for parts in found]
        else:
            joined[name] = [json.dumps(parts, ensure_ascii=False) if parts else None for parts in found]
    return joined, [rows[places[0]] for places in members.values()]


def _parts(cell: str | None) -> list[str]:
    return [] if cell is None else parse_list(cell) or [cell]
