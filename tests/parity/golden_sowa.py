"""Checks a `sowa_*` file: forward, memory, losses and gradients against the published code's numbers."""

import torch
from torch import Tensor

from sowa.backbones.clip import clip_from_state
from sowa.detectors.published import options_from_shapes, translate_names
from sowa.detectors.sowa import Sowa
from sowa.types import Batch, Tokens
from tests.parity.reader import Golden
from tests.parity.report import Row, compare, compare_relative, exact

ABSOLUTE = 1e-4
RELATIVE, FLOOR = 1e-3, 5e-6


def check(golden: Golden) -> list[Row]:
    """Rows for every `out.*` and `grad.*` tensor of the file, and for the token ids of its prompts."""
    detector = build(golden)
    tokens = detector.encode(golden["in.images"])
    rows = [*_prompt_rows(detector, golden), *_forward_rows(detector, tokens, golden)]
    rows += [*_memory_rows(detector, tokens, golden), *_training_rows(detector, golden)]
    seen = {row.name for row in rows}
    rows += [
        Row(name, float("inf"), 0.0)
        for name in golden.tensors
        if name.startswith(("out.", "grad.")) and name not in seen
    ]
    return rows


def build(golden: Golden) -> Sowa:
    """The detector a file describes, with its frozen towers and its trained tensors."""
    clip = golden.entry("clip")
    state = golden.group("clip.")
    backbone = clip_from_state(
        state,
        quick_gelu=True,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        text_heads=clip["transformer_heads"],
        vocab_size=clip["vocab_size"],
    )
    published = golden.group("param.")
    trained = translate_names(published)
    templates = golden.entry("state_template")
    detector = Sowa(
        backbone=backbone,
        taps=[block + 1 for block in golden.entry("taps")],
        adapter=golden.entry("adapter"),
        window=golden.entry("window"),
        depth=golden.entry("depth"),
        heads=golden.entry("heads"),
        value_only=golden.entry("value_only"),
        cpb_dim=golden.entry("cpb_dim"),
        hidden=golden.entry("hidden"),
        share_adapter=options_from_shapes(trained, published)["share_adapter"] and len(golden.entry("taps")) > 1,
        text_linear=golden.entry("embedding_dim") is not None,
        categories=golden.entry("class_names"),
        normal_templates=templates["normal"],
        abnormal_templates=templates["anomaly"],
        prompt_length=golden.entry("prompt_length"),
        temperature=golden.entry("temperature"),
        protocol="paper",
    )
    detector.load_trained_state(trained)
    return detector.eval()


def _index(detector: Sowa, golden: Golden) -> Tensor:
    return torch.tensor([detector.category_index(name) for name in golden.entry("batch_class_names")])


def _prompt_rows(detector: Sowa, golden: Golden) -> list[Row]:
    names = ("in.tokenized_pos", "in.tokenized_neg")
    return [exact(name, learnt.token_ids, golden[name]) for name, learnt in zip(names, detector.prompts, strict=True)]


def _forward_rows(detector: Sowa, tokens: Tokens, golden: Golden) -> list[Row]:
    with torch.no_grad():
        prototypes = detector.prototypes()[_index(detector, golden)]
        logits = detector.pixel_logits(tokens, prototypes)
        maps = detector.pixel_probabilities(logits)
        text = torch.cat([detector.backbone.encode_text(*learnt()) for learnt in detector.prompts])
        project = detector.backbone.project
        references = [_reference(detector, name, None) for name in golden.entry("batch_class_names")]
        scored = [detector.score(_one(tokens, i), reference) for i, reference in enumerate(references)]
        adapted = detector.adapt(tokens)
    got = {
        "out.image_features": tokens.cls,
        "out.text_features": text,
        "out.text_probs": detector.image_logits(tokens, prototypes).softmax(dim=-1),
        "out.summed_map": maps[:, :, 1].sum(dim=1),
        "out.filtered_map": torch.cat([one.score_map for one in scored]),
    }
    for level in range(len(detector.taps)):
        got[f"out.patches.{level}"] = project(tokens.levels[level])
        got[f"out.adapted.{level}"] = project(adapted[level])
        got[f"out.anomaly_map.{level}"] = maps[:, level]
    return [compare(name, value, golden[name], tolerance=ABSOLUTE) for name, value in got.items()]


def _memory_rows(detector: Sowa, tokens: Tokens, golden: Golden) -> list[Row]:
    reference = _reference(detector, golden.entry("batch_class_names")[0], detector.encode(golden["in.kshot_images"]))
    memory = detector.score(tokens, reference).parts["memory_map"]
    return [compare("out.kshot_map", memory.unsqueeze(1), golden["out.kshot_map"], tolerance=ABSOLUTE)]


def _training_rows(detector: Sowa, golden: Golden) -> list[Row]:
    batch = Batch(
        images=golden["in.images"],
        labels=golden["in.labels"],
        masks=golden["in.masks"][:, 0],
        categories=tuple(golden.entry("batch_class_names")),
        names=tuple(str(i) for i in range(len(golden["in.labels"]))),
    )
    losses = detector.losses(batch)
    sum(losses.values()).backward()
    rows = [
        compare(f"out.loss_{short}", losses[name], golden[f"out.loss_{short}"], tolerance=ABSOLUTE)
        for short, name in (("ce", "cross_entropy"), ("focal", "focal"), ("dice", "dice"))
    ]
    own = {name: parameter.grad for name, parameter in detector.trainable_parameters()}
    wanted = {name: translate_names({name: value}) for name, value in golden.group("grad.").items()}
    # Layer numbers close up only when all layers are translated together.
    together = translate_names(golden.group("grad."))
    for name, single in wanted.items():
        key = next((k for k, v in together.items() if v is next(iter(single.values()))), "")
        rows.append(
            compare_relative(f"grad.{name}", own.get(key), golden[f"grad.{name}"], relative=RELATIVE, floor=FLOOR)
        )
    missing = own.keys() - together.keys()
    return rows + [Row(f"grad of {name} is not in the file", float("inf"), 0.0) for name in sorted(missing)]


def _reference(detector: Sowa, category: str, tokens: Tokens | None) -> dict[str, Tensor]:
    return detector.fit_tokens(category, tokens)


def _one(tokens: Tokens, i: int) -> Tokens:
    return Tokens(tokens.cls[i : i + 1], tuple(level[i : i + 1] for level in tokens.levels), tokens.grid)
