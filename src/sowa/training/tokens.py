"""The token cache of a run: `token_cache` of the settings, and what is said about it before anything is written."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sowa.errors import ConfigError
from sowa.wheels import cache_root

if TYPE_CHECKING:
    from sowa.detectors.base import Detector

__all__ = ["remember_tokens", "tell_token_cache", "token_precision"]

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def remember_tokens(
    *,
    detector: "Detector",
    folder: str | None = None,
    limit_gb: float = 50.0,
    precision: str = "float32",
    cache_dir: str | None = None,
) -> None:
    """Let the detector take the tokens of images from disk where they were computed before, and keep new ones.

    `folder`: `tokens` in the cache directory if None; `limit_gb`: what all entries in it may take, in 10^9 bytes;
    `precision`: float32 (exact) or float16 (half the size; see docs/performance/training.md for its effect).
    """
    from sowa.backbones.cache import CachedBackbone
    from sowa.backbones.token_store import TokenStore
    from sowa.detectors.base import Detector

    if type(detector).encode is not Detector.encode:
        raise ConfigError(
            f"{type(detector).__name__} reads images in a way of its own, which the token cache cannot hold: set"
            " token_cache.enabled=false"
        )
    place = Path(folder).expanduser() if folder is not None else cache_root(cache_dir) / "tokens"
    store = TokenStore(folder=place, limit_bytes=int(limit_gb * 1e9), precision=precision)
    detector.backbone = CachedBackbone(inner=detector.backbone, store=store)


def token_precision(settings: Mapping[str, Any]) -> dict[str, str]:
    """The part of a training's identity that the cache decides: nothing, unless it rounds tokens."""
    cache = settings.get("token_cache") or {}
    precision = (
        cache.get("precision", "float32") if cache.get("enabled") else settings.get("token_precision", "float32")
    )
    return {} if precision == "float32" else {"token_precision": precision}


def tell_token_cache(detector: "Detector", images: int, epochs: int | None) -> None:
    """One line on the size of the cache before it is written; a hint where it would pay and is not used."""
    tower = detector.backbone
    store = getattr(tower, "store", None)
    if store is None:
        if epochs is None or epochs > 1:
            each = _bytes(tower, detector)
            _say(f"epochs after the first need no backbone with token_cache.enabled=true ({_size(each * images)})")
        return
    each = tower.bytes_per_image(detector.taps)
    wanted, free = each * images, store.free_bytes()
    room = min(store.limit_bytes, free + store.held_bytes)
    _say(
        f"token cache {store.folder}: {images} images x {_size(each)} = {_size(wanted)} where they are not in it yet"
        f" (limit {_size(store.limit_bytes)}, {_size(store.held_bytes)} held, {_size(free)} free on the disk)"
    )
    if wanted > room:
        _say(f"some {room // each} of them fit: the others pass the backbone in every epoch")


def _bytes(tower: Any, detector: "Detector") -> int:
    return 4 * (tower.joint + len(detector.taps) * tower.grid[0] * tower.grid[1] * tower.width)


def _size(count: float) -> str:
    unit, name = next(((unit, name) for unit, name in UNITS if count >= unit), UNITS[-1])
    return f"{count / unit:.1f} {name}"


def _say(line: str) -> None:
    print(f"sowa: {line}", file=sys.stderr, flush=True)
