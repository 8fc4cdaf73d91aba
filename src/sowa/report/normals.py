"""The good pictures a detector has learnt from: their names, and small copies where its file keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sowa.data.images import read_image
from sowa.errors import SowaError
from sowa.report.pictures import encoded
from sowa.report.words import clean

__all__ = ["Normals", "normals_used"]

SHEET, ACROSS = "normals.png", 16
MOST_NAMES, MOST_COPIES = 120, 48


@dataclass(frozen=True, slots=True)
class Normals:
    """What is known of them."""

    count: int
    threshold: int
    """How many were only scored, to set the threshold."""
    shown: list[dict[str, str]]
    """name, use, image (empty without a copy)."""
    left_out: int


def normals_used(folder: Path, facts: Mapping[str, Any], info: Mapping[str, Any]) -> Normals:
    """From the detector's own account of itself. Small copies are those beside the results (`normals.png`), else those
    of its file, if `predict.json` says where it is and it is still the one that was used."""
    given = info.get("normals")
    normals = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    order = sorted(range(len(normals)), key=lambda place: normals[place].get("use") == "threshold")[:MOST_NAMES]
    copies: dict[int, str] = {}
    if normals:
        places = order[:MOST_COPIES]
        copies = _from_sheet(folder / SHEET, len(normals), places) or _copies(facts.get("artifact"), info, places)
    shown = [
        {
            "name": clean(normals[place].get("name", ""), 60),
            "use": "sets the threshold" if normals[place].get("use") == "threshold" else "remembered",
            "image": copies.get(place, ""),
        }
        for place in order
    ]
    scored = sum(one.get("use") == "threshold" for one in normals)
    return Normals(len(normals), scored, shown, len(normals) - len(shown))


def _from_sheet(path: Path, count: int, places: list[int]) -> dict[int, str]:
    """Place -> small copy, cut out of the sheet `ACROSS` in a row; nothing if the sheet is not of so many."""
    if not path.is_file():
        return {}
    try:
        sheet = read_image(path)
    except (SowaError, OSError):
        return {}
    columns, rows = min(ACROSS, count), -(-count // ACROSS)
    side = sheet.width // columns
    if not side or sheet.size != (columns * side, rows * side):
        return {}
    corners = {place: (place % ACROSS * side, place // ACROSS * side) for place in places}
    return {place: encoded(sheet.crop((x, y, x + side, y + side))) for place, (x, y) in corners.items()}


def _copies(artifact: Any, info: Mapping[str, Any], places: list[int]) -> dict[int, str]:
    """Place -> small copy. Nothing where the file is gone, is another by now, or keeps none."""
    if isinstance(artifact, dict):
        artifact = artifact.get("path") or artifact.get("file")
    if not isinstance(artifact, str) or not artifact:
        return {}
    try:
        path = Path(artifact).expanduser()
        if not path.is_file():
            return {}
        from sowa.predictor.file import identity_of, read_file  # torch: only where there is a file to read

        stored = read_file(path)
    except (SowaError, OSError, ValueError, RuntimeError):
        return {}
    small = stored.content.thumbnails_N64
    if small is None or identity_of(stored.content, stored.trained) != info.get("id"):
        return {}
    return {place: encoded(Image.fromarray(small[place].numpy())) for place in places if place < len(small)}
