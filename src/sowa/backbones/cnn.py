"""timm's convolutional networks: tap n is their last map of stride 2 ** (n + 1), in a ResNet the output of layer n."""

from collections.abc import Mapping, Sequence

import timm
import torch
from torch import Tensor, nn

from sowa.backbones.base import Backbone, FrozenAttention
from sowa.backbones.precision import working_dtype
from sowa.backbones.pyramid import PyramidTokens
from sowa.backbones.quick import cast_copy
from sowa.backbones.state import hash_tensors, load_strictly
from sowa.errors import ConfigError

__all__ = ["CnnBackbone", "cnn_from_state", "network_state"]

STRIDES = (2, 4, 8, 16, 32)
"""Of a network's maps as timm counts them from 0; the first, half the image's size, is no tap."""
DEPTH = len(STRIDES) - 1
COUNTERS = "num_batches_tracked"
"""Ending of entries that older files lack and that only training reads."""


class CnnBackbone(Backbone):
    """A convolutional network without a text tower; build it with `cnn_from_state`.

    `cls` is what its classifier would read, after pooling. `grid`, `patch` and `width` are those of the last tap.
    """

    def __init__(
        self,
        *,
        name: str,
        visual: nn.Module,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        weights_id: str,
        default_taps: Sequence[int] | None = None,
    ):
        """visual: a timm network without classifier whose maps have the strides 2, 4, 8, 16 and 32."""
        strides = tuple(info["reduction"] for info in visual.feature_info)
        if strides != STRIDES:
            raise ConfigError(f"backbone '{name}' needs a network with maps of strides {STRIDES}, this has {strides}")
        super().__init__(
            name=name,
            image_size=image_size,
            patch=STRIDES[-1],
            width=visual.feature_info[-1]["num_chs"],
            joint=visual.num_features,
            depth=DEPTH,
            mean=mean,
            std=std,
            text=None,
            text_trained=False,
            weights_id=weights_id,
            default_taps=default_taps,
        )
        self.visual = visual
        self.freeze()

    def encode_image(self, images: Tensor, taps: Sequence[int], *, cls: bool = True) -> PyramidTokens:
        """As `Backbone.encode_image`; each level has a width and a grid of its own."""
        taps = self._checked_taps(taps)
        wanted = sorted(set(taps))
        pixels = self._normalised(images).to(working_dtype(self.precision))
        if cls:
            last, maps = self.visual.forward_intermediates(pixels, indices=wanted or [DEPTH])
            pooled_BE = self.visual.forward_head(last, pre_logits=True).float()
        else:
            maps = self.visual.forward_intermediates(
                pixels, indices=wanted or [DEPTH], stop_early=True, intermediates_only=True
            )
            pooled_BE = maps[0].new_empty(images.shape[0], 0, dtype=torch.float32)
        found = {tap: found.float() for tap, found in zip(wanted, maps, strict=False)}
        return PyramidTokens.of_maps(pooled_BE, [found[tap] for tap in taps])

    @property
    def _products(self) -> int:
        return 0  # convolutions in halves were not faster where they were tried

    def _lowered(self, precision: str) -> "CnnBackbone":
        other = CnnBackbone(
            name=self.name,
            visual=cast_copy(self.visual, working_dtype(precision)),
            image_size=self.image_size,
            mean=self.mean.flatten().tolist(),
            std=self.std.flatten().tolist(),
            weights_id=self.weights_id,
            default_taps=self.default_taps,
        ).to(self.mean.device)
        other.precision = precision
        return other

    def project(self, tokens: Tensor) -> Tensor:
        """Raises ConfigError: the levels have no common space."""
        raise ConfigError(f"backbone '{self.name}' is convolutional, its levels have no joint space: {ADVICE}")

    def block_attention(self, tap: int) -> FrozenAttention:
        """Raises ConfigError: there is no attention."""
        raise ConfigError(f"backbone '{self.name}' is convolutional, it has no attention weights: {ADVICE}")


ADVICE = "choose a transformer such as clip, compact or random_tiny"


def cnn_from_state(
    state: Mapping[str, Tensor],
    *,
    model: str,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    name: str,
    default_taps: Sequence[int] | None = None,
    weights_id: str | None = None,
    source: str = "the state dict",
) -> CnnBackbone:
    """A frozen network from tensors in timm's names; those of its classifier are left out.

    image_size: a multiple of 32. weights_id: the hash of the tensors if None. source: what errors call the state.
    Raises WeightsError if the tensors are not those of `model`, ConfigError for a size that does not fit.
    """
    with torch.device("meta"):
        visual = timm.create_model(model, pretrained=False, num_classes=0)
    weights = network_state(state, visual)
    load_strictly(visual, weights, source=source)
    return CnnBackbone(
        name=name,
        visual=visual,
        image_size=image_size,
        mean=mean,
        std=std,
        weights_id=weights_id or hash_tensors(weights),
        default_taps=default_taps,
    )


def network_state(state: Mapping[str, Tensor], visual: nn.Module) -> dict[str, Tensor]:
    """The tensors without a classifier's, in float32, with the counters that older files lack."""
    heads = visual.pretrained_cfg.get("classifier") or ()
    prefixes = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    weights = {
        name: value.float() if value.is_floating_point() else value
        for name, value in state.items()
        if not name.startswith(prefixes)
    }
    counters = [name for name in visual.state_dict() if name.endswith(COUNTERS) and name not in weights]
    return weights | {name: torch.zeros((), dtype=torch.int64) for name in counters}
