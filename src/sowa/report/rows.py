"""A prediction folder, read strictly and one line at a time: `results.jsonl` and, beside it, `predict.json`.

Both are untrusted: every value is checked, and an error names the line.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sowa.errors import DataError
from sowa.predictor.results import DEFECTIVE, ERROR, GOOD

__all__ = ["FACTS", "MOST_ROWS", "RESULTS", "Row", "read_facts", "read_rows"]

RESULTS, FACTS = "results.jsonl", "predict.json"
MOST_ROWS = 5_000_000
MOST_LINE, MOST_FACTS = 4 << 20, 64 << 20
"""Bytes of a line and of `predict.json`."""
MOST_SIZE = 1e30
"""Larger scores are no scores: their differences would not be numbers any more."""
MOST_REGIONS = 20
"""Regions of an image that are kept; the first have the largest peaks."""


@dataclass(frozen=True, slots=True)
class Row:
    """One image: what was said of it and, where it is known, what is true."""

    name: str
    verdict: str
    """good, defective or error; empty where there is no threshold."""
    score: float
    """NaN where there is none."""
    threshold: float | None = None
    threshold_source: str = ""
    artifact: str = ""
    milliseconds: float = math.nan
    label: int | None = None
    defect: str = ""
    """Type of the defect; empty where it is not known."""
    path: str = ""
    overlay: str = ""
    mask: str = ""
    size: tuple[int, int] = (0, 0)
    regions: tuple[tuple[int, int, int, int], ...] = ()
    """Boxes x, y, width, height in pixels of the original."""
    error: str = ""

    @property
    def false_alarm(self) -> bool:
        return self.label == 0 and self.verdict == DEFECTIVE

    @property
    def missed(self) -> bool:
        return self.label == 1 and self.verdict == GOOD


def read_facts(folder: Path) -> dict[str, Any]:
    """`predict.json`; empty where there is none, DataError where it is damaged."""
    path = folder / FACTS
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MOST_FACTS:
            raise ValueError(f"is larger than {MOST_FACTS >> 20} MB")
        found = _loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as trouble:
        raise DataError(f"{path} cannot be read ({_reason(trouble)}): delete it, or predict again") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} is not a JSON object: delete it, or predict again")
    return found


def read_rows(path: Path) -> Iterator[Row]:
    """Every line of a `results.jsonl`, one at a time; DataError with the line's number where one cannot be used."""
    try:
        with path.open("rb") as file:
            for count in range(1, MOST_ROWS + 2):
                line = file.readline(MOST_LINE + 1)
                if not line:
                    return
                if count > MOST_ROWS:
                    raise DataError(f"{path} has more than {MOST_ROWS:,} lines: report on a part of them")
                if line.strip():
                    yield _row(line, f"{path} line {count}")
    except OSError as trouble:
        raise DataError(f"{path} cannot be read: {_reason(trouble)}") from None


def _row(line: bytes, where: str) -> Row:
    if len(line) > MOST_LINE:
        raise DataError(f"{where} is longer than {MOST_LINE >> 20} MB: this is no result of `sowa predict`")
    try:
        found = _loads(line)
    except (ValueError, RecursionError) as trouble:
        raise DataError(f"{where} is not JSON ({_reason(trouble)}): mend or delete the line") from None
    if not isinstance(found, dict):
        raise DataError(f"{where} is not a JSON object: mend or delete the line")
    return _checked(_Fields(found, where))


def _loads(text: bytes) -> Any:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no number")

    return json.loads(text, parse_constant=refuse)


@dataclass(frozen=True, slots=True)
class _Fields:
    """The values of one line by key, each with its own check."""

    found: Mapping[str, Any]
    where: str

    def wrong(self, key: str, wanted: str) -> DataError:
        return DataError(f"{self.where}: '{key}' is {str(self.found.get(key))[:60]!r}, {wanted}")

    def text(self, key: str, *, needed: bool = False) -> str:
        value = self.found.get(key)
        if value is None and not needed:
            return ""
        if not isinstance(value, str):
            raise self.wrong(key, "text is wanted")
        return value

    def real(self, key: str) -> float:
        value = self.found.get(key)
        if value is None:
            return math.nan
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MOST_SIZE:
            raise self.wrong(key, "a number is wanted")
        return float(value)

    def label(self) -> int | None:
        value = self.found.get("label")
        if value is not None and (isinstance(value, bool) or value not in (0, 1)):
            raise self.wrong("label", "0 (good) or 1 (defective) is wanted")
        return value

    def whole(self, value: Any, key: str, length: int) -> tuple[int, ...]:
        fits = isinstance(value, list) and len(value) == length
        if not fits or any(type(one) is not int or not -(2**31) <= one < 2**31 for one in value):
            raise self.wrong(key, f"{length} whole numbers are wanted")
        return tuple(value)

    def regions(self) -> tuple[tuple[int, int, int, int], ...]:
        value = self.found.get("regions") or []
        if not isinstance(value, list) or any(not isinstance(one, dict) for one in value[:MOST_REGIONS]):
            raise self.wrong("regions", "a list of objects is wanted")
        boxes = (self.whole(one.get("box"), "regions", 4) for one in value[:MOST_REGIONS])
        return tuple(boxes)  # type: ignore[arg-type]


def _checked(fields: _Fields) -> Row:
    verdict = fields.text("verdict", needed=True)
    if verdict not in (GOOD, DEFECTIVE, ERROR):
        raise fields.wrong("verdict", f"choose {GOOD}, {DEFECTIVE} or {ERROR}")
    score, threshold = fields.real("score"), fields.real("threshold")
    if verdict != ERROR and math.isnan(score):
        raise fields.wrong("score", "a number is wanted")
    size = fields.found.get("size")
    mask = fields.found.get("mask")
    if isinstance(mask, list):  # several masks: the first is shown
        mask = mask[0] if mask else None
    if mask is not None and not isinstance(mask, str):
        raise fields.wrong("mask", "the path of an image is wanted")
    return Row(
        name=fields.text("name", needed=True),
        verdict=verdict,
        score=score,
        threshold=None if math.isnan(threshold) else threshold,
        threshold_source=fields.text("threshold_source"),
        artifact=fields.text("artifact"),
        milliseconds=fields.real("milliseconds"),
        label=fields.label(),
        defect=fields.text("defect_type"),
        path=fields.text("path"),
        overlay=fields.text("overlay"),
        mask=mask or "",
        size=(0, 0) if size is None else fields.whole(size, "size", 2),  # type: ignore[arg-type]
        regions=fields.regions(),
        error=fields.text("error"),
    )


def _reason(trouble: BaseException) -> str:
    if isinstance(trouble, RecursionError):
        return "nested too deeply"
    words = trouble.strerror if isinstance(trouble, OSError) and trouble.strerror else str(trouble)
    return " ".join(words.split())[:160]
