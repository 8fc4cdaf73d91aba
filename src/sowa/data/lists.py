"""Lists of images that come with the package: which images of a data set a published figure is about.

A list is a table `category,split,label,group,name`; names as the layouts give them (`Sample.name`).
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from sowa.data.layouts_rows import read_csv
from sowa.errors import DataError, UnknownNameError
from sowa.types import Sample

__all__ = ["COLUMNS", "known_lists", "listed"]

COLUMNS = ("category", "split", "label", "group", "name")
_HOME = resources.files("sowa") / "data" / "lists"


def known_lists() -> list[str]:
    """Names of the lists in the package."""
    return sorted(path.name.removesuffix(".csv") for path in _HOME.iterdir() if path.name.endswith(".csv"))


def listed(samples: Sequence[Sample], name: str) -> list[Sample]:
    """The samples of a list, by its name in the package or a CSV file, with the list's split and group.

    Raises UnknownNameError for a list that is not there, DataError if an image is missing or has another category or
    label: then the data are not those that the list was made for.
    """
    if name.endswith(".csv"):
        path = Path(name)
    elif name in known_lists():
        path = Path(str(_HOME / f"{name}.csv"))
    else:
        raise UnknownNameError("list of images", got=name, known=[*known_lists(), "FILE.csv"])
    rows = read_csv(path)
    if not rows or not set(COLUMNS) <= rows[0].keys():
        raise DataError(f"{path}: a list of images has the columns {','.join(COLUMNS)} and at least one row")
    by_name = {sample.name: sample for sample in samples}
    chosen = []
    for number, row in enumerate(rows, start=2):
        sample = by_name.get(str(row["name"]))
        if sample is None:
            raise DataError(f"{path} line {number}: no image {row['name']} in the data set: it is another one")
        if (sample.category, str(sample.label)) != (row["category"], row["label"]):
            raise DataError(
                f"{path} line {number}: {sample.name} is {sample.category} {sample.label}, not"
                f" {row['category']} {row['label']}: the data set is another one"
            )
        chosen.append(replace(sample, split=str(row["split"]), group=str(row["group"])))
    return sorted(chosen, key=lambda sample: sample.name)
