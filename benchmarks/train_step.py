"""Time and memory of one training step of SOWA on tokens that are at hand, part by part.

    python benchmarks/train_step.py [--batch 8] [--repeats 5] [--quick] [--json PATH]

ViT-L/14 at 336 px with drawn weights. Three ways to the same gradients: maps of both states at image size with their
losses as `sowa.nn.losses` defines them; `sowa.nn.map_losses`, which keeps none of them; and level by level
(`sowa.detectors.sowa_losses`), as training goes. All with float32 products and with bf16 (autocast). Memory is counted:
what waits for a backward pass. The peak of the process would say little, for an allocator keeps what was freed.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from auxiliary import FULL, QUICK, detector_on, hardware, tower

from sowa.detectors.base import Detector
from sowa.metrics import write_json
from sowa.nn.losses import pixel_losses
from sowa.nn.map_losses import map_losses
from sowa.training.allocator import keep_freed_memory
from sowa.training.compose import compose_job
from sowa.types import Tokens

Step = Callable[[], None]


def drawn(detector: Detector, batch: int) -> tuple[Tokens, torch.Tensor, torch.Tensor]:
    side = detector.backbone.image_size
    with torch.no_grad():
        one = detector.encode(torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8))
    levels = tuple(
        level.repeat(batch, 1, 1) * (1 + 0.1 * torch.randn(batch, 1, level.shape[-1])) for level in one.levels
    )
    masks = torch.zeros(batch, side, side, dtype=torch.uint8)
    masks[::2, : side // 8, : side // 5] = 1
    return Tokens(one.cls.repeat(batch, 1), levels, one.grid), torch.arange(batch) % 2, masks


def by_definition(detector: Detector, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    levels = detector.pixel_probabilities(logits).unbind(dim=1)
    return sum(sum(pixel_losses(level, masks)) for level in levels)


def from_grids(_: Detector, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    return sum(one.sum() for one in map_losses(logits[:, :, 1] - logits[:, :, 0], masks))


def by_level(detector: Detector, tokens: Tokens, prototypes: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    return detector.level_losses(detector, tokens, prototypes, masks).sum()


def step_of(detector: Detector, parts: tuple, way: Callable, lowered: bool) -> Step:
    tokens, labels, masks = parts
    rows = torch.zeros(len(labels), dtype=torch.long)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=lowered):
            prototypes = detector.prototypes()[rows]
            image = torch.nn.functional.cross_entropy(detector.image_logits(tokens, prototypes), labels)
            if way is by_level:
                loss = by_level(detector, tokens, prototypes, masks) + image
            else:
                loss = way(detector, detector.pixel_logits(tokens, prototypes).float(), masks) + image
        loss.backward()
        detector.zero_grad(set_to_none=True)

    return step


WAYS = {"maps at image size": by_definition, "from grids": from_grids, "level by level": by_level}


def seconds(work: Step, repeats: int, clock: Callable[[], float] = time.perf_counter) -> float:
    times = []
    for _ in range(repeats + 1):
        began = clock()
        work()
        times.append(clock() - began)
    return statistics.median(times[1:])


def kept_bytes(work: Step) -> int:
    """Most bytes that wait for a backward pass at a time, parameters aside, each storage once."""
    waiting: dict[int, int] = {}
    most = [0]

    class Kept:
        def __init__(self, tensor: torch.Tensor):
            self.tensor, storage = tensor, tensor.untyped_storage()
            self.place = storage.data_ptr()
            if not isinstance(tensor, torch.nn.Parameter):
                waiting[self.place] = storage.nbytes()
            most[0] = max(most[0], sum(waiting.values()))

        def __del__(self) -> None:
            waiting.pop(self.place, None)

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        work()
    return most[0]


def measure(batch: int, repeats: int, quick: bool) -> dict[str, Any]:
    kind = QUICK if quick else FULL
    detector = detector_on(tower(kind), compose_job("train", kind).settings).train()
    parts = drawn(detector, batch)
    rows, ratios, sizes = [], {}, {}
    for lowered in (False, True):
        for label, way in WAYS.items():
            sizes[lowered, label] = kept_bytes(step_of(detector, parts, way, lowered))
    keep_freed_memory()  # as the command does
    for lowered in (False, True):
        name = "bf16" if lowered else "fp32"
        found = {}
        for label, way in WAYS.items():
            step = step_of(detector, parts, way, lowered)
            found[label] = {"seconds": seconds(step, repeats), "kept": sizes[lowered, label]}
            rows.append({"losses": label, "products": name, **found[label]})
        old, _, new = found.values()
        ratios[f"{name}: time before over after"] = old["seconds"] / new["seconds"]
        ratios[f"{name}: kept bytes before over after"] = old["kept"] / new["kept"]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=lowered):
            text = seconds(lambda: detector.prototypes().sum().backward(), repeats)
        rows.append({"losses": "prompts alone", "products": name, "seconds": text})
    side, grid = detector.backbone.image_size, detector.backbone.grid
    for label, way in (("maps at image size", by_definition), ("from grids", from_grids)):
        logits = torch.randn(batch, len(detector.taps), 2, *grid, requires_grad=True)
        alone = seconds(lambda logits=logits, way=way: way(detector, logits, parts[2]).backward(), repeats)
        rows.append({"losses": f"losses alone, {label}", "products": "fp32", "seconds": alone})
    ratios["losses alone: time before over after"] = rows[-2]["seconds"] / rows[-1]["seconds"]
    return {"name": "train_step", "batch": batch, "side": side, "rows": rows, "ratios": ratios, "hardware": hardware()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny backbone, two repeats")
    parser.add_argument("--json", metavar="PATH", help="also write the numbers here")
    options = parser.parse_args()
    if options.batch < 1 or options.repeats < 1:
        parser.error("--batch and --repeats must be at least 1")
    result = measure(options.batch, 2 if options.quick else options.repeats, options.quick)
    for row in result["rows"]:
        size = f", kept {row['kept'] / 1e6:.0f} MB" if "kept" in row else ""
        print(f"{row['losses']}, {row['products']}: {row['seconds']:.3f} s{size}")
    for name, ratio in result["ratios"].items():
        print(f"{name}: ratio {ratio:.2f}")
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
