"""Plain settings become calls: every key is the name of a parameter."""

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sowa.backbones import build_backbone
from sowa.detectors import build_detector
from sowa.errors import UnknownNameError
from sowa.training.tokens import remember_tokens

if TYPE_CHECKING:
    from sowa.detectors.base import Detector

__all__ = ["build", "call"]


def build(settings: Mapping[str, Any]) -> "Detector":
    """The detector of the settings on its backbone, with the initial weights of its seed; with the token cache of the
    settings, if they want one."""
    backbone = dict(settings["backbone"])
    model = dict(settings["model"])
    tower = call(build_backbone, backbone, what="backbone")
    detector = build_detector(model.pop("name"), backbone=tower, **model)
    cache = dict(settings.get("token_cache") or {})
    cache.pop("images_gb", None)  # of decoded pictures, the data's affair
    if cache.pop("enabled", False):
        call(remember_tokens, cache, what="token_cache", detector=detector, cache_dir=settings["paths"]["cache_dir"])
    return detector


def call(function: Callable, options: Mapping[str, Any], *, what: str, **given: Any) -> Any:
    """`function(**options, **given)`; an option the function does not have is answered with those it has."""
    known = [name for name in inspect.signature(function).parameters if name not in given and name != "self"]
    for name in options:
        if name not in known:
            raise UnknownNameError(f"setting of {what}", got=name, known=known)
    return function(**options, **given)
