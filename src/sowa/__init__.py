"""sowa: find defects in pictures of manufactured parts from 0, 1, 2 or 4 good examples.

detector = sowa.fit("good/", name="bottle")     # paths, PIL, numpy, tensors
result = detector.predict("part.png")           # .score .probability .verdict .heatmap .regions
detector.save("bottle.sowa"); sowa.load("bottle.sowa")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sowa.predictor.predictor import Predictor
    from sowa.predictor.results import Result

    fit = Predictor.fit
    load = Predictor.load

__all__ = ["Predictor", "Result", "__version__", "fit", "load"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The public face, loaded when it is first used: `import sowa` alone is quick."""
    if name == "Result":
        from sowa.predictor.results import Result

        return Result
    if name in ("Predictor", "fit", "load"):
        from sowa.predictor.predictor import Predictor

        return Predictor if name == "Predictor" else getattr(Predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*__all__, *(name for name in globals() if name.startswith("__"))))
