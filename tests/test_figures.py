"""Figures: the scale is fixed, the files are whole, nothing falls off the sheet."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sowa.errors import ConfigError, DataError, SowaError
from sowa.figures import (
    MechanismRow,
    VerdictRow,
    contact_sheet,
    curves,
    mechanism_figure,
    overlay,
    verdict_panel,
    verdict_sheet,
)
from sowa.figures.canvas import short

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)
MASK = np.zeros((48, 64), np.uint8)
MASK[10:20, 30:45] = 255


def row(**changes):
    settings = {
        "image": IMAGE,
        "mask": MASK,
        "score_map": RNG.random((48, 64)),
        "category": "cap",
        "name": "cap/test/scratch/000.png",
        "label": 1,
        "score": 0.7,
        "threshold": 0.5,
        "verdict": "defective",
    }
    return VerdictRow(**{**settings, **changes})


def mechanism(**changes):
    settings = {
        "image": IMAGE,
        "category": "cap",
        "levels": [RNG.random((6, 8)) for _ in range(4)],
        "score_map": RNG.random((48, 64)),
        "mask": MASK,
        "text_map": RNG.random((6, 8)),
        "memory_map": RNG.random((6, 8)),
    }
    return MechanismRow(**{**settings, **changes})


def opened(path):
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def test_low_scores_leave_the_image_untouched():
    heat = np.full((48, 64), 0.2)
    assert np.array_equal(overlay(IMAGE, heat, low=0.2, high=1.0), IMAGE)
    heat[5, 7] = 1.0
    changed = (overlay(IMAGE, heat, low=0.2, high=1.0) != IMAGE).any(axis=-1)
    assert changed[5, 7] and changed.sum() == 1


def test_scale_is_fixed_by_the_caller_not_by_the_map():
    """The colour of a pixel depends on its own score alone: a hotter neighbour must not change it."""
    grey = np.full((2, 2, 3), 120, np.uint8)
    calm = overlay(grey, np.array([[0.3, 0.3], [0.3, 0.3]]), low=0.0, high=1.0)
    hot = overlay(grey, np.array([[0.3, 9.0], [0.3, -9.0]]), low=0.0, high=1.0)
    assert np.array_equal(calm[:, 0], hot[:, 0])
    assert not np.array_equal(calm[0, 1], hot[0, 1])


@settings(max_examples=60, deadline=None)
@given(low=st.floats(-1e3, 1e3), span=st.floats(1e-3, 1e3), value=st.floats(-5, 5), grey=st.integers(0, 255))
def test_overlay_depends_on_the_place_in_the_scale_only(low, span, value, grey):
    image = np.full((1, 1, 3), grey, np.uint8)
    scaled = overlay(image, np.array([[low + value * span]]), low=low, high=low + span).astype(int)
    unit = overlay(image, np.array([[value]]), low=0.0, high=1.0).astype(int)
    # float32 maps: a part of 1e-3 of a scale far from zero is not exact.
    assert np.abs(scaled - unit).max() <= (4 if abs(low) < 100 * span else 255)
    if value >= 1:
        top = overlay(image, np.array([[1e9]]), low=0.0, high=1.0)
        assert np.array_equal(unit, top)


def test_hotter_is_more_opaque():
    grey = np.full((1, 5, 3), 128, np.uint8)
    changed = overlay(grey, np.linspace(0, 1, 5)[None], low=0.0, high=1.0).astype(int) - 128
    strength = np.abs(changed).max(axis=-1)[0]
    assert strength[0] == 0 and strength[-1] > strength[1] > 0
    assert np.array_equal(overlay(grey, np.ones((1, 5)), low=0.0, high=0.5, alpha=0.0), grey)


def test_a_small_map_is_enlarged_to_the_image():
    heat = np.zeros((6, 8))
    heat[:, 4:] = 1.0
    changed = (overlay(IMAGE, heat, low=0.0, high=1.0) != IMAGE).any(axis=-1)
    assert not changed[:, :26].any() and changed[:, 40:].mean() > 0.95


def test_overlay_changes_no_input():
    image, heat = IMAGE.copy(), np.full((48, 64), 0.9)
    overlay(image, heat, low=0.0, high=1.0)
    assert np.array_equal(image, IMAGE) and (heat == 0.9).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"low": 1.0, "high": 1.0},
        {"low": 0.0, "high": float("nan")},
        {"alpha": 2.0},
        {"score_map": np.full((48, 64), np.nan)},
        {"score_map": np.zeros((1, 48, 64))},
        {"image_HW3": IMAGE[..., 0]},
        {"image_HW3": IMAGE / 255.0},
    ],
)
def test_overlay_refuses_in_one_line(wrong):
    arguments = {"image_HW3": IMAGE, "score_map": np.zeros((48, 64)), "low": 0.0, "high": 1.0, **wrong}
    with pytest.raises((ConfigError, DataError)) as caught:
        overlay(**arguments)
    assert "\n" not in str(caught.value)


def test_verdict_sheet_of_a_dozen_is_readable_and_alone(tmp_path):
    rows = [
        row(),
        row(label=0, mask=np.zeros((48, 64)), score=0.1, verdict="good"),
        row(mask=None, label=1, verdict="good", score=0.2),
        row(score_map=None, mask=None, label=None, threshold=None),
        row(name="a/very/long/path/" * 9 + "$x$.png", category="$y$"),
    ] * 3
    path = verdict_sheet(rows, tmp_path / "deep" / "sheet.png", low=0.0, high=1.0, title="Verdicts")
    pixels = opened(path)
    assert 900 < pixels.shape[1] <= 1800 and 900 < pixels.shape[0] < 3000
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]
    border = np.concatenate([pixels[:8].ravel(), pixels[:, -4:].ravel(), pixels[-4:].ravel()])
    assert (border == 255).all(), "something touches the edge of the sheet"


def test_sheet_uses_one_scale_for_all_rows(tmp_path):
    """A row's heat map is the same picture whatever stands below it."""
    calm = row(score_map=np.full((48, 64), 0.4))
    hot = row(score_map=np.full((48, 64), 50.0))
    alone = opened(verdict_sheet([calm, calm], tmp_path / "a.png", low=0.0, high=1.0, title="t"))
    beside = opened(verdict_sheet([calm, hot], tmp_path / "b.png", low=0.0, high=1.0, title="t"))
    assert alone.shape == beside.shape
    middle = 104 + 186 + 7
    assert np.array_equal(alone[:middle], beside[:middle])
    assert not np.array_equal(alone[middle:], beside[middle:])


def test_panel_and_same_bytes_again(tmp_path):
    one = row()
    first = verdict_panel(one, tmp_path / "a.png", low=0.0, high=1.0).read_bytes()
    assert verdict_panel(one, tmp_path / "b.png", low=0.0, high=1.0).read_bytes() == first
    assert opened(tmp_path / "a.png").shape[1] <= 1800
    silent = verdict_panel(row(verdict="good", score=0.1), tmp_path / "c.png", low=0.0, high=1.0).read_bytes()
    assert silent != first


def test_mechanism_columns(tmp_path):
    full = opened(mechanism_figure([mechanism(), mechanism(memory_map=None)], tmp_path / "full.png"))
    bare = [mechanism(text_map=None, memory_map=None)] * 2
    less = opened(mechanism_figure(bare, tmp_path / "less.png"))
    assert full.shape[1] <= 1800 and less.shape[1] <= full.shape[1]
    many = [mechanism(levels=[np.zeros((4, 4))] * 12)]
    assert opened(mechanism_figure(many, tmp_path / "many.png")).shape[1] <= 1800


def test_mechanism_scale_is_one_per_column_over_rows(tmp_path):
    """Ten times the values in one row dim the same column of the other row and leave the other columns alone."""

    def first_row(second):
        calm = mechanism(levels=[np.eye(6, 8)], score_map=np.eye(6, 8), text_map=None, memory_map=None)
        pixels = opened(mechanism_figure([calm, second], tmp_path / "m.png"))
        side = 188
        return [
            pixels[60 : 56 + side - 4, 152 + k * (side + 8) + 4 : 152 + k * (side + 8) + side - 4] for k in range(4)
        ]

    same = mechanism(levels=[np.eye(6, 8)], score_map=np.eye(6, 8), text_map=None, memory_map=None)
    loud = mechanism(levels=[10 * np.eye(6, 8)], score_map=np.eye(6, 8), text_map=None, memory_map=None)
    before, after = first_row(same), first_row(loud)
    assert after[2].max() < before[2].max()
    assert np.array_equal(after[3], before[3]) and np.array_equal(after[0], before[0])


def test_mechanism_takes_constant_maps(tmp_path):
    flat = mechanism(levels=np.zeros((4, 6, 8)), score_map=np.zeros((6, 8)), text_map=np.full((6, 8), 3.0))
    opened(mechanism_figure([flat], tmp_path / "flat.png"))


def test_contact_sheet_counts_its_images(tmp_path):
    images = [np.full((30, 20, 3), 10 * k, np.uint8) for k in range(7)]
    pixels = opened(
        contact_sheet(images, tmp_path / "c.png", labels=[f"image {k}" for k in range(7)], columns=3, side=96)
    )
    assert pixels.shape[1] == 3 * 106 + 38 and pixels.shape[0] == 3 * (106 + 26) + 38
    plain = opened(contact_sheet(images, tmp_path / "d.png", columns=3, side=96))
    assert plain.shape[0] == 3 * 106 + 38
    assert (plain == 60).all(axis=-1).sum() > 30 * 20, "the last image is on the sheet"


def test_curves(tmp_path):
    opened(curves({"loss": ([0, 1, 2], [3.0, 2.0, 1.0])}, tmp_path / "c.png", title="Loss", across="step", up="loss"))


@pytest.mark.parametrize(
    "call",
    [
        lambda p: verdict_sheet([], p, low=0.0, high=1.0, title="t"),
        lambda p: verdict_sheet([row()] * 61, p, low=0.0, high=1.0, title="t"),
        lambda p: verdict_sheet([row()], p, low=1.0, high=0.0, title="t"),
        lambda p: mechanism_figure([], p),
        lambda p: mechanism_figure([mechanism(score_map=np.full((4, 4), np.inf))], p),
        lambda p: contact_sheet([], p),
        lambda p: contact_sheet([IMAGE], p, labels=["a", "b"]),
        lambda p: contact_sheet([IMAGE] * 30, p, columns=30),
        lambda p: curves({}, p, title="t", across="x", up="y"),
    ],
)
def test_refusals_write_nothing(call, tmp_path):
    with pytest.raises(SowaError) as caught:
        call(tmp_path / "out.png")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@given(st.text(max_size=80), st.integers(3, 40))
def test_short_keeps_both_ends(text, most):
    cut = short(text, most)
    assert len(cut) <= max(most, len(text)) and len(cut) == min(len(text), most)
    if len(text) > most:
        assert cut[0] == text[0] and cut[-1] == text[-1] and "…" in cut


def test_no_display_state_is_touched(tmp_path):
    code = (
        "import sys, numpy as np; from sowa.figures import overlay, contact_sheet\n"
        "assert 'matplotlib' not in sys.modules\n"
        "contact_sheet([np.zeros((8, 8, 3), np.uint8)], sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.png")], check=True)
