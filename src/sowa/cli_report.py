"""The command `sowa report`."""

import time
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    source: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="What `sowa predict -o` or a run of `sowa train` or `sowa eval` wrote."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The page to write.")] = Path("report.html"),
    title: Annotated[str | None, typer.Option(help="Of the page; else the name of the product.")] = None,
    pictures: Annotated[int, typer.Option(min=0, max=60, help="How many images of each kind are shown.")] = 12,
) -> None:
    """Write one HTML page about verdicts or a run: it opens offline, prints well and needs no other file."""
    from sowa.report import write_report

    began = time.perf_counter()
    path = write_report(source, out, title=title, pictures=pictures)
    size = path.stat().st_size / 1e6
    typer.echo(f"wrote {path}: {size:.1f} MB in {time.perf_counter() - began:.1f} s, opens in any browser")
