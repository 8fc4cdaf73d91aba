"""How far scores drift where a backbone computes in fewer bits than float32.

    python benchmarks/drift.py [--precision bf16,int8] [--shots 4] [--draws 5] [--limit 200] [--size 224] [--quick]
        [--json PATH]

SOWA Plus and SOWA on the offline backbone, on the development lists of the package (ELPV and the drawn products; the
locked images are not looked at): the same shots and test images through both precisions. Image AUROC of each in points
of a hundred, the mean over draws of shots and categories; the largest difference of a map, as such and as a share of
the range of the float32 map. `scored`: fitted in float32 and scored in the other precision, which is what `sowa.fit`
does; `fitted`: fitted so, too. A precision that this processor does not have is left out. `--limit`: test images of a
category.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sowa.backbones import build_backbone
from sowa.backbones.precision import resolve_precision
from sowa.data.dataset import ImageDataset
from sowa.data.shots import draw_shots
from sowa.detectors import build_detector
from sowa.detectors.base import Detector
from sowa.errors import ConfigError
from sowa.metrics import auroc, write_json
from sowa.training.record import machine_facts
from sowa.training.scoring import support_of
from sowa.training.sources import read_source
from sowa.types import Prediction, Sample, Tokens

DRAWN = {"part": "development", "seed": 0, "train_good": 16, "test_good": 20, "test_bad": 28, "size": 512}
DATA: dict[str, dict[str, Any]] = {
    "elpv": {"layout": "elpv", "list": "elpv_development"},
    "drawn": {"layout": "mvtec", "draw": DRAWN, "list": "drawn_development"},
}
METHODS = ("sowa_plus", "sowa")
BATCH = 8


def thinned(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """At most `limit` test images, evenly spread over each label, so that both are there."""
    kept = []
    for label in (0, 1):
        own = [sample for sample in samples if sample.label == label]
        count = min(len(own), limit // 2)
        kept += [own[place * len(own) // count] for place in range(count)]
    return kept


def encoded(detector: Detector, images: torch.Tensor) -> Tokens:
    with torch.inference_mode():
        parts = [detector.encode(part) for part in images.split(BATCH)]
        return type(parts[0]).join(parts)


def scored(detector: Detector, reference: dict, tokens: Tokens) -> list[Prediction]:
    with torch.inference_mode():
        rows = (slice(start, start + BATCH) for start in range(0, len(tokens.levels[0]), BATCH))
        return [detector.score(tokens.rows(some), reference) for some in rows]


def compared(
    exact: Detector, other: Detector, own: Tokens, draws: Sequence[torch.Tensor], images: torch.Tensor, labels: Any
) -> dict[str, float]:
    """AUROC of both in points (means over the draws) and how far maps are apart, for one category; own: `exact`'s
    tokens of the images."""
    tokens, found = encoded(other, images), []
    for shots in draws:
        with torch.inference_mode():
            references = [one.fit_tokens("object", one.encode(shots)) for one in (exact, other)]
        runs = {
            "fp32": scored(exact, references[0], own),
            "scored": scored(other, references[0], tokens),
            "fitted": scored(other, references[1], tokens),
        }
        maps = {name: torch.cat([one.score_map for one in run]) for name, run in runs.items()}
        scores = {name: torch.cat([one.score for one in run]).numpy() for name, run in runs.items()}
        spread = float(maps["fp32"].max() - maps["fp32"].min())
        row = {f"auroc_{name}": 100 * float(auroc(values, labels)) for name, values in scores.items()}
        for name in ("scored", "fitted"):
            gap = float((maps[name] - maps["fp32"]).abs().max())
            row |= {f"map_{name}": gap, f"map_share_{name}": gap / spread}
            row[f"score_{name}"] = float(abs(scores[name] - scores["fp32"]).max())
        found.append(row)
    means = {name: sum(row[name] for row in found) / len(found) for name in found[0] if name.startswith("auroc")}
    largest = {name: max(row[name] for row in found) for name in found[0] if not name.startswith("auroc")}
    return means | largest


def measured(precisions: Sequence[str], k: int, draws: int, limit: int, size: int | None) -> list[dict]:
    backbone = build_backbone("compact", image_size=size)
    rows = []
    for data, said in DATA.items():
        samples = read_source(dataset=data, **said).samples
        drawn = [draw_shots(samples, dataset=data, k=k, seed=seed) for seed in range(draws)]
        for category in sorted({sample.category for sample in samples}):
            test = [one for one in samples if one.category == category and one.split == "test"]
            kept = thinned(test, limit)
            loaded = ImageDataset(samples=kept, image_size=backbone.image_size, masks="none")
            images = torch.stack([loaded[place].image for place in range(len(kept))])
            shots = [support_of(one[category], backbone.image_size).images for one in drawn]
            labels = torch.tensor([one.label for one in kept]).numpy()
            for method in METHODS:
                exact = build_detector(method, backbone=backbone).eval()
                own = encoded(exact, images)
                for precision in precisions:
                    row = {"data": data, "category": category, "method": method, "precision": precision}
                    row |= {"images": len(kept), "draws": draws}
                    rows.append(row | compared(exact, exact.at_precision(precision), own, shots, images, labels))
                    print(json.dumps(rows[-1]), flush=True)
    return rows


def offered(precisions: Sequence[str]) -> list[str]:
    """Those that this processor has; the others are said."""
    there = []
    for name in precisions:
        try:
            there.append(resolve_precision(name, width=384, device=torch.device("cpu")))
        except ConfigError as error:
            print(f"{name}: left out, {error}", file=sys.stderr, flush=True)
    return there


def summary(rows: Sequence[dict]) -> dict[str, float]:
    """Difference of the mean AUROC in points by precision, method and data, and the largest differences of all."""
    ratios = {}
    for precision, method, data in sorted({(row["precision"], row["method"], row["data"]) for row in rows}):
        own = [row for row in rows if (row["precision"], row["method"], row["data"]) == (precision, method, data)]
        name = f"{precision}_{method}_{data}"
        gaps = {way: [row[f"auroc_{way}"] - row["auroc_fp32"] for row in own] for way in ("scored", "fitted")}
        ratios[f"{name}_auroc_points"] = sum(gaps["scored"]) / len(own)
        ratios[f"{name}_auroc_points_worst_category"] = max(gaps["scored"], key=abs)
        ratios[f"{name}_auroc_points_fitted_so"] = sum(gaps["fitted"]) / len(own)
        ratios[f"{name}_largest_map_share"] = max(row["map_share_scored"] for row in own)
    return ratios


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--precision", default="bf16,int8", help="by comma (%(default)s)")
    parser.add_argument("--shots", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--draws", type=int, default=5, help="of shots (%(default)s)")
    parser.add_argument("--size", type=int, help="of the image in pixels; else the backbone's own")
    parser.add_argument("--limit", type=int, default=200, help="test images of a category (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="8 test images of a category, one draw")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(argv)
    draws, limit = (1, 8) if options.quick else (options.draws, options.limit)
    rows = measured(offered(options.precision.split(",")), options.shots, draws, limit, options.size)
    result = {"name": "drift", "rows": rows, "ratios": summary(rows), "hardware": machine_facts()}
    print(json.dumps(result["ratios"], indent=1))
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
