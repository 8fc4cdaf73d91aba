"""SOWA Plus on solar cells drawn at random over all modules: what a split without modules would report.

    python benchmarks/random_cells.py [--json PATH]

Of the mono- and of the polycrystalline cells of ELPV 150 good and 150 defective ones with a certain label, shots from
the other good ones, five draws. Modules stand on both sides, and most defective monocrystalline cells are of one old
kind of module, so a part of the figure is telling modules apart. It is no figure of quality (docs/QUALITY.md has those,
split by modules) and nothing is chosen by it: it says how much of the distance to other reports is the split. Images of
the locked part are among them.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sowa.backbones import build_backbone
from sowa.data.dataset import ImageDataset
from sowa.data.layouts import read_samples
from sowa.data.roots import elpv_root
from sowa.detectors import build_detector
from sowa.metrics import write_json
from sowa.metrics.functional import image_metrics
from sowa.types import Sample, Tokens

KINDS, EACH, DRAWS, SHOTS, BATCH, SIZE = ("mono", "poly"), 150, 5, (1, 2, 4), 8, 448


@torch.inference_mode()
def measured(kind: str) -> dict:
    certain = [one for one in read_samples(elpv_root(), "elpv") if one.category == kind]
    by_label = [[one for one in certain if one.label == label] for label in (0, 1)]
    generator = np.random.default_rng(0)
    good, bad = ([own[place] for place in generator.permutation(len(own))] for own in by_label)
    test, pool = good[:EACH] + bad[:EACH], good[EACH:]
    detector = build_detector("sowa_plus", backbone=build_backbone("compact", image_size=SIZE)).eval()
    detector = detector.at_precision("auto")

    def encoded(samples: list[Sample]) -> Tokens:
        images = ImageDataset(samples=samples, image_size=SIZE, masks="none")
        starts = range(0, len(samples), BATCH)
        parts = [
            detector.encode(
                torch.stack([images[place].image for place in range(start, min(start + BATCH, len(images)))])
            )
            for start in starts
        ]
        return type(parts[0]).join(parts)

    tokens, labels = encoded(test), torch.tensor([one.label for one in test])
    rows: dict[int, list[float]] = {k: [] for k in SHOTS}
    for seed in range(DRAWS):
        order = np.random.default_rng(seed).permutation(len(pool))[: max(SHOTS)]
        for k in SHOTS:
            reference = detector.fit_tokens(kind, encoded([pool[place] for place in order[:k]]))
            rows[k].append(float(image_metrics(detector.score(tokens, reference).score, labels)["image_auroc"]))
    return {
        "images": {"good": EACH, "defective": EACH},
        "image_auroc": {
            k: {"mean": np.mean(own), "deviation": np.std(own, ddof=1), "draws": own} for k, own in rows.items()
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(argv)
    found = {kind: measured(kind) for kind in KINDS}
    print(json.dumps(found, indent=1))
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
