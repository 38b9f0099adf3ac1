"""Which column of an upload is the id, the title, the photo or an attribute: a guess, for the user to correct."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from acebert.data.columns import column_key, is_code
from acebert.data.exports import GROUP
from acebert.data.photo_cells import split_photos
from acebert.data.values import read_values
from acebert.space.uploads import Upload
from acebert.space.uploads.photo_zip import PHOTO_NAME, PhotoZip

CANONICAL = ("id", "title", "image")

# What shops call these columns, likeliest first, without accents, case and anything but letters and digits.
ID_NAMES = (
    "id productid itemid articleid sku skuid variantsku productsku asin productcode itemcode itemnumber productnumber "
    "articlenumber gtin ean ean13 barcode upc handle code reference ref "
    "produktid artikelid artikelnummer artikelnr artnr produktnummer bestellnummer idproduit codeproduit referencia "
    "idproducto codigo codigoproducto idproduto idprodotto codiceprodotto codice varenummer idproduktu kod "
    "артикул idтовара 商品id 商品编号 商品番号 商品コード 상품코드 상품번호"
)
TITLE_NAMES = (
    "title producttitle itemtitle productdisplayname displayname productname itemname articlename name "
    "titel produkttitel produktname artikelname artikelbezeichnung bezeichnung titre nomproduit nomduproduit nom "
    "libelle designation titulo tituloproducto nombreproducto nombre nomeproduto nomeprodotto nome titolo naam "
    "productnaam produktnamn namn navn tytul nazwa nazwaproduktu название наименование 商品名称 商品名 商品标题 标题 "
    "タイトル 상품명 제품명"
)
IMAGE_NAMES = (
    "image photo picture img imagefile imagefilename imagepath photofile photopath imageurl imagelink imagesrc "
    "imageurls photourl pictureurl mainimage primaryimage images photos pictures filename filepath file path link url "
    "bild bilddatei bildurl foto fotos fichier photoproduit imagen imagenes urlimagen imagem imagens immagine immagini "
    "afbeelding billede zdjecie фото изображение 图片 商品图片 画像 商品画像 이미지 상품이미지"
)

Kind = Literal["text", "number", "date"]


@dataclass(frozen=True)
class UploadColumns:
    """Which column of an upload is what.

    Args:
        id (`str`, *optional*): None takes the row's number.
        title (`str`, *optional*): None for products without titles.
        image (`str`, *optional*): a column of photos or of their names in the zip. With None a product's photo is the
            one in the zip that has the product's id for a name, without its extension.
        attributes (`dict[str, str]`): "text", "number" or "date" by name.
    """

    id: str | None
    title: str | None
    image: str | None
    attributes: dict[str, Kind] = field(default_factory=dict)


def guess_columns(upload: Upload) -> UploadColumns:
    """Which column is what, by the names that shops give them and, where those don't tell, by what they hold.

    A column of distinct short values is the id, one of distinct longer texts the title, one of bytes, file names or
    addresses the photo; numbers, and texts that repeat, are attributes.
    """
    profiles = {name: _Profile.of(name, values) for name, values in upload.texts.items()}
    image = _named(upload.photos, IMAGE_NAMES) or next(iter(upload.photos), None)
    if image is None:
        shown = [name for name, values in upload.texts.items() if _names_photos(values, upload.zip)]
        image = _named(shown, IMAGE_NAMES) or next(iter(shown), None)
    free = [name for name, profile in profiles.items() if name != image and profile.filled]

    title = _named([name for name in free if profiles[name].kind == "text"], TITLE_NAMES)
    distinct = [name for name in free if name != title and profiles[name].distinct >= 0.9 * len(upload.rows)]
    codes = (name for name in distinct if profiles[name].distinct == len(upload.rows) and profiles[name].codes)
    identifier = _named(distinct, ID_NAMES) or next(codes, None)
    if title is None:
        title = next((name for name in free if name != identifier and profiles[name].is_title), None)

    attributes = {
        name: profiles[name].kind
        for name in free
        if name not in (identifier, title, *CANONICAL)
        and (name == GROUP or (not _named([name], ID_NAMES) and profiles[name].is_attribute))
    }
    return UploadColumns(identifier, title, image, attributes)


@dataclass(frozen=True)
class _Profile:
    """What a column of text holds: values that are there, different ones, their mean length, and their type."""

    filled: int
    distinct: int
    length: float
    spaced: float  # share of the values that have a space
    codes: bool  # whether all are letters and digits, with hyphens
    kind: Kind

    @classmethod
    def of(cls, name: str, values: Sequence[str | None]) -> "_Profile":
        filled = [value for value in values if value is not None]
        count = max(1, len(filled))
        read = "text" if is_code(name) or name == GROUP else read_values(name, values).kind
        return cls(
            len(filled),
            len(set(filled)),
            sum(map(len, filled)) / count,
            sum(" " in value for value in filled) / count,
            all(re.fullmatch(r"\w[\w-]*", value) for value in filled),
            read if read in ("number", "date") else "text",
        )

    @property
    def is_title(self) -> bool:
        """Codes have no spaces, descriptions are longer, categories repeat."""
        words = self.kind == "text" and self.spaced >= 0.5
        return words and 8 <= self.length <= 200 and self.distinct >= 0.5 * self.filled

    @property
    def is_attribute(self) -> bool:
        return self.distinct > 1 and (
            self.kind != "text" or (self.length <= 40 and self.distinct <= max(12, 0.2 * self.filled))
        )


def _names_photos(values: Sequence[str | None], archive: PhotoZip | None) -> bool:
    """Whether at least half of a column's values look like names of photos, or are names in the zip."""
    filled = [value for value in values if value is not None]

    def found(value: str) -> bool:
        names = split_photos(value)
        if any(map(PHOTO_NAME.search, names)):
            return True
        try:
            return archive is not None and any(archive.find(name) for name in names)
        except ValueError:
            return True

    return bool(filled) and sum(map(found, filled)) >= 0.5 * len(filled)


def _named(columns: Iterable[str], names: str) -> str | None:
    """The column with the likeliest of the names."""
    by_key = {column_key(column): column for column in reversed(list(columns))}
    return next((by_key[key] for key in map(column_key, names.split()) if key in by_key), None)
