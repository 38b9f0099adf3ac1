"""The query encoder's plain folder: loaded by strangers, without remote code, it gives the model's vectors."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoProcessor, AutoTokenizer

from acebert.commands import export_query_encoder
from acebert.configuration_acebert import AceBertConfig
from acebert.encoding.query_export import write_query_encoder
from acebert.modeling_acebert import AceBertModel
from acebert.processing_acebert import AceBertProcessor

TEXTS = ["red shirt", "the black shoe of the men", " ".join(["blue mug"] * 40), "x y z"]
# Isolated: neither the working directory, PYTHONPATH nor the editable install's finder is on the path.
STRANGER = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
import importlib.util, json, numpy
assert importlib.util.find_spec("acebert") is None
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], trust_remote_code=False, device="cpu")
numpy.save(sys.argv[2], model.encode(json.loads(sys.argv[3])))
"""


@pytest.mark.parametrize(
    "options",
    [{}, {"pooling": "cls"}, {"text_projection": False, "projection_dim": 32}, {"share_encoders": True}],
    ids=["projected", "cls", "plain", "shared"],
)
def test_a_stranger_gets_the_models_vectors(
    options: dict, tiny_config: Callable[..., AceBertConfig], tiny_processor: AceBertProcessor, tmp_path: Path
) -> None:
    if "share_encoders" in options:
        options = {**options, "query_config": tiny_config().text_config.to_dict()}
    torch.manual_seed(0)
    model = AceBertModel(tiny_config(**options)).eval()
    limit = tiny_processor.tokenizer.model_max_length
    write_query_encoder(model, tiny_processor, tmp_path / "query")
    assert tiny_processor.tokenizer.model_max_length == limit
    with torch.no_grad():
        expected = model.get_text_features(**tiny_processor(text=TEXTS, return_tensors="pt")).pooler_output
    run = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(tmp_path / "query"), str(tmp_path / "v.npy"), json.dumps(TEXTS)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "MISSING" not in run.stderr and "UNEXPECTED" not in run.stderr
    assert np.abs(np.load(tmp_path / "v.npy") - expected.numpy()).max() <= 1e-6

    # And with transformers alone: BERT, the pooling by hand.
    bert = AutoModel.from_pretrained(tmp_path / "query").eval()
    inputs = AutoTokenizer.from_pretrained(tmp_path / "query")(
        TEXTS, return_tensors="pt", padding=True, truncation=True
    )
    with torch.no_grad():
        hidden, mask = bert(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
    pooled = hidden[:, 0] if options.get("pooling") == "cls" else (hidden * mask).sum(1) / mask.sum(1)
    projection = model.query_projection or model.product_projection
    assert torch.allclose(F.normalize(projection(pooled), dim=-1), expected, atol=1e-6)


def test_the_command(
    tiny_config: Callable[..., AceBertConfig], tiny_processor: AceBertProcessor, tmp_path: Path
) -> None:
    AceBertModel(tiny_config()).to(torch.bfloat16).save_pretrained(tmp_path / "checkpoint")
    tiny_processor.save_pretrained(tmp_path / "checkpoint")
    flags = ["--model_name_or_path", str(tmp_path / "checkpoint"), "--output_dir", str(tmp_path / "query")]
    export_query_encoder.main(flags)
    assert AutoModel.from_pretrained(tmp_path / "query").dtype == torch.float32
    assert not list((tmp_path / "query").glob("*.py"))
    assert "acebert" not in (tmp_path / "query" / "tokenizer_config.json").read_text().lower()
    AutoProcessor.from_pretrained(tmp_path / "query", trust_remote_code=False)
    with pytest.raises(SystemExit, match="is not empty"):
        export_query_encoder.main(flags)
