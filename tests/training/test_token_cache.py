"""Training with remembered tokens: the bits of a training without, whatever the cache held."""

import json

import pytest

from sowa.backbones.token_store import TokenStore
from sowa.errors import ArtifactError, ConfigError
from sowa.training.build import build
from sowa.training.evaluate import evaluate
from sowa.training.run import eval_main, train_main
from sowa.training.sources import read_source
from tests.training.small import TINY, Killed, prepare, settings_for, train

LONG = ("trainer.max_epochs=3", "save_every_steps=2", "data.auxiliary.mosaic_rate=0.5")


def remembering(folder, *more):
    return ("token_cache.enabled=true", f"token_cache.folder={folder}", *more)


def test_the_bits_of_a_training_without_cache(data_dir, tmp_path):
    words = (*LONG, "data.batch_size=1", "trainer.max_epochs=2")
    plain = train(data_dir, tmp_path / "plain", words)
    cached = train(data_dir, tmp_path / "cached", (*words, *remembering(tmp_path / "tokens")))
    assert cached.bits == plain.bits
    assert cached.detector.backbone.hits == cached.detector.backbone.misses > 0


def test_in_batches_it_differs_by_what_a_batch_does_to_rounding(data_dir, tmp_path, cold):
    """A matrix product may round a row differently beside other rows: the tower without cache does so too."""
    plain = train(data_dir, tmp_path, LONG)
    assert cold[0].training.shell.plateau.best == pytest.approx(plain.training.shell.plateau.best, rel=1e-5)


@pytest.fixture(scope="module")
def cold(data_dir, tmp_path_factory):
    home = tmp_path_factory.mktemp("cold")
    trained = train(data_dir, home / "run", (*LONG, *remembering(home / "tokens")))
    return trained, home / "tokens"


def test_a_warm_cache_changes_nothing_and_nothing_passes_the_backbone(data_dir, tmp_path, cold):
    warm = train(data_dir, tmp_path, (*LONG, *remembering(cold[1])))
    assert warm.bits == cold[0].bits
    assert warm.detector.backbone.misses == 0


def test_every_image_passes_the_backbone_once(cold):
    tower = cold[0].detector.backbone
    assert tower.misses == 12 and tower.hits == 24, "mosaics are images of their own, the same in every epoch"


def test_killed_and_resumed_with_the_cache_it_left(data_dir, tmp_path, cold):
    words = (*LONG, *remembering(tmp_path / "tokens"))
    with pytest.raises(Killed):
        train(data_dir, tmp_path / "run", words, kill_before=2)
    resumed = train(data_dir, tmp_path / "run", (*words, "resume=true"))
    assert resumed.bits == cold[0].bits


def test_resumed_without_the_cache_or_with_one_too_small(data_dir, tmp_path, cold):
    with pytest.raises(Killed):
        train(data_dir, tmp_path / "run", (*LONG, *remembering(tmp_path / "tokens")), kill_before=5)
    tiny = remembering(tmp_path / "other", "token_cache.limit_gb=0.00004", "resume=true")
    assert train(data_dir, tmp_path / "run", (*LONG, *tiny)).bits == cold[0].bits


@pytest.mark.parametrize("model", ["april_gan", "inctrl", "sowa_linear"])
def test_every_trained_method_can_use_it(data_dir, tmp_path, model):
    words = (f"model={model}", "trainer.max_epochs=1")
    runs = [train(data_dir, tmp_path / str(i), (*words, *remembering(tmp_path / "tokens"))) for i in range(2)]
    assert runs[0].bits == runs[1].bits
    assert runs[0].detector.backbone.misses > 0 == runs[1].detector.backbone.misses


def test_rounded_tokens_are_another_training(data_dir, tmp_path, cold):
    half = remembering(tmp_path / "tokens", "token_cache.precision=float16")
    trained = train(data_dir, tmp_path / "run", (*LONG, *half))
    assert trained.bits != cold[0].bits
    again = train(data_dir, tmp_path / "again", (*LONG, *half))
    assert again.bits == trained.bits and again.detector.backbone.misses == 0
    with pytest.raises(ArtifactError, match=r"cannot resume: .* with token_precision=float16"):
        prepare(data_dir, tmp_path / "run", (*LONG, "resume=true"))


def test_exact_tokens_are_the_same_training(data_dir, tmp_path, cold):
    """A run may change to the cache and back."""
    plain = prepare(data_dir, tmp_path, LONG)
    assert plain.shell.identity == cold[0].training.shell.identity


def test_an_evaluation_from_the_cache(data_dir, tmp_path):
    source = read_source(dataset="visa", data_dir=str(data_dir))
    results = []
    for _ in range(2):
        detector = build(settings_for(data_dir, *remembering(tmp_path))).eval()
        results.append(evaluate(detector, dataset="visa", samples=source.samples, shots=(0, 1)))
    assert results[0].rows == results[1].rows and results[0].scores == results[1].scores
    assert detector.backbone.misses == 0


def test_the_size_is_told_before_anything_is_written(data_dir, tmp_path, capsys):
    places = [f"paths.data_dir={data_dir}", f"paths.output_dir={tmp_path}/run", "shots=[0]", "trainer.max_epochs=2"]
    assert train_main([*TINY, *places, *remembering(tmp_path / "tokens", "token_cache.limit_gb=0.0001")]) == 0
    error = capsys.readouterr().err
    told = error.index("12 images x 16.5 kB = 198.1 kB")
    assert told < error.index("is full")
    assert "some 6 of them fit" in error
    words = [f"ckpt_path={tmp_path}/run", f"paths.data_dir={data_dir}", f"paths.output_dir={tmp_path}/eval"]
    assert eval_main([*words, "shots=[0]", *remembering(tmp_path / "tokens")]) == 0
    rows = [json.loads((tmp_path / name / "metrics.json").read_text())["rows"] for name in ("run", "eval")]
    assert rows[0] == rows[1]
    assert TokenStore(folder=tmp_path / "tokens", limit_bytes=1 << 30).held_bytes > 100_000


def test_where_it_would_pay_that_is_said(data_dir, tmp_path, capsys):
    places = [f"paths.data_dir={data_dir}", "test=false"]
    assert train_main([*TINY, *places, f"paths.output_dir={tmp_path}/two", "trainer.max_epochs=2"]) == 0
    assert "token_cache.enabled=true (198.1 kB)" in capsys.readouterr().err
    assert train_main([*TINY, *places, f"paths.output_dir={tmp_path}/one"]) == 0
    assert "token_cache" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["model=winclip"], "a way of its own"),
        (["token_cache.limit_gb=0"], "above 0"),
        (["token_cache.precision=int3"], "float16, float32"),
        (["+token_cache.colour=1"], "'colour'"),
    ],
)
def test_what_it_cannot_do(data_dir, tmp_path, words, answer):
    with pytest.raises((ConfigError, Exception), match=answer):
        build(settings_for(data_dir, *words, *remembering(tmp_path)))


def test_counted_pixels_say_their_error(data_dir, tmp_path):
    source = read_source(dataset="visa", data_dir=str(data_dir))
    detector = build(settings_for(data_dir)).eval()
    exact, counted = (
        evaluate(detector, dataset="visa", samples=source.samples, shots=(0,), exact_gb=size) for size in (1.0, 0.0)
    )
    for one, other in zip(exact.rows, counted.rows, strict=True):
        error = other.pop("metrics_error", 0.0)
        assert error < 1e-4
        assert other == pytest.approx(one, abs=error + 1e-12, nan_ok=True)
    with pytest.raises(ConfigError, match="exact_gb=-1"):
        train_main([*TINY, f"paths.data_dir={data_dir}", "exact_gb=-1"])
