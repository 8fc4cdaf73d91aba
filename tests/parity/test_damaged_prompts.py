"""Damaged copies of the files of PromptAD, InCTRL and the taps of CLIP are noticed, tensor by tensor."""

import math

import pytest
import torch
from safetensors.torch import save_file

from tests.parity.__main__ import check_file, main
from tests.parity.reader import Golden
from tests.parity.test_parity import GOLDEN, copy_of, nudge

METHODS = ("promptad", "inctrl", "clip_taps")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small lose more to waiting threads than they win."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def damaged(method: str, tmp_path, change):
    return copy_of(GOLDEN / f"{method}.safetensors", tmp_path / f"{method}_damaged.safetensors", change)


@pytest.mark.parametrize("method", METHODS)
def test_no_output_is_passed_over(method, tmp_path):
    def nudge_all(tensors, metadata):
        for name in tensors:
            if name.startswith("out."):
                flat = tensors[name].reshape(-1)
                flat[-1] += 1 if flat.dtype == torch.int32 else 1e-2 * max(1.0, flat.abs().max().item())

    path = damaged(method, tmp_path, nudge_all)
    good = {row.name for row in check_file(path, None) if row.good}
    assert good <= {"mapped_name"}
    assert {row.name for row in check_file(path, None)} >= {n for n in Golden(path).tensors if n.startswith("out.")}


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("promptad", nudge("in.images", 0.5)),
        ("promptad", nudge("in.cls.abnormal_ctx", 0.2)),
        ("promptad", nudge("in.text", 0.2)),
        ("promptad", nudge("weights.visual.transformer.resblocks.11.attn.out_proj.bias", 0.1)),
        ("promptad", lambda tensors, metadata: metadata.update(sigma="4.1")),
        ("promptad", lambda tensors, metadata: metadata.update(mid_blocks="[2, 6]")),
        ("promptad", lambda tensors, metadata: metadata.update(act="quickgelu")),
        ("promptad", lambda tensors, metadata: metadata.update(logit_scale="ln(90)")),
        ("promptad", lambda tensors, metadata: metadata.update(mapped_name="nut of metal")),
        ("promptad", nudge("out.seg.loss_align", math.nan)),
        ("inctrl", nudge("in.tap.1", 0.5)),
        ("inctrl", nudge("weights.diff_head.bn3.running_var", 0.2)),
        ("inctrl", lambda tensors, metadata: metadata.update(logit_scale="90")),
        ("inctrl", lambda tensors, metadata: metadata.update(bn_eps="0.1")),
        ("clip_taps", nudge("weights.visual.positional_embedding", 0.1)),
        ("clip_taps", lambda tensors, metadata: metadata.update(heads="4")),
        *((method, lambda tensors, metadata: tensors.update({"out.extra": torch.zeros(1)})) for method in METHODS),
    ],
)
def test_a_damaged_copy_is_one(method, change, tmp_path):
    assert main([str(damaged(method, tmp_path, change))]) == 1


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("promptad", "out.cls.loss_clip"),
        ("promptad", "out.few2.ref.seg_map.tln100"),
        ("promptad", "weights.visual.proj"),
        ("inctrl", "out.score"),
        ("inctrl", "weights.adapter.fc.2.weight"),
        ("clip_taps", "out.gelu.tap.9"),
        ("clip_taps", "in.images_large"),
    ],
)
def test_a_missing_tensor_is_two(method, name, tmp_path, capsys):
    assert main([str(damaged(method, tmp_path, lambda tensors, metadata: tensors.pop(name)))]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_fewer_shots_and_images_are_read_from_the_file(tmp_path):
    golden = Golden(GOLDEN / "promptad.safetensors")
    tensors = {name: value for name, value in golden.tensors.items() if "few2" not in name}
    path = tmp_path / "promptad_one.safetensors"
    save_file(tensors, path, metadata=golden.metadata | {"K": "[1]"})
    assert main([str(path)]) == 0

    golden = Golden(GOLDEN / "inctrl.safetensors")
    whole = golden.entry("batch")
    of_batch = ("out.train", "out.scrambled", "out.loss")  # these depend on all images together
    tensors = {
        name: value[:2].contiguous() if value.shape[:1] == (whole,) and name.startswith(("in.", "out.")) else value
        for name, value in golden.tensors.items()
    }
    path = tmp_path / "inctrl_two.safetensors"
    save_file(tensors, path, metadata=golden.metadata | {"batch": "2"})
    bad = {row.name for row in check_file(path, None) if not row.good}
    assert bad and all(name.startswith(of_batch) for name in bad)
