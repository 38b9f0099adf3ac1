"""Products and queries to vectors by all processes, with a cache on disk that a later or resumed run starts from."""

import json
import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoModel, AutoProcessor, PreTrainedModel, ProcessorMixin

from acebert.data.batching import PREFETCH_BATCHES, split_by_length
from acebert.data.cleaning import SKIP
from acebert.data.collators import FIX_QUERY, process_named
from acebert.data.corpus import Corpus
from acebert.data.workers import worker_options
from acebert.encoding.encoder import encode_batches
from acebert.image_processing_acebert import RAW_PATCHES
from acebert.modeling_acebert import join_sides
from acebert.utils.files import atomic_write, writing
from acebert.utils.fingerprints import code_sha256, json_sha256, product_weights_sha256

SHARD = 1024  # products in a file of the cache
LONG = 16  # loads of a few batches each, from which on a progress bar is shown


def collate_products(
    rows: list[int], corpus: Corpus, processor: ProcessorMixin, modalities: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Model inputs of some of the corpus's rows."""
    fields = {}
    if "title" in modalities:
        fields["titles"] = [corpus.titles[row] for row in rows]
    if "image" in modalities:
        fields["images"] = corpus.read_photos(rows)
    named = [f"The product {corpus.ids[row]!r}" for row in rows]
    process = partial(processor.process_products, **RAW_PATCHES)  # normalised on the device
    return process_named(process, named, SKIP, **fields)


def collate_queries(rows: list[int], queries: Sequence[str], processor: ProcessorMixin) -> dict[str, torch.Tensor]:
    """Model inputs of some of the queries."""
    texts = [queries[row] for row in rows]
    named = [f"The query {text!r}" for text in texts]
    return process_named(processor.process_queries, named, FIX_QUERY, queries=texts)


def collate_batches(
    items: list[int], collate: Callable[[list[int]], dict[str, torch.Tensor]], batch_size: int
) -> dict[str, Any]:
    """Some items, and their inputs in length-bucketed micro-batches under "batches"."""
    return {"items": torch.tensor(items), "batches": split_by_length(collate(items), batch_size)}


class CorpusEncoder:
    """A model and its processor that encode by all processes.

    Args:
        model: an `AceBertModel` on the accelerator's device.
        processor: the model's.
        accelerator: shares the work; its mixed precision is that of the vectors.
        cache: folder for product vectors; needed by [`CorpusEncoder.encode_products`] alone.
        name: of the model, for the progress bar.
        batch_size: queries or products per process and forward pass; a few of these are loaded at a time.
        num_workers: worker processes that read and cut photos.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        accelerator: Accelerator,
        cache: Path | None = None,
        name: str = "encoding",
        batch_size: int = 64,
        num_workers: int = 0,
    ):
        self.model, self.processor, self.accelerator, self.cache = model, processor, accelerator, cache
        self.name, self.batch_size, self.num_workers = name, batch_size, num_workers

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str,
        accelerator: Accelerator,
        cache: Path | None,
        revision: str | None = None,
        **settings: int,
    ) -> "CorpusEncoder":
        """Of a folder or a Hub id, loaded as any user of the Hub loads it; `settings` are batch size and workers."""
        options = {"revision": revision, "trust_remote_code": True}
        processor = AutoProcessor.from_pretrained(name_or_path, **options)
        # Half precision is the accelerator's to choose, whatever the weights are saved in.
        model = AutoModel.from_pretrained(name_or_path, dtype=torch.float32, use_safetensors=True, **options)
        name = os.path.basename(os.path.abspath(name_or_path))
        return cls(model.to(accelerator.device).eval(), processor, accelerator, cache, name, **settings)

    def encode(
        self, features: Callable[..., Any], collate: Callable[[list[int]], dict[str, torch.Tensor]], items: list[int]
    ) -> torch.Tensor:
        """Encodes items in length-bucketed micro-batches; every process takes a part of them.

        Args:
            features: of the model, from model inputs to an output with `pooler_output`: `get_text_features`,
                `get_product_features` or `get_image_features`.
            collate: from some of the items to their model inputs, in the loader's workers.
            items: numbers of queries or products, each once.

        Returns:
            (items, projection_dim) float32 in the items' order, on every process.
        """
        share = math.ceil(len(items) / self.accelerator.num_processes)
        loader = DataLoader(
            items,
            batch_size=min(PREFETCH_BATCHES * self.batch_size, share),
            collate_fn=partial(collate_batches, collate=collate, batch_size=self.batch_size),
            **worker_options(self.num_workers),
        )
        # Not by `accelerator.prepare`, which would make this loader a part of a training run's checkpoints.
        accelerator = self.accelerator
        loader = prepare_data_loader(
            loader, accelerator.device, accelerator.num_processes, accelerator.process_index, put_on_device=True
        )
        normalize = self.processor.image_processor.normalize_patches
        numbers: list[int] = []
        vectors: list[torch.Tensor] = []
        quiet = not accelerator.is_main_process or len(loader) < LONG
        for loaded in tqdm(loader, desc=self.name, unit="batch", leave=False, disable=quiet):
            with accelerator.autocast():
                encoded = encode_batches(
                    lambda inputs: features(**normalize(inputs)).pooler_output.float(), loaded["batches"]
                )
            gathered_numbers, gathered_vectors = accelerator.gather((loaded["items"], encoded))
            numbers += gathered_numbers.tolist()
            vectors.append(gathered_vectors.cpu())
        # The last batch may repeat items to fill every process: any of an item's places will do.
        place = {number: position for position, number in enumerate(numbers)}
        return torch.cat(vectors)[[place[item] for item in items]]

    def encode_queries(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Query vectors by text."""
        collate = partial(collate_queries, queries=texts, processor=self.processor)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]), reverse=True)
        vectors = self.encode(self.model.get_text_features, collate, order)
        return {texts[row]: vector for row, vector in zip(order, vectors, strict=True)}

    def encode_products(self, corpus: Corpus, modalities: Sequence[str]) -> torch.Tensor:
        """Product vectors, from the cache as far as it holds them.

        They are encoded in shards of about equally long titles, the longest first, so that a batch that is too large
        for the memory fails at once. Each shard is saved when it is complete. Where titles and photos have an encoder
        each, those of both are made of the vectors of either, so that nothing is encoded twice.

        Args:
            corpus: the products.
            modalities: what the model sees of them, "title", "image" or both.

        Returns:
            (products, projection_dim) float32 on the main process, 0 for products that have none of the modalities; an
            empty tensor on the others.
        """
        items = np.flatnonzero(corpus.shows(modalities)).tolist()
        if not items:
            raise ValueError(f"No product of {corpus.name} has any of: {', '.join(modalities)}.")
        if len(modalities) > 1 and self.model.config.vision_config is not None:
            return self._join(corpus)
        lengths = [len(corpus.titles[row] or "") if "title" in modalities else 0 for row in items]
        items = [items[i] for i in np.argsort(lengths, kind="stable")[::-1]]
        shards = [items[start : start + SHARD] for start in range(0, len(items), SHARD)]
        folder = self._cache_folder(corpus, modalities)
        paths = [folder / f"{number:05d}-of-{len(shards):05d}.npy" for number in range(len(shards))]
        # The main process looks, so that all do the same even where they don't share a disk.
        missing = broadcast_object_list([[n for n, path in enumerate(paths) if not path.exists()]])[0]
        collate = partial(collate_products, corpus=corpus, processor=self.processor, modalities=modalities)
        shown = f"{self.name}: {' + '.join(modalities)} of {corpus.name}"
        quiet = not missing or not self.accelerator.is_main_process
        for number in tqdm(missing, desc=shown, unit="shard", disable=quiet):
            vectors = self.encode(self.model.get_product_features, collate, shards[number])
            if self.accelerator.is_main_process:
                with writing("Product vectors", str(folder)):
                    atomic_write(paths[number], partial(np.save, arr=vectors.numpy()))
        if not self.accelerator.is_main_process:
            return torch.empty(0)
        embeds = torch.zeros(len(corpus), self.model.config.projection_dim)
        for path, shard in zip(paths, shards, strict=True):
            try:
                embeds[shard] = torch.from_numpy(np.load(path))
            except (ValueError, EOFError, RuntimeError) as error:
                raise ValueError(
                    f"{path} can't be read: {error}. Remove it; the same command then encodes these products again."
                ) from error
        return embeds

    def _join(self, corpus: Corpus) -> torch.Tensor:
        """Vectors of titles and photos, as `encode_products` returns them."""
        shown = {modality: corpus.shows((modality,)) for modality in ("title", "image")}
        title, image = (
            self.encode_products(corpus, (modality,))
            if has.any()
            else torch.zeros(len(corpus), self.model.config.projection_dim)
            for modality, has in shown.items()
        )
        if not self.accelerator.is_main_process:
            return torch.empty(0)
        return join_sides(title, image, self.model.config.image_weight, torch.from_numpy(shown["title"]))

    def _cache_folder(self, corpus: Corpus, modalities: Sequence[str]) -> Path:
        """A folder for exactly these vectors: other product weights, code, products or precision have another."""
        if self.cache is None:
            raise ValueError("A CorpusEncoder needs a `cache` folder to encode a corpus's products.")
        key = {
            "product weights": product_weights_sha256(self.model, exact=True),
            "code": code_sha256(self.model, self.processor, self.processor.image_processor),
            "processor": self.processor.to_json_string(),
            "ids and titles": corpus.sha256 if "title" in modalities else None,
            "photos": corpus.photos_sha256 if "image" in modalities else None,
            "sides": list(modalities),
            "precision": self.accelerator.mixed_precision,
        }
        folder = self.cache / json_sha256(key, indent=2)[:16]
        if self.accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            atomic_write(folder / "key.json", json.dumps(key, indent=2) + "\n")
        return folder
