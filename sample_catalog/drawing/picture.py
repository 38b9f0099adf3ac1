"""The whole picture of a product: its parts in their pose, on a backdrop with a shadow."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from acebert.sample_catalog.drawing.accessories import (
    draw_backpack,
    draw_cap,
    draw_handbag,
    draw_scarf,
    draw_socks,
    draw_sunglasses,
    draw_umbrella,
    draw_watch,
)
from acebert.sample_catalog.drawing.clothing import (
    draw_dress,
    draw_jacket,
    draw_shirt,
    draw_shorts,
    draw_skirt,
    draw_sweater,
    draw_sweatshirt,
    draw_trousers,
    draw_tshirt,
)
from acebert.sample_catalog.drawing.home import draw_bottle, draw_chair, draw_cushion, draw_lamp, draw_mug
from acebert.sample_catalog.drawing.paint import (
    COLOURS,
    CREAM,
    GOLD,
    RUBBER,
    SILVER,
    Canvas,
    Colour,
    Kind,
    Look,
    Print,
    darker,
    lighter,
    luminance,
    mix,
)
from acebert.sample_catalog.drawing.shoes import draw_boot, draw_heel, draw_sneaker

# Inks that leave the base colour the one that a shopper would name: light on dark and dark on light.
_LIGHT_INKS: tuple[Colour, ...] = ((250, 249, 245), (250, 249, 245), (246, 236, 208))
_DARK_INKS: tuple[Colour, ...] = ((38, 38, 44), (30, 44, 92), (92, 56, 40))

_PORTRAIT, _SQUARE, _LANDSCAPE = (3 / 4, 4 / 5, 1.0), (1.0, 1.0, 4 / 5, 5 / 4), (4 / 3, 4 / 3, 1.0, 3 / 2)
KINDS: dict[str, Kind] = {
    "Tshirts": Kind(draw_tshirt, _PORTRAIT),
    "Shirts": Kind(draw_shirt, _PORTRAIT),
    "Sweatshirts": Kind(draw_sweatshirt, _PORTRAIT),
    "Sweaters": Kind(draw_sweater, _PORTRAIT),
    "Jackets": Kind(draw_jacket, _PORTRAIT),
    "Dresses": Kind(draw_dress, (3 / 4, 2 / 3, 3 / 4)),
    "Skirts": Kind(draw_skirt, _PORTRAIT),
    "Trousers": Kind(draw_trousers, (3 / 4, 2 / 3, 3 / 4)),
    "Shorts": Kind(draw_shorts, _SQUARE),
    "Casual Shoes": Kind(draw_sneaker, _LANDSCAPE, stands=True, tilt=1.5, flips=True),
    "Boots": Kind(draw_boot, _SQUARE, stands=True, tilt=1.0, flips=True),
    "Heels": Kind(draw_heel, _LANDSCAPE, stands=True, tilt=1.0, flips=True),
    "Handbags": Kind(draw_handbag, _SQUARE, stands=True, tilt=1.5),
    "Backpacks": Kind(draw_backpack, _PORTRAIT, stands=True, tilt=2.0),
    "Watches": Kind(draw_watch, _PORTRAIT, tilt=14.0),
    "Sunglasses": Kind(draw_sunglasses, (4 / 3, 3 / 2, 1.0), tilt=4.0),
    "Caps": Kind(draw_cap, (4 / 3, 1.0, 5 / 4), tilt=5.0, flips=True),
    "Hat": Kind(draw_cap, (4 / 3, 1.0, 5 / 4), tilt=5.0, flips=True),
    "Socks": Kind(draw_socks, _PORTRAIT, tilt=6.0, flips=True),
    "Scarves": Kind(draw_scarf, _PORTRAIT, flips=True),
    "Umbrellas": Kind(draw_umbrella, (1.0, 4 / 5, 1.0), tilt=14.0, flips=True),
    "Mugs": Kind(draw_mug, _SQUARE, stands=True, tilt=0.5, flips=True),
    "Water Bottle": Kind(draw_bottle, _PORTRAIT, stands=True, tilt=0.5),
    "Lamps": Kind(draw_lamp, _PORTRAIT, stands=True, tilt=0.3),
    "Chairs": Kind(draw_chair, (1.0, 4 / 5, 3 / 4), stands=True, tilt=0.5),
    "Stools": Kind(draw_chair, (1.0, 4 / 5, 3 / 4), stands=True, tilt=0.5),
    "Cushion Covers": Kind(draw_cushion, _SQUARE, tilt=8.0),
}


def _make_print(pattern: str, base: Colour, kind: str, rng: np.random.Generator) -> Print | None:
    if pattern == "Plain":
        return None
    dark = luminance(base) < 165
    inks = _LIGHT_INKS if dark else _DARK_INKS
    first, second = (inks[int(rng.integers(len(inks)))] for _ in range(2))
    leaf = mix(base, (40, 110, 60) if not dark else (150, 200, 150), 0.75)
    if pattern == "Floral":
        second = (246, 204, 70) if dark else (236, 170, 60)
        first = first if dark else mix(first, (210, 60, 90), 0.55)
    small = kind in ("Watches", "Sunglasses", "Heels", "Umbrellas", "Socks", "Shorts")
    period = {"Striped": 9.5, "Dotted": 9.5, "Checked": 12.5, "Floral": 15.0, "Zigzag": 11.0, "Star Print": 13.0}[
        pattern
    ]
    angle = 0.0
    if pattern in ("Striped", "Checked"):
        angle = float(rng.choice([0, 0, 0, np.pi / 2, np.pi / 4] if pattern == "Striped" else [0, 0, np.pi / 4]))
    scale = (0.7 if small else 1.0) * float(rng.uniform(0.85, 1.2))
    return Print(pattern, period * scale, angle, (first, second, leaf), int(rng.integers(1 << 30)))


def _background(size: tuple[int, int], horizon: float | None, rng: np.random.Generator) -> np.ndarray:
    """A light backdrop, (height, width, 3): white, a tint, a gradient, a spot of light, or a wall above a floor."""
    width, height = size
    tint = np.asarray(
        ((243, 240, 234), (236, 241, 246), (245, 236, 234), (237, 243, 236), (242, 239, 246), (248, 243, 228))[
            int(rng.integers(6))
        ],
        np.float32,
    )
    white = np.full(3, 255, np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / height, x / width
    form = rng.choice(["white", "tint", "gradient", "spot", "room"], p=[0.44, 0.14, 0.16, 0.14, 0.12])
    if form == "white":
        share = 0 * y
    elif form == "tint":
        share = 0 * y + 1
    elif form == "gradient":
        share = y * rng.uniform(0.8, 1.2)
    elif form == "spot" or horizon is None:
        share = np.clip(1.7 * np.hypot(x - 0.5, y - 0.5), 0, 1)
    else:
        share = 0.35 + 0.75 * np.clip((y - horizon) * height / 3 + 0.5, 0, 1) * (1.1 - 0.5 * (y - horizon))
    return white + share[..., None] * (tint - white)


def draw(
    kind: str, style: str, colour: str, pattern: str, seed: Sequence[int], size: tuple[int, int] | None = None
) -> Image.Image:
    """Draws one product.

    Args:
        kind: A key of `KINDS`.
        style: One of the kind's styles.
        colour: A key of `COLOURS`.
        pattern: One of `PATTERNS`.
        seed: Non-negative integers that decide the rest: proportions, trimmings, pose, backdrop and frame.
        size: Width and height in pixels; by default a frame that suits the kind, 180 to 320 pixels on its long side.

    Returns:
        An RGB image.
    """
    rng = np.random.default_rng(list(seed))
    spec = KINDS[kind]
    aspect = float(rng.choice(spec.aspects))
    long_side = int(rng.integers(180, 321))
    if size is None:
        size = (long_side, round(long_side / aspect)) if aspect > 1 else (round(long_side * aspect), long_side)

    base = tuple(np.clip(np.asarray(COLOURS[colour]) + rng.normal(0, 2, 3) + rng.normal(0, 4), 8, 250).tolist())
    trims = [CREAM, RUBBER, darker(base, 0.4), lighter(base, 0.45), (176, 122, 76)]
    trim = trims[int(rng.integers(len(trims)))]
    metal = (GOLD, SILVER)[int(rng.integers(2))]
    parts = spec.parts(Look(base, _make_print(pattern, base, kind, rng), trim, metal, rng), style)

    tilt = np.radians(np.clip(rng.normal(0, spec.tilt / 2), -spec.tilt, spec.tilt))
    matrix = np.asarray([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    if spec.flips and rng.random() < 0.5:
        matrix = matrix @ np.diag([-1.0, 1.0])
    points = np.concatenate([part.outline for part in parts]) @ matrix.T
    low, high = points.min(0), points.max(0)
    room = np.asarray(size) * float(rng.uniform(0.78, 0.9))
    matrix = matrix * float(np.min(room / (high - low)))
    spare = (np.asarray(size) - (high - low) * np.linalg.norm(matrix[:, 0])) / 2
    centre = np.asarray(size) / 2 + rng.uniform(-0.25, 0.25, 2) * np.minimum(spare, 0.12 * np.asarray(size))
    canvas = Canvas(size, matrix, centre - np.linalg.norm(matrix[:, 0]) * (low + high) / 2)
    for part in parts:
        canvas.paint(part)

    rows = np.flatnonzero(canvas.cover.max(1) > 0.5)
    ground = rows[-1] if spec.stands else None
    backdrop = _background(size, ground / size[1] - 0.06 if ground is not None else None, rng)
    shade = _shadow(canvas.cover, ground)
    picture = backdrop * (1 - shade[..., None]) * (1 - canvas.cover[..., None]) + canvas.colour
    return Image.fromarray(np.clip(picture + 0.5, 0, 255).astype(np.uint8))


def _shadow(cover: np.ndarray, ground: int | None) -> np.ndarray:
    """The shadow on the backdrop, (height, width), 0 to 1: behind what lies flat, under what stands on row `ground`."""
    height, width = cover.shape
    image = Image.fromarray((cover * 255).astype(np.uint8))
    unit = (height + width) / 2
    if ground is None:
        moved = Image.new("L", image.size)
        moved.paste(image, (round(0.008 * unit), round(0.018 * unit)))
        return np.asarray(moved.filter(ImageFilter.GaussianBlur(0.018 * unit)), np.float32) / 255 * 0.3
    columns = np.flatnonzero(cover[max(ground - round(0.08 * height), 0) : ground + 1].max(0) > 0.5)
    left, right = columns[0], columns[-1]
    spot, thick = Image.new("L", image.size), 0.022 * unit
    pen = ImageDraw.Draw(spot)
    pen.ellipse((left - 0.02 * unit, ground - thick, right + 0.02 * unit, ground + thick), fill=150)
    soft = np.asarray(spot.filter(ImageFilter.GaussianBlur(0.022 * unit)), np.float32)
    pen.ellipse((left, ground - 0.5 * thick, right, ground + 0.6 * thick), fill=255)
    tight = np.asarray(spot.filter(ImageFilter.GaussianBlur(0.008 * unit)), np.float32)
    return (0.3 * soft + 0.25 * tight) / 255
