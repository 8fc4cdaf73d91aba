"""From a fitted detector to one ONNX file or OpenVINO's pair of files, checked against the detector before it is kept.

Read in this order: `exporting` (the whole way), `graphs` (the calculation), `onnx_graph`, `openvino_graph`, `int8`,
`gates` (what must hold), `writing`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sowa.export.exporting import Report, export_detector

__all__ = ["Report", "export_detector"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from sowa.export import exporting

        return getattr(exporting, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
