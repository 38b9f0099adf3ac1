"""Colours, prints and light: how the parts of a product become pixels.

A part's mask is drawn four times too large and scaled down; prints are functions of the object's own coordinates, so
they follow its pose; light is computed from the slope of the blurred mask, which makes every part look slightly round.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from acebert.sample_catalog.drawing.geometry import curve, shifted

Colour = tuple[float, float, float]

COLOURS: dict[str, Colour] = {
    "Black": (36, 36, 40),
    "White": (245, 245, 243),
    "Grey": (143, 145, 148),
    "Red": (208, 34, 46),
    "Maroon": (116, 24, 42),
    "Pink": (244, 142, 178),
    "Orange": (242, 128, 34),
    "Yellow": (248, 208, 60),
    "Green": (46, 150, 78),
    "Teal": (16, 134, 138),
    "Blue": (40, 106, 210),
    "Navy Blue": (28, 40, 86),
    "Purple": (124, 66, 164),
    "Brown": (124, 80, 48),
    "Beige": (220, 198, 164),
}
PATTERNS = ("Plain", "Striped", "Dotted", "Checked", "Floral", "Zigzag", "Star Print")

_SUPERSAMPLING = 4
GOLD: Colour = (214, 172, 84)
SILVER: Colour = (190, 195, 202)
WOOD: Colour = (178, 124, 74)
DARK_WOOD: Colour = (104, 66, 40)
RUBBER: Colour = (58, 56, 58)
CREAM: Colour = (240, 234, 220)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`first` with `share` of `second` in it."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


def darker(colour: Colour, share: float = 0.25) -> Colour:
    return mix(colour, (0, 0, 0), share)


def lighter(colour: Colour, share: float = 0.25) -> Colour:
    return mix(colour, (255, 255, 255), share)


def luminance(colour: Colour) -> float:
    """Rec. 601 luma, 0 to 255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


@dataclass(frozen=True)
class Print:
    """What is printed: one of `PATTERNS`, its repeat in object units, its angle in radians and its inks."""

    pattern: str
    period: float
    angle: float
    inks: tuple[Colour, Colour, Colour]
    seed: int


def _cells(u: np.ndarray, v: np.ndarray, period: float, seed: int) -> tuple[np.ndarray, ...]:
    """Offsets from the nearest point of a staggered lattice, and two random numbers in [0, 1) for that point."""
    row = np.round(v / period)
    shift = (row % 2) / 2
    column = np.round(u / period - shift)
    noise = np.sin(row * 127.1 + column * 311.7 + seed % 1009) * 43758.5453
    return u - (column + shift) * period, v - row * period, noise % 1, (noise * 7.13) % 1


def _paint_print(base: Colour, ink: Print, u: np.ndarray, v: np.ndarray, pixel: float) -> np.ndarray:
    """The print's colours, (height, width, 3), at object coordinates u, v; `pixel` is a pixel's size in units."""
    cosine, sine, p = math.cos(ink.angle), math.sin(ink.angle), ink.period
    u, v = cosine * u + sine * v, cosine * v - sine * u
    colour = np.broadcast_to(np.asarray(base, np.float32), (*u.shape, 3))

    def over(colour: np.ndarray, top: Colour, distance: np.ndarray, opacity: float = 1.0) -> np.ndarray:
        """Paints `top` where the signed distance (in units) is positive."""
        cover = np.clip(0.5 + distance / pixel, 0, 1)[..., None] * np.float32(opacity)
        return colour + cover * (np.asarray(top, np.float32) - colour)

    def band(x: np.ndarray, width: float) -> np.ndarray:
        return width / 2 - np.abs(x - np.round(x / p) * p)

    if ink.pattern == "Striped":
        colour = over(colour, ink.inks[0], band(v, 0.36 * p))
        if ink.seed % 3 == 0:
            colour = over(colour, ink.inks[1], band(v + p / 2, 0.09 * p))
    elif ink.pattern == "Zigzag":
        wave = np.abs((u / (1.5 * p)) % 1 - 0.5) * 2 * 0.75 * p
        colour = over(colour, ink.inks[0], 0.7 * band(v + wave, 0.4 * p))
    elif ink.pattern == "Checked":
        for x in (u, v):
            colour = over(colour, ink.inks[0], band(x, 0.42 * p), 0.55)
        if ink.seed % 2:
            for x in (u, v):
                colour = over(colour, ink.inks[1], band(x + p / 2, 0.07 * p), 0.9)
    elif ink.pattern == "Dotted":
        x, y, *_ = _cells(u, v, p, ink.seed)
        colour = over(colour, ink.inks[0], 0.27 * p - np.hypot(x, y))
    elif ink.pattern == "Star Print":
        x, y, turn, _ = _cells(u, v, p, ink.seed)
        angle = np.arctan2(y, x) + turn * 6.283
        angle = np.abs((angle % (0.4 * np.pi)) - 0.2 * np.pi)  # from the nearest notch
        radius, tip, notch = np.hypot(x, y), 0.4 * p, 0.18 * p
        edge = np.asarray([tip * np.cos(0.2 * np.pi) - notch, tip * np.sin(0.2 * np.pi)])
        edge /= np.hypot(*edge)
        colour = over(
            colour, ink.inks[0], edge[0] * radius * np.sin(angle) - edge[1] * (radius * np.cos(angle) - notch)
        )
    elif ink.pattern == "Floral":
        x, y, turn, size = _cells(u, v, p, ink.seed)
        x, y = x - (turn - 0.5) * 0.18 * p, y - (size - 0.5) * 0.18 * p
        angle, radius, reach = np.arctan2(y, x) + turn * 6.283, np.hypot(x, y), (0.34 + 0.1 * size) * p
        leaf = np.abs(np.cos(angle + 0.3)) ** 8 * 1.3 * reach - radius
        colour = over(colour, ink.inks[2], leaf)
        colour = over(colour, ink.inks[0], 0.8 * (reach * (0.68 + 0.32 * np.cos(5 * angle)) - radius))
        colour = over(colour, ink.inks[1], 0.3 * reach - radius)
    return colour


@dataclass(frozen=True)
class Look:
    """The colours of one product and its source of chance, handed to the function that draws its kind."""

    base: Colour
    fabric: Print | None
    trim: Colour
    metal: Colour
    rng: np.random.Generator

    def vary(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, *choices):
        return choices[int(self.rng.integers(len(choices)))]

    def cloth(self, outline: np.ndarray, turn: float = 0.0, **light) -> "Part":
        """A part in the product's own colour and print."""
        return Part(outline, self.base, self.fabric, turn, **light)

    def shade(self, share: float) -> Colour:
        return darker(self.base, share)

    def seam(self, path: np.ndarray, width: float = 0.5, opacity: float = 0.7) -> "Stroke":
        return Stroke(path, width, self.seam_colour, opacity)

    def stitch(self, path: np.ndarray, width: float = 0.5, opacity: float = 0.7) -> "Stroke":
        return Stroke(path, width, self.seam_colour, opacity, dashed=True)

    @property
    def seam_colour(self) -> Colour:
        """The colour of seams: darker than the base, lighter where the base is too dark for that."""
        return darker(self.base, 0.38) if luminance(self.base) > 60 else lighter(self.base, 0.3)


@dataclass(frozen=True)
class Stroke:
    """A line drawn on a part and clipped by it: a seam, a fold (`soft`, in units, blurs it), a stitch (`dashed`)."""

    path: np.ndarray
    width: float
    colour: Colour
    opacity: float = 1.0
    soft: float = 0.0
    dashed: bool = False


@dataclass(frozen=True)
class Part:
    """A closed outline with its colour, its print and its light.

    Attributes:
        outline: Points, (points, 2), in object units.
        colour: sRGB, 0 to 255.
        fabric: The print on it, turned by `turn` degrees.
        bevel: How round it looks: the strength of light and shade towards its edges.
        edge: How dark its rim is.
        roundness: Strength of the light of an upright cylinder: bright left of the middle, dark towards the sides.
        wrap: Whether the print runs around that cylinder.
        opacity: 1 for solid, less for glass.
        holes: Outlines that are cut out.
        strokes: Lines on it.
        casts: Whether it throws a soft shadow on the parts below it.
    """

    outline: np.ndarray
    colour: Colour
    fabric: Print | None = None
    turn: float = 0.0
    bevel: float = 0.5
    edge: float = 0.3
    roundness: float = 0.0
    wrap: bool = False
    opacity: float = 1.0
    holes: tuple[np.ndarray, ...] = ()
    strokes: tuple[Stroke, ...] = ()
    casts: bool = False


@dataclass(frozen=True)
class Kind:
    """How a kind is drawn and shown: its parts, its usual frames (width / height), whether it stands on the ground."""

    parts: Callable[[Look, str], list[Part]]
    aspects: tuple[float, ...]
    stands: bool = False
    tilt: float = 4.0  # degrees
    flips: bool = False


class Canvas:
    """Paints parts in premultiplied colour, (height, width, 3), with their coverage, (height, width)."""

    def __init__(self, size: tuple[int, int], matrix: np.ndarray, offset: np.ndarray):
        self.width, self.height = size
        self.matrix, self.offset = matrix, offset
        self.scale = float(np.sqrt(abs(np.linalg.det(matrix))))
        self.colour = np.zeros((self.height, self.width, 3), np.float32)
        self.cover = np.zeros((self.height, self.width), np.float32)

    def place(self, points: np.ndarray) -> np.ndarray:
        return points @ self.matrix.T + self.offset

    def _window(self, points: np.ndarray, margin: float) -> tuple[int, int, int, int]:
        low, high = points.min(0) - margin, points.max(0) + margin
        x0, y0 = max(int(low[0]), 0), max(int(low[1]), 0)
        return x0, y0, max(min(int(high[0]) + 2, self.width), x0 + 1), max(min(int(high[1]) + 2, self.height), y0 + 1)

    def _mask(
        self,
        window: tuple[int, int, int, int],
        draw_on: Callable[[ImageDraw.ImageDraw], None],
        zoom: int = _SUPERSAMPLING,
    ) -> Image.Image:
        x0, y0, x1, y1 = window
        large = Image.new("L", ((x1 - x0) * zoom, (y1 - y0) * zoom))
        draw_on(ImageDraw.Draw(large))
        # The gap lets Pillow halve by averaging before the Lanczos filter: twice as fast, and no difference to see.
        return large.resize((x1 - x0, y1 - y0), Image.Resampling.LANCZOS, reducing_gap=1.5) if zoom > 1 else large

    def paint(self, part: Part) -> None:
        outline = self.place(part.outline)
        extent = float(np.ptp(outline, axis=0).min())
        radius = min(max(0.16 * extent, 1.0), 0.035 * (self.width + self.height))
        window = self._window(outline, 2 * radius + 2)
        x0, y0, x1, y1 = window
        corner = np.asarray((x0, y0))

        def fill(pen: ImageDraw.ImageDraw) -> None:
            pen.polygon(((outline - corner) * _SUPERSAMPLING).ravel().tolist(), fill=255)
            for hole in part.holes:
                pen.polygon(((self.place(hole) - corner) * _SUPERSAMPLING).ravel().tolist(), fill=0)

        image = self._mask(window, fill)
        mask = np.asarray(image, np.float32) / 255
        region, cover = self.colour[y0:y1, x0:x1], self.cover[y0:y1, x0:x1]
        if part.casts:
            soft = max(1.2, 1.6 * self.scale)
            shadow = np.asarray(image.filter(ImageFilter.GaussianBlur(soft)), np.float32) / 255
            drop = min(round(soft), shadow.shape[0] - 1)
            shadow = np.concatenate([np.zeros_like(shadow[:drop]), shadow[: len(shadow) - drop]])
            region *= 1 - 0.3 * shadow[..., None]

        paint, roundness = self._surface(part, window)
        paint = self._lit(paint, part, image, radius, roundness)
        self._stroke(paint, part.strokes, window)
        alpha = (mask * np.float32(part.opacity))[..., None]
        region += alpha * (paint - region)
        cover += alpha[..., 0] * (1 - cover)

    def _surface(self, part: Part, window: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray | float]:
        """The part's unlit colours, (height, width, 3) or one colour, and the light that its roundness adds."""
        plain = np.asarray(part.colour, np.float32)
        if part.fabric is None and not part.roundness:
            return plain, 0.0
        x0, y0, x1, y1 = window
        # Plain floats, for float64 scalars would make the arrays float64 and everything twice as slow.
        (a, b), (c, d) = np.linalg.inv(self.matrix).tolist()
        x = np.arange(x0, x1, dtype=np.float32)[None, :] + (0.5 - float(self.offset[0]))
        y = np.arange(y0, y1, dtype=np.float32)[:, None] + (0.5 - float(self.offset[1]))
        low, high = part.outline.min(0).tolist(), part.outline.max(0).tolist()
        u, v = a * x + b * y - (low[0] + high[0]) / 2, c * x + d * y - (low[1] + high[1]) / 2
        half_width = max((high[0] - low[0]) / 2, 1e-6)
        across = np.clip(u / half_width, -1, 1)
        roundness = part.roundness * 0.5 * (0.22 - (across + 0.3) ** 2) if part.roundness else 0.0
        if part.fabric is None:
            return plain, roundness
        if part.wrap:
            u = half_width * np.arcsin(0.98 * across)
        cosine, sine = math.cos(math.radians(part.turn)), math.sin(math.radians(part.turn))
        colours = _paint_print(part.colour, part.fabric, cosine * u + sine * v, cosine * v - sine * u, 1 / self.scale)
        return colours, roundness

    def _lit(
        self, paint: np.ndarray, part: Part, mask: Image.Image, radius: float, roundness: np.ndarray | float
    ) -> np.ndarray:
        """Light from the upper left, from the slope of the blurred mask, and a dark rim."""
        form = np.asarray(mask.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255
        rim = np.asarray(mask.filter(ImageFilter.GaussianBlur(max(0.5 * self.scale, 0.7))), np.float32) / 255
        reach = max(round(radius / 2), 1)  # neighbouring pixels would show the blur's 256 steps as grain
        wide = np.pad(form, reach, mode="edge")
        slope_x = (wide[reach:-reach, 2 * reach :] - wide[reach:-reach, : -2 * reach]) / (2 * reach)
        slope_y = (wide[2 * reach :, reach:-reach] - wide[: -2 * reach, reach:-reach]) / (2 * reach)
        light = part.bevel * radius * (0.6 * slope_x + slope_y) - 2 * part.edge * (1 - rim) + roundness
        light = np.clip(light, -0.75, 0.6)[..., None]
        return np.clip(paint * (1 + np.minimum(light, 0)) + 110 * np.maximum(light, 0), 0, 255)

    def _stroke(self, paint: np.ndarray, strokes: Sequence[Stroke], window: tuple[int, int, int, int]) -> None:
        """Draws on `paint`, in place. Neighbours that differ in their paths only share one mask."""
        for (colour, opacity, soft), group in groupby(strokes, key=lambda s: (s.colour, s.opacity, s.soft)):
            group = list(group)
            paths = [self.place(stroke.path) for stroke in group]
            margin = (max(stroke.width for stroke in group) + 2.5 * soft) * self.scale + 1
            x0, y0, x1, y1 = self._window(np.concatenate(paths), margin)
            x0, y0, x1, y1 = max(x0, window[0]), max(y0, window[1]), min(x1, window[2]), min(y1, window[3])
            if x0 >= x1 or y0 >= y1:
                continue
            zoom = 1 if soft else _SUPERSAMPLING  # a blur hides the steps anyway

            def lines(pen: ImageDraw.ImageDraw, group=group, paths=paths, corner=(x0, y0), zoom=zoom) -> None:
                for stroke, path in zip(group, paths, strict=True):
                    width = max(round(stroke.width * self.scale * zoom), round(0.75 * zoom))
                    path = (path - corner) * zoom
                    if stroke.dashed:
                        for dash in _dashes(path, 1.6 * self.scale * zoom):
                            pen.line(dash.ravel().tolist(), fill=255, width=width)
                    else:
                        pen.line(path.ravel().tolist(), fill=255, width=width, joint="curve")

            image = self._mask((x0, y0, x1, y1), lines, zoom)
            if soft:
                image = image.filter(ImageFilter.GaussianBlur(soft * self.scale))
            region = paint[y0 - window[1] : y1 - window[1], x0 - window[0] : x1 - window[0]]
            alpha = np.asarray(image, np.float32)[..., None] * np.float32(opacity / 255)
            region += alpha * (np.asarray(colour, np.float32) - region)


def _dashes(path: np.ndarray, dash: float) -> Iterator[np.ndarray]:
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    starts = np.arange(0, length[-1], 1.8 * dash)
    ends = np.stack([starts, np.minimum(starts + dash, length[-1])], axis=1)
    yield from np.stack([np.interp(ends, length, path[:, axis]) for axis in (0, 1)], axis=2)


def fold_strokes(path: np.ndarray, depth: float = 0.28, width: float = 1.6) -> tuple[Stroke, Stroke]:
    """A soft crease: shade with light beside it."""
    return (
        Stroke(path, width, (0, 0, 0), depth, soft=1.3),
        Stroke(shifted(path, -1.8, -0.6), width, (255, 255, 255), depth * 0.7, soft=1.3),
    )


def rib_strokes(x0: float, x1: float, y0: float, y1: float, colour: Colour, count: int) -> tuple[Stroke, ...]:
    """The upright lines of knitted ribs."""
    return tuple(Stroke(curve(f"M{x} {y0} L{x} {y1}"), 0.4, colour, 0.5) for x in np.linspace(x0, x1, count))
