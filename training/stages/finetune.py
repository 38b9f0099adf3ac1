"""Fine-tuning for retrieval: queries of all kinds, and hard negatives."""

from acebert.processing_acebert import AceBertProcessor
from acebert.training.arguments import FinetuningArguments
from acebert.training.hard_negatives import HardNegativeSampler, mine_hard_negatives
from acebert.training.loading import Model
from acebert.training.stages.contrast import Contrast


class Finetuning(Contrast[FinetuningArguments]):
    """Queries and products, contrasted within batches of all processes."""

    summary = "retrieval: queries and products against in-batch and hard negatives, with the domain adversary"
    arguments = FinetuningArguments

    def dataset_options(self, is_training: bool) -> dict[str, float]:
        args = self.args
        return {
            **super().dataset_options(is_training),
            "title_query_probability": args.title_query_probability,
            "drop_title_probability": args.drop_title_probability,
            "drop_image_probability": args.drop_image_probability,
        }

    def ask_titles_alone(self) -> None:
        """Refuses to train titles alone against photos that stay where they are, unless that was asked for.

        Raises:
            SystemExit: since it harms (docs/training.md).
        """
        if self.args.freeze_image_encoder and "title_query_probability" not in self.args.given:
            raise SystemExit(
                "No product has a query but its title, and with --freeze_image_encoder titles would only move to "
                "photos that stay where they are, which makes searches worse. A model of --stage align is complete "
                "without this stage; or give queries: --query_log, --query_column, or attributes for "
                "--query_templates. --title_query_probability 1 trains on titles all the same."
            )
        super().ask_titles_alone()

    def make_sampler(self) -> HardNegativeSampler:
        return HardNegativeSampler(len(self.train_data), self.args.seed, self.args.hard_negatives)

    def before_epoch(self, model: Model, epoch: int) -> None:
        """Mines hard negatives when the second epoch begins, and from then on every so many epochs."""
        args, every = self.args, self.args.mine_hard_negatives_every
        if not every or epoch == 0 or (epoch - 1) % every or self.sampler.mined_in == epoch:
            return
        found = mine_hard_negatives(
            model,
            self.train_data,
            self.processor,
            self.accelerator,
            batch_size=args.per_device_batch_size,
            count=4 * args.hard_negatives,
            margin=args.hard_negative_margin,
        )
        self.sampler.hard_negatives, self.sampler.mined_in = found, epoch
        share = float((found >= 0).any(1).float().mean())
        self.accelerator.print(f"Epoch {epoch}: hard negatives found for {share:.0%} of {len(found)} products.")

    def load_model_and_processor(self) -> tuple[Model, AceBertProcessor]:
        """The model, whose queries get an encoder of their own where that is asked for, and its processor.

        Raises:
            SystemExit: for a model whose queries have one already.
        """
        model, processor = super().load_model_and_processor()
        if self.args.split_encoders:
            if not model.config.share_encoders:
                raise SystemExit(
                    f"The queries of {self.args.model_name_or_path} have an encoder of their own: leave "
                    "--split_encoders out."
                )
            model.acebert.split_encoders()
            # A name's place in the whole model has changed, and with it what is tied to what.
            model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
        return model, processor

    def learning_rates(self) -> dict[str, float]:
        args = self.args
        return {"query_encoder.": args.query_learning_rate or args.learning_rate, **super().learning_rates()}
