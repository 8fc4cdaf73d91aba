"""A meter: collects one category, then says all its metrics at once."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sowa.errors import DataError, UnknownNameError
from sowa.metrics.curve import as_array, map_pairs, read_scores
from sowa.metrics.functional import METRICS, aupro_key, image_metrics, pixel_metrics
from sowa.metrics.legacy import aupro_sowa
from sowa.metrics.streaming import StreamedPixels

__all__ = ["PROTOCOLS", "CategoryMeter"]

PROTOCOLS = ("standard", "paper")
LIMITS = (0.3, 0.05)


class CategoryMeter:
    """Scores of the images of one category, and of their pixels where the truth is known.

    Holds a float32 map and a bool mask for each image added since the last `compute`, and nothing else: 5 bytes a
    pixel of ONE category. Beyond `exact_bytes` of them it counts pixels in bins instead (`sowa.metrics.streaming`): its
    memory stays bounded, and `pixel_error` says how far the worst pixel metric of the last `compute` can be from the
    exact one (0.0 where nothing was counted). protocol `standard` reports the exact AUPRO, `paper` the SOWA reference's
    (variant A of `sowa.metrics.legacy`), whose thresholds need all maps at once and which is never counted in bins; all
    other metrics are the same in both.
    """

    def __init__(self, *, protocol: str = "standard", exact_bytes: float = math.inf):
        if protocol not in PROTOCOLS:
            raise UnknownNameError("protocol", got=protocol, known=PROTOCOLS)
        self.protocol = protocol
        self.exact_bytes = math.inf if protocol == "paper" else exact_bytes
        self.pixel_error = 0.0
        self._release()

    def __len__(self) -> int:
        return len(self._scores)

    def update(
        self,
        scores: ArrayLike,
        labels: ArrayLike,
        maps: "ArrayLike | Sequence[ArrayLike] | None" = None,
        masks: "ArrayLike | Sequence[ArrayLike | None] | None" = None,
    ) -> None:
        """Add a batch; nothing is added if any of it is unfit.

        scores [B] raw, larger = more anomalous; labels [B], 0 normal, 1 anomalous. maps, masks: [B, H, W], or lists of
        [h, w]; each map has its mask's size. A mask of None means that the truth of that image's pixels is unknown (a
        normal image's mask is all 0, not None): the image is left out of the pixel metrics. maps None: the method only
        ranks images; masks None: no pixel truth at all. Maps are copied as float32.
        """
        scores, labels = read_scores(scores), as_array(labels)
        if scores.ndim != 1 or scores.shape != labels.shape:
            raise DataError(f"scores of shape {scores.shape}, labels of shape {labels.shape}: both must be [B]")
        if not np.isin(labels, (0, 1)).all():
            raise DataError("labels hold values other than 0 and 1: 0 is normal, 1 is anomalous")
        pairs = [] if maps is None or masks is None else self._copies(maps, masks, len(scores))
        self._scores.extend(scores.tolist())
        self._labels.extend(labels.astype(int).tolist())
        self._pairs.extend(pairs)
        self._held += sum(score_map.nbytes + mask.nbytes for score_map, mask in pairs)
        if self._held > self.exact_bytes:
            self._count_pairs()

    def compute(self, image_scores: ArrayLike | None = None) -> dict[str, float]:
        """All of `METRICS` over what was added, NaN where undefined; then the meter is empty, its memory released.

        image_scores [N]: used in place of the scores added, in the same order. For a score that can only be known at
        the end of a category: `sowa.metrics.legacy.paper_image_score`, which is transductive.
        """
        scores = np.asarray(self._scores) if image_scores is None else image_scores
        result = image_metrics(scores, np.asarray(self._labels))
        maps, masks = ([pair[side] for pair in self._pairs] for side in (0, 1))
        error = 0.0
        if self._counted is not None:
            self._count_pairs()
            counted, error = self._counted.metrics(LIMITS)
            result |= counted
        else:
            result |= pixel_metrics(maps, masks, LIMITS)
        if self.protocol == "paper":
            result |= {aupro_key(limit): aupro_sowa(maps, masks, limit) for limit in LIMITS}
        self.pixel_error = error
        self._release()
        return {name: result[name] for name in METRICS}

    def _count_pairs(self) -> None:
        """Let go of the maps held, into bins."""
        self._counted = self._counted or StreamedPixels()
        for score_map, mask in self._pairs:
            self._counted.update(score_map, mask)
        self._pairs, self._held = [], 0

    def _copies(self, maps: Any, masks: Any, images: int) -> list[tuple[np.ndarray, np.ndarray]]:
        if len(maps) != images or len(masks) != images:
            raise DataError(f"{images} scores for {len(maps)} maps and {len(masks)} masks: give one of each per image")
        known = [index for index in range(images) if masks[index] is not None]
        pairs = map_pairs([maps[index] for index in known], [masks[index] for index in known])
        return [(score_map.astype(np.float32), mask.copy()) for score_map, mask in pairs]

    def _release(self) -> None:
        self._scores: list[float] = []
        self._labels: list[int] = []
        self._pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self._held = 0
        self._counted: StreamedPixels | None = None
