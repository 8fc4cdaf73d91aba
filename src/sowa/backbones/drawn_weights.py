"""`weights=random`: a published architecture with weights drawn from a seed, for dry runs and for measuring speed."""

import open_clip
import timm
import torch

from sowa.backbones.clip import ClipBackbone, clip_from_state
from sowa.backbones.cnn import CnnBackbone, cnn_from_state
from sowa.backbones.cnn_weights import CNNS
from sowa.backbones.openclip import plain_config
from sowa.backbones.state import draw_state
from sowa.backbones.zoo import BackboneSpec
from sowa.errors import ConfigError, UnknownNameError

__all__ = ["random_clip", "random_cnn"]


def random_clip(
    *, spec: BackboneSpec, model: str | None, image_size: int | None, activation: str, seed: int
) -> ClipBackbone:
    """Any open_clip vision transformer, drawn; `activation`: `auto` is that of the model's own settings."""
    model = model or spec.model
    config = plain_config(model)
    if activation not in ("auto", "gelu", "quickgelu"):
        raise ConfigError(f"activation '{activation}' is unknown: choose auto, gelu or quickgelu")
    with torch.device("meta"):
        empty = open_clip.CLIP(
            embed_dim=config["embed_dim"], vision_cfg=config["vision_cfg"], text_cfg=config["text_cfg"]
        )
    shapes = {name: tuple(value.shape) for name, value in empty.state_dict().items() if value.ndim}
    vision, text = config["vision_cfg"], config["text_cfg"]
    return clip_from_state(
        draw_state(shapes, seed=seed),
        quick_gelu=activation == "quickgelu" or (activation == "auto" and bool(config.get("quick_gelu", False))),
        mean=spec.mean,
        std=spec.std,
        vision_heads=vision["width"] // vision.get("head_width", 64),
        text_heads=text["heads"],
        image_size=image_size,
        name="clip",
        text_trained=False,
        weights_id=f"random:seed={seed}",
        default_taps=spec.default_taps if vision["layers"] == spec.depth else None,
    )


def random_cnn(*, spec: BackboneSpec, model: str | None, image_size: int | None, name: str, seed: int) -> CnnBackbone:
    """One of the convolutional networks, drawn."""
    model = model or spec.model
    if model not in CNNS:
        raise UnknownNameError("convolutional network", got=model, known=CNNS)
    with torch.device("meta"):
        empty = timm.create_model(model, pretrained=False, num_classes=0)
    whole = empty.state_dict()
    state = draw_state({key: tuple(v.shape) for key, v in whole.items() if v.is_floating_point()}, seed=seed)
    state |= {key: value.abs() + 0.5 for key, value in state.items() if key.endswith("running_var")}
    state |= {key: torch.zeros(v.shape, dtype=v.dtype) for key, v in whole.items() if not v.is_floating_point()}
    return cnn_from_state(
        state,
        model=model,
        image_size=image_size or spec.image_size,
        mean=CNNS[model].mean,
        std=CNNS[model].std,
        name=name,
        default_taps=spec.default_taps,
        weights_id=f"random:seed={seed}",
    )
