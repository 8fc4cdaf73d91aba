"""What surrounds NNCF: constants folded, the environment left alone. NNCF itself is in the slow tests."""

import logging
import os

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from sowa.errors import ConfigError
from sowa.export import int8
from sowa.export.gates import Drift, check_drift


def test_constants_are_folded_and_nothing_else_changes():
    """A weight that is cast, cut and turned before it is used, beside one that is used as it stands."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(6, 4)), "v": rng.normal(size=(3, 3)).astype(np.float32)}
    weights |= {"begin": np.array([3]), "end": np.array([6]), "axis": np.array([0])}
    nodes = [
        helper.make_node("Cast", ["w"], ["cast"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Slice", ["cast", "begin", "end", "axis"], ["cut"], name="cut"),
        helper.make_node("Transpose", ["cut"], ["turned"], name="turn", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["first"], name="first"),
        helper.make_node("MatMul", ["first", "v"], ["y"], name="second"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, side]) for name, side in (("x", 4), ("y", 3))]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], constants))
    x = rng.normal(size=(2, 4)).astype(np.float32)
    (wanted,) = ReferenceEvaluator(model).run(None, {"x": x})
    folded = int8._folded(model)
    assert [node.name for node in folded.graph.node] == ["first", "second"]
    assert {tensor.name for tensor in folded.graph.initializer} == {"turned", "v"}
    assert np.array_equal(ReferenceEvaluator(folded).run(None, {"x": x})[0], wanted)


@pytest.mark.parametrize("before", [None, "set"])
def test_silence_leaves_no_trace(before, monkeypatch, capsys):
    monkeypatch.delenv(int8.SILENT, raising=False)
    if before:
        monkeypatch.setenv(int8.SILENT, before)
    level = logging.getLogger("nncf").level
    with pytest.raises(ZeroDivisionError), int8._quiet():
        assert os.environ[int8.SILENT]
        print("a bar")
        raise ZeroDivisionError
    assert os.environ.get(int8.SILENT) == before and logging.getLogger("nncf").level == level
    assert capsys.readouterr().out == ""


def test_the_gate_of_drift():
    kept = Drift(good=30, defective=30, painted=False, exact=0.95, exported=0.941, changed=3)
    check_drift(kept, 0.01)
    check_drift(Drift(2, 2, True, 0.9, 0.95, 1), 0.0)
    for bad in (
        Drift(30, 30, False, 0.95, 0.93, 0),
        Drift(30, 30, False, 0.95, float("nan"), 0),
        Drift(30, 30, False, 0.95, 0.95, 4),
    ):
        with pytest.raises(ConfigError, match="nothing was written: int8"):
            check_drift(bad, 0.01)


def test_convolutions_of_one_channel_each_are_known():
    for groups, said in ((None, False), (1, False), (8, True)):
        words = {} if groups is None else {"group": groups}
        assert int8._is_depthwise(helper.make_node("Conv", ["x", "w"], ["y"], **words)) is said
    assert not int8._is_depthwise(helper.make_node("MatMul", ["x", "w"], ["y"]))
