"""Lists are somebody else's words: their spellings are understood, their lies are answered with one line."""

import json
from pathlib import Path

import pytest

from sowa.data.layouts import read_samples, recognise, scan
from sowa.errors import DataError
from tests import trees


def meta(root: Path, **parts: object) -> Path:
    (root / "meta.json").write_text(json.dumps(parts))
    return root


def record(image: str, anomaly: object = 0, **extra: object) -> dict[str, object]:
    return {"img_path": image, "mask_path": "", "cls_name": "a", "specie_name": "", "anomaly": anomaly} | extra


def summary(root: Path, layout: str = "auto", **options) -> list[tuple[str, str, str, int]]:
    return [(s.name, s.category, s.split, s.label) for s in read_samples(root, layout, **options)]


# ---------------------------------------------------------------------------------------------------------------- VisA


def test_visa_splits_are_the_named_csv(tmp_path):
    root = trees.visa(tmp_path, categories=("candle",), train=1, good=1).root
    assert [row[2:] for row in summary(root, split="2cls_fewshot")] == [
        ("train", 1),
        ("test", 1),
        ("train", 0),
        ("test", 0),
    ]
    with pytest.raises(DataError, match=r"2cls_highshot\.csv .* found 1cls\.csv, 2cls_fewshot\.csv"):
        read_samples(root, split="2cls_highshot")


def test_visa_category_not_downloaded_is_passed_over_but_a_lost_image_is_not(tmp_path):
    root = trees.visa(tmp_path).root
    (root / "candle/Data").rename(root / "elsewhere")
    assert {s.category for s in read_samples(root)} == {"pcb1"}
    (root / "pcb1/Data/Images/Normal/0003.JPG").unlink()
    with pytest.raises(DataError, match=r"1cls\.csv line \d+: image pcb1/Data/Images/Normal/0003\.JPG does not exist"):
        read_samples(root)


def test_visa_renamed_to_lower_case_is_found(tmp_path):
    root = trees.visa(tmp_path, categories=("candle",)).root
    for path in sorted(root.rglob("*.JPG")):
        path.rename(path.with_suffix(".jpg"))
    assert all(s.image.suffix == ".jpg" and s.name.endswith(".jpg") for s in read_samples(root, "visa"))


def test_visa_without_its_csv_says_which_is_needed(tmp_path):
    root = trees.visa(tmp_path).root
    (root / "split_csv/1cls.csv").unlink()
    with pytest.raises(DataError, match=r"split_csv/1cls\.csv .* is needed, found 2cls_fewshot\.csv"):
        read_samples(root)


@pytest.mark.parametrize("line", ["candle,tset,normal,x,", "candle,test,odd,x,"])
def test_visa_row_with_unknown_words_is_named(tmp_path, line):
    root = trees.visa(tmp_path).root
    path = root / "split_csv/1cls.csv"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"1cls\.csv line 20: "):
        read_samples(root)


def test_visa_with_other_columns_is_named(tmp_path):
    root = trees.visa(tmp_path).root
    (root / "split_csv/1cls.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="columns image, label, object, split expected, got a, b"):
        read_samples(root)


# ------------------------------------------------------------------------------------------------------------- escapes


@pytest.mark.parametrize(
    "path", ["../secret.png", "a/../../secret.png", "/etc/passwd", "C:\\data\\x.png", "..\\secret.png", "a\0b.png"]
)
@pytest.mark.parametrize("field", ["img_path", "mask_path"])
def test_path_out_of_the_data_set_is_refused(tmp_path, path, field):
    trees.picture(tmp_path / "data/a/0.png")
    trees.picture(tmp_path / "secret.png")
    entry = record("a/0.png", 1) | {field: path}
    root = meta(tmp_path / "data", train={}, test={"a": [entry]})
    with pytest.raises(DataError, match=r"meta\.json test/a record 1: path .* leads out of") as caught:
        read_samples(root)
    assert "\n" not in str(caught.value)


def test_absolute_path_inside_is_welcome(tmp_path):
    image = trees.picture(tmp_path / "a/0.png")
    assert summary(meta(tmp_path, train={"a": [record(str(image))]})) == [("a/0.png", "a", "train", 0)]


def test_visa_overlong_field_is_one_line(tmp_path):
    root = trees.visa(tmp_path).root
    (root / "split_csv/1cls.csv").write_text('object,split,label,image,mask\n"' + "x" * 200_000)
    with pytest.raises(DataError, match=r"1cls\.csv: not a table"):
        read_samples(root)


# ----------------------------------------------------------------------------------------------------------- meta.json


def test_meta_file_itself_is_a_root(tmp_path):
    root = trees.meta_json(tmp_path).root
    (root / "meta.json").rename(root / "meta_B.json")
    assert recognise(root / "meta_B.json") == "meta_json"
    assert read_samples(root / "meta_B.json") == read_samples(root) != []


def test_two_meta_files_need_a_word(tmp_path):
    for name in ("meta_A.json", "meta_B.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match=r"found meta_A\.json, meta_B\.json; give the file itself"):
        read_samples(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", "{}", '{"train": [1]}', '{"train": {"a": ["x"]}}', "[" * 100_000])
def test_json_of_another_kind_is_one_line(tmp_path, text):
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(DataError, match=r"meta\.json") as caught:
        read_samples(tmp_path, "meta_json")
    assert "\n" not in str(caught.value)


def test_anomaly_may_be_spelt_in_many_ways(tmp_path):
    spellings = [0, 0.0, False, "0", "good", 1, 1.0, True, "1", "anomaly"]
    records = []
    for i, value in enumerate(spellings):
        trees.picture(tmp_path / f"a/{i}.png")
        records.append(record(f"a/{i}.png", value))
    assert [row[3] for row in summary(meta(tmp_path, test={"a": records}))] == [0] * 5 + [1] * 5


def test_anomaly_that_is_neither_is_named(tmp_path):
    trees.picture(tmp_path / "a/0.png")
    with pytest.raises(DataError, match="label '2' is neither normal"):
        read_samples(meta(tmp_path, test={"a": [record("a/0.png", 2)]}))


def test_image_listed_as_two_things_is_a_conflict(tmp_path):
    trees.picture(tmp_path / "a/0.png")
    for train, test in ((record("a/0.png"), record("a//0.png")), (record("a/0.png"), record("a/0.png", 1))):
        with pytest.raises(DataError, match=r"0\.png: listed both as a/.* and a/"):
            read_samples(meta(tmp_path, train={"a": [train]}, test={"a": [test]}))


def test_image_listed_twice_is_read_once_and_told(tmp_path):
    trees.picture(tmp_path / "a/0.png")
    reading = scan(meta(tmp_path, test={"a": [record("a/0.png"), record("./a/0.png")]}))
    assert len(reading.samples) == 1 and [p.kind for p in reading.problems] == ["duplicate"]


def test_named_mask_that_is_absent_leaves_no_pixel_truth_and_is_told(tmp_path):
    trees.picture(tmp_path / "a/0.png")
    reading = scan(meta(tmp_path, test={"a": [record("a/0.png", 1, mask_path="m/0.png")]}))
    assert reading.samples[0].masks == () and [p.kind for p in reading.problems] == ["missing_mask"]


def test_directory_named_after_the_image_holds_its_masks(tmp_path):
    trees.picture(tmp_path / "a/007.png")
    trees.mask(tmp_path / "gt/007/000.png")
    sample = read_samples(meta(tmp_path, test={"a": [record("a/007.png", 1, mask_path="gt/007")]}))[0]
    assert [path.name for path in sample.masks] == ["000.png"]


def test_validation_part_of_meta_json(tmp_path):
    trees.picture(tmp_path / "a/0.png")
    root = meta(tmp_path, train={}, validation={"a": [record("a/0.png")]}, test={})
    assert read_samples(root) == [] and read_samples(root, validation=True)[0].split == "validation"


# --------------------------------------------------------------------------------------------------------------- tables


def test_csv_with_semicolons_byte_order_mark_and_own_column_names(tmp_path):
    for name in ("a", "b", "c"):
        trees.picture(tmp_path / f"pics/{name}.png")
    rows = [
        "\ufefffile_name; target;product;set",
        "pics\\a.png;ok;nut;training",
        "pics/b.png;0;nut;val",
        "pics/c.png;NG;nut;test",
    ]
    (tmp_path / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    expected = [
        ("pics/a.png", "nut", "train", 0),
        ("pics/b.png", "nut", "validation", 0),
        ("pics/c.png", "nut", "test", 1),
    ]
    assert summary(tmp_path, validation=True) == summary(tmp_path / "list.csv", validation=True) == expected


def test_table_without_a_split_trains_on_half_of_the_good(tmp_path):
    rows = ["image,label"]
    for i in range(10):
        trees.picture(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{int(i == 9)}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    read = summary(tmp_path, "table")
    assert [row[2] for row in read].count("train") == 5 and read[9] == ("9.png", tmp_path.name, "test", 1)


def test_uniads_pair_of_lists(tmp_path):
    for part, label in (("train", 0), ("test", 1)):
        trees.picture(tmp_path / f"mvtec_anomaly_detection/cup/{part}.png")
        row = {"filename": f"cup/{part}.png", "label": label, "label_name": "cut", "clsname": "cup", "maskname": None}
        (tmp_path / f"{part}.json").write_text(json.dumps(row) + "\n" * 2)
    root = tmp_path / "mvtec_anomaly_detection"
    read = read_samples(tmp_path)
    assert recognise(tmp_path) == "table"
    assert [(s.image, s.category, s.split, s.defect) for s in read] == [
        (root / "cup/test.png", "cup", "test", "cut"),
        (root / "cup/train.png", "cup", "train", "good"),
    ]


def test_inctrls_lists_by_category(tmp_path):
    for kind, target in (("normal", 0), ("outlier", 1)):
        trees.picture(tmp_path / f"pics/{kind}.png")
        row = [{"image_path": f"./pics/{kind}.png", "target": target, "type": "nut"}]
        (tmp_path / f"nut_val_{kind}.json").write_text(json.dumps(row))
    assert summary(tmp_path) == [("pics/normal.png", "nut", "test", 0), ("pics/outlier.png", "nut", "test", 1)]


def test_several_unrelated_lists_need_a_word(tmp_path):
    trees.picture(tmp_path / "0.png")
    for name in ("full-shot.jsonl", "2-shot.jsonl"):
        (tmp_path / name).write_text('{"image_path": "0.png", "label": 0}')
    with pytest.raises(DataError, match=r"found 2-shot\.jsonl, full-shot\.jsonl; give the file itself"):
        read_samples(tmp_path, "table")
    assert summary(tmp_path / "full-shot.jsonl") == [("0.png", tmp_path.name, "test", 0)]


def test_list_beside_a_good_folder_needs_a_word(tmp_path):
    trees.picture(tmp_path / "good/0.png")
    (tmp_path / "list.csv").write_text("image,label\ngood/0.png,0\n")
    with pytest.raises(DataError, match=r"fits several layouts \(table, folder\); say which"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    "name, text, match",
    [
        ("list.csv", "name,score\na,1\n", "a column for the image and one for the label are needed, found name, score"),
        ("list.csv", "image,label\n0.png,maybe\n", "line 2: label 'maybe' is neither"),
        ("list.csv", "image,label,split\n0.png,1,later\n", "line 2: split 'later' is not"),
        ("list.csv", "image,label\n../0.png,1\n", "leads out of"),
        ("list.csv", "image,label\n1.png,1\n", "line 2: image 1.png does not exist"),
        ("list.csv", "image,label\n", "no image found"),
        ("list.csv", 'image,label\n"0.png,1' + "x" * 200_000, "not a table"),
        ("list.csv", b"image,label\n\xff.png,1\n", "not UTF-8"),
        ("list.jsonl", '{"image": "0.png"', "neither a JSON list nor JSON lines"),
        ("list.jsonl", "3\n", "expected an object with fields, got int"),
        ("list.jsonl", "[" * 100_000, "neither a JSON list nor JSON lines"),
    ],
)
def test_bad_tables_end_in_one_line(tmp_path, name, text, match):
    trees.picture(tmp_path / "0.png")
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=match) as caught:
        read_samples(tmp_path / name, "table")
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------ Real-IAD


def test_realiad_reads_the_finer_pictures_and_the_named_lists(tmp_path):
    root = trees.realiad(tmp_path).root
    samples = read_samples(root, split="realiad_jsons_sv")
    assert len(samples) == 5 and all("realiad_1024" in s.image.as_posix() for s in samples)
    with pytest.raises(DataError, match=r"lists realiad_jsons_fuiad_0\.1/<category>\.json are needed"):
        read_samples(root, split="realiad_jsons_fuiad_0.1")


@pytest.mark.parametrize("text", ["[]", "3", '{"meta": {}, "test": 3}', '{"meta": {}, "train": [1, {}]}'])
def test_realiad_lists_of_another_kind_are_one_line(tmp_path, text):
    root = trees.realiad(tmp_path).root
    (root / "realiad_jsons/audiojack.json").write_text(text)
    with pytest.raises(DataError, match=r"audiojack\.json"):
        read_samples(root)


def test_realiad_noise_in_train_is_labelled(tmp_path):
    root = trees.realiad(tmp_path).root
    path = root / "realiad_jsons/audiojack.json"
    lists = json.loads(path.read_text())
    lists["train"].append(lists["test"].pop())
    path.write_text(json.dumps(lists))
    assert [s.defect for s in read_samples(root) if s.split == "train" and s.label] == ["AK"]
