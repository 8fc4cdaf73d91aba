"""The approximate search: never nearer than the truth, exact when it looks everywhere, said in one line when absent."""

import copy
import gc
import pickle

import pytest
import torch

from sowa.backbones import build_backbone
from sowa.detectors import build_detector
from sowa.errors import ConfigError, UnknownNameError
from sowa.nn import search
from sowa.nn.bank import nearest_distance
from sowa.nn.search import ApproximateBank, ApproximateSearch, approximate_or_none
from tests.conformance import CATEGORY, normals

GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def rows():
    pytest.importorskip("faiss")
    centres = torch.randn(20, 16, generator=GENERATOR)
    return centres.repeat(100, 1) + 0.1 * torch.randn(2000, 16, generator=GENERATOR)


def test_distances_are_never_smaller_and_seldom_larger(rows):
    queries = rows[:60].view(3, 20, 16) + 0.05 * torch.randn(3, 20, 16, generator=GENERATOR)
    exact = nearest_distance(queries, rows)
    found = ApproximateBank(rows, cells=20, probes=2).nearest_distance(queries)
    assert found.shape == exact.shape
    assert float((found - exact).min()) > -1e-5
    assert float((found - exact).abs().mean()) < 0.5 * float(exact.mean())
    again = ApproximateBank(rows, cells=20, probes=2).nearest_distance(queries)
    assert torch.equal(again, found)


def test_looking_into_every_cell_is_exact(rows):
    queries = torch.randn(2, 9, 16, generator=GENERATOR)
    found = ApproximateBank(rows, cells=10, probes=10).nearest_distance(queries)
    torch.testing.assert_close(found, nearest_distance(queries, rows), rtol=1e-4, atol=1e-5)


def test_a_bank_s_cells_live_as_long_as_the_bank(rows, monkeypatch):
    monkeypatch.setattr(search, "LEAST_ROWS", 100)
    kept = ApproximateSearch()
    bank = rows.clone()[None]
    assert kept.of(bank) is kept.of(bank) and len(kept._known) == 1
    assert kept.of(rows[None, :50]) is None
    del bank
    gc.collect()
    assert len(kept._known) == 0
    assert isinstance(copy.deepcopy(kept), ApproximateSearch) and pickle.loads(pickle.dumps(kept))._known is not None


def test_sowa_searches_either_way(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(search, "LEAST_ROWS", 8)
    backbone = build_backbone("random_tiny")
    exact, near = (build_detector("sowa", backbone=backbone, search=one).eval() for one in ("exact", "approximate"))
    images = normals(backbone.image_size, 3)
    reference = exact.fit_tokens(CATEGORY, exact.encode(images[:2]))
    one, two = exact(images[2:], reference), near(images[2:], reference)
    assert float((one.score - two.score).abs().max()) < 0.05
    torch.testing.assert_close(one.score_map, two.score_map, atol=0.1, rtol=0.1)


def test_words_and_absence(monkeypatch):
    assert approximate_or_none("exact") is None
    with pytest.raises(UnknownNameError, match="approximate"):
        approximate_or_none("fast")
    monkeypatch.setattr(search.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"sowa\[faiss\]"):
        approximate_or_none("approximate")
