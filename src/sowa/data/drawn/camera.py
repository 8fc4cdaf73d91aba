"""The camera at the end of the line: lamp, lens and sensor, the same for a part and for its flawless twin."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from sowa.data.drawn.fields import Field, log_uniform, plane
from sowa.data.drawn.scene import Image3, luminance

__all__ = ["Exposure", "draw_exposure", "expose"]

_BRIGHTEST, _STEPS = 1.6, 8192  # steps far finer than the grain


@dataclass(frozen=True, slots=True)
class Exposure:
    """All that happens between a rendered scene and the file."""

    light: Field
    """[H, W] lamp fall-off and vignette."""
    cast: Image3
    """[3] colour of the lamp."""
    saturation: float
    contrast: float
    gamma: float
    blur: float
    """Standard deviation of the lens in pixels."""
    grain: Image3
    """[H, W, 3] sensor noise, in 0..1 of the scale."""


def draw_exposure(lot: np.random.Generator, item: np.random.Generator, *, size: int, wild: bool) -> Exposure:
    """The lot's camera with this item's small changes of light; `wild` draws from far wider ranges."""
    reach = 1.0 if wild else 0.3
    x, y = plane(size)
    angle, slope = item.uniform(0, 2 * np.pi), item.uniform(0, 0.28) * reach
    vignette = lot.uniform(0.0, 0.22) * (1.0 if wild else 0.6)
    gain = np.exp(item.normal(0, 0.18 if wild else 0.03))
    light = gain * (1 + slope * (np.cos(angle) * x + np.sin(angle) * y)) * (1 - vignette * (x * x + y * y) / 2)
    grey = bool(lot.random() < 0.3) and wild
    noisy = log_uniform(lot, 0.004, 0.03 if wild else 0.012)
    grain = item.standard_normal((size, size, 1), dtype=np.float32)
    if not grey:
        grain = grain + np.float32(0.5) * item.standard_normal((size, size, 3), dtype=np.float32)
    return Exposure(
        light=light.astype(np.float32),
        cast=np.exp(lot.normal(0, 0.06 if wild else 0.02, 3)).astype(np.float32),
        saturation=0.0 if grey else float(np.exp(lot.normal(0, 0.35 * reach))),
        contrast=float(np.exp(lot.normal(0, 0.25 * reach))),
        gamma=float(np.exp(lot.normal(0, 0.3 * reach))),
        blur=float(lot.uniform(0.35, 1.1 if wild else 0.7) * size / 256),
        grain=grain * np.float32(noisy),
    )


def _lens(image: Image3, sigma: float) -> Image3:
    """Gaussian blur cut at two pixels: the lens is nearly sharp."""
    reach = max(1, min(3, round(3 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 0.05)) ** 2).astype(np.float32)
    kernel /= kernel.sum()
    return correlate1d(correlate1d(image, kernel, axis=0, mode="nearest"), kernel, axis=1, mode="nearest")


def _curve(exposure: Exposure) -> Field:
    """The sensor's tone curve, tabulated over 0.._BRIGHTEST: contrast, a soft shoulder in place of clipping, gamma."""
    level = np.linspace(0.0, _BRIGHTEST, _STEPS + 1)
    level = np.maximum(0.45 + exposure.contrast * (level - 0.45), 0.0)
    level = np.where(level > 0.8, 0.8 + 0.2 * (1 - np.exp(-np.maximum(level - 0.8, 0) / 0.2)), level)
    return (level**exposure.gamma).astype(np.float32)


def expose(image: Image3, exposure: Exposure) -> NDArray[np.uint8]:
    """The picture [H, W, 3] uint8 that this camera takes of a scene; no randomness of its own."""
    image = _lens(image.astype(np.float32, copy=False), exposure.blur) * exposure.light[..., None] * exposure.cast
    luma = luminance(image)[..., None]
    image = luma + np.float32(exposure.saturation) * (image - luma)
    step = (np.clip(image, 0.0, _BRIGHTEST) * np.float32(_STEPS / _BRIGHTEST)).astype(np.int32)
    image = _curve(exposure)[step] + exposure.grain
    return np.clip(image * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
