"""Checks a `prompts*` file: token ids of every ensemble in order, text features, and both ways of pooling them."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from sowa.backbones.clip import ClipBackbone, clip_from_state
from sowa.backbones.sentences import encode_sentences
from sowa.backbones.state import draw_state
from sowa.nn.ensemble import ensemble, pool_prompts, spaced
from tests.parity.reader import Golden, UnreadableError
from tests.parity.report import Row, compare, exact

TOLERANCE = 1e-5
ENSEMBLE_OF = {"winclip22": "winclip", "winclip21": "anomalib", "april": "april_gan"}
"""The files' names for the lists of `ENSEMBLES`."""
PROMISED = ("tokens.{}.spaced.normal", "tokens.{}.spaced.abnormal", "text.{}.spaced.norm_each")
"""What a file holds of each list at least."""
FIXED = {"order": "state-major: for state in states, for template in templates", "sot": 49406, "eot": 49407, "pad": 0}
"""What the tokenizer and the lists have no choice about; a file that says otherwise is not of this format."""


def check(golden: Golden) -> list[Row]:
    """A row for every `out.*` tensor of the file; those of its format must be there."""
    for name, value in FIXED.items():
        if golden.entry(name) != value:
            raise UnreadableError(f"{golden.path}: {name}={golden.entry(name)} is not what this format has ({value})")
    for which in ENSEMBLE_OF:
        for name in PROMISED:
            golden[f"out.{name.format(which)}"]
    got, outputs = dict(_all(build(golden), golden)), golden.group("out.")
    return [_row(f"out.{name}", got.get(name), want) for name, want in sorted(outputs.items())]


def build(golden: Golden) -> ClipBackbone:
    """The file's text tower beside an image tower of one block, which nothing here looks at."""
    state = golden.group("weights.text.")
    joint = state["text_projection"].shape[1]
    return clip_from_state(
        state | draw_state(_image_shapes(joint), seed=0),
        quick_gelu=golden.entry("act") == "quickgelu",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        text_heads=golden.entry("text_heads"),
    )


def _image_shapes(joint: int) -> dict[str, tuple[int, ...]]:
    block = "visual.transformer.resblocks.0."
    norms = ("visual.ln_pre", "visual.ln_post", f"{block}ln_1", f"{block}ln_2")
    return {f"{norm}.{kind}": (4,) for norm in norms for kind in ("weight", "bias")} | {
        "visual.conv1.weight": (4, 3, 2, 2),
        "visual.class_embedding": (4,),
        "visual.positional_embedding": (2, 4),
        "visual.proj": (4, joint),
        f"{block}attn.in_proj_weight": (12, 4),
        f"{block}attn.in_proj_bias": (12,),
        f"{block}attn.out_proj.weight": (4, 4),
        f"{block}attn.out_proj.bias": (4,),
        f"{block}mlp.c_fc.weight": (8, 4),
        f"{block}mlp.c_fc.bias": (8,),
        f"{block}mlp.c_proj.weight": (4, 8),
        f"{block}mlp.c_proj.bias": (4,),
    }


def _all(backbone: ClipBackbone, golden: Golden) -> Iterator[tuple[str, Tensor]]:
    """Every output the format may have, by name."""
    category = golden.entry("class_name")
    for which, list_name in ENSEMBLE_OF.items():
        for kind, word in (("raw", category), ("spaced", spaced(category))):
            by_state = ensemble(list_name).sentences(word)
            features = [encode_sentences(backbone, sentences) for sentences in by_state]
            for state, sentences, of_state in zip(("normal", "abnormal"), by_state, features, strict=True):
                yield f"tokens.{which}.{kind}.{state}", backbone.tokenize(sentences)
                yield f"features.{which}.{kind}.{state}", of_state
            for pooling, norm_each in (("norm_each", True), ("plain_mean", False)):
                pooled = [pool_prompts(of_state, norm_each=norm_each) for of_state in features]
                yield f"text.{which}.{kind}.{pooling}", torch.stack(pooled)
    for name in golden.tensors:
        if match := re.fullmatch(r"out\.(tokens\.inctrl_semantic_(\w+))", name):
            normal, abnormal = ensemble("inctrl_semantic").sentences(match[2])
            yield match[1], backbone.tokenize([*normal, *abnormal])


def _row(name: str, got: Tensor | None, want: Tensor) -> Row:
    if got is not None and name.startswith("out.tokens."):
        return exact(name, got, want)
    return compare(name, got, want, tolerance=TOLERANCE)
