"""Electrical goods: circuit board, cable in cross-section."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from sowa.data.drawn.fields import (
    Field,
    cellular,
    cover,
    fractal,
    noise,
    soften,
    streaks,
)
from sowa.data.drawn.ink import decal, font, word
from sowa.data.drawn.scene import Image3, Order, Scene, backdrop, blend, hsv, posed, relief, shadow, tinted

__all__ = ["cable", "circuit"]


@dataclass(frozen=True, slots=True)
class _Component:
    """A box soldered on a board, in units of 1/100 of the board's side."""

    kind: str
    x: float
    y: float
    wide: float
    tall: float
    turn: float
    tone: tuple[int, int, int]
    text: str


class _Artwork:
    """A board drawn flat: a colour picture and a height picture that every pen stroke goes to together."""

    def __init__(self, *, side: int, ground: tuple[int, int, int]):
        self.side = side
        self.colour, self.height = Image.new("RGB", (side, side), ground), Image.new("L", (side, side))
        self._pens = ImageDraw.Draw(self.colour), ImageDraw.Draw(self.height)

    def quad(self, part: _Component, box: tuple[float, float, float, float], tone: tuple[int, int, int], height: int):
        """A rectangle (left, top, right, bottom about the component's centre) turned with its component."""
        cos, sin = np.cos(np.deg2rad(part.turn)), np.sin(np.deg2rad(part.turn))
        left, top, right, bottom = box
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        s = self.side / 100
        points = [((part.x + x * cos - y * sin) * s, (part.y + x * sin + y * cos) * s) for x, y in corners]
        for pen, ink in zip(self._pens, (tone, height), strict=True):
            pen.polygon(points, fill=ink)

    def line(self, points: list[tuple[float, float]], *, width: float, tone: tuple[int, int, int], height: int):
        s = self.side / 100
        for pen, ink in zip(self._pens, (tone, height), strict=True):
            pen.line([(x * s, y * s) for x, y in points], fill=ink, width=max(round(width * s), 1), joint="curve")

    def disc(self, x: float, y: float, radius: float, tone: tuple[int, int, int], height: int):
        s = self.side / 100
        box = [(x - radius) * s, (y - radius) * s, (x + radius) * s, (y + radius) * s]
        for pen, ink in zip(self._pens, (tone, height), strict=True):
            pen.ellipse(box, fill=ink)

    def write(self, x: float, y: float, text: str, *, tall: float, tone: tuple[int, int, int]):
        s = self.side / 100
        self._pens[0].text((x * s, y * s), text, font=font(round(tall * s)), fill=tone, anchor="mm")


_SOLDER, _GOLD, _SILK = (188, 192, 196), (206, 172, 98), (226, 230, 224)


def _rgb(colour: Image3, gain: float = 1.0) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in np.clip(colour * 255 * gain, 0, 255))
    return red, green, blue


def _plan(lot: np.random.Generator) -> list[_Component]:
    """The components of a board on a grid of five by five slots: one large chip, the rest small."""
    chip_at = lot.integers(0, 3, 2)
    parts = [
        _Component(
            "chip", 22.0 + 18 * chip_at[0] + 5, 22.0 + 18 * chip_at[1] + 5, 24, 24, 0.0, (34, 35, 38), word(lot, 2)
        )
    ]
    for i in range(5):
        for j in range(5):
            taken = 0 <= i - chip_at[0] < 2 and 0 <= j - chip_at[1] < 2
            kind = str(lot.choice(["resistor", "capacitor", "can", "diode", "none"], p=[0.34, 0.26, 0.16, 0.12, 0.12]))
            across = bool(lot.random() < 0.5)
            number = f"{kind[0].upper()}{lot.integers(1, 40)}"
            if taken or kind == "none":
                continue
            tone = {
                "resistor": (30, 30, 34),
                "capacitor": (158, 126, 92),
                "can": (205, 208, 212),
                "diode": (52, 44, 42),
            }
            wide, tall = {"resistor": (9, 5), "capacitor": (8, 6), "can": (11, 11), "diode": (10, 5.5)}[kind]
            parts.append(_Component(kind, 14.0 + 18 * i, 14.0 + 18 * j, wide, tall, 90.0 * across, tone[kind], number))
    return parts


def _chip(art: _Artwork, part: _Component) -> None:
    w, t = part.wide / 2, part.tall / 2
    for k in np.linspace(-w + 2.2, w - 2.2, 8):
        for box in ((k - 0.6, -t - 2.6, k + 0.6, t + 2.6), (-w - 2.6, k - 0.6, w + 2.6, k + 0.6)):
            art.quad(part, box, _SOLDER, 60)
    art.quad(part, (-w, -t, w, t), part.tone, 150)
    art.quad(part, (-w + 1.5, -t + 1.5, -w + 3.5, -t + 3.5), (88, 90, 94), 145)
    art.write(part.x, part.y, part.text, tall=4.6, tone=(168, 170, 172))


def _mount(art: _Artwork, part: _Component) -> None:
    w, t = part.wide / 2, part.tall / 2
    if part.kind == "chip":
        return _chip(art, part)
    if part.kind == "can":
        art.quad(part, (-w, -t, w, t), (40, 40, 44), 60)
        art.disc(part.x, part.y, w * 0.92, part.tone, 190)
        art.quad(part, (-w * 0.75, -t * 0.5, -w * 0.42, t * 0.5), (48, 48, 52), 190)
        return None
    art.quad(part, (-w, -t, w, t), part.tone, 110)
    cap = 0.24 if part.kind != "diode" else 0.0
    art.quad(part, (-w, -t, -w + part.wide * max(cap, 0.16), t), _SOLDER if cap else _SILK, 112)
    if cap:
        art.quad(part, (w - part.wide * cap, -t, w, t), _SOLDER, 112)
    return None


def _pads(art: _Artwork, part: _Component) -> None:
    w, t = part.wide / 2, part.tall / 2
    if part.kind == "chip":
        return
    for sign in (-1, 1):
        art.quad(part, (sign * w - 2.2, -t * 0.8, sign * w + 2.2, t * 0.8), _SOLDER, 24)
    art.write(part.x, part.y + (t + 3 if part.turn == 0 else w + 3.5), part.text, tall=3.2, tone=_SILK)


def circuit(order: Order) -> Scene:
    """A populated circuit board; the flaws are a component that is missing and one that sits crooked."""
    lot, slip, size = order.lot, order.slip, order.size
    mask = hsv(
        float(lot.choice([0.36, 0.4, 0.6, 0.0, 0.75])), float(lot.uniform(0.5, 0.85)), float(lot.uniform(0.18, 0.45))
    )
    lamp, scale, table = float(lot.uniform(3.5, 4.4)), float(lot.uniform(0.9, 1.06)), backdrop(order, value=(0.2, 0.7))
    art, parts = _Artwork(side=400, ground=_rgb(mask)), _plan(lot)
    for _ in range(int(lot.integers(14, 26))):
        x, y, *legs = lot.integers(1, 21, 5) * 5.0
        bend = [(x, y), (x, legs[0]), (legs[1], legs[0]), (legs[1], legs[2])]
        art.line(bend, width=1.1, tone=_rgb(mask, 1.35), height=12)
        art.disc(x, y, 1.3, _GOLD, 16)
    for corner in ((5, 5), (95, 5), (5, 95), (95, 95)):
        art.disc(*corner, 3.4, _GOLD, 16)
        art.disc(*corner, 1.9, (22, 22, 24), 0)
    for part in parts:
        _pads(art, part)
    odd = int(slip.integers(1, len(parts)))
    for number, part in enumerate(parts):
        if number == odd and order.flaw == "missing":
            continue
        if number == odd and order.flaw == "bent":
            push = slip.uniform(-3, 3, 2)
            part = replace(
                part,
                turn=part.turn + float(slip.choice([-1, 1]) * slip.uniform(18, 75)),
                x=part.x + push[0],
                y=part.y + push[1],
            )
        _mount(art, part)
    u, v, soft = posed(order, turn=2.0, scale=scale)
    a, b = u / np.float32(0.95), v / np.float32(0.95)
    flat = np.asarray(art.colour, np.float32) / np.float32(255)
    albedo = np.stack([decal(flat[..., c], a, b) for c in range(3)], axis=-1)
    tall = decal(np.asarray(art.height, np.float32) / np.float32(255), a, b)
    part = cover(np.maximum(np.abs(u), np.abs(v)) - np.float32(0.945), soft=soft)
    diffuse, shine = relief(soften(tall, size / 140), depth=9, lamp=lamp, gloss=12)
    board = shadow(albedo, np.clip(tall * 2 - 0.15, 0, 1), lamp=lamp, far=0.022, soft=0.02, dark=0.45)
    board = np.where(tall[..., None] > 0.2, albedo, board) * (0.45 + 0.55 * diffuse)[..., None]
    board = board * (1 + 0.03 * noise(order.item, size, size / 3))[..., None] + (0.25 * shine)[..., None]
    ground = shadow(table, part, lamp=lamp, far=0.03, soft=0.03, dark=0.5)
    return Scene(blend(ground, board.astype(np.float32), part), part, table)


def _strands(order: Order, u: Field, v: Field, *, cells: float, lamp: float, copper: Image3) -> Image3:
    """The cut ends of many fine wires."""
    first, second, mark = cellular(u, v, order.item, cells=cells, jitter=0.45)
    round_ = np.clip(1.15 - 1.7 * first * first, 0, 1) * np.clip((second - first) / np.float32(0.25), 0, 1)
    diffuse, _ = relief(round_, depth=1.4, lamp=lamp)
    value = (0.3 + 0.7 * round_) * (0.8 + 0.3 * mark) * (0.4 + 0.6 * diffuse)
    return tinted(value.astype(np.float32), copper) + (0.12 * round_ * (mark > 0.85))[..., None]


def cable(order: Order) -> Scene:
    """A cable cut across: sheath, three insulated conductors; the flaws are a missing and a displaced conductor."""
    lot, item, slip, size = order.lot, order.item, order.slip, order.size
    hues = lot.permutation([0.0, 0.08, 0.15, 0.33, 0.57, 0.62, 0.8])[:3]
    coats = [hsv(float(h), float(lot.uniform(0.35, 0.65)), float(lot.uniform(0.35, 0.65))) for h in hues]
    sheath = hsv(float(lot.random()), 0.06, float(lot.choice([0.16, 0.5, 0.8])))
    copper = [hsv(0.06, 0.5, 0.95), hsv(0.58, 0.05, 0.9)][int(lot.random() < 0.3)]
    lamp, scale, table = float(lot.uniform(3.5, 4.4)), float(lot.uniform(0.82, 0.93)), backdrop(order)
    core, coat, cells = float(lot.uniform(0.2, 0.26)), float(lot.uniform(0.36, 0.39)), float(lot.uniform(36, 52))
    u, v, soft = posed(order, turn=12, scale=scale)
    warp = 0.006 * fractal(item, size, 3, octaves=2)
    radius = np.hypot(u, v) + warp
    signed = (radius - np.float32(0.93)).astype(np.float32)
    blade = streaks(item, size, along=3, across=70, degrees=float(item.uniform(0, 180)))
    rubber = relief(0.07 * blade + 0.35 * fractal(item, size, 12, octaves=4), depth=1.6, lamp=lamp)[0] + 0.03 * blade
    rubber = rubber * (1 + 0.1 * (u * np.float32(np.cos(lamp)) + v * np.float32(np.sin(lamp))))
    image = tinted(rubber, sheath)
    filling = tinted(
        rubber * (1 - 0.35 * np.clip((radius - 0.7) / 0.16, 0, 1)), hsv(0.1, 0.06, float(lot.uniform(0.15, 0.3)))
    )
    image = blend(image, filling, cover(radius - np.float32(0.85), soft=soft * 2))
    metal = _strands(order, u, v, cells=cells, lamp=lamp, copper=copper)
    lost = int(slip.integers(3))
    drift = slip.uniform(0.07, 0.12) * np.exp(1j * slip.uniform(0, 6.28))
    for number, coating in enumerate(coats):
        at = 0.455 * np.exp(1j * (2 * np.pi * number / 3 - np.pi / 2)) + complex(*item.normal(0, 0.008, 2))
        shove = drift if order.flaw == "bent" and number == lost else 0.0
        far = np.hypot(u - np.float32(at.real), v - np.float32(at.imag)) + warp
        inner = np.hypot(u - np.float32((at + shove).real), v - np.float32((at + shove).imag)) - warp
        if order.flaw == "missing" and number == lost:
            continue
        dim = 1 - 0.35 * np.clip((far - coat + 0.05) / 0.05, 0, 1)
        image = blend(image, tinted(rubber * dim, coating), cover(far - np.float32(coat), soft=soft * 1.5))
        image = blend(image, 0.3 * image, cover(inner - np.float32(core + 0.02), soft=soft * 3))
        image = blend(image, metal, cover(inner - np.float32(core), soft=soft * 1.5))
    part = cover(signed, soft=soft)
    ground = shadow(table, part, lamp=lamp, far=0.05, soft=0.05, dark=0.5)
    return Scene(blend(ground, image.astype(np.float32), part), part, table)
