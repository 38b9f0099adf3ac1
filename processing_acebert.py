"""From queries, titles and photos to the tensors that ACE-BERT reads.

`AceBertProcessor` joins an `AceBertImageProcessor` with a tokenizer, and keeps the lengths of queries and titles in its
saved configuration.
"""

import os
import re
import threading
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Literal, TypedDict

import numpy as np
from transformers import AutoTokenizer, BertConfig
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import TensorType, logging

from .image_processing_acebert import SINGLE_PHOTO, AceBertImageProcessor, Photo, as_list, to_batch

logger = logging.get_logger(__name__)
# A fast tokenizer keeps its padding as state: a second thread that sets it meanwhile raises "Already borrowed".
TOKENIZING = threading.Lock()
# Half of a character beyond U+FFFF: JSON and file names may hold one, UTF-8 can't.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class TruncationCount(TypedDict):
    """How often a text field was cut."""

    cut: int
    seen: int
    longest: int  # tokens of the longest text seen, without special tokens


class UnknownCount(TypedDict):
    """How often a text field held what the tokenizer doesn't know."""

    unknown: int
    seen: int


class AceBertProcessor(ProcessorMixin):
    """
    Prepares queries and products for ACE-BERT: an [`AceBertImageProcessor`] and a tokenizer with the lengths to cut at.

    A query is `[CLS] query [SEP]`. A product is `[CLS] title [SEP]`, or `[CLS] hot query [SEP] title [SEP]` when hot
    queries are given; a missing title is an empty one. Only then `token_type_ids` are returned: 1 for the hot query and
    its `[SEP]`, 0 for all else, so that a title has the same type with and without a hot query. Special tokens are the
    tokenizer's own, and text that spells one ("[SEP]") is read as plain text.

    Args:
        image_processor (`AceBertImageProcessor`): Turns photos into patches.
        tokenizer (`PreTrainedTokenizerBase`):
            A tokenizer with a `cls_token`, a `sep_token` and a `pad_token`. Its `model_max_length` is set to the
            longest sequence made here: `query_max_length + title_max_length - 1` tokens.
        query_max_length (`int`, *optional*, defaults to 32): Longest query in tokens, with its two special tokens.
            A hot query is cut to the same number of its own tokens.
        title_max_length (`int`, *optional*, defaults to 64): Longest title in tokens, with its two special tokens.
        truncation (`bool`, *optional*, defaults to `True`): Whether text that is too long is cut, which is counted in
            `truncation_report` and warned of once per field. Otherwise it raises a `ValueError`.
        padding (`str`, *optional*, defaults to `"longest"`): `"longest"` pads text to the longest of the batch,
            `"max_length"` to the longest sequence that there can be. Photos have their own option in `image_processor`.
        chat_template (`str`, *optional*): Kept for the mixin; ACE-BERT has no chat.

    Attributes:
        truncation_report (`dict[str, TruncationCount]`):
            For each of "query", "title" and "hot_query" that was seen, how many texts were `seen`, how many were `cut`,
            and the tokens of the `longest`.
        unknown_report (`dict[str, UnknownCount]`):
            Likewise, how many held a word or a sign that the tokenizer doesn't know, and reads as its `unk_token`.
    """

    def __init__(
        self,
        image_processor: AceBertImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        query_max_length: int = 32,
        title_max_length: int = 64,
        truncation: bool = True,
        padding: Literal["longest", "max_length"] = "longest",
        chat_template: str | None = None,
    ) -> None:
        for name, value in (("query_max_length", query_max_length), ("title_max_length", title_max_length)):
            if value < 3:
                raise ValueError(f"{name} must be at least 3 (two special tokens and one of text), got {value}")
        for name in ("cls_token", "sep_token", "pad_token"):
            if getattr(tokenizer, name, None) is None:
                raise ValueError(f"the tokenizer has no {name}: set tokenizer.{name} to a token of its vocabulary")
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.query_max_length = query_max_length
        self.title_max_length = title_max_length
        self.truncation = truncation
        self.padding = self._check_padding(padding)
        tokenizer.model_max_length = query_max_length + title_max_length - 1
        self.truncation_report: dict[str, TruncationCount] = {}
        self.unknown_report: dict[str, UnknownCount] = {}

    @classmethod
    def _get_arguments_from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        processor_dict: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        """
        The image processor of this file and the tokenizer.

        The mixin would ask whether to trust the folder's code, and so would the tokenizer, which looks for its class in
        the model's configuration: it is told BERT's, which matters only where the tokenizer's own file names no class.
        """
        for option in ("query_max_length", "title_max_length", "truncation", "padding"):
            kwargs.pop(option, None)
        return [
            AceBertImageProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs),
            AutoTokenizer.from_pretrained(pretrained_model_name_or_path, config=BertConfig(), **kwargs),
        ]

    @property
    def model_input_names(self) -> list[str]:
        """The names of all tensors that a call may return."""
        return ["input_ids", "attention_mask", "token_type_ids", *self.image_processor.model_input_names]

    def __call__(
        self,
        text: str | Iterable[str | None] | None = None,
        images: Photo | Iterable[Photo | Sequence[Photo | None] | None] | None = None,
        hot_queries: str | Iterable[str | None] | None = None,
        side: Literal["query", "product"] | None = None,
        return_tensors: str | TensorType | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Prepare a batch of queries or of products.

        Args:
            text (`str` or `list[str]`, *optional*): Queries, or titles of products. A title may be `None`.
            images (photo or list of photos, *optional*): See [`AceBertImageProcessor`]. A photo may be `None`, and a
                list of photos is a product's several, as in `images=[[front, back], [photo], None]`.
            hot_queries (`str` or `list[str]`, *optional*): A query that led to each product, for pre-training. May be
                `None` for single products.
            side (`str`, *optional*): `"query"` or `"product"`. By default text alone is read as queries, all else as
                products.
            return_tensors (`str`, *optional*): `"pt"`, `"np"`, or by default lists with one entry per item.
            kwargs: `padding` and `truncation` in place of the saved ones, and options of the image processor.

        Returns:
            [`BatchFeature`]: `input_ids` and `attention_mask` (`int64`, `(batch, tokens)`) if text or hot queries are
            given, `token_type_ids` of the same shape if hot queries are, and the image processor's four if photos are.
            Where a product has several photos, these have one more dimension, `(batch, photos, ...)`: a product's
            photos come first, in their order, and the mask of the places that it leaves empty is 0.

        Raises:
            `ValueError`: For a query, title or hot query that is empty, not a string or (where it may not be cut) too
                long, for a product with nothing at all, for fields of different lengths; the message holds the index.
            `TypeError`: For an unknown option.
        """
        if side not in (None, "query", "product"):
            raise ValueError(f'side must be "query", "product" or None, got {side!r}')
        if text is None and images is None and hot_queries is None:
            raise ValueError("nothing to process: pass text, images or hot_queries")
        if side is None:
            side = "query" if images is None and hot_queries is None else "product"
        if side == "product":
            return self.process_products(text, images, hot_queries, return_tensors=return_tensors, **kwargs)
        for name, values in (("images", images), ("hot_queries", hot_queries)):
            if values is not None:
                raise ValueError(f'a query has no {name}: leave {name} out, or pass side="product"')
        return self.process_queries(text, return_tensors=return_tensors, **kwargs)

    def process_queries(
        self,
        queries: str | Iterable[str | None] | None,
        return_tensors: str | TensorType | None = None,
        padding: Literal["longest", "max_length"] | None = None,
        truncation: bool | None = None,
    ) -> BatchFeature:
        """Prepare queries: `processor(text=queries, side="query")`; see [`AceBertProcessor.__call__`]."""
        queries = as_list(queries, (str, bytes, dict))
        for index, query in enumerate(queries):
            if query is None:
                raise ValueError(
                    f"query[{index}] is None: a query needs text. For products with missing titles pass side='product'"
                )
        ids = self._tokenize("query", queries, self.query_max_length, truncation)
        return to_batch(self._join(ids, None, self.query_max_length, padding), return_tensors)

    def process_products(
        self,
        titles: str | Iterable[str | None] | None = None,
        images: Photo | Iterable[Photo | Sequence[Photo | None] | None] | None = None,
        hot_queries: str | Iterable[str | None] | None = None,
        return_tensors: str | TensorType | None = None,
        padding: Literal["longest", "max_length"] | None = None,
        truncation: bool | None = None,
        **images_kwargs: Any,
    ) -> BatchFeature:
        """Prepare products: `processor(text=titles, ..., side="product")`; see [`AceBertProcessor.__call__`]."""
        unknown = sorted(set(images_kwargs) - set(self.image_processor.valid_kwargs.__annotations__))
        if unknown:
            raise TypeError(
                f"unknown option {', '.join(unknown)}: lengths are set on the processor (query_max_length, "
                "title_max_length), options of photos are those of the image processor"
            )
        fields = {
            "titles": titles if titles is None else as_list(titles, (str, bytes, dict)),
            "images": images if images is None else _without_empty(as_list(images, SINGLE_PHOTO)),
            "hot_queries": hot_queries if hot_queries is None else as_list(hot_queries, (str, bytes, dict)),
        }
        given = {name: values for name, values in fields.items() if values is not None}
        sizes = {name: len(values) for name, values in given.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(
                f"all fields must hold one entry per product, got {sizes or 'none'}: pass None for what one has not"
            )
        for index, values in enumerate(zip(*given.values(), strict=True)):
            if all(value is None for value in values):
                raise ValueError(
                    f"product {index} has nothing in {', '.join(given)}: drop it or give it a title or photo"
                )

        features = BatchFeature()
        size = next(iter(sizes.values()))
        if titles is not None or hot_queries is not None:
            title_ids = self._tokenize("title", fields["titles"] or [None] * size, self.title_max_length, truncation)
            hot_ids, max_length = None, self.title_max_length
            if (hot := fields["hot_queries"]) is not None:
                hot_ids = self._tokenize("hot_query", hot, self.query_max_length, truncation)
                max_length += self.query_max_length - 1
            features.update(to_batch(self._join(title_ids, hot_ids, max_length, padding), return_tensors))
        if images is not None:
            features.update(self._process_photos(given["images"], return_tensors, **images_kwargs))
        return features

    def _process_photos(
        self,
        images: list[Any],
        return_tensors: str | TensorType | None,
        **images_kwargs: Any,
    ) -> BatchFeature:
        """The image processor's tensors of each product's photo or, where one has several, of its photos."""
        if not any(isinstance(photos, list) for photos in images):
            return self.image_processor(images, return_tensors=return_tensors, **images_kwargs)
        # (batch, photos): what a product has with the place that an error names it by, then what fills the row.
        named = [
            [(f"[{row}][{place}]", photo) for place, photo in enumerate(photos) if photo is not None]
            if isinstance(photos, list)
            else [(f"[{row}]", photos)]
            for row, photos in enumerate(images)
        ]
        width = max(map(len, named))
        flat = [each for row in named for each in row + [("", None)] * (width - len(row))]
        try:
            features = self.image_processor([photo for _, photo in flat], return_tensors="np", **images_kwargs)
        except ValueError as error:
            message = re.sub(r"^images\[(\d+)\]", lambda found: f"images{flat[int(found[1])][0]}", str(error))
            raise ValueError(message) from error
        if width > 1:
            features = {name: array.reshape(-1, width, *array.shape[1:]) for name, array in features.items()}
        return to_batch(dict(features), return_tensors)

    @staticmethod
    def _check_padding(padding: str | bool) -> str:
        if padding is True:
            return "longest"
        if padding not in ("longest", "max_length"):
            raise ValueError(f'padding must be "longest" or "max_length", got {padding!r}')
        return padding

    def _tokenize(
        self, field: str, texts: list[str | None], max_length: int, truncation: bool | None
    ) -> list[list[int]]:
        """The token ids of each text without special tokens, cut to `max_length - 2`; of none for `None`."""
        present = {index: text for index, text in enumerate(texts) if text is not None}
        remedy = "a query needs text" if field == "query" else f"pass None for a missing {field}"
        for index, text in present.items():
            if not isinstance(text, str):
                raise ValueError(f"{field}[{index}] must be a string, got {type(text).__name__}: {remedy}")
            if not text or text.isspace():
                raise ValueError(f"{field}[{index}] is empty: {remedy}")
            if LONE_SURROGATE.search(text):
                raise ValueError(
                    f"{field}[{index}] {text[:80]!r} holds half of a character (a lone surrogate): "
                    "read it as UTF-8, or encode it by errors='replace'"
                )
        if not texts:
            raise ValueError(f"{field} is empty: pass at least one")
        if not present:
            return [[] for _ in texts]
        with TOKENIZING:
            encoded = self.tokenizer(
                list(present.values()),
                add_special_tokens=False,
                split_special_tokens=True,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )["input_ids"]
        ids: list[list[int]] = [[] for _ in texts]
        limit = max_length - 2
        too_long = []
        longest = 0
        for index, tokens in zip(present, encoded, strict=True):
            if not tokens:
                raise ValueError(
                    f"{field}[{index}] {texts[index]!r} holds no token: pass text that the tokenizer can read"
                )
            longest = max(longest, len(tokens))
            if len(tokens) > limit:
                too_long.append((index, len(tokens)))
            ids[index] = tokens[:limit]
        self._report_truncation(field, too_long, len(present), longest, limit, truncation)
        self._report_unknown(field, texts, ids)
        return ids

    def get_token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each token of a text lies in it, start and end in characters; without special tokens, nothing cut."""
        with TOKENIZING:
            return self.tokenizer(
                text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
            )["offset_mapping"]

    def _report_truncation(
        self,
        field: str,
        too_long: list[tuple[int, int]],
        seen: int,
        longest: int,
        limit: int,
        truncation: bool | None,
    ) -> None:
        """Count the texts that were cut, warn at the first of a field, or raise if text may not be cut."""
        option = "title_max_length" if field == "title" else "query_max_length"
        if too_long and not (self.truncation if truncation is None else truncation):
            index, length = too_long[0]
            raise ValueError(
                f"{field}[{index}] has {length} tokens, more than the {limit} that fit, and truncation is False: "
                f"shorten it, raise {option} or allow truncation"
            )
        report = self.truncation_report.setdefault(field, {"cut": 0, "seen": 0, "longest": 0})
        if too_long and not report["cut"]:
            index, length = too_long[0]
            logger.warning(
                f"{len(too_long)} of {seen} {field} texts were cut to {limit} tokens; the first is at index {index} "
                f"with {length}. Raise {option} to keep more. This is said once per field: later counts are in "
                "processor.truncation_report."
            )
        report["cut"] += len(too_long)
        report["seen"] += seen
        report["longest"] = max(report["longest"], longest)

    def _report_unknown(self, field: str, texts: list[str | None], ids: list[list[int]]) -> None:
        """Count the texts with words that the tokenizer doesn't know, and warn at the first of a field."""
        unknown = [index for index, tokens in enumerate(ids) if self.tokenizer.unk_token_id in tokens]
        report = self.unknown_report.setdefault(field, {"unknown": 0, "seen": 0})
        if unknown and not report["unknown"]:
            logger.warning(
                f"{len(unknown)} of {sum(map(bool, ids))} {field} texts hold what the tokenizer doesn't know, and "
                f"reads as {self.tokenizer.unk_token} whatever it is; the first is {str(texts[unknown[0]])[:80]!r}. "
                "For another language train with a multilingual BERT as --backbone. This is said once per field: later "
                "counts are in processor.unknown_report."
            )
        report["unknown"] += len(unknown)
        report["seen"] += sum(map(bool, ids))

    def _join(
        self,
        last: list[list[int]],
        first: list[list[int]] | None,
        max_length: int,
        padding: str | None,
    ) -> dict[str, np.ndarray]:
        """
        `[CLS] (first [SEP]) last [SEP]` for each item, padded on the right.

        Args:
            last (`list[list[int]]`): Token ids of queries or titles, empty for a missing title.
            first (`list[list[int]]`, *optional*): Token ids of hot queries; where empty, its `[SEP]` is left out too.
            max_length (`int`): Length to pad to for `padding="max_length"`.
            padding (`str`, *optional*): In place of the saved one.

        Returns:
            `dict[str, np.ndarray]`: `input_ids`, `attention_mask` and, with `first`, `token_type_ids`: int64 arrays of
            shape `(batch, tokens)`.
        """
        padding = self.padding if padding is None else self._check_padding(padding)
        sep = self.tokenizer.sep_token_id
        last_lengths = np.fromiter(map(len, last), np.int64, len(last))[:, None]  # (batch, 1)
        starts = np.ones_like(last_lengths)
        if first is not None:
            first_lengths = np.fromiter(map(len, first), np.int64, len(first))[:, None]
            starts += first_lengths + (first_lengths > 0)
        ends = starts + last_lengths  # (batch, 1), where the closing [SEP] stands
        positions = np.arange(max_length if padding == "max_length" else ends.max() + 1)  # (tokens,)
        mask = positions <= ends

        input_ids = np.full(mask.shape, self.tokenizer.pad_token_id, dtype=np.int64)
        input_ids[:, 0] = self.tokenizer.cls_token_id
        input_ids[(positions >= starts) & (positions < ends)] = np.fromiter(chain.from_iterable(last), np.int64)
        input_ids[positions == ends] = sep
        arrays = {"input_ids": input_ids, "attention_mask": mask.astype(np.int64)}
        if first is not None:
            is_first = (positions >= 1) & (positions < starts)  # a hot query and its [SEP]
            input_ids[is_first & (positions <= first_lengths)] = np.fromiter(chain.from_iterable(first), np.int64)
            input_ids[is_first & (positions > first_lengths)] = sep
            arrays["token_type_ids"] = is_first.astype(np.int64)
        return arrays


def _without_empty(images: list[Any]) -> list[Any]:
    """Each product's photos: a list that holds none is none."""
    photos = [list(image) if isinstance(image, list | tuple) else image for image in images]
    return [None if isinstance(each, list) and all(photo is None for photo in each) else each for each in photos]


AceBertImageProcessor.register_for_auto_class("AutoImageProcessor")


AceBertProcessor.register_for_auto_class("AutoProcessor")


__all__ = ["AceBertProcessor"]
