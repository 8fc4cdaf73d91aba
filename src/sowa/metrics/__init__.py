"""Exact metrics of raw scores (larger = more anomalous), the papers' own variants, meters and tables.

`sowa.metrics.aupimo` and the transductive arithmetic of `sowa.metrics.legacy` are imported by their full names.
"""

from sowa.metrics.functional import (
    IMAGE_METRICS,
    METRICS,
    PIXEL_METRICS,
    aupro,
    aupro_at,
    auroc,
    average_precision,
    f1_max,
    f1_max_threshold,
    image_metrics,
    pixel_metrics,
)
from sowa.metrics.meters import PROTOCOLS, CategoryMeter
from sowa.metrics.table import json_ready, print_table, summarise, write_json, write_scores_csv

__all__ = [
    "IMAGE_METRICS",
    "METRICS",
    "PIXEL_METRICS",
    "PROTOCOLS",
    "CategoryMeter",
    "aupro",
    "aupro_at",
    "auroc",
    "average_precision",
    "f1_max",
    "f1_max_threshold",
    "image_metrics",
    "json_ready",
    "pixel_metrics",
    "print_table",
    "summarise",
    "write_json",
    "write_scores_csv",
]
