"""Which part of a list of units one machine takes."""

from sowa.errors import ConfigError

__all__ = ["shard_of"]


def shard_of(text: str | None) -> tuple[int, int]:
    """ "2/5" -> (1, 5): the second of five machines takes units 1, 6, 11, ...; None is all. ConfigError else."""
    if text is None:
        return 0, 1
    first, slash, count = text.partition("/")
    if slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count) <= 1_000_000:
        return int(first) - 1, int(count)
    raise ConfigError(f"--shard {text}: write I/N with I from 1 to N, such as 2/5")
