"""Damaged copies of the files of SPADE, PaDiM and PatchCore do not pass."""

import pytest
import torch

from tests.parity.__main__ import main
from tests.parity.test_parity import GOLDEN, copy_of, nudge


def put(**entries):
    return lambda tensors, metadata: metadata.update(entries)


def unknown(tensors, metadata):
    tensors["out.extra"] = torch.zeros(1)


DAMAGES = {
    "spade": {
        "a retrieved shot": nudge("out.k7.neighbours", 1),
        "a distance": nudge("out.k2.dist2", 1e-4),
        "the published gallery": nudge("out.k7.quirk.map", 1e-4),
        "nan": nudge("out.k1.score", float("nan")),
        "an input": nudge("in.layer3", 0.1),
        "a pooled vector": nudge("in.ref_pool", 0.1),
        "sigma": put(sigma="3"),
        "retrieval": put(K_nn="min(4,K)"),
        "an unknown output": unknown,
        "fewer shots": put(K="[1, 2]"),
    },
    "padim": {
        "a distance": nudge("out.k4.dist", 1e-3),
        "a covariance": nudge("out.k2.cov_first8", 1e-5),
        "an embedding": nudge("out.embedding", 1e-5),
        "a shot": nudge("in.ref_layer1", 0.1),
        "eps": put(eps="0.0101"),
        "anomalib's eps": put(anomalib_eps="0.0101"),
        "an unknown output": unknown,
    },
    "patchcore": {
        "a squared distance": nudge("out.k2.amazon.dist2", 1e-2),
        "a re-weighted score": nudge("out.k1.l2.score_reweighted", 1e-3),
        "a pick": nudge("out.coreset.amazon_approx", 1),
        "a radius": nudge("out.coreset.radius", 1e-3),
        "an input": nudge("in.layer2", 0.1),
        "neighbours": put(n_nn="2"),
        "neighbours of the weight": put(reweight_neighbours="8"),
        "the neighbourhood": put(patchsize="5"),
        "the first pick": put(coreset_start="18"),
        "an unknown output": unknown,
    },
}


@pytest.mark.parametrize(("method", "damage"), [(method, damage) for method in DAMAGES for damage in DAMAGES[method]])
def test_a_damaged_copy_fails(method, damage, tmp_path):
    change = DAMAGES[method][damage]
    assert main([str(copy_of(GOLDEN / f"{method}.safetensors", tmp_path / f"{method}_x.safetensors", change))]) == 1


@pytest.mark.parametrize(
    ("method", "entry"), [("spade", "align_corners"), ("padim", "cov_divisor"), ("patchcore", "c2"), ("spade", "grids")]
)
def test_a_rule_or_size_that_is_not_ours_is_two(method, entry, tmp_path):
    path = copy_of(GOLDEN / f"{method}.safetensors", tmp_path / f"{method}_x.safetensors", put(**{entry: "77"}))
    assert main([str(path)]) == 2
