"""Checks a `promptad*` file: both streams, scores from stored taps, prompts, losses, gradients and optimiser steps."""

import math
import re

import torch
from torch import Tensor

from sowa.backbones.clip import ClipBackbone, clip_from_state
from sowa.backbones.clip_value import walk_blocks
from sowa.detectors.promptad import PromptAd, PromptTokens
from sowa.detectors.promptad_words import category_name
from sowa.nn.contexts import SharedContexts, prompt_losses
from sowa.types import Tokens
from tests.parity.reader import Golden, UnreadableError
from tests.parity.report import Row, compare, compare_relative, exact

TAPS, PROBABILITY_100, SCORE = 2e-5, 2e-5, 5e-6
LOSS, LOSS_RELATIVE, GRADIENT = 2e-6, 1e-5, 2e-5
KINDS = {"plain": False, "ref": True}
"""Side of a name -> whether the published code's slip is repeated."""
HEADS = ("cls", "seg")

Values = dict[str, Tensor | None]


def check(golden: Golden) -> list[Row]:
    """Rows for every `out.*` tensor of the file."""
    if golden.entry("align_corners") is not False:
        raise UnreadableError(f"{golden.path}: maps of this method are upsampled without aligned corners")
    backbone = _backbone(golden)
    rows = [compare(name, value, golden[name], tolerance=TAPS) for name, value in _taps(golden, backbone).items()]
    rows += [compare(name, value, golden[name], tolerance=_allowed(name)) for name, value in _scores(golden, backbone)]
    for head in HEADS:
        rows += _training(golden, backbone, head)
    name = golden.entry("class_name")
    rows.append(Row("mapped_name", 0.0 if category_name(name) == golden.entry("mapped_name") else float("inf"), 0.0))
    seen = {row.name for row in rows}
    unknown = [name for name in golden.tensors if name.startswith("out.") and name not in seen]
    return rows + [Row(name, float("inf"), 0.0) for name in unknown]


def build(golden: Golden, backbone: ClipBackbone, *, slips: bool = False, scale: float | None = None) -> PromptAd:
    """The detector that a file describes; `scale` is the file's of the training if None."""
    contexts = golden.entry("n_pro")
    return PromptAd(
        backbone=backbone,
        taps=[block + 1 for block in golden.entry("mid_blocks")],
        abnormal_templates=golden.entry("states"),
        image_contexts=contexts["cls"],
        pixel_contexts=contexts["seg"],
        abnormal_contexts=golden.entry("n_pro_ab"),
        context_length=golden.entry("n_ctx"),
        abnormal_length=golden.entry("n_ctx_ab"),
        scale=_training_scale(golden) if scale is None else scale,
        canvas=golden.entry("out_size"),
        sigma=golden.entry("sigma"),
        next_attention=slips,
        margin_over_tokens=slips,
    )


def _backbone(golden: Golden) -> ClipBackbone:
    return clip_from_state(
        golden.group("weights."),
        quick_gelu=golden.entry("act") == "quickgelu",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        vision_heads=golden.entry("heads"),
        text_heads=golden.entry("text_heads"),
        image_size=golden.entry("image_size"),
    )


def _scale(tag: str) -> float:
    """t100 -> 100, tln100 -> ln 100."""
    number = float(tag.removeprefix("t").removeprefix("ln"))
    return math.log(number) if tag.startswith("tln") else number


def _training_scale(golden: Golden) -> float:
    found = re.match(r"ln\((\d+(?:\.\d+)?)\)", str(golden.entry("logit_scale")))
    if not found:
        raise UnreadableError(f"{golden.path}: logit_scale does not say which scale the training used")
    return math.log(float(found[1]))


def _allowed(name: str) -> float:
    return PROBABILITY_100 if name.endswith(".t100") else SCORE


# ---- frozen towers


@torch.no_grad()
def _taps(golden: Golden, backbone: ClipBackbone) -> Values:
    """Every stored tap of the queries and of the shots."""
    got: Values = {}
    steps = list(walk_blocks(backbone, golden["in.images"]))
    for name in golden.tensors:
        if found := re.fullmatch(r"out\.(block|vv_stream)\.(\d+)", name):
            step = steps[int(found[2])] if int(found[2]) < len(steps) else None
            got[name] = step and (step.stream if found[1] == "block" else step.values)
    for kind, slips in KINDS.items():
        detector = build(golden, backbone, slips=slips)
        tokens, shots = detector.encode(golden["in.images"]), detector.encode(golden["in.ref_images"])
        for number, (level, shot_level) in enumerate(zip(tokens.levels, shots.levels, strict=True), start=1):
            got |= {f"out.mid{number}.{kind}": level, f"out.ref.mid{number}.{kind}": shot_level}
        got |= {"out.global": tokens.cls, "out.vv_tokens": tokens.values}
    return got


# ---- scores from the stored taps


def _stored(golden: Golden, prefix: str, kind: str, values: Tensor, cls: Tensor) -> PromptTokens:
    count = len(golden.entry("mid_blocks"))
    levels = tuple(golden[f"{prefix}mid{number}.{kind}"] for number in range(1, count + 1))
    return PromptTokens(cls, levels, tuple(golden.entry("grid")), values)


def _scores(golden: Golden, backbone: ClipBackbone) -> list[tuple[str, Tensor | None]]:
    tags = sorted({name.rsplit(".", 1)[1] for name in golden.tensors if re.search(r"^out\..*\.t(ln)?\d+$", name)})
    if not tags:
        raise UnreadableError(f"{golden.path}: holds no scores")
    rows: dict[str, Tensor | None] = {}
    for kind in KINDS:
        values, cls = golden["out.vv_tokens"], golden["out.global"]
        queries = _stored(golden, "out.", kind, values, cls)
        shots = _stored(golden, "out.ref.", kind, values[:0], cls[:0])
        for shot_count in golden.entry("K"):
            levels = tuple(level[:shot_count] for level in shots.levels)
            few = Tokens(shots.cls, levels, shots.grid)
            for tag in tags:
                rows |= _of_scale(golden, backbone, queries, few, f"out.few{shot_count}.{kind}.", tag)
    return [(name, value) for name, value in rows.items() if name in golden.tensors or not _optional(name)]


def _optional(name: str) -> bool:
    """Maps that the format stores at one scale only."""
    return ".seg_map" in name and name.endswith(".t100")


def _of_scale(golden, backbone, queries: PromptTokens, shots: Tokens, prefix: str, tag: str) -> Values:
    detector = build(golden, backbone, scale=_scale(tag))
    prototypes = golden["in.text"]
    reference = {"bank": detector.bank(shots), "image_prototypes": prototypes, "pixel_prototypes": prototypes}
    got = detector.score(queries, reference)
    # A side of the smoothing that the prediction does not show: sigma 0 leaves the map as it was upsampled.
    detector.sigma = 0.0
    raw = detector.score(queries, reference)
    return {
        f"out.seg.text_grid.{tag}": got.parts["text_map"],
        f"out.cls.text.{tag}": got.parts["text_score"],
        f"{prefix}visual_grid": got.parts["memory_map"],
        f"{prefix}cls_map": detector.on_canvas(got.parts["memory_map"]),
        f"{prefix}cls_score.{tag}": got.score,
        f"{prefix}seg_grid.{tag}": got.parts["grid_map"],
        f"{prefix}seg_map_raw.{tag}": raw.parts["canvas_map"],
        f"{prefix}seg_map.{tag}": got.parts["canvas_map"],
    }


# ---- prompts and training


def _training(golden: Golden, backbone: ClipBackbone, head: str) -> list[Row]:
    detector = build(golden, backbone)
    features = golden[f"in.train.{head}_features"]
    contexts = _contexts(golden, detector, head)
    rows = _token_rows(golden, contexts, head)
    text = detector.text_features(contexts)
    raw = {f"out.{head}.text.{group}": value for group, value in zip(("normal", "map", "lap"), text, strict=True)}
    rows += [compare(name, value, golden[name], tolerance=TAPS) for name, value in raw.items()]
    rows += _loss_rows(golden, detector, features, text, head)
    for kind, slips in KINDS.items():
        detector = build(golden, backbone, slips=slips)
        contexts = _contexts(golden, detector, head)
        detector.loss(contexts, features).backward()
        rows += _context_rows(golden, f"out.{head}.grad.{kind}.", {k: v.grad for k, v in contexts.named_parameters()})
    rows += _step_rows(golden, build(golden, backbone, slips=True), features, head)
    return rows


def _contexts(golden: Golden, detector: PromptAd, head: str) -> SharedContexts:
    contexts = detector.contexts(golden.entry("class_name"), golden.entry("n_pro")[head])
    with torch.no_grad():
        for name, value in contexts.named_parameters():
            value.copy_(golden[f"in.{head}.{name}_ctx"])
    return contexts


def _token_rows(golden: Golden, contexts: SharedContexts, head: str) -> list[Row]:
    rows = []
    for group, ids in zip(("normal", "map", "lap"), contexts.token_ids.split(contexts.counts), strict=True):
        want = golden[f"out.{head}.tokens.{group}"]
        padding = want.new_zeros(len(ids), want.shape[1] - ids.shape[1])
        rows.append(exact(f"out.{head}.tokens.{group}", torch.cat((ids, padding), dim=1), want))
    return rows


def _loss_rows(golden: Golden, detector: PromptAd, features: Tensor, text, head: str) -> list[Row]:
    plain, slipped = (
        prompt_losses(features, text, scale=detector.scale, over_tokens=slips and features.dim() == 3)
        for slips in KINDS.values()
    )
    got = {
        "loss_clip": plain["contrast"],
        "loss_eam.plain": plain["margin"],
        "loss_eam.ref": slipped["margin"],
        "loss_align": plain["align"],
        "loss.ref": slipped["contrast"] + slipped["margin"] + detector.align_weight * slipped["align"],
    }
    rows = []
    for short, value in got.items():
        want = golden[f"out.{head}.{short}"]
        allowed = LOSS + LOSS_RELATIVE * want.abs().item()
        rows.append(compare(f"out.{head}.{short}", value, want, tolerance=allowed if allowed == allowed else 0.0))
    return rows


def _context_rows(golden: Golden, prefix: str, values: Values) -> list[Row]:
    return [
        compare_relative(name, value, golden[name], relative=GRADIENT, floor=0.0)
        for name, value in ((f"{prefix}{kind}_ctx", value) for kind, value in values.items())
    ]


def _step_rows(golden: Golden, detector: PromptAd, features: Tensor, head: str) -> list[Row]:
    """Contexts after the stored number of optimiser steps, and their prototypes."""
    names = [name for name in golden.tensors if re.fullmatch(rf"out\.{head}\.step\d+\.ref\.normal_ctx", name)]
    if len(names) != 1:
        raise UnreadableError(f"{golden.path}: expected one out.{head}.step<number>.ref.normal_ctx, found {len(names)}")
    prefix = names[0].removesuffix("normal_ctx")
    contexts = _contexts(golden, detector, head)
    detector.learn(contexts, features, epochs=int(re.search(r"step(\d+)", prefix)[1]))
    rows = [
        compare(f"{prefix}{kind}_ctx", value, golden[f"{prefix}{kind}_ctx"], tolerance=SCORE)
        for kind, value in contexts.named_parameters()
    ]
    name = f"out.{head}.prototypes"
    return [*rows, compare(name, detector.text_features(contexts).prototypes(), golden[name], tolerance=SCORE)]
