"""From names to things: a data set with its draws, a method with its detector, and what a cell's numbers depend on."""

import copy
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sowa.artifact import find_trained, load_trained
from sowa.backbones import build_backbone, find_weights
from sowa.backbones.base import Backbone
from sowa.benchmark.passes import one_pass
from sowa.benchmark.plan import GUEST, Choice, Plan, guest_options
from sowa.benchmark.store import Store, key_of
from sowa.data.shots import Shots
from sowa.data.subset import spread
from sowa.detectors import build_detector
from sowa.detectors.base import Detector
from sowa.training.build import call
from sowa.training.compose import compose_job
from sowa.training.record import identity
from sowa.training.run import train_main
from sowa.training.scoring import Cell
from sowa.training.sources import Source, check_shots, read_source, refuse_trained_on
from sowa.types import Sample

__all__ = ["Jobs", "Method", "Target"]

PLACES = ("model", "tag", "weights", "cache_dir", "offline")
WAIT = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """A data set that is judged on, with the shots of every seed."""

    name: str
    source: Source
    samples: tuple[Sample, ...]
    drawn: Mapping[int, Shots]

    def test(self, category: str) -> list[Sample]:
        return [sample for sample in self.samples if sample.category == category and sample.split == "test"]

    def categories(self) -> list[str]:
        return sorted({sample.category for sample in self.samples if sample.split == "test"})

    def listing(self, category: str) -> str:
        """Hash of the names, labels and sizes of a category's test images and masks."""
        rows = [
            [one.name, one.label, one.image.stat().st_size, [mask.stat().st_size for mask in one.masks]]
            for one in self.test(category)
        ]
        return key_of({"images": rows})


@dataclass(slots=True)
class Method:
    """A detector on one data set. Trained tensors are put into it when the first cell needs them."""

    name: str
    detector: Detector
    settings: Mapping[str, Any]
    trained: str
    """What names the trained tensors: a hash of the file given, or of the settings that train them; empty for none."""
    trained_path: Path | None
    ready: bool = False

    @property
    def precision(self) -> str:
        """What the tower computes in; guests' own is taken for float32."""
        return getattr(self.detector.backbone, "precision", "fp32")

    def identity(self) -> dict[str, Any]:
        """What the numbers depend on besides data and shots."""
        backbone = self.detector.backbone
        return {
            "method": self.name,
            "options": _plain(self.settings["model"]),
            "backbone": {
                "name": backbone.name,
                "weights_id": backbone.weights_id,
                "image_size": backbone.image_size,
                "text_trained": backbone.text_trained,
                # Cells of before there was a choice stay what they are.
                **({} if self.precision == "fp32" else {"precision": self.precision}),
            },
            "trained": self.trained,
            "protocol": self.settings["protocol"],
            "fit": self.settings["data"].get("fit", "squash"),
        }

    def league(self, cell: Cell) -> str:
        """Who this method may fairly be compared with."""
        if self.detector.learnt_elsewhere(cell.k):
            return "auxiliary_trained"
        if self.detector.trains == "target":
            return "per_class_trained"
        return "training_free" if cell.k else "zero_shot"


class Jobs:
    """Builds targets and methods of a plan, each once; a backbone with the same settings is loaded once."""

    def __init__(self, plan: Plan, store: Store):
        self.plan, self.store = plan, store
        self._backbones: dict[str, Backbone] = {}
        self._lowered: dict[int, Backbone] = {}
        self._composed: dict[tuple[str, ...], dict[str, Any]] = {}
        self._targets: dict[Choice, Target] = {}
        self._methods: dict[tuple[Choice, Choice], Method] = {}
        own = [choice for choice in plan.methods if not choice.name.startswith(GUEST)]
        self._first = own[0] if own else Choice("guest", ("model=sowa_hfwa",))

    def check_guests(self) -> None:
        """Guests that are not installed or not known are said before any data set is read or drawn."""
        for choice in self.plan.methods:
            if choice.name.startswith(GUEST):
                from sowa.integrations.anomalib_guest import guest_detector

                guest_detector(choice.name.removeprefix(GUEST), guest_options(choice))

    def target(self, choice: Choice) -> Target:
        """Found, listed, cut to the plan's limit, shots drawn."""
        if choice not in self._targets:
            self._targets[choice] = self._target(choice)
        return self._targets[choice]

    def _target(self, choice: Choice) -> Target:
        data = self._settings(choice, self._first)["data"]
        places = self._places(choice)
        source = call(read_source, data["target"], what="data.target", **places)
        samples = spread(source.samples, self.plan.limit) if self.plan.limit else source.samples
        most = {k for method in self.plan.methods for k in self.plan.shots_for(method.name)}
        drawn = check_shots(source, sorted(most), self.plan.seeds)
        return Target(choice.name, source, tuple(samples), drawn)

    def method(self, choice: Choice, data: Choice, target: Target) -> Method:
        """Built on its backbone; what does not fit is known now."""
        if (choice, data) not in self._methods:
            self._methods[choice, data] = self._method(choice, data)
        return self._methods[choice, data]

    def _method(self, choice: Choice, data: Choice) -> Method:
        if choice.name.startswith(GUEST):
            from sowa.integrations.anomalib_guest import guest_detector

            options = guest_options(choice)
            settings = self._settings(data, Choice("guest", ("model=sowa_hfwa",)))
            settings["model"] = {"name": choice.name, **options}
            return Method(choice.name, guest_detector(choice.name.removeprefix(GUEST), options), settings, "", None)
        settings = self._settings(data, choice)
        model = dict(settings["model"])
        backbone = self._backbone(settings["backbone"])
        detector = build_detector(model.pop("name"), backbone=backbone, **model).eval()
        # One lowered tower for all detectors that share the original: they go on sharing its tokens.
        detector = detector.on_backbone(self._at_precision(backbone))
        path, trained = None, ""
        if detector.trains == "auxiliary":
            path, trained = self._trained(choice, settings)
        return Method(choice.name, detector, settings, trained, path)

    def make_ready(self, method: Method, target: Target, data: Choice, choice: Choice) -> None:
        """Put trained tensors into the detector, after training them if nobody has; refuse those of the same data."""
        if method.ready:
            return
        if method.trained_path is not None:
            if not method.trained_path.exists():
                self._train(method, data, choice)
            refuse_trained_on(target.source, load_trained(method.trained_path, method.detector))
            method.detector.eval()
        method.ready = True

    # ---- settings

    def _settings(self, data: Choice, method: Choice) -> dict[str, Any]:
        """A copy of their own for each who asks: composing takes most of a second."""
        words = tuple(self._words(data, method))
        if words not in self._composed:
            self._composed[words] = compose_job("train", list(words)).settings
        return copy.deepcopy(self._composed[words])

    def _words(self, data: Choice, method: Choice) -> list[str]:
        return [
            f"backbone={self.plan.backbone}",
            f"protocol={self.plan.protocol}",
            "logger=none",
            *data.words,
            *method.words,
            *self.plan.paths,
        ]

    def _places(self, choice: Choice) -> dict[str, Any]:
        paths = self._settings(choice, self._first)["paths"]
        return {key: paths[key] for key in ("data_dir", "cache_dir")}

    def _backbone(self, settings: Mapping[str, Any]) -> Backbone:
        key = json.dumps(settings, sort_keys=True, default=str)
        if key not in self._backbones:
            options = dict(settings)
            find_weights(options["name"], **{name: options[name] for name in PLACES if name in options})
            self._backbones[key] = call(build_backbone, options, what="backbone")
        return self._backbones[key]

    def _at_precision(self, backbone: Backbone) -> Backbone:
        if id(backbone) not in self._lowered:
            self._lowered[id(backbone)] = one_pass(backbone.at_precision(self.plan.precision))
        return self._lowered[id(backbone)]

    # ---- trained tensors

    def _trained(self, choice: Choice, settings: Mapping[str, Any]) -> tuple[Path, str]:
        if choice.name in self.plan.trained:
            path = find_trained(self.plan.trained[choice.name])
            return path, f"file:{_digest(path)}"
        name = key_of({"training": identity(settings), "epochs": settings["trainer"]["max_epochs"]})
        return self.store.folder / "trained" / f"{choice.name}-{name}" / "trained.safetensors", f"settings:{name}"

    def _train(self, method: Method, data: Choice, choice: Choice) -> None:
        folder = method.trained_path.parent
        while not method.trained_path.exists():
            with self.store.claim(f"train-{folder.name}") as lock:
                if lock is None:
                    print(f"sowa: {method.name} is being trained by another process", file=sys.stderr, flush=True)
                    time.sleep(WAIT)
                    continue
                print(
                    f"sowa: training {method.name} on {method.settings['data']['auxiliary']['dataset']}",
                    file=sys.stderr,
                )
                train_main([*self._words(data, choice), f"paths.output_dir={folder}", "test=false", "resume=true"])


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for key, value in settings.items()
    }
