"""Queries to vectors, one at a time and many at once, against sentence-transformers with all-MiniLM-L6-v2."""

from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec

import limits
import operations
import torch
from sentence_transformers import SentenceTransformer
from timing import OURS, REFERENCE, Row, interleave, percentile, rates, timed
from transformers import AutoConfig
from workload import MINILM, Workload, make_query_texts

from acebert.building_acebert import ProductEncoder
from acebert.onnx_acebert import OnnxAceBertModel

PEER = "all-MiniLM-L6-v2"


Encode = Callable[[list[str]], object]


def find_ours(workload: Workload) -> dict[str, Encode]:
    """The checkpoint, and its export where there is one."""
    encoders = {OURS: workload.encoder}
    if workload.export:
        exported = OnnxAceBertModel(workload.export, num_threads=torch.get_num_threads())
        encoders[f"{OURS}, ONNX {exported.precision}"] = ProductEncoder(exported, workload.processor)
    return {name: partial(encoder.encode_queries, photos=None) for name, encoder in encoders.items()}


def find_peers(workload: Workload) -> dict[str, Encode]:
    """sentence-transformers by PyTorch, and by ONNX Runtime where its extra is installed."""
    device, options = workload.device.type, {"dtype": workload.dtype}
    models = {PEER: SentenceTransformer(str(MINILM), device=device, model_kwargs=options)}
    if find_spec("optimum"):
        models[f"{PEER}, ONNX"] = SentenceTransformer(str(MINILM), device="cpu", backend="onnx")

    def encode(model: SentenceTransformer, texts: list[str]) -> object:
        return model.encode(texts, batch_size=len(texts), normalize_embeddings=True, show_progress_bar=False)

    return {name: partial(encode, model) for name, model in models.items()}


def encode_each(encode: Encode, texts: list[str]) -> list[float]:
    """Milliseconds for each query on its own."""
    return [1000 * timed(partial(encode, [text]))() for text in texts]


def measure(workload: Workload) -> list[Row]:
    sizes, ours, peers = workload.sizes, find_ours(workload), find_peers(workload)
    texts = make_query_texts(sizes.queries_per_round)
    calls = {name: partial(encode_each, encode, texts) for name, encode in {**ours, **peers}.items()}
    latencies = interleave(calls, sizes.repeats)
    rows = []
    for shown, percent in (("median", 50), ("99th percentile", 99)):
        rounds = {name: [percentile(values, percent) for values in found] for name, found in latencies.items()}
        rows += [Row.of(f"batch 1, {shown}", "ms", only(rounds, name, peers), ours=name) for name in ours]

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
        rows.append(Row.of(f"batch {len(texts)}", "queries/s", shown, only(shares, name, peers), ours=name))
    if workload.export is None:
        rows.append(Row(f"{OURS}, ONNX", skipped="--export names no folder of export_onnx.py."))
    if not find_spec("optimum"):
        rows.append(Row(f"{PEER}, ONNX", skipped="sentence-transformers[onnx] is not installed."))
    return rows


def only(rounds: dict[str, list[float]], ours: str, peers: Iterable[str]) -> dict[str, list[float]]:
    """Those of one of ours and of the peers, as far as they are there."""
    return {name: rounds[name] for name in (ours, *peers) if name in rounds}
