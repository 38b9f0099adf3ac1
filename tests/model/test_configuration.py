import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoConfig

from acebert.configuration_acebert import AceBertConfig


def test_defaults_are_of_bert_base_class() -> None:
    config = AceBertConfig()
    assert (config.text_config.hidden_size, config.text_config.num_hidden_layers) == (768, 12)
    assert config.query_config.to_dict() == config.text_config.to_dict()
    assert config.query_config is not config.text_config


def test_small_takes_changes() -> None:
    config = AceBertConfig.small(projection_dim=64, vocab_size=500)
    assert (config.projection_dim, config.text_config.vocab_size, config.query_config.vocab_size) == (64, 500, 500)


def test_round_trip(tiny_config: Callable[..., AceBertConfig], tmp_path: Path) -> None:
    config = tiny_config(matryoshka_dims=[4, 8], loss="sigmoid", pooling="cls", backbone={"product_layers": [0, 3]})
    config.save_pretrained(tmp_path)
    loaded = AceBertConfig.from_pretrained(tmp_path)
    ours, theirs = config.to_dict(), loaded.to_dict()
    for values in (ours, theirs):
        values.pop("_name_or_path", None)
    assert ours == theirs
    assert set(json.loads((tmp_path / "config.json").read_text())["auto_map"]) == {
        "AutoConfig",
        "AutoModel",
        "AutoModelForPreTraining",
    }
    assert (tmp_path / "configuration_acebert.py").exists()


ENCODER = {"vocab_size": 200, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"text_config": {**ENCODER, "hidden_size": 30}}, r"text_config.hidden_size.* \(30\) must be a multiple"),
        ({"query_config": {**ENCODER, "vocab_size": 7}}, "share one tokenizer"),
        ({"query_config": {**ENCODER, "hidden_size": 64}}, "make them equal or set `tie_word_embeddings=False`"),
        ({"query_config": {**ENCODER, "num_hidden_layers": 3}, "share_encoders": True}, "leave `query_config` out"),
        ({"text_config": {"model_type": "gpt2"}}, "must be of BERT's kind"),
        ({"patch_size": 16, "pixel_group_size": 5}, r"`pixel_group_size` \(5\) must divide `patch_size` \(16\)"),
        ({"use_patch_features": False, "use_pixel_features": False}, "needs `use_patch_features`"),
        ({"loss": "triplet"}, r"`loss` must be one of .* not 'triplet'"),
        ({"pooling": "max"}, r"`pooling` must be one of .* not 'max'"),
        ({"matryoshka_dims": [512]}, "between 1 and `projection_dim` - 1"),
        ({"label_smoothing": 1.0}, "must lie in"),
        ({"pixel_group_size": 0}, "`pixel_group_size` must be at least 1, got 0"),
        ({"domain_hidden_sizes": [0]}, "`domain_hidden_sizes` must be at least 1"),
        ({"projection_dim": 0}, "must be at least 1, got 0"),
        ({"adversarial_strength": -0.1}, "must not be negative"),
        ({"sep_token_id": 200}, "outside the vocabulary"),
        ({"projecton_dim": 8}, "did you mean `projection_dim`"),
        ({"patch_size": 16.0}, "expected int, got float"),
    ],
)
def test_bad_values_are_refused_by_name(wrong: dict, message: str) -> None:
    with pytest.raises(Exception, match=message):
        AceBertConfig(**{"text_config": ENCODER, **wrong})


def test_later_assignment_is_validated(tiny_config: Callable[..., AceBertConfig]) -> None:
    config = tiny_config()
    with pytest.raises(Exception, match="patch_size"):
        config.patch_size = "8"


def test_auto_config_knows_no_acebert_without_remote_code(
    tiny_config: Callable[..., AceBertConfig], tmp_path: Path
) -> None:
    tiny_config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoConfig.from_pretrained(tmp_path, trust_remote_code=False)
