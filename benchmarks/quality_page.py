"""The page of the quality figures, from cells and what was measured beside them."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from quality_cost import QUIET
from quality_trust import FIRST

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
    "sowa_plus_before": "the version before, by explicit options",
    "sowa_plus_fast": "224 px alone",
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

WORST_COST, WORST_SHOT = 0.02, 0.03
"""What a disturbance, and a defective shot, may cost."""
COSTS = ("seconds an image", "seconds to learn 4 shots", "megabytes of 4 shots")
COST_TARGETS = {"sowa_plus": (0.25, 3.0, 1.0), "sowa_plus_fast": (0.05, 3.0, 1.0)}

Cells = Sequence[Mapping[str, Any]]


def sets_of(cells: Cells) -> dict[str, list[str]]:
    """Name of a set -> its categories."""
    drawn = sorted({cell["category"] for cell in cells if cell["dataset"] == "drawn"})
    drawn = [name.rpartition("/")[2] for name in drawn]
    textures = [name for name in drawn if CATEGORIES[name].kind == "texture"]
    sets = {"ELPV mono": ["mono"], "ELPV poly": ["poly"], "drawn textures": textures}
    sets |= {"drawn objects": [name for name in drawn if name not in textures], "drawn, all": drawn}
    if seen := sorted({cell["category"].rpartition("/")[2] for cell in cells if cell["dataset"] == "objects"}):
        sets["objects seen by the head"] = seen
    if any(cell["dataset"] == FIRST for cell in cells):
        sets |= {f"ELPV {kind}, first list": [f"{kind}, first list"] for kind in ("mono", "poly")}
    return sets


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
    cells = [cell | {"category": _named(cell)} for cell in cells]
    sets = sets_of(cells)
    lines = [f"# Quality on the {about['part']} images", "", _head(about), ""]
    lines += _warnings(cells, about)
    if about["part"] == "locked":
        lines += ["## Against the targets", "", *_targets(cells, sets), ""]
    lines += ["## Image AUROC", "", *_auroc(cells, sets), ""]
    lines += ["## This version against the one before", "", *_compared(cells, sets), ""]
    for name in ("ELPV mono", "ELPV poly", "drawn textures", "drawn objects"):
        lines += [f"## All metrics: {name}", "", *_all_metrics(cells, sets[name]), ""]
    lines += ["## Each category, sowa_plus, image AUROC", "", *_each(cells, sets), ""]
    if trust:
        lines += [*_failures(trust["sheets"]), *_trust(trust), *_cost(trust["cost"])]
    lines += _seconds(about)
    (page / "README.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    write_json(page / "quality.json", {"about": dict(about), "rows": _rows(cells, sets), "trust": dict(trust)})
    _csv(cells, page / "cells.csv")


def _named(cell: Mapping[str, Any]) -> str:
    name = cell["category"] if "/" in cell["category"] else f"{cell['dataset']}/{cell['category']}"
    return f"{name}, first list" if cell["dataset"] == FIRST else name


def _head(about: Mapping[str, Any]) -> str:
    return (
        f"`{about['command']}`, {about['date']}, commit {about['machine']['commit']},"
        f" {about['machine']['cores']} cores, towers in {' and '.join(about['precision'])}. Mean over categories and"
        " draws of shots ± standard deviation over draws. [QUALITY.md](../../QUALITY.md) says what the sets are"
        " and how choices were made; figures per category and draw:"
        " [cells.csv](cells.csv), per set: [quality.json](quality.json)."
    )


def _warnings(cells: Cells, about: Mapping[str, Any]) -> list[str]:
    """What must be known before any figure is believed."""
    said = [f"Failed: {line}" for line in about.get("failed", ())]
    if about.get("limit"):
        said.append(f"A trial on {about['limit']} images of each category and label, no figures to quote.")
    if errors := [cell["metrics_error"] for cell in cells if cell.get("metrics_error")]:
        said.append(
            f"{len(errors)} cells counted pixels in bins for want of memory, wrong by at most {max(errors):.1g}."
        )
    return [word for line in said for word in (f"**{line}**", "")]


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
                now, before = (select(cells, one, k, names) for one in ("sowa_plus", "sowa_plus_before"))
                found = compare(now, before, metric=metric)
                if found is not None:
                    interval = f"{found.low:+.3f} to {found.high:+.3f}"
                    rows.append([str(k), name, SHORT[metric], f"{found.mean:+.3f}", interval, found.words()])
    note = (
        "Difference: `sowa_plus` less `sowa_plus_before`. Paired: the same images and draws, resampled 2,000 times"
        " (pixel metrics: categories and draws), 95 % interval; not corrected for the number of rows."
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
            rows.append([str(k), method, *map(_said, values), *both])
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


def _failures(sheets: Mapping[str, str]) -> list[str]:
    links = ", ".join(f"[{category}]({file})" for category, file in sheets.items())
    return [
        "## Where it fails",
        "",
        "Three defective images with the lowest and three good ones with the highest scores of each category, four"
        f" shots of the first draw: {links}. Heat 1 is twice what the shots' own most unusual spots show."
        " [FAILURES.md](FAILURES.md) says what is seen there.",
        "",
    ]


def _trust(trust: Mapping[str, Any]) -> list[str]:
    parts, most, lines = trust["parts"], trust["most"], []
    said = f"at most {most} images of each category and label. Target: a cost of at most {WORST_COST:.2f}."
    for key, title, note in (
        ("disturbed", "Disturbed images", f"Image AUROC at 4 shots, mean of the draws, {said}"),
        ("defective_shot", "One defective image among eight shots", f"Image AUROC, mean of the draws, {said}"),
    ):
        worst = WORST_COST if key == "disturbed" else WORST_SHOT
        table = {name.rpartition("/")[2]: part[key] for name, part in parts.items()}
        heads = list(next(iter(table.values())))
        rows = [[category, *(f"{row[head]:.3f}" for head in heads)] for category, row in table.items()]
        means = [float(np.mean([row[head] for row in table.values()])) for head in heads]
        rows.append(["**mean**", *(f"**{value:.3f}**" for value in means)])
        rows.append(["change", *(f"{value - means[0]:+.3f}" for value in means)])
        rows.append(["target", "", *("pass" if means[0] - value <= worst else "miss" for value in means[1:])])
        note = note.replace(f"{WORST_COST:.2f}", f"{worst:.2f}")
        lines += [f"## {title}", "", note, "", *_table(["category", *heads], rows), ""]
    return lines


def _cost(cost: Mapping[str, Any]) -> list[str]:
    """Seconds are only claimed where the machine did nothing else."""
    busy, quiet = cost["busy"], cost["busy"] is not None and cost["busy"] <= QUIET
    taken = "not known what others took" if busy is None else f"others took {100 * busy:.0f} % of the processors"
    heard = f"{taken}; load average {', '.join(f'{one:.1f}' for one in cost['load'])}, this run's own work in it."
    verdict = "" if quiet else " **The machine was not quiet: seconds are no claim.**"
    rows = []
    for method, row in cost["methods"].items():
        values = (row["seconds_per_image"], row["seconds_to_learn_4"], row["bytes_of_4_shots"] / 1e6)
        for what, value, most in zip(COSTS, values, COST_TARGETS.get(method, ()), strict=True):
            judged = "pass" if value <= most else "miss"
            rows.append([method, what, f"{value:.3f}", f"{most:g}", judged if quiet or what == COSTS[-1] else "-"])
    heads = ["method", "what", "measured", "at most", ""]
    note = f"Medians on {next(iter(cost['methods'].values()))['threads']} threads. Before measuring {heard}{verdict}"
    return ["## Cost", "", note, "", *_table(heads, rows), ""] if rows else []


def _seconds(about: Mapping[str, Any]) -> list[str]:
    """Where the time of the run went."""
    cells, beside = about["seconds"]["cells"], about["seconds"]["beside"]
    rows = [
        [method, *(f"{spent[step]:.0f}" for step in spent), f"{sum(spent.values()):.0f}"]
        for method, spent in cells.items()
    ]
    steps = list(next(iter(cells.values()), {}))
    total = sum(sum(spent.values()) for spent in cells.values())
    rows += [[name, *[""] * len(steps), f"{value:.0f}"] for name, value in beside.items()]
    rows.append(["**all**", *[""] * len(steps), f"**{total + sum(beside.values()):.0f}**"])
    note = (
        f"Seconds, added over {about['processes']} processes; what methods share is divided among them. From start to"
        f" page {about['wall']} s, less where an earlier run had done a part."
    )
    return ["## Where the time went", "", note, "", *_table(["part", *steps, "sum"], rows), ""]


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
