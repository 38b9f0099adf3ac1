"""From raw photos to the patches that ACE-BERT reads.

`AceBertImageProcessor` turns a photo of any size into a sequence of raw pixel patches at the photo's own aspect ratio,
in the layout of SigLIP 2 NaFlex (https://arxiv.org/abs/2502.14786). Before that it crops a photo with a plain backdrop
to its object, and afterwards leaves out the patches that show only the backdrop. The abstract of ACE-BERT (APWeb-WAIM
2023) says that significant objects are detected and irrelevant background is removed; how is not known to us, so the
method here (a plain-backdrop test, no detector, no weights) is this project's own.
"""

import io
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import ceil, isqrt
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from .configuration_acebert import AceBertConfig  # noqa: F401 - first, because it checks the version of transformers

# isort: split
import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from transformers import AutoConfig
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
    ChannelDimension,
    PILImageResampling,
)
from transformers.processing_utils import ImagesKwargs, Unpack
from transformers.utils import TensorType

Box: TypeAlias = tuple[int, int, int, int]  # left, top, right, bottom
Photo: TypeAlias = Image.Image | np.ndarray | torch.Tensor | bytes | str | os.PathLike | dict[str, Any]

NUM_CHANNELS = 3
WHITE, GREY = (255, 255, 255), (128, 128, 128)
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # ISO/IEC 23008-12
SINGLE_PHOTO = (Image.Image, bytes, bytearray, memoryview, str, os.PathLike, dict)

# Options of a call whose patches `AceBertImageProcessor.normalize_patches` normalises later.
RAW_PATCHES = {"do_rescale": False, "do_normalize": False}

# The object is searched on a copy whose longer side has this many pixels, or less than twice as many, so that the cost
# doesn't grow with the photo.
ANALYSIS_SIDE = 128
# A smaller share of differing channel values than this is dust or noise, not an object to crop to.
MIN_OBJECT_SHARE = 0.002


_HALF = (0.5, 0.5, 0.5)
# How the published models of each kind see photos, for a backbone that comes without its image processor.
_DINOV2_PIXELS = {
    "image_mean": tuple(IMAGENET_DEFAULT_MEAN),
    "image_std": tuple(IMAGENET_DEFAULT_STD),
    "resample": PILImageResampling.BICUBIC,
}
BACKBONE_PIXELS = {
    "vit": {"image_mean": _HALF, "image_std": _HALF, "resample": PILImageResampling.BILINEAR},
    "dinov2": _DINOV2_PIXELS,
    "dinov2_with_registers": _DINOV2_PIXELS,
    "clip_vision_model": {
        "image_mean": tuple(OPENAI_CLIP_MEAN),
        "image_std": tuple(OPENAI_CLIP_STD),
        "resample": PILImageResampling.BICUBIC,
    },
    "siglip_vision_model": {"image_mean": _HALF, "image_std": _HALF, "resample": PILImageResampling.BICUBIC},
    "siglip2_vision_model": {"image_mean": _HALF, "image_std": _HALF, "resample": PILImageResampling.BILINEAR},
}


class AceBertImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]  # a TypedDict
    r"""
    patch_size (`int`, *optional*, defaults to `self.patch_size`):
        Side of a square patch in pixels.
    max_num_patches (`int`, *optional*, defaults to `self.max_num_patches`):
        A photo is resized to the largest grid of at most this many patches.
    padding (`str`, *optional*, defaults to `self.padding`):
        `"longest"` pads to the longest patch sequence of the batch, `"max_length"` to `max_num_patches`.
    do_salient_crop (`bool`, *optional*, defaults to `self.do_salient_crop`):
        Whether to crop a photo with a plain backdrop to its object.
    do_drop_background (`bool`, *optional*, defaults to `self.do_drop_background`):
        Whether to leave out patches that show only the plain backdrop around the object.
    salient_margin (`float`, *optional*, defaults to `self.salient_margin`):
        Margin kept around the object, as a fraction of the longer side of its box.
    background_tolerance (`int`, *optional*, defaults to `self.background_tolerance`):
        A pixel belongs to the backdrop if no channel is further than this (0-255) from the backdrop's colour.
    border_share (`float`, *optional*, defaults to `self.border_share`):
        A side of the photo is plain if at least this share of its outermost channel values are the backdrop's.
    """

    patch_size: int
    max_num_patches: int
    padding: Literal["longest", "max_length"]
    do_salient_crop: bool
    do_drop_background: bool
    salient_margin: float
    background_tolerance: int
    border_share: float


@lru_cache(maxsize=4096)
def get_patch_grid(height: int, width: int, max_num_patches: int) -> tuple[int, int]:
    """
    The largest grid of square patches, at the aspect ratio of a photo, that holds at most `max_num_patches`.

    The grid at scale `s` (patches per pixel) is `(ceil(s * height), ceil(s * width))`. It changes only where a side is
    a whole number of patches, so the two best such scales decide, in exact integer arithmetic.

    Args:
        height (`int`): Height of the photo in pixels, at least 1.
        width (`int`): Width of the photo in pixels, at least 1.
        max_num_patches (`int`): Upper bound of rows * columns, at least 1.

    Returns:
        `tuple[int, int]`: rows and columns, both at least 1.
    """
    rows = min(max_num_patches, isqrt(max_num_patches * height // width))
    while rows * -(-width * rows // height) > max_num_patches:
        rows -= 1
    columns = min(max_num_patches, isqrt(max_num_patches * width // height))
    while columns * -(-height * columns // width) > max_num_patches:
        columns -= 1
    if rows * width >= columns * height:
        return rows, -(-width * rows // height)
    return -(-height * columns // width), columns


def to_numpy(values: np.ndarray | torch.Tensor) -> np.ndarray:
    """An array from an array or from a tensor of any device and floating-point type."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    return values


def convert_to_uint8(array: np.ndarray) -> np.ndarray:
    """Bring pixels of any shape to uint8: 16-bit is scaled down, floats are read as 0..1, other integers as 0..255."""
    kind = array.dtype.kind
    if kind == "u" and array.itemsize == 1:
        return array
    if kind == "u" and array.itemsize == 2:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if kind not in "biuf":
        raise ValueError(f"pixels of dtype {array.dtype} can't be read: pass uint8, or floats from 0 to 1")
    top = 255 if kind in "iu" else 1
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= top):
        raise ValueError(
            f"{array.dtype} pixels must lie between 0 and {top}, got {low} to {high}: rescale, or pass uint8"
        )
    return np.rint(array * (255 / top)).astype(np.uint8)


def find_channel_axis(shape: tuple[int, int, int]) -> int:
    """Which axis (0 or 2) of an image array holds the channels: 3 of them are looked for first, then 4, then 1."""
    for size in (3, 4, 1):
        axes = [axis for axis in (0, 2) if shape[axis] == size]
        if len(axes) == 1:
            return axes[0]
        if axes:
            break
    raise ValueError(
        f"it is not clear which axis of the shape {shape} holds the channels: pass (H, W, C) or (C, H, W) with "
        "1, 3 or 4 channels, and input_data_format where both fit"
    )


def array_to_photo(array: np.ndarray, input_data_format: str | None = None) -> Image.Image:
    """A PIL image from an array of shape (height, width), (height, width, channels) or (channels, height, width)."""
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(
            f"an array must hold pixels and be (H, W), (H, W, C) or (C, H, W), got the shape {array.shape}"
        )
    array = convert_to_uint8(array)
    if array.ndim == 3:
        if input_data_format is None:
            axis = find_channel_axis(array.shape)
        else:
            axis = 0 if ChannelDimension(input_data_format) is ChannelDimension.FIRST else 2
        array = np.moveaxis(array, axis, 2)
        if array.shape[2] not in (1, 3, 4):
            raise ValueError(f"a photo has 1, 3 or 4 channels, got {array.shape[2]}")
        if array.shape[2] == 1:
            array = array[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(array))


def open_photo(photo: Photo, input_data_format: str | None = None) -> Image.Image:
    """A PIL image from anything that `AceBertImageProcessor` accepts; files are opened but not yet decoded."""
    if isinstance(photo, dict):
        source = photo.get("bytes") if photo.get("bytes") is not None else photo.get("path")
        if source is None:
            raise ValueError('a dict must hold the photo under "bytes" or "path": pass None for a missing photo')
        photo = source
    if isinstance(photo, Image.Image):
        if 0 in photo.size:
            raise ValueError(f"its size is {photo.width}x{photo.height} and it has no pixels")
        return photo
    if isinstance(photo, str | os.PathLike):
        if not os.fspath(photo).strip():
            raise ValueError("the path is empty: pass None for a missing photo")
        if "://" in os.fspath(photo):
            shown = os.fspath(photo)[:80]
            raise ValueError(f"{shown!r} is a URL and this code opens no network: download it and pass bytes or a path")
        photo = Path(photo).read_bytes()
    if isinstance(photo, bytes | bytearray | memoryview):
        try:
            image = Image.open(io.BytesIO(photo))
        except UnidentifiedImageError:
            if bytes(photo[4:8]) == b"ftyp" and bytes(photo[8:12]) in HEIC_BRANDS:
                raise ValueError(
                    "it is HEIC, the format of iPhones: convert it to JPEG, or pip install pillow-heif and call "
                    "pillow_heif.register_heif_opener()"
                ) from None
            raise ValueError(f"its {len(photo)} bytes are in no image format that Pillow reads") from None
        if image.format == "EPS":  # decoding it would start Ghostscript
            raise ValueError("EPS is a program for a printer, and none is started here: convert it to PNG or JPEG")
        return image
    if isinstance(photo, np.ndarray | torch.Tensor):
        return array_to_photo(to_numpy(photo), input_data_format)
    raise ValueError(
        f"{type(photo).__name__} is no photo: pass a PIL image, an array, a tensor, bytes, a path, or None for no photo"
    )


def is_white(image: Image.Image) -> bool:
    """Whether most of what is seen of an RGBA image is white, and some of it is transparent."""
    pixels = np.asarray(image.reduce(get_reduction(max(image.size), ANALYSIS_SIDE)))
    seen = pixels[..., 3] > 127
    return bool(seen.any() and not seen.all() and (pixels[seen][:, :3].min(axis=1) >= 240).mean() > 0.5)


def to_upright_rgb(image: Image.Image, do_convert_rgb: bool) -> Image.Image:
    """The first frame of an image, turned as its EXIF orientation says, in 8-bit RGB.

    What is transparent becomes white, or grey where most of what is seen is white itself and would vanish.
    """
    if getattr(image, "is_animated", False):
        image.seek(0)
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if not do_convert_rgb:
        raise ValueError(f"the mode is {image.mode} and do_convert_rgb is False: pass RGB, or do_convert_rgb=True")
    if image.mode == "I" or image.mode.startswith("I;16"):
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError(f"pixels of mode {image.mode} must lie between 0 and 65535: rescale, or pass uint8")
        image = array_to_photo(pixels.astype(np.uint16))
    elif image.mode == "F":
        image = array_to_photo(np.asarray(image))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, GREY if is_white(image) else WHITE)
        canvas.paste(image, mask=image.getchannel("A"))
        return canvas
    return image.convert("RGB")


@lru_cache(maxsize=1024)
def get_bounds(colour: tuple[int, int, int], tolerance: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The lowest values that count as a colour and how far they reach, for a row of pixels: uint8 (width * 3,) each."""
    low = np.maximum(np.array(colour) - tolerance, 0)
    span = np.minimum(np.array(colour) + tolerance, 255) - low
    return np.tile(low.astype(np.uint8), width), np.tile(span.astype(np.uint8), width)


def differs_from(pixels: np.ndarray, colour: np.ndarray, tolerance: int) -> np.ndarray:
    """Which channel values of uint8 pixels (rows, row_pixels * 3) are further than `tolerance` from a colour (3,)."""
    low, span = get_bounds(tuple(colour.tolist()), tolerance, pixels.shape[1] // NUM_CHANNELS)
    # What lies below `low` wraps round to a large number, so that one comparison is enough.
    return pixels - low > span


def get_reduction(side: int, least: int) -> int:
    """
    The largest power of two by which a side can be divided and still has `least` pixels; 1 if it has fewer.

    JPEG files are decoded at powers of two, too, so a pixel of such a copy shows the same part of the photo after each.
    """
    return 1 << max(0, (side // least).bit_length() - 1)


def get_box(differs: np.ndarray) -> Box:
    """The box around all that is true in channel values (rows, row_pixels * 3)."""
    rows = np.flatnonzero(differs.any(axis=1))
    columns = np.flatnonzero(differs.any(axis=0)) // NUM_CHANNELS
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def scale_box(box: Box, factor: int, size: tuple[int, int], margin: float = 0) -> Box:
    """A box found on an image's copy at 1/factor, in pixels of the image; `margin` is a share of its longer side."""
    left, top, right, bottom = box
    added = round(margin * max(right - left, bottom - top))
    left, top = max(0, factor * (left - added)), max(0, factor * (top - added))
    return left, top, min(size[0], factor * (right + added)), min(size[1], factor * (bottom + added))


def look_closer(image: Image.Image, box: Box, factor: int, closer: int, colour: np.ndarray, tolerance: int) -> Box:
    """
    The object's box on an image's copy at 1/closer, searched within one pixel of its box on a copy at 1/factor.

    `factor` is a multiple of `closer`, `colour` that of the backdrop.
    """
    left, top, right, bottom = box
    region = scale_box((left - 1, top - 1, right + 1, bottom + 1), factor, image.size)
    pixels = np.asarray(image.reduce(closer, region))
    differs = differs_from(pixels.reshape(len(pixels), -1), colour, tolerance)
    if not differs.any():  # a finer decoding can lose what was just beyond the tolerance
        differs[:] = True
    x, y = region[0] // closer, region[1] // closer
    left, top, right, bottom = get_box(differs)
    return left + x, top + y, right + x, bottom + y


def find_object(pixels: np.ndarray, tolerance: int, border_share: float) -> tuple[np.ndarray, Box] | None:
    """
    The object of a photo that has a plain backdrop.

    The backdrop's colour is the median of the outermost pixels. The backdrop is plain if two opposite sides have that
    colour: an object may touch the other two, as trousers do that are cut at the waist and stand on the lower edge. All
    that differs from the backdrop is the object.

    Args:
        pixels (`np.ndarray` of shape `(height, width, 3)`): uint8 RGB.
        tolerance (`int`): Largest distance of a channel value from the backdrop's colour.
        border_share (`float`): Share of a side's channel values that must be backdrop.

    Returns:
        The backdrop's colour (`np.ndarray` of shape `(3,)`) and the object's box (left, top, right, bottom), or `None`
        for a photo without a plain backdrop and for one that shows nothing else.
    """
    height = len(pixels)
    border = np.concatenate((pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
    middle = len(border) // 2
    colour = np.partition(np.ascontiguousarray(border.T), middle)[:, middle]
    differs = differs_from(pixels.reshape(height, -1), colour, tolerance)  # (height, width * 3)
    if np.count_nonzero(differs) < MIN_OBJECT_SHARE * differs.size:
        return None
    top, bottom, left, right = (
        np.count_nonzero(side) <= (1 - border_share) * side.size
        for side in (differs[0], differs[-1], differs[:, :NUM_CHANNELS], differs[:, -NUM_CHANNELS:])
    )
    if not ((left and right) or (top and bottom)):
        return None
    return colour, get_box(differs)


def fill_between(grid: np.ndarray) -> np.ndarray:
    """
    Add to a boolean grid (rows, columns) each cell between two true cells of its row or of its column.

    A white shirt on white differs from its backdrop at the outline alone; what lies between is the product.
    """
    either = np.logical_or.accumulate
    in_row = either(grid, axis=1) & either(grid[:, ::-1], axis=1)[:, ::-1]
    in_column = either(grid, axis=0) & either(grid[::-1], axis=0)[::-1]
    return in_row | in_column


class PatchSequence(NamedTuple):
    """The patches of one photo that are kept, before normalisation."""

    values: np.ndarray  # (patches, patch_size² · 3) uint8
    position_ids: np.ndarray  # (patches,) row * columns + column
    grid: tuple[int, int]  # rows, columns
    box: Box  # what they show of the photo, in pixels of its decoding


class AceBertImageProcessor(PilBackend):
    """
    Turns photos into padded sequences of normalised pixel patches. Pillow and NumPy do the work: no torchvision.

    A photo is cropped to its object where its backdrop is plain, resized at its own aspect ratio to the largest grid of
    at most `max_num_patches` patches (small photos are enlarged, so an object fills the same grid at any resolution),
    and split row by row. Patches that show only the backdrop around the object are left out of the sequence. A photo
    without a plain backdrop stays whole, and so does one that shows nothing but backdrop.

    The options and their defaults are the class attributes below; each is saved, and may be given to `__init__`,
    `from_pretrained` or a call. They are documented in [`AceBertImageProcessorKwargs`].

    A call takes one photo or a list. A photo is a PIL image of any mode, an array or tensor ((H, W), (H, W, C) or
    (C, H, W); uint8, uint16, or floats from 0 to 1), encoded bytes, a path, or the `{"bytes": ..., "path": ...}` of
    `datasets` columns with `decode=False`. `None` stands for a product without a photo. It returns a [`BatchFeature`]:

    - **pixel_values** (`float32`, `(batch, patches, patch_size² * 3)`) -- within a patch: row, column, channel. `uint8`
      where they are neither rescaled nor normalised.
    - **pixel_attention_mask** (`int64`, `(batch, patches)`) -- 1 for patches, 0 for padding.
    - **spatial_shapes** (`int64`, `(batch, 2)`) -- rows and columns of the photo's whole grid; (0, 0) without a photo.
    - **pixel_position_ids** (`int64`, `(batch, patches)`) -- row * columns + column of each patch in that grid; padding
      holds 0.

    It is empty if every photo is `None`. Without `return_tensors` the values are lists with one entry per photo.

    Raises:
        `ValueError`: If a photo can't be read; the message holds its index.
    """

    valid_kwargs = AceBertImageProcessorKwargs
    model_input_names = ("pixel_values", "pixel_attention_mask", "spatial_shapes", "pixel_position_ids")

    patch_size = 16
    max_num_patches = 256
    padding = "longest"
    do_salient_crop = True
    do_drop_background = True
    salient_margin = 0.04
    background_tolerance = 12
    border_share = 0.9
    resample = PILImageResampling.BILINEAR
    do_convert_rgb = True
    do_resize = True
    do_rescale = True
    do_normalize = True
    image_mean = (0.5, 0.5, 0.5)
    image_std = (0.5, 0.5, 0.5)

    def __init__(self, **kwargs: Unpack[AceBertImageProcessorKwargs]) -> None:
        super().__init__(**kwargs)
        self._validate_preprocess_kwargs(**{name: getattr(self, name) for name in self._valid_kwargs_names})

    @classmethod
    def from_backbone(cls, image: str, **options: Any) -> "AceBertImageProcessor":
        """The processor for a model whose photos are read by a pre-trained Vision Transformer.

        Args:
            image: Hub id or folder, as in `AceBertModel.from_backbone`. Patch size, mean, standard deviation and
                resampling are the source's: its image processor's, or where it comes without one (or without some of
                them) those of the published models of its kind.
            options: in their place, and all else, as in `__init__`.

        Raises:
            `ValueError`: for a model of another kind.
        """
        source = AutoConfig.from_pretrained(image)
        source = getattr(source, "vision_config", source)
        if source.model_type not in BACKBONE_PIXELS:
            raise ValueError(
                f"An image backbone is one of {', '.join(BACKBONE_PIXELS)} (model types), not "
                f"'{source.model_type[:80]}'."
            )
        pixels = dict(BACKBONE_PIXELS[source.model_type])
        try:
            saved, _ = cls.get_image_processor_dict(image)
        except OSError:  # it has weights alone
            saved = {}
        pixels.update((name, saved[name]) for name in pixels if saved.get(name) is not None)
        return cls(**{"patch_size": source.patch_size, **pixels, **options})

    def _validate_preprocess_kwargs(
        self,
        patch_size: int,
        max_num_patches: int,
        padding: str,
        salient_margin: float,
        background_tolerance: int,
        border_share: float,
        do_resize: bool = True,
        **kwargs: Any,
    ) -> None:
        for name, value in (("patch_size", patch_size), ("max_num_patches", max_num_patches)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if padding not in ("longest", "max_length"):
            raise ValueError(f'padding must be "longest" or "max_length", got {padding!r}')
        if not 0 <= salient_margin <= 1:
            raise ValueError(f"salient_margin is a fraction from 0 to 1, got {salient_margin}")
        if not 0 <= background_tolerance <= 255:
            raise ValueError(f"background_tolerance is a distance from 0 to 255, got {background_tolerance}")
        if not 0 < border_share <= 1:
            raise ValueError(f"border_share is a fraction above 0 and up to 1, got {border_share}")
        if np.any(np.asarray(kwargs.get("image_std")) == 0):
            raise ValueError(f"image_std must not be 0, got {kwargs['image_std']}")
        fixed = ("size", "crop_size", "do_center_crop", "do_pad", "pad_size", "data_format")
        unusable = [name for name in fixed if kwargs.get(name)]
        if unusable or not do_resize:
            raise ValueError(
                f"{', '.join(unusable) or 'do_resize=False'} can't be used: the size follows from patch_size and "
                "max_num_patches"
            )
        super()._validate_preprocess_kwargs(**kwargs)

    def _preprocess_image_like_inputs(
        self,
        images: Photo | Iterable[Photo | None] | None,
        patch_size: int,
        max_num_patches: int,
        padding: str,
        return_tensors: str | TensorType | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        sequences = []
        for index, photo in enumerate(as_list(images, SINGLE_PHOTO)):
            try:
                sequences.append(
                    None if photo is None else self._patchify(photo, patch_size, max_num_patches, **kwargs)
                )
            except Exception as error:  # Pillow's decoders raise errors of many kinds for broken files
                raise ValueError(
                    f"images[{index}] can't be used: {error}. Replace it, or pass None for no photo"
                ) from error
        if not sequences:
            raise ValueError("images is empty: pass at least one photo or None")
        if all(sequence is None for sequence in sequences):
            return BatchFeature()

        lengths = np.array([0 if sequence is None else len(sequence.values) for sequence in sequences])
        longest = max_num_patches if padding == "max_length" else lengths.max()
        mask = np.arange(longest) < lengths[:, None]  # (batch, patches)
        photos = [sequence for sequence in sequences if sequence is not None]
        scale, offset = self._get_scale_and_offset(patch_size, **kwargs)
        is_raw = not (kwargs.get("do_rescale") or kwargs.get("do_normalize"))

        pixel_values = np.zeros((*mask.shape, len(scale)), dtype=np.uint8 if is_raw else np.float32)
        for row, sequence in zip(pixel_values, sequences, strict=True):
            if sequence is not None:  # written where it stays, photo by photo: a batch doesn't fit the cache
                patches = row[: len(sequence.values)]
                if is_raw:
                    patches[:] = sequence.values
                else:
                    np.multiply(sequence.values, scale, out=patches)
                    patches += offset
        position_ids = np.zeros(mask.shape, dtype=np.int64)
        position_ids[mask] = np.concatenate([photo.position_ids for photo in photos])
        spatial_shapes = np.array([(0, 0) if sequence is None else sequence.grid for sequence in sequences], np.int64)
        return to_batch(
            {
                "pixel_values": pixel_values,
                "pixel_attention_mask": mask.astype(np.int64),
                "spatial_shapes": spatial_shapes,
                "pixel_position_ids": position_ids,
            },
            return_tensors,
        )

    def _patchify(
        self,
        photo: Photo,
        patch_size: int,
        max_num_patches: int,
        resample: PILImageResampling | int,
        do_convert_rgb: bool,
        do_salient_crop: bool,
        do_drop_background: bool,
        salient_margin: float,
        background_tolerance: int,
        border_share: float,
        input_data_format: str | None = None,
        **kwargs: Any,
    ) -> PatchSequence:
        """One photo as the uint8 patches that are kept."""
        image = open_photo(photo, input_data_format)
        full_side = max(image.size)

        def get_size(width: int, height: int) -> tuple[int, int]:
            """Width and height of the picture that the model sees of so many pixels."""
            rows, columns = get_patch_grid(height, width, max_num_patches)
            return columns * patch_size, rows * patch_size

        # A JPEG decodes several times faster at 1/2, 1/4 or 1/8 of its size; twice the pixels needed is plenty.
        if image is not photo:
            width, height = get_size(*image.size)
            image.draft(None, (2 * width, 2 * height))
        decoded_share = max(image.size) / full_side
        image = to_upright_rgb(image, do_convert_rgb)

        found = None
        factor = max(1, round(decoded_share * get_reduction(full_side, ANALYSIS_SIDE)))
        if do_salient_crop or do_drop_background:
            found = find_object(np.asarray(image.reduce(factor)), background_tolerance, border_share)
        left, top, right, bottom = 0, 0, *image.size
        if do_salient_crop and found is not None:
            colour, box = found
            left, top, right, bottom = scale_box(box, factor, image.size, salient_margin)
            width, height = get_size(right - left, bottom - top)
            enlarged = max(width / (right - left), height / (bottom - top))
            if decoded_share < 1 and enlarged > 1:
                # The object is so small in its photo that this decoding would blur it: a finer one has its pixels.
                finer = open_photo(photo)
                share = decoded_share * enlarged
                finer.draft(None, (ceil(finer.width * share), ceil(finer.height * share)))
                finer = to_upright_rgb(finer, do_convert_rgb)
                factor *= round(max(finer.size) / max(image.size))
                image = finer
                left, top, right, bottom = scale_box(box, factor, image.size, salient_margin)
            closer = get_reduction(max(right - left, bottom - top), min(ANALYSIS_SIDE, max(width, height)))
            if closer < factor:  # so small an object would be cut too roughly
                box = look_closer(image, box, factor, closer, colour, background_tolerance)
                left, top, right, bottom = scale_box(box, closer, image.size, salient_margin)

        width, height = get_size(right - left, bottom - top)
        rows, columns = height // patch_size, width // patch_size
        image = image.resize((width, height), resample, box=(left, top, right, bottom), reducing_gap=3.0)

        # (rows, patch_size, columns, patch_size, 3) -> (rows, columns, patch_size, patch_size, 3)
        values = np.asarray(image).reshape(rows, patch_size, columns, patch_size, NUM_CHANNELS).swapaxes(1, 2)
        values = values.reshape(rows * columns, -1)
        position_ids = np.arange(rows * columns)
        if do_drop_background and found is not None:
            differs = differs_from(values, found[0], background_tolerance).any(axis=1)
            kept = np.flatnonzero(fill_between(differs.reshape(rows, columns)))
            if kept.size:
                values, position_ids = values[kept], kept
        return PatchSequence(values, position_ids, (rows, columns), (left, top, right, bottom))

    def _get_scale_and_offset(
        self,
        patch_size: int,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: float | tuple[float, ...],
        image_std: float | tuple[float, ...],
        **kwargs: Any,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rescaling and normalising as one `values * scale + offset`, both of shape (patch_size² * 3,) and float32."""
        scale = np.full(NUM_CHANNELS, rescale_factor if do_rescale else 1.0)
        offset = np.zeros(NUM_CHANNELS)
        if do_normalize:
            scale = scale / np.asarray(image_std)
            offset = offset - np.asarray(image_mean) / np.asarray(image_std)
        scale, offset = (np.tile(values, patch_size**2).astype(np.float32) for values in (scale, offset))
        return scale, offset

    def normalize_patches(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Rescales and normalises raw patches on the device where they are, as a call does on the CPU.

        A quarter of the bytes then goes from a loader's workers to the device: call the processor there with
        [`RAW_PATCHES`].

        Args:
            inputs (`Mapping[str, torch.Tensor]`): Of a call, and perhaps of a tokenizer. `pixel_values` of another type
                than `uint8` stay as they are, as do all other tensors.

        Returns:
            `dict[str, torch.Tensor]`: The inputs, with `pixel_values` in `float32` and padding of 0.
        """
        pixels = inputs.get("pixel_values")
        if pixels is None or pixels.dtype != torch.uint8:
            return dict(inputs)
        options = {name: getattr(self, name) for name in self._valid_kwargs_names}
        scale, offset = (torch.from_numpy(each).to(pixels.device) for each in self._get_scale_and_offset(**options))
        values = (pixels * scale).add_(offset).mul_(inputs["pixel_attention_mask"][..., None])
        return {**inputs, "pixel_values": values}

    def find_box(self, photo: Photo) -> Box:
        """Left, top, right, bottom of what is kept of a photo, in pixels of the upright photo."""
        options = {name: getattr(self, name) for name in self._valid_kwargs_names}
        return self._patchify(to_upright_rgb(open_photo(photo), do_convert_rgb=True), **options).box

    def patches_to_image(
        self,
        pixel_values: torch.Tensor | np.ndarray,
        pixel_position_ids: torch.Tensor | np.ndarray,
        pixel_attention_mask: torch.Tensor | np.ndarray,
        spatial_shape: torch.Tensor | np.ndarray | tuple[int, int],
    ) -> Image.Image:
        """
        The picture that the model sees of one photo: the inverse of a call, with left-out background in white.

        Args:
            pixel_values (`torch.Tensor` or `np.ndarray` of shape `(patches, patch_size² * 3)`): One row of the batch.
            pixel_position_ids (`torch.Tensor` or `np.ndarray` of shape `(patches,)`): Its positions in the grid.
            pixel_attention_mask (`torch.Tensor` or `np.ndarray` of shape `(patches,)`): 1 for patches, 0 for padding.
            spatial_shape (`torch.Tensor`, `np.ndarray` or `tuple` of 2 integers): Its rows and columns.

        Returns:
            `PIL.Image.Image`: of rows * patch_size by columns * patch_size pixels.

        Raises:
            `ValueError`: If the item has no photo.
        """
        rows, columns = (int(size) for size in spatial_shape)
        if rows * columns == 0:
            raise ValueError("spatial_shape is (0, 0): this product has no photo, so there is no picture to show")
        options = {name: getattr(self, name) for name in self._valid_kwargs_names}
        scale, offset = self._get_scale_and_offset(**options)
        kept = to_numpy(pixel_attention_mask).astype(bool)
        values = (to_numpy(pixel_values)[kept] - offset) / scale
        grid = np.full((rows * columns, len(scale)), 255, dtype=np.uint8)
        grid[to_numpy(pixel_position_ids)[kept]] = np.rint(values).clip(0, 255).astype(np.uint8)
        grid = grid.reshape(rows, columns, self.patch_size, self.patch_size, NUM_CHANNELS).swapaxes(1, 2)
        return Image.fromarray(grid.reshape(rows * self.patch_size, columns * self.patch_size, NUM_CHANNELS))


def as_list(values: Any, single: tuple[type, ...]) -> list[Any]:
    """A list of the items of a batch; one item of the types `single`, an image array or `None` becomes a batch of 1."""
    if isinstance(values, np.ndarray | torch.Tensor) and values.ndim < 4:
        return list(values) if values.ndim == 1 else [values]
    if values is None or isinstance(values, single) or not isinstance(values, Iterable):
        return [values]
    return list(values)


def to_batch(arrays: dict[str, np.ndarray], return_tensors: str | TensorType | None) -> BatchFeature:
    """The arrays as PyTorch tensors (`"pt"`), as they are (`"np"`), or as lists with one entry per item (`None`)."""
    if return_tensors is None:
        return BatchFeature({name: list(a) if a.dtype == np.float32 else a.tolist() for name, a in arrays.items()})
    if TensorType(return_tensors) is TensorType.PYTORCH:
        return BatchFeature({name: torch.from_numpy(array) for name, array in arrays.items()})
    if TensorType(return_tensors) is TensorType.NUMPY:
        return BatchFeature(arrays)
    raise ValueError(f'return_tensors must be "pt", "np" or None, got {return_tensors!r}')


__all__ = ["AceBertImageProcessor"]
