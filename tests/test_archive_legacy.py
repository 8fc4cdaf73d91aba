import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sowa.archive_legacy import is_legacy_archive, read_legacy_archive
from sowa.errors import ArtifactError


def saved(value, path: Path) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=False)
    return path


def state() -> OrderedDict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    whole = torch.randn(4, 6, generator=g)
    return OrderedDict(
        weight=whole,
        part=whole.T[1:, ::2],
        half=torch.randn(3, generator=g).half(),
        brain=torch.randn(3, generator=g).bfloat16(),
        counter=torch.tensor(5),
        flags=torch.tensor([True, False]),
        none=torch.empty(0, 3),
        parameter=torch.nn.Parameter(torch.ones(2)),
    )


def test_every_tensor_comes_back(tmp_path):
    path = saved({"state_dict": state(), "epoch": 3, "note": ["a", 1.5]}, tmp_path / "a.pth")
    assert is_legacy_archive(path)
    got, want = read_legacy_archive(path), state()
    assert got.keys() == {f"state_dict.{name}" for name in want}
    for name, value in want.items():
        assert got[f"state_dict.{name}"].dtype == value.dtype and torch.equal(got[f"state_dict.{name}"], value)
    # Shared memory stays shared.
    got["state_dict.weight"].zero_()
    assert not got["state_dict.part"].any()


def test_a_zip_archive_and_other_files_are_not_legacy(tmp_path):
    torch.save(state(), tmp_path / "new.pth")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "empty").touch()
    for name in ("new.pth", "plain.pkl", "empty"):
        assert not is_legacy_archive(tmp_path / name)
        with pytest.raises(ArtifactError, match=name):
            read_legacy_archive(tmp_path / name)
    with pytest.raises(ArtifactError, match="absent"):
        read_legacy_archive(tmp_path / "absent")


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("trap-was-sprung"),))


def test_nothing_in_it_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = saved({"a": torch.ones(2), "trap": Trap()}, tmp_path / "trap.pth")
    assert read_legacy_archive(path).keys() == {"a"}
    assert not Path("trap-was-sprung").exists()


def test_too_large_a_file_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="larger"):
        read_legacy_archive(saved(state(), tmp_path / "a.pth"), most_bytes=100)


@given(data=st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_one_line_or_other_numbers(data, tmp_path):
    """A cut or overwritten file raises the named error; bytes inside the numbers are not protected by this format."""
    path = saved(state(), tmp_path / "a.pth")
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        read_legacy_archive(path)
    except ArtifactError as error:
        assert "\n" not in str(error)
    else:
        assert len(content) > place


def test_a_count_that_the_file_does_not_hold_is_not_allocated(tmp_path):
    path = saved({"a": torch.ones(2)}, tmp_path / "a.pth")
    content = path.read_bytes()
    for count in (-1, 1 << 60):
        path.write_bytes(content[:-16] + count.to_bytes(8, "little", signed=True) + content[-8:])
        with pytest.raises(ArtifactError, match="cut short"):
            read_legacy_archive(path)
