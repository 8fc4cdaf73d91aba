"""The command `sowa eval FILE.sowa FOLDER`: a fitted detector on labelled pictures."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sowa.cli_fit import Artifact, CacheDir, Numbers, Offline, Weights
from sowa.cli_predict import Batch, Heatmaps, Overlays, Overwrite, interrupted_kindly, lasting, tally_line
from sowa.console import progress_line, say, tell
from sowa.errors import ConfigError

if TYPE_CHECKING:
    from sowa.predictor.evaluating import Labelled, Tally
    from sowa.predictor.outputs import ResultFolder
    from sowa.predictor.predictor import Predictor

__all__ = ["dispatch", "is_ours"]

app = typer.Typer(add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})
EXTRA = ("label", "defect_type")


def is_ours(words: Sequence[str]) -> bool:
    """Whether `sowa eval WORDS` is about a fitted detector; else the words are settings of the training's door."""
    if any(word.casefold().endswith(".sowa") and "=" not in word for word in words):
        return True
    return bool(words) and "=" not in words[0] and Path(words[0]).is_file()


def dispatch(words: Sequence[str]) -> int:
    """Run it; the exit code."""
    code = app(list(words), standalone_mode=False, prog_name="sowa eval")
    return code if isinstance(code, int) else 0


@app.command()
def evaluate(
    context: typer.Context,
    artifact: Artifact,
    folder: Annotated[Path, typer.Argument(help="Any layout of `sowa data check`, or good/ beside defects.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="New folder of the results.")] = None,
    layout: Annotated[str, typer.Option(help="How the files are arranged; recognised by itself.")] = "auto",
    split: Annotated[str | None, typer.Option(help="One of the layout's own splits.")] = None,
    category: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many of each label, spread evenly.")] = None,
    overlays: Overlays = "none",
    heatmaps: Heatmaps = "none",
    threshold: Annotated[float | None, typer.Option(help="For this run, in place of the file's own.")] = None,
    batch_size: Batch = 8,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON and nothing else.")] = False,
    weights: Weights = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    precision: Numbers = "auto",
) -> None:
    """Judge labelled pictures: metrics, and how many of each kind are found at the threshold."""
    if out is None and (overlays != "none" or heatmaps != "none" or overwrite):
        raise ConfigError("overlays, heat maps and --overwrite need a folder: give -o DIR")
    from sowa.predictor.evaluating import Tally, in_words, labelled
    from sowa.predictor.outputs import Drawings, ResultFolder
    from sowa.predictor.predictor import Predictor

    drawings = Drawings(overlays, heatmaps)  # type: ignore[arg-type]  # checked by itself
    detector = Predictor.load(artifact, weights=weights, cache_dir=cache_dir, offline=offline, precision=precision)
    detector = detector if threshold is None else detector.with_threshold(threshold)
    chosen = labelled(detector, folder, layout=layout, split=split, categories=category, limit=limit)
    tally = Tally(detector, chosen)
    with ExitStack() as stack:
        target = None
        if out is not None:
            stack.enter_context(interrupted_kindly(out, "--overwrite begins anew"))
            target = stack.enter_context(
                ResultFolder.open(out, drawings=drawings, extra=EXTRA, overwrite=overwrite, resumable=False)
            )
        metrics = _judge(detector, chosen, tally, target, lasting(context, "eval"), batch_size)
    if as_json:
        say(json.dumps(metrics, indent=2, allow_nan=False))
        return
    _print_metrics(metrics)
    for line in in_words(metrics):
        say(line)
    if out is not None:
        say(f"wrote {out}")


def _judge(
    detector: "Predictor",
    chosen: "Labelled",
    tally: "Tally",
    target: "ResultFolder | None",
    command: list[str],
    batch_size: int,
) -> dict[str, Any]:
    from sowa.predictor.judging import about_run, judged
    from sowa.predictor.outputs import now

    about = about_run(detector, command)
    if target is not None:
        target.say(about)
        if detector.thumbnails is not None:
            target.show_normals(detector.thumbnails)
    show, counts, began = progress_line(), Counter[str](), time.monotonic()
    results = judged(detector, chosen.items(), batch_size=batch_size)
    for done, (sample, (item, result)) in enumerate(zip(chosen.samples, results, strict=True), start=1):
        more = tally.add(sample, result)
        counts[result.verdict] += 1
        if target is not None:
            target.add(item, result, more)
        rate = done / max(1e-9, time.monotonic() - began)
        show(f"{done} of {len(chosen.samples)}, {rate:.1f} a second")
    show("measuring")
    metrics = tally.metrics()
    show("")
    for line in tally.unfit_masks[:5]:
        tell(line)
    tell(tally_line(counts))
    if target is not None:
        target.finish({**about, "ended": now(), "metrics": metrics})
    return metrics


def _print_metrics(metrics: Mapping[str, Any]) -> None:
    from sowa.metrics.functional import METRICS

    for name in METRICS:
        if metrics[name] is not None:
            say(f"{name:16}{100 * metrics[name]:6.1f}")
    if metrics["image_auroc"] is None:
        say("image metrics are undefined: they need good and defective pictures")
    say(f"at the threshold of {metrics['threshold']:.4g} ({metrics['threshold_source']}):")
    say(f"{'':24}{'called good':>12}{'called defective':>18}")
    for truth in ("good", "defective"):
        row = metrics["confusion"][truth]
        say(f"{truth:24}{row['good']:12}{row['defective']:18}")
    kinds = metrics["recall_by_type"]
    if len(kinds) > 1:
        for kind, row in kinds.items():
            say(f"  {kind[:40]:40} {row['defective']} of {row['images']} found")
