"""Exported files say what the detector says, through the same Predictor; or they are not written."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sowa.errors import ConfigError, UnknownNameError, WeightsError
from sowa.predictor.predictor import Predictor
from tests.export.conftest import ON
from tests.predictor.parts import SIZE, part, parts

pytest.importorskip("onnxscript")
runtime = {"onnx": "onnxruntime", "openvino": "openvino"}
SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}


def export(*args, **options):
    from sowa.export import export_detector

    return export_detector(*args, **options)


def same(exported: Predictor, exact: Predictor, picture) -> None:
    found, wanted = exported.predict(picture), exact.predict(picture)
    assert found.score == pytest.approx(wanted.score, rel=1e-4, abs=1e-4)
    assert found.probability == pytest.approx(wanted.probability, abs=1e-3)
    assert (found.threshold, found.threshold_source, found.verdict) == (
        wanted.threshold,
        wanted.threshold_source,
        wanted.verdict,
    )
    assert found.heatmap.shape == SIZE[::-1] and np.abs(found.heatmap - wanted.heatmap).max() < 1e-4
    assert found.artifact == wanted.artifact == exact.id


@pytest.mark.parametrize(
    ("model", "to"),
    [
        ("padim", "openvino"),
        ("sowa", "onnx"),
        pytest.param("padim", "onnx", marks=pytest.mark.slow),
        pytest.param("sowa", "openvino", marks=pytest.mark.slow),
    ],
)
def test_methods_with_their_own_code(model, to, small_detectors, tmp_path):
    pytest.importorskip(runtime[to])
    exact, path = small_detectors(model), tmp_path / f"disc{SUFFIX[to]}"
    report = export(exact, path, to=to, good=parts(2, first=40))
    assert report.parity.score < 1e-4 and report.parity.heat < 1e-4 and report.parity.verdicts == 0
    assert sorted(tmp_path.iterdir()) == sorted(report.files)
    for picture in (part(60), part(61, defect=True)):
        same(Predictor.load(path), exact, picture)


def test_smaller_looks_run_in_openvino(tmp_path):
    """It once took the colours' scale after the shrinking product for a scale of the product's rows."""
    pytest.importorskip("openvino")
    options = {"half": True, "quarter": True}
    exact = Predictor.fit(parts(3), name="disc", model="sowa_plus", backbone="random_tiny", options=options)
    report = export(exact, tmp_path / "disc.xml", to="openvino", good=parts(2, first=40))
    assert report.parity.score < 1e-4 and report.parity.verdicts == 0


@pytest.mark.parametrize("to", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_the_network_beside_the_backbone_is_in_the_file(to, drawn_network, tmp_path):
    pytest.importorskip(runtime[to])
    options = {"network": str(drawn_network)}
    exact = Predictor.fit(parts(3), name="disc", model="sowa_plus", backbone="random_tiny", options=options)
    path = tmp_path / f"disc{SUFFIX[to]}"
    report = export(exact, path, to=to, good=parts(2, first=40))
    assert report.parity.score < 1e-4 and report.parity.verdicts == 0
    drawn_network.rename(aside := drawn_network.with_suffix(".away"))
    try:
        assert Predictor.load(path).predict(part(60)).score == pytest.approx(exact.predict(part(60)).score, rel=1e-3)
    finally:
        aside.rename(drawn_network)


def test_one_file_is_all_that_is_needed(onnx_file, small_detectors, tmp_path):
    moved = tmp_path / "elsewhere.onnx"
    moved.write_bytes(onnx_file.read_bytes())
    exported, exact = Predictor.load(moved), small_detectors("sowa_plus")
    same(exported, exact, part(61, defect=True))
    assert exported.name == "disc" and exported.id == exact.id
    known = {key: exact.info()[key] for key in ("calibration", "view", "normals", "backbone", "promise")}
    assert known.items() <= exported.info().items()
    several = [result.score for result in exported.stream(parts(5, first=70), batch_size=4)]
    assert several == pytest.approx([exact.predict(picture).score for picture in parts(5, first=70)], abs=1e-4)


def test_openvino_files(openvino_file, small_detectors):
    same(Predictor.load(openvino_file), small_detectors("patchcore"), part(61, defect=True))


@pytest.mark.parametrize("k", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_few_pictures(k, tmp_path):
    """Nothing learnt (words alone), and a single picture."""
    pytest.importorskip("onnxruntime")
    model = "padim" if k else "sowa"
    exact = Predictor.fit(parts(k), model=model, backbone=ON.get(model, "random_tiny"))
    export(exact, tmp_path / "few.onnx", to="onnx")
    same(Predictor.load(tmp_path / "few.onnx"), exact, part(61, defect=True))


def test_tiles_letterbox_and_masks_stay_the_predictors(tmp_path):
    pytest.importorskip("onnxruntime")
    inside = np.zeros((20, 30), np.uint8)
    inside[3:18, 4:28] = 255
    exact = Predictor.fit(
        parts(2), model="patchcore", backbone="random_tiny", tile=0.6, fit="letterbox", roi=inside, name="Scheibe"
    )
    export(exact, tmp_path / "tiled.onnx", to="onnx")
    exported = Predictor.load(tmp_path / "tiled.onnx")
    same(exported, exact, part(61, defect=True))
    assert np.array_equal(exported.content.view.mask, exact.content.view.mask) and exported.name == "Scheibe"


def test_a_threshold_may_change_and_nothing_can_be_learnt(onnx_file):
    exported = Predictor.load(onnx_file)
    score = exported.predict(part(61, defect=True)).score
    strict = exported.with_threshold(score - 1)
    assert strict.predict(part(61, defect=True)).verdict == "defective" and strict.id != exported.id
    assert exported.calibrate(parts(5, first=80)).threshold != exported.threshold
    with pytest.raises(ConfigError, match="cannot learn: add pictures"):
        exported.add(parts(1, first=90))
    with pytest.raises(ConfigError, match=r"is no \.sowa file"):
        exported.save(onnx_file.with_suffix(".sowa"))
    with pytest.raises(ConfigError, match="cannot be exported again"):
        export(exported, onnx_file.with_name("again.onnx"), to="onnx")


def test_a_wrong_graph_is_not_kept(small_detectors, tmp_path, monkeypatch):
    """The gate sees a graph that says something else, and leaves what stood there as it was."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("sowa.export.heads.residual", lambda tokens, space: tokens.square().sum(dim=-1))
    path = tmp_path / "disc.onnx"
    path.write_text("before")
    with pytest.raises(ConfigError, match="nothing was written: score of the exported detector differs"):
        export(small_detectors("sowa_plus"), path, to="onnx", good=parts(2, first=40))
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_the_gate_counts_what_it_is_told(small_detectors):
    from sowa.export.gates import Parity, check_parity, parity

    exact = small_detectors("sowa_plus")
    pictures = parts(3, first=40)
    assert parity(exact, exact, pictures).score == 0
    scale = exact.content.calibration
    other = Predictor(exact.detector, replace(exact.content, reference=small_reference(exact)))
    found = parity(exact, other, pictures)
    unit = max(abs(scale.threshold), abs(scale.threshold - scale.middle))
    assert found.score == pytest.approx(1 / unit, rel=1e-3) and found.heat == pytest.approx(0, abs=1e-6)
    check_parity(found, found.score)
    for bad in (replace(found, score=float("nan")), replace(found, heat=2 * found.score)):
        with pytest.raises(ConfigError, match="is allowed"):
            check_parity(bad, found.score)
    check_parity(Parity(1, 0.0, None, 0), 0.0)


def small_reference(exact: Predictor):
    """Of which every score is one less: one level's middle is moved by its own width."""
    reference = {name: value.clone() for name, value in exact.content.reference.items()}
    scale, floor, levels = reference["scale"], exact.detector.floor, len(exact.detector.taps)
    # (s - m') / (w + floor * m') keeps its form only where the floor's share is taken out of the spread.
    moved = levels * (scale[0, 1] + floor * scale[0, 0])
    scale[0, 1] -= floor * moved
    scale[0, 0] += moved
    return reference


def test_wrong_words(small_detectors, tmp_path):
    exact = small_detectors("sowa_plus")
    with pytest.raises(UnknownNameError, match="choose one of onnx, openvino"):
        export(exact, tmp_path / "x.onnx", to="tensorrt")
    with pytest.raises(ConfigError, match=r"does not end in \.xml"):
        export(exact, tmp_path / "x.onnx", to="openvino")
    pytest.importorskip("onnxruntime")
    with pytest.raises(ConfigError, match="int8 takes its scales from good pictures and was given 2"):
        export(exact, tmp_path / "x.onnx", to="onnx", int8=True, good=parts(2))
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_one_line(small_detectors, onnx_file, tmp_path, monkeypatch):
    import importlib

    real = importlib.import_module

    def without(name, *args):
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *args)

    for room in ("sowa.predictor.sessions", "sowa.export.writing"):
        monkeypatch.setattr(f"{room}.import_module", without)
    with pytest.raises(ConfigError, match=r"needs onnxruntime, which is not installed: pip install 'sowa\[export\]'"):
        Predictor.load(onnx_file)
    with pytest.raises(ConfigError, match="export needs onnxruntime, which is not installed"):
        export(small_detectors("sowa_plus"), tmp_path / "x.onnx", to="onnx")


def test_what_the_file_says_of_itself(onnx_file, small_detectors):
    """Enough to predict without this program, and nothing of the machine it was made on."""
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(onnx_file.read_bytes(), providers=["CPUExecutionProvider"])
    meta, exact = session.get_modelmeta().custom_metadata_map, small_detectors("sowa_plus")
    about, facts = json.loads(meta["sowa.about"]), json.loads(meta["sowa.export"])
    assert about["calibration"]["threshold"] == exact.threshold and about["view"]["size"] == 112
    assert about["backbone"]["licence"] and about["name"] == "disc" and meta["sowa.artifact"] == exact.id
    assert facts["precision"] == "float32" and facts["opset"] == 18
    content = onnx_file.read_bytes()
    assert b"/src/" not in content and b".py" not in content


def test_threads_share_a_file(onnx_file, openvino_file):
    from concurrent.futures import ThreadPoolExecutor

    pictures = parts(6, first=70)
    for path in (onnx_file, openvino_file):
        exported = Predictor.load(path)
        alone = [exported.predict(picture).score for picture in pictures]
        with ThreadPoolExecutor(3) as pool:
            assert [result.score for result in pool.map(exported.predict, pictures)] == pytest.approx(alone, abs=1e-5)


@pytest.mark.slow
def test_a_clip_with_drawn_weights(tmp_path):
    """A published architecture on the road of real weights; `random_tiny` is CLIP's form too."""
    pytest.importorskip("onnxruntime")
    drawn = {"model": "ViT-S-32-alt", "image_size": 128, "weights": "random"}
    options = {"name": "disc", "model": "sowa", "backbone": "clip", "backbone_options": drawn}
    exact = Predictor.fit(parts(3), **options, precision="fp32")
    export(exact, tmp_path / "clip.onnx", to="onnx", good=parts(2, first=40))
    same(Predictor.load(tmp_path / "clip.onnx"), exact, part(61, defect=True))


def test_a_detector_that_scores_in_bf16_is_exported_in_float32(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("sowa.predictor.fitting._now", lambda: "2026-01-01T00:00:00Z")  # a part of the id
    exact, lowered = (
        Predictor.fit(parts(3), name="disc", model="sowa_plus", backbone="random_tiny", precision=name)
        for name in ("fp32", "bf16")
    )
    export(lowered, tmp_path / "disc.onnx", to="onnx", good=parts(2, first=40))
    same(Predictor.load(tmp_path / "disc.onnx"), exact, part(61, defect=True))

    def nowhere(*words, **options):
        raise WeightsError("its weights are nowhere")

    monkeypatch.setattr(Predictor, "load", nowhere)
    with pytest.raises(ConfigError, match="fit or load with precision=fp32"):
        export(lowered, tmp_path / "other.onnx", to="onnx")


@pytest.mark.slow
@pytest.mark.parametrize(("model", "to"), [("sowa", "onnx"), ("patchcore", "openvino")])
def test_int8(model, to, small_detectors, tmp_path):
    pytest.importorskip(runtime[to])
    pytest.importorskip("nncf")
    exact, path = small_detectors(model), tmp_path / f"disc{SUFFIX[to]}"
    report = export(exact, path, to=to, int8=True, good=parts(6, first=40), drift_allowed=0.2)
    assert report.precision == "int8" and report.drift.painted and report.drift.good == 6
    assert report.artifact != exact.id and Predictor.load(path).id == report.artifact
    found = Predictor.load(path).predict(part(61, defect=True)).score
    wanted = exact.predict(part(61, defect=True)).score
    assert found != wanted and found == pytest.approx(wanted, rel=0.1)
