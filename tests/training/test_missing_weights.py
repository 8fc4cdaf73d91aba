"""Weights that are nowhere are said at once: before torch is loaded and before any data is read."""

import subprocess
import sys

import pytest

CODE = """
import sys
from sowa.training.run import {door}
from sowa.errors import WeightsError
try:
    {door}(["backbone={backbone}", "backbone.offline=true", "paths.cache_dir={cache}", "paths.data_dir=/absent"])
except WeightsError as error:
    print(str(error).count(chr(10)), "backbone.weights=PATH" in str(error), "torch" in sys.modules)
"""


@pytest.mark.parametrize("door", ["train_main", "eval_main"])
@pytest.mark.parametrize("backbone", ["clip", "compact", "cnn", "compact_cnn"])
def test_one_line_before_anything_slow(door, backbone, tmp_path):
    code = CODE.format(door=door, backbone=backbone, cache=tmp_path / "cache")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "True", "False"], done.stdout + done.stderr
