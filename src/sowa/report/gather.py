"""What a report needs of any number of rows, gathered in one pass: about 25 bytes a row, and the few worth showing."""

import heapq
import math
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

from sowa.metrics.curve import Curve, image_curve
from sowa.predictor.results import DEFECTIVE, ERROR, GOOD
from sowa.report.rows import Row

__all__ = ["MOST_TYPES", "Gathered", "Shortlist", "gather"]

MOST_TYPES = 200
"""Types of defects that are counted by name; further ones share one line."""
OTHERS = "further types"
MOST_ERRORS = 20
MOST_TABLE = 60
MOST_SOURCES = 20
UNKNOWN = -1


class Shortlist:
    """The `most` rows with the largest keys, largest first; of equals the earlier."""

    def __init__(self, most: int):
        self.most = most
        self._heap: list[tuple[float, int, Row]] = []
        self._turn = count()

    def offer(self, key: float, row: Row) -> None:
        entry = (key, -next(self._turn), row)
        if len(self._heap) < self.most:
            heapq.heappush(self._heap, entry)
        elif self.most:
            heapq.heappushpop(self._heap, entry)

    def rows(self, most: int | None = None) -> list[Row]:
        return [row for _, _, row in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)][:most]


@dataclass(slots=True)
class Gathered:
    """One set of rows that were judged alike."""

    name: str
    most: int
    """Pictures of each kind that are worth showing."""
    verdicts: Counter[str] = field(default_factory=Counter)
    thresholds: Counter[float] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    artifacts: Counter[str] = field(default_factory=Counter)
    defects: dict[str, list[int]] = field(default_factory=dict)
    """Type -> [found, how many], of rows with label 1 and a verdict."""
    by_type: dict[str, array] = field(default_factory=dict)
    """Type -> scores, of the same rows."""
    scores: array = field(default_factory=lambda: array("d"))
    labels: array = field(default_factory=lambda: array("b"))
    milliseconds: array = field(default_factory=lambda: array("d"))
    errors: list[Row] = field(default_factory=list)
    normals: list[int] = field(default_factory=lambda: [0, 0])
    """[called defective, how many], of rows with label 0 and a verdict."""
    lists: dict[str, Shortlist] = field(init=False)

    def __post_init__(self) -> None:
        kinds = ("false alarms", "misses", "finds", "highest", "nearest", "normals high", "defects low")
        self.lists = {kind: Shortlist(self.most) for kind in kinds} | {"table": Shortlist(MOST_TABLE)}

    def take(self, row: Row) -> None:
        """Add one row."""
        self.verdicts[row.verdict] += 1
        if not math.isnan(row.milliseconds):
            self.milliseconds.append(row.milliseconds)
        for counter, value in ((self.sources, row.threshold_source), (self.artifacts, row.artifact)):
            if value and (value in counter or len(counter) < MOST_SOURCES):
                counter[value] += 1
        if row.verdict == ERROR:
            if len(self.errors) < MOST_ERRORS:
                self.errors.append(row)
            return
        if row.threshold is not None and (row.threshold in self.thresholds or len(self.thresholds) < MOST_SOURCES):
            self.thresholds[row.threshold] += 1
        self.scores.append(row.score)
        self.labels.append(UNKNOWN if row.label is None else row.label)
        self._truth(row)
        self._shortlist(row)

    def _truth(self, row: Row) -> None:
        alarm = row.verdict == DEFECTIVE
        if row.label == 0:
            self.normals[0] += alarm
            self.normals[1] += 1
        elif row.label == 1:
            kind = row.defect or "not named"
            if kind not in self.defects and len(self.defects) >= MOST_TYPES:
                kind = OTHERS
            seen = self.defects.setdefault(kind, [0, 0])
            seen[0] += alarm
            seen[1] += 1
            self.by_type.setdefault(kind, array("d")).append(row.score)

    def _shortlist(self, row: Row) -> None:
        lists = self.lists
        lists["table"].offer(row.score, row)
        lists["highest"].offer(row.score, row)
        if row.threshold is not None:
            lists["nearest"].offer(-abs(row.score - row.threshold), row)
        if row.false_alarm:
            lists["false alarms"].offer(row.score, row)
        elif row.missed:
            lists["misses"].offer(-row.score, row)
        elif row.label == 1 and row.verdict == DEFECTIVE:
            lists["finds"].offer(row.score, row)
        if row.label == 0:
            lists["normals high"].offer(row.score, row)
        elif row.label == 1:
            lists["defects low"].offer(-row.score, row)

    @property
    def images(self) -> int:
        return sum(self.verdicts.values())

    @property
    def threshold(self) -> float | None:
        """The one most rows were judged by; None where there is none."""
        return self.thresholds.most_common(1)[0][0] if self.thresholds else None

    @property
    def found(self) -> tuple[int, int]:
        """(defective images called defective, defective images with a verdict)."""
        return sum(seen[0] for seen in self.defects.values()), sum(seen[1] for seen in self.defects.values())

    @property
    def labelled(self) -> bool:
        return self.normals[1] > 0 or bool(self.defects)

    def with_label(self, label: int) -> NDArray[np.float64]:
        """Scores of the rows with that label; -1 is those without."""
        return np.asarray(self.scores, dtype=np.float64)[np.asarray(self.labels, dtype=np.int8) == label]

    def curve(self) -> Curve | None:
        """Operating points of the labelled rows; None unless both labels are there."""
        good, bad = self.with_label(0), self.with_label(1)
        if not len(good) or not len(bad):
            return None
        labels = np.repeat(np.array([0, 1], dtype=np.int8), [len(good), len(bad)])
        return image_curve(np.concatenate([good, bad]), labels)

    def percentiles(self) -> dict[str, float]:
        """Milliseconds an image; empty where none were measured."""
        if not self.milliseconds:
            return {}
        values = np.asarray(self.milliseconds, dtype=np.float64)
        shares = {"median": 50, "90 %": 90, "95 %": 95, "99 %": 99, "longest": 100}
        return {name: float(np.percentile(values, share)) for name, share in shares.items()}


def gather(rows: Iterable[Row], *, name: str, most: int) -> Gathered:
    """All rows in one pass."""
    found = Gathered(name=name, most=most)
    for verdict in (GOOD, DEFECTIVE, ERROR):
        found.verdicts[verdict] = 0
    for row in rows:
        found.take(row)
    return found
