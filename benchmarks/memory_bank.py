"""The search of a large memory bank: exact in blocks, rows chosen in halves, a greedy coreset, an approximate index.

    python benchmarks/memory_bank.py [--images 100] [--shots 1000] [--quick] [--json PATH]

The bank holds the tokens of `--images` solar cells (ELPV) at block 6 of the offline backbone; queries are those
of 8 others. Time, memory and error: of the distances of all query tokens, relative to the mean exact one, and of an
image's largest 1 % (what scores are made of). Then a bank as large as that of `--shots` images (the rows repeated with
a little noise) is searched exactly, and the peak of memory beyond the bank itself is read.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from sowa.backbones import build_backbone
from sowa.backbones.precision import native_bf16
from sowa.metrics import write_json
from sowa.nn.bank import nearest_distance, unit
from sowa.nn.coreset import from_row, greedy_coreset
from sowa.nn.maps import top_mean
from sowa.nn.search import ApproximateBank
from sowa.training.record import machine_facts
from sowa.training.scoring import support_of
from sowa.training.sources import read_source

TAP, QUERIES, BATCH = 6, 8, 8
NOISE = 0.02
CORESET = 0.1


def tokens_of(count: int) -> torch.Tensor:
    """[count, L, D] unit tokens of normal cells, float32."""
    backbone = build_backbone("compact")
    samples = [one for one in read_source(dataset="elpv", layout="elpv").samples if one.label == 0][:count]
    parts = []
    with torch.inference_mode():
        for start in range(0, len(samples), BATCH):
            images = support_of(samples[start : start + BATCH], backbone.image_size).images
            parts.append(unit(backbone.encode_image(images, (TAP,), cls=False).levels[0]))
    return torch.cat(parts)


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def errors(found_BL: torch.Tensor, exact_BL: torch.Tensor) -> dict[str, float]:
    gap = found_BL - exact_BL
    tops = top_mean(found_BL, 0.01) / top_mean(exact_BL, 0.01) - 1
    return {
        "mean_error_of_mean_distance": float(gap.abs().mean() / exact_BL.mean()),
        "largest_error_of_mean_distance": float(gap.abs().max() / exact_BL.mean()),
        "largest_error_of_image_peak": float(tops.abs().max()),
    }


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(images: int, shots: int) -> dict:
    tokens = tokens_of(images + QUERIES).float()
    queries, bank = tokens[:QUERIES], tokens[QUERIES:].flatten(0, 1)
    exact_BL = nearest_distance(queries, bank)
    base = {"images": images, "rows": len(bank)}
    exact = seconds(lambda: nearest_distance(queries, bank)) / QUERIES
    rows = [base | {"search": "exact", "seconds_per_image": exact}]
    ratios = {}
    if native_bf16():
        halves = partial(nearest_distance, queries, bank, compared_in=torch.bfloat16)
        took, found = seconds(halves) / QUERIES, errors(halves(), exact_BL)
        rows.append(base | {"search": "rows chosen in bfloat16", "seconds_per_image": took} | found)
        ratios |= {"halves_faster": exact / took, "halves_peak_error": found["largest_error_of_image_peak"]}
    began = time.perf_counter()
    picked, _ = greedy_coreset(bank, int(CORESET * len(bank)), from_row(bank, 0))
    chosen, made = bank[picked], time.perf_counter() - began
    thin = seconds(lambda: nearest_distance(queries, chosen)) / QUERIES
    found = errors(nearest_distance(queries, chosen), exact_BL)
    rows.append(base | {"search": "coreset 10 %", "seconds_per_image": thin, "seconds_to_make": made} | found)
    ratios |= {"coreset_faster": exact / thin, "coreset_peak_error": found["largest_error_of_image_peak"]}
    try:
        began = time.perf_counter()
        index = ApproximateBank(bank)
        made = time.perf_counter() - began
        near = seconds(lambda: index.nearest_distance(queries)) / QUERIES
        found = errors(index.nearest_distance(queries), exact_BL)
        rows.append(base | {"search": "approximate", "seconds_per_image": near, "seconds_to_make": made} | found)
        ratios |= {"approximate_faster": exact / near, "approximate_peak_error": found["largest_error_of_image_peak"]}
    except Exception as error:  # the library is optional: its rows are left out and the reason said
        rows.append(base | {"search": "approximate", "left_out": str(error)})
    return {"rows": [*rows, large(tokens, queries, shots)], "ratios": ratios}


def large(tokens: torch.Tensor, queries: torch.Tensor, shots: int) -> dict:
    """Exact search of as many rows as `shots` images have."""
    generator = torch.Generator().manual_seed(0)
    own = tokens.flatten(0, 1)
    bank = own.new_empty(shots * tokens.shape[1], tokens.shape[2])
    for start in range(0, len(bank), len(own)):
        part = bank[start : start + len(own)]
        part.copy_(own[: len(part)] + NOISE * torch.randn(part.shape, generator=generator))
    before = peak_bytes()
    took = seconds(lambda: nearest_distance(queries, bank), 1) / QUERIES
    return {
        "search": "exact",
        "images": shots,
        "rows": len(bank),
        "seconds_per_image": took,
        "bank_megabytes": bank.numel() * 4 / 1e6,
        "megabytes_beyond_the_bank": (peak_bytes() - before) / 1e6,
        "queries_at_once": QUERIES,
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", type=int, default=100, help="whose tokens fill the bank (%(default)s)")
    parser.add_argument("--shots", type=int, default=1000, help="images of the large bank (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="30 images, 300 shots")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(argv)
    images, shots = (30, 300) if options.quick else (options.images, options.shots)
    result = {"name": "memory_bank", **measured(images, shots), "hardware": machine_facts()}
    print(json.dumps(result, indent=1))
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
