"""transformers' common tests of processors and image processors, on ACE-BERT's."""

import unittest

from exceptions import leave_out
from tests.test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin
from tests.test_processing_common import ProcessorTesterMixin
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, BertTokenizer

from acebert.configuration_acebert import AceBertConfig
from acebert.image_processing_acebert import AceBertImageProcessor
from acebert.processing_acebert import AceBertProcessor

# The tests load what they saved by the Auto classes, and know of no remote code.
AceBertProcessor._auto_class = AceBertImageProcessor._auto_class = None
AutoConfig.register("acebert", AceBertConfig)
AutoImageProcessor.register(AceBertConfig, image_processor_classes={"pil": AceBertImageProcessor})
AutoProcessor.register(AceBertConfig, AceBertProcessor)


class AceBertImageProcessingTester(ImageProcessingTester):
    def __init__(self, parent: unittest.TestCase):
        super().__init__(parent, patch_size=8, max_num_patches=16, image_mean=[0.5, 0.4, 0.3])

    def _get_image_processing_classes(self) -> dict[str, type]:
        return {"pil": AceBertImageProcessor}

    def expected_output_image_shape(self, images: list) -> tuple[int, int]:
        photos = AceBertImageProcessor(**self.prepare_image_processor_dict())(images, return_tensors="pt")
        assert photos["pixel_attention_mask"].sum(1).max() == photos["pixel_values"].shape[1] <= 16
        return photos["pixel_values"].shape[1], 3 * 8**2


class AceBertImageProcessingTest(ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = AceBertImageProcessingTester


class AceBertProcessingTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = AceBertProcessor

    @classmethod
    def _setup_tokenizer(cls) -> BertTokenizer:
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "lower", "newer", "upper", "older", "longer", "string"]
        return BertTokenizer(vocab={word: index for index, word in enumerate(words)})

    @classmethod
    def _setup_image_processor(cls) -> AceBertImageProcessor:
        return AceBertImageProcessor(patch_size=8, max_num_patches=16)


OPTIONS = (
    "A call takes photos' options alone. The lengths of titles and queries are set on the processor, so that a text is "
    "never cut by a word in passing; an unknown option is an error."
)
leave_out(
    AceBertImageProcessingTest,
    {
        "test_call_numpy_4_channels": "A patch's width is the model's: four channels without conversion are an error.",
        "test_new_models_require_torchvision_backend": "Made to work without torchvision.",
    },
)
leave_out(
    AceBertProcessingTest,
    {
        "test_call_arguments_not_in_processor_kwargs": OPTIONS,
        "test_doubly_passed_kwargs": OPTIONS,
        "test_flat_kwarg_applied": OPTIONS,
        "test_init_arguments_not_in_processor_kwargs": OPTIONS,
        "test_kwargs_overrides_default": OPTIONS,
        "test_overlapping_text_image_kwargs": OPTIONS,
        "test_structured_kwargs_nested": OPTIONS,
        "test_unstructured_kwargs": OPTIONS,
        "test_subprocessor_defaults_preserved": "Titles are padded to the longest, whatever the tokenizer says.",
        "test_model_input_names": "`token_type_ids` are returned with hot queries only.",
        "test_subprocessor_defaults_0_text": "`token_type_ids` are returned with hot queries only.",
    },
)
