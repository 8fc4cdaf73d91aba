"""Words on a terminal: one line at a time, whatever names of files may hold."""

import re
import sys
import time
from collections.abc import Callable

__all__ = ["progress_line", "say", "tell", "visible"]


def say(text: str) -> None:
    """A line on standard output whatever its encoding; names of files may hold anything."""
    encoding = sys.stdout.encoding or "utf-8"
    print(visible(text).encode(encoding, "backslashreplace").decode(encoding), flush=True)


def tell(text: str) -> None:
    """A line on standard error: about the work, never a result."""
    encoding = sys.stderr.encoding or "utf-8"
    print(f"sowa: {visible(text)}".encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr, flush=True)


def visible(text: str) -> str:
    """Without control characters, which a terminal would obey, and without bytes that are no text."""
    shown = re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


def progress_line() -> Callable[[str], None]:
    """Rewrites one line of a terminal, a few times a second; an empty text takes it away. Silent where nobody looks."""
    if not sys.stderr.isatty():
        return lambda text: None
    last = [0.0]

    def show(text: str) -> None:
        now = time.monotonic()
        if not text or now - last[0] > 0.2:
            last[0] = now
            print(f"\r\033[K{visible(text)[:100]}", end="", file=sys.stderr, flush=True)

    return show
