"""The command `sowa measure-int8`: makes precision=int8 possible on a tower that the package has no ranges of."""

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["measure_int8"]


def measure_int8(
    backbone: Annotated[str, typer.Option(help="A vision transformer, see sowa list backbones.")] = "clip",
    model: Annotated[str | None, typer.Option(help="Of open_clip; the paper's if left out.")] = None,
    tag: Annotated[str | None, typer.Option(help="Which weights of the model.")] = None,
    weights: Annotated[str | None, typer.Option(help="A file of weights, if not in the usual place.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the input in pixels; the weights' own.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never try the network.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON alone.")] = False,
) -> None:
    """Measure once what a tower's channels reach, so that it can compute in int8; kept in the cache."""
    from sowa.backbones import build_backbone
    from sowa.console import progress_line
    from sowa.training.byte_ranges import measure_int8 as measure

    found = build_backbone(
        backbone,
        model=model,
        tag=tag,
        weights=weights if weights in (None, "random") else Path(weights),
        image_size=image_size,
        offline=offline,
    )
    show = progress_line()
    report = measure(found, progress=lambda done, total: show(f"image {done} of {total}"))
    show("")
    if as_json:
        typer.echo(json.dumps(report.record(), indent=2))
        return
    typer.echo(f"measured on {report.images} drawn pictures, wrote {report.path}")
    words = ", ".join(f"block {tap} {100 * apart:.1f} %" for tap, apart in report.apart.items())
    typer.echo(f"tokens in int8 against float32 on {report.held} others: {words}; precision=int8 can be used now")
