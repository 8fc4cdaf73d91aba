"""What the options of SOWA must be, said before anything is built from them."""

from collections.abc import Sequence

from sowa.errors import ConfigError, UnknownNameError

__all__ = ["ADAPTERS", "PROTOCOLS", "check_options", "check_texts"]

ADAPTERS = ("window", "linear")
PROTOCOLS = ("standard", "paper")


def check_options(
    adapter: str, protocol: str, temperature: float, pixel_temperature: float, coreset: float | None
) -> None:
    """UnknownNameError or ConfigError for a choice or a number that cannot be."""
    if adapter not in ADAPTERS:
        raise UnknownNameError("adapter", got=adapter, known=ADAPTERS)
    if protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", got=protocol, known=PROTOCOLS)
    if not (temperature > 0 and pixel_temperature > 0):
        raise ConfigError(f"temperature={temperature}, pixel_temperature={pixel_temperature}: both must be above 0")
    if coreset is not None and not 0 < coreset <= 1:
        raise ConfigError(
            f"coreset={coreset} is no share of the bank: give a number above 0, at most 1, or null for all"
        )


def check_texts(**lists: Sequence[str]) -> None:
    """ConfigError for an empty list, and for a template that has no place for the category."""
    for name, values in lists.items():
        if isinstance(values, str) or not len(values):
            raise ConfigError(f"{name}={values!r} is not usable: give a list with at least one entry")
        if name.endswith("templates") and not all("{}" in template for template in values):
            raise ConfigError(f"{name}={list(values)} is not usable: each template needs {{}} where the category goes")
