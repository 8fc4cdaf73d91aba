"""`Predictor`: a detector with what it learnt of one product, its calibration and its way of looking at pictures."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sowa.backbones.base import Backbone
from sowa.calibration import probability_above
from sowa.data.intake import Fit
from sowa.detectors.base import Detector
from sowa.detectors.plus_head import shipped_head
from sowa.errors import ArtifactError, ConfigError
from sowa.predictor.about import about_of
from sowa.predictor.content import Content
from sowa.predictor.file import identity_of, read_file, write_file
from sowa.predictor.fitting import added_content, calibrated_content, fitted_content
from sowa.predictor.heat import Seen, heat_regions, judge, restored
from sowa.predictor.making import Choice, Engine, new_detector, stored_detector
from sowa.predictor.pictures import as_picture, given_pictures, name_of, named
from sowa.predictor.results import DEFECTIVE, GOOD, Result, unreadable
from sowa.predictor.scale import check_threshold, promise_of, source_of, with_user
from sowa.predictor.sessions import SUFFIXES
from sowa.predictor.streaming import Ready, judge_ahead, judges_on, read_ahead
from sowa.predictor.view import Looked, View, inside_mask

__all__ = ["DEFAULT_BACKBONE", "DEFAULT_MODEL", "ZERO_SHOT_MODEL", "Predictor", "default_model"]

DEFAULT_MODEL, DEFAULT_BACKBONE = "sowa_plus", "compact"
ZERO_SHOT_MODEL = "sowa"
"""The default without a single good picture where the default has no trained head for the backbone: it knows words."""
Progress = Callable[[str, int, int], None]


class Predictor:
    """Immutable: `add`, `calibrate` and `with_threshold` give a new one. Prediction may run in many threads at once.

    A picture is a path, a PIL image, a numpy array ([h, w, 3] or [h, w], uint8 or float in 0..1) or a torch tensor
    ([3, h, w] or [h, w], uint8 or float in 0..1); the same picture gives the same score in any of these forms.
    """

    def __init__(
        self,
        detector: Detector,
        content: Content,
        *,
        backbone_state: Mapping[str, Any] | None = None,
        identity: str | None = None,
    ):
        """Use `fit` or `load`. backbone_state: weights that came inside a file, to be written into the next.
        identity: what an exported file says of itself; None: worked out."""
        self._detector, self._content, self._backbone_state = detector, content, backbone_state
        self._source = source_of(content.calibration)
        self._id = identity_of(content, detector.trained_state()) if identity is None else identity

    @classmethod
    def fit(
        cls,
        images: Any = None,
        *,
        name: str = "object",
        model: str | None = None,
        backbone: str | None = None,
        options: Mapping[str, Any] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
        trained: Path | str | None = None,
        k: int | Literal["all"] = "all",
        seed: int = 0,
        fit: Fit = "squash",
        tile: float | None = None,
        overlap: float = 0.25,
        roi: Any = None,
        ignore: Any = None,
        thumbnails: bool = False,
        target_false_alarms: float | None = None,
        precision: str = "auto",
        device: str = "cpu",
        progress: Progress | None = None,
    ) -> "Predictor":
        """Learn from good pictures: a folder, one picture or an iterable of pictures; none at all is zero-shot.

        name: what the pictures show, such as "bottle"; methods that read words read it.
        model, backbone, options, backbone_options: as in `sowa.detectors.DETECTORS` and
            `sowa.backbones.build_backbone`; None: what `trained` says, else the defaults of this module.
        trained: tensors of `sowa train`, or a run folder.
        k: how many pictures are remembered, drawn by `seed`; others set the threshold. "all": at most 64, fewer tiled.
        fit, tile, overlap, roi, ignore: see `sowa.predictor.view`.
        thumbnails: keep a small copy of each good picture for reports.
        target_false_alarms: share of good parts that may be called defective; None: 2 %. A handful of pictures cannot
            promise it, see `promise`.
        precision, device: auto, fp32, bf16, fp16, int8, of scoring (docs/performance); cpu, cuda, cuda:1, mps or auto.
        progress: called with (what is being done, how many are done, how many there are).
        Raises DataError for pictures that cannot be read, NeedsSupportError where the method needs at least one.
        """
        _check_name(name)
        _check_share(target_false_alarms)
        view = {"fit": fit, "tile": tile, "overlap": overlap, "mask": inside_mask(roi, ignore)}
        View(1, **view)  # mistakes are said before weights are loaded
        choice = Choice(model, backbone, options, backbone_options, trained, Engine(precision, device).checked())
        given = given_pictures(() if images is None else images)
        chosen = partial(default_model, shots=bool(given) and k != 0)
        detector, recipe = new_detector(choice, default_model=chosen, default_backbone=DEFAULT_BACKBONE)
        scoring = choice.engine.take(detector)
        content = fitted_content(
            detector,
            recipe,
            View(detector.backbone.image_size, **view),
            given,
            name=name,
            k=k,
            seed=seed,
            thumbnails=thumbnails,
            target=target_false_alarms,
            progress=progress or _silent,
        )
        return cls(scoring, content)

    # ---- verdicts

    def predict(self, image: Any, *, name: str | None = None) -> Result:
        """The verdict on one picture. DataError where it is no picture."""
        began = time.perf_counter()
        name = name_of(image) if name is None else name
        looked = self._look(name, image)
        (seen,) = judge(self._detector, self._content.reference, [looked])
        return self._result(name, seen, looked, began)

    def stream(
        self, items: Iterable[Any], *, batch_size: int = 8, on_error: Literal["row", "raise"] = "row"
    ) -> Iterator[Result]:
        """One result for each item, in order, in constant memory: at most 3 * batch_size pictures are held.

        Pictures are decoded, judged and handed over at the same time, each batch a step behind the next. On a processor
        each of torch's threads judges a part of the batch (`sowa.predictor.streaming`).

        An item is a picture, or a pair (name, picture). `batch_size=1` answers each before it takes the next, for
        sources that wait for a camera. `on_error="row"`: an unreadable picture is a `Result` with `error`.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size={batch_size!r} cannot be used: give a whole number of 1 or more")
        if on_error not in ("row", "raise"):
            raise ConfigError(f"on_error={on_error!r}: choose row or raise")
        return self._streamed(items, batch_size, on_error == "raise")

    def _streamed(self, items: Iterable[Any], batch_size: int, strict: bool) -> Iterator[Result]:
        pictures = read_ahead(named(items), self._look, ahead=0 if batch_size == 1 else batch_size)
        judges = 1 if self._detector.threads_itself else judges_on(self._detector.backbone.mean.device, batch_size)
        ahead = judge_ahead(pictures, self._judged, batch_size=batch_size, strict=strict, judges=judges)
        for batch, (seen, seconds) in ahead:
            yield from self._results(batch, seen, seconds / judges)

    def _look(self, name: str, item: Any) -> Looked:
        return self._content.view.look(as_picture(item, name))

    def _judged(self, batch: Sequence[Ready]) -> tuple[list[Seen], float]:
        """What is seen of each readable picture, and the seconds of one."""
        whole = [ready.looked for ready in batch if ready.looked is not None]
        began = time.perf_counter()
        seen = judge(self._detector, self._content.reference, whole) if whole else []
        return seen, (time.perf_counter() - began) / max(1, len(whole))

    def _results(self, batch: Sequence[Ready], judged: list[Seen], share: float) -> Iterator[Result]:
        seen = iter(judged)
        for ready in batch:
            if ready.looked is None:
                scale = self._content.calibration
                yield unreadable(
                    ready.name,
                    " ".join(str(ready.error).split()),
                    threshold=scale.threshold,
                    threshold_source=self._source,
                    artifact=self._id,
                )
            else:
                yield self._result(ready.name, next(seen), ready.looked, time.perf_counter() - share - ready.seconds)

    def _result(self, name: str, seen: Seen, looked: Looked, began: float) -> Result:
        scale, heat = self._content.calibration, restored(seen, looked)
        if heat is not None:
            heat = None if scale.pixel_threshold is None else np.maximum(heat / np.float32(scale.pixel_threshold), 0)
        return Result(
            name=name,
            score=seen.score,
            probability=probability_above(seen.score, threshold=scale.threshold, middle=scale.middle),
            threshold=scale.threshold,
            threshold_source=self._source,
            verdict=DEFECTIVE if seen.score > scale.threshold else GOOD,
            heatmap=heat,
            regions=() if heat is None else heat_regions(heat),
            size=looked.size,
            milliseconds=1000 * (time.perf_counter() - began),
            artifact=self._id,
        )

    # ---- changes

    def add(self, images: Any, *, progress: Progress | None = None) -> "Predictor":
        """One that also knows these good pictures; nothing is trained. ConfigError where the method cannot."""
        return self._with(added_content(self._detector, self._content, images, progress or _silent))

    def calibrate(
        self, normals: Any, defects: Any = None, *, target_false_alarms: float = 0.01, progress: Progress | None = None
    ) -> "Predictor":
        """One whose threshold comes from good pictures it has not learnt from; defects are only judged by it.

        With n good pictures and n >= 1 / target - 1 the threshold is an order statistic: on average over such sets at
        most the target's share of further good parts is called defective. With fewer it is estimated, not below any of
        them. What the defects would suggest is said by `promise` and `info`, and not used.
        """
        _check_share(target_false_alarms)
        return self._with(
            calibrated_content(
                self._detector, self._content, normals, defects, target_false_alarms, progress or _silent
            )
        )

    def with_threshold(self, value: float) -> "Predictor":
        """One with the user's own score threshold; the heat map's scale stays."""
        scale = with_user(self._content.calibration, check_threshold(value))
        return self._with(replace(self._content, calibration=scale))

    def _with(self, content: Content) -> "Predictor":
        return Predictor(self._detector, content, backbone_state=self._backbone_state)

    # ---- about it

    @property
    def id(self) -> str:
        """ "sha256:" and 16 digits over all that was learnt and set, and when: results name the file they are of."""
        return self._id

    @property
    def detector(self) -> Detector:
        """The method itself, for those who score tensors; not to be changed."""
        return self._detector

    @property
    def content(self) -> Content:
        """What was learnt and set, as one value; not to be changed."""
        return self._content

    @property
    def name(self) -> str:
        """What the pictures show."""
        return self._content.name

    @property
    def threshold(self) -> float:
        """The score above which the verdict is "defective"."""
        return self._content.calibration.threshold

    @property
    def thumbnails(self) -> np.ndarray | None:
        """[n, 64, 64, 3] uint8 of the good pictures, in the order of `info()["normals"]`; None if none were kept."""
        small = self._content.thumbnails_N64
        return None if small is None else small.numpy().copy()

    def info(self) -> dict[str, Any]:
        """Everything about it but the tensors, ready for JSON."""
        inside, words = self._backbone_state is not None, self._judges_without_pictures()
        about = about_of(self._content, identity=self._id, inside=inside, words_trained=words)
        backbone = self._detector.backbone
        return about | {"precision": backbone.precision, "device": str(backbone.mean.device)}

    def promise(self) -> str:
        """What was learnt and what cannot be promised, in plain words, one sentence a line."""
        return "\n".join(promise_of(self._content, words_trained=self._judges_without_pictures()))

    def _judges_without_pictures(self) -> bool:
        """Whether its scores mean something without a good picture: trained words, or a trained head."""
        return self._detector.backbone.text_trained or getattr(self._detector, "head", None) is not None

    # ---- files

    def save(
        self,
        path: Path | str,
        *,
        bundle: bool = False,
        cache_dir: Path | None = None,
        weights: Path | str | None = None,
    ) -> None:
        """One file (`.sowa`), whole or not at all; `bundle` puts the backbone's weights inside.

        cache_dir, weights: where those weights are, if they were not found in the usual place.
        """
        if getattr(self._detector, "exported", False):
            raise ConfigError("an exported detector is no .sowa file: change the .sowa file and export it again")
        state = self._backbone_state if bundle else None
        recipe = self._content.recipe
        if bundle and state is None:
            from sowa.backbones.bundled import backbone_from_state, published_state

            options = recipe.backbone_options
            state = published_state(recipe.backbone, options, weights=weights, cache_dir=cache_dir, offline=False)
            if backbone_from_state(recipe.backbone, state, options).weights_id != recipe.weights_id:
                raise ConfigError(f"the weights found for {recipe.backbone} are not those of the fit: give weights=")
        write_file(Path(path), self._content, self._detector.trained_state(), state)

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        cache_dir: Path | None = None,
        offline: bool = False,
        weights: Path | str | None = None,
        graph: Path | str | None = None,
        precision: str = "auto",
        device: str = "cpu",
    ) -> "Predictor":
        """Read and validate a file of `save`; nothing in it is executed. ArtifactError in one line if it is not whole.

        cache_dir, offline, weights: where the backbone's weights are, as in `sowa.backbones.build_backbone`;
        WeightsError if they are nowhere. A file with its backbone inside needs none of them, nor does an exported one
        (`.onnx`, or OpenVINO's `.xml` beside its `.bin`), which is run by its own runtime.
        graph: a file of `sowa export --reference input` for the same method and backbone, which scores in its own
            runtime: no weights are needed.
        precision, device: as in `fit`; they need not be those of the fit. An exported file has its own.
        """
        path, engine = Path(path), Engine(precision, device).checked()
        if graph is not None:
            from sowa.predictor.graph import load_with_graph

            return cls(*load_with_graph(path, Path(graph)))
        if path.suffix.lower() in SUFFIXES:
            from sowa.predictor.exported import load_exported

            detector, content, identity = load_exported(path)
            return cls(detector, content, identity=identity)
        stored = read_file(path)
        try:
            places = {"cache_dir": cache_dir, "offline": offline, "weights": weights}
            detector, content = stored_detector(stored, **places, engine=engine)
        except ArtifactError as error:
            raise ArtifactError(f"'{path}' cannot be used: {error}") from None
        return cls(detector, content, backbone_state=stored.backbone)


def default_model(tower: Backbone, *, shots: bool) -> str:
    """The method for a backbone where nobody names one."""
    return DEFAULT_MODEL if shots or shipped_head(tower.weights_id) is not None else ZERO_SHOT_MODEL


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > 200:
        raise ConfigError(f"name {str(name)[:60]!r} cannot be used: give a word for what the pictures show")


def _check_share(target: float | None) -> None:
    if target is not None and not 0 < target < 1:
        raise ConfigError(f"target_false_alarms={target}: give a share between 0 and 1, such as 0.01")


def _silent(what: str, done: int, total: int) -> None:
    """No progress is shown."""
