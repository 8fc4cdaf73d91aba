"""The commands `sowa data ...`: check, show, get, export, shots. Whatever is heavy loads inside the command."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sowa.console import say as _say
from sowa.console import visible as _plain
from sowa.errors import ConfigError, DataError

if TYPE_CHECKING:
    from sowa.data.check import Report
    from sowa.data.contact import Shown
    from sowa.data.layouts import Reading
    from sowa.types import Sample

__all__ = ["data"]

data = typer.Typer(
    help="Data sets: check them, look at them, get them, hand them to other tools, draw shots.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_DATA_VARIABLE = "SOWA_DATA"
_PAIRS = 12
_SHOWN_SIDE = 512

Root = Annotated[Path, typer.Argument(help="Directory or list file of the data set.", metavar="PATH")]
LayoutName = Annotated[str, typer.Option(help="How the files are arranged; recognised by itself if not given.")]
Split = Annotated[str | None, typer.Option(help="One of the layout's own splits, as VisA's 2cls_fewshot.")]
Category = Annotated[list[str] | None, typer.Option(help="Only this category; may be repeated.")]


@data.command()
def check(
    path: Root,
    layout: LayoutName = "auto",
    split: Split = None,
    quick: Annotated[bool, typer.Option("--quick", help="Names, lists and counts only; open no image.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON and nothing else.")] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images; 0 is one for each core.")] = 0,
) -> None:
    """List every problem of a data set. Exit code 0: clean, 1: warnings, 2: unusable."""
    from sowa.data.check import check as run
    from sowa.data.check import unusable

    try:
        report = run(
            path, layout, split=split, quick=quick, workers=workers or _cores(), watch=_watch("reading images")
        )
    except DataError as error:
        if not as_json:
            raise
        report = unusable(path, error)
    if as_json:
        _say(json.dumps(report.record(), indent=2))
    else:
        _print_report(report, quick)
    raise typer.Exit(report.exit_code)


@data.command()
def show(
    path: Root,
    layout: LayoutName = "auto",
    split: Split = None,
    out: Annotated[Path, typer.Option(help="Directory of the sheets.")] = Path("sheets"),
    category: Category = None,
    pairs: Annotated[int, typer.Option(min=1, max=60, help="Pairs of images on a sheet.")] = _PAIRS,
) -> None:
    """Draw a contact sheet of each category: good beside defective, the mask as an outline."""
    from sowa.data.layouts import scan

    reading = scan(path, layout, split=split)
    chosen = _by_category(reading, category)
    files = _file_names(list(chosen))
    for number, (name, samples) in enumerate(chosen.items(), start=1):
        sheet = _draw_sheet(name, samples, out / files[name], pairs)
        _say(f"wrote {sheet} ({number} of {len(chosen)})")


@data.command()
def get(
    name: Annotated[str, typer.Argument(help="Data set: mvtec, visa, btad, dagm, ...", metavar="NAME")],
    origin: Annotated[
        str | None, typer.Option("--from", metavar="URL-OR-FILE", help="Take this archive, not the published one.")
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help=f"Directory above the data set; else ${_DATA_VARIABLE}, else data."),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="Hash of the archive of --from, in place of the recorded one.")
    ] = None,
    keep_archive: Annotated[bool, typer.Option("--keep-archive", help="Do not delete the fetched archive.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Check names and counts only afterwards.")] = False,
) -> None:
    """Fetch a published data set, or unpack its archive, and check it. Says licence and citation first."""
    from sowa.data.get import get as run

    home = to or Path(os.environ.get(_DATA_VARIABLE) or "data")
    root = run(
        name,
        home=home.expanduser(),
        origin=origin,
        sha256=sha256,
        keep_archive=keep_archive,
        say=_say,
        watch=_watch_named(),
    )
    from sowa.data.check import check as examine

    report = examine(root, quick=quick, workers=_cores(), watch=_watch("reading images"))
    _print_report(report, quick)
    raise typer.Exit(report.exit_code)


@data.command()
def export(
    path: Root,
    to: Annotated[str, typer.Option(help="meta_json, folder, csv, coco or fiftyone.")],
    out: Annotated[Path | None, typer.Option(help="New directory; else exported/<name>-<format>.")] = None,
    layout: LayoutName = "auto",
    split: Split = None,
    category: Category = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the images; else they are symbolic links.")] = False,
) -> None:
    """Arrange a data set for other tools: same images, same split, masks of 0 and 255."""
    from sowa.data.export import export as run
    from sowa.data.layouts import read_samples

    samples = read_samples(path, layout, categories=category, split=split, validation=True)
    target = out or Path("exported") / f"{path.absolute().name}-{to}"
    written = run(samples, target, to=to, copy=copy, watch=_watch("exporting"))
    masks = sum(bool(item.mask) for item in written)
    _say(f"wrote {target}: {len(written)} images, {masks} masks, as {to}; read it back: sowa data check {target}")


@data.command()
def shots(
    path: Root,
    k: Annotated[int, typer.Option("-k", min=0, help="Shots of each category.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    out: Annotated[Path, typer.Option(help="File to write; - is standard output.")] = Path("shots.json"),
    layout: LayoutName = "auto",
    split: Split = None,
    category: Category = None,
    dataset: Annotated[
        str | None, typer.Option(help="Name that enters the draw, as data.target.dataset; known for published sets.")
    ] = None,
    allow_fewer: Annotated[
        bool, typer.Option("--allow-fewer", help="Where there are fewer normals, take all.")
    ] = False,
) -> None:
    """Write the normal images that training and evaluation would draw."""
    from sowa.data.check import published_as
    from sowa.data.layouts import read_samples, recognise
    from sowa.data.shots import draw_shots, shots_record

    found = read_samples(path, layout, categories=category, split=split)
    named = recognise(path) if layout == "auto" else layout
    dataset = dataset or published_as(named, {sample.category for sample in found}) or named
    drawn = draw_shots(found, dataset=dataset, k=k, seed=seed, allow_fewer=allow_fewer)
    text = json.dumps([shots_record(drawn, dataset=dataset, k=k, seed=seed)], indent=2)
    if str(out) == "-":
        _say(text)
        return
    _replace(out, text + "\n")
    _say(f"wrote {out}: k={k}, seed={seed}, {len(drawn)} categories of {dataset}")


# --------------------------------------------------------------------------------------------------------------- report

_HEADS = ("train good", "train bad", "test good", "test bad", "masks")


def _print_report(report: "Report", quick: bool) -> None:
    """The counts as a table, then every problem on a line of its own."""
    rows = {name: tuple(row.values()) for name, row in report.counts.items()}
    total = tuple(map(sum, zip(*rows.values(), strict=True))) if rows else (0,) * len(_HEADS)
    width = max((len(name) for name in (*rows, "category")), default=0)
    _say(f"{report.root}: layout {report.layout}, {len(rows)} {'category' if len(rows) == 1 else 'categories'}")
    _say("".join((f"{'category':{width}}", *(f"{head:>12}" for head in _HEADS))))
    for name, row in (*rows.items(), ("total", total)):
        _say("".join((f"{name:{width}}", *(f"{number:12}" for number in row))))
    if report.published:
        _say(_compared(report))
    kinds = sorted({problem.kind for problem in report.problems})
    for kind in kinds:
        same = [problem for problem in report.problems if problem.kind == kind]
        _say(f"\n{kind} ({len(same)})")
        for problem in same:
            _say(f"  {problem.message}")
    content = ", the images were not opened (--quick)" if quick else ""
    verdict = {0: "clean", 1: "usable, with warnings", 2: "unusable"}[report.exit_code]
    number = len(report.problems)
    _say(f"\n{number} {'problem' if number == 1 else 'problems'}: {verdict}{content}")


def _compared(report: "Report") -> str:
    from sowa.data.layouts_counts import published_counts

    published = published_counts(str(report.published))
    here = len(report.counts.keys() & published.keys())
    wrong = sum(problem.kind == "count" for problem in report.problems)
    differ = f"{wrong} of {here} categories differ from" if wrong else f"all {here} categories have"
    absent = f"; {len(published) - here} are not here" if here < len(published) else ""
    return f"{differ} the counts published for {report.published}{absent}"


# --------------------------------------------------------------------------------------------------------------- sheets


def _by_category(reading: "Reading", wanted: Sequence[str] | None) -> "dict[str, list[Sample]]":
    from sowa.errors import UnknownNameError

    found: dict[str, list[Sample]] = {}
    for sample in reading.samples:
        found.setdefault(sample.category, []).append(sample)
    for name in wanted or ():
        if name not in found:
            raise UnknownNameError(f"category of {reading.root}", got=name, known=found)
    if not found:
        raise DataError(f"{reading.root}: no image to show; sowa data check {reading.root} says why")
    return {name: found[name] for name in sorted(found) if not wanted or name in wanted}


def _file_names(categories: Sequence[str]) -> dict[str, str]:
    """Category -> file name; lists may name a category anything."""
    names: dict[str, str] = {}
    for category in categories:
        stem = re.sub(r"[^\w.-]", "_", category).strip(".")[:100] or "category"
        while f"{stem}.png".casefold() in {name.casefold() for name in names.values()}:
            stem += "_"
        names[category] = f"{stem}.png"
    return names


def _draw_sheet(category: str, samples: "Sequence[Sample]", path: Path, most: int) -> Path:
    from sowa.data.contact import pairs_of
    from sowa.figures.pairs import Pair, pair_sheet

    pairs = []
    for good_ones, bad_ones in pairs_of(samples, most):
        good, bad = _first(good_ones), _first(bad_ones)
        pair = Pair(
            good=good.image if good else None,
            bad=bad.image if bad else None,
            mask=bad.mask if bad else None,
            good_name=_plain(good.sample.name) if good else "",
            bad_name=_plain(bad.sample.name) if bad else "",
            defect=_plain(bad.sample.defect) if bad else "",
        )
        pairs += [pair] if good or bad else []
    if not pairs:
        raise DataError(f"category {category}: not one image can be read; sowa data check says why")
    defective = sum(sample.label for sample in samples)
    title = f"{_plain(category)}: {len(samples) - defective} good, {defective} defective"
    try:
        return pair_sheet(pairs, path, title=title)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); give another directory by --out") from error


def _first(candidates: "Sequence[Sample]") -> "Shown | None":
    """The first that can be read; the others are named on the way."""
    from sowa.data.contact import Shown, read_shown

    for item in read_shown(candidates, _SHOWN_SIDE):
        if isinstance(item, Shown):
            return item
        print(f"not shown: {_plain(str(item))}", file=sys.stderr)
    return None


# --------------------------------------------------------------------------------------------------------------- output


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); give another file by --out") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _watch(words: str) -> Callable[[int, int], None] | None:
    watch = _watch_named()
    return (lambda done, total: watch(words, done, total)) if watch else None


def _watch_named() -> Callable[[str, int, int], None] | None:
    """Rewrites one line of a terminal; None where nobody watches."""
    if not sys.stderr.isatty():
        return None
    last = [0.0]

    def tell(words: str, done: int, total: int) -> None:
        now, ended = time.monotonic(), 0 < total <= done
        if ended or now - last[0] > 0.2:
            last[0] = now
            part = f"{100 * done // total} %" if total else f"{done / 1e6:.0f} MB"
            print("\r\033[K" if ended else f"\r{words}: {part}", end="", file=sys.stderr, flush=True)

    return tell
