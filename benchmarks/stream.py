"""Pictures per second of a stream, from files to results: decoding, scoring and what is made of the map.

    python benchmarks/stream.py [--model sowa_plus] [--count 96] [--rounds 3] [--quick] [--json PATH]

The offline backbone at 224 px, fitted on four drawn pictures; JPEG files of 640 x 480 pixels are predicted by
`Predictor.stream`, batches of 8, at the precision `auto` chooses, in float32, in int8 where the processor multiplies
bytes, and from an exported int8 file run by OpenVINO where that is installed (not with `--quick`: writing the file
takes a minute); rounds in turn. `decode` is the stream's reading alone (the same files through its readers, nothing
computed), so that the overlap can be seen.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import sowa
from sowa.errors import ConfigError, SowaError
from sowa.export import export_detector
from sowa.metrics import write_json
from sowa.predictor.streaming import read_ahead
from sowa.training.record import machine_facts

WIDTH, HEIGHT, SHOTS, CALIBRATING, BATCH = 640, 480, 4, 16, 8


def drawn(folder: Path, count: int) -> list[Path]:
    """A disc with noise on a plain ground, moved a little."""
    paths = []
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for number in range(count):
        rng = np.random.default_rng(number)
        down, across = rng.integers(-8, 9, 2)
        disc = (rows - HEIGHT / 2 - down) ** 2 + (columns - WIDTH / 2 - across) ** 2 < (HEIGHT / 3) ** 2
        pixels = 60 + 110 * disc[..., None] + rng.normal(0, 6, (HEIGHT, WIDTH, 3))
        paths.append(folder / f"{number:05d}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=92)
    return paths


def seconds_of(items: Sequence[Path], detector: sowa.Predictor) -> float:
    began = time.perf_counter()
    for result in detector.stream(items, batch_size=BATCH):
        assert result.error is None
    return time.perf_counter() - began


def decode_seconds(items: Sequence[Path], detector: sowa.Predictor) -> float:
    began = time.perf_counter()
    for _ in read_ahead(((str(path), path) for path in items), detector._look, ahead=BATCH):
        pass
    return time.perf_counter() - began


def detectors_of(shots: Sequence[Path], model: str, folder: Path, *, export: bool) -> dict[str, sowa.Predictor]:
    """By the name of its precision; what this machine does not have is left out and said."""
    found: dict[str, sowa.Predictor] = {}
    for name in ("auto", "fp32", "int8"):
        try:
            found[name] = sowa.fit(shots[:SHOTS], name="disc", model=model, backbone="compact", precision=name)
        except ConfigError as error:
            print(f"{model} {name}: left out, {error}", file=sys.stderr, flush=True)
    if export:
        out = folder / "disc.xml"
        try:
            # A disc and its like are no test of a ranking; the gate's drift is not what is measured here.
            export_detector(found["fp32"], out, to="openvino", int8=True, good=shots, drift_allowed=1.0)
            found["openvino_int8"] = sowa.load(out)
        except (SowaError, ImportError) as error:
            print(f"{model} openvino_int8: left out, {error}", file=sys.stderr, flush=True)
    return found


def measured(model: str, count: int, rounds: int, *, export: bool) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        paths = drawn(Path(temporary), count + CALIBRATING)
        shots, rest = paths[:CALIBRATING], paths[CALIBRATING:]
        detectors = detectors_of(shots, model, Path(temporary), export=export)
        times: dict[str, list[float]] = {name: [] for name in (*detectors, "decode")}
        for detector in detectors.values():
            seconds_of(rest[: 2 * BATCH], detector)
        for _ in range(rounds):
            for name, detector in detectors.items():
                times[name].append(seconds_of(rest, detector))
            times["decode"].append(decode_seconds(rest, detectors["auto"]))
    middle = {name: statistics.median(found) for name, found in times.items()}
    row = {
        "model": model,
        "backbone": "compact",
        "image_size": 224,
        "precision": detectors["auto"].info()["precision"],
        "pictures": count,
        "pictures_per_second": {name: count / found for name, found in middle.items()},
        "seconds": times,
    }
    ratios = {
        f"{model}_pictures_per_second": count / middle["auto"],
        f"{model}_auto_to_fp32": middle["fp32"] / middle["auto"],
        f"{model}_decode_share": middle["decode"] / middle["auto"],
    }
    for name in ("int8", "openvino_int8"):
        if name in middle:
            ratios[f"{model}_{name}_pictures_per_second"] = count / middle[name]
            ratios[f"{model}_{name}_to_auto"] = middle["auto"] / middle[name]
    return {"rows": [row], "ratios": ratios}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="sowa_plus", help="by comma (%(default)s)")
    parser.add_argument("--count", type=int, default=96, help="pictures (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="timed (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="48 pictures, one round")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(argv)
    count, rounds = (48, 1) if options.quick else (options.count, options.rounds)
    result = {"name": "stream", "rows": [], "ratios": {}, "hardware": machine_facts()}
    for model in options.model.split(","):
        found = measured(model, count, rounds, export=not options.quick)
        result["rows"] += found["rows"]
        result["ratios"] |= found["ratios"]
    print(json.dumps(result, indent=1))
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    main()
