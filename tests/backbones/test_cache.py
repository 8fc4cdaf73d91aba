"""Tokens from disk: the tower's own bits, and nothing that was damaged, foreign or half written."""

import errno
import os
import subprocess
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch

from sowa.backbones import build_backbone, token_store
from sowa.backbones.cache import CachedBackbone
from sowa.backbones.token_store import TokenStore
from sowa.errors import ConfigError, UnknownNameError

SIZE, TAPS = 56, (1, 3)
PLENTY = 1 << 30


@cache
def tower(seed=0, size=SIZE):
    return build_backbone("random_tiny", image_size=size, seed=seed)


def cached(folder, *, inner=None, limit=PLENTY, precision="float32"):
    store = TokenStore(folder=folder, limit_bytes=limit, precision=precision)
    return CachedBackbone(inner=inner or tower(), store=store)


def images(count=3, seed=0, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def entries(folder):
    return sorted(folder.glob("*/*.tok"))


def assert_same(got, want):
    assert torch.equal(got.cls, want.cls) and got.grid == want.grid
    assert len(got.levels) == len(want.levels)
    assert all(torch.equal(a, b) for a, b in zip(got.levels, want.levels, strict=True))


def alone(inner, batch, taps=TAPS):
    """Each image on its own through the tower."""
    parts = [inner.encode_image(batch[row : row + 1], taps) for row in range(len(batch))]
    return type(parts[0]).join(parts)


def test_fresh_and_remembered_tokens_are_the_towers_bits(tmp_path):
    inner, batch = tower(), images()
    first = cached(tmp_path, inner=inner)
    assert_same(first.encode_image(batch, TAPS), alone(inner, batch))
    again = cached(tmp_path, inner=tower())
    assert_same(again.encode_image(batch.flip(0), TAPS), alone(inner, batch.flip(0)))
    assert (first.misses, first.hits) == (3, 0)
    assert (again.misses, again.hits) == (0, 3)


def test_a_batch_half_known_equals_one_all_new(tmp_path):
    kept = cached(tmp_path)
    kept.encode_image(images()[1:2], TAPS)
    assert_same(kept.encode_image(images(), TAPS), alone(tower(), images()))
    assert kept.misses == 3


def test_an_image_twice_in_a_batch_passes_once(tmp_path):
    kept = cached(tmp_path)
    batch = images(1).repeat(3, 1, 1, 1)
    assert_same(kept.encode_image(batch, TAPS), alone(tower(), batch))
    assert kept.misses == 1


def change_pixel(batch):
    batch = batch.clone()
    batch[0, 0, 0, 0] ^= 1
    return batch


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(lambda folder: cached(folder).encode_image(change_pixel(images(1)), TAPS), id="a pixel"),
        pytest.param(lambda folder: cached(folder).encode_image(images(1).float() / 255, TAPS), id="float pixels"),
        pytest.param(lambda folder: cached(folder).encode_image(images(1), (1, 2)), id="taps"),
        pytest.param(lambda folder: cached(folder).encode_image(images(1), TAPS[::-1]), id="order of the taps"),
        pytest.param(lambda folder: cached(folder, inner=tower(seed=1)).encode_image(images(1), TAPS), id="weights"),
        pytest.param(
            lambda folder: cached(folder, precision="float16").encode_image(images(1), TAPS),
            id="precision of the store",
        ),
    ],
)
def test_what_another_entry_is(tmp_path, again):
    cached(tmp_path).encode_image(images(1), TAPS)
    again(tmp_path)
    assert len(entries(tmp_path)) == 2


@pytest.mark.parametrize("what", ["mean", "std", "a weight that the weights' name does not tell"])
def test_other_preprocessing_and_altered_towers_miss(tmp_path, what):
    cached(tmp_path).encode_image(images(1), TAPS)
    other = deepcopy(tower())
    if what in ("mean", "std"):
        getattr(other, what).add_(0.01)
    else:
        next(value for name, value in other.named_parameters() if "visual" in name and value.ndim == 2).data.mul_(1.001)
    assert_same(cached(tmp_path, inner=other).encode_image(images(1), TAPS), alone(other, images(1)))
    assert len(entries(tmp_path)) == 2


def test_autocast_is_another_tower(tmp_path):
    kept = cached(tmp_path)
    plain = kept.encode_image(images(1), TAPS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = kept.encode_image(images(1), TAPS)
    assert not torch.equal(plain.levels[1], lowered.levels[1])
    assert lowered.levels[1].dtype == torch.float32
    assert len(entries(tmp_path)) == 2


def test_half_precision_gives_the_same_rounded_tokens_fresh_and_remembered(tmp_path):
    kept = cached(tmp_path, precision="float16")
    fresh, remembered = kept.encode_image(images(), TAPS), kept.encode_image(images(), TAPS)
    assert_same(remembered, fresh)
    exact = alone(tower(), images())
    assert torch.equal(fresh.levels[0], exact.levels[0].half().float())
    assert fresh.levels[0].dtype == torch.float32
    assert entries(tmp_path)[0].stat().st_size < 0.6 * 4 * (32 + 2 * 16 * 64) + 500


def test_the_size_of_an_entry_is_known_before_it_is_written(tmp_path):
    kept = cached(tmp_path)
    told = kept.bytes_per_image(TAPS)
    kept.encode_image(images(1), TAPS)
    assert told <= entries(tmp_path)[0].stat().st_size < told + 600


def test_everything_else_is_the_towers_own(tmp_path):
    inner = tower()
    kept = cached(tmp_path, inner=inner)
    assert (kept.weights_id, kept.grid, kept.default_taps) == (inner.weights_id, inner.grid, inner.default_taps)
    tokens = kept.encode_image(images(1), TAPS)
    assert torch.equal(kept.project(tokens.levels[0]), inner.project(tokens.levels[0]))
    assert torch.equal(kept.tokenize(["a part"]), inner.tokenize(["a part"]))
    assert kept.at_size(112).encode_image(images(1, size=112), TAPS).grid == (8, 8)
    with pytest.raises(AttributeError):
        kept.no_such_thing  # noqa: B018
    assert not kept.train().training or not inner.training


def test_mistakes_are_answered_by_the_tower(tmp_path):
    kept = cached(tmp_path)
    with pytest.raises(ConfigError, match="tap 9"):
        kept.encode_image(images(1), (9,))
    with pytest.raises(Exception, match="shape"):
        kept.encode_image(images(1, size=28), TAPS)
    assert kept.encode_image(images(0), TAPS).levels[0].shape == (0, 16, 64)
    assert not entries(tmp_path)


def test_levels_of_several_grids_are_refused(tmp_path):
    kept = cached(tmp_path, inner=build_backbone("random_tiny_cnn"))
    with pytest.raises(ConfigError, match=r"token_cache\.enabled=false"):
        kept.encode_image(images(1, size=64), (1, 2))


def test_gradients_to_pixels_are_not_cut(tmp_path):
    pixels = (images(1).float() / 255).requires_grad_()
    cached(tmp_path).encode_image(pixels, TAPS).levels[0].sum().backward()
    assert pixels.grad is not None and not entries(tmp_path)


# ---- damage


@pytest.mark.parametrize("place", [0, 20, 60, 200, -1])
def test_a_changed_byte_is_computed_again(tmp_path, place):
    cached(tmp_path).encode_image(images(1), TAPS)
    (path,) = entries(tmp_path)
    good = path.read_bytes()
    raw = bytearray(good)
    raw[place] ^= 0x40
    path.write_bytes(raw)
    again = cached(tmp_path)
    assert_same(again.encode_image(images(1), TAPS), alone(tower(), images(1)))
    assert again.misses == 1
    assert path.read_bytes() == good, "it has taken the place of the damaged one"


@pytest.mark.parametrize("content", [b"", b"SOWATOK1", b"\0" * 9000])
def test_cut_and_empty_entries_are_computed_again(tmp_path, content):
    cached(tmp_path).encode_image(images(1), TAPS)
    entries(tmp_path)[0].write_bytes(content)
    assert_same(cached(tmp_path).encode_image(images(1), TAPS), alone(tower(), images(1)))


def test_an_entry_under_another_name_is_not_taken(tmp_path):
    kept = cached(tmp_path)
    kept.encode_image(images(2), TAPS)
    first, second = entries(tmp_path)
    first.write_bytes(second.read_bytes())
    assert_same(cached(tmp_path).encode_image(images(2), TAPS), alone(tower(), images(2)))


@pytest.mark.parametrize("header", [b"not json", b"[]", b'{"dtype":"float99","shapes":[],"grid":[1,1],"key":"k"}'])
def test_a_right_hash_over_a_foreign_content_is_not_taken(header):
    import hashlib
    import struct

    body = struct.pack("<I", len(header)) + header
    raw = token_store.MAGIC + hashlib.sha256(body).digest() + body
    assert token_store._decoded(bytearray(raw), "k") is None


def test_what_a_killed_writer_left_is_no_entry_and_is_swept_away_later(tmp_path):
    cached(tmp_path).encode_image(images(1), TAPS)
    (path,) = entries(tmp_path)
    half = path.with_name(".0123.99-abcd")
    half.write_bytes(path.read_bytes()[:100])
    TokenStore(folder=tmp_path, limit_bytes=PLENTY)
    assert half.exists(), "it may be another process at work"
    os.utime(half, (0, 0))
    TokenStore(folder=tmp_path, limit_bytes=PLENTY)
    assert not half.exists() and path.exists()


def test_killed_before_the_file_gets_its_name(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(token_store.os, "replace", die)
        with pytest.raises(Killed):
            cached(tmp_path).encode_image(images(1), TAPS)
    assert not entries(tmp_path)
    assert_same(cached(tmp_path).encode_image(images(1), TAPS), alone(tower(), images(1)))


def test_a_process_killed_while_writing_leaves_only_whole_entries(tmp_path):
    """A real process, killed in the midst of it."""
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from tests.backbones.test_cache import *\n"
        "kept = cached(Path(sys.argv[1]))\n"
        "for seed in range(10**6):\n"
        "    kept.encode_image(images(2, seed), TAPS)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parents[2])
    try:
        while len(entries(tmp_path)) < 6 and process.poll() is None:
            pass
    finally:
        process.kill()
        process.wait()
    assert len(entries(tmp_path)) >= 6
    store = TokenStore(folder=tmp_path, limit_bytes=PLENTY)
    assert all(store.read(path.stem) is not None for path in entries(tmp_path))


def test_two_processes_at_once(tmp_path):
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from tests.backbones.test_cache import *\n"
        "kept = cached(Path(sys.argv[1]), limit=60_000)\n"
        "for seed in list(range(8)) * 2:\n"
        "    assert_same(kept.encode_image(images(1, seed), TAPS), alone(kept.inner, images(1, seed)))\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(words, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        error = process.communicate()[1]
        assert process.returncode == 0, error
    assert all(path.suffix == ".tok" for path in tmp_path.glob("*/*"))
    store = TokenStore(folder=tmp_path, limit_bytes=PLENTY)
    assert all(store.read(path.stem) is not None for path in entries(tmp_path))
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 60_000 + 2 * 10_000


# ---- room


def entry_bytes(folder):
    cached(folder).encode_image(images(1, seed=99), TAPS)
    return entries(folder)[0].stat().st_size


def test_others_entries_go_first_the_longest_unused_of_them(tmp_path):
    size = entry_bytes(tmp_path / "probe")
    folder = tmp_path / "store"
    earlier = cached(folder)
    earlier.encode_image(images(4, seed=1), TAPS)
    used = {path: path.stat().st_mtime_ns for path in entries(folder)}
    oldest = min(used, key=used.get)
    os.utime(oldest, (1, 1))
    later = cached(folder, limit=int(size * 4.5))
    later.encode_image(images(1, seed=2), TAPS)
    assert not oldest.exists()
    assert len(entries(folder)) == 4
    later.encode_image(images(6, seed=3), TAPS)
    assert sum(path.stat().st_size for path in entries(folder)) <= size * 4.5


def test_its_own_entries_stay_and_the_rest_is_computed_each_time(tmp_path, capsys):
    size = entry_bytes(tmp_path / "probe")
    kept = cached(tmp_path / "store", limit=int(size * 3.5))
    batch = images(8)
    for _ in range(3):
        assert_same(kept.encode_image(batch, TAPS), alone(tower(), batch))
    assert len(entries(tmp_path / "store")) == 3
    assert kept.hits == 2 * 3
    assert capsys.readouterr().err.count("is full") == 1


@pytest.mark.parametrize("trouble", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_stops_the_writing_and_nothing_else(tmp_path, monkeypatch, capsys, trouble):
    def refuse(*_):
        raise OSError(trouble, os.strerror(trouble))

    kept = cached(tmp_path)
    monkeypatch.setattr(token_store.os, "replace", refuse)
    assert_same(kept.encode_image(images(), TAPS), alone(tower(), images()))
    assert not list(tmp_path.glob("*/*"))
    error = capsys.readouterr().err
    assert error.count("cannot be written") == 1 and os.strerror(trouble) in error


def test_the_last_of_a_disk_is_left_to_others(tmp_path, monkeypatch, capsys):
    kept = cached(tmp_path)
    monkeypatch.setattr(token_store, "RESERVE", 1 << 60)
    assert_same(kept.encode_image(images(), TAPS), alone(tower(), images()))
    assert not entries(tmp_path)
    assert "no room left on its disk" in capsys.readouterr().err


def test_entries_may_vanish_at_any_time(tmp_path):
    kept = cached(tmp_path)
    kept.encode_image(images(), TAPS)
    for path in entries(tmp_path):
        path.unlink()
    assert_same(kept.encode_image(images(), TAPS), alone(tower(), images()))


def test_what_cannot_be_a_store(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"set token_cache\.folder"):
        TokenStore(folder=tmp_path / "file" / "store", limit_bytes=PLENTY)
    with pytest.raises(ConfigError, match="above 0"):
        TokenStore(folder=tmp_path, limit_bytes=0)
    with pytest.raises(UnknownNameError, match="float16, float32"):
        TokenStore(folder=tmp_path, limit_bytes=1, precision="int3")
