"""The folder of a run of `sowa train` or `src/eval.py`: `metrics.json`, `scores.csv`, `shots.json`, `run.json`.

A run has no threshold: its scores are ranked. The page shows one draw, the most shots and the smallest seed, category
by category; the metrics are those of all draws.
"""

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sowa.data.roots import find_root
from sowa.errors import DataError, SowaError
from sowa.report.gather import Gathered
from sowa.report.rows import MOST_FACTS, MOST_ROWS, MOST_SIZE, Row
from sowa.report.words import clean, percent
from sowa.wheels import cache_root

__all__ = ["METRICS_FILE", "Run", "auroc_by_type", "read_run"]

METRICS_FILE = "metrics.json"
MOST_CATEGORIES = 60
PICTURES = 24
"""Of each kind, over all categories."""
COLUMNS = ("image", "category", "label", "score", "k", "seed")


@dataclass(slots=True)
class Run:
    """What a page shows of a run."""

    folder: Path
    facts: dict[str, Any]
    """`run.json`."""
    about: dict[str, Any]
    draw: tuple[int, int]
    """(k, seed) of what is shown."""
    groups: list[Gathered]
    """One for each category."""
    table: list[list[str]] = field(default_factory=list)
    """Rows of the metrics; the first holds the heads."""
    shots: dict[str, list[str]] = field(default_factory=dict)
    """Category -> names."""
    left_out: int = 0
    """Categories beyond `MOST_CATEGORIES`."""
    roots: dict[str, Path] = field(default_factory=dict)
    """Data set -> where its images are, if that is known."""
    skipped: list[str] = field(default_factory=list)

    @property
    def pictures(self) -> int:
        """Of each kind and category."""
        return max(1, min(6, PICTURES // len(self.groups)))


def read_run(folder: Path) -> Run:
    """DataError in one line for what is missing or damaged."""
    metrics = _json(folder / METRICS_FILE)
    if not isinstance(metrics, dict) or not isinstance(metrics.get("rows"), list) or not metrics["rows"]:
        raise DataError(f"{folder / METRICS_FILE} holds no results: give the folder of a finished run")
    k, seed = _draw(metrics["rows"], folder / METRICS_FILE)
    groups, left_out = _groups(folder / "scores.csv", k, seed)
    facts = _json(folder / "run.json", needed=False)
    run = Run(
        folder=folder,
        facts=facts if isinstance(facts, dict) else {},
        about=metrics["about"] if isinstance(metrics.get("about"), dict) else {},
        draw=(k, seed),
        groups=groups,
        table=_table(metrics.get("results")),
        left_out=left_out,
    )
    skipped = metrics.get("skipped")
    run.skipped = [str(name) for name in skipped[:20]] if isinstance(skipped, list) else []
    run.shots = _shots(folder / "shots.json", k, seed)
    settings = _settings(folder / "config.yaml")
    run.roots = {name: root for group in groups if (name := _dataset(group.name)) and (root := _root(name, settings))}
    return run


def _json(path: Path, *, needed: bool = True) -> Any:
    if not path.is_file():
        if needed:
            raise DataError(f"{path} is missing: give the folder of a finished run")
        return None
    try:
        if path.stat().st_size > MOST_FACTS:
            raise ValueError(f"larger than {MOST_FACTS >> 20} MB")
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as trouble:
        raise DataError(f"{path} cannot be read ({' '.join(str(trouble).split())[:120]}): run again") from None


def _draw(rows: list[Any], where: Path) -> tuple[int, int]:
    """The most shots, then the smallest seed."""
    try:
        draws = {(int(row["k"]), int(row["seed"])) for row in rows}
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{where} has rows without k and seed: run again") from None
    most = max(k for k, _ in draws)
    return most, min(seed for k, seed in draws if k == most)


def _groups(path: Path, k: int, seed: int) -> tuple[list[Gathered], int]:
    groups: dict[str, Gathered] = {}
    beyond: set[str] = set()
    for category, row in _rows(path, k, seed):
        if category not in groups:
            if len(groups) >= MOST_CATEGORIES:
                beyond |= {category} if len(beyond) < 10_000 else set()
                continue
            groups[category] = Gathered(name=category, most=6)
        groups[category].take(row)
    if not groups:
        raise DataError(f"{path} has no score of k={k}, seed={seed}: run again")
    return [groups[name] for name in sorted(groups)], len(beyond)


def _rows(path: Path, k: int, seed: int) -> Iterator[tuple[str, Row]]:
    """(category, row) of one draw; every line is checked."""
    if not path.is_file():
        raise DataError(f"{path} is missing: give the folder of a finished run")
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            absent = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if absent:
                raise DataError(f"{path} lacks the column {absent[0]}: run again")
            for count, cells in enumerate(reader, start=1):
                if count > MOST_ROWS:
                    raise DataError(f"{path} has more than {MOST_ROWS:,} lines")
                where = f"{path} line {reader.line_num}"
                if _whole(cells["k"], where) == k and _whole(cells["seed"], where) == seed:
                    yield _row(cells, where)
    except (OSError, csv.Error) as trouble:
        raise DataError(f"{path} cannot be read: {' '.join(str(trouble).split())[:160]}") from None


def _whole(text: Any, where: str) -> int:
    try:
        return int(text)
    except (TypeError, ValueError):
        raise DataError(f"{where}: {str(text)[:40]!r} is no whole number") from None


def _row(cells: Mapping[str, Any], where: str) -> tuple[str, Row]:
    label = _whole(cells["label"], where)
    try:
        score = float(cells["score"])
    except (TypeError, ValueError):
        score = math.nan
    if label not in (0, 1) or not abs(score) < MOST_SIZE:
        raise DataError(f"{where}: label {label}, score {str(cells['score'])[:40]!r}: 0 or 1 and a number are wanted")
    category, image = str(cells["category"]), str(cells["image"])
    defect = str(cells.get("defect") or "") if label else ""
    return category, Row(name=image, path=image, verdict="", score=score, label=label, defect=defect)


# --------------------------------------------------------------------------------------------------------------- tables


def _table(results: Any) -> list[list[str]]:
    """A row for every data set and number of shots: mean over categories, spread over draws."""
    rows: list[tuple[str, str, dict[str, Any]]] = []
    for dataset, by_k in results.items() if isinstance(results, dict) else ():
        for k, group in by_k.items() if isinstance(by_k, dict) else ():
            if isinstance(group, dict) and isinstance(group.get("mean"), dict):
                rows.append((str(dataset), str(k), group))
    names: list[str] = []
    for _, _, group in rows:
        names += [name for name, cell in group["mean"].items() if name not in names and _mean(cell) is not None]
    if not rows:
        return []
    table = [["data set", "shots", "draws", *(clean(name, 40).replace("_", " ") for name in names[:12])]]
    for dataset, k, group in rows[:100]:
        draws = group.get("draws")
        cells = [_cell(group["mean"].get(name)) for name in names[:12]]
        table.append([clean(dataset, 80), clean(k, 20).removeprefix("k="), str(len(draws or ())), *cells])
    return table


def _mean(cell: Any) -> float | None:
    value = cell.get("mean") if isinstance(cell, dict) else None
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _cell(cell: Any) -> str:
    mean = _mean(cell)
    if mean is None:
        return "-"
    spread = cell.get("std")
    if isinstance(spread, int | float) and math.isfinite(spread):
        return f"{100 * mean:.1f} ± {100 * spread:.1f}"
    return f"{100 * mean:.1f}"


def auroc_by_type(group: Gathered) -> list[tuple[str, int, str]]:
    """(type, images, image AUROC against all good images of the category)."""
    from sowa.metrics.functional import auroc

    good = group.with_label(0)
    found = []
    for kind, scores in sorted(group.by_type.items()):
        value = auroc([*scores, *good], [1] * len(scores) + [0] * len(good)) if len(good) else math.nan
        found.append((kind, len(scores), percent(value)))
    return found


# -------------------------------------------------------------------------------------------------------------- sources


def _shots(path: Path, k: int, seed: int) -> dict[str, list[str]]:
    """The normal images of the draw that is shown, by category."""
    records = _json(path, needed=False)
    found: dict[str, list[str]] = {}
    for record in records if isinstance(records, list) else ():
        if isinstance(record, dict) and record.get("seed") == seed and isinstance(record.get("shots"), dict):
            for category, names in record["shots"].items():
                if isinstance(names, list):
                    found[f"{record.get('dataset')}/{category}"] = [str(name) for name in names[:k]]
    return found


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _dataset(category: str) -> str:
    return category.partition("/")[0]


def _root(dataset: str, settings: Mapping[str, Any]) -> Path | None:
    """Where the images of a data set are: as the run was told, under its data directory, or in the cache."""
    data, paths = settings.get("data"), settings.get("paths")
    target = data.get("target") if isinstance(data, dict) else None
    paths = paths if isinstance(paths, dict) else {}
    if isinstance(target, dict) and isinstance(target.get("root"), str):
        return Path(target["root"]).expanduser()
    try:
        home = paths.get("data_dir")
        return find_root(dataset, Path(home) if isinstance(home, str) else None)
    except (SowaError, OSError):
        cache = paths.get("cache_dir")
        inside = cache_root(cache if isinstance(cache, str) else None) / "datasets" / dataset
        return inside if inside.is_dir() else None
