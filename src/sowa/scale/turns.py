"""Whose turn it is: blocks that wait, and how often each was begun in vain."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from sowa.scale.blocks import Block

__all__ = ["ATTEMPTS", "Failed", "Lost", "Turns"]

ATTEMPTS = 3
"""Times a block is begun before it is given up: a picture on which every worker dies must not go on for ever."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A block that is given up, with the reason in one line."""

    block: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker is gone in the middle of a block; the block waits again."""

    block: int


class Turns:
    """First come, first served; what was lost goes first."""

    def __init__(self, blocks: Iterable[Block]):
        self.waiting = deque(blocks)
        self._begun: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.waiting)

    def next(self) -> Block:
        return self.waiting.popleft()

    def again(self, block: Block, reason: str) -> Failed | Lost:
        """Put back a block that was not finished, or give it up."""
        self._begun[block.number] += 1
        if self._begun[block.number] >= ATTEMPTS:
            return Failed(block.number, reason)
        self.waiting.appendleft(block)
        return Lost(block.number)
