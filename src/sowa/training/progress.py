"""How far an evaluation is, on the error stream."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["evaluation_progress"]


@contextmanager
def evaluation_progress() -> Iterator[Callable[[int, int, str], None]]:
    """A function to be told (images done, images in all, category): a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _plain_lines(seconds=10.0)
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("evaluation", total=None)
        yield lambda done, total, category: bar.update(
            task, completed=done, total=total, description=f"evaluation: {category}"
        )


def _plain_lines(seconds: float) -> Callable[[int, int, str], None]:
    last = time.monotonic()

    def tell(done: int, total: int, category: str) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= seconds:
            last = time.monotonic()
            print(f"evaluation: {category}, image {done}/{total}", file=sys.stderr, flush=True)

    return tell
