"""One image as a card of the page: picture, heat map, verdict and how its score compares."""

from collections.abc import Iterable
from dataclasses import dataclass

from sowa.report.pictures import Album
from sowa.report.rows import Row
from sowa.report.words import clean, number, short_path

__all__ = ["Card", "Strip", "cards", "table_rows"]


@dataclass(frozen=True, slots=True)
class Card:
    """What a template shows of one row. All text is still to be escaped."""

    name: str
    folder: str
    verdict: str
    outcome: str
    """"false alarm" or "missed", where the truth says so."""
    truth: str
    score: str
    threshold: str
    image: str
    overlay: str
    missing: str
    size: tuple[int, int]
    boxes: tuple[tuple[int, int, int, int], ...]
    about: str
    """For those who cannot see it."""
    masked: bool


@dataclass(frozen=True, slots=True)
class Strip:
    """A heading and its cards."""

    anchor: str
    title: str
    words: str
    cards: list[Card]
    empty: str
    """Said where there is no card."""


def cards(rows: Iterable[Row], album: Album) -> list[Card]:
    """In the order of the rows."""
    return [_card(row, album) for row in rows]


def _card(row: Row, album: Album) -> Card:
    picture = album.picture(row)
    folder, name = short_path(row.name)
    truth, outcome = _truth(row), _outcome(row)
    size = picture.size if min(picture.size) > 0 else (0, 0)
    said = ", ".join(part for part in (outcome or row.verdict, truth) if part)
    return Card(
        name=name,
        folder=folder,
        verdict=row.verdict,
        outcome=outcome,
        truth=truth,
        score=number(row.score),
        threshold=number(row.threshold),
        image=picture.image,
        overlay=picture.overlay,
        missing=picture.missing,
        size=size,
        boxes=_boxes(row, size),
        about=f"{name}, {said}" if said else name,
        masked=picture.masked,
    )


def _truth(row: Row) -> str:
    if row.label is None:
        return ""
    if row.label == 0:
        return "truth: good"
    return f"truth: {clean(row.defect, 60)}" if row.defect and row.defect != "good" else "truth: defective"


def _outcome(row: Row) -> str:
    if row.false_alarm:
        return "false alarm"
    return "missed" if row.missed else ""


def _boxes(row: Row, size: tuple[int, int]) -> tuple[tuple[int, int, int, int], ...]:
    """Regions inside the picture; of another picture than was judged (another size) they would mislead."""
    if row.size != size:
        return ()
    width, height = size
    return tuple(
        (x, y, w, h)
        for x, y, w, h in row.regions
        if x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= width and y + h <= height
    )


def table_rows(rows: Iterable[Row]) -> list[dict[str, str]]:
    """One line for each row, for a table."""
    return [
        {
            "name": "/".join(part for part in short_path(row.name) if part),
            "score": number(row.score),
            "threshold": number(row.threshold),
            "verdict": row.verdict,
            "outcome": _outcome(row),
            "truth": _truth(row).removeprefix("truth: "),
            "regions": str(len(row.regions)),
        }
        for row in rows
    ]
