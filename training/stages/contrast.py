"""What alignment and fine-tuning share: a contrast within batches, an anchor to the text backbone, an adversary."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import broadcast, send_to_device
from torch.utils.data import DataLoader

from acebert.configuration_acebert import AceBertVisionConfig
from acebert.data.collators import CPU_CHUNK, PairCollator
from acebert.data.open_texts import OpenTexts
from acebert.data.pairs import PairDataset
from acebert.encoding.corpus_encoder import CorpusEncoder
from acebert.losses_acebert import anchor_loss, find_positives, modality_gap
from acebert.modeling_acebert import AceBertForRetrieval
from acebert.processing_acebert import AceBertProcessor
from acebert.training.arguments import ContrastingArguments
from acebert.training.contrastive import GatherRows, cached_backward, encode_chunks
from acebert.training.hard_negatives import as_corpus, whole_products
from acebert.training.held_out_queries import NDCG, HeldOutQueries
from acebert.training.loading import Model, build_model, load_checkpoint
from acebert.training.reference import TextReference, find_faults
from acebert.training.stages.base import Stage
from acebert.training.teacher import TextTeacher
from acebert.training.validation import capped_recall, mean_recalls

# Of a batch of `PairCollator`: what `find_positives` takes.
MATCHING = ("product_ids", "query_ids", "product_attributes", "query_attributes")

ContrastingArgumentsT = TypeVar("ContrastingArgumentsT", bound=ContrastingArguments)


class Contrast(Stage[ContrastingArgumentsT]):
    """Texts and products, contrasted within batches of all processes."""

    model_class = AceBertForRetrieval
    dataset_class = PairDataset

    teacher: TextTeacher | None
    reference: TextReference | None = None  # made by the first validation, as what follows
    held_out: HeldOutQueries | None = None

    # ------------------------------------------------------------------------------------------------------------------
    # Data
    # ------------------------------------------------------------------------------------------------------------------

    def dataset_options(self, is_training: bool) -> dict[str, float]:
        return self.args.photo_options() if is_training else {}

    def make_collator(self, data: PairDataset, is_training: bool) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        args = self.args
        on_cpu = self.accelerator.device.type == "cpu"
        chunk_size = args.cached_chunk_size or args.chunk_size or (CPU_CHUNK if on_cpu else args.per_device_batch_size)
        if not is_training:
            return PairCollator(self.processor, chunk_size, seed=args.seed, dataset=data)
        anchor = None
        if self.is_anchored:
            values = [value for column in data.attributes.values() for value in column]
            anchor = OpenTexts(data.titles, values, self.processor.tokenizer.get_vocab())
        return PairCollator(
            self.processor, chunk_size, args.drop_patch_probability, args.seed, data, args.patch_budgets, anchor
        )

    # ------------------------------------------------------------------------------------------------------------------
    # Model
    # ------------------------------------------------------------------------------------------------------------------

    def load_model_and_processor(self) -> tuple[Model, AceBertProcessor]:
        args = self.args
        load = load_checkpoint if args.model_name_or_path else build_model
        losses = {"adversarial_strength": args.adversarial_strength, "label_smoothing": args.label_smoothing}
        model, processor = load(args, self.model_class, **losses)
        self.config = model.config
        self.teacher = self.load_teacher()
        self.is_anchored = self.can_be_anchored(self.teacher)
        return model, processor

    def load_teacher(self) -> TextTeacher | None:
        """The text backbone as it was: texts are anchored to it, and validations compare with it.

        Raises:
            SystemExit: if it can't be loaded.
        """
        args = self.args
        name = args.text_teacher or args.backbone
        if name == "none":
            return None
        if name is None:
            self.accelerator.print(
                "Texts are not anchored, and may lose words that their backbone knows: name it by --text_teacher, or "
                "say that there is none by --text_teacher none."
            )
            return None
        try:
            return TextTeacher(name, self.accelerator.device)
        except ValueError as error:
            raise SystemExit(str(error)) from error

    def can_be_anchored(self, teacher: TextTeacher | None) -> bool:
        """Whether there is a teacher whose vectors are as wide as the model's, and a weight for it.

        Raises:
            SystemExit: if a teacher that was asked for by name has other widths.
        """
        args, width = self.args, self.config.projection_dim
        if teacher is None or not args.anchor_weight:
            return False
        if teacher.dim == width:
            return True
        problem = f"The text teacher has vectors of {teacher.dim} numbers, the model's have {width}"
        if args.text_teacher:
            raise SystemExit(f"{problem}: train without an anchor, --anchor_weight 0.")
        self.accelerator.print(
            f"{problem}: texts are not anchored, and may lose words that the backbone knows. A new model is anchored "
            f"with --projection_dim {teacher.dim}."
        )
        return False

    def is_trainable(self, name: str) -> bool:
        """All but the image encoder, or its first `--freeze_image_layers` layers with what stands before them.

        Nor the domain classifier, where there is no adversary.
        """
        if name.startswith("domain_classifier.") and not self.args.adversarial_strength:
            return False
        if self.args.freeze_image_encoder and ("image_encoder." in name or "image_projection." in name):
            return False
        frozen = self.args.freeze_image_layers
        layers = [f"image_encoder.layers.{layer}." for layer in range(frozen)]
        return not (frozen and any(part in name for part in ("image_encoder.embeddings.", *layers)))

    def learning_rates(self) -> dict[str, float]:
        args, vision = self.args, self.config.vision_config
        of_the_eye = {}
        if isinstance(vision, AceBertVisionConfig):
            rate, decay, depth = args.image_encoder_learning_rate, args.image_layer_decay, vision.num_hidden_layers
            layers = {f"image_encoder.layers.{i}.": rate * decay ** (depth - i) for i in range(depth)}
            of_the_eye = {**layers, "image_encoder.embeddings.": rate * decay ** (depth + 1), "image_encoder.": rate}
        return {
            **of_the_eye,
            ".image_embeddings.": args.image_learning_rate,
            "product_encoder.": args.learning_rate,
            "": args.head_learning_rate,
        }

    def prepare(self, model: torch.nn.Module) -> None:
        """Encodes the photos of an image encoder that isn't trained; the vectors are kept in `vectors/` of the run.

        Raises:
            SystemExit: if the model has no such encoder.
        """
        args, accelerator = self.args, self.accelerator
        if not args.freeze_image_encoder:
            return
        if self.config.vision_config is None:
            raise SystemExit("--freeze_image_encoder needs a model with a pre-trained image encoder: leave it out.")
        encoder = CorpusEncoder(
            accelerator.unwrap_model(model).eval().acebert,
            self.processor,
            accelerator,
            cache=Path(args.output_dir, "vectors"),
            name="encoding",
            num_workers=self.num_workers,
        )
        splits = {"the training products": self.train_data, "the validation products": self.validation_data}
        try:
            for name, data in splits.items():
                if data is None or not (corpus := as_corpus(data, name)).has_photo.any():
                    continue
                encoded = encoder.encode_products(corpus, ("image",))
                none = torch.zeros(len(data), self.config.projection_dim)
                found = encoded if accelerator.is_main_process else none
                data.image_embeds = broadcast(found.to(accelerator.device)).cpu()
        except KeyboardInterrupt:
            raise SystemExit("Stopped while photos were encoded; the same command goes on from there.") from None

    # ------------------------------------------------------------------------------------------------------------------
    # Losses
    # ------------------------------------------------------------------------------------------------------------------

    def schedules(self, done: float) -> dict[str, float]:
        strength = self.args.adversarial_strength
        return {"adversarial_strength": adversarial_schedule(done, strength)} if strength else {}

    def backward(self, model: torch.nn.Module, batch: dict[str, Any], done: float) -> dict[str, torch.Tensor]:
        strength = adversarial_schedule(done, self.args.adversarial_strength)
        anchored = self.backward_of_anchor(model, batch["anchor"]) if "anchor" in batch else {}
        compute_losses = partial(self.compute_losses, model=model, batch=batch, adversarial_strength=strength)
        encode = partial(self.encode_chunk, model)
        if self.args.cached_chunk_size:
            losses = cached_backward(model, encode, batch, compute_losses, self.accelerator)
        else:
            losses = compute_losses(*encode_chunks(encode, batch))
            self.accelerator.backward(losses["loss"])
        return losses | anchored

    def encode_chunk(self, model: torch.nn.Module, chunk: dict[str, torch.Tensor]) -> Any:
        """The model's output of a chunk of [`PairCollator`], whose patches are normalised here, on the device."""
        return model(**self.processor.image_processor.normalize_patches(chunk), return_loss=False)

    def backward_of_anchor(self, model: torch.nn.Module, anchor: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Adds the gradients of the anchor: open texts by the query encoder, titles by the product encoder.

        Args:
            model: as `accelerator.prepare` returned it.
            anchor: of [`PairCollator`]: the model's inputs, and the texts themselves.

        Returns:
            `anchor_loss`, without its weight.
        """
        assert self.teacher is not None, "without a teacher there is no anchor"
        with self.accelerator.autocast():  # as the model computes: float32 would take twice as long
            queries, titles = self.teacher(anchor["queries"]), self.teacher(anchor["titles"])
        with self.accelerator.no_sync(model):  # the batch's own backward pass follows, and takes these with it
            outputs = model(**anchor["inputs"], return_loss=False)
            loss = anchor_loss(outputs.query_embeds, queries)
            loss = loss + anchor_loss(outputs.product_embeds, titles)
            self.accelerator.backward(self.args.anchor_weight * loss)
        return {"anchor_loss": loss.detach()}

    def compute_losses(
        self,
        query_embeds: torch.Tensor,
        product_embeds: torch.Tensor,
        *,
        model: torch.nn.Module,
        batch: dict[str, Any],
        adversarial_strength: float,
    ) -> dict[str, torch.Tensor]:
        """The losses of one batch from this process's vectors, and what else is logged of them.

        Every process computes the same losses, those of all processes' vectors. The backward pass of the gather sums
        what the processes send back and data parallelism averages it, so the gradient is that of one process with the
        whole batch.

        Args:
            query_embeds, product_embeds: (rows, projection_dim), in the order of the batch's rows.
            model: computes the losses; may hold parameters of theirs.
            batch: of [`PairCollator`].
            adversarial_strength: factor of the reversed gradient.

        Returns:
            Scalars by name. `loss` is the sum that is trained; the others are logged.
        """
        accelerator = self.accelerator
        if accelerator.num_processes > 1:
            query_embeds, product_embeds = GatherRows.apply(query_embeds), GatherRows.apply(product_embeds)
        rows = {name: accelerator.gather(batch[name]) for name in (*MATCHING, "weights") if name in batch}
        positives, weights = find_positives(**{name: rows[name] for name in MATCHING}), rows.get("weights")
        if weights is not None:
            positives = positives | find_logged(self.train_data, rows)
        inner = accelerator.unwrap_model(model)
        losses: dict[str, torch.Tensor] = inner.compute_loss(
            query_embeds, product_embeds, positives, adversarial_strength, weights
        )
        with torch.no_grad():
            losses["recall@1"] = capped_recall(query_embeds @ product_embeds.t(), positives, k=1).mean()
            losses["modality_gap"] = modality_gap(query_embeds, product_embeds)
        return losses

    # ------------------------------------------------------------------------------------------------------------------
    # Validation
    # ------------------------------------------------------------------------------------------------------------------

    def validate(self, model: Model, loader: DataLoader) -> dict[str, float]:
        """Capped recall@10 of each query among all validation products.

        Apart for titles (the product shows its photo alone) and for other queries, and with a query log nDCG@10 of the
        queries that were held out of it; the score is their mean, times the share of the text backbone's knowledge of
        words that is kept, where that is less than 1.
        """
        collected: dict[str, list[torch.Tensor]] = {}
        queries: list[str] = []
        titles: list[str | None] = []
        for batch in loader:
            queries, titles = queries + batch["queries"], titles + batch["titles"]
            batch = send_to_device(batch, self.accelerator.device)
            with self.accelerator.autocast():
                query_embeds, product_embeds = encode_chunks(partial(self.encode_chunk, model), batch)
            rows = {name: batch[name] for name in (*MATCHING, "from_titles", "weights") if name in batch}
            rows |= {"query_embeds": query_embeds.float(), "product_embeds": product_embeds.float()}
            for name, value in rows.items():
                collected.setdefault(name, []).append(value)
        rows = {name: torch.cat(values) for name, values in collected.items()}
        query_embeds, product_embeds = rows["query_embeds"], rows["product_embeds"]
        positives = find_positives(**{name: rows[name] for name in MATCHING})
        if "weights" in rows and self.validation_data is not None:
            positives = positives | find_logged(self.validation_data, rows)
        recall = capped_recall(query_embeds @ product_embeds.t(), positives, k=10)
        from_titles = rows["from_titles"].bool()
        metrics = mean_recalls(recall, from_titles)
        metrics["modality_gap"] = float(modality_gap(query_embeds, product_embeds))
        if self.held_out_log is not None:
            metrics = self.ask_held_out(model, metrics)
        if self.teacher is None or self.validation_data is None:
            return metrics
        if self.reference is None:
            self.reference = TextReference(self.teacher, self.validation_data.titles, self.args.seed)
        kept = self.reference.knowledge_kept(*self.text_encoders(model))
        if math.isfinite(kept):
            metrics |= {"knowledge_kept": kept, "score": metrics["score"] * min(1.0, kept)}
        if asked := (~from_titles).nonzero()[:, 0].tolist():
            metrics |= self.reference.find([queries[row] for row in asked], titles, positives[asked])
        if self.held_out is not None:
            metrics |= self.reference.find_held_out(self.held_out)
        return metrics

    def ask_held_out(self, model: Model, metrics: dict[str, float]) -> dict[str, float]:
        """The metrics with those of the queries held out of the log; nDCG@10 is a third of the score, or half of it."""
        assert self.held_out_log is not None and self.validation_data is not None
        if self.held_out is None:
            splits = [self.train_data, self.validation_data]
            self.held_out = HeldOutQueries(self.held_out_log, splits, self.args.validation_size)
        encoder = CorpusEncoder(model.acebert, self.processor, self.accelerator, name="validating")

        def encode(data: PairDataset, rows: list[int]) -> torch.Tensor:
            return encoder.encode(model.acebert.get_product_features, whole_products(data, self.processor), rows)

        products = self.held_out.encode_products(encode)
        queries = self.text_encoders(model)[0](self.held_out.queries)
        found = self.held_out.score(lambda part: queries[part] @ products.T)
        recalls = [value for name, value in metrics.items() if name.endswith("recall@10")]
        return metrics | found | {"score": (sum(recalls) + found[NDCG]) / (len(recalls) + 1)}

    def text_encoders(self, model: Model) -> list[Callable[[list[str]], torch.Tensor]]:
        """From queries and from titles to their vectors by the model, on all processes."""
        encoder = CorpusEncoder(model.acebert, self.processor, self.accelerator, name="validating")

        def encode(texts: list[str], features: Callable[..., Any], process: Callable[..., Any]) -> torch.Tensor:
            def collate(rows: list[int]) -> dict[str, torch.Tensor]:
                return dict(process([texts[row] for row in rows], return_tensors="pt"))

            return encoder.encode(features, collate, list(range(len(texts))))

        return [
            partial(encode, features=model.acebert.get_text_features, process=self.processor.process_queries),
            partial(encode, features=model.acebert.get_product_features, process=self.processor.process_products),
        ]

    def find_faults(self, metrics: dict[str, float]) -> list[str]:
        return find_faults(metrics)


def find_logged(data: PairDataset, rows: dict[str, torch.Tensor]) -> torch.Tensor:
    """(rows, rows) booleans: which products the query log of the data has for each row's query."""
    assert data.logged is not None, "without a log, rows have no weights"
    return data.logged.find_positives(rows["query_ids"], rows["product_ids"])


def adversarial_schedule(done: float, strength: float) -> float:
    """From 0 to `strength` as `done` goes from 0 to 1 (Ganin et al. 2016, arXiv 1505.07818, section 5.2.2)."""
    return strength * (2 / (1 + math.exp(-10 * done)) - 1)
