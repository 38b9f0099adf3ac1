"""Clothing, laid flat: T-shirts, shirts, sweatshirts, sweaters, jackets, dresses, skirts, trousers and shorts."""

import numpy as np

from acebert.sample_catalog.drawing.geometry import (
    both_sides,
    box,
    curve,
    ellipse,
    half,
    mirrored,
    ribbon,
    shifted,
    tube,
)
from acebert.sample_catalog.drawing.paint import (
    Colour,
    Look,
    Part,
    Stroke,
    darker,
    fold_strokes,
    lighter,
    luminance,
    rib_strokes,
)


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
                look.cloth(
                    arm * flip, turn * side, strokes=(look.stitch(hem_line * flip), *fold_strokes(crease * flip))
                )
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
        for path in both_sides(line):
            folds += fold_strokes(path, look.vary(0.12, 0.26))
    armhole = tuple(
        look.seam(path, 0.5, 0.6) for path in both_sides(curve(f"M{w - 1} 6 Q{w * 0.9 - 0.5} 18 {w - 0.5} 28"))
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


def draw_tshirt(look: Look, style: str) -> list[Part]:
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


def draw_shirt(look: Look, style: str) -> list[Part]:
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
        for side, path in zip((-1, 1), both_sides(collar), strict=True)
    ]
    return parts


def _waistband(look: Look, width: float, y: float, colour: Colour, height: float = 6) -> Part:
    outline = half(f"M0 {y} L{width * 0.95} {y - 0.5} L{width * 0.98} {y + height} L0 {y + height + 1.5}")
    return Part(outline, colour, strokes=rib_strokes(-width, width, y - 1, y + height + 2, darker(colour, 0.3), 26))


def draw_sweatshirt(look: Look, style: str) -> list[Part]:
    width, length = look.vary(27, 30), look.vary(72, 80)
    rib = look.trim if look.chance(0.3) else look.shade(0.1)
    parts = _top(look, width=width, length=length, sleeve="long", neck=(9, 8), cuff=rib, hem=1)
    parts.append(_waistband(look, width, length - 2, rib))
    hood_out = half("M0 -15 Q17 -15 18 -1 Q16 10 5 15 L0 13")
    hood_in = half("M0 -9 Q10.5 -9 11 1 Q9 8 0 12.5")
    seam = tuple(look.seam(path) for path in both_sides(curve("M0 -15 Q5 -13 8.5 -8")))
    parts.insert(0, look.cloth(hood_out, strokes=seam))
    parts.append(look.cloth(hood_out, holes=(hood_in,), casts=True, strokes=(look.seam(hood_in, 0.5, 0.8),)))
    parts.insert(1, Part(hood_in, look.shade(0.42), bevel=0.1))
    pocket = half("M0 45 L11 45 Q14 50 19 56 L19 64 L0 64")
    opening = tuple(look.seam(path, 0.6, 0.8) for path in both_sides(curve("M11.5 46 Q14 51 18.2 57")))
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


def draw_sweater(look: Look, style: str) -> list[Part]:
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
            look.cloth(collar, strokes=rib_strokes(-11, 11, -14, 10, look.seam_colour, 14), casts=True, roundness=0.5)
        )
        parts.append(Part(ellipse(0, -11.4, 8.2, 1.5), look.shade(0.45)))
    elif cardigan:
        band = (curve(f"M-9.5 -0.5 L0.6 26 L0.6 {length + 5}"), curve(f"M9.5 -0.5 L0.6 26 L0.6 {length + 5}"))
        parts += [Part(ribbon(path, 4.4), rib, bevel=0.3, edge=0.4, casts=True) for path in band]
        parts += _buttons(look, 30, length - 1, 5, x=0.6)
    else:
        parts.append(_neckband(look, neck, False, rib, 3.6))
    return parts


def draw_jacket(look: Look, style: str) -> list[Part]:
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
    parts.append(Part(collar, rib, strokes=rib_strokes(-13, 13, -5, 14, darker(rib, 0.3), 16), casts=True))
    for side in (1, -1):
        parts.append(Part(tube(f"M{21 * side} 42 L{15 * side} 56", 2.2), look.shade(0.3), edge=0.5))
    return parts


def draw_dress(look: Look, style: str) -> list[Part]:
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
                look.cloth(path, turn, strokes=fold_strokes(curve("M16 20 Q20 17 22 11") * (side, 1)))
                for path, turn, side in zip(both_sides(arm), (-22, 22), (1, -1), strict=True)
            ]
        neckline = "L" if look.chance(0.35) else f"Q{neck_x * 0.95} {neck_y} "
        bodice = curve(f"M0 {neck_y} {neckline}{neck_x} 0 L15.5 3.5 Q13.5 12 17 20 Q15.5 28 {waist} {waist_y}")
    bust: tuple[Stroke, ...] = ()
    for path in both_sides(curve("M15.5 21 Q11 25 9 24")):
        bust += fold_strokes(path, 0.16, 1.2)
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
            folds += fold_strokes(path, look.vary(0.16, 0.3), 2)
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


def draw_skirt(look: Look, style: str) -> list[Part]:
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
        strokes += fold_strokes(
            path, 0.38 if style == "Pleated" else look.vary(0.18, 0.3), 1.2 if style == "Pleated" else 2.2
        )
    pencil = style == "Pencil"
    if pencil:
        strokes += (Stroke(curve(f"M3 {length * 0.72} L3.4 {length + 5}"), 0.9, look.shade(0.6), 0.9),)
        strokes += fold_strokes(curve("M-10 6 Q-11 14 -10 20"), 0.2, 1)
        strokes += fold_strokes(curve("M10 6 Q11 14 10 20"), 0.2, 1)
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
            *fold_strokes(curve(f"M0.5 {crotch} Q8 {crotch - 1} 14 {crotch - 6}") * flip, 0.24),
            *fold_strokes(curve(f"M3 {length * 0.58} Q8 {length * 0.57} 12 {length * 0.54}") * flip, 0.18),
            *fold_strokes(
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


def draw_trousers(look: Look, style: str) -> list[Part]:
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


def draw_shorts(look: Look, style: str) -> list[Part]:
    length = look.vary(50, 56)
    parts = _legs(look, length=length, knee=21, hem=look.vary(19, 22), waist=look.vary(18.5, 20))
    if style == "Drawstring":
        cord = lighter(look.base, 0.75) if luminance(look.base) < 150 else look.shade(0.5)
        parts = parts[:-3] + [Part(tube(f"M{x} 5 Q{x * 3} 12 {x * 2.2} 19", 1.2), cord) for x in (1.4, -1.4)]
    return parts
