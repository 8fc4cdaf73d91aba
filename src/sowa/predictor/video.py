"""Frames of a video, through PyAV (the extra `video`).

The container is told by the file's suffix and never guessed from its content, and the file is handed over open: a
playlist that calls itself a video, or a name that looks like an address, opens nothing else.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from sowa.data.images import MAX_PIXELS
from sowa.errors import ConfigError, DataError

__all__ = ["VIDEO_SUFFIXES", "require_reader", "video_frames"]

VIDEO_SUFFIXES = {
    ".avi": "avi",
    ".m4v": "mov",
    ".mjpeg": "mjpeg",
    ".mjpg": "mjpeg",
    ".mkv": "matroska",
    ".mov": "mov",
    ".mp4": "mov",
    ".mpeg": "mpeg",
    ".mpg": "mpeg",
    ".ts": "mpegts",
    ".webm": "matroska",
}
"""Suffix -> FFmpeg's name of the container."""


def require_reader(name: str) -> None:
    """ConfigError, one line, where PyAV is not installed."""
    if find_spec("av") is None:
        raise ConfigError(f"{name}: videos are read with PyAV, which is not installed: pip install 'sowa[video]'")


def video_frames(path: Path, *, every: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """(number from 0, RGB picture) of each `every`-th frame, as it is stored; DataError where it cannot go on."""
    import av

    try:
        with (
            path.open("rb") as file,
            av.open(file, format=VIDEO_SUFFIXES[path.suffix.casefold()]) as container,
        ):
            if not container.streams.video:
                raise DataError(f"{path}: no pictures in this video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                if frame.width * frame.height > MAX_PIXELS:
                    raise DataError(f"{path}: {frame.width} x {frame.height} pixels, at most {MAX_PIXELS} are read")
                if number % every == 0:
                    yield number, frame.to_image()
    except DataError:
        raise
    except OSError as error:  # PyAV's own errors are of this kind, too
        raise DataError(f"{path}: video cannot be read: {error.strerror or error}") from error
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{path}: damaged video: {' '.join(str(error).split())}") from error
