"""Train what lets several judge without shots in SOWA Plus, on drawn products, and write the package's file.

    python benchmarks/train_judges.py [--out FILE]

A small head on the tokens of the second tower, and the scales on which it and the trained head, at each size that is
looked at, agree. Images, draws and training are those of `train_head.py`: drawn categories of the part `training`, none
of which is a development or a locked one. One thread and fixed seeds: on one machine the file comes out the same to the
bit.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))  # the benchmarks are scripts, not a package

from train_head import DRAW, ENCODED, IMAGE_SIZE, logits_of, parting, train

from sowa.backbones import build_backbone
from sowa.data.dataset import ImageDataset
from sowa.data.layouts import read_samples
from sowa.detectors.plus_files import HOME, image_weights
from sowa.detectors.plus_head import SHIPPED as HEADS
from sowa.detectors.plus_head import TrainedHead, shipped_head
from sowa.detectors.plus_looks import shrunk, tapped
from sowa.detectors.plus_network import SHIPPED as NETWORKS
from sowa.detectors.plus_network import Network, known_network
from sowa.detectors.plus_panel import Judges, Panel, on_one_grid, write_judges
from sowa.nn.maps import top_mean
from sowa.training.sources import drawn_root

LOOKS = (448, 224, 112)
PLACES = (1, 2)
"""Of the network's levels, those that are read: stages 5 and 6."""
WEIGHTS, NETWORK_WEIGHT, NETWORK_MAP = (1.0, 1.0, 0.5), 0.75, 0.25
"""As in the configuration of `sowa_plus`."""
DEFECTIVE, RANDOM = 24, 36
"""Tokens of a picture that are learnt from, at most and at random."""


@torch.inference_mode()
def seen(head: TrainedHead, network: Network) -> tuple[dict[int, Tensor], dict[int, list[Tensor]], Tensor, Tensor]:
    """(image size -> logits [N, L] of the head, size of the network -> its tokens on one grid, share [N, L] of each of
    their places at the larger size that is defective, labels [N])."""
    backbone = build_backbone("compact", image_size=IMAGE_SIZE)
    towers = {size: backbone if size == IMAGE_SIZE else backbone.at_size(size) for size in LOOKS}
    samples = [one for one in read_samples(drawn_root(cache_dir=None, **DRAW), "mvtec") if one.split == "test"]
    images = ImageDataset(samples=samples, image_size=IMAGE_SIZE, masks="original")
    sizes = list(dict.fromkeys(network.size_beside(size) for size in LOOKS[:2]))
    logits: dict[int, list[Tensor]] = {size: [] for size in LOOKS}
    tokens: dict[int, list[list[Tensor]]] = {size: [] for size in sizes}
    shares = []
    for start in range(0, len(samples), ENCODED):
        items = [images[place] for place in range(start, min(start + ENCODED, len(samples)))]
        pixels = torch.stack([one.image for one in items]).float() / 255
        for size, tower in towers.items():
            with torch.autocast("cpu", torch.bfloat16):
                found = tapped(tower, pixels, head.taps)
            logits[size].append(head.module([found[tap][1] for tap in head.taps]))
        for size in sizes:
            levels = network.encode(shrunk(pixels, size))
            even, grid = on_one_grid([levels[place] for place in PLACES])
            tokens[size].append([level.half() for level in even])
            if size == sizes[0]:
                masks = torch.stack([one.mask for one in items]).float()
                shares.append(F.adaptive_avg_pool2d(masks[:, None], grid).flatten(1))
        print(f"{start}/{len(samples)} images", flush=True)
    labels_N = torch.tensor([one.label for one in samples])
    joined = {size: [torch.cat(level) for level in zip(*parts, strict=True)] for size, parts in tokens.items()}
    return {size: torch.cat(parts) for size, parts in logits.items()}, joined, torch.cat(shares), labels_N


def spread(scores_N: Tensor) -> tuple[float, float]:
    return round(float(scores_N.mean()), 4), round(float(scores_N.std()), 4)


@torch.inference_mode()
def ends(
    head: TrainedHead,
    network: Network,
    judges: Judges,
    looks: dict[int, Tensor],
    beside: dict[int, Tensor],
    labels_N: Tensor,
) -> dict[int, tuple[float, ...]]:
    """`Judges.ends` for the full panel and for one look at 224 px."""
    found = {}
    for sizes in (LOOKS, LOOKS[1:2]):
        panel = Panel(
            head,
            judges,
            sizes=sizes,
            weights=WEIGHTS[: len(sizes)],
            spaces=0,
            network=network,
            network_weight=NETWORK_WEIGHT,
            network_map=NETWORK_MAP,
        )
        scores_N = panel.score([*(looks[size] for size in sizes), beside[network.size_beside(sizes[0])]])
        good, bad = (round(float(scores_N[labels_N == label].mean()), 4) for label in (0, 1))
        found[sizes[0]] = (*parting(scores_N, labels_N), good, bad)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(str(HOME)) / "compact_judges.safetensors")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone = build_backbone("compact", image_size=IMAGE_SIZE)
    head, network = shipped_head(backbone.weights_id), known_network("auto", backbone)
    if head is None or network is None:
        raise SystemExit("the package has no head or no second tower for compact")
    looks, tokens, shares_NL, labels_N = seen(head, network)
    began, sizes = time.monotonic(), list(tokens)
    module = train(tokens[sizes[0]], shares_NL, seed=given.seed, defective=DEFECTIVE, random=RANDOM)
    for value in module.parameters():  # as it will be read
        value.data = value.data.half().float()
    with torch.inference_mode():
        beside = {size: logits_of(module, levels) for size, levels in tokens.items()}
    own = image_weights(backbone.weights_id)
    facts = {
        "places": list(PLACES),
        "looks": {size: spread(top_mean(one, head.fraction)) for size, one in looks.items()},
        "beside": {size: spread(top_mean(one, head.fraction)) for size, one in beside.items()},
    }
    unknown = dict.fromkeys(LOOKS, (0.0, 1.0, 0.0, 1.0))
    judges = Judges(
        module, PLACES, facts["looks"], facts["beside"], unknown, head.id_8, network.id_8, head.id_8, about={}
    )
    facts["ends"] = ends(head, network, judges, looks, beside, labels_N)
    print(f"trained in {time.monotonic() - began:.0f} s; {facts}")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    sha256 = write_judges(
        given.out,
        module,
        **facts,
        head=HEADS[own][1],
        network=NETWORKS[own][1],
        command="python benchmarks/train_judges.py",
        seed=given.seed,
        data=DRAW,
        image_size=IMAGE_SIZE,
    )
    print(f'"{own}": ("{given.out.name}", "{sha256}")')


if __name__ == "__main__":
    main()
