"""`sowa demo`: train on drawn parts, adapt to four good pictures, find defects; tables and pictures in one folder.

Everything is fetched from the package index or drawn by code. A second run finds what the first left and does only what
is missing; a run with other settings begins anew in its folder.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sowa import __version__
from sowa.errors import ConfigError

if TYPE_CHECKING:
    from sowa.detectors.base import Detector
    from sowa.training.evaluate import Evaluation
    from sowa.types import Sample

__all__ = ["main"]

PICTURE = 256
AUXILIARY_GOOD, AUXILIARY_BAD = 6, 9
TARGETS = ("cable", "leather")
TARGET_TRAIN, TARGET_GOOD, TARGET_BAD = 6, 16, 20
PER_LABEL = 75
"""ELPV cells of each type and label that are scored, spread evenly over the test list; all of them with --full."""
EPOCHS = 1
SHOTS, DRAWS = (0, 1, 4), 3
BATCH = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="sowa demo", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the results (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of drawing, training and shots (%(default)s)")
    parser.add_argument("--full", action="store_true", help="score every ELPV test cell; takes several times longer")
    parser.add_argument("--cache-dir", type=Path, default=None, help="where weights and data are kept; else SOWA_CACHE")
    options = parser.parse_args(argv)
    if options.seed < 0:
        raise ConfigError(f"--seed {options.seed} cannot be used: give a whole number of 0 or more")
    return _run(options.out, options.seed, options.full, options.cache_dir)


def _settings(seed: int, full: bool) -> dict[str, Any]:
    return {
        "version": __version__,
        "seed": seed,
        "full": full,
        "picture": PICTURE,
        "auxiliary": [AUXILIARY_GOOD, AUXILIARY_BAD],
        "targets": list(TARGETS),
        "target": [TARGET_TRAIN, TARGET_GOOD, TARGET_BAD],
        "per_label": PER_LABEL,
        "epochs": EPOCHS,
        "shots": list(SHOTS),
        "draws": DRAWS,
    }


def _key(settings: dict[str, Any]) -> str:
    """Names the results of these settings: a run with others finds nothing of this one."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _run(out: Path, seed: int, full: bool, cache_dir: Path | None) -> int:
    began, settings = time.perf_counter(), _settings(seed, full)
    key = _key(settings)
    finished = _read(out / "run.json")
    if finished.get("key") == key and all((out / name).is_file() for name in finished.get("files", ["run.json"])):
        _print_table(_read(out / "metrics.json")["rows"])
        print(f"All of it was there already, {finished['seconds']:.0f} s of work on {finished['ended']}.")
        return _farewell(out)
    _say("1/5 weights and images")
    detector, sources = _prepare(out, seed, full, cache_dir)
    _say("2/5 training on drawn parts that are not among those judged")
    _train(out, seed, key, detector, cache_dir)
    _say("3/5 scoring")
    result = _score(detector, sources, seed)
    _say("4/5 pictures")
    files = _results(out, result, settings) + _pictures(out, detector, sources, result, seed)
    _say("5/5 done")
    _print_table(result.rows)
    _note(out, settings, key, detector, result, files, time.perf_counter() - began)
    return _farewell(out)


def _prepare(out: Path, seed: int, full: bool, cache_dir: Path | None) -> "tuple[Detector, dict[str, list[Sample]]]":
    """The untrained detector and the target samples by data set; draws and fetches what is not there."""
    from sowa.backbones import build_backbone

    backbone = build_backbone("compact", cache_dir=cache_dir)  # first, so that a missing network is said at once
    from sowa.data.drawn import AUXILIARY, draw_dataset
    from sowa.data.layouts import read_samples
    from sowa.data.roots import elpv_root
    from sowa.data.subset import spread
    from sowa.detectors import build_detector

    elpv = read_samples(elpv_root(cache_dir), "elpv")
    drawn = out / "data" / f"target-{seed}"
    draw_dataset(
        _auxiliary_root(out, seed),
        seed=seed,
        categories=AUXILIARY,
        train_good=0,
        test_good=AUXILIARY_GOOD,
        test_bad=AUXILIARY_BAD,
        size=PICTURE,
    )
    draw_dataset(
        drawn,
        seed=seed + 1,
        categories=TARGETS,
        train_good=TARGET_TRAIN,
        test_good=TARGET_GOOD,
        test_bad=TARGET_BAD,
        size=PICTURE,
    )
    sources = {"elpv": elpv if full else spread(elpv, PER_LABEL), "drawn": read_samples(drawn, "mvtec")}
    return build_detector("sowa", backbone=backbone, seed=seed).eval(), sources


def _auxiliary_root(out: Path, seed: int) -> Path:
    return out / "data" / f"auxiliary-{seed}"


def _train(out: Path, seed: int, key: str, detector: "Detector", cache_dir: Path | None) -> None:
    """Put trained tensors into the detector: those of an earlier run with the same settings, else by training now."""
    from sowa.artifact import load_trained
    from sowa.training.run import train_main

    folder = out / f"train-{key}"
    if not (folder / "trained.safetensors").is_file():
        cache = [f"paths.cache_dir={cache_dir}"] if cache_dir else []
        train_main(
            [
                "experiment=demo",
                f"data.auxiliary.root={_auxiliary_root(out, seed)}",
                f"paths.output_dir={folder}",
                f"trainer.max_epochs={EPOCHS}",
                f"data.batch_size={BATCH}",
                f"seed={seed}",
                "test=false",
                "resume=true",
                *cache,
            ]
        )
    load_trained(folder / "trained.safetensors", detector)


def _score(detector: "Detector", sources: "dict[str, list[Sample]]", seed: int) -> "Evaluation":
    from sowa.training.evaluate import Evaluation, evaluate
    from sowa.training.progress import evaluation_progress

    result = Evaluation()
    for dataset, samples in sources.items():
        with evaluation_progress() as progress:
            result.extend(
                evaluate(
                    detector,
                    dataset=dataset,
                    samples=samples,
                    shots=SHOTS,
                    seeds=range(seed, seed + DRAWS),
                    batch_size=BATCH,
                    progress=progress,
                )
            )
    return result


def _results(out: Path, result: "Evaluation", settings: dict[str, Any]) -> list[str]:
    from sowa.training.evaluate import write_results

    write_results(out, result, about={"protocol": "standard", "detector": "sowa", "backbone": "compact", **settings})
    return ["metrics.json", "scores.csv", "shots.json"]


def _pictures(
    out: Path, detector: "Detector", sources: "dict[str, list[Sample]]", result: "Evaluation", seed: int
) -> list[str]:
    """A sheet of a dozen verdicts and the mechanism figure, at the largest K."""
    from sowa.figures import mechanism_figure, verdict_sheet
    from sowa.training.gallery import HIGH, LOW, chosen_samples, mechanism_rows, verdict_rows

    chosen = {dataset: chosen_samples(samples) for dataset, samples in sources.items()}
    rows = verdict_rows(detector, chosen, result, k=max(SHOTS), seed=seed)
    title = f"SOWA, {max(SHOTS)} good pictures: heat in doublings above the most unusual spots of the good pictures"
    verdict_sheet(rows, out / "pictures" / "verdicts.png", low=LOW, high=HIGH, title=title)
    mechanism_figure(
        mechanism_rows(detector, chosen, result, k=max(SHOTS), seed=seed), out / "pictures" / "mechanism.png"
    )
    return ["pictures/verdicts.png", "pictures/mechanism.png"]


def _print_table(rows: "Sequence[dict[str, Any]]") -> None:
    """One row per category: image AUROC at every K, then the other metrics at the largest; percent, mean and spread."""
    from rich.console import Console
    from rich.table import Table

    from sowa.metrics.table import summarise

    summary, most = summarise(rows), max(SHOTS)
    table = Table(title=f"image AUROC by number of good pictures, and more at {most} (percent, {DRAWS} draws)")
    columns = [("image_auroc", k, f"k={k}") for k in SHOTS]
    columns += [(name, most, name.replace("_", "\n", 1)) for name in ("image_ap", "pixel_auroc", "pixel_aupro")]
    for head in ("category", *(head for _, _, head in columns)):
        table.add_column(head, justify="left" if head == "category" else "right", no_wrap=True)
    for by_k in summary.values():
        for category in by_k[f"k={most}"]["categories"]:
            cells = (by_k[f"k={k}"]["categories"][category][name] for name, k, _ in columns)
            table.add_row(category, *(_percent(cell) for cell in cells))
    Console().print(table, "- no pixel truth; all metrics of all draws are in metrics.json", sep="\n", highlight=False)


def _percent(cell: dict[str, float]) -> str:
    if not cell["values"]:
        return "-"
    spread = f"±{100 * cell['std']:.1f}" if cell["values"] > 1 else ""
    return f"{100 * cell['mean']:.1f}{spread}"


def _note(
    out: Path,
    settings: dict[str, Any],
    key: str,
    detector: "Detector",
    result: "Evaluation",
    files: list[str],
    seconds: float,
) -> None:
    from sowa.metrics.table import write_json
    from sowa.training.record import machine_facts

    facts = {
        "key": key,
        "settings": settings,
        "command": ["sowa", "demo", "--seed", str(settings["seed"]), *(["--full"] if settings["full"] else [])],
        "weights_id": detector.backbone.weights_id,
        "text_trained": detector.backbone.text_trained,
        "images": len({(row["category"], row["image"]) for row in result.scores}),
        "seconds": seconds,
        "ended": time.strftime("%Y-%m-%d %H:%M:%S"),
        "files": files,
        **machine_facts(),
    }
    write_json(out / "run.json", facts)


def _farewell(out: Path) -> int:
    print(
        f"""
Look at  {out / "pictures" / "verdicts.png"}   originals, truth, heat maps on one scale, verdicts
         {out / "pictures" / "mechanism.png"}  what each level, the words and the memory contribute
         {out / "metrics.json"}  {out / "scores.csv"}  {out / "shots.json"}  {out / "run.json"}
k=0 rests on a text tower of random weights, read through learnt prompts: a floor, not a promise of zero-shot skill.
ELPV images: CC BY-NC-SA 4.0, Buerhop-Lutz et al. 2018, Deitsch et al. 2019 and 2021. Mean brightness alone reaches an
image AUROC of about 0.78 on them."""
    )
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
