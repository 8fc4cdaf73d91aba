"""Tables of results: categories, their mean, mean and spread over draws; and the files that carry them.

A *draw* is one choice of support images, named by its seed. A *row* is one category at one draw:
`dict(category="elpv/mono", dataset="elpv", k=4, seed=0, image_auroc=0.93, pixel_auroc=nan, ...)`.
"""

import csv
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from sowa.errors import DataError, SowaError
from sowa.metrics.functional import METRICS

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["SCORE_COLUMNS", "json_ready", "print_table", "summarise", "write_json", "write_scores_csv"]

SCORE_COLUMNS = ("image", "category", "label", "score", "k", "seed")
ROW_KEYS = ("category", "dataset", "k", "seed")


def summarise(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Average rows without hiding anything. NaN is *undefined*: left out of a mean, and counted.

    Returns `{dataset: {"k=4": {"categories", "draws", "mean", "missing"}}}` with, for every metric of the rows (a key
    that starts with `image_` or `pixel_`):
    - `categories`: category -> metric -> {mean, std, values, undefined} over draws;
    - `draws`: seed -> metric -> {mean, values, undefined} over categories;
    - `mean`: metric -> {mean, std, values, undefined}: the spread over draws of the mean over categories; here
      `undefined` counts the (category, draw) pairs left out;
    - `missing`: "category seed=1" for each category absent from a draw that another category has.
    `values` is how many numbers were averaged, `std` the sample standard deviation (NaN for fewer than two).
    """
    groups: dict[tuple[str, int], dict[tuple[str, int], Mapping[str, Any]]] = {}
    for row in rows:
        absent = [key for key in ROW_KEYS if key not in row]
        if absent:
            raise DataError(f"a row of results lacks {', '.join(absent)}: it needs {', '.join(ROW_KEYS)} and metrics")
        group = groups.setdefault((str(row["dataset"]), int(row["k"])), {})
        cell = (str(row["category"]), int(row["seed"]))
        if cell in group:
            raise DataError(f"two rows for {cell[0]}, k={row['k']}, seed={cell[1]}: summarise one method at a time")
        group[cell] = row
    summary: dict[str, Any] = {}
    for (dataset, k), group in sorted(groups.items()):
        summary.setdefault(dataset, {})[f"k={k}"] = _summarise_group(group)
    return summary


def _summarise_group(group: Mapping[tuple[str, int], Mapping[str, Any]]) -> dict[str, Any]:
    categories, seeds = sorted({cell[0] for cell in group}), sorted({cell[1] for cell in group})
    names = _in_order({name for row in group.values() for name in row if name.startswith(("image_", "pixel_"))})

    def values(name: str, category: str | None = None, seed: int | None = None) -> list[float]:
        cells = ((row, of, at) for (of, at), row in group.items())
        return [_number(row.get(name)) for row, of, at in cells if category in (None, of) and seed in (None, at)]

    draws = {str(at): {name: _average(values(name, seed=at), spread=False) for name in names} for at in seeds}
    mean = {name: _average([draw[name]["mean"] for draw in draws.values()]) for name in names}
    for name in names:
        mean[name]["undefined"] = sum(draw[name]["undefined"] for draw in draws.values())
    return {
        "categories": {of: {name: _average(values(name, category=of)) for name in names} for of in categories},
        "draws": draws,
        "mean": mean,
        "missing": [f"{of} seed={at}" for of in categories for at in seeds if (of, at) not in group],
    }


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)  # null is how NaN comes back from a file


def _average(values: list[float], spread: bool = True) -> dict[str, float]:
    known = [value for value in values if not math.isnan(value)]
    result = {"mean": float(np.mean(known)) if known else math.nan}
    if spread:
        result["std"] = float(np.std(known, ddof=1)) if len(known) > 1 else math.nan
    return result | {"values": len(known), "undefined": len(values) - len(known)}


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (METRICS.index(name) if name in METRICS else len(METRICS), name))


def print_table(summary: Mapping[str, Any], console: "Console | None" = None) -> None:
    """Print what `summarise` returned, in percent: a row per category, then the mean over categories.

    With several draws each number is mean±sample standard deviation. `-` is undefined; a metric that is undefined
    everywhere in a data set has no column. A mean that leaves something out is marked *. Lines below the table say what
    was left out and how often, what has no column, and which categories a draw lacks.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = console or Console()
    for dataset, by_k in summary.items():
        for k, group in by_k.items():
            draws = len(group["draws"])
            names = [name for name, cell in group["mean"].items() if cell["values"]]
            gap = "\n" if len(names) > 4 else ""  # eight columns with a spread do not fit a terminal side by side
            table = Table(title=escape(f"{dataset}, {k}, {draws} draw{'s' * (draws != 1)} (percent)"))
            table.add_column("category", no_wrap=True)
            for name in names:
                table.add_column(name.replace("_", "\n", 1), justify="right")  # image_auroc on two lines: narrow
            for category, cells in group["categories"].items():
                table.add_row(escape(category), *(_percent(cells[name], gap) for name in names))
            table.add_section()
            table.add_row("mean", *(_percent(group["mean"][name], gap) for name in names), style="bold")
            console.print(table, *_notes(group), sep="\n", highlight=False, markup=False)


def _percent(cell: Mapping[str, float], gap: str) -> str:
    if not cell["values"]:
        return "-"
    spread = "" if math.isnan(cell["std"]) else f"{gap}±{100 * cell['std']:.1f}"
    return f"{100 * cell['mean']:.1f}{spread}{'*' if cell['undefined'] else ''}"


def _notes(group: Mapping[str, Any]) -> list[str]:
    left_out = [
        f"{name} {cell['undefined']}" for name, cell in group["mean"].items() if cell["undefined"] and cell["values"]
    ]
    nowhere = [name for name, cell in group["mean"].items() if not cell["values"]]
    notes = {"* undefined and left out": left_out, "undefined everywhere": nowhere, "missing": group["missing"]}
    return [f"{note}: {', '.join(names)}" for note, names in notes.items() if names]


def json_ready(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `metrics.json`: `results`, NaN turned to null, and `undefined`, the paths of those nulls.

    A spread over a single draw is null too, but is no result: it is not listed.
    """
    undefined: list[str] = []

    def clean(value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, Mapping):
            return {str(key): clean(inner, (*path, str(key))) for key, inner in value.items()}
        if isinstance(value, float) and math.isnan(value):
            undefined.extend(["/".join(path[:-1])] if path[-1] == "mean" else [])
            return None
        return value

    return {"results": clean(summary, ()), "undefined": undefined}


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write strict JSON (UTF-8, indented, NaN and infinity as null, NumPy numbers as numbers), whole or not at all."""
    text = json.dumps(_plain(obj), indent=2, allow_nan=False)
    with _replacing(Path(path)) as file:
        file.write(text + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, str | int):
        return value
    raise SowaError(f"a {type(value).__name__} cannot be written as JSON: give text, numbers, lists and dicts")


def write_scores_csv(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one line per scored image, whole or not at all: `SCORE_COLUMNS`, then what else the first row has.

    Scores are written with all their digits. Rows are streamed; one with other columns than the first is refused.
    """
    rows = iter(rows)
    first = next(rows, None)
    columns = SCORE_COLUMNS + tuple(name for name in first or () if name not in SCORE_COLUMNS)
    with _replacing(Path(path)) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for index, row in enumerate(chain([] if first is None else [first], rows)):
            if set(row) != set(columns):
                raise DataError(f"row {index} of the scores has columns {', '.join(row)}: need {', '.join(columns)}")
            writer.writerow([_cell(row[name]) for name in columns])


def _cell(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, bool) else value


@contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    """A text file that takes the place of `path` when the block ends well, and is removed when it does not."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # File names that are not valid UTF-8 come back from the file system as surrogates, and go out as they were.
        with open(beside, "x", encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield file
        os.replace(beside, path)
    except OSError as error:
        raise SowaError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            beside.unlink()
