"""InCTRL: a generalist trained once to read the residual between an image and a few normal ones (CVPR 2024).

B images, V levels, L tokens, D token width, E joint width, S states, K shots, M bank rows, h w grid, H W pixels.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sowa.backbones.base import Backbone
from sowa.backbones.sentences import encode_sentences
from sowa.detectors.base import Detector
from sowa.errors import ArtifactError, ConfigError, NeedsSupportError
from sowa.nn.bank import leave_one_out_distance, unit
from sowa.nn.ensemble import SEMANTIC_WORDS, ensemble, prototypes, spaced
from sowa.nn.heads import Head, binary_focal
from sowa.nn.maps import enlarge, to_grid
from sowa.nn.scores import abnormal_probability, level_distances
from sowa.types import Batch, Prediction, Reference, Tokens

__all__ = ["InCtrl", "Residual"]

STATISTICS = ("running_mean", "running_var")
"""What batch normalisation learns without a gradient; it belongs to the trained state."""


class Residual(NamedTuple):
    """What the heads make of an image and its normal images; every value but `image_BE` is in 0..1."""

    levels_BVL: Tensor
    """Distance of each token to the normal tokens of its level."""
    image_BE: Tensor
    """Adapted class token: mean of the normal images minus the image."""
    image_score_B: Tensor
    """Head on `image_BE`."""
    holistic_BL: Tensor
    """Mean distance + image score + what the words say (0..3)."""
    holistic_score_B: Tensor
    """Head on `holistic_BL`."""
    score_B: Tensor


class InCtrl(Detector):
    """Residuals of patch tokens and of the adapted class token to the shots, with fixed words, read by two small heads.

    Adapter and heads are trained on image labels of an auxiliary data set. The image score is the paper's; the map,
    smoothed patch residuals, is this project's: the paper has none. `holistic` reads the grid as a vector, so trained
    weights belong to one image size. Every image is compared with its own shots (the published code mixes up those of a
    batch).
    """

    trains: ClassVar[Literal["none", "auxiliary", "target"]] = "auxiliary"
    compares: ClassVar[bool] = True
    splits: ClassVar[bool] = False  # its heads are normalised over the batch, and shots are drawn in the batch's order

    def __init__(
        self,
        *,
        backbone: Backbone,
        taps: Sequence[int] | None = None,
        shots: int = 4,
        adapter_width: int | None = None,
        head_widths: Sequence[int] = (128, 64),
        scale: float = 100.0,
        alpha: float = 1.0,
        gamma: float = 2.0,
        sigmoid_twice: bool = False,
        sigma: float = 4.0,
        use_text: bool = True,
        seed: int = 0,
    ):
        """
        taps: blocks 7, 9, 11 of 12 if None, and the like of other depths.
        shots: normal images an image is compared with in training; the paper trains as many as it tests with.
        adapter_width: between the two layers of the adapter, a quarter of the joint width if None.
        scale: of the cosines with the words.
        alpha: weight of the largest patch residual against the holistic head: 1 in the published code, 0.5 in print.
        gamma: of the focal loss; sigmoid_twice: the published loss, which takes the scores for logits.
        sigma: smoothing of the map in pixels.
        use_text: False leaves the words out, for a backbone whose text tower is not trained.
        seed: of the initial values.
        """
        super().__init__()
        _check(shots, adapter_width, head_widths, scale, alpha, gamma)
        self.backbone = backbone
        self.taps = tuple(taps) if taps is not None else default_taps(backbone.depth)
        self.shots, self.scale, self.alpha, self.gamma = shots, scale, alpha, gamma
        self.sigmoid_twice, self.sigma, self.use_text = sigmoid_twice, sigma, use_text
        joint = backbone.joint
        middle = adapter_width or max(1, joint // 4)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapter = nn.Sequential(
                nn.Linear(joint, middle, bias=False), nn.ReLU(), nn.Linear(middle, joint, bias=False), nn.ReLU()
            )
            self.image_head = Head(width=joint, hidden=head_widths)
            self.holistic_head = Head(width=backbone.grid[0] * backbone.grid[1], hidden=head_widths)
        self._prototypes: dict[str, Tensor] = {}
        self._normals: dict[str, Tensor] = {}

    # ---- words

    def prototypes(self, category: str) -> Tensor:
        """[S, E] unit vectors of the category's words; encoded once per detector, since nothing trained is in them."""
        if category not in self._prototypes:
            name = "inctrl_semantic" if category in SEMANTIC_WORDS else "winclip"
            encode = partial(encode_sentences, self.backbone)
            self._prototypes[category] = prototypes(ensemble(name), spaced(category), encode)
        return self._prototypes[category].to(self.adapter[0].weight.device)

    # ---- residuals

    def residual(
        self, tokens: Tokens, levels_BVL: Tensor, normal: Tensor, prototypes_SE: Tensor | None, *, learn: bool = False
    ) -> Residual:
        """Both heads on images whose patch distances `levels_BVL` are known.

        normal: mean adapted class token of the normal images, [E] or one per image [B, E]. prototypes_SE: [S, E] or one
        pair per image [B, S, E]; None leaves the words out. learn: the heads normalise by this batch.
        """
        image_BE = normal - self.adapter(tokens.cls)
        image_score = self.image_head(image_BE, learn=learn)
        distance_BL = levels_BVL.mean(dim=1)
        holistic_BL = distance_BL + image_score[:, None]
        if prototypes_SE is not None:
            holistic_BL = holistic_BL + abnormal_probability(tokens.cls, prototypes_SE, self.scale)[:, None]
        holistic_score = self.holistic_head(holistic_BL, learn=learn)
        score = (holistic_score + self.alpha * distance_BL.amax(dim=1)) / (1 + self.alpha)
        return Residual(levels_BVL, image_BE, image_score, holistic_BL, holistic_score, score)

    # ---- support and scoring

    @torch.no_grad()
    def fit_tokens(self, category: str, tokens: Tokens | None) -> Reference:
        """`bank` [V, M, D] of unit rows, `adapted` [E] mean adapted class token, `prototypes` [S, E], and
        `support_scores` [K], what each shot would score if it were not among the shots."""
        if tokens is None:
            raise NeedsSupportError(
                f"inctrl compares with normal images and was given none of '{category}': give shots of 1 or more"
            )
        adapted_KE = self.adapter(tokens.cls)
        reference = {
            "bank": torch.stack([unit(level.float()).flatten(0, 1) for level in tokens.levels]),
            "adapted": adapted_KE.mean(dim=0),
        }
        if self.use_text:
            reference["prototypes"] = self.prototypes(category)
        own = [leave_one_out_distance(level.float(), tokens.grid).clamp(min=0) / 2 for level in tokens.levels]
        others = len(adapted_KE) - 1
        rest_KE = (adapted_KE.sum(dim=0) - adapted_KE) / others if others else adapted_KE
        seen = self.residual(tokens, torch.stack(own, dim=1), rest_KE, reference.get("prototypes"))
        return reference | {"support_scores": seen.score_B}

    @torch.no_grad()
    def score(self, tokens: Tokens, reference: Reference) -> Prediction:
        """Image score in 0..1, map [B, H, W] of patch residuals in 0..1, those of each level [B, V, h, w].

        `parts`: `image_score`, `holistic_score` [B] of the two heads, `memory_score` [B] largest residual, `memory_map`
        [B, h, w].
        """
        distances = level_distances(tokens.levels, reference["bank"])
        seen = self.residual(tokens, distances, reference["adapted"], reference.get("prototypes"))
        levels = to_grid(seen.levels_BVL, tokens.grid)
        grid = levels.mean(dim=1)
        size = (self.backbone.image_size, self.backbone.image_size)
        return Prediction(
            score=seen.score_B,
            score_map=enlarge(grid, size, self.sigma),
            levels=levels,
            parts={
                "image_score": seen.image_score_B,
                "holistic_score": seen.holistic_score_B,
                "memory_score": grid.flatten(1).amax(dim=1),
                "memory_map": grid,
            },
        )

    # ---- training

    def take_normals(self, normals: Mapping[str, Tensor]) -> None:
        """Give `losses` normal images [M, 3, H, W] per category to draw shots from; they replace those given before.

        Without them a batch must bring the normal images of its own categories.
        """
        self._normals = dict(normals)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """`score` and `image`: binary focal losses of the score and of the image head.

        Every image is compared with `shots` normal images of its category, drawn by torch's global generator from those
        of `take_normals`, else from the other normal images of the batch. An image without any is left out; a batch
        without any that is left has zero losses.
        """
        drawn = self._draw(batch)
        if not drawn:
            zero = sum(value.sum() * 0 for _, value in self.trainable_parameters())
            return {"score": zero, "image": zero}
        rows = list(drawn)
        with torch.no_grad():
            tokens = self.encode(batch.images[rows])
            shots = self.encode(torch.cat(list(drawn.values())))
            pairs = None
            if self.use_text:
                pairs = torch.stack([self.prototypes(batch.categories[row]) for row in rows])
        return self.token_losses(tokens, shots, pairs, batch.labels[rows])

    def token_losses(
        self, tokens: Tokens, shots: Tokens, prototypes_BSE: Tensor | None, labels_B: Tensor
    ) -> dict[str, Tensor]:
        """`losses` on encoded tokens; `shots` holds the K normal images of the first image, then those of the next."""
        seen = self.own_residual(tokens, shots, prototypes_BSE)
        focal = partial(binary_focal, labels_B=labels_B, gamma=self.gamma, sigmoid_twice=self.sigmoid_twice)
        return {"score": focal(seen.score_B), "image": focal(seen.image_score_B)}

    def own_residual(self, tokens: Tokens, shots: Tokens, prototypes_BSE: Tensor | None) -> Residual:
        """`residual` of every image to its own shots, arranged as for `token_losses`; heads learn in training mode."""
        count = len(shots.cls) // len(tokens.cls)
        with torch.no_grad():
            distances = [
                level_distances(
                    tokens.rows(slice(i, i + 1)).levels,
                    [level.flatten(0, 1) for level in shots.rows(slice(i * count, (i + 1) * count)).levels],
                )
                for i in range(len(tokens.cls))
            ]
        normal_BE = self.adapter(shots.cls).unflatten(0, (-1, count)).mean(dim=1)
        return self.residual(tokens, torch.cat(distances), normal_BE, prototypes_BSE, learn=self.training)

    def _draw(self, batch: Batch) -> dict[int, Tensor]:
        """Row of the batch -> [K, 3, H, W] normal images of its category."""
        drawn = {}
        for row, category in enumerate(batch.categories):
            if category in self._normals:
                pool = self._normals[category]
                places = list(range(len(pool)))
            else:
                pool = batch.images
                same = [i for i, name in enumerate(batch.categories) if name == category and i != row]
                places = [i for i in same if int(batch.labels[i]) == 0]
            if places:
                order = torch.cat([torch.randperm(len(places)) for _ in range(-(-self.shots // len(places)))])
                picked = [places[i] for i in order[: self.shots].tolist()]
                drawn[row] = pool[picked].to(batch.images.device)
        return drawn

    # ---- trained state

    def trained_state(self) -> dict[str, Tensor]:
        """Trainable tensors and the running statistics of batch normalisation."""
        return super().trained_state() | {name: value.detach().clone() for name, value in self._statistics()}

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Take trained tensors; names and shapes must match exactly, otherwise nothing is changed."""
        own = dict(self._statistics())
        for name, value in own.items():
            if name not in state or state[name].shape != value.shape:
                found = f"shape {tuple(state[name].shape)}" if name in state else "nothing"
                raise ArtifactError(
                    f"trained tensor '{name}' of inctrl needs shape {tuple(value.shape)}, found {found}: use the"
                    " backbone, image size and options it was trained with"
                )
        super().load_trained_state({name: value for name, value in state.items() if name not in own})
        for name, value in own.items():
            value.copy_(state[name])

    def _statistics(self) -> Iterator[tuple[str, Tensor]]:
        heads = (("image_head", self.image_head), ("holistic_head", self.holistic_head))
        for prefix, head in heads:
            for name, value in head.named_buffers():
                if name.endswith(STATISTICS):
                    yield f"{prefix}.{name}", value


def default_taps(depth: int) -> tuple[int, ...]:
    """Blocks 7, 9 and 11 of 12, and the like of other depths."""
    return tuple(sorted({math.ceil(depth * block / 12) for block in (7, 9, 11)}))


def _check(shots, adapter_width, head_widths, scale, alpha, gamma) -> None:
    widths = [shots, *head_widths, *([] if adapter_width is None else [adapter_width])]
    if not len(head_widths) or min(widths) < 1:
        raise ConfigError(
            f"shots={shots}, adapter_width={adapter_width}, head_widths={list(head_widths)} are not usable: give whole"
            " numbers of at least 1 and at least one head width"
        )
    if not (scale > 0 and alpha >= 0 and gamma >= 0):
        raise ConfigError(f"scale={scale}, alpha={alpha}, gamma={gamma}: scale must be above 0, the others 0 or more")
