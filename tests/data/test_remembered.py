"""Items kept in memory: the same items, bounded, in worker processes too."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from sowa.data.dataset import ImageDataset, MosaicDataset, Skipped, collate
from sowa.data.layouts import read_samples
from sowa.data.remembered import RememberedImages

ITEM = 3 * 56 * 56 + 56 * 56


@pytest.fixture
def images(data_dir):
    samples = [one for one in read_samples(data_dir / "mvtec_anomaly_detection", "mvtec") if one.split == "test"]
    return MosaicDataset(samples=samples, image_size=56, seed=0, rate=0.5)


def same(one, other):
    return torch.equal(one.image, other.image) and torch.equal(one.mask, other.mask) and one.name == other.name


def test_items_are_those_of_the_dataset_and_decoded_once(images, monkeypatch):
    kept = RememberedImages(images=images, limit_bytes=1e9)
    first = [kept[i] for i in range(len(kept))]
    assert all(same(item, images[i]) for i, item in enumerate(first))
    monkeypatch.setattr(MosaicDataset, "_item", lambda *_: pytest.fail("decoded again"))
    assert all(kept[i] is item for i, item in enumerate(first))


def test_memory_is_bounded(images):
    kept = RememberedImages(images=images, limit_bytes=3.5 * ITEM)
    for _ in range(2):
        assert all(same(kept[i], images[i]) for i in range(len(kept)))
    assert len(kept._kept) == 3


def test_all_else_is_the_datasets_own(images):
    kept = RememberedImages(images=images, limit_bytes=1e9)
    assert kept.samples is images.samples and kept.skipped() == ()
    with pytest.raises(AttributeError):
        kept.no_such_thing  # noqa: B018
    assert len(pickle.loads(pickle.dumps(kept))) == len(images)


def test_what_cannot_be_read_is_tried_again(images, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    sample = type(images.samples[0])("broken", broken, "bottle", "test", 0)
    kept = RememberedImages(images=ImageDataset(samples=[sample], image_size=56, on_error="skip"), limit_bytes=1e9)
    assert isinstance(kept[0], Skipped) and isinstance(kept[0], Skipped)
    assert kept.skipped() == (sample,)


def test_worker_processes(images):
    kept = RememberedImages(images=images, limit_bytes=1e9)
    loader = DataLoader(kept, batch_size=5, num_workers=2, collate_fn=collate, persistent_workers=True)
    for _ in range(2):
        names = [name for batch in loader for name in batch.names]
        assert names == [sample.name for sample in images.samples]
