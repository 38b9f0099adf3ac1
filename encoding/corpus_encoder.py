"""Products and queries to vectors: by all processes, each once, and kept on disk so that a second run starts there."""

import hashlib
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

from acebert.data.batching import POOL, split_by_length
from acebert.data.cleaning import SKIP
from acebert.data.collators import MEND_QUERY, process_named
from acebert.data.corpus import Catalog
from acebert.data.workers import worker_options
from acebert.utils.files import UNFINISHED, flush, writing
from acebert.utils.fingerprints import code_sha256, product_weights_sha256

SHARD = 1024  # products encoded between two saves


def collate_products(
    rows: list[int], catalog: Catalog, processor: ProcessorMixin, sides: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Model inputs of some of the catalogue's rows, with their numbers under "rows"."""
    fields = {}
    if "title" in sides:
        fields["titles"] = [catalog.titles[row] for row in rows]
    if "image" in sides:
        fields["images"] = catalog.read_photos(rows)
    named = [f"The product {catalog.ids[row]!r}" for row in rows]
    return {"rows": torch.tensor(rows), **process_named(processor.process_products, named, SKIP, **fields)}


def collate_queries(rows: list[int], queries: Sequence[str], processor: ProcessorMixin) -> dict[str, torch.Tensor]:
    """Model inputs of some of the queries, with their numbers under "rows"."""
    texts = [queries[row] for row in rows]
    named = [f"The query {text!r}" for text in texts]
    inputs = process_named(processor.process_queries, named, MEND_QUERY, queries=texts)
    return {"rows": torch.tensor(rows), **inputs}


def collate_batches(rows: list[int], collate: Callable[[list[int]], dict[str, Any]], batch_size: int) -> dict[str, Any]:
    """Inputs of several batches under "batches", each of items of about equal length; "rows" are in their order."""
    inputs = collate(rows)
    numbers = inputs.pop("rows")
    parts, batches = zip(*split_by_length(inputs, batch_size), strict=True)
    return {"rows": numbers[torch.cat(parts)], "batches": list(batches)}


class Encoder:
    """A model and its processor that encode by all processes.

    Args:
        model: an `AceBertModel` on the accelerator's device.
        processor: the model's.
        accelerator: shares the work; its mixed precision is that of the vectors.
        cache: folder for product vectors.
        name: of the model, for the progress bar.
        batch_size: queries or products per process and forward pass; some of these are read at a time.
        num_workers: processes that read and cut photos.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        accelerator: Accelerator,
        cache: Path,
        name: str,
        batch_size: int = 64,
        num_workers: int = 0,
    ):
        self.model, self.processor, self.accelerator, self.cache = model, processor, accelerator, cache
        self.name, self.batch_size, self.num_workers = name, batch_size, num_workers

    @classmethod
    def from_pretrained(
        cls, name_or_path: str, accelerator: Accelerator, cache: Path, revision: str | None = None, **settings: int
    ) -> "Encoder":
        """Of a folder or a Hub id, loaded as any user of the Hub loads it; `settings` are batch size and workers."""
        options = {"revision": revision, "trust_remote_code": True}
        processor = AutoProcessor.from_pretrained(name_or_path, **options)
        # Half precision is the accelerator's to choose, whatever the weights are saved in.
        model = AutoModel.from_pretrained(name_or_path, dtype=torch.float32, use_safetensors=True, **options)
        name = os.path.basename(os.path.abspath(name_or_path))
        return cls(model.to(accelerator.device).eval(), processor, accelerator, cache, name, **settings)

    @torch.inference_mode()
    def encode(
        self, features: Callable[..., Any], collate: Callable[[list[int]], dict[str, torch.Tensor]], items: list[int]
    ) -> torch.Tensor:
        """Encodes items, in batches of near ones, and returns (items, projection_dim) float32 on every process."""
        share = math.ceil(len(items) / self.accelerator.num_processes)
        loader = DataLoader(
            items,
            batch_size=min(POOL * self.batch_size, share),
            collate_fn=partial(collate_batches, collate=collate, batch_size=self.batch_size),
            **worker_options(self.num_workers),
        )
        # Not by `accelerator.prepare`, which would make this loader a part of a training run's checkpoints.
        accelerator = self.accelerator
        loader = prepare_data_loader(
            loader, accelerator.device, accelerator.num_processes, accelerator.process_index, put_on_device=True
        )
        rows: list[int] = []
        vectors: list[torch.Tensor] = []
        for pool in loader:
            with self.accelerator.autocast():
                encoded = [features(**batch).pooler_output.float() for batch in pool["batches"]]
            gathered_rows, gathered_vectors = self.accelerator.gather((pool["rows"], torch.cat(encoded)))
            rows += gathered_rows.tolist()
            vectors.append(gathered_vectors.cpu())
        # The last pool may repeat items to fill every process: any of an item's places will do.
        place = {row: number for number, row in enumerate(rows)}
        return torch.cat(vectors)[[place[item] for item in items]]

    def queries(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Query vectors by text."""
        collate = partial(collate_queries, queries=texts, processor=self.processor)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]), reverse=True)
        vectors = self.encode(self.model.get_text_features, collate, order)
        return {texts[row]: vector for row, vector in zip(order, vectors, strict=True)}

    def products(self, catalog: Catalog, sides: Sequence[str]) -> torch.Tensor:
        """Product vectors, from the cache as far as they are there.

        They are encoded in shards of about equally long titles, the longest first, so that a batch that is too large
        for the memory fails at once. Each shard is saved when it is done.

        Args:
            catalog: the products.
            sides: what the model sees of them, "title", "image" or both.

        Returns:
            (products, projection_dim) float32 on the main process, 0 for products that have none of the sides; an
            empty tensor on the others.
        """
        items = np.flatnonzero(catalog.shows(sides)).tolist()
        if not items:
            raise ValueError(f"No product of {catalog.name} has any of: {', '.join(sides)}.")
        lengths = [len(catalog.titles[row] or "") if "title" in sides else 0 for row in items]
        items = [items[i] for i in np.argsort(lengths, kind="stable")[::-1]]
        shards = [items[start : start + SHARD] for start in range(0, len(items), SHARD)]
        folder = self._cache_folder(catalog, sides)
        paths = [folder / f"{number:05d}-of-{len(shards):05d}.npy" for number in range(len(shards))]
        # The main process looks, so that all do the same even where they don't share a disk.
        missing = broadcast_object_list([[n for n, path in enumerate(paths) if not path.exists()]])[0]
        collate = partial(collate_products, catalog=catalog, processor=self.processor, sides=sides)
        shown = f"{self.name}: {' + '.join(sides)} of {catalog.name}"
        quiet = not missing or not self.accelerator.is_main_process
        for number in tqdm(missing, desc=shown, unit="shard", disable=quiet):
            vectors = self.encode(self.model.get_product_features, collate, shards[number])
            if self.accelerator.is_main_process:
                unfinished = paths[number].with_name(paths[number].name + UNFINISHED)
                with writing("Product vectors", str(folder), unfinished):
                    with open(unfinished, "wb") as file:
                        np.save(file, vectors.numpy())
                    flush(unfinished)
                    unfinished.replace(paths[number])
        if not self.accelerator.is_main_process:
            return torch.empty(0)
        embeds = torch.zeros(len(catalog), self.model.config.projection_dim)
        for path, shard in zip(paths, shards, strict=True):
            try:
                embeds[shard] = torch.from_numpy(np.load(path))
            except (ValueError, EOFError, RuntimeError) as error:
                raise ValueError(
                    f"{path} can't be read: {error}. Remove it; the same command makes it anew."
                ) from error
        return embeds

    def _cache_folder(self, catalog: Catalog, sides: Sequence[str]) -> Path:
        """A folder for exactly these vectors: other product weights, code, products or precision have another."""
        key = {
            "product weights": product_weights_sha256(self.model, exact=True),
            "code": code_sha256(self.model, self.processor, self.processor.image_processor),
            "processor": self.processor.to_json_string(),
            "ids and titles": catalog.sha256 if "title" in sides else None,
            "photos": catalog.photos_sha256 if "image" in sides else None,
            "sides": list(sides),
            "precision": self.accelerator.mixed_precision,
        }
        text = json.dumps(key, indent=2)
        folder = self.cache / hashlib.sha256(text.encode()).hexdigest()[:16]
        if self.accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "key.json").write_text(text + "\n", encoding="utf-8")
        return folder
