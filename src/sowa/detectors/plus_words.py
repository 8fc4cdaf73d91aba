"""What a language tower says of images: SOWA Plus's other role, where the backbone is a pair of towers.

B images, L tokens, h w grid, E joint width, S states.
"""

import torch
from torch import Tensor

from sowa.backbones.pair import PairBackbone
from sowa.backbones.pyramid import PyramidTokens
from sowa.detectors.plus_heat import HEAT_FRACTION
from sowa.nn.bank import unit
from sowa.nn.ensemble import ensemble, prototypes, spaced
from sowa.nn.maps import to_grid, top_mean
from sowa.types import ABNORMAL, NORMAL, Tokens

__all__ = ["Words"]


class Words:
    """Class token and patch tokens of the language tower against a normal and an abnormal prototype of fixed prompts.

    Nothing is trained. It is what words do by themselves: a bearing at K = 0, not SOWA's learnt prompts.
    """

    def __init__(self, backbone: PairBackbone, *, prompts: str = "winclip", temperature: float = 0.07):
        self.backbone, self.prompts, self.temperature = backbone, ensemble(prompts), temperature

    def encode(self, images_B3HW: Tensor) -> tuple[list[Tensor], list[tuple[int, int]]]:
        """Unit rows [B, 1, E] of the class token and [B, L, E] of the patches, with their grids."""
        found = self.backbone.encode_language(images_B3HW)
        patches_BLE = found.levels[0]
        if patches_BLE.shape[-1] != found.cls.shape[-1]:
            patches_BLE = self.backbone.language.project(patches_BLE)
        return [unit(found.cls.float())[:, None], unit(patches_BLE.float())], [(1, 1), found.grid]

    @torch.no_grad()
    def prototypes(self, category: str) -> Tensor:
        """[S, E] of a category's name."""
        tower = self.backbone.language

        def encode(sentences: list[str]) -> Tensor:
            ids = tower.tokenize(sentences)
            return tower.encode_text(tower.embed_tokens(ids), ids)

        return prototypes(self.prompts, spaced(category), encode)

    def judge(self, tokens: PyramidTokens, prototypes_SE: Tensor) -> tuple[Tensor, Tensor]:
        """([B] probability of the images, [B, h, w] logits of the patches)."""
        image_B, patches_BL = self.logits(tokens, prototypes_SE)
        score_B = 0.5 * (image_B.sigmoid() + top_mean(patches_BL, HEAT_FRACTION).sigmoid())
        return score_B, to_grid(patches_BL, tokens.grids[-1])

    def logits(self, tokens: Tokens, prototypes_SE: Tensor) -> tuple[Tensor, Tensor]:
        """([B] of the images, [B, L] of the patches), above 0 nearer to the abnormal prototype."""
        towards_E = (prototypes_SE[ABNORMAL] - prototypes_SE[NORMAL]) / self.temperature
        image_B1, patches_BL = (level @ towards_E for level in tokens.levels[-2:])
        return image_B1[:, 0], patches_BL
