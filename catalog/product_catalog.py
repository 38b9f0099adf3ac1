"""A shop's catalogue, encoded and searchable: by words, by photo or by both, with filters, while it changes.

    catalog = ProductCatalog.build(model, processor, dataset, "catalog", title_column="name")
    catalog.search("red striped t-shirt", filters={"gender": "Men", "price": (None, 50)})

The folder's Parquet files (`store.py`) are the truth; the index beside them (`indexes`) answers
searches and can be made again at any time. A change is first on the disk, then in the index, then done: what was done
survives a kill, and the next search sees it.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
from filelock import FileLock, Timeout
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from transformers import PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from acebert.catalog.boosts import Boost, check_boosts
from acebert.catalog.build import BuildOptions, build_catalog, finish_replacing
from acebert.catalog.calibration import Calibrations
from acebert.catalog.filters import Filter
from acebert.catalog.grouping import check_group
from acebert.catalog.indexes.base import CatalogIndex, Match
from acebert.catalog.live_index import SHARED_WAIT, UNREACHABLE, LiveIndex
from acebert.catalog.maintenance import to_key
from acebert.catalog.parts import keep_photos
from acebert.catalog.records import (
    NewProducts,
    Photo,
    Product,
    Results,
    check_id,
    check_new_products,
    check_values,
    to_product,
)
from acebert.catalog.search_options import Options, read_queries
from acebert.catalog.searching import Searcher
from acebert.catalog.store import Products, ProductStore, Settings
from acebert.catalog.vocabulary import Vocabulary
from acebert.data.cleaning import OnBadRow
from acebert.data.photo_columns import MAX_IMAGES
from acebert.encoding.encoder import Encoder, find_title_error
from acebert.utils.words import cut

logger = logging.get_logger(__name__)

ENCODE_BATCH = 64


class ProductCatalog:
    """A catalogue that is open. Made by [`ProductCatalog.build`] or [`ProductCatalog.load`]; threads may share one."""

    def __init__(self, store: ProductStore, encoder: Encoder | None, lock: FileLock | None, shared: bool = False):
        # Nothing of these refers to the catalogue, so that it is gone as soon as nobody has it.
        vocabulary = Vocabulary(store.settings.attributes)
        self._live = live = LiveIndex(store, lock, shared, on_change=vocabulary.forget)
        calibrations = Calibrations(lambda: live.store, keep=lock is not None)
        self._encoder, self._searcher = encoder, Searcher(store.settings, encoder, vocabulary, calibrations)

    # ------------------------------------------------------------------------------------------------------------------
    # Making and opening
    # ------------------------------------------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        dataset: datasets.Dataset,
        path: str | os.PathLike,
        *,
        id_column: str = "id",
        title_column: str | None = "title",
        image_column: str | None = "image",
        attribute_columns: Sequence[str] | None = None,
        sides: bool = True,
        photo_size: int = 512,
        index: str = "edge",
        index_options: Mapping[str, Any] | None = None,
        batch_size: int = ENCODE_BATCH,
        num_workers: int = 0,
        on_bad_row: OnBadRow = "raise",
        overwrite: bool = False,
        group_column: str | None = None,
        max_images: int = MAX_IMAGES,
    ) -> "ProductCatalog | None":
        """Encodes products into a folder and opens it. Stopped at any moment, the same call goes on.

        Under `accelerate launch` the processes share the work; they need one file system.

        Args:
            model: an `AceBertModel`.
            processor: the processor that came with it.
            dataset: one row per product. Photos are an Image column, paths or bytes, or lists of them.
            path: folder to make.
            id_column: texts or integers, unique.
            title_column: None for a catalogue without titles.
            image_column: None for a catalogue without photos.
            attribute_columns: texts, numbers, booleans or lists of texts, to filter by and to show; by default all.
            sides: also encode title and photo alone, so that hits tell which side they match by and `using` may search
                one. Takes about twice the time and three times the space.
            photo_size: longest side of the photos kept for showing, in pixels; 0 keeps none.
            index: "edge", embedded in this process; "memory"; or "http://host:6333/name" for a Qdrant server, several
                addresses of which are joined by commas.
            index_options: of a server's index: shards, replicas, quantization, timeouts and others, by the names of
                `acebert.catalog.indexes.connection.ServerOptions`.
            batch_size: products in a forward pass.
            num_workers: processes that read and cut photos.
            on_bad_row: "skip" lists bad rows in `bad_rows.jsonl` and goes on without them; a product with a broken
                photo is kept by its other photos or by its title, though.
            overwrite: replace what is in `path`. A catalogue there, and its collection on a server, stay in use until
                the new ones are complete.
            group_column: the attribute that the variants of a product share, as their parent's id; it is kept with the
                catalogue's settings.
            max_images: photos of a product to read, the first that are there, here and by `upsert`. Their mean stands
                for them (`mean_photo` in `modeling_acebert.py`).

        Returns:
            The catalogue; None on processes other than the main one.

        Raises:
            FileExistsError: where `path` holds a catalogue already, or an unfinished one of something else; or where
                the name on the server is another's.
            IndexUnavailableError, PermissionError: where the server can't be reached, or wants a key. It is asked
                before the first photo is read.
            ValueError: for a bad column, or a bad row where `on_bad_row` is "raise", naming row, id, field and remedy.
        """
        options = BuildOptions(
            id_column,
            title_column,
            image_column,
            attribute_columns,
            sides,
            photo_size,
            index,
            dict(index_options or {}),
            batch_size,
            num_workers,
            on_bad_row,
            overwrite,
            group_column,
            max_images,
        )
        if not build_catalog(Encoder(model, processor), dataset, Path(path), options):
            return None
        catalog = cls.load(path, model, processor, index_options=index_options)
        catalog.calibrate()
        return catalog

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        model: PreTrainedModel | None = None,
        processor: ProcessorMixin | None = None,
        *,
        revision: str | None = None,
        read_only: bool = False,
        shared: bool = False,
        index_options: Mapping[str, Any] | None = None,
    ) -> "ProductCatalog":
        """Opens a catalogue. Changes that a killed process left out of the index are applied to it.

        Args:
            path: its folder, or the id of a dataset repository on the Hub, which is opened read-only.
            model: what encodes queries; it has to be the one that made the catalogue. Without it the catalogue can
                be searched by vectors and by products, and products can be deleted.
            processor: the model's.
            revision: of the repository on the Hub.
            read_only: search only, in any number of processes at once: by an exact index in memory, or by the server's.
            shared: search and change it in any number of processes at once, all of which open it so, by an exact index
                in memory or by the server's. A change keeps the others from changing only while it is written;
                `refresh` brings in what they changed. Such a catalogue can't be optimized.
            index_options: for this process, on top of those it was built with: `timeout`, `retries`, `api_key`.

        Raises:
            FileNotFoundError: where there is no catalogue.
            IndexUnavailableError, PermissionError: where its server can't be reached, or wants a key.
            RuntimeError: where another process has it open for changes.
            ValueError: where another model or processor made it.
        """
        if (model is None) != (processor is None):
            raise ValueError("Give the model and its processor, or neither.")
        if read_only and shared:
            raise ValueError("A catalogue is read_only, or shared by processes that change it, not both.")
        folder = Path(path)
        if not folder.is_dir() and len(folder.parts) == 2 and not folder.is_absolute():
            try:
                folder = Path(snapshot_download(os.fspath(path), repo_type="dataset", revision=revision))
            except (OSError, HfHubHTTPError) as error:
                raise FileNotFoundError(
                    f"{path} is no folder here, and no dataset repository on the Hub that could be read: {error}"
                ) from error
            read_only = True
        if not folder.exists():
            finish_replacing(folder)
        if (folder / "building.json").exists():
            raise FileNotFoundError(f"{path} is an unfinished catalogue: call ProductCatalog.build again, it goes on.")
        store = ProductStore(folder)
        encoder = None
        if model is not None:
            encoder = Encoder(model, processor)
            _check_same_model(store.settings.model, encoder.describe(), path)
        lock = None
        if shared:
            lock = FileLock(folder / "lock", timeout=SHARED_WAIT, thread_local=False, poll_interval=0.01)
        elif not read_only:
            lock = FileLock(folder / "lock", timeout=0, thread_local=False)
            try:
                lock.acquire()
            except Timeout:
                raise RuntimeError(
                    f"Another process has {path} open for changes: close it there, or pass read_only=True."
                ) from None
            store.remove_leftovers()
        catalog = cls(store, encoder, lock, shared)
        try:
            catalog._live.open(index_options)
        except BaseException:
            catalog._live.abandon()
            raise
        return catalog

    def close(self) -> None:
        """Flushes and gives the folder free for other processes. What is closed stays closed."""
        self._live.close()

    @property
    def _index(self) -> CatalogIndex:
        return self._live.index

    @property
    def _store(self) -> ProductStore:
        return self._live.store

    def __enter__(self) -> "ProductCatalog":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------------------
    # Reading
    # ------------------------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        return self._store.settings

    @property
    def path(self) -> Path:
        return self._store.path

    @property
    def encoder(self) -> Encoder | None:
        """The model and the processor; None for a catalogue that was opened without them."""
        return self._encoder

    @property
    def attributes(self) -> dict[str, str]:
        """Each attribute's type: "string", "integer", "number", "boolean", "strings" or "date"."""
        return self._store.settings.attributes

    def __len__(self) -> int:
        return self._index.count()

    def __contains__(self, product_id: Any) -> bool:
        return self.get(product_id) is not None

    def get(self, product_id: Any) -> Product | None:
        """A product by its id, None if there is none."""
        (match,) = self._index.get([self._key(product_id)])
        return None if match is None else to_product(match)

    def photo(self, product: Product) -> bytes | None:
        """A product's first photo as an encoded image file; None where it has none, or photos weren't kept."""
        try:
            return self._store.read_photos([product.location])[0]
        except FileNotFoundError:  # the files were merged since the product was read
            current = self.get(product.id)
            return None if current is None else self._store.read_photos([current.location])[0]

    def photos(self, product: Product) -> list[bytes]:
        """All of a product's photos as encoded image files, as far as they were kept; none where it has none."""
        try:
            return self._store.read_all_photos(product.location)
        except FileNotFoundError:
            current = self.get(product.id)
            return [] if current is None else self._store.read_all_photos(current.location)

    def count(self, filters: Mapping[str, Any] | None = None) -> int:
        """How many products match the filters."""
        return self._index.count(self._where(filters))

    def count_groups(
        self, filters: Mapping[str, Any] | None = None, group_by: str | Literal[False] | None = None
    ) -> int | None:
        """How many groups, as a search makes them, have a product that matches; None where nothing is grouped."""
        by = self._group_by(group_by)
        return None if by is None else self._index.count(self._where(filters), by)

    def sample(self, count: int, seed: int = 0) -> tuple[list[Product], np.ndarray]:
        """Products drawn at random, the same for the same seed as long as nothing changes.

        Returns:
            The products, fewer than `count` only where there are fewer, and (products, dim) float32 of their vectors.
        """
        keys = [to_key(product_id) for product_id in self._store.read_ids()]
        matches: list[Match] = []
        order = np.random.default_rng(seed).permutation(len(keys))
        for start in range(0, len(keys), max(count, 1)):
            if len(matches) >= count:
                break
            drawn = [keys[i] for i in order[start : start + count]]
            matches += [match for match in self._index.get(drawn, with_vectors=["product"]) if match is not None]
        matches = matches[:count]
        vectors = [match.vectors["product"] for match in matches]
        return [to_product(match) for match in matches], np.array(vectors).reshape(-1, self.settings.dim)

    def facets(
        self,
        name: str,
        filters: Mapping[str, Any] | None = None,
        limit: int = 100,
        group_by: str | Literal[False] | None = None,
    ) -> dict[Any, int]:
        """An attribute's values and how many products, or groups as a search makes them, have each.

        The most frequent values come first.
        """
        if name not in self.attributes:
            raise ValueError(f"There is no attribute {name!r}: there are {list(self.attributes)}.")
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}.")
        where, by = self._where(filters), self._group_by(group_by)
        return self._index.facets(name, where, limit, by)

    def _where(self, filters: Mapping[str, Any] | None) -> Filter | None:
        return self._searcher.where(self._index, filters)

    def _group_by(self, group_by: str | Literal[False] | None) -> str | None:
        """What products are grouped by: as asked, or as the catalogue was built."""
        by = self.settings.group if group_by is None else group_by or None
        if by is not None:
            check_group(by, self.attributes)
        return by

    def search(
        self,
        text: str | Sequence[str] | None = None,
        image: Photo | Sequence[Photo] | None = None,
        *,
        like: Any = None,
        vector: np.ndarray | None = None,
        top_k: int = 10,
        offset: int = 0,
        filters: Mapping[str, Any] | None = None,
        using: Literal["product", "title", "image", "words"] = "product",
        exact_words: bool = True,
        correct: bool = True,
        understand: bool = True,
        expand: bool = True,
        as_words: Collection[str] = (),
        group_by: str | Literal[False] | None = None,
        min_score: float | None = None,
        sort_by: str | None = None,
        boosts: Mapping[str, Boost | float] | None = None,
    ) -> Results | list[Results]:
        """Finds products by words, by a photo, by both (the mean of their vectors), or by another product.

        Args:
            text: a query, or several.
            image: a photo as the processor takes it, or several queries; with texts, as many as those. A query may be
                a list of photos of one thing: `image=[[front, back]]`.
            like: the id of a product to find more like; neither it nor its group is among the hits.
            vector: (dim,) or (queries, dim) unit vectors, encoded elsewhere.
            top_k: hits wanted. There are fewer only where fewer products match the filters.
            offset: hits to pass over, for the pages after the first.
            filters: attribute to a value, a list of values, or a tuple of a range's ends (None for an open one); with
                "$or", "$and", "$not" around them. See `acebert.catalog.filters`.
            using: which of the vectors to compare with, or "words" for BM25 on the titles alone, without vectors.
            exact_words: rank products higher that have the query's words in their titles or names, the more the rarer
                a word is, and part numbers first (`acebert.catalog.exact_words`). False ranks by vectors alone.
            correct: replace words that neither the catalogue nor the model knows by the catalogue's nearest.
            understand: read prices, exclusions, sizes and attribute values in the text as filters and boosts.
            expand: search also for what the catalogue says in place of a word that it hardly says: "umbrella" where a
                query says "brolly" (`acebert.catalog.thesaurus`; English alone). Not where there is a photo as well.
            as_words: parts of the text to leave as typed: the `words` of a chip that a shopper took away, or a
                word that was corrected or expanded.
            group_by: attribute of which each value is one hit, its best product; by default the catalogue's own, if it
                has one. False doesn't group.
            min_score: confidence in [0, 1] that a hit needs: the share of meaningless queries whose best hit scores
                lower (`acebert.catalog.calibration`).
            sort_by: an attribute of numbers or dates to sort by, "-price" from high to low; products that lack it come
                last. Sorted are the best 1,000 matches with at least half of the best score or all exact words.
            boosts: attribute to what it adds to the score (`acebert.catalog.boosts`).

        Returns:
            The hits, best first, with what became of the query ([`Results`]); a list of them where several were given.

        Raises:
            ValueError: for a bad argument, naming it; or where the catalogue lacks the vectors that `using` names.
            KeyError: where `like` is no product's id.
        """
        texts, images, vectors, single = read_queries(text, image, like, vector, self.settings.dim)
        options = Options(
            top_k=top_k,
            offset=offset,
            filters=filters,
            using=using,
            exact_words=exact_words,
            correct=correct,
            understand=understand,
            expand=expand,
            as_words=as_words,
            group_by=self._group_by(group_by),
            min_score=min_score,
            sort_by=sort_by,
            boosts=check_boosts(boosts, self.attributes),
        ).check(self.settings)
        index, searcher = self._index, self._searcher
        if using == "words":
            if texts is None or images is not None:
                raise ValueError("using='words' looks at the titles alone: give a text, and leave image out.")
            found = searcher.by_words(index, texts, options)
        elif like is not None:
            found = [searcher.like(index, self._key(like), like, options)]
        elif vectors is not None:
            found = searcher.by_vectors(index, vectors, options)
        else:
            found = searcher.by_queries(index, texts, images, options)
        return found[0] if single else found

    def encode_queries(self, texts: Sequence[str] | None = None, images: Sequence[Photo] | None = None) -> np.ndarray:
        """(queries, dim) float32 unit vectors of words, of photos, or of the mean of both: for `search(vector=...)`."""
        return self._searcher.encode(texts, images)

    def _key(self, product_id: Any) -> str:
        return to_key(check_id(product_id, self.settings.id_type))

    # ------------------------------------------------------------------------------------------------------------------
    # Changing
    # ------------------------------------------------------------------------------------------------------------------

    def upsert(self, products: Iterable[Mapping[str, Any]]) -> int:
        """Adds products, or replaces those whose ids are there. When it returns, they are on the disk and found.

        Args:
            products: each with an "id", a "title" or an "image" (or a list of images) or both, and any of the
                catalogue's attributes.

        Returns:
            How many there were.

        Raises:
            ValueError: for a bad product, naming it, the field and the remedy. None of them is then taken.
            ChangeKeptError: where the index is on a server that can't be reached. The change is on the disk, and is
                applied when the server answers again.
        """
        self._live.check_writable()
        products = list(products)
        if self._encoder is None:
            raise ValueError(f"To add products, load the catalogue with its model: {self.settings.model['name']!r}.")
        new = check_new_products(products, self.settings)
        if not products:
            return 0
        encoded = self._encode_new(new)
        with self._live.alone():
            self._store.append_upsert(encoded)
            self._live.apply_kept()
        return len(products)

    def _encode_new(self, new: NewProducts) -> Products:
        assert self._encoder is not None, "upsert checks it"
        vectors: dict[str, list[np.ndarray]] = {name: [] for name in self.settings.vectors}
        for start in range(0, len(new.ids), ENCODE_BATCH):
            part = slice(start, start + ENCODE_BATCH)
            try:
                encoded = self._encoder.encode_products(new.titles[part], new.photos[part], self.settings.vectors)
            except ValueError:
                for position, title in list(enumerate(new.titles))[part]:
                    if title and (error := find_title_error(self._encoder.processor, title)):
                        named = f"product {position} (id {new.ids[position]!r})"
                        raise ValueError(f"{named}: title {error}.") from None
                raise
            for name, array in encoded.items():
                vectors[name].append(array)
        photos = [keep_photos(photo, self.settings.photo_size) for photo in new.photos]
        arrays = {name: np.concatenate(parts) for name, parts in vectors.items()}
        return Products(new.ids, new.titles, photos, new.attributes, arrays)

    def delete(self, ids: Iterable[Any]) -> int:
        """Removes products. Returns how many of the ids were there.

        Raises:
            ChangeKeptError: as `upsert`.
        """
        self._live.check_writable()
        ids = list(dict.fromkeys(ids))
        keys = [self._key(product_id) for product_id in ids]
        with self._live.alone():
            try:
                self._live.apply()  # an upsert that the index missed may be of one of these
                there = [product_id for product_id, match in zip(ids, self._index.get(keys), strict=True) if match]
            except UNREACHABLE:
                there = ids  # to delete what isn't there makes no difference
            if there:
                self._store.append_delete(there)
                self._live.apply_kept()
        return len(there)

    def update_attributes(self, values: Mapping[Any, Mapping[str, Any]]) -> None:
        """Sets attributes of products without encoding them again.

        Args:
            values: product id to attribute to value; None takes the value away.

        Raises:
            KeyError: for ids that aren't there. Nothing is then changed.
            ValueError: for an unknown attribute, a value of another type, or anything but products by their ids.
            IndexUnavailableError: where the server can't say which products there are. Nothing is then changed.
            ChangeKeptError: as `upsert`.
        """
        self._live.check_writable()
        if not isinstance(values, Mapping) or not all(isinstance(row, Mapping) for row in values.values()):
            raise ValueError(
                'update_attributes takes a dict of ids to attributes, as {7: {"price": 9.5}}, '
                f"got {cut(repr(values))}."
            )
        checked = {
            product_id: check_values(row, self.settings, f"product {product_id!r}")
            for product_id, row in values.items()
        }
        keys = [self._key(product_id) for product_id in checked]
        with self._live.alone():
            try:
                self._live.apply()
                found = self._index.get(keys)
            except UNREACHABLE as error:
                raise type(error)(f"No attribute was changed, for the products can't be looked up. {error}") from error
            missing = [i for i, match in zip(checked, found, strict=True) if match is None]
            if missing:
                raise KeyError(f"There are no products with the ids {missing[:10]}.")
            if checked:
                self._store.append_attributes(list(checked), list(checked.values()))
                self._live.apply_kept()

    def optimize(self) -> None:
        """Merges all changes into the products' files and makes the index anew, beyond 300,000 products by HNSW.

        A child process does the work, since the engine's optimizer stops every thread of its own. Searches and changes
        go on meanwhile; at the end changes wait until the new index has taken those made in between.

        Raises:
            RuntimeError: if it runs already, or the child fails; the catalogue is then as before.
        """
        self._live.optimize()
        self.calibrate()

    def calibrate(self) -> None:
        """Makes ready by what searches tell that nothing fits, so that no shopper waits for it.

        It is kept in the folder, and takes a second or two where it isn't there yet or a fifth of the products has
        changed since. A search does it, too, when it needs it.
        """
        self._searcher.calibration(self._index, "product")

    def flush(self) -> None:
        """Writes the index out, so that the next start after a kill is as quick as after a close."""
        self._live.flush()

    def refresh(self) -> None:
        """Brings into a shared catalogue what other processes have changed; with nothing changed it takes microseconds.

        The next search then sees every change that had returned anywhere. On a server it does without being called.
        """
        self._live.refresh()


# ----------------------------------------------------------------------------------------------------------------------
# Helpers
# ----------------------------------------------------------------------------------------------------------------------


def _check_same_model(made_by: Mapping[str, Any], given: Mapping[str, Any], path: Any) -> None:
    # Of the weights those of the product side: another query side finds the same vectors.
    for name in ("product_weights_sha256", "processor_sha256"):
        if made_by[name] != given[name]:
            part = name.removesuffix("_sha256").replace("_", " ")
            raise ValueError(
                f"The {part} of {given['name']!r} (sha256 {given[name][:12]}) did not make the catalogue "
                f"{path}, but those of {made_by['name']!r}, revision {made_by['revision']!r}, did (sha256 "
                f"{made_by[name][:12]}): load it with that model, or build it again with this one."
            )
