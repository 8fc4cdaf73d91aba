"""Our detectors in anomalib's Engine: the same shots give the same verdicts as our own Predictor."""

import builtins
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sowa.errors import ArtifactError, ConfigError, SowaError
from sowa.predictor.predictor import Predictor
from tests.predictor.parts import part, parts

NAME = "sowa.integrations.anomalib"
OPTIONS = {"backbone": "random_tiny", "category": "disc"}


def test_without_anomalib_one_line_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name.split(".")[0] == "anomalib":
            raise ImportError("No module named 'anomalib'")
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, NAME, raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"pip install 'sowa\[anomalib\]'") as caught:
        importlib.import_module(NAME)
    assert "\n" not in str(caught.value)


@pytest.fixture
def Sowa():
    pytest.importorskip("anomalib")
    return importlib.import_module(NAME).Sowa


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Good and defective discs in anomalib's Folder layout, with masks."""
    root = tmp_path_factory.mktemp("discs")
    for place, pictures in {
        "good": parts(7),
        "test_good": parts(3, first=30),
        "bad": parts(3, first=40, defect=True),
    }.items():
        (root / place).mkdir()
        for number, picture in enumerate(pictures):
            picture.save(root / place / f"{number}.png")
    (root / "masks").mkdir()
    width, height = part(0).size
    mask = np.zeros((height, width), np.uint8)
    mask[height // 3 : height // 3 + height // 4, width // 3 : width // 3 + height // 4] = 255
    for number in range(3):
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    return root


def discs(folder):
    from anomalib.data import Folder

    return Folder(
        name="disc",
        root=folder,
        normal_dir="good",
        normal_test_dir="test_good",
        abnormal_dir="bad",
        mask_dir="masks",
        train_batch_size=2,
        eval_batch_size=2,
        val_split_mode="same_as_test",
        num_workers=0,
    )


def engine(place):
    from anomalib.engine import Engine

    return Engine(
        default_root_dir=place,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def agree(batches, ours: Predictor) -> int:
    """How many pictures were compared."""
    count = 0
    for batch in batches:
        for path, probability, label, found, mask in zip(
            batch.image_path, batch.pred_score, batch.pred_label, batch.anomaly_map, batch.pred_mask, strict=True
        ):
            result = ours.predict(path)
            assert float(probability) == pytest.approx(result.probability, abs=1e-5)
            assert bool(label) == (result.verdict == "defective")
            heat = torch.from_numpy(result.heatmap)
            torch.testing.assert_close(found.squeeze(), heat / (1 + heat), rtol=1e-4, atol=1e-5)
            sure = (heat - 1).abs() > 1e-3
            assert (mask.squeeze()[sure] == (heat >= 1)[sure]).all()
            count += 1
    return count


@pytest.mark.parametrize(
    "options",
    [{"k_shot": 4}, {"k_shot": None}, {"k_shot": 2, "detector": "patchcore", "fit_view": "letterbox"}],
    ids=lambda options: options.get("detector", f"k={options['k_shot']}"),
)
def test_the_engine_agrees_with_our_own(Sowa, folder, tmp_path, options):
    model, runner = Sowa(**OPTIONS, **options), engine(tmp_path / "run")
    (measured,) = runner.train(model, datamodule=discs(folder))
    assert {"image_AUROC", "image_F1Score", "pixel_AUPRO"} <= measured.keys()
    ours = Predictor.fit(
        folder / "good",
        name="disc",
        backbone="random_tiny",
        model=options.get("detector"),
        k="all" if options["k_shot"] is None else options["k_shot"],
        fit=options.get("fit_view", "squash"),
    )
    assert model.predictor.threshold == ours.threshold
    assert model.predictor.info()["normals"] == ours.info()["normals"]
    assert agree(runner.predict(model, datamodule=discs(folder)), ours) == 6
    # A checkpoint is as large as what was learnt, and gives the same in another process' model and from a folder.
    (checkpoint,) = (tmp_path / "run").rglob("model.ckpt")
    reference = sum(value.nbytes for value in model.model.reference.values())
    assert checkpoint.stat().st_size < reference + 60_000
    other = Sowa(**OPTIONS, **options)
    assert agree(engine(tmp_path / "b").predict(other, data_path=folder / "bad", ckpt_path=checkpoint), ours) == 3
    loaded = Sowa.load_from_checkpoint(checkpoint)
    assert loaded.predictor.id == other.predictor.id == model.predictor.id
    loaded.predictor.save(tmp_path / "disc.sowa")
    assert Predictor.load(tmp_path / "disc.sowa").id == model.predictor.id


def test_a_picture_does_not_depend_on_its_batch(Sowa, folder, tmp_path):
    model = Sowa(k_shot=3, normals=str(folder / "good"), **OPTIONS)
    model.setup("predict")
    images = torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) / 255 for one in parts(3, first=50)])
    together, alone = model(images), [model(image[None]) for image in images]
    torch.testing.assert_close(together.pred_score, torch.cat([one.pred_score for one in alone]))
    assert together.anomaly_map.shape == images[:, 0].shape and not model.model.detector.training


def test_without_shots_words_judge(Sowa, folder, tmp_path):
    from anomalib import LearningType

    model = Sowa(k_shot=0, **OPTIONS)
    assert model.learning_type == LearningType.ZERO_SHOT
    assert Sowa(k_shot=1, **OPTIONS).learning_type == LearningType.ONE_CLASS
    engine(tmp_path).train(model, datamodule=discs(folder))
    ours = Predictor.fit(name="disc", backbone="random_tiny")
    assert agree(engine(tmp_path / "b").predict(model, datamodule=discs(folder)), ours) == 6


def test_validation_pictures_set_no_threshold(Sowa, folder, tmp_path):
    model, runner = Sowa(k_shot=2, **OPTIONS), engine(tmp_path)
    runner.fit(model, datamodule=discs(folder))
    before = model.post_processor.scale.clone()
    runner.validate(model, datamodule=discs(folder))
    assert torch.equal(before, model.post_processor.scale) and before.isfinite().all()


def test_what_cannot_be_is_said(Sowa, folder, tmp_path):
    for wrong in ({"k_shot": -1}, {"k_shot": True}, {"target_false_alarms": 0}, {"detector": "nothing"}):
        with pytest.raises(SowaError, match=r"k_shot|target|nothing") as caught:
            Sowa(**OPTIONS, **wrong)
        assert "\n" not in str(caught.value)
    fresh = Sowa(k_shot=2, **OPTIONS)
    with pytest.raises(ConfigError, match="learnt nothing yet"):
        fresh(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ConfigError, match="learnt nothing yet"):
        fresh.to_onnx(tmp_path)
    with pytest.raises(ConfigError, match="backbone_options"):
        Sowa.configure_pre_processor((64, 64))


def test_a_checkpoint_of_another_detector_is_refused(Sowa, folder, tmp_path):
    model = Sowa(k_shot=2, **OPTIONS)
    engine(tmp_path).fit(model, datamodule=discs(folder))
    (path,) = tmp_path.rglob("model.ckpt")
    with pytest.raises(ArtifactError, match="build Sowa as it was built"):
        engine(tmp_path / "b").predict(
            Sowa(k_shot=2, detector="patchcore", **OPTIONS), data_path=folder / "bad", ckpt_path=path
        )
    with pytest.raises(ArtifactError, match="nothing that Sowa has learnt"):
        model.on_load_checkpoint({"state_dict": {}})
    checkpoint = {"state_dict": {}}
    model.on_save_checkpoint(checkpoint)
    checkpoint["sowa"][900] ^= 255
    with pytest.raises(ArtifactError, match="damaged"):
        model.on_load_checkpoint(checkpoint)


@pytest.mark.slow
def test_the_exported_model_agrees(Sowa, folder, tmp_path):
    pytest.importorskip("sowa.export.graphs")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, runner = Sowa(k_shot=2, **OPTIONS), engine(tmp_path)
    runner.fit(model, datamodule=discs(folder))
    path = runner.export(model, "onnx", export_root=tmp_path / "export")
    side = model.input_size[0]
    pixels = [np.array(one.resize((side, side))) for one in parts(3, first=50, defect=True)]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
    wanted = model(images)
    for batch in (images, images[:1]):
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_outputs()]
        found = dict(zip(names, session.run(None, {session.get_inputs()[0].name: batch.numpy()}), strict=True))
        for name in ("pred_score", "anomaly_map"):
            values = getattr(wanted, name)[: len(batch)].numpy()
            np.testing.assert_allclose(found[name].reshape(values.shape), values, atol=1e-3)
    assert model.model.graph is None
    if importlib.util.find_spec("openvino"):
        assert runner.export(model, "openvino", export_root=tmp_path / "export").suffix == ".xml"


@pytest.mark.slow
def test_the_command_line_of_anomalib(Sowa, folder, tmp_path):
    command = [str(Path(sys.executable).parent / "anomalib"), "train", "--model", f"{NAME}.Sowa"]
    command += ["--model.k_shot", "2", "--model.backbone", "random_tiny", "--data", "anomalib.data.Folder"]
    for key, value in {"name": "disc", "root": folder, "normal_dir": "good", "abnormal_dir": "bad"}.items():
        command += [f"--data.{key}", str(value)]
    command += ["--data.num_workers", "0", "--trainer.accelerator", "cpu", "--default_root_dir", str(tmp_path)]
    if not Path(command[0]).exists():
        pytest.skip("anomalib's command is elsewhere")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "image_AUROC" in done.stdout and list(tmp_path.rglob("model.ckpt"))
