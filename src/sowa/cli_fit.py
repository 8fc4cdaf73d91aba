"""The commands that make and change a `.sowa` file: fit, add, calibrate; and info. Heavy libraries load inside them."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sowa.console import progress_line, say
from sowa.errors import ConfigError

if TYPE_CHECKING:
    from sowa.predictor.predictor import Predictor

__all__ = ["Artifact", "CacheDir", "Numbers", "Offline", "Weights", "add", "calibrate", "fit", "info"]

Artifact = Annotated[Path, typer.Argument(help="File of `sowa fit`.", metavar="FILE.sowa")]
Weights = Annotated[str | None, typer.Option(help="File of the backbone's weights.", metavar="PATH")]
CacheDir = Annotated[Path | None, typer.Option(help="Where weights are kept; else SOWA_CACHE.", metavar="DIR")]
Offline = Annotated[bool, typer.Option("--offline", help="Fetch nothing.")]
Numbers = Annotated[str, typer.Option("--precision", help="auto, fp32 (exact), bf16, fp16 (GPU) or int8.")]
Pictures = Annotated[
    list[str] | None, typer.Argument(metavar="GOOD", help="Folders, pictures, patterns, lists (.txt).")
]
InPlace = Annotated[
    Path | None, typer.Option("--out", "-o", help="Write here; else the file is replaced.", metavar="FILE.sowa")
]


Name = Annotated[str, typer.Option(help="What the pictures show; methods that read words read it.")]
Shots = Annotated[str, typer.Option("-k", metavar="N|all", help="How many are remembered.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the draw where some are remembered.")]
NewFile = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.sowa", help="Else the name with .sowa.")]
Model = Annotated[str | None, typer.Option(help="Method; else sowa_plus.")]
Backbone = Annotated[str | None, typer.Option(help="Else compact, which needs no model hub.")]
Trained = Annotated[
    Path | None, typer.Option(metavar="RUN", help="Folder or tensors of `sowa train` or `sowa import`.")
]
Option = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY=VALUE", help="Of the method, or backbone.KEY=VALUE; may be repeated."),
]
FitView = Annotated[str, typer.Option("--fit", help="squash or letterbox pictures that are not square.")]
Tile = Annotated[float | None, typer.Option(help="Look at tiles of this share of each side, such as 0.5.")]
Overlap = Annotated[float, typer.Option(help="Share of a tile that its neighbour sees, too.")]
Roi = Annotated[str | None, typer.Option(metavar="MASK", help="Picture whose white part alone counts.")]
Ignore = Annotated[str | None, typer.Option(metavar="MASK", help="Picture whose white part does not count.")]
Thumbnails = Annotated[bool, typer.Option("--thumbnails", help="Keep small copies of the good pictures for reports.")]
Bundle = Annotated[bool, typer.Option("--bundle", help="Put the backbone inside, for a PC without network.")]
Target = Annotated[float | None, typer.Option(help="Share of good parts that may be called defective; else 0.02.")]
ZeroShot = Annotated[bool, typer.Option("--zero-shot", help="Without good pictures: by a trained head, or words.")]
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")]


def fit(
    good: Pictures = None,
    name: Name = "object",
    k: Shots = "all",
    seed: Seed = 0,
    out: NewFile = None,
    model: Model = None,
    backbone: Backbone = None,
    weights: Weights = None,
    trained: Trained = None,
    option: Option = None,
    view: FitView = "squash",
    tile: Tile = None,
    overlap: Overlap = 0.25,
    roi: Roi = None,
    ignore: Ignore = None,
    thumbnails: Thumbnails = False,
    bundle: Bundle = False,
    target_false_alarms: Target = None,
    zero_shot: ZeroShot = False,
    overwrite: Replace = False,
    cache_dir: CacheDir = None,
    offline: Offline = False,
) -> None:
    """Learn a product from a few good pictures; says what was learnt and what cannot be promised."""
    target = _target(out, name, overwrite)
    pictures = _given(good, zero_shot)
    options, tower = _options(option or ())
    tower |= {"weights": weights, "cache_dir": cache_dir, "offline": offline or None}
    from sowa.predictor.predictor import Predictor

    began = time.perf_counter()
    detector = Predictor.fit(
        pictures,
        name=name,
        model=model,
        backbone=backbone,
        options=options,
        backbone_options=tower,
        trained=trained,
        k=_k(k),
        seed=seed,
        fit=view,  # type: ignore[arg-type]  # checked where it is used
        tile=tile,
        overlap=overlap,
        roi=roi,
        ignore=ignore,
        thumbnails=thumbnails,
        target_false_alarms=target_false_alarms,
        progress=_progress(),
    )
    seconds = time.perf_counter() - began
    detector.save(target, bundle=bundle, cache_dir=cache_dir, weights=weights)
    _said(detector, target)
    say(f"fitted in {seconds:.1f} s; judge with: sowa predict {target} PICTURES -o results")


def add(
    artifact: Artifact,
    more: Pictures = None,
    out: InPlace = None,
    weights: Weights = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
) -> None:
    """Let a fitted detector know further good pictures, without a training."""
    if not more:
        raise ConfigError("no good pictures to add: name a folder of some")
    from sowa.predictor.sources import good_pictures

    pictures = good_pictures(more)
    detector = _loaded(artifact, weights, cache_dir, offline)
    _save(detector.add(pictures, progress=_progress()), out or artifact)


def calibrate(
    artifact: Artifact,
    normals: Annotated[
        list[str] | None, typer.Option(help="Good pictures that were not learnt from; may be repeated.", metavar="DIR")
    ] = None,
    defects: Annotated[
        list[str] | None, typer.Option(help="Defective ones, which are only judged; may be repeated.", metavar="DIR")
    ] = None,
    target_false_alarms: Annotated[
        float, typer.Option(help="Share of good parts that may be called defective.")
    ] = 0.01,
    threshold: Annotated[float | None, typer.Option(help="Your own, as scores are shown by `predict`.")] = None,
    out: InPlace = None,
    weights: Weights = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
) -> None:
    """Set the threshold from good pictures, or by hand; nothing is fitted again."""
    if not normals and threshold is None:
        raise ConfigError("nothing to calibrate with: give --normals DIR, or --threshold X of your own")
    if defects and not normals:
        raise ConfigError("--defects are only judged; a threshold comes from --normals DIR")
    from sowa.predictor.sources import good_pictures

    good = good_pictures(normals or ())
    bad = good_pictures(defects) if defects else None
    detector = _loaded(artifact, weights, cache_dir, offline)
    if good:
        detector = detector.calibrate(good, bad, target_false_alarms=target_false_alarms, progress=_progress())
        if threshold is not None:
            say(detector.promise())
    if threshold is not None:
        detector = detector.with_threshold(threshold)
    _save(detector, out or artifact)


def info(
    artifact: Artifact,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON and nothing else.")] = False,
) -> None:
    """Say what a file holds and what it promises; its backbone is not needed."""
    from sowa.predictor.about import about_file

    about = about_file(artifact)
    if as_json:
        say(json.dumps(about, indent=2))
        return
    for head, words in _described(about, artifact):
        say(f"{head:12}{words}")
    for line in about["promise"]:
        say(line)


# -------------------------------------------------------------------------------------------------------------- helpers


def _described(about: dict[str, Any], path: Path) -> list[tuple[str, str]]:
    model, backbone, view = about["model"], about["backbone"], about["view"]
    options = "".join(f", {key}={value}" for key, value in model["options"].items())
    inside = "inside" if backbone["inside"] else "not inside"
    tiles = f", {view['views']} tiles of {view['tile']:g}" if view["tile"] else ""
    mask = f", a mask of {view['mask'][1]} x {view['mask'][0]}" if view["mask"] else ""
    uses = [normal["use"] for normal in about["normals"]]
    return [
        ("file", f"{path}, {path.stat().st_size / 1e6:.2f} MB, {about['id']}"),
        ("made", f"{about['created']} by sowa {about['sowa']}"),
        ("method", f"{model['name']}{options}" + (f", trained {about['trained']['name']}" if about["trained"] else "")),
        ("backbone", f"{backbone['name']}, {backbone['weights_id'][:23]}, {inside}, {backbone['licence']}"),
        *([("fitted in", backbone["precision"])] if "precision" in backbone else []),
        ("view", f"{view['size']} pixels, {view['fit']}{tiles}{mask}"),
        ("pictures", f"{uses.count('reference')} remembered, {uses.count('threshold')} for the threshold"),
        ("reference", f"{about['reference_bytes'] / 1e6:.2f} MB"),
        ("threshold", f"{about['calibration']['threshold']:.6g}, {about['threshold_source']}"),
    ]


def _loaded(artifact: Path, weights: str | None, cache_dir: Path | None, offline: bool) -> "Predictor":
    from sowa.predictor.predictor import Predictor

    return Predictor.load(artifact, weights=weights, cache_dir=cache_dir, offline=offline)


def _save(detector: "Predictor", target: Path) -> None:
    """A backbone that was inside stays inside."""
    detector.save(target, bundle=detector.info()["backbone"]["inside"])
    _said(detector, target)


def _said(detector: "Predictor", target: Path) -> None:
    say(detector.promise())
    say(f"wrote {target} ({target.stat().st_size / 1e6:.2f} MB, {detector.id})")


def _given(good: list[str] | None, zero_shot: bool) -> "list[str | Path]":
    if good and zero_shot:
        raise ConfigError("--zero-shot is without good pictures: leave it or them out")
    if not good and not zero_shot:
        raise ConfigError("no good pictures: name a folder of some, or say --zero-shot to judge without")
    from sowa.predictor.sources import good_pictures

    return good_pictures(good or ())


def _target(out: Path | None, name: str, overwrite: bool) -> Path:
    """Where to write, said before anything is learnt if it cannot be."""
    if out is None:
        stem = "".join(sign if sign.isalnum() or sign in "-_" else "_" for sign in name).strip("_") or "detector"
        out = Path(f"{stem[:80]}.sowa")
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder: give a file, such as {out / 'detector.sowa'}")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} is there already: give another --out, --overwrite, or sowa add {out} MORE")
    return out


def _k(text: str) -> Any:
    if text == "all":
        return text
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f'-k {text}: give a number of pictures, or "all"') from None


def _options(words: list[str] | tuple[()]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the method, and of the backbone (those with `backbone.` before them)."""
    own: dict[str, Any] = {}
    tower: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"--option {word}: give KEY=VALUE, or backbone.KEY=VALUE")
        try:
            value = json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
        except ValueError:  # a bare word
            value = text
        if key.startswith("backbone."):
            tower[key.removeprefix("backbone.")] = value
        else:
            own[key] = value
    return own, tower


def _progress() -> Any:
    show = progress_line()
    return lambda what, done, total: show("" if done >= total else f"{what}: {done} of {total}")
