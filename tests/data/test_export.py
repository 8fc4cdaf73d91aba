"""What is exported is what is read back, by this project and by the formats' own rules."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from sowa.data.export import FORMATS, export
from sowa.data.export_lists import run_lengths
from sowa.data.images import read_image, read_mask
from sowa.data.layouts import read_samples, scan
from sowa.errors import DataError, UnknownNameError
from sowa.types import Sample
from tests.trees import TREES, mask, mvtec, picture


def told(sample: Sample) -> tuple[object, ...]:
    """All that is known of a sample but where it lies."""
    pixels = read_mask(sample, read_image(sample.image).size).tobytes() if sample.masks else None
    return (sample.category, sample.split, sample.label, sample.defect, pixels, sample.image.read_bytes())


def content(samples) -> list[tuple[object, ...]]:
    return sorted(map(told, samples), key=repr)


@pytest.mark.parametrize("layout", TREES)
def test_every_layout_comes_back_the_same(tmp_path, layout):
    samples = scan(TREES[layout](tmp_path / "in").root).samples
    if layout == "folder":  # a kind of defect with a slash gets another name
        samples = [replace(s, defect=s.defect.replace("/", "_")) for s in samples]
    export(samples, tmp_path / "out", to="folder")
    assert content(scan(tmp_path / "out").samples) == content(samples)


@pytest.fixture(params=["visa", "dagm", "loco"])
def samples(request, tmp_path):
    """Masks of 1..9, defects in train, several masks and a validation part."""
    return scan(TREES[request.param](tmp_path / "in").root).samples


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_comes_back_the_same(tmp_path, samples, to):
    written = export(samples, tmp_path / "out", to=to)
    assert [item.sample for item in written] == list(samples)
    assert content(scan(tmp_path / "out").samples) == content(samples)


@pytest.mark.parametrize(
    ("to", "layout", "file"), [("meta_json", "meta_json", "meta.json"), ("csv", "table", "samples.csv")]
)
def test_lists_alone_say_it_all(tmp_path, samples, to, layout, file):
    export(samples, tmp_path / "out", to=to)
    assert content(scan(tmp_path / "out" / file).samples) == content(samples)
    assert content(scan(tmp_path / "out", layout).samples) == content(samples)


def test_masks_are_black_and_white_and_images_untouched(tmp_path):
    samples = read_samples(TREES["visa"](tmp_path / "in").root)
    for item in export(samples, tmp_path / "out", to="folder", copy=True):
        image = tmp_path / "out" / item.image
        assert not image.is_symlink() and image.read_bytes() == item.sample.image.read_bytes()
        if item.mask:
            assert set(np.unique(Image.open(tmp_path / "out" / item.mask))) == {0, 255}


def test_links_survive_a_change_of_directory(tmp_path, monkeypatch):
    root = mvtec(tmp_path / "in", categories=("gear",)).root
    monkeypatch.chdir(tmp_path)
    export(read_samples("in"), Path("out"), to="folder")
    monkeypatch.chdir("/")
    assert os.path.samefile(tmp_path / "out/gear/train/good/000.png", root / "gear/train/good/000.png")


# --------------------------------------------------------------------------------------------------- formats' own rules


def test_meta_json_is_what_the_papers_code_reads(tmp_path):
    samples = read_samples(TREES["dagm"](tmp_path / "in").root)
    export([s for s in samples if s.category == "Class1" or s.split == "test"], tmp_path / "out", to="meta_json")
    meta = json.loads((tmp_path / "out/meta.json").read_text())
    assert list(meta) == ["train", "test"]
    assert list(meta["train"]) == list(meta["test"]) == ["Class1", "Class10"] and meta["train"]["Class10"] == []
    for record in (record for phase in meta.values() for records in phase.values() for record in records):
        assert list(record) == ["img_path", "mask_path", "cls_name", "specie_name", "anomaly"]
        assert (tmp_path / "out" / record["img_path"]).is_file()
        assert bool(record["mask_path"]) == bool(record["anomaly"]) == (record["specie_name"] != "good")


def test_csv_names_the_source(tmp_path):
    samples = read_samples(TREES["loco"](tmp_path / "in").root)
    export(samples, tmp_path / "out", to="csv")
    with (tmp_path / "out/samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == [sample.name for sample in samples]


def decoded(segmentation) -> np.ndarray:
    """COCO's rule: runs of zeros and ones in turn, column by column."""
    height, width = segmentation["size"]
    flat = np.repeat(np.arange(len(segmentation["counts"])) % 2, segmentation["counts"])
    return flat.reshape(width, height).T


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_run_lengths(mask_HW):
    runs = run_lengths(mask_HW)
    assert (decoded({"size": mask_HW.shape, "counts": runs}) == mask_HW).all()
    assert all(run > 0 for run in runs[1:])


def test_coco(tmp_path):
    root = mvtec(tmp_path / "in", categories=("gear",), defects=("cut", "dent"), size=(20, 12)).root
    two = np.zeros((12, 20), np.uint8)
    two[1:3, 2:5] = two[6, 7] = two[7, 8] = 255  # the last two touch at a corner: one part
    Image.fromarray(two).save(root / "gear/ground_truth/cut/000_mask.png")
    export(read_samples(root), tmp_path / "out", to="coco")
    coco = json.loads((tmp_path / "out/annotations/test.json").read_text())
    assert [kind["name"] for kind in coco["categories"]] == ["gear/cut", "gear/dent"]
    assert len({a["id"] for a in coco["annotations"]}) == len(coco["annotations"]) == 5
    (image,) = (i for i in coco["images"] if i["file_name"] == "gear/test/cut/000.png")
    parts = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
    assert [(a["bbox"], a["area"], a["iscrowd"]) for a in parts] == [([2, 1, 3, 2], 6, 0), ([7, 6, 2, 2], 2, 0)]
    assert (sum(decoded(a["segmentation"]) for a in parts) == (two > 0)).all()
    for image in coco["images"]:
        assert Image.open(tmp_path / "out" / image["file_name"]).size == (image["width"], image["height"]) == (20, 12)
        assert image["label"] == any(a["image_id"] == image["id"] for a in coco["annotations"])
    train = json.loads((tmp_path / "out/annotations/train.json").read_text())
    assert len(train["images"]) == 5 and train["annotations"] == [] and train["categories"] == coco["categories"]


def test_fiftyone(tmp_path):
    samples = read_samples(TREES["visa"](tmp_path / "in").root)
    export(samples, tmp_path / "out", to="fiftyone")
    records = json.loads((tmp_path / "out/samples.json").read_text())["samples"]
    assert len(records) == len(samples)
    for record, sample in zip(records, samples, strict=True):
        assert (tmp_path / "out" / record["filepath"]).is_file() and record["tags"] == [sample.split]
        assert record["category"] == {"_cls": "Classification", "label": sample.category}
        if sample.label:  # FiftyOne looks for masks from the working directory unless they are absolute
            path = Path(record["defect_mask"]["mask_path"])
            assert path.is_absolute() and path.is_file()
        else:
            assert "defect_mask" not in record


# ---------------------------------------------------------------------------------------------------------------- names


def test_names_no_file_can_have(tmp_path):
    """Categories and defects come from lists, in which anything may stand."""
    names = ["../up", "a/b", "a_b", "A_B", "", ".hidden", "good", "train", "x (copy)", "con\n", "..", "ö ü"]
    samples = []
    for i, name in enumerate(names):
        bad = picture(tmp_path / f"in/{i}/bad.png")
        truth = mask(tmp_path / f"in/{i}/truth.png")
        good = picture(tmp_path / f"in/{i}/good.png")
        samples.append(
            Sample(name=f"{i}/bad.png", image=bad, category=name, split="test", label=1, defect=name, masks=(truth,))
        )
        samples.append(Sample(name=f"{i}/good.png", image=good, category=name, split="train", label=0))
    written = export(samples, tmp_path / "out", to="csv")
    back = scan(tmp_path / "out")
    assert len({item.category.casefold() for item in written}) == len(names)
    assert len(back.samples) == len(samples) == len(scan(tmp_path / "out/samples.csv").samples)
    assert [s.label for s in back.samples].count(1) == len(names) and all(s.masks for s in back.samples if s.label)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_images_of_one_name_stay_apart(tmp_path):
    """Real-IAD has a directory for each sample; masks go by the stem, so suffixes and case do not tell two apart."""
    paths = ["S1/a.png", "S2/a.png", "S3/A.png", "S3/a.bmp", "S4/S1_a.png"]
    samples = [
        Sample(name=p, image=picture(tmp_path / "in" / p), category="c", split="test", label=1, defect="d", masks=(m,))
        for i, p in enumerate(paths)
        for m in [mask(tmp_path / f"in/m{i}.png", value=i + 1)]
    ]
    export(samples, tmp_path / "out", to="folder")
    assert content(scan(tmp_path / "out").samples) == content(samples)


def test_an_image_of_another_suffix_is_still_found(tmp_path):
    os.replace(picture(tmp_path / "in/a.png"), tmp_path / "in/a.img")
    sample = Sample(name="a.img", image=tmp_path / "in/a.img", category="c", split="train", label=0)
    export([sample], tmp_path / "out", to="folder")
    assert content(scan(tmp_path / "out").samples) == content([sample])


# ------------------------------------------------------------------------------------------------------------- failures


def test_whole_or_not_at_all(tmp_path):
    root = mvtec(tmp_path / "in", categories=("gear",)).root
    mask(root / "gear/ground_truth/cut/001_mask.png", (5, 5))
    with pytest.raises(DataError, match="001_mask"):
        export(read_samples(root), tmp_path / "out", to="folder")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_is_there_is_not_overwritten(tmp_path):
    samples = read_samples(mvtec(tmp_path / "in").root)
    with pytest.raises(DataError, match="is there already"):
        export(samples, tmp_path / "in", to="folder")
    with pytest.raises(UnknownNameError, match="did you mean 'coco'"):
        export(samples, tmp_path / "out", to="cocoo")
    (tmp_path / "out").mkdir()
    export(samples, tmp_path / "out", to="folder")
