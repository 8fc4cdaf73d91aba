"""CLIP's two towers, built by open_clip from a state dict of any size.

Names of tensors are OpenAI's, which are also open_clip's: `visual.*` for the image tower, the rest for the text tower.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from open_clip.transformer import QuickGELU, TextTransformer, VisionTransformer
from torch import Tensor, nn

from sowa.backbones.attention import with_frozen_layers, with_self_attention
from sowa.backbones.base import Backbone, FrozenAttention, square_grid
from sowa.backbones.positions import resample_positions
from sowa.backbones.precision import working_dtype
from sowa.backbones.quick import QuickTower, cast_copy, quick_tower
from sowa.backbones.quick_int8 import Ranges, int8_tower
from sowa.backbones.state import hash_tensors, load_strictly
from sowa.backbones.text import VOCABULARY, TextTower
from sowa.errors import WeightsError

__all__ = ["ClipBackbone", "clip_from_state", "clip_state"]

HEAD_WIDTH = 64
"""Width of one attention head in every CLIP that OpenAI published; larger open_clip towers say their own."""
WRAPPERS = ("state_dict.", "model.", "module.")
"""Prefixes that checkpoints put before all names."""
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "logit_scale", "logit_bias")
"""Entries of published files that neither tower reads."""


class ClipBackbone(Backbone):
    """open_clip's vision transformer and text transformer; build it with `clip_from_state`."""

    def __init__(
        self,
        *,
        name: str,
        visual: VisionTransformer,
        text: TextTower | None,
        mean: Sequence[float],
        std: Sequence[float],
        text_trained: bool,
        weights_id: str,
        default_taps: Sequence[int] | None = None,
    ):
        super().__init__(
            name=name,
            image_size=visual.image_size[0],
            patch=visual.patch_size[0],
            width=visual.conv1.out_channels,
            joint=visual.output_dim,
            depth=len(visual.transformer.resblocks),
            mean=mean,
            std=std,
            text=text,
            text_trained=text_trained,
            weights_id=weights_id,
            default_taps=default_taps,
        )
        self.visual = visual
        self.freeze()

    quick: QuickTower | None = None

    def _run_blocks(self, pixels: Tensor, indices: list[int]) -> tuple[Tensor, list[Tensor]]:
        if self.quick is not None:
            last_BTD, taken = self.quick.run(pixels, indices, to_end=True)
            return self.project(self.quick.norm(last_BTD[:, 0])), [level_BTD[:, 1:] for level_BTD in taken]
        out = self.visual.forward_intermediates(
            pixels.to(self.visual.conv1.weight.dtype), indices=indices, output_fmt="NLC"
        )
        return out["image_features"], out["image_intermediates"]

    def _run_levels(self, pixels: Tensor, indices: list[int]) -> list[Tensor]:
        if self.quick is not None:
            return [level_BTD[:, 1:] for level_BTD in self.quick.run(pixels, indices, to_end=False)[1]]
        return self.visual.forward_intermediates(
            pixels.to(self.visual.conv1.weight.dtype),
            indices=indices,
            stop_early=True,
            intermediates_only=True,
            output_fmt="NLC",
        )["image_intermediates"]

    def _run_normed(self, pixels: Tensor, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        if self.quick is not None:
            normed = map(self.quick.norm, self.quick.run(pixels, indices, to_end=False)[1])
            return [(normed_BTD[:, 0], normed_BTD[:, 1:]) for normed_BTD in normed]
        out = self.visual.forward_intermediates(
            pixels.to(self.visual.conv1.weight.dtype),
            indices=indices,
            stop_early=True,
            normalize_intermediates=True,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        pairs = zip(out["image_intermediates_prefix"], out["image_intermediates"], strict=True)
        return [(prefix_BPD[:, 0], patches_BLD) for prefix_BPD, patches_BLD in pairs]

    def at_size(self, image_size: int) -> "ClipBackbone":
        grid = square_grid(image_size, self.patch)
        positions = self.visual.positional_embedding
        shared = {id(weight): weight for weight in self.visual.parameters() if weight is not positions}
        visual = copy.deepcopy(self.visual, shared)
        visual.image_size, visual.grid_size = (image_size, image_size), grid
        resampled = resample_positions(positions.detach().float(), grid).to(positions.dtype)
        visual.positional_embedding = nn.Parameter(resampled)
        return self._with_visual(visual, self.precision, self.quick)

    def _lowered(self, precision: str) -> "ClipBackbone":
        visual = cast_copy(self.visual, working_dtype(precision))
        quick = quick_tower(self.visual, working_dtype(precision), embedded_by=visual)
        return self._with_visual(visual, precision, quick)

    @property
    def byte_tower(self) -> nn.Module:
        return self.visual

    def _in_bytes(self, ranges: Ranges) -> "ClipBackbone":
        visual = cast_copy(self.visual, working_dtype("int8"))
        return self._with_visual(visual, "int8", int8_tower(self.visual, ranges, embedded_by=visual))

    def _with_visual(self, visual: VisionTransformer, precision: str, quick: QuickTower | None) -> "ClipBackbone":
        other = ClipBackbone(
            name=self.name,
            visual=visual,
            text=self.text,
            mean=self.mean.flatten().tolist(),
            std=self.std.flatten().tolist(),
            text_trained=self.text_trained,
            weights_id=self.weights_id,
            default_taps=self.default_taps,
        ).to(self.mean.device)
        other.precision, other.quick = precision, quick and quick.embedded_by(visual)
        return other

    def project(self, tokens: Tensor) -> Tensor:
        """[..., D] -> [..., E] by `visual.proj`; the final norm is left out, as the papers' code does."""
        matrix_DE = self.visual.proj
        return (tokens.to(matrix_DE.dtype) @ matrix_DE).to(tokens.dtype)

    def joint_matrix(self) -> Tensor:
        return self.visual.proj

    def block_attention(self, tap: int) -> FrozenAttention:
        (tap,) = self._checked_taps((tap,))
        attention = self.visual.transformer.resblocks[tap - 1].attn
        out = attention.out_proj
        return FrozenAttention(attention.in_proj_weight, out.weight, out.bias, attention.num_heads)


def clip_from_state(
    state: Mapping[str, Tensor],
    *,
    quick_gelu: bool,
    mean: Sequence[float],
    std: Sequence[float],
    vision_heads: int | None = None,
    text_heads: int | None = None,
    image_size: int | None = None,
    vocab_size: int = VOCABULARY,
    name: str = "clip",
    text_trained: bool = True,
    weights_id: str | None = None,
    default_taps: Sequence[int] | None = None,
    source: str = "the state dict",
) -> ClipBackbone:
    """A frozen tower from OpenAI-named tensors; every dimension is read from their shapes.

    quick_gelu: x * sigmoid(1.702 x) in both towers, what OpenAI trained with; False: exact GELU.
    vision_heads, text_heads: width // 64 (at least 1) if None.
    image_size: another size than the trained one resamples the positions (bicubic, antialias).
    vocab_size: rows of the token table where only `token_embedding.rows` and `.values` are given (others are zero).
    A state without text tensors gives a backbone without a text tower.
    weights_id: the hash of the tensors if None. source: what errors call the state.
    Raises WeightsError where tensors are missing, foreign or misshapen.
    """
    state = clip_state(state)
    visual_state = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    text_state = {key: value for key, value in state.items() if not key.startswith("visual.")}
    activation = QuickGELU if quick_gelu else nn.GELU
    if weights_id is None:
        weights_id = hash_tensors(state)
    return ClipBackbone(
        name=name,
        visual=_vision_tower(visual_state, activation, vision_heads, image_size, source),
        text=_text_tower(_with_token_table(text_state, vocab_size), activation, text_heads, source),
        mean=mean,
        std=std,
        text_trained=text_trained and bool(text_state),
        weights_id=weights_id,
        default_taps=default_taps,
    )


def clip_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The towers' tensors in float32 under their plain names: wrappers' prefixes and other entries are dropped."""
    names = {name: name for name in tensors}
    for prefix in WRAPPERS:
        if names and all(plain.startswith(prefix) for plain in names.values()):
            names = {name: plain.removeprefix(prefix) for name, plain in names.items()}
    plain_state = {}
    for name, plain in names.items():
        plain = plain.removeprefix("text.")  # open_clip's towers with their own text class
        if plain not in NOT_WEIGHTS:
            tensor = tensors[name]
            plain_state[plain] = tensor.float() if tensor.is_floating_point() else tensor
    return plain_state


def _vision_tower(
    state: dict[str, Tensor], activation: type[nn.Module], heads: int | None, image_size: int | None, source: str
) -> VisionTransformer:
    needed = ("conv1.weight", "positional_embedding", "proj", "transformer.resblocks.0.mlp.c_fc.weight")
    _require(state, needed, "visual.", f"{source} holds no vision transformer of CLIP's form")
    width, _, patch, _ = state["conv1.weight"].shape
    side = round((len(state["positional_embedding"]) - 1) ** 0.5)
    if side * side + 1 != len(state["positional_embedding"]):
        raise WeightsError(f"{source}: {len(state['positional_embedding'])} image positions are not 1 + a square grid")
    size = image_size or side * patch
    grid = square_grid(size, patch)
    with torch.device("meta"):
        tower = VisionTransformer(
            image_size=size,
            patch_size=patch,
            width=width,
            layers=_count_blocks(state),
            heads=heads or max(width // HEAD_WIDTH, 1),
            mlp_ratio=_hidden_ratio(state, width),
            ls_init_value=1.0 if "transformer.resblocks.0.ls_1.gamma" in state else None,
            no_ln_pre="ln_pre.weight" not in state,
            output_dim=state["proj"].shape[1],
            act_layer=activation,
        )
    positions = resample_positions(state["positional_embedding"], grid)
    load_strictly(tower, state | {"positional_embedding": positions}, source=f"{source} (image tower)")
    return with_self_attention(tower)


def _text_tower(
    state: dict[str, Tensor], activation: type[nn.Module], heads: int | None, source: str
) -> TextTower | None:
    if not state:
        return None
    needed = ("token_embedding.weight", "positional_embedding", "text_projection")
    _require(state, (*needed, "transformer.resblocks.0.mlp.c_fc.weight"), "", f"{source} holds no text tower")
    rows, width = state["token_embedding.weight"].shape
    with torch.device("meta"):
        tower = TextTransformer(
            context_length=len(state["positional_embedding"]),
            vocab_size=rows,
            width=width,
            heads=heads or max(width // HEAD_WIDTH, 1),
            layers=_count_blocks(state),
            mlp_ratio=_hidden_ratio(state, width),
            ls_init_value=1.0 if "transformer.resblocks.0.ls_1.gamma" in state else None,
            output_dim=state["text_projection"].shape[1],
            act_layer=activation,
        )
    load_strictly(with_frozen_layers(tower), state, source=f"{source} (text tower)")
    tower.attn_mask = tower.build_causal_mask()  # not part of any state dict, so still on the meta device
    return TextTower(transformer=tower, fold_vocabulary=rows < VOCABULARY)


def _with_token_table(state: dict[str, Tensor], vocab_size: int) -> dict[str, Tensor]:
    """Spread `token_embedding.rows` / `.values`, where given, over a table of zeros."""
    if "token_embedding.values" not in state or "token_embedding.rows" not in state:
        return state
    rows, values = state.pop("token_embedding.rows").long(), state.pop("token_embedding.values")
    fits = rows.ndim == 1 and values.ndim == 2 and len(rows) == len(values) > 0
    if not fits or rows.min() < 0 or rows.max() >= vocab_size:
        raise WeightsError(
            f"token_embedding.rows {list(rows.shape)} and .values {list(values.shape)} do not name rows of a "
            f"vocabulary of {vocab_size}"
        )
    return state | {"token_embedding.weight": values.new_zeros(vocab_size, values.shape[1]).index_copy(0, rows, values)}


def _count_blocks(state: Mapping[str, Tensor]) -> int:
    return len({key.split(".")[2] for key in state if key.startswith("transformer.resblocks.")})


def _hidden_ratio(state: Mapping[str, Tensor], width: int) -> float:
    # Half a unit more: the library multiplies and truncates, which would lose one for ratios like 4.9231.
    return (len(state["transformer.resblocks.0.mlp.c_fc.weight"]) + 0.5) / width


def _require(state: Mapping[str, Tensor], names: Sequence[str], prefix: str, complaint: str) -> None:
    if missing := [name for name in names if name not in state]:
        raise WeightsError(f"{complaint}: '{prefix}{missing[0]}' is missing")
