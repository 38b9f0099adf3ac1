"""Photos to patches, strings to token ids: what is kept, what is cut, what is refused, what a saved folder restores."""

import io
import json
import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
import torch
from helpers import draw
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from transformers import BertTokenizer
from transformers.models.siglip2.image_processing_pil_siglip2 import (
    Siglip2ImageProcessorPil,
    get_image_size_for_max_num_patches,
)

from acebert.image_processing_acebert import RAW_PATCHES, AceBertImageProcessor, get_patch_grid
from acebert.processing_acebert import AceBertProcessor

WORDS = ["red", "blue", "striped", "cotton", "shirt", "shoe", "watch", "men", "women", "kids"]


def make_tokenizer() -> BertTokenizer:
    """A vocabulary of whole words whose special tokens stand at other ids than BERT's."""
    tokens = ["[UNK]", *WORDS, "[", "]", "sep", "[SEP]", "[MASK]", "[CLS]", "[PAD]"]
    return BertTokenizer(vocab={token: index for index, token in enumerate(tokens)})


@pytest.fixture
def processor() -> AceBertProcessor:
    image_processor = AceBertImageProcessor(patch_size=4, max_num_patches=16)
    return AceBertProcessor(image_processor, make_tokenizer(), query_max_length=5, title_max_length=8)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain_photo(height: int = 80, width: int = 60, box: tuple[int, int, int, int] = (10, 30, 50, 50)) -> np.ndarray:
    """A white photo with a dark red object in the box (left, top, right, bottom)."""
    pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = (150, 20, 40)
    return pixels


def encode(image: Image.Image | np.ndarray, image_format: str, **options: object) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def shown(processor: AceBertImageProcessor, photo: object) -> np.ndarray:
    """The picture that the model sees of one photo, as an array."""
    batch = processor(photo, return_tensors="pt")
    image = processor.patches_to_image(
        batch["pixel_values"][0],
        batch["pixel_position_ids"][0],
        batch["pixel_attention_mask"][0],
        batch["spatial_shapes"][0],
    )
    return np.asarray(image).astype(int)


WHOLE = {"do_salient_crop": False, "do_drop_background": False}


class TestPatchGrid:
    @given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 300))
    def test_is_the_largest_at_the_aspect_ratio(self, height: int, width: int, budget: int) -> None:
        # Every grid that some scale gives: a side is a whole number of patches, the other one is rounded up.
        by_rows = [(rows, -(-width * rows // height)) for rows in range(1, budget + 1)]
        by_columns = [(-(-height * columns // width), columns) for columns in range(1, budget + 1)]
        fitting = [grid for grid in by_rows + by_columns if grid[0] * grid[1] <= budget]
        rows, columns = get_patch_grid(height, width, budget)
        assert (rows, columns) in fitting
        assert rows * columns == max(a * b for a, b in fitting)

    @pytest.mark.parametrize("size", [(80, 60), (60, 80), (1000, 1200), (333, 77), (224, 224)])
    def test_equals_siglip2(self, size: tuple[int, int]) -> None:
        height, width = get_image_size_for_max_num_patches(*size, patch_size=16, max_num_patches=256)
        assert get_patch_grid(*size, 256) == (height // 16, width // 16)

    @pytest.mark.parametrize(("size", "grid"), [((1, 10000), (1, 64)), ((10000, 1), (64, 1)), ((1, 1), (8, 8))])
    def test_extreme_ratios(self, size: tuple[int, int], grid: tuple[int, int]) -> None:
        assert get_patch_grid(*size, 64) == grid
        processor = AceBertImageProcessor(patch_size=2, max_num_patches=64)
        batch = processor(noise(*size), input_data_format="channels_last", return_tensors="np")
        assert tuple(batch["spatial_shapes"][0]) == grid


class TestPatches:
    def test_equal_siglip2_without_object_search(self) -> None:
        photos = [Image.fromarray(noise(80, 60)), Image.fromarray(noise(31, 97))]
        ours = AceBertImageProcessor(patch_size=8, max_num_patches=64, padding="max_length", **WHOLE)
        theirs = Siglip2ImageProcessorPil(patch_size=8, max_num_patches=64)
        batch, expected = ours(photos, return_tensors="pt"), theirs(photos, return_tensors="pt")
        torch.testing.assert_close(batch["pixel_attention_mask"], expected["pixel_attention_mask"].long())
        torch.testing.assert_close(batch["spatial_shapes"], expected["spatial_shapes"])
        # Their padding is 0 as ours, so whole rows can be compared.
        torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"], atol=1e-5, rtol=0)

    def test_row_major_patches_of_row_column_channel(self) -> None:
        pixels = noise(4, 6)
        processor = AceBertImageProcessor(
            patch_size=2, max_num_patches=6, do_rescale=False, do_normalize=False, **WHOLE
        )
        batch = processor(pixels, return_tensors="np")
        expected = [pixels[r : r + 2, c : c + 2].ravel() for r in (0, 2) for c in (0, 2, 4)]
        np.testing.assert_array_equal(batch["pixel_values"][0], expected)
        np.testing.assert_array_equal(batch["pixel_position_ids"], [[0, 1, 2, 3, 4, 5]])

    def test_normalisation(self) -> None:
        pixels = np.full((4, 4, 3), (0, 51, 255), dtype=np.uint8)
        options = {"patch_size": 4, "max_num_patches": 1, "image_mean": [0.0, 0.1, 0.5], "image_std": [1.0, 0.5, 0.25]}
        values = AceBertImageProcessor(**options)(pixels, return_tensors="np")["pixel_values"][0, 0]
        np.testing.assert_allclose(values[:3], [0.0, (0.2 - 0.1) / 0.5, (1 - 0.5) / 0.25], atol=1e-6)
        values = AceBertImageProcessor(**options, do_normalize=False)(pixels, return_tensors="np")["pixel_values"][0, 0]
        np.testing.assert_allclose(values[:3], [0.0, 0.2, 1.0], atol=1e-6)

    def test_raw_patches_are_normalised_later_to_the_same(self) -> None:
        processor = AceBertImageProcessor(patch_size=8, max_num_patches=12, image_mean=(0.5, 0.4, 0.3))
        photos = [draw("shirt", "red", 0), None, draw("bag", "blue", 2)]
        expected, raw = (processor(photos, return_tensors="pt", **options) for options in ({}, RAW_PATCHES))
        assert raw["pixel_values"].dtype == torch.uint8
        normalised = processor.normalize_patches({**raw, "input_ids": torch.ones(3, 2)})
        assert torch.allclose(normalised["pixel_values"], expected["pixel_values"], atol=1e-6)
        assert normalised.keys() == {*expected, "input_ids"}
        assert processor.normalize_patches(normalised)["pixel_values"] is normalised["pixel_values"]

    def test_a_batch_is_its_photos_padded(self) -> None:
        processor = AceBertImageProcessor(patch_size=4, max_num_patches=30)
        photos = [noise(80, 60), plain_photo(), noise(10, 70)]
        batch = processor(photos, return_tensors="pt")
        assert batch["pixel_values"].dtype == torch.float32
        assert batch["pixel_attention_mask"].sum(1).max() == batch["pixel_values"].shape[1] <= 30
        for index, photo in enumerate(photos):
            single = processor(photo, return_tensors="pt")
            length = single["pixel_values"].shape[1]
            assert batch["pixel_attention_mask"][index].tolist() == [1] * length + [0] * (
                batch["pixel_values"].shape[1] - length
            )
            for name in ("pixel_values", "pixel_position_ids"):
                torch.testing.assert_close(batch[name][index, :length], single[name][0])
                assert not batch[name][index, length:].any()
            assert batch["spatial_shapes"][index].tolist() == single["spatial_shapes"][0].tolist()
        padded = processor(photos, padding="max_length", return_tensors="np")
        assert padded["pixel_values"].shape == (3, 30, 48)

    def test_a_missing_photo_is_all_padding(self) -> None:
        processor = AceBertImageProcessor(patch_size=4, max_num_patches=16)
        batch = processor([None, noise(8, 8)], return_tensors="pt")
        assert batch["spatial_shapes"].tolist() == [[0, 0], [4, 4]]
        assert not batch["pixel_attention_mask"][0].any()
        assert not batch["pixel_values"][0].any()
        assert dict(processor([None, None], return_tensors="pt")) == {}

    def test_return_types(self) -> None:
        processor = AceBertImageProcessor(patch_size=4, max_num_patches=16)
        lists = processor([noise(8, 8)])
        assert lists["spatial_shapes"] == [[4, 4]]
        assert isinstance(lists["pixel_values"], list)
        assert isinstance(processor([noise(8, 8)], return_tensors="np")["pixel_values"], np.ndarray)
        with pytest.raises(ValueError, match="tf is not a valid TensorType"):
            processor([noise(8, 8)], return_tensors="tf")

    def test_patches_to_image_inverts(self) -> None:
        processor = AceBertImageProcessor(patch_size=4, max_num_patches=12, **WHOLE)
        pixels = noise(12, 16)
        np.testing.assert_array_equal(shown(processor, pixels), pixels)
        batch = processor([None, pixels], return_tensors="pt")
        with pytest.raises(ValueError, match="no photo"):
            processor.patches_to_image(
                *(
                    batch[name][0]
                    for name in ("pixel_values", "pixel_position_ids", "pixel_attention_mask", "spatial_shapes")
                )
            )


class TestInputs:
    def test_every_kind_of_the_same_photo_gives_the_same_patches(self, tmp_path: Path) -> None:
        pixels = noise(20, 30)
        png = encode(pixels, "PNG")
        path = tmp_path / "photo.png"
        path.write_bytes(png)
        channels_first = torch.from_numpy(pixels).permute(2, 0, 1)
        photos = [
            Image.fromarray(pixels),
            pixels,
            pixels.transpose(2, 0, 1),
            pixels / 255.0,
            pixels.astype(np.uint16) * 257,
            pixels.astype(np.int64),
            channels_first,
            channels_first.float() / 255,
            (channels_first.double() / 255).requires_grad_(),
            torch.from_numpy(pixels),
            png,
            bytearray(png),
            str(path),
            path,
            {"bytes": png, "path": None},
            {"bytes": None, "path": str(path)},
        ]
        batch = AceBertImageProcessor(patch_size=4, max_num_patches=24)(photos, return_tensors="pt")
        for index in range(1, len(photos)):
            torch.testing.assert_close(batch["pixel_values"][index], batch["pixel_values"][0], msg=f"photo {index}")

    def test_an_array_of_photos_is_a_batch(self) -> None:
        processor = AceBertImageProcessor(patch_size=4, max_num_patches=24)
        photos = np.stack([noise(20, 30, seed) for seed in range(3)])
        stacked, listed = processor(photos, return_tensors="np"), processor(list(photos), return_tensors="np")
        np.testing.assert_array_equal(stacked["pixel_values"], listed["pixel_values"])

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA", "RGBa"])
    def test_transparency_is_white(self, mode: str) -> None:
        image = Image.new("RGBA", (8, 8), (200, 200, 200, 255))
        image.paste((0, 0, 0, 0), (0, 0, 8, 4))
        image = image.quantize(8).convert(mode) if mode in ("P", "PA") else image.convert(mode)
        pixels = shown(AceBertImageProcessor(patch_size=8, max_num_patches=1, **WHOLE), image)
        assert abs(pixels[:3] - 255).max() <= 1
        assert abs(pixels[5:] - 200).max() <= 8

    @pytest.mark.parametrize("mode", ["L", "CMYK", "1", "YCbCr", "HSV"])
    def test_other_modes_are_read_as_rgb(self, mode: str) -> None:
        image = Image.fromarray(np.repeat(noise(8, 8)[:, :, :1] // 255 * 255, 3, axis=2)).convert(mode)
        pixels = shown(AceBertImageProcessor(patch_size=8, max_num_patches=1, **WHOLE), image)
        assert abs(pixels - np.asarray(image.convert("RGB")).astype(int)).max() <= 1

    @pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4"])
    def test_sixteen_bits_are_scaled_not_clipped(self, dtype: str) -> None:
        ramp = np.linspace(0, 65535, 64).astype(dtype).reshape(8, 8)
        pixels = shown(AceBertImageProcessor(patch_size=8, max_num_patches=1, **WHOLE), Image.fromarray(ramp))
        np.testing.assert_allclose(pixels[:, :, 0], ramp.astype(float) / 257, atol=0.51)

    def test_exif_orientation_is_applied(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
        pixels = noise(8, 16)
        processor = AceBertImageProcessor(patch_size=8, max_num_patches=2, **WHOLE)
        turned = shown(processor, encode(pixels, "PNG", exif=exif))
        np.testing.assert_array_equal(turned, np.rot90(pixels, -1))

    def test_what_is_white_and_cut_out_keeps_its_silhouette(self) -> None:
        mug = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
        mug.paste((255, 255, 255, 255), (8, 8, 24, 24))
        pixels = shown(AceBertImageProcessor(patch_size=8, max_num_patches=16, **WHOLE), mug)
        assert pixels[16, 16].tolist() == [255, 255, 255] and pixels[0, 0].tolist() == [128, 128, 128]
        mug.paste((255, 0, 0, 255), (8, 8, 24, 24))
        pixels = shown(AceBertImageProcessor(patch_size=8, max_num_patches=16, **WHOLE), mug)
        assert pixels[16, 16].tolist() == [255, 0, 0] and pixels[0, 0].tolist() == [255, 255, 255]

    def test_heic_is_read_with_its_library_and_named_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        buffer = io.BytesIO()
        pillow_heif.from_pillow(Image.new("RGB", (64, 64), "red")).save(buffer)
        monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
        with pytest.raises(ValueError, match="HEIC, the format of iPhones: convert it to JPEG, or pip install"):
            AceBertImageProcessor()(buffer.getvalue())
        monkeypatch.undo()
        pillow_heif.register_heif_opener()
        assert shown(AceBertImageProcessor(patch_size=8, max_num_patches=16, **WHOLE), buffer.getvalue())[9, 9, 0] > 240

    def test_an_animation_shows_its_first_frame(self) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        gif = Image.open(io.BytesIO(encode(frames[0], "GIF", save_all=True, append_images=frames[1:])))
        gif.seek(1)
        pixels = shown(AceBertImageProcessor(patch_size=8, max_num_patches=1), gif)
        assert pixels[4, 4].tolist() == [255, 0, 0]

    @pytest.mark.parametrize(
        ("photo", "message"),
        [
            (b"not an image", "no image format"),
            (encode(noise(40, 40), "JPEG")[:-300], "truncated"),
            ("https://example.com/a.jpg", "URL"),
            ("/no/such/file.jpg", "No such file"),
            ({"bytes": None, "path": None}, '"bytes" or "path"'),
            (noise(8, 8) * 1.5, "between 0 and 1"),
            (np.full((8, 8), np.nan), "between 0 and 1"),
            (np.zeros((3, 9, 3), np.uint8), "input_data_format"),
            (np.zeros((8, 8, 5), np.uint8), "channels"),
            (np.zeros((0, 8, 3), np.uint8), "must hold pixels"),
            (np.array([["a"]]), "dtype"),
            (7, "int is no photo"),
            ([noise(8, 8)], "list is no photo"),
        ],
    )
    def test_a_bad_photo_is_named(self, photo: object, message: str) -> None:
        processor = AceBertImageProcessor(patch_size=4, max_num_patches=16)
        with pytest.raises(ValueError, match=rf"images\[1\].*{message}"):
            processor([noise(8, 8), photo])

    def test_no_photo_at_all_is_refused(self) -> None:
        with pytest.raises(ValueError, match="images is empty"):
            AceBertImageProcessor()([])

    def test_a_mode_that_would_need_converting_is_refused_on_request(self) -> None:
        with pytest.raises(ValueError, match=r"images\[0\].*do_convert_rgb"):
            AceBertImageProcessor(do_convert_rgb=False)(Image.new("L", (8, 8)))

    @pytest.mark.parametrize(
        "option",
        [
            {"patch_size": 0},
            {"max_num_patches": 0},
            {"padding": "sometimes"},
            {"salient_margin": -0.1},
            {"background_tolerance": 300},
            {"border_share": 0.0},
            {"do_resize": False},
            {"size": {"height": 4, "width": 4}},
            {"image_std": [0.5, 0.0, 0.5]},
        ],
    )
    def test_bad_options_are_refused(self, option: dict) -> None:
        with pytest.raises(ValueError, match=next(iter(option))):
            AceBertImageProcessor(**option)


class TestObject:
    @pytest.fixture
    def image_processor(self) -> AceBertImageProcessor:
        return AceBertImageProcessor(patch_size=8, max_num_patches=64, salient_margin=0.0)

    def test_crops_to_the_object(self, image_processor: AceBertImageProcessor) -> None:
        batch = image_processor(plain_photo(box=(10, 30, 50, 50)), return_tensors="np")
        assert tuple(batch["spatial_shapes"][0]) == get_patch_grid(20, 40, 64)
        assert abs(shown(image_processor, plain_photo())[4:-4, 4:-4] - (150, 20, 40)).max() <= 1

    def test_margin_is_a_fraction_of_the_longer_side(self, image_processor: AceBertImageProcessor) -> None:
        batch = image_processor(plain_photo(box=(10, 30, 50, 50)), salient_margin=0.25, return_tensors="np")
        assert tuple(batch["spatial_shapes"][0]) == get_patch_grid(20 + 2 * 10, 40 + 2 * 10, 64)

    def test_scale_does_not_change_what_is_seen(self, image_processor: AceBertImageProcessor) -> None:
        small = Image.fromarray(plain_photo())
        large = small.resize((1200, 1600), Image.Resampling.NEAREST)
        difference = shown(image_processor, small) - shown(image_processor, large)
        assert abs(difference).mean() < 10

    def test_leaves_out_patches_around_the_object(self, image_processor: AceBertImageProcessor) -> None:
        pixels = plain_photo(64, 64, (0, 0, 0, 0))
        pixels[32:, :] = 30  # an L: the upper right quarter is backdrop
        pixels[:, :32] = 30
        batch = image_processor(np.pad(pixels, ((8, 8), (8, 8), (0, 0)), constant_values=255), return_tensors="np")
        assert tuple(batch["spatial_shapes"][0]) == (8, 8)
        rows, columns = np.divmod(np.arange(64), 8)
        expected = np.flatnonzero((rows >= 4) | (columns < 4))
        # Resampling may carry the edge one patch further.
        kept = batch["pixel_position_ids"][0]
        assert set(expected) <= set(kept)
        assert not set(kept) & set(np.flatnonzero((rows < 3) & (columns > 4)))
        assert len(image_processor(pixels, do_drop_background=False)["pixel_values"][0]) == 64

    def test_what_a_white_product_encloses_is_kept(self, image_processor: AceBertImageProcessor) -> None:
        pixels = plain_photo(80, 80, (8, 8, 72, 72))
        pixels[10:70, 10:70] = 255
        batch = image_processor(pixels, return_tensors="np")
        assert batch["pixel_attention_mask"].sum() == batch["spatial_shapes"].prod() == 64

    @pytest.mark.parametrize("box", [(15, 30, 45, 80), (15, 0, 45, 80), (0, 30, 60, 50), (15, 0, 45, 40)])
    def test_an_object_may_touch_opposite_sides(self, image_processor: AceBertImageProcessor, box: tuple) -> None:
        batch = image_processor(plain_photo(box=box), return_tensors="np")
        left, top, right, bottom = box
        assert tuple(batch["spatial_shapes"][0]) == get_patch_grid(bottom - top, right - left, 64)

    def test_tolerates_jpeg_noise_but_keeps_faint_objects(self, image_processor: AceBertImageProcessor) -> None:
        pixels = plain_photo()
        noisy = (
            (pixels.astype(int) - np.random.default_rng(0).integers(0, 10, pixels.shape)).clip(0, 255).astype(np.uint8)
        )
        batch = image_processor(noisy, return_tensors="np")
        assert tuple(batch["spatial_shapes"][0]) == get_patch_grid(20, 40, 64)
        faint = np.full((80, 60, 3), 255, np.uint8)
        faint[30:50, 10:50] = 238
        batch = image_processor(faint, return_tensors="np")
        assert tuple(batch["spatial_shapes"][0]) == get_patch_grid(20, 40, 64)

    @pytest.mark.parametrize(
        "pixels",
        [
            noise(80, 60),
            np.full((80, 60, 3), 255, np.uint8),
            np.full((80, 60, 3), (20, 90, 200), np.uint8),
            plain_photo(box=(30, 40, 31, 41)),  # a speck of dust
            plain_photo(box=(0, 0, 30, 30)),  # on two adjacent sides, as in a photo cut out of a scene
            np.broadcast_to(np.linspace(0, 255, 60).astype(np.uint8)[:, None], (80, 60, 3)),
        ],
        ids=["scene", "white", "blue", "speck", "corner", "gradient"],
    )
    def test_photos_without_backdrop_or_object_stay_whole(
        self, image_processor: AceBertImageProcessor, pixels: np.ndarray
    ) -> None:
        batch = image_processor(pixels, return_tensors="np")
        assert tuple(batch["spatial_shapes"][0]) == get_patch_grid(80, 60, 64)
        assert batch["pixel_attention_mask"].sum() == batch["spatial_shapes"].prod()

    @pytest.fixture
    def decoded_sizes(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
        """Fills with the sizes that JPEG files are decoded at."""
        sizes = []
        draft = JpegImageFile.draft

        def spy(image: JpegImageFile, mode: str | None, size: tuple[int, int]) -> None:
            draft(image, mode, size)
            sizes.append(image.size)

        monkeypatch.setattr(JpegImageFile, "draft", spy)
        return sizes

    def test_a_large_jpeg_decoded_at_reduced_size_shows_the_same(
        self, image_processor: AceBertImageProcessor, decoded_sizes: list[tuple[int, int]]
    ) -> None:
        smooth = Image.fromarray(noise(12, 16)).resize((1600, 1200), Image.Resampling.BICUBIC)
        jpeg = encode(smooth, "JPEG", quality=95)
        full = Image.open(io.BytesIO(jpeg))
        full.load()  # a loaded image is never decoded anew
        assert abs(shown(image_processor, jpeg) - shown(image_processor, full)).mean() < 1.5
        assert decoded_sizes == [(200, 150)]  # at 1/8, the grid being 72 x 56 pixels; the caller's image isn't touched

    def test_a_small_object_in_a_large_jpeg_stays_sharp(
        self, image_processor: AceBertImageProcessor, decoded_sizes: list[tuple[int, int]]
    ) -> None:
        stripes = np.arange(128) // 8 % 2 == 1
        pixels = np.full((1600, 1600, 3), 255, np.uint8)
        pixels[800:928, 800:928] = np.where(stripes, 200, 0).astype(np.uint8)[None, :, None]
        # The stripes are as wide as the blocks that decoding at 1/8 of the size averages, but half a block off.
        jpeg = encode(np.roll(pixels, 4, axis=1), "JPEG", quality=95)
        assert shown(image_processor, jpeg)[24:40, 16:48].std() > 70
        assert decoded_sizes == [
            (200, 200),
            (800, 800),
        ]  # again, as fine as the object asks for

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_turned_large_jpeg_is_cropped_as_when_it_is_decoded_whole(
        self, image_processor: AceBertImageProcessor, orientation: int
    ) -> None:
        # The object's edges lie between pixels of both copies on which it is searched, at 1/12 and at 1/8 of the size.
        smooth = Image.fromarray(noise(6, 8)).resize((384, 288), Image.Resampling.BICUBIC)
        photo = Image.new("RGB", (1536, 1152), "white")
        photo.paste(smooth, (192, 672))
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        jpeg = encode(photo, "JPEG", quality=95, exif=exif)
        whole = Image.open(io.BytesIO(jpeg))
        whole.load()
        expected = shown(image_processor, whole)
        assert shown(image_processor, jpeg).shape == expected.shape
        assert abs(shown(image_processor, jpeg) - expected).mean() < 2

    @pytest.mark.parametrize("size", [(1000, 1200), (1333, 1000), (700, 500), (2001, 1501)])
    @pytest.mark.parametrize(
        ("box", "levels"),
        # The JPEG's noise at its edges may move a small object's box by a pixel of the closer copy.
        [((0.13, 0.11, 0.81, 0.93), 1), ((0.42, 0.37, 0.55, 0.52), 5)],
        ids=["large object", "small object"],
    )
    def test_a_large_jpeg_is_cut_at_the_same_pixels_however_it_is_decoded(
        self, box: tuple[float, ...], levels: float, size: tuple[int, int]
    ) -> None:
        processor = AceBertImageProcessor(patch_size=12, max_num_patches=36)
        left, top, right, bottom = (round(share * side) for share, side in zip(box, 2 * size, strict=True))
        photo = Image.new("RGB", size, "white")
        smooth = Image.fromarray(noise(6, 8) // 2).resize((right - left, bottom - top), Image.Resampling.BICUBIC)
        photo.paste(smooth, (left, top))
        jpeg = encode(photo, "JPEG", quality=95)
        whole = Image.open(io.BytesIO(jpeg))
        whole.load()
        reduced, full = shown(processor, jpeg), shown(processor, whole)
        assert reduced.shape == full.shape
        assert abs(reduced - full).mean() < levels

    def test_a_small_object_in_a_large_photo_is_cut_at_its_edges(self) -> None:
        processor = AceBertImageProcessor(patch_size=12, max_num_patches=36, salient_margin=0.0)
        photo = Image.fromarray(plain_photo(1600, 1600, (901, 503, 1021, 623)))
        for decoded in (photo, encode(photo, "JPEG", quality=95)):
            # Nothing but the object is seen. At the first copy's pixels, 8 of the photo's, backdrop would be, too.
            assert abs(shown(processor, decoded)[2:-2, 2:-2] - (150, 20, 40)).max() < 10


class TestText:
    def test_equals_the_tokenizer(self, processor: AceBertProcessor) -> None:
        texts = ["red shirt", "blue striped cotton shirt men", "watch"]
        tokenizer = make_tokenizer()
        expected = tokenizer(texts, padding=True, truncation=True, max_length=5, return_tensors="pt")
        queries = processor(text=texts, return_tensors="pt")
        assert set(queries) == {"input_ids", "attention_mask"}
        for name in queries:
            assert queries[name].dtype == torch.int64
            assert queries[name].tolist() == expected[name].tolist()
        products = processor.process_products(texts, return_tensors="pt")
        expected = tokenizer(texts, padding=True, truncation=True, max_length=8, return_tensors="pt")
        assert products["input_ids"].tolist() == expected["input_ids"].tolist()

    def test_hot_queries_equal_the_tokenizers_pairs(self, processor: AceBertProcessor) -> None:
        titles, hot_queries = ["cotton shirt men", "watch"], ["red shirt", "blue"]
        batch = processor(text=titles, hot_queries=hot_queries, return_tensors="np")
        expected = make_tokenizer()(hot_queries, titles, padding=True, return_tensors="np")
        np.testing.assert_array_equal(batch["input_ids"], expected["input_ids"])
        np.testing.assert_array_equal(batch["attention_mask"], expected["attention_mask"])
        #                                 [CLS] red shirt [SEP] cotton shirt men [SEP]
        assert batch["token_type_ids"].tolist() == [[0, 1, 1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0]]

    def test_missing_titles_and_hot_queries(self, processor: AceBertProcessor) -> None:
        batch = processor(
            text=["red shirt", None, None], hot_queries=[None, "blue", None], images=[None, None, noise(8, 8)]
        )
        assert processor.batch_decode(batch["input_ids"]) == [
            "[CLS] red shirt [SEP]",
            "[CLS] blue [SEP] [SEP]",
            "[CLS] [SEP] [PAD] [PAD]",
        ]
        assert batch["token_type_ids"] == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]

    def test_each_part_is_cut_on_its_own(self, processor: AceBertProcessor) -> None:
        long = " ".join(WORDS)
        batch = processor(text=[long, "red"], hot_queries=[long, "blue"], return_tensors="np")
        assert batch["input_ids"].shape == (2, 5 + 8 - 1) == (2, processor.tokenizer.model_max_length)
        expected = f"[CLS] {' '.join(WORDS[:3])} [SEP] {' '.join(WORDS[:6])} [SEP]"
        assert processor.decode(batch["input_ids"][0]) == expected

    def test_padding(self, processor: AceBertProcessor) -> None:
        assert processor("red", padding="max_length", return_tensors="np")["input_ids"].shape == (1, 5)
        products = processor(text="red", side="product", padding="max_length", return_tensors="np")
        assert products["input_ids"].shape == (1, 8)
        assert processor("red", padding=True, return_tensors="np")["input_ids"].shape == (1, 3)
        with pytest.raises(ValueError, match="padding"):
            processor("red", padding="do_not_pad")

    def test_a_special_token_in_a_title_is_plain_text(self, processor: AceBertProcessor) -> None:
        batch = processor(text="red [SEP] shirt", side="product")
        assert processor.tokenizer.convert_ids_to_tokens(batch["input_ids"][0]) == [
            *("[CLS]", "red", "[", "sep", "]", "shirt", "[SEP]")
        ]

    def test_sides(self, processor: AceBertProcessor) -> None:
        title = "blue striped cotton shirt men"
        assert len(processor(title)["input_ids"][0]) == 5
        assert len(processor(title, side="product")["input_ids"][0]) == 7
        both = processor(text=[title], images=[noise(8, 8)], return_tensors="pt")
        assert list(both) == ["input_ids", "attention_mask", *processor.image_processor.model_input_names]
        assert both["input_ids"].shape == (1, 7)
        assert set(both) <= set(processor.model_input_names)
        photo = processor(images=noise(8, 8), return_tensors="pt")
        assert list(photo) == list(processor.image_processor.model_input_names)

    def test_options_of_photos_pass_through(self, processor: AceBertProcessor) -> None:
        batch = processor(images=[noise(8, 8)], max_num_patches=4, return_tensors="np")
        assert batch["spatial_shapes"].tolist() == [[2, 2]]
        with pytest.raises(TypeError, match="max_length"):
            processor(images=[noise(8, 8)], max_length=3)

    def test_cut_text_is_counted_and_warned_of_once(
        self, processor: AceBertProcessor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logging.getLogger("acebert.processing_acebert"), "propagate", True)
        long = " ".join(WORDS)
        with caplog.at_level(logging.WARNING, logger="acebert.processing_acebert"):
            processor(["red", long, "red blue striped cotton"])
            processor([long])
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        message = caplog.records[0].getMessage()
        assert "2 of 3 query texts" in message
        assert "index 1 with 10" in message
        assert "query_max_length" in message
        assert processor.truncation_report == {"query": {"cut": 3, "seen": 4, "longest": 10}}
        with caplog.at_level(logging.WARNING, logger="acebert.processing_acebert"):
            processor(text=[long, None], hot_queries=["red", "blue"])
        assert len(caplog.records) == 2
        assert processor.truncation_report["title"] == {"cut": 1, "seen": 1, "longest": 10}
        assert processor.truncation_report["hot_query"] == {"cut": 0, "seen": 2, "longest": 1}

    def test_what_the_tokenizer_doesn_t_know_is_counted_and_warned_of_once(
        self, processor: AceBertProcessor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logging.getLogger("acebert.processing_acebert"), "propagate", True)
        with caplog.at_level(logging.WARNING, logger="acebert.processing_acebert"):
            processor(text=["red", "靴子", None], images=None, side="product", hot_queries=["red", None, "袜子"])
            processor(text=["靴子"], side="product")
        assert processor.unknown_report == {
            "title": {"unknown": 2, "seen": 3},
            "hot_query": {"unknown": 1, "seen": 2},
        }
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 2 and "1 of 2 title texts hold what the tokenizer doesn't know" in said[0]
        assert "[UNK]" in said[0] and "multilingual BERT as --backbone" in said[0]

    def test_truncation_can_be_refused(self, processor: AceBertProcessor) -> None:
        with pytest.raises(ValueError, match=r"title\[1\] has 10 tokens, more than the 6"):
            processor.process_products(["red", " ".join(WORDS)], truncation=False)
        strict = AceBertProcessor(processor.image_processor, make_tokenizer(), query_max_length=5, truncation=False)
        with pytest.raises(ValueError, match=r"query\[0\] has 4 tokens, more than the 3"):
            strict("red blue striped cotton")

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({}, "nothing to process"),
            ({"text": ["red", None]}, r"query\[1\] is None"),
            ({"text": ["red", "  "]}, r"query\[1\] is empty"),
            ({"text": []}, "query is empty"),
            ({"text": ["red", 3]}, r"query\[1\] must be a string, got int"),
            ({"text": ["red", float("nan")], "side": "product"}, r"title\[1\] must be a string, got float"),
            ({"text": ["red", ""], "side": "product"}, r"title\[1\] is empty: pass None"),
            ({"text": ["red", None], "side": "product"}, r"product 1 has nothing"),
            ({"text": ["red", None], "hot_queries": ["red", None]}, r"product 1 has nothing"),
            ({"text": ["red"], "hot_queries": ["red", ""]}, "one entry per product"),
            ({"text": ["red"], "hot_queries": [""]}, r"hot_query\[0\] is empty"),
            ({"text": ["red", "blue"], "images": [None]}, "one entry per product.*2.*1"),
            ({"text": ["red"], "images": [b"x"]}, r"images\[0\]"),
            ({"text": "red", "images": [None], "side": "query"}, "a query has no images"),
            ({"text": "red", "side": "title"}, "side"),
            ({"text": ["red", "\u200b"]}, r"query\[1\].*no token"),
        ],
    )
    def test_bad_input_is_named(self, processor: AceBertProcessor, fields: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            processor(**fields)

    def test_bad_settings_are_refused(self, processor: AceBertProcessor) -> None:
        with pytest.raises(ValueError, match="title_max_length"):
            AceBertProcessor(processor.image_processor, make_tokenizer(), title_max_length=2)
        with pytest.raises(ValueError, match="padding"):
            AceBertProcessor(processor.image_processor, make_tokenizer(), padding="never")
        tokenizer = make_tokenizer()
        tokenizer.sep_token = None
        with pytest.raises(ValueError, match="sep_token"):
            AceBertProcessor(processor.image_processor, tokenizer)


class TestRoundTrip:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        image_processor = AceBertImageProcessor(
            patch_size=4, max_num_patches=20, padding="max_length", salient_margin=0.1, background_tolerance=5
        )
        processor = AceBertProcessor(
            image_processor,
            make_tokenizer(),
            query_max_length=6,
            title_max_length=9,
            padding="max_length",
            truncation=False,
        )
        processor("red")
        processor.save_pretrained(tmp_path / "saved")
        return tmp_path / "saved"

    def test_settings_survive(self, folder: Path) -> None:
        saved = json.loads((folder / "processor_config.json").read_text())
        assert saved["query_max_length"] == 6
        assert "truncation_report" not in saved and "unknown_report" not in saved
        loaded = AceBertProcessor.from_pretrained(folder)
        assert (loaded.query_max_length, loaded.title_max_length) == (6, 9)
        assert (loaded.padding, loaded.truncation) == ("max_length", False)
        assert loaded.tokenizer.model_max_length == 14
        image_processor = loaded.image_processor
        assert (image_processor.patch_size, image_processor.max_num_patches) == (4, 20)
        assert (image_processor.padding, image_processor.salient_margin) == ("max_length", 0.1)
        assert image_processor.background_tolerance == 5

    def test_settings_can_be_replaced_on_loading(self, folder: Path) -> None:
        loaded = AceBertProcessor.from_pretrained(folder, title_max_length=20, truncation=True)
        assert (loaded.query_max_length, loaded.title_max_length, loaded.truncation) == (6, 20, True)
        assert "title_max_length" not in loaded.tokenizer.init_kwargs

    def test_remote_code_gives_the_same(self, folder: Path, tmp_path: Path) -> None:
        """A process without the package loads the folder as a Hub user does."""
        code = f"""
import numpy as np, sys
from transformers import AutoImageProcessor, AutoProcessor
processor = AutoProcessor.from_pretrained({str(folder)!r}, trust_remote_code=True)
assert type(processor).__name__ == "AceBertProcessor", type(processor)
assert type(processor).__module__.startswith("transformers_modules."), type(processor).__module__
assert "acebert" not in sys.modules
image_processor = AutoImageProcessor.from_pretrained({str(folder)!r}, trust_remote_code=True)
assert image_processor.to_dict() == processor.image_processor.to_dict()
photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
batch = processor(text=["red shirt"], images=[photo], hot_queries=["blue"], return_tensors="np")
np.savez({str(tmp_path / "batch.npz")!r}, **batch)
processor.save_pretrained({str(tmp_path / "again")!r})
"""
        (tmp_path / "elsewhere").mkdir()
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
        run = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path / "elsewhere",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        expected = AceBertProcessor.from_pretrained(folder)(
            text=["red shirt"], images=[noise(20, 30)], hot_queries=["blue"], return_tensors="np"
        )
        batch = np.load(tmp_path / "batch.npz")
        assert set(batch) == set(expected)
        for name in expected:
            np.testing.assert_array_equal(batch[name], expected[name])
        names = {path.name for path in folder.iterdir()}
        assert {path.name for path in (tmp_path / "again").iterdir()} == names


def test_one_thread_at_a_time_is_in_the_tokenizer(
    tiny_processor: AceBertProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenize, inside, most = tiny_processor.tokenizer._encode_plus, [], []

    def watched(*args: Any, **kwargs: Any) -> Any:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        return tokenize(*args, **kwargs)

    monkeypatch.setattr(tiny_processor.tokenizer, "_encode_plus", watched)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tiny_processor.get_token_offsets, ["red mug"] * 8))
        list(pool.map(lambda text: tiny_processor(text=[text], return_tensors="np"), ["red mug"] * 8))
    assert len(most) == 16 and max(most) == 1
