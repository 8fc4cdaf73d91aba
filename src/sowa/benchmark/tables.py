"""From cells to tables: what stands in them. How they look is `render`'s affair."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sowa.benchmark.published import published, sources
from sowa.benchmark.statistics import Comparison, compare, holm
from sowa.errors import DataError
from sowa.metrics.functional import METRICS

__all__ = ["Entry", "Table", "build_tables", "comparisons"]

SHOWN = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro")
"""The four metrics of the papers' tables."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A number of a table: mean over categories and seeds, as fractions; None is a dash."""

    mean: float | None
    std: float | None = None
    """Sample standard deviation over seeds of the mean over categories."""
    printed: float | None = None
    """What the paper prints, where it does."""
    best: bool = False
    partial: bool = False
    """Some of the cells that others have are missing."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of entries under columns, with what a reader must know."""

    name: str
    title: str
    heads: tuple[str, ...]
    """Of the columns before the entries."""
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Entry, ...]], ...]
    notes: tuple[str, ...] = field(default=())


class Cells:
    """Cells of one protocol, looked up by method, data set and k."""

    def __init__(self, cells: Iterable[Mapping[str, Any]]):
        self.all = list(cells)
        self._of: dict[tuple[str, str, int], dict[tuple[str, int], Mapping[str, Any]]] = {}
        for cell in self.all:
            group = self._of.setdefault((cell["method"], cell["dataset"], cell["k"]), {})
            place = (cell["category"], cell["seed"])
            if place in group and group[place]["key"] != cell["key"]:
                raise DataError(
                    f"two results of {cell['method']} for {cell['dataset']}/{cell['category']}, k={cell['k']}, seed"
                    f" {cell['seed']}, from different settings: use another folder for other settings, or delete one"
                )
            group[place] = cell
        self.methods = list(dict.fromkeys(cell["method"] for cell in self.all))
        self.datasets = list(dict.fromkeys(cell["dataset"] for cell in self.all))

    def of(self, method: str, dataset: str, k: int) -> dict[tuple[str, int], Mapping[str, Any]]:
        return self._of.get((method, dataset, k), {})

    def shots(self, dataset: str | None = None) -> list[int]:
        return sorted({k for _, of, k in self._of if dataset in (None, of)})

    def entry(self, method: str, dataset: str, k: int, metric: str, category: str | None = None) -> Entry:
        """Mean over categories for each seed, then mean and spread over seeds."""
        mine = {at: cell for at, cell in self.of(method, dataset, k).items() if category in (None, at[0])}
        by_seed: dict[int, list[float]] = {}
        for (_, seed), cell in sorted(mine.items()):
            value = cell["metrics"].get(metric)
            if value is not None and not math.isnan(value):
                by_seed.setdefault(seed, []).append(value)
        means = [float(np.mean(values)) for values in by_seed.values()]
        if not means:
            return Entry(None)
        others = max(len(self.of(name, dataset, k)) for name in self.methods)
        return Entry(
            mean=float(np.mean(means)),
            std=float(np.std(means, ddof=1)) if len(means) > 1 else None,
            printed=None if category else published(method, dataset, k, metric),
            partial=category is None and len(self.of(method, dataset, k)) < others,
        )


def build_tables(given: Sequence[Mapping[str, Any]], reference: str = "") -> list[Table]:
    """All tables, those of each protocol apart: few-shot, methods, categories, comparisons."""
    tables = []
    for protocol in sorted({cell["protocol"] for cell in given}):
        cells = Cells(cell for cell in given if cell["protocol"] == protocol)
        mark = "" if protocol == "standard" else f"_{protocol}"
        tables += [replace(table, name=table.name + mark) for table in _of_protocol(cells, protocol, reference)]
    return tables


def _of_protocol(cells: Cells, protocol: str, reference: str) -> list[Table]:
    most = max(cells.shots())
    tables = [_methods(cells, protocol, k) for k in sorted(cells.shots(), reverse=True)]
    tables += [_categories(cells, dataset, most, protocol) for dataset in cells.datasets]
    if len(cells.methods) > 1:
        tables.append(_compared(cells, reference or cells.methods[0], protocol))
    return tables


def _methods(cells: Cells, protocol: str, k: int) -> Table:
    """Methods down, data sets x four metrics across, at one k: the papers' table."""
    heads = ("method", "league", "backbone", "px")
    columns, rows = [], []
    present = [dataset for dataset in cells.datasets if k in cells.shots(dataset)]
    places = [(dataset, metric) for dataset in present for metric in SHOWN if _has(cells, dataset, metric)]
    columns = [f"{dataset} {metric}" for dataset, metric in places]
    for method in cells.methods:
        entries = tuple(cells.entry(method, dataset, k, metric) for dataset, metric in places)
        if any(entry.mean is not None for entry in entries):
            rows.append((about(cells, method, k), entries))
    keys = {(row[0][0], dataset, k, metric) for row in rows for dataset, metric in places}
    notes = [_notes_of(protocol, rows)]
    if cited := sources(keys):
        notes.append(f"In brackets: the published value and our difference to it. Sources: {'; '.join(cited)}.")
    title = f"{k} good image{'s' * (k != 1)}, {protocol} protocol"
    return Table(f"methods_k{k}", title, heads, tuple(columns), _with_best(rows), tuple(note for note in notes if note))


def _has(cells: Cells, dataset: str, metric: str) -> bool:
    return any(cell["dataset"] == dataset and cell["metrics"].get(metric) is not None for cell in cells.all)


def about(cells: Cells, method: str, k: int) -> tuple[str, ...]:
    """Method, league, backbone and input side of a row."""
    own = next(cell for cell in cells.all if cell["method"] == method and cell["k"] == k)
    league = own["league"].replace("_", "-")
    if own.get("scores_are") == "transductive":
        league += ", transductive"
    text = " (text random)" if "random" in str(own["backbone"].get("weights_id", "")) else ""
    lowered = own["backbone"].get("precision", "fp32")
    precision = "" if lowered == "fp32" else f" {lowered}"
    return method, league, f"{own['backbone']['name']}{precision}{text}", str(own["backbone"]["image_size"])


def _notes_of(protocol: str, rows: Sequence[Any]) -> str:
    spread = (
        "Percent; mean over categories, ± standard deviation over draws of the good images. Bold: best of the column."
    )
    if any(entry.partial for _, entries in rows for entry in entries):
        spread += " * some cells are missing."
    if protocol == "paper":
        spread += " Arithmetic of the published code; its few-shot image scores see the whole test set (transductive)."
    return spread


def _with_best(rows: Sequence[tuple[tuple[str, ...], tuple[Entry, ...]]]):
    """The largest of each column marked, ties too, as they are printed."""
    if not rows:
        return ()
    columns = range(len(rows[0][1]))
    best = [max((round(e[i].mean, 3) for _, e in rows if e[i].mean is not None), default=None) for i in columns]
    return tuple(
        (
            head,
            tuple(
                replace(entry, best=len(rows) > 1 and entry.mean is not None and round(entry.mean, 3) == best[i])
                for i, entry in enumerate(entries)
            ),
        )
        for head, entries in rows
    )


def _categories(cells: Cells, dataset: str, k: int, protocol: str) -> Table:
    """Categories down, methods across: image AUROC, and pixel AUPRO where pixels have a truth."""
    metrics = [m for m in ("image_auroc", "pixel_aupro") if _has(cells, dataset, m)]
    methods = [method for method in cells.methods if cells.of(method, dataset, k)]
    names = sorted({at[0] for method in methods for at in cells.of(method, dataset, k)})
    rows = []
    for metric in metrics:
        for name in names:
            rows.append(((metric, name), tuple(cells.entry(method, dataset, k, metric, name) for method in methods)))
    best_rows = []
    for head, entries in rows:
        top = max((round(e.mean, 3) for e in entries if e.mean is not None), default=None)
        best_rows.append(
            (head, tuple(replace(e, best=e.mean is not None and round(e.mean, 3) == top) for e in entries))
        )
    title = f"{dataset} by category, {k} good image{'s' * (k != 1)}, {protocol} protocol"
    note = "Percent; mean ± standard deviation over draws. Bold: best of the row."
    return Table(f"categories_{dataset}", title, ("metric", "category"), tuple(methods), tuple(best_rows), (note,))


def comparisons(cells: Cells, reference: str) -> list[tuple[str, int, Comparison, float]]:
    """(data set, k, comparison, p adjusted over all of them), each method against the reference, image AUROC."""
    found = []
    for dataset in cells.datasets:
        for k in cells.shots(dataset):
            for method in cells.methods:
                if method != reference:
                    names = (method, reference)
                    one = compare(cells.of(method, dataset, k), cells.of(reference, dataset, k), names=names)
                    if one is not None:
                        found.append((dataset, k, one))
    adjusted = holm([one.p for _, _, one in found])
    return [(*row, p) for row, p in zip(found, adjusted, strict=True)]


def _compared(cells: Cells, reference: str, protocol: str) -> Table:
    rows = []
    for dataset, k, one, p in comparisons(cells, reference):
        head = (dataset, str(k), one.method, str(one.cells), one.words(p))
        rows.append((head, (Entry(one.mean), Entry(one.low), Entry(one.high), Entry(p))))
    note = (
        f"Image AUROC minus that of {reference} on the same cells, in points, with a 95 % bootstrap interval over"
        " images and draws; verdict at 5 % after Holm's correction for the number of rows (p x 100)."
    )
    return Table(
        "comparison",
        f"Against {reference}, {protocol} protocol",
        ("data set", "k", "method", "cells", "verdict"),
        ("difference", "low", "high", "p"),
        tuple(rows),
        (note,),
    )


def write_cells_csv(path: Path, cells: Sequence[Mapping[str, Any]]) -> Path:
    """One line per cell with all metrics, for tables of one's own."""
    columns = ("method", "dataset", "category", "k", "seed", "protocol", "league", "images", "seconds")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, "backbone", "image_size", *METRICS])
        for cell in cells:
            own = [cell["backbone"]["name"], cell["backbone"]["image_size"]]
            writer.writerow([*(cell.get(name) for name in columns), *own, *(cell["metrics"].get(m) for m in METRICS)])
    return path
