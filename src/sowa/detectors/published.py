"""Names and shapes of the published SOWA checkpoints, translated to this project's.

The released files hold the trained tensors under the names of the authors' code (`net.visual_encoder.adapters...`)
between several copies of CLIP. Only what is trained is taken; everything else is ignored.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sowa.errors import ArtifactError

__all__ = ["options_from_shapes", "translate_names"]

RENAMES = (
    (r"^visual_encoder\.adapters\.(\d+)\.blocks\.(\d+)\.norm1\.", r"adapters.\1.blocks.\2.norm_attention."),
    (r"^visual_encoder\.adapters\.(\d+)\.blocks\.(\d+)\.norm2\.", r"adapters.\1.blocks.\2.norm_linear."),
    (
        r"^visual_encoder\.adapters\.(\d+)\.blocks\.(\d+)\.attn\.logit_scale$",
        r"adapters.\1.blocks.\2.attention.log_scale",
    ),
    (r"^visual_encoder\.adapters\.(\d+)\.blocks\.(\d+)\.attn\.cpb_mlp\.", r"adapters.\1.blocks.\2.attention.position."),
    (r"^visual_encoder\.adapters\.(\d+)\.blocks\.(\d+)\.mlp\.layers\.", r"adapters.\1.blocks.\2.linear."),
    (r"^visual_encoder\.adapters\.(\d+)\.layers\.", r"adapters.\1.layers."),
    (r"^prompt_learner\.ctx_pos$", "prompts.0.context"),
    (r"^prompt_learner\.ctx_neg$", "prompts.1.context"),
    (r"^cross_fusion\.linear\.", "text_linear."),
)
NUMBERED_LAYER = re.compile(r"^(adapters\.\d+\.(?:blocks\.\d+\.linear|layers)\.)(\d+)(\.weight)$")


def translate_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Trained tensors of a published state dict under this project's names; the prefix `net.` may be there or not."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        short = name.removeprefix("net.")
        for pattern, replacement in RENAMES:
            new, hits = re.subn(pattern, replacement, short)
            if hits:
                found[new] = value
                break
    if not found:
        raise ArtifactError(
            f"no trained SOWA tensor among {len(state)} names (looked for visual_encoder.adapters.*, prompt_learner.*,"
            " cross_fusion.linear.*); give a checkpoint of the published code"
        )
    return _close_numbering(found)


def _close_numbering(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Layers numbered 0, 3, 6 (with dropout between them) become 0, 2, 4 as here, where dropout has no place."""
    groups: dict[str, list[int]] = {}
    for name in state:
        if hit := NUMBERED_LAYER.match(name):
            groups.setdefault(hit[1], []).append(int(hit[2]))
    place = {(stem, number): 2 * i for stem, numbers in groups.items() for i, number in enumerate(sorted(numbers))}

    def renumber(name: str) -> str:
        hit = NUMBERED_LAYER.match(name)
        return f"{hit[1]}{place[hit[1], int(hit[2])]}{hit[3]}" if hit else name

    return {renumber(name): value for name, value in state.items()}


def options_from_shapes(trained: Mapping[str, Tensor], published: Mapping[str, Tensor]) -> dict[str, Any]:
    """Constructor options of `Sowa` that a published state implies.

    `trained` comes from `translate_names`. The window is read from the position table among the published buffers and
    left out where that is absent. Taps, templates and categories are in no tensor: the defaults of the paper stand.
    """
    adapters = {int(name.split(".")[1]) for name in trained if name.startswith("adapters.")}
    window = any(".blocks." in name for name in trained)
    options: dict[str, Any] = {
        "adapter": "window" if window else "linear",
        "share_adapter": not window and len(adapters) == 1,
        "text_linear": "text_linear.weight" in trained,
        "hidden": _hidden(trained, "adapters.0.blocks.0.linear." if window else "adapters.0.layers."),
    }
    if "prompts.0.context" in trained:
        options["prompt_length"] = trained["prompts.0.context"].shape[2]
    if window:
        options["depth"] = 1 + max(int(n.split(".")[3]) for n in trained if n.startswith("adapters.0.blocks."))
        options["heads"] = trained["adapters.0.blocks.0.attention.log_scale"].shape[0]
        options["cpb_dim"] = trained["adapters.0.blocks.0.attention.position.0.weight"].shape[0]
        for name, value in published.items():
            if name.endswith("adapters.0.blocks.0.attn.relative_coords_table"):
                options["window"] = (value.shape[1] + 1) // 2
    return options


def _hidden(trained: Mapping[str, Tensor], stem: str) -> list[int] | None:
    names = sorted((n for n in trained if n.startswith(stem)), key=lambda n: int(n.removeprefix(stem).split(".")[0]))
    return [trained[name].shape[0] for name in names[:-1]] or None
