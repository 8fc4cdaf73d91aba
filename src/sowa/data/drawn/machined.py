"""Round metal parts seen from above: gear, ball bearing, crown cap."""

import numpy as np

from sowa.data.drawn.fields import Field, cover, fractal, log_uniform, noise, polar, turned
from sowa.data.drawn.ink import decal, emblem
from sowa.data.drawn.scene import Image3, Order, Scene, backdrop, blend, hsv, posed, relief, rim, shadow, tinted

__all__ = ["bearing", "cap", "gear"]

_TURN = np.float32(2 * np.pi)


def _metal(order: Order, height: Field, colour: Image3, *, radius: Field, angle: Field, lamp: float, depth: float):
    """Lathe-turned metal: fine rings of tool marks and the two bright fans that such rings throw."""
    size, item = order.size, order.item
    rings = item.standard_normal(int(size * 0.8)).astype(np.float32)
    marks = np.interp(radius.ravel(), np.linspace(0, 1.5, len(rings)), rings).reshape(radius.shape)
    fans = 0.5 + 0.5 * np.cos(2 * (angle - np.float32(lamp)))
    diffuse, shine = relief(height, depth=depth, lamp=lamp, gloss=20)
    value = (0.3 + 0.42 * diffuse + 0.22 * fans**2) * (1 + 0.035 * marks) + 0.012 * noise(item, size, size / 2)
    return tinted(value.astype(np.float32), colour) + (0.35 * shine**2)[..., None]


def _alloy(lot: np.random.Generator) -> Image3:
    """Steel most often, else brass or copper or a blued finish."""
    hue, depth = [(0.58, 0.04), (0.1, 0.06), (0.12, 0.42), (0.05, 0.45), (0.6, 0.25)][int(lot.integers(5))]
    return hsv(hue, depth, float(lot.uniform(0.75, 1.0)))


def gear(order: Order) -> Scene:
    """A spur gear with a bore and lightening holes; the flaws are lost teeth and a worn, bent tooth."""
    lot, slip, size = order.lot, order.slip, order.size
    teeth, tall, holes = int(lot.integers(14, 34)), float(lot.uniform(0.05, 0.085)), int(lot.choice([0, 4, 5, 6]))
    bore, hub, web = float(lot.uniform(0.14, 0.24)), float(lot.uniform(0.32, 0.42)), float(lot.uniform(0.66, 0.74))
    lamp, colour = float(lot.uniform(3.3, 4.6)), _alloy(lot)
    scale, table = float(lot.uniform(0.74, 0.88)), backdrop(order)
    u, v, soft = posed(order, turn=180, scale=scale)
    radius, angle = polar(u, v)
    pitch = (angle / _TURN + np.float32(0.5)) * teeth
    number = np.floor(pitch)
    profile = np.clip((1 - 4 * np.abs(pitch - number - np.float32(0.5))) * 2.0, -1, 1)
    if order.flaw is not None:
        hit = (number - slip.integers(teeth)) % teeth < slip.integers(1, 4)
        short = -1.0 if order.flaw == "missing" else np.float32(slip.uniform(-0.5, -0.1))
        ragged = np.float32(0.25) * noise(slip, size, 40)
        profile = np.where(hit, np.minimum(profile, short + ragged), profile)
    outline = radius - (np.float32(0.93 - tall) + np.float32(tall) * profile)
    inner = np.maximum(np.float32(bore) - radius, -9.0)
    key = np.maximum(np.abs(u) - bore * 0.28, np.abs(v + bore) - bore * 0.3)
    inner = np.maximum(inner, -key)
    if holes:
        fold = (angle % (_TURN / holes)) - _TURN / (2 * holes)
        middle = (hub + web) / 2
        inner = np.maximum(inner, (web - hub) * 0.36 - np.hypot(radius * np.cos(fold) - middle, radius * np.sin(fold)))
    signed = np.maximum(outline, inner).astype(np.float32)
    recess = cover(np.maximum(np.float32(hub) - radius, radius - np.float32(web)), soft=0.03)
    height = rim(signed, width=0.035) * 1.2 - 0.8 * recess
    part = cover(signed, soft=soft)
    metal = _metal(order, height, colour, radius=radius, angle=angle, lamp=lamp, depth=4.0)
    metal *= (1 - 0.22 * recess)[..., None]
    ground = shadow(table, part, lamp=lamp, far=0.045, soft=0.04, dark=0.55)
    return Scene(blend(ground, metal, part), part, table)


def bearing(order: Order) -> Scene:
    """A ball bearing: two races, balls in a cage; the flaws are a missing ball and a ball pushed from its place."""
    lot, item, slip = order.lot, order.item, order.slip
    balls, colour, lamp = (
        int(lot.integers(7, 13)),
        hsv(float(lot.uniform(0.08, 0.6)), 0.05, float(lot.uniform(0.8, 1))),
        float(lot.uniform(3.3, 4.6)),
    )
    cage = hsv(*[(0.1, 0.5, 0.55), (0.58, 0.05, 0.5), (0.07, 0.1, 0.2), (0.35, 0.4, 0.4)][int(lot.integers(4))])
    scale, bore, path = float(lot.uniform(0.76, 0.9)), float(lot.uniform(0.3, 0.4)), float(lot.uniform(0.62, 0.68))
    table = backdrop(order)
    u, v, soft = posed(order, turn=180, scale=scale)
    radius, angle = polar(u, v)
    width = np.float32(min(0.8 * np.pi * path / balls, 0.14))
    signed = np.maximum(radius - np.float32(0.95), np.float32(bore) - radius)
    groove = cover(np.abs(radius - np.float32(path)) - width * np.float32(1.02), soft=soft * 2)
    height = rim(signed, width=0.04) * (1 - groove)
    metal = _metal(order, height, colour, radius=radius, angle=angle, lamp=lamp, depth=4.5)
    dark = tinted(0.13 + 0.1 * np.abs(radius - np.float32(path)) / width, np.ones(3, np.float32))
    image = blend(metal, dark.astype(np.float32), groove)
    strip = np.abs(radius - np.float32(path)) - width * np.float32(0.4)
    lay = np.float32(item.uniform(0, 6.28))
    ripple = 0.75 + 0.25 * np.cos((angle - lay) * balls)
    image = blend(
        image, tinted((0.7 + 0.3 * ripple) * (1 - 0.4 * np.abs(strip / width)), cage), cover(strip, soft=soft)
    )
    lost = int(slip.integers(balls))
    shift = float(slip.choice([-1, 1]) * slip.uniform(0.3, 0.5)) if order.flaw == "bent" else 0.0
    number = np.floor(((angle - lay) / _TURN * balls + np.float32(0.5)) % balls)
    place = (number + np.where(number == lost, np.float32(shift), 0)) * (_TURN / balls) + lay
    du = (u - np.float32(path) * np.cos(place)) / width
    dv = (v - np.float32(path) * np.sin(place)) / width
    image = _balls(image, du, dv, present=(number != lost) | (order.flaw != "missing"), lamp=lamp, soft=soft / width)
    part = cover(signed.astype(np.float32), soft=soft)
    ground = shadow(table, part, lamp=lamp, far=0.05, soft=0.045, dark=0.55)
    return Scene(blend(ground, image, part), part, table)


def _balls(image: Image3, du: Field, dv: Field, *, present: Field, lamp: float, soft: float) -> Image3:
    """Polished spheres of radius 1 about the points where du = dv = 0: sky above, dark horizon, a spark of the lamp."""
    far = np.hypot(du, dv).astype(np.float32)
    up = np.sqrt(np.maximum(1 - far * far, 0))
    toward = du * np.float32(np.cos(lamp)) + dv * np.float32(np.sin(lamp))
    value = 0.28 + 0.5 * np.clip(0.55 * up + 0.6 * toward, -0.3, 1) + 0.16 * (up > 0.86)
    spark = np.exp(-((du - 0.45 * np.cos(lamp)) ** 2 + (dv - 0.45 * np.sin(lamp)) ** 2) / 0.03)
    sphere = tinted((value + 0.8 * spark).astype(np.float32), hsv(0.58, 0.04, 1.0))
    return blend(image, sphere, cover(far - 1, soft=soft) * present)


def cap(order: Order) -> Scene:
    """A crown cap from above: fluted skirt, printed top; the flaws are a slipped print and a bent skirt."""
    lot, item, slip, size = order.lot, order.item, order.slip, order.size
    paint = hsv(float(lot.random()), float(lot.uniform(0.35, 0.85)), float(lot.uniform(0.35, 0.8)))
    ink = hsv(float(lot.random()), float(lot.uniform(0, 0.5)), 0.95 if paint.mean() < 0.5 else 0.15)
    lamp, scale, table = float(lot.uniform(3.4, 4.4)), float(lot.uniform(0.8, 0.88)), backdrop(order, value=(0.3, 0.85))
    art = emblem(lot, side=256)
    u, v, soft = posed(order, turn=14, scale=scale)
    radius, angle = polar(u, v)
    wave = np.cos(21 * angle)
    skirt = np.float32(0.93) + np.float32(0.035) * wave
    if order.flaw == "bent":
        place, wide = slip.uniform(-np.pi, np.pi), slip.uniform(0.15, 0.4)
        off = np.angle(np.exp(1j * (angle - place))).astype(np.float32)
        skirt = skirt - np.float32(slip.uniform(0.06, 0.13)) * np.exp(-((off / np.float32(wide)) ** 2))
    signed = (radius - skirt).astype(np.float32)
    slope = np.clip((np.float32(0.76) - radius) / np.float32(0.2), -1, 0)
    flute = np.clip((radius - np.float32(0.72)) / np.float32(0.18), 0, 1)
    height = 1.5 * slope * -slope + 0.2 * wave * flute + 0.5 * rim(signed, width=0.05)
    height += 0.03 * fractal(item, size, 4, octaves=2)
    shift = slip.uniform(0.05, 0.16, 2) * slip.choice([-1, 1], 2) if order.flaw == "misprint" else np.zeros(2)
    swing = float(slip.uniform(15, 60) * slip.choice([-1, 1])) if order.flaw == "misprint" else 0.0
    a, b = turned(u, v, degrees=swing, at=(float(shift[0]), float(shift[1])))
    printed = decal(art, a / np.float32(0.72), b / np.float32(0.72)) * cover(radius - np.float32(0.74), soft=soft)
    enamel = blend(np.broadcast_to(paint, (size, size, 3)), ink, 0.95 * printed)
    diffuse, shine = relief(height.astype(np.float32), depth=4.5, lamp=lamp, gloss=log_uniform(lot, 14, 40))
    sheen = 0.1 * np.clip(1 - np.hypot(u + 0.35, v + 0.4), 0, 1)
    metal = enamel * (0.3 + 0.7 * diffuse)[..., None] + (0.4 * shine * (0.3 + 0.7 * flute) + sheen)[..., None]
    part = cover(signed, soft=soft)
    ground = shadow(table, part, lamp=lamp, far=0.05, soft=0.05, dark=0.5)
    return Scene(blend(ground, metal.astype(np.float32), part), part, table)
