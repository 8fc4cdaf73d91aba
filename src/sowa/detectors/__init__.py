"""Detectors by name. Adding a method is one file here and one row in `DETECTORS`."""

import inspect
from importlib import import_module
from typing import TYPE_CHECKING

from sowa.errors import UnknownNameError

if TYPE_CHECKING:
    from sowa.backbones.base import Backbone
    from sowa.detectors.base import Detector

__all__ = ["DETECTORS", "build_detector", "detector_class"]

DETECTORS = {
    "sowa": ("sowa.detectors.sowa", "Sowa"),
    "sowa_plus": ("sowa.detectors.sowa_plus", "SowaPlus"),
    "winclip": ("sowa.detectors.winclip", "WinClip"),
    "april_gan": ("sowa.detectors.april_gan", "AprilGan"),
    "promptad": ("sowa.detectors.promptad", "PromptAd"),
    "inctrl": ("sowa.detectors.inctrl", "InCtrl"),
    "spade": ("sowa.detectors.spade", "Spade"),
    "padim": ("sowa.detectors.padim", "Padim"),
    "patchcore": ("sowa.detectors.patchcore", "Patchcore"),
}
"""Name -> (module, class); imported when asked for, so that listing the names costs nothing."""


def detector_class(name: str) -> "type[Detector]":
    """The class behind a name of `DETECTORS`."""
    if name not in DETECTORS:
        raise UnknownNameError("detector", got=name, known=DETECTORS)
    module, attribute = DETECTORS[name]
    return getattr(import_module(module), attribute)


def build_detector(name: str, *, backbone: "Backbone", **options: object) -> "Detector":
    """A detector by name on a built backbone; an option its constructor does not have is answered with those it has."""
    kind = detector_class(name)
    known = [option for option in inspect.signature(kind).parameters if option != "backbone"]
    for option in options:
        if option not in known:
            raise UnknownNameError(f"option of detector {name}", got=option, known=known)
    return kind(backbone=backbone, **options)
