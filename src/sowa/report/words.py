"""Numbers and foreign text as a page shows them. Escaping is the template's work, not done here."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

__all__ = ["between", "clean", "duration", "flat", "moment", "number", "percent", "plural", "shell", "short_path"]

MOST_TEXT = 300
"""Characters of one foreign text; its middle is left out where it is longer."""
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")


def clean(text: object, most: int = MOST_TEXT) -> str:
    """Foreign text fit to be shown: what cannot be printed, such as control and direction signs, becomes U+FFFD."""
    words = str(text)
    if len(words) > most:
        head = (most - 1) // 2
        words = f"{words[:head]}…{words[len(words) - (most - 1 - head) :]}"
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in words)


def short_path(name: str, *, folders: int = 2) -> tuple[str, str]:
    """(the last folders, the file): where an image is, without telling the whole of somebody's disk."""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    if not parts:
        return "", clean(name, 80)
    return clean("/".join(parts[:-1][-folders:]), 60), clean(parts[-1], 80)


def number(value: float | None) -> str:
    """Four figures; a dash for what is not known."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"


def percent(share: float | None) -> str:
    """95 %, 0.53 %, 99.6 %: two or three figures, and never 0 % or 100 % for what is only near it."""
    if share is None or not math.isfinite(share):
        return "-"
    value = 100 * share
    if share in (0.0, 1.0):
        return f"{value:.0f} %"
    if value >= 99:
        return f"{min(value, 99.9):.1f} %"
    return f"{float(f'{value:.2g}'):g} %"


def between(low: float, high: float) -> str:
    return f"{percent(low)} to {percent(high)}"


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


def moment(text: object) -> datetime | None:
    """A time as ISO 8601 writes it; None for anything else."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None


def shell(command: object, most: int = 4000) -> str:
    """A command as it can be typed: a list of words is quoted where it must be, text is taken as it is."""
    if isinstance(command, Sequence) and not isinstance(command, str):
        words = (str(word) for word in command)
        quoted = (word if word and set(word) <= PLAIN else "'" + word.replace("'", "'\\''") + "'" for word in words)
        command = " ".join(quoted)
    return clean(command, most)


def flat(facts: Any, *, most: int = 60) -> list[tuple[str, str]]:
    """Nested facts as pairs of dotted key and text, at most so many."""
    found: list[tuple[str, str]] = []

    def walk(prefix: str, value: Any, depth: int) -> None:
        if len(found) >= most:
            return
        if isinstance(value, Mapping) and depth < 4:
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner, depth + 1)
        elif value is not None and value != "":
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            found.append((clean(prefix, 80), clean(text)))

    walk("", facts, 0)
    return found
