"""open_clip's models by name and tag: which are plain CLIP, which activation their weights need, where they lie."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from torch import Tensor

from sowa.backbones.clip import ClipBackbone, clip_from_state, clip_state
from sowa.backbones.state import read_weights
from sowa.backbones.zoo import BackboneSpec
from sowa.errors import ConfigError, UnknownNameError, WeightsError

__all__ = ["choose_tag", "hub_place", "load_clip", "needs_quick_gelu"]

PLAIN = {
    "vision_cfg": {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio", "ls_init_value"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers"},
}
"""Settings of a tower that is CLIP's own: class token pooling, causal text, CLIP's tokenizer."""


def load_clip(
    *,
    spec: BackboneSpec,
    path: Path,
    model: str,
    tag: str | None,
    image_size: int | None,
    activation: str,
) -> ClipBackbone:
    """The frozen towers of `model` with the weights in `path`.

    tag: None where the weights are a user's file and their origin is not known.
    Raises UnknownNameError, ConfigError, or WeightsError if the file holds another network.
    """
    config = plain_config(model)
    tag = choose_tag(model, tag) if tag else None
    quick_gelu = needs_quick_gelu(activation, model=model, tag=tag, scripted=_is_torchscript(path))
    state = clip_state(read_weights(path))
    _check_fit(state, config, model=model, path=path)
    vision, text = config["vision_cfg"], config["text_cfg"]
    published = get_pretrained_cfg(model, tag) if tag else {}
    return clip_from_state(
        state,
        quick_gelu=quick_gelu,
        mean=published.get("mean", spec.mean),
        std=published.get("std", spec.std),
        vision_heads=vision["width"] // vision.get("head_width", 64),
        text_heads=text["heads"],
        image_size=image_size,
        name="clip",
        text_trained=spec.text_trained,
        default_taps=spec.default_taps,
        source=str(path),
    )


def plain_config(model: str) -> dict[str, Any]:
    """open_clip's settings of a model, if it is a vision transformer of CLIP's own form."""
    config = open_clip.get_model_config(model) if model in open_clip.list_models() else None
    if config is None:
        raise UnknownNameError("open_clip model", got=model, known=filter(_is_plain, open_clip.list_models()))
    if not _is_plain(model):
        raise ConfigError(f"open_clip model '{model}' is no plain CLIP vision transformer: choose one like ViT-B-16")
    return config


def _is_plain(model: str) -> bool:
    config = open_clip.get_model_config(model)
    parts = all(set(config.get(part, {})) <= settings for part, settings in PLAIN.items())
    return parts and isinstance(config["vision_cfg"].get("layers"), int) and not config.get("custom_text")


def choose_tag(model: str, tag: str | None) -> str:
    """The tag to fetch: the one asked for, else OpenAI's, else the only one."""
    plain_config(model)
    tags = list_pretrained_tags_by_model(model)
    if tag is None and "openai" in tags:
        return "openai"
    if tag is None and len(tags) == 1:
        return tags[0]
    if tag is None:
        raise ConfigError(f"open_clip model '{model}' has weights {', '.join(tags) or 'nowhere'}: choose one with tag=")
    if not get_pretrained_cfg(model, tag):
        raise UnknownNameError(f"tag of open_clip model '{model}'", got=tag, known=tags)
    return tag


def hub_place(model: str, tag: str) -> tuple[str, str]:
    """(repository on the hub, file name its authors published), either may be empty."""
    published = get_pretrained_cfg(model, tag)
    return published.get("hf_hub", "").rstrip("/"), published.get("url", "").rpartition("/")[2]


def needs_quick_gelu(activation: str, *, model: str, tag: str | None, scripted: bool = False) -> bool:
    """Whether the towers use QuickGELU. `auto` goes by the weights, not by the model's name.

    The name misleads: `ViT-L-14-336` means exact GELU, but its only weights, OpenAI's, were trained with QuickGELU.
    tag: None where it is not known; then the model's tags decide if they agree. scripted: the file is a TorchScript
    archive, the form in which only OpenAI published.
    """
    if activation not in ("auto", "gelu", "quickgelu"):
        raise ConfigError(f"activation '{activation}' is unknown: choose auto, gelu or quickgelu")
    if activation != "auto":
        return activation == "quickgelu"
    if scripted:
        return True
    if tag is not None:
        return bool(get_pretrained_cfg(model, tag).get("quick_gelu", False))
    if plain_config(model).get("quick_gelu", False):
        return True
    known = {bool(get_pretrained_cfg(model, each).get("quick_gelu")) for each in list_pretrained_tags_by_model(model)}
    if len(known) > 1:
        raise ConfigError(
            f"the weights given for '{model}' do not say their activation, and it has been trained with both: "
            f"give tag= (where they come from) or activation=quickgelu or gelu"
        )
    return known == {True}


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _check_fit(state: Mapping[str, Tensor], config: Mapping[str, Any], *, model: str, path: Path) -> None:
    """Refuse another model's weights by what tells models apart, before the first misfitting tensor is named."""
    vision = config["vision_cfg"]
    kernel = state.get("visual.conv1.weight")
    if kernel is None or kernel.ndim != 4:
        raise WeightsError(f"{path} holds no CLIP vision transformer: 'visual.conv1.weight' is missing")
    blocks = len({name.split(".")[3] for name in state if name.startswith("visual.transformer.resblocks.")})
    found = (kernel.shape[0], kernel.shape[-1], blocks)
    wanted = (vision["width"], vision["patch_size"], vision["layers"])
    if found != wanted:
        raise WeightsError(
            f"{path} holds a tower of width {found[0]}, patch {found[1]} and {found[2]} blocks, '{model}' has "
            f"{wanted[0]}, {wanted[1]} and {wanted[2]}: give the model= that fits"
        )
