"""The exports of shop systems: known by their headers, their rows as the products that they stand for."""

import csv
import io
from pathlib import Path

import pytest
from PIL import Image

from acebert.data.columns import Columns
from acebert.data.exports import GROUP, read_export
from acebert.data.sources import load_products

SHOPIFY = [
    "Handle,Title,Vendor,Option1 Name,Option1 Value,Variant SKU,Variant Price,Variant Image,Image Src,Image Position",
    "red-tee,Red Tee,Calvo,Size,S,RT-S,19.90,,b.jpg,2",
    "red-tee,,,,M,,19.90,m.jpg,a.jpg,1",
    "red-tee,,,,,,,,c.jpg,3",
    "mug,Mug,Ours,Title,Default Title,MUG,5,,mug.jpg,1",
]
WOO = [
    "ID,Type,SKU,Name,Categories,Regular price,Images,Parent",
    '1,variable,T,Tee,Clothing > Tops,,"a.jpg, b.jpg",',
    "2,variation,,Tee - S,,9,,id:1",
    "3,variation,,Tee - M,,9,m.jpg,T",
    "4,simple,M,Mug,Mugs,5,mug.jpg,",
]
MAGENTO = [
    "sku,name,product_type,attribute_set_code,categories,price,base_image,additional_images,configurable_variations",
    'H,Hoodie,configurable,Top,Default/Tops,,/h/a.jpg,"/h/b.jpg,/h/c.jpg","sku=H-S,size=S|sku=H-M,size=M"',
    "H-S,Hoodie S,simple,Top,,29,,,",
    "H-M,Hoodie M,simple,Top,,29,/h/m.jpg,,",
]
GOOGLE = [
    "id,title,link,image link,additional image link,price,item group id",
    'G-1,Mug S,https://x/1,1.jpg,"2.jpg,3.jpg",1.90 EUR,G',
    "G-2,Mug M,https://x/2,4.jpg,,2.90 EUR,G",
]
AMAZON = [
    "item_sku,item_name,main_image_url,other_image_url1,standard_price,parent_sku,parent_child,size_name",
    "P,Shirt,a.jpg,b.jpg,,,parent,",
    "C-1,Shirt S,,,9,P,child,S",
    "C-2,,c.jpg,,9,P,child,M",
]


def texts(lines: list[str]) -> dict[str, list[str | None]]:
    header, *rows = csv.reader(io.StringIO("\n".join(lines)))
    return {name: [row[place] or None for row in rows] for place, name in enumerate(header)}


@pytest.mark.parametrize(
    ("lines", "system", "ids", "titles", "photos", "groups"),
    [
        (
            SHOPIFY,
            "Shopify",
            ["RT-S", "red-tee/M", "MUG"],
            ["Red Tee", "Red Tee", "Mug"],
            ['["a.jpg", "b.jpg", "c.jpg"]', '["m.jpg"]', '["mug.jpg"]'],
            ["red-tee", "red-tee", "mug"],
        ),
        (
            WOO,
            "WooCommerce",
            ["2", "3", "4"],
            ["Tee - S", "Tee - M", "Mug"],
            ['["a.jpg", "b.jpg"]', '["m.jpg"]', '["mug.jpg"]'],
            ["1", "1", None],
        ),
        (
            MAGENTO,
            "Magento or Adobe Commerce",
            ["H-S", "H-M"],
            ["Hoodie S", "Hoodie M"],
            ['["/h/a.jpg", "/h/b.jpg", "/h/c.jpg"]', '["/h/m.jpg"]'],
            ["H", "H"],
        ),
        (
            GOOGLE,
            "Google Merchant Center",
            ["G-1", "G-2"],
            ["Mug S", "Mug M"],
            ['["1.jpg", "2.jpg", "3.jpg"]', '["4.jpg"]'],
            ["G", "G"],
        ),
        (
            AMAZON,
            "Amazon (inventory template)",
            ["C-1", "C-2"],
            ["Shirt S", "Shirt"],
            ['["a.jpg", "b.jpg"]', '["c.jpg"]'],
            ["P", "P"],
        ),
    ],
)
def test_each_variant_is_a_product(
    lines: list[str], system: str, ids: list, titles: list, photos: list, groups: list
) -> None:
    products = read_export(texts(lines))
    assert products is not None and products.system == system
    assert products.id and products.title and products.image
    assert products.texts[products.id] == ids and products.texts[products.title] == titles
    assert products.texts[products.image] == photos and products.texts[GROUP] == groups


def test_what_only_the_parent_says_is_filled_down() -> None:
    products = read_export(texts(SHOPIFY))
    assert (
        products is not None and products.texts["Vendor"] == ["Calvo", "Calvo", "Ours"] and products.rows == [0, 1, 3]
    )
    assert "1 of its rows are no products of their own" in products.notes[0]
    products = read_export(texts(WOO))
    assert products is not None and products.texts["Categories"] == ["Clothing > Tops", "Clothing > Tops", "Mugs"]


def test_variants_that_share_the_id_are_one_product() -> None:
    products = read_export(texts(SHOPIFY), join_by="Handle")
    assert products is not None and products.texts["Handle"] == ["red-tee", "mug"]
    assert products.texts["Option1 Value"] == ['["S", "M"]', '["Default Title"]']
    assert products.texts["Title"] == ["Red Tee", "Mug"]


def test_other_tables_are_none() -> None:
    assert read_export({"id": ["1"], "title": ["a"], "image": ["a.jpg"]}) is None


def test_an_export_needs_no_names_of_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b", "c", "m", "mug"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.jpg")
    (tmp_path / "products_export.csv").write_text("\n".join(SHOPIFY))
    products = load_products([str(tmp_path / "products_export.csv")], "train", Columns(), keep_others=True)
    assert products["id"][:] == ["RT-S", "red-tee/M", "MUG"] and products[GROUP][:] == ["red-tee", "red-tee", "mug"]
    photos = [[Path(photo["path"]).name for photo in cell] for cell in products["image"]]
    assert photos == [["a.jpg", "b.jpg", "c.jpg"], ["m.jpg"], ["mug.jpg"]]
    assert products["Variant Price"][:] == [19.9, 19.9, 5.0]
    assert "is an export of Shopify. 'Variant SKU' is read as the id" in caplog.text
    columns = Columns("Variant SKU", "Title", "Image Src")
    named = load_products([str(tmp_path / "products_export.csv")], "train", columns)
    assert named["Variant SKU"][:] == products["id"][:] and named["Title"][:] == products["title"][:]
