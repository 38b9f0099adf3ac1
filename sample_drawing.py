"""Draws the pictures of the sample catalogue: illustrated products, by Pillow and NumPy, with no photo anywhere.

A kind of product is a function that returns `Part`s: closed outlines in object units (about 100 units tall or wide, x to the
right, y down), back to front. `draw` fits them into the canvas and paints them. A part's edge is antialiased by drawing its mask
four times too large; prints are functions of the object's own coordinates, so they follow its pose; light is computed from
the blurred mask, which makes every part look slightly round.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[float, float, float]
Point = tuple[float, float]

COLOURS: dict[str, Colour] = {
    "Black": (36, 36, 40),
    "White": (245, 245, 243),
    "Grey": (142, 146, 152),
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


def trace(start: Point, *segments: Sequence[Point], steps: int = 12) -> np.ndarray:
    """A path of Bézier segments: each lists its control points and its end (1 point: a line, 2: quadratic, 3: cubic).

    Returns:
        Points on the path, (points, 2).
    """
    points, last = [np.asarray([start], float)], start
    for segment in segments:
        if len(segment) == 1:
            points.append(np.asarray(segment, float))
        else:
            t = np.linspace(0, 1, steps + 1)[1:, None]
            curve = [np.asarray(point, float) for point in (last, *segment)]
            while len(curve) > 1:  # de Casteljau's algorithm
                curve = [(1 - t) * a + t * b for a, b in zip(curve[:-1], curve[1:], strict=True)]
            points.append(curve[0])
        last = segment[-1]
    return np.concatenate(points)


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


def mirrored(right_half: np.ndarray) -> np.ndarray:
    """The closed outline that is symmetric about x = 0, from its right half, top to bottom."""
    return np.concatenate([right_half, right_half[::-1] * (-1, 1)])


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
    return tuple(a + (b - a) * share for a, b in zip(first, second, strict=True))


def darker(colour: Colour, share: float = 0.25) -> Colour:
    return mix(colour, (0, 0, 0), share)


def lighter(colour: Colour, share: float = 0.25) -> Colour:
    return mix(colour, (255, 255, 255), share)


def luminance(colour: Colour) -> float:
    """Rec. 601 luma, 0 to 255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


@dataclass(frozen=True)
class Print:
    """What is printed on the fabric: one of `PATTERNS`, its repeat in object units, its angle in radians and its inks."""

    pattern: str
    period: float
    angle: float
    inks: tuple[Colour, Colour, Colour]
    seed: int


def _cells(u: np.ndarray, v: np.ndarray, period: float, seed: int) -> tuple[np.ndarray, ...]:
    """Offsets (in units) from the nearest point of a staggered lattice, and two random numbers in [0, 1) for that point."""
    row = np.round(v / period)
    shift = (row % 2) / 2
    column = np.round(u / period - shift)
    noise = np.sin(row * 127.1 + column * 311.7 + seed % 1009) * 43758.5453
    return u - (column + shift) * period, v - row * period, noise % 1, (noise * 7.13) % 1


def _paint(base: Colour, ink: Print, u: np.ndarray, v: np.ndarray, pixel: float) -> np.ndarray:
    """The printed fabric's colour, (height, width, 3), at object coordinates u, v; `pixel` is a pixel's size in units."""
    cosine, sine, p = np.cos(ink.angle), np.sin(ink.angle), ink.period
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

    @property
    def seam(self) -> Colour:
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
    """How a kind is drawn and shown: its parts, its usual frames (width / height) and whether it stands on the ground."""

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
        return large.resize((x1 - x0, y1 - y0), Image.Resampling.LANCZOS) if zoom > 1 else large

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
            drop = min(int(round(soft)), shadow.shape[0] - 1)
            shadow = np.concatenate([np.zeros_like(shadow[:drop]), shadow[: len(shadow) - drop]])
            region *= 1 - 0.3 * shadow[..., None]

        y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        inverse = np.linalg.inv(self.matrix)
        u = inverse[0, 0] * (x + 0.5 - self.offset[0]) + inverse[0, 1] * (y + 0.5 - self.offset[1])
        v = inverse[1, 0] * (x + 0.5 - self.offset[0]) + inverse[1, 1] * (y + 0.5 - self.offset[1])
        middle = (part.outline[:, 0].min() + part.outline[:, 0].max()) / 2
        half = max(float(np.ptp(part.outline[:, 0])) / 2, 1e-6)
        across = np.clip((u - middle) / half, -1, 1)
        if part.fabric is None:
            paint = np.broadcast_to(np.asarray(part.colour, np.float32), (*mask.shape, 3))
        else:
            turn = np.radians(part.turn)
            around = half * np.arcsin(0.98 * across) if part.wrap else u - middle
            along = v - part.outline[:, 1].mean()
            paint = _paint(
                part.colour,
                part.fabric,
                np.cos(turn) * around + np.sin(turn) * along,
                np.cos(turn) * along - np.sin(turn) * around,
                1 / self.scale,
            )
        paint = self._lit(paint, part, image, radius, across)
        self._stroke(paint, part.strokes, window)
        alpha = (mask * part.opacity)[..., None]
        region += alpha * (paint - region)
        cover += alpha[..., 0] * (1 - cover)

    def _lit(self, paint: np.ndarray, part: Part, mask: Image.Image, radius: float, across: np.ndarray) -> np.ndarray:
        """Light from the upper left, from the slope of the blurred mask, and a dark rim."""
        form = np.asarray(mask.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255
        rim = np.asarray(mask.filter(ImageFilter.GaussianBlur(max(0.5 * self.scale, 0.7))), np.float32) / 255
        slope_y, slope_x = np.gradient(form) if min(form.shape) > 1 else (0 * form, 0 * form)
        light = part.bevel * radius * (0.6 * slope_x + slope_y) - part.edge * 2 * (1 - rim)
        light = light + part.roundness * (0.22 - (across + 0.3) ** 2) * 0.5
        light = np.clip(light, -0.75, 0.6)[..., None].astype(np.float32)
        return np.clip(np.where(light < 0, paint * (1 + light), paint + light * 110), 0, 255)

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
        Stroke(path + (-1.8, -0.6), width, (255, 255, 255), depth * 0.7, soft=1.3),
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
    """Back of the neck, sleeves ("none", "short" or "long") and body of an upper garment; the neck is (half width, depth)."""
    neck_width, neck_depth = neck
    w = width
    parts = [
        Part(
            mirrored(trace((0, -2.2), [(neck_width * 0.8, -2), (neck_width + 1, 1)], [(0, neck_depth + 3)])),
            darker(look.base, 0.35),
            bevel=0.1,
        )
    ]
    if sleeve == "short":
        reach = look.vary(-1, 4)
        arm = trace(
            (neck_width + 5, 1.5), [(w, 4), (w + 5, 10)], [(w + 13, 20), (w + 16 + reach, 33)],
            [(w + 11 + reach / 2, 37), (w + 4 + reach / 2, 38.5)], [(w, 30)], [(w - 10, 24)],
        )  # fmt: skip
        hem_line = trace((w + 15.2 + reach, 31), [(w + 10 + reach / 2, 35), (w + 3 + reach / 2, 36.4)])
        turn, cuffs = -34.0, None
    elif sleeve == "long":
        end = length * look.vary(0.96, 1.04)
        arm = trace(
            (neck_width + 5, 1.5), [(w, 3), (w + 5, 11)], [(w + 12, 30), (w + 15, end)], [(w + 11, end + 1.5), (w + 6.5, end + 1)],
            [(w + 5, end * 0.6), (w - 1, 31)], [(w - 10, 24)],
        )  # fmt: skip
        hem_line = trace((w + 15, end - 5), [(w + 11, end - 3.6), (w + 6, end - 4)])
        cuffs = trace(
            (w + 14.6, end - 6), [(w + 15.2, end + 0.6)], [(w + 11, end + 2.4), (w + 6.2, end + 1.6)],
            [(w + 5.6, end - 5)], [(w + 10, end - 4)],
        )  # fmt: skip
        turn = -11.0
    if sleeve != "none":
        crease = trace((w + 1, 29), [(w + 7, 27), (w + 10, 20)])
        for side in (1, -1):
            flip = (side, 1)
            parts.append(
                Part(
                    arm * flip,
                    look.base,
                    look.fabric,
                    turn * side,
                    strokes=(Stroke(hem_line * flip, 0.5, look.seam, 0.7, dashed=True), *_fold(crease * flip)),
                )
            )
            if cuffs is not None and cuff is not None:
                ribs = tuple(
                    Stroke(np.asarray([(x, end - 6), (x + 0.3, end + 3)]) * flip, 0.4, darker(cuff), 0.5)
                    for x in np.linspace(w + 6.5, w + 14.5, 6)
                )
                parts.append(Part(cuffs * flip, cuff, strokes=ribs))
    neckline = trace((0, neck_depth), [(neck_width, 0)] if vee else [(neck_width * 0.92, neck_depth), (neck_width, 0)])
    side = trace(
        (neck_width, 0), [(w * 0.98, 6)] if sleeve != "none" else [(neck_width + 7, 2.4)],
        [(w * 0.9, 18), (w, 28)], [(w * 0.96, length * 0.6), (w * flare, length)], [(w * 0.5, length + hem), (0, length + hem)],
    )  # fmt: skip
    folds: tuple[Stroke, ...] = ()
    for start, end in (((w - 1, 30), (w * 0.55, 40)), ((w * 0.9, length * 0.72), (w * 0.4, length * 0.86))):
        for path in _both_sides(trace(start, [((start[0] + end[0]) / 2, start[1] + 2), end])):
            folds += _fold(path, look.vary(0.12, 0.26))
    armhole = tuple(
        Stroke(path, 0.5, look.seam, 0.6)
        for path in _both_sides(trace((w * 0.98, 6), [(w * 0.9, 18), (w, 28)]) + (-0.5, 0))
    )
    parts.append(
        Part(
            mirrored(np.concatenate([neckline, side])),
            look.base,
            look.fabric,
            strokes=(*folds, *(armhole if sleeve != "none" else ()), *strokes),
        )
    )
    return parts


def _hem_stitch(look: Look, width: float, length: float) -> Stroke:
    return Stroke(
        trace((-width * 1.2, length - 3), [(0, length - 0.6), (width * 1.2, length - 3)]),
        0.5,
        look.seam,
        0.7,
        dashed=True,
    )


def _neckband(look: Look, neck: tuple[float, float], vee: bool, colour: Colour, width: float = 2.6) -> Part:
    nw, nd = neck
    path = trace((-nw, -0.4), [(0, nd)], [(nw, -0.4)]) if vee else trace((-nw, -0.4), [(-nw * 0.92, nd), (0, nd)], [(nw * 0.92, nd), (nw, -0.4)])  # fmt: skip
    if vee:
        band = np.concatenate([path + (0, -width * 0.4), path[::-1] + (0, width * 0.9)])
    else:
        band = ribbon(path, width)
    return Part(band, colour, bevel=0.35)


def _tshirt(look: Look, style: str) -> list[Part]:
    vee, sleeve = style == "V-Neck", "long" if style == "Long Sleeve" else "short"
    width, length = look.vary(27, 31), look.vary(70, 80)
    neck = (look.vary(9.5, 12), look.vary(14, 18) if vee else look.vary(6.5, 9.5))
    band = look.trim if look.chance(0.35) else darker(look.base, 0.12)
    parts = _top(
        look, width=width, length=length, sleeve=sleeve, neck=neck, vee=vee, flare=look.vary(0.97, 1.04),
        strokes=(_hem_stitch(look, width, length),),
    )  # fmt: skip
    parts.append(_neckband(look, neck, vee, band))
    if look.fabric is None and look.chance(0.25):
        x, y = width * 0.45, look.vary(28, 31)
        parts.append(
            Part(
                trace((x - 6, y), [(x + 6, y)], [(x + 6, y + 11)], [(x, y + 14)], [(x - 6, y + 11)]),
                darker(look.base, 0.05),
                strokes=(Stroke(trace((x - 6, y + 2), [(x + 6, y + 2)]), 0.5, look.seam, 0.8),),
            )
        )
    return parts


def _buttons(look: Look, top: float, bottom: float, count: int, x: float = 0.0) -> list[Part]:
    colour = look.pick((244, 242, 236), darker(look.base, 0.45), (92, 72, 56))
    return [Part(ellipse(x, y, 1.15), colour, edge=0.5, bevel=0.8) for y in np.linspace(top, bottom, count)]


def _shirt(look: Look, style: str) -> list[Part]:
    sleeve = "short" if style == "Short Sleeve" else "long"
    width, length = look.vary(27, 30), look.vary(74, 82)
    cuff = look.base if look.chance(0.7) else look.trim
    parts = _top(
        look, width=width, length=length, sleeve=sleeve, neck=(9.5, 10), vee=True, hem=look.vary(3, 7), cuff=cuff,
        strokes=(_hem_stitch(look, width, length),),
    )  # fmt: skip
    placket = Part(
        box(-2.6, 9, 2.6, length + 2), look.base, look.fabric, bevel=0.2, edge=0.35,
        strokes=tuple(Stroke(trace((x, 8), [(x, length + 4)]), 0.35, look.seam, 0.6, dashed=True) for x in (-1.9, 1.9)),
    )  # fmt: skip
    parts += [placket, *_buttons(look, 15, length - 9, 6)]
    if look.chance(0.6):
        x, y = width * 0.5, 29
        parts.append(
            Part(
                trace((x - 6.5, y), [(x + 6.5, y)], [(x + 6.5, y + 10)], [(x, y + 13.5)], [(x - 6.5, y + 10)]),
                look.base, look.fabric, bevel=0.25, strokes=(Stroke(trace((x - 7, y + 2.4), [(x + 7, y + 2.4)]), 0.5, look.seam, 0.8),),
            )
        )  # fmt: skip
    collar = trace((0.3, 9.5), [(9.5, -4)], [(12.5, -1)], [(14, 4), (12.5, 13)], [(7, 14)], steps=8)
    back = mirrored(trace((0, -4.5), [(8, -4.5), (10.2, -3)], [(9, 3)], [(0, 3.5)]))
    parts.insert(0, Part(back, darker(look.base, 0.15)))
    stand = mirrored(trace((0, -1.6), [(7, -1.5), (9.3, -3.2)], [(8.4, 0.4), (0, 3.4)]))
    parts.append(Part(stand, darker(look.base, 0.28), bevel=0.1))
    colour = cuff if cuff != look.base else look.base
    parts += [Part(path, colour, look.fabric if colour == look.base else None, 20 * side, casts=True) for side, path in zip((-1, 1), _both_sides(collar), strict=True)]  # fmt: skip
    return parts


def _ribs(x0: float, x1: float, y0: float, y1: float, colour: Colour, count: int) -> tuple[Stroke, ...]:
    return tuple(Stroke(trace((x, y0), [(x, y1)]), 0.4, colour, 0.5) for x in np.linspace(x0, x1, count))


def _waistband(look: Look, width: float, y: float, colour: Colour, height: float = 6) -> Part:
    outline = mirrored(trace((0, y), [(width * 0.95, y - 0.5)], [(width * 0.98, y + height)], [(0, y + height + 1.5)]))
    return Part(outline, colour, strokes=_ribs(-width, width, y - 1, y + height + 2, darker(colour, 0.3), 26))


def _sweatshirt(look: Look, style: str) -> list[Part]:
    width, length = look.vary(29, 32), look.vary(68, 76)
    rib = look.trim if look.chance(0.3) else darker(look.base, 0.1)
    parts = _top(look, width=width, length=length, sleeve="long", neck=(9, 8), cuff=rib, hem=1)
    parts.append(_waistband(look, width, length - 2, rib))
    hood_out = mirrored(trace((0, -15), [(17, -15), (18, -1)], [(16, 10), (5, 15)], [(0, 13)]))
    hood_in = mirrored(trace((0, -9), [(10.5, -9), (11, 1)], [(9, 8), (0, 12.5)]))
    seam = tuple(Stroke(path, 0.5, look.seam, 0.7) for path in _both_sides(trace((0, -15), [(5, -13), (8.5, -8)])))
    parts.insert(0, Part(hood_out, look.base, look.fabric, strokes=seam))
    parts.append(
        Part(hood_out, look.base, look.fabric, holes=(hood_in,), casts=True, strokes=(Stroke(hood_in, 0.5, look.seam, 0.8),))
    )  # fmt: skip
    parts.insert(1, Part(hood_in, darker(look.base, 0.42), bevel=0.1))
    pocket = mirrored(trace((0, 45), [(11, 45)], [(14, 50), (19, 56)], [(19, 64)], [(0, 64)]))
    opening = tuple(
        Stroke(path, 0.6, look.seam, 0.8) for path in _both_sides(trace((11.5, 46), [(14, 51), (18.2, 57)]))
    )
    parts.append(Part(pocket, look.base, look.fabric, bevel=0.3, edge=0.4, strokes=opening, casts=True))
    if style == "Zip-Up":
        parts += _zip(look, 12.5, length + 4)
    cord = lighter(look.base, 0.7) if luminance(look.base) < 150 else darker(look.base, 0.5)
    for side in (1, -1):
        path = trace((5 * side, 13), [(6.5 * side, 20), (5.2 * side, look.vary(29, 35))])
        parts.append(Part(ribbon(path, 1.3), cord, edge=0.4))
        parts.append(Part(ellipse(*path[-1], 1, 1.8), look.metal))
    return parts


def _zip(look: Look, top: float, bottom: float, x: float = 0.0) -> list[Part]:
    teeth = tuple(Stroke(trace((x - 0.9, y), [(x + 0.9, y)]), 0.4, darker(look.metal, 0.5), 0.8) for y in np.arange(top, bottom, 1.7))  # fmt: skip
    return [
        Part(box(x - 1.9, top, x + 1.9, bottom), darker(look.base, 0.25), bevel=0.1),
        Part(box(x - 0.8, top, x + 0.8, bottom), look.metal, strokes=teeth, bevel=0.2),
        Part(box(x - 0.9, top + 1, x + 0.9, top + 6, 0.9), look.metal, bevel=0.8, edge=0.5, casts=True),
    ]


def _sweater(look: Look, style: str) -> list[Part]:
    width, length = look.vary(28, 32), look.vary(66, 76)
    rib = darker(look.base, 0.1) if look.chance(0.7) else look.trim
    cardigan = style == "Cardigan"
    neck = (9.5, 26.0) if cardigan else (10, 7.5)
    knit = tuple(
        Stroke(trace((-50, y), [(50, y)]), 0.35, look.seam, 0.16, dashed=True) for y in np.arange(8, length, 2.6)
    )
    if look.fabric is None and look.chance(0.6):
        for x in (-12, 0, 12) if not cardigan else (-14, 14):
            y = np.linspace(8, length, 90)
            for phase in (0, np.pi):
                path = np.stack([x + 1.9 * np.sin(y / 2.3 + phase), y], axis=1)
                knit += (Stroke(path, 0.9, look.seam, 0.45, soft=0.25),)
    parts = _top(
        look, width=width, length=length, sleeve="long", neck=neck, vee=cardigan, cuff=rib, hem=1, strokes=knit
    )
    parts.append(_waistband(look, width, length - 2, rib))
    if style == "Turtleneck":
        collar = mirrored(trace((0, -12), [(7.5, -12), (8.8, -11)], [(8, -3), (11.5, 2.5)], [(6, 8.5), (0, 8.5)]))
        parts.append(
            Part(
                collar,
                look.base,
                look.fabric,
                strokes=_ribs(-11, 11, -14, 10, look.seam, 14),
                casts=True,
                roundness=0.5,
            )
        )
        parts.append(Part(ellipse(0, -11.4, 8.2, 1.5), darker(look.base, 0.45)))
    elif cardigan:
        band = (
            trace((-9.5, -0.5), [(0.6, 26)], [(0.6, length + 5)]),
            trace((9.5, -0.5), [(0.6, 26)], [(0.6, length + 5)]),
        )
        parts += [Part(ribbon(path, 4.4), rib, bevel=0.3, edge=0.4, casts=True) for path in band]
        parts += _buttons(look, 30, length - 1, 5, x=0.6)
    else:
        parts.append(_neckband(look, neck, False, rib, 3.6))
    return parts


def _jacket(look: Look, style: str) -> list[Part]:
    width, length = look.vary(29, 32), look.vary(64, 74)
    rib = look.trim if look.chance(0.4) else darker(look.base, 0.3)
    if style == "Puffer":
        quilt: tuple[Stroke, ...] = ()
        for y in np.arange(13, length, 10.5):
            path = trace((-60, y), [(0, y + 3), (60, y)])
            quilt += (
                Stroke(path, 2.6, (0, 0, 0), 0.42, soft=1.2),
                Stroke(path + (0, 3.4), 3, (255, 255, 255), 0.26, soft=1.6),
            )
            quilt += (Stroke(path, 0.5, look.seam, 0.8),)
        parts = _top(look, width=width, length=length, sleeve="long", neck=(9, 7), strokes=quilt, hem=1)
        for index in (1, 2):
            side = 3 - 2 * index
            rings: tuple[Stroke, ...] = ()
            for y in np.arange(18, length, 10.5):
                path = trace(((width - 12) * side, y + 6), [((width + 22) * side, y - 2)])
                rings += (Stroke(path, 2.6, (0, 0, 0), 0.42, soft=1.2), Stroke(path, 0.5, look.seam, 0.8))
                rings += (Stroke(path + (0, 3.2), 2.6, (255, 255, 255), 0.24, soft=1.5),)
            arm = parts[index]
            parts[index] = Part(arm.outline, arm.colour, arm.fabric, arm.turn, bevel=0.8, strokes=rings)
        collar = mirrored(trace((0, -10), [(9, -10), (11, -8)], [(14, 0), (12, 8)], [(6, 11), (0, 11)]))
        parts.append(Part(collar, look.base, look.fabric, bevel=0.9, strokes=(Stroke(trace((-14, 0), [(0, 3), (14, 0)]), 2, (0, 0, 0), 0.35, soft=1),), casts=True))  # fmt: skip
        return [*parts, *_zip(look, -9, length + 1)]
    if style == "Biker":
        parts = _top(
            look, width=width, length=length, sleeve="long", neck=(9, 22), vee=True, hem=1, cuff=darker(look.base, 0.1)
        )
        inside = mirrored(trace((0, -2), [(9, 0)], [(0, 24)]))
        parts.insert(1, Part(inside, darker(look.base, 0.5), bevel=0.1))
        slash = _zip(look, 24, length + 2, x=-7)
        parts += slash
        lapel = trace((9, -3), [(15, 4)], [(17, 9)], [(13, 12)], [(15, 15)], [(-4, 34)], [(1, 20)])
        parts.append(Part(lapel, look.base, look.fabric, 20, casts=True, bevel=0.7))
        lapel = trace((-9, -3), [(-15, 4)], [(-17, 9)], [(-13, 12)], [(-17, 17)], [(-7, 34)], [(-1, 18)])
        parts.append(Part(lapel, look.base, look.fabric, -20, casts=True, bevel=0.7))
        for side in (1, -1):
            path = trace((20 * side, 46), [(13 * side, 54)])
            parts.append(Part(ribbon(path, 2), look.metal, edge=0.5))
        parts.append(Part(mirrored(trace((0, length - 3), [(width * 0.98, length - 4)], [(width * 0.99, length + 1)], [(0, length + 2.5)])), darker(look.base, 0.18)))  # fmt: skip
        parts.append(
            Part(box(-4, length - 3.4, 3, length + 2.4, 1), look.metal, holes=(box(-2.6, length - 2, 1.6, length + 1),))
        )
        return parts
    parts = _top(look, width=width, length=length, sleeve="long", neck=(9.5, 8), cuff=rib, hem=1)
    parts.append(_waistband(look, width, length - 3, rib, 7))
    parts += _zip(look, 6, length + 4)
    collar = mirrored(trace((0.4, 9.5), [(7, 6), (9, -4)], [(12.5, -2)], [(13, 7), (3, 13)], [(0.4, 13)]))
    parts.append(Part(collar, rib, strokes=_ribs(-13, 13, -5, 14, darker(rib, 0.3), 16), casts=True))
    for side in (1, -1):
        parts.append(Part(ribbon(trace((21 * side, 42), [(15 * side, 56)]), 2.2), darker(look.base, 0.3), edge=0.5))
    return parts


def _dress(look: Look, style: str) -> list[Part]:
    length = {"Mini": look.vary(66, 72), "Midi": look.vary(86, 94), "Maxi": look.vary(110, 120)}[style]
    waist_y, waist = look.vary(34, 38), look.vary(13, 15)
    hem = waist + length * look.vary(0.12, 0.24)
    sleeve = look.pick("strap", "none", "short", "long")
    neck_x, neck_y = look.vary(8, 10.5), look.vary(7, 13)
    parts: list[Part] = []
    if sleeve == "strap":
        for side in (1, -1):
            parts.append(Part(ribbon(trace((9.5 * side, -6), [(11 * side, 4), (10.5 * side, 12)]), 1.8), look.base))
        bodice = trace((0, 13), [(5, 13), (9.5, 9)], [(13, 12), (16.5, 18)], [(15, 28), (waist, waist_y)])
        parts.insert(
            0, Part(mirrored(trace((0, 10), [(13, 12)], [(14, 18)], [(0, 20)])), darker(look.base, 0.4), bevel=0.1)
        )
    else:
        parts.append(Part(mirrored(trace((0, -1.8), [(neck_x * 0.8, -1.6), (neck_x + 1, 1)], [(0, neck_y + 3)])), darker(look.base, 0.38), bevel=0.1))  # fmt: skip
        arms = {
            "short": ([(24, 2), (27, 17)], [(22, 20), (17, 20)], [(12, 16)]),
            "long": (
                [(23, 4), (27, 30)],
                [(29, 46), (30, 58)],
                [(27.5, 60), (24, 59.5)],
                [(23, 40), (16, 21)],
                [(12, 16)],
            ),
        }
        if sleeve in arms:
            arm = trace((neck_x + 3, 0.5), *arms[sleeve])
            parts += [Part(path, look.base, look.fabric, turn, strokes=_fold(trace((16, 20), [(20, 17), (22, 11)]) * (side, 1))) for path, turn, side in zip(_both_sides(arm), (-22, 22), (1, -1), strict=True)]  # fmt: skip
        neckline = [(neck_x, 0)] if look.chance(0.35) else [(neck_x * 0.95, neck_y), (neck_x, 0)]
        bodice = trace((0, neck_y), neckline, [(15.5, 3.5)], [(13.5, 12), (17, 20)], [(15.5, 28), (waist, waist_y)])
    bust = ()
    for path in _both_sides(trace((15.5, 21), [(11, 25), (9, 24)])):
        bust += _fold(path, 0.16, 1.2)
    ruffles = look.chance(0.3)
    flare = trace(
        (waist, waist_y),
        [(waist + 3, waist_y + 12), (hem * 0.92, length * 0.8)],
        [(hem * 0.98, length * 0.92), (hem, length)],
    )
    waves = np.linspace(hem, 0, 25)
    edge = np.stack(
        [waves, length + 3.2 * np.cos(waves / hem * np.pi / 2) + 0.9 * np.cos(waves / hem * np.pi * 5)], axis=1
    )
    folds: tuple[Stroke, ...] = ()
    for x in (0.2, 0.55, 0.85):
        for side in (1, -1):
            end = (side * x * hem + look.vary(-1.5, 1.5), length + 2)
            path = trace(
                (side * x * waist * 0.9, waist_y + look.vary(2, 14)), [(side * x * (waist + 3), waist_y + 25), end]
            )
            folds += _fold(path, look.vary(0.16, 0.3), 2)
    if ruffles:
        for y in (length * 0.72, length * 0.86):
            folds += (Stroke(trace((-hem, y), [(0, y + 4), (hem, y)]), 1.8, (0, 0, 0), 0.3, soft=0.8),)
    skirt = Part(
        mirrored(np.concatenate([trace((0, waist_y - 1), [(waist, waist_y)]), flare, edge])),
        look.base,
        look.fabric,
        strokes=folds,
    )
    parts += [skirt, Part(mirrored(np.concatenate([bodice, [(0, waist_y + 1)]])), look.base, look.fabric, strokes=bust)]
    belt = look.trim if look.chance(0.45) else darker(look.base, 0.2)
    parts.append(
        Part(
            mirrored(
                trace(
                    (0, waist_y - 2),
                    [(waist + 0.3, waist_y - 2.4)],
                    [(waist + 0.3, waist_y + 1.6)],
                    [(0, waist_y + 2.2)],
                )
            ),
            belt,
        )
    )
    if look.chance(0.3):
        bow = trace((0, waist_y), [(-7, waist_y - 7), (-8, waist_y)], [(-7, waist_y + 6), (0, waist_y)])
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
    hem = {"Mini": waist * look.vary(1.5, 2.0), "Pleated": waist * look.vary(1.9, 2.3), "Pencil": waist * look.vary(1.12, 1.25), "Maxi": waist * look.vary(1.8, 2.3)}[style]  # fmt: skip
    hip = waist + (hem - waist) * 0.45 + 2.5
    x = np.linspace(hem, 0, 40)
    ripple = {"Pleated": 1.2, "Mini": 0.7, "Pencil": 0.0, "Maxi": 1.0}[style] * np.cos(x / hem * np.pi * 7)
    edge = np.stack([x, length + 2.8 * np.cos(x / hem * np.pi / 2) + ripple], axis=1)
    strokes: tuple[Stroke, ...] = ()
    count = {"Pleated": 13, "Mini": 7, "Pencil": 1, "Maxi": 9}[style]
    for t in np.linspace(-0.9, 0.9, count) if count > 1 else ():
        path = trace((t * waist, 5), [(t * hip, length * 0.4), (t * hem, length + 4)])
        strokes += _fold(path, 0.38 if style == "Pleated" else look.vary(0.18, 0.3), 1.2 if style == "Pleated" else 2.2)
    if style == "Pencil":
        strokes += (Stroke(trace((3, length * 0.72), [(3.4, length + 5)]), 0.9, darker(look.base, 0.6), 0.9),)
        strokes += _fold(trace((-10, 6), [(-11, 14), (-10, 20)]), 0.2, 1)
        strokes += _fold(trace((10, 6), [(11, 14), (10, 20)]), 0.2, 1)
    side = trace(
        (waist, 2),
        [(hip, length * 0.28), (hem * (0.98 if style != "Pencil" else 1.02), length * 0.75)],
        [(hem, length)],
    )
    band = look.trim if look.chance(0.3) else darker(look.base, 0.14)
    return [
        Part(ellipse(0, 0.2, waist * 0.98, 2.2), darker(look.base, 0.5)),
        Part(mirrored(np.concatenate([[(0, 3)], side, edge])), look.base, look.fabric, strokes=strokes),
        Part(
            mirrored(trace((0, 2.2), [(waist * 0.6, 2), (waist, 0)], [(waist + 0.8, 5)], [(waist * 0.6, 7), (0, 7.2)])),
            band,
            strokes=(Stroke(trace((-20, 5), [(0, 7.2), (20, 5)]), 0.4, look.seam, 0.6, dashed=True),),
        ),  # fmt: skip
        *(_buttons(look, 12, length - 6, 6) if style == "Mini" and look.chance(0.4) else ()),
    ]


def _legs(
    look: Look, *, length: float, knee: float, hem: float, waist: float, strokes: tuple[Stroke, ...] = ()
) -> list[Part]:
    crotch = 30
    leg = trace(
        (0, 2), [(waist, 1)], [(waist + 4, 12), (waist + 4.5, 24)], [(waist + 4, length * 0.45), (3 + knee, length * 0.6)],
        [(4 + hem, length)], [(4 + hem / 2, length + 1.6), (4.2, length)], [(3, length * 0.55), (0.4, crotch)],
    )  # fmt: skip
    parts = [Part(ellipse(0, 0.4, waist - 0.2, 2), darker(look.base, 0.5))]
    for side in (1, -1):
        flip = (side, 1)
        folds = (
            *_fold(trace((0.5, crotch), [(8, crotch - 1), (14, crotch - 6)]) * flip, 0.24),
            *_fold(trace((3, length * 0.58), [(8, length * 0.57), (12, length * 0.54)]) * flip, 0.18),
            *_fold(
                trace((8 + hem * 0.2, 34), [(6 + knee * 0.4, length * 0.6), (4 + hem * 0.5, length - 2)]) * flip,
                0.16,
                1.2,
            ),
        )
        hem_stitch = Stroke(trace((0, length - 3), [(6 + hem, length - 3)]) * flip, 0.5, look.seam, 0.7, dashed=True)
        pocket = Stroke(trace((waist - 6, 5), [(waist - 3, 13), (waist + 5, 15)]) * flip, 0.6, look.seam, 0.8)
        parts.append(Part(leg * flip, look.base, look.fabric, strokes=(*folds, hem_stitch, pocket, *strokes)))
    fly = trace((0.2, 6), [(0.2, crotch)]), trace((4.2, 6), [(4.5, 20), (0.4, 24)])
    patch = mirrored(trace((0, 4), [(5, 4)], [(5, 22), (1.2, crotch - 1)]))
    parts.append(
        Part(patch, look.base, look.fabric, bevel=0, edge=0, strokes=tuple(Stroke(p, 0.5, look.seam, 0.8) for p in fly))
    )
    band = mirrored(
        trace((0, 2.4), [(waist * 0.6, 2.2), (waist, 0.4)], [(waist + 1, 5.6)], [(waist * 0.6, 7.6), (0, 7.8)])
    )
    parts.append(Part(band, darker(look.base, 0.1), edge=0.35))
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
        parts += [Part(pocket, look.base, look.fabric, casts=True), Part(flap, darker(look.base, 0.06), casts=True)]
        parts.append(Part(ellipse(15.7 * side, y + 2.2, 0.9), look.metal))
    return parts


def _shorts(look: Look, style: str) -> list[Part]:
    length = look.vary(50, 56)
    parts = _legs(look, length=length, knee=19, hem=look.vary(18, 21), waist=look.vary(18.5, 20))
    if style == "Drawstring":
        cord = lighter(look.base, 0.75) if luminance(look.base) < 150 else darker(look.base, 0.5)
        parts = parts[:-3] + [Part(ribbon(trace((x, 5), [(x * 3, 12), (x * 2.2, 19)]), 1.2), cord) for x in (1.4, -1.4)]
    return parts


# --- Shoes: side view, the toe to the right ---------------------------------------------------------------------------


def _laces(path: np.ndarray, count: int, colour: Colour, reach: float) -> list[Part]:
    rows = path[np.linspace(0, len(path) - 1, count).astype(int)]
    return [Part(ribbon(trace((x + 1.5, y - 1), [(x - reach * 0.4, y + 1.5), (x - reach, y + reach * 0.55)]), 2.1), colour, edge=0.45, casts=True) for x, y in rows]  # fmt: skip


def _sneaker(look: Look, style: str) -> list[Part]:
    high, slip_on = style == "High-Top", style == "Slip-On"
    top = -34 if high else -16
    rubber = look.pick((244, 243, 238), (244, 243, 238), _CREAM, darker(look.base, 0.55), (206, 160, 112))
    thick = look.vary(7, 11)
    if slip_on:
        front = ([(-14, -13), (-4, -8)], [(20, 3), (38, 8)])
    else:
        front = ([(-14, top + 2), (-8, top + 5)], [(0, -8), (14, -1)], [(28, 3), (38, 8)])
    upper = trace(
        (-44, 22), [(-49, 10), (-46, top + 8), (-45, top + 2)], [(-43, top - 3), (-38, top - 2)],
        [(-28, top + 5), (-18, top)], *front, [(49, 12), (50, 22)],
    )  # fmt: skip
    toe = trace((22, 1), [(38, 4), (46, 10)], [(51, 15), (51, 24)], [(26, 24)], [(30, 12), (22, 1)])
    heel = trace((-48, 24), [(-50, 10), (-46.5, -4)], [(-36, -2), (-33, 8)], [(-31, 16), (-33, 24)])
    panel = darker(look.base, 0.16) if look.chance(0.5) else look.trim
    parts = [
        Part(
            trace((-43, top), [(-30, top - 5), (-17, top - 1)], [(-16, top + 8)], [(-40, top + 8)]),
            darker(look.base, 0.5),
        ),
        Part(upper, look.base, look.fabric, turn=12, bevel=0.7),
    ]
    if not slip_on:
        tongue = trace((-19, top - 1), [(-17, top - 8), (-9, top - 5)], [(-3, -8), (13, -2)], [(4, 3)], [(-12, -4)])
        parts.insert(
            1, Part(tongue, lighter(look.base, 0.15) if luminance(look.base) < 200 else darker(look.base, 0.08))
        )
        facing = trace((-20, top + 1), [(-15, top + 3), (-11, top + 6)], [(-3, -5), (14, 1)], [(15, 5), (10, 7)], [(-8, 2), (-20, top + 10)])  # fmt: skip
        parts.append(
            Part(facing, panel, bevel=0.4, casts=True, strokes=(Stroke(facing, 1.0, look.seam, 0.7, dashed=True),))
        )
    if look.chance(0.7):
        parts.append(Part(toe, rubber if look.chance(0.4) else panel, bevel=0.6, casts=True))
    if not slip_on or look.chance(0.5):
        parts.append(Part(heel, panel, bevel=0.6, casts=True))
    if look.chance(0.55) and look.fabric is None:
        swoosh = look.pick(
            trace((-24, 18), [(-6, 16), (14, 6)], [(6, 19), (-24, 18)]),
            ribbon(trace((-14, 4), [(-4, 12), (-6, 22)]), 5),
            ellipse(-13, 11, 5.5),
        )
        parts.append(Part(swoosh, lighter(panel, 0.55) if luminance(panel) < 140 else darker(panel, 0.4), bevel=0.2))
    if not slip_on:
        path = trace((-12, top + 7), [(-4, -6), (12, 0)])
        parts += _laces(
            path, 7 if high else 5, (250, 249, 245) if luminance(panel) < 200 else darker(look.base, 0.55), 9
        )
    else:
        parts.append(Part(trace((-16, top + 1), [(-12, -12), (-8, -10)], [(-10, 0), (-14, 8)], [(-24, 4), (-26, -10)]), darker(look.base, 0.3), bevel=0.2))  # fmt: skip
    sole = trace((-49, 20), [(0, 25), (50, 19)], [(54, 22), (51, 22 + thick)], [(46, 24 + thick), (40, 23.5 + thick)], [(0, 23 + thick)], [(-47, 24 + thick)], [(-52, 23 + thick), (-49, 20)])  # fmt: skip
    line = Stroke(
        trace((-50, 24), [(0, 28.5), (54, 23)]), 0.9, darker(rubber, 0.3) if look.chance(0.5) else look.base, 0.9
    )
    tread = Stroke(trace((-50, 22.5 + thick), [(54, 22 + thick)]), 2.2, darker(rubber, 0.4), 0.8)
    parts.append(Part(sole, rubber, strokes=(line, tread)))
    return parts


def _boot(look: Look, style: str) -> list[Part]:
    height = {"Ankle": look.vary(28, 36), "Chelsea": look.vary(36, 42), "Knee-High": look.vary(82, 92)}[style]
    heel = look.vary(6, 15) if style != "Chelsea" else look.vary(5, 8)
    half = 13 + (3 if style == "Knee-High" else 0)
    top = -height
    shaft_back = [(-17, -14), (-15 - half * 0.35, top * 0.6), (-4 - half, top)]
    shaft_front = [(-4 + half, top * 0.55), (6, -12), (10, -4)]
    upper = trace(
        (-14, 26 - heel * 0.2), [(-20, 10), (-16, 0)], shaft_back, [(-4, top + 3), (-4 + half, top - 1)], shaft_front,
        [(16, 7), (28, 9)], [(42, 12), (42, 26)], [(20, 25), (8, 24 - heel * 0.7)],
    )  # fmt: skip
    sole_colour = look.pick(_RUBBER, _DARK_WOOD, darker(look.base, 0.55))
    folds = (
        *_fold(trace((-15, -2), [(-6, 4), (8, -2)]), 0.3),
        *_fold(trace((-15, -8), [(-4, -3), (8, -9)]), 0.24),
        *(_fold(trace((-8, top * 0.8), [(-10, top * 0.5), (-9, -20)]), 0.2, 2) if style == "Knee-High" else ()),
        Stroke(trace((2, 24), [(6, 10), (16, 6)]), 0.6, look.seam, 0.7),
    )
    shine = Stroke(trace((28, 13), [(36, 14), (39, 20)]), 2.4, (255, 255, 255), 0.45, soft=1.2)
    parts = [
        Part(
            trace((-4 - half, top), [(-4, top - 3), (-4 + half, top - 1)], [(-4, top + 4), (-4 - half, top)]),
            darker(look.base, 0.55),
        ),
        Part(upper, look.base, look.fabric, bevel=0.9, strokes=(*folds, shine)),
    ]
    if style == "Chelsea":
        gore = trace((-9, top + 3), [(3, top + 3)], [(3, -12), (-2, -5)], [(-8, -12), (-9, top + 3)])
        parts.append(
            Part(
                gore,
                _RUBBER if luminance(look.base) > 70 else darker(look.base, 0.4),
                strokes=_ribs(-9, 3, top, 0, (20, 20, 20), 9),
            )
        )
        parts.append(Part(ribbon(trace((-16, top + 1), [(-17, top - 7), (-14, top + 2)]), 2.2), look.trim))
    elif style == "Ankle" and look.chance(0.7):
        parts += _laces(trace((-1, top + 6), [(2, -14), (10, -2)]), 5, look.pick(_CREAM, _RUBBER, (200, 150, 90)), 8)
    else:
        y = look.pick(-6.0, top + 8)
        left, right = (-19, 10) if y == -6.0 else (-6 - half, half - 2)
        parts.append(
            Part(ribbon(trace((left, y), [(0, y + 5), (right, y + 1)]), 4), darker(look.base, 0.2), casts=True)
        )
        parts.append(Part(box(-8, y - 1.4, 0, y + 6, 1), look.metal, holes=(box(-6.4, y, -1.6, y + 4.6),), bevel=0.8))
    block = trace(
        (-15, 25 - heel),
        [(-18, 25)],
        [(-17, 31 + heel * 0.1)],
        [(-4 + heel * 0.1, 31 + heel * 0.1)],
        [(2, 25 - heel * 0.6)],
    )
    parts.append(Part(block, sole_colour, bevel=0.6))
    sole = trace((-15, 24 - heel), [(2, 25 - heel), (10, 25 - heel * 0.4)], [(22, 27), (43, 25)], [(44, 30), (40, 31)], [(22, 31), (12, 30)], [(4, 29 - heel * 0.5), (-15, 28 - heel)])  # fmt: skip
    parts.append(Part(sole, darker(sole_colour, 0.15), bevel=0.4))
    return parts


def _heel(look: Look, style: str) -> list[Part]:
    height = {"Stiletto": look.vary(30, 36), "Block Heel": look.vary(20, 28), "Kitten Heel": look.vary(12, 16)}[style]
    back, ground = 30 - height, 34.0
    upper = trace(
        (-42, back + 4), [(-47, back - 8), (-43, back - 22)], [(-38, back - 22), (-36, back - 16)],
        [(-24, back - 2), (-4, 15)], [(12, 24), (22, 17)], [(40, 22), (51, 31)], [(48, 34.5), (34, 33.5)],
        [(12, 33), (-6, 24)], [(-22, back + 12), (-36, back + 7)],
    )  # fmt: skip
    lining = trace(
        (-42, back - 20),
        [(-30, back - 14), (-12, 10)],
        [(8, 20), (22, 17)],
        [(10, 28), (-8, 20)],
        [(-28, back + 2), (-42, back - 20)],
    )
    if style == "Block Heel":
        heel = trace(
            (-43, back + 1), [(-46, back + 14), (-44, ground)], [(-29, ground)], [(-29, back + 18), (-24, back + 9)]
        )
    else:
        tip = -36 if style == "Kitten Heel" else -40
        heel = trace(
            (-44, back + 1),
            [(-44, back + 12), (tip - 2, ground)],
            [(tip + 2, ground)],
            [(tip + 4, back + 18), (-22, back + 11)],
        )
    sole_colour = look.pick(_RUBBER, (196, 150, 110), darker(look.base, 0.45))
    sole = ribbon(trace((-42, back + 6), [(-24, back + 10), (-6, 25)], [(10, 34.5), (30, 34.2)], [(50, 33)]), 1.8)
    shine = Stroke(trace((26, 22), [(36, 24), (43, 29)]), 2.2, (255, 255, 255), 0.5, soft=1)
    parts = [
        Part(heel, look.base if look.chance(0.75) else sole_colour, bevel=0.9),
        Part(lining, mix(look.base, _CREAM, 0.75), bevel=0.3),
        Part(upper, look.base, look.fabric, turn=20, bevel=0.8, strokes=(shine,)),
        Part(sole, sole_colour, bevel=0.2),
    ]
    extra = look.pick("none", "strap", "bow", "strap")
    if extra == "strap":
        y = back - 24
        strap = trace(
            (-43, back - 12), [(-38, y - 10), (-24, y - 6)], [(-16, y), (-17, y + 9)], [(-26, y + 6), (-42, back - 10)]
        )
        ring = ribbon(strap, 2.6)
        parts.insert(0, Part(ring, look.base, bevel=0.6))
        parts.append(
            Part(ribbon(trace((-43, back - 11), [(-30, y + 11), (-17, y + 5)]), 2.8), look.base, bevel=0.6, casts=True)
        )
        parts.append(Part(ellipse(-21, y + 6.6, 2), look.metal, holes=(ellipse(-21, y + 6.6, 1.1),)))
    elif extra == "bow":
        for side in (1, -1):
            bow = trace((21, 18), [(21 + 8 * side, 11), (21 + 9 * side, 17)], [(21 + 8 * side, 24), (21, 18)])
            parts.append(Part(bow, darker(look.base, 0.12), casts=True))
        parts.append(Part(ellipse(21, 18, 1.7), darker(look.base, 0.2)))
    return parts


# --- Bags -------------------------------------------------------------------------------------------------------------


def _stitched(outline: np.ndarray, look: Look, inset: float = 0.94) -> Stroke:
    middle = (outline.min(0) + outline.max(0)) / 2
    closed = np.concatenate([outline, outline[:1]])
    return Stroke(middle + (closed - middle) * inset, 0.5, look.seam, 0.75, dashed=True)


def _handbag(look: Look, style: str) -> list[Part]:
    leather = look.trim if look.chance(0.35) else darker(look.base, 0.2)
    if style == "Tote":
        top, bottom, depth = look.vary(30, 34), look.vary(25, 31), look.vary(50, 58)
        body = mirrored(
            trace(
                (0, 0),
                [(top, 0)],
                [(top - 1, depth * 0.6), (bottom, depth)],
                [(bottom * 0.5, depth + 1.5), (0, depth + 1.5)],
            )
        )
        rise = look.vary(22, 32)
        handle = trace((-13, 8), [(-13, -rise), (13, -rise), (13, 8)], steps=30)
        parts = [
            Part(ribbon(handle + (2.5, -2), 2.6), darker(leather, 0.25)),
            Part(trace((-top + 1, 0.5), [(0, -5), (top - 1, 0.5)]), darker(look.base, 0.5)),
            Part(body, look.base, look.fabric, bevel=0.7, strokes=(_stitched(body, look, 0.95),)),
            Part(ribbon(handle, 3), leather, bevel=0.7, casts=True),
        ]
        parts += [
            Part(
                box(x - 3, 5, x + 3, 13, 1.5),
                leather,
                casts=True,
                strokes=(Stroke(trace((x - 2, 9), [(x + 2, 9)]), 0.6, look.metal),),
            )
            for x in (-13, 13)
        ]
        return parts
    if style == "Crossbody":
        width, depth = look.vary(30, 34), look.vary(38, 44)
        body = mirrored(
            trace(
                (0, 0),
                [(width - 5, 0), (width, 4)],
                [(width + 1.5, depth * 0.6), (width, depth - 6)],
                [(width - 2, depth), (width - 9, depth)],
                [(0, depth + 1)],
            )
        )
        flap = mirrored(
            trace(
                (0, -2),
                [(width - 4, -2), (width + 0.6, 3)],
                [(width + 2, depth * 0.45), (width - 7, depth * 0.58)],
                [(width * 0.5, depth * look.vary(0.62, 0.74)), (0, depth * 0.66)],
            )
        )
        strap = trace((-width + 1, 5), [(-width + 4, -52), (width - 4, -52), (width - 1, 5)], steps=36)
        parts = [
            Part(ribbon(strap, 2), look.metal if look.chance(0.4) else leather, bevel=0.8),
            Part(body, look.base, look.fabric, bevel=0.7),
            Part(flap, look.base, look.fabric, bevel=0.8, casts=True, strokes=(_stitched(flap, look, 0.93),)),
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
        body = mirrored(trace((0, 2), [(20, 2)], [(23, 20), (27, depth - 4)], [(25, depth + 2), (0, depth + 3)]))
        strap = trace((-19, 6), [(-16, -44), (16, -44), (19, 6)], steps=30)
        gathers = tuple(
            s for x in np.linspace(-16, 16, 7) for s in _fold(trace((x, 2), [(x * 1.1, 14), (x * 1.25, 26)]), 0.26, 1.4)
        )
        parts = [
            Part(ribbon(strap, 2.8), leather, bevel=0.7),
            Part(ellipse(0, 3, 20, 3.4), darker(look.base, 0.55)),
            Part(body, look.base, look.fabric, bevel=0.9, strokes=gathers),
            Part(
                mirrored(
                    trace((0, depth - 8), [(26.6, depth - 10)], [(27, depth - 3)], [(25, depth + 3), (0, depth + 3.4)])
                ),
                leather,
            ),
            Part(ribbon(trace((-21, 13), [(0, 17), (21, 13)]), 1.7), leather, casts=True),
        ]
        for x in (-2.5, 2.5):
            parts.append(Part(ribbon(trace((x, 15), [(x * 2, 22), (x * 1.6, 29)]), 1.6), leather, casts=True))
            parts.append(Part(ellipse(x * 1.6, 30, 1.7, 2.4), look.metal))
        return parts
    width, depth = look.vary(31, 36), look.vary(42, 48)
    body = mirrored(
        trace(
            (0, 0),
            [(width * 0.72, 0)],
            [(width * 0.82, 0), (width * 0.85, 5)],
            [(width, depth - 4)],
            [(width, depth), (width - 5, depth)],
            [(0, depth)],
        )
    )
    handle = trace((-12, 2), [(-14, -24), (14, -24), (12, 2)], steps=30)
    belt = mirrored(trace((0, 11), [(width * 0.88, 11)], [(width * 0.9, 16)], [(0, 16)]))
    parts = [
        Part(ribbon(handle, 3.6), leather, bevel=0.9),
        Part(body, look.base, look.fabric, bevel=0.8, strokes=(_stitched(body, look, 0.94),)),
        Part(belt, leather, bevel=0.5, casts=True),
        Part(box(-5, 8, 5, 20, 2), look.metal, bevel=0.9, casts=True, holes=(box(-2.6, 11, 2.6, 17, 1),)),
    ]
    parts += [Part(box(x - 2.4, -2, x + 2.4, 8, 2), leather, casts=True) for x in (-12, 12)]
    parts += [Part(box(x - 4, depth - 1, x + 4, depth + 1.6, 1), look.metal) for x in (-width + 9, width - 9)]
    return parts


def _backpack(look: Look, style: str) -> list[Part]:
    leather = look.trim if look.chance(0.45) else darker(look.base, 0.25)
    width, height = look.vary(29, 33), look.vary(74, 82)
    body = mirrored(
        trace(
            (0, 0),
            [(width * 0.7, 0), (width * 0.95, 8), (width, 26)],
            [(width + 2, height * 0.7), (width, height - 7)],
            [(width - 1, height), (width - 9, height)],
            [(0, height + 1)],
        )
    )
    loop = trace((-7, 3), [(-7, -11), (7, -11), (7, 3)], steps=24)
    strap = trace((width * 0.8, 10), [(width + 10, 26), (width + 8, height * 0.66), (width + 1, height - 6)], steps=24)
    parts = [Part(ribbon(path, (7, 4.5)), darker(leather, 0.2)) for path in _both_sides(strap)]
    parts += [Part(ribbon(loop, 3), leather, bevel=0.7), Part(body, look.base, look.fabric, bevel=0.8, strokes=(Stroke(trace((-width, 30), [(-width * 0.9, 6), (0, 5), (width * 0.9, 6)], [(width, 30)]), 0.9, look.seam, 0.8),))]  # fmt: skip
    pocket_y = height * look.vary(0.5, 0.56)
    pocket = mirrored(
        trace(
            (0, pocket_y),
            [(width * 0.7, pocket_y), (width * 0.78, pocket_y + 5)],
            [(width * 0.8, height - 8)],
            [(width * 0.76, height - 3), (width * 0.6, height - 3)],
            [(0, height - 2)],
        )
    )
    fabric = look.fabric if look.chance(0.6) else None
    parts.append(Part(pocket, look.base if fabric else darker(look.base, 0.08), fabric, bevel=0.8, casts=True))
    if style == "Flap":
        flap = mirrored(
            trace(
                (0, -1),
                [(width * 0.72, -1), (width * 0.98, 9), (width, 22)],
                [(width, height * 0.4)],
                [(width * 0.9, height * 0.46), (0, height * 0.47)],
            )
        )
        parts.append(Part(flap, look.base, look.fabric, bevel=0.8, casts=True, strokes=(_stitched(flap, look, 0.94),)))
        for x in (-width * 0.42, width * 0.42):
            parts.append(Part(box(x - 2.4, height * 0.3, x + 2.4, height * 0.64, 2), leather, casts=True))
            parts.append(Part(box(x - 3.6, height * 0.52, x + 3.6, height * 0.59, 1), look.metal, holes=(box(x - 2, height * 0.535, x + 2, height * 0.575),), bevel=0.8))  # fmt: skip
    else:
        zips = (
            trace((-width * 0.92, 34), [(-width * 0.85, 10), (0, 9)], [(width * 0.85, 10), (width * 0.92, 34)]),
            trace((-width * 0.66, pocket_y + 5), [(0, pocket_y + 3), (width * 0.66, pocket_y + 5)]),
        )
        for path in zips:
            parts.append(Part(ribbon(path, 1.8), darker(look.base, 0.45), bevel=0.3))
        parts += [
            Part(ribbon(trace((x, y), [(x + 0.6, y + 7)]), 1.6), look.metal, casts=True)
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
        band = (
            mirrored(
                trace((0, 10), [(strap, 10)], [(strap * 0.94, 40), (strap * 0.82, 58)], [(strap * 0.7, 62), (0, 62.5)])
            )
            * flip
        )
        strokes: tuple[Stroke, ...] = (_stitched(band, look, 0.9),)
        if steel:
            strokes = tuple(
                Stroke(np.asarray([(-12, y), (12, y)]) * flip, 0.7, darker(look.base, 0.5), 0.9)
                for y in np.arange(18, 64, 5)
            )
            strokes += tuple(
                Stroke(np.asarray([(x, 10), (x * 0.85, 64)]) * flip, 0.7, darker(look.base, 0.45), 0.8)
                for x in (-strap * 0.4, strap * 0.4)
            )
        elif side == 1:
            strokes += tuple(
                Stroke(np.asarray([(-0.3, y), (0.3, y + 0.3)]), 1.5, darker(look.base, 0.6)) for y in (40, 45, 50, 55)
            )
        parts.append(Part(band, look.base, look.fabric, bevel=0.9, roundness=0.5 if steel else 0.25, strokes=strokes))
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
    glare = Stroke(trace((-radius * 0.9, radius * 0.1), [(0, -radius * 0.9)]), radius * 0.28, (255, 255, 255), 0.16)
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
        arm = trace(
            (edge * side - 3 * side, -9 + lens_middle_y),
            [(edge * side, -26), ((edge - 18) * side, -25)],
            [((edge - 60) * side, -20 - 2 * side)],
        )
        parts.append(Part(ribbon(arm, (3.6, 2.6)), darker(look.base, 0.25), bevel=0.7))
    bridge_y = lens_middle_y - (5 if style != "Round" else 3)
    parts.append(
        Part(
            ribbon(trace((-gap - 3, bridge_y), [(0, bridge_y - 6), (gap + 3, bridge_y)]), 2.2 if thin else 4.5),
            look.base,
            bevel=0.8,
        )
    )
    if thin:
        parts.append(
            Part(ribbon(trace((-gap - 8, -11), [(0, -13), (gap + 8, -11)]), 1.9), look.base, bevel=0.8)
        ) if style == "Aviator" else None
    for side in (1, -1):
        flip = (side, 1)
        glow = Stroke(
            np.asarray([centre + (-20, 14), centre + (20, 14)]) * flip, 16, lighter(lens_colour, 0.6), 0.55, soft=5
        )
        glare = tuple(
            Stroke(np.asarray([centre * flip + (-16 + x, 12), centre * flip + (0 + x, -18)]), w, (255, 255, 255), 0.26) for x, w in ((0, 4), (7, 1.6))
        )  # fmt: skip
        parts.append(Part(lens * flip, lens_colour, bevel=-0.4, edge=0.2, opacity=0.96, strokes=(glow, *glare)))
        parts.append(Part(rim * flip, look.base, look.fabric, holes=(lens * flip,), bevel=1.0, edge=0.35))
        if not thin:
            parts.append(Part(ellipse((edge - 3) * side, lens_middle_y - half[1] * 0.75, 1.1, 0.9), look.metal))
    return parts


def _cap(look: Look, style: str) -> list[Part]:
    if style == "Beanie":
        crown = mirrored(trace((0, -34), [(24, -34), (33, -14), (33, 14)], [(0, 20)]))
        knit = tuple(
            Stroke(trace((x * 0.35, -34), [(x * 1.1, -20), (x, 20)]), 0.7, look.seam, 0.4)
            for x in np.linspace(-31, 31, 17)
        )
        fold = mirrored(trace((0, 8), [(20, 8), (34.5, 4)], [(36, 14), (34, 24)], [(20, 28), (0, 28)]))
        brim = look.trim if look.chance(0.35) else darker(look.base, 0.08)
        parts = [
            Part(crown, look.base, look.fabric, bevel=0.9, strokes=knit),
            Part(fold, brim, bevel=0.8, casts=True, strokes=_ribs(-34, 34, 0, 30, darker(brim, 0.35), 24)),
        ]
        if look.chance(0.55):
            angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
            r = 9.5 + 0.9 * np.sin(angles * 13)
            pompom = np.stack([r * np.cos(angles), -39 + r * np.sin(angles)], axis=1)
            parts.insert(0, Part(pompom, look.pick(brim, _CREAM, lighter(look.base, 0.35)), bevel=1.0))
        return parts
    if style == "Bucket Hat":
        crown = mirrored(trace((0, -27), [(22, -28), (25, -22)], [(29, 4)], [(0, 10)]))
        brim = mirrored(trace((0, 6), [(20, 6), (28, 0)], [(38, 8), (45, 18)], [(26, 29), (0, 29)]))
        rows = tuple(
            Stroke(
                trace((-46, y), [(-20, y + 8), (0, y + 8)], [(20, y + 8), (46, y)]), 0.45, look.seam, 0.6, dashed=True
            )
            for y in (6, 10, 14, 18)
        )
        seam = (Stroke(trace((-26, -20), [(0, -15), (26, -20)]), 0.6, look.seam, 0.7),)
        return [
            Part(crown, look.base, look.fabric, bevel=0.8, strokes=seam),
            Part(
                ribbon(trace((-29, 1), [(0, 9), (29, 1)]), 3.4),
                look.trim if look.chance(0.4) else darker(look.base, 0.15),
            ),
            Part(brim, look.base, look.fabric, bevel=0.8, strokes=rows, casts=True),
        ]
    crown = trace((-36, 16), [(-38, -22), (-12, -31), (0, -30)], [(22, -30), (30, -8), (30, 12)], [(0, 22), (-36, 16)])
    panels = tuple(
        Stroke(path, 0.7, look.seam, 0.75)
        for path in (trace((-2, -30), [(14, -18), (12, 18)]), trace((-2, -30), [(-22, -20), (-20, 18)]))
    )
    visor = trace((-2, 15), [(14, 11), (30, 10)], [(54, 13), (60, 23)], [(56, 28), (48, 26)], [(24, 19), (-2, 19)])
    brim = look.trim if look.chance(0.35) else darker(look.base, 0.1)
    stitches = tuple(
        Stroke(trace((0, 15 + d), [(32, 10 + d), (60, 24 + d)]), 0.4, darker(brim, 0.4), 0.6, dashed=True)
        for d in (3, 5.5)
    )
    parts = [
        Part(crown, look.base, look.fabric, bevel=0.9, strokes=panels),
        Part(visor, brim, bevel=0.8, strokes=stitches, casts=True),
        Part(ellipse(-2, -30.5, 2.6, 1.6), brim),
    ]
    parts += [Part(ellipse(x, y, 0.9), darker(look.base, 0.5)) for x, y in ((4, -18), (-13, -18))]
    if look.chance(0.5):
        badge = look.pick(ellipse(20, -4, 5.5, 6.5), box(14, -9, 26, 1, 2), trace((20, -11), [(27, 2)], [(13, 2)]))
        parts.append(Part(badge, look.trim if brim != look.trim else _CREAM, casts=True))
    return parts


def _socks(look: Look, style: str) -> list[Part]:
    leg = {"Ankle": look.vary(10, 16), "Crew": look.vary(38, 46), "Knee-High": look.vary(70, 80)}[style]
    accent = look.trim if look.chance(0.65) else darker(look.base, 0.16)
    outline = trace(
        (-10, -leg), [(10, -leg)], [(10, -6), (13, 8)], [(20, 16), (33, 22)], [(43, 28), (36, 38)], [(30, 42), (20, 39)],
        [(6, 34), (-4, 30)], [(-15, 25), (-12, 8)], [(-9, -10), (-10, -leg)],
    )  # fmt: skip
    heel = trace((-16, 4), [(4, 14), (0, 34)], [(-20, 34)])
    toe = trace((26, 16), [(22, 30), (28, 44)], [(48, 44)], [(48, 16)])
    cuff = trace((-10.4, -leg - 1), [(10.4, -leg - 1)], [(10.6, -leg + 7)], [(-10.6, -leg + 7)])
    parts = []
    for dx, dy, shade in ((-17, -5, 0.1), (6, 3, 0.0)):
        shift = np.asarray((dx, dy))
        folds = (
            *_fold(trace((12, 6), [(4, 12), (-2, 12)]) + shift, 0.25),
            *_fold(trace((13, 12), [(6, 17), (0, 19)]) + shift, 0.18),
        )
        parts.append(Part(outline + shift, darker(look.base, shade), look.fabric, strokes=folds, casts=True))
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
        return trace(
            (x - 7, 8),
            [(x - 10 + lean, length * 0.5), (x - 11 + lean, length)],
            [(x + 9 + lean, length)],
            [(x + 9 + lean, length * 0.5), (x + 7, 8)],
        )

    loop = trace((-25, 8), [(-27, -14), (0, -19)], [(27, -14), (25, 8)], [(18, 24), (0, 25)], [(-18, 24), (-25, 8)])
    hole = trace((-14, 0), [(-12, -8), (0, -10)], [(12, -8), (14, 0)], [(8, 7), (0, 7)], [(-8, 7), (-14, 0)])
    wraps: tuple[Stroke, ...] = ()
    for offset in (0, 4.5, 9):
        wraps += _fold(trace((-24, 3 + offset), [(0, 12 + offset * 1.4), (24, 3 + offset)]), 0.3, 1.6)
    parts: list[Part] = []
    if style == "Snood":
        outer = trace(
            (-30, 12), [(-32, -16), (0, -20)], [(32, -16), (30, 12)], [(28, 44), (0, 46)], [(-28, 44), (-30, 12)]
        )
        hole = trace((-17, 0), [(-14, -10), (0, -11)], [(14, -10), (17, 0)], [(10, 10), (0, 10)], [(-10, 10), (-17, 0)])
        for offset in (0, 8, 16, 24):
            wraps += _fold(trace((-29, 6 + offset * 0.7), [(0, 20 + offset), (29, 8 + offset * 0.5)]), 0.3, 2)
        return [
            Part(hole, darker(look.base, 0.55)),
            Part(outer, look.base, look.fabric, 8, bevel=0.9, holes=(hole,), strokes=wraps),
        ]
    for x, lean, length in ((-7, -6, left), (8, 5, right)):
        strokes = tuple(
            s
            for t in (-3, 3)
            for s in _fold(
                trace((x + t, 14), [(x + t * 1.4 + lean, length * 0.5), (x + t * 1.6 + lean, length)]), 0.2, 1.6
            )
        )
        if style == "Fringed":
            for fx in np.linspace(x - 10 + lean, x + 8 + lean, 10):
                parts.append(
                    Part(
                        ribbon(trace((fx, length - 1), [(fx + look.vary(-1, 1), length + 9)]), (1.5, 0.9)),
                        darker(look.base, 0.1),
                    )
                )
        parts.append(Part(tail(x, lean, length), look.base, look.fabric, -lean * 0.8, strokes=strokes, casts=True))
        if style != "Fringed":
            parts.append(
                Part(_inside(tail(x, lean, length), box(-60, length - 8, 60, length - 4)), look.trim, bevel=0.1, edge=0)
            )
    parts.insert(0, Part(hole, darker(look.base, 0.55), bevel=0.1))
    parts.append(Part(loop, look.base, look.fabric, 70, holes=(hole,), strokes=wraps, bevel=0.8, casts=True))
    return parts


def _umbrella(look: Look, style: str) -> list[Part]:
    handle = look.pick(_WOOD, _DARK_WOOD, _RUBBER)
    if style == "Folded":
        body = mirrored(trace((0, -46), [(3, -44), (4, -30)], [(8.5, 10), (7.5, 26)], [(4, 30), (0, 30)]))
        pleats = tuple(
            s for x in (-3, 1, 4.5) for s in _fold(trace((x * 0.2, -44), [(x, -10), (x * 1.1, 28)]), 0.4, 1.3)
        )
        hook = trace((0, 28), [(0, 52)], [(0, 62), (7, 62)], [(13, 62), (13, 54)])
        return [
            Part(ribbon(hook, 3.2), handle, bevel=0.9),
            Part(box(-1, -54, 1, -44, 1), look.metal),
            Part(body, look.base, look.fabric, 14, bevel=1.0, strokes=pleats),
            Part(ribbon(trace((-8, 12), [(0, 15), (8.4, 11)]), 3.4), look.trim, casts=True),
            Part(ellipse(2, 13.2, 1.3), look.metal),
        ]
    count, width, rise = int(look.rng.integers(5, 8)), 50.0, look.vary(30, 40)
    xs = np.linspace(-width, width, count + 1)
    scallops = np.concatenate(
        [trace((a, 0), [((a + b) / 2, -7), (b, 0)]) for a, b in zip(xs[:-1], xs[1:], strict=True)]
    )
    canopy = np.concatenate(
        [
            trace((width, 0), [(width * 0.92, -rise * 0.9), (0, -rise)], [(-width * 0.92, -rise * 0.9), (-width, 0)]),
            scallops,
        ]
    )
    ribs: tuple[Stroke, ...] = ()
    for x in xs[1:-1]:
        path = trace((0, -rise), [(x * 0.95, -rise * 0.95), (x, 1)])
        ribs += (Stroke(path + (1.4, 0), 3, (0, 0, 0), 0.25, soft=1.6), Stroke(path, 0.55, look.seam, 0.9))
    inside = np.concatenate([ellipse(0, -1.5, width * 0.97, 5)])
    hook = trace((0, -rise), [(0, 46)], [(0, 57), (7.5, 57)], [(14, 57), (14, 48)])
    return [
        Part(inside, darker(look.base, 0.5), bevel=0.1),
        Part(ribbon(trace((0, -rise), [(0, 38)]), 1.7), _SILVER, bevel=0.9),
        Part(ribbon(hook[2:] if len(hook) > 4 else hook, 3.4), handle, bevel=1.0),
        Part(ribbon(trace((0, 30), [(0, 47)]), 3.4), handle, bevel=1.0),
        Part(box(-1, -rise - 7, 1, -rise + 2, 1), look.metal),
        Part(canopy, look.base, look.fabric, bevel=1.0, strokes=ribs),
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
    handle = trace(
        (x - 3, height * 0.2), [(x + 21, height * 0.1), (x + 21, height * 0.72), (x - 5, height * 0.72)], steps=28
    )
    if look.chance(0.3):
        handle = trace(
            (x - 3, height * 0.2),
            [(x + 14, height * 0.18)],
            [(x + 18, height * 0.2), (x + 16, height * 0.36)],
            [(x + 11, height * 0.68), (x - 6, height * 0.74)],
        )
    foot = radius * taper
    side = trace(
        (radius, 0),
        [(radius, height * 0.6), (foot + 1, height * 0.9)],
        [(foot, height + lip * 0.4), (foot * 0.5, height + lip * 0.75)],
        [(0, height + lip * 0.85)],
    )
    body = mirrored(np.concatenate([[(0, 0)], side]))
    inner = lighter(look.base, 0.75) if look.chance(0.5) else mix(look.base, (255, 255, 255), 0.12)
    drink = look.pick(None, None, (92, 56, 34), (150, 90, 40))
    shine = Stroke(
        trace((-radius * 0.62, height * 0.15), [(-radius * 0.66, height * 0.5), (-foot * 0.6, height * 0.82)]),
        3.2,
        (255, 255, 255),
        0.5,
        soft=1.4,
    )
    parts = [
        Part(ribbon(handle, 5.2 if style != "Espresso" else 4.2), look.base, bevel=1.0),
        Part(body, look.base, look.fabric, roundness=1.0, wrap=True, bevel=0.3, strokes=(shine,)),
        Part(ellipse(0, 0, radius, lip), lighter(look.base, 0.3), edge=0.4, bevel=0.3),
        Part(ellipse(0, 0.4, radius * 0.93, lip * 0.8), darker(inner, 0.12), bevel=-0.8, edge=0.3),
    ]
    if drink:
        parts.append(Part(ellipse(0, lip * 0.42, radius * 0.84, lip * 0.5), drink, bevel=0.2))
    if look.fabric is None and look.chance(0.3):
        glyph = look.pick(
            trace(
                (0, height * 0.62),
                [(-18, height * 0.42), (-7, height * 0.3), (0, height * 0.42)],
                [(7, height * 0.3), (18, height * 0.42), (0, height * 0.62)],
            ),
            ellipse(0, height * 0.46, 8),
            trace((0, height * 0.3), [(10, height * 0.58)], [(-10, height * 0.58)]),
        )
        parts.append(Part(glyph, look.trim, bevel=0.1, edge=0.1))
    if style == "Espresso" and look.chance(0.7):
        saucer = Part(ellipse(0, height + lip * 0.4, radius * 1.75, radius * 0.34), look.base, bevel=0.6)
        parts = [
            saucer,
            Part(ellipse(0, height + lip * 0.1, radius * 1.3, radius * 0.22), darker(look.base, 0.1), bevel=-0.5),
            *parts,
        ]
    return parts


def _bottle(look: Look, style: str) -> list[Part]:
    radius, height = look.vary(14, 17), look.vary(76, 88)
    cap = look.pick(_RUBBER, _SILVER, _WOOD, (244, 243, 238))
    shoulder = look.vary(10, 18)
    neck = radius * look.vary(0.55, 0.7)
    body = mirrored(
        trace(
            (0, 0),
            [(neck, 0)],
            [(neck, shoulder * 0.5), (radius, shoulder * 0.6), (radius, shoulder)],
            [(radius, height - 4)],
            [(radius, height + 1), (radius - 5, height + 1.6)],
            [(0, height + 2)],
        )
    )
    shine = Stroke(
        trace((-radius * 0.5, shoulder + 2), [(-radius * 0.5, height - 5)]), 3, (255, 255, 255), 0.45, soft=1.2
    )
    parts = []
    if style == "Flask":
        loop = trace((-6, -12), [(-7, -26), (7, -26), (6, -12)], steps=24)
        parts.append(Part(ribbon(loop, 2.6), cap, bevel=0.8))
    else:
        parts.append(Part(box(-3, -20, 3, -9, 1.6), mix(look.base, (255, 255, 255), 0.3), bevel=0.9))
    parts += [
        Part(body, look.base, look.fabric, roundness=1.0, wrap=True, bevel=0.3, strokes=(shine,)),
        Part(
            box(-neck - 1.6, -12, neck + 1.6, 1, 2),
            cap,
            roundness=0.8,
            strokes=_ribs(-neck, neck, -12, 2, darker(cap, 0.4), 9),
        ),
        Part(
            mirrored(
                trace(
                    (0, height - 7),
                    [(radius, height - 7.5)],
                    [(radius, height + 1), (radius - 5, height + 1.6)],
                    [(0, height + 2)],
                )
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
        outline = mirrored(
            trace((0, 2), [(width * 0.95, 2), (width, height * 0.85)], [(width * 0.5, height * 0.98), (0, height)])
        )
        rim_top = None
    else:
        top = width * (0.86 if shade_form == "Drum" else look.vary(0.42, 0.55))
        outline = mirrored(
            trace(
                (0, 2.0),
                [(top * 0.7, 1.6), (top, 0)],
                [(width, height)],
                [(width * 0.6, height + 3.4), (0, height + 3.6)],
            )
        )
        rim_top = ellipse(0, 0.3, top, 2)
    shade = Part(outline, look.base, look.fabric, roundness=0.7, bevel=0.2, wrap=True, strokes=(light,))
    parts: list[Part] = []
    base_form = "stand" if floor else look.pick("ball", "vase", "stand", "tripod")
    if base_form == "tripod":
        for x in (-17, 17, 2):
            parts.append(Part(ribbon(trace((x * 0.12, height - 2), [(x, stem_end)]), (2.6, 3.2)), stem, bevel=1.0))
    else:
        parts.append(Part(box(-1.4, height - 4, 1.4, stem_end, 1), stem, roundness=0.6, bevel=0.8))
    pottery = (
        look.base
        if look.chance(0.4)
        else look.pick(_CREAM, (214, 206, 196), darker(look.base, 0.35), lighter(look.base, 0.4))
    )
    shine = (
        Stroke(
            trace((-6, height + 16), [(-9, (height + stem_end) / 2), (-6, stem_end - 10)]),
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
        parts.append(Part(mirrored(trace((0, top_y), [(4, top_y)], [(5, top_y + 8), (13, top_y + 12), (13, stem_end - 18)], [(12, stem_end - 6), (7, stem_end - 2)], [(0, stem_end - 2)])), pottery, bevel=1.0, roundness=0.5, strokes=shine))  # fmt: skip
    if base_form != "tripod":
        parts.append(Part(mirrored(trace((0, stem_end - 4), [(8, stem_end - 4), (14, stem_end)], [(14, stem_end + 3), (0, stem_end + 4)])), stem, bevel=0.9, roundness=0.5))  # fmt: skip
    parts.append(shade)
    if rim_top is not None:
        parts.append(Part(rim_top, lighter(look.base, 0.45), bevel=0.1, edge=0.4))
    if shade_form != "Dome":
        trim = look.trim if look.chance(0.4) else darker(look.base, 0.15)
        parts.append(
            Part(
                ribbon(trace((-width, height - 0.6), [(0, height + 6.4), (width, height - 0.6)])[1:-1], 1.8),
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
        return Part(ribbon(trace((x0, y0), [(x1, y1)]), (thick * 1.25, thick * 0.8)), wood, bevel=1.0)

    if style == "Bar Stool":
        seat_w, y = look.vary(20, 24), look.vary(72, 80)
        parts = [leg(x * 0.55, 6, x * 0.8, y - 5, 2.6) for x in (-seat_w, seat_w)]
        parts += [
            Part(ribbon(trace((-seat_w * 0.8, y * 0.6), [(seat_w * 0.8, y * 0.6)]), 2.4), darker(wood, 0.15), bevel=0.8)
        ]
        parts += [leg(x * 0.75, 6, x * 1.05, y, 3) for x in (-seat_w, seat_w)]
        parts.append(Part(ribbon(trace((-seat_w * 0.98, y * 0.72), [(seat_w * 0.98, y * 0.72)]), 2.6), wood, bevel=0.8))
        seat = mirrored(
            trace((0, -3), [(seat_w, -3), (seat_w + 1, 3)], [(seat_w + 1, 10), (seat_w - 3, 10)], [(0, 11.5)])
        )
        parts.append(
            Part(
                seat,
                look.base,
                look.fabric,
                bevel=0.9,
                strokes=(Stroke(trace((-30, 4), [(0, 6), (30, 4)]), 0.6, look.seam, 0.7),),
                casts=True,
            )
        )
        if look.chance(0.5):
            back = mirrored(
                trace((0, -34), [(seat_w * 0.9, -34), (seat_w * 0.95, -26)], [(seat_w * 0.95, -16)], [(0, -14)])
            )
            parts = (
                [leg(x * 0.8, -2, x * 0.8, -28, 2.4) for x in (-seat_w, seat_w)]
                + parts
                + [Part(back, look.base, look.fabric, bevel=0.9)]
            )
        return parts
    if style == "Dining":
        w = look.vary(20, 23)
        back = mirrored(trace((0, -44), [(w * 0.9, -44), (w * 0.96, -36)], [(w * look.vary(0.82, 1.0), -8)], [(0, -5)]))
        seat = mirrored(trace((0, 8), [(w, 8)], [(w + 4, 20), (w + 4, 22)], [(w + 3, 27), (w - 2, 27)], [(0, 28.5)]))
        tufts = (
            tuple(Stroke(ellipse(x, y, 0.7), 0.9, look.seam, 0.9) for x in (-9, 0, 9) for y in (-34, -24, -14))
            if look.chance(0.4)
            else ()
        )
        parts = [leg(x * 0.86, 12, x * 0.82, 62, 2.6) for x in (-w, w)]
        parts += [leg(x * 0.8, -10, x * 0.84, 14, 3) for x in (-w, w)]
        parts += [Part(back, look.base, look.fabric, bevel=0.9, strokes=tufts)]
        parts += [leg(x, 22, x * 1.06, 70, 3.4) for x in (-w, w)]
        parts.append(
            Part(
                seat,
                look.base,
                look.fabric,
                bevel=0.9,
                casts=True,
                strokes=_fold(trace((-w, 14), [(0, 17), (w, 14)]), 0.16),
            )
        )
        return parts
    w, lift = look.vary(27, 31), look.vary(40, 48)
    back = mirrored(trace((0, -lift), [(w * 0.8, -lift), (w, -lift + 5), (w, -lift + 20)], [(w * 1.02, 24)], [(0, 26)]))
    tufts: tuple[Stroke, ...] = ()
    if look.fabric is None and look.chance(0.5):
        tufts = tuple(
            s
            for x in (-14, 0, 14)
            for y in (-26, -12, 2)
            for s in (
                Stroke(ellipse(x, y, 0.8), 1.1, look.seam, 0.9),
                Stroke(ellipse(x, y, 2.6), 1.4, (0, 0, 0), 0.2, soft=1.2),
            )
        )
    elif look.chance(0.5):
        tufts = tuple(s for x in (-10, 10) for s in _fold(trace((x, -lift), [(x * 1.05, 20)]), 0.3, 1.2))
    cushion = mirrored(trace((0, 10), [(w * 0.86, 10), (w * 0.88, 15)], [(w * 0.9, 24), (w * 0.84, 25)], [(0, 26.5)]))
    front = mirrored(trace((0, 22), [(w * 0.95, 22)], [(w * 0.95, 42)], [(0, 43)]))
    arm = trace(
        (w * 0.78, -2),
        [(w * 0.8, -9), (w * 1.06, -9)],
        [(w * 1.36, -9), (w * 1.34, 2)],
        [(w * 1.22, 42)],
        [(w * 0.84, 42.5)],
    )
    parts = [leg(x, 38, x * 1.14, 58) for x in (-w, w)]
    parts += [
        Part(back, look.base, look.fabric, bevel=1.0, strokes=tufts),
        Part(front, look.base, look.fabric, bevel=0.5),
    ]
    parts.append(Part(cushion, look.base, look.fabric, bevel=1.0, casts=True))
    parts += [
        Part(
            path,
            look.base,
            look.fabric,
            bevel=1.0,
            casts=True,
            strokes=(Stroke(path * (0.97, 0.97), 0.5, look.seam, 0.5),),
        )
        for path in _both_sides(arm)
    ]
    if look.chance(0.3):
        pillow = smooth([(-13, -12), (0, -10.5), (13, -13), (12, 0), (14, 13), (0, 11.5), (-13, 13), (-12, 0)])
        parts.insert(-2, Part(pillow, look.trim, bevel=1.0, casts=True))
    return parts


def _cushion(look: Look, style: str) -> list[Part]:
    piping = look.trim if look.chance(0.45) else darker(look.base, 0.2)
    if style == "Round":
        outline = ellipse(0, 0, 42)
        pleats = tuple(
            s
            for a in np.linspace(0, 2 * np.pi, 13)[:-1]
            for s in _fold(np.asarray([(7 * np.cos(a), 7 * np.sin(a)), (34 * np.cos(a), 34 * np.sin(a))]), 0.2, 1.2)
        )
        button = Part(ellipse(0, 0, 4), piping, bevel=1.0, casts=True)
        return [
            Part(ellipse(0, 0, 43.6), piping, bevel=0.8),
            Part(outline, look.base, look.fabric, bevel=1.3, strokes=pleats),
            button,
        ]
    b = look.vary(4, 7)
    corners = trace(
        (-42, -42),
        [(0, -42 + b), (42, -42)],
        [(42 - b, 0), (42, 42)],
        [(0, 42 - b), (-42, 42)],
        [(-42 + b, 0), (-42, -42)],
    )
    folds: tuple[Stroke, ...] = ()
    for sx in (1, -1):
        for sy in (1, -1):
            folds += _fold(
                np.asarray([(40 * sx, 40 * sy), (look.vary(22, 28) * sx, look.vary(24, 30) * sy)]), 0.28, 1.6
            )
    parts = [Part(corners * 1.035, piping, bevel=0.8), Part(corners, look.base, look.fabric, bevel=1.4, strokes=folds)]
    if look.chance(0.35):
        for sx in (1, -1):
            for sy in (1, -1):
                x, y = 43 * sx, 43 * sy
                tassel = ribbon(trace((x, y), [(x + 3 * sx, y + 5), (x + 3 * sx, y + 10)]), (2.2, 4.6))
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
}  # fmt: skip


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
    small = kind in ("Watches", "Sunglasses", "Heels", "Umbrellas", "Socks")
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
        ((243, 240, 234), (236, 241, 246), (245, 236, 234), (237, 243, 236), (242, 239, 246), (248, 243, 228))[int(rng.integers(6))],
        np.float32,
    )  # fmt: skip
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
    width, height = size

    base = tuple(np.clip(np.asarray(COLOURS[colour]) + rng.normal(0, 5, 3) + rng.normal(0, 4), 8, 250).tolist())
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
    backdrop = _background(size, ground / height - 0.06 if ground is not None else None, rng)
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
