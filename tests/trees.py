"""Fake data sets, drawn file by file to the exact layouts, with the traps of the real ones in.

Every tree is a few tiny images. `TREES[layout](root)` draws a small one with all its traps and returns what a reader
must find; the functions behind it take sizes and counts for other tests.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["TREES", "Tree", "blank", "mask", "mvtec", "picture", "stray_files", "visa"]

Counts = dict[str, tuple[int, int, int, int, int]]
"""Category -> train good, train bad, test good, test bad, masks."""


@dataclass(frozen=True, slots=True)
class Tree:
    """What was drawn and what a reader must find in it."""

    root: Path
    layout: str
    counts: Counts


def picture(path: Path, size: tuple[int, int] = (12, 8), *, mode: str = "RGB") -> Path:
    """A noise image of (width, height), a pure function of the last parts of its path; no two are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(zlib.crc32("/".join(path.parts[-5:]).encode()))
    pixels = generator.integers(60, 200, size=(size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def mask(path: Path, size: tuple[int, int] = (12, 8), *, value: int = 255, mode: str = "L") -> Path:
    """A mask whose upper left 3 x 2 pixels have the given value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), dtype=np.uint8)
    pixels[:2, :3] = value
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def blank(path: Path, size: tuple[int, int] = (12, 8)) -> Path:
    """A mask that marks nothing."""
    return mask(path, size, value=0)


def stray_files(folder: Path) -> None:
    """What lies about in real archives and must not be read."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("readme.txt", "license.txt", "Thumbs.db", ".DS_Store", "defects_config.json"):
        (folder / name).write_text("stray")
    picture(folder / ".hidden.png")
    picture(folder / "000 (copy).png")
    picture(folder / "__MACOSX" / "000.png")


# ------------------------------------------------------------------------------------------------- the plan of MVTec AD


def mvtec(
    root: Path,
    *,
    categories: Sequence[str] = ("bottle", "grid"),
    defects: Sequence[str] = ("broken", "cut"),
    train: int = 5,
    good: int = 2,
    bad: int = 2,
    size: tuple[int, int] = (12, 8),
    traps: bool = True,
) -> Tree:
    """MVTec AD: `bad` images of each defect; grey images in `grid`."""
    for category in categories:
        mode = "L" if category == "grid" else "RGB"
        base = root / category
        for i in range(train):
            picture(base / f"train/good/{i:03}.png", size, mode=mode)
        for i in range(good):
            picture(base / f"test/good/{i:03}.png", size, mode=mode)
        for defect in defects:
            for i in range(bad):
                picture(base / f"test/{defect}/{i:03}.png", size, mode=mode)
                mask(base / f"ground_truth/{defect}/{i:03}_mask.png", size)
        if traps:
            for folder in (root, base, base / "train/good", base / f"test/{defects[0]}"):
                stray_files(folder)
    total = bad * len(defects)
    return Tree(root, "mvtec", dict.fromkeys(categories, (train, 0, good, total, total)))


def btad(root: Path) -> Tree:
    """ok and ko, the same stems in both, masks without a suffix, bmp and png mixed, absent numbers, an empty mask."""
    for category, image, truth in (("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")):
        base = root / category
        for i in (0, 1, 3):  # 0002 is absent
            picture(base / f"train/ok/{i:04}.{image}")
        picture(base / f"test/ok/0000.{image}")
        for i in (0, 2):  # 0001 is absent: pairs by position would shift
            picture(base / f"test/ko/{i:04}.{image}")
            mask(base / f"ground_truth/ko/{i:04}.{truth}", value=1)
    blank(root / "03/ground_truth/ko/0002.bmp")
    (root / "README.txt").write_text("product 2: 1000")
    return Tree(root, "btad", dict.fromkeys(("01", "02", "03"), (3, 0, 1, 2, 2)))


def dtd(root: Path) -> Tree:
    """One defect folder, `mesh_NNN.png` among Woven_068's good test images, one category nested twice."""
    for category in ("Blotchy_099", "Woven_068"):
        base = root / category / category if category == "Blotchy_099" else root / category
        stem = "mesh_" if category == "Woven_068" else ""
        picture(base / "train/good/000.png")
        for i in range(2):
            picture(base / f"test/good/{stem}{i:03}.png")
            picture(base / f"test/bad/{i:03}.png")
            mask(base / f"ground_truth/bad/{i:03}{'_mask' if i else ''}.png")
    return Tree(root, "dtd", dict.fromkeys(("Blotchy_099", "Woven_068"), (1, 0, 2, 2, 2)))


def mpdd(root: Path) -> Tree:
    tree = mvtec(root, categories=("bracket_black", "tubes"), defects=("anomalous",), bad=3)
    return Tree(root, "mpdd", tree.counts)


def loco(root: Path) -> Tree:
    """A validation part, and for each image a directory of masks whose values are defect numbers."""
    base = root / "pushpins"
    for part, n in (("train", 3), ("validation", 2), ("test", 2)):
        for i in range(n):
            picture(base / f"{part}/good/{i:03}.png")
    for kind in ("logical_anomalies", "structural_anomalies"):
        picture(base / f"test/{kind}/000.png")
        mask(base / f"ground_truth/{kind}/000/000.png", value=236)
        mask(base / f"ground_truth/{kind}/000/001.png", value=255)
    (base / "defects_config.json").write_text("[]")
    return Tree(root, "loco", {"pushpins": (3, 0, 2, 2, 2)})


def mvtec_ad2(root: Path) -> Tree:
    """The labelled part is `test_public`, with the masks inside; the private parts have no labels."""
    base = root / "can"
    for i in range(3):
        picture(base / f"train/good/{i:03}_regular.png", mode="L")
    picture(base / "validation/good/000_regular.png", mode="L")
    picture(base / "test_public/good/000_shift_1.png", mode="L")
    for light in ("overexposed", "underexposed"):
        picture(base / f"test_public/bad/000_{light}.png", mode="L")
        mask(base / f"test_public/ground_truth/bad/000_{light}_mask.png")
    picture(base / "test_private/000.png")
    picture(base / "test_private_mixed/000_mixed.png")
    return Tree(root, "mvtec_ad2", {"can": (3, 0, 1, 2, 2)})


# ------------------------------------------------------------------------------------------------------ lists of images


def visa(
    root: Path,
    *,
    categories: Sequence[str] = ("candle", "pcb1"),
    train: int = 5,
    good: int = 2,
    bad: int = 2,
    size: tuple[int, int] = (12, 8),
) -> Tree:
    """The original tree: upper-case .JPG, masks of defect numbers 1..9, CRLF tables in shuffled order."""
    rows = []
    for category in categories:
        base = root / category
        for i in range(train + good):
            name = f"{category}/Data/Images/Normal/{i:04}.JPG"
            picture(root / name, size)
            rows.append(f"{category},{'train' if i < train else 'test'},normal,{name},")
        for i in range(bad):
            name, truth = f"{category}/Data/Images/Anomaly/{i:03}.JPG", f"{category}/Data/Masks/Anomaly/{i:03}.png"
            picture(root / name, size)
            mask(root / truth, size, value=i % 9 + 1)
            rows.append(f"{category},test,anomaly,{name},{truth}")
        (base / "image_anno.csv").write_text("image,label,mask\r\n")
        stray_files(base / "Data/Images/Normal")
    (root / "split_csv").mkdir()
    rows.sort(key=lambda row: zlib.crc32(row.encode()))
    _write_csv(root / "split_csv/1cls.csv", "object,split,label,image,mask", rows)
    few = [row.replace(",test,anomaly,", ",train,anomaly,", 1) if "/000.JPG" in row else row for row in rows]
    _write_csv(root / "split_csv/2cls_fewshot.csv", "object,split,label,image,mask", few)
    (root / "LICENSE-DATASET").write_text("CC BY 4.0")
    return Tree(root, "visa", dict.fromkeys(categories, (train, 0, good, bad, bad)))


def _write_csv(path: Path, header: str, rows: Sequence[str]) -> None:
    path.write_bytes("".join(f"{line}\r\n" for line in (header, *rows)).encode())


def meta_json(root: Path) -> Tree:
    """The papers' list in its spellings: capitals, doubled slashes, a placeholder, extra keys, a directory as mask."""
    for name in ("a/n1.png", "a/n2.png", "a/n3.png", "a/x.png", "b/n.png", "b/y.png"):
        picture(root / "images" / name)
    mask(root / "truth/x.png")

    def record(image: str, anomaly: object, truth: object = "", **extra: object) -> dict[str, object]:
        return {"img_path": image, "mask_path": truth, "cls_name": image[7:9].strip("/\\"), "anomaly": anomaly} | extra

    placeholder = {"img_path": "", "mask_path": "", "cls_name": "b", "specie_name": "", "anomaly": 0}
    content = {
        "Train": {"a": [record("images/a/n1.png", 0), record("images//a/n2.png", 0, view_id=3)], "b": [placeholder]},
        "Test": {
            "a": [record("images/a/n3.png", 0), record("images\\a\\x.png", 1, "truth/x.png", specie_name="cut")],
            "b": [record("images/b/n.png", 0, None), record("images/b/y.png", 1, "truth", dataset_name="B")],
        },
    }
    (root / "meta.json").write_text(json.dumps(content, indent=4) + "\n")
    return Tree(root, "meta_json", {"a": (2, 0, 1, 1, 1), "b": (0, 0, 1, 1, 0)})


def table(root: Path) -> Tree:
    """AA-CLIP's JSON lines: test images only, labels as floats, masks only where there is a defect."""
    lines = []
    for i in range(2):
        picture(root / f"test/bottle/good{i}.png")
        lines.append({"image_path": f"test/bottle/good{i}.png", "label": 0.0, "class_name": "bottle"})
    picture(root / "test/bottle/cut.png")
    truth = mask(root / "truth/cut.png").relative_to(root).as_posix()
    lines.append({"image_path": "test/bottle/cut.png", "label": 1.0, "class_name": "bottle", "mask_path": truth})
    (root / "full-shot.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Tree(root, "table", {"bottle": (0, 0, 2, 1, 1)})


def realiad(root: Path) -> Tree:
    """One list for each object, paths relative to its prefix, two resolutions side by side."""
    lists: dict[str, object] = {"meta": {"prefix": "audiojack", "normal_class": "OK"}, "train": [], "test": []}

    def add(phase: str, kind: str, image: str, truth: str | None) -> None:
        for resolution in ("realiad_256", "realiad_1024"):
            picture(root / resolution / "audiojack" / image)
            if truth:
                mask(root / resolution / "audiojack" / truth)
        entry = {"category": "audiojack", "anomaly_class": kind, "image_path": image, "mask_path": truth}
        lists[phase].append(entry)

    for i in range(3):
        add("train", "OK", f"OK/S000{i}/audiojack_000{i}_OK_C1_2023.jpg", None)
    add("test", "OK", "OK/S0009/audiojack_0009_OK_C2_2023.jpg", None)
    add("test", "AK", "NG/AK/S0001/audiojack_0001_AK_C1_2023.jpg", "NG/AK/S0001/audiojack_0001_AK_C1_2023.png")
    for folder in ("realiad_jsons", "realiad_jsons_sv"):
        (root / folder).mkdir()
        (root / folder / "audiojack.json").write_text(json.dumps(lists))
    return Tree(root, "realiad", {"audiojack": (3, 0, 1, 1, 1)})


# ----------------------------------------------------------------------------------------- good or bad by mask or table


def dagm(root: Path) -> Tree:
    """Upper-case .PNG, defects in train, Labels.txt with byte-order mark, one class unpacked into its own name."""
    for category in ("Class1", "Class10"):
        base = root / category / category if category == "Class10" else root / category
        for part, first, bad in (("Train", 5, (6,)), ("Test", 1, (2, 3))):
            lines = ["\ufeff1"]
            for i in range(first, first + 4):
                picture(base / part / f"{i:04}.PNG", mode="L")
                truth = f"{i:04}_label.PNG" if i in bad else "0"
                lines.append(f"{i}\t{int(i in bad)}\t{i:04}.PNG\t0\t{truth}")
                if i in bad:
                    mask(base / part / "Label" / truth)
            (base / part / "Label/Labels.txt").write_text("\n".join(lines), encoding="utf-8")
            (base / part / "Thumbs.db").write_text("stray")
    return Tree(root, "dagm", dict.fromkeys(("Class1", "Class10"), (3, 1, 2, 2, 3)))


def ksdd(root: Path) -> Tree:
    """Eight items of two parts, a mask for every image, one part missing; half of the items are for training."""
    for item in range(1, 9):
        for part in range(2):
            if (item, part) != (8, 1):
                picture(root / f"kos{item:02}/Part{part}.jpg", mode="L")
                truth = root / f"kos{item:02}/Part{part}_label.bmp"
                mask(truth) if part == 1 else blank(truth)
    return Tree(root, "ksdd", {"electrical_commutators": (4, 0, 4, 7, 7)})


def ksdd2(root: Path) -> Tree:
    """A mask for every image, defects in train, two byte-identical copies, pickled splits to ignore."""
    for part, first in (("train", 10000), ("test", 20000)):
        for i in range(first, first + 4):
            picture(root / part / f"{i}.png", (12, 8 + i % 3))
            truth = root / part / f"{i}_GT.png"
            mask(truth, (12, 8 + i % 3), value=1) if i == first else blank(truth, (12, 8 + i % 3))
    for name in ("10001.png", "10001_GT.png"):
        copy = root / "train" / name.replace(".png", " (copy).png")
        copy.write_bytes((root / "train" / name).read_bytes())
    (root / "split_weakly_0.pyb").write_bytes(b"\x80\x04.")
    return Tree(root, "ksdd2", {"metal": (3, 1, 3, 1, 2)})


def elpv(root: Path) -> Tree:
    """Cells of a training module and of others, with all four probabilities; no masks."""
    cells = [(481, 0, "mono"), (482, 0, "mono"), (483, 1, "mono"), (901, 0, "mono"), (902, 1 / 3, "mono")]
    cells += [(241, 0, "poly"), (61, 0, "poly"), (62, 1, "poly"), (63, 2 / 3, "poly"), (242, 1 / 3, "poly")]
    lines = []
    for number, p, kind in cells:
        name = f"images/cell{number:04}.png"
        picture(root / name, mode="L")
        lines.append(f"{name}  {float(p)!r:<20}{kind}\n")
    (root / "labels.csv").write_text("".join(lines))
    return Tree(root, "elpv", {"mono": (2, 0, 1, 1, 0), "poly": (1, 0, 1, 1, 0)})


def folder(root: Path) -> Tree:
    """good/ beside two kinds of defect, one in subfolders, masks flat and beside the image; half of the good train."""
    base = root / "gear"
    for i in range(9):
        picture(base / f"good/{i}.png")
    picture(base / "scratch/deep/0.JPEG")
    picture(base / "scratch/1.png")
    mask(base / "scratch/1_mask.png")
    picture(base / "dent/7.png")
    mask(base / "masks/7.png")
    stray_files(base / "good")
    return Tree(root, "folder", {"gear": (5, 0, 4, 3, 2)})


TREES: dict[str, Callable[[Path], Tree]] = {
    "mvtec": mvtec,
    "visa": visa,
    "btad": btad,
    "dagm": dagm,
    "dtd": dtd,
    "mpdd": mpdd,
    "ksdd": ksdd,
    "ksdd2": ksdd2,
    "loco": loco,
    "mvtec_ad2": mvtec_ad2,
    "realiad": realiad,
    "elpv": elpv,
    "meta_json": meta_json,
    "table": table,
    "folder": folder,
}
"""Layout -> the function that draws it."""
