"""Verdicts from an exported detector where only numpy, pillow and onnxruntime are installed.

python examples/predict_without_torch.py detector.onnx PICTURE...
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(detector: str, *pictures: str) -> None:
    session = onnxruntime.InferenceSession(detector, providers=["CPUExecutionProvider"])
    meta = session.get_modelmeta().custom_metadata_map
    view, threshold = (json.loads(meta["sowa.about"])[key] for key in ("view", "calibration"))
    if view["tile"] or view["fit"] != "squash" or meta["sowa.mask"]:
        sys.exit("tiles, letterbox and masks are the work of sowa.load: docs/EXPORT.md says how they are done")
    for name in pictures:
        picture = ImageOps.exif_transpose(Image.open(name)).convert("RGB")
        small = picture.resize((view["size"], view["size"]), Image.Resampling.BICUBIC)
        score, *heat = session.run(None, {"images": np.asarray(small).transpose(2, 0, 1)[None].copy()})
        verdict = "defective" if score[0] > threshold["threshold"] else "good"
        hottest = float(heat[0].max()) if heat else None  # 1 is the most that is expected of a good part
        print(json.dumps({"name": name, "score": float(score[0]), "verdict": verdict, "heat": hottest}))


if __name__ == "__main__":
    main(*sys.argv[1:])
