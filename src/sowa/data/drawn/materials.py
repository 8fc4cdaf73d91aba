"""Flat goods that fill the picture, made of noise: wood, weave, brushed metal, terrazzo, leather, wire mesh."""

import numpy as np

from sowa.data.drawn.fields import cellular, cover, fractal, log_uniform, noise, plane, streaks, turned
from sowa.data.drawn.scene import Order, Scene, blend, hsv, lit, relief, tinted

__all__ = ["brushed", "leather", "mesh", "terrazzo", "weave", "wood"]


def _whole(order: Order) -> np.ndarray:
    return np.ones((order.size, order.size), np.float32)


def _resting(order: Order, *, degrees: float, slide: float = 1.0):
    """Coordinates of a sheet pushed under the camera: any place of it, turned little about the lot's angle."""
    x, y = plane(order.size)
    at = order.item.uniform(-slide, slide, 2)
    return turned(x, y, degrees=degrees + float(order.item.normal(0, 1.5)), at=(float(at[0]), float(at[1])))


def wood(order: Order) -> Scene:
    """A planed board: growth rings cut lengthwise, fibres, dark pores."""
    lot, item, size = order.lot, order.item, order.size
    angle, rings, swing = float(lot.choice([0.0, 90.0])), log_uniform(lot, 3, 9), float(lot.uniform(0.15, 0.5))
    light = hsv(float(lot.uniform(0.05, 0.11)), float(lot.uniform(0.3, 0.6)), float(lot.uniform(0.6, 0.92)))
    dark = light * hsv(float(lot.uniform(0.02, 0.07)), float(lot.uniform(0.2, 0.45)), float(lot.uniform(0.5, 0.75)))
    fibre, pores = float(lot.uniform(0.3, 0.9)), float(lot.uniform(0.1, 0.5))
    slant = angle + float(item.normal(0, 1.5))
    along, across = turned(*plane(size), degrees=slant)
    warp = streaks(item, size, along=1.6, across=3, degrees=slant)
    age = across * np.float32(rings) + np.float32(swing * 2) * warp + np.float32(item.uniform(0, 9))
    age += np.float32(0.35 * rings) * (across + np.float32(item.normal(0, 0.4))) ** 2 * along
    ring = (age - np.floor(age)) ** np.float32(1.7)  # slow spring growth, then a sudden dark edge
    ring = np.where(ring > 0.9, (1 - ring) * 9 + 0.1, ring)
    fine = streaks(item, size, along=7, across=size / 2.4, degrees=slant)
    hair = streaks(item, size, along=14, across=size / 2.2, degrees=slant)
    pore = np.clip(hair - 1.4, 0, 1)
    amount = np.clip(0.15 + 0.6 * ring + np.float32(0.12 * fibre) * fine + 0.1 * warp, 0, 1)
    image = blend(np.broadcast_to(light, (size, size, 3)), dark, amount)
    return Scene(image * (1 - np.float32(pores) * pore)[..., None], _whole(order))


def weave(order: Order) -> Scene:
    """A cloth of two sets of threads; the flaws are a thread that is missing and one that wanders."""
    lot, item, size, slip = order.lot, order.item, order.size, order.slip
    angle, threads, over = float(lot.choice([0, 90, 45])), log_uniform(lot, 12, 30), int(lot.choice([1, 1, 2]))
    warp = hsv(float(lot.random()), float(lot.uniform(0.05, 0.6)), float(lot.uniform(0.35, 0.9)))
    weft = warp if lot.random() < 0.5 else hsv(float(lot.random()), 0.3, float(lot.uniform(0.3, 0.9)))
    lamp, fluff, gap = float(lot.uniform(0, 6.28)), float(lot.uniform(0.04, 0.14)), float(lot.uniform(0.3, 0.47))
    u, v = _resting(order, degrees=angle)
    u = (u + 0.012 * noise(item, size, 5)) * np.float32(threads / 2)
    v = (v + 0.012 * noise(item, size, 5)) * np.float32(threads / 2)
    if order.flaw == "bent":
        place = slip.uniform(-0.5, 0.5, 2)
        x, y = plane(size)
        bump = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * slip.uniform(0.08, 0.2) ** 2))
        u = u + bump.astype(np.float32) * np.float32(slip.choice([-1, 1]) * slip.uniform(0.5, 1.1))
    i, j = np.floor(u), np.floor(v)
    a, b = u - i - np.float32(0.5), v - j - np.float32(0.5)  # across the warp thread, across the weft thread
    top = ((i + j * over) % (2 * over)) < over
    thick_a, thick_b = np.clip(1 - (a / gap) ** 2, 0, 1), np.clip(1 - (b / gap) ** 2, 0, 1)
    high_a = np.sqrt(thick_a) * (0.6 + 0.4 * np.where(top, np.cos(np.pi * b), -np.cos(np.pi * b)))
    high_b = np.sqrt(thick_b) * (0.6 + 0.4 * np.where(top, -np.cos(np.pi * a), np.cos(np.pi * a)))
    if order.flaw == "missing":
        lost = np.floor(float(np.median(u)) + slip.integers(-4, 5))
        span = np.abs(v - np.median(v) - slip.uniform(-3, 3)) < slip.uniform(2.5, 8)
        high_a = np.where((i == lost) & span, 0.0, high_a)
    height, is_warp = np.maximum(high_a, high_b).astype(np.float32), high_a > high_b
    yarn = 1 + np.float32(fluff) * (noise(item, size, size / 2.2) + noise(item, size, threads))
    albedo = np.where(is_warp[..., None], warp, weft) * (yarn * (0.3 + 0.7 * np.minimum(height * 1.3, 1)))[..., None]
    return Scene(lit(albedo, height, depth=60.0 / threads, lamp=lamp), _whole(order))


def brushed(order: Order) -> Scene:
    """A brushed metal sheet: streaks one way, a broad band of sheen across them."""
    lot, item, size = order.lot, order.item, order.size
    angle, tone = float(lot.choice([0, 90, lot.uniform(0, 180)])), float(lot.uniform(0.3, 0.75))
    colour = hsv(float(lot.uniform(0.05, 0.65)), float(lot.choice([0.02, 0.04, 0.3])), 1.0)
    strength, sheen = log_uniform(lot, 0.012, 0.06), float(lot.uniform(0.05, 0.3))
    slant = angle + float(item.normal(0, 1))
    fine = streaks(item, size, along=6, across=size / 1.3, degrees=slant)
    broad = streaks(item, size, along=1.5, across=size / 6, degrees=slant)
    u, _ = turned(*plane(size), degrees=angle)
    band = np.exp(-(((u - np.float32(item.normal(0, 0.25))) / np.float32(lot.uniform(0.35, 0.9))) ** 2))
    value = tone + np.float32(strength) * (1.0 * fine + 0.35 * broad) + np.float32(sheen) * (band - 0.5)
    return Scene(tinted(value.astype(np.float32), colour), _whole(order))


def terrazzo(order: Order) -> Scene:
    """A polished floor: stone chips of a few colours set in cement."""
    lot, item, size = order.lot, order.item, order.size
    x, y = plane(size)
    cement = hsv(float(lot.random()), float(lot.uniform(0, 0.15)), float(lot.uniform(0.3, 0.85)))
    hues, cells = lot.random() + lot.normal(0, 0.12, 4), log_uniform(lot, 8, 22)
    chips = np.stack([hsv(float(h), float(lot.uniform(0, 0.32)), float(lot.uniform(0.15, 0.95))) for h in hues])
    gap, share = float(lot.uniform(0.06, 0.22)), float(lot.uniform(0.45, 0.9))
    wx, wy = (value + np.float32(0.25 / cells) * noise(item, size, cells * 2) for value in (x, y))
    first, second, mark = cellular(wx, wy, item, cells=cells)
    chip = cover(np.float32(gap) - (second - first), soft=0.35 * cells * 2 / size + 0.02) * (mark < share)
    tone = chips[(mark * 997).astype(int) % 4] * (1 + 0.08 * fractal(item, size, cells))[..., None]
    ground = tinted(1 + 0.05 * fractal(item, size, 30, octaves=3), cement)
    return Scene(blend(ground, tone.astype(np.float32), chip), _whole(order))


_HIDES = (
    (0.06, 0.62, 0.5),
    (0.05, 0.6, 0.32),
    (0.09, 0.45, 0.66),
    (0.99, 0.65, 0.42),
    (0.6, 0.5, 0.36),
    (0.08, 0.1, 0.3),
)
"""Dyes of leather as hue, saturation, value: tan, brown, camel, oxblood, navy, anthracite."""


def leather(order: Order) -> Scene:
    """Grained leather: round pebbles with creases between them, a satin gloss."""
    lot, item, size = order.lot, order.item, order.size
    cells, lamp = float(lot.uniform(24, 36)), float(lot.uniform(3.4, 5.2))
    hue, rich, tone = _HIDES[int(lot.integers(len(_HIDES)))]
    colour = hsv(
        hue + float(lot.normal(0, 0.01)), rich + float(lot.normal(0, 0.05)), tone * float(lot.uniform(0.8, 1.2))
    )
    depth, shine = float(lot.uniform(1.5, 2.6)), float(lot.uniform(0.05, 0.16))
    x, y = plane(size)
    wx = x + np.float32(0.5 / cells) * noise(item, size, cells * 0.8)
    wy = y + np.float32(0.5 / cells) * noise(item, size, cells * 0.8)
    first, second, mark = cellular(wx, wy, item, cells=cells)
    crease = np.clip((second - first) / np.float32(0.45), 0, 1)
    height = np.sqrt(crease) * (0.8 + 0.4 * mark) + 0.06 * noise(item, size, size / 3) + 0.25 * noise(item, size, 7)
    tone = (0.62 + 0.38 * crease) * (1 + 0.05 * fractal(item, size, 3, octaves=3) + 0.06 * (mark - 0.5))
    image = lit(tinted(tone, colour), height, depth=depth, lamp=lamp, gloss=14, shine=shine)
    return Scene(image, _whole(order))


def _wires(distance, along, *, phase):
    """Height of round wires at `distance` -1..1 from their axes, woven up and down along their length."""
    round_ = np.sqrt(np.clip(1 - distance * distance, 0, 1))
    return round_, np.where(round_ > 0, round_ + 0.75 * np.cos(np.pi * (along + phase)), -9.0)


def mesh(order: Order) -> Scene:
    """Woven wire cloth over a dark ground; the flaws are a wire that is bent and one that is cut away."""
    lot, item, size, slip = order.lot, order.item, order.size, order.slip
    pitch, thick = float(lot.uniform(11, 15)), float(lot.uniform(0.2, 0.27))
    metal = hsv(float(lot.choice([0.09, 0.12, 0.58])), float(lot.uniform(0.04, 0.3)), float(lot.uniform(0.6, 0.8)))
    ground, lamp = hsv(0.6, 0.15, float(lot.uniform(0.05, 0.16))), float(lot.uniform(3.4, 5.2))
    u, v = _resting(order, degrees=float(lot.choice([0.0, 45.0])))
    u, v = (value * np.float32(pitch / 2) + np.float32(0.03) * noise(item, size, 4) for value in (u, v))
    column, row = np.round(u), np.round(v)
    centre = np.round((np.median(u), np.median(v)))
    gone = np.zeros((size, size), bool)
    if order.flaw is not None:
        lost = centre[0] + slip.integers(-3, 4)
        far = (v - np.float32(centre[1] + slip.uniform(-2.5, 2.5))).astype(np.float32)
        reach = float(slip.uniform(0.8, 2.4))
        if order.flaw == "bent":
            push = np.float32(slip.choice([-1, 1]) * slip.uniform(0.28, 0.5)) * np.exp(-((far / reach) ** 2))
            moved = u - push
            u = np.where(np.round(moved) == lost, moved, np.where(column == lost, column + 0.5, u))
            column = np.where(np.round(moved) == lost, lost, column)
        else:
            gone = (column == lost) & (np.abs(far) < reach)
    flat_u, high_u = _wires((u - column) / np.float32(thick), v, phase=column)
    flat_v, high_v = _wires((v - row) / np.float32(thick), u, phase=row + 1)
    high_u = np.where(gone, -9.0, high_u).astype(np.float32)
    height = np.maximum(high_u, high_v).astype(np.float32)
    wire = height > -5
    edge = np.where(high_u > high_v, flat_u, flat_v)
    solid = np.where(wire, np.clip(edge * 1.6, 0, 1), 0).astype(np.float32)
    diffuse, shine = relief(np.where(wire, height, 0.0).astype(np.float32), depth=3.0, lamp=lamp, gloss=18)
    bright = (0.35 + 0.45 * diffuse) * (0.75 + 0.25 * np.clip(height, -1, 1)) * (1 + 0.05 * noise(item, size, size / 4))
    steel = tinted(bright, metal) + (0.55 * shine)[..., None]
    below = tinted(1 + 0.15 * noise(item, size, 3), ground)
    return Scene(blend(below, steel.astype(np.float32), solid), _whole(order))
