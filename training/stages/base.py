"""What the training loop asks of a stage."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from acebert.data.pairs import PairDataset
from acebert.data.query_log import QueryLog
from acebert.data.workers import worker_options
from acebert.processing_acebert import AceBertProcessor
from acebert.training.argument_groups import ProductSideArguments
from acebert.training.arguments import TrainingArguments
from acebert.training.hard_negatives import HardNegativeSampler
from acebert.training.loading import Model, Splits, load_splits, recompute_activations
from acebert.utils.arguments import names_of
from acebert.utils.hardware import spare_cores

ArgumentsT = TypeVar("ArgumentsT", bound=TrainingArguments)


class Stage(ABC, Generic[ArgumentsT]):
    """What a stage learns: its data, its trainable weights and their rates, its losses, and what picks its best model.

    The loop calls the methods in the order in which they stand here. `__init__` reads and loads nothing.

    Args:
        args: the stage's flags.
        accelerator: shares the work.
    """

    summary: ClassVar[str]  # for `--help`
    arguments: ClassVar[type[TrainingArguments]]
    model_class: ClassVar[type[Model]]
    dataset_class: ClassVar[type[PairDataset]]
    learns_from_pairs: ClassVar[bool] = True  # a row has to have a query, or both title and photo

    train_data: PairDataset
    validation_data: PairDataset | None
    held_out_log: QueryLog | None  # real queries to validate on
    sampler: HardNegativeSampler
    processor: AceBertProcessor

    def __init__(self, args: ArgumentsT, accelerator: Accelerator):
        self.args, self.accelerator = args, accelerator
        on_cpu = accelerator.device.type == "cpu"
        workers = args.dataloader_num_workers
        self.num_workers = (1 if on_cpu else spare_cores(accelerator.num_processes)) if workers is None else workers

    # ------------------------------------------------------------------------------------------------------------------
    # Data
    # ------------------------------------------------------------------------------------------------------------------

    def load_data(self) -> dict[str, str]:
        """Reads the catalogue.

        Returns:
            Fingerprints of what was read, by which a resumed run knows its data again.

        Raises:
            ValueError: if the catalogue can't be read, or has no such columns or splits.
            SystemExit: if it has fewer products than a batch.
        """
        args, accelerator = self.args, self.accelerator
        splits = load_splits(args, accelerator, self.learns_from_pairs)
        train = self.train_data = self._make_dataset(splits, is_training=True)
        self.validation_data = None if splits.validation is None else self._make_dataset(splits, is_training=False)
        self.held_out_log = splits.held_out_log
        self.sampler = self.make_sampler()
        queries = (*train.attributes.values(), train.queries, train.hot_queries)
        if splits.log is not None:
            held_out = len(splits.held_out_log.queries) if splits.held_out_log else 0
            accelerator.print(f"{len(splits.log.queries)} logged queries to train on, {held_out} to validate on.")
        elif self.learns_from_pairs and not any(text for texts in queries for text in texts):
            self.ask_titles_alone()
        validation_size = len(self.validation_data) if self.validation_data else 0
        accelerator.print(f"{len(train)} products to train on, {validation_size} to validate on.")
        self._fit_batch()
        return splits.fingerprints

    def ask_titles_alone(self) -> None:
        """Called where no product has a query but its title."""
        self.accelerator.print("No product has a query: titles alone are asked for, each for its photo.")

    def _fit_batch(self) -> None:
        """Makes a batch that nobody asked for no larger than the training split.

        Raises:
            SystemExit: if it was asked for, or there is no product for each process.
        """
        args, accelerator, products = self.args, self.accelerator, len(self.train_data)
        least = args.per_device_batch_size * accelerator.num_processes
        fitting = products // accelerator.num_processes
        if products >= least:
            return
        if "per_device_batch_size" in args.given or fitting < 1:
            raise SystemExit(
                f"The training split has {products} products, but one batch of all processes takes {least}: "
                "lower --per_device_batch_size."
            )
        reason = f"there are {products} products to train on"
        args.per_device_batch_size, args.reasons["per_device_batch_size"] = fitting, reason
        accelerator.print(f"--per_device_batch_size {fitting}, as it isn't given: {reason}.")

    def _make_dataset(self, splits: Splits, is_training: bool) -> PairDataset:
        products = splits.train if is_training else splits.validation
        options: dict[str, Any] = dict(self.dataset_options(is_training))
        if splits.log is not None:
            options["log"] = splits.log
        return self.dataset_class(products, splits.columns, splits.templates, seed=self.args.seed, **options)

    @abstractmethod
    def dataset_options(self, is_training: bool) -> dict[str, float]:
        """More arguments of `dataset_class`."""

    def make_sampler(self) -> HardNegativeSampler:
        """The order of the training data; its state goes into the checkpoints."""
        return HardNegativeSampler(len(self.train_data), self.args.seed)

    def make_loaders(self) -> tuple[DataLoader, DataLoader | None]:
        """Batches to train on, in the sampler's order, and those to validate on. Needs the processor."""
        validation = self.validation_data
        return (
            # Workers that stay: on a GPU an epoch may take less time than they take to start.
            self._make_loader(
                self.train_data, sampler=self.sampler, drop_last=True, persistent_workers=self.num_workers > 0
            ),
            None if validation is None else self._make_loader(validation),
        )

    def _make_loader(self, data: PairDataset, **options: Any) -> DataLoader:
        return DataLoader(
            data,
            batch_size=self.args.per_device_batch_size,
            collate_fn=self.make_collator(data, is_training=data is self.train_data),
            pin_memory=self.accelerator.device.type == "cuda",
            **options,
            **worker_options(self.num_workers),
        )

    @abstractmethod
    def make_collator(self, data: PairDataset, is_training: bool) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
        """From rows of the dataset to a batch."""

    # ------------------------------------------------------------------------------------------------------------------
    # Model
    # ------------------------------------------------------------------------------------------------------------------

    def load_model(self) -> Model:
        """Loads or builds the model and its processor, and freezes what this stage doesn't train."""
        args = self.args
        model, self.processor = self.load_model_and_processor()
        # PyTorch's fused attention is slow backwards on CPUs with sequences of tens of tokens (docs/training.md).
        on_cpu = self.accelerator.device.type == "cpu"
        implementation = args.attn_implementation or ("eager" if on_cpu else "sdpa")
        if model.config.share_encoders:
            queries: Any = model.config.query_config
            queries._attn_implementation = implementation  # no module has it, of which transformers would warn
        model.set_attn_implementation(implementation)
        if args.gradient_checkpointing:
            recompute_activations(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.is_trainable(name))
        if isinstance(args, ProductSideArguments) and args.freeze_word_embeddings:
            model.get_input_embeddings().requires_grad_(False)
        return model

    @abstractmethod
    def load_model_and_processor(self) -> tuple[Model, AceBertProcessor]: ...

    def is_trainable(self, name: str) -> bool:
        """Whether the stage trains a parameter. What both encoders share goes by the product encoder's name."""
        return True

    @abstractmethod
    def learning_rates(self) -> dict[str, float]:
        """Peak learning rates by a part of the parameters' names, as [`parameter_groups`] takes them."""

    def prepare(self, model: torch.nn.Module) -> None:
        """Makes what else the losses need, before the first step: a frozen teacher, the catalogue's vectors.

        Args:
            model: as `accelerator.prepare` returned it. The stage must not keep it: it has to be gone before the group
                of processes.
        """

    # ------------------------------------------------------------------------------------------------------------------
    # Steps
    # ------------------------------------------------------------------------------------------------------------------

    def before_epoch(self, model: Model, epoch: int) -> None:
        """Called before the first batch of an epoch (from 0): changes what the sampler gives, for example."""

    @abstractmethod
    def backward(self, model: torch.nn.Module, batch: dict[str, Any], done: float) -> dict[str, torch.Tensor]:
        """Adds the gradients of one batch.

        Args:
            model: as `accelerator.prepare` returned it.
            batch: of the training loader.
            done: share of the run's steps that are done, in [0, 1).

        Returns:
            Scalars to log by name, `loss` among them.
        """

    def schedules(self, done: float) -> dict[str, float]:
        """What changes over the run beside the learning rate, by name, for the log."""
        return {}

    @abstractmethod
    def validate(self, model: Model, loader: DataLoader) -> dict[str, float]:
        """Metrics on the validation split, which is drawn the same way every time; the highest `score` is the best.

        Called in evaluation mode and without gradients. Every process computes all of it.
        """

    def find_faults(self, metrics: dict[str, float]) -> list[str]:
        """What the best validation's metrics show to be wrong with the model, and what to do about it."""
        return []

    def peak_rates(self) -> dict[str, float]:
        """The learning-rate flags of this stage that hold a value, by name."""
        names = sorted(name for name in names_of(self.arguments) if name.endswith("learning_rate"))
        return {name: getattr(self.args, name) for name in names if getattr(self.args, name)}
