"""`random_tiny`: a seeded random CLIP, small enough for tests and for dry runs of any configuration."""

from sowa.backbones.clip import ClipBackbone, clip_from_state
from sowa.backbones.state import draw_state
from sowa.backbones.zoo import BackboneSpec
from sowa.errors import ConfigError

__all__ = ["build_random_tiny"]

VISION_HEADS, TEXT_HEADS = 4, 2
TEXT_WIDTH, TEXT_LAYERS, CONTEXT = 32, 2, 77
TABLE_ROWS = 1024
"""The token table is read at `id % 1024`: a full table of 49,408 rows would be ten times the rest of the network."""


def build_random_tiny(*, spec: BackboneSpec, image_size: int | None, activation: str, seed: int) -> ClipBackbone:
    """The same weights for the same seed, on any machine and in any order of construction.

    activation: `auto` and `quickgelu` are QuickGELU, as in the paper's backbone; `gelu` is exact.
    """
    if activation not in ("auto", "quickgelu", "gelu"):
        raise ConfigError(f"activation '{activation}' is unknown: choose auto, quickgelu or gelu")
    return clip_from_state(
        draw_state(_shapes(spec), seed=seed),
        quick_gelu=activation != "gelu",
        mean=spec.mean,
        std=spec.std,
        vision_heads=VISION_HEADS,
        text_heads=TEXT_HEADS,
        image_size=image_size,
        name="random_tiny",
        text_trained=spec.text_trained,
        weights_id=f"random:seed={seed}",
        default_taps=spec.default_taps,
    )


def _shapes(spec: BackboneSpec) -> dict[str, tuple[int, ...]]:
    tokens = (spec.image_size // spec.patch) ** 2
    shapes: dict[str, tuple[int, ...]] = {
        "visual.conv1.weight": (spec.width, 3, spec.patch, spec.patch),
        "visual.class_embedding": (spec.width,),
        "visual.positional_embedding": (1 + tokens, spec.width),
        "visual.proj": (spec.width, spec.joint),
        "token_embedding.weight": (TABLE_ROWS, TEXT_WIDTH),
        "positional_embedding": (CONTEXT, TEXT_WIDTH),
        "text_projection": (TEXT_WIDTH, spec.joint),
    }
    for norm, width in (("visual.ln_pre", spec.width), ("visual.ln_post", spec.width), ("ln_final", TEXT_WIDTH)):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for block in range(spec.depth):
        shapes |= _block_shapes(f"visual.transformer.resblocks.{block}", spec.width)
    for block in range(TEXT_LAYERS):
        shapes |= _block_shapes(f"transformer.resblocks.{block}", TEXT_WIDTH)
    return shapes


def _block_shapes(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.ln_1.weight": (width,),
        f"{prefix}.ln_1.bias": (width,),
        f"{prefix}.attn.in_proj_weight": (3 * width, width),
        f"{prefix}.attn.in_proj_bias": (3 * width,),
        f"{prefix}.attn.out_proj.weight": (width, width),
        f"{prefix}.attn.out_proj.bias": (width,),
        f"{prefix}.ln_2.weight": (width,),
        f"{prefix}.ln_2.bias": (width,),
        f"{prefix}.mlp.c_fc.weight": (4 * width, width),
        f"{prefix}.mlp.c_fc.bias": (4 * width,),
        f"{prefix}.mlp.c_proj.weight": (width, 4 * width),
        f"{prefix}.mlp.c_proj.bias": (width,),
    }
