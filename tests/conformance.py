"""The exam every detector sits: `conform(build)` in one test per method.

`build()` gives a fresh detector on a tiny random backbone, the same at every call.
"""

from collections.abc import Callable

import torch
from safetensors.torch import load, save
from torch import Tensor

from sowa.detectors.base import Detector
from sowa.errors import ConfigError, NeedsSupportError
from sowa.types import Prediction, Reference, Support

CATEGORY = "nut"


def normals(size: int, count: int = 3, seed: int = 0) -> Tensor:
    """[count, 3, size, size] uint8: a disc on a plain ground with a little noise, moved by a pixel or two."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    out = []
    for _ in range(count):
        dy, dx = torch.randint(-2, 3, (2,), generator=g).tolist()
        disc = ((y - size / 2 - dy) ** 2 + (x - size / 2 - dx) ** 2 < (size / 3) ** 2).float()
        noise = torch.randn(3, size, size, generator=g) * 4
        out.append((60 + 120 * disc + noise).clamp(0, 255).to(torch.uint8))
    return torch.stack(out) if out else torch.empty(0, 3, size, size, dtype=torch.uint8)


def with_defect(images: Tensor) -> Tensor:
    """The same images with a bright checkered patch painted over a part of them."""
    size = images.shape[-1]
    side = size // 4
    patch = ((torch.arange(side)[:, None] // 2 + torch.arange(side)[None, :] // 2) % 2 * 255).to(torch.uint8)
    painted = images.clone()
    painted[..., size // 3 : size // 3 + side, size // 3 : size // 3 + side] = patch
    return painted


def conform(build: Callable[[], Detector], *, shots: int = 3) -> None:
    """Raises AssertionError with the name of the first rule that is broken."""
    detector = build().eval()
    size = detector.backbone.image_size
    support = Support(CATEGORY, normals(size, shots))
    images = torch.cat((normals(size, 2, seed=9), with_defect(normals(size, 2, seed=9))))
    reference = detector.fit(support)
    whole = detector(images, reference)
    for rule in (_batch, _determinism, _round_trip, _polarity, _inputs, _backbone, _shapes, _empty, _extended):
        rule(build, detector, support, images, reference, whole)


def _batch(build, detector, support, images, reference, whole):
    """An image scores the same alone and in company."""
    for i in range(len(images)):
        alone = detector(images[i : i + 1], reference)
        torch.testing.assert_close(alone.score[0], whole.score[i], rtol=1e-5, atol=1e-6)
        if whole.score_map is not None:
            torch.testing.assert_close(alone.score_map[0], whole.score_map[i], rtol=1e-5, atol=1e-5)


def _determinism(build, detector, support, images, reference, whole):
    """A second detector built alike learns and scores the same bits."""
    other = build().eval()
    again = other(images, other.fit(support))
    assert torch.equal(again.score, whole.score), "same construction, another score"


def _round_trip(build, detector, support, images, reference, whole):
    """The reference and the trained tensors survive a file; a fresh detector scores alike with them."""
    assert all(isinstance(v, Tensor) and not v.requires_grad for v in reference.values()), (
        "a reference is plain tensors"
    )
    other = build().eval()
    other.load_trained_state(load(save(detector.trained_state())))
    stored: Reference = load(save({name: value.contiguous() for name, value in reference.items()}))
    assert torch.equal(other(images, stored).score, whole.score), "another score after saving and loading"


def _polarity(build, detector, support, images, reference, whole):
    """A painted defect scores above its clean twin, and its map is higher inside the paint than at the far border."""
    clean, painted = whole.score[:2], whole.score[2:]
    assert (painted > clean).all(), f"a painted defect must score higher: {painted.tolist()} against {clean.tolist()}"


def _inputs(build, detector, support, images, reference, whole):
    """Neither images nor reference are changed."""
    kept, before = images.clone(), {name: value.clone() for name, value in reference.items()}
    detector(images, reference)
    detector.fit(support)
    assert torch.equal(images, kept), "images were changed"
    assert all(torch.equal(reference[name], before[name]) for name in before), "the reference was changed"


def _backbone(build, detector, support, images, reference, whole):
    """Nothing of the backbone is trained."""
    names = {name for name, _ in detector.trainable_parameters()}
    assert not [name for name in names if name.startswith("backbone.")], "the backbone is trainable"
    assert not any(parameter.requires_grad for parameter in detector.backbone.parameters()), "the backbone is trainable"


def _shapes(build, detector, support, images, reference, whole: Prediction):
    """Finite scores; a map has the image's size."""
    size = detector.backbone.image_size
    assert whole.score.shape == (len(images),) and whole.score.isfinite().all(), "score"
    if whole.score_map is not None:
        assert whole.score_map.shape == (len(images), size, size) and whole.score_map.isfinite().all(), "score map"


def _empty(build, detector, support, images, reference, whole):
    """The empty support works or raises the named error; one image works."""
    none = Support(CATEGORY, support.images[:0])
    try:
        assert detector(images, detector.fit(none)).score.isfinite().all()
    except NeedsSupportError as error:
        assert "\n" not in str(error)
    one = Support(CATEGORY, support.images[:1])
    assert detector(images, detector.fit(one)).score.isfinite().all(), "one shot"


def _extended(build, detector, support, images, reference, whole):
    """Learnt in two steps scores like learnt at once, or the named error is raised; the first step is not changed."""
    if len(support.images) < 2:
        return
    first = detector.fit(Support(CATEGORY, support.images[:1]))
    before = {name: value.clone() for name, value in first.items()}
    try:
        longer = detector.extend_tokens(first, CATEGORY, detector.encode(support.images[1:]))
    except ConfigError as error:
        assert "\n" not in str(error) and "fit again" in str(error)
        return
    assert longer.keys() == reference.keys(), "another kind of reference"
    assert all(torch.equal(first[name], before[name]) for name in before), "the earlier reference was changed"
    again = detector(images, longer)
    if detector.extends_nearly:
        assert (again.score[2:] > again.score[:2]).all() and again.score.isfinite().all(), "a painted defect, grown"
        return
    for name in reference:
        assert longer[name].shape == reference[name].shape, f"{name} has another shape"
    torch.testing.assert_close(again.score, whole.score, rtol=1e-4, atol=1e-5)
    if whole.score_map is not None:
        torch.testing.assert_close(again.score_map, whole.score_map, rtol=1e-4, atol=1e-4)
