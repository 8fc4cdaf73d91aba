"""The lists that other tools want beside the files of an export.

    meta_json   meta.json of April-GAN, AnomalyCLIP, SOWA: train and test by category
    csv         samples.csv: one image a line, with the name it had before
    coco        annotations/<split>.json: a box and an exact mask (run lengths) for each connected part of a defect
    fiftyone    samples.json of FiftyOne's own data set type: fo.Dataset.from_dir(DIR, fo.types.FiftyOneDataset)

Paths in them are relative to the export's directory, with `/`; only FiftyOne's masks are absolute, because it looks for
them in the working directory otherwise. A writer is given the directory to write to and the name it will have.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sowa.data.sound import header_size
from sowa.types import Sample

__all__ = ["LISTS", "Exported", "run_lengths"]


@dataclass(frozen=True, slots=True)
class Exported:
    """A sample and where its files are now, relative to the export's directory."""

    sample: Sample
    image: str
    mask: str
    """Empty where there is none."""
    category: str
    defect: str


def write_meta_json(written: Sequence[Exported], out: Path, home: Path) -> None:
    """Every category stands under `train` and under `test`; `validation` is there only if the data set has it."""
    categories = sorted({item.category for item in written})
    splits = ["train", "test"] + ["validation"] * any(item.sample.split == "validation" for item in written)
    content: dict[str, dict[str, list[dict[str, Any]]]] = {
        split: {category: [] for category in categories} for split in splits
    }
    for item in written:
        record = {
            "img_path": item.image,
            "mask_path": item.mask,
            "cls_name": item.category,
            "specie_name": item.defect,
            "anomaly": item.sample.label,
        }
        content[item.sample.split][item.category].append(record)
    _write(out / "meta.json", json.dumps(content, indent=4) + "\n")


def write_csv(written: Sequence[Exported], out: Path, home: Path) -> None:
    """Columns image, mask, category, split, label (0 or 1), defect, source (the name before the export)."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "mask", "category", "split", "label", "defect", "source"])
    for item in written:
        sample = item.sample
        source = sample.name.encode(errors="backslashreplace").decode()
        rows.writerow([item.image, item.mask, item.category, sample.split, sample.label, item.defect, source])
    _write(out / "samples.csv", text.getvalue())


# ----------------------------------------------------------------------------------------------------------------- COCO


def write_coco(written: Sequence[Exported], out: Path, home: Path) -> None:
    """One file for each split; a category of COCO is a kind of defect, `<category>/<defect>`.

    Images carry besides the usual `category`, `label`, `defect` and `mask_path`, which COCO has no place for. A good
    image, and a defective one without a mask, has no annotation.
    """
    kinds = sorted({(item.category, item.defect) for item in written if item.sample.label})
    numbers = {kind: number for number, kind in enumerate(kinds, start=1)}
    for split in sorted({item.sample.split for item in written}):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for item in (item for item in written if item.sample.split == split):
            images.append(_coco_image(item, len(images) + 1))
            for found in _coco_parts(item, out):
                kind = numbers[item.category, item.defect]
                known = {"id": len(annotations) + 1, "image_id": len(images), "category_id": kind, "iscrowd": 0}
                annotations.append(known | found)
        categories = [{"id": numbers[kind], "name": "/".join(kind), "supercategory": kind[0]} for kind in kinds]
        content = {"info": {"description": f"exported by sowa, split {split}"}, "licenses": [], "images": images}
        (out / "annotations").mkdir(exist_ok=True)
        _write(
            out / f"annotations/{split}.json",
            json.dumps(content | {"annotations": annotations, "categories": categories}) + "\n",
        )


def _coco_image(item: Exported, number: int) -> dict[str, Any]:
    width, height = header_size(item.sample.image)
    more = {"category": item.category, "label": item.sample.label, "defect": item.defect, "mask_path": item.mask}
    return {"id": number, "file_name": item.image, "width": width, "height": height} | more


def _coco_parts(item: Exported, out: Path) -> list[dict[str, Any]]:
    """Box, area and run lengths of each 8-connected part of the mask."""
    if not item.mask:
        return []
    mask = np.asarray(Image.open(out / item.mask)) > 0
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    parts = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        part = labels == number
        box = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
        segmentation = {"size": list(mask.shape), "counts": run_lengths(part)}
        parts.append({"bbox": box, "area": int(part.sum()), "segmentation": segmentation})
    return parts


def run_lengths(mask_HW: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed run lengths of a mask [H, W]: column by column, beginning with a run of zeros."""
    flat = mask_HW.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate(([0], ends, [flat.size]))).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


# ------------------------------------------------------------------------------------------------------------- FiftyOne


def write_fiftyone(written: Sequence[Exported], out: Path, home: Path) -> None:
    """Fields `category` and `defect` (classifications), `defect_mask` (segmentation); the split is a tag."""
    samples = []
    for item in written:
        record: dict[str, Any] = {
            "filepath": item.image,
            "tags": [item.sample.split],
            "category": {"_cls": "Classification", "label": item.category},
            "defect": {"_cls": "Classification", "label": item.defect},
        }
        if item.mask:
            record["defect_mask"] = {"_cls": "Segmentation", "mask_path": str(home / item.mask)}
        samples.append(record)
    _write(out / "samples.json", json.dumps({"samples": samples}, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


LISTS: dict[str, Callable[[Sequence[Exported], Path, Path], None]] = {
    "meta_json": write_meta_json,
    "csv": write_csv,
    "coco": write_coco,
    "fiftyone": write_fiftyone,
}
"""Format -> what writes its list into the directory of the export."""
