"""Torch archives: everything torch writes is read, nothing a file can hold is executed, damage is one line."""

import argparse
import collections
import io
import os
import random
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from sowa.archive import read_torch_archive, state_of
from sowa.errors import ArtifactError

pytestmark = pytest.mark.filterwarnings("ignore")  # torch deprecates its own TorchScript, which we still read


def _network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Conv2d(1, 2, 3))).eval()


def _same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def _archive(path, pickled: bytes, **storages: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key.removeprefix('s')}", content)
    return path


def _tensor_pickle(shape=(2,), stride=(1,), offset=0, kind=b"FloatStorage", key=b"0") -> bytes:
    """A state dict {"a": tensor} as torch writes it, with any numbers in it."""

    def numbers(row):
        return b"(" + b"".join(b"I%d\n" % number for number in row) + b"t"

    storage = b"(V" + b"storage\nctorch\n" + kind + b"\nV" + key + b"\nVcpu\nI2\ntQ"
    arguments = b"(" + storage + b"I%d\n" % offset + numbers(shape) + numbers(stride) + b"I00\nNt"
    return b"\x80\x02}Va\nctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def test_a_state_dict_is_read_bit_for_bit(tmp_path):
    state = _network().state_dict()
    torch.save(state, tmp_path / "a.pt")
    _same(read_torch_archive(tmp_path / "a.pt"), dict(state))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "dtype", ["float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
)
def test_every_type_of_number_and_layout(tmp_path, dtype, protocol):
    whole = torch.arange(24).reshape(4, 6).remainder(3).to(getattr(torch, dtype))
    tensors = {"view": whole[1:3, ::2], "turned": whole.t(), "scalar": whole[1, 1], "empty": whole[:0], "whole": whole}
    torch.save(tensors, tmp_path / "a.pt", pickle_protocol=protocol)
    _same(read_torch_archive(tmp_path / "a.pt"), tensors)


def test_a_checkpoint_with_any_settings_in_it(tmp_path):
    network = _network()
    checkpoint = {
        "epoch": 3,
        "state_dict": network.state_dict(),
        "hyper_parameters": argparse.Namespace(bank=torch.ones(2), path=os.path, when=collections.Counter("abc")),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(1)}}, "param_groups": [{"betas": (0.9, 0.99)}]}],
        "random": random.Random(3).getstate(),
        "kinds": {1, 2, frozenset("ab")},
        "numbers": [1.5, -(2**70), b"bytes", bytearray(b"x"), None, True, 2 + 3j],
        "queue": collections.deque([torch.zeros(1)]),
        "default": collections.defaultdict(list, {"kept": torch.full((1,), 7.0)}),
    }
    checkpoint["hyper_parameters"].path = "text"
    torch.save(checkpoint, tmp_path / "a.ckpt")
    read = read_torch_archive(tmp_path / "a.ckpt")
    _same(state_of(read), dict(network.state_dict()))
    assert torch.equal(read["hyper_parameters.bank"], torch.ones(2))
    assert read["optimizer_states.0.state.0.exp_avg"].item() == 1
    assert read["queue.0"].item() == 0 and read["default.kept"].item() == 7


def test_a_whole_pickled_network_and_parameters(tmp_path):
    network = _network()
    torch.save({"net": network, "own": nn.Parameter(torch.ones(2))}, tmp_path / "a.pt")
    read = read_torch_archive(tmp_path / "a.pt")
    assert torch.equal(read["net._modules.0._parameters.weight"], network[0].weight)
    assert torch.equal(read["own"], torch.ones(2)) and not read["own"].requires_grad


@pytest.mark.parametrize("half", [False, True])
def test_a_torchscript_archive_has_the_names_of_its_state_dict(tmp_path, half):
    network = _network()[:2]
    traced = torch.jit.trace(network, torch.randn(2, 3))
    traced = traced.half() if half else traced
    traced.save(tmp_path / "a.pt")
    _same(read_torch_archive(tmp_path / "a.pt"), dict(traced.state_dict()))


def test_shared_tensors_share_memory(tmp_path):
    weight = torch.arange(6.0)
    torch.save({"a": weight, "b": weight.view(2, 3), "c": {"d": weight}}, tmp_path / "a.pt")
    read = read_torch_archive(tmp_path / "a.pt")
    assert len({tensor.data_ptr() for tensor in read.values()}) == 1 and set(read) == {"a", "b", "c.d"}


def test_what_is_not_called_state_dict_is_the_state():
    tensors = {"a": torch.ones(1), "b.c": torch.ones(2)}
    assert state_of(tensors).keys() == tensors.keys()
    assert state_of({"state_dict.a": torch.ones(1), "other": torch.ones(1)}).keys() == {"a"}


class _Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_nothing_is_executed(tmp_path):
    marker = str(tmp_path / "executed")
    torch.save({"state_dict": {"a": torch.ones(2)}, "hook": _Evil(marker)}, tmp_path / "evil.pt")
    assert torch.equal(read_torch_archive(tmp_path / "evil.pt")["state_dict.a"], torch.ones(2))
    assert not os.path.exists(marker)
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert os.path.exists(marker), "the trap must be one that works on who unpickles"


@pytest.mark.parametrize(
    "pickled",
    [
        b"cos\nsystem\n(S'touch executed'\ntR.",
        b"(S'touch executed'\nios\nsystem\n.",
        b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        b"(cos\nsystem\nS'touch executed'\no.",
    ],
)
def test_calls_by_every_route_stay_records(tmp_path, monkeypatch, pickled):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "system", lambda _: pytest.fail("executed"))
    assert read_torch_archive(_archive(tmp_path / "a.pt", pickled)) == {}
    assert not (tmp_path / "executed").exists()


def test_the_handmade_pickle_is_one_torch_would_write(tmp_path):
    """So that the refusals below are due to the numbers, not to the form."""
    path = _archive(tmp_path / "a.pt", _tensor_pickle(), s0=b"\0\0\x80?\0\0\0@")
    assert read_torch_archive(path)["a"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"shape": (3,)}, "reaches past its storage"),
        ({"offset": 1}, "reaches past its storage"),
        ({"offset": -1}, "does not fit"),
        ({"stride": (2,)}, "reaches past its storage"),
        ({"stride": (-1,)}, "does not fit"),
        ({"shape": (-1,)}, "does not fit"),
        ({"shape": (1 << 40,), "stride": (0,)}, "does not fit"),
        ({"shape": (1 << 62, 1 << 62), "stride": (0, 0)}, "does not fit"),
        ({"key": b"7"}, "archive/data/7 is missing"),
        ({"key": b"../data.pkl"}, "is missing"),
    ],
)
def test_a_tensor_that_lies_about_itself_is_refused(tmp_path, numbers, message):
    path = _archive(tmp_path / "a.pt", _tensor_pickle(**numbers), s0=bytes(8))
    with pytest.raises(ArtifactError, match=message) as caught:
        read_torch_archive(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_type_of_number_we_do_not_know_is_left_out(tmp_path):
    assert read_torch_archive(_archive(tmp_path / "a.pt", _tensor_pickle(kind=b"QInt8Storage"), s0=bytes(8))) == {}


def test_an_expanded_tensor_is_read_without_its_copies(tmp_path):
    torch.save({"a": torch.ones(1).expand(1000)}, tmp_path / "a.pt")
    read = read_torch_archive(tmp_path / "a.pt")["a"]
    assert read.sum() == 1000 and read.untyped_storage().nbytes() == 4


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (b"", "damaged"),
        (b"\x80\x02}", "damaged"),
        (b".", "damaged"),
        (b"R.", "empty stack"),
        (b"}q\x00h\x07.", "damaged"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x00.", "damaged"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"}I1\nI2\nI3\ntu.", "damaged"),
        (b"I1\n(I2\nI3\nu.", "without names"),
        (b"}(I2\ne.", "no list"),
        (b"Vother\nQ.", "no storage|damaged"),
    ],
)
def test_a_pickle_that_makes_no_sense_is_refused(tmp_path, pickled, message):
    with pytest.raises(ArtifactError, match=message) as caught:
        read_torch_archive(_archive(tmp_path / "a.pt", pickled))
    assert "\n" not in str(caught.value)


def test_nesting_without_end_is_refused_or_cut(tmp_path):
    doubling = b"]" + b"".join(b"q%c](h%ch%ce" % (index, index, index) for index in range(60)) + b"."
    with pytest.raises(ArtifactError, match="nested beyond"):
        read_torch_archive(_archive(tmp_path / "doubling.pt", b"\x80\x02" + doubling))
    loop = b"\x80\x02}q\x00Va\nh\x00s."  # a dict that holds itself
    assert read_torch_archive(_archive(tmp_path / "loop.pt", loop)) == {}
    deep = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    assert read_torch_archive(_archive(tmp_path / "deep.pt", deep)) == {}


def test_a_pickle_of_too_many_steps_is_refused(tmp_path, monkeypatch):
    path = _archive(tmp_path / "a.pt", b"\x80\x02" + b"N0" * 1000 + b"}.")
    assert read_torch_archive(path) == {}
    monkeypatch.setattr("sowa.pickled.OPCODES", 2000)
    with pytest.raises(ArtifactError, match="more than 2000 steps"):
        read_torch_archive(path)


def test_two_tensors_of_one_name_are_refused(tmp_path):
    torch.save({"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}}, tmp_path / "a.pt")
    with pytest.raises(ArtifactError, match=r"two tensors are named 'a\.b'"):
        read_torch_archive(tmp_path / "a.pt")


def test_compressed_entries_are_refused(tmp_path):
    """A few kilobytes could unfold into gigabytes; torch never compresses."""
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", _tensor_pickle())
        archive.writestr("archive/data/0", bytes(8_000_000))
    with pytest.raises(ArtifactError, match="compressed"):
        read_torch_archive(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04", b"\x80\x02l\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"no|not") as caught:
        read_torch_archive(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)


def test_absent_files_folders_and_other_zips_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="No such file"):
        read_torch_archive(tmp_path / "none.pt")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_torch_archive(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(ArtifactError, match="holds 0 files"):
        read_torch_archive(tmp_path / "a.zip")


def test_big_endian_numbers_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("archive/data.pkl", _tensor_pickle())
        archive.writestr("archive/byteorder", "big")
    with pytest.raises(ArtifactError, match="big-endian"):
        read_torch_archive(tmp_path / "a.pt")


@given(cut=st.floats(0, 0.999), flip=st.one_of(st.none(), st.floats(0, 0.999)))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_either_read_as_it_was_or_refused_in_one_line(tmp_path, cut, flip):
    buffer = io.BytesIO()
    state = {"a": torch.arange(50.0), "b": torch.ones(3, 3)}
    torch.save({"state_dict": state, "x": argparse.Namespace(y=1)}, buffer)
    content = bytearray(buffer.getvalue())
    if flip is None:
        content = content[: int(len(content) * cut)]
    else:
        content[int(len(content) * flip)] ^= 0x55
    (tmp_path / "a.pt").write_bytes(content)
    try:
        read = state_of(read_torch_archive(tmp_path / "a.pt"))
    except ArtifactError as refusal:
        assert "\n" not in str(refusal)
    else:
        assert flip is not None
        _same(read, state)
