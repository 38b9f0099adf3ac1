"""ACE-BERT in sentence-transformers: `SentenceTransformer(folder_or_id, trust_remote_code=True)`.

The `modules.json` of a saved folder names [`AceBertModule`]. Its vectors are those of `AceBertModel.get_text_features`
and `AceBertModel.get_product_features`: a query and a document are encoded by different encoders.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModel, AutoProcessor, PreTrainedModel, ProcessorMixin

# In a `try`, so that transformers, which copies this file with the model's, doesn't ask for the library there.
try:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import InputModule
except ImportError as error:
    raise ImportError(
        "ACE-BERT in sentence-transformers needs its version 6 or later: pip install 'sentence-transformers>=6'"
    ) from error


FIELDS = ("text", "image")
TASKS = ("query", "document")
ASSUMED = "product, since no task was given"
NO_ROUTER_MAPPING = (
    "queries and documents have different encoders, so training has to know which column is which: set "
    '`router_mapping={"<column>": "query", "<column>": "document"}` in the training arguments'
)


class AceBertModule(InputModule):
    """
    The only module of an ACE-BERT [`SentenceTransformer`].

    A document is a title (`str`), a photo (anything that the image processor takes but a path), or a dict with "text",
    "image" or both, where `None` stands for what is missing, and the image may be a path or a list of photos, too. One
    batch may mix them. A string is always text, never the name of a file. A query is a text, or a photo, which the
    product encoder encodes alone. Without a task, as in `encode`, all inputs are documents.

    Args:
        model (`AceBertModel`): The two encoders.
        processor (`AceBertProcessor`): Its lengths hold here, too: `max_seq_length` only tells the longer one.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin):
        super().__init__()
        self.model = model
        self.processor = processor

    @property
    def modalities(self) -> list[str | tuple[str, ...]]:
        """What an input may be; "message" is what the library calls a batch that mixes the others."""
        return ["text", "image", ("image", "text"), "message"]

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def max_seq_length(self) -> int:
        return max(self.processor.query_max_length, self.processor.title_max_length)

    def get_embedding_dimension(self) -> int:
        """Width of the vectors."""
        return self.model.config.projection_dim

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, task: str | None = None) -> dict[str, Any]:
        """
        Model inputs of a batch, and under "side" the encoder that they are for.

        Args:
            inputs (`Sequence`): Queries or documents, see [`AceBertModule`].
            prompt (`str`, *optional*): Put before each text.
            task (`str`, *optional*, defaults to `"document"`): `"query"` or `"document"`.

        Raises:
            `ValueError`: For an unknown task, for training without one, for a dict with other keys, for a query with
                text and photo, for a batch of text queries and photo queries, and for what the processor refuses.
        """
        if task is None and self.training:
            raise ValueError(NO_ROUTER_MAPPING)
        if task is not None and task not in TASKS:
            raise ValueError(f'task must be "query" or "document", got {task!r}')
        texts, photos = [], []
        for item in inputs:
            if isinstance(item, list | tuple):  # its texts would be read as names of files
                raise ValueError(f'{type(item).__name__} is no photo: pass several of a product as {{"image": [...]}}')
            fields = item if isinstance(item, dict) else {"text" if isinstance(item, str) else "image": item}
            if not fields or not fields.keys() <= set(FIELDS):
                raise ValueError(f'an input that is a dict holds "text", "image" or both, got the keys {list(fields)}')
            text = fields.get("text")
            texts.append(prompt + text if prompt and isinstance(text, str) else text)
            photos.append(fields.get("image"))
        has_text, has_photo = (any(value is not None for value in values) for values in (texts, photos))
        if task == "query" and has_text and has_photo:
            raise ValueError(
                "a query is a text or a photo, not both, and one batch holds one kind: encode each kind by itself"
            )
        side = "query" if task == "query" and not has_photo else "product"
        try:
            if side == "query":
                features = self.processor.process_queries(texts, return_tensors="pt")
            else:
                features = self.processor.process_products(
                    texts if has_text or not has_photo else None, photos if has_photo else None, return_tensors="pt"
                )
        except ValueError as error:
            raise ValueError(f"in a batch of {len(inputs)}, which the library sorts by length: {error}") from error
        return {**features, "side": ASSUMED if task is None else side}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Adds "sentence_embedding" (batch, projection_dim), unit length, to what `preprocess` returned."""
        if self.training and features["side"] == ASSUMED:  # a trainer prepares its first batch before it trains
            raise ValueError(NO_ROUTER_MAPPING)
        encode = self.model.get_text_features if features["side"] == "query" else self.model.get_product_features
        inputs = {name: features[name] for name in self.processor.model_input_names if name in features}
        embeddings: torch.Tensor = encode(**inputs).pooler_output
        return {**features, "sentence_embedding": embeddings}

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        backend: str = "torch",
        **kwargs: Any,
    ) -> "AceBertModule":
        """Loads model and processor from a folder or from the Hub, as `AutoModel` and `AutoProcessor` do."""
        if backend != "torch":
            raise ValueError(f'backend must be "torch" for ACE-BERT, got {backend!r}')
        options = {
            "token": token,
            "cache_dir": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
            "trust_remote_code": trust_remote_code,
        }
        model = AutoModel.from_pretrained(
            model_name_or_path,
            **{"use_safetensors": True, **options, **(config_kwargs or {}), **(model_kwargs or {})},
        )
        processor = AutoProcessor.from_pretrained(model_name_or_path, **{**options, **(processor_kwargs or {})})
        return cls(model, processor).eval()

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Saves weights, configurations, tokenizer and code, so that `AutoModel` reads the folder as well."""
        self.model.save_pretrained(output_path)
        self.processor.save_pretrained(output_path)


def to_sentence_transformer(model: PreTrainedModel, processor: ProcessorMixin) -> SentenceTransformer:
    """A `SentenceTransformer` around a model in memory, on its device; see `AceBertModel.to_sentence_transformer`."""
    return SentenceTransformer(modules=[AceBertModule(model, processor).eval()], device=str(model.device))
