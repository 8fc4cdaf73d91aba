"""The contract of every detector. One paper, one file; parts of a method live in `sowa.nn`."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

from sowa.errors import ArtifactError, ConfigError
from sowa.types import Batch, Prediction, Reference, Support, Tokens

if TYPE_CHECKING:
    from sowa.backbones.base import Backbone

__all__ = ["Detector"]


class Detector(nn.Module, ABC):
    """Scores images against what `fit` learnt from K normal images of their category.

    What the support taught is a value (`Reference`), never kept on the detector. Scoring one image never depends on the
    others of its batch. Larger = more anomalous.
    """

    trains: ClassVar[Literal["none", "auxiliary", "target"]] = "none"
    """Whether gradient training happens: never, on a labelled auxiliary data set, or on the support inside `fit`."""

    compares: ClassVar[bool] = False
    """Whether `losses` compares images with normal ones of their category, handed over by `take_normals`."""

    splits: ClassVar[bool] = True
    """Whether `losses` are means over the images of a batch, each computed from its own image: only then do several
    devices that share a batch train what one would."""

    extends_nearly: ClassVar[bool] = False
    """Whether a reference of `extend_tokens` only comes near to that of all images learnt at once."""

    reads_cls: ClassVar[bool] = True
    """Whether scores need the class token; without it, blocks after the last tap are not run."""

    threads_itself: ClassVar[bool] = False
    """Whether a library with threads of its own scores, rather than torch with those it was told to use."""

    expected_spread: ClassVar[float | None] = None
    """What image scores of normal images spread by, where the method puts them on a scale set by its shots (their
    middle is about 0); None: their spread is a share of their size, as that of distances."""

    former_defaults: ClassVar[Mapping[str, Any]] = {}
    """Options as they were when files of detectors did not hold those that nobody had set, where they have changed."""

    backbone: "Backbone"
    taps: tuple[int, ...]

    def encode(self, images_B3HW: Tensor) -> Tokens:
        """Frozen tokens of [B, 3, H, W] images (uint8 0..255 or float 0..1): the costly part, shared by references."""
        if self.reads_cls:
            return self.backbone.encode_image(images_B3HW, self.taps)
        return self.backbone.encode_image(images_B3HW, self.taps, cls=False)

    def spread_beside(self, reference: Reference) -> float | None:
        """`expected_spread` of scores against this reference: its `support_spread`, if the method keeps one."""
        return float(reference["support_spread"]) if "support_spread" in reference else self.expected_spread

    def learnt_elsewhere(self, k: int) -> bool:
        """Whether what judges with `k` shots was trained on auxiliary data, by the user or before it was shipped."""
        return self.trains == "auxiliary"

    def at_precision(self, precision: str) -> "Detector":
        """The detector whose backbone computes in `auto`, `fp32`, `bf16`, `fp16` or `int8`; itself where that changes
        nothing. Trained tensors are shared, references of one serve the other. For scoring, not for training."""
        return self.on_backbone(self.backbone.at_precision(precision))

    def on_backbone(self, backbone: "Backbone") -> "Detector":
        """The detector on another form of its own backbone, as `Backbone.at_precision` gives it; the same object if it
        is the one it has."""
        return self if backbone is self.backbone else self._on(backbone)

    def without_maps(self) -> "Detector":
        """For whoever wants image scores alone: the same scores, `score_map` None where that spares work."""
        return self

    def without_parts(self) -> "Detector":
        """For whoever wants scores and maps alone: the same ones, without `levels` and `parts` where that spares
        work."""
        return self

    def _on(self, backbone: "Backbone") -> "Detector":
        twin = self._twin()
        twin.backbone = backbone
        return twin

    def _twin(self) -> "Detector":
        """A copy that shares all tensors and may be given other options."""
        twin = copy.copy(self)
        twin.__dict__["_modules"] = dict(self._modules)  # a shallow copy would share the table itself
        return twin

    def encoding(self) -> Hashable:
        """What decides the tokens of `encode` besides the images: detectors with equal ones may share them."""
        return (id(self),) if type(self).encode is not Detector.encode else (id(self.backbone), self.taps)

    def fit(self, support: Support) -> Reference:
        """Learn from K normal images of one category; K = 0 works or raises `NeedsSupportError`."""
        return self.fit_tokens(support.category, self.encode(support.images) if len(support.images) else None)

    def forward(self, images: Tensor, reference: Reference) -> Prediction:
        """Score [B, 3, H, W] images (uint8 0..255 or float 0..1) against a reference."""
        return self.score(self.encode(images), reference)

    @abstractmethod
    def fit_tokens(self, category: str, tokens: Tokens | None) -> Reference:
        """`fit` on tokens that are already encoded; `None` is the empty support."""

    @abstractmethod
    def score(self, tokens: Tokens, reference: Reference) -> Prediction:
        """`forward` on tokens that are already encoded."""

    def extend_tokens(self, reference: Reference, category: str, tokens: Tokens) -> Reference:
        """A reference that also holds these K > 0 normal images; nothing is trained and `reference` is unchanged.

        It scores as `fit_tokens` on all images would (nearly so where `extends_nearly`). ConfigError where the method
        cannot add to what it learnt.
        """
        raise ConfigError(
            f"{type(self).__name__} cannot add to what it learnt: fit again with all normal images together"
        )

    def score_each(self, tokens: Tokens, references: Sequence[Reference]) -> list[Prediction]:
        """`score` against several references; a method overrides it where part of the work is the same for all."""
        return [self.score(tokens, reference) for reference in references]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named loss terms of a labelled batch; their sum is minimised."""
        raise ConfigError(f"{type(self).__name__} is not trained on an auxiliary data set: evaluate it directly")

    def take_normals(self, normals: Mapping[str, Tensor]) -> None:
        """Normal images [M, 3, H, W] by category for `losses`; only a method that `compares` keeps them."""

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name, parameter) of everything that training may change; never a part of the backbone."""
        return ((name, value) for name, value in self.named_parameters() if value.requires_grad)

    def trained_state(self) -> dict[str, Tensor]:
        """Detached copies of the trainable tensors by name: all that a checkpoint needs to hold."""
        return {name: value.detach().clone() for name, value in self.trainable_parameters()}

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Take trained tensors; names and shapes must match exactly, otherwise nothing is changed."""
        own = dict(self.trainable_parameters())
        missing, foreign = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or foreign:
            raise ArtifactError(
                f"trained tensors do not belong to this {type(self).__name__}: {len(missing)} missing"
                f" ({_first(missing)}), {len(foreign)} unknown ({_first(foreign)}); use the options it was trained with"
            )
        for name, value in own.items():
            if state[name].shape != value.shape:
                raise ArtifactError(
                    f"trained tensor '{name}' has shape {tuple(state[name].shape)}, this {type(self).__name__} needs"
                    f" {tuple(value.shape)}; use the backbone and options it was trained with"
                )
        for name, value in own.items():
            value.data.copy_(state[name])


def _first(names: list[str]) -> str:
    return names[0] if names else "none"
