"""The page of the quality figures, from cells and what was measured beside them."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sowa.benchmark.statistics import compare
from sowa.data.drawn import CATEGORIES
from sowa.metrics import write_json

__all__ = ["write_page"]

IMAGE = ("image_auroc", "image_ap", "image_f1_max")
PIXEL = ("pixel_auroc", "pixel_ap", "pixel_aupro", "pixel_aupro_05")
SHORT = {
    "image_auroc": "AUROC",
    "image_ap": "AP",
    "image_f1_max": "F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_aupro": "AUPRO 0.30",
    "pixel_aupro_05": "AUPRO 0.05",
}
ABOUT = {
    "sowa_plus": "this version",
    "sowa_plus_candidate": "what this round tried and did not keep: other constants, the head in the map",
    "sowa_plus_fast": "224 px alone",
    "sowa_plus_fast_candidate": "224 px alone, with the constants of the candidate",
    "nearest_dinov2": "nearest neighbour on DINOv2-S at 448 px, AnomalyDINO's rule without rotations and masks",
    "sowa": "the published method on this backbone at 336 px, random text tower, trained on the training categories",
    "winclip": "WinCLIP's windows and words on a text tower of random weights: what words alone cannot do here",
    "spade": "EfficientNet-Lite0",
    "padim": "EfficientNet-Lite0",
    "patchcore": "EfficientNet-Lite0",
    "brightness": "difference of mean grey to the shots (without shots: how dark); the floor",
}
# (what, k, sets, metric, floor, aim) of the targets that were set before anything was measured.
TARGETS = (
    ("ELPV mono", 4, "ELPV mono", "image_auroc", 0.88, 0.93),
    ("ELPV poly", 4, "ELPV poly", "image_auroc", 0.83, 0.91),
    ("drawn textures and photographs", 4, "drawn textures", "image_auroc", 0.90, 0.95),
    ("the same, pixel AUROC", 4, "drawn textures", "pixel_auroc", 0.93, 0.96),
    ("the same, pixel AP", 4, "drawn textures", "pixel_ap", 0.58, 0.68),
    ("the same, AUPRO 0.30", 4, "drawn textures", "pixel_aupro", 0.78, 0.86),
    ("one shot, mean of these three sets", 1, "three sets", "image_auroc", 0.89, 0.95),
    ("no shots, ELPV mono", 0, "ELPV mono", "image_auroc", 0.68, 0.82),
    ("no shots, drawn textures", 0, "drawn textures", "image_auroc", 0.89, 0.94),
    ("no shots, pixel AUROC", 0, "drawn textures", "pixel_auroc", 0.92, 0.96),
    ("no shots, AUPRO 0.30", 0, "drawn textures", "pixel_aupro", 0.79, 0.87),
)

Cells = Sequence[Mapping[str, Any]]


def sets_of(cells: Cells) -> dict[str, list[str]]:
    """Name of a set -> its categories."""
    drawn = sorted({cell["category"] for cell in cells if cell["dataset"] == "drawn"})
    drawn = [name.rpartition("/")[2] for name in drawn]
    textures = [name for name in drawn if CATEGORIES[name].kind == "texture"]
    sets = {"ELPV mono": ["mono"], "ELPV poly": ["poly"], "drawn textures": textures}
    return sets | {"drawn objects": [name for name in drawn if name not in textures], "drawn, all": drawn}


def select(cells: Cells, method: str, k: int, categories: Sequence[str]) -> dict[tuple[str, int], Mapping[str, Any]]:
    return {
        (cell["category"], cell["seed"]): cell
        for cell in cells
        if cell["method"] == method and cell["k"] == k and cell["category"].rpartition("/")[2] in categories
    }


def mean_sd(chosen: Mapping[tuple[str, int], Mapping[str, Any]], metric: str) -> tuple[float, float] | None:
    """Mean over categories in each draw, then mean and sample standard deviation over draws."""
    by_seed: dict[int, list[float]] = {}
    for (_, seed), cell in chosen.items():
        value = cell["metrics"].get(metric)
        if value is None or math.isnan(value):
            return None
        by_seed.setdefault(seed, []).append(value)
    if not by_seed:
        return None
    means = [float(np.mean(values)) for values in by_seed.values()]
    return float(np.mean(means)), float(np.std(means, ddof=1)) if len(means) > 1 else 0.0


def write_page(cells: Cells, trust: Mapping[str, Any], about: Mapping[str, Any], page: Path) -> None:
    """README.md, quality.json and cells.csv below `page`."""
    page.mkdir(parents=True, exist_ok=True)
    cells = [
        cell | {"category": cell["category"] if "/" in cell["category"] else f"{cell['dataset']}/{cell['category']}"}
        for cell in cells
    ]
    sets = sets_of(cells)
    lines = [f"# Quality on the {about['part']} images", "", _head(about), ""]
    if about["part"] == "locked":
        lines += ["## Against the targets", "", *_targets(cells, sets), ""]
    lines += ["## Image AUROC", "", *_auroc(cells, sets), ""]
    lines += ["## The candidate against what was kept", "", *_compared(cells, sets), ""]
    for name in ("ELPV mono", "ELPV poly", "drawn textures", "drawn objects"):
        lines += [f"## All metrics: {name}", "", *_all_metrics(cells, sets[name]), ""]
    lines += ["## Each category, sowa_plus, image AUROC", "", *_each(cells, sets), ""]
    if trust:
        lines += _trust(trust)
    (page / "README.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    write_json(page / "quality.json", {"about": dict(about), "rows": _rows(cells, sets), "trust": dict(trust)})
    _csv(cells, page / "cells.csv")


def _head(about: Mapping[str, Any]) -> str:
    return (
        f"`{about['command']}`, {about['date']}, commit {about['machine']['commit']},"
        f" {about['machine']['cores']} cores, towers in {about['precision']}. Mean over categories and five"
        " draws of shots ± standard deviation over draws. [QUALITY.md](../../QUALITY.md) says what the sets are"
        " and how choices were made; figures per category and draw:"
        " [cells.csv](cells.csv), per set: [quality.json](quality.json)."
    )


def _methods(cells: Cells) -> list[str]:
    found = {cell["method"] for cell in cells}
    return [method for method in ABOUT if method in found]


def _shots(cells: Cells) -> list[int]:
    return sorted({cell["k"] for cell in cells})


def _said(value: tuple[float, float] | None) -> str:
    return "-" if value is None else f"{value[0]:.3f} ± {value[1]:.3f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


def _auroc(cells: Cells, sets: Mapping[str, list[str]]) -> list[str]:
    rows = []
    for k in _shots(cells):
        for method in _methods(cells):
            values = [mean_sd(select(cells, method, k, names), "image_auroc") for names in sets.values()]
            if any(values):
                rows.append([str(k), method, *map(_said, values)])
    notes = [f"- {method}: {ABOUT[method]}" for method in _methods(cells)]
    return [*_table(["shots", "method", *sets], rows), "", *notes]


def _targets(cells: Cells, sets: Mapping[str, list[str]]) -> list[str]:
    rows = []
    for what, k, name, metric, floor, aim in TARGETS:
        names = [name] if name in sets else ["ELPV mono", "ELPV poly", "drawn textures"]
        found = [mean_sd(select(cells, "sowa_plus", k, sets[one]), metric) for one in names]
        if None in found:
            continue
        value = float(np.mean([one[0] for one in found]))
        verdict = "aim reached" if value >= aim else "floor reached, aim missed" if value >= floor else "floor missed"
        rows.append([what, str(k), f"{value:.3f}", f"{floor:.2f}", f"{aim:.2f}", verdict])
    return _table(["set", "shots", "measured", "floor", "aim", ""], rows)


def _compared(cells: Cells, sets: Mapping[str, list[str]]) -> list[str]:
    rows = []
    for k in _shots(cells):
        for name, names in sets.items():
            for metric in ("image_auroc", "pixel_ap", "pixel_aupro"):
                tried, kept = (select(cells, one, k, names) for one in ("sowa_plus_candidate", "sowa_plus"))
                found = compare(tried, kept, metric=metric)
                if found is not None:
                    interval = f"{found.low:+.3f} to {found.high:+.3f}"
                    rows.append([str(k), name, SHORT[metric], f"{found.mean:+.3f}", interval, found.words()])
    note = (
        "Paired: the same images and draws, resampled 2,000 times (pixel metrics: categories and draws), 95 % interval;"
        " not corrected for the number of rows."
    )
    return [*_table(["shots", "set", "metric", "difference", "interval", ""], rows), "", note]


def _all_metrics(cells: Cells, names: Sequence[str]) -> list[str]:
    rows = []
    for k in _shots(cells):
        for method in _methods(cells):
            chosen = select(cells, method, k, names)
            if not chosen:
                continue
            alarms = [cell["alarms"] for cell in chosen.values() if cell.get("alarms")]
            both = [f"{np.mean([one[place] for one in alarms]):.3f}" if alarms else "-" for place in (0, 1)]
            values = [mean_sd(chosen, metric) for metric in (*IMAGE, *PIXEL)]
            rows.append([str(k), method, *("-" if one is None else f"{one[0]:.3f}" for one in values), *both])
    heads = ["shots", "method", *(SHORT[metric] for metric in (*IMAGE, *PIXEL)), "false alarms", "found"]
    note = (
        "False alarms and found: shares of good and of defective images above the threshold that the shots' own scores"
        " set for 2 % (without shots: above 0.5); `sowa fit` looks at copies of the shots too and is more careful."
    )
    return [*_table(heads, rows), "", note]


def _each(cells: Cells, sets: Mapping[str, list[str]]) -> list[str]:
    names = ["mono", "poly", *sets["drawn, all"]]
    rows = [
        [str(k), *(_said(mean_sd(select(cells, "sowa_plus", k, [name]), "image_auroc")) for name in names)]
        for k in _shots(cells)
    ]
    return _table(["shots", *names], rows)


def _trust(trust: Mapping[str, Any]) -> list[str]:
    lines = ["## Disturbed images", "", "Image AUROC at 4 shots, mean of five draws, a subset of each category.", ""]
    for key, title in (("disturbed", ""), ("defective_shot", "## One defective image among eight shots")):
        table = trust[key]
        heads = list(next(iter(table.values())))
        rows = [[name, *(f"{row[head]:.3f}" for head in heads)] for name, row in table.items()]
        means = [float(np.mean([row[head] for row in table.values()])) for head in heads]
        rows.append(["**mean**", *(f"**{value:.3f}**" for value in means)])
        rows.append(["cost", *(f"{value - means[0]:+.3f}" for value in means)])
        lines += [*([title, ""] if title else []), *_table(["category", *heads], rows), ""]
    rows = [
        [
            method,
            f"{row['seconds_per_image']:.3f}",
            f"{row['seconds_to_learn_4']:.2f}",
            f"{row['bytes_of_4_shots'] / 1e6:.2f}",
            str(row["threads"]),
        ]
        for method, row in trust["cost"].items()
    ]
    heads = ["method", "seconds an image", "seconds to learn 4 shots", "megabytes of 4 shots", "threads"]
    return [*lines, "## Cost", "", *_table(heads, rows), ""]


def _rows(cells: Cells, sets: Mapping[str, list[str]]) -> list[dict[str, Any]]:
    rows = []
    for k in _shots(cells):
        for method in _methods(cells):
            for name, names in sets.items():
                for metric in (*IMAGE, *PIXEL):
                    found = mean_sd(select(cells, method, k, names), metric)
                    if found is not None:
                        row = {"method": method, "shots": k, "set": name, "metric": metric}
                        rows.append(row | {"mean": round(found[0], 5), "sd": round(found[1], 5)})
    return rows


def _csv(cells: Cells, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "category", "shots", "draw", *IMAGE, *PIXEL, "false_alarms", "found"])
        for cell in sorted(cells, key=lambda one: (one["method"], one["category"], one["k"], one["seed"])):
            values = [cell["metrics"].get(metric) for metric in (*IMAGE, *PIXEL)]
            values += list(cell.get("alarms") or (None, None))
            said = ["" if value is None or math.isnan(value) else f"{value:.5f}" for value in values]
            writer.writerow([cell["method"], cell["category"], cell["k"], cell["seed"], *said])
