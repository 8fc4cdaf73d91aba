"""One judged picture for an operator: heat over it, areas in boxes, the verdict in words below."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from sowa.figures.heat import overlay

__all__ = ["HIGH", "LOW", "marked"]

LOW, HIGH = 0.5, 2.0
"""Heat that is still invisible, and heat of the last colour; 1 is the most that is expected of a good part."""
MOST_SIDE = 1600
"""Longer side of the drawing in pixels; larger pictures are shrunk."""
GOOD, BAD, PAPER = (26, 127, 75), (192, 54, 44), (255, 255, 255)


def marked(
    picture: Image.Image,
    heat: ArrayLike | None,
    boxes: Sequence[tuple[int, int, int, int]],
    *,
    words: str,
    alarm: bool,
) -> Image.Image:
    """RGB. heat: [h, w] of any size, 1 is the limit; boxes: x, y, width, height in the picture's pixels.

    The scale is the same for every picture: where heat is below `LOW`, a part is shown as it is.
    """
    scale = min(1.0, MOST_SIDE / max(picture.size))
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    base = picture if size == picture.size else picture.resize(size, Image.Resampling.BOX)
    if heat is not None:
        base = Image.fromarray(overlay(np.asarray(base), heat, low=LOW, high=HIGH))
    kind = max(11, min(28, round(max(size) / 28)))
    font = ImageFont.load_default(kind)
    strip = 2 * kind
    width = max(size[0], round(font.getlength(words)) + kind)
    sheet = Image.new("RGB", (width, size[1] + strip), PAPER)
    sheet.paste(base)
    draw = ImageDraw.Draw(sheet)
    line = max(1, round(max(size) / 300))
    for left, top, wide, tall in boxes:
        # Around the area and not on it, as far as the picture goes.
        corner = (max(0, round(left * scale) - line), max(0, round(top * scale) - line))
        end = (min(size[0], round((left + wide) * scale) + line), min(size[1], round((top + tall) * scale) + line))
        draw.rectangle((*corner, max(corner[0], end[0] - 1), max(corner[1], end[1] - 1)), outline=BAD, width=line)
    draw.text((kind // 2, size[1] + kind // 2), words, font=font, fill=BAD if alarm else GOOD)
    return sheet
