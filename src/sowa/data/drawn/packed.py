"""Moulded and packed goods: capsule, blister of tablets, button, printed label."""

import numpy as np
from PIL import Image, ImageDraw

from sowa.data.drawn.fields import Field, cover, fractal, log_uniform, noise, turned
from sowa.data.drawn.ink import bars, decal, font, word
from sowa.data.drawn.scene import Image3, Order, Scene, backdrop, blend, hsv, lit, posed, relief, rim, shadow, tinted

__all__ = ["blister", "button", "capsule", "label"]


def _colour(lot: np.random.Generator, *, low: float = 0.25, high: float = 0.95, deep: float = 0.75) -> Image3:
    """A dye of moulded goods: the paler the stronger the hue would glare."""
    rich = float(lot.uniform(0.05, deep))
    return hsv(float(lot.random()), rich, float(lot.uniform(low, high)) * (1 - 0.25 * rich))


def _lettering(rng: np.random.Generator, side: int, *, lines: int) -> Field:
    sheet = Image.new("L", (side, side))
    pen, tall = ImageDraw.Draw(sheet), side * 0.2
    for line in range(lines):
        text = word(rng, 1)[:1] + str(rng.integers(10, 999)) if line else word(rng, 2)
        pen.text(
            (side / 2, side / 2 + (line - (lines - 1) / 2) * tall * 1.15),
            text,
            font=font(int(tall)),
            fill=255,
            anchor="mm",
        )
    return np.asarray(sheet, np.float32) / np.float32(255)


def capsule(order: Order) -> Scene:
    """A two-coloured gelatine capsule with a printed code; the flaws are a slipped or broken print and a short half."""
    lot, slip, size = order.lot, order.slip, order.size
    body, top, ink = _colour(lot, low=0.5), _colour(lot, low=0.4), hsv(0.6, 0.3, 0.12)
    ink = ink if body.mean() > 0.45 else hsv(0.1, 0.05, 0.95)
    lamp, scale, table = float(lot.uniform(3.6, 4.3)), float(lot.uniform(0.78, 0.92)), backdrop(order)
    thick, seam, lean = float(lot.uniform(0.3, 0.4)), float(lot.uniform(-0.1, 0.15)), float(lot.choice([0, 90, 35]))
    art = _lettering(lot, 192, lines=int(lot.integers(1, 3)))
    u, v, soft = posed(order, turn=8, scale=scale)
    u, v = turned(u, v, degrees=lean)
    half = np.float32(0.95 - thick)
    reach = half - np.float32(slip.uniform(0.1, 0.3) if order.flaw == "missing" else 0)
    along = u - np.clip(u, -half, reach)
    wide = np.float32(thick) + np.float32(0.018) * cover(np.float32(seam) - u, soft=soft)
    signed = (np.hypot(along, v) - wide).astype(np.float32)
    height = np.sqrt(np.maximum(1 - ((signed + wide) / wide) ** 2, 0)).astype(np.float32)
    albedo = blend(np.broadcast_to(body, (size, size, 3)), top, cover(np.float32(seam) - u, soft=soft))
    slide, squeeze = np.zeros(2), 0.0
    if order.flaw == "misprint":
        slide, squeeze = slip.uniform(0.08, 0.2, 2) * slip.choice([-1, 1], 2), float(slip.uniform(-70, 70))
    a, b = turned(u, v, degrees=squeeze, at=(float(-0.45 + slide[0]), float(slide[1] / 2)))
    printed = decal(art, a / np.float32(0.34), b / np.float32(0.34))
    if order.flaw == "misprint" and slip.random() < 0.5:
        printed = printed * (noise(slip, size, 12) > 0.1)
    albedo = blend(albedo, ink, 0.85 * printed * (u < seam))
    diffuse, shine = relief(height * np.float32(thick * 128 * scale), depth=1.0, lamp=lamp, gloss=60)
    shell = albedo * (0.32 + 0.68 * diffuse)[..., None] + (0.75 * shine)[..., None]
    ring = np.exp(-(((u - seam) / 0.012) ** 2))
    shell = shell * (1 - 0.3 * ring)[..., None]
    part = cover(signed, soft=soft)
    ground = shadow(table, part, lamp=lamp, far=0.07, soft=0.06, dark=0.5)
    return Scene(blend(ground, shell.astype(np.float32), part), part, table)


def button(order: Order) -> Scene:
    """A sewing button with a raised rim and two or four holes; flaws: a hole not drilled, one out of place."""
    lot, item, slip, size = order.lot, order.item, order.slip, order.size
    colour, lamp, table = _colour(lot, low=0.2), float(lot.uniform(3.3, 4.6)), backdrop(order)
    scale, holes, spread = float(lot.uniform(0.72, 0.88)), int(lot.choice([2, 4])), float(lot.uniform(0.17, 0.25))
    dish, pearl, bore = float(lot.uniform(0.55, 0.78)), float(lot.uniform(0.02, 0.2)), float(lot.uniform(0.075, 0.1))
    u, v, soft = posed(order, turn=180, scale=scale)
    radius = np.hypot(u, v)
    outline = (radius - np.float32(0.94)).astype(np.float32)
    drilled, odd = np.full((size, size), 9.0, np.float32), int(slip.integers(holes))
    for number in range(holes):
        at = spread * np.exp(2j * np.pi * (number + 0.5) / holes)
        if order.flaw == "missing" and number == odd:
            continue
        if order.flaw == "bent" and number == odd:
            at = at * slip.uniform(1.35, 1.9) * np.exp(1j * slip.uniform(-0.5, 0.5))
        drilled = np.minimum(drilled, np.hypot(u - np.float32(at.real), v - np.float32(at.imag)) - np.float32(bore))
    bowl = 1 / (1 + np.exp((radius - np.float32(dish)) * 38))
    height = rim(outline, width=0.14) * 1.8 - 1.1 * bowl - 0.5 * np.exp(-np.maximum(drilled, 0) * 40)
    swirl = fractal(item, size, 3, octaves=4) * np.float32(pearl)
    diffuse, shine = relief(height.astype(np.float32), depth=5.0, lamp=lamp, gloss=log_uniform(lot, 15, 70))
    plastic = tinted((1 + swirl) * (0.3 + 0.7 * diffuse), colour) + (0.55 * shine)[..., None]
    part = cover(np.maximum(outline, -drilled), soft=soft)
    ground = shadow(table, part, lamp=lamp, far=0.05, soft=0.045, dark=0.55)
    return Scene(blend(ground, plastic.astype(np.float32), part), part, table)


def _tablet(order: Order, a: Field, b: Field, *, oblong: float, soft: float, gone: Field, colour: Image3, lamp: float):
    """Tablets at the folded coordinates a, b (each pocket -1..1): image and coverage."""
    stretch = np.float32(oblong)
    signed = np.hypot(a - np.clip(a, -stretch, stretch), b) - np.float32(0.5)
    height = np.sqrt(np.maximum(1 - np.clip((signed + 0.5) / 0.5, 0, 1) ** 2, 0)).astype(np.float32) * 0.8
    score = np.exp(-((a / 0.06) ** 2)) * (np.abs(b) < 0.36)
    height = np.minimum(height, np.float32(0.55)) - np.float32(0.15) * score
    chalk = tinted(1 + 0.03 * noise(order.item, order.size, order.size / 3), colour)
    return lit(chalk, height.astype(np.float32), depth=9, lamp=lamp, gloss=9, shine=0.08), cover(
        signed, soft=soft
    ) * ~gone


def blister(order: Order) -> Scene:
    """A blister pack: tablets under clear domes in crinkled foil; the flaws are a missing and a broken tablet."""
    lot, item, slip, size = order.lot, order.item, order.slip, order.size
    columns, rows, oblong = [(4, 3, 0.12), (3, 3, 0.0), (4, 4, 0.0), (3, 4, 0.3)][int(lot.integers(4))]
    colour = hsv(
        float(lot.choice([0.02, 0.12, 0.3, 0.55, 0.9])), float(lot.uniform(0.02, 0.45)), float(lot.uniform(0.8, 0.97))
    )
    lamp, scale, table = (
        float(lot.uniform(3.6, 4.3)),
        float(lot.uniform(0.88, 0.94)),
        backdrop(order, value=(0.15, 0.6)),
    )
    u, v, soft = posed(order, turn=2.5, scale=scale)
    signed = np.maximum(np.abs(u) - 0.9, np.abs(v) - 0.9).astype(np.float32)
    gu, gv = (u / 0.86 + 1) * (columns / 2), (v / 0.86 + 1) * (rows / 2)
    i, j = np.clip(np.floor(gu), 0, columns - 1), np.clip(np.floor(gv), 0, rows - 1)
    pitch = min(0.86 / columns, 0.86 / rows)
    a, b = (gu - i - 0.5) * np.float32(1.72 / columns / pitch), (gv - j - 0.5) * np.float32(1.72 / rows / pitch)
    mine = (i == slip.integers(columns)) & (j == slip.integers(rows))
    step = soft / pitch
    dome = np.hypot(a - np.clip(a, -oblong, oblong), b) - np.float32(0.72)
    foil_height = 0.4 * fractal(item, size, 7, octaves=3) + 0.09 * np.cos(u * 64) * np.cos(v * 64)
    foil = lit(
        tinted(np.full((size, size), 0.68, np.float32), hsv(0.6, 0.04, 1)),
        foil_height.astype(np.float32),
        depth=1.6,
        lamp=lamp,
        shine=0.2,
    )
    pocket = cover(dome, soft=step * 1.5)
    under = foil * (1 - 0.34 * pocket * np.clip(0.75 + 0.5 * (dome + 0.72), 0, 1))[..., None]
    jig = [item.normal(0, 0.03, (rows, columns)).astype(np.float32)[j.astype(int), i.astype(int)] for _ in range(2)]
    gone = mine & (order.flaw == "missing")
    if order.flaw == "broken":
        way, cut = slip.uniform(0, 6.28), slip.uniform(-0.15, 0.2)
        gone = mine & (a * np.cos(way) + b * np.sin(way) + 0.06 * noise(slip, size, 40) > cut)
    tablet, alpha = _tablet(
        order, a + jig[0], b + jig[1], oblong=oblong, soft=step, gone=gone, colour=colour, lamp=lamp
    )
    pack = blend(under, tablet, alpha)
    bulge = np.sqrt(np.maximum(1 - np.clip(dome / 0.72 + 1, 0, 1) ** 2, 0)).astype(np.float32)
    _, shine = relief(bulge * np.float32(pitch * 128 * scale * 0.75), depth=1.0, lamp=lamp, gloss=70)
    pack = pack + (0.5 * shine * pocket + 0.14 * np.exp(-((dome / 0.05) ** 2)))[..., None]
    part = cover(signed, soft=soft)
    ground = shadow(table, part, lamp=lamp, far=0.03, soft=0.03, dark=0.5)
    return Scene(blend(ground, pack.astype(np.float32), part), part, table)


def _sheet(rng: np.random.Generator, side: int, *, skip: int | None) -> tuple[Field, Field]:
    """The artwork of a label in two inks, blocks of colour and black text with a bar code; piece `skip` left out."""
    colour, black = Image.new("L", (side, side)), Image.new("L", (side, side))
    wash, pen = ImageDraw.Draw(colour), ImageDraw.Draw(black)
    s, title, band = side / 100, word(rng, 3), float(rng.uniform(16, 26))
    wash.rectangle([0, 0, 100 * s, band * s], fill=255)
    if rng.random() < 0.5:
        wash.ellipse([70 * s, (band + 8) * s, 90 * s, (band + 28) * s], fill=255)
    pieces = [
        lambda: pen.text((7 * s, (band + 10) * s), title, font=font(round(11 * s)), fill=255, anchor="lm"),
        lambda: bars(pen, rng, (8 * s, 74 * s, 62 * s, 92 * s), 255),
        lambda: pen.rectangle([69 * s, 74 * s, 92 * s, 92 * s], outline=255, width=max(round(1.2 * s), 1)),
        lambda: pen.text(
            (80.5 * s, 83 * s), str(rng.integers(10, 99)), font=font(round(11 * s)), fill=255, anchor="mm"
        ),
    ]
    for line in range(5):
        text = " ".join(word(rng, int(rng.integers(1, 4))).lower() for _ in range(4))[:26]
        y = (band + 22 + line * 6.2) * s
        pieces.append(lambda t=text, y=y: pen.text((7 * s, y), t, font=font(round(5.2 * s)), fill=255, anchor="lm"))
    for number, piece in enumerate(pieces):
        kept = black.copy() if number == skip else None
        piece()
        if kept is not None:
            black.paste(kept)
    return tuple(np.asarray(sheet, np.float32) / np.float32(255) for sheet in (colour, black))


def label(order: Order) -> Scene:
    """A printed label on a carton; the flaws are a slipped or starved print and a line that is not there."""
    lot, item, slip, size = order.lot, order.item, order.slip, order.size
    paper, spot = hsv(float(lot.random()), 0.04, float(lot.uniform(0.85, 0.98))), _colour(lot, low=0.3, high=0.8)
    carton, lamp = hsv(float(lot.uniform(0.06, 0.1)), float(lot.uniform(0.15, 0.4)), float(lot.uniform(0.5, 0.75))), 3.9
    scale, shape = float(lot.uniform(0.8, 0.92)), float(lot.uniform(0.78, 1.0))
    skip = int(slip.integers(9)) if order.flaw == "missing" else None
    colour, black = _sheet(lot, 320, skip=skip)
    box = tinted(1 + 0.03 * fractal(item, size, 40, octaves=3) + 0.02 * noise(item, size, 3, size / 6), carton)
    u, v, soft = posed(order, turn=3, scale=scale)
    signed = np.maximum(np.abs(u) - 0.95, np.abs(v) - 0.95 * shape).astype(np.float32)
    a, b = u / np.float32(0.965), v / np.float32(0.965 * shape)  # the artwork runs past the cut, as printers do it
    slide = np.zeros(2)
    starved = np.ones((size, size), np.float32)
    if order.flaw == "misprint":
        if slip.random() < 0.5:
            slide = slip.uniform(0.025, 0.07, 2) * slip.choice([-1, 1], 2)
        else:
            band = (a * np.cos(0.3) + b * np.sin(0.3) - slip.uniform(-0.5, 0.5)) / slip.uniform(0.05, 0.16)
            starved = 1 - np.exp(-(band**4)) * (0.75 + 0.2 * noise(slip, size, 60))
    sheet = tinted(1 + 0.012 * noise(item, size, size / 2), paper)
    sheet = blend(sheet, spot, 0.92 * decal(colour, a, b))
    ink = decal(black, a - np.float32(slide[0]), b - np.float32(slide[1])) * np.clip(starved, 0, 1)
    sheet = blend(sheet, hsv(0.6, 0.2, 0.1), 0.9 * ink)
    curl = relief(0.6 * fractal(item, size, 2, octaves=2), depth=6, lamp=lamp)[0]
    part = cover(signed, soft=soft)
    ground = shadow(box, part, lamp=lamp, far=0.012, soft=0.02, dark=0.4)
    return Scene(blend(ground, (sheet * (0.55 + 0.45 * curl)[..., None]).astype(np.float32), part), part, box)
