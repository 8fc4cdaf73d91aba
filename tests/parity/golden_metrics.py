"""Checks a `metrics*` file: image and pixel metrics, three kinds of AUPRO, AUPIMO, regions.

Everything comes from the file: names of map sets, sizes, limits and bounds (in the tensors' names), thresholds.
"""

import re
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import ndimage

from sowa.metrics import auroc, image_metrics, pixel_metrics
from sowa.metrics.aupimo import aupimo
from sowa.metrics.curve import pixel_curve, regions
from sowa.metrics.legacy import aupro_april, aupro_sowa, linear_thresholds
from tests.parity.reader import Golden, UnreadableError
from tests.parity.report import Row, compare

TOLERANCE = 1e-9
FLOAT32_TOLERANCE = 1e-6  # anomalib accumulates in float32
NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
SHORT = {"auroc": "auroc", "ap": "ap", "f1max": "f1_max"}

Tensors = dict[str, np.ndarray]


def check(golden: Golden) -> list[Row]:
    """A row for every `out.` tensor; one that nothing here answers to is infinitely wrong."""
    _check_format(golden)
    tensors = {name: value.numpy() for name, value in golden.tensors.items()}
    found = re.search(r"num_thresholds\D*(\d+)", golden.metadata.get("aupimo", ""))
    thresholds = int(found.group(1)) if found else 5000
    known = _shared(tensors)
    for of in golden.group("in.maps."):
        known |= _of_set(of, tensors, thresholds)
    rows = []
    for name in sorted(name for name in tensors if name.startswith("out.")):
        got, want = (torch.as_tensor(np.asarray(known[name]())) if name in known else None), golden[name]
        if got is not None and got.ndim == 0 and want.numel() == 1:
            want = want.reshape(())  # a number may be stored as a list of one
        rows.append(compare(name, got, want, tolerance=_tolerance(name)))
    return rows


def _check_format(golden: Golden) -> None:
    if golden.metadata.get("connectivity", "8") != "8":
        raise UnreadableError(f"{golden.path}: regions of these metrics are 8-connected, the file says otherwise")
    sets = golden.group("in.maps.")
    wanted = [f"out.image.{name}" for name in SHORT] + ["out.regions"]
    wanted += [f"out.{of}.pixel.{name}" for of in sets for name in SHORT]
    missing = [name for name in wanted if name not in golden.tensors]
    missing += [f"out.{of}.aupro_exact.*" for of in sets if not golden.group(f"out.{of}.aupro_exact.")]
    if missing or not sets:
        raise UnreadableError(f"{golden.path}: missing {', '.join(missing) or 'in.maps.*'}")


def _shared(tensors: Tensors) -> dict[str, Callable[[], ArrayLike]]:
    image = image_metrics(tensors["in.scores"], tensors["in.score_labels"])
    masks = tensors["in.masks"] > 0
    known = {f"out.image.{name}": partial(image.get, f"image_{key}") for name, key in SHORT.items()}
    known["out.regions"] = lambda: [regions(mask)[1] for mask in masks]
    known["out.regions4"] = lambda: [ndimage.label(mask)[1] for mask in masks]  # what the metrics must not use
    return known


def _of_set(of: str, tensors: Tensors, thresholds: int) -> dict[str, Callable[[], ArrayLike]]:
    maps, masks = tensors[f"in.maps.{of}"], tensors["in.masks"]
    pixel, curve = pixel_metrics(maps, masks), pixel_curve(maps, masks)
    known = {f"out.{of}.pixel.{name}": partial(pixel.get, f"pixel_{key}") for name, key in SHORT.items()}
    known[f"out.{of}.n_thresholds"] = lambda: linear_thresholds(maps).size
    known[f"out.{of}.image_max.auroc"] = lambda: auroc(maps.max(axis=(1, 2)), tensors["in.labels"])
    kinds = {
        "aupro_exact": curve.aupro,
        "aupro_anomalib": curve.aupro,
        "aupro_sowa": lambda limit: aupro_sowa(maps, masks, limit),
        "aupro_april": lambda limit: aupro_april(maps, masks, limit),
    }
    for name in tensors:
        if match := re.fullmatch(rf"out\.{re.escape(of)}\.(\w+)\.({NUMBER})", name):
            if match.group(1) in kinds:
                known[name] = partial(kinds[match.group(1)], float(match.group(2)))
        elif match := re.fullmatch(rf"out\.{re.escape(of)}\.aupimo\.({NUMBER})-({NUMBER})", name):
            bounds = (float(match.group(1)), float(match.group(2)))
            known[name] = partial(_aupimo_as_stored, maps, masks, bounds, thresholds)
    return known


def _aupimo_as_stored(maps: np.ndarray, masks: np.ndarray, bounds: tuple[float, float], thresholds: int) -> np.ndarray:
    """-1 for a normal image; the reference was forced to say 0 for an anomalous one where the bounds hold no range."""
    score = aupimo(maps, masks, bounds, thresholds)
    return np.where(np.isnan(score), np.where(masks.any(axis=(1, 2)), 0.0, -1.0), score)


def _tolerance(name: str) -> float:
    if name.startswith("out.regions") or name.endswith("n_thresholds"):
        return 0.0
    return FLOAT32_TOLERANCE if ".aupro_anomalib." in name else TOLERANCE
