"""Checks an `april_gan*` file: linear layers, maps, memory, scores, losses, gradients and one step of the optimiser."""

import re

import torch
from torch import Tensor

from sowa.backbones.base import Backbone
from sowa.detectors.april_gan import AprilGan
from sowa.metrics.legacy import paper_image_score
from sowa.types import ABNORMAL, Tokens
from tests.parity.reader import Golden, UnreadableError
from tests.parity.report import Row, compare, compare_relative

TOLERANCES = {"logits_grid": 2e-4, "prob": 2e-5, "text_map": 2e-5, "text_score": 2e-5, "linear": 2e-5}
GRADIENT_TOLERANCE = 1e-5  # also of the weights after one step
FEW_TOLERANCES = {"dist_grid": 2e-6, "visual_map": 2e-5, "map": 2e-5, "map_max": 2e-5, "score": 2e-5}
LOSS_RELATIVE = 1e-5
ADAM = {"lr": 1e-3, "betas": (0.5, 0.999)}
FIXED = {
    "align_corners": True,
    "softmax": "after upsampling",
    "smoothing": "none",
    "interpolation": "bilinear",
    "level_reduce": "sum",
    "nn_metric": "1-cos",
    "bank": "raw taps (no linear layer)",
    "focal": {"gamma": 2, "alpha": None, "smooth": 1e-5},
    "dice": {"smooth": 1, "channel": "abnormal"},
}
"""What the method has no choice about; a file that says otherwise is not of this format."""


def check(golden: Golden) -> list[Row]:
    """A row for every `out.*` tensor of the file; those of its format must be there."""
    for name, value in FIXED.items():
        if golden.entry(name) != value:
            raise UnreadableError(f"{golden.path}: {name}={golden.entry(name)} is not what this format has ({value})")
    detector = build(golden)
    tokens = _tokens(golden, "in.tap", golden["in.global"])
    got = _text(detector, tokens, golden)
    for shots in golden.entry("K"):
        got |= _few(detector, tokens, golden, shots)
    got |= _training(detector, tokens, golden)
    wanted = [name for name in got if not name.startswith("adam_step.")] + ["adam_step.fc.0.weight"]
    rows = [_row(name, got[name], golden[f"out.{name}"]) for name in wanted]
    return rows + [_row(name, got.get(name), want) for name, want in golden.group("out.").items() if name not in wanted]


def build(golden: Golden) -> AprilGan:
    """The detector a file describes; its backbone is a shell that knows sizes, since the file starts at the taps."""
    backbone = Backbone(
        name="shell",
        image_size=golden.entry("map_size"),
        patch=1,
        width=golden.entry("tap_width"),
        joint=golden.entry("embed_dim"),
        depth=golden.entry("levels"),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        text=None,
        text_trained=False,
        weights_id="none",
        default_taps=range(1, golden.entry("levels") + 1),
    )
    detector = AprilGan(backbone=backbone, temperature=1 / golden.entry("logit_scale"), protocol="paper")
    detector.load_trained_state({_own_name(name): value for name, value in golden.group("weights.").items()})
    return detector.eval()


def _own_name(name: str) -> str:
    return re.sub(r"^fc\.", "linear.", name)


def _tokens(golden: Golden, prefix: str, cls: Tensor) -> Tokens:
    levels = tuple(golden[f"{prefix}.{level}"] for level in range(golden.entry("levels")))
    return Tokens(cls, levels, tuple(golden.entry("grid")))


def _row(name: str, got: Tensor | None, want: Tensor) -> Row:
    if name.startswith("loss_"):
        return compare_relative(f"out.{name}", got, want, relative=LOSS_RELATIVE, floor=0.0)
    few = re.match(r"few\d+\.(\w+)", name)
    tolerance = (FEW_TOLERANCES if few else TOLERANCES).get(few[1] if few else name.split(".")[0], GRADIENT_TOLERANCE)
    return compare(f"out.{name}", got, want, tolerance=tolerance)


@torch.no_grad()
def _text(detector: AprilGan, tokens: Tokens, golden: Golden) -> dict[str, Tensor]:
    text = golden["in.text"]
    logits = detector.pixel_logits(tokens, text.expand(len(tokens.cls), -1, -1))
    probabilities = detector.pixel_probabilities(logits)[:, :, ABNORMAL]
    prediction = detector.score(tokens, {"prototypes": text})
    got = {"text_map": prediction.score_map, "text_score": prediction.score}
    for level, linear in enumerate(detector.linear):
        got[f"linear.{level}"] = linear(tokens.levels[level])
        got |= {f"logits_grid.{level}": logits[:, level], f"prob.{level}": probabilities[:, level]}
    return got


@torch.no_grad()
def _few(detector: AprilGan, tokens: Tokens, golden: Golden, shots: int) -> dict[str, Tensor]:
    text = golden["in.text"]
    cls = torch.ones(len(golden["in.ref_tap.0"]), text.shape[1])  # the references' own is not needed
    support = _tokens(golden, "in.ref_tap", cls).rows(slice(0, shots))
    reference = {"prototypes": text} | detector.memorise(support, text)
    prediction = detector.score(tokens, reference)
    parts = prediction.parts
    score = paper_image_score(parts["probability"].tolist(), parts["peak"].tolist())
    got = {"map": prediction.score_map, "map_max": parts["peak"], "visual_map": parts["memory_map"]}
    got["score"] = torch.from_numpy(score)
    got |= {f"dist_grid.{i}": grid for i, grid in enumerate(detector.memory_grids(tokens, reference["bank"]))}
    return {f"few{shots}.{name}": value for name, value in got.items()}


def _training(detector: AprilGan, tokens: Tokens, golden: Golden) -> dict[str, Tensor]:
    text = golden["in.text"].expand(len(tokens.cls), -1, -1)
    levels = detector.level_losses(tokens, text, golden["in.masks"])
    got = {"loss_total": sum(focal + dice for focal, dice in levels)}
    for level, (focal, dice) in enumerate(levels):
        got |= {f"loss_focal.{level}": focal, f"loss_dice.{level}": dice}
    got["loss_total"].backward()
    own = dict(detector.trainable_parameters())
    names = [name.removeprefix("weights.") for name in golden.tensors if name.startswith("weights.")]
    got |= {f"grad.{name}": own[_own_name(name)].grad for name in names}
    torch.optim.Adam(own.values(), **ADAM).step()
    return got | {f"adam_step.{name}": own[_own_name(name)] for name in names}
