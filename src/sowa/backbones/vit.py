"""DINOv2 vision transformers in timm's names, with a text tower whose weights are drawn from a seed.

timm and open_clip take seconds to load and are loaded only where they are needed: timm for an architecture that is not
plain, open_clip when a text is first encoded.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from sowa.backbones.base import Backbone, FrozenAttention, square_grid
from sowa.backbones.plain_vit import PLAIN, PlainVit
from sowa.backbones.positions import resample_positions
from sowa.backbones.precision import working_dtype
from sowa.backbones.quick import QuickTower, cast_copy, quick_tower
from sowa.backbones.quick_int8 import Ranges, int8_tower
from sowa.backbones.state import draw_state, hash_tensors, load_strictly
from sowa.backbones.text import LateTextTower, TextTower
from sowa.errors import WeightsError

if TYPE_CHECKING:
    from open_clip.transformer import TextTransformer
    from timm.models.vision_transformer import VisionTransformer as TimmVit

VisionTransformer: TypeAlias = "PlainVit | TimmVit"

__all__ = ["VitBackbone", "empty_vit", "seeded_text_tower", "vit_from_state"]

TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS, TEXT_LENGTH = 256, 4, 4, 77
NOT_USED = ("mask_token", "head.weight", "head.bias")
"""Entries of published files that only their training reads."""


class VitBackbone(Backbone):
    """A timm vision transformer with one class token. Its joint space is the token space: E = D, no projection."""

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
        positions: Tensor | None = None,
    ):
        """positions: [1 + L, D] as they were trained, where `visual` has them resampled to another size."""
        super().__init__(
            name=name,
            image_size=visual.patch_embed.img_size[0],
            patch=visual.patch_embed.patch_size[0],
            width=visual.embed_dim,
            joint=visual.embed_dim,
            depth=len(visual.blocks),
            mean=mean,
            std=std,
            text=text,
            text_trained=text_trained,
            weights_id=weights_id,
            default_taps=default_taps,
        )
        self.visual, self.positions = visual, positions
        self.freeze()

    quick: QuickTower | None = None

    def _run_blocks(self, pixels: Tensor, indices: list[int]) -> tuple[Tensor, list[Tensor]]:
        if self.quick is not None:
            last_BTD, taken = self.quick.run(pixels, indices, to_end=True)
            return self.quick.norm(last_BTD[:, 0]), [level_BTD[:, 1:] for level_BTD in taken]
        normed_BTD, levels = self.visual.forward_intermediates(
            pixels.to(self.visual.patch_embed.proj.weight.dtype), indices=indices, output_fmt="NLC"
        )
        return normed_BTD[:, 0], levels

    def _run_levels(self, pixels: Tensor, indices: list[int]) -> list[Tensor]:
        if self.quick is not None:
            return [level_BTD[:, 1:] for level_BTD in self.quick.run(pixels, indices, to_end=False)[1]]
        return self.visual.forward_intermediates(
            pixels.to(self.visual.patch_embed.proj.weight.dtype),
            indices=indices,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )

    def _run_normed(self, pixels: Tensor, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        if self.quick is not None:
            normed = map(self.quick.norm, self.quick.run(pixels, indices, to_end=False)[1])
            return [(normed_BTD[:, 0], normed_BTD[:, 1:]) for normed_BTD in normed]
        found = self.visual.forward_intermediates(
            pixels.to(self.visual.patch_embed.proj.weight.dtype),
            indices=indices,
            norm=True,
            stop_early=True,
            output_fmt="NLC",
            return_prefix_tokens=True,
            intermediates_only=True,
        )
        return [(prefix_BPD[:, 0], patches_BLD) for patches_BLD, prefix_BPD in found]

    def at_size(self, image_size: int) -> "VitBackbone":
        grid = square_grid(image_size, self.patch)
        known = self.visual.pos_embed[0] if self.positions is None else self.positions
        shared = {id(weight): weight for name, weight in self.visual.named_parameters() if name != "pos_embed"}
        visual = copy.deepcopy(self.visual, shared)
        visual.patch_embed.img_size, visual.patch_embed.grid_size = (image_size, image_size), grid
        visual.patch_embed.num_patches = grid[0] * grid[1]
        positions = resample_positions(known.float(), grid).to(known.dtype)
        visual.pos_embed = torch.nn.Parameter(positions[None])
        return self._with_visual(visual, self.positions, self.precision, self.quick)

    def _lowered(self, precision: str) -> "VitBackbone":
        visual = cast_copy(self.visual, working_dtype(precision))
        quick = quick_tower(self.visual, working_dtype(precision), embedded_by=visual)
        return self._with_visual(visual, self.positions, precision, quick)

    @property
    def byte_tower(self) -> nn.Module:
        return self.visual

    def _in_bytes(self, ranges: Ranges) -> "VitBackbone":
        visual = cast_copy(self.visual, working_dtype("int8"))
        return self._with_visual(visual, self.positions, "int8", int8_tower(self.visual, ranges, embedded_by=visual))

    def _with_visual(
        self, visual: VisionTransformer, positions: Tensor | None, precision: str, quick: QuickTower | None
    ) -> "VitBackbone":
        other = VitBackbone(
            name=self.name,
            visual=visual,
            text=self.text,
            mean=self.mean.flatten().tolist(),
            std=self.std.flatten().tolist(),
            text_trained=self.text_trained,
            weights_id=self.weights_id,
            default_taps=self.default_taps,
            positions=positions,
        ).to(self.mean.device)
        other.precision, other.quick = precision, quick and quick.embedded_by(visual)
        return other

    def project(self, tokens: Tensor) -> Tensor:
        """[..., D] -> [..., D]: self-supervised towers have no joint space of their own; tokens stay as they are."""
        return tokens

    def block_attention(self, tap: int) -> FrozenAttention:
        """The block's weights as they are; DINOv2 scales each channel of the result afterwards (LayerScale)."""
        (tap,) = self._checked_taps((tap,))
        attention = self.visual.blocks[tap - 1].attn
        return FrozenAttention(attention.qkv.weight, attention.proj.weight, attention.proj.bias, attention.num_heads)


def vit_from_state(
    state: Mapping[str, Tensor],
    *,
    model: str,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    name: str,
    default_taps: Sequence[int] | None = None,
    source: str = "the state dict",
) -> VitBackbone:
    """A frozen tower from tensors in timm's names (which are DINOv2's own).

    image_size: the trained positions are resampled to its grid (bicubic, antialias).
    seed: of the text tower. WeightsError if the tensors are not those of `model`.
    """
    weights = {key: value.float() for key, value in state.items() if key not in NOT_USED}
    positions = weights.get("pos_embed")
    if (
        positions is None
        or positions.ndim != 3
        or round((positions.shape[1] - 1) ** 0.5) ** 2 + 1 != positions.shape[1]
    ):
        raise WeightsError(f"{source} holds no vision transformer in timm's names: 'pos_embed' is missing or misshapen")
    weights_id = hash_tensors(weights)
    square_grid(image_size, weights["patch_embed.proj.weight"].shape[-1] if "patch_embed.proj.weight" in weights else 1)
    visual = empty_vit(model, image_size)
    trained = positions[0]
    weights["pos_embed"] = resample_positions(positions[0], visual.patch_embed.grid_size)[None]
    load_strictly(visual, weights, source=source)
    return VitBackbone(
        name=name,
        visual=visual,
        text=seeded_text_tower(joint=visual.embed_dim, seed=seed),
        mean=mean,
        std=std,
        text_trained=False,
        weights_id=f"{weights_id};text=random:seed={seed}",
        default_taps=default_taps,
        positions=trained,
    )


def empty_vit(model: str, image_size: int) -> VisionTransformer:
    """The network before its weights are loaded; torch's global generator is left as it was.

    timm's are not built on the meta device like the others: it reads numbers back while building, until late in its
    1.0 series.
    """
    if model in PLAIN:
        with torch.device("meta"):
            return PlainVit(PLAIN[model], image_size)
    import timm

    with torch.random.fork_rng(devices=[]):
        return timm.create_model(model, pretrained=False, num_classes=0, img_size=image_size)


def seeded_text_tower(*, joint: int, seed: int) -> TextTower:
    """A small CLIP text transformer with drawn weights and CLIP's vocabulary; the same for the same seed. Made when it
    is first used."""
    return LateTextTower(make=partial(_drawn_text, joint, seed), width=TEXT_WIDTH, context_length=TEXT_LENGTH)


def _drawn_text(joint: int, seed: int) -> "TextTransformer":
    from open_clip.transformer import TextTransformer

    with torch.device("meta"):
        tower = TextTransformer(width=TEXT_WIDTH, layers=TEXT_LAYERS, heads=TEXT_HEADS, output_dim=joint)
    shapes = {name: tuple(tensor.shape) for name, tensor in tower.state_dict().items()}
    load_strictly(tower, draw_state(shapes, seed=seed), source="the drawn text tower")
    tower.attn_mask = tower.build_causal_mask()  # not part of any state dict, so still on the meta device
    return tower
