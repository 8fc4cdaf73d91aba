"""The commands `sowa benchmark ...`: the grid, its tables, speed and figures."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sowa.errors import ConfigError

if TYPE_CHECKING:
    from sowa.benchmark.plan import Plan
    from sowa.benchmark.runner import Outcome
    from sowa.benchmark.store import Store

__all__ = ["dispatch"]

benchmark = typer.Typer(
    help="Methods x data sets x shots under one protocol; tables, speed, figures.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def dispatch(words: Sequence[str]) -> int:
    """`sowa benchmark WORDS`: the grid, unless the first word names one of the other commands."""
    others = {command.name or command.callback.__name__ for command in benchmark.registered_commands} - {"run"}
    first = words[0] if words else "--help"
    chosen = list(words) if first in others else ["run", *(words or ["--help"])]
    code = benchmark(chosen, standalone_mode=False, prog_name="sowa benchmark")
    return code if isinstance(code, int) else 0


Words = Annotated[list[str] | None, typer.Argument(help="experiment=NAME, or none.", metavar="[experiment=NAME]")]
Experiment = Annotated[str | None, typer.Option(help="Name or YAML file; options below overrule it.")]
Methods = Annotated[str | None, typer.Option(help="Names by comma, such as sowa,winclip,patchcore.")]
Out = Annotated[Path, typer.Option(help="Folder of the results; a second run goes on where the first stopped.")]
DataDir = Annotated[Path | None, typer.Option(help="Directory above the data sets; else SOWA_DATA.")]
CacheDir = Annotated[Path | None, typer.Option(help="Where weights and drawn data are kept; else SOWA_CACHE.")]


@benchmark.command()
def run(
    words: Words = None,
    experiment: Experiment = None,
    methods: Methods = None,
    data: Annotated[str | None, typer.Option(help="Data sets by comma, such as mvtec,visa,elpv,drawn.")] = None,
    shots: Annotated[str | None, typer.Option(help="Numbers of good images: 0,1,2,4.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Draws of the good images: 0-4.")] = None,
    protocol: Annotated[str | None, typer.Option(help="standard or paper.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Of all methods that name no other.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Test images of each category and label.")] = None,
    reference: Annotated[str | None, typer.Option(help="Method that the others are compared with.")] = None,
    trained: Annotated[list[str] | None, typer.Option(help="METHOD=FILE: trained tensors; may be repeated.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images at once.")] = None,
    precision: Annotated[str | None, typer.Option(help="Of the backbones: fp32 (unless told), bf16, auto.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode images.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Processes that fill cells, the cores shared.")] = 1,
    shard: Annotated[str | None, typer.Option(help="I/N: this machine takes every N-th category.")] = None,
    out: Out = Path("runs/benchmark"),
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Compute what is missing, then write the tables. Also: `sowa benchmark tables|speed|figure --help`.

    Every cell (method, data set, category, k, seed) is a file of its own, so a killed run goes on and several processes
    may share the folder. Exit code 1 if a cell failed.
    """
    plan = _plan(
        words,
        experiment,
        trained or (),
        {"data_dir": data_dir, "cache_dir": cache_dir},
        methods=methods and methods.split(","),
        data=data and data.split(","),
        shots=shots,
        seeds=seeds,
        protocol=protocol,
        backbone=backbone,
        limit=limit,
        reference=reference,
        batch_size=batch_size,
        precision=precision,
    )
    from sowa.benchmark.crew import run_shared
    from sowa.benchmark.runner import nothing_left  # heavy, and only now wanted
    from sowa.benchmark.store import Store

    store = Store(out)
    began = time.monotonic()
    with _progress() as progress:
        outcome = run_shared(plan, store, shard=shard, processes=processes, workers=workers, progress=progress)
    nothing_left(plan, outcome)
    _say_outcome(outcome)
    about = _about(plan, outcome, time.monotonic() - began)
    _note(out, about)
    _tables(store, out, about)
    raise typer.Exit(1 if outcome.failed else 0)


@benchmark.command()
def speed(
    words: Words = None,
    experiment: Experiment = None,
    methods: Methods = None,
    backbone: Annotated[str | None, typer.Option(help="Of all methods that name no other.")] = None,
    common: Annotated[int | None, typer.Option(min=16, help="Measure every method at this image size, too.")] = None,
    batches: Annotated[str, typer.Option(help="Images at once.")] = "1,8",
    shots: Annotated[str, typer.Option(help="Good images in the memory.")] = "0,4",
    seconds: Annotated[float, typer.Option(help="Of measuring for each number.")] = 5.0,
    precision: Annotated[str, typer.Option(help="Of the backbones: auto, fp32, bf16, fp16 or int8.")] = "auto",
    out: Out = Path("runs/benchmark"),
    cache_dir: CacheDir = None,
) -> None:
    """Images per second, latency, memory and parameters of each method: table and chart.

    Where published weights are not at hand, drawn ones of the same architecture are measured, and the table says so.
    """
    from sowa.benchmark.plan import numbers

    plan = _plan(
        words, experiment, (), {"cache_dir": cache_dir}, methods=methods and methods.split(","), backbone=backbone
    )
    from sowa.benchmark.speed import speed_main

    speed_main(
        methods=[(one.name, [f"backbone={plan.backbone}", *one.words, *plan.paths]) for one in plan.methods],
        common=common,
        batches=numbers(batches, what="batches"),
        shots=numbers(shots, what="shots"),
        seconds=seconds,
        precision=precision,
        out=out / "speed",
        said=lambda line: print(f"sowa: {line}", file=sys.stderr, flush=True),
    )
    typer.echo((out / "speed" / "speed.md").read_text(encoding="utf-8"))


@benchmark.command()
def figure(
    words: Words = None,
    experiment: Experiment = None,
    methods: Methods = None,
    data: Annotated[str | None, typer.Option(help="Data sets by comma.")] = None,
    image: Annotated[list[str] | None, typer.Option(help="Name of a test image; may be repeated.")] = None,
    k: Annotated[int | None, typer.Option("-k", min=0, help="Good images.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Of all methods that name no other.")] = None,
    trained: Annotated[list[str] | None, typer.Option(help="METHOD=FILE: trained tensors; may be repeated.")] = None,
    out: Out = Path("runs/benchmark"),
    data_dir: DataDir = None,
    cache_dir: CacheDir = None,
) -> None:
    """Original, truth and every method's heat map; levels, text, memory and fusion of SOWA."""
    plan = _plan(
        words,
        experiment,
        trained or (),
        {"data_dir": data_dir, "cache_dir": cache_dir},
        methods=methods and methods.split(","),
        data=data and data.split(","),
        backbone=backbone,
    )
    from sowa.benchmark.figure import figure_main
    from sowa.benchmark.store import Store

    for path in figure_main(plan, Store(out), names=image or (), k=k):
        typer.echo(f"wrote {path}")


def _plan(
    words: Sequence[str] | None,
    experiment: str | None,
    trained: Sequence[str],
    places: Mapping[str, Path | None],
    **given: Any,
) -> "Plan":
    """The experiment, overruled by what was given; nothing heavy is loaded for it."""
    from sowa.benchmark.plan import load_experiment, plan_of

    name = _experiment(words, experiment)
    content = load_experiment(name) if name else {}
    content |= {key: value for key, value in given.items() if value is not None}
    if given.get("methods") and given.get("reference") is None:
        content.pop("reference", None)
    paths = [f"paths.{key}={value}" for key, value in places.items() if value]
    return plan_of(content, trained=_files(trained), paths=paths)


@benchmark.command()
def tables(
    out: Out = Path("runs/benchmark"),
    reference: Annotated[str | None, typer.Option(help="Method that the others are compared with.")] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
) -> None:
    """Write the tables again from the cells that are there."""
    from sowa.benchmark.store import Store

    if not out.is_dir():
        raise ConfigError(f"{out}: no such folder; give that of a benchmark")
    given = {"title": title, "reference": reference}
    _tables(Store(out), out, _noted(out) | {key: value for key, value in given.items() if value is not None})


ABOUT = "benchmark.json"
PLACES = ("--out", "--shard", "--processes", "--data-dir", "--cache-dir", "--trained")


def _lasting(words: Sequence[str]) -> list[str]:
    """The words of a command without those that say where things lie on this machine."""
    kept: list[str] = []
    skip = False
    for word in words:
        if (
            not skip
            and not word.startswith(tuple(f"{place}=" for place in PLACES))
            and word not in (*PLACES, "--debug")
        ):
            kept.append(word)
        skip = not skip and word in PLACES
    return kept


def _about(plan: "Plan", outcome: "Outcome", seconds: float) -> dict[str, Any]:
    """What a run writes of itself."""
    return {
        "title": plan.title,
        "reference": plan.reference,
        "order": [choice.name for choice in plan.methods],
        "command": _lasting(sys.argv[1:]),
        "seconds": round(seconds, 1),
        "computed": outcome.computed,
        "failed": outcome.failed,
        "skipped": sorted(set(outcome.skipped)),
    }


def _note(out: Path, about: dict[str, Any]) -> None:
    from sowa.metrics.table import write_json

    write_json(out / ABOUT, about)


def _noted(out: Path) -> dict[str, Any]:
    """What the last run wrote of itself; empty if there is nothing readable."""
    try:
        found = json.loads((out / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _tables(store: "Store", out: Path, about: Mapping[str, Any]) -> None:
    from sowa.benchmark.render import write_tables

    cells, damaged = store.cells()
    for path in damaged:
        print(f"sowa: {path} is no whole cell and left out", file=sys.stderr)
    if not cells:
        raise ConfigError(f"{out}: no cell of a benchmark in it; run sowa benchmark run first")
    keys = ("title", "reference", "order", "command")
    for path in write_tables(cells, out / "tables", **{key: about[key] for key in keys if key in about}):
        typer.echo(f"wrote {path}")


def _experiment(words: Sequence[str] | None, option: str | None) -> str | None:
    names = [option] if option else []
    for word in words or ():
        key, equals, value = word.partition("=")
        if key != "experiment" or not equals:
            raise ConfigError(f"'{word}' is not understood: write experiment=NAME, or options such as --methods")
        names.append(value)
    if len(names) > 1:
        raise ConfigError(f"several experiments given ({', '.join(names)}): name one")
    return names[0] if names else None


def _files(pairs: Sequence[str]) -> dict[str, Path]:
    files = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not equals or not path:
            raise ConfigError(f"--trained '{pair}': write METHOD=FILE")
        files[name] = Path(path)
    return files


def _say_outcome(outcome: "Outcome") -> None:
    print(f"sowa: {outcome.computed} cells computed, {outcome.found} were there", file=sys.stderr)
    for line in dict.fromkeys(outcome.skipped):
        print(f"sowa: left out: {line}", file=sys.stderr)
    for line in outcome.failed:
        print(f"sowa: failed: {line}", file=sys.stderr)


@contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None]]:
    """Images done of images to do with the time left: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _lines(every=20.0)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("benchmark", total=None)
        yield lambda done, total, name: bar.update(task, completed=done, total=total, description=name)


def _lines(every: float) -> Callable[[int, int, str], None]:
    began = last = time.monotonic()

    def tell(done: int, total: int, name: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every and done < total:
            return
        last = now
        left = (now - began) * (total - done) / done if done else 0.0
        print(f"benchmark: {name}, image {done}/{total}, about {left:.0f} s left", file=sys.stderr, flush=True)

    return tell
