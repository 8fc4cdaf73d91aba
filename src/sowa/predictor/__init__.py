"""From a few good pictures to verdicts: `Predictor`, its `Result`s and the `.sowa` file. Loaded when asked for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sowa.predictor.predictor import Predictor
    from sowa.predictor.results import Region, Result

__all__ = ["Predictor", "Region", "Result"]


def __getattr__(name: str) -> Any:
    if name == "Predictor":
        from sowa.predictor.predictor import Predictor

        return Predictor
    if name in ("Region", "Result"):
        from sowa.predictor import results

        return getattr(results, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
