"""Checks a `patchcore*` file: both embeddings, all distances, maps and scores, and the greedy choices."""

from torch import Tensor

from sowa.backbones.pyramid import PyramidTokens
from sowa.detectors.patchcore import Patchcore
from sowa.nn.coreset import from_mean_distance, from_norms, from_row, greedy_coreset
from tests.parity.reader import Golden
from tests.parity.report import Row, compare_relative, exact
from tests.parity.stand_ins import blank_backbone, insist, layer_numbers, tokens_of, widths

RELATIVE = 1e-5
VARIANTS = {
    "amazon": {"squared": True},
    "l2": {},
    "anomalib": {"embedding": "concatenated", "upsampling": "nearest", "border": "reflect"},
}


def check(golden: Golden) -> list[Row]:
    """Rows for every `out.*` tensor of the file."""
    layers = layer_numbers(golden)
    tokens, references = tokens_of(golden, "in.", layers), tokens_of(golden, "in.ref_", layers)
    insist(golden, grid=list(tokens.grid), align_corners=False)
    insist(golden, **dict(zip(("c2", "c3"), widths(tokens), strict=True)))
    got = _embeddings(golden, tokens, references)
    for shots in golden.entry("K"):
        for variant in VARIANTS:
            got |= _results(golden, variant, tokens, references.rows(slice(shots)), f"out.k{shots}.{variant}")
    rows = [compare_relative(name, value, golden[name], relative=RELATIVE, floor=0.0) for name, value in got.items()]
    rows += _coreset_rows(golden)
    seen = {row.name for row in rows}
    unknown = [name for name in golden.tensors if name.startswith("out.") and name not in seen]
    return rows + [Row(name, float("inf"), 0.0) for name in unknown]


def build(golden: Golden, variant: str, **options) -> Patchcore:
    """The detector of one of the three variants of a file."""
    return Patchcore(
        backbone=blank_backbone(golden.entry("map_size"), 4),
        width=golden.entry("embed_dim"),
        neighbourhood=golden.entry("patchsize"),
        neighbours=golden.entry("n_nn") if variant == "amazon" else 1,
        reweight_neighbours=golden.entry("reweight_neighbours"),
        sigma=golden.entry("sigma"),
        **VARIANTS[variant],
        **options,
    )


def _embeddings(golden: Golden, tokens: PyramidTokens, references: PyramidTokens) -> dict[str, Tensor]:
    got = {}
    for variant in ("amazon", "anomalib"):
        detector = build(golden, variant)
        for name, given in (("embedding", tokens), ("ref_embedding", references)):
            got[f"out.{variant}.{name}"] = detector.embed(given).flatten(2).transpose(1, 2).flatten(0, 1)
    return got


def _results(
    golden: Golden, variant: str, tokens: PyramidTokens, support: PyramidTokens, name: str
) -> dict[str, Tensor]:
    detector = build(golden, variant)
    reference = detector.fit_tokens("golden", support)
    prediction = detector.score(tokens, reference)
    distance = prediction.levels[:, 0]
    got = {f"{name}.dist2" if variant == "amazon" else f"{name}.dist": distance, f"{name}.map": prediction.score_map}
    if variant != "anomalib":
        got |= {f"{name}.map_raw": detector.enlarge(distance), f"{name}.score": prediction.score}
    if variant != "amazon":
        weighted = build(golden, variant, image_score="reweighted").score(tokens, reference).score
        if variant == "l2":
            got[f"{name}.score_reweighted"] = weighted
        else:
            got |= {f"{name}.score": weighted, f"{name}.score_plain": prediction.score}
    return got


def _coreset_rows(golden: Golden) -> list[Row]:
    points = golden["in.coreset.points"].double()
    count = int(len(points) * golden.entry("coreset_ratio"))
    begins = {
        "from_start": from_row(points, golden.entry("coreset_start")),
        "amazon_exact": from_norms(points),
        "amazon_approx": from_mean_distance(points, golden["in.coreset.start_points"]),
    }
    picked = {name: greedy_coreset(points, count, begin) for name, begin in begins.items()}
    radius = compare_relative(
        "out.coreset.radius", picked["from_start"][1], golden["out.coreset.radius"], relative=RELATIVE, floor=0.0
    )
    return [radius] + [
        exact(f"out.coreset.{name}", rows, golden[f"out.coreset.{name}"]) for name, (rows, _) in picked.items()
    ]
