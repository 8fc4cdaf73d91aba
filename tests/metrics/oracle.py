"""Slow metrics by another road than the library's: loops over thresholds, nothing shared with it but NumPy."""

from itertools import pairwise

import numpy as np


def flood_regions(mask):
    """Pixel sets of the 8-connected regions of a mask, by flood fill."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    found = []
    while left:
        todo, region = [left.pop()], set()
        while todo:
            y, x = todo.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo.extend(near)
        found.append(sorted(region))
    return found


def slow_aupro(maps, masks, limit):
    """Exact AUPRO from its definition: every distinct score is a threshold, called anomalous where score >= it."""
    regions = [(index, region) for index, mask in enumerate(masks) for region in flood_regions(mask)]
    normal = np.concatenate([score_map[~mask] for score_map, mask in zip(maps, masks, strict=True)])
    points = [(0.0, 0.0)]
    for threshold in sorted({float(v) for score_map in maps for v in score_map.ravel()}, reverse=True):
        overlap = [np.mean([maps[index][pixel] >= threshold for pixel in region]) for index, region in regions]
        points.append((float(np.mean(normal >= threshold)), float(np.mean(overlap))))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            return (area + (limit - x0) * (y0 + y1) / 2) / limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def slow_stretched_aupro(maps, masks, limit, pooled):
    """The references' AUPRO, variant B (pooled) or A: a loop over 200 thresholds, then over images and regions."""
    low, high = min(m.min() for m in maps), max(m.max() for m in maps)
    rates, overlaps = [], []
    for threshold in np.arange(low, high, (high - low) / np.float32(200)):
        called = [score_map > threshold for score_map in maps]
        false = [int((c & ~mask).sum()) for c, mask in zip(called, masks, strict=True)]
        normal = [int((~mask).sum()) for mask in masks]
        shares = [f / n for f, n in zip(false, normal, strict=True)]
        rates.append(sum(false) / sum(normal) if pooled else sum(shares) / len(shares))
        inside = [[c[p] for p in r] for c, mask in zip(called, masks, strict=True) for r in flood_regions(mask)]
        overlaps.append(float(np.mean([np.mean(values) for values in inside])))
    kept = [(x, y) for x, y in zip(rates, overlaps, strict=True) if x < limit]
    low_x, high_x = min(kept)[0], max(kept)[0]
    points = [((x - low_x) / (high_x - low_x), y) for x, y in kept]
    return sum((x0 - x1) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairwise(points))
