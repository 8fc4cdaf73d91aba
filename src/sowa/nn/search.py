"""An approximate search of a large memory bank (the optional library faiss), beside the exact one of `sowa.nn.bank`.

Rows are sorted into cells around centres once; a query looks into a few cells and may miss its nearest row, so
distances are never smaller than the exact ones. docs/performance holds the measured error.
Shapes: B images, L tokens, E joint width, M bank rows.
"""

import importlib.util
import threading

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from sowa.errors import ConfigError, UnknownNameError
from sowa.nn.bank import unit

__all__ = ["ApproximateBank", "ApproximateSearch", "approximate_or_none"]

LEAST_ROWS = 4096
"""Smaller banks are searched exactly: cells would save nothing."""
ROWS_PER_CELL = 256
TRAIN_ROWS_PER_CELL = 64


def check_faiss() -> None:
    """ConfigError where the library is not installed."""
    if importlib.util.find_spec("faiss") is None:
        raise ConfigError("search=approximate needs faiss: pip install 'sowa[faiss]', or choose search=exact")


class ApproximateBank:
    """Rows of a bank in cells. The same rows give the same cells."""

    def __init__(self, bank_ME: Tensor, *, cells: int | None = None, probes: int = 8):
        """cells: about one for every 256 rows if None; probes: how many a query looks into."""
        check_faiss()
        import faiss

        rows = unit(bank_ME.float()).cpu().contiguous().numpy()
        cells = max(1, len(rows) // ROWS_PER_CELL) if cells is None else cells
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(rows.shape[1]), rows.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = 0, TRAIN_ROWS_PER_CELL, 1
        index.train(rows)
        index.add(rows)
        index.nprobe = min(probes, cells)
        self._index = index

    def nearest_distance(self, tokens_BLE: Tensor) -> Tensor:
        """As `sowa.nn.bank.nearest_distance`, possibly larger."""
        queries = unit(tokens_BLE.float()).flatten(0, -2).cpu().contiguous().numpy()
        found, _ = self._index.search(queries, 1)
        best = torch.from_numpy(found[:, 0]).clamp(-1, 1).to(tokens_BLE.device)
        return (1 - best).unflatten(0, tokens_BLE.shape[:-1])


class ApproximateSearch:
    """Keeps the cells of each bank as long as the bank's tensor lives."""

    def __init__(self) -> None:
        check_faiss()
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return ApproximateSearch, ()  # a copy in another process makes its own cells

    def of(self, bank_VME: Tensor) -> list[ApproximateBank] | None:
        """One for each level, made on first use; None where exact search is as fast."""
        if bank_VME.shape[1] < LEAST_ROWS:
            return None
        with self._lock:
            if bank_VME not in self._known:
                self._known[bank_VME] = [ApproximateBank(bank_ME) for bank_ME in bank_VME]
            return self._known[bank_VME]


def approximate_or_none(search: str) -> ApproximateSearch | None:
    """What a detector's option `search` means; None: exact."""
    if search not in ("exact", "approximate"):
        raise UnknownNameError("search", got=str(search), known=("exact", "approximate"))
    return ApproximateSearch() if search == "approximate" else None
