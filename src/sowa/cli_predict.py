"""The command `sowa predict`: rows as they come, drawings on demand, an exit code for machines."""

import json
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sowa.cli_fit import Artifact, CacheDir, Numbers, Offline, Weights
from sowa.console import progress_line, say, tell
from sowa.errors import ConfigError

if TYPE_CHECKING:
    from sowa.predictor.outputs import Drawings, ResultFolder
    from sowa.predictor.predictor import Predictor
    from sowa.predictor.results import Result
    from sowa.predictor.sources import Item

__all__ = ["Batch", "Heatmaps", "Overlays", "Overwrite", "interrupted_kindly", "lasting", "predict", "tally_line"]

ANY_DEFECTIVE, ANY_ERROR, INTERRUPTED = 1, 3, 130

Overlays = Annotated[str, typer.Option(help="Heat over the picture as PNG: none, defective or all.")]
Heatmaps = Annotated[str, typer.Option(help="Heat as numbers: none, png (16 bit, 10000 is the limit) or npy.")]
Batch = Annotated[int, typer.Option(min=1, help="Pictures at once.")]
Graph = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Score by this graph of `sowa export --reference input`.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the results in the folder.")]


def predict(
    context: typer.Context,
    artifact: Artifact,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE", help="Folders, pictures, 'patterns', lists (.txt), videos, or -."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="New folder; without it rows are printed as JSON.")
    ] = None,
    watch: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Judge what is in this folder and what comes, until Ctrl-C.")
    ] = None,
    idle: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="End a watch when nothing came for so long.")
    ] = None,
    overlays: Overlays = "none",
    heatmaps: Heatmaps = "none",
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="0: all good, 1: a defective one, 3: one could not be read.")
    ] = False,
    threshold: Annotated[float | None, typer.Option(help="For this run, in place of the file's own.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Of several frames take each N-th.")] = 1,
    batch_size: Batch = 8,
    overwrite: Overwrite = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was killed.")] = False,
    graph: Graph = None,
    weights: Weights = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    precision: Numbers = "auto",
) -> None:
    """Judge pictures, any number of them in constant memory. An unreadable one is a row with an error.

    Exit code: 0, also with defective pictures, unless --exit-code asks for the verdict; 2 for what you can mend; 130 if
    interrupted. docs/PREDICT.md has the files' formats.
    """
    _check(sources, out, watch, idle, overlays != "none" or heatmaps != "none", overwrite, resume)
    from sowa.predictor.outputs import Drawings
    from sowa.predictor.predictor import Predictor

    drawings = Drawings(overlays, heatmaps)  # type: ignore[arg-type]  # checked by itself
    stop = threading.Event()
    items = _items(sources, watch, idle, every, out, stop)
    total = None if watch is not None or out is None else _expected(sources or (), out)
    places = {"weights": weights, "cache_dir": cache_dir, "offline": offline}
    detector = Predictor.load(artifact, **places, graph=graph, precision=precision)
    detector = detector if threshold is None else detector.with_threshold(threshold)
    size = 1 if watch else batch_size
    if out is None:
        with stopping_kindly(stop, watch is not None):
            counts = _print_rows(detector, items, size)
    else:
        with interrupted_kindly(out, "--resume goes on with them"), stopping_kindly(stop, watch is not None):
            command = lasting(context, "predict")
            aloud = watch is not None
            counts = _write_rows(detector, items, size, out, drawings, overwrite, resume, command, aloud, total)
    tell(tally_line(counts))
    worst = ANY_ERROR if counts["error"] else ANY_DEFECTIVE if counts["defective"] else 0
    raise typer.Exit(worst if exit_code else 0)


def _check(
    sources: list[str] | None,
    out: Path | None,
    watch: Path | None,
    idle: float | None,
    drawn: bool,
    overwrite: bool,
    resume: bool,
) -> None:
    """What contradicts itself is said before anything is loaded."""
    if watch is not None and sources:
        raise ConfigError("--watch DIR is the source: leave out the others, or judge them in a run of their own")
    if idle is not None and watch is None:
        raise ConfigError("--idle ends a --watch: give the folder to watch, or leave it out")
    if out is None and (drawn or overwrite or resume):
        raise ConfigError("overlays, heat maps, --overwrite and --resume need a folder: give -o DIR")
    if overwrite and resume:
        raise ConfigError("--resume keeps what --overwrite replaces: give one of them")


def _items(
    sources: list[str] | None, watch: Path | None, idle: float | None, every: int, out: Path | None, stop: Any
) -> "Iterator[Item]":
    if watch is None:
        from sowa.predictor.sources import open_sources

        return open_sources(sources or (), every=every, skip=out)
    from sowa.predictor.watching import watched

    return watched(watch, idle=idle, skip=out, stop=stop)


def _print_rows(detector: "Predictor", items: "Iterable[Item]", size: int) -> Counter[str]:
    """JSON lines on standard output and nothing else there."""
    from sowa.predictor.judging import judged
    from sowa.predictor.outputs import row_of

    counts: Counter[str] = Counter()
    for item, result in judged(detector, items, batch_size=size):
        print(json.dumps(row_of(item, result), allow_nan=False), flush=True)
        counts[result.verdict] += 1
    return counts


def _write_rows(
    detector: "Predictor",
    items: "Iterator[Item]",
    size: int,
    out: Path,
    drawings: "Drawings",
    overwrite: bool,
    resume: bool,
    command: list[str],
    aloud: bool,
    total: int | None,
) -> Counter[str]:
    from sowa.predictor.judging import about_run, judged
    from sowa.predictor.outputs import ResultFolder, now

    with ResultFolder.open(out, drawings=drawings, overwrite=overwrite, resume=resume) as folder:
        about = about_run(detector, command, folder.began() if resume else None)
        left = folder.left(items) if resume else items
        _begin(folder, detector, about)
        show, began, before = progress_line(), time.monotonic(), sum(folder.counts.values())
        for item, result in judged(detector, left, batch_size=size):
            folder.add(item, result)
            if aloud:
                say(_aloud(item, result))
            else:
                done = sum(folder.counts.values())
                rate = (done - before) / max(1e-9, time.monotonic() - began)
                show(f"{tally_line(folder.counts)}, {rate:.1f} a second{_left(total, done, rate)}")
        show("")
        folder.finish({**about, "ended": now()})
    say(f"wrote {out}")
    return folder.counts


def _expected(sources: Sequence[str], out: Path) -> int | None:
    """How many pictures there are, where somebody looks at the progress; None: not known."""
    if not sys.stderr.isatty():
        return None
    from sowa.predictor.sources import expected

    return expected(sources, skip=out)


def _left(total: int | None, done: int, rate: float) -> str:
    """ ", 12 min left"; nothing where it is not known."""
    if total is None or done >= total:
        return ""
    seconds = (total - done) / max(rate, 1e-9)
    for length, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f", {seconds / length:.0f} {unit} left"
    return f", {seconds:.0f} s left"


def _begin(folder: "ResultFolder", detector: "Predictor", about: Mapping[str, Any]) -> None:
    """A folder says what it is from the start on, so that a killed run can be read, too."""
    folder.say(about)
    if detector.thumbnails is not None:
        folder.show_normals(detector.thumbnails)


def _aloud(item: "Item", result: "Result") -> str:
    if result.error is not None:
        return f"error      {item.path}: {result.error}"
    return f"{result.verdict:10} {item.path}  score {result.score:.4g}, {result.milliseconds:.0f} ms"


def tally_line(counts: Mapping[str, int]) -> str:
    """How many of each verdict."""
    bad = f", {counts['error']} could not be read" if counts["error"] else ""
    number = sum(counts.values())
    return f"{number} picture{'' if number == 1 else 's'}: {counts['good']} good, {counts['defective']} defective{bad}"


@contextmanager
def interrupted_kindly(out: Path, again: str) -> Iterator[None]:
    """Say what a Ctrl-C leaves behind, and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        tell(f"interrupted; the rows so far are in {out}/results.jsonl.partial, {again}")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def stopping_kindly(stop: threading.Event, wanted: bool) -> Iterator[None]:
    """The first Ctrl-C or request to end lets a watch finish its picture and its files; the second one interrupts."""
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def asked(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, before[number] or signal.SIG_DFL)

    for number in before:
        signal.signal(number, asked)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def lasting(context: typer.Context, name: str) -> list[str]:
    """The words of a command without those that say where things lie: what somebody else could type."""
    words = ["sowa", name]
    for param in context.command.params:
        value = context.params.get(param.name or "")
        if value is None or value == param.default or value is False or value == []:
            continue
        values = [str(one) for one in (value if isinstance(value, list | tuple) else [value])]
        if param.param_type_name == "argument":
            words += [Path(one).name or one for one in values]
        elif param.name not in ("out", "cache_dir", "weights", "watch", "graph"):
            for one in values:
                words += [param.opts[0]] if value is True else [param.opts[0], one]
        elif param.name == "watch":
            words += ["--watch", Path(values[0]).name]
    return words
