"""Checks a `winclip*` file: windows, their embeddings, aggregation, zero-shot and few-shot scores and maps."""

import re

import torch
from torch import Tensor

from sowa.backbones.clip import clip_from_state
from sowa.backbones.clip_windows import window_index
from sowa.detectors.winclip import WinClip, WinClipTokens, harmonic_map
from tests.parity.reader import Golden, UnreadableError
from tests.parity.report import Row, compare, exact

TOLERANCE, EMBEDDING_TOLERANCE = 5e-6, 2e-5
EMBEDDINGS = ("image_embedding", "patch_tokens", "window_embeddings", "ref.")
FIXED = {"stride": 1, "smoothing": "none", "align_corners": False, "nn_metric": "(1-cos)/2", "upsample": "bilinear"}
"""What the method has no choice about; a file that says otherwise is not of this format."""


def check(golden: Golden) -> list[Row]:
    """A row for every `out.*` tensor of the file; those of its format must be there."""
    for name, value in FIXED.items():
        if golden.entry(name) != value:
            raise UnreadableError(f"{golden.path}: {name}={golden.entry(name)} is not what this format has ({value})")
    detector = build(golden)
    tokens, support = detector.encode(golden["in.images"]), detector.encode(golden["in.ref_images"])
    got = {"image_embedding": tokens.cls} | _embeddings(tokens, detector, "") | _embeddings(support, detector, "ref.")
    got |= _text(detector, tokens, golden) | _harmonic(detector, golden)
    for shots in re.findall(r"\d+", str(golden.entry("K"))):
        got |= _few(detector, tokens, support, golden["in.text"], int(shots))
    rows = [_row(name, value, golden[f"out.{name}"]) for name, value in got.items()]
    return rows + [_row(name, None, want) for name, want in golden.group("out.").items() if name not in got]


def build(golden: Golden) -> WinClip:
    """The detector a file describes, on its image tower; there is no text tower."""
    backbone = clip_from_state(
        golden.group("weights."),
        quick_gelu=golden.entry("act") == "quickgelu",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        vision_heads=golden.entry("heads"),
        image_size=golden.entry("image_size"),
    )
    return WinClip(
        backbone=backbone, scales=golden.entry("scales"), temperature=golden.entry("temperature"), text_weight=0.5
    )


def _row(name: str, got: Tensor | None, want: Tensor) -> Row:
    if got is not None and name.startswith("window_index."):
        return exact(f"out.{name}", got, want)
    tolerance = EMBEDDING_TOLERANCE if name.startswith(EMBEDDINGS) else TOLERANCE
    return compare(f"out.{name}", got, want, tolerance=tolerance)


def _embeddings(tokens: WinClipTokens, detector: WinClip, prefix: str) -> dict[str, Tensor]:
    got = {f"{prefix}patch_tokens": tokens.patches}
    for side, windows in zip(detector.scales, tokens.windows, strict=True):
        got[f"{prefix}window_embeddings.{side}"] = windows
        got[f"window_index.{side}"] = window_index(tokens.grid, side)
    return got


def _text(detector: WinClip, tokens: WinClipTokens, golden: Golden) -> dict[str, Tensor]:
    maps = detector.text_maps(tokens, golden["in.text"])
    prediction = detector.score(tokens, {"prototypes": golden["in.text"]})
    got = {"s0": maps.score, "text_map_grid": maps.grid}
    got |= {"zero.map": prediction.score_map, "zero.score": prediction.score}
    for side, windows, spread in zip(detector.scales, maps.windows, maps.scales, strict=True):
        got |= {f"window_prob.{side}": windows, f"text_scale_map.{side}": spread}
    return got


def _few(
    detector: WinClip, tokens: WinClipTokens, support: WinClipTokens, text: Tensor, shots: int
) -> dict[str, Tensor]:
    reference = {"prototypes": text}
    reference |= detector.memorise(support.rows(slice(0, shots)), reference)
    maps, prediction = detector.visual_maps(tokens, reference), detector.score(tokens, reference)
    got = {"map": prediction.score_map, "score": prediction.score}
    got |= {"patch_dist": maps.patches, "visual_map_grid": maps.grid}
    for side, windows, spread in zip(detector.scales, maps.windows, maps.scales, strict=True):
        got |= {f"window_dist.{side}": windows, f"window_dist_map.{side}": spread}
    return {f"few{shots}.{name}": value for name, value in got.items()}


def _harmonic(detector: WinClip, golden: Golden) -> dict[str, Tensor]:
    """The scores name no scale; their number does."""
    scores, (rows, columns) = golden["in.harmonic_scores"], golden.entry("grid")
    for side in detector.scales:
        if scores.shape[1] == (rows - side + 1) * (columns - side + 1):
            return {"harmonic_map": harmonic_map(scores, (rows, columns), side)}
    return {"harmonic_map": torch.empty(0)}
