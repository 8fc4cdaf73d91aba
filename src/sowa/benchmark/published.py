"""What the papers print, beside which our numbers are laid."""

import json
from functools import cache
from importlib import resources

from sowa.errors import DataError
from sowa.metrics.functional import METRICS

__all__ = ["published", "sources"]

Key = tuple[str, str, int, str]
"""Method, data set, k, metric."""


@cache
def _table() -> dict[Key, tuple[float, str]]:
    text = (resources.files("sowa") / "benchmark" / "published.json").read_text(encoding="utf-8")
    table: dict[Key, tuple[float, str]] = {}
    for row in json.loads(text)["results"]:
        for metric, percent in row["metrics"].items():
            key = (row["method"], row["dataset"], row["k"], metric)
            if metric not in METRICS or not 0 <= percent <= 100 or not row["source"] or key in table:
                raise DataError(f"published.json: {key} is no new metric in percent with a source")
            table[key] = (percent / 100, row["source"])
    return table


def published(method: str, dataset: str, k: int, metric: str) -> float | None:
    """The printed value as a fraction 0..1, None where nothing is known."""
    found = _table().get((method, dataset, k, metric))
    return None if found is None else found[0]


def sources(keys: "set[Key]") -> list[str]:
    """Where those of the values that exist come from."""
    return sorted({_table()[key][1] for key in keys if key in _table()})
