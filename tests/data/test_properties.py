"""Whatever is in the tree or the list: records that hold together, or one line."""

import json
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sowa.data.images import read_image, read_mask
from sowa.data.layouts import read_samples, recognise, scan
from sowa.errors import SowaError

few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def png(value: int) -> bytes:
    buffer = BytesIO()
    Image.new("L", (4, 3), value).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE, MASK = png(120), png(1)
STEMS = st.text("ab01_- äß.", min_size=1, max_size=5).filter(lambda s: not s.startswith(".") and s == s.strip(" ."))
SUFFIXES = st.sampled_from([".png", ".PNG", ".JPG", ".bmp", ".tif"])
STRAY = st.sampled_from(["readme.txt", "Thumbs.db", ".DS_Store", "x (copy).png", ".x.png", "__MACOSX/x.png"])


@contextmanager
def drawn(files: dict[str, bytes]):
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "root"
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        yield root


def holds_together(root: Path) -> dict[str, tuple[str, str, int, bool]]:
    """Checks every record against the files and gives name -> (category, split, label, has masks)."""
    samples = read_samples(root, validation=True)
    assert samples == read_samples(root, recognise(root), validation=True)
    assert [s.name for s in samples] == sorted({s.name for s in samples})
    assert len({s.image for s in samples}) == len(samples)
    for sample in samples:
        size = read_image(sample.image).size
        assert sample.image.is_relative_to(root) and (sample.defect == "good") == (sample.label == 0)
        assert sample.label or not sample.masks
        assert not ({sample.image} & set(sample.masks))
        if sample.masks or not sample.label:
            mask = read_mask(sample, size)
            assert mask.shape == size[::-1] and bool(mask.any()) == bool(sample.label)
    return {s.name: (s.category, s.split, s.label, bool(s.masks)) for s in samples}


@st.composite
def mvtec_trees(draw):
    """A tree in the plan of MVTec AD and the records it must give."""
    files, expected = {}, {}
    for category in draw(st.lists(st.sampled_from(["nut", "cap", "Nut 2"]), min_size=1, max_size=3, unique=True)):
        base = f"d/{category}"
        for split, defect in (("train", "good"), ("test", "good"), ("test", "cut"), ("test", "good enough")):
            stems = draw(st.lists(STEMS, min_size=int(split == "train"), max_size=3, unique_by=str.casefold))
            for stem in stems:
                name = f"{base}/{split}/{defect}/{stem}{draw(SUFFIXES)}"
                files[name] = PICTURE
                ending = "" if defect == "good" else draw(st.sampled_from(["", "_mask", "_label", "_GT", "/000", "-"]))
                masked = (
                    defect != "good"
                    and ending != "-"
                    and f"{stem}{ending}".casefold() not in {other.casefold() for other in stems if other != stem}
                )
                if masked:
                    files[f"{base}/ground_truth/{defect}/{stem}{ending}{draw(SUFFIXES)}"] = MASK
                expected[name.removeprefix("d/")] = (category, split, int(defect != "good"), masked)
        for stray in draw(st.lists(STRAY, max_size=3)):
            files[f"{base}/test/good/{stray}"] = PICTURE
    return files, expected


@few
@given(mvtec_trees())
def test_any_tree_in_the_plan_of_mvtec(tree):
    files, expected = tree
    with drawn(files) as root:
        assert holds_together(root) == expected


@st.composite
def folder_trees(draw):
    """good/ beside defect folders, with or without masks beside the images."""
    files, expected = {}, {}
    for folder in ["good", *draw(st.lists(st.sampled_from(["cut", "dent/deep", "goods"]), max_size=3, unique=True))]:
        for number in draw(st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True)):
            name = f"{folder}/{number}{draw(SUFFIXES)}"
            files[name] = PICTURE
            masked = folder != "good" and draw(st.booleans())
            if masked:
                files[f"{folder}/{number}_mask.png"] = MASK
            expected[name] = (int(folder != "good"), masked)
    return files, expected


@few
@given(folder_trees())
def test_any_folders(tree):
    files, expected = tree
    with drawn(files) as root:
        read = holds_together(root)
        assert {name: record[2:] for name, record in read.items()} == expected
        train = [name for name, record in read.items() if record[1] == "train"]
        good = [name for name in read if name.startswith("good/")]
        assert set(train) <= set(good) and train
        assert len(train) == (len(good) if len(good) == len(read) else min(len(good), max(4, -(-len(good) // 2))))


@st.composite
def listed(draw):
    """Images and rows about them: (files, rows of image, mask, category, split, label)."""
    files, rows = {}, []
    for number in draw(st.lists(st.integers(0, 99), min_size=1, max_size=6, unique=True)):
        image, label = f"pics/{number}.png", draw(st.integers(0, 1))
        files[image] = PICTURE
        mask = ""
        if label and draw(st.booleans()):
            mask = f"truth/{number}.bmp"
            files[mask] = MASK
        rows.append((image, mask, draw(st.sampled_from("ab")), draw(st.sampled_from(["train", "test"])), label))
    return files, rows


@few
@given(listed(), st.sampled_from(["/", "//", "\\"]), st.booleans())
def test_any_list_in_any_of_its_formats(listing, slash, capitals):
    files, rows = listing
    expected = {image: (category, split, label, bool(mask)) for image, mask, category, split, label in rows}
    meta: dict[str, dict[str, list]] = {"train": {}, "test": {}}
    lines = ["image,mask,category,split,label"]
    for image, mask, category, split, label in rows:
        image, mask = image.replace("/", slash), mask.replace("/", slash)
        record = {"img_path": image, "mask_path": mask, "cls_name": category, "anomaly": label}
        meta[split].setdefault(category, []).append(record)
        lines.append(f"{image},{mask},{category},{split},{label}")
    meta = {key.capitalize() if capitals else key: part for key, part in meta.items()}
    with drawn(files | {"meta.json": json.dumps(meta).encode()}) as root:
        assert holds_together(root) == expected
    with drawn(files | {"list.csv": "\n".join(lines).encode()}) as root:
        assert holds_together(root) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["train", "test", "a", "img_path", "anomaly", "image", "label"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@few
@given(JSON, st.sampled_from(["meta.json", "list.json", "list.jsonl"]))
def test_any_json_gives_samples_or_one_line(content, name):
    with drawn({name: json.dumps(content).encode(), "a.png": PICTURE}) as root:
        one_line(root / name)


@few
@given(st.text(max_size=200), st.sampled_from(["list.csv", "list.tsv", "list.jsonl"]))
def test_any_text_gives_samples_or_one_line(content, name):
    with drawn({name: content.encode(errors="surrogatepass"), "a.png": PICTURE}) as root:
        one_line(root / name)


def one_line(path: Path) -> None:
    for layout in ("auto", "table", "meta_json"):
        try:
            read_samples(path, layout)
        except SowaError as error:
            assert str(error).strip() and "\n" not in str(error) and str(path.parent) in str(error)


@few
@given(mvtec_trees(), st.data())
def test_a_lost_file_changes_only_its_own_record(tree, data):
    files, _ = tree
    with drawn(files) as root:
        before = {s.name: s for s in scan(root).samples}
        masks = [(s.name, path) for s in before.values() for path in s.masks]
        if masks:
            name, path = data.draw(st.sampled_from(masks))
            path.unlink()
            before[name] = replace(before[name], masks=())
            assert {s.name: s for s in scan(root).samples} == before
