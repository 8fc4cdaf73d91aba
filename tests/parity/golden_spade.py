"""Checks a `spade*` file: retrieval, distances, maps and both image scores, and the published code's gallery."""

import re

from torch import Tensor

from sowa.backbones.pyramid import PyramidTokens
from sowa.detectors.spade import Spade, pooled_distance
from sowa.types import Reference
from tests.parity.reader import Golden, UnreadableError
from tests.parity.report import Row, compare, exact
from tests.parity.stand_ins import blank_backbone, insist, layer_numbers, sides, tokens_of, widths

ABSOLUTE = 1e-5
RETRIEVED = re.compile(r"min\((\d+), ?K\)")


def check(golden: Golden) -> list[Row]:
    """Rows for every `out.*` tensor of the file."""
    layers = layer_numbers(golden)
    tokens = tokens_of(golden, "in.", layers, "in.pool")
    references = tokens_of(golden, "in.ref_", layers, "in.ref_pool")
    insist(golden, grids=sides(tokens), channels=widths(tokens), pool_dim=tokens.cls.shape[1])
    insist(golden, align_corners=False, layer_reduce="mean after upsampling")
    rows = []
    for shots in golden.entry("K"):
        rows += _rows_of(golden, layers, tokens, references.rows(slice(shots)), f"out.k{shots}")
    seen = {row.name for row in rows}
    return rows + [
        Row(name, float("inf"), 0.0) for name in golden.tensors if name.startswith("out.") and name not in seen
    ]


def build(golden: Golden, **options) -> Spade:
    """The detector a file describes."""
    found = RETRIEVED.fullmatch(golden.entry("K_nn"))
    if found is None:
        raise UnreadableError(f"{golden.path}: K_nn is '{golden.entry('K_nn')}', not of the form min(5,K)")
    return Spade(
        backbone=blank_backbone(golden.entry("map_size"), len(layer_numbers(golden))),
        retrieved=int(found[1]),
        sigma=golden.entry("sigma"),
        **options,
    )


def _rows_of(
    golden: Golden, layers: tuple[int, ...], tokens: PyramidTokens, support: PyramidTokens, name: str
) -> list[Row]:
    detector = build(golden)
    reference: Reference = detector.fit_tokens("golden", support)
    pooled = pooled_distance(tokens.cls, reference["pooled"])
    _, shots = detector.retrieve(pooled)
    prediction = detector.score(tokens, reference)
    got: dict[str, Tensor] = {
        f"{name}.pool_dist": pooled,
        f"{name}.score": prediction.score,
        f"{name}.score_max_map": build(golden, image_score="max_map").score(tokens, reference).score,
        f"{name}.map_raw": prediction.levels.mean(dim=1),
        f"{name}.map": prediction.score_map,
    }
    distances = detector.distances(tokens, reference, shots)
    got |= {f"{name}.dist{layer}": value for layer, value in zip(layers, distances, strict=True)}
    if f"{name}.quirk.map" in golden.tensors:
        published = build(golden, published_gallery=True)
        got[f"{name}.quirk.map"] = published.score(tokens, reference).score_map
    rows = [exact(f"{name}.neighbours", shots, golden[f"{name}.neighbours"])]
    return rows + [compare(key, value, golden[key], tolerance=ABSOLUTE) for key, value in got.items()]
