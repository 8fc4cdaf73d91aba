"""Damaged copies of the files of WinCLIP, April-GAN and the prompt ensembles fail; files of other sizes are read."""

import pytest
import torch

from tests.parity.__main__ import main
from tests.parity.test_parity import GOLDEN, copy_of, nudge


def metadata(**entries):
    return lambda tensors, about: about.update(entries)


def unknown(tensors, about):
    tensors["out.extra"] = torch.zeros(1)


def swap_prompts(name: str):
    def change(tensors, about):
        tensors[name][[0, 1]] = tensors[name][[1, 0]]

    return change


def drop(name: str):
    def change(tensors, about):
        del tensors[name]

    return change


DAMAGES = {
    "winclip": {
        "a map": nudge("out.few2.map", 1e-4),
        "an index": nudge("out.window_index.3", 1),
        "an embedding": nudge("out.window_embeddings.2", 1e-3),
        "an aggregation": nudge("out.harmonic_map", 1e-4),
        "a weight": nudge("weights.visual.transformer.resblocks.2.mlp.c_proj.bias", 0.1),
        "the words": nudge("in.text", 0.5),
        "a shot": nudge("in.ref_images", 0.5),
        "nan": nudge("out.s0", float("nan")),
        "the temperature": metadata(temperature="0.08"),
        "the activation": metadata(act="quickgelu"),
        "an unknown output": unknown,
    },
    "april_gan": {
        "a map": nudge("out.few2.map", 1e-3),
        "a distance": nudge("out.few1.dist_grid.3", 1e-4),
        "a gradient": nudge("out.grad.fc.2.weight", 1e-3),
        "a loss": nudge("out.loss_dice.1", 1e-3),
        "the score of the set": nudge("out.few1.score", 1e-3),
        "the step": nudge("out.adam_step.fc.0.weight", 1e-4),
        "a weight": nudge("weights.fc.3.weight", 0.1),
        "a mask": lambda tensors, about: tensors["in.masks"][0].neg_().add_(1),
        "the scale": metadata(logit_scale="90"),
        "an unknown output": unknown,
    },
    "prompts": {
        "the order": swap_prompts("out.tokens.winclip22.spaced.abnormal"),
        "the order of the library": swap_prompts("out.tokens.winclip21.raw.normal"),
        "the pair": nudge("out.tokens.inctrl_semantic_dog", 1),
        "a feature": nudge("out.features.april.spaced.normal", 1e-4),
        "the pooling": nudge("out.text.winclip21.raw.plain_mean", 1e-4),
        "the category": metadata(class_name="metal nut"),
    },
}


@pytest.mark.parametrize(("method", "damage"), [(m, d) for m, damages in DAMAGES.items() for d in damages])
def test_a_damaged_copy_fails(method, damage, tmp_path):
    path = copy_of(GOLDEN / f"{method}.safetensors", tmp_path / f"{method}_x.safetensors", DAMAGES[method][damage])
    assert main([str(path)]) == 1


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("winclip", drop("out.few1.score")),
        ("winclip", metadata(stride="2")),
        ("april_gan", drop("in.tap.3")),
        ("april_gan", drop("out.prob.0")),
        ("april_gan", metadata(nn_metric="l2")),
        ("prompts", drop("out.tokens.april.spaced.normal")),
        ("prompts", drop("weights.text.text_projection")),
    ],
)
def test_a_file_of_another_format_is_two(method, change, tmp_path, capsys):
    path = copy_of(GOLDEN / f"{method}.safetensors", tmp_path / f"{method}_x.safetensors", change)
    assert main([str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
