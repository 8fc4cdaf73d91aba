"""The folder of a prediction: rows written as they come, pictures on demand, whole files at the end.

    results.jsonl    one JSON object for each picture, in the order of judging
    scores.csv       the same in a few columns
    predict.json     what was run, with what, when, and how it ended
    overlays/        heat over the picture, where asked for
    heatmaps/        heat as numbers, where asked for

While a run writes, the first two are named `*.partial`. Every row is handed to the operating system at once, so a
killed process loses none; to the disk itself it goes every few seconds, which is what a power cut may cost.
"""

import csv
import json
import os
import platform
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sowa.errors import ConfigError, DataError
from sowa.metrics.table import write_json
from sowa.predictor.results import DEFECTIVE, ERROR, GOOD, Result
from sowa.predictor.sources import Item

__all__ = ["COLUMNS", "HEAT_UNIT", "Drawings", "Heatmaps", "Overlays", "ResultFolder", "hardware", "now", "row_of"]

Overlays: TypeAlias = Literal["none", "defective", "all"]
Heatmaps: TypeAlias = Literal["none", "png", "npy"]
RESULTS, SCORES, ABOUT, PARTIAL = "results.jsonl", "scores.csv", "predict.json", ".partial"
COLUMNS = (
    "path",
    "verdict",
    "score",
    "probability",
    "threshold",
    "regions",
    "peak",
    "width",
    "height",
    "milliseconds",
    "error",
)
"""Of `scores.csv`; `regions` is how many there are, `peak` the largest of them. An evaluation adds its own."""
HEAT_UNIT = 10000
"""The value in a 16-bit PNG of heat 1; larger than 65535 is not written."""
SYNC_SECONDS = 5.0
NORMALS, ACROSS = "normals.png", 16
MOST_NAME = 60


@dataclass(frozen=True, slots=True)
class Drawings:
    """Which pictures are written beside the rows."""

    overlays: Overlays = "none"
    heatmaps: Heatmaps = "none"

    def __post_init__(self):
        for what, given, kinds in (("overlays", self.overlays, Overlays), ("heatmaps", self.heatmaps, Heatmaps)):
            if given not in get_args(kinds):
                raise ConfigError(f"{what} '{given}': choose {', '.join(get_args(kinds))}")


class ResultFolder:
    """A folder that nobody else writes into. Use `open`."""

    def __init__(self, path: Path, drawings: Drawings, extra: tuple[str, ...]):
        self.path, self.counts = path, Counter({GOOD: 0, DEFECTIVE: 0, ERROR: 0})
        self._drawings, self._columns = drawings, (*COLUMNS, *extra)
        self._rows, self._synced = 0, time.monotonic()
        self._jsonl: IO[str]
        self._csv: IO[str]

    @classmethod
    @contextmanager
    def open(
        cls,
        path: Path,
        *,
        drawings: Drawings = Drawings(),
        extra: tuple[str, ...] = (),
        overwrite: bool = False,
        resume: bool = False,
        resumable: bool = True,
    ) -> Iterator["ResultFolder"]:
        """A new or empty folder; with `overwrite` one whose results may go, with `resume` one whose run was ended.

        extra: further columns of `scores.csv`. resumable: whether messages may advise to resume. ConfigError, one line,
        for anything else in the way, and for a disk that cannot be written.
        """
        folder = cls(path, drawings, extra)
        try:
            with ExitStack() as stack:
                path.mkdir(parents=True, exist_ok=True)
                _make_room(path, overwrite=overwrite, resume=resume, resumable=resumable)
                folder._begin(stack, resume)
                yield folder
        except BrokenPipeError:  # of the terminal, not of the disk
            raise
        except OSError as error:
            advice = "give another folder"
            if folder._rows:
                again = "make room, then --resume" if resumable else "make room and begin anew"
                advice = f"{folder._rows} rows are kept in {RESULTS}{PARTIAL}: {again}"
            raise ConfigError(f"{path}: cannot be written ({error.strerror or error}); {advice}") from error

    def _begin(self, stack: ExitStack, resume: bool) -> None:
        jsonl, table = self.path / f"{RESULTS}{PARTIAL}", self.path / f"{SCORES}{PARTIAL}"
        # Undecodable names are written in words, see `_text`: every file is UTF-8 throughout.
        mode, errors = "r+" if resume else "x", "surrogateescape"  # a kill may have cut a letter in two
        self._jsonl = stack.enter_context(jsonl.open(mode, encoding="utf-8", errors=errors, newline="\n"))
        _lock(self._jsonl, self.path)
        self._csv = stack.enter_context(table.open("w", encoding="utf-8", newline=""))
        self._table = csv.DictWriter(self._csv, self._columns)
        self._table.writeheader()
        if resume:
            for record in _whole_rows(self._jsonl):
                self._note(record)
        self._flush()

    def left(self, items: Iterable[Item]) -> Iterator[Item]:
        """Those that no row of the ended run is about; call it before the first row is added."""
        with (self.path / f"{RESULTS}{PARTIAL}").open(encoding="utf-8") as file:
            known = {json.loads(line)["name"] for line in file}
        return (item for item in items if _text(item.name) not in known) if known else iter(items)

    def add(self, item: Item, result: Result, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Write the row of one picture, and its drawings before it; the row."""
        record = row_of(item, result) | dict(more or {})
        if result.heatmap is not None:
            record |= self._drawn(item, result, result.heatmap)
        self._jsonl.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._note(record)
        self._flush()
        return record

    def finish(self, about: Mapping[str, Any]) -> None:
        """Give the files their names; `predict.json` comes last."""
        self._flush()
        for file, name in ((self._jsonl, RESULTS), (self._csv, SCORES)):
            os.fsync(file.fileno())
            file.close()
            os.replace(self.path / f"{name}{PARTIAL}", self.path / name)
        self.say(about)

    def say(self, about: Mapping[str, Any]) -> None:
        """Write `predict.json`."""
        write_json(self.path / ABOUT, {**about, "counts": dict(self.counts)})

    def show_normals(self, thumbnails_N64: NDArray[np.uint8]) -> None:
        """Write the small copies of the good pictures as one sheet, `normals.png`, 16 in a row."""
        rows = [thumbnails_N64[start : start + ACROSS] for start in range(0, len(thumbnails_N64), ACROSS)]
        side = thumbnails_N64.shape[1]
        sheet = np.full((len(rows) * side, min(ACROSS, len(thumbnails_N64)) * side, 3), 255, np.uint8)
        for number, row in enumerate(rows):
            sheet[number * side : (number + 1) * side, : len(row) * side] = np.concatenate(row, axis=1)
        self._write(NORMALS, Image.fromarray(sheet))

    def began(self) -> str | None:
        """When the run began that is resumed; None where nobody knows."""
        try:
            found = json.loads((self.path / ABOUT).read_text(encoding="utf-8"))["began"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, str) else None

    def _note(self, record: Mapping[str, Any]) -> None:
        self._rows += 1
        self.counts[record["verdict"]] += 1
        width, height = record["size"]
        peaks = [region["peak"] for region in record["regions"]]
        row = {"regions": len(peaks), "peak": max(peaks, default=None), "width": width, "height": height}
        self._table.writerow({name: row.get(name, record.get(name)) for name in self._columns})

    def _flush(self) -> None:
        self._jsonl.flush()
        self._csv.flush()
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._jsonl.fileno())
            self._synced = time.monotonic()

    def _drawn(self, item: Item, result: Result, heat: NDArray[np.float32]) -> dict[str, str]:
        """Paths of the drawings of one picture, relative to this folder."""
        wanted = self._drawings.overlays == "all" or (
            self._drawings.overlays == "defective" and result.verdict == DEFECTIVE
        )
        # The number makes the name its own; the rest is for people.
        stem, drawn = f"{self._rows + 1:06d}_{_file_name(item.path)}", {}
        if wanted:
            drawn["overlay"] = f"overlays/{stem}.png"
            try:
                self._write(drawn["overlay"], _overlay(item, result))
            except DataError:  # whoever brought the picture has taken it away since
                del drawn["overlay"]
        if self._drawings.heatmaps == "png":
            drawn["heatmap"] = f"heatmaps/{stem}.png"
            deep = np.clip(np.rint(heat * np.float32(HEAT_UNIT)), 0, 65535).astype(np.uint16)
            self._write(drawn["heatmap"], Image.fromarray(deep))
        elif self._drawings.heatmaps == "npy":
            drawn["heatmap"] = f"heatmaps/{stem}.npy"
            self._write(drawn["heatmap"], heat)
        return drawn

    def _write(self, name: str, content: Image.Image | NDArray[np.float32]) -> None:
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        beside = path.with_name(f".{path.name}{PARTIAL}")
        try:
            with beside.open("wb") as file:
                if isinstance(content, Image.Image):
                    content.save(file, format="PNG", compress_level=1)
                else:
                    np.save(file, content, allow_pickle=False)
            os.replace(beside, path)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise


def row_of(item: Item, result: Result) -> dict[str, Any]:
    """What `results.jsonl` says of one picture."""
    record = {"path": item.path, **result.record()}
    return {key: _text(value) if isinstance(value, str) else value for key, value in record.items()}


def hardware() -> dict[str, Any]:
    """What the milliseconds were measured on."""
    import torch

    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _overlay(item: Item, result: Result) -> Image.Image:
    from sowa.figures.marked import marked
    from sowa.predictor.pictures import as_picture

    boxes = [region.box for region in result.regions]
    words = f"{result.verdict}   score {result.score:.3g}, threshold {result.threshold:.3g}"
    alarm = result.verdict == DEFECTIVE
    return marked(as_picture(item.picture, item.name), result.heatmap, boxes, words=words, alarm=alarm)


def _file_name(path: str) -> str:
    """The picture's own name without folders, with letters and digits of any script; a number stands before it."""
    name = path.rsplit("/", 1)[-1].rsplit("\\", 1)[-1]
    stem = name.rpartition(".")[0] if "#" not in name else name
    return re.sub(r"[^\w-]+", "_", stem or name, flags=re.UNICODE)[:MOST_NAME].strip("_") or "picture"


def _text(value: str) -> str:
    """Bytes of a name that are no text stand as a backslash and digits."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def _make_room(path: Path, *, overwrite: bool, resume: bool, resumable: bool) -> None:
    names = {entry.name for entry in path.iterdir()}
    ended = f"{RESULTS}{PARTIAL}" in names
    if resume:
        if not ended:
            raise ConfigError(f"{path}: no ended run to resume; leave out --resume or give its folder")
        return
    if not names:
        return
    if not (ended or RESULTS in names):
        raise ConfigError(f"{path}: holds other things; give a new folder")
    if not overwrite:
        how = "holds a run that did not end" if ended else "holds results"
        how += ": --resume goes on with it" if ended and resumable else ""
        raise ConfigError(f"{path}: {how}; give a new folder, or --overwrite to replace them")
    if ended:
        with (path / f"{RESULTS}{PARTIAL}").open("r+", encoding="utf-8") as file:
            _lock(file, path)
    for name in (RESULTS, SCORES, f"{RESULTS}{PARTIAL}", f"{SCORES}{PARTIAL}", ABOUT, NORMALS):
        (path / name).unlink(missing_ok=True)
    for folder, kinds in (("overlays", (".png",)), ("heatmaps", (".png", ".npy"))):
        for drawn in (path / folder).glob("*") if (path / folder).is_dir() else ():
            if drawn.suffix in kinds and re.match(r"\d{6,}_", drawn.name):
                drawn.unlink()


def _whole_rows(file: IO[str]) -> Iterator[dict[str, Any]]:
    """The rows of an ended run; what a kill left half is cut off, and the file stands at its end afterwards."""
    end = 0
    while line := file.readline():
        try:
            record = json.loads(line) if line.endswith("\n") else None
        except ValueError:
            record = None
        if not isinstance(record, dict) or not {"name", "verdict", "size", "regions"} <= record.keys():
            break
        yield record
        end = file.tell()
    file.seek(end)
    file.truncate()


def _lock(file: IO[str], path: Path) -> None:
    """Two runs in one folder would mix their rows."""
    try:
        import fcntl
    except ImportError:  # where the system has no such locks
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(f"{path}: another run is writing into it; give another folder") from None
    except OSError:  # some network folders have no locks
        return
