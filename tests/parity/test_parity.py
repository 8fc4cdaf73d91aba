"""The parity command passes on the golden files and fails on every kind of damaged copy."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.parity.__main__ import main
from tests.parity.report import compare, compare_relative

GOLDEN = Path(__file__).parent / "golden"


def copy_of(path: Path, target: Path, change) -> Path:
    with safe_open(path, framework="pt") as handle:
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        metadata = handle.metadata()
    change(tensors, metadata)
    save_file(tensors, target, metadata=metadata)
    return target


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.safetensors")), ids=lambda p: p.stem)
def test_golden_numbers(path, capsys):
    assert main([str(path)]) == 0
    assert "0 past tolerance" in capsys.readouterr().out


def nudge(name: str, amount: float):
    def change(tensors, metadata):
        tensors[name].reshape(-1)[-1].add_(amount)

    return change


DAMAGES = {
    "an output": nudge("out.kshot_map", 1e-3),
    "a loss": nudge("out.loss_dice", 1e-3),
    "a gradient": nudge("grad.prompt_learner.ctx_pos", 1e-2),
    "nan": nudge("out.text_probs", float("nan")),
    "an input": nudge("in.images", 0.5),
    "a weight": nudge("clip.visual.proj", 0.1),
    "a parameter": nudge("param.visual_encoder.adapters.1.blocks.0.norm2.bias", 0.1),
    "temperature": lambda tensors, metadata: metadata.update(temperature="0.08"),
    "an unknown output": lambda tensors, metadata: tensors.update({"out.extra": torch.zeros(1)}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_copy_fails(damage, tmp_path):
    path = copy_of(GOLDEN / "sowa_hfwa.safetensors", tmp_path / "sowa_damaged.safetensors", DAMAGES[damage])
    assert main([str(path)]) == 1


@pytest.mark.parametrize("kernel", ["out.up.align_true", "out.gauss.small"])
def test_a_damaged_kernel_fails(kernel, tmp_path):
    path = copy_of(GOLDEN / "kernels.safetensors", tmp_path / "kernels_damaged.safetensors", nudge(kernel, 1e-4))
    assert main([str(path)]) == 1


def test_a_file_that_cannot_be_read_is_two(tmp_path, capsys):
    whole = (GOLDEN / "sowa_linear.safetensors").read_bytes()
    (tmp_path / "sowa_cut.safetensors").write_bytes(whole[:5000])
    (tmp_path / "sowa_text.safetensors").write_text("hello")
    for path in (tmp_path / "sowa_cut.safetensors", tmp_path / "sowa_text.safetensors", tmp_path / "sowa_absent"):
        assert main([str(path)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_missing_tensor_is_two(tmp_path):
    def drop(tensors, metadata):
        del tensors["out.loss_ce"]

    assert main([str(copy_of(GOLDEN / "sowa_linear.safetensors", tmp_path / "sowa_x.safetensors", drop))]) == 2


def test_method_may_be_given(tmp_path):
    other = tmp_path / "renamed.safetensors"
    other.write_bytes((GOLDEN / "kernels.safetensors").read_bytes())
    assert main([str(other)]) == 2
    assert main(["--method", "kernels", str(other)]) == 0
    assert main(["--method", "sowa", str(other)]) == 2


def test_the_worst_file_decides(tmp_path):
    bad = copy_of(GOLDEN / "kernels.safetensors", tmp_path / "kernels_bad.safetensors", nudge("out.gauss.small", 1))
    assert main([str(bad), str(GOLDEN / "kernels.safetensors")]) == 1
    assert main([str(tmp_path / "sowa_absent"), str(bad)]) == 2


def test_comparison_knows_shapes_and_nan():
    one = torch.zeros(2)
    assert compare("x", one, one, tolerance=0).good
    assert not compare("x", one, torch.zeros(3), tolerance=1).good
    assert not compare("x", None, one, tolerance=1).good
    assert not compare("x", one, one * float("nan"), tolerance=1).good
    assert compare_relative("x", one + 1e-6, one, relative=1e-3, floor=5e-6).good
    assert not compare_relative("x", one + 1e-5, one, relative=1e-3, floor=5e-6).good
