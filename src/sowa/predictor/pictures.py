"""Whatever a caller has of a picture becomes an RGB image with a name, or one line that says why not."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sowa.data.images import MAX_PIXELS, read_image, read_image_bytes, upright_rgb
from sowa.data.layouts_tree import look
from sowa.errors import DataError
from sowa.wheels import file_sha256

__all__ = ["ARRAY", "Given", "as_picture", "given_pictures", "identity", "name_of", "thumbnail"]

ARRAY = "array"
"""Name of pixels that have none."""
ALLOWED = "give a path, a PIL image, an array [h, w, 3] or [h, w], or a tensor [3, h, w] (uint8, or float in 0..1)"

Given: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | NDArray[Any] | Tensor"
"""`bytes` is the content of a picture's file."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What is kept of a normal picture: its file's name and hash, and the hash of its pixels."""

    name: str
    sha256: str
    pixels: str


def given_pictures(images: Any) -> list[Given]:
    """The single pictures meant: those of a folder (without its subfolders, by name), one picture, or an iterable."""
    if isinstance(images, str | os.PathLike):
        path = Path(images)
        if not path.is_dir():
            return [path]
        found = list(look(path).images)
        if not found:
            raise DataError(f"{path}: no picture in this folder; its subfolders are not searched")
        return found
    if isinstance(images, Image.Image | bytes):
        return [images]
    if isinstance(images, np.ndarray | Tensor):
        if images.ndim == 4:
            return list(images)
        return [images]
    if isinstance(images, Iterable):
        return list(images)
    raise DataError(f"pictures of type {type(images).__name__} are not understood: {ALLOWED}, or a folder or list")


def name_of(item: Given) -> str:
    """The path as it was given, or "array"."""
    return os.fspath(item) if isinstance(item, str | os.PathLike) else ARRAY


def as_picture(item: "Given | DataError", name: str | None = None) -> Image.Image:
    """RGB and upright. The same picture is the same pixels in any form. DataError for anything that is no picture;
    one in place of a picture, from a source that could not give it, is raised."""
    if isinstance(item, DataError):
        raise item
    if isinstance(item, str | os.PathLike):
        return read_image(item)
    name = name or ARRAY
    if isinstance(item, bytes):
        return read_image_bytes(item, name=name)
    if isinstance(item, Image.Image):
        return upright_rgb(item, name=name)
    if isinstance(item, Tensor):
        array = item.detach().cpu().numpy() if not item.is_sparse else np.empty(0)
        return _from_array(np.moveaxis(array, 0, -1) if array.ndim == 3 else array, name, "tensor")
    if isinstance(item, np.ndarray):
        return _from_array(item, name, "array")
    raise DataError(f"{name}: a {type(item).__name__} is no picture: {ALLOWED}")


def _from_array(array_hwC: NDArray[Any], name: str, kind: str) -> Image.Image:
    shape = list(array_hwC.shape)
    if array_hwC.ndim == 3 and shape[2] == 1:
        array_hwC = array_hwC[..., 0]
    if array_hwC.ndim != 2 and not (array_hwC.ndim == 3 and shape[2] == 3):
        raise DataError(f"{name}: {kind} of shape {shape}, channels last, is no picture: {ALLOWED}")
    if not 1 <= array_hwC.shape[0] * array_hwC.shape[1] <= MAX_PIXELS:
        raise DataError(f"{name}: {shape[1]} x {shape[0]} pixels; 1 to {MAX_PIXELS} are read")
    if array_hwC.dtype.kind == "f":
        low, high = float(array_hwC.min()), float(array_hwC.max())
        if not (low >= 0 and high <= 1):  # also where one is not a number
            raise DataError(f"{name}: float {kind} with values {low:g}..{high:g}; 0..1 is read, scale it first")
        array_hwC = np.rint(array_hwC * 255).astype(np.uint8)
    if array_hwC.dtype != np.uint8:
        raise DataError(f"{name}: {kind} of {array_hwC.dtype} is no picture: {ALLOWED}")
    return Image.fromarray(np.ascontiguousarray(array_hwC)).convert("RGB")


def identity(item: Given, picture: Image.Image, number: int) -> Identity:
    """Name without folders, sha256 of the file (of the pixels where there is none) and of the pixels."""
    pixels = hashlib.sha256(f"{picture.size}|".encode() + picture.tobytes()).hexdigest()
    if isinstance(item, str | os.PathLike):
        return Identity(name=_plain(Path(item).name), sha256=file_sha256(Path(item)), pixels=pixels)
    return Identity(name=f"{ARRAY}-{number}", sha256=pixels, pixels=pixels)


def thumbnail(picture: Image.Image, side: int) -> NDArray[np.uint8]:
    """[side, side, 3]: the whole picture, squashed."""
    return np.array(picture.resize((side, side), Image.Resampling.BILINEAR), dtype=np.uint8)


def named(items: Iterable[Any]) -> Iterator[tuple[str, Given]]:
    """(name, picture) of each item of a stream; an item may bring its own name."""
    for item in items:
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str):
            yield item
        else:
            yield name_of(item), item


def without_copies(found: Sequence[Identity]) -> list[int]:
    """Places of the first of each set of pictures that are the same pixels: copies are no further evidence."""
    first: dict[str, int] = {}
    for place, one in enumerate(found):
        first.setdefault(one.pixels, place)
    return sorted(first.values())


def _plain(name: str) -> str:
    """A file name that is safe to print and to store."""
    return "".join(sign if sign.isprintable() and sign not in "/\\" else "_" for sign in name)[:200] or "_"
