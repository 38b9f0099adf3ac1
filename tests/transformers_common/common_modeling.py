"""transformers' common tests of models and configs, on tiny ACE-BERTs.

Tests that don't apply are left out with the reason; others skip themselves, for want of hardware or of a feature.
"""

import copy
import unittest
from typing import Any, ClassVar

import torch
from exceptions import leave_out
from tests.test_configuration_common import ConfigTester
from tests.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor, random_attention_mask

from acebert.configuration_acebert import AceBertConfig, AceBertVisionConfig
from acebert.modeling_acebert import AceBertForPreTraining, AceBertForRetrieval, AceBertModel, AceBertProductEncoder
from acebert.vision_acebert import AceBertVisionModel

# Seven: the comparison of attention kernels takes that many, and would make up shapes for the rest.
BATCH, WORDS, QUERY_WORDS, GRID = 7, 7, 5, 2
VOCABULARY = 120  # holds the default ids of [CLS] and [SEP]
ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "patch_size": 8,
    "position_grid_size": 4,
}
IMAGE_INPUTS = ("pixel_values", "pixel_attention_mask", "spatial_shapes")


class AceBertModelTester:
    """Configs and inputs. The attributes are what the common tests look at."""

    is_training = True
    batch_size = BATCH
    seq_length = WORDS + GRID**2
    hidden_size = 32
    num_hidden_layers = 2
    num_attention_heads = 4
    num_masks = 2
    mask_length = GRID**2

    def __init__(self, parent: unittest.TestCase, with_query: bool, vision_config: dict[str, Any]):
        self.parent = parent
        self.with_query, self.vision_config = with_query, vision_config

    def get_config(self) -> AceBertConfig:
        return AceBertConfig(
            text_config=ENCODER,
            query_config=ENCODER,
            vision_config=self.vision_config or None,
            patch_size=8,
            pixel_group_size=4,
            pixel_hidden_size=8,
            position_grid_size=4,
            projection_dim=16,
            domain_hidden_sizes=[8],
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[AceBertConfig, dict[str, torch.Tensor]]:
        product = {
            "input_ids": ids_tensor([BATCH, WORDS], VOCABULARY),
            "attention_mask": random_attention_mask([BATCH, WORDS]),
            "pixel_values": floats_tensor([BATCH, GRID**2, 3 * 8**2]),
            "pixel_attention_mask": torch.ones(BATCH, GRID**2, dtype=torch.long),
            "spatial_shapes": torch.full((BATCH, 2), GRID),
        }
        query = {
            "query_input_ids": ids_tensor([BATCH, QUERY_WORDS], VOCABULARY),
            "query_attention_mask": random_attention_mask([BATCH, QUERY_WORDS]),
        }
        return self.get_config(), {**(query if self.with_query else {}), **product}


class AceBertVisionModelTester(AceBertModelTester):
    is_training = False  # it has no loss of its own
    seq_length = 1 + GRID**2  # the class token comes first

    def get_config(self) -> AceBertVisionConfig:
        return AceBertVisionConfig(**VISION)

    def prepare_config_and_inputs_for_common(self) -> tuple[AceBertVisionConfig, dict[str, torch.Tensor]]:
        config, inputs = super().prepare_config_and_inputs_for_common()
        return config, {name: value for name, value in inputs.items() if name in IMAGE_INPUTS}


class CommonTests(ModelTesterMixin):
    test_resize_embeddings = False
    test_torch_exportable = False
    _is_composite = True
    with_query = False
    vision_config: ClassVar[dict[str, Any]] = {}  # one stream
    additional_model_inputs = ("input_ids", "pixel_values", "pixel_attention_mask", "spatial_shapes")

    def setUp(self) -> None:
        self.model_tester = AceBertModelTester(self, self.with_query, self.vision_config)


class AceBertProductEncoderTest(CommonTests, unittest.TestCase):
    all_model_classes = (AceBertProductEncoder,)

    def setUp(self) -> None:
        super().setUp()
        self.model_tester.is_training = False  # it has no loss of its own


class AceBertModelTest(CommonTests, unittest.TestCase):
    all_model_classes = (AceBertModel, AceBertForRetrieval)
    with_query = True

    def _prepare_for_class(self, inputs_dict: dict[str, Any], model_class: type, return_labels: bool = False) -> dict:
        return copy.deepcopy(inputs_dict) | ({"return_loss": True} if return_labels else {})

    def test_config(self) -> None:
        ConfigTester(self, config_class=AceBertConfig, has_text_modality=False).run_common_tests()


class AceBertWithImageEncoderTest(AceBertModelTest):
    vision_config = VISION


class AceBertVisionModelTest(CommonTests, unittest.TestCase):
    all_model_classes = (AceBertVisionModel,)
    _is_composite = False
    additional_model_inputs = ("pixel_attention_mask", "spatial_shapes")

    def setUp(self) -> None:
        self.model_tester = AceBertVisionModelTester(self, with_query=False, vision_config=VISION)


leave_out(AceBertVisionModelTest, {"test_model_get_set_embeddings": "Patches have no table of embeddings."})

SEVERAL_ENCODERS = (
    "Outputs of several encoders: AceBertProductEncoderTest tests one, transformers' BERT tests the other."
)
OF_SEVERAL = {
    "test_attention_outputs": SEVERAL_ENCODERS,
    "test_hidden_states_output": SEVERAL_ENCODERS,
    "test_retain_grad_hidden_states_attentions": SEVERAL_ENCODERS,
    "test_eager_matches_sdpa_inference": "It reads CLIP's `logits_per_text`. AceBertProductEncoderTest runs it.",
}
leave_out(AceBertWithImageEncoderTest, OF_SEVERAL)
leave_out(
    AceBertModelTest,
    {
        **OF_SEVERAL,
        "test_get_image_features_output": "It looks for the width in `vision_config`, which one stream has not. "
        "AceBertWithImageEncoderTest runs it.",
    },
)


class AceBertForPreTrainingTest(CommonTests, unittest.TestCase):
    all_model_classes = (AceBertForPreTraining,)
    # Pre-training reads products: the query side waits for fine-tuning.
    test_all_params_have_gradient = False

    def _prepare_for_class(self, inputs_dict: dict[str, Any], model_class: type, return_labels: bool = False) -> dict:
        inputs = copy.deepcopy(inputs_dict)
        if return_labels:
            inputs["labels"] = inputs["input_ids"]
            inputs["bool_masked_pos"] = inputs["pixel_attention_mask"].bool()
            inputs["matching_labels"] = torch.arange(BATCH) % 2
        return inputs
