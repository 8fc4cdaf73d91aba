"""What the page of a prediction folder says: from rows and facts to the values of its template."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sowa.calibration import CONFIDENCE, recall_interval
from sowa.metrics.curve import Curve
from sowa.predictor.results import DEFECTIVE, ERROR, GOOD
from sowa.report.cards import Strip, cards, table_rows
from sowa.report.charts import pr_chart, roc_chart, score_chart
from sowa.report.gather import MOST_SOURCES, MOST_TABLE, Gathered, gather
from sowa.report.normals import Normals, normals_used
from sowa.report.pictures import Album
from sowa.report.rows import read_facts, read_rows
from sowa.report.words import between, clean, duration, flat, moment, number, percent, plural, shell

__all__ = ["MOST_SHOWN_TYPES", "context"]

MOST_SHOWN_TYPES = 40
METRIC_WORDS = {
    "image_auroc": "image AUROC",
    "image_ap": "image average precision",
    "image_f1_max": "largest image F1 over all thresholds",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel average precision",
    "pixel_f1_max": "largest pixel F1 over all thresholds",
    "pixel_aupro": "pixel AUPRO, to a false-positive rate of 0.30",
    "pixel_aupro_05": "pixel AUPRO, to a false-positive rate of 0.05",
}


def context(path: Path, *, title: str | None, pictures: int) -> dict[str, Any]:
    """All values of `predictions.html.j2`, from a `results.jsonl` and what lies beside it."""
    folder = path.parent
    facts = read_facts(folder)
    info = facts["info"] if isinstance(facts.get("info"), dict) else {}
    found = gather(read_rows(path), name=str(info.get("name") or "images"), most=pictures)
    album = Album(folder)
    curve = found.curve()
    good, bad, unknown = (found.with_label(label) for label in (0, 1, -1))
    normals, strips = normals_used(folder, facts, info), _strips(found, album, pictures)
    return {
        "title": clean(title or f"{found.name}: inspection report", 120),
        "subtitle": _subtitle(found, facts, info),
        "verdicts": _verdicts(found),
        "rates": _rates(found),
        "meaning": _meaning(found, info),
        "histogram": Markup(score_chart(good, bad, unknown, threshold=found.threshold)),
        "curves": _curves(found, curve),
        "metrics": _metrics(curve, facts.get("metrics")),
        "types": _types(found),
        "types_left_out": max(0, len(found.defects) - MOST_SHOWN_TYPES),
        "strips": strips,
        "legend": _legend(strips),
        "errors": [{"name": clean(row.name, 90), "error": clean(row.error)} for row in found.errors],
        "errors_left_out": found.verdicts[ERROR] - len(found.errors),
        "table": table_rows(found.lists["table"].rows()),
        "table_left_out": max(0, len(found.scores) - MOST_TABLE),
        "labelled": found.labelled,
        "latency": {name: f"{value:.3g} ms" for name, value in found.percentiles().items()},
        "elapsed": _elapsed(found, facts),
        "normals": normals,
        "normals_words": _normals_words(normals),
        "environment": _environment(facts, info),
        "command": shell(facts.get("command") or ""),
    }


def _subtitle(found: Gathered, facts: Mapping[str, Any], info: Mapping[str, Any]) -> list[str]:
    model = info["model"] if isinstance(info.get("model"), dict) else {}
    backbone = info["backbone"] if isinstance(info.get("backbone"), dict) else {}
    parts = [plural(found.images, "image")]
    if ended := moment(facts.get("ended")):
        parts.append(f"{ended:%Y-%m-%d %H:%M}")
    if model.get("name"):
        parts.append(clean(f"{model['name']} on {backbone.get('name', 'its backbone')}", 80))
    identity = info.get("id") or next(iter(found.artifacts), "")
    return [*parts, f"detector {clean(identity, 40)}"] if identity else parts


def _verdicts(found: Gathered) -> list[dict[str, Any]]:
    """Count and share of each verdict; unreadable images only where there are some."""
    words = {GOOD: "good", DEFECTIVE: "defective", ERROR: "could not be read"}
    kinds = [kind for kind in words if kind != ERROR or found.verdicts[ERROR]]
    share = {kind: found.verdicts[kind] / max(1, found.images) for kind in kinds}
    return [
        {
            "kind": kind,
            "word": words[kind],
            "count": f"{found.verdicts[kind]:,}",
            "share": percent(share[kind]),
            "width": f"{100 * share[kind]:.3f}",
        }
        for kind in kinds
    ]


def _rate(name: str, part: int, whole: int, words: str) -> dict[str, str]:
    low, high = recall_interval(part, whole, CONFIDENCE)
    return {
        "name": name,
        "share": percent(part / whole),
        "count": f"{part:,} of {whole:,}",
        "between": between(low, high),
        "words": words,
        "low": f"{100 * low:.3f}",
        "high": f"{100 * (high - low):.3f}",
        "at": f"{100 * part / whole:.3f}",
    }


def _rates(found: Gathered) -> list[dict[str, str]]:
    """False alarms and recall, where images are labelled."""
    rates = []
    if found.normals[1]:
        rates.append(_rate("False alarms", *found.normals, "good images called defective"))
    if found.found[1]:
        rates.append(_rate("Found", *found.found, "defective images called defective"))
    return rates


def _curves(found: Gathered, curve: Curve | None) -> list[Markup]:
    """ROC and precision-recall, with the verdicts' own place on both."""
    if curve is None:
        return []
    (alarms, normals), (hits, defects) = found.normals, found.found
    right = (hits / defects, hits / (hits + alarms)) if hits + alarms else None
    return [
        Markup(roc_chart(curve, operating=(alarms / normals, hits / defects))),
        Markup(pr_chart(curve, operating=right)),
    ]


def _meaning(found: Gathered, info: Mapping[str, Any]) -> list[str]:
    """The detector's promise; where it is not known, what the rows say of the threshold."""
    promise = info.get("promise")
    lines = [clean(line, 500) for line in promise[:20]] if isinstance(promise, list) else []
    if not lines and found.threshold is not None:
        source = next(iter(found.sources), "")
        origin = f" ({clean(source)})" if source else ""
        lines = [f"An image is called defective above a score of {number(found.threshold)}{origin}."]
    if len(found.thresholds) > 1:
        several = f"{len(found.thresholds)}{' or more' if len(found.thresholds) == MOST_SOURCES else ''}"
        lines.append(
            f"These images were not all judged by one threshold: {several} were in use. The chart shows"
            f" the one most images were judged by, {number(found.threshold)}."
        )
    if len(found.artifacts) > 1:
        lines.append(f"They were judged by {len(found.artifacts)} different detectors: their scores may not compare.")
    return lines


def _metrics(curve: Curve | None, given: Any) -> list[dict[str, str]]:
    """Those of the images from the scores; those of pixels are known to the command alone."""
    known = {name: given.get(name) for name in METRIC_WORDS} if isinstance(given, dict) else {}
    if curve is not None:
        own = (curve.auroc(), curve.average_precision(), curve.f1_max()[0])
        known |= dict(zip(("image_auroc", "image_ap", "image_f1_max"), own, strict=True))
    return [
        {"name": words, "value": f"{value:.4f}"}
        for name, words in METRIC_WORDS.items()
        if isinstance(value := known.get(name), int | float) and 0 <= value <= 1
    ]


def _types(found: Gathered) -> list[dict[str, str]]:
    """Recall by type of defect, the most frequent types first."""
    kinds = sorted(found.defects.items(), key=lambda item: (-item[1][1], item[0]))[:MOST_SHOWN_TYPES]
    return [_rate(clean(kind, 80), part, whole, "") for kind, (part, whole) in kinds]


def _strips(found: Gathered, album: Album, most: int) -> list[Strip]:
    def strip(anchor: str, title: str, words: str, empty: str, count: int = most) -> Strip:
        return Strip(anchor, title, words, cards(found.lists[anchor].rows(count), album), empty)

    if not most or not found.scores:
        return []
    highest = strip("highest", "Highest scores", "The most unusual images, the most unusual first.", "No image.")
    near_words = "The images that a small change would turn, the nearest first."
    nearest = strip("nearest", "Nearest to the threshold", near_words, "No image has a threshold.")
    if not found.labelled:
        return [highest, nearest]
    strips = []
    if found.normals[1]:
        words = "Good images that were called defective, the highest score first."
        strips.append(strip("false alarms", "Worst false alarms", words, "None: no good image was called defective."))
    if found.found[1]:
        words = "Defective images that were called good, the lowest score first."
        strips.append(strip("misses", "Worst misses", words, "None: every defective image was found."))
        words = "Defective images that were found, the highest score first."
        strips.append(strip("finds", "Clearest finds", words, "None was found.", max(1, most // 2)))
    return strips if any(one.cards for one in strips[:2]) else [*strips, nearest]


def _legend(strips: list[Strip]) -> str:
    """What the colours mean that are really there."""
    shown = [card for strip in strips for card in strip.cards]
    parts = []
    if any(card.overlay for card in shown):
        parts.append("Heat has one scale for all images, tied to what is expected of a good part: those stay plain.")
    elif shown:
        parts.append("Heat maps are shown where the prediction wrote them (--overlays all).")
    if any(card.boxes for card in shown):
        parts.append("Yellow boxes: where the heat passes the most that is expected of a good part.")
    if any(card.masked for card in shown):
        parts.append("Blue outlines: the true defects.")
    return " ".join(parts)


def _elapsed(found: Gathered, facts: Mapping[str, Any]) -> str:
    began, ended = moment(facts.get("began")), moment(facts.get("ended"))
    if began is None or ended is None or (began.tzinfo is None) != (ended.tzinfo is None):
        return ""
    seconds = (ended - began).total_seconds()
    if not 0 < seconds < 1e9:
        return ""
    return f"{plural(found.images, 'image')} in {duration(seconds)}: {found.images / seconds:.3g} images a second."


def _normals_words(normals: Normals) -> str:
    if not normals.count:
        return ""
    words = f"{plural(normals.count, 'good picture')} given"
    if normals.threshold:
        words += f": {normals.count - normals.threshold:,} remembered, {normals.threshold:,} only to set the threshold"
    return words + "."


def _environment(facts: Mapping[str, Any], info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the results depend on besides the images."""
    chosen = {
        key: info[key] for key in ("id", "created", "sowa", "model", "backbone", "trained", "view") if key in info
    }
    artifact = facts.get("artifact")
    pairs = flat({"sowa": facts.get("sowa"), "detector file": artifact}, most=4)
    pairs += flat({"detector": chosen}, most=40)
    pairs += flat({"began": facts.get("began"), "ended": facts.get("ended")}, most=2)
    return pairs + flat({"machine": facts.get("hardware")}, most=30)
