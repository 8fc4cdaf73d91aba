"""Shots that a file names: `shots.json` of an earlier run, or a text file with one image path a line."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from sowa.data.layouts_rows import read_json, read_text
from sowa.data.shots import Shots, shots_from_record
from sowa.errors import DataError
from sowa.types import NORMAL, Sample

__all__ = ["read_shot_list"]

_NUMBERS = re.compile(r"\s*#\d+\s*:[\d\s]*")
_SEED = re.compile(r"(\d+)seed")


def read_shot_list(path: Path, samples: Iterable[Sample], *, dataset: str) -> dict[int, Shots]:
    """Seed -> shots of each category, in the order of the file.

    JSON: what `sowa data shots` and every run write; records of other data sets are passed over. Text: paths of
    images, one a line, absolute or the end of a name in the data set; the seed is the number before `seed` in the
    file's name (as in AdaptCLIP's `visa_10seed_4shot_test_prompts.txt`), else 0. Raises DataError for an image that is
    not there, is defective or is a test image, and for PromptAD's `#4: 029 045 192 127`: a listing in no order.
    """
    samples = list(samples)
    if path.suffix.casefold() == ".json":
        drawn = _from_json(path, samples, dataset)
    else:
        found = _SEED.search(path.name)
        drawn = {int(found[1]) if found else 0: _from_lines(path, samples)}
    for shots in drawn.values():
        for sample in (sample for chosen in shots.values() for sample in chosen):
            if sample.label != NORMAL or sample.split == "test":
                raise DataError(f"{path}: {sample.name} is a {_what(sample)} image: shots are normal training images")
    return drawn


def _what(sample: Sample) -> str:
    return "defective" if sample.label != NORMAL else "test"


def _from_json(path: Path, samples: list[Sample], dataset: str) -> dict[int, Shots]:
    content = read_json(path)
    records = content if isinstance(content, list) else [content]
    drawn = {}
    for record in records:
        if not isinstance(record, Mapping) or not {"dataset", "seed", "shots"} <= record.keys():
            raise DataError(f"{path}: expected records with dataset, seed and shots, as sowa data shots writes them")
        if record["dataset"] == dataset:
            drawn[int(record["seed"])] = shots_from_record(record, samples)
    if not drawn:
        raise DataError(f"{path}: no draw of {dataset} in it; write one with sowa data shots")
    return drawn


def _from_lines(path: Path, samples: list[Sample]) -> Shots:
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if any(_NUMBERS.fullmatch(line) for line in lines):
        raise DataError(
            f"{path}: numbers of a directory listing in no order cannot be found again; list the images' paths instead"
        )
    by_end: dict[str, list[Sample]] = {}
    for sample in samples:
        by_end.setdefault(sample.name.rsplit("/", 1)[-1], []).append(sample)
    shots: Shots = {}
    for line in lines:
        wanted = line.replace("\\", "/").removeprefix("./")
        last = wanted.rsplit("/", 1)[-1]
        ends = [s for s in by_end.get(last, ()) if f"/{wanted}".endswith(f"/{s.name}") or s.name.endswith(f"/{wanted}")]
        if len(ends) != 1:
            raise DataError(f"{path}: '{line}' names {len(ends)} images of the data set; write its path from the root")
        shots.setdefault(ends[0].category, []).append(ends[0])
    if not shots:
        raise DataError(f"{path}: no image in it; write one path a line")
    return shots
