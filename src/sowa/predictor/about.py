"""What is said of a fitted detector, from its content alone: a file can be asked without its backbone's weights."""

from pathlib import Path
from typing import Any

from sowa.backbones.zoo import BACKBONES
from sowa.predictor.content import Content, described
from sowa.predictor.file import identity_of, read_file
from sowa.predictor.scale import promise_of, source_of

__all__ = ["about_file", "about_of"]


def about_of(content: Content, *, identity: str, inside: bool, words_trained: bool) -> dict[str, Any]:
    """Everything but the tensors, ready for JSON. inside: the backbone's weights are in the file."""
    about = described(content, inside=inside)
    mask = content.view.mask
    return {
        "id": identity,
        **about,
        "view": {**about["view"], "views": content.view.count, "mask": None if mask is None else list(mask.shape)},
        "reference": {name: list(value.shape) for name, value in content.reference.items()},
        "reference_bytes": sum(value.numel() * value.element_size() for value in content.reference.values()),
        "threshold_source": source_of(content.calibration),
        "promise": promise_of(content, words_trained=words_trained),
    }


def about_file(path: Path) -> dict[str, Any]:
    """`Predictor.info` of a file without building its backbone. ArtifactError if the file is not whole."""
    stored = read_file(path)
    recipe = stored.content.recipe
    spec = BACKBONES.get(recipe.backbone)
    words = spec is not None and spec.text_trained and not recipe.weights_id.startswith("random")
    identity = identity_of(stored.content, stored.trained)
    return about_of(stored.content, identity=identity, inside=stored.backbone is not None, words_trained=words)
