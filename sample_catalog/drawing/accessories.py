"""Accessories: handbags, backpacks, watches, sunglasses, headwear, socks, scarves and umbrellas."""

from itertools import pairwise

import numpy as np

from acebert.sample_catalog.drawing.geometry import (
    both_sides,
    box,
    clip,
    curve,
    ellipse,
    half,
    ribbon,
    shifted,
    smooth,
    tube,
)
from acebert.sample_catalog.drawing.paint import (
    CREAM,
    DARK_WOOD,
    RUBBER,
    SILVER,
    WOOD,
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


def _stitched(outline: np.ndarray, look: Look, inset: float = 0.94) -> Stroke:
    middle = (outline.min(0) + outline.max(0)) / 2
    closed = np.concatenate([outline, outline[:1]])
    return look.stitch(middle + (closed - middle) * inset, 0.5, 0.75)


def draw_handbag(look: Look, style: str) -> list[Part]:
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
            s
            for x in np.linspace(-16, 16, 7)
            for s in fold_strokes(curve(f"M{x} 2 Q{x * 1.1} 14 {x * 1.25} 26"), 0.26, 1.4)
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


def draw_backpack(look: Look, style: str) -> list[Part]:
    leather = look.trim if look.chance(0.45) else look.shade(0.25)
    width, height = look.vary(29, 33), look.vary(74, 82)
    body = half(
        f"M0 0 C{width * 0.7} 0 {width * 0.95} 8 {width} 26 "
        f"Q{width + 2} {height * 0.7} {width} {height - 7} "
        f"Q{width - 1} {height} {width - 9} {height} L0 {height + 1}"
    )
    loop = curve("M-7 3 C-7 -11 7 -11 7 3", steps=24)
    strap = curve(f"M{width * 0.8} 10 C{width + 10} 26 {width + 8} {height * 0.66} {width + 1} {height - 6}", steps=24)
    parts = [Part(ribbon(path, (7, 4.5)), darker(leather, 0.2)) for path in both_sides(strap)]
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


def draw_watch(look: Look, style: str) -> list[Part]:
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


def draw_sunglasses(look: Look, style: str) -> list[Part]:
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


def draw_cap(look: Look, style: str) -> list[Part]:
    if style == "Beanie":
        crown = half("M0 -34 C24 -34 33 -14 33 14 L0 20")
        knit = tuple(
            look.seam(curve(f"M{x * 0.35} -34 Q{x * 1.1} -20 {x} 20"), 0.7, 0.4) for x in np.linspace(-31, 31, 17)
        )
        fold = half("M0 8 Q20 8 34.5 4 Q36 14 34 24 Q20 28 0 28")
        brim = look.trim if look.chance(0.35) else look.shade(0.08)
        parts = [
            look.cloth(crown, bevel=0.9, strokes=knit),
            Part(fold, brim, bevel=0.8, casts=True, strokes=rib_strokes(-34, 34, 0, 30, darker(brim, 0.35), 24)),
        ]
        if look.chance(0.55):
            angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
            r = 9.5 + 0.9 * np.sin(angles * 13)
            pompom = np.stack([r * np.cos(angles), -39 + r * np.sin(angles)], axis=1)
            parts.insert(0, Part(pompom, look.pick(brim, CREAM, lighter(look.base, 0.35)), bevel=1.0))
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
        parts.append(Part(badge, look.trim if brim != look.trim else CREAM, casts=True))
    return parts


def draw_socks(look: Look, style: str) -> list[Part]:
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
        folds = (
            *fold_strokes(curve("M12 6 Q4 12 -2 12") + shift, 0.25),
            *fold_strokes(curve("M13 12 Q6 17 0 19") + shift, 0.18),
        )
        parts.append(Part(outline + shift, look.shade(shade), look.fabric, strokes=folds, casts=True))
        parts += [Part(clip(outline, patch) + shift, darker(accent, shade), bevel=0.3) for patch in (heel, toe)]
        parts.append(
            Part(
                cuff + shift,
                darker(accent, shade),
                strokes=rib_strokes(-10 + dx, 10 + dx, -leg - 2 + dy, -leg + 8 + dy, darker(accent, 0.35), 10),
            )
        )
    return parts


def draw_scarf(look: Look, style: str) -> list[Part]:
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
        wraps += fold_strokes(curve(f"M-24 {3 + offset} Q0 {12 + offset * 1.4} 24 {3 + offset}"), 0.3, 1.6)
    parts: list[Part] = []
    if style == "Snood":
        outer = curve("M-30 12 Q-32 -16 0 -20 Q32 -16 30 12 Q28 44 0 46 Q-28 44 -30 12")
        hole = curve("M-17 0 Q-14 -10 0 -11 Q14 -10 17 0 Q10 10 0 10 Q-10 10 -17 0")
        for offset in (0, 8, 16, 24):
            wraps += fold_strokes(curve(f"M-29 {6 + offset * 0.7} Q0 {20 + offset} 29 {8 + offset * 0.5}"), 0.3, 2)
        return [Part(hole, look.shade(0.55)), look.cloth(outer, 8, bevel=0.9, holes=(hole,), strokes=wraps)]
    for x, lean, length in ((-7, -6, left), (8, 5, right)):
        strokes = tuple(
            s
            for t in (-3, 3)
            for s in fold_strokes(
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
                Part(clip(tail(x, lean, length), box(-60, length - 8, 60, length - 4)), look.trim, bevel=0.1, edge=0)
            )
    parts.insert(0, Part(hole, look.shade(0.55), bevel=0.1))
    parts.append(look.cloth(loop, 70, holes=(hole,), strokes=wraps, bevel=0.8, casts=True))
    return parts


def draw_umbrella(look: Look, style: str) -> list[Part]:
    handle = look.pick(WOOD, DARK_WOOD, RUBBER)
    if style == "Folded":
        body = half("M0 -46 Q3 -44 4 -30 Q8.5 10 7.5 26 Q4 30 0 30")
        pleats = tuple(
            s for x in (-3, 1, 4.5) for s in fold_strokes(curve(f"M{x * 0.2} -44 Q{x} -10 {x * 1.1} 28"), 0.4, 1.3)
        )
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
        Part(tube(f"M0 {-rise} L0 38", 1.7), SILVER, bevel=0.9),
        Part(tube("M0 30 L0 46 Q0 57 7.5 57 Q14 57 14 48", 3.4), handle, bevel=1.0),
        Part(box(-1, -rise - 7, 1, -rise + 2, 1), look.metal),
        look.cloth(canopy, bevel=1.0, strokes=ribs),
    ]
