"""Checks an `inctrl*` file: residuals, heads, losses, gradients and running statistics from stored tokens.

The file has no towers, so a backbone that only knows its sizes stands in. `out.scrambled.*` is what the published code
makes of a whole batch: its mixing-up of images is repeated here on the inputs, never in the detector.
"""

import re

import torch
from torch import Tensor

from sowa.backbones.base import Backbone
from sowa.detectors.inctrl import InCtrl, Residual
from sowa.nn.bank import unit
from sowa.nn.ensemble import pool_prompts
from sowa.nn.heads import binary_focal
from sowa.types import Tokens
from tests.parity.reader import Golden, UnreadableError
from tests.parity.report import Row, compare, compare_relative

EVALUATION, TRAINING, GRADIENT = 5e-6, 2e-5, 1e-3
LOSSES = {"plain": False, "ref": True}
"""Side of a name -> whether the loss takes probabilities for logits."""
RENAMES = (
    (r"^adapter\.fc\.", "adapter."),
    (r"^diff_head_ref\.", "image_head."),
    (r"^diff_head\.", "holistic_head."),
    (r"\.projection1\.", ".layers.0."),
    (r"\.projection2\.", ".layers.1."),
    (r"\.projection3\.", ".last."),
    (r"\.bn2\.", ".norms.0."),
    (r"\.bn3\.", ".norms.1."),
)
NEVER_USED = ".bn1."
"""The published heads own a normalisation of their input that they never apply."""

Values = dict[str, Tensor | None]


class Sizes(Backbone):
    """A backbone without a tower."""

    def __init__(self, *, grid: tuple[int, int], width: int, joint: int, depth: int):
        super().__init__(
            name="sizes",
            image_size=grid[0],
            patch=1,
            width=width,
            joint=joint,
            depth=depth,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            text=None,
            text_trained=False,
            weights_id="none",
        )
        self.grid = grid
        self.freeze()


def check(golden: Golden) -> list[Row]:
    """Rows for every `out.*` tensor of the file."""
    tokens, shots = _tokens(golden)
    pairs = golden_prototypes(golden).expand(len(tokens.cls), -1, -1)
    rows = _evaluation_rows(golden, tokens, shots, pairs)
    for kind, twice in LOSSES.items():
        rows += _training_rows(golden, tokens, shots, pairs, kind, twice)
    seen = {row.name for row in rows}
    unknown = [name for name in golden.tensors if name.startswith("out.") and name not in seen]
    return rows + [Row(name, float("inf"), 0.0) for name in unknown]


def build(golden: Golden, *, sigmoid_twice: bool = False) -> InCtrl:
    """The detector that a file describes, with its trained tensors, ready to score."""
    first, last = golden["weights.diff_head.projection1.weight"], golden["weights.diff_head.projection2.weight"]
    detector = InCtrl(
        backbone=Sizes(
            grid=tuple(golden.entry("grid")),
            width=golden.entry("tap_width"),
            joint=golden.entry("embed_dim"),
            depth=golden.entry("layers"),
        ),
        taps=range(1, golden.entry("layers") + 1),
        shots=golden.entry("K"),
        adapter_width=golden.entry("adapter_hidden"),
        head_widths=(first.shape[0], last.shape[0]),
        scale=golden.entry("logit_scale"),
        sigmoid_twice=sigmoid_twice,
    )
    weights = golden.group("weights.")
    detector.load_trained_state({_own(name): weights[name] for name in weights if NEVER_USED not in name})
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.eps = golden.entry("bn_eps")
    return detector.eval()


def _own(name: str) -> str:
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def golden_prototypes(golden: Golden) -> Tensor:
    """[S, E] from the stored features of the prompts."""
    states = (golden["in.text.normal"], golden["in.text.anomalous"])
    return torch.stack([pool_prompts(features, norm_each=True) for features in states])


def _tokens(golden: Golden) -> tuple[Tokens, Tokens]:
    """Images, and their shots in the order image-major."""
    grid = tuple(golden.entry("grid"))
    taps = range(golden.entry("layers"))
    if golden["in.ref_global"].shape[:2] != (golden.entry("batch"), golden.entry("K")):
        raise UnreadableError(f"{golden.path}: in.ref_global does not have batch x K class tokens")
    shots = [golden[f"in.ref_tap.{tap}"].flatten(0, 1) for tap in taps]
    return (
        Tokens(golden["in.global"], tuple(golden[f"in.tap.{tap}"] for tap in taps), grid),
        Tokens(golden["in.ref_global"].flatten(0, 1), tuple(shots), grid),
    )


def _scrambled(tokens: Tokens, shots: Tokens) -> tuple[Tokens, Tokens]:
    """The tokens as the published code regroups them: it reshapes [levels, images] to [images, levels]."""
    count = len(tokens.cls)

    def regroup(levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        stacked = torch.stack(levels)
        return stacked.reshape(count, len(levels), -1, *stacked.shape[2:]).unbind(dim=1)

    def shot_major(values: Tensor) -> Tensor:
        return values.unflatten(0, (count, -1)).transpose(0, 1).flatten(0, 1)

    queries = tuple(level[:, 0] for level in regroup(tokens.levels))
    others = tuple(level.flatten(0, 1) for level in regroup(tuple(shot_major(level) for level in shots.levels)))
    return Tokens(tokens.cls, queries, tokens.grid), Tokens(shot_major(shots.cls), others, shots.grid)


@torch.no_grad()
def _evaluation_rows(golden: Golden, tokens: Tokens, shots: Tokens, pairs: Tensor) -> list[Row]:
    detector = build(golden)
    seen = detector.own_residual(tokens, shots, pairs)
    mixed = detector.own_residual(*_scrambled(tokens, shots), pairs)
    got: Values = {
        "out.text_vectors": pairs[0],
        "out.text_prior": (seen.holistic_BL - seen.levels_BVL.mean(dim=1) - seen.image_score_B[:, None])[:, 0],
        "out.adapted": detector.adapter(tokens.cls),
        "out.ref_adapted": detector.adapter(shots.cls).unflatten(0, (len(tokens.cls), -1)),
        "out.image_residual": seen.image_BE,
        "out.image_head": seen.image_score_B,
        "out.residual_layers": seen.levels_BVL,
        "out.holistic": seen.holistic_BL,
        "out.holistic_head": seen.holistic_score_B,
        "out.scrambled.image_head": mixed.image_score_B,
        "out.scrambled.score": mixed.score_B,
        **_served(golden, detector, tokens, shots, pairs[0]),
    }
    for kind, twice in LOSSES.items():
        got[f"out.loss.{kind}"] = _loss(golden, seen, twice)
    return [compare(name, value, golden[name], tolerance=EVALUATION) for name, value in got.items()]


def _served(golden: Golden, detector: InCtrl, tokens: Tokens, shots: Tokens, prototypes_SE: Tensor) -> Values:
    """Score and map of `score`, each image against a reference of its own shots."""
    count, found = golden.entry("K"), []
    for i in range(len(tokens.cls)):
        mine = shots.rows(slice(i * count, (i + 1) * count))
        reference = {
            "bank": torch.stack([unit(level).flatten(0, 1) for level in mine.levels]),
            "adapted": detector.adapter(mine.cls).mean(dim=0),
            "prototypes": prototypes_SE,
        }
        found.append(detector.score(tokens.rows(slice(i, i + 1)), reference))
    return {
        "out.score": torch.cat([one.score for one in found]),
        "out.residual_map": torch.cat([one.parts["memory_map"] for one in found]),
    }


def _loss(golden: Golden, seen: Residual, twice: bool) -> Tensor:
    scores = (seen.score_B, seen.image_score_B)
    return sum(binary_focal(score, golden["in.labels"], gamma=2.0, sigmoid_twice=twice) for score in scores)


def _training_rows(golden: Golden, tokens: Tokens, shots: Tokens, pairs: Tensor, kind: str, twice: bool) -> list[Row]:
    """One forward and backward in training mode: outputs, running statistics, gradients of one of the losses."""
    detector = build(golden, sigmoid_twice=twice).train()
    seen = detector.own_residual(tokens, shots, pairs)
    state = detector.trained_state()
    got: Values = {}
    if kind == "plain":  # the forward pass is the same for both losses
        got = {"out.train.image_head": seen.image_score_B, "out.train.score": seen.score_B}
        names = [name for name in golden.tensors if name.startswith("out.train.diff_head")]
        got |= {name: state.get(_own(name.removeprefix("out.train."))) for name in names}
    detector = build(golden, sigmoid_twice=twice).train()
    loss = sum(detector.token_losses(tokens, shots, pairs, golden["in.labels"]).values())
    got[f"out.train.loss.{kind}"] = loss
    rows = [compare(name, value, golden[name], tolerance=TRAINING) for name, value in got.items()]
    loss.backward()
    if not golden.group(f"out.train.grad.{kind}."):
        raise UnreadableError(f"{golden.path}: holds no out.train.grad.{kind}.*")
    gradients = {name: value.grad for name, value in detector.trainable_parameters()}
    prefix = f"out.train.grad.{kind}."
    for name in golden.group(prefix):
        own = gradients.get(_own(name))
        rows.append(compare_relative(prefix + name, own, golden[prefix + name], relative=GRADIENT, floor=0.0))
    return rows
