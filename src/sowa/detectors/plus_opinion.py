"""What those who judge by training add to SOWA Plus once there are shots. B images, K shots, h w grid."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sowa.detectors.plus_head import LogitScale
from sowa.detectors.plus_options import check_origin
from sowa.detectors.plus_panel import Panel
from sowa.types import Reference

__all__ = ["Opinion"]

SPREAD = 0.35
"""Of good images' scores, in spreads of the training pictures': .10 to .43 on development products."""


class Opinion(nn.Module):
    """A panel with its share in maps and scores.

    How much it counts in a score follows what it says of the shots, which are known to be good: all where it takes them
    for good as its own training pictures, nothing where it takes them for defective (`Panel.trust`).
    """

    def __init__(self, panel: Panel, *, share: float, weight: float, head_8: Tensor, judges_8: Tensor | None):
        """share: in the map, spreads of normal tokens for each spread of the logits on the shots; weight: of the score;
        head_8, judges_8: the hashes of the files begin so."""
        super().__init__()
        self.panel, self.share, self.weight = panel, share, weight
        self.files: dict[str, Tensor] = {"head": head_8} | ({} if judges_8 is None else {"judges": judges_8})

    def learn(self, logits: Sequence[Tensor], earlier: Reference) -> Reference:
        """Entries of a reference from what the panel says of shots, joined with `earlier` ones: see
        `SowaPlus.fit_tokens`."""
        found: Reference = {}
        if self.share:
            found["logits"] = LogitScale.of(self.panel.map(logits).flatten(1), earlier.get("logits"))
        if self.weight:
            peaks_K = torch.cat([*([earlier["peaks"]] if "peaks" in earlier else []), self.panel.score(logits)])
            found |= {"peaks": peaks_K, "opinion": torch.stack((peaks_K.mean(), self.panel.trust(peaks_K)))}
        return found | self.files if found else found

    def of_shots(self, count: int, reference: Reference) -> Tensor:
        """[count] in the scores of the newest normal images, or 0 for parts of one that have no score of their own."""
        peaks_K = reference["peaks"]
        if len(peaks_K) < count:
            return peaks_K.new_zeros(count)
        return self.said(peaks_K[-count:], reference)

    def spread(self, reference: Mapping[str, Tensor]) -> float:
        """To expect among good images of what it adds to a score."""
        return SPREAD * self.weight * float(reference["opinion"][1])

    def said(self, score_B: Tensor, reference: Mapping[str, Tensor]) -> Tensor:
        """[B] in the score: how much worse images are than the shots, as far as the panel is trusted."""
        middle, trust = reference["opinion"]
        return self.weight * trust * (score_B - middle)

    def heat(self, logits: Sequence[Tensor], reference: Mapping[str, Tensor]) -> Tensor:
        """[B, h, w] in the map."""
        return self.share * LogitScale.standard(self.panel.map(logits), reference["logits"])

    def check(self, reference: Reference) -> None:
        """ArtifactError if something was learnt with other files."""
        for name in ("head", "judges"):
            check_origin(reference, name, self.files.get(name))
