"""Things for the home, and bottles: mugs, water bottles, lamps, chairs, stools and cushions."""

import numpy as np

from acebert.sample_catalog.drawing.geometry import (
    both_sides,
    box,
    curve,
    ellipse,
    half,
    mirrored,
    ribbon,
    smooth,
    tube,
)
from acebert.sample_catalog.drawing.paint import (
    CREAM,
    DARK_WOOD,
    GOLD,
    RUBBER,
    SILVER,
    WOOD,
    Look,
    Part,
    Stroke,
    darker,
    fold_strokes,
    lighter,
    mix,
    rib_strokes,
)


def draw_mug(look: Look, style: str) -> list[Part]:
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


def draw_bottle(look: Look, style: str) -> list[Part]:
    radius, height = look.vary(14, 17), look.vary(76, 88)
    cap = look.pick(RUBBER, SILVER, WOOD, (244, 243, 238))
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
            strokes=rib_strokes(-neck, neck, -12, 2, darker(cap, 0.4), 9),
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


def draw_lamp(look: Look, style: str) -> list[Part]:
    floor = style == "Floor"
    shade_form = "Cone" if floor else style
    width, height = look.vary(26, 32), look.vary(30, 38)
    stem_end = look.vary(118, 130) if floor else look.vary(76, 86)
    glow = (255, 246, 214)
    stem = look.pick(GOLD, SILVER, WOOD, DARK_WOOD, RUBBER)
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
        look.base if look.chance(0.4) else look.pick(CREAM, (214, 206, 196), look.shade(0.35), lighter(look.base, 0.4))
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


def draw_chair(look: Look, style: str) -> list[Part]:
    wood = look.pick(WOOD, DARK_WOOD, (214, 176, 128), RUBBER)

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
        parts.append(
            look.cloth(seat, bevel=0.9, casts=True, strokes=fold_strokes(curve(f"M{-w} 14 Q0 17 {w} 14"), 0.16))
        )
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
        tufts = tuple(s for x in (-10, 10) for s in fold_strokes(curve(f"M{x} {-lift} L{x * 1.05} 20"), 0.3, 1.2))
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
        for path in both_sides(arm)
    ]
    if look.chance(0.3):
        pillow = smooth([(-13, -12), (0, -10.5), (13, -13), (12, 0), (14, 13), (0, 11.5), (-13, 13), (-12, 0)])
        parts.insert(-2, Part(pillow, look.trim, bevel=1.0, casts=True))
    return parts


def draw_cushion(look: Look, style: str) -> list[Part]:
    piping = look.trim if look.chance(0.45) else look.shade(0.2)
    if style == "Round":
        outline = ellipse(0, 0, 42)
        pleats = tuple(
            s
            for a in np.linspace(0, 2 * np.pi, 13)[:-1]
            for s in fold_strokes(
                np.asarray([(7 * np.cos(a), 7 * np.sin(a)), (34 * np.cos(a), 34 * np.sin(a))]), 0.2, 1.2
            )
        )
        button = Part(ellipse(0, 0, 4), piping, bevel=1.0, casts=True)
        return [Part(ellipse(0, 0, 43.6), piping, bevel=0.8), look.cloth(outline, bevel=1.3, strokes=pleats), button]
    b = look.vary(4, 7)
    corners = curve(f"M-42 -42 Q0 {-42 + b} 42 -42 Q{42 - b} 0 42 42 Q0 {42 - b} -42 42 Q{-42 + b} 0 -42 -42")
    folds: tuple[Stroke, ...] = ()
    for sx in (1, -1):
        for sy in (1, -1):
            folds += fold_strokes(
                np.asarray([(40 * sx, 40 * sy), (look.vary(22, 28) * sx, look.vary(24, 30) * sy)]), 0.28, 1.6
            )
    parts = [Part(corners * 1.035, piping, bevel=0.8), look.cloth(corners, bevel=1.4, strokes=folds)]
    if look.chance(0.35):
        for sx in (1, -1):
            for sy in (1, -1):
                x, y = 43 * sx, 43 * sy
                tassel = tube(f"M{x} {y} Q{x + 3 * sx} {y + 5} {x + 3 * sx} {y + 10}", (2.2, 4.6))
                parts.insert(
                    0, Part(tassel, piping, strokes=rib_strokes(x - 2, x + 8, y, y + 12, darker(piping, 0.35), 6))
                )
    return parts
