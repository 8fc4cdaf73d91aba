"""Train the head that lets SOWA Plus judge without shots, on drawn products, and write the package's file.

    python benchmarks/train_head.py [--out FILE]

Images: the drawn categories of the part `training`, none of which is a development or a locked one; every picture is a
lot of its own, under its own camera. The tower computes in bfloat16 (autocast), its tokens are kept as float16. Of each
picture some defective and some random tokens are learnt from, which takes seconds; encoding takes minutes.
One thread and fixed seeds: on one machine the file comes out the same to the bit.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sowa.backbones import build_backbone
from sowa.backbones.base import Backbone
from sowa.data.dataset import ImageDataset
from sowa.data.layouts import read_samples
from sowa.detectors.plus_files import HOME, image_weights
from sowa.detectors.plus_head import write_head
from sowa.nn.maps import top_mean
from sowa.nn.states import StateHead, token_loss
from sowa.training.sources import drawn_root

DRAW = {"part": "training", "seed": 0, "train_good": 0, "test_good": 12, "test_bad": 24, "size": 512}
IMAGE_SIZE, ENCODED = 448, 4
TAPS, HIDDEN, DROPOUT = (6, 8), 128, 0.1
EPOCHS, BATCH, RATE, DECAY = 4, 512, 1e-3, 0.01
DEFECTIVE, RANDOM = 64, 96
"""Tokens of a picture that are learnt from, at most and at random."""
FRACTION = 0.003


@torch.inference_mode()
def encode(backbone: Backbone) -> tuple[list[Tensor], Tensor, Tensor]:
    """(tokens [N, L, D] of each tap, share [N, L] of each token's place that is defective, labels [N])."""
    samples = [one for one in read_samples(drawn_root(cache_dir=None, **DRAW), "mvtec") if one.split == "test"]
    images = ImageDataset(samples=samples, image_size=IMAGE_SIZE, masks="original")
    levels: list[list[Tensor]] = [[] for _ in TAPS]
    shares = []
    for start in range(0, len(samples), ENCODED):
        items = [images[place] for place in range(start, min(start + ENCODED, len(samples)))]
        with torch.autocast("cpu", torch.bfloat16):
            found = backbone.encode_normed(torch.stack([one.image for one in items]), TAPS)
        for kept, (_, patches_BLD) in zip(levels, found, strict=True):
            kept.append(patches_BLD.half())
        masks = torch.stack([one.mask for one in items]).float()
        shares.append(F.adaptive_avg_pool2d(masks[:, None], backbone.grid).flatten(1))
        print(f"{start}/{len(samples)} images", flush=True)
    labels = torch.tensor([one.label for one in samples])
    return [torch.cat(kept) for kept in levels], torch.cat(shares), labels


def chosen(shares_NL: Tensor, seed: int, defective: int, random: int) -> list[Tensor]:
    """Places of the tokens of each picture that are learnt from: at most so many of each kind."""
    generator = torch.Generator().manual_seed(seed)
    places = []
    for share_L in shares_NL:
        bad = (share_L > 0.25).nonzero()[:, 0]
        bad = bad[torch.randperm(len(bad), generator=generator)[:defective]]
        places.append(torch.cat((bad, torch.randperm(len(share_L), generator=generator)[:random])))
    return places


def train(
    levels: list[Tensor], shares_NL: Tensor, *, seed: int, defective: int = DEFECTIVE, random: int = RANDOM
) -> StateHead:
    torch.manual_seed(seed)
    head = StateHead(width=sum(level.shape[-1] for level in levels), levels=1, hidden=HIDDEN, dropout=DROPOUT)
    places = chosen(shares_NL, seed, defective, random)
    values = torch.cat(
        [head.features([level[n : n + 1] for level in levels])[0, rows_L] for n, rows_L in enumerate(places)]
    )
    share = torch.cat([shares_NL[n, rows_L] for n, rows_L in enumerate(places)])
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    steps, done = EPOCHS * (len(values) // BATCH), 0
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(values)).split(BATCH):
            for group in optimiser.param_groups:
                group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * min(done, steps) / steps))
            loss = token_loss(head.judge(values[rows]), share[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total, done = total + loss.item() * len(rows), done + 1
        print(f"epoch {epoch}: loss {total / len(values):.4f}", flush=True)
    return head.eval()


@torch.inference_mode()
def scale(head: StateHead, levels: list[Tensor], labels_N: Tensor) -> tuple[float, float]:
    """(middle, slope) of image scores on the training images, see `parting`."""
    return parting(top_mean(logits_of(head, levels), FRACTION), labels_N)


def logits_of(head: StateHead, levels: list[Tensor]) -> Tensor:
    """[N, L], a few pictures at a time."""
    return torch.cat([head(batch) for batch in zip(*(level.split(ENCODED) for level in levels), strict=True)])


def parting(scores_N: Tensor, labels_N: Tensor) -> tuple[float, float]:
    """(where good and defective images part best on average, two over the spread of their scores)."""
    peaks_N, labels_N = scores_N.numpy(), labels_N.numpy()
    places = np.sort(peaks_N)
    places = (places[1:] + places[:-1]) / 2
    right = [(peaks_N[labels_N == 1] > at).mean() + (peaks_N[labels_N == 0] <= at).mean() for at in places]
    middle = float(places[int(np.argmax(right))])
    return round(middle, 4), round(float(2 / np.std(peaks_N)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(str(HOME)) / "compact.safetensors")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=Path, help="keep what was encoded here, or take it from here")
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone = build_backbone("compact", image_size=IMAGE_SIZE)
    if given.tokens is not None and given.tokens.exists():
        levels, shares_NL, labels_N = torch.load(given.tokens, weights_only=True)
    else:
        levels, shares_NL, labels_N = encode(backbone)
        if given.tokens is not None:
            torch.save((levels, shares_NL, labels_N), given.tokens)
    began = time.monotonic()
    head = train(levels, shares_NL, seed=given.seed)
    middle, slope = scale(head, levels, labels_N)
    print(f"trained in {time.monotonic() - began:.0f} s; middle {middle}, slope {slope}")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    sha256 = write_head(
        given.out,
        head,
        taps=TAPS,
        middle=middle,
        slope=slope,
        fraction=FRACTION,
        command="python benchmarks/train_head.py",
        seed=given.seed,
        data=DRAW,
        image_size=IMAGE_SIZE,
    )
    print(f'"{image_weights(backbone.weights_id)}": ("{given.out.name}", "{sha256}")')


if __name__ == "__main__":
    main()
