"""Checks a `padim*` file: embedding, Gaussian, distances, maps and scores, and anomalib's variant."""

import torch
from torch import Tensor

from sowa.backbones.pyramid import PyramidTokens
from sowa.detectors.padim import Padim
from sowa.nn.maps import upsample
from sowa.types import Reference
from tests.parity.reader import Golden
from tests.parity.report import Row, compare, compare_relative
from tests.parity.stand_ins import blank_backbone, insist, layer_numbers, sides, tokens_of, widths

RELATIVE, REFERENCE_RELATIVE = 1e-5, 2e-5


def check(golden: Golden) -> list[Row]:
    """Rows for every `out.*` tensor of the file."""
    layers = layer_numbers(golden)
    tokens, references = tokens_of(golden, "in.", layers), tokens_of(golden, "in.ref_", layers)
    detector, channels = build(golden), golden["in.channels"]
    insist(golden, grids=sides(tokens), channels=widths(tokens), d=len(channels))
    insist(golden, align_corners=False, cov_divisor="K-1", upsample_features="nearest")
    got = {
        "out.embedding": detector.embed(tokens, channels),
        "out.ref_embedding": detector.embed(references, channels),
    }
    for shots in golden.entry("K"):
        got |= _results(golden, tokens, references.rows(slice(shots)), f"out.k{shots}")
    rows = [_row(golden, name, value) for name, value in got.items()]
    unknown = [name for name in golden.tensors if name.startswith("out.") and name not in got]
    return rows + [Row(name, float("inf"), 0.0) for name in unknown]


def build(golden: Golden, **options) -> Padim:
    """The detector a file describes."""
    return Padim(
        backbone=blank_backbone(golden.entry("map_size"), len(layer_numbers(golden))),
        channels=golden["in.channels"].tolist(),
        sigma=golden.entry("sigma"),
        **({"eps": golden.entry("eps")} | options),
    )


def _row(golden: Golden, name: str, value: Tensor) -> Row:
    if name.endswith("embedding"):
        return compare(name, value, golden[name], tolerance=0.0)
    relative = REFERENCE_RELATIVE if name.endswith("dist.ref") or ".anomalib." in name else RELATIVE
    return compare_relative(name, value, golden[name], relative=relative, floor=0.0)


def _results(golden: Golden, tokens: PyramidTokens, support: PyramidTokens, name: str) -> dict[str, Tensor]:
    detector = build(golden)
    reference = detector.fit_tokens("golden", support)
    distance, prediction = detector.distances(tokens, reference), detector.score(tokens, reference)
    maps = prediction.score_map
    size = maps.shape[-2:]
    got = {
        f"{name}.mean": reference["mean"].T,
        f"{name}.dist": distance,
        f"{name}.map_raw": upsample(distance, size, align_corners=False),
        f"{name}.map": maps,
        f"{name}.score": prediction.score,
        # The reference scales by the whole test set, which is the images of the file.
        f"{name}.score_minmax": (prediction.score - maps.min()) / (maps.max() - maps.min()),
    }
    wanted = {key.removeprefix(f"{name}.") for key in golden.tensors if key.startswith(f"{name}.")}
    if "dist.ref" in wanted:
        got[f"{name}.dist.ref"] = distance
    if "cov_first8" in wanted:
        got[f"{name}.cov_first8"] = _covariance(reference, detector.eps)[:8].permute(1, 2, 0)
    if "anomalib.dist" in wanted:
        theirs = build(golden, eps=golden.entry("anomalib_eps"), border="reflect")
        distance = theirs.distances(tokens, reference)
        got |= {f"{name}.anomalib.dist": distance, f"{name}.anomalib.dist_exact": distance}
        got[f"{name}.anomalib.map"] = theirs.score(tokens, reference).score_map
    return got


def _covariance(reference: Reference, eps: float) -> Tensor:
    """[L, D, D] as matrices, with eps on the diagonal."""
    axes, variance = reference["axes"], reference["variance"]
    spread = torch.einsum("lrd,lr,lre->lde", axes, variance, axes)
    return spread + eps * torch.eye(axes.shape[-1])
