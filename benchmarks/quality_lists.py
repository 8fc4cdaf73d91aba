"""Write the lists of images that the quality figures are about (`src/sowa/data/lists`), from the data sets themselves.

    python benchmarks/quality_lists.py

ELPV is cut along borders of modules, so that neighbouring cells are on one side, and shots, test images and the other
list share no module. Of the cells with a certain label at most `MOST` of each kind are taken, evenly over their order:
nothing depends on what they show. The drawn lists hold all images of their part.
"""

import csv
from pathlib import Path

from sowa.data.layouts import read_samples
from sowa.data.lists import COLUMNS
from sowa.data.roots import elpv_root
from sowa.data.subset import spread
from sowa.training.sources import drawn_root
from sowa.types import Sample

MOST = {
    "elpv_development": 96,
    "elpv_locked": 112,
    "elpv_first_development": 72,
    "elpv_first_locked": 56,
    "drawn_development": 28,
    "drawn_locked": 28,
}
"""Test images of each category and label: the figures are to be had within half an hour."""
ELPV = {
    "elpv_development": {
        "mono": [(1, 60), (361, 480), (1135, 1374)],
        "poly": [(61, 360), (541, 660), (1675, 2084)],
    },
    "elpv_locked": {
        "mono": [(481, 540), (901, 1134), (1375, 1614), (2145, 2216), (2397, 2444)],
        "poly": [(661, 900), (1615, 1674), (2085, 2144), (2217, 2396), (2445, 2624)],
    },
    "elpv_first_development": {
        "mono": [(1, 60), (361, 540), (1135, 1374)],
        "poly": [(61, 360), (541, 660), (1675, 2084)],
    },
    "elpv_first_locked": {
        "mono": [(901, 1134), (1375, 1614), (2145, 2216), (2397, 2444)],
        "poly": [(661, 900), (1615, 1674), (2085, 2144), (2217, 2396), (2445, 2624)],
    },
}
"""First and last cell of runs of whole modules. The first lists gave all four modules of the old kind of mono cells (1
to 540), which hold two thirds of the defects, to development, and locked shots of two modules unlike all others. Of the
present ones each part has a module of each kind to test on, and locked shots come from four modules of a type."""
SHOTS = {
    "elpv_development": [(1135, 1194), (1315, 1374), (241, 300), (1845, 1904)],
    "elpv_locked": [
        *((1375, 1434), (1555, 1614), (2145, 2216), (2397, 2444)),
        *((661, 720), (1615, 1674), (2085, 2144), (2445, 2504)),
    ],
    "elpv_first_development": [(481, 540), (1135, 1194), (241, 300), (1845, 1904)],
    "elpv_first_locked": [(1375, 1434), (2145, 2216), (661, 720), (1615, 1674), (2085, 2144), (2445, 2504)],
}
"""Modules whose good cells are shots; nothing else of them is used."""
DRAWN = {
    "development": {"seed": 0, "train_good": 16, "test_good": 20, "test_bad": 28},
    "locked": {"seed": 0, "train_good": 16, "test_good": 24, "test_bad": 32},
}
SIZE = 512
LISTS = Path(__file__).parents[1] / "src" / "sowa" / "data" / "lists"


def elpv_rows(name: str, samples: list[Sample]) -> list[tuple[str, ...]]:
    rows = []
    for category, runs in ELPV[name].items():
        tests: dict[int, list[Sample]] = {0: [], 1: []}
        for sample in sorted(samples, key=lambda one: one.name):
            cell = int(sample.name[-8:-4])
            if sample.category != category or not _in(cell, runs):
                continue
            module = next((f"{a:04}-{b:04}" for a, b in SHOTS[name] if a <= cell <= b), "")
            if not module:
                tests[sample.label].append(sample)
            elif sample.label == 0:
                rows.append((category, "train", "0", module, sample.name))
        for label, found in tests.items():
            count = min(MOST[name], len(found))
            chosen = [found[i * len(found) // count] for i in range(count)]
            rows += [(category, "test", str(label), "", sample.name) for sample in chosen]
    return rows


def _in(cell: int, runs: list[tuple[int, int]]) -> bool:
    return any(first <= cell <= last for first, last in runs)


def main() -> None:
    LISTS.mkdir(exist_ok=True)
    certain = read_samples(elpv_root(), "elpv")
    rows = {name: elpv_rows(name, certain) for name in ELPV}
    for part in ("development", "locked"):
        drawn = read_samples(drawn_root(part=part, size=SIZE, cache_dir=None, **DRAWN[part]), "mvtec")
        drawn = spread(drawn, MOST[f"drawn_{part}"])
        rows[f"drawn_{part}"] = [(one.category, one.split, str(one.label), one.group, one.name) for one in drawn]
    for name, lines in rows.items():
        with (LISTS / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([COLUMNS, *sorted(lines)])
        print(name, len(lines))


if __name__ == "__main__":
    main()
