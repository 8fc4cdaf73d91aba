"""From sources to rows: every picture is judged with its place in its source, and a run says what it was."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sowa import __version__
from sowa.predictor.outputs import hardware, now
from sowa.predictor.predictor import Predictor
from sowa.predictor.results import Result
from sowa.predictor.sources import Item

__all__ = ["about_run", "judged"]


def judged(detector: Predictor, items: Iterable[Item], *, batch_size: int = 8) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, in order; at most 3 * batch_size pictures are held, see `Predictor.stream`."""
    waiting: deque[Item] = deque()

    def feed() -> Iterator[tuple[str, Any]]:
        for item in items:
            waiting.append(item)
            yield item.name, item.picture

    for result in detector.stream(feed(), batch_size=batch_size):
        yield waiting.popleft(), result


def about_run(detector: Predictor, command: Sequence[str], began: str | None = None) -> dict[str, Any]:
    """`predict.json` of a run that begins now (or began earlier) and has not ended; `counts` come from the folder."""
    return {
        "command": list(command),
        "sowa": __version__,
        "artifact": detector.id,
        "info": detector.info(),
        "began": began or now(),
        "ended": None,
        "hardware": hardware(),
    }
