"""Small detectors and their exports, made once: tracing takes seconds."""

import pytest
import timm
import torch

from sowa.backbones.stages import MODEL
from sowa.detectors.plus_network import write_network
from sowa.predictor.predictor import Predictor
from tests.predictor.parts import parts

ON = {"padim": "random_tiny_cnn"}


@pytest.fixture(scope="session")
def small_detectors():
    """One of each method by name."""
    made = {}

    def of(model: str) -> Predictor:
        if model not in made:
            made[model] = Predictor.fit(parts(3), name="disc", model=model, backbone=ON.get(model, "random_tiny"))
        return made[model]

    return of


@pytest.fixture(scope="session")
def drawn_network(tmp_path_factory):
    """A network beside a backbone, of random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    visual = timm.create_model(MODEL, pretrained=False, num_classes=0)
    write_network(path, visual, mean=[0.5] * 3, std=[0.5] * 3)
    return path


@pytest.fixture(scope="session")
def onnx_file(small_detectors, tmp_path_factory):
    """SOWA Plus as one file; not to be changed."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from sowa.export import export_detector

    path = tmp_path_factory.mktemp("exported") / "disc.onnx"
    export_detector(small_detectors("sowa_plus"), path, to="onnx", good=parts(2, first=40))
    return path


@pytest.fixture(scope="session")
def openvino_file(small_detectors, tmp_path_factory):
    """PatchCore as OpenVINO's pair; not to be changed."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnxscript")
    from sowa.export import export_detector

    path = tmp_path_factory.mktemp("exported") / "disc.xml"
    export_detector(small_detectors("patchcore"), path, to="openvino", good=parts(2, first=40))
    return path
