"""A checkpoint of the paper's code becomes a file of trained tensors; nothing in it is executed."""

import functools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sowa.artifact import UNVERIFIED, import_published, load_trained, read_trained
from sowa.backbones.clip import clip_from_state
from sowa.cli import main
from sowa.detectors.sowa import Sowa
from sowa.errors import ArtifactError

GOLDEN = load_file(Path(__file__).parent / "parity" / "golden" / "sowa_hfwa.safetensors")


def group(prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in GOLDEN.items() if name.startswith(prefix)}


def towers() -> dict[str, torch.Tensor]:
    state = group("clip.")
    rows, values = state.pop("token_embedding.rows"), state.pop("token_embedding.values")
    table = torch.zeros(49408, values.shape[1])
    table[rows] = values
    return state | {"token_embedding.weight": table}


def published(path: Path, *, with_clip: bool = True) -> Path:
    """As the authors' training writes it: prefix `net.`, copies of CLIP, hyper-parameters that hold code."""
    state = {f"net.{name}": value for name, value in group("param.").items()}
    if with_clip:
        state |= {f"net.clip_model.{name}": value for name, value in towers().items()}
    state["net.visual_encoder.adapters.0.blocks.0.attn.relative_coords_table"] = torch.zeros(1, 7, 7, 2)
    torch.save({"state_dict": state, "epoch": 0, "hyper_parameters": {"optimizer": functools.partial(print, 1)}}, path)
    return path


def detector(options: dict) -> Sowa:
    backbone = clip_from_state(towers(), quick_gelu=True, mean=(0, 0, 0), std=(1, 1, 1), text_heads=2)
    return Sowa(backbone=backbone, **options).eval()


def test_options_and_tensors_come_from_the_checkpoint(tmp_path):
    meta = import_published(published(tmp_path / "epoch_000.ckpt"), tmp_path / "trained.safetensors")
    options = {key: value for key, value in meta["model"].items() if key != "name"}
    assert options["window"] == 4 and options["heads"] == 4 and options["adapter"] == "window"
    one = detector(options)
    assert load_trained(tmp_path / "trained.safetensors", one)["imported"] == "epoch_000.ckpt"
    torch.testing.assert_close(one.prompts[0].context, GOLDEN["param.prompt_learner.ctx_pos"])
    adapted = one.adapt(one.encode(GOLDEN["in.images"]))
    torch.testing.assert_close(one.backbone.project(adapted[0]), GOLDEN["out.adapted.0"], atol=1e-4, rtol=0)


def test_a_checkpoint_without_its_backbone_is_taken_unverified(tmp_path):
    out = tmp_path / "trained.safetensors"
    import_published(published(tmp_path / "small.ckpt", with_clip=False), out)
    assert read_trained(out)[1]["weights_id"] == UNVERIFIED
    load_trained(out, detector({"window": 4, "heads": 4, "cpb_dim": 16}))


def test_another_backbone_is_refused(tmp_path):
    import_published(published(tmp_path / "a.ckpt"), tmp_path / "trained.safetensors")
    other = towers()
    other["visual.proj"] = other["visual.proj"] + 1
    backbone = clip_from_state(other, quick_gelu=True, mean=(0, 0, 0), std=(1, 1, 1), text_heads=2)
    with pytest.raises(ArtifactError, match="choose the backbone"):
        load_trained(tmp_path / "trained.safetensors", Sowa(backbone=backbone, window=4, heads=4, cpb_dim=16))


def test_the_command(tmp_path, capsys):
    with pytest.raises(SystemExit) as done:
        main(["import", str(published(tmp_path / "a.ckpt")), str(tmp_path / "out.safetensors")])
    assert done.value.code == 0 and (tmp_path / "out.safetensors").is_file()


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"not an archive"])
def test_a_foreign_file_is_one_line(tmp_path, content, capsys):
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(SystemExit) as done:
        main(["import", str(tmp_path / "x.ckpt"), str(tmp_path / "out.safetensors")])
    error = capsys.readouterr().err
    assert done.value.code == 2 and len(error.splitlines()) == 1 and "x.ckpt" in error
    assert not (tmp_path / "out.safetensors").exists()


def test_a_checkpoint_of_something_else_is_one_line(tmp_path):
    torch.save({"state_dict": {"encoder.weight": torch.zeros(2)}}, tmp_path / "x.ckpt")
    with pytest.raises(ArtifactError, match="no trained SOWA tensor"):
        import_published(tmp_path / "x.ckpt", tmp_path / "out.safetensors")
