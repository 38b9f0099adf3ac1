"""What to compare with: lexical search, text embeddings as they are and adapted, fused rankings, raw pixels.

A baseline on titles is built on the titles of the products to rank and has `score(queries)`, which returns a (queries,
products) tensor. A product that it doesn't retrieve scores -inf.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from tqdm.auto import tqdm

from acebert.data.cleaning import as_photos
from acebert.data.grouping import hash_text
from acebert.data.pairs import PairDataset
from acebert.losses_acebert import find_positives, info_nce_loss
from acebert.utils.ranking import reciprocal_rank_fusion

# ----------------------------------------------------------------------------------------------------------------------
# Text embeddings
# ----------------------------------------------------------------------------------------------------------------------


class TextEncoder:
    """A sentence-transformers model that encodes every text once.

    Args:
        model_name_or_path: folder or Hub id of the model.
        device: where the model runs.
        batch_size: texts per forward pass.
    """

    def __init__(self, model_name_or_path: str, device: torch.device, batch_size: int = 64):
        # Here, because the import takes seconds, and BM25 alone doesn't need it.
        from sentence_transformers import SentenceTransformer

        self.name_or_path = model_name_or_path
        self.model = SentenceTransformer(model_name_or_path, device=str(device), model_kwargs={"use_safetensors": True})
        self.batch_size = batch_size
        self.embeds: dict[str, dict[str, torch.Tensor]] = {"query": {}, "document": {}}

    def encode(self, texts: Sequence[str], side: str) -> torch.Tensor:
        """Unit vectors (texts, width) in float32 on the CPU; `side` is "query" or "document"."""
        known = self.embeds[side]
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            encode = self.model.encode_query if side == "query" else self.model.encode_document
            options = {"batch_size": self.batch_size, "normalize_embeddings": True, "convert_to_tensor": True}
            vectors = encode(new, show_progress_bar=len(new) > 1000, **options).float().cpu()
            known.update(zip(new, vectors, strict=True))
        return torch.stack([known[text] for text in texts])


class ResidualAdapter(nn.Module):
    """A two-layer perceptron on top of frozen unit vectors, added to them: (..., width) to unit vectors (..., width).

    It starts as the identity, so training can only move away from the frozen encoder for a reason.
    """

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return F.normalize(vectors + self.layers(vectors), dim=-1)


class TextAdapters:
    """Adapters for queries and for titles, trained on the queries that ACE-BERT is trained on, photos left out.

    It tells how much of ACE-BERT's lead is training on the shop's own queries, which a text model can have for a
    minute of work on a CPU.

    Args:
        encoder: frozen.
        pairs: training queries and titles. Queries that are titles are left out: they would match by equal words.
        num_epochs, batch_size, learning_rate: AdamW, the rate falling linearly to 0. A small catalogue is one batch.
        seed: of the order and, with `pairs`, of the queries.

    Raises:
        ValueError: if fewer than two products have a title and a query.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        pairs: PairDataset,
        num_epochs: int = 10,
        batch_size: int = 512,
        learning_rate: float = 1e-3,
        seed: int = 0,
    ):
        self.num_epochs, self.learning_rate = num_epochs, learning_rate
        titled = {row: title for row, title in enumerate(pairs.titles) if title}
        rows = [row for row in titled if pairs.make_query(row, pairs.rng(row))]
        if len(rows) < 2:
            raise ValueError(
                f"{len(rows)} training products have a title and a query, too few for the text baseline's adapters: "
                "correct --train_split or --query_templates, or leave the adapters out with --no_text_adapters."
            )
        self.batch_size = batch_size = min(batch_size, len(rows))
        title_embeds = encoder.encode([titled[row] for row in rows], "document")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.query_adapter = ResidualAdapter(title_embeds.shape[1])
            self.title_adapter = ResidualAdapter(title_embeds.shape[1])
        log_scale = nn.Parameter(torch.tensor(20.0).log())
        parameters = [*self.query_adapter.parameters(), *self.title_adapter.parameters(), log_scale]
        optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
        num_steps = num_epochs * (len(rows) // batch_size)
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=num_steps)
        progress = tqdm(total=num_steps, desc="text adapters")
        for epoch in range(num_epochs):
            pairs.set_epoch(epoch)
            made = [query for row in rows if (query := pairs.make_query(row, pairs.rng(row)))]
            query_embeds = encoder.encode([query for query, _ in made], "query")
            query_ids = torch.tensor([hash_text(query) for query, _ in made])
            asked = torch.from_numpy(
                np.stack([pairs.asked_codes(row, stated) for row, (_, stated) in zip(rows, made, strict=True)])
            )
            order = torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(len(rows)))
            for batch in order[: len(rows) // batch_size * batch_size].split(batch_size):
                chosen = np.array(rows)[batch]
                positives = find_positives(
                    product_ids=torch.from_numpy(pairs.groups[chosen]),
                    query_ids=query_ids[batch],
                    product_attributes=torch.from_numpy(pairs.codes[chosen]),
                    query_attributes=asked[batch],
                )
                queries, titles = self.query_adapter(query_embeds[batch]), self.title_adapter(title_embeds[batch])
                loss = info_nce_loss(queries, titles, log_scale.clamp(max=4.6).exp(), positives)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                progress.update()
            progress.set_postfix(loss=f"{loss.item():.3f}")
        progress.close()


class TextEncoderBaseline:
    """Cosine similarity of query and title under a text encoder, with adapters or without.

    Args:
        encoder: the text encoder.
        titles: one per product; None for a product without a title, which is never retrieved.
        adapters: put on top of the encoder's vectors.
        name: as in the report; that of the class by default.
    """

    name = "Text embeddings (titles)"
    adapted_name = "Text embeddings, adapted (titles)"

    def __init__(
        self,
        encoder: TextEncoder,
        titles: Sequence[str | None],
        adapters: TextAdapters | None = None,
        name: str | None = None,
    ):
        self.encoder, self.adapters = encoder, adapters
        self.missing = torch.tensor([title is None for title in titles])
        with torch.no_grad():
            embeds = encoder.encode([title or "" for title in titles], "document")
            self.title_embeds = adapters.title_adapter(embeds) if adapters else embeds
        self.description = f"cosine similarity of query and title under `{encoder.name_or_path}`"
        self.name = name or (self.adapted_name if adapters else self.name)
        if adapters:
            self.description = (
                f"`{encoder.name_or_path}`, frozen, under two residual adapters trained on ACE-BERT's own template "
                f"queries and training titles: {adapters.num_epochs} epochs, batches of {adapters.batch_size}, "
                f"learning rate {adapters.learning_rate:g}, InfoNCE with the same masking of false negatives"
            )

    @torch.no_grad()
    def score(self, queries: Sequence[str]) -> torch.Tensor:
        """Scores (queries, products) in [-1, 1]."""
        query_embeds = self.encoder.encode(list(queries), "query")
        if self.adapters:
            query_embeds = self.adapters.query_adapter(query_embeds)
        scores = query_embeds @ self.title_embeds.T
        scores[:, self.missing] = -torch.inf
        return scores


# ----------------------------------------------------------------------------------------------------------------------
# Fusion
# ----------------------------------------------------------------------------------------------------------------------


def fuse_rankings(*scores: torch.Tensor) -> torch.Tensor:
    """Joins several rankings by [`reciprocal_rank_fusion`].

    Args:
        scores: each (queries, products); -inf for products that a ranking doesn't hold, which add nothing.

    Returns:
        (queries, products); -inf for products that no ranking holds.
    """
    ranks = []
    for part in scores:
        order = part.argsort(dim=1, descending=True, stable=True)
        counted = torch.arange(1, part.shape[1] + 1, dtype=part.dtype).expand_as(order)
        placed = torch.empty_like(part).scatter_(1, order, counted)
        ranks.append(placed.masked_fill(part == -torch.inf, torch.inf))
    fused = reciprocal_rank_fusion(ranks)
    return fused.masked_fill(fused == 0, -torch.inf)


# ----------------------------------------------------------------------------------------------------------------------
# Pixels
# ----------------------------------------------------------------------------------------------------------------------


def raw_patch_vectors(photos: Sequence[Any | None], image_processor: Any, side: int = 16) -> torch.Tensor:
    """What the image processor makes of each photo, cropped to its object, on a fixed grid of pixels.

    Args:
        photos: as the processor takes them, of several the first counts; None for a product without one.
        image_processor: of the checkpoint.
        side: pixels of the grid each way.

    Returns:
        (photos, 3 · side²), values in [0, 1]; 0 without a photo.
    """
    vectors = torch.zeros(len(photos), 3 * side * side)
    photos = [next(iter(as_photos(photo)), None) for photo in photos]
    inputs = image_processor(photos, return_tensors="np")
    for i, photo in enumerate(photos):
        if photo is not None:
            parts = (inputs[name][i] for name in ("pixel_values", "pixel_position_ids", "pixel_attention_mask"))
            seen = image_processor.patches_to_image(*parts, inputs["spatial_shapes"][i])
            seen = seen.resize((side, side), Image.Resampling.BOX)
            vectors[i] = torch.from_numpy(np.asarray(seen, dtype=np.float32).ravel() / 255)
    return vectors
