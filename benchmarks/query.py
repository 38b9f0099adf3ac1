"""Queries to vectors, one at a time and many at once, against sentence-transformers with all-MiniLM-L6-v2."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import limits
import operations
import torch
from minilm_onnx import OnnxMiniLM
from sentence_transformers import SentenceTransformer
from timing import OURS, REFERENCE, Row, interleave, percentile, rates, timed
from transformers import AutoConfig
from workload import MINILM, Workload, make_query_texts

from acebert.encoding.encoder import Encoder
from acebert.encoding.onnx_model import OnnxAceBertModel

PEER = "all-MiniLM-L6-v2"


Encode = Callable[[list[str]], object]


def find_ours(workload: Workload) -> dict[str, Encode]:
    """The checkpoint, and its export where there is one."""
    encoders = {OURS: workload.encoder}
    if workload.export:
        exported = OnnxAceBertModel(workload.export, num_threads=torch.get_num_threads())
        encoders[f"{OURS}, ONNX {exported.precision}"] = Encoder(exported, workload.processor)
    return {name: partial(encoder.encode_queries, photos=None) for name, encoder in encoders.items()}


def find_peers(workload: Workload, folder: Path) -> dict[str, Encode]:
    """sentence-transformers by PyTorch, and its model in ONNX Runtime where ours is measured there too."""
    model = SentenceTransformer(str(MINILM), device=workload.device.type, model_kwargs={"dtype": workload.dtype})

    def encode(texts: list[str]) -> object:
        return model.encode(texts, batch_size=len(texts), normalize_embeddings=True, show_progress_bar=False)

    peers: dict[str, Encode] = {PEER: encode}
    if workload.export:
        plain = SentenceTransformer(str(MINILM), device="cpu", model_kwargs={"dtype": torch.float32})
        for precision in ("float32", "int8"):
            name = f"{PEER}, ONNX {precision}"
            peers[name] = OnnxMiniLM(plain, folder, precision, torch.get_num_threads()).encode
    return peers


def encode_each(encode: Encode, texts: list[str]) -> list[float]:
    """Milliseconds for each query on its own."""
    return [1000 * timed(partial(encode, [text]))() for text in texts]


def measure(workload: Workload) -> list[Row]:
    with TemporaryDirectory() as folder:
        return compare(workload, find_ours(workload), find_peers(workload, Path(folder)))


def compare(workload: Workload, ours: dict[str, Encode], peers: dict[str, Encode]) -> list[Row]:
    sizes = workload.sizes
    texts = make_query_texts(sizes.queries_per_round)
    calls = {name: partial(encode_each, encode, texts) for name, encode in {**ours, **peers}.items()}
    latencies = interleave(calls, sizes.repeats)
    rows = []
    for shown, percent in (("median", 50), ("99th percentile", 99)):
        rounds = {name: [percentile(values, percent) for values in found] for name, found in latencies.items()}
        for name in ours:  # its suffix tells an export's rows from the checkpoint's, in the plot too
            work_done = f"batch 1, {shown}{name.removeprefix(OURS)}"
            rows.append(Row.of(work_done, "ms", only(rounds, name, peers), ours=name))

    texts = make_query_texts(sizes.query_batch)
    calls = {name: timed(partial(encode, texts)) for name, encode in {**ours, **peers}.items()}
    seconds = interleave({REFERENCE: limits.measure_reference(workload), **calls}, sizes.repeats)
    words = workload.processor.process_queries(texts, return_tensors="np")["attention_mask"].sum(1)
    work = {
        OURS: operations.acebert_queries(workload.config, words),
        PEER: operations.bert(AutoConfig.from_pretrained(MINILM), words),
    }
    shares = {name: limits.share(count, seconds[name], seconds[REFERENCE]) for name, count in work.items()}
    throughput = {name: rates(len(texts), seconds[name]) for name in calls}
    for name in ours:
        shown = only(throughput, name, peers)
        work_done = f"batch {len(texts)}{name.removeprefix(OURS)}"
        rows.append(Row.of(work_done, "queries/s", shown, only(shares, name, peers), ours=name))
    if workload.export is None:
        rows.append(Row(f"{OURS}, ONNX", skipped="--export names no folder of `acebert export-onnx`."))
    return rows


def only(rounds: dict[str, list[float]], ours: str, peers: Iterable[str]) -> dict[str, list[float]]:
    """Those of one of ours and of the peers, as far as they are there."""
    return {name: rounds[name] for name in (ours, *peers) if name in rounds}
