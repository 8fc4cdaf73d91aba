"""How much of a picture reaches a model: decisions that need no picture and no heavy library."""

from typing import Literal, TypeAlias, TypedDict, get_args

from sowa.errors import ConfigError

__all__ = ["Fit", "Intake", "intake_of"]

Fit: TypeAlias = Literal["squash", "letterbox"]
"""`squash` resamples both sides to the model's and gives up the aspect ratio, as the papers; `letterbox` keeps it."""


class Intake(TypedDict):
    """Options of `sowa.data.dataset.ImageDataset`, the same for shots and test images."""

    fit: Fit
    reduce: bool


def intake_of(protocol: str, fit: Fit) -> Intake:
    """The papers squash, from every pixel; elsewhere a large JPEG is decoded at a fraction of its size."""
    if fit not in get_args(Fit):
        raise ConfigError(f"fit '{fit}': choose one of {', '.join(get_args(Fit))}")
    if protocol == "paper" and fit != "squash":
        raise ConfigError(f"fit '{fit}' is not the papers' way: use protocol=standard, or fit squash")
    return {"fit": fit, "reduce": protocol != "paper"}
