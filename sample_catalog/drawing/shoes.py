"""Shoes, in side view with the toe to the right: sneakers, boots and heels."""

import numpy as np

from acebert.sample_catalog.drawing.geometry import box, curve, ellipse, ribbon, tube
from acebert.sample_catalog.drawing.paint import (
    CREAM,
    DARK_WOOD,
    RUBBER,
    Colour,
    Look,
    Part,
    Stroke,
    darker,
    fold_strokes,
    lighter,
    luminance,
    mix,
    rib_strokes,
)


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


def draw_sneaker(look: Look, style: str) -> list[Part]:
    high, slip_on = style == "High-Top", style == "Slip-On"
    top = -34 if high else -16
    rubber = look.pick((244, 243, 238), (244, 243, 238), CREAM, look.shade(0.55), (206, 160, 112))
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


def draw_boot(look: Look, style: str) -> list[Part]:
    height = {"Ankle": look.vary(28, 36), "Chelsea": look.vary(36, 42), "Knee-High": look.vary(82, 92)}[style]
    heel = look.vary(6, 15) if style != "Chelsea" else look.vary(5, 8)
    half = 13 + (3 if style == "Knee-High" else 0)
    top = -height
    upper = curve(
        f"M-15 {25 - heel} Q-20 10 -16 0 C-17 -14 {-15 - half * 0.35} {top * 0.6} {-4 - half} {top} "
        f"Q-4 {top + 3} {-4 + half} {top - 1} C{-4 + half} {top * 0.55} 6 -12 10 -4 Q16 7 28 9 Q42 12 42 27 "
        f"L14 29 Q6 {28 - heel * 0.5} -15 {27 - heel}"
    )
    sole_colour = look.pick(RUBBER, DARK_WOOD, look.shade(0.55))
    folds = (
        *fold_strokes(curve("M-15 -2 Q-6 4 8 -2"), 0.3),
        *fold_strokes(curve("M-15 -8 Q-4 -3 8 -9"), 0.24),
        *(fold_strokes(curve(f"M-8 {top * 0.8} Q-10 {top * 0.5} -9 -20"), 0.2, 2) if style == "Knee-High" else ()),
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
                RUBBER if luminance(look.base) > 70 else look.shade(0.4),
                strokes=rib_strokes(-9, 3, top, 0, (20, 20, 20), 9),
            )
        )
        parts.append(Part(tube(f"M-16 {top + 1} Q-17 {top - 7} -14 {top + 2}", 2.2), look.trim))
    elif style == "Ankle" and look.chance(0.7):
        parts += _laces(curve(f"M-1 {top + 6} Q2 -14 10 -2"), 5, look.pick(CREAM, RUBBER, (200, 150, 90)), 8)
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


def draw_heel(look: Look, style: str) -> list[Part]:
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
    sole_colour = look.pick(RUBBER, (196, 150, 110), look.shade(0.45))
    sole = tube(f"M-42 {back + 6} Q-24 {back + 10} -6 25 Q10 34.5 30 34.2 L50 33", 1.8)
    shine = Stroke(curve("M26 22 Q36 24 43 29"), 2.2, (255, 255, 255), 0.5, soft=1)
    parts = [
        Part(heel, look.base if look.chance(0.75) else sole_colour, bevel=0.9),
        Part(lining, mix(look.base, CREAM, 0.75), bevel=0.3),
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
