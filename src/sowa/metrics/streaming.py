"""Pixel metrics of any number of maps in bounded memory, with the largest error they can have.

Scores are counted in bins. A bin is an interval of scores with what lies in it: normal pixels, anomalous pixels, and
the overlap those add. Between two bins everything is known exactly; within one the order is not: that alone is where
an error can come from. So the true value of every metric lies between that of the best and of the worst order within
the bins, and the distance is stated beside the value.

As long as there are no more distinct scores than bins, each score is a bin of its own and nothing is approximate.
Beyond that neighbours are joined so that no bin holds more than a small share of the normal pixels, of the anomalous
ones, or (on a logarithmic scale, for the strictest thresholds) of the false alarms above it.
"""

from collections.abc import Sequence

import numpy as np

from sowa.errors import ConfigError
from sowa.metrics.curve import Curve, check_limit, regions
from sowa.metrics.functional import curve_metrics

__all__ = ["BINS", "StreamedPixels"]

BINS = 1 << 17
"""Bins kept: 5 MB. AUROC is then known to about one part in 100,000, the others to a few."""
BUFFER = 1 << 20
"""Pixels gathered before they are sorted into bins."""


class StreamedPixels:
    """Takes maps with their masks, gives the operating points of all pixels so far.

    Memory: 40 bytes for each of `bins` bins and, while they are sorted in, some 60 for each of `buffer` pixels (of one
    map where that is larger), whatever the number of maps.
    """

    def __init__(self, *, bins: int = BINS, buffer: int = BUFFER):
        if bins < 16 or buffer < 1:
            raise ConfigError(f"bins={bins}, buffer={buffer} cannot be used: give at least 16 bins and a buffer of 1")
        self.bins, self.buffer = bins, buffer
        self._low, self._high = np.empty(0, np.float64), np.empty(0, np.float64)
        self._false, self._true = np.empty(0, np.int64), np.empty(0, np.int64)
        self._mass = np.empty(0, np.float64)
        self._regions = 0
        self._forget()

    def update(self, score_map: np.ndarray, mask: np.ndarray) -> None:
        """Add one map [h, w] of finite floats with its bool mask [h, w] (see `sowa.metrics.curve.map_pairs`)."""
        self._normal.append(score_map[~mask].astype(np.float32))
        if mask.any():
            label, count = regions(mask)
            owner = label[mask]
            self._anomalous.append(score_map[mask].astype(np.float32))
            self._shares.append(1 / np.bincount(owner)[owner])
            self._regions += count
        self._waiting += score_map.size
        if self._waiting >= self.buffer:
            self._sort_in()

    def curve(self) -> Curve:
        """The points at bins that hold anomalous pixels; pixels of one bin count as tied."""
        self._sort_in()
        at = np.flatnonzero(self._true)[::-1]
        true, false = self._above()
        mass = self._mass[::-1].cumsum()[::-1]
        return Curve(
            threshold_T=self._low[at],
            true_T=true[at],
            false_T=false[at],
            strict_T=false[at] - self._false[at],
            overlap_T=mass[at] / max(self._regions, 1),
            positives=int(self._true.sum()),
            negatives=int(self._false.sum()),
        )

    def metrics(self, limits: Sequence[float]) -> tuple[dict[str, float], float]:
        """(as `sowa.metrics.pixel_metrics`, the largest of `errors`, 0.0 where they are undefined)."""
        curve, (auroc, ap, f1, aupro) = self.curve(), self.errors(limits)
        worst = max(auroc, ap, f1, *aupro)
        return curve_metrics(curve, limits), worst if curve.defined else 0.0

    def errors(self, limits: Sequence[float]) -> tuple[float, float, float, tuple[float, ...]]:
        """How far AUROC, AP, F1-max and AUPRO (at each limit) of `curve` can be from the exact ones, at most.

        0 where all scores of every mixed bin are the same number; NaN where the metrics are undefined.
        """
        curve = self.curve()
        if not curve.defined:
            return float("nan"), float("nan"), float("nan"), (float("nan"),) * len(limits)
        wide = self._low < self._high
        true, false = self._above()
        new, more = np.where(wide, self._true, 0), np.where(wide, self._false, 0)
        auroc = float(np.sum(new * more.astype(float))) / (2 * curve.positives * curve.negatives)
        before_true, before_false = true - self._true, false - self._false
        unsure = new > 0
        last, first = true[unsure], before_true[unsure] + 1
        middle = last / (last + false[unsure])
        best = last / (last + before_false[unsure])
        worst = first / (first + false[unsure])
        ap = float(np.sum(new[unsure] * np.maximum(best - middle, middle - worst))) / curve.positives
        f1 = float(np.max(2 * last / (curve.positives + last + before_false[unsure]), initial=0.0))
        f1 = max(f1 - curve.f1_max()[0], 0.0)
        return auroc, ap, f1, tuple(self._aupro_error(curve, limit) for limit in limits)

    def _aupro_error(self, curve: Curve, limit: float) -> float:
        """Half of the rectangles between known points, up to the limit; all of the one that the limit cuts."""
        check_limit(limit)
        reach = limit * curve.negatives
        false = self._above()[1]
        rise = np.where(self._low < self._high, self._mass, 0.0) / max(self._regions, 1)
        inside = np.clip(np.minimum(false, reach) - (false - self._false), 0, None)
        cut = np.where(false > reach, 1.0, 0.5)
        return float(np.sum(inside * rise * cut)) / reach

    def _above(self) -> tuple[np.ndarray, np.ndarray]:
        """(anomalous, normal) pixels in each bin and all above it."""
        return self._true[::-1].cumsum()[::-1], self._false[::-1].cumsum()[::-1]

    # ---- sorting in

    def _forget(self) -> None:
        self._normal: list[np.ndarray] = []
        self._anomalous: list[np.ndarray] = []
        self._shares: list[np.ndarray] = []
        self._waiting = 0

    def _sort_in(self) -> None:
        """Move what waits into bins, then join bins until there are few enough."""
        if not self._waiting:
            return
        anomalous = np.concatenate([np.empty(0, np.float32), *self._anomalous]) + np.float32(0)  # one zero, not two
        every = np.concatenate([anomalous, *self._normal]) + np.float32(0)
        share = np.concatenate([np.empty(0), *self._shares])
        self._forget()
        every.sort()
        first = np.flatnonzero(np.append(True, every[1:] != every[:-1]))
        value = every[first]
        place = np.searchsorted(value, anomalous)
        true = np.bincount(place, minlength=value.size)
        false = np.diff(first, append=every.size) - true
        mass = np.bincount(place, share, minlength=value.size)
        self._merge(value.astype(np.float64), false, true, mass)
        if self._low.size > self.bins:
            self._join()

    def _merge(self, value: np.ndarray, false: np.ndarray, true: np.ndarray, mass: np.ndarray) -> None:
        """Distinct ascending scores into the bins they fall into; the others become bins of their own."""
        size = self._low.size
        bin_of = np.searchsorted(self._high, value)
        known = bin_of < size
        known[known] = self._low[bin_of[known]] <= value[known]
        inside = bin_of[known]
        self._false += np.bincount(inside, false[known], size).astype(np.int64)
        self._true += np.bincount(inside, true[known], size).astype(np.int64)
        self._mass += np.bincount(inside, mass[known], size)
        new = ~known
        low = np.concatenate((self._low, value[new]))
        order = np.argsort(low, kind="stable")
        self._low, self._high = low[order], np.concatenate((self._high, value[new]))[order]
        self._false = np.concatenate((self._false, false[new]))[order]
        self._true = np.concatenate((self._true, true[new]))[order]
        self._mass = np.concatenate((self._mass, mass[new]))[order]

    def _join(self) -> None:
        """Join light neighbours, so that some half of the bins are left and later scores find room."""
        true, false = self._above()
        place = 1 - true / max(true[0], 1)
        place += 1 - false / max(false[0], 1)
        place += 1 - np.log1p(false) / np.log1p(max(false[0], 1))
        share = 6 / self.bins  # of the three scales together, which end at 3
        group = np.floor(place / share).astype(np.int64)
        heavy = np.diff(place, append=3.0) >= share  # such as the many pixels that score exactly 0: never with others
        begins = np.diff(group, prepend=-1) > 0
        begins |= heavy | np.append(False, heavy[:-1])
        first = np.flatnonzero(begins)
        last = np.append(first[1:], group.size) - 1
        self._low, self._high = self._low[first], self._high[last]
        self._false, self._true = np.add.reduceat(self._false, first), np.add.reduceat(self._true, first)
        self._mass = np.add.reduceat(self._mass, first)
