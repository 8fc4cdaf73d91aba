"""What the page of a run says: from its folder to the values of its template."""

from pathlib import Path
from typing import Any

from markupsafe import Markup

from sowa.report.cards import cards
from sowa.report.charts import pr_chart, roc_chart, score_chart
from sowa.report.gather import Gathered
from sowa.report.pictures import Album
from sowa.report.runs import Run, auroc_by_type, read_run
from sowa.report.words import clean, flat, plural, shell

__all__ = ["context"]

MOST_SHOTS = 40


def context(folder: Path, *, title: str | None, pictures: int) -> dict[str, Any]:
    """All values of `run.html.j2`."""
    run = read_run(folder)
    groups, spent = [], 0
    for group in run.groups:
        album = Album(run.folder, root=run.roots.get(group.name.partition("/")[0]), spent=spent)
        groups.append(_group(group, album, min(pictures, run.pictures)))
        spent = album.spent
    model = run.about.get("detector") or run.about.get("model") or ""
    return {
        "title": clean(title or f"Evaluation{f' of {model}' if isinstance(model, str) and model else ''}", 120),
        "subtitle": _subtitle(run),
        "table": run.table,
        "draw": _draw(run),
        "groups": groups,
        "left_out": run.left_out,
        "skipped": [clean(name, 90) for name in run.skipped],
        "shots": [
            {"category": clean(category, 80), "names": [clean(name, 90) for name in names[:MOST_SHOTS]]}
            for category, names in sorted(run.shots.items())
        ],
        "about": flat(run.about, most=60),
        "environment": flat({key: value for key, value in run.facts.items() if key not in _OWN_PLACE}, most=60),
        "command": shell(run.facts.get("command") or ""),
    }


_OWN_PLACE = ("command", "attempts", "settings", "files")


def _subtitle(run: Run) -> list[str]:
    parts = [plural(len(run.groups) + run.left_out, "category").replace("categorys", "categories")]
    protocol, status = run.about.get("protocol"), run.facts.get("status")
    parts += [f"protocol {clean(protocol, 40)}"] if isinstance(protocol, str) else []
    parts += [clean(run.facts["ended"], 40)] if isinstance(run.facts.get("ended"), str) else []
    return [*parts, clean(status, 120)] if isinstance(status, str) and status != "finished" else parts


def _draw(run: Run) -> str:
    k, seed = run.draw
    shots = f"{plural(k, 'good picture')} of each category" if k else "no good picture (zero-shot)"
    return f"{shots}, seed {seed}"


def _group(group: Gathered, album: Album, most: int) -> dict[str, Any]:
    """One category: its scores, its curves, its types of defects, and the images that rank worst."""
    curve, good, bad = group.curve(), group.with_label(0), group.with_label(1)
    return {
        "name": clean(group.name, 80),
        "counts": f"{len(good):,} good, {len(bad):,} defective",
        "auroc": "" if curve is None else f"{100 * curve.auroc():.1f}",
        "histogram": Markup(score_chart(good, bad, good[:0], threshold=None)),
        "curves": []
        if curve is None
        else [Markup(roc_chart(curve, operating=None)), Markup(pr_chart(curve, operating=None))],
        "types": [(clean(kind, 80), count, value) for kind, count, value in auroc_by_type(group)[:40]],
        "normals": cards(group.lists["normals high"].rows(most), album),
        "defects": cards(group.lists["defects low"].rows(most), album),
    }
