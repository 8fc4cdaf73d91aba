"""How tables look: Markdown, CSV, LaTeX, PNG; curves over shots; a page that holds them all."""

import csv
import io
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from sowa import __version__
from sowa.benchmark.tables import Cells, Entry, Table, build_tables, write_cells_csv
from sowa.errors import SowaError
from sowa.figures.canvas import INK, NORMAL, QUIET, SMALL, save, sheet

__all__ = ["latex", "markdown", "write_tables", "write_text"]

MARKERS = "osD^vPX*"
LINES = ("-", "--", "-.", ":")
ROW, HEAD, CHAR = 24, 64, 8.0
"""Pixels of a drawn table: a row, its heading, a letter."""


def write_tables(
    cells: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    title: str = "",
    reference: str = "",
    order: Sequence[str] = (),
    command: Sequence[str] = (),
) -> list[Path]:
    """All tables and curves of the cells, and `README.md`, the page that shows them; returns the files written.

    reference, order: the method that others are compared with, and which rows come first; else as the cells come.
    command: the words after `sowa` that made the cells, for the page. Raises DataError for two settings of one method,
    SowaError where the folder cannot be written.
    """
    cells = sorted(cells, key=lambda cell: order.index(cell["method"]) if cell["method"] in order else len(order))
    tables = build_tables(cells, reference)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for table in tables:
            files += [
                write_text(folder / f"{table.name}.csv", _csv(table)),
                write_text(folder / f"{table.name}.tex", latex(table)),
                _picture(table, folder / f"{table.name}.png"),
            ]
        charts = _charts(cells, folder)
        files += [*charts, write_cells_csv(folder / "cells.csv", cells)]
        page = _page(cells, tables, charts, title, command)
        return [*files, write_text(folder / "README.md", page)]
    except OSError as error:
        raise SowaError(f"cannot write {folder}: {error.strerror or error}") from None


def write_text(path: Path, text: str) -> Path:
    """A text file, whole or not at all."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        with suppress(OSError):
            beside.unlink()
    return path


# -------------------------------------------------------------------------------------------------------------- numbers


def percent(value: float) -> str:
    """One decimal, the same in every format."""
    return f"{100 * value:.1f}"


def words(entry: Entry) -> str:
    """`92.9 ± 0.4 (93.1, -0.2)`: ours, spread, published, difference."""
    if entry.mean is None:
        return "-"
    text = percent(entry.mean)
    if entry.std is not None:
        text += f" ± {percent(entry.std)}"
    if entry.printed is not None:
        text += f" ({percent(entry.printed)}, {100 * (entry.mean - entry.printed):+.1f})"
    return text + ("*" if entry.partial else "")


def markdown(table: Table) -> str:
    """A heading, the table, its notes."""
    head = [*table.heads, *(column.replace("_", " ") for column in table.columns)]
    lines = [
        f"### {table.title}",
        "",
        _bars(head),
        _bars(["---"] * len(table.heads) + ["---:"] * len(table.columns)),
    ]
    for names, entries in table.rows:
        shown = [f"**{words(entry)}**" if entry.best else words(entry) for entry in entries]
        lines.append(_bars([*(name.replace("|", "\\|") for name in names), *shown]))
    return "\n".join([*lines, "", *table.notes, ""])


def _bars(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _csv(table: Table) -> str:
    """Plain numbers in percent: value, spread and published value in columns of their own."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*table.heads, *(f"{c}{more}" for c in table.columns for more in ("", " std", " published"))])
    for names, entries in table.rows:
        numbers = [value for entry in entries for value in (entry.mean, entry.std, entry.printed)]
        writer.writerow([*names, *("" if value is None else f"{100 * value:.4f}" for value in numbers)])
    return file.getvalue()


SPECIAL = {**{sign: f"\\{sign}" for sign in "&%$#_{}"}, "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}


def _escaped(text: str) -> str:
    plain = "".join("\\textbackslash{}" if sign == "\\" else SPECIAL.get(sign, sign) for sign in text)
    return plain.replace("±", "$\\pm$")


def latex(table: Table) -> str:
    """A `table` with booktabs rules."""
    head = [*table.heads, *table.columns]
    lines = [
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_escaped(table.title)}. {_escaped(' '.join(table.notes))}}}",
        f"\\begin{{tabular}}{{{'l' * len(table.heads)}{'r' * len(table.columns)}}}",
        "\\toprule",
        " & ".join(_escaped(name.replace("_", " ")) for name in head) + " \\\\",
        "\\midrule",
    ]
    for names, entries in table.rows:
        shown = [f"\\textbf{{{_escaped(words(entry))}}}" if entry.best else _escaped(words(entry)) for entry in entries]
        lines.append(" & ".join([*map(_escaped, names), *shown]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


# ------------------------------------------------------------------------------------------------------------- pictures


def _picture(table: Table, path: Path) -> Path:
    """The table as a PNG, for slides."""
    heads = [name.replace("_", " ") for name in (*table.heads, *table.columns)]
    body = [[*names, *(words(entry) for entry in entries)] for names, entries in table.rows]
    wide = [max(len(part) for part in (*head.split(" ", 1), *(row[i] for row in body))) for i, head in enumerate(heads)]
    widths = [CHAR * width + 18 for width in wide]
    figure = sheet(round(sum(widths) + 30), HEAD + 40 + ROW * max(len(body), 1) + 16)
    width, height = figure.get_size_inches() * figure.dpi
    figure.text(15 / width, 1 - 22 / height, table.title, fontsize=12, fontweight="bold", color=INK)
    left = 15.0
    for i, head in enumerate(heads):
        figure.text(left / width, 1 - 46 / height, head.replace(" ", "\n", 1), fontsize=SMALL, color=QUIET, va="top")
        for number, row in enumerate(body):
            best = i >= len(table.heads) and table.rows[number][1][i - len(table.heads)].best
            at = 1 - (HEAD + 32 + ROW * number) / height
            weight = "bold" if best else "normal"
            figure.text(left / width, at, row[i], fontsize=NORMAL, color=INK, fontweight=weight, va="center")
        left += widths[i]
    return save(figure, path)


def _charts(cells: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Image AUROC and pixel AUPRO over the number of good images, a picture per data set and protocol."""
    files = []
    for protocol in sorted({cell["protocol"] for cell in cells}):
        own = Cells(cell for cell in cells if cell["protocol"] == protocol)
        for dataset in own.datasets:
            if len(own.shots(dataset)) > 1:
                mark = "" if protocol == "standard" else f"_{protocol}"
                files.append(_chart(own, dataset, folder / f"shots_{dataset}{mark}.png"))
    return files


def _chart(cells: Cells, dataset: str, path: Path) -> Path:
    shots = cells.shots(dataset)
    metrics = [
        (metric, label)
        for metric, label in (("image_auroc", "image AUROC"), ("pixel_aupro", "pixel AUPRO"))
        if any(cells.entry(m, dataset, k, metric).mean is not None for m in cells.methods for k in shots)
    ]
    figure = sheet(760 * len(metrics) + 40, 520)
    for number, (metric, label) in enumerate(metrics):
        axes = figure.add_axes(((number + 0.1) / len(metrics), 0.13, 0.84 / len(metrics), 0.75))
        for index, method in enumerate(cells.methods):
            known = [(i, cells.entry(method, dataset, k, metric)) for i, k in enumerate(shots)]
            known = [(i, entry) for i, entry in known if entry.mean is not None]
            if known:
                axes.errorbar(
                    [i + 0.03 * (index - len(cells.methods) / 2) for i, _ in known],
                    [100 * entry.mean for _, entry in known],
                    yerr=[100 * (entry.std or 0) for _, entry in known],
                    label=method,
                    marker=MARKERS[index % len(MARKERS)],
                    linestyle=LINES[index % len(LINES)],
                    linewidth=1.6,
                    capsize=2,
                )
        axes.set_xticks(range(len(shots)), [str(k) for k in shots])
        axes.set_xlabel("good images", fontsize=NORMAL)
        axes.set_ylabel(f"{label} (percent)", fontsize=NORMAL)
        axes.set_title(f"{dataset}: {label}", fontsize=12, fontweight="bold", loc="left", color=INK)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=SMALL, frameon=False)
    return save(figure, path)


# ----------------------------------------------------------------------------------------------------------------- page


def _page(
    cells: Sequence[Mapping[str, Any]],
    tables: Sequence[Table],
    charts: Sequence[Path],
    title: str,
    command: Sequence[str],
) -> str:
    lines = [f"# {title or 'Benchmark'}", ""]
    if command:
        lines += ["```", f"sowa {' '.join(command)}", "```", ""]
    machine = cells[0].get("machine", {})
    versions = machine.get("versions", {})
    facts = [
        f"Written {date.today().isoformat()} by sowa {__version__}, {len(cells)} cells",
        *(f"{name} {versions[name]}" for name in ("torch", "timm", "open_clip_torch") if name in versions),
        *([f"{machine['cores']} cores"] if "cores" in machine else []),
        *([f"commit {str(machine['commit'])[:12]}"] if machine.get("commit") else []),
    ]
    limits = sorted({cell["limit"] for cell in cells if cell.get("limit")})
    lines += [f"{', '.join(facts)}.", ""]
    if limits:
        lines += [f"Subsets: at most {limits[0]} test images of each category and label, spread evenly.", ""]
    for table in tables:
        lines += [markdown(table)]
    lines += [f"![{path.stem}]({path.name})\n" for path in charts]
    lines += ["All cells with all metrics: [cells.csv](cells.csv).", ""]
    return "\n".join(lines)
