"""`sowa report` on a prediction folder: what stands on the page, and that nothing in it can do harm."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sowa.errors import ConfigError, DataError
from sowa.report import pictures, write_report
from sowa.report import predictions as told
from sowa.report.page import _rendered
from tests.report.folders import INFO, draw, labelled, row, unreadable, write
from tests.report.reading import harmless


def page_of(folder, tmp_path, **options):
    out = write_report(folder, tmp_path / "report.html", **options)
    return harmless(out.read_text(encoding="utf-8"))


@pytest.fixture
def without_charts(monkeypatch):
    for name in ("score_chart", "roc_chart", "pr_chart"):
        monkeypatch.setattr(told, name, lambda *_, **__: "")


def test_labelled(tmp_path):
    rows = labelled()
    alarms = sum(one["label"] == 0 and one["verdict"] == "defective" for one in rows)
    found = sum(one["label"] == 1 and one["verdict"] == "defective" for one in rows)
    page = page_of(write(tmp_path / "p", rows), tmp_path)
    assert f"{alarms} of 30" in page.text and f"{found} of 20" in page.text
    assert all(word in page.text for word in ("image AUROC", "crack", "dent", "Worst misses", *INFO["promise"]))
    assert "sowa predict disc.sowa 'my parts'" in page.text
    assert len(page.named("svg")) == 3 and all(svg["aria-label"] for svg in page.named("svg"))
    assert all("good" in name["name"] for name in INFO["normals"]) and "good3.png" in page.text


def test_unlabelled(tmp_path):
    page = page_of(write(tmp_path / "p", [row(i, score=i / 10) for i in range(20)]), tmp_path)
    assert "Highest scores" in page.text and "Nearest to the threshold" in page.text
    assert not any(word in page.text for word in ("called defective", "Worst false alarms", "missed", "AUROC", "truth"))


def test_order_of_cards(tmp_path, without_charts):
    rows = [row(i, score=score, label=0) for i, score in enumerate((1.5, 3.0, 0.2, 2.0))]
    rows += [row(i, score=score, label=1) for i, score in enumerate((0.9, 0.1, 5.0), start=4)]
    strips = told.context(write(tmp_path / "p", rows) / "results.jsonl", title=None, pictures=2)["strips"]
    shown = {strip.anchor: [card.name for card in strip.cards] for strip in strips}
    assert shown == {
        "false alarms": ["part00001.png", "part00003.png"],
        "misses": ["part00005.png", "part00004.png"],
        "finds": ["part00006.png"],
    }


@pytest.mark.parametrize(
    "rows",
    [
        [row(0)],
        [row(0, score=7.0)],
        [unreadable(i) for i in range(30)],
        [],
        [row(0, label=1, score=0.5, defect_type="x")],
        [row(i, label=0) for i in range(5)],
        [row(i, score=0.3) for i in range(9)],
        [row(0, threshold=None)],
        [row(0, score=1e29), row(1, score=-1e29), row(2, score=5e-324)],
    ],
    ids=["one", "one alarm", "all errors", "none", "one defect", "no defects", "all alike", "no threshold", "extreme"],
)
def test_odd_folders(tmp_path, rows):
    page = page_of(write(tmp_path / "p", rows), tmp_path)
    assert f"{len(rows)} image" in page.text
    targets = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert all(address[1:] in targets for address in page.addresses if address.startswith("#") and len(address) < 20)


def test_without_facts(tmp_path, without_charts):
    folder = write(tmp_path / "p", [row(0)], facts={})
    page = page_of(folder, tmp_path)
    assert "predict.json is not beside the results" in page.text
    assert "4 good pictures left out in turn" in page.text
    assert "1 image" in page_of(folder / "results.jsonl", tmp_path).text


def test_pictures_overlays_boxes_and_masks(tmp_path, without_charts):
    folder = tmp_path / "p"
    region = {"box": [4, 5, 10, 8], "area": 60, "peak": 2.0}
    one = row(0, score=3.0, label=1, overlay="overlays/0.png", mask=str(folder / "mask.png"), regions=[region])
    folder = write(folder, [one, row(1, score=2.0, label=1)])
    draw(folder, "part00000.png")
    draw(folder, "overlays/0.png", seed=1)
    draw(folder, "mask.png", seed=2)
    page = page_of(folder, tmp_path)
    alts = [image["alt"] for image in page.named("img")]
    assert any("heat map" in alt for alt in alts) and any("outline of its true defect" in alt for alt in alts)
    assert {"x": "4", "y": "5", "width": "10", "height": "8"} in page.named("rect")
    assert "the image is not where it was" in page.text
    assert "Blue outlines" in page.text and "Yellow boxes" in page.text


def test_images_named_from_here_or_from_their_folder(tmp_path, without_charts, monkeypatch):
    """`sowa predict parts/ -o out`: the path is that below `parts`, the name the one that leads there."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path, "parts/0.png")
    draw(tmp_path, "elsewhere/1.png")
    rows = [row(0, path="0.png", name="parts/0.png"), row(1, path=str(tmp_path / "elsewhere/1.png"), name="1.png")]
    page = page_of(write(tmp_path / "out", rows), tmp_path, pictures=2)
    assert len({image["src"] for image in page.named("img")}) >= 1
    assert "the image is not where it was" not in page.text


def test_words_below_an_overlay_are_cut_off(tmp_path):
    """The drawing of `sowa predict` has a strip of words, and a large picture is drawn smaller."""
    drawn = Image.new("RGB", (1700, 1300), "white")
    drawn.paste((200, 30, 30), (0, 0, 1600, 1200))
    drawn.save(tmp_path / "overlay.png")
    small = pictures._drawing(tmp_path / "overlay.png", (3200, 2400))
    assert small.size == (360, 270)
    assert all(high - low < 8 for low, high in small.getextrema())
    assert pictures._drawing(tmp_path / "overlay.png", (0, 0)).size == (360, 275)


def test_boxes_of_another_picture_are_not_drawn(tmp_path, without_charts):
    folder = write(tmp_path / "p", [row(0, regions=[{"box": [1, 1, 2, 2]}], size=[99, 99])])
    draw(folder, "part00000.png")
    page = page_of(folder, tmp_path)
    assert page.named("img") and not page.named("rect")


def test_overlays_outside_of_the_folder_stay_outside(tmp_path, without_charts):
    draw(tmp_path, "secret.png")
    folder = write(tmp_path / "p", [row(0, overlay="../secret.png"), row(1, overlay=str(tmp_path / "secret.png"))])
    assert not page_of(folder, tmp_path).named("img")


WORDS = st.text(st.characters(exclude_categories=()), max_size=30) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</style>",
        "{{ 7*7 }}",
        "a&b",
        "'",
        "-->",
        "\u202egnp.exe",
    ]
)


@settings(max_examples=40)
@given(name=WORDS, kind=WORDS, error=WORDS, source=WORDS, title=WORDS, command=st.lists(WORDS, max_size=3))
def test_any_words_are_only_words(tmp_path_factory, name, kind, error, source, title, command):
    rows = [
        row(0, name=name, path=name, label=1, score=2.0, defect_type=kind, threshold_source=source),
        row(1, name=name, label=0, score=3.0, overlay=name, mask=kind),
        unreadable(2, name=name, error=error),
    ]
    info = {"name": name, "id": kind, "promise": [error], "normals": [{"name": name}], "model": {"name": kind}}
    facts = {
        "command": command,
        "info": info,
        "hardware": {name: {kind: error}},
        "artifact": name,
        "metrics": {"pixel_ap": name},
    }
    folder = write(tmp_path_factory.mktemp("p"), rows, facts=facts)
    with pytest.MonkeyPatch.context() as patch:
        for chart in ("score_chart", "roc_chart", "pr_chart"):
            patch.setattr(told, chart, lambda *_, **__: "")
        values = told.context(folder / "results.jsonl", title=title, pictures=3)
        plain = harmless(_rendered("predictions.html.j2", values))
    blank = told.clean(kind)
    assert all(part in plain.text for part in blank.split())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
        ("3", "line 2 is not a JSON object"),
        ('{"name": "a", "verdict": "good", "score": NaN}', "NaN"),
        ('{"name": "a", "verdict": "good", "score": 1e400}', "score"),
        ('{"name": "a", "verdict": "maybe", "score": 1}', "verdict"),
        ('{"name": 3, "verdict": "good", "score": 1}', "name"),
        ('{"name": "a", "verdict": "good", "score": true}', "score"),
        ('{"name": "a", "verdict": "good", "score": 1, "label": 2}', "label"),
        ('{"name": "a", "verdict": "good", "score": 1, "size": [1]}', "size"),
        ('{"name": "a", "verdict": "good", "score": 1, "regions": [{"box": [1, 2]}]}', "regions"),
        ('{"name": "a", "verdict": "good"}', "score"),
    ],
    ids=range(12),
)
def test_a_broken_line_is_named(tmp_path, line, says):
    folder = write(tmp_path / "p", [row(0)])
    with (folder / "results.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError) as error:
        write_report(folder, tmp_path / "report.html")
    assert says in str(error.value) and "line 2" in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [folder]


def test_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("sowa.report.rows.MOST_LINE", 500)
    folder = write(tmp_path / "p", [row(0, name="x" * 600)])
    with pytest.raises(DataError, match="line 1 is longer"):
        write_report(folder, tmp_path / "report.html")


def test_too_many_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("sowa.report.rows.MOST_ROWS", 3)
    write_report(write(tmp_path / "p", [row(i) for i in range(3)]), tmp_path / "report.html", pictures=0)
    with pytest.raises(DataError, match="more than 3 lines"):
        write_report(write(tmp_path / "q", [row(i) for i in range(4)]), tmp_path / "report.html")


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_damaged_facts(tmp_path, content):
    folder = write(tmp_path / "p", [row(0)])
    (folder / "predict.json").write_text(content)
    with pytest.raises(DataError, match=r"predict\.json"):
        write_report(folder, tmp_path / "report.html")


def test_the_page_does_not_grow_with_the_rows(tmp_path):
    """Nor with long words and many types: everything that is foreign has its limit."""
    long = "<" * 5000
    rows = [
        row(i, score=random.Random(i).random() * 2, label=i % 2, defect_type=f"{long}{i}", name=f"{long}/{long}{i}")
        for i in range(1500)
    ]
    facts = {
        "command": [long] * 99,
        "info": INFO | {"promise": [long] * 999},
        "hardware": {f"{long}{i}": long for i in range(999)},
    }
    out = write_report(write(tmp_path / "p", rows, facts=facts), tmp_path / "r.html", pictures=60)
    assert out.stat().st_size < 1_500_000
    harmless(out.read_text(encoding="utf-8"))


def test_pictures_have_a_limit(tmp_path, monkeypatch, without_charts):
    monkeypatch.setattr("sowa.report.pictures.MOST_BYTES", 1)
    folder = write(tmp_path / "p", [row(0), row(1)])
    draw(folder, "part00000.png")
    draw(folder, "part00001.png")
    page = page_of(folder, tmp_path)
    assert len(page.named("img")) == 1 and "left out to keep this file small" in page.text


def test_several_thresholds_and_detectors_are_said(tmp_path, without_charts):
    rows = [row(0), row(1), row(2, threshold=2.0, artifact="sha256:ffff")]
    text = page_of(write(tmp_path / "p", rows), tmp_path).text
    assert "2 were in use" in text and "2 different detectors" in text


def test_latency_and_throughput(tmp_path, without_charts):
    facts = {"info": INFO, "began": "2026-11-01T10:00:00+00:00", "ended": "2026-11-01T10:00:10Z"}
    text = page_of(
        write(tmp_path / "p", [row(i, milliseconds=float(i)) for i in range(101)], facts=facts), tmp_path
    ).text
    assert "50 ms" in text and "95 ms" in text and "100 ms" in text and "10.1 images a second" in text


def test_the_normals_own_pictures(tmp_path, without_charts):
    from sowa.predictor.predictor import Predictor
    from tests.predictor.parts import parts

    detector = Predictor.fit(parts(2), name="disc", model="padim", backbone="random_tiny_cnn", thumbnails=True)
    detector.save(tmp_path / "disc.sowa")
    facts = {"info": json.loads(json.dumps(detector.info())), "artifact": str(tmp_path / "disc.sowa")}
    page = page_of(write(tmp_path / "p", [row(0)], facts=facts), tmp_path)
    assert len([image for image in page.named("img") if "good picture" in image["alt"]]) == 2
    folder = tmp_path / "p"
    draw(folder, "normals.png", size=(2 * 64, 64))
    page = page_of(write(folder, [row(0)], facts=facts | {"artifact": detector.id}), tmp_path)
    assert len(page.named("img")) == 2
    draw(folder, "normals.png", size=(3 * 64, 64))
    facts["info"]["id"] = "sha256:of another"
    assert not page_of(write(tmp_path / "p", [row(0)], facts=facts), tmp_path).named("img")


@pytest.mark.parametrize("pictures", [-1, 61, True, 1.5])
def test_wrong_number_of_pictures(tmp_path, pictures):
    with pytest.raises(ConfigError, match="pictures"):
        write_report(tmp_path, tmp_path / "r.html", pictures=pictures)


def test_a_prediction_that_has_not_ended(tmp_path):
    (tmp_path / "results.jsonl.partial").write_text("")
    with pytest.raises(DataError, match="has not ended"):
        write_report(tmp_path, tmp_path / "r.html")


def test_nothing_to_report_on(tmp_path):
    for source, says in ((tmp_path / "none", "does not exist"), (tmp_path, "holds neither")):
        with pytest.raises(DataError, match=says):
            write_report(source, tmp_path / "r.html")
    folder = write(tmp_path / "p", [row(0)])
    with pytest.raises(ConfigError, match="is a folder"):
        write_report(folder, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report(folder, tmp_path / "file" / "r.html", pictures=0)
