"""Query-side fine-tuning: the query encoder alone, against the vectors of the whole catalogue.

The term is DensePhrases' (Lee et al. 2021, arXiv 2012.12624). Since the products' vectors stay as they are,
a catalogue that is encoded already needs no new encoding.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader

from acebert.data.collators import CPU_CHUNK, QueryCollator
from acebert.data.pairs import PairDataset, QueryDataset
from acebert.encoding.corpus_encoder import CorpusEncoder
from acebert.losses_acebert import matryoshka_answer_loss, modality_gap
from acebert.modeling_acebert import AceBertForRetrieval
from acebert.processing_acebert import AceBertProcessor
from acebert.training.arguments import QuerySideArguments
from acebert.training.catalog_negatives import CatalogNegatives
from acebert.training.loading import Model, load_checkpoint
from acebert.training.stages.base import Stage
from acebert.training.validation import capped_recall, mean_recalls


class QuerySideFinetuning(Stage[QuerySideArguments]):
    """Queries, contrasted with all products of the training split."""

    summary = "query-side fine-tuning: the query encoder alone, against the whole catalogue's frozen vectors"
    arguments = QuerySideArguments
    model_class = AceBertForRetrieval
    dataset_class = QueryDataset

    negatives: CatalogNegatives  # the products trained against
    ranked: CatalogNegatives  # those, and then the validation split's, which validation queries are drawn from

    def dataset_options(self, is_training: bool) -> dict[str, float]:
        args = self.args
        return {
            "title_query_probability": args.title_query_probability,
            "drop_title_probability": args.drop_title_probability,
            "drop_image_probability": args.drop_image_probability,
            "balanced_query_probability": args.balanced_query_probability if is_training else 0.0,
        }

    def make_collator(self, data: PairDataset, is_training: bool) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        return QueryCollator(self.processor, self.args.chunk_size or CPU_CHUNK)

    def load_model_and_processor(self) -> tuple[Model, AceBertProcessor]:
        model, processor = load_checkpoint(self.args, self.model_class)
        if model.config.share_encoders:
            raise SystemExit(
                f"{self.args.model_name_or_path} shares its encoders, so its queries can't be trained alone: train it "
                "by --stage finetune."
            )
        return model, processor

    def is_trainable(self, name: str) -> bool:
        return name.startswith("acebert.query_")

    def learning_rates(self) -> dict[str, float]:
        args = self.args
        return {"query_encoder.": args.query_learning_rate or args.learning_rate, "": args.head_learning_rate}

    def prepare(self, model: torch.nn.Module) -> None:
        """Encodes the catalogue once; the vectors are kept in `vectors/` of the run's folder."""
        args, accelerator = self.args, self.accelerator
        encoder = CorpusEncoder(
            accelerator.unwrap_model(model).eval().acebert,
            self.processor,
            accelerator,
            cache=Path(args.output_dir, "vectors"),
            name="encoding",
            batch_size=args.per_device_batch_size,
            num_workers=self.num_workers,
        )
        try:
            self.negatives = self.ranked = CatalogNegatives.encode(self.train_data, encoder, args.train_split)
            if self.validation_data is not None:
                held_out = CatalogNegatives.encode(self.validation_data, encoder, "the validation products")
                self.ranked = self.negatives.join(held_out)
                accelerator.print(
                    f"Validation ranks all {len(self.ranked.groups)} products: its figures are lower than "
                    "fine-tuning's, which are among the validation products."
                )
        except KeyboardInterrupt:
            raise SystemExit("Stopped while products were encoded; the same command goes on from there.") from None

    def backward(self, model: torch.nn.Module, batch: dict[str, Any], done: float) -> dict[str, torch.Tensor]:
        """Contrasts the queries with the whole catalogue, micro-batch by micro-batch.

        Every process has queries of its own; data parallelism averages their gradients, and the values are averaged
        here.
        """
        accelerator = self.accelerator
        chunks, scale = batch["chunks"], accelerator.unwrap_model(model).acebert.scale.detach()
        queries = sum(len(chunk["query_id"]) for chunk in chunks)
        values: dict[str, torch.Tensor] = {}
        for i, chunk in enumerate(chunks):
            products, positives = self.negatives.ranked_for(chunk)
            inputs = {name: chunk[name] for name in ("query_input_ids", "query_attention_mask")}
            with accelerator.no_sync(model) if i < len(chunks) - 1 else nullcontext():
                outputs = model(**inputs, product_embeds=products[0], return_loss=False)
                share = len(positives) / queries
                loss, first = matryoshka_answer_loss(outputs.query_embeds, products, positives, scale)
                accelerator.backward(share * loss)
            found = {"loss": loss.detach(), "precision@1": positives.gather(1, first[:, None]).float().mean()}
            values = {name: share * value + values.get(name, 0.0) for name, value in found.items()}
        return accelerator.reduce(values, "mean")

    def validate(self, model: Model, loader: DataLoader) -> dict[str, float]:
        """Capped recall@10 of each query among the products trained against and those of the validation split.

        Apart for titles (the product shows its photo alone) and for other queries; the score is their mean.
        """
        embeds, recalls, from_titles = [], [], []
        for batch in loader:
            for chunk in send_to_device(batch["chunks"], self.accelerator.device):
                with self.accelerator.autocast():
                    outputs = model.acebert.get_text_features(chunk["query_input_ids"], chunk["query_attention_mask"])
                embeds.append(outputs.pooler_output.float())
                products, positives = self.ranked.ranked_for(chunk)
                recalls.append(capped_recall(embeds[-1] @ products[0].t(), positives, k=10))
                from_titles.append(chunk["from_title"].bool())
        metrics = mean_recalls(torch.cat(recalls), torch.cat(from_titles))
        return metrics | {"modality_gap": float(modality_gap(torch.cat(embeds), self.ranked.vectors[0][0]))}
