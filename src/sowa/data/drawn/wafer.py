"""A solar cell as an electroluminescence camera sees it."""

import numpy as np

from sowa.data.drawn.fields import (
    Field,
    cellular,
    cover,
    fractal,
    log_uniform,
    noise,
    plane,
    polygon,
    soften,
    streaks,
    turned,
)
from sowa.data.drawn.scene import Order, Scene, blend, hsv, posed, tinted

__all__ = ["wafer"]


def _crystal(order: Order) -> Field:
    """Brightness of cast silicon: faint facets and dark, ragged, slanting blotches, which are normal."""
    lot, item, size = order.lot, order.item, order.size
    x, y = plane(size)
    cells, share = log_uniform(lot, 5, 14), float(lot.uniform(0.4, 1.3))
    wx, wy = (value + 0.08 * noise(item, size, cells) for value in (x, y))
    _, _, mark = cellular(wx, wy, item, cells=cells)
    blotch = fractal(item, size, float(lot.uniform(5, 12)), octaves=4, gain=0.65)
    veil = fractal(item, size, 2, octaves=2)
    dark = np.clip(blotch + 0.5 * veil - np.float32(share), 0, 1.2)
    return (
        1 + np.float32(lot.uniform(0.02, 0.14)) * (mark - 0.5) - np.float32(lot.uniform(0.25, 0.6)) * dark + 0.05 * veil
    )


def _bars(order: Order, along: Field, across: Field, *, bars: int, gap: np.ndarray, soft: float) -> Field:
    """Darkness of the conductors across the cell, whole or soldered in dashes; they stop short of the edge."""
    lot = order.lot
    thick, depth = log_uniform(lot, 0.012, 0.035), float(lot.uniform(0.3, 0.75))
    dashed, pulses = bool(lot.random() < 0.35), float(lot.uniform(4, 8))
    dark = np.zeros_like(along)
    for place in gap:
        line = cover(np.abs(across - np.float32(place)) - np.float32(thick / 2), soft=soft * 2)
        if dashed:
            line = line * (0.35 + 0.65 * (np.cos(along * np.float32(pulses * np.pi)) > 0))
        dark = np.maximum(dark, line * cover(np.abs(along) - np.float32(0.9), soft=0.03))
    return np.float32(depth) * dark


def wafer(order: Order) -> Scene:
    """A solar cell as an electroluminescence camera sees it: grey, conductors dark, cast silicon blotched.

    Drawn after the look of such pictures, so that an adapter trained on these categories has met grey cells. The flaws
    are areas that carry no current ("dark") and fingers that do not ("missing": short dark stripes).
    """
    lot, item, slip, size = order.lot, order.item, order.slip, order.size
    cast, bars, lie = bool(lot.random() < 0.5), int(lot.integers(2, 6)), float(lot.choice([0.0, 90.0], p=[0.8, 0.2]))
    tone, swell, scale = float(lot.uniform(0.35, 0.85)), float(lot.uniform(0.0, 0.16)), float(lot.uniform(0.94, 1.06))
    corner = 0.0 if cast else float(lot.uniform(0.1, 0.24))
    fingers, faint = float(lot.uniform(40, 90)), float(lot.uniform(0.0, 0.03))
    colour = hsv(float(lot.random()), float(lot.choice([0.0, 0.0, 0.0, 0.08])), 1.0)
    x, y, soft = posed(order, turn=1.0, scale=scale)
    u, v = turned(x, y, degrees=lie)
    gap = (np.arange(bars) + 0.5) * 2 / bars - 1
    value = np.float32(tone) * (1 + np.float32(swell) * -np.cos(v * np.float32(bars * np.pi)))
    value = value * (1 + np.float32(faint) * np.cos(u * np.float32(fingers * np.pi)))
    value = value * (_crystal(order) if cast else 1 + 0.03 * fractal(item, size, 3, octaves=3))
    stripes = np.clip(streaks(item, size, along=bars * 1.2, across=70, degrees=lie + 90) - np.float32(2.1), 0, 1)
    value = value * (1 - np.float32(lot.uniform(0, 0.25)) * stripes)
    if order.flaw == "missing":
        value = value * (1 - _dead_fingers(slip, u, v, gap=gap, bars=bars))
    if order.flaw == "dark":
        value = value * (1 - _dead_area(slip, size, lie=lie, gap=gap))
    value = value * (1 - _bars(order, u, v, bars=bars, gap=gap, soft=soft))
    signed = np.maximum(
        np.maximum(np.abs(u), np.abs(v)) - 0.96, np.abs(u) + np.abs(v) - np.float32(1.92 - corner * 1.4)
    )
    edge = np.clip(-signed / np.float32(lot.uniform(0.03, 0.12)), 0, 1)
    value = value * (0.78 + 0.22 * edge)
    part = cover(signed.astype(np.float32), soft=soft * 2)
    table = tinted(np.full((size, size), tone * lot.uniform(0.1, 0.35), np.float32), colour)
    return Scene(blend(table, tinted(value.astype(np.float32), colour), part), part, table)


def _dead_fingers(slip: np.random.Generator, u: Field, v: Field, *, gap: np.ndarray, bars: int) -> Field:
    """Short dark stripes from a conductor half-way to the next."""
    dark, place = np.zeros_like(u), float(slip.choice(gap))
    way, reach, depth = float(slip.choice([-1, 1])), 1.0 / bars, log_uniform(slip, 0.2, 0.6)
    middle = float(slip.uniform(-0.6, 0.6))
    for _ in range(int(slip.integers(1, 9))):
        at, wide = middle + float(slip.normal(0, 0.12)), log_uniform(slip, 0.012, 0.05)
        long = (v - np.float32(place)) * np.float32(way)
        stripe = cover(np.abs(u - np.float32(at)) - np.float32(wide / 2), soft=0.012)
        inside = (long > 0) & (long < reach * float(slip.uniform(0.6, 1.0)))
        dark = np.maximum(dark, stripe * inside * np.float32(depth * slip.uniform(0.6, 1)))
    return dark


def _dead_area(slip: np.random.Generator, size: int, *, lie: float, gap: np.ndarray) -> Field:
    """A dark region cut off by straight cracks, often from an edge or a conductor."""
    middle, reach = slip.uniform(-0.7, 0.7, 2), log_uniform(slip, 0.15, 0.6)
    if slip.random() < 0.5:
        middle[int(slip.integers(2))] = float(slip.choice([-0.95, 0.95]))
    angles = np.sort(slip.uniform(0, 2 * np.pi, int(slip.integers(4, 7))))
    radii = reach * slip.uniform(0.5, 1.0, len(angles))
    corners = middle + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]
    area = soften(polygon(size, corners), slip.uniform(0.5, 3.0))
    stripes = 1 + 0.12 * streaks(slip, size, along=2, across=40, degrees=lie + 90)
    return np.clip(area * stripes * np.float32(log_uniform(slip, 0.2, 0.85)), 0, 0.92).astype(np.float32)
