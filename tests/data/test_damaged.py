"""Files damaged at random: each is read or named, nothing crashes, hangs or fills the memory."""

import resource
import struct
import sys
import time
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from sowa.data.dataset import ImageDataset, collate
from sowa.data.images import read_image, read_mask
from sowa.data.layouts import read_samples
from sowa.errors import DataError
from sowa.types import Sample

MAX_PIXELS = 4_000_000


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def whole_files(generator: np.random.Generator) -> list[bytes]:
    """One healthy file for each format and mode that cameras and programs write."""
    noise = Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    deep = Image.fromarray(generator.integers(0, 65536, (40, 50), dtype=np.uint16))
    modes = {"PNG": ("RGB", "L", "P", "RGBA", "LA", "1"), "TIFF": ("RGB", "CMYK", "P", "L", "1", "LAB", "F", "I")}
    modes |= {"JPEG": ("RGB", "L", "CMYK"), "BMP": ("RGB", "P", "1"), "WEBP": ("RGB", "RGBA"), "PPM": ("RGB", "L", "1")}
    modes |= {"GIF": ("P", "L")}
    files = [encoded(noise.convert(mode), kind) for kind, some in modes.items() for mode in some]
    files += [encoded(deep, "PNG"), encoded(deep, "TIFF"), encoded(noise, "JPEG", progressive=True)]
    files += [encoded(noise, "TIFF", compression=c) for c in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")]
    exif = Image.Exif()
    exif[0x0112] = 6
    files += [encoded(noise, kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP", "TIFF")]
    turned = [noise, noise.rotate(90), noise.rotate(180)]
    files += [
        encoded(turned[0], kind, save_all=True, append_images=turned[1:]) for kind in ("GIF", "PNG", "WEBP", "TIFF")
    ]
    return files


def cut(data: bytes, generator: np.random.Generator) -> bytes:
    return data[: generator.integers(len(data))]


def flipped(data: bytes, generator: np.random.Generator) -> bytes:
    values = np.frombuffer(data, dtype=np.uint8).copy()
    places = generator.integers(len(values), size=generator.integers(1, 30))
    values[places] ^= (1 << generator.integers(0, 8, size=len(places))).astype(np.uint8)
    return values.tobytes()


def flipped_head(data: bytes, generator: np.random.Generator) -> bytes:
    return flipped(data[:80], generator) + data[80:]


def zeroed(data: bytes, generator: np.random.Generator) -> bytes:
    start = int(generator.integers(len(data)))
    return data[:start] + bytes(len(data) - start)


def spliced(data: bytes, generator: np.random.Generator) -> bytes:
    start = int(generator.integers(len(data)))
    return data[:start] + generator.bytes(100) + data[start:]


def inflated(data: bytes, generator: np.random.Generator) -> bytes:
    """A PNG that declares a size of thousands to billions of pixels, with a right checksum."""
    side = int(10 ** generator.uniform(3, 9))
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return data[:8] + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


DAMAGES = (cut, flipped, flipped, flipped_head, flipped_head, zeroed, spliced, inflated)


def damaged_files(root: Path, number: int) -> list[Path]:
    generator = np.random.default_rng(7)
    healthy = whole_files(generator)
    suffixes = [".png", ".jpg", ".bmp", ".tif", ".gif", ".webp"]
    paths = []
    for i in range(number):
        damage = DAMAGES[i % len(DAMAGES)]
        data = damage(healthy[generator.integers(len(healthy))], generator)
        path = root / "good" / f"{i:04}{suffixes[generator.integers(len(suffixes))]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        paths.append(path)
    return paths


def peak_megabytes() -> float:
    """Largest resident size so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


@pytest.fixture(params=[320, pytest.param(2000, marks=pytest.mark.slow)])
def damaged(request, tmp_path):
    return damaged_files(tmp_path, request.param)


def test_healthy_files_of_every_kind_are_read(tmp_path):
    unread = []
    for i, data in enumerate(whole_files(np.random.default_rng(7))):
        (tmp_path / f"{i}.png").write_bytes(data)
        try:
            assert read_image(tmp_path / f"{i}.png").size in ((50, 40), (40, 50))
        except DataError as error:
            unread.append(str(error))
    # The float image holds 0..255, for which there is no rule.
    assert len(unread) == 1 and "float image" in unread[0]


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_named(damaged):
    before, longest, named = peak_megabytes(), 0.0, 0
    for path in damaged:
        start = time.perf_counter()
        for read in (as_image, as_mask):
            try:
                read(path)
            except DataError as error:
                named += 1
                assert str(path) in str(error) and "\n" not in str(error)
        longest = max(longest, time.perf_counter() - start)
    assert named > len(damaged) / 2
    assert longest < 5
    assert peak_megabytes() - before < 300


def as_image(path: Path) -> None:
    image = read_image(path, max_pixels=MAX_PIXELS)
    assert image.mode == "RGB" and image.width * image.height <= MAX_PIXELS
    assert len(image.tobytes()) == 3 * image.width * image.height


def as_mask(path: Path) -> None:
    sample = Sample(name=path.name, image=path, category="c", split="test", label=1, defect="cut", masks=(path,))
    try:
        size = read_image(path, max_pixels=MAX_PIXELS).size
    except DataError:
        size = (50, 40)
    mask = read_mask(sample, size, max_pixels=MAX_PIXELS)
    assert mask.shape == size[::-1] and mask.max() <= 1


@pytest.mark.filterwarnings("ignore")
def test_loader_gets_past_every_damaged_file_and_lists_it(damaged, caplog):
    samples = read_samples(damaged[0].parents[1])
    dataset = ImageDataset(samples=samples, image_size=16, on_error="skip", max_pixels=MAX_PIXELS)
    read = [name for batch in DataLoader(dataset, batch_size=8, collate_fn=collate) for name in batch.names]
    skipped = [sample.name for sample in dataset.skipped()]
    assert sorted(read + skipped) == [sample.name for sample in samples]
    assert sum(record.name == "sowa.data.dataset" for record in caplog.records) == len(skipped) > 0
