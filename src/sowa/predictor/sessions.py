"""Exported files, read as untrusted input and opened in their runtime: onnxruntime for `.onnx`, OpenVINO for `.xml`.

A graph is a calculation on tensors: it cannot run programs. What could reach beyond the file is refused before any
runtime sees it: weights in other files, operators that are not the standard's, loops and branches. The bytes that were
checked are the bytes that are opened.
"""

import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sowa.errors import ArtifactError, ConfigError, DataError

__all__ = [
    "HEAT",
    "IMAGES",
    "MAP",
    "REFERENCE",
    "SCORE",
    "SEAL",
    "SUFFIXES",
    "Session",
    "open_session",
    "openvino_core",
    "with_tail",
    "xml_tail",
]

IMAGES, SCORE, HEAT, MAP = "images", "score", "heat", "map"
"""Names of the graph's input and outputs; `heat` is a map on the detector's own scale, `map` is raw."""
REFERENCE = "reference."
"""Begins the names of inputs that a reference is handed in by: those of its tensors in a `.sowa` file."""
SUFFIXES = (".onnx", ".xml")
SEAL = "sowa.sha256"
PREFIX = "sowa."
MOST_BYTES, MOST_XML, MOST_NODES = 2**31 - 1, 64 << 20, 50_000
"""2 GB is also what a single ONNX file can hold."""
OPERATORS = ("", "ai.onnx", "com.microsoft")
CONTROL = ("If", "Loop", "Scan", "SequenceMap", "TensorIterator")
XML_TAIL = re.compile(rb"<!-- sowa\.sha256 ([0-9a-f]{64}) -->\n?\Z")

_CORE: list[Any] = []
_LOCK = threading.Lock()


class Session(Protocol):
    """A file that is ready to be run, from many threads at once."""

    meta: Mapping[str, str]
    """What the file says of itself: entries whose names begin with `sowa.`."""
    runtime: str

    def run(
        self, images_B3SS: NDArray[np.uint8], reference: Mapping[str, NDArray[Any]] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """`score` [B] and, where the method makes maps, `heat` [B, S, S]; 1 is the most expected of a good part.
        reference: the other inputs of a graph that takes what was learnt; it answers with `map`, raw."""


def open_session(path: Path, *, threads: int | None = None) -> Session:
    """The file in the runtime of its kind; ArtifactError in one line if it is damaged, foreign or reaches beyond
    itself, ConfigError if the runtime is not installed. threads: None is torch's own number."""
    threads = torch.get_num_threads() if threads is None else threads
    if not path.is_file():
        raise ArtifactError(f"no exported detector at '{path}': give a file written by `sowa export`")
    try:
        return _Onnx(path, threads) if path.suffix.lower() == ".onnx" else _OpenVino(path, threads)
    except OSError as error:
        raise ArtifactError(f"'{path}' cannot be read: {error.strerror or error}") from None


def with_tail(body: bytes) -> bytes:
    """An ONNX file sealed against damage. Two protobuf messages behind each other are one message with the fields of
    both, so the hash of all that stands before it can be the last entry of the metadata."""
    return body + _tail(hashlib.sha256(body).hexdigest())


def xml_tail(body: bytes) -> bytes:
    """A comment with the hash of what stands before it."""
    return b"<!-- sowa.sha256 " + hashlib.sha256(body).hexdigest().encode() + b" -->\n"


def _tail(seal: str) -> bytes:
    import onnx

    tail = onnx.ModelProto()
    entry = tail.metadata_props.add()
    entry.key, entry.value = SEAL, seal
    return tail.SerializeToString()


def _library(name: str, path: Path) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(f"'{path}' needs {name}, which is not installed: pip install 'sowa[export]'") from None


def _read(path: Path, most: int) -> bytes:
    if path.stat().st_size > most:
        raise ArtifactError(f"'{path}' is larger than {most >> 20} MB and is not read")
    return path.read_bytes()


class _Onnx:
    runtime = "onnxruntime"

    def __init__(self, path: Path, threads: int):
        runtime = _library("onnxruntime", path)
        content = _read(path, MOST_BYTES)
        self.meta = _checked_onnx(path, content)
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        try:
            self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime has a class of its own for each way to be wrong
            raise ArtifactError(f"'{path}' is no graph that can be run ({_line(error)})") from None
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(
        self, images_B3SS: NDArray[np.uint8], reference: Mapping[str, NDArray[Any]] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        try:
            found = self._session.run(self._outputs, {IMAGES: images_B3SS, **(reference or {})})
        except Exception as error:
            raise DataError(f"the exported graph cannot score these pictures ({_line(error)})") from None
        return dict(zip(self._outputs, found, strict=True))


def _checked_onnx(path: Path, content: bytes) -> dict[str, str]:
    """The metadata of a file that was sealed by this program and keeps to itself."""
    import onnx
    from google.protobuf.message import DecodeError

    foreign = f"'{path}' is damaged or not an exported detector: export it again with `sowa export`"
    length = len(_tail("0" * 64))
    if len(content) <= length or content[-length:] != _tail(hashlib.sha256(content[:-length]).hexdigest()):
        raise ArtifactError(foreign)
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError):
        raise ArtifactError(foreign) from None
    if model.functions or len(model.graph.node) > MOST_NODES or model.graph.sparse_initializer:
        raise ArtifactError(f"'{path}' holds functions, sparse weights or more than {MOST_NODES} nodes: not run")
    for node in model.graph.node:
        graphs = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
        if node.domain not in OPERATORS or node.op_type in CONTROL or graphs:
            raise ArtifactError(f"'{path}' uses the operator '{node.op_type[:40]}', which is not run")
    if any(_reaches_out(tensor) for tensor in _tensors(model.graph)):
        raise ArtifactError(f"'{path}' keeps weights in other files, which are not read: use a file of `sowa export`")
    return _own({entry.key: entry.value for entry in model.metadata_props})


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _reaches_out(tensor: Any) -> bool:
    return bool(tensor.external_data) or tensor.data_location != 0


def openvino_core(library: Any) -> Any:
    """The one `Core` of this process, never given back.

    With its first graph, a core lays an alternate stack for signals under the calling thread and puts the former one
    back when it goes. Two that go in another order than last in, first out leave a freed stack: the next signal
    (Ctrl-C, the end of a worker) then kills the process. Seen with OpenVINO 2026.
    """
    with _LOCK:
        if not _CORE:
            _CORE.append(library.Core())
        return _CORE[0]


class _OpenVino:
    runtime = "openvino"

    def __init__(self, path: Path, threads: int):
        library = _library("openvino", path)
        xml, weights = _checked_openvino(path)
        core = openvino_core(library)
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # else halved on some processors: other scores than those of the gate
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            model = core.read_model(xml, weights)
            if odd := sorted({node.get_type_name() for node in model.get_ordered_ops()} & set(CONTROL)):
                raise ArtifactError(f"'{path}' uses the operator '{odd[0]}', which is not run")
            told = model.get_rt_info(PREFIX.rstrip(".")).value
            self.meta = {f"{PREFIX}{key}": value for key, value in told.items() if isinstance(value, str)}
            self._compiled = core.compile_model(model, "CPU", settings)
        except ArtifactError:
            raise
        except Exception as error:
            raise ArtifactError(f"'{path}' is no graph that can be run ({_line(error)})") from None
        self._outputs = [next(iter(output.get_names())) for output in self._compiled.outputs]
        self._own = threading.local()

    def run(
        self, images_B3SS: NDArray[np.uint8], reference: Mapping[str, NDArray[Any]] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        if not hasattr(self._own, "request"):  # a request serves one thread at a time
            self._own.request = self._compiled.create_infer_request()
        try:
            found = self._own.request.infer({IMAGES: images_B3SS, **(reference or {})}, share_inputs=True)
        except Exception as error:
            raise DataError(f"the exported graph cannot score these pictures ({_line(error)})") from None
        return {name: np.array(found[name]) for name in self._outputs}


def _checked_openvino(path: Path) -> tuple[bytes, bytes]:
    """Graph and weights of a pair of files that belong together."""
    beside = path.with_suffix(".bin")
    if not beside.is_file():
        raise ArtifactError(f"'{path}' lacks its weights '{beside.name}': keep both files together")
    xml, weights = _read(path, MOST_XML), _read(beside, MOST_BYTES)
    tail = XML_TAIL.search(xml)
    if tail is None or hashlib.sha256(xml[: tail.start()]).hexdigest().encode() != tail[1]:
        raise ArtifactError(f"'{path}' is damaged or not an exported detector: export it again with `sowa export`")
    told = re.search(rb'<weights_sha256 value="([0-9a-f]{64})"', xml)
    if told is None or hashlib.sha256(weights).hexdigest().encode() != told[1]:
        raise ArtifactError(f"'{beside}' is damaged or does not belong to '{path.name}': copy both files again")
    return xml, weights


def _own(meta: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in meta.items() if key.startswith(PREFIX)}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
