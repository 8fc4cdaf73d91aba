"""Seconds of a cold process: the help, the import, the first prediction.

    python benchmarks/startup.py [--rounds 5] [--quick] [--json PATH]

Each is a new Python process, timed from its start to its end; medians. Files are in the system's cache. `import torch`
stands beside them: what no program on torch can undercut.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import sowa
from sowa.metrics import write_json
from sowa.training.record import machine_facts

TARGETS = {"help": 0.5, "import": 0.3, "first_prediction": 4.0}
"""Seconds."""
PREDICT = "import sowa, numpy as np; d = sowa.load({!r}); print(d.predict(np.full((300, 300, 3), 90, np.uint8)).score)"


def commands(fitted: Path) -> dict[str, list[str]]:
    python = [sys.executable]
    return {
        "help": [*python, "-m", "sowa.cli", "--help"],
        "import": [*python, "-c", "import sowa"],
        "first_prediction": [*python, "-c", PREDICT.format(str(fitted))],
        "import_torch": [*python, "-c", "import torch"],
    }


def seconds_of(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def measured(rounds: int) -> dict:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        fitted = Path(temporary) / "noise.sowa"
        shots = [rng.integers(0, 256, (300, 300, 3), dtype=np.uint8) for _ in range(4)]
        sowa.fit(shots, name="noise", backbone="compact").save(fitted)
        asked = commands(fitted)
        times: dict[str, list[float]] = {name: [] for name in asked}
        for command in asked.values():
            seconds_of(command)  # the first of each writes bytecode and fills the system's cache
        for _ in range(rounds):
            for name, command in asked.items():
                times[name].append(seconds_of(command))
    middle = {name: statistics.median(found) for name, found in times.items()}
    rows = [
        {"what": name, "seconds": found, "target": TARGETS.get(name), "all": times[name]}
        for name, found in middle.items()
    ]
    ratios = {f"{name}_of_target": middle[name] / target for name, target in TARGETS.items()}
    ratios["first_prediction_to_import_torch"] = middle["first_prediction"] / middle["import_torch"]
    return {"name": "startup", "rows": rows, "ratios": ratios, "hardware": machine_facts()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(argv)
    result = measured(2 if options.quick else options.rounds)
    print(json.dumps(result, indent=1))
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
