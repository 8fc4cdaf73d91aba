"""From a folder to one HTML file that needs nothing else: no script, no network, no other file."""

import os
import secrets
import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from sowa import __version__
from sowa.errors import ConfigError, DataError
from sowa.report.rows import FACTS, RESULTS
from sowa.report.runs import METRICS_FILE

__all__ = ["MOST_PICTURES", "write_report"]

MOST_PICTURES = 60
"""Of each kind."""


def write_report(source: Path | str, out: Path | str, *, title: str | None = None, pictures: int = 12) -> Path:
    """One HTML file about a prediction folder or the folder of a run, whole or not at all; returns where it is.

    source: a folder with `results.jsonl` (`sowa predict`, `sowa eval`), or with `metrics.json` and `scores.csv`
        (`sowa train`, `src/eval.py`); or that `results.jsonl` itself.
    pictures: how many of each kind are shown, 0 to `MOST_PICTURES`.
    Memory: about 35 bytes a row and the pictures shown, which together stay below `sowa.report.pictures.MOST_BYTES`.
    Raises DataError for a folder or line that cannot be used, ConfigError where nothing can be written.
    """
    if isinstance(pictures, bool) or not isinstance(pictures, int) or not 0 <= pictures <= MOST_PICTURES:
        raise ConfigError(f"pictures={pictures!r} cannot be used: give a whole number from 0 to {MOST_PICTURES}")
    source, out = Path(source).expanduser(), Path(out).expanduser()
    if out.is_dir():
        raise ConfigError(f"{out} is a folder: give the name of the report, such as {out / 'report.html'}")
    if source.is_file() and source.suffix == ".jsonl":
        text = _of_predictions(source, title, pictures)
    elif not source.is_dir():
        what = "is no folder of results" if source.exists() else "does not exist"
        raise DataError(f"'{source}' {what}: give what `sowa predict -o` or a run wrote")
    elif (source / RESULTS).is_file():
        text = _of_predictions(source / RESULTS, title, pictures)
    elif (source / METRICS_FILE).is_file():
        text = _of_run(source, title, pictures)
    elif (source / f"{RESULTS}.partial").is_file():
        raise DataError(f"'{source}' holds a prediction that has not ended: let it end, or go on with it (--resume)")
    else:
        raise DataError(
            f"'{source}' holds neither {RESULTS} (of `sowa predict`, beside its {FACTS}) nor {METRICS_FILE} (of a run)"
        )
    _write(out, text)
    return out


def _of_predictions(path: Path, title: str | None, pictures: int) -> str:
    from sowa.report.predictions import context

    return _rendered("predictions.html.j2", context(path, title=title, pictures=pictures))


def _of_run(folder: Path, title: str | None, pictures: int) -> str:
    from sowa.report.evaluation import context

    return _rendered("run.html.j2", context(folder, title=title, pictures=pictures))


def _rendered(template: str, values: dict[str, Any]) -> str:
    """Everything a template is given is escaped, but for charts and style, which are this room's own."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((folder / "style.css").read_text(encoding="utf-8"))
    made = datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")
    return environment.get_template(template).render(style=style, made=made, version=__version__, **values)


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    data = text.encode("utf-8", "replace")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < len(data):
            raise ConfigError(f"{path} needs {len(data) >> 10} KB and the disk has less: make room")
        with beside.open("xb") as file:
            file.write(data)
        os.replace(beside, path)
    except OSError as trouble:
        raise ConfigError(f"'{path}' cannot be written: {trouble.strerror or trouble}; choose another place") from None
    finally:
        with suppress(OSError):
            beside.unlink()
