"""The error family. Every message is one line: what was given, what is allowed, what to do.

SowaError                 anything a user can cause; the command line prints it and exits with 2
|-- UnknownNameError      a name that is not in one of the tables
|-- ConfigError           a setting that cannot be used
|-- DataError             a data set, image or mask that cannot be read
|-- WeightsError          weights that are absent, damaged or do not fit
|-- ArtifactError         a checkpoint or artifact that is damaged, foreign or too new
`-- NeedsSupportError     a method that cannot work without normal images was given none
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "ArtifactError",
    "ConfigError",
    "DataError",
    "NeedsSupportError",
    "SowaError",
    "UnknownNameError",
    "WeightsError",
]


class SowaError(Exception):
    """Base of all errors a user can cause; `str(error)` is one line fit to be shown."""

    exit_code = 2


class UnknownNameError(SowaError):
    """A name missing from a table; the message lists the names that are there."""

    def __init__(self, kind: str, *, got: object, known: Iterable[object]):
        names = sorted(str(name) for name in known)
        near = get_close_matches(str(got), names, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        super().__init__(f"unknown {kind} '{got}'{hint}: choose one of {', '.join(names) or 'none at all'}")


class ConfigError(SowaError):
    """A setting that cannot be used."""


class DataError(SowaError):
    """A data set, image or mask that cannot be read."""


class WeightsError(SowaError):
    """Weights that are absent, damaged, or do not fit the network they are meant for."""


class ArtifactError(SowaError):
    """A checkpoint or artifact that is damaged, foreign or written by a newer version."""


class NeedsSupportError(SowaError):
    """A method that cannot work without normal images was given none."""
