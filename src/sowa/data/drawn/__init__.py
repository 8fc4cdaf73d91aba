"""A data set drawn by code from a seed: products, defects and exact masks, different in every seed.

Read in this order: `catalogue` (what there is), `sample` (one picture), `dataset` (files), `camera`, the defects in
`lines` and `patches`, then the categories in `materials`, `photographs`, `machined`, `packed`, `electric` and `wafer`;
they draw with `fields`, `scene`, `placing` and `ink`.
"""

from sowa.data.drawn.catalogue import AUXILIARY, CATEGORIES, LOTS, PARTS, TARGET
from sowa.data.drawn.dataset import MANIFEST, draw_dataset, image_index
from sowa.data.drawn.sample import VERSION, VISIBLE, draw_sample

__all__ = [
    "AUXILIARY",
    "CATEGORIES",
    "LOTS",
    "MANIFEST",
    "PARTS",
    "TARGET",
    "VERSION",
    "VISIBLE",
    "draw_dataset",
    "draw_sample",
    "image_index",
]
