"""The heads say what the detectors say, with every option, before any exporter is asked."""

import pytest
import torch

from sowa.detectors.patchcore import Patchcore
from sowa.detectors.plus_head import read_head, write_head
from sowa.detectors.plus_network import read_network
from sowa.detectors.plus_panel import write_judges
from sowa.detectors.sowa_plus import SowaPlus
from sowa.errors import ConfigError
from sowa.export.graphs import detector_graph
from sowa.export.heads import nearest
from sowa.nn.euclidean import nearest_rows
from sowa.nn.states import StateHead
from sowa.predictor.predictor import Predictor
from tests.predictor.parts import parts

PLUS = [
    {},
    {"half": True},
    {"half": True, "quarter": True, "quarter_weight": 0.25},
    {"half": True, "global_weight": 0.0, "sigma": 0.0},
    {"taps": (2,), "global_tap": 4},
]
CORE = [
    {},
    {"embedding": "concatenated", "image_score": "reweighted", "upsampling": "nearest", "border": "reflect"},
    {"neighbours": 3, "squared": True, "coreset": 0.3},
    {"image_score": "reweighted", "reweight_neighbours": 1, "width": 32},
]


def compared(model, options, k=3, backbone="random_tiny"):
    """The graph's outputs and what the detector says of the same pictures."""
    fitted = Predictor.fit(parts(k), name="disc", model=model, backbone=backbone, options=options)
    scale, detector, reference = fitted.content.calibration, fitted.detector, fitted.content.reference
    graph = detector_graph(detector, reference, method=model, pixel_threshold=scale.pixel_threshold)
    views = torch.cat([fitted.content.view.look(picture).views_T3SS for picture in parts(3, first=9, defect=True)])
    with torch.no_grad():
        score_B, heat_BSS = graph(views)
        return detector, (score_B, heat_BSS * scale.pixel_threshold), detector(views, reference)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("options", PLUS, ids=str)
def test_sowa_plus(options, k):
    detector, (score, score_map), wanted = compared("sowa_plus", options, k)
    assert isinstance(detector, SowaPlus) and detector.sizes == 1 + bool(options.get("half")) + bool(
        options.get("quarter")
    )
    assert torch.allclose(score, wanted.score, rtol=1e-4, atol=1e-4)
    assert torch.allclose(score_map, wanted.score_map, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def drawn_head(tmp_path_factory):
    """A trained head of no skill, at taps of its own."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    write_head(path, StateHead(width=64, levels=2, hidden=4), taps=(1, 3), middle=0.0, slope=1.0, fraction=0.05)
    return path


@pytest.mark.parametrize("options", [{}, {"half": True, "head_map": 0.5}], ids=str)
def test_sowa_plus_with_the_head_in_its_map(options, drawn_head):
    detector, (score, score_map), wanted = compared("sowa_plus", {"head": str(drawn_head), **options})
    assert detector.opinion.share > 0
    assert torch.allclose(score, wanted.score, rtol=1e-4, atol=1e-4)
    assert torch.allclose(score_map, wanted.score_map, rtol=1e-4, atol=1e-4)
    without = compared("sowa_plus", options | {"head": "none"})[1][1]
    assert not torch.allclose(score_map, without, atol=1e-2)


@pytest.mark.parametrize("options", [{}, {"half": True, "network_map": 1.0}, {"network_map": 0.0}], ids=str)
def test_sowa_plus_with_a_network_beside_it(options, drawn_network, drawn_head):
    options = options | {"network": str(drawn_network), "head": str(drawn_head)}
    detector, (score, score_map), wanted = compared("sowa_plus", options)
    assert detector.network is not None and bool(detector.mapped) == bool(detector.network_map)
    assert torch.allclose(score, wanted.score, rtol=1e-4, atol=1e-3)
    assert torch.allclose(score_map, wanted.score_map, rtol=1e-4, atol=1e-3)
    assert not torch.allclose(score, compared("sowa_plus", options | {"network": "none"})[1][0], atol=1e-2)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("options", [{"half": True, "quarter": True}, {"head_map": 0.0}], ids=str)
def test_sowa_plus_with_judges(options, k, drawn_network, drawn_head, tmp_path):
    torch.manual_seed(1)
    facts = {"places": [1, 2], "looks": {224: (0, 1)}, "beside": {224: (0.5, 2)}, "ends": {224: (0, 1, -1, 1)}}
    hashes = {"head": read_head(drawn_head).id_8, "network": read_network(drawn_network).id_8}
    fellow = StateHead(width=112 + 192, levels=1, hidden=4)
    path = tmp_path / "judges.safetensors"
    write_judges(path, fellow, **facts, **{name: bytes(own.tolist()).hex() for name, own in hashes.items()})
    options = options | {"network": str(drawn_network), "head": str(drawn_head), "judges": str(path)}
    detector, (score, score_map), wanted = compared("sowa_plus", options, k)
    assert detector.opinion.panel.beside is not None and detector.opinion.weight > 0
    assert torch.allclose(score, wanted.score, rtol=1e-4, atol=1e-3)
    assert torch.allclose(score_map, wanted.score_map, rtol=1e-4, atol=1e-3)
    without = compared("sowa_plus", options | {"judges_weight": 0}, k)[1][0]
    assert not torch.allclose(score, without, atol=1e-2)


@pytest.mark.parametrize("options", CORE, ids=str)
def test_patchcore(options):
    detector, (score, score_map), wanted = compared("patchcore", options)
    assert isinstance(detector, Patchcore)
    assert torch.allclose(score, wanted.score, rtol=1e-4, atol=1e-5)
    assert torch.allclose(score_map, wanted.score_map, rtol=1e-4, atol=1e-5)


def test_patchcore_on_a_pyramid():
    _, (score, score_map), wanted = compared("patchcore", {}, backbone="random_tiny_cnn")
    assert torch.allclose(score, wanted.score, rtol=1e-4, atol=1e-5)
    assert torch.allclose(score_map, wanted.score_map, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 4])
def test_nearest_over_blocks_of_the_bank(count, monkeypatch):
    monkeypatch.setattr("sowa.export.heads.BLOCK_ROWS", 7)
    bank, rows = torch.randn(30, 6), torch.randn(11, 6)
    rows[0] = bank[29]
    distance, place = nearest(rows, bank, bank.mean(dim=0), count)
    wanted, wanted_place = nearest_rows(rows[None], bank, count=count)
    assert torch.allclose(distance, wanted[0], atol=1e-5) and torch.equal(place, wanted_place[0])
    assert distance[0, 0] == 0


def test_other_methods_are_refused_by_name():
    fitted = Predictor.fit(parts(2), model="spade", backbone="random_tiny")
    with pytest.raises(ConfigError, match="spade cannot be exported: padim, patchcore, sowa, sowa_plus can"):
        detector_graph(fitted.detector, fitted.content.reference, method="spade", pixel_threshold=None)
