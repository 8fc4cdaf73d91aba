"""The commands `sowa scale ...`: many pictures, several processes, several machines."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sowa.errors import ConfigError

if TYPE_CHECKING:
    from sowa.scale.merge import Merged

__all__ = ["dispatch"]

scale = typer.Typer(
    help="Verdicts on very many pictures, by several processes and machines that share a folder.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
SAY_EVERY = 10.0


def dispatch(words: Sequence[str]) -> int:
    """`sowa scale WORDS`."""
    code = scale(list(words), standalone_mode=False, prog_name="sowa scale")
    return code if isinstance(code, int) else 0


@scale.callback()
def _common() -> None:
    """Keeps a single command from swallowing its own name."""


Out = Annotated[str, typer.Option("--out", "-o", help="Folder of the results: a path, or what fsspec writes (s3://).")]


@scale.command()
def predict(
    detector: Annotated[str, typer.Argument(help="A .sowa file.", metavar="DETECTOR.sowa")],
    sources: Annotated[
        list[str] | None, typer.Argument(help="Pictures, folders, patterns.", metavar="[SOURCE]")
    ] = None,
    out: Out = "runs/scale",
    lists: Annotated[list[str] | None, typer.Option("--list", help="Text file of paths; may be repeated.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; 1 is this one.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Of each process; else the cores are shared.")] = None,
    shard: Annotated[str | None, typer.Option(help="I/N: this machine is the I-th of N.")] = None,
    ray: Annotated[str | None, typer.Option(help="local, or the address of a Ray cluster.")] = None,
    block: Annotated[int, typer.Option(min=1, help="Pictures that are written together.")] = 256,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures scored at once.")] = 8,
    cache_dir: Annotated[str | None, typer.Option(help="Where weights are kept; else SOWA_CACHE.")] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of the backbone.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing.")] = False,
) -> None:
    """Score every picture once into OUT/results.jsonl; a run that was stopped goes on.

    With --shard the folder is merged afterwards by `sowa scale merge OUT`. Exit code 1 if blocks were given up.
    """
    if not sources and not lists:
        raise ConfigError("no pictures given: name files, folders or patterns, or --list FILE")
    from sowa.scale.run import predict_many

    outcome = predict_many(
        detector,
        sources or (),
        out,
        lists=lists or (),
        workers=workers,
        threads=threads,
        shard=shard,
        ray=ray,
        block=block,
        batch_size=batch_size,
        cache_dir=cache_dir,
        weights=weights,
        offline=offline,
        progress=_teller(),
    )
    _say(f"{outcome.pictures} pictures scored, {outcome.found} blocks were there, {outcome.lost} workers lost")
    if outcome.pictures:
        _say(f"{outcome.core_seconds / outcome.pictures:.3f} core seconds a picture")
    if outcome.unreadable:
        _say(f"{outcome.unreadable} pictures could not be read; their rows have the verdict error")
    for line in outcome.failed:
        _say(f"given up: {line}")
    if outcome.merged is not None:
        _say_merged(out, outcome.merged)
    raise typer.Exit(1 if outcome.failed else 0)


@scale.command()
def merge(out: Annotated[str, typer.Argument(help="Folder of the results.")]) -> None:
    """Make OUT/results.jsonl of the parts of all shards; stop if a picture is missing or twice."""
    from sowa.scale.files import Place
    from sowa.scale.merge import merge as run

    _say_merged(out, run(Place(out)))


def _say_merged(out: str, merged: "Merged") -> None:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(merged.verdicts.items()))
    typer.echo(f"wrote {out.rstrip('/')}/results.jsonl: {merged.pictures} pictures ({counts})")


def _say(line: str) -> None:
    print(f"sowa: {line}", file=sys.stderr, flush=True)


def _teller() -> Callable[[int, int], None]:
    """A line now and then, with the time left."""
    began = last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < SAY_EVERY and done < total:
            return
        last = now
        rate = done / max(now - began, 1e-9)
        _say(f"{done} of {total} pictures, {rate:.1f} a second, about {(total - done) / rate:.0f} s left")

    return tell
