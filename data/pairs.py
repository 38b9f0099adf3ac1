"""Datasets of training examples, one for each stage of training.

Nothing is drawn from a global random state: item `i` of epoch `e` is the same in every worker and in every resumed run.
"""

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import ImageOps

from acebert.data.cleaning import SKIP, clean_photo, have_photos, read_column, read_texts
from acebert.data.columns import Columns
from acebert.data.grouping import group_products, hash_text
from acebert.data.query_log import LoggedQueries, QueryLog
from acebert.data.query_templates import QueryTemplates
from acebert.image_processing_acebert import open_photo, to_upright_rgb

SMALLEST_SIDE = 64  # pixels, of a photo that was shrunk
MAX_CUT = 0.2  # of a photo's side, by the random crop


class PairDataset(torch.utils.data.Dataset):
    """Draws a query and a product's title and photo for each row of a catalogue.

    The query is the title itself with probability `title_query_probability`, or where the row has no other query; the
    product then shows only its photo, since equal words would give the match away. Otherwise the query is drawn
    uniformly from the kinds that the row has: a real query, a hot query, or one made by a template. Of the queries that
    a log has for the product one is drawn in proportion to the weights. The title or the photo may then be dropped
    (modality dropout), never both.

    Args:
        products: rows of [`load_products`].
        columns: which column holds what.
        templates: makes queries from attributes.
        title_query_probability: probability that the query is the title, in [0, 1].
        drop_title_probability, drop_image_probability: probabilities of dropping the title or the photo, in [0, 1].
        flip_probability: probability of flipping the photo horizontally, in [0, 1].
        crop_probability: probability of cutting up to a fifth off the photo's width and off its height, in [0, 1].
        downscale_probability: probability of shrinking the photo, to a longer side of 64 pixels or more, in [0, 1].
            Without it, sharpness gives the kind away where some kinds have large photos and others small ones.
        seed: random seed, combined with epoch and row.
        log: real queries of the products. Each row then has a "weight", the grade of its product for its query.

    Raises:
        ValueError: for no products, no ids, a probability out of range, or an attribute with several values.
    """

    strict_templates = True  # see `QueryTemplates.make`

    def __init__(
        self,
        products: Dataset,
        columns: Columns,
        templates: QueryTemplates | None = None,
        title_query_probability: float = 0.5,
        drop_title_probability: float = 0.2,
        drop_image_probability: float = 0.1,
        flip_probability: float = 0.0,
        crop_probability: float = 0.0,
        downscale_probability: float = 0.0,
        seed: int = 0,
        log: QueryLog | None = None,
    ):
        if len(products) == 0:
            raise ValueError("The catalogue has no product: check the source and the split.")
        if columns.id not in products.column_names:
            raise ValueError(f"No column '{columns.id}' for the ids: the columns are {products.column_names}.")
        for name, probability in (
            ("title_query_probability", title_query_probability),
            ("drop_title_probability", drop_title_probability),
            ("drop_image_probability", drop_image_probability),
            ("flip_probability", flip_probability),
            ("crop_probability", crop_probability),
            ("downscale_probability", downscale_probability),
        ):
            if not 0 <= probability <= 1:
                raise ValueError(f"`{name}` must lie in [0, 1], got {probability}.")
        self.columns, self.templates, self.seed = columns, templates, seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # a loader's workers stay over epochs
        self.title_query_probability = title_query_probability
        self.drop_title_probability = drop_title_probability
        self.drop_image_probability = drop_image_probability
        self.flip_probability, self.crop_probability = flip_probability, crop_probability
        self.downscale_probability = downscale_probability
        self.photos = products.select_columns([columns.image]) if columns.image in products.column_names else None
        # (rows, dim) vectors that stand for the photos, 0 for none: of an encoder that isn't trained any more.
        self.image_embeds: torch.Tensor | None = None
        self.ids, self.titles = read_column(products, columns.id), read_texts(products, columns.title)
        self.queries, self.hot_queries = (read_texts(products, name) for name in (columns.query, columns.hot_query))
        self.groups = group_products(self.ids, self.titles)
        self.logged = None if log is None else LoggedQueries(log, self.ids, self.groups)
        self.attribute_names = templates.attributes if templates else []
        self.attributes = {name: read_texts(products, name) for name in self.attribute_names}
        self.codes = np.full((len(products), len(self.attribute_names)), -1, dtype=np.int64)
        for column, name in enumerate(self.attribute_names):
            for row, value in enumerate(self.attributes[name]):
                if value is not None:
                    self.codes[row, column] = hash_text(value)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def rng(self, row: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.epoch, row))

    def id_of(self, row: int) -> Any:
        """The id of the product that is drawn for a row in the current epoch."""
        return self.ids[row]

    def photo(self, row: int, rng: np.random.Generator) -> Any | None:
        """The row's photo as the processor takes it, cropped, shrunk and flipped at random; None without one.

        Of several photos one is drawn.

        With `image_embeds` it is the row's vector.
        """
        if self.image_embeds is not None:
            vector = self.image_embeds[row]
            return vector if vector.any() else None
        photo = None if self.photos is None else clean_photo(self.photos[row][self.columns.image])
        if isinstance(photo, list):
            photo = photo[rng.integers(len(photo))]
        if photo is None:
            return None
        cut, mirror = rng.random(2) < (self.crop_probability, self.flip_probability)
        shrink = self.downscale_probability > 0 and rng.random() < self.downscale_probability
        if cut or mirror or shrink:
            try:
                photo = to_upright_rgb(open_photo(photo), do_convert_rgb=True)
                photo.load()
            except Exception as error:  # Pillow's decoders raise errors of many kinds for broken files
                raise ValueError(
                    f"The photo of product {self.ids[row]!r} (row {row}) can't be read: {error}. {SKIP}"
                ) from error
            if cut:
                size = np.array(photo.size)
                kept = np.maximum(1, (size * rng.uniform(1 - MAX_CUT, 1, size=2)).round()).astype(int)
                left, top = rng.integers(size - kept + 1).tolist()
                photo = photo.crop((left, top, left + int(kept[0]), top + int(kept[1])))
            if shrink:
                side = int(rng.uniform(min(SMALLEST_SIDE, max(photo.size)), max(photo.size)))
                photo.thumbnail((side, side))
            if mirror:
                photo = ImageOps.mirror(photo)
        return photo

    def make_query(self, row: int, rng: np.random.Generator) -> tuple[str, list[str]] | None:
        """A query that isn't the title, and the attributes that it states; None for a row without any."""
        kinds: list[tuple[str, list[str]]] = []
        logged = None if self.logged is None else self.logged.draw(row, rng)
        for text in (self.queries[row], self.hot_queries[row], logged):
            if text is not None:
                kinds.append((text, []))
        if self.templates is not None:
            product = {name: values[row] for name, values in self.attributes.items()}
            made = self.templates.make(product, rng, self.strict_templates)
            kinds += [made] if made else []
        return kinds[rng.integers(len(kinds))] if kinds else None

    def words_of(self, row: int) -> str:
        """The words that stand for a whole product: its title, else its hot query, its real query or one by a template.

        Raises:
            ValueError: if it has none of them.
        """
        words = self.titles[row] or self.hot_queries[row] or (self.make_query(row, self.rng(row)) or (None,))[0]
        if words is None:
            raise ValueError(f"Product {self.ids[row]!r} (row {row}) has no words to mine hard negatives by.")
        return words

    def asked_codes(self, row: int, stated: list[str]) -> np.ndarray:
        """The codes of the stated attributes, -1 for the others: (attributes,) int64."""
        return np.where(np.isin(self.attribute_names, stated), self.codes[row], -1)

    def __getitem__(self, row: int) -> dict[str, Any]:
        rng = self.rng(row)
        photo = self.photo(row, rng)
        from_title = rng.random() < self.title_query_probability
        return self.item(row, *self.draw(row, rng, photo, from_title))

    def draw(
        self, row: int, rng: np.random.Generator, photo: Any | None, from_title: bool
    ) -> tuple[str, list[str], str | None, Any]:
        """A query, the attributes that it states, and the title and the photo that the product shows.

        Args:
            row: number of the row.
            rng: the row's generator.
            photo: the row's photo, or anything that stands for it; None if it has none.
            from_title: whether to take the title as the query, if the product has both a title and a photo.

        Raises:
            ValueError: for a row that nothing can be learned from.
        """
        title, made = self.titles[row], self.make_query(row, rng)
        if title is not None and photo is not None and (from_title or made is None):
            return title, [], None, photo
        if made is None:
            raise ValueError(
                f"Product {self.ids[row]!r} (row {row}) has neither a query nor both title and photo: nothing can be "
                "learned from it: give it both or, where the stage learns from queries, a query, a hot query or "
                f"attributes for --query_templates. {SKIP}"
            )
        return *made, *self.draw_modalities(row, rng, photo)

    def draw_modalities(self, row: int, rng: np.random.Generator, photo: Any | None) -> tuple[str | None, Any | None]:
        """Title and photo, one of which may be dropped, of a product whose query isn't its title."""
        title = self.titles[row]
        if title is None and photo is None:
            raise ValueError(f"Product {self.ids[row]!r} (row {row}) has neither a title nor a photo. {SKIP}")
        if title is not None and photo is not None:
            draw = rng.random()
            if draw < self.drop_title_probability:
                title = None
            elif draw < self.drop_title_probability + self.drop_image_probability:
                photo = None
        return title, photo

    def item(self, row: int, query: str, stated: list[str], title: str | None, photo: Any | None) -> dict[str, Any]:
        query_id = hash_text(query)
        item = {
            "id": self.ids[row],
            "row": row,
            "query": query,
            "title": title,
            "image": photo,
            "product_id": self.groups[row],
            "query_id": query_id,
            "product_attributes": self.codes[row],
            "query_attributes": self.asked_codes(row, stated),
            "from_title": title is None and self.titles[row] == query,
        }
        return item if self.logged is None else item | {"weight": self.logged.grade(row, query_id)}


class PretrainingDataset(PairDataset):
    """Title and photo of each row, and for half of the rows a hot query before the title.

    A row without a hot query of its own gets a real query, or one made by a template, where possible. Half of the rows
    have none, as most products have none when they are encoded later; a row without a title always keeps its hot query.
    """

    def __getitem__(self, row: int) -> dict[str, Any]:
        rng = self.rng(row)
        query, stated = self.make_query(row, rng) or (None, [])
        if self.hot_queries[row] is not None:
            query, stated = self.hot_queries[row], []
        if self.titles[row] is not None and rng.random() < 0.5:
            query, stated = None, []
        return {
            "id": self.ids[row],
            "row": row,
            "title": self.titles[row],
            "image": self.photo(row, rng),
            "hot_query": query,
            "query_attributes": self.asked_codes(row, stated),
        }


# Modality subsets that a query is ranked against. The first stands for all modalities that a product has.
MODALITIES = (("title", "image"), ("title",), ("image",))


class QueryDataset(PairDataset):
    """Draws a query for each row of a catalogue, and the modalities of the products that are ranked for it.

    It works like [`PairDataset`], but photos are never decoded, and a share of the queries is balanced: a template, the
    attributes to keep of it, and then one of the combinations of values that some product has are drawn uniformly.
    Drawn row by row, a value that ten products have would hardly ever be asked for. A template with words of its own
    states its attributes like any other: it makes the same query for all products that have them, so all are positives.

    Args:
        products, columns, templates: see [`PairDataset`].
        title_query_probability, drop_title_probability, drop_image_probability: see [`PairDataset`].
        balanced_query_probability: probability that a query that isn't a title is balanced, in [0, 1].
        seed: see [`PairDataset`].

    Raises:
        ValueError: as [`PairDataset`], or for a product with neither title nor photo.
    """

    strict_templates = False

    def __init__(
        self,
        products: Dataset,
        columns: Columns,
        templates: QueryTemplates | None = None,
        title_query_probability: float = 0.5,
        drop_title_probability: float = 0.2,
        drop_image_probability: float = 0.1,
        balanced_query_probability: float = 0.0,
        seed: int = 0,
    ):
        super().__init__(
            products,
            columns,
            templates,
            title_query_probability,
            drop_title_probability,
            drop_image_probability,
            seed=seed,
        )
        self.balanced_query_probability = balanced_query_probability
        self.has_photo = [False] * len(self)
        if self.photos is not None:
            self.has_photo = have_photos(self.photos, self.columns.image).tolist()
        for row, (title, photo) in enumerate(zip(self.titles, self.has_photo, strict=True)):
            if title is None and not photo:
                raise ValueError(f"Product {self.ids[row]!r} (row {row}) has neither a title nor a photo. {SKIP}")
        self._rows_by_values: dict[tuple[str, ...], list[np.ndarray]] = {}

    def rows_by_values(self, names: tuple[str, ...]) -> list[np.ndarray]:
        """For each combination of values of these attributes that some product has, the rows that have it."""
        if names not in self._rows_by_values:
            codes = self.codes[:, [self.attribute_names.index(name) for name in names]]
            rows = np.flatnonzero((codes >= 0).all(1))
            number = np.unique(codes[rows], axis=0, return_inverse=True)[1].ravel()
            order = np.argsort(number, kind="stable")
            parts = np.split(rows[order], np.flatnonzero(np.diff(number[order])) + 1)
            self._rows_by_values[names] = parts if len(rows) else []
        return self._rows_by_values[names]

    def _draw_combination(self, rng: np.random.Generator) -> tuple[int, str, list[str]] | None:
        """A row, a query for values that it shares with others, and their attributes; None if no product has them."""
        assert self.templates is not None
        index = int(rng.integers(len(self.templates.templates)))
        kept = self.templates.keep(index, rng, self.templates.fields[index])
        combinations = self.rows_by_values(tuple(kept))
        if not combinations:
            return None
        row = int(rng.choice(combinations[rng.integers(len(combinations))]))
        product = {name: values[row] for name, values in self.attributes.items()}
        return row, self.templates.phrase(index, product, kept), kept

    def __getitem__(self, row: int) -> dict[str, Any]:
        rng = self.rng(row)
        asks_by_title = rng.random() < self.title_query_probability
        from_title = asks_by_title and self.titles[row] is not None and self.has_photo[row]
        combination = None
        if not from_title and self.templates is not None and rng.random() < self.balanced_query_probability:
            combination = self._draw_combination(rng)
        if combination:
            row, query, stated = combination
            title, photo = self.draw_modalities(row, rng, self.has_photo[row] or None)
        else:
            query, stated, title, photo = self.draw(row, rng, self.has_photo[row] or None, from_title)
        has_both = self.titles[row] is not None and self.has_photo[row]
        modalities = 0 if not has_both or (title and photo) else 1 if title else 2
        return {**self.item(row, query, stated, title, photo), "modalities": modalities}

    def id_of(self, row: int) -> Any:
        return self[row]["id"]
