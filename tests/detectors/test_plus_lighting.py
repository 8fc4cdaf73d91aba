"""Directions of the light: their file, what they take out of distances, and what they leave."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sowa.backbones import build_backbone
from sowa.detectors import build_detector
from sowa.detectors.plus_lighting import MOST_BYTES, SHIPPED, read_lighting, shipped_lighting, write_lighting
from sowa.errors import ArtifactError, ConfigError
from sowa.types import Support
from tests.conformance import CATEGORY, conform, normals, with_defect

SIZE, WIDTH, TAPS = 112, 64, (1, 2)


def axes(seed=0, width=WIDTH, count=3):
    torch.manual_seed(seed)
    return {tap: torch.linalg.qr(torch.randn(width, count))[0] for tap in TAPS}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("light") / "light.safetensors"
    write_lighting(path, axes(), seed=0)
    return path


def build(lighting, **options):
    backbone = build_backbone("random_tiny", image_size=SIZE)
    options = {"half": True, "taps": TAPS} | options
    return build_detector("sowa_plus", backbone=backbone, lighting=str(lighting), **options).eval()


@pytest.mark.parametrize("quarter", [True, False])
def test_exam(file, quarter):
    conform(lambda: build(file, quarter=quarter))


def test_half_size_does_not_see_a_move_along_them_and_the_full_size_does(file):
    detector = build(file)
    tokens = detector.encode(normals(SIZE, 3))
    reference = detector.fit_tokens(CATEGORY, tokens)
    light = read_lighting(file).axes
    for place, level in enumerate(tokens.levels[:4]):
        tap = TAPS[place % 2]
        moved = level + 7 * light[tap].sum(dim=1)
        before, after = (detector.memory.distance(place, one, reference) for one in (level, moved))
        if place < 2:
            assert (after > before + 1).all()
        else:
            torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)


def test_the_map_is_the_same_with_and_without_them(file):
    """They are left out at half size alone; the map is of the full size."""
    images, test = normals(SIZE, 3), with_defect(normals(SIZE, 2, seed=9))
    found = []
    for detector in (build(file), build("none")):
        found.append(detector(test, detector.fit(Support(CATEGORY, images))))
    assert torch.equal(found[0].score_map, found[1].score_map)
    assert not torch.allclose(found[0].score, found[1].score)


def test_further_normals_keep_to_them(file, tmp_path):
    detector = build(file)
    images = normals(SIZE, 6)
    tokens = detector.encode(images)
    grown = detector.extend_tokens(
        detector.fit_tokens(CATEGORY, tokens.rows(slice(0, 4))), CATEGORY, tokens.rows(slice(4, 6))
    )
    light = read_lighting(file).axes[TAPS[0]]
    basis = grown["basis_2"]
    assert basis.shape[1] == len(grown["variance_2"]) + 3 and grown["basis_0"].shape[1] == len(grown["variance_0"])
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(basis @ (basis.T @ light), light, atol=1e-4, rtol=0)
    other = tmp_path / "other.safetensors"
    write_lighting(other, axes(seed=1), seed=1)
    for foreign in (build(other), build("none")):
        with pytest.raises(ArtifactError, match="directions of light"):
            foreign.extend_tokens(grown, CATEGORY, tokens)
        assert torch.equal(foreign(images[:1], grown).score, detector(images[:1], grown).score), (
            "what was learnt judges"
        )


def test_a_bank_and_a_single_look_have_none(file):
    for options in ({"memory": "nearest"}, {"half": False}):
        detector = build(file, **options)
        assert "lighting" not in detector.fit(Support(CATEGORY, normals(SIZE, 2)))


def test_the_same_directions_give_the_same_bytes_and_nothing_else_passes(file, tmp_path):
    again = tmp_path / "again.safetensors"
    sha256 = write_lighting(again, axes(), seed=0)
    assert again.read_bytes() == file.read_bytes()
    found = read_lighting(again, sha256=sha256)
    assert found.axes.keys() == set(TAPS) and bytes(found.id_8.tolist()).hex() == sha256[:16]
    for tap, given in axes().items():
        torch.testing.assert_close(found.axes[tap], given, atol=1e-3, rtol=0)
    with pytest.raises(ArtifactError, match="not the file that was released"):
        read_lighting(again, sha256="0" * 64)
    for content in (b"", b"nonsense", file.read_bytes()[:-7], bytes(MOST_BYTES + 1)):
        again.write_bytes(content)
        with pytest.raises(ArtifactError):
            read_lighting(again)
    tensors, good = load_file(file), {"format": "sowa.lighting"}
    cases = [
        (tensors, {"format": "other"}),
        (tensors, {}),
        (tensors | {"x": tensors["1"].clone()}, good),
        (tensors | {"1": tensors["1"] * torch.nan}, good),
        (tensors | {"1": tensors["1"] * 0}, good),
        (tensors | {"1": tensors["1"].T.contiguous()}, good),
        (tensors | {"1": tensors["1"][:, 0].contiguous()}, good),
    ]
    for content, about in cases:
        save_file(content, again, metadata={"about": json.dumps(about)})
        with pytest.raises(ArtifactError, match="holds no directions"):
            read_lighting(again)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_lighting(tmp_path / "absent.safetensors")


def test_directions_of_another_backbone_are_refused(tmp_path):
    wide = tmp_path / "wide.safetensors"
    write_lighting(wide, axes(width=32))
    with pytest.raises(ConfigError, match="learnt on tokens of 32 values"):
        build(wide)


def test_the_packages_directions_are_those_that_were_released():
    assert shipped_lighting("sha256:unknown;text=random:seed=0") is None
    for weights_id in SHIPPED:
        found = shipped_lighting(f"{weights_id};text=random:seed=0")
        assert all(axes_DN.shape == (384, 4) for axes_DN in found.axes.values()) and found.axes.keys() == {6, 8}
