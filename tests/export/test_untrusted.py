"""Exported files from anybody: refused in one line unless they are whole, this program's, and keep to themselves."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sowa.errors import ArtifactError
from sowa.predictor.predictor import Predictor
from sowa.predictor.sessions import with_tail, xml_tail


def refused(path, words):
    with pytest.raises(ArtifactError, match=words) as caught:
        Predictor.load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def changed(source, target, change):
    """A copy whose model was changed and sealed again, as whoever knows the format can."""
    model = onnx.load_model_from_string(source.read_bytes())
    entries = {entry.key: entry.value for entry in model.metadata_props if entry.key != "sowa.sha256"}
    del model.metadata_props[:]
    change(model, entries)
    for key, value in entries.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    target.write_bytes(with_tail(model.SerializeToString()))
    return target


def test_the_helper_itself_makes_good_files(onnx_file, tmp_path):
    assert Predictor.load(changed(onnx_file, tmp_path / "x.onnx", lambda model, meta: None)).name == "disc"


def test_damage(onnx_file, openvino_file, tmp_path):
    content, path = onnx_file.read_bytes(), tmp_path / "x.onnx"
    cut, flipped = content[: len(content) // 2], bytearray(content)
    flipped[len(content) // 3] ^= 1
    for bad in (b"", b"text", cut, bytes(flipped), content + b"more", content[1:]):
        path.write_bytes(bad)
        refused(path, "is damaged or not an exported detector")
    refused(tmp_path / "none.onnx", "no exported detector at")
    xml, weights = tmp_path / "y.xml", tmp_path / "y.bin"
    xml.write_bytes(openvino_file.read_bytes())
    refused(xml, "lacks its weights 'y.bin'")
    weights.write_bytes(openvino_file.with_suffix(".bin").read_bytes()[:-1] + b"\0\0")
    with pytest.raises(ArtifactError, match=r"does not belong to 'y\.xml'"):
        Predictor.load(xml)
    xml.write_bytes(openvino_file.read_bytes().replace(b"Convert", b"Divide_", 1))
    refused(xml, "is damaged or not an exported detector")


def test_weights_in_other_files_are_not_read(onnx_file, tmp_path):
    (tmp_path / "secret").write_bytes(b"\0" * 4096)

    def outside(model, meta):
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "secret"), ("offset", "0")):
            tensor.external_data.add(key=key, value=value)

    pytest.importorskip("onnxruntime")
    refused(changed(onnx_file, tmp_path / "x.onnx", outside), "keeps weights in other files")

    def hidden(model, meta):
        tensor = numpy_helper.from_array(np.zeros(3, np.float32), "hidden")
        tensor.data_location = TensorProto.EXTERNAL
        model.graph.node.insert(0, helper.make_node("Constant", [], ["hidden"], value=tensor))

    refused(changed(onnx_file, tmp_path / "x.onnx", hidden), "keeps weights in other files")


def test_loops_and_foreign_operators_are_not_run(onnx_file, tmp_path):
    def foreign(model, meta):
        model.graph.node.append(helper.make_node("Run", [], ["out"], domain="evil"))

    def loop(model, meta):
        body = helper.make_graph([], "body", [], [])
        model.graph.node.append(helper.make_node("Loop", ["", ""], [], body=body))

    def functions(model, meta):
        model.functions.append(helper.make_function("d", "f", [], [], [], []))

    for change, words in ((foreign, "operator 'Run'"), (loop, "operator 'Loop'"), (functions, "holds functions")):
        refused(changed(onnx_file, tmp_path / "x.onnx", change), words)


def test_size_is_looked_at_before_the_content(onnx_file, tmp_path, monkeypatch):
    monkeypatch.setattr("sowa.predictor.sessions.MOST_BYTES", 1 << 20)
    big = tmp_path / "big.onnx"
    with big.open("wb") as file:
        file.truncate((1 << 20) + 1)
    refused(big, "is larger than 1 MB")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("sowa.format", "other", "is no exported detector"),
        ("sowa.version", "9", "has format version '9', this program reads up to 1"),
        ("sowa.artifact", "sha256:xyz", "does not say which detector"),
        ("sowa.about", "{", "is not JSON"),
        ("sowa.about", "[]", "is not an object"),
        ("sowa.about", "{}", "the description lacks"),
        ("sowa.evidence", '{"scores": ["a"], "peaks": []}', "are no numbers"),
        ("sowa.export", "{}", "lacks 'precision'"),
        ("sowa.export", '{"precision": 1, "words_trained": 1, "expected_spread": NaN}', "holds the number NaN"),
        ("sowa.mask", "AAAA", "mask is damaged"),
    ],
)
def test_what_it_says_is_checked(onnx_file, tmp_path, key, value, words):
    refused(changed(onnx_file, tmp_path / "x.onnx", lambda model, meta: meta.update({key: value})), words)


def test_the_graph_must_fit_what_is_said_of_it(onnx_file, tmp_path):
    def larger(model, meta):
        about = json.loads(meta["sowa.about"])
        about["view"]["size"] = 126
        meta["sowa.about"] = json.dumps(about)

    refused(changed(onnx_file, tmp_path / "x.onnx", larger), "cannot score these pictures")

    def renamed(model, meta):
        node = next(node for node in model.graph.node if "score" in node.output)
        node.output[0] = model.graph.output[0].name = "points"

    refused(changed(onnx_file, tmp_path / "x.onnx", renamed), "gives no 'score'")


def test_an_xml_of_somebody_else(tmp_path):
    pytest.importorskip("openvino")
    (tmp_path / "x.bin").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    body = f'<?xml version="1.0"?><net><rt_info><weights_sha256 value="{empty}" /></rt_info></net>'.encode()
    (tmp_path / "x.xml").write_bytes(body + xml_tail(body))
    refused(tmp_path / "x.xml", "is no graph that can be run")
