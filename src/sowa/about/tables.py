"""The literal tables as rows for `sowa list`: one line for each name. Nothing heavy is imported."""

import ast
import importlib.util
import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path

from sowa.backbones import BACKBONES, find_weights
from sowa.backbones.licences import licence_of
from sowa.data.roots import DATASETS, find_root
from sowa.data.sources import SOURCES
from sowa.detectors import DETECTORS
from sowa.errors import SowaError, UnknownNameError
from sowa.wheels import cache_root

__all__ = ["LISTS", "cached_weights", "listing"]

Row = dict[str, str]
"""`name`, then what is told of it; the values are words."""
TRAINS = {
    "none": "nothing is trained",
    "auxiliary": "trained on an auxiliary data set",
    "target": "trained on the shots",
}
DRAWN = "random"


def listing(kind: str) -> list[Row]:
    """The rows of one list."""
    if kind not in LISTS:
        raise UnknownNameError("list", got=kind, known=LISTS)
    return LISTS[kind]()


def cached_weights(name: str, cache_dir: Path | None = None) -> Path | None:
    """Where the default weights of a backbone lie on this machine; None if they would have to be fetched."""
    if BACKBONES[name].library == DRAWN:
        return None
    try:
        with redirect_stderr(io.StringIO()):
            return find_weights(name, cache_dir=cache_dir, offline=True)
    except (SowaError, OSError):
        return None


def _backbones() -> list[Row]:
    rows = []
    for name, spec in BACKBONES.items():
        weights = "in the cache" if cached_weights(name) else "to be fetched"
        rows.append(
            {
                "name": name,
                "weights": "drawn" if spec.library == DRAWN else weights,
                "licence": licence_of(name),
                "about": spec.about,
            }
        )
    return rows


def _models() -> list[Row]:
    rows = []
    for name, (module, attribute) in DETECTORS.items():
        about, trains = _class_facts(module, attribute)
        rows.append({"name": name, "training": TRAINS.get(trains, trains), "about": about})
    return rows


def _class_facts(module: str, attribute: str) -> tuple[str, str]:
    """(first sentence of the class's documentation, its `trains`), read from its source: importing it loads torch."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.origin:
        return "", "none"
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    found = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == attribute), None)
    if found is None:
        return "", "none"
    paragraph = " ".join((ast.get_docstring(found) or "").split("\n\n")[0].split())
    sentence = paragraph.partition(". ")[0].rstrip(".")
    trains = "none"
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "trains":
            trains = str(getattr(node.value, "value", "none"))
    return sentence, trains


def _datasets() -> list[Row]:
    rows = []
    for name in DATASETS:
        source = SOURCES.get(name)
        if source is None:
            licence, get, title = "none needed", "drawn when asked for", "sample parts drawn by code, with exact masks"
        else:
            licence, title = source.licence, source.title
            get = f"sowa data get {name}" if source.archives or source.wheel else "by hand from its page"
        rows.append(
            {"name": name, "here": "yes" if _is_here(name) else "no", "get": get, "licence": licence, "about": title}
        )
    return rows


def _is_here(name: str) -> bool:
    if os.environ.get("SOWA_DATA"):
        try:
            find_root(name)
            return True
        except (SowaError, OSError):
            pass
    kept = cache_root() / "datasets" / name
    return kept.is_dir() and any(kept.iterdir())


def _layouts() -> list[Row]:
    from sowa.data.layouts import LAYOUTS

    return [
        {"name": name, "splits": ", ".join(layout.splits).strip() or "-", "about": layout.looks_for}
        for name, layout in LAYOUTS.items()
    ]


LISTS: dict[str, Callable[[], list[Row]]] = {
    "backbones": _backbones,
    "models": _models,
    "datasets": _datasets,
    "layouts": _layouts,
}
"""What can be listed."""
