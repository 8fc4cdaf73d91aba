"""How fast a method is and what it holds: images per second, milliseconds, memory, parameters.

Every method and image size is measured in a process of its own, so that memory is its own. Per batch size and number of
shots: a warm-up, then passes from decoded pixels to score and map until the time is up. Beside each stands the
machine's matrix-multiply rate measured in the same process, so that a busy moment can be seen.
"""

import argparse
import csv
import io
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sowa.errors import ConfigError, NeedsSupportError, SowaError, WeightsError

if TYPE_CHECKING:
    from sowa.detectors.base import Detector

__all__ = ["COLUMNS", "speed_main"]

COLUMNS = (
    "method",
    "backbone",
    "image_size",
    "precision",
    "k",
    "batch",
    "images_per_second",
    "ms_median",
    "ms_p95",
    "peak_mb",
    "parameters",
    "trainable",
    "weights",
    "gflops_matmul",
)
BANK = 4
MATMUL = 1024


def speed_main(
    *,
    methods: Sequence[tuple[str, Sequence[str]]],
    common: int | None = None,
    batches: Sequence[int] = (1, 8),
    shots: Sequence[int] = (0, BANK),
    seconds: float = 5.0,
    precision: str = "auto",
    out: Path,
    said: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Measure, write `speed.csv`, `speed.json`, `speed.md` and `speed.png`, return the rows.

    methods: (name, words for the training door); common: an image size at which every method is measured, too; shots
    a method cannot do without are left out. precision: of the backbones (`sowa.backbones.precision`). A method that
    fails is named and left out.
    """
    if seconds <= 0 or not batches or min(batches) < 1 or min(shots, default=0) < 0:
        raise ConfigError(f"seconds={seconds}, batches={list(batches)}, shots={list(shots)}: give positive numbers")
    rows: list[dict[str, Any]] = []
    failed = []
    for name, words in methods:
        for size in dict.fromkeys((None, common)):
            asked = [*words, *([f"backbone.image_size={size}"] if size else [])]
            said(f"{name}, {size or 'its own'} px")
            job = {"name": name, "words": asked, "batches": list(batches), "shots": list(shots), "seconds": seconds}
            found = _apart(job | {"precision": precision})
            if "error" in found:
                failed.append(f"{name} at {size or 'its own'} px: {found['error']}")
                continue
            rows += [row for row in found["rows"] if row not in rows]
    for line in failed:
        said(f"left out: {line}")
    if not rows:
        raise ConfigError(f"no method could be measured: {failed[0] if failed else 'none given'}")
    rows = _unlike(rows)
    _write(rows, failed, out)
    return rows


def _unlike(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A method whose own size is the common one is measured twice; the first stays."""
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        kept.setdefault(tuple(row[key] for key in ("method", "image_size", "k", "batch")), row)
    return list(kept.values())


def _apart(job: dict[str, Any]) -> dict[str, Any]:
    """The rows of one method, or its error, from a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "sowa.benchmark.speed", json.dumps(job)], capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or ["no answer"])[-1]}
    return json.loads(lines[-1])


# ------------------------------------------------------------------------------------------------------ in its process


def measure(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of one method at one size: every batch size and number of shots it can work with."""
    import torch

    before = _peak_mb()
    detector = _built(job["words"]).eval()
    size, device = detector.backbone.image_size, "cuda" if torch.cuda.is_available() else "cpu"
    detector = detector.to(device).at_precision(job.get("precision", "fp32"))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (max(job["batches"]) + max(job["shots"]), 3, size, size), generator=generator)
    images = images.to(torch.uint8).to(device)
    facts = {
        "method": job["name"],
        "backbone": detector.backbone.name,
        "image_size": size,
        "precision": detector.backbone.precision,
        "parameters": sum(value.numel() for value in detector.parameters()),
        "trainable": sum(value.numel() for _, value in detector.trainable_parameters()),
        "weights": "random" if detector.backbone.weights_id.startswith("random") else "published",
        "device": device,
        "threads": torch.get_num_threads(),
    }
    rows = []
    with torch.inference_mode():
        for k in job["shots"]:
            try:
                with torch.inference_mode(False):  # some methods learn from the shots by gradients
                    tokens = detector.encode(images[:k]) if k else None
                    reference = detector.fit_tokens("object", tokens)
            except NeedsSupportError:
                continue
            for batch in job["batches"]:
                part = images[max(job["shots"]) : max(job["shots"]) + batch]
                times = _times(lambda part=part, reference=reference: detector(part, reference), job["seconds"], device)
                rows.append(
                    facts
                    | {"k": k, "batch": batch}
                    | _figures(times, batch)
                    | {"peak_mb": _peak_mb(), "base_mb": before}
                )
                rows[-1]["gflops_matmul"] = _matmul()
    return rows


def _built(words: Sequence[str]) -> "Detector":
    """The method of these words; on drawn weights of the same architecture where the published ones are not at hand."""
    from sowa.training.build import build
    from sowa.training.compose import compose_job

    try:
        return build(compose_job("train", words).settings)
    except WeightsError as error:
        try:
            return build(compose_job("train", [*words, "backbone.weights=random"]).settings)
        except SowaError:
            raise error from None


def _times(once: Callable[[], object], seconds: float, device: str) -> list[float]:
    """Seconds of each pass: at least three after two for warming up, until the time is up."""
    import torch

    def timed() -> float:
        began = time.perf_counter()
        once()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    timed(), timed()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < 1000):
        times.append(timed())
    return times


def _figures(times: Sequence[float], batch: int) -> dict[str, float]:
    import numpy as np

    per_image = 1000 * np.asarray(times) / batch
    median = float(np.median(per_image))
    return {
        "images_per_second": round(1000 / median, 3),
        "ms_median": round(median, 3),
        "ms_p95": round(float(np.quantile(per_image, 0.95)), 3),
        "passes": len(times),
    }


def _matmul() -> float:
    """Rate of a square matrix product in GFLOP/s, the best of a few."""
    import torch

    a = torch.ones(MATMUL, MATMUL)
    best = min(_times(lambda: a @ a, 0.05, "cpu"))
    return round(2 * MATMUL**3 / best / 1e9, 1)


def _peak_mb() -> float:
    """Largest resident memory of this process so far; of the accelerator where there is one."""
    import torch

    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10), 1)


# -------------------------------------------------------------------------------------------------------------- results


def _write(rows: Sequence[dict[str, Any]], failed: Sequence[str], out: Path) -> None:
    from sowa.benchmark.render import write_text
    from sowa.metrics.table import write_json
    from sowa.training.record import machine_facts

    write_json(out / "speed.json", {"rows": rows, "failed": failed, "machine": machine_facts()})
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / "speed.csv", file.getvalue())
    write_text(out / "speed.md", _markdown(rows, failed))
    _chart(rows, out / "speed.png")


def _markdown(rows: Sequence[dict[str, Any]], failed: Sequence[str]) -> str:
    slowest = min(row["images_per_second"] for row in rows)
    heads = [*COLUMNS, "times the slowest"]
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join(['---'] * len(heads))} |"]
    for row in rows:
        cells = [str(row[name]) for name in COLUMNS] + [f"{row['images_per_second'] / slowest:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    first = rows[0]
    notes = [
        f"{first['device']}, {first['threads']} threads. From decoded pixels to score and map; milliseconds per image.",
        "peak_mb is the largest memory of the process so far, libraries and weights included.",
        *(f"Left out: {line}" for line in failed),
    ]
    return "\n".join([*lines, "", *notes, ""])


def _chart(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Images per second as bars, largest batch and most shots, a bar for each method and size."""
    from sowa.figures.canvas import INK, NORMAL, SMALL, save, sheet

    batch = max(row["batch"] for row in rows)
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["batch"] == batch:
            name = f"{row['method']} ({row['image_size']} px)"
            if name not in best or row["k"] > best[name]["k"]:
                best[name] = row
    figure = sheet(860, 90 + 34 * len(best))
    axes = figure.add_axes((0.3, 0.16, 0.64, 0.7))
    names = list(best)[::-1]
    values = [best[name]["images_per_second"] for name in names]
    bars = axes.barh(names, values, color="#3b6ea5", height=0.62)
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=4, fontsize=SMALL)
    axes.set_xlabel("images per second", fontsize=NORMAL)
    axes.margins(x=0.12)
    axes.tick_params(labelsize=SMALL)
    axes.set_title(f"Inference speed, batch {batch}", fontsize=12, fontweight="bold", loc="left", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("job")
    try:
        print(json.dumps({"rows": measure(json.loads(parser.parse_args(words).job))}))
    except SowaError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
