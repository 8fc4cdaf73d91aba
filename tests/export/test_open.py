"""One graph for all products of a method: what was learnt comes from `.sowa` files, which stay as they are."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from sowa.detectors.plus_head import write_head
from sowa.errors import ArtifactError, ConfigError, UnknownNameError
from sowa.nn.states import StateHead
from sowa.predictor.predictor import Predictor
from tests.export.conftest import ON
from tests.export.test_exporting import SUFFIX, export, runtime, same
from tests.predictor.parts import part, parts

pytest.importorskip("onnxscript")


def fitted(model, k, *, first=0, **options):
    given = parts(k, first=first)
    return Predictor.fit(given, name="ring", model=model, backbone=ON.get(model, "random_tiny"), **options)


@pytest.fixture(scope="module")
def open_file(small_detectors, tmp_path_factory):
    """SOWA Plus without what was learnt; not to be changed."""
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("open") / "plus.onnx"
    export(small_detectors("sowa_plus"), path, to="onnx", reference="input", good=parts(2, first=40))
    return path


@pytest.mark.parametrize(
    ("model", "to"),
    [
        ("patchcore", "onnx"),
        ("padim", "openvino"),
        pytest.param("sowa", "onnx", marks=pytest.mark.slow),
        pytest.param("sowa", "openvino", marks=pytest.mark.slow),
        pytest.param("sowa_plus", "openvino", marks=pytest.mark.slow),
        pytest.param("patchcore", "openvino", marks=pytest.mark.slow),
        pytest.param("padim", "onnx", marks=pytest.mark.slow),
    ],
)
def test_one_graph_serves_other_products(model, to, small_detectors, tmp_path):
    """Of one picture and of five, in batches and alone."""
    pytest.importorskip(runtime[to])
    graph = tmp_path / f"any{SUFFIX[to]}"
    report = export(small_detectors(model), graph, to=to, reference="input", good=parts(2, first=40))
    assert report.parity.score < 1e-4 and sorted(tmp_path.iterdir()) == sorted(report.files)
    for k in (1, 5):
        exact, path = fitted(model, k, first=20), tmp_path / f"{k}.sowa"
        exact.save(path)
        served = Predictor.load(path, graph=graph)
        for picture in (part(60), part(61, defect=True)):
            same(served, exact, picture)
        several = [result.score for result in served.stream(parts(5, first=70), batch_size=4)]
        wanted = [exact.predict(picture).score for picture in parts(5, first=70)]
        assert several == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_adding_normals_needs_no_new_export(open_file, small_detectors, tmp_path):
    more = small_detectors("sowa_plus").add(parts(3, first=30)).with_threshold(2.5)
    more.save(tmp_path / "more.sowa")
    served = Predictor.load(tmp_path / "more.sowa", graph=open_file)
    same(served, more, part(61, defect=True))
    assert served.threshold == 2.5 and served.with_threshold(1.0).id == more.with_threshold(1.0).id


SIGNALLED = """
import gc, signal, subprocess, sys
from pathlib import Path
from sowa.predictor.sessions import open_session
first, second = (open_session(Path(sys.argv[1])) for _ in range(2))
del first; gc.collect()
del second; gc.collect()
signal.signal(signal.SIGCHLD, lambda *_: None)
for _ in range(3):
    subprocess.run([sys.executable, "-S", "-c", ""], check=True)
print("alive")
"""


def test_signals_are_survived_after_graphs_are_given_back_in_any_order(small_detectors, tmp_path):
    """Two cores of OpenVINO, the first gone first, would leave a stack for signals that was freed."""
    pytest.importorskip("openvino")
    export(small_detectors("padim"), tmp_path / "a.xml", to="openvino")
    done = subprocess.run([sys.executable, "-c", SIGNALLED, tmp_path / "a.xml"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr[-500:]


def test_a_graph_keeps_to_the_trained_head_that_is_in_it(tmp_path):
    """Under the same name another head may lie, as in another version of the package."""
    pytest.importorskip("onnxruntime")
    head, graph = tmp_path / "head.safetensors", tmp_path / "plus.onnx"
    for seed in (0, 1):
        torch.manual_seed(seed)
        write_head(head, StateHead(width=64, levels=1, hidden=4), taps=(2,), middle=0.0, slope=1.0, fraction=0.1)
        exact, path = fitted("sowa_plus", 3, options={"head": str(head)}), tmp_path / f"{seed}.sowa"
        exact.save(path)
        if not seed:
            export(exact, graph, to="onnx", reference="input", good=parts(2, first=40))
            same(Predictor.load(path, graph=graph), exact, part(61, defect=True))
    with pytest.raises(ArtifactError, match="other trained head"):
        Predictor.load(path, graph=graph)


def test_the_inputs_are_the_tensors_of_the_file(open_file, small_detectors, tmp_path):
    """By their names there: what docs/EXPORT.md shows for those who have no torch."""
    ort = pytest.importorskip("onnxruntime")
    from safetensors.numpy import load_file

    exact = small_detectors("sowa_plus")
    exact.save(tmp_path / "disc.sowa")
    session, tensors = ort.InferenceSession(open_file.read_bytes()), load_file(tmp_path / "disc.sowa")
    feed = {one.name: tensors[one.name] for one in session.get_inputs() if one.name != "images"}
    view = exact.content.view.look(part(61, defect=True)).views_T3SS.numpy()
    score, score_map = session.run(["score", "map"], {"images": view, **feed})
    found = exact.detector(torch.from_numpy(view), exact.content.reference)
    assert score == pytest.approx(found.score.numpy(), rel=1e-4, abs=1e-4)
    assert np.abs(score_map - found.score_map.numpy()).max() < 1e-3
    inputs = json.loads(session.get_modelmeta().custom_metadata_map["sowa.inputs"])
    assert {f"reference.{name}" for name in inputs} == feed.keys()


def test_what_does_not_belong_together(open_file, onnx_file, small_detectors, tmp_path):
    for name, made, said in (
        ("core", small_detectors("patchcore"), "other method: patchcore, the graph's is sowa_plus"),
        ("sharp", fitted("sowa_plus", 2, options={"sigma": 2.0}), r"other options \(sigma\)"),
        ("none", fitted("sowa", 0), "other method"),
    ):
        made.save(tmp_path / f"{name}.sowa")
        with pytest.raises(ArtifactError, match=f"'plus.onnx' does not serve '{name}.sowa', which has {said}"):
            Predictor.load(tmp_path / f"{name}.sowa", graph=open_file)
    small_detectors("sowa_plus").save(tmp_path / "disc.sowa")
    with pytest.raises(ArtifactError, match="takes no references: give a file of `sowa export --reference input`"):
        Predictor.load(tmp_path / "disc.sowa", graph=onnx_file)
    with pytest.raises(ArtifactError, match="it is no exported detector"):
        Predictor.load(open_file)
    served = Predictor.load(tmp_path / "disc.sowa", graph=open_file)
    with pytest.raises(ConfigError, match=r"add pictures to the \.sowa file without --graph"):
        served.add(parts(1, first=90))
    with pytest.raises(ConfigError, match=r"is no \.sowa file"):
        served.save(tmp_path / "again.sowa")


@pytest.mark.slow
def test_a_graph_for_shots_does_not_serve_words(tmp_path):
    """It would not look at the bank, or wait for one in vain."""
    pytest.importorskip("onnxruntime")
    graph = tmp_path / "words.onnx"
    export(fitted("sowa", 0), graph, to="onnx", reference="input")
    fitted("sowa", 1).save(tmp_path / "one.sowa")
    with pytest.raises(ArtifactError, match="other entries of the reference"):
        Predictor.load(tmp_path / "one.sowa", graph=graph)


def test_references_of_a_wrong_form():
    from sowa.predictor.graph import fed

    asked = {"bank": {"dtype": "float32", "shape": [None, 3], "least": 2, "filled": False}}
    assert fed({"bank": torch.ones(2, 3)}, asked)["reference.bank"].shape == (2, 3)
    for wrong in ({}, {"bank": torch.ones(2, 4)}, {"bank": torch.ones(1, 3)}, {"bank": torch.ones(2, 3).double()}):
        with pytest.raises(ArtifactError, match="the graph asks for 'bank'"):
            fed(wrong, asked)
    asked["bank"]["filled"] = True
    filled = fed({"bank": torch.ones(0, 3)}, asked)["reference.bank"]
    assert filled.shape == (2, 3) and not filled.any()


def test_a_graph_that_serves_one_product_only_is_not_kept(small_detectors, tmp_path, monkeypatch):
    """The gate asks with a second reference."""
    pytest.importorskip("onnxruntime")
    from sowa.export.heads import SowaPlusHead

    real, known = SowaPlusHead.prepared, small_detectors("sowa_plus").content.reference

    def baked(self, reference):
        return real(self, reference | {"mean_0": known["mean_0"] + 0 * reference["mean_0"]})

    monkeypatch.setattr(SowaPlusHead, "prepared", baked)
    with pytest.raises(ConfigError, match="nothing was written"):
        export(small_detectors("sowa_plus"), tmp_path / "x.onnx", to="onnx", reference="input", good=parts(2, first=40))
    assert not list(tmp_path.iterdir())


def test_large_banks_are_searched_a_few_pictures_at_a_time(small_detectors, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    exact, graph = small_detectors("patchcore"), tmp_path / "core.onnx"
    export(exact, graph, to="onnx", reference="input", good=parts(2, first=40))
    exact.save(tmp_path / "core.sowa")
    monkeypatch.setattr("sowa.predictor.graph.MOST_BYTES", 1)
    served = Predictor.load(tmp_path / "core.sowa", graph=graph)
    run, seen = served.detector.session.run, []
    served.detector.session.run = lambda images, feed: seen.append(len(images)) or run(images, feed)
    found = [result.score for result in served.stream(parts(3, first=70), batch_size=3)]
    assert seen == [1, 1, 1]
    assert found == pytest.approx([exact.predict(picture).score for picture in parts(3, first=70)], abs=1e-4)


def test_wrong_words(small_detectors, tmp_path):
    with pytest.raises(UnknownNameError, match="choose one of baked, input"):
        export(small_detectors("sowa_plus"), tmp_path / "x.onnx", to="onnx", reference="apart")


@pytest.mark.slow
def test_int8_with_a_reference_as_input(small_detectors, tmp_path):
    """Its results have an identity of their own, for every product."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("nncf")
    exact, graph = small_detectors("patchcore"), tmp_path / "core.onnx"
    good = parts(6, first=40)
    report = export(exact, graph, to="onnx", int8=True, reference="input", good=good, drift_allowed=0.2)
    assert report.precision == "int8" and report.drift.good == 6
    ids = set()
    for k in (2, 4):
        made = fitted("patchcore", k, first=20)
        made.save(tmp_path / "core.sowa")
        served = Predictor.load(tmp_path / "core.sowa", graph=graph)
        found, wanted = (one.predict(part(61, defect=True)).score for one in (served, made))
        assert found != wanted and found == pytest.approx(wanted, rel=0.1)
        ids |= {served.id, made.id}
        assert served.with_threshold(1.0).id != made.with_threshold(1.0).id
    assert len(ids) == 4
