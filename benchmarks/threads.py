"""Images per second by the number of torch's threads, against the number it takes by itself, in one run.

    python benchmarks/threads.py [--rounds 5] [--json PATH]

SOWA Plus on `compact` at 224 and at 448 px and SOWA on CLIP ViT-L/14 at 336 px (weights drawn from a seed), `precision`
as `auto` chooses it, a batch of 8 and a single image, from decoded pixels to score and map. The numbers of threads take
turns within each round; medians count.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from sowa.backbones import build_backbone
from sowa.detectors import build_detector
from sowa.metrics import write_json
from sowa.training.record import machine_facts

SHOTS, BATCHES = 4, (8, 1)
CASES = {
    "sowa_plus on compact, 224 px": ("sowa_plus", "compact", {"image_size": 224}),
    "sowa_plus on compact, 448 px": ("sowa_plus", "compact", {"image_size": 448}),
    "sowa on ViT-L/14, 336 px": ("sowa", "clip", {"model": "ViT-L-14-336-quickgelu", "weights": "random"}),
}


@torch.inference_mode()
def measured(rounds: int) -> dict:
    own = torch.get_num_threads()
    numbers = sorted({1, max(1, own // 2), own, 2 * own})
    rows, ratios = [], {}
    for name, (method, backbone, options) in CASES.items():
        detector = build_detector(method, backbone=build_backbone(backbone, **options)).eval()
        detector, side = detector.at_precision("auto"), detector.backbone.image_size
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (SHOTS + max(BATCHES), 3, side, side), generator=generator).to(torch.uint8)
        reference = detector.fit_tokens("object", detector.encode(images[:SHOTS]))
        took: dict[tuple[int, int], list[float]] = {(number, batch): [] for number in numbers for batch in BATCHES}
        for turn in range(rounds + 1):  # the first warms up
            for (number, batch), times in took.items():
                torch.set_num_threads(number)
                began = time.perf_counter()
                detector(images[SHOTS : SHOTS + batch], reference)
                if turn:
                    times.append(time.perf_counter() - began)
        torch.set_num_threads(own)
        middle = {key: statistics.median(times) for key, times in took.items()}
        for (number, batch), seconds in middle.items():
            ratio = middle[own, batch] / seconds
            rows.append({"case": name, "threads": number, "batch": batch, "images_per_second": batch / seconds})
            ratios[f"{name}, batch {batch}: {number} threads to torch's {own}"] = round(ratio, 3)
    return {"name": "threads", "rows": rows, "ratios": ratios, "hardware": machine_facts()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(argv)
    result = measured(options.rounds)
    print(json.dumps(result, indent=1))
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
