"""Prediction and run folders, drawn and written as the commands write them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

DETECTOR = "sha256:0123456789abcdef"
INFO = {
    "id": DETECTOR,
    "name": "disc",
    "created": "2026-11-01T10:00:00+00:00",
    "sowa": "0.1.0",
    "model": {"name": "sowa_plus", "options": {}},
    "backbone": {"name": "compact", "options": {}, "weights_id": "sha256:ab", "licence": "Apache-2.0", "inside": False},
    "normals": [{"name": f"good{i}.png", "sha256": "0" * 64, "use": "reference"} for i in range(4)],
    "promise": ["disc: sowa_plus on compact remembers 4 good pictures.", "False alarms are known to be below 53 %."],
}


def row(number: int = 0, **changes) -> dict:
    """One line of results.jsonl; `score` decides the verdict unless one is given."""
    score = changes.pop("score", 0.5)
    found = {
        "name": f"part{number:05d}.png",
        "score": score,
        "probability": 0.5,
        "threshold": 1.0,
        "threshold_source": "4 good pictures left out in turn; estimated for 2 % false alarms",
        "verdict": "defective" if score is not None and score > 1.0 else "good",
        "regions": [],
        "size": [40, 30],
        "milliseconds": 20.0 + number % 7,
        "artifact": DETECTOR,
        "error": None,
        "path": f"part{number:05d}.png",
    }
    return found | changes


def unreadable(number: int, **changes) -> dict:
    gone = {"score": None, "probability": None, "milliseconds": None, "size": [0, 0], "verdict": "error"}
    return row(number, **gone) | {"error": "damaged image: truncated"} | changes


def write(folder: Path, rows, *, facts: dict | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "results.jsonl").open("w") as file:
        for one in rows:
            file.write(json.dumps(one) + "\n")
    known = (
        {"command": ["sowa", "predict", "disc.sowa", "my parts"], "sowa": "0.1.0", "info": INFO}
        if facts is None
        else facts
    )
    if known:
        (folder / "predict.json").write_text(json.dumps(known))
    return folder


def draw(folder: Path, name: str, *, size: tuple[int, int] = (40, 30), seed: int = 0) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(60, 200, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def labelled(good: int = 30, bad: int = 20, *, seed: int = 0) -> list[dict]:
    """Two overlapping kinds of scores, two types of defects."""
    rng = np.random.default_rng(seed)
    rows = [row(i, score=float(s), label=0, defect_type="good") for i, s in enumerate(rng.normal(0.6, 0.2, good))]
    for i, score in enumerate(rng.normal(1.3, 0.4, bad), start=good):
        rows.append(row(i, score=float(score), label=1, defect_type=("crack", "dent")[i % 2]))
    return rows
