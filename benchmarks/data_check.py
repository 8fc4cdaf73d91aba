"""`sowa data check` on a drawn tree of the shape of MVTec AD, timed beside decoding every image with Pillow.

    python benchmarks/data_check.py [--share 0.1] [--workers 2] [--folder DIR] [--json PATH]

The tree has the published 15 categories, counts and image sides, grey where they are grey; `--share 1` draws all 5,354
images and 1,258 masks (about 8 GB). Files are photographs with the noise of a sensor, four for each category, each file
made unlike all others by the date in it. Printed: processor seconds of all processes, wall clock (both with the time to
load the libraries) and peak memory of one process for the quick and the full check, and what Pillow takes to decode the
same images, measured on every tenth of them.
"""

import argparse
import io
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from sowa.data.images import read_image
from sowa.data.layouts_counts import published_counts
from sowa.metrics import write_json

SIDES = {"bottle": 900, "capsule": 1000, "metal_nut": 700, "pill": 800, "tile": 840}
"""Other categories have 1024."""
GREY = ("grid", "screw", "zipper")
PHOTOGRAPHS = (data.coffee, data.astronaut, data.chelsea, data.rocket)


def photographs(category: str) -> list[bytes]:
    """Four PNG files of the category's side."""
    side, generator = SIDES.get(category, 1024), np.random.default_rng(zlib.crc32(category.encode()))
    files = []
    for photograph in PHOTOGRAPHS:
        smooth = np.asarray(Image.fromarray(photograph()).resize((side, side), Image.Resampling.BICUBIC))
        noisy = np.clip(smooth + generator.normal(0, 1.5, smooth.shape), 0, 255).astype(np.uint8)
        files.append(encoded(Image.fromarray(noisy).convert("L" if category in GREY else "RGB")))
    return files


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def dated(png: bytes, number: int) -> bytes:
    """The same picture in a file of its own: a tIME chunk with `number` behind the header."""
    body = b"tIME" + struct.pack(">HI", number // 1000, number % 1000) + b"\0"
    return png[:33] + struct.pack(">I", 7) + body + struct.pack(">I", zlib.crc32(body)) + png[33:]


def draw(root: Path, share: float) -> int:
    """The tree; the number of images."""
    number = 0
    for category, counts in published_counts("mvtec").items():
        files, side = photographs(category), SIDES.get(category, 1024)
        marked = np.zeros((side, side), np.uint8)
        marked[side // 3 : side // 2, side // 4 : side // 2] = 255
        mask = encoded(Image.fromarray(marked))
        for part in ("train/good", "test/good", "test/cut", "ground_truth/cut"):
            (root / category / part).mkdir(parents=True)
        for part, kind in (("train/good", "train_good"), ("test/good", "test_good"), ("test/cut", "test_bad")):
            for i in range(max(round(counts[kind] * share), 1)):
                (root / category / part / f"{i:03}.png").write_bytes(dated(files[number % 4], number))
                number += 1
                if kind == "test_bad":
                    (root / category / f"ground_truth/cut/{i:03}_mask.png").write_bytes(mask)
    return number


ONE_CHECK = """
import json, os, resource, sys, time
start = time.perf_counter()
from sowa.data.check import check
loaded = time.perf_counter()
report = check(sys.argv[1], quick=sys.argv[2] == "quick", workers=int(sys.argv[3]))
times, scale = os.times(), 1e6 if sys.platform == "darwin" else 1e3
whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
print(json.dumps({
    "cpu": times.user + times.system + times.children_user + times.children_system,
    "wall": time.perf_counter() - start,
    "import": loaded - start,
    "megabytes": max(resource.getrusage(who).ru_maxrss for who in whose) / scale,
    "kinds": sorted({problem.kind for problem in report.problems}),
}))
"""


def timed(root: Path, how: str, workers: int) -> dict[str, Any]:
    """One check in a process of its own: seconds of all its processes, the largest memory of one of them."""
    command = [sys.executable, "-c", ONE_CHECK, str(root), how, str(workers)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def decoded(paths: Sequence[Path]) -> tuple[int, float]:
    start = time.process_time()
    for path in paths:
        read_image(path)
    return len(paths), time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--share", type=float, default=0.1, help="of the images of MVTec AD (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--folder", type=Path, default=None, help="where the tree is drawn and then deleted")
    parser.add_argument("--json", type=Path, default=None, help="write the numbers there too")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="sowa-check-", dir=options.folder))
    try:
        images = draw(root, options.share)
        size = sum(path.stat().st_size for path in root.rglob("*.png"))
        quick, full = timed(root, "quick", 1), timed(root, "full", options.workers)
        some, pillow = decoded(sorted(path for path in root.rglob("*.png") if "ground_truth" not in path.parts)[::10])
    finally:
        shutil.rmtree(root, ignore_errors=True)
    pillow *= images / some
    row = {"images": images, "gigabytes": size / 1e9, "workers": options.workers, "quick": quick, "full": full}
    found = ", ".join(full["kinds"]) or "none"
    whole = quick["cpu"] + (full["cpu"] - quick["cpu"]) / images * 5354
    print(f"{images} images with their masks, {size / 1e9:.2f} GB; kinds of problem found: {found}")
    for name, time_of in (("quick", quick), ("full", full)):
        words = f"{time_of['cpu']:7.1f} s of processor {time_of['wall']:7.1f} s of wall clock"
        print(f"{name:7}{words} {time_of['megabytes']:7.0f} MB")
    print(f"Pillow {pillow:7.1f} s of processor to decode the same images, without masks and duplicates")
    print(f"ratio  {pillow / full['cpu']:7.2f}; all 5,354 images: {whole:.0f} s of processor")
    if options.json:
        write_json(options.json, row | {"pillow_cpu": pillow, "ratio": pillow / full["cpu"]})


if __name__ == "__main__":
    main()
