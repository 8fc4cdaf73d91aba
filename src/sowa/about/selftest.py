"""`python -m sowa.about.selftest`: fit on four drawn parts, find a painted defect.

A process of its own, so that a library that crashes or hangs is seen from outside.

Prints two lines of JSON: what was loaded, then how it went.
"""

import json
import time
from typing import Any

__all__ = ["main"]

SIZE = 112
BACKBONE = "random_tiny"


def main() -> int:
    """Exit code 0 if the defect was found."""
    began = time.perf_counter()
    import torch

    from sowa.backbones import build_backbone
    from sowa.predictor.predictor import Predictor

    build_backbone(BACKBONE)  # loads what its builder needs
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so little work is slower in many threads, much slower on a busy machine
    _say(
        torch=torch.__version__,
        threads=threads,
        gpus=[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else [],
        mps=bool(torch.backends.mps.is_available()),
        seconds=time.perf_counter() - began,
    )
    began = time.perf_counter()
    detector = Predictor.fit([_part(seed) for seed in range(4)], name="disc", backbone=BACKBONE)
    good, bad = detector.predict(_part(4)), detector.predict(_part(4, defect=True))
    found = bad.score > good.score and bad.heatmap is not None and bad.heatmap.max() > good.heatmap.max()
    _say(ok=bool(found), seconds=time.perf_counter() - began, good=good.score, defective=bad.score)
    return 0 if found else 1


def _part(seed: int, *, defect: bool = False) -> Any:
    """[112, 112, 3] uint8: a light disc on a dark ground, and on it a checkered patch if it is defective."""
    import numpy as np

    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    pixels = np.where(x**2 + y**2 < (0.38 * SIZE) ** 2, 170, 60)[..., None].repeat(3, -1)
    pixels = pixels + np.random.default_rng(seed).integers(-6, 7, pixels.shape)
    if defect:
        side = SIZE // 4
        checks = np.add.outer(np.arange(side) // 3, np.arange(side) // 3) % 2 * 255
        pixels[side : 2 * side, side : 2 * side] = checks[..., None]
    return pixels.clip(0, 255).astype(np.uint8)


def _say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
