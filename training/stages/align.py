"""Alignment: titles and photos alone, before any query."""

from acebert.processing_acebert import AceBertProcessor
from acebert.training.arguments import AlignmentArguments
from acebert.training.loading import Model
from acebert.training.stages.contrast import Contrast


class Alignment(Contrast[AlignmentArguments]):
    """Each title is a query for its product's photo, in both directions.

    One text encoder learns, for queries and titles alike; `--stage finetune` gives each its own, from there on. It
    needs no query, template or attribute, and teaches the title's words what the photos show (docs/results.md).
    """

    summary = "titles and photos: the photo's encoder meets the text encoder, which stays near its backbone"
    arguments = AlignmentArguments

    def dataset_options(self, is_training: bool) -> dict[str, float]:
        return super().dataset_options(is_training) | {"title_query_probability": 1.0}

    def load_model_and_processor(self) -> tuple[Model, AceBertProcessor]:
        """The model and its processor.

        Raises:
            SystemExit: for a model whose query encoder is its own already.
        """
        model, processor = super().load_model_and_processor()
        if not model.config.share_encoders:
            raise SystemExit(
                f"{self.args.model_name_or_path or 'The new model'} has a query encoder of its own, which titles would "
                "leave behind: give --share_encoders with --backbone, or go on with --stage finetune."
            )
        return model, processor
