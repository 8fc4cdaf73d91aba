"""Who judges by training in SOWA Plus: several judges, their file, and how far they are trusted."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sowa.backbones import build_backbone
from sowa.data.drawn import draw_dataset
from sowa.detectors import build_detector
from sowa.detectors.plus_files import HOME, image_weights
from sowa.detectors.plus_head import SHIPPED as HEADS
from sowa.detectors.plus_head import write_head
from sowa.detectors.plus_network import SHIPPED as NETWORKS
from sowa.detectors.plus_network import write_network
from sowa.detectors.plus_panel import (
    MAP_SHARES,
    MOST_BYTES,
    SHIPPED,
    known_judges,
    on_one_grid,
    read_judges,
    write_judges,
)
from sowa.errors import ArtifactError, ConfigError
from sowa.nn.maps import enlarge, top_mean
from sowa.nn.states import StateHead
from sowa.predictor.file import write_file
from sowa.predictor.predictor import Predictor
from sowa.types import Support
from tests.conformance import CATEGORY, conform, normals, with_defect
from tests.detectors.test_plus_head import trained_head
from tests.detectors.test_plus_network import COLOURS, drawn_network
from tests.predictor.parts import parts

SIZE = 112
LOOKS = {112: (-1.0, 2.0), 56: (-0.5, 1.5), 28: (0.0, 1.0)}
FACTS = {"places": [1, 2], "looks": LOOKS, "beside": {224: (0.5, 0.5)}, "ends": {112: (0.1, 2.0, -0.5, 0.5)}}


def beside(seed=0):
    torch.manual_seed(seed)
    return StateHead(width=112 + 192, levels=1, hidden=4)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panel")
    head, network, judges = (folder / f"{name}.safetensors" for name in ("head", "network", "judges"))
    hashes = {
        "head": write_head(head, trained_head(), taps=(1, 2), middle=0.0, slope=1.0, fraction=0.05, seed=0),
        "network": write_network(network, drawn_network(), **COLOURS),
    }
    write_judges(judges, beside(), **FACTS, **hashes)
    return {"head": str(head), "network": str(network), "judges": str(judges)}


def build(files, **options):
    backbone = build_backbone("random_tiny", image_size=SIZE)
    looks = {"half": True, "quarter": True}
    return build_detector("sowa_plus", backbone=backbone, **(files | looks | options)).eval()


def test_exam(files):
    conform(lambda: build(files))


def test_the_head_judges_every_size_and_its_fellow_the_network(files):
    detector = build(files)
    tokens = detector.encode(normals(SIZE, 2))
    logits = detector.opinion.panel(tokens)
    assert [tuple(one.shape) for one in logits] == [(2, 8, 8), (2, 4, 4), (2, 2, 2), (2, 14, 14)]
    assert detector.opinion.panel.looks == 3
    by_hand = detector.head(tokens.levels[detector.spaces + 2 : detector.spaces + 4]).unflatten(1, (4, 4))
    torch.testing.assert_close(logits[1], by_hand)
    fine, coarse = tokens.levels[detector.spaces - 2], tokens.levels[detector.spaces - 1]
    even = enlarge(coarse.transpose(1, 2).unflatten(2, (7, 7)), (14, 14), 0).flatten(2).transpose(1, 2)
    torch.testing.assert_close(logits[3], detector.opinion.panel.beside([fine, even]).unflatten(1, (14, 14)))


def test_without_shots_score_and_map_are_means_of_the_judges(files):
    detector = build(files, quarter_weight=0.25, network_weight=0.6, network_map=0.2)
    images = normals(SIZE, 3, seed=5)
    reference = detector.fit(Support(CATEGORY, normals(SIZE, 0)))
    found, logits = detector(images, reference), detector.opinion.panel(detector.encode(images))
    scales = [*LOOKS.values(), (0.5, 0.5)]
    peaks = [(top_mean(one, 0.05) - m) / s for one, (m, s) in zip(logits, scales, strict=True)]
    score = sum(w * peak for w, peak in zip((1, 1, 0.25, 0.6), peaks, strict=True)) / 2.85
    torch.testing.assert_close(found.score, torch.sigmoid(2.0 * (score - 0.1)))
    shares = (*MAP_SHARES, 0.2)
    whole = sum(w * enlarge(one, (8, 8), 0) for w, one in zip(shares, logits, strict=True)) / sum(shares)
    torch.testing.assert_close(found.score_map, enlarge(whole, (SIZE, SIZE), detector.sigma).sigmoid())
    assert found.levels.shape == (3, 4, 8, 8) and found.levels.min() > 0 and found.levels.max() < 1


def test_alone_the_head_judges_the_full_size_as_it_is(files):
    detector = build(files, judges="none")
    images = normals(SIZE, 3, seed=5)
    found = detector(images, detector.fit(Support(CATEGORY, normals(SIZE, 0))))
    (logits,) = detector.opinion.panel(detector.encode(images))
    torch.testing.assert_close(found.score, top_mean(logits, 0.05).sigmoid())
    torch.testing.assert_close(found.levels, logits.sigmoid()[:, None])
    assert detector.opinion.weight == 0 and detector.opinion.panel.trust(torch.zeros(2)) == 0


@pytest.mark.parametrize("options", [{"network": "none"}, {"half": False, "quarter": False}, {"memory": "nearest"}])
def test_who_is_not_there_is_not_asked(files, options):
    panel = build(files, **options).opinion.panel
    networks = "memory" not in options and options.get("network") != "none"
    assert panel.looks == (1 if options.get("half") is False else 3)
    assert (panel.beside is not None) == networks and len(panel.judges) == panel.looks + networks


def test_a_network_that_they_do_not_know_has_no_judge(files, tmp_path):
    other = tmp_path / "other.safetensors"
    write_network(other, drawn_network(seed=1), **COLOURS)
    assert build(files, network=str(other)).opinion.panel.beside is None


def test_they_are_trusted_as_far_as_they_take_the_shots_for_good(files):
    panel = build(files).opinion.panel
    shots = [panel.trust(torch.tensor([at, at])).item() for at in (-9.0, -0.5, -0.25, 0.0, 0.25, 0.5, 9.0)]
    assert shots == pytest.approx([1, 1, 0.75, 0.5, 0.25, 0, 0])
    assert panel.trust(torch.tensor([-0.5, 0.5])).item() == pytest.approx(0.5)


@pytest.mark.parametrize("shots", [1, 3])
def test_with_shots_they_add_what_they_know(files, shots):
    detector, silent = build(files, judges_weight=2.0), build(files, judges_weight=0)
    images, test = normals(SIZE, shots), with_defect(normals(SIZE, 2, seed=9))
    reference, plain = (one.fit(Support(CATEGORY, images)) for one in (detector, silent))
    assert "opinion" not in plain and len(reference["peaks"]) == shots
    panel = detector.opinion.panel
    peaks = panel.score(panel(detector.encode(images)))
    torch.testing.assert_close(reference["peaks"], peaks)
    middle, trust = reference["opinion"]
    torch.testing.assert_close(middle, peaks.mean())
    torch.testing.assert_close(trust, panel.trust(peaks))
    for trusted in (trust, torch.tensor(0.7), torch.tensor(0.0)):
        changed = reference | {"opinion": torch.stack((middle, trusted))}
        wanted = silent(test, plain).score + 2 * trusted * (panel.score(panel(detector.encode(test))) - middle)
        torch.testing.assert_close(detector(test, changed).score, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(detector(test, reference).score_map, silent(test, plain).score_map)


def test_the_shots_own_scores_have_it_too(files):
    detector, silent = build(files), build(files, judges_weight=0)
    for shots in (1, 4):
        images = normals(SIZE, shots)
        mine, plain = (one.fit(Support(CATEGORY, images)) for one in (detector, silent))
        added = mine["support_scores"] - plain["support_scores"]
        middle, trust = mine["opinion"]
        wanted = 3 * trust * (mine["peaks"] - middle) if shots > 1 else torch.zeros(4)
        torch.testing.assert_close(added, wanted, rtol=1e-4, atol=1e-4)


def test_further_normals_are_heard_too(files):
    detector = build(files)
    tokens = detector.encode(normals(SIZE, 6))
    whole = detector.fit_tokens(CATEGORY, tokens)
    for first in (1, 4):
        grown = detector.fit_tokens(CATEGORY, tokens.rows(slice(0, first)))
        grown = detector.extend_tokens(grown, CATEGORY, tokens.rows(slice(first, 6)))
        assert grown.keys() == whole.keys()
        for name in ("peaks", "opinion", "logits"):
            torch.testing.assert_close(grown[name], whole[name], rtol=1e-4, atol=1e-4)
        assert len(grown["support_scores"]) == (5 if first == 1 else 6)


@pytest.mark.parametrize("shots", [0, 2])
def test_what_was_learnt_with_judges_keeps_to_them(files, shots, tmp_path):
    about = {name: _about(files["judges"])[name] for name in ("head", "network")}
    write_judges(tmp_path / "other.safetensors", beside(seed=1), **FACTS, **about)
    found = {}
    for name in (files["judges"], str(tmp_path / "other.safetensors"), "none"):
        detector = build(files, judges=name)
        found[name] = (detector, detector.fit(Support(CATEGORY, normals(SIZE, shots))))
    for own, (detector, _) in found.items():
        for name, (_, reference) in found.items():
            if name == own:
                detector(normals(SIZE, 1), reference)
                continue
            with pytest.raises(ArtifactError, match="other judges beside the head: fit again"):
                detector(normals(SIZE, 1), reference)


@pytest.mark.parametrize("head", ["none", "own"])
def test_a_reference_of_words_is_refused_where_there_are_none(files, head):
    detector = build(files, **({"head": "none", "judges": "none"} if head == "none" else {}))
    with pytest.raises(ArtifactError, match="fit again"):
        detector(normals(SIZE, 1), {"prototypes": torch.zeros(2, 8)})


def test_judges_of_another_head_are_refused(files, tmp_path):
    other = tmp_path / "other.safetensors"
    write_head(other, trained_head(seed=1), taps=(1, 2), middle=0.0, slope=1.0, fraction=0.05, seed=1)
    with pytest.raises(ConfigError, match="trained beside another head: give that one as head, or judges=none"):
        build(files, head=str(other))
    with pytest.raises(ConfigError, match="judges_weight=-1"):
        build(files, judges_weight=-1)
    assert build(files, judges="auto").opinion.panel.looks == 1, "none of the package belong to this head"
    assert build(files, head="none").opinion is None


def test_the_scale_is_that_of_the_nearest_size(files):
    backbone = build_backbone("random_tiny", image_size=70)
    detector = build_detector("sowa_plus", backbone=backbone, **files, half=False, quarter=False)
    assert detector.opinion.panel.judges[0][:2] == LOOKS[56]


def test_tokens_of_two_grids_on_one():
    coarse, fine = torch.randn(2, 4, 3), torch.randn(2, 16, 5)
    (enlarged, same), grid = on_one_grid([(coarse, (2, 2)), (fine, (4, 4))])
    assert grid == (4, 4) and same is fine
    assert enlarged.shape == (2, 16, 3)
    torch.testing.assert_close(enlarged[:, 0], coarse[:, 0])
    torch.testing.assert_close(enlarged.mean(dim=1), coarse.mean(dim=1), atol=1e-5, rtol=1e-4)


def _about(path):
    with safe_open(path, framework="pt") as stored:
        return json.loads(stored.metadata()["about"])


def test_the_same_judges_give_the_same_bytes(files, tmp_path):
    about = {name: _about(files["judges"])[name] for name in ("head", "network")}
    write_judges(tmp_path / "again.safetensors", beside(), **FACTS, **about)
    assert (tmp_path / "again.safetensors").read_bytes() == Path(files["judges"]).read_bytes()


CHANGES = {
    "format": {"format": "sowa.network"},
    "places": {"places": []},
    "negative": {"places": [-1]},
    "beyond": {"places": [1, 3]},
    "spread": {"looks": {"112": [0, 0]}},
    "short": {"ends": {"112": [0, 1]}},
    "none": {"beside": {}},
    "size": {"looks": {"-112": [0, 1]}},
    "hash": {"head": "no hash"},
    "nan": {},
    "missing": {},
}


@pytest.mark.parametrize("change", [*CHANGES, "text", "large"])
def test_a_damaged_or_foreign_file_is_one_line(change, files, tmp_path):
    path, tensors = tmp_path / "odd.safetensors", load_file(files["judges"])
    if change == "nan":
        tensors["inner.bias"][0] = torch.nan
    elif change == "missing":
        del tensors["outer.weight"]
    save_file(tensors, path, metadata={"about": json.dumps(_about(files["judges"]) | CHANGES.get(change, {}))})
    if change == "text":
        path.write_text("no tensors")
    elif change == "large":
        with path.open("r+b") as stored:
            stored.truncate(MOST_BYTES + 1)
    with pytest.raises(ArtifactError, match="larger than" if change == "large" else "holds no judges of sowa_plus"):
        read_judges(path)


def test_a_file_that_is_not_there_or_not_the_released_one(files, tmp_path):
    with pytest.raises(ArtifactError, match="cannot be read"):
        build(files, judges=str(tmp_path / "nowhere.safetensors"))
    with pytest.raises(ArtifactError, match="not the file that was released"):
        read_judges(Path(files["judges"]), sha256="0" * 64)


def test_the_packages_file_is_the_one_that_was_released_and_belongs_to_the_other_two():
    for weights_id, (name, sha256) in SHIPPED.items():
        judges = read_judges(HOME / name, sha256=sha256)
        assert (HOME / name).stat().st_size < 200_000
        assert judges.about["command"] == "python benchmarks/train_judges.py"
        for known, own_8 in ((HEADS, judges.head_8), (NETWORKS, judges.network_8)):
            assert bytes(own_8.tolist()) == bytes.fromhex(known[weights_id][1])[:8]
        for middle, slope, good, bad in judges.ends.values():
            assert good < middle < bad and slope > 0


def test_a_file_made_before_there_were_any_does_without(files, tmp_path, monkeypatch):
    tower, path = build_backbone("random_tiny", image_size=SIZE), tmp_path / "old.sowa"
    fit = {"name": "disc", "model": "sowa_plus", "backbone": "random_tiny", "backbone_options": {"image_size": SIZE}}
    own = {"head": files["head"], "network": files["network"]}
    old = Predictor.fit(parts(2), **fit, options=own | {"judges": "none"})
    recipe = old.content.recipe
    known = {name: value for name, value in recipe.options.items() if not name.startswith("judges")}
    assert len(known) == len(recipe.options) - 2
    write_file(path, replace(old.content, recipe=replace(recipe, options=known)), {}, None)
    shipped = {image_weights(tower.weights_id): (files["judges"], None)}
    monkeypatch.setattr("sowa.detectors.plus_panel.SHIPPED", shipped)
    assert Predictor.fit(parts(2), **fit, options=own).detector.opinion.weight == 3
    loaded = Predictor.load(path)
    assert loaded.detector.opinion.weight == 0
    assert loaded.predict(parts(1, first=9)[0]).score == old.predict(parts(1, first=9)[0]).score


def test_beside_unknown_weights_there_are_none(files):
    backbone = build_backbone("random_tiny", image_size=SIZE)
    trained = build(files).trained
    assert known_judges("auto", trained, backbone) is None and known_judges("none", trained, backbone) is None


def test_the_script_that_trains_them(files, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import train_judges

    tower = build_backbone("random_tiny", image_size=SIZE)
    own = image_weights(tower.weights_id)
    for module, name in (("plus_head", "head"), ("plus_network", "network")):
        sha256 = _about(files["judges"])[name]
        monkeypatch.setattr(f"sowa.detectors.{module}.SHIPPED", {own: (files[name], sha256)})
    monkeypatch.setattr(train_judges, "HEADS", {own: (files["head"], _about(files["judges"])["head"])})
    monkeypatch.setattr(train_judges, "NETWORKS", {own: (files["network"], _about(files["judges"])["network"])})
    monkeypatch.setattr(train_judges, "LOOKS", (112, 56, 28))
    monkeypatch.setattr(train_judges, "IMAGE_SIZE", SIZE)
    counts = {"train_good": 0, "test_good": 8, "test_bad": 8, "size": 128}
    root = draw_dataset(tmp_path / "drawn", seed=0, categories=("weave", "gear"), **counts)
    monkeypatch.setattr(train_judges, "drawn_root", lambda **_: root)
    monkeypatch.setattr(train_judges, "build_backbone", lambda *_, **options: build_backbone("random_tiny", **options))
    written = []
    for name in ("one", "two"):
        monkeypatch.setattr(sys, "argv", ["train_judges", "--out", str(tmp_path / name)])
        threads = torch.get_num_threads()
        try:
            train_judges.main()
        finally:
            torch.set_num_threads(threads)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] and "loss" in capsys.readouterr().out
    judges = read_judges(tmp_path / "one")
    assert judges.looks.keys() == {112, 56, 28} and judges.ends.keys() == {112, 56} and judges.beside.keys() == {224}


def test_the_spread_to_expect_is_wider_as_far_as_they_are_trusted(files):
    detector = build(files)
    reference = detector.fit(Support(CATEGORY, normals(SIZE, 3)))
    trust = float(reference["opinion"][1])
    assert detector.spread_beside(reference) == pytest.approx(
        (detector.expected_spread**2 + (1.05 * trust) ** 2) ** 0.5
    )
    silent = build(files, judges_weight=0)
    assert silent.spread_beside(silent.fit(Support(CATEGORY, normals(SIZE, 3)))) == silent.expected_spread
