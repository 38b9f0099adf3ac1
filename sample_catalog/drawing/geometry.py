"""Outlines as points, (points, 2), in object units: about 100 tall or wide, x to the right, y down."""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

Point = tuple[float, float]


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


def both_sides(path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The path and its mirror image about x = 0."""
    return path, path * (-1, 1)


def clip(outline: np.ndarray, patch: np.ndarray) -> np.ndarray:
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
