"""The shell adds an optimiser and exactness to a detector, nothing else."""

import pytest
import torch

from sowa.errors import ConfigError, SowaError
from sowa.training.build import build
from sowa.training.module import LitDetector
from tests import trees
from tests.training.small import prepare, settings_for, train


@pytest.fixture(scope="module")
def detector(data_dir):
    return build(settings_for(data_dir))


def test_optimiser_is_the_papers_on_trained_tensors_alone(detector):
    shell = LitDetector(detector=detector)
    (group,) = shell.configure_optimizers().param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (1e-3, 0.2, (0.9, 0.999))
    assert [id(value) for value in group["params"]] == [id(value) for _, value in detector.trainable_parameters()]
    assert (shell.plateau.factor, shell.plateau.patience, shell.plateau.mode) == (0.1, 5, "min")


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"weight_decay": -1.0}, {"factor": 1.0}, {"patience": -1}])
def test_settings_that_cannot_be_used(detector, wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=name):
        LitDetector(detector=detector, **wrong)


def test_dropout_is_a_function_of_seed_and_step(detector):
    def draw(seed, step):
        shell = LitDetector(detector=detector, seed=seed)
        torch.manual_seed(step)  # whatever was drawn before must not matter
        type(shell).global_step = property(lambda _: step)
        try:
            shell.on_train_batch_start(None, 0)
        finally:
            del type(shell).global_step
        return torch.rand(4).tolist()

    assert draw(0, 1) == draw(0, 1)
    assert len({tuple(draw(seed, step)) for seed in (0, 1) for step in (0, 1, 2)}) == 6


def test_the_backbone_is_left_as_it_was(data_dir, tmp_path):
    training = prepare(data_dir, tmp_path, ["save_every_steps=1"])
    before = {name: value.clone() for name, value in training.detector.backbone.state_dict().items()}
    weights = training.detector.trained_state()
    training.fit()
    after = training.detector.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(torch.equal(weights[name], value) for name, value in training.detector.trained_state().items())
    assert not training.detector.training


def test_the_global_generator_of_the_caller_does_not_matter(data_dir, tmp_path):
    torch.manual_seed(1)
    first = train(data_dir, tmp_path / "a").bits
    torch.manual_seed(2)
    assert train(data_dir, tmp_path / "b").bits == first


def test_a_loss_that_is_no_number_stops_the_training(data_dir, tmp_path):
    training = prepare(data_dir, tmp_path)
    training.detector.losses = lambda batch: {"focal": torch.tensor(float("nan"), requires_grad=True)}
    with pytest.raises(SowaError, match="loss became nan at step 0"):
        training.fit()


def test_unreadable_images_are_left_out_by_choice_only(tmp_path):
    """With batches of one, a step without any image comes about: it changes nothing and is counted."""
    home = tmp_path / "data"
    trees.mvtec(home / "mvtec", categories=["bottle"], defects=["cut"], good=2, bad=2, traps=False)
    (home / "mvtec/bottle/test/cut/001.png").write_bytes(b"not a picture")
    with pytest.raises(SowaError, match=r"cut/001\.png"):
        train(home, tmp_path / "raise", ["data.batch_size=1", "data.auxiliary.mosaic_rate=0.0"])
    skipping = ["data.batch_size=1", "data.auxiliary.mosaic_rate=0.0", "data.on_error=skip"]
    trained = train(home, tmp_path / "skip", skipping)
    assert trained.facts["steps"] == 4
    assert [sample.name for sample in trained.training.data.dataset.skipped()] == ["bottle/test/cut/001.png"]
