"""Charts as SVG to be set into a page: real text, and colours that the page's style decides, so dark mode works."""

import re
from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sowa.metrics.curve import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["pr_chart", "roc_chart", "roc_points", "score_chart"]

STAND_INS = {"ink": "#010101", "quiet": "#020202", "good": "#030303", "bad": "#040404", "line": "#050505"}
STAND_INS |= {"plain": "#060606"}
"""Names of the page's colours (CSS variables) -> what matplotlib draws them as; replaced in its output."""
INK, QUIET, GOOD, BAD, LINE, PLAIN = (STAND_INS[name] for name in ("ink", "quiet", "good", "bad", "line", "plain"))
BINS = 50
MOST_POINTS = 400
"""Points of a curve that are drawn; a line between two of them is straight."""
NOTE, TEXT = 10, 11

Groups = Sequence[tuple[str, NDArray[np.float64], str]]
"""(name, scores, colour) of each kind of image."""


def score_chart(good: NDArray, bad: NDArray, unknown: NDArray, *, threshold: float | None) -> str:
    """Histograms of the scores, one above the other where good, defective and unlabelled images are known apart.

    Each has its own scale of counts, so that ten defects can be seen beside ten thousand good parts.
    """
    groups = [("good", good, GOOD), ("defective", bad, BAD), ("not labelled", unknown, PLAIN)]
    groups = [(name, scores, colour) for name, scores, colour in groups if len(scores)]
    if not groups:
        return ""
    edges = _edges([scores for _, scores, _ in groups], threshold)
    figure = _figure(9.2, 0.75 + 1.45 * len(groups))
    height = (1 - 0.62 / figure.get_figheight()) / len(groups)
    for place, (name, scores, colour) in enumerate(groups):
        bottom = 0.62 / figure.get_figheight() + (len(groups) - 1 - place) * height
        axes = figure.add_axes((0.07, bottom, 0.91, height * 0.88))
        counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), bins=edges)
        axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=colour, linewidth=0, alpha=0.85)
        _plain(axes)
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylim(0, max(1, counts.max()) * 1.35)
        axes.yaxis.get_major_locator().set_params(integer=True, nbins=3)
        # On the side that the threshold and its name leave free.
        at, side = (0.992, "right") if threshold is not None and threshold < edges.mean() else (0.008, "left")
        words = f"{name}, {len(scores):,}"
        axes.text(at, 0.94, words, transform=axes.transAxes, ha=side, va="top", color=colour, size=TEXT)
        last = place == len(groups) - 1
        axes.tick_params(labelbottom=last)
        if last:
            axes.set_xlabel("score (larger is more unusual)", color=QUIET, size=TEXT)
        if threshold is not None:
            axes.axvline(threshold, color=INK, linewidth=1.3, linestyle=(0, (4, 3)))
            if not place:
                _name_line(axes, threshold, edges)
    return _svg(figure, "scores", _score_words(groups, threshold))


def roc_chart(curve: Curve, *, operating: tuple[float, float] | None) -> str:
    """Share of defective images found against share of good ones called defective.

    operating: (false alarms, found) at the threshold, as shares.
    """
    figure, axes = _square("false alarms (share of good images)", "found (share of defective images)")
    axes.plot([0, 1], [0, 1], color=LINE, linewidth=1, linestyle=(0, (2, 3)))
    axes.plot(*_thinned(*roc_points(curve)), color=PLAIN, linewidth=1.8)
    _dot(axes, operating)
    return _svg(figure, "roc", f"ROC curve; its area, the image AUROC, is {curve.auroc():.3f}.")


def roc_points(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(false alarms, found) as shares, from (0, 0) to (1, 1); straight lines between them enclose the exact AUROC."""
    false = np.ravel(np.column_stack([curve.strict_T, curve.false_T])) / curve.negatives
    true = np.ravel(np.column_stack([np.concatenate([[0], curve.true_T[:-1]]), curve.true_T])) / curve.positives
    return np.concatenate([[0.0], false, [1.0]]), np.concatenate([[0.0], true, [1.0]])


def pr_chart(curve: Curve, *, operating: tuple[float, float] | None) -> str:
    """Share of alarms that are defects against share of defects found; operating: (found, precision)."""
    recall = curve.true_T / curve.positives
    precision = curve.true_T / (curve.true_T + curve.false_T)
    figure, axes = _square("found (share of defective images)", "precision (share of alarms that are defects)")
    base = curve.positives / (curve.positives + curve.negatives)
    axes.plot([0, 1], [base, base], color=LINE, linewidth=1, linestyle=(0, (2, 3)))
    x, y = np.concatenate([[0.0], recall]), np.concatenate([precision[:1], precision])
    axes.plot(*_thinned(x, y), color=PLAIN, linewidth=1.8)
    _dot(axes, operating)
    words = f"Precision-recall curve; the average precision is {curve.average_precision():.3f}."
    return _svg(figure, "pr", words)


def _edges(groups: Sequence[NDArray], threshold: float | None) -> NDArray[np.float64]:
    """Of the bins. One of them begins at the threshold, so that no bar holds verdicts of both kinds."""
    low, high = min(scores.min() for scores in groups), max(scores.max() for scores in groups)
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    spread = max(high - low, 1e-9, 1e-6 * max(abs(low), abs(high)))
    low, high = low - 0.03 * spread, high + 0.03 * spread
    edges = np.linspace(low, high, BINS + 1)
    if threshold is not None:
        edges += threshold - edges[int(np.argmin(np.abs(edges - threshold)))]
        step = edges[1] - edges[0]
        edges = np.concatenate([[edges[0] - step], edges, [edges[-1] + step]])
    return edges


def _name_line(axes: "Axes", threshold: float, edges: NDArray[np.float64]) -> None:
    left = threshold >= edges.mean()
    axes.annotate(
        f"threshold {threshold:.4g}",
        (threshold, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-6 if left else 6, -2),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
        color=INK,
        size=TEXT,
    )


def _score_words(groups: Groups, threshold: float | None) -> str:
    """The chart for those who cannot see it."""
    parts = [
        f"{len(scores):,} {name}: {scores.min():.4g} to {scores.max():.4g}, median {np.median(scores):.4g}"
        for name, scores, _ in groups
    ]
    limit = "" if threshold is None else f" The threshold is {threshold:.4g}."
    return f"Histogram of scores. {'; '.join(parts)}.{limit}"


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # no display and no state of pyplot is touched

    return Figure(figsize=(width, height), facecolor="none")


def _square(across: str, up: str) -> "tuple[Figure, Axes]":
    figure = _figure(4.5, 4.0)
    axes = figure.add_axes((0.15, 0.14, 0.82, 0.83))
    _plain(axes)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    axes.set_xlabel(across, color=QUIET, size=TEXT)
    axes.set_ylabel(up, color=QUIET, size=TEXT)
    return figure, axes


def _plain(axes: "Axes") -> None:
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)
    axes.tick_params(colors=QUIET, labelsize=NOTE, length=3, color=LINE)


def _dot(axes: "Axes", at: tuple[float, float] | None) -> None:
    if at is None:
        return
    axes.plot(*at, "o", color=BAD, markersize=8, markeredgecolor=INK, markeredgewidth=0.8, clip_on=False)
    right = at[0] > 0.6
    axes.annotate(
        "at the threshold",
        at,
        xytext=(-9 if right else 9, -11 if at[1] > 0.5 else 9),
        textcoords="offset points",
        ha="right" if right else "left",
        va="center",
        color=INK,
        size=NOTE,
    )


def _thinned(x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    if len(x) <= MOST_POINTS:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(int))
    return x[kept], y[kept]


def _svg(figure: "Figure", salt: str, words: str) -> str:
    """Nothing but the drawing: no declaration, no metadata, no addresses; `words` describe it. All of it is ours."""
    from matplotlib import rc_context

    drawn = StringIO()
    style = {"svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "sans-serif", "axes.unicode_minus": False}
    with rc_context(style):
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="([0-9. ]+)"', text)
    view = box.group(1) if box else "0 0 100 100"
    ratio = " ".join(view.split()[2:])
    text = re.sub(r"<svg[^>]*>", f'<svg viewBox="{view}" role="img" aria-label="{words}">', text, count=1)
    # Names of parts are made from content and position: those of two charts on a page must differ.
    text = re.sub(r"<g id=\"[^\"]*\"", "<g", text)
    for name, colour in STAND_INS.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", text)
    return f'<div class="chart" style="--shape: {ratio.replace(" ", " / ")}">{text.strip()}</div>'
