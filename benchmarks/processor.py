"""JPEG bytes and a title to tensors, on one core, against the processors of SigLIP 2 and CLIP without torchvision."""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from timing import OURS, Row, interleave, rates, timed
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
from workload import Workload, draw_photos, make_titles

SIGLIP2_GRID = {"patch_size": 16, "max_num_patches": 256}  # its defaults
DECODER = "decoding the JPEG files alone"


def open_files(files: list[bytes]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(file)) for file in files]


def decode(files: list[bytes], scale: int) -> None:
    """Decodes files at 1/scale of their size and does no more."""
    for image in open_files(files):
        image.draft(None, (image.width // scale, image.height // scale))
        image.load()


def find_scale(workload: Workload, size: tuple[int, int]) -> int:
    """The scale at which the processor decodes JPEG files of a size: to twice the sides of its own picture or more."""
    options = workload.processor.image_processor
    image = open_files(draw_photos(1, size))[0]
    side = 2 * options.patch_size * options.max_num_patches**0.5
    image.draft(None, (round(side), round(side)))
    return round(size[0] / image.width)


def compare_with_full_decoding(workload: Workload, files: list[bytes]) -> str:
    """What decoding at reduced size changes: in the pixels of the photos, and in the objects that are found in them."""
    process = partial(workload.processor.image_processor, return_tensors="np")
    whole = open_files(files)
    for image in whole:
        image.load()  # what is decoded already is taken as it is
    shapes = (process(photos)["spatial_shapes"] for photos in (files, whole))
    alike = np.all(np.equal(*shapes), axis=1).sum()
    reduced, full = (process(photos, do_salient_crop=False, do_drop_background=False) for photos in (files, whole))
    shown = full["pixel_attention_mask"].astype(bool)
    levels = 127.5 * np.abs(reduced["pixel_values"] - full["pixel_values"])[shown].mean()
    return (
        f"Decoding at reduced size changes the pixels of whole photos by {levels:.1f} of 255 levels on average; "
        f"{alike} of {len(files)} are cut to the same grid around their object as after decoding in full."
    )


def measure_photos(workload: Workload, count: int, size: tuple[int, int]) -> list[Row]:
    files, titles = draw_photos(count, size), make_titles(count)
    ours, tokenizer = workload.processor, workload.tokenizer
    siglip2, clip = Siglip2ImageProcessorPil(), CLIPImageProcessorPil()
    options = ours.image_processor
    same = {"patch_size": options.patch_size, "max_num_patches": options.max_num_patches}

    def theirs(process: Callable[..., object], max_length: int, **grid: int) -> None:
        process(images=open_files(files), return_tensors="pt", **grid)
        tokenizer(titles, padding="max_length", truncation=True, max_length=max_length, return_tensors="pt")

    large = f"{OURS}, {SIGLIP2_GRID['max_num_patches']} patches of {SIGLIP2_GRID['patch_size']}"
    scale = find_scale(workload, size)
    calls = {
        OURS: lambda: ours(text=titles, images=files, return_tensors="pt"),
        large: lambda: ours(text=titles, images=files, return_tensors="pt", **SIGLIP2_GRID),
        "SigLIP 2": lambda: theirs(siglip2, 64),
        "SigLIP 2 at our grid": lambda: theirs(siglip2, 64, **same),
        "CLIP": lambda: theirs(clip, 77),
        DECODER: lambda: decode(files, scale),
    }
    seconds = interleave({name: timed(call) for name, call in calls.items()}, workload.sizes.repeats)
    products = {name: rates(count, values) for name, values in seconds.items()}
    shown = f"{size[0]}x{size[1]}"
    grid = f"{options.max_num_patches} patches of {options.patch_size}"
    notes = []
    if scale > 1:
        notes = [
            f"{shown} files are decoded at 1/{scale} of their size by {OURS} and in the decoder's own row.",
            compare_with_full_decoding(workload, files),
        ]
    at_ours = {name: products[name] for name in (OURS, "SigLIP 2", "SigLIP 2 at our grid", "CLIP", DECODER)}
    at_theirs = {name: products[name] for name in (large, "SigLIP 2")}
    return [
        Row.of(f"{shown} photo and title, {grid}", "products/s", at_ours, notes=notes),
        Row.of(f"{shown} photo and title, SigLIP 2's grid", "products/s", at_theirs, ours=large),
    ]


def measure(workload: Workload) -> list[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sizes = workload.sizes
        return [
            *measure_photos(workload, sizes.small_photos, (60, 80)),
            *measure_photos(workload, sizes.large_photos, (1000, 1200)),
        ]
    finally:
        torch.set_num_threads(threads)
