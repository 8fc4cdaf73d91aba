"""Pixels in and out: an untrusted file becomes an RGB image or a mask, or one line that says why not.

Whatever a camera, a phone or a paint program wrote is brought to 8-bit RGB by a fixed rule, never by the content of
the single image, so pictures of one product stay comparable:

    1-bit, palette, CMYK, YCbCr   converted by Pillow
    alpha or a transparent colour composited on white
    16-bit grey                   value / 257, so 65535 becomes 255 (12-bit data in 16 bits must be scaled beforehand)
    16-bit colour                 the high byte
    32-bit integer grey           as 16-bit grey if all values lie in 0..65535
    float grey                    value * 255 if all values lie in 0..1
    animated or many pages        the first frame
    EXIF orientation              applied, as every viewer does
"""

import math
import mmap
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sowa.errors import ConfigError, DataError
from sowa.types import Sample

__all__ = [
    "MAX_PIXELS",
    "MaskRule",
    "mask_is_empty",
    "read_frames",
    "read_image",
    "read_image_bytes",
    "read_mask",
    "read_reduced",
    "resample_mask",
    "upright_rgb",
]

MaskRule: TypeAlias = Literal["nearest", "paper_train", "paper_test"]
"""How a mask reaches the model's size.

`nearest` picks pixels and keeps area. `paper_train` and `paper_test` are the reference's: the mask as 0/255 grey
resampled bilinearly with antialiasing, positive above 0 (grows by about a pixel) or above one half.
"""

MAX_PIXELS = 100_000_000
"""Largest image that is decoded unless a caller says otherwise: 300 MB as RGB."""

# Formats whose decoders are plain code on the file alone: EPS would start Ghostscript, WMF the operating system.
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM")
_SEVERAL = ("TIFF", "GIF", "WEBP")
"""May hold several pictures that are worth judging; those inside a phone's JPEG are copies of it."""
# A progressive JPEG may repaint the whole picture in every scan; real encoders write about ten.
_MAX_JPEG_SCANS = 200
_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = tuple(_TRANSPOSE[orientation] for orientation in (5, 6, 7, 8))


def read_image(path: str | PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image as RGB, upright.

    Anything that is not a whole image of at most `max_pixels` raises `DataError` with the path; Pillow's own ceiling
    of 179 million pixels holds in any case.
    """
    return _upright_rgb(Path(path), max_pixels)[0]


def read_frames(
    path: str | PathLike[str], *, every: int = 1, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[int | None, Image.Image]]:
    """(number from 0, RGB picture) of each `every`-th frame or page; (None, picture) where the file holds one alone.

    One is decoded at a time. Errors are those of `read_image`, raised where the damage is.
    """
    path = Path(path)
    with _opened(path, max_pixels) as image:
        turned = _TRANSPOSE.get(_orientation(image))
        first = _to_rgb(image, path)
        first = first if turned is None else first.transpose(turned)
        if image.format not in _SEVERAL or not _sought(image, 1):
            yield None, first
            return
        yield 0, first
        number = 1
        while _sought(image, number):
            if image.size[0] * image.size[1] > max_pixels:
                raise DataError(f"{path}: frame {number} declares {image.size[0]} x {image.size[1]} pixels")
            if number % every == 0:
                image.load()
                yield number, _to_rgb(image, path)
            number += 1


def _sought(image: Image.Image, number: int) -> bool:
    try:
        image.seek(number)
    except EOFError:
        return False
    return True


def read_image_bytes(content: bytes, *, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """`read_image` of a file that was fetched already; `name` is for errors."""
    return _upright_rgb(name, max_pixels, content=content)[0]


def read_reduced(
    path: str | PathLike[str], *, side: int, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, tuple[int, int]]:
    """The image as RGB, upright, perhaps at a fraction of its size, and its full (width, height).

    For those who will shrink it to `side` pixels: a JPEG is decoded at 1/2, 1/4 or 1/8 straight from its frequencies as
    long as both sides keep at least twice `side` pixels, so that the resampling afterwards has something to average.
    Other formats are decoded whole. Errors are those of `read_image`.
    """
    full: list[tuple[int, int]] = []

    def scaled(image: Image.Image) -> None:
        full.append(image.size)
        if image.format in ("JPEG", "MPO"):
            image.draft(None, (2 * side, 2 * side))

    image, turned = _upright_rgb(Path(path), max_pixels, scaled)
    return image, (full[0][::-1] if turned in _LYING else full[0])


def upright_rgb(image: Image.Image, *, name: str = "image", max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A picture that is open already or was made in memory, by the rules of `read_image`; `name` is for errors."""
    if min(image.size) < 1 or image.size[0] * image.size[1] > max_pixels:
        raise DataError(f"{name}: {image.size[0]} x {image.size[1]} pixels; 1 to {max_pixels} are read")
    try:
        rgb, turned = _to_rgb(image, Path(name)), _TRANSPOSE.get(_orientation(image))
    except DataError:
        raise
    except Exception as error:  # decoders meet damaged bytes with whatever their code runs into
        raise DataError(f"{name}: damaged image: {' '.join(str(error).split()) or type(error).__name__}") from error
    return rgb if turned is None else rgb.transpose(turned)


def read_mask(sample: Sample, size_wh: tuple[int, int], *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """[h, w] in {0, 1}: the union over `sample.masks` of the pixels above 0 in any colour channel.

    `size_wh` is the size of the upright image. A normal sample has a mask of zeros. A mask of another size is an
    error, with one exception: where the photograph was turned by its EXIF orientation and the mask fits the picture as
    it lies in the file, the mask is turned with it. A defective sample without mask files has no pixel truth: error.
    """
    width, height = size_wh
    union = np.zeros((height, width), dtype=bool)
    if sample.label and not sample.masks:
        raise DataError(f"{sample.image}: no mask for this defective image; pixel metrics need one, or leave masks out")
    for path in sample.masks if sample.label else ():
        union |= _upright(_positive(path, max_pixels), sample.image, path, size_wh, max_pixels)
    return union.astype(np.uint8)


def mask_is_empty(path: Path, *, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether a mask file marks nothing."""
    return not _positive(path, max_pixels).any()


def resample_mask(mask: NDArray[np.uint8], size_wh: tuple[int, int], rule: MaskRule = "nearest") -> NDArray[np.uint8]:
    """[height, width] in {0, 1} from a mask [h, w] in {0, 1}, by one of the rules of `MaskRule`."""
    if rule not in get_args(MaskRule):
        raise ConfigError(f"mask rule '{rule}': choose one of {', '.join(get_args(MaskRule))}")
    grey = Image.fromarray(mask * np.uint8(255))
    filter_ = Image.Resampling.NEAREST if rule == "nearest" else Image.Resampling.BILINEAR
    small = np.asarray(grey.resize(size_wh, filter_))
    return (small > (127 if rule == "paper_test" else 0)).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------ decoding


def _upright_rgb(
    path: Path | str,
    max_pixels: int,
    before: Callable[[Image.Image], None] | None = None,
    content: bytes | None = None,
) -> tuple[Image.Image, Image.Transpose | None]:
    """The picture and how it was turned."""
    with _opened(path, max_pixels, before=before, content=content) as image:
        turned = _TRANSPOSE.get(_orientation(image))
        rgb = _to_rgb(image, path)
        return (rgb if turned is None else rgb.transpose(turned)), turned


@contextmanager
def _opened(
    path: Path | str,
    max_pixels: int,
    *,
    decoded: bool = True,
    before: Callable[[Image.Image], None] | None = None,
    content: bytes | None = None,
) -> Iterator[Image.Image]:
    """The first frame, `before` called ahead of decoding; every failure of a decoder is a `DataError` with the path.

    content: the file's bytes, where the path is but its name.
    """
    if content is None:
        _check_file(path)
    elif not content:
        raise DataError(f"{path}: empty file (0 bytes)")
    try:
        # A stream and not a path: given a path, Pillow maps some files into memory and scrambles turned grey TIFFs.
        with path.open("rb") if content is None else BytesIO(content) as file, _unwarned(file) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise DataError(f"{path}: declares {width} x {height} pixels, at most {max_pixels} are read")
            if image.format in ("JPEG", "MPO"):
                _check_scans(path, content)
            if before is not None:
                before(image)
            if decoded:
                image.load()
            yield image
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: declares too many pixels, at most {max_pixels} are read") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image ({', '.join(_FORMATS)} are read)") from error
    # Decoders meet damaged bytes with whatever their code runs into: struct.error, IndexError, SyntaxError, ...
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: damaged image: {reason}") from error


def _unwarned(file: BinaryIO) -> Image.Image:
    """The image with its header read. Pillow warns of large ones; the limit here is lower or the caller's choice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file, formats=_FORMATS)


def _check_file(path: Path) -> None:
    """Opening a pipe or a device would wait for ever."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: not a file")
    if status.st_size == 0:
        raise DataError(f"{path}: empty file (0 bytes)")


def _check_scans(path: Path | str, content: bytes | None) -> None:
    if content is None:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            scans = _scans(data)
    else:
        scans = _scans(content)
    if scans > _MAX_JPEG_SCANS:
        raise DataError(f"{path}: JPEG of more than {_MAX_JPEG_SCANS} scans, made to keep a decoder busy; not read")


def _scans(data: bytes | mmap.mmap) -> int:
    """How often a scan begins, counted to just above the limit."""
    position, scans = data.find(b"\xff\xda"), 0
    while position >= 0 and scans <= _MAX_JPEG_SCANS:
        position, scans = data.find(b"\xff\xda", position + 2), scans + 1
    return scans


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged note about the picture is no reason to lose the picture
        return 1


def _to_rgb(image: Image.Image, path: Path | str) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return Image.fromarray(_deep_to_8bit(np.asarray(image), path)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        seen = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(white, seen).convert("RGB")
    return image.convert("RGB")


def _deep_to_8bit(values: NDArray[np.generic], path: Path | str) -> NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        if not (math.isfinite(low) and math.isfinite(high) and low >= 0 and high <= 1):
            raise DataError(f"{path}: float image with values {low:g}..{high:g}; 0..1 is read, scale it first")
        return np.rint(values * 255).astype(np.uint8)
    if low < 0 or high > 65535:
        raise DataError(f"{path}: 32-bit image with values {low:g}..{high:g}; 0..65535 is read, scale it first")
    return np.rint(values.astype(np.float64) / 257).astype(np.uint8)


# --------------------------------------------------------------------------------------------------------------- masks


def _positive(path: Path, max_pixels: int) -> NDArray[np.bool_]:
    """[h, w]: pixels above 0 in any colour channel and not transparent; turned as the mask's own EXIF says."""
    with _opened(path, max_pixels) as image:
        turned = _TRANSPOSE.get(_orientation(image))
        image = image if turned is None else image.transpose(turned)
        if image.mode in ("P", "PA"):
            return _palette_positive(image)
        values = np.asarray(image)
        if image.mode in ("LA", "RGBA", "La", "RGBa"):
            return _painted(values[..., :-1] > 0, values[..., -1])
    return np.asarray((values > 0).any(axis=-1) if values.ndim == 3 else values > 0)


def _palette_positive(image: Image.Image) -> NDArray[np.bool_]:
    """By colour, as a person sees it (some programs sort white before black); by index if the palette is all black."""
    values = np.asarray(image.convert("RGBA"))
    by_colour = _painted(values[..., :3] > 0, values[..., 3])
    if by_colour.any():
        return by_colour
    return np.asarray(np.asarray(image.convert("P") if image.mode == "PA" else image) > 0)


def _painted(colour: NDArray[np.bool_], alpha: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Coloured and visible; black paint on a transparent ground counts by its alpha."""
    painted = colour.any(axis=-1) & (alpha > 0)
    return painted if painted.any() or alpha.min() > 0 else alpha > 0


def _upright(
    mask: NDArray[np.bool_], image: Path, path: Path, size_wh: tuple[int, int], max_pixels: int
) -> NDArray[np.bool_]:
    """The mask if it has the image's size, turned with a photograph that was turned, or an error."""
    width, height = size_wh
    if mask.shape == (height, width):
        return mask
    if mask.shape == (width, height):
        with _opened(image, max_pixels, decoded=False) as photograph:  # a decoded TIFF forgets how it lay
            orientation = _orientation(photograph)
        if orientation in (5, 6, 7, 8):
            return np.asarray(Image.fromarray(mask).transpose(_TRANSPOSE[orientation]))
    got = f"{mask.shape[1]} x {mask.shape[0]}"
    raise DataError(f"{path}: mask of {got} pixels for an image of {width} x {height} ({image})")
