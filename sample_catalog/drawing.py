"""Draws the pictures of the sample catalogue: illustrated products, by Pillow and NumPy, with no photo anywhere.

A kind of product is a function that returns `Part`s, back to front: closed outlines in object units (about 100 tall or
wide, x to the right, y down). `draw` fits them into the frame and paints them. A part's mask is drawn four times too
large and scaled down; prints are functions of the object's own coordinates, so they follow its pose; light is computed
from the slope of the blurred mask, which makes every part look slightly round.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[float, float, float]
Point = tuple[float, float]

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

# Inks that leave the base colour the one that a shopper would name: light on dark and dark on light.
_LIGHT_INKS: tuple[Colour, ...] = ((250, 249, 245), (250, 249, 245), (246, 236, 208))
_DARK_INKS: tuple[Colour, ...] = ((38, 38, 44), (30, 44, 92), (92, 56, 40))
_SUPERSAMPLING = 4
_GOLD: Colour = (214, 172, 84)
_SILVER: Colour = (190, 195, 202)
_WOOD: Colour = (178, 124, 74)
_DARK_WOOD: Colour = (104, 66, 40)
_RUBBER: Colour = (58, 56, 58)
_CREAM: Colour = (240, 234, 220)


# --- Curves -----------------------------------------------------------------------------------------------------------


def curve(path: str, steps: int = 12) -> np.ndarray:
    """The points, (points, 2), of a path in SVG's language: M, L, Q and C with absolute coordinates.

    Args:
        path: Such as "M0 0 L10 0 Q20 0 20 10".
        steps: Points per Bézier segment.
    """
    pieces: list[np.ndarray] = []
    for command, numbers in re.findall(r"([MLQC])([^MLQC]*)", path):
        points = np.asarray(numbers.split(), float).reshape(-1, 2)
        if command in "QC":
            t = np.linspace(0, 1, steps + 1)[1:, None]
            points = [pieces[-1][-1], *points]
            while len(points) > 1:  # de Casteljau's algorithm
                points = [(1 - t) * a + t * b for a, b in pairwise(points)]
            points = points[0]
        pieces.append(points)
    return np.concatenate(pieces)


def smooth(points: Sequence[Point], closed: bool = True, steps: int = 8) -> np.ndarray:
    """The Catmull-Rom spline through `points`, (points, 2)."""
    knots = np.asarray(points, float)
    knots = np.concatenate([knots[-1:], knots, knots[:2]] if closed else [knots[:1], knots, knots[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(knots[:-3], knots[1:-2], knots[2:-1], knots[3:], strict=True)
    ]
    return np.concatenate(pieces if closed else [*pieces, knots[-1:]])


def tube(path: str, width: float | tuple[float, float], steps: int = 12) -> np.ndarray:
    """`ribbon` along an SVG path."""
    return ribbon(curve(path, steps), width)


def shifted(points: np.ndarray, x: float, y: float) -> np.ndarray:
    return points + np.asarray((x, y))


def mirrored(right_half: np.ndarray) -> np.ndarray:
    """The closed outline that is symmetric about x = 0, from its right half, top to bottom."""
    return np.concatenate([right_half, right_half[::-1] * (-1, 1)])


def half(path: str) -> np.ndarray:
    """The closed outline that is symmetric about x = 0, from the path of its right half, top to bottom."""
    return mirrored(curve(path))


def ellipse(x: float, y: float, rx: float, ry: float | None = None, start: float = 0, end: float = 360) -> np.ndarray:
    """An ellipse about (x, y), or the arc of it from `start` to `end` degrees, clockwise from the right."""
    angle = np.radians(np.linspace(start, end, 40))
    return np.stack([x + rx * np.cos(angle), y + (rx if ry is None else ry) * np.sin(angle)], axis=1)


def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0) -> np.ndarray:
    """A rectangle with rounded corners."""
    r = min(radius, (x1 - x0) / 2, (y1 - y0) / 2)
    corners = ((x1 - r, y0 + r, -90), (x1 - r, y1 - r, 0), (x0 + r, y1 - r, 90), (x0 + r, y0 + r, 180))
    return np.concatenate([ellipse(x, y, r, r, start, start + 90)[::5] for x, y, start in corners])


def ribbon(path: np.ndarray, width: float | tuple[float, float]) -> np.ndarray:
    """The outline of a band along `path`, `width` wide, or tapering from the first width to the second."""
    tangent = np.gradient(path, axis=0)
    normal = tangent[:, ::-1] * (-1, 1) / np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    widths = np.linspace(*(width if isinstance(width, tuple) else (width, width)), len(path))[:, None] / 2
    return np.concatenate([path + normal * widths, (path - normal * widths)[::-1]])


# --- Colours and prints -----------------------------------------------------------------------------------------------


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


def _paint(base: Colour, ink: Print, u: np.ndarray, v: np.ndarray, pixel: float) -> np.ndarray:
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


# --- Parts ------------------------------------------------------------------------------------------------------------


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


class _Canvas:
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
        colours = _paint(part.colour, part.fabric, cosine * u + sine * v, cosine * v - sine * u, 1 / self.scale)
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


# --- Clothes ----------------------------------------------------------------------------------------------------------


def _fold(path: np.ndarray, depth: float = 0.28, width: float = 1.6) -> tuple[Stroke, Stroke]:
    """A soft crease: shade with light beside it."""
    return (
        Stroke(path, width, (0, 0, 0), depth, soft=1.3),
        Stroke(shifted(path, -1.8, -0.6), width, (255, 255, 255), depth * 0.7, soft=1.3),
    )


def _both_sides(path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return path, path * (-1, 1)


def _top(
    look: Look,
    *,
    width: float,
    length: float,
    sleeve: str,
    neck: tuple[float, float],
    vee: bool = False,
    hem: float = 2.0,
    flare: float = 1.0,
    cuff: Colour | None = None,
    strokes: tuple[Stroke, ...] = (),
) -> list[Part]:
    """Neck, sleeves ("none", "short" or "long") and body of a garment; `neck` is its half width and its depth."""
    neck_width, neck_depth = neck
    w = width
    parts = [
        Part(
            half(f"M0 -2.2 Q{neck_width * 0.8} -2 {neck_width + 1} 1 L0 {neck_depth + 3}"), look.shade(0.35), bevel=0.1
        )
    ]
    if sleeve == "short":
        reach = look.vary(-1, 4)
        arm = curve(
            f"M{neck_width + 4} 1.5 L{w - 3} 5.5 Q{w + 5} 8 {w + 8} 15 L{w + 15 + reach} 33 "
            f"Q{w + 11 + reach / 2} 37 {w + 4 + reach / 2} 38.5 L{w} 30 L{w - 10} 24"
        )
        hem_line = curve(f"M{w + 15.2 + reach} 31 Q{w + 10 + reach / 2} 35 {w + 3 + reach / 2} 36.4")
        turn, cuffs = -34.0, None
    elif sleeve == "long":
        end = length * look.vary(0.96, 1.04)
        arm = curve(
            f"M{neck_width + 4} 1.5 L{w - 3} 5.5 Q{w + 5} 8 {w + 7} 18 L{w + 15} {end} "
            f"Q{w + 11} {end + 1.5} {w + 6.5} {end + 1} Q{w + 5} {end * 0.6} {w - 1} 31 L{w - 10} 24"
        )
        hem_line = curve(f"M{w + 15} {end - 5} Q{w + 11} {end - 3.6} {w + 6} {end - 4}")
        cuffs = curve(
            f"M{w + 14.6} {end - 6} L{w + 15.2} {end + 0.6} Q{w + 11} {end + 2.4} {w + 6.2} {end + 1.6} "
            f"L{w + 5.6} {end - 5} L{w + 10} {end - 4}"
        )
        turn = -11.0
    if sleeve != "none":
        crease = curve(f"M{w + 1} 29 Q{w + 7} 27 {w + 10} 20")
        for side in (1, -1):
            flip = (side, 1)
            parts.append(
                look.cloth(arm * flip, turn * side, strokes=(look.stitch(hem_line * flip), *_fold(crease * flip)))
            )
            if cuffs is not None and cuff is not None:
                ribs = tuple(
                    Stroke(np.asarray([(x, end - 6), (x + 0.3, end + 3)]) * flip, 0.4, darker(cuff), 0.5)
                    for x in np.linspace(w + 6.5, w + 14.5, 6)
                )
                parts.append(Part(cuffs * flip, cuff, strokes=ribs))
    neckline = f"M0 {neck_depth} " + ("L" if vee else f"Q{neck_width * 0.92} {neck_depth} ") + f"{neck_width} 0 "
    body = curve(
        f"{neckline} L{w} 7 Q{w * 0.9} 18 {w} 28 Q{w * 0.96} {length * 0.6} {w * flare} {length} "
        f"Q{w * 0.5} {length + hem} 0 {length + hem}"
    )
    folds: tuple[Stroke, ...] = ()
    creases = (
        curve(f"M{w - 1} 30 Q{w * 0.77} 32 {w * 0.55} 40"),
        curve(f"M{w * 0.9} {length * 0.72} Q{w * 0.65} {length * 0.74} {w * 0.4} {length * 0.86}"),
    )
    for line in creases:
        for path in _both_sides(line):
            folds += _fold(path, look.vary(0.12, 0.26))
    armhole = tuple(
        look.seam(path, 0.5, 0.6) for path in _both_sides(curve(f"M{w - 1} 6 Q{w * 0.9 - 0.5} 18 {w - 0.5} 28"))
    )
    parts.append(look.cloth(mirrored(body), strokes=(*folds, *(armhole if sleeve != "none" else ()), *strokes)))
    return parts


def _hem_stitch(look: Look, width: float, length: float) -> Stroke:
    return look.stitch(curve(f"M{-width * 1.2} {length - 3} Q0 {length - 0.6} {width * 1.2} {length - 3}"))


def _neckband(look: Look, neck: tuple[float, float], vee: bool, colour: Colour, width: float = 2.6) -> Part:
    nw, nd = neck
    path = (
        curve(f"M{-nw} 1 L0 {nd} L{nw} 1")
        if vee
        else curve(f"M{-nw} -0.4 Q{-nw * 0.92} {nd} 0 {nd} Q{nw * 0.92} {nd} {nw} -0.4")
    )
    if vee:
        band = np.concatenate([shifted(path, 0, -width * 0.4), shifted(path[::-1], 0, width * 0.9)])
    else:
        band = ribbon(path, width)
    return Part(band, colour, bevel=0.35)


def _tshirt(look: Look, style: str) -> list[Part]:
    vee, sleeve = style == "V-Neck", "long" if style == "Long Sleeve" else "short"
    width, length = look.vary(25, 28), look.vary(72, 82)
    neck = (look.vary(9.5, 12), look.vary(14, 18) if vee else look.vary(6.5, 9.5))
    band = look.trim if look.chance(0.35) else look.shade(0.12)
    parts = _top(
        look,
        width=width,
        length=length,
        sleeve=sleeve,
        neck=neck,
        vee=vee,
        flare=look.vary(0.97, 1.04),
        strokes=(_hem_stitch(look, width, length),),
    )
    parts.append(_neckband(look, neck, vee, band))
    if look.fabric is None and look.chance(0.25):
        x, y = width * 0.45, look.vary(28, 31)
        parts.append(
            Part(
                curve(f"M{x - 6} {y} L{x + 6} {y} L{x + 6} {y + 11} L{x} {y + 14} L{x - 6} {y + 11}"),
                look.shade(0.05),
                strokes=(look.seam(curve(f"M{x - 6} {y + 2} L{x + 6} {y + 2}"), 0.5, 0.8),),
            )
        )
    return parts


def _buttons(look: Look, top: float, bottom: float, count: int, x: float = 0.0) -> list[Part]:
    colour = look.pick((244, 242, 236), look.shade(0.45), (92, 72, 56))
    return [Part(ellipse(x, y, 1.15), colour, edge=0.5, bevel=0.8) for y in np.linspace(top, bottom, count)]


def _shirt(look: Look, style: str) -> list[Part]:
    sleeve = "short" if style == "Short Sleeve" else "long"
    width, length = look.vary(25.5, 28), look.vary(78, 86)
    cuff = look.base if look.chance(0.7) else look.trim
    parts = _top(
        look,
        width=width,
        length=length,
        sleeve=sleeve,
        neck=(9.5, 10),
        vee=True,
        hem=look.vary(3, 7),
        cuff=cuff,
        strokes=(_hem_stitch(look, width, length),),
    )
    placket = look.cloth(
        box(-2.6, 9, 2.6, length + 2),
        bevel=0.2,
        edge=0.35,
        strokes=tuple(look.stitch(curve(f"M{x} 8 L{x} {length + 4}"), 0.35, 0.6) for x in (-1.9, 1.9)),
    )
    parts += [placket, *_buttons(look, 15, length - 9, 6)]
    if look.chance(0.6):
        x, y = width * 0.5, 29
        parts.append(
            look.cloth(
                curve(f"M{x - 6.5} {y} L{x + 6.5} {y} L{x + 6.5} {y + 10} L{x} {y + 13.5} L{x - 6.5} {y + 10}"),
                bevel=0.25,
                strokes=(look.seam(curve(f"M{x - 7} {y + 2.4} L{x + 7} {y + 2.4}"), 0.5, 0.8),),
            )
        )
    collar = curve("M0.3 9.5 L9.5 -4 L12.5 -1 Q14 4 12.5 13 L7 14", steps=8)
    back = half("M0 -4.5 Q8 -4.5 10.2 -3 L9 3 L0 3.5")
    parts.insert(0, Part(back, look.shade(0.15)))
    stand = half("M0 -1.6 Q7 -1.5 9.3 -3.2 Q8.4 0.4 0 3.4")
    parts.append(Part(stand, look.shade(0.28), bevel=0.1))
    colour = cuff if cuff != look.base else look.base
    parts += [
        Part(path, colour, look.fabric if colour == look.base else None, 20 * side, casts=True)
        for side, path in zip((-1, 1), _both_sides(collar), strict=True)
    ]
    return parts


def _ribs(x0: float, x1: float, y0: float, y1: float, colour: Colour, count: int) -> tuple[Stroke, ...]:
    return tuple(Stroke(curve(f"M{x} {y0} L{x} {y1}"), 0.4, colour, 0.5) for x in np.linspace(x0, x1, count))


def _waistband(look: Look, width: float, y: float, colour: Colour, height: float = 6) -> Part:
    outline = half(f"M0 {y} L{width * 0.95} {y - 0.5} L{width * 0.98} {y + height} L0 {y + height + 1.5}")
    return Part(outline, colour, strokes=_ribs(-width, width, y - 1, y + height + 2, darker(colour, 0.3), 26))


def _sweatshirt(look: Look, style: str) -> list[Part]:
    width, length = look.vary(27, 30), look.vary(72, 80)
    rib = look.trim if look.chance(0.3) else look.shade(0.1)
    parts = _top(look, width=width, length=length, sleeve="long", neck=(9, 8), cuff=rib, hem=1)
    parts.append(_waistband(look, width, length - 2, rib))
    hood_out = half("M0 -15 Q17 -15 18 -1 Q16 10 5 15 L0 13")
    hood_in = half("M0 -9 Q10.5 -9 11 1 Q9 8 0 12.5")
    seam = tuple(look.seam(path) for path in _both_sides(curve("M0 -15 Q5 -13 8.5 -8")))
    parts.insert(0, look.cloth(hood_out, strokes=seam))
    parts.append(look.cloth(hood_out, holes=(hood_in,), casts=True, strokes=(look.seam(hood_in, 0.5, 0.8),)))
    parts.insert(1, Part(hood_in, look.shade(0.42), bevel=0.1))
    pocket = half("M0 45 L11 45 Q14 50 19 56 L19 64 L0 64")
    opening = tuple(look.seam(path, 0.6, 0.8) for path in _both_sides(curve("M11.5 46 Q14 51 18.2 57")))
    parts.append(look.cloth(pocket, bevel=0.3, edge=0.4, strokes=opening, casts=True))
    if style == "Zip-Up":
        parts += _zip(look, 12.5, length + 4)
    cord = lighter(look.base, 0.7) if luminance(look.base) < 150 else look.shade(0.5)
    for side in (1, -1):
        path = curve(f"M{5 * side} 13 Q{6.5 * side} 20 {5.2 * side} {look.vary(29, 35)}")
        parts.append(Part(ribbon(path, 1.3), cord, edge=0.4))
        parts.append(Part(ellipse(path[-1, 0], path[-1, 1], 1, 1.8), look.metal))
    return parts


def _zip(look: Look, top: float, bottom: float, x: float = 0.0) -> list[Part]:
    teeth = tuple(
        Stroke(curve(f"M{x - 0.9} {y} L{x + 0.9} {y}"), 0.4, darker(look.metal, 0.5), 0.8)
        for y in np.arange(top, bottom, 1.7)
    )
    return [
        Part(box(x - 1.9, top, x + 1.9, bottom), look.shade(0.25), bevel=0.1),
        Part(box(x - 0.8, top, x + 0.8, bottom), look.metal, strokes=teeth, bevel=0.2),
        Part(box(x - 0.9, top + 1, x + 0.9, top + 6, 0.9), look.metal, bevel=0.8, edge=0.5, casts=True),
    ]


def _sweater(look: Look, style: str) -> list[Part]:
    width, length = look.vary(26, 29), look.vary(70, 80)
    rib = look.shade(0.1) if look.chance(0.7) else look.trim
    cardigan = style == "Cardigan"
    neck = (9.5, 26.0) if cardigan else (10, 7.5)
    knit = tuple(look.stitch(curve(f"M-50 {y} L50 {y}"), 0.35, 0.16) for y in np.arange(8, length, 2.6))
    if look.fabric is None and look.chance(0.6):
        for x in (-12, 0, 12) if not cardigan else (-14, 14):
            y = np.linspace(8, length, 90)
            for phase in (0, np.pi):
                path = np.stack([x + 1.9 * np.sin(y / 2.3 + phase), y], axis=1)
                knit += (Stroke(path, 0.9, look.seam_colour, 0.45, soft=0.25),)
    parts = _top(
        look, width=width, length=length, sleeve="long", neck=neck, vee=cardigan, cuff=rib, hem=1, strokes=knit
    )
    parts.append(_waistband(look, width, length - 2, rib))
    if style == "Turtleneck":
        collar = half("M0 -12 Q7.5 -12 8.8 -11 Q8 -3 11.5 2.5 Q6 8.5 0 8.5")
        parts.append(
            look.cloth(collar, strokes=_ribs(-11, 11, -14, 10, look.seam_colour, 14), casts=True, roundness=0.5)
        )
        parts.append(Part(ellipse(0, -11.4, 8.2, 1.5), look.shade(0.45)))
    elif cardigan:
        band = (curve(f"M-9.5 -0.5 L0.6 26 L0.6 {length + 5}"), curve(f"M9.5 -0.5 L0.6 26 L0.6 {length + 5}"))
        parts += [Part(ribbon(path, 4.4), rib, bevel=0.3, edge=0.4, casts=True) for path in band]
        parts += _buttons(look, 30, length - 1, 5, x=0.6)
    else:
        parts.append(_neckband(look, neck, False, rib, 3.6))
    return parts


def _jacket(look: Look, style: str) -> list[Part]:
    width, length = look.vary(27.5, 30), look.vary(68, 78)
    rib = look.trim if look.chance(0.4) else look.shade(0.3)
    if style == "Puffer":
        quilt: tuple[Stroke, ...] = ()
        for y in np.arange(13, length, 10.5):
            path = curve(f"M-60 {y} Q0 {y + 3} 60 {y}")
            quilt += (
                Stroke(path, 2.6, (0, 0, 0), 0.42, soft=1.2),
                Stroke(shifted(path, 0, 3.4), 3, (255, 255, 255), 0.26, soft=1.6),
            )
            quilt += (look.seam(path, 0.5, 0.8),)
        parts = _top(look, width=width, length=length, sleeve="long", neck=(9, 7), strokes=quilt, hem=1)
        for index in (1, 2):
            side = 3 - 2 * index
            rings: tuple[Stroke, ...] = ()
            for y in np.arange(18, length, 10.5):
                path = curve(f"M{(width - 12) * side} {y + 6} L{(width + 22) * side} {y - 2}")
                rings += (Stroke(path, 2.6, (0, 0, 0), 0.42, soft=1.2), look.seam(path, 0.5, 0.8))
                rings += (Stroke(shifted(path, 0, 3.2), 2.6, (255, 255, 255), 0.24, soft=1.5),)
            arm = parts[index]
            parts[index] = Part(arm.outline, arm.colour, arm.fabric, arm.turn, bevel=0.8, strokes=rings)
        collar = half("M0 -10 Q9 -10 11 -8 Q14 0 12 8 Q6 11 0 11")
        parts.append(
            look.cloth(
                collar, bevel=0.9, strokes=(Stroke(curve("M-14 0 Q0 3 14 0"), 2, (0, 0, 0), 0.35, soft=1),), casts=True
            )
        )
        return [*parts, *_zip(look, -9, length + 1)]
    if style == "Biker":
        parts = _top(
            look, width=width, length=length, sleeve="long", neck=(9, 22), vee=True, hem=1, cuff=look.shade(0.1)
        )
        inside = half("M0 -2 L9 0 L0 24")
        parts.insert(1, Part(inside, look.shade(0.5), bevel=0.1))
        slash = _zip(look, 24, length + 2, x=-7)
        parts += slash
        lapel = curve("M9 -3 L15 4 L17 9 L13 12 L15 15 L-4 34 L1 20")
        parts.append(look.cloth(lapel, 20, casts=True, bevel=0.7))
        lapel = curve("M-9 -3 L-15 4 L-17 9 L-13 12 L-17 17 L-7 34 L-1 18")
        parts.append(look.cloth(lapel, -20, casts=True, bevel=0.7))
        for side in (1, -1):
            path = curve(f"M{20 * side} 46 L{13 * side} 54")
            parts.append(Part(ribbon(path, 2), look.metal, edge=0.5))
        parts.append(
            Part(
                half(f"M0 {length - 3} L{width * 0.98} {length - 4} L{width * 0.99} {length + 1} L0 {length + 2.5}"),
                look.shade(0.18),
            )
        )
        parts.append(
            Part(box(-4, length - 3.4, 3, length + 2.4, 1), look.metal, holes=(box(-2.6, length - 2, 1.6, length + 1),))
        )
        return parts
    parts = _top(look, width=width, length=length, sleeve="long", neck=(9.5, 8), cuff=rib, hem=1)
    parts.append(_waistband(look, width, length - 3, rib, 7))
    parts += _zip(look, 6, length + 4)
    collar = half("M0.4 9.5 Q7 6 9 -4 L12.5 -2 Q13 7 3 13 L0.4 13")
    parts.append(Part(collar, rib, strokes=_ribs(-13, 13, -5, 14, darker(rib, 0.3), 16), casts=True))
    for side in (1, -1):
        parts.append(Part(tube(f"M{21 * side} 42 L{15 * side} 56", 2.2), look.shade(0.3), edge=0.5))
    return parts


def _dress(look: Look, style: str) -> list[Part]:
    length = {"Mini": look.vary(74, 80), "Midi": look.vary(92, 100), "Maxi": look.vary(114, 124)}[style]
    waist_y, waist = look.vary(34, 38), look.vary(13, 15)
    hem = waist + length * look.vary(0.12, 0.24)
    sleeve = look.pick("strap", "none", "short", "long")
    neck_x, neck_y = look.vary(8, 10.5), look.vary(7, 13)
    parts: list[Part] = []
    if sleeve == "strap":
        for side in (1, -1):
            parts.append(Part(tube(f"M{9.5 * side} -6 Q{11 * side} 4 {10.5 * side} 12", 1.8), look.base))
        bodice = curve(f"M0 13 Q5 13 9.5 9 Q13 12 16.5 18 Q15 28 {waist} {waist_y}")
        parts.insert(0, Part(half("M0 10 L13 12 L14 18 L0 20"), look.shade(0.4), bevel=0.1))
    else:
        parts.append(
            Part(half(f"M0 -1.8 Q{neck_x * 0.8} -1.6 {neck_x + 1} 1 L0 {neck_y + 3}"), look.shade(0.38), bevel=0.1)
        )
        arms = {
            "short": "Q24 2 27 17 Q22 20 17 20 L12 16",
            "long": "Q23 4 27 30 Q29 46 30 58 Q27.5 60 24 59.5 Q23 40 16 21 L12 16",
        }
        if sleeve in arms:
            arm = curve(f"M{neck_x + 3} 0.5 {arms[sleeve]}")
            parts += [
                look.cloth(path, turn, strokes=_fold(curve("M16 20 Q20 17 22 11") * (side, 1)))
                for path, turn, side in zip(_both_sides(arm), (-22, 22), (1, -1), strict=True)
            ]
        neckline = "L" if look.chance(0.35) else f"Q{neck_x * 0.95} {neck_y} "
        bodice = curve(f"M0 {neck_y} {neckline}{neck_x} 0 L15.5 3.5 Q13.5 12 17 20 Q15.5 28 {waist} {waist_y}")
    bust: tuple[Stroke, ...] = ()
    for path in _both_sides(curve("M15.5 21 Q11 25 9 24")):
        bust += _fold(path, 0.16, 1.2)
    ruffles = look.chance(0.3)
    flare = curve(
        f"M{waist} {waist_y} Q{waist + 3} {waist_y + 12} {hem * 0.92} {length * 0.8} "
        f"Q{hem * 0.98} {length * 0.92} {hem} {length}"
    )
    waves = np.linspace(hem, 0, 25)
    edge = np.stack(
        [waves, length + 3.2 * np.cos(waves / hem * np.pi / 2) + 0.9 * np.cos(waves / hem * np.pi * 5)], axis=1
    )
    folds: tuple[Stroke, ...] = ()
    for x in (0.2, 0.55, 0.85):
        for side in (1, -1):
            start, end = waist_y + look.vary(2, 14), side * x * hem + look.vary(-1.5, 1.5)
            path = curve(
                f"M{side * x * waist * 0.9} {start} Q{side * x * (waist + 3)} {waist_y + 25} {end} {length + 2}"
            )
            folds += _fold(path, look.vary(0.16, 0.3), 2)
    if ruffles:
        for y in (length * 0.72, length * 0.86):
            folds += (Stroke(curve(f"M{-hem} {y} Q0 {y + 4} {hem} {y}"), 1.8, (0, 0, 0), 0.3, soft=0.8),)
    skirt = look.cloth(
        mirrored(np.concatenate([curve(f"M0 {waist_y - 1} L{waist} {waist_y}"), flare, edge])), strokes=folds
    )
    parts += [skirt, look.cloth(mirrored(np.concatenate([bodice, [(0, waist_y + 1)]])), strokes=bust)]
    belt = look.trim if look.chance(0.45) else look.shade(0.2)
    parts.append(
        Part(
            half(f"M0 {waist_y - 2} L{waist + 0.3} {waist_y - 2.4} L{waist + 0.3} {waist_y + 1.6} L0 {waist_y + 2.2}"),
            belt,
        )
    )
    if look.chance(0.3):
        bow = curve(f"M0 {waist_y} Q-7 {waist_y - 7} -8 {waist_y} Q-7 {waist_y + 6} 0 {waist_y}")
        parts += [
            Part(bow, belt, casts=True),
            Part(bow * (-1, 1), belt, casts=True),
            Part(ellipse(0, waist_y, 1.8), darker(belt, 0.15)),
        ]
    return parts


def _skirt(look: Look, style: str) -> list[Part]:
    length = {
        "Mini": look.vary(44, 52),
        "Pleated": look.vary(58, 70),
        "Pencil": look.vary(70, 78),
        "Maxi": look.vary(94, 104),
    }[style]
    waist = look.vary(17, 19)
    hem = {
        "Mini": waist * look.vary(1.5, 2.0),
        "Pleated": waist * look.vary(1.9, 2.3),
        "Pencil": waist * look.vary(1.12, 1.25),
        "Maxi": waist * look.vary(1.8, 2.3),
    }[style]
    hip = waist + (hem - waist) * 0.45 + 2.5
    x = np.linspace(hem, 0, 40)
    ripple = {"Pleated": 1.2, "Mini": 0.7, "Pencil": 0.0, "Maxi": 1.0}[style] * np.cos(x / hem * np.pi * 7)
    edge = np.stack([x, length + 2.8 * np.cos(x / hem * np.pi / 2) + ripple], axis=1)
    strokes: tuple[Stroke, ...] = ()
    count = {"Pleated": 13, "Mini": 7, "Pencil": 1, "Maxi": 9}[style]
    for t in np.linspace(-0.9, 0.9, count) if count > 1 else ():
        path = curve(f"M{t * waist} 5 Q{t * hip} {length * 0.4} {t * hem} {length + 4}")
        strokes += _fold(path, 0.38 if style == "Pleated" else look.vary(0.18, 0.3), 1.2 if style == "Pleated" else 2.2)
    pencil = style == "Pencil"
    if pencil:
        strokes += (Stroke(curve(f"M3 {length * 0.72} L3.4 {length + 5}"), 0.9, look.shade(0.6), 0.9),)
        strokes += _fold(curve("M-10 6 Q-11 14 -10 20"), 0.2, 1)
        strokes += _fold(curve("M10 6 Q11 14 10 20"), 0.2, 1)
    side = curve(
        f"M{waist} 2 Q{hip} {length * 0.28} {hem * (1.02 if pencil else 0.98)} {length * 0.75} L{hem} {length}"
    )
    band = look.trim if look.chance(0.3) else look.shade(0.14)
    return [
        Part(ellipse(0, 0.2, waist * 0.98, 2.2), look.shade(0.5)),
        look.cloth(mirrored(np.concatenate([[(0, 3)], side, edge])), strokes=strokes),
        Part(
            half(f"M0 2.2 Q{waist * 0.6} 2 {waist} 0 L{waist + 0.8} 5 Q{waist * 0.6} 7 0 7.2"),
            band,
            strokes=(look.stitch(curve("M-20 5 Q0 7.2 20 5"), 0.4, 0.6),),
        ),
        *(_buttons(look, 12, length - 6, 6) if style == "Mini" and look.chance(0.4) else ()),
    ]


def _legs(
    look: Look, *, length: float, knee: float, hem: float, waist: float, strokes: tuple[Stroke, ...] = ()
) -> list[Part]:
    crotch = 30
    leg = curve(
        f"M0 2 L{waist} 1 Q{waist + 4} 12 {waist + 4.5} 24 "
        f"Q{waist + 2} {length * 0.42} {3 + knee} {length * 0.6} L{4 + hem} {length} "
        f"Q{4 + hem / 2} {length + 1.6} 4.2 {length} Q3 {length * 0.55} 0.4 {crotch}"
    )
    parts = [Part(ellipse(0, 0.4, waist - 0.2, 2), look.shade(0.5))]
    for side in (1, -1):
        flip = (side, 1)
        folds = (
            *_fold(curve(f"M0.5 {crotch} Q8 {crotch - 1} 14 {crotch - 6}") * flip, 0.24),
            *_fold(curve(f"M3 {length * 0.58} Q8 {length * 0.57} 12 {length * 0.54}") * flip, 0.18),
            *_fold(
                curve(f"M{8 + hem * 0.2} 34 Q{6 + knee * 0.4} {length * 0.6} {4 + hem * 0.5} {length - 2}") * flip,
                0.16,
                1.2,
            ),
        )
        hem_stitch = look.stitch(curve(f"M0 {length - 3} L{6 + hem} {length - 3}") * flip)
        pocket = look.seam(curve(f"M{waist - 6} 5 Q{waist - 3} 13 {waist + 5} 15") * flip, 0.6, 0.8)
        parts.append(look.cloth(leg * flip, strokes=(*folds, hem_stitch, pocket, *strokes)))
    fly = curve(f"M0.2 6 L0.2 {crotch}"), curve("M4.2 6 Q4.5 20 0.4 24")
    patch = half(f"M0 4 L5 4 Q5 22 1.2 {crotch - 1}")
    parts.append(look.cloth(patch, bevel=0, edge=0, strokes=tuple(look.seam(p, 0.5, 0.8) for p in fly)))
    band = half(f"M0 2.4 Q{waist * 0.6} 2.2 {waist} 0.4 L{waist + 1} 5.6 Q{waist * 0.6} 7.6 0 7.8")
    parts.append(Part(band, look.shade(0.1), edge=0.35))
    for x in (-waist * 0.62, waist * 0.62):
        parts.append(Part(box(x - 1, 1, x + 1, 8.4, 0.5), look.base, edge=0.45))
    parts.append(Part(ellipse(0.4, 5, 1.5), look.metal, bevel=0.9, edge=0.5))
    return parts


def _trousers(look: Look, style: str) -> list[Part]:
    length, waist = look.vary(100, 108), look.vary(17, 19)
    if style == "Wide-Leg":
        return _legs(look, length=length, knee=look.vary(16, 18), hem=look.vary(20, 24), waist=waist)
    if style == "Slim":
        return _legs(look, length=length, knee=look.vary(10.5, 12), hem=look.vary(8, 9.5), waist=waist)
    parts = _legs(look, length=length, knee=14, hem=look.vary(11, 13), waist=waist)
    y = look.vary(46, 52)
    for side in (1, -1):
        flip = np.asarray((side, 1))
        pocket, flap = box(10, y, 21.5, y + 16, 1.5) * flip, box(9.4, y - 1, 22, y + 4, 1.2) * flip
        parts += [look.cloth(pocket, casts=True), Part(flap, look.shade(0.06), casts=True)]
        parts.append(Part(ellipse(15.7 * side, y + 2.2, 0.9), look.metal))
    return parts


def _shorts(look: Look, style: str) -> list[Part]:
    length = look.vary(50, 56)
    parts = _legs(look, length=length, knee=21, hem=look.vary(19, 22), waist=look.vary(18.5, 20))
    if style == "Drawstring":
        cord = lighter(look.base, 0.75) if luminance(look.base) < 150 else look.shade(0.5)
        parts = parts[:-3] + [Part(tube(f"M{x} 5 Q{x * 3} 12 {x * 2.2} 19", 1.2), cord) for x in (1.4, -1.4)]
    return parts


# --- Shoes: side view, the toe to the right ---------------------------------------------------------------------------


def _laces(path: np.ndarray, count: int, colour: Colour, reach: float) -> list[Part]:
    rows = path[np.linspace(0, len(path) - 1, count).astype(int)]
    return [
        Part(
            tube(f"M{x + 1.5} {y - 1} Q{x - reach * 0.4} {y + 1.5} {x - reach} {y + reach * 0.55}", 2.1),
            colour,
            edge=0.45,
            casts=True,
        )
        for x, y in rows
    ]


def _sneaker(look: Look, style: str) -> list[Part]:
    high, slip_on = style == "High-Top", style == "Slip-On"
    top = -34 if high else -16
    rubber = look.pick((244, 243, 238), (244, 243, 238), _CREAM, look.shade(0.55), (206, 160, 112))
    thick = look.vary(7, 11)
    front = f"Q-14 {top + 2} -8 {top + 5} Q0 -8 14 -1 Q28 3 38 8" if not slip_on else "Q-14 -13 -4 -8 Q20 3 38 8"
    upper = curve(
        f"M-44 22 C-49 10 -46 {top + 8} -45 {top + 2} Q-43 {top - 3} -38 {top - 2} Q-28 {top + 5} -18 {top} "
        f"{front} Q49 12 50 22"
    )
    toe = curve("M22 1 Q38 4 46 10 Q51 15 51 24 L26 24 Q30 12 22 1")
    heel = curve("M-48 24 Q-50 10 -46.5 -4 Q-36 -2 -33 8 Q-31 16 -33 24")
    panel = look.shade(0.16) if look.chance(0.5) else look.trim
    parts = [
        Part(curve(f"M-43 {top} Q-30 {top - 5} -17 {top - 1} L-16 {top + 8} L-40 {top + 8}"), look.shade(0.5)),
        look.cloth(upper, turn=12, bevel=0.7),
    ]
    if not slip_on:
        tongue = curve(f"M-19 {top - 1} Q-17 {top - 8} -9 {top - 5} Q-3 -8 13 -2 L4 3 L-12 -4")
        parts.insert(1, Part(tongue, lighter(look.base, 0.15) if luminance(look.base) < 200 else look.shade(0.08)))
        facing = curve(f"M-20 {top + 1} Q-15 {top + 3} -11 {top + 6} Q-3 -5 14 1 Q15 5 10 7 Q-8 2 -20 {top + 10}")
        parts.append(Part(facing, panel, bevel=0.4, casts=True, strokes=(look.stitch(facing, 1.0),)))
    if look.chance(0.7):
        parts.append(Part(toe, rubber if look.chance(0.4) else panel, bevel=0.6, casts=True))
    if not slip_on or look.chance(0.5):
        parts.append(Part(heel, panel, bevel=0.6, casts=True))
    if look.chance(0.55) and look.fabric is None:
        swoosh = look.pick(
            curve("M-24 18 Q-6 16 14 6 Q6 19 -24 18"), tube("M-14 4 Q-4 12 -6 22", 5), ellipse(-13, 11, 5.5)
        )
        parts.append(Part(swoosh, lighter(panel, 0.55) if luminance(panel) < 140 else darker(panel, 0.4), bevel=0.2))
    if not slip_on:
        path = curve(f"M-12 {top + 7} Q-4 -6 12 0")
        parts += _laces(path, 7 if high else 5, (250, 249, 245) if luminance(panel) < 200 else look.shade(0.55), 9)
    else:
        parts.append(
            Part(curve(f"M-16 {top + 1} Q-12 -12 -8 -10 Q-10 0 -14 8 Q-24 4 -26 -10"), look.shade(0.3), bevel=0.2)
        )
    sole = curve(
        f"M-49 20 Q0 25 50 19 Q54 22 51 {22 + thick} Q46 {24 + thick} 40 {23.5 + thick} "
        f"L0 {23 + thick} L-47 {24 + thick} Q-52 {23 + thick} -49 20"
    )
    line = Stroke(curve("M-50 24 Q0 28.5 54 23"), 0.9, darker(rubber, 0.3) if look.chance(0.5) else look.base, 0.9)
    tread = Stroke(curve(f"M-50 {22.5 + thick} L54 {22 + thick}"), 2.2, darker(rubber, 0.4), 0.8)
    parts.append(Part(sole, rubber, strokes=(line, tread)))
    return parts


def _boot(look: Look, style: str) -> list[Part]:
    height = {"Ankle": look.vary(28, 36), "Chelsea": look.vary(36, 42), "Knee-High": look.vary(82, 92)}[style]
    heel = look.vary(6, 15) if style != "Chelsea" else look.vary(5, 8)
    half = 13 + (3 if style == "Knee-High" else 0)
    top = -height
    upper = curve(
        f"M-15 {25 - heel} Q-20 10 -16 0 C-17 -14 {-15 - half * 0.35} {top * 0.6} {-4 - half} {top} "
        f"Q-4 {top + 3} {-4 + half} {top - 1} C{-4 + half} {top * 0.55} 6 -12 10 -4 Q16 7 28 9 Q42 12 42 27 "
        f"L14 29 Q6 {28 - heel * 0.5} -15 {27 - heel}"
    )
    sole_colour = look.pick(_RUBBER, _DARK_WOOD, look.shade(0.55))
    folds = (
        *_fold(curve("M-15 -2 Q-6 4 8 -2"), 0.3),
        *_fold(curve("M-15 -8 Q-4 -3 8 -9"), 0.24),
        *(_fold(curve(f"M-8 {top * 0.8} Q-10 {top * 0.5} -9 -20"), 0.2, 2) if style == "Knee-High" else ()),
        look.seam(curve("M2 24 Q6 10 16 6"), 0.6),
    )
    shine = Stroke(curve("M28 13 Q36 14 39 20"), 2.4, (255, 255, 255), 0.45, soft=1.2)
    parts = [
        Part(
            curve(f"M{-4 - half} {top} Q-4 {top - 3} {-4 + half} {top - 1} Q-4 {top + 4} {-4 - half} {top}"),
            look.shade(0.55),
        ),
        look.cloth(upper, bevel=0.9, strokes=(*folds, shine)),
    ]
    if style == "Chelsea":
        gore = curve(f"M-9 {top + 3} L3 {top + 3} Q3 -12 -2 -5 Q-8 -12 -9 {top + 3}")
        parts.append(
            Part(
                gore,
                _RUBBER if luminance(look.base) > 70 else look.shade(0.4),
                strokes=_ribs(-9, 3, top, 0, (20, 20, 20), 9),
            )
        )
        parts.append(Part(tube(f"M-16 {top + 1} Q-17 {top - 7} -14 {top + 2}", 2.2), look.trim))
    elif style == "Ankle" and look.chance(0.7):
        parts += _laces(curve(f"M-1 {top + 6} Q2 -14 10 -2"), 5, look.pick(_CREAM, _RUBBER, (200, 150, 90)), 8)
    else:
        y = look.pick(-6.0, top + 8)
        left, right = (-19, 10) if y == -6.0 else (-6 - half, half - 2)
        parts.append(Part(tube(f"M{left} {y} Q0 {y + 5} {right} {y + 1}", 4), look.shade(0.2), casts=True))
        parts.append(Part(box(-8, y - 1.4, 0, y + 6, 1), look.metal, holes=(box(-6.4, y, -1.6, y + 4.6),), bevel=0.8))
    block = curve(
        f"M-15 {25 - heel} L-18 25 L-17 {31 + heel * 0.1} L{-4 + heel * 0.1} {31 + heel * 0.1} L2 {25 - heel * 0.6}"
    )
    parts.append(Part(block, sole_colour, bevel=0.6))
    sole = curve(
        f"M-15 {24 - heel} Q2 {25 - heel} 10 {25 - heel * 0.4} Q22 27 43 25 Q44 30 40 31 "
        f"Q22 31 12 30 Q4 {29 - heel * 0.5} -15 {28 - heel}"
    )
    parts.append(Part(sole, darker(sole_colour, 0.15), bevel=0.4))
    return parts


def _heel(look: Look, style: str) -> list[Part]:
    height = {"Stiletto": look.vary(30, 36), "Block Heel": look.vary(20, 28), "Kitten Heel": look.vary(12, 16)}[style]
    back, ground = 30 - height, 34.0
    upper = curve(
        f"M-42 {back + 4} Q-47 {back - 8} -43 {back - 22} Q-38 {back - 22} -36 {back - 16} "
        f"Q-24 {back - 2} -4 15 Q12 24 22 17 Q40 22 51 31 Q48 34.5 34 33.5 Q12 33 -6 24 "
        f"Q-22 {back + 12} -36 {back + 7}"
    )
    lining = curve(f"M-42 {back - 20} Q-30 {back - 14} -12 10 Q8 20 22 17 Q10 28 -8 20 Q-28 {back + 2} -42 {back - 20}")
    if style == "Block Heel":
        heel = curve(f"M-43 {back + 1} Q-46 {back + 14} -44 {ground} L-29 {ground} Q-29 {back + 18} -24 {back + 9}")
    else:
        tip = -36 if style == "Kitten Heel" else -40
        heel = curve(
            f"M-44 {back + 1} Q-44 {back + 12} {tip - 2} {ground} L{tip + 2} {ground} "
            f"Q{tip + 4} {back + 18} -22 {back + 11}"
        )
    sole_colour = look.pick(_RUBBER, (196, 150, 110), look.shade(0.45))
    sole = tube(f"M-42 {back + 6} Q-24 {back + 10} -6 25 Q10 34.5 30 34.2 L50 33", 1.8)
    shine = Stroke(curve("M26 22 Q36 24 43 29"), 2.2, (255, 255, 255), 0.5, soft=1)
    parts = [
        Part(heel, look.base if look.chance(0.75) else sole_colour, bevel=0.9),
        Part(lining, mix(look.base, _CREAM, 0.75), bevel=0.3),
        look.cloth(upper, turn=20, bevel=0.8, strokes=(shine,)),
        Part(sole, sole_colour, bevel=0.2),
    ]
    extra = look.pick("none", "strap", "bow", "strap")
    if extra == "strap":
        y = back - 24
        strap = curve(f"M-43 {back - 12} Q-38 {y - 10} -24 {y - 6} Q-16 {y} -17 {y + 9} Q-26 {y + 6} -42 {back - 10}")
        ring = ribbon(strap, 2.6)
        parts.insert(0, Part(ring, look.base, bevel=0.6))
        parts.append(Part(tube(f"M-43 {back - 11} Q-30 {y + 11} -17 {y + 5}", 2.8), look.base, bevel=0.6, casts=True))
        parts.append(Part(ellipse(-21, y + 6.6, 2), look.metal, holes=(ellipse(-21, y + 6.6, 1.1),)))
    elif extra == "bow":
        for side in (1, -1):
            bow = curve(f"M21 18 Q{21 + 8 * side} 11 {21 + 9 * side} 17 Q{21 + 8 * side} 24 21 18")
            parts.append(Part(bow, look.shade(0.12), casts=True))
        parts.append(Part(ellipse(21, 18, 1.7), look.shade(0.2)))
    return parts


# --- Bags -------------------------------------------------------------------------------------------------------------


def _stitched(outline: np.ndarray, look: Look, inset: float = 0.94) -> Stroke:
    middle = (outline.min(0) + outline.max(0)) / 2
    closed = np.concatenate([outline, outline[:1]])
    return look.stitch(middle + (closed - middle) * inset, 0.5, 0.75)


def _handbag(look: Look, style: str) -> list[Part]:
    leather = look.trim if look.chance(0.35) else look.shade(0.2)
    if style == "Tote":
        top, bottom, depth = look.vary(30, 34), look.vary(25, 31), look.vary(50, 58)
        body = half(
            f"M0 0 L{top} 0 Q{top - 1} {depth * 0.6} {bottom} {depth} Q{bottom * 0.5} {depth + 1.5} 0 {depth + 1.5}"
        )
        rise = look.vary(22, 32)
        handle = curve(f"M-13 8 C-13 {-rise} 13 {-rise} 13 8", steps=30)
        parts = [
            Part(ribbon(shifted(handle, 2.5, -2), 2.6), darker(leather, 0.25)),
            Part(curve(f"M{-top + 1} 0.5 Q0 -5 {top - 1} 0.5"), look.shade(0.5)),
            look.cloth(body, bevel=0.7, strokes=(_stitched(body, look, 0.95),)),
            Part(ribbon(handle, 3), leather, bevel=0.7, casts=True),
        ]
        parts += [
            Part(
                box(x - 3, 5, x + 3, 13, 1.5),
                leather,
                casts=True,
                strokes=(Stroke(curve(f"M{x - 2} 9 L{x + 2} 9"), 0.6, look.metal),),
            )
            for x in (-13, 13)
        ]
        return parts
    if style == "Crossbody":
        width, depth = look.vary(30, 34), look.vary(38, 44)
        body = half(
            f"M0 0 Q{width - 5} 0 {width} 4 Q{width + 1.5} {depth * 0.6} {width} {depth - 6} "
            f"Q{width - 2} {depth} {width - 9} {depth} L0 {depth + 1}"
        )
        flap = half(
            f"M0 -2 Q{width - 4} -2 {width + 0.6} 3 "
            f"Q{width + 2} {depth * 0.45} {width - 7} {depth * 0.58} "
            f"Q{width * 0.5} {depth * look.vary(0.62, 0.74)} 0 {depth * 0.66}"
        )
        strap = curve(f"M{-width + 1} 5 C{-width + 4} -52 {width - 4} -52 {width - 1} 5", steps=36)
        parts = [
            Part(ribbon(strap, 2), look.metal if look.chance(0.4) else leather, bevel=0.8),
            look.cloth(body, bevel=0.7),
            look.cloth(flap, bevel=0.8, casts=True, strokes=(_stitched(flap, look, 0.93),)),
            Part(box(-4, depth * 0.52, 4, depth * 0.74, 1.5), look.metal, bevel=0.9, casts=True),
            Part(ellipse(0, depth * 0.63, 1.4), darker(look.metal, 0.4)),
        ]
        parts += [
            Part(ellipse(x, 4, 2.4), look.metal, holes=(ellipse(x, 4, 1.3),), bevel=0.9)
            for x in (-width + 1, width - 1)
        ]
        return parts
    if style == "Bucket":
        depth = look.vary(50, 56)
        body = half(f"M0 2 L20 2 Q23 20 27 {depth - 4} Q25 {depth + 2} 0 {depth + 3}")
        strap = curve("M-19 6 C-16 -44 16 -44 19 6", steps=30)
        gathers = tuple(
            s for x in np.linspace(-16, 16, 7) for s in _fold(curve(f"M{x} 2 Q{x * 1.1} 14 {x * 1.25} 26"), 0.26, 1.4)
        )
        parts = [
            Part(ribbon(strap, 2.8), leather, bevel=0.7),
            Part(ellipse(0, 3, 20, 3.4), look.shade(0.55)),
            look.cloth(body, bevel=0.9, strokes=gathers),
            Part(half(f"M0 {depth - 8} L26.6 {depth - 10} L27 {depth - 3} Q25 {depth + 3} 0 {depth + 3.4}"), leather),
            Part(tube("M-21 13 Q0 17 21 13", 1.7), leather, casts=True),
        ]
        for x in (-2.5, 2.5):
            parts.append(Part(tube(f"M{x} 15 Q{x * 2} 22 {x * 1.6} 29", 1.6), leather, casts=True))
            parts.append(Part(ellipse(x * 1.6, 30, 1.7, 2.4), look.metal))
        return parts
    width, depth = look.vary(31, 36), look.vary(42, 48)
    body = half(
        f"M0 0 L{width * 0.72} 0 Q{width * 0.82} 0 {width * 0.85} 5 L{width} {depth - 4} "
        f"Q{width} {depth} {width - 5} {depth} L0 {depth}"
    )
    handle = curve("M-12 2 C-14 -24 14 -24 12 2", steps=30)
    belt = half(f"M0 11 L{width * 0.88} 11 L{width * 0.9} 16 L0 16")
    parts = [
        Part(ribbon(handle, 3.6), leather, bevel=0.9),
        look.cloth(body, bevel=0.8, strokes=(_stitched(body, look, 0.94),)),
        Part(belt, leather, bevel=0.5, casts=True),
        Part(box(-5, 8, 5, 20, 2), look.metal, bevel=0.9, casts=True, holes=(box(-2.6, 11, 2.6, 17, 1),)),
    ]
    parts += [Part(box(x - 2.4, -2, x + 2.4, 8, 2), leather, casts=True) for x in (-12, 12)]
    parts += [Part(box(x - 4, depth - 1, x + 4, depth + 1.6, 1), look.metal) for x in (-width + 9, width - 9)]
    return parts


def _backpack(look: Look, style: str) -> list[Part]:
    leather = look.trim if look.chance(0.45) else look.shade(0.25)
    width, height = look.vary(29, 33), look.vary(74, 82)
    body = half(
        f"M0 0 C{width * 0.7} 0 {width * 0.95} 8 {width} 26 "
        f"Q{width + 2} {height * 0.7} {width} {height - 7} "
        f"Q{width - 1} {height} {width - 9} {height} L0 {height + 1}"
    )
    loop = curve("M-7 3 C-7 -11 7 -11 7 3", steps=24)
    strap = curve(f"M{width * 0.8} 10 C{width + 10} 26 {width + 8} {height * 0.66} {width + 1} {height - 6}", steps=24)
    parts = [Part(ribbon(path, (7, 4.5)), darker(leather, 0.2)) for path in _both_sides(strap)]
    parts += [
        Part(ribbon(loop, 3), leather, bevel=0.7),
        look.cloth(
            body,
            bevel=0.8,
            strokes=(look.seam(curve(f"M{-width} 30 C{-width * 0.9} 6 0 5 {width * 0.9} 6 L{width} 30"), 0.9, 0.8),),
        ),
    ]
    pocket_y = height * look.vary(0.5, 0.56)
    pocket = half(
        f"M0 {pocket_y} Q{width * 0.7} {pocket_y} {width * 0.78} {pocket_y + 5} "
        f"L{width * 0.8} {height - 8} Q{width * 0.76} {height - 3} {width * 0.6} {height - 3} "
        f"L0 {height - 2}"
    )
    fabric = look.fabric if look.chance(0.6) else None
    parts.append(Part(pocket, look.base if fabric else look.shade(0.08), fabric, bevel=0.8, casts=True))
    if style == "Flap":
        flap = half(
            f"M0 -1 C{width * 0.72} -1 {width * 0.98} 9 {width} 22 L{width} {height * 0.4} "
            f"Q{width * 0.9} {height * 0.46} 0 {height * 0.47}"
        )
        parts.append(look.cloth(flap, bevel=0.8, casts=True, strokes=(_stitched(flap, look, 0.94),)))
        for x in (-width * 0.42, width * 0.42):
            parts.append(Part(box(x - 2.4, height * 0.3, x + 2.4, height * 0.64, 2), leather, casts=True))
            parts.append(
                Part(
                    box(x - 3.6, height * 0.52, x + 3.6, height * 0.59, 1),
                    look.metal,
                    holes=(box(x - 2, height * 0.535, x + 2, height * 0.575),),
                    bevel=0.8,
                )
            )
    else:
        zips = (
            curve(f"M{-width * 0.92} 34 Q{-width * 0.85} 10 0 9 Q{width * 0.85} 10 {width * 0.92} 34"),
            curve(f"M{-width * 0.66} {pocket_y + 5} Q0 {pocket_y + 3} {width * 0.66} {pocket_y + 5}"),
        )
        for path in zips:
            parts.append(Part(ribbon(path, 1.8), look.shade(0.45), bevel=0.3))
        parts += [
            Part(tube(f"M{x} {y} L{x + 0.6} {y + 7}", 1.6), look.metal, casts=True)
            for x, y in ((width * 0.9, 33), (-width * 0.5, pocket_y + 4))
        ]
        parts.append(
            Part(box(-6, 22, 6, 29, 1.5), leather, casts=True, strokes=(_stitched(box(-6, 22, 6, 29, 1.5), look, 0.8),))
        )
    return parts


# --- Accessories ------------------------------------------------------------------------------------------------------


def _watch(look: Look, style: str) -> list[Part]:
    radius, strap = look.vary(20, 24), look.vary(8.5, 11)
    dial = look.pick((248, 247, 242), (248, 247, 242), (30, 32, 38), mix(look.base, (250, 250, 250), 0.8))
    marks = (44, 44, 50) if luminance(dial) > 120 else (238, 238, 240)
    steel = look.chance(0.3) and look.fabric is None
    parts: list[Part] = []
    for side in (1, -1):
        flip = (1, side)
        band = half(f"M0 10 L{strap} 10 Q{strap * 0.94} 40 {strap * 0.82} 58 Q{strap * 0.7} 62 0 62.5") * flip
        strokes: tuple[Stroke, ...] = (_stitched(band, look, 0.9),)
        if steel:
            strokes = tuple(
                Stroke(np.asarray([(-12, y), (12, y)]) * flip, 0.7, look.shade(0.5), 0.9) for y in np.arange(18, 64, 5)
            )
            strokes += tuple(
                Stroke(np.asarray([(x, 10), (x * 0.85, 64)]) * flip, 0.7, look.shade(0.45), 0.8)
                for x in (-strap * 0.4, strap * 0.4)
            )
        elif side == 1:
            strokes += tuple(
                Stroke(np.asarray([(-0.3, y), (0.3, y + 0.3)]), 1.5, look.shade(0.6)) for y in (40, 45, 50, 55)
            )
        parts.append(look.cloth(band, bevel=0.9, roundness=0.5 if steel else 0.25, strokes=strokes))
    parts.append(
        Part(
            box(-strap - 1, -64, strap + 1, -58, 1.4),
            look.metal,
            holes=(box(-strap + 2, -62.4, strap - 2, -59.6),),
            bevel=0.9,
        )
    )
    if style == "Square":

        def frame(r: float) -> np.ndarray:
            return box(-r * 0.86, -r, r * 0.86, r, r * 0.28)
    else:

        def frame(r: float) -> np.ndarray:
            return ellipse(0, 0, r)

    parts.append(
        Part(box(radius * (0.84 if style == "Square" else 0.97), -2.4, radius + 3.6, 2.4, 0.8), look.metal, edge=0.5)
    )
    parts.append(Part(frame(radius), look.metal, bevel=1.0, edge=0.45, casts=True))
    ticks: tuple[Stroke, ...] = ()
    for hour in range(12):
        angle = hour * np.pi / 6
        direction = np.asarray((np.sin(angle), -np.cos(angle)))
        if style == "Square":
            direction = direction / max(abs(direction[0]) / 0.86, abs(direction[1]))
        reach = radius * (0.78 if hour % 3 else 0.8)
        ticks += (
            Stroke(
                np.stack([direction * reach, direction * radius * (0.68 if hour % 3 else 0.6)]),
                0.8 if hour % 3 else 1.5,
                marks,
            ),
        )
    hour, minute = look.vary(0, 12), look.vary(0, 60)
    for angle, length, thick in ((hour * np.pi / 6, 0.42, 1.7), (minute * np.pi / 30, 0.64, 1.2)):
        ticks += (
            Stroke(
                np.asarray([(0, 0), (np.sin(angle) * length * radius, -np.cos(angle) * length * radius)]), thick, marks
            ),
        )
    angle = look.vary(0, 2 * np.pi)
    ticks += (
        Stroke(
            np.asarray(
                [(-np.sin(angle) * 4, np.cos(angle) * 4), (np.sin(angle) * 0.7 * radius, -np.cos(angle) * 0.7 * radius)]
            ),
            0.5,
            (200, 40, 44),
        ),
    )
    if look.chance(0.35):
        ticks += (Stroke(ellipse(0, radius * 0.36, radius * 0.17), 0.5, marks, 0.8),)
    glare = Stroke(curve(f"M{-radius * 0.9} {radius * 0.1} L0 {-radius * 0.9}"), radius * 0.28, (255, 255, 255), 0.16)
    parts.append(Part(frame(radius * 0.85), dial, bevel=-0.3, edge=0.4, strokes=(*ticks, glare)))
    parts.append(Part(ellipse(0, 0, 1.5), look.metal))
    return parts


def _sunglasses(look: Look, style: str) -> list[Part]:
    lens_colour = look.pick((44, 44, 50), (72, 54, 44), (46, 60, 74), (58, 70, 58))
    gap = look.vary(5, 7)
    if style == "Round":
        lens = ellipse(gap + 17, 0, 16.5, 16.5)
    elif style == "Aviator":
        lens = smooth(
            [
                (gap + 1, -10),
                (gap + 18, -14),
                (gap + 35, -10),
                (gap + 36, 3),
                (gap + 26, 16),
                (gap + 14, 17),
                (gap + 4, 8),
            ]
        )
    elif style == "Cat-Eye":
        lens = smooth(
            [
                (gap + 1, -6),
                (gap + 18, -12),
                (gap + 38, -19),
                (gap + 37, -4),
                (gap + 30, 10),
                (gap + 15, 13),
                (gap + 4, 7),
            ]
        )
    else:
        lens = smooth(
            [
                (gap + 1, -10),
                (gap + 4, -13),
                (gap + 32, -13.5),
                (gap + 37, -11),
                (gap + 34, 9),
                (gap + 29, 14),
                (gap + 10, 14),
                (gap + 3, 9),
            ]
        )
    thin = style == "Aviator" or (style == "Round" and look.chance(0.35))
    centre = (lens.min(0) + lens.max(0)) / 2
    half = np.ptp(lens, axis=0) / 2
    rim = centre + (lens - centre) * (1 + (2.2 if thin else look.vary(4.0, 5.5)) / half)
    lens_middle_y = float(centre[1])
    edge = float(rim[:, 0].max())
    parts: list[Part] = []
    for side in (1, -1):  # the temples, folded behind
        arm = curve(
            f"M{edge * side - 3 * side} {-9 + lens_middle_y} "
            f"Q{edge * side} -26 {(edge - 18) * side} -25 L{(edge - 60) * side} {-20 - 2 * side}"
        )
        parts.append(Part(ribbon(arm, (3.6, 2.6)), look.shade(0.25), bevel=0.7))
    bridge_y = lens_middle_y - (5 if style != "Round" else 3)
    parts.append(
        Part(
            tube(f"M{-gap - 3} {bridge_y} Q0 {bridge_y - 6} {gap + 3} {bridge_y}", 2.2 if thin else 4.5),
            look.base,
            bevel=0.8,
        )
    )
    if thin:
        parts.append(
            Part(tube(f"M{-gap - 8} -11 Q0 -13 {gap + 8} -11", 1.9), look.base, bevel=0.8)
        ) if style == "Aviator" else None
    for side in (1, -1):
        flip = (side, 1)
        glow = Stroke(
            np.asarray([shifted(centre, -20, 14), shifted(centre, 20, 14)]) * flip,
            16,
            lighter(lens_colour, 0.6),
            0.55,
            soft=5,
        )
        glare = tuple(
            Stroke(np.asarray([centre * flip + (-16 + x, 12), centre * flip + (0 + x, -18)]), w, (255, 255, 255), 0.26)
            for x, w in ((0, 4), (7, 1.6))
        )
        parts.append(Part(lens * flip, lens_colour, bevel=-0.4, edge=0.2, opacity=0.96, strokes=(glow, *glare)))
        parts.append(look.cloth(rim * flip, holes=(lens * flip,), bevel=1.0, edge=0.35))
        if not thin:
            parts.append(Part(ellipse((edge - 3) * side, lens_middle_y - half[1] * 0.75, 1.1, 0.9), look.metal))
    return parts


def _cap(look: Look, style: str) -> list[Part]:
    if style == "Beanie":
        crown = half("M0 -34 C24 -34 33 -14 33 14 L0 20")
        knit = tuple(
            look.seam(curve(f"M{x * 0.35} -34 Q{x * 1.1} -20 {x} 20"), 0.7, 0.4) for x in np.linspace(-31, 31, 17)
        )
        fold = half("M0 8 Q20 8 34.5 4 Q36 14 34 24 Q20 28 0 28")
        brim = look.trim if look.chance(0.35) else look.shade(0.08)
        parts = [
            look.cloth(crown, bevel=0.9, strokes=knit),
            Part(fold, brim, bevel=0.8, casts=True, strokes=_ribs(-34, 34, 0, 30, darker(brim, 0.35), 24)),
        ]
        if look.chance(0.55):
            angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
            r = 9.5 + 0.9 * np.sin(angles * 13)
            pompom = np.stack([r * np.cos(angles), -39 + r * np.sin(angles)], axis=1)
            parts.insert(0, Part(pompom, look.pick(brim, _CREAM, lighter(look.base, 0.35)), bevel=1.0))
        return parts
    if style == "Bucket Hat":
        crown = half("M0 -27 Q22 -28 25 -22 L29 4 L0 10")
        brim = half("M0 6 Q20 6 28 0 Q38 8 45 18 Q26 29 0 29")
        rows = tuple(
            look.stitch(curve(f"M-46 {y} Q-20 {y + 8} 0 {y + 8} Q20 {y + 8} 46 {y}"), 0.45, 0.6)
            for y in (6, 10, 14, 18)
        )
        seam = (look.seam(curve("M-26 -20 Q0 -15 26 -20"), 0.6),)
        return [
            look.cloth(crown, bevel=0.8, strokes=seam),
            Part(tube("M-29 1 Q0 9 29 1", 3.4), look.trim if look.chance(0.4) else look.shade(0.15)),
            look.cloth(brim, bevel=0.8, strokes=rows, casts=True),
        ]
    crown = curve("M-36 16 C-38 -22 -12 -31 0 -30 C22 -30 30 -8 30 12 Q0 22 -36 16")
    panels = tuple(
        look.seam(path, 0.7, 0.75) for path in (curve("M-2 -30 Q14 -18 12 18"), curve("M-2 -30 Q-22 -20 -20 18"))
    )
    visor = curve("M-2 15 Q14 11 30 10 Q54 13 60 23 Q56 28 48 26 Q24 19 -2 19")
    brim = look.trim if look.chance(0.35) else look.shade(0.1)
    stitches = tuple(
        Stroke(curve(f"M0 {15 + d} Q32 {10 + d} 60 {24 + d}"), 0.4, darker(brim, 0.4), 0.6, dashed=True)
        for d in (3, 5.5)
    )
    parts = [
        look.cloth(crown, bevel=0.9, strokes=panels),
        Part(visor, brim, bevel=0.8, strokes=stitches, casts=True),
        Part(ellipse(-2, -30.5, 2.6, 1.6), brim),
    ]
    parts += [Part(ellipse(x, y, 0.9), look.shade(0.5)) for x, y in ((4, -18), (-13, -18))]
    if look.chance(0.5):
        badge = look.pick(ellipse(20, -4, 5.5, 6.5), box(14, -9, 26, 1, 2), curve("M20 -11 L27 2 L13 2"))
        parts.append(Part(badge, look.trim if brim != look.trim else _CREAM, casts=True))
    return parts


def _socks(look: Look, style: str) -> list[Part]:
    leg = {"Ankle": look.vary(10, 16), "Crew": look.vary(38, 46), "Knee-High": look.vary(70, 80)}[style]
    accent = look.trim if look.chance(0.65) else look.shade(0.16)
    outline = curve(
        f"M-10 {-leg} L10 {-leg} Q10 -6 13 8 Q20 16 33 22 Q43 28 36 38 Q30 42 20 39 Q6 34 -4 30 "
        f"Q-15 25 -12 8 Q-9 -10 -10 {-leg}"
    )
    heel = curve("M-16 4 Q4 14 0 34 L-20 34")
    toe = curve("M26 16 Q22 30 28 44 L48 44 L48 16")
    cuff = curve(f"M-10.4 {-leg - 1} L10.4 {-leg - 1} L10.6 {-leg + 7} L-10.6 {-leg + 7}")
    parts = []
    for dx, dy, shade in ((-17, -5, 0.1), (6, 3, 0.0)):
        shift = np.asarray((dx, dy))
        folds = (*_fold(curve("M12 6 Q4 12 -2 12") + shift, 0.25), *_fold(curve("M13 12 Q6 17 0 19") + shift, 0.18))
        parts.append(Part(outline + shift, look.shade(shade), look.fabric, strokes=folds, casts=True))
        parts += [Part(_inside(outline, patch) + shift, darker(accent, shade), bevel=0.3) for patch in (heel, toe)]
        parts.append(
            Part(
                cuff + shift,
                darker(accent, shade),
                strokes=_ribs(-10 + dx, 10 + dx, -leg - 2 + dy, -leg + 8 + dy, darker(accent, 0.35), 10),
            )
        )
    return parts


def _inside(outline: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """`patch` (convex) clipped to `outline`, by Sutherland and Hodgman's algorithm."""
    area = np.sum(patch[:, 0] * np.roll(patch[:, 1], -1) - np.roll(patch[:, 0], -1) * patch[:, 1])
    edges = patch if area > 0 else patch[::-1]
    result = list(outline)
    for a, b in zip(edges, np.roll(edges, -1, axis=0), strict=True):
        normal = np.asarray((-(b - a)[1], (b - a)[0]))
        clipped: list[np.ndarray] = []
        for p, q in zip(result, result[1:] + result[:1], strict=True):
            side_p, side_q = float(normal @ (p - a)), float(normal @ (q - a))
            if side_p >= 0:
                clipped.append(p)
            if side_p * side_q < 0:
                clipped.append(p + (q - p) * side_p / (side_p - side_q))
        result = clipped
    return np.asarray(result)


def _scarf(look: Look, style: str) -> list[Part]:
    left, right = look.vary(62, 72), look.vary(74, 86)

    def tail(x: float, lean: float, length: float) -> np.ndarray:
        return curve(
            f"M{x - 7} 8 Q{x - 10 + lean} {length * 0.5} {x - 11 + lean} {length} "
            f"L{x + 9 + lean} {length} Q{x + 9 + lean} {length * 0.5} {x + 7} 8"
        )

    loop = curve("M-25 8 Q-27 -14 0 -19 Q27 -14 25 8 Q18 24 0 25 Q-18 24 -25 8")
    hole = curve("M-14 0 Q-12 -8 0 -10 Q12 -8 14 0 Q8 7 0 7 Q-8 7 -14 0")
    wraps: tuple[Stroke, ...] = ()
    for offset in (0, 4.5, 9):
        wraps += _fold(curve(f"M-24 {3 + offset} Q0 {12 + offset * 1.4} 24 {3 + offset}"), 0.3, 1.6)
    parts: list[Part] = []
    if style == "Snood":
        outer = curve("M-30 12 Q-32 -16 0 -20 Q32 -16 30 12 Q28 44 0 46 Q-28 44 -30 12")
        hole = curve("M-17 0 Q-14 -10 0 -11 Q14 -10 17 0 Q10 10 0 10 Q-10 10 -17 0")
        for offset in (0, 8, 16, 24):
            wraps += _fold(curve(f"M-29 {6 + offset * 0.7} Q0 {20 + offset} 29 {8 + offset * 0.5}"), 0.3, 2)
        return [Part(hole, look.shade(0.55)), look.cloth(outer, 8, bevel=0.9, holes=(hole,), strokes=wraps)]
    for x, lean, length in ((-7, -6, left), (8, 5, right)):
        strokes = tuple(
            s
            for t in (-3, 3)
            for s in _fold(
                curve(f"M{x + t} 14 Q{x + t * 1.4 + lean} {length * 0.5} {x + t * 1.6 + lean} {length}"), 0.2, 1.6
            )
        )
        if style == "Fringed":
            for fx in np.linspace(x - 10 + lean, x + 8 + lean, 10):
                parts.append(
                    Part(tube(f"M{fx} {length - 1} L{fx + look.vary(-1, 1)} {length + 9}", (1.5, 0.9)), look.shade(0.1))
                )
        parts.append(look.cloth(tail(x, lean, length), -lean * 0.8, strokes=strokes, casts=True))
        if style != "Fringed":
            parts.append(
                Part(_inside(tail(x, lean, length), box(-60, length - 8, 60, length - 4)), look.trim, bevel=0.1, edge=0)
            )
    parts.insert(0, Part(hole, look.shade(0.55), bevel=0.1))
    parts.append(look.cloth(loop, 70, holes=(hole,), strokes=wraps, bevel=0.8, casts=True))
    return parts


def _umbrella(look: Look, style: str) -> list[Part]:
    handle = look.pick(_WOOD, _DARK_WOOD, _RUBBER)
    if style == "Folded":
        body = half("M0 -46 Q3 -44 4 -30 Q8.5 10 7.5 26 Q4 30 0 30")
        pleats = tuple(s for x in (-3, 1, 4.5) for s in _fold(curve(f"M{x * 0.2} -44 Q{x} -10 {x * 1.1} 28"), 0.4, 1.3))
        hook = curve("M0 28 L0 52 Q0 62 7 62 Q13 62 13 54")
        return [
            Part(ribbon(hook, 3.2), handle, bevel=0.9),
            Part(box(-1, -54, 1, -44, 1), look.metal),
            look.cloth(body, 14, bevel=1.0, strokes=pleats),
            Part(tube("M-8 12 Q0 15 8.4 11", 3.4), look.trim, casts=True),
            Part(ellipse(2, 13.2, 1.3), look.metal),
        ]
    count, width, rise = int(look.rng.integers(5, 8)), 50.0, look.vary(30, 40)
    xs = np.linspace(-width, width, count + 1)
    scallops = np.concatenate([curve(f"M{a} 0 Q{(a + b) / 2} -7 {b} 0") for a, b in pairwise(xs)])
    canopy = np.concatenate(
        [
            curve(f"M{width} 0 Q{width * 0.92} {-rise * 0.9} 0 {-rise} Q{-width * 0.92} {-rise * 0.9} {-width} 0"),
            scallops,
        ]
    )
    ribs: tuple[Stroke, ...] = ()
    for x in xs[1:-1]:
        path = curve(f"M0 {-rise} Q{x * 0.95} {-rise * 0.95} {x} 1")
        ribs += (Stroke(shifted(path, 1.4, 0), 3, (0, 0, 0), 0.25, soft=1.6), look.seam(path, 0.55, 0.9))
    return [
        Part(ellipse(0, -1.5, width * 0.97, 5), look.shade(0.5), bevel=0.1),
        Part(tube(f"M0 {-rise} L0 38", 1.7), _SILVER, bevel=0.9),
        Part(tube("M0 30 L0 46 Q0 57 7.5 57 Q14 57 14 48", 3.4), handle, bevel=1.0),
        Part(box(-1, -rise - 7, 1, -rise + 2, 1), look.metal),
        look.cloth(canopy, bevel=1.0, strokes=ribs),
    ]


# --- Home -------------------------------------------------------------------------------------------------------------


def _mug(look: Look, style: str) -> list[Part]:
    radius, height = {"Classic": (25, 56), "Tall": (20, 66), "Espresso": (23, 40)}[style]
    radius, height = radius * look.vary(0.95, 1.06), height * look.vary(0.95, 1.06)
    taper = (
        look.vary(0.72, 0.86)
        if style == "Tall"
        else look.vary(0.55, 0.7)
        if style == "Espresso"
        else look.vary(0.92, 1.0)
    )
    lip = radius * 0.17
    x = radius * (0.98 if taper > 0.8 else 0.9)
    handle = curve(
        f"M{x - 3} {height * 0.2} C{x + 21} {height * 0.1} {x + 21} {height * 0.72} {x - 5} {height * 0.72}", steps=28
    )
    if look.chance(0.3):
        handle = curve(
            f"M{x - 3} {height * 0.2} L{x + 14} {height * 0.18} "
            f"Q{x + 18} {height * 0.2} {x + 16} {height * 0.36} "
            f"Q{x + 11} {height * 0.68} {x - 6} {height * 0.74}"
        )
    foot = radius * taper
    side = curve(
        f"M{radius} 0 Q{radius} {height * 0.6} {foot + 1} {height * 0.9} "
        f"Q{foot} {height + lip * 0.4} {foot * 0.5} {height + lip * 0.75} L0 {height + lip * 0.85}"
    )
    body = mirrored(np.concatenate([[(0, 0)], side]))
    inner = lighter(look.base, 0.75) if look.chance(0.5) else mix(look.base, (255, 255, 255), 0.12)
    drink = look.pick(None, None, (92, 56, 34), (150, 90, 40))
    shine = Stroke(
        curve(f"M{-radius * 0.62} {height * 0.15} Q{-radius * 0.66} {height * 0.5} {-foot * 0.6} {height * 0.82}"),
        3.2,
        (255, 255, 255),
        0.5,
        soft=1.4,
    )
    parts = [
        Part(ribbon(handle, 5.2 if style != "Espresso" else 4.2), look.base, bevel=1.0),
        look.cloth(body, roundness=1.0, wrap=True, bevel=0.3, strokes=(shine,)),
        Part(ellipse(0, 0, radius, lip), lighter(look.base, 0.3), edge=0.4, bevel=0.3),
        Part(ellipse(0, 0.4, radius * 0.93, lip * 0.8), darker(inner, 0.12), bevel=-0.8, edge=0.3),
    ]
    if drink:
        parts.append(Part(ellipse(0, lip * 0.42, radius * 0.84, lip * 0.5), drink, bevel=0.2))
    if look.fabric is None and look.chance(0.3):
        glyph = look.pick(
            curve(
                f"M0 {height * 0.62} C-18 {height * 0.42} -7 {height * 0.3} 0 {height * 0.42} "
                f"C7 {height * 0.3} 18 {height * 0.42} 0 {height * 0.62}"
            ),
            ellipse(0, height * 0.46, 8),
            curve(f"M0 {height * 0.3} L10 {height * 0.58} L-10 {height * 0.58}"),
        )
        parts.append(Part(glyph, look.trim, bevel=0.1, edge=0.1))
    if style == "Espresso" and look.chance(0.7):
        saucer = Part(ellipse(0, height + lip * 0.4, radius * 1.75, radius * 0.34), look.base, bevel=0.6)
        parts = [
            saucer,
            Part(ellipse(0, height + lip * 0.1, radius * 1.3, radius * 0.22), look.shade(0.1), bevel=-0.5),
            *parts,
        ]
    return parts


def _bottle(look: Look, style: str) -> list[Part]:
    radius, height = look.vary(14, 17), look.vary(76, 88)
    cap = look.pick(_RUBBER, _SILVER, _WOOD, (244, 243, 238))
    shoulder = look.vary(10, 18)
    neck = radius * look.vary(0.55, 0.7)
    body = half(
        f"M0 0 L{neck} 0 C{neck} {shoulder * 0.5} {radius} {shoulder * 0.6} {radius} {shoulder} "
        f"L{radius} {height - 4} Q{radius} {height + 1} {radius - 5} {height + 1.6} L0 {height + 2}"
    )
    shine = Stroke(
        curve(f"M{-radius * 0.5} {shoulder + 2} L{-radius * 0.5} {height - 5}"), 3, (255, 255, 255), 0.45, soft=1.2
    )
    parts = []
    if style == "Flask":
        loop = curve("M-6 -12 C-7 -26 7 -26 6 -12", steps=24)
        parts.append(Part(ribbon(loop, 2.6), cap, bevel=0.8))
    else:
        parts.append(Part(box(-3, -20, 3, -9, 1.6), mix(look.base, (255, 255, 255), 0.3), bevel=0.9))
    parts += [
        look.cloth(body, roundness=1.0, wrap=True, bevel=0.3, strokes=(shine,)),
        Part(
            box(-neck - 1.6, -12, neck + 1.6, 1, 2),
            cap,
            roundness=0.8,
            strokes=_ribs(-neck, neck, -12, 2, darker(cap, 0.4), 9),
        ),
        Part(
            half(
                f"M0 {height - 7} L{radius} {height - 7.5} "
                f"Q{radius} {height + 1} {radius - 5} {height + 1.6} L0 {height + 2}"
            ),
            cap,
            roundness=0.8,
        ),
    ]
    return parts


def _lamp(look: Look, style: str) -> list[Part]:
    floor = style == "Floor"
    shade_form = "Cone" if floor else style
    width, height = look.vary(26, 32), look.vary(30, 38)
    stem_end = look.vary(118, 130) if floor else look.vary(76, 86)
    glow = (255, 246, 214)
    stem = look.pick(_GOLD, _SILVER, _WOOD, _DARK_WOOD, _RUBBER)
    light = Stroke(np.asarray([(0, height * 0.95), (0, height * 0.75)]), width * 0.9, glow, 0.5, soft=9)
    if shade_form == "Dome":
        outline = half(f"M0 2 Q{width * 0.95} 2 {width} {height * 0.85} Q{width * 0.5} {height * 0.98} 0 {height}")
        rim_top = None
    else:
        top = width * (0.86 if shade_form == "Drum" else look.vary(0.42, 0.55))
        outline = half(
            f"M0 2 Q{top * 0.7} 1.6 {top} 0 L{width} {height} Q{width * 0.6} {height + 3.4} 0 {height + 3.6}"
        )
        rim_top = ellipse(0, 0.3, top, 2)
    shade = look.cloth(outline, roundness=0.7, bevel=0.2, wrap=True, strokes=(light,))
    parts: list[Part] = []
    base_form = "stand" if floor else look.pick("ball", "vase", "stand", "tripod")
    if base_form == "tripod":
        for x in (-17, 17, 2):
            parts.append(Part(tube(f"M{x * 0.12} {height - 2} L{x} {stem_end}", (2.6, 3.2)), stem, bevel=1.0))
    else:
        parts.append(Part(box(-1.4, height - 4, 1.4, stem_end, 1), stem, roundness=0.6, bevel=0.8))
    pottery = (
        look.base if look.chance(0.4) else look.pick(_CREAM, (214, 206, 196), look.shade(0.35), lighter(look.base, 0.4))
    )
    shine = (
        Stroke(
            curve(f"M-6 {height + 16} Q-9 {(height + stem_end) / 2} -6 {stem_end - 10}"),
            2.6,
            (255, 255, 255),
            0.5,
            soft=1.4,
        ),
    )
    if base_form == "ball":
        ry = (stem_end - height) / 2 - 3
        parts.append(
            Part(ellipse(0, stem_end - ry - 2, min(ry, 17), ry), pottery, bevel=1.0, roundness=0.4, strokes=shine)
        )
    elif base_form == "vase":
        top_y = height + 8
        parts.append(
            Part(
                half(
                    f"M0 {top_y} L4 {top_y} C5 {top_y + 8} 13 {top_y + 12} 13 {stem_end - 18} "
                    f"Q12 {stem_end - 6} 7 {stem_end - 2} L0 {stem_end - 2}"
                ),
                pottery,
                bevel=1.0,
                roundness=0.5,
                strokes=shine,
            )
        )
    if base_form != "tripod":
        parts.append(
            Part(
                half(f"M0 {stem_end - 4} Q8 {stem_end - 4} 14 {stem_end} Q14 {stem_end + 3} 0 {stem_end + 4}"),
                stem,
                bevel=0.9,
                roundness=0.5,
            )
        )
    parts.append(shade)
    if rim_top is not None:
        parts.append(Part(rim_top, lighter(look.base, 0.45), bevel=0.1, edge=0.4))
    if shade_form != "Dome":
        trim = look.trim if look.chance(0.4) else look.shade(0.15)
        parts.append(
            Part(
                ribbon(curve(f"M{-width} {height - 0.6} Q0 {height + 6.4} {width} {height - 0.6}")[1:-1], 1.8),
                trim,
                bevel=0.2,
            )
        )
    else:
        parts.append(Part(box(-2, -2, 2, 3, 1.5), stem))
    return parts


def _chair(look: Look, style: str) -> list[Part]:
    wood = look.pick(_WOOD, _DARK_WOOD, (214, 176, 128), _RUBBER)

    def leg(x0: float, y0: float, x1: float, y1: float, thick: float = 3.4) -> Part:
        return Part(tube(f"M{x0} {y0} L{x1} {y1}", (thick * 1.25, thick * 0.8)), wood, bevel=1.0)

    if style == "Bar Stool":
        seat_w, y = look.vary(20, 24), look.vary(72, 80)
        parts = [leg(x * 0.55, 6, x * 0.8, y - 5, 2.6) for x in (-seat_w, seat_w)]
        parts += [
            Part(tube(f"M{-seat_w * 0.8} {y * 0.6} L{seat_w * 0.8} {y * 0.6}", 2.4), darker(wood, 0.15), bevel=0.8)
        ]
        parts += [leg(x * 0.75, 6, x * 1.05, y, 3) for x in (-seat_w, seat_w)]
        parts.append(Part(tube(f"M{-seat_w * 0.98} {y * 0.72} L{seat_w * 0.98} {y * 0.72}", 2.6), wood, bevel=0.8))
        seat = half(f"M0 -3 Q{seat_w} -3 {seat_w + 1} 3 Q{seat_w + 1} 10 {seat_w - 3} 10 L0 11.5")
        parts.append(look.cloth(seat, bevel=0.9, strokes=(look.seam(curve("M-30 4 Q0 6 30 4"), 0.6),), casts=True))
        if look.chance(0.5):
            back = half(f"M0 -34 Q{seat_w * 0.9} -34 {seat_w * 0.95} -26 L{seat_w * 0.95} -16 L0 -14")
            parts = (
                [leg(x * 0.8, -2, x * 0.8, -28, 2.4) for x in (-seat_w, seat_w)] + parts + [look.cloth(back, bevel=0.9)]
            )
        return parts
    if style == "Dining":
        w = look.vary(20, 23)
        back = half(f"M0 -44 Q{w * 0.9} -44 {w * 0.96} -36 L{w * look.vary(0.82, 1.0)} -8 L0 -5")
        seat = half(f"M0 8 L{w} 8 Q{w + 4} 20 {w + 4} 22 Q{w + 3} 27 {w - 2} 27 L0 28.5")
        tufts = (
            tuple(look.seam(ellipse(x, y, 0.7), 0.9, 0.9) for x in (-9, 0, 9) for y in (-34, -24, -14))
            if look.chance(0.4)
            else ()
        )
        parts = [leg(x * 0.86, 12, x * 0.82, 62, 2.6) for x in (-w, w)]
        parts += [leg(x * 0.8, -10, x * 0.84, 14, 3) for x in (-w, w)]
        parts += [look.cloth(back, bevel=0.9, strokes=tufts)]
        parts += [leg(x, 22, x * 1.06, 70, 3.4) for x in (-w, w)]
        parts.append(look.cloth(seat, bevel=0.9, casts=True, strokes=_fold(curve(f"M{-w} 14 Q0 17 {w} 14"), 0.16)))
        return parts
    w, lift = look.vary(27, 31), look.vary(40, 48)
    back = half(f"M0 {-lift} C{w * 0.8} {-lift} {w} {-lift + 5} {w} {-lift + 20} L{w * 1.02} 24 L0 26")
    tufts = ()
    if look.fabric is None and look.chance(0.5):
        tufts = tuple(
            s
            for x in (-14, 0, 14)
            for y in (-26, -12, 2)
            for s in (
                look.seam(ellipse(x, y, 0.8), 1.1, 0.9),
                Stroke(ellipse(x, y, 2.6), 1.4, (0, 0, 0), 0.2, soft=1.2),
            )
        )
    elif look.chance(0.5):
        tufts = tuple(s for x in (-10, 10) for s in _fold(curve(f"M{x} {-lift} L{x * 1.05} 20"), 0.3, 1.2))
    cushion = half(f"M0 10 Q{w * 0.86} 10 {w * 0.88} 15 Q{w * 0.9} 24 {w * 0.84} 25 L0 26.5")
    front = half(f"M0 22 L{w * 0.95} 22 L{w * 0.95} 42 L0 43")
    arm = curve(
        f"M{w * 0.78} -2 Q{w * 0.8} -9 {w * 1.06} -9 Q{w * 1.36} -9 {w * 1.34} 2 L{w * 1.22} 42 L{w * 0.84} 42.5"
    )
    parts = [leg(x, 38, x * 1.14, 58) for x in (-w, w)]
    parts += [look.cloth(back, bevel=1.0, strokes=tufts), look.cloth(front, bevel=0.5)]
    parts.append(look.cloth(cushion, bevel=1.0, casts=True))
    parts += [
        look.cloth(path, bevel=1.0, casts=True, strokes=(look.seam(path * (0.97, 0.97), 0.5, 0.5),))
        for path in _both_sides(arm)
    ]
    if look.chance(0.3):
        pillow = smooth([(-13, -12), (0, -10.5), (13, -13), (12, 0), (14, 13), (0, 11.5), (-13, 13), (-12, 0)])
        parts.insert(-2, Part(pillow, look.trim, bevel=1.0, casts=True))
    return parts


def _cushion(look: Look, style: str) -> list[Part]:
    piping = look.trim if look.chance(0.45) else look.shade(0.2)
    if style == "Round":
        outline = ellipse(0, 0, 42)
        pleats = tuple(
            s
            for a in np.linspace(0, 2 * np.pi, 13)[:-1]
            for s in _fold(np.asarray([(7 * np.cos(a), 7 * np.sin(a)), (34 * np.cos(a), 34 * np.sin(a))]), 0.2, 1.2)
        )
        button = Part(ellipse(0, 0, 4), piping, bevel=1.0, casts=True)
        return [Part(ellipse(0, 0, 43.6), piping, bevel=0.8), look.cloth(outline, bevel=1.3, strokes=pleats), button]
    b = look.vary(4, 7)
    corners = curve(f"M-42 -42 Q0 {-42 + b} 42 -42 Q{42 - b} 0 42 42 Q0 {42 - b} -42 42 Q{-42 + b} 0 -42 -42")
    folds: tuple[Stroke, ...] = ()
    for sx in (1, -1):
        for sy in (1, -1):
            folds += _fold(
                np.asarray([(40 * sx, 40 * sy), (look.vary(22, 28) * sx, look.vary(24, 30) * sy)]), 0.28, 1.6
            )
    parts = [Part(corners * 1.035, piping, bevel=0.8), look.cloth(corners, bevel=1.4, strokes=folds)]
    if look.chance(0.35):
        for sx in (1, -1):
            for sy in (1, -1):
                x, y = 43 * sx, 43 * sy
                tassel = tube(f"M{x} {y} Q{x + 3 * sx} {y + 5} {x + 3 * sx} {y + 10}", (2.2, 4.6))
                parts.insert(0, Part(tassel, piping, strokes=_ribs(x - 2, x + 8, y, y + 12, darker(piping, 0.35), 6)))
    return parts


_PORTRAIT, _SQUARE, _LANDSCAPE = (3 / 4, 4 / 5, 1.0), (1.0, 1.0, 4 / 5, 5 / 4), (4 / 3, 4 / 3, 1.0, 3 / 2)
KINDS: dict[str, Kind] = {
    "Tshirts": Kind(_tshirt, _PORTRAIT),
    "Shirts": Kind(_shirt, _PORTRAIT),
    "Sweatshirts": Kind(_sweatshirt, _PORTRAIT),
    "Sweaters": Kind(_sweater, _PORTRAIT),
    "Jackets": Kind(_jacket, _PORTRAIT),
    "Dresses": Kind(_dress, (3 / 4, 2 / 3, 3 / 4)),
    "Skirts": Kind(_skirt, _PORTRAIT),
    "Trousers": Kind(_trousers, (3 / 4, 2 / 3, 3 / 4)),
    "Shorts": Kind(_shorts, _SQUARE),
    "Casual Shoes": Kind(_sneaker, _LANDSCAPE, stands=True, tilt=1.5, flips=True),
    "Boots": Kind(_boot, _SQUARE, stands=True, tilt=1.0, flips=True),
    "Heels": Kind(_heel, _LANDSCAPE, stands=True, tilt=1.0, flips=True),
    "Handbags": Kind(_handbag, _SQUARE, stands=True, tilt=1.5),
    "Backpacks": Kind(_backpack, _PORTRAIT, stands=True, tilt=2.0),
    "Watches": Kind(_watch, _PORTRAIT, tilt=14.0),
    "Sunglasses": Kind(_sunglasses, (4 / 3, 3 / 2, 1.0), tilt=4.0),
    "Caps": Kind(_cap, (4 / 3, 1.0, 5 / 4), tilt=5.0, flips=True),
    "Hat": Kind(_cap, (4 / 3, 1.0, 5 / 4), tilt=5.0, flips=True),
    "Socks": Kind(_socks, _PORTRAIT, tilt=6.0, flips=True),
    "Scarves": Kind(_scarf, _PORTRAIT, flips=True),
    "Umbrellas": Kind(_umbrella, (1.0, 4 / 5, 1.0), tilt=14.0, flips=True),
    "Mugs": Kind(_mug, _SQUARE, stands=True, tilt=0.5, flips=True),
    "Water Bottle": Kind(_bottle, _PORTRAIT, stands=True, tilt=0.5),
    "Lamps": Kind(_lamp, _PORTRAIT, stands=True, tilt=0.3),
    "Chairs": Kind(_chair, (1.0, 4 / 5, 3 / 4), stands=True, tilt=0.5),
    "Stools": Kind(_chair, (1.0, 4 / 5, 3 / 4), stands=True, tilt=0.5),
    "Cushion Covers": Kind(_cushion, _SQUARE, tilt=8.0),
}


# --- The picture ------------------------------------------------------------------------------------------------------


def _print_for(pattern: str, base: Colour, kind: str, rng: np.random.Generator) -> Print | None:
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
    trims = [_CREAM, _RUBBER, darker(base, 0.4), lighter(base, 0.45), (176, 122, 76)]
    trim = trims[int(rng.integers(len(trims)))]
    metal = (_GOLD, _SILVER)[int(rng.integers(2))]
    parts = spec.parts(Look(base, _print_for(pattern, base, kind, rng), trim, metal, rng), style)

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
    canvas = _Canvas(size, matrix, centre - np.linalg.norm(matrix[:, 0]) * (low + high) / 2)
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
