"""The checker of `metrics*` files: passes on files it has not seen, fails on damaged ones."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from tests.metrics.oracle import flood_regions, slow_aupro, slow_stretched_aupro
from tests.parity.__main__ import main

STORED = Path(__file__).parents[1] / "parity" / "golden" / "metrics.safetensors"


def three(scores, labels):
    precision, recall, _ = precision_recall_curve(labels, scores)
    best = np.nanmax(2 * precision * recall / np.where(precision + recall > 0, precision + recall, np.nan))
    return {"auroc": roc_auc_score(labels, scores), "ap": average_precision_score(labels, scores), "f1max": best}


def other_file(seed):
    """Tensors of the format by the slow oracles: other size, number of images, limits, tie levels and set names."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((4, 14, 11), np.uint8)
    masks[1, 3:6, 2:5] = masks[2, 0, 0] = masks[2, 1, 1] = masks[3, 9:, 6:] = masks[3, 2, 2] = 1
    maps = {
        "rough": rng.gamma(0.6, 2, masks.shape) + masks * rng.random(),
        "forty": rng.integers(0, 40, masks.shape) / 39 * 0.5 + masks * 0.25,
    }
    scores, labels = rng.integers(0, 9, 30) / 4, np.arange(30) % 2
    tensors = {"in.masks": masks, "in.labels": masks.any((1, 2)).astype(np.int64)}
    tensors |= {"in.scores": scores.astype(np.float32), "in.score_labels": labels}
    tensors |= {f"out.image.{name}": value for name, value in three(scores, labels).items()}
    tensors["out.regions"] = np.array([len(flood_regions(mask)) for mask in masks])
    tensors["out.regions4"] = np.array([ndimage.label(mask)[1] for mask in masks])
    for of, stack in maps.items():
        stack = tensors[f"in.maps.{of}"] = stack.astype(np.float32)
        tensors |= {f"out.{of}.pixel.{name}": v for name, v in three(stack.ravel(), masks.ravel()).items()}
        for limit in (0.2, 0.5):
            tensors[f"out.{of}.aupro_exact.{limit}"] = slow_aupro(stack, masks > 0, limit)
            tensors[f"out.{of}.aupro_sowa.{limit}"] = slow_stretched_aupro(stack, masks > 0, limit, False)
            tensors[f"out.{of}.aupro_april.{limit}"] = slow_stretched_aupro(stack, masks > 0, limit, True)
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def stored():
    with safe_open(STORED, framework="np") as handle:
        return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118


def outcome(tensors, folder, metadata=None):
    save_file(tensors, folder / "metrics_other.safetensors", metadata=metadata)
    return main([str(folder / "metrics_other.safetensors")])


@pytest.mark.parametrize("seed", range(3))
def test_a_file_not_seen_before_passes(seed, tmp_path):
    assert outcome(other_file(seed), tmp_path) == 0


@pytest.mark.parametrize("name", sorted(name for name in stored() if name.startswith("out.")))
def test_every_damaged_output_fails(name, tmp_path):
    tensors = stored()
    whole = tensors[name].dtype.kind == "i"
    step = 1 if whole else 1e-5 if ".aupro_anomalib." in name else 1e-8
    flat = tensors[name].reshape(-1).copy()
    flat[-1] += step
    tensors[name] = flat.reshape(tensors[name].shape)
    assert outcome(tensors, tmp_path) == 1


@pytest.mark.parametrize("name", ["in.maps.cont", "in.maps.ties", "in.scores"])
def test_damaged_scores_fail(name, tmp_path):
    tensors = stored()
    tensors[name] = tensors[name].copy()
    tensors[name].reshape(-1)[tensors[name].size // 2] += 9
    assert outcome(tensors, tmp_path) == 1


def test_a_damaged_mask_or_label_fails(tmp_path):
    for name in ("in.masks", "in.labels", "in.score_labels"):
        tensors = stored()
        tensors[name] = tensors[name].copy()
        tensors[name].reshape(-1)[-1] ^= 1
        assert outcome(tensors, tmp_path) == 1


def test_an_unknown_output_fails(tmp_path):
    assert outcome(stored() | {"out.cont.novelty.0.3": np.zeros(1)}, tmp_path) == 1


def test_a_missing_part_cannot_be_read(tmp_path):
    for name in ("out.image.ap", "out.regions", "out.ties.pixel.auroc", "in.masks", "in.maps.cont"):
        tensors = stored()
        del tensors[name]
        assert outcome(tensors, tmp_path) in (1, 2) if name == "in.maps.cont" else outcome(tensors, tmp_path) == 2


def test_thresholds_and_connectivity_are_read_from_the_file(tmp_path):
    assert outcome(stored(), tmp_path, {"aupimo": "num_thresholds 5000"}) == 0
    assert outcome(stored(), tmp_path, {"aupimo": "num_thresholds 50"}) == 1
    assert outcome(stored(), tmp_path, {"connectivity": "4"}) == 2
