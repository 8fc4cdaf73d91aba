"""Golden files: tensors and metadata, everything a checker knows comes from here."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor


class UnreadableError(Exception):
    """The file is absent, damaged, or lacks what its format promises."""


class Golden:
    """A golden file in memory. Asking for a tensor or an entry that is not there raises `UnreadableError`."""

    def __init__(self, path: Path):
        self.path = path
        try:
            with safe_open(path, framework="pt") as handle:
                self.metadata = handle.metadata() or {}
                self.tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError) as error:
            raise UnreadableError(f"{path}: cannot be read as safetensors ({error})".replace("\n", " ")) from None

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise UnreadableError(f"{self.path}: tensor '{name}' is missing")
        return self.tensors[name]

    def entry(self, name: str) -> Any:
        """Metadata entry, JSON where it parses (Python's True, False, None too), else the string."""
        if name not in self.metadata:
            raise UnreadableError(f"{self.path}: metadata entry '{name}' is missing")
        text = self.metadata[name]
        words = {"True": True, "False": False, "None": None}
        if text in words:
            return words[text]
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose name starts with `prefix`, without it."""
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}
