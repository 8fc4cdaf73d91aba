"""The command `sowa export`: a fitted detector for onnxruntime or OpenVINO."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sowa.export import Report

__all__ = ["export"]


def export(
    detector: Annotated[Path, typer.Argument(help="A .sowa file.", metavar="DETECTOR")],
    to: Annotated[str, typer.Option(help="onnx, or openvino.")] = "onnx",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="NAME.onnx or NAME.xml; beside the detector.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Eight-bit network; needs --good.")] = False,
    reference: Annotated[
        str, typer.Option(help="baked into the file, or an input: one graph for all products (predict --graph).")
    ] = "baked",
    good: Annotated[Path | None, typer.Option(help="Good pictures to compare on, and to set int8's scales.")] = None,
    defects: Annotated[Path | None, typer.Option(help="Defective pictures to compare on.")] = None,
    tolerance: Annotated[float, typer.Option(help="Largest difference of score and heat.")] = 1e-3,
    drift: Annotated[float, typer.Option(help="Image AUROC that int8 may cost.")] = 0.01,
    weights: Annotated[str | None, typer.Option(help="The backbone's weights, if not in the usual place.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON alone.")] = False,
) -> None:
    """Write a detector for onnxruntime or OpenVINO; kept only if it says what the detector says."""
    from sowa.export import export_detector
    from sowa.export.writing import KINDS
    from sowa.predictor import Predictor

    suffix = KINDS.get(to, ("",))[0]
    report = export_detector(
        Predictor.load(detector, weights=weights, precision="fp32"),
        detector.with_suffix(suffix) if out is None else out,
        to=to,
        int8=int8,
        reference=reference,  # type: ignore[arg-type]  # checked by itself
        good=good,
        defects=defects,
        tolerance=tolerance,
        drift_allowed=drift,
    )
    typer.echo(json.dumps(report.record(), indent=2) if as_json else _words(report))


def _words(report: "Report") -> str:
    record = report.record()
    lines = [f"wrote {' and '.join(record['files'])} ({record['bytes'] / 1e6:.1f} MB, {report.precision})"]
    found, kind = report.parity, "drawn" if report.drawn else "given"
    heat = "" if found.heat is None else f", of heat {found.heat:.1e}"
    lines.append(
        f"against the detector on {found.pictures} {kind} pictures: largest difference of score {found.score:.1e} of"
        f" the threshold{heat}; {found.verdicts} verdicts differ"
    )
    if report.drift is not None:
        change = report.drift
        defects = "painted defects" if change.painted else "defects"
        lines.append(
            f"image AUROC on {change.good} good pictures and {change.defective} {defects}: {change.exact:.4f} before,"
            f" {change.exported:.4f} in int8; {change.changed} verdicts differ"
        )
    return "\n".join(lines)
