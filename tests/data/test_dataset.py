"""From samples to batches: sizes, rules, what is skipped is told, and mosaics that are the same in every epoch."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from sowa.data.dataset import ImageDataset, Item, MosaicDataset, Skipped, collate, draw_mosaics, paste
from sowa.data.frames import mask_to_model, squash
from sowa.data.images import read_image, read_mask
from sowa.data.layouts import read_samples
from sowa.errors import ConfigError, DataError
from sowa.types import Sample
from tests import trees


@pytest.fixture
def samples(tmp_path):
    return read_samples(trees.mvtec(tmp_path, categories=("bottle",)).root)


@pytest.fixture
def damaged(samples):
    samples[1].image.write_bytes(b"\x89PNG\r\n")
    return samples


def loaded(dataset, **options):
    return list(DataLoader(dataset, collate_fn=collate, **options))


# --------------------------------------------------------------------------------------------------------------- images


def test_batch_has_images_labels_masks_and_names(samples):
    (batch,) = loaded(ImageDataset(samples=samples, image_size=10), batch_size=len(samples))
    assert batch.images.shape == (len(samples), 3, 10, 10) and batch.images.dtype == torch.uint8
    assert batch.masks.shape == (len(samples), 10, 10) and batch.masks.dtype == torch.uint8
    assert batch.labels.tolist() == [s.label for s in samples] and batch.labels.dtype == torch.int64
    assert batch.names == tuple(s.name for s in samples) and set(batch.categories) == {"bottle"}
    assert (batch.masks.flatten(1).amax(1) == batch.labels).all()
    assert torch.equal(batch.images[3], squash(read_image(samples[3].image), 10))


def test_original_masks_are_stacked_or_listed_by_their_sizes(samples, tmp_path):
    (batch,) = loaded(ImageDataset(samples=samples, image_size=10, masks="original"), batch_size=20)
    assert batch.masks.shape == (len(samples), 8, 12)
    bad = next(s for s in samples if s.label)
    trees.picture(bad.image, (9, 7))
    trees.mask(bad.masks[0], (9, 7))
    (batch,) = loaded(ImageDataset(samples=samples, image_size=10, masks="original"), batch_size=20)
    assert sorted({tuple(mask.shape) for mask in batch.masks}) == [(7, 9), (8, 12)]


def test_without_masks_no_mask_file_is_touched(samples):
    for sample in samples:
        for path in sample.masks:
            path.unlink()
    (batch,) = loaded(ImageDataset(samples=samples, image_size=10, masks="none"), batch_size=20)
    assert batch.masks == [] and len(batch.images) == len(samples)


def test_missing_pixel_truth_is_an_error_where_masks_are_read(tmp_path):
    samples = read_samples(trees.elpv(tmp_path).root)
    with pytest.raises(DataError, match="no mask for this defective image"):
        loaded(ImageDataset(samples=samples, image_size=10))


@pytest.mark.parametrize("rule", ["nearest", "paper_train", "paper_test"])
def test_mask_rule_reaches_the_mask(samples, rule):
    bad = [s for s in samples if s.label][:1]
    item = ImageDataset(samples=bad, image_size=5, mask_rule=rule)[0]
    np.testing.assert_array_equal(item.mask.numpy(), mask_to_model(read_mask(bad[0], (12, 8)), 5, rule))


@pytest.mark.parametrize("option", [{"mask_rule": "paper"}, {"masks": "all"}, {"on_error": "ignore"}])
def test_unknown_choice_lists_the_known(samples, option):
    with pytest.raises(ConfigError, match="choose one of"):
        ImageDataset(samples=samples, image_size=10, **option)


# -------------------------------------------------------------------------------------------------------------- skipped


def test_unreadable_image_stops_with_its_path(damaged):
    dataset = ImageDataset(samples=damaged, image_size=10)
    with pytest.raises(DataError, match=damaged[1].name):
        dataset[1]
    assert dataset.skipped() == () and dataset.skipped_line() is None


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_images_are_listed_also_from_workers(damaged, workers):
    dataset = ImageDataset(samples=damaged, image_size=10, on_error="skip")
    batches = loaded(dataset, batch_size=2, num_workers=workers)
    assert [n for b in batches for n in b.names] == [s.name for i, s in enumerate(damaged) if i != 1]
    assert dataset.skipped() == (damaged[1],)
    assert dataset.skipped_line() == f"1 of {len(damaged)} images skipped as unreadable: {damaged[1].name}"


def test_each_skipped_image_is_warned_of_once(damaged, caplog):
    dataset = ImageDataset(samples=damaged, image_size=10, on_error="skip")
    with caplog.at_level(logging.WARNING):
        assert isinstance(dataset[1], Skipped) and isinstance(dataset[1], Skipped)
    assert len(caplog.records) == 1 and damaged[1].name in caplog.text


def test_batch_of_nothing_but_skipped_images_is_empty(damaged):
    batch = collate([ImageDataset(samples=damaged, image_size=10, on_error="skip")[1]])
    assert batch.images.shape == (0, 3, 10, 10) and batch.labels.shape == (0,) and batch.names == ()


def test_empty_dataset():
    assert len(ImageDataset(samples=[], image_size=10)) == 0


# -------------------------------------------------------------------------------------------------------------- mosaics


def test_mosaics_are_the_same_in_every_epoch_and_another_for_another_seed(samples):
    def images(seed):
        dataset = MosaicDataset(samples=samples, image_size=10, rate=0.5, seed=seed)
        return [dataset[i].image for i in range(len(dataset))], dataset

    first, dataset = images(3)
    assert all(torch.equal(a, dataset[i].image) for i, a in enumerate(first))
    assert all(torch.equal(a, b) for a, b in zip(first, images(3)[0], strict=True))
    assert dataset.mosaics and dataset.mosaics != images(4)[1].mosaics


def test_a_mosaic_depends_only_on_seed_and_index(tmp_path):
    many = drawable(50)
    whole = draw_mosaics(many, rate=0.3, seed=1)
    assert draw_mosaics(many, rate=0.6, seed=1).items() >= whole.items()


def drawable(n: int, category: str = "c") -> list[Sample]:
    def sample(i: int) -> Sample:
        defect = "good" if i % 5 else "cut"
        return Sample(f"{i:05}", Path(str(i)), category, "test", int(defect != "good"), defect)

    return [sample(i) for i in range(n)]


def test_rate_and_uniform_draw_of_kinds():
    samples = drawable(4000)
    mosaics = draw_mosaics(samples, rate=0.2, seed=0)
    assert abs(len(mosaics) / 4000 - 0.2) < 0.02
    drawn = [samples[i].label for parts in mosaics.values() for i in parts]
    # Kinds are drawn before images, so a fifth of the images makes half of the parts.
    assert abs(np.mean(drawn) - 0.5) < 0.03
    assert draw_mosaics(samples, rate=0, seed=0) == {}
    assert len(draw_mosaics(samples, rate=1, seed=0)) == 4000


def test_parts_come_from_the_items_category():
    samples = drawable(50, "a") + drawable(50, "b")
    for index, parts in draw_mosaics(samples, rate=1, seed=0).items():
        assert {samples[i].category for i in parts} == {samples[index].category}


@pytest.mark.parametrize("rate, seed", [(-0.1, 0), (1.1, 0), (0.2, -1)])
def test_impossible_rate_or_seed_is_refused(rate, seed):
    with pytest.raises(ConfigError):
        draw_mosaics([], rate=rate, seed=seed)


def part(width: int, height: int, grey: int) -> tuple[Image.Image, np.ndarray]:
    return Image.new("RGB", (width, height), (grey,) * 3), np.full((height, width), grey % 2, dtype=np.uint8)


def test_parts_lie_row_major_with_masks_in_the_same_places():
    canvas, mask = paste([part(3, 2, 10), part(3, 2, 21), part(3, 2, 30), part(3, 2, 41)])
    expected = np.kron(np.array([[10, 21], [30, 41]]), np.ones((2, 3)))
    np.testing.assert_array_equal(np.asarray(canvas)[..., 0], expected)
    np.testing.assert_array_equal(mask, expected % 2)


def test_parts_of_other_sizes_are_cut_covered_or_leave_black_alike_in_image_and_mask():
    canvas, mask = paste([part(3, 2, 11), part(5, 4, 21), part(1, 1, 31), part(2, 9, 41)])
    expected = np.array([[11, 11, 11, 21, 21, 21]] * 2 + [[31, 0, 0, 41, 41, 21], [0, 0, 0, 41, 41, 21]])
    np.testing.assert_array_equal(np.asarray(canvas)[..., 0], expected)
    np.testing.assert_array_equal(mask, expected % 2)


def test_labels_of_mosaics_follow_the_rule(samples):
    any_ = MosaicDataset(samples=samples, image_size=24, rate=1, seed=0, label_rule="any")
    kept = MosaicDataset(samples=samples, image_size=24, rate=1, seed=0, label_rule="kept")
    items = [(any_[i], kept[i]) for i in range(len(samples))]
    for (item, paper), sample, parts in zip(items, samples, any_.mosaics.values(), strict=True):
        assert paper.label == sample.label and item.name == sample.name
        assert item.label == int(item.mask.any()) == max(samples[i].label for i in parts)
    assert any(item.label != paper.label for item, paper in items)


def test_mosaics_without_masks_take_the_labels_of_their_parts(samples):
    dataset = MosaicDataset(samples=samples, image_size=10, rate=1, seed=0, masks="none")
    for i, parts in dataset.mosaics.items():
        item = dataset[i]
        assert isinstance(item, Item) and item.mask is None
        assert item.label == max(samples[j].label for j in parts)


# ---------------------------------------------------------------------------------------------- non-square and reduced


def wide(tmp_path, suffix="jpg"):
    """One wide picture with a bright spot, and its mask."""
    values = np.full((300, 900, 3), 90, np.uint8)
    values[200:260, 700:800] = 250
    Image.fromarray(values).save(tmp_path / f"a.{suffix}", quality=95)
    mask = tmp_path / "a_mask.png"
    Image.fromarray((values[..., 0] > 200).astype(np.uint8) * 255).save(mask)
    return Sample("a", tmp_path / f"a.{suffix}", "part", "test", 1, "spot", masks=(mask,))


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
@pytest.mark.parametrize("reduce", [True, False])
def test_spot_and_mask_meet_in_the_models_square(tmp_path, fit, reduce):
    item = ImageDataset(samples=[wide(tmp_path)], image_size=60, fit=fit, reduce=reduce)[0]
    bright = item.image[0] > 170
    assert (bright & (item.mask > 0)).sum() / (bright | (item.mask > 0)).sum() > 0.7


def test_the_original_mask_keeps_its_size_when_the_picture_is_reduced(tmp_path):
    item = ImageDataset(samples=[wide(tmp_path)], image_size=60, masks="original")[0]
    assert item.mask.shape == (300, 900)


def test_mosaics_of_large_photographs_keep_picture_and_mask_together(tmp_path):
    dataset = MosaicDataset(samples=[wide(tmp_path)], image_size=80, seed=0, rate=1.0)
    item = dataset[0]
    assert dataset.mosaics and ((item.image[0] > 170) & (item.mask > 0)).sum() / (item.mask > 0).sum() > 0.6
