"""The network beside SOWA Plus: its file, its tokens, what it adds to score and map, and what it leaves alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from sowa.backbones import build_backbone
from sowa.backbones.stages import MODEL, STAGES, FirstStages, kept
from sowa.detectors import build_detector
from sowa.detectors.plus_files import HOME, image_weights
from sowa.detectors.plus_network import MAPPED, MOST_BYTES, SHIPPED, known_network, read_network, write_network
from sowa.errors import ArtifactError, ConfigError
from sowa.predictor.file import write_file
from sowa.predictor.predictor import Predictor
from sowa.types import Support
from tests.conformance import CATEGORY, conform, normals, with_defect
from tests.predictor.parts import parts

SIZE, TAPS = 112, (1, 2)
COLOURS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


def drawn_network(seed=0):
    torch.manual_seed(seed)
    visual = timm.create_model(MODEL, pretrained=False, num_classes=0)
    for module in visual.modules():  # as if it had seen pictures: what normalises is not the identity
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.8, 1.2)
            module.bias.data.uniform_(-0.1, 0.1)
    return visual.eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    write_network(path, drawn_network(), **COLOURS)
    return path


def build(network, **options):
    backbone = build_backbone("random_tiny", image_size=SIZE)
    return build_detector("sowa_plus", backbone=backbone, network=str(network), **{"taps": TAPS} | options).eval()


def test_tokens_are_those_of_the_network_before_it_was_cut_and_folded():
    visual = drawn_network()
    for module in visual.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = module.weight.data.half().float()
    network = FirstStages(kept(visual), **COLOURS)
    images = torch.rand(2, 3, 96, 64)
    with torch.inference_mode():
        values = visual.bn1(visual.conv_stem((images - 0.5) / 0.5))
        wanted = []
        for stage in visual.blocks:
            values = stage(values)
            wanted.append(values)
        found = network.encode(images)
    assert [grid for _, grid in found] == [(6, 4), (6, 4), (3, 2)]
    for (tokens, grid), number in zip(found, STAGES, strict=True):
        torch.testing.assert_close(tokens.transpose(1, 2).unflatten(2, grid), wanted[number], atol=1e-4, rtol=1e-3)
    assert not any(value.requires_grad for value in network.parameters())


@pytest.mark.parametrize(("beside", "own"), [(448, 320), (224, 224), (112, 224), (518, 384), (336, 256)])
def test_its_size_follows_the_towers(beside, own):
    assert FirstStages.size_beside(beside) == own


@pytest.mark.parametrize("options", [{}, {"half": True, "quarter": True}], ids=str)
def test_exam(file, options):
    conform(lambda: build(file, **options))


def test_its_levels_come_after_the_transformers_and_count_as_they_are_told(file):
    detector = build(file, network_weight=0.6)
    plain = build("none")
    images = normals(SIZE, 3)
    tokens, without = detector.encode(images), plain.encode(images)
    assert tokens.grids[2:] == ((14, 14), (14, 14), (7, 7)) and [level.shape[2] for level in tokens.levels[2:]] == [
        80,
        112,
        192,
    ]
    assert all(torch.equal(one, other) for one, other in zip(tokens.levels[:2], without.levels, strict=True))
    assert detector.level_weights == pytest.approx([0.5, 0.5, 0.2, 0.2, 0.2])
    reference, test = detector.fit_tokens(CATEGORY, tokens), with_defect(normals(SIZE, 2, seed=9))
    scores = []
    for share in (0.0, 0.6, 1.2):
        detector.network_weight = share
        scores.append(detector(test, reference).score)
    torch.testing.assert_close(scores[1] - scores[0], scores[2] - scores[1])
    torch.testing.assert_close(scores[0], plain(test, plain.fit_tokens(CATEGORY, without)).score)


def test_its_share_in_the_map(file):
    detector, test = build(file), normals(SIZE, 2, seed=9)
    reference = detector.fit(Support(CATEGORY, normals(SIZE, 3)))
    assert reference["map_scale"].shape == (5, 2)
    maps = []
    for share in (0.0, 0.5, 1.0):
        detector.network_map = share
        maps.append(detector(test, reference).score_map)
    torch.testing.assert_close(maps[1] - maps[0], maps[2] - maps[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(maps[0], maps[1])
    plain = build("none")
    torch.testing.assert_close(maps[0], plain(test, plain.fit(Support(CATEGORY, normals(SIZE, 3)))).score_map)


def test_levels_of_a_prediction_stay_the_transformers(file):
    detector = build(file)
    found = detector(normals(SIZE, 2, seed=9), detector.fit(Support(CATEGORY, normals(SIZE, 2))))
    assert found.levels.shape == (2, 2, 8, 8) and detector.mapped == [2 + place for place in MAPPED]


def test_further_normals_are_learnt_by_it_too(file):
    detector = build(file)
    tokens = detector.encode(normals(SIZE, 6))
    grown = detector.extend_tokens(
        detector.fit_tokens(CATEGORY, tokens.rows(slice(0, 4))), CATEGORY, tokens.rows(slice(4, 6))
    )
    at_once = detector.fit_tokens(CATEGORY, tokens)
    for place in (2, 3, 4):
        assert int(grown[f"tokens_{place}"]) == int(at_once[f"tokens_{place}"])
        torch.testing.assert_close(grown[f"mean_{place}"], at_once[f"mean_{place}"], atol=1e-4, rtol=1e-3)
    assert len(grown["support_scores"]) == 6


def test_a_reference_of_another_network_or_of_none_is_refused(file, tmp_path):
    other = tmp_path / "other.safetensors"
    write_network(other, drawn_network(seed=1), **COLOURS)
    images, found = normals(SIZE, 2), {}
    for name in (file, other, "none"):
        detector = build(name)
        found[name] = (detector, detector.fit(Support(CATEGORY, images)))
    for own, (detector, _) in found.items():
        for name, (_, reference) in found.items():
            if name == own:
                detector(images, reference)
                continue
            with pytest.raises(ArtifactError, match="another network beside the backbone: fit again"):
                detector(images, reference)
            with pytest.raises(ArtifactError, match="fit again"):
                detector.extend_tokens(reference, CATEGORY, detector.encode(images))


def test_banks_do_without(file):
    assert build(file, memory="nearest").network is None
    assert build("auto", half=True).network is None, "there is none beside random towers"


def test_moved_to_another_precision_it_stays_what_it_is(file):
    detector = build(file, half=True)
    assert detector.at_precision("bf16").network is detector.network
    assert detector.encoding()[-1] == build(file, half=True).encoding()[-1] != build("none").encoding()[-1]


def test_the_packages_file_is_the_one_that_was_released():
    for name, sha256 in SHIPPED.values():
        network = read_network(HOME / name, sha256=sha256)
        assert sum(value.numel() for value in network.parameters()) > 2_000_000
        assert (HOME / name).stat().st_size < 5_000_000
        about = json.loads(_metadata(HOME / name)["about"])
        assert about["command"] == "python benchmarks/cut_network.py" and "Apache-2.0" in about["licence"]


def _metadata(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stored:
        return stored.metadata()


def test_the_same_network_gives_the_same_bytes(file, tmp_path):
    again = tmp_path / "again.safetensors"
    write_network(again, drawn_network(), **COLOURS)
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("change", ["shape", "missing", "nan", "mean", "model", "text", "large"])
def test_a_damaged_or_foreign_file_is_one_line(change, file, tmp_path):
    path, tensors = tmp_path / "odd.safetensors", load_file(file)
    about = json.loads(_metadata(file)["about"])
    if change == "shape":
        tensors["conv_stem.weight"] = tensors["conv_stem.weight"][:, :2].contiguous()
    elif change == "missing":
        del tensors["blocks.2.0.conv_pw.weight"]
    elif change == "nan":
        tensors["bn1.bias"][0] = torch.nan
    elif change == "mean":
        about["std"] = [0.5, 0.5, 0]
    elif change == "model":
        about["model"] = "resnet18"
    save_file(tensors, path, metadata={"about": json.dumps(about)})
    if change == "text":
        path.write_text("no tensors")
    elif change == "large":
        with path.open("r+b") as stored:
            stored.truncate(MOST_BYTES + 1)
    with pytest.raises(ArtifactError, match="larger than" if change == "large" else "is no network of sowa_plus"):
        read_network(path)
    with pytest.raises(ArtifactError, match="not the file that was released"):
        read_network(file, sha256="0" * 64)


def test_a_file_that_is_not_there_and_nonsense_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="cannot be read"):
        build(tmp_path / "nowhere.safetensors")
    with pytest.raises(ConfigError, match="network_map=-1"):
        build("none", network_map=-1)
    assert known_network("none", build_backbone("random_tiny")) is None


def test_the_script_that_cuts_it(file, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import cut_network

    from sowa.backbones.cnn import cnn_from_state

    network = cnn_from_state(drawn_network().state_dict(), model=MODEL, image_size=224, name="drawn", **COLOURS)
    monkeypatch.setattr(cut_network, "build_backbone", {"compact_cnn": network}.__getitem__)
    cut_network.main(["--out", str(tmp_path / "cut.safetensors")])
    assert "sha256" in capsys.readouterr().out
    cut, known = load_file(tmp_path / "cut.safetensors"), load_file(file)
    assert cut.keys() == known.keys() and all(torch.equal(cut[name], known[name]) for name in cut)
    read_network(tmp_path / "cut.safetensors")


def test_a_file_made_before_there_was_one_does_without(file, tmp_path, monkeypatch):
    tower, path = build_backbone("random_tiny", image_size=224), tmp_path / "old.sowa"
    options = {"image_size": 224}
    fit = {"name": "disc", "model": "sowa_plus", "backbone": "random_tiny", "backbone_options": options}
    old = Predictor.fit(parts(2), **fit, options={"network": "none"})
    recipe = old.content.recipe
    known = {name: value for name, value in recipe.options.items() if not name.startswith("network")}
    assert len(known) == len(recipe.options) - 3
    write_file(path, replace(old.content, recipe=replace(recipe, options=known)), {}, None)
    shipped = {image_weights(tower.weights_id): (str(file), None)}
    monkeypatch.setattr("sowa.detectors.plus_network.SHIPPED", shipped)
    assert Predictor.fit(parts(2), **fit).detector.network is not None
    loaded = Predictor.load(path)
    assert loaded.detector.network is None
    assert loaded.predict(parts(1, first=9)[0]).score == old.predict(parts(1, first=9)[0]).score


def test_the_spread_to_expect_grows_with_what_is_summed(file):
    plain, half, beside = build("none"), build("none", half=True), build(file, network_weight=0.75)
    assert plain.expected_spread == pytest.approx(0.8)
    assert half.expected_spread == pytest.approx(0.8 * 2**0.5)
    assert beside.expected_spread == pytest.approx(1.0)
    assert build(file, half=True, quarter=True).expected_spread == pytest.approx(0.8 * (2 + 0.25 + 0.5625) ** 0.5)
