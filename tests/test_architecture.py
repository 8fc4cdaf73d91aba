"""The arrows of docs/ARCHITECTURE.md, read from the code's own imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "sowa"

LEAVES = {"types", "errors"}
ARROWS = {
    "types": set(),
    "errors": set(),
    "shards": LEAVES,
    "pickled": LEAVES,
    "archive": LEAVES | {"pickled"},
    "archive_legacy": LEAVES | {"archive", "pickled"},
    "wheels": LEAVES,
    "figures": LEAVES,
    "nn": LEAVES,
    "metrics": LEAVES,
    "backbones": LEAVES | {"archive", "archive_legacy", "wheels"},
    "data": LEAVES | {"wheels"},
    "calibration": LEAVES,
    "detectors": LEAVES | {"backbones", "nn"},
    "artifact": LEAVES | {"archive", "backbones", "detectors"},
    "training": LEAVES
    | {"backbones", "detectors", "nn", "data", "metrics", "artifact", "calibration", "figures", "wheels"},
    "demo": LEAVES | {"training", "artifact", "backbones", "detectors", "data", "metrics", "figures", "calibration"},
    "predictor": LEAVES
    | {"artifact", "archive", "backbones", "calibration", "data", "detectors", "figures", "metrics", "nn", "wheels"},
    "scale": LEAVES | {"predictor", "data", "shards", "wheels"},
    "export": LEAVES | {"backbones", "detectors", "metrics", "nn", "predictor"},
    "report": LEAVES | {"predictor", "calibration", "data", "metrics", "wheels"},
    "benchmark": LEAVES
    | {"training", "artifact", "backbones", "data", "detectors", "figures", "integrations", "metrics", "shards"},
    "integrations": LEAVES
    | {"artifact", "backbones", "calibration", "data", "detectors", "export", "metrics", "nn", "predictor"},
    "cli": LEAVES
    | {
        "training",
        "demo",
        "artifact",
        "cli_data",
        "cli_fit",
        "cli_predict",
        "cli_score",
        "cli_report",
        "cli_about",
        "cli_benchmark",
        "cli_scale",
        "cli_export",
        "cli_int8",
    },
    "console": set(),
    "cli_data": LEAVES | {"console", "data", "figures"},
    "cli_fit": LEAVES | {"console", "predictor"},
    "cli_predict": LEAVES | {"cli_fit", "console", "predictor"},
    "cli_score": LEAVES | {"cli_fit", "cli_predict", "console", "predictor", "metrics"},
    "cli_report": LEAVES | {"report"},
    "about": LEAVES | {"backbones", "data", "detectors", "predictor", "wheels"},
    "cli_about": LEAVES | {"about"},
    "cli_benchmark": LEAVES | {"benchmark", "metrics"},
    "cli_scale": LEAVES | {"scale"},
    "cli_export": LEAVES | {"export", "predictor"},
    "cli_int8": LEAVES | {"backbones", "console", "training"},
    "configs": set(),
    "__init__": {"predictor"},
}
ONLY_IN = {
    "lightning": {"training"},
    "hydra": {"training"},
    "omegaconf": {"training"},
    "typer": {
        "cli",
        "cli_data",
        "cli_fit",
        "cli_predict",
        "cli_score",
        "cli_report",
        "cli_about",
        "cli_benchmark",
        "cli_scale",
        "cli_export",
        "cli_int8",
    },
    "ray": {"scale"},
    "fsspec": {"scale"},
    "anomalib": {"integrations"},
    "open_clip": {"backbones"},
    "timm": {"backbones"},
    "pickle": {"archive"},
    "nncf": {"export"},
    "onnxruntime": {"predictor"},
    "openvino": {"predictor", "export"},
}


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows(path):
    here = room(path)
    assert here in ARROWS, f"a new room {here}: draw its arrows here and in docs/ARCHITECTURE.md"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "sowa" and len(parts) > 1 and (ROOT / parts[1]).exists() | (ROOT / f"{parts[1]}.py").exists():
            assert parts[1] == here or parts[1] in ARROWS[here], f"{here} must not import {name}"
        if parts[0] in ONLY_IN:
            assert here in ONLY_IN[parts[0]], f"{parts[0]} lives in {ONLY_IN[parts[0]]} only"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is longer than 60 lines"


def test_no_grab_bag():
    assert not [path for path in FILES if path.stem in ("utils", "helpers", "common", "misc")]


@pytest.mark.parametrize("module", ["sowa", "sowa.errors", "sowa.types", "sowa.cli"])
def test_light_imports(module):
    heavy = "('torch', 'lightning', 'hydra', 'onnx', 'timm', 'open_clip', 'matplotlib', 'numpy')"
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
