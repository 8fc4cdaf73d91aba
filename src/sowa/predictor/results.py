"""What is said of one picture. Light: needs neither numpy nor torch."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["DEFECTIVE", "ERROR", "GOOD", "Region", "Result", "unreadable"]

GOOD, DEFECTIVE, ERROR = "good", "defective", "error"
"""The verdicts; `error` only on a row of a picture that could not be read."""


@dataclass(frozen=True, slots=True)
class Region:
    """One connected area of a heat map at or above 1, in pixels of the original picture."""

    box: tuple[int, int, int, int]
    """x, y, width, height."""
    area: int
    """Pixels of the area itself, at most width * height."""
    peak: float
    """Largest heat in it, at least 1."""


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict on one picture. A result never depends on other pictures."""

    name: str
    """As given: a path, or "array" for pixels without a name."""
    score: float
    """Raw image score, larger = more anomalous."""
    probability: float
    """0..1, never falling with the score, 0.5 at the threshold; above 0.5 is "defective"."""
    threshold: float
    """The score above which the verdict is "defective"."""
    threshold_source: str
    """Where the threshold comes from, in words."""
    verdict: str
    """"good" or "defective"; "error" where the picture could not be read."""
    heatmap: "NDArray[np.float32] | None"
    """[h, w] of the original size on a fixed scale: 1 is the most that is expected of a good part. None where the
    method only ranks pictures."""
    regions: tuple[Region, ...]
    """Connected areas of the heat map at or above 1, largest peak first, whatever the verdict."""
    size: tuple[int, int]
    """Width and height of the original in pixels."""
    milliseconds: float
    """Decoding and scoring; in a stream, the picture's share of its batch."""
    artifact: str
    """Identity of the detector that said so, "sha256:" and 16 digits."""
    error: str | None = None
    """One line where the picture could not be read (streams only); numbers are then NaN."""

    def record(self) -> dict[str, Any]:
        """All but the heat map, ready for JSON: numbers that are NaN become None."""
        return {
            "name": self.name,
            "score": _number(self.score),
            "probability": _number(self.probability),
            "threshold": _number(self.threshold),
            "threshold_source": self.threshold_source,
            "verdict": self.verdict,
            "regions": [{"box": list(region.box), "area": region.area, "peak": region.peak} for region in self.regions],
            "size": list(self.size),
            "milliseconds": _number(self.milliseconds),
            "artifact": self.artifact,
            "error": self.error,
        }


def unreadable(name: str, error: str, *, threshold: float, threshold_source: str, artifact: str) -> Result:
    """The row of a picture that could not be read."""
    return Result(
        name=name,
        score=math.nan,
        probability=math.nan,
        threshold=threshold,
        threshold_source=threshold_source,
        verdict=ERROR,
        heatmap=None,
        regions=(),
        size=(0, 0),
        milliseconds=math.nan,
        artifact=artifact,
        error=error,
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
