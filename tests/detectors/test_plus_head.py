"""The trained part of SOWA Plus: its file, what it refuses, and judging without shots."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sowa.backbones import build_backbone
from sowa.detectors import build_detector
from sowa.detectors.plus_files import HOME
from sowa.detectors.plus_head import MOST_BYTES, SHIPPED, LogitScale, read_head, shipped_head, write_head
from sowa.errors import ArtifactError, ConfigError
from sowa.nn.states import StateHead, token_loss
from sowa.types import Support
from tests.conformance import CATEGORY, conform, normals, with_defect

SIZE, WIDTH = 112, 64


def trained_head(seed=0):
    """Learns in a few steps that painted tokens are abnormal."""
    torch.manual_seed(seed)
    backbone = build_backbone("random_tiny", image_size=SIZE)
    head = StateHead(width=WIDTH, levels=2, hidden=16)
    images = with_defect(normals(SIZE, 6, seed=30))
    share = torch.zeros(1, 8, 8)
    share[:, 3:5, 3:5] = 1
    with torch.no_grad():
        levels = [patches for _, patches in backbone.encode_normed(images, (1, 2))]
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        token_loss(head(levels), share.flatten(1).expand(len(images), -1)).backward()
        optimiser.step()
    return head.eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    write_head(path, trained_head(), taps=(1, 2), middle=0.0, slope=1.0, fraction=0.05, seed=0)
    return path


def build(file, **options):
    backbone = build_backbone("random_tiny", image_size=SIZE)
    return build_detector("sowa_plus", backbone=backbone, head=str(file), **options).eval()


@pytest.mark.parametrize("head_map", [0.0, 0.5])
def test_exam(file, head_map):
    conform(lambda: build(file, half=True, head_map=head_map))


def test_without_shots_it_judges_by_the_head(file):
    detector = build(file)
    reference = detector.fit(Support(CATEGORY, normals(SIZE, 0)))
    good = detector(normals(SIZE, 6, seed=50), reference)
    bad = detector(with_defect(normals(SIZE, 6, seed=50)), reference)
    assert bad.score.min() > good.score.max()
    assert good.score.min() >= 0 and bad.score.max() <= 1
    y, x = divmod(int(bad.score_map[0].argmax()), SIZE)
    assert SIZE // 4 <= y <= 3 * SIZE // 4 and SIZE // 4 <= x <= 3 * SIZE // 4
    assert bad.levels.min() > 0 and bad.levels.max() < 1


def test_shots_after_none_are_learnt_as_if_they_were_the_first(file):
    detector = build(file)
    none = detector.fit(Support(CATEGORY, normals(SIZE, 0)))
    tokens = detector.encode(normals(SIZE, 3))
    grown, fresh = detector.extend_tokens(none, CATEGORY, tokens), detector.fit_tokens(CATEGORY, tokens)
    assert grown.keys() == fresh.keys() and all(torch.equal(grown[name], fresh[name]) for name in fresh)


def test_a_head_does_not_move_scores_once_there_are_shots(file):
    with_head, without = build(file), build("none")
    images = normals(SIZE, 4)
    for detector in (with_head, without):
        detector.reference = detector.fit(Support(CATEGORY, images))
    test = with_defect(normals(SIZE, 2, seed=9))
    assert torch.equal(with_head(test, with_head.reference).score, without(test, without.reference).score)


@pytest.mark.parametrize("shots", [0, 2])
def test_what_was_learnt_with_a_head_keeps_to_it(file, tmp_path, shots):
    other = tmp_path / "other.safetensors"
    write_head(other, trained_head(seed=1), taps=(1, 2), middle=0.0, slope=1.0, fraction=0.05, seed=1)
    reference = build(other).fit(Support(CATEGORY, normals(SIZE, shots)))
    for detector in (build(file), build("none")):
        with pytest.raises(ArtifactError, match="fit again"):
            detector(normals(SIZE, 1), reference)


def test_the_heads_share_in_the_map_is_counted_in_spreads_of_its_logits_on_the_shots(file):
    heard, silent = build(file), build(file, head_map=0)
    images, test = normals(SIZE, 3), with_defect(normals(SIZE, 2, seed=9))
    reference = heard.fit(Support(CATEGORY, images))
    plain = silent(test, silent.fit(Support(CATEGORY, images)))
    tokens = heard.encode(images)
    logits = heard.opinion.panel.map(heard.opinion.panel(tokens)).double()
    scale = reference["logits"].double()
    assert scale[0] == 3 and torch.allclose(scale[1], logits.mean())
    assert torch.allclose(scale[2] - scale[1] ** 2, logits.var(unbiased=False), rtol=1e-4)
    wide = reference | {"logits": torch.tensor([3.0, 0.0, 1e12])}
    assert torch.allclose(heard(test, wide).score_map, plain.score_map, atol=1e-3)
    assert not torch.allclose(heard(test, reference).score_map, plain.score_map, atol=1e-2)


def test_logit_scales_join_in_any_order():
    torch.manual_seed(0)
    parts = [torch.randn(2, 9) + 3, torch.randn(1, 9), 4 * torch.randn(3, 9)]
    whole = LogitScale.of(torch.cat(parts))
    for order in ((0, 1, 2), (2, 0, 1)):
        joined = None
        for place in order:
            joined = LogitScale.of(parts[place], joined)
        assert torch.allclose(joined, whole, rtol=1e-5)
    narrow = torch.tensor([3.0, 5.0, 25.01])
    assert torch.equal(LogitScale.standard(torch.tensor([6.0]), narrow), torch.tensor([1.0])), (
        "spreads below 1 count as 1"
    )


def test_the_same_head_gives_the_same_bytes_and_nothing_else_passes(file, tmp_path):
    again = tmp_path / "again.safetensors"
    sha256 = write_head(again, trained_head(), taps=(1, 2), middle=0.0, slope=1.0, fraction=0.05, seed=0)
    assert again.read_bytes() == file.read_bytes()
    assert read_head(again, sha256=sha256).taps == (1, 2)
    with pytest.raises(ArtifactError, match="not the file that was released"):
        read_head(again, sha256="0" * 64)
    for content in (b"", b"nonsense", file.read_bytes()[:-7]):
        again.write_bytes(content)
        with pytest.raises(ArtifactError):
            read_head(again)
    tensors = load_file(file)
    for about in ({"format": "other"}, {"format": "sowa.state_head", "taps": [1]}):
        save_file(tensors, again, metadata={"about": json.dumps(about)})
        with pytest.raises(ArtifactError):
            read_head(again)
    tensors["inner.bias"][0] = torch.nan
    facts = {"format": "sowa.state_head", "taps": [1, 2], "middle": 0, "slope": 1, "fraction": 0.1}
    save_file(tensors, again, metadata={"about": json.dumps(facts)})
    with pytest.raises(ArtifactError):
        read_head(again)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_head(tmp_path / "absent.safetensors")


def test_a_head_of_another_backbone_is_refused(file):
    backbone = build_backbone("random_tiny", image_size=SIZE)
    torch.manual_seed(0)
    wide = file.with_name("wide.safetensors")
    write_head(wide, StateHead(width=32, levels=1, hidden=4), taps=(1,), middle=0, slope=1, fraction=0.1)
    with pytest.raises(ConfigError, match="trained on tokens of 32"):
        build_detector("sowa_plus", backbone=backbone, head=str(wide))
    with pytest.raises(ConfigError, match="head_map"):
        build(file, head_map=-1)


def test_the_packages_heads_are_those_that_were_released():
    assert shipped_head("sha256:unknown;text=random:seed=0") is None
    for weights_id, (name, _) in SHIPPED.items():
        trained = shipped_head(f"{weights_id};text=random:seed=0")
        assert {"command", "seed", "data"} <= trained.about.keys()
        assert (HOME / name).stat().st_size < MOST_BYTES


def test_its_league_is_that_of_what_judges(file):
    silent, heard = build(file, head_map=0), build(file)
    assert silent.learnt_elsewhere(0) and not silent.learnt_elsewhere(4)
    assert heard.learnt_elsewhere(4) and not build("none").learnt_elsewhere(0)
