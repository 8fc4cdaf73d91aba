"""Under which licences the weights of the backbones are published. Light: data only."""

__all__ = ["LICENCES", "licence_of"]

LICENCES: dict[tuple[str, str], str] = {
    ("clip", "openai"): "MIT (OpenAI)",
    ("clip", "laion"): "MIT (OpenCLIP, trained on LAION)",
    ("clip", ""): "as published with the weights that were given",
    ("compact", ""): "Apache-2.0 (DINOv2, Meta)",
    ("cnn", "wide_resnet50_2"): "BSD-3-Clause (torchvision)",
    ("cnn", "resnet18"): "BSD-3-Clause (torchvision)",
    ("cnn", "tf_efficientnet_lite0"): "Apache-2.0 (Google, timm)",
    ("cnn", ""): "as published with the weights that were given",
    ("compact_cnn", ""): "Apache-2.0 (EfficientNet-Lite0, Google)",
    ("random_tiny", ""): "none needed: drawn from a seed",
    ("random_tiny_cnn", ""): "none needed: drawn from a seed",
}
"""(backbone, how its tag or model begins) -> licence."""


def licence_of(backbone: str, *, model: str | None = None, tag: str | None = None, own_file: bool = False) -> str:
    """The licence of a backbone's weights by its name and what was chosen of it; `own_file`: the user gave a file."""
    if own_file:
        return LICENCES["clip", ""]
    default = {"clip": "openai", "cnn": "wide_resnet50_2"}.get(backbone, "")
    chosen = tag or default if backbone == "clip" else model or default
    found = [
        text for (name, begin), text in LICENCES.items() if name == backbone and begin and chosen.startswith(begin)
    ]
    return found[0] if found else LICENCES.get((backbone, ""), LICENCES["clip", ""])
