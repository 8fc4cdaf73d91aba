"""Fills the cells that are missing. A test image passes each backbone once, for all methods, shots and seeds.

Work is cut into units, a category of a data set each: small enough to be lost, large enough to share decoding and
tokens. A unit is claimed, its missing cells are computed, each is written; what fails is told at the end.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch

from sowa.benchmark.jobs import Jobs, Method, Target
from sowa.benchmark.passes import Tapped, groups_of
from sowa.benchmark.plan import Choice, Plan
from sowa.benchmark.store import Lock, Store, key_of, read_cell
from sowa.data.intake import intake_of
from sowa.errors import ConfigError, DataError, NeedsSupportError, SowaError
from sowa.training.evaluate import cells_of
from sowa.training.record import machine_facts
from sowa.training.scoring import (
    CategoryRun,
    Cell,
    device_of,
    encode_support,
    image_loader,
    masks_for,
    references_of,
)
from sowa.types import Batch, Reference, Sample, Tokens

__all__ = ["Outcome", "Progress", "cells_found", "nothing_left", "run_benchmark"]

EXACT_BYTES = 4e9
"""Maps that all methods and draws of a category may hold for exact pixel metrics; beyond, they are counted in bins."""

Progress = Callable[[int, int, str], None]
"""Called with (images done, images in all that are not scored yet, what is being scored)."""


@dataclass(slots=True)
class Outcome:
    """What a run of a benchmark did."""

    computed: int = 0
    found: int = 0
    skipped: list[str] = field(default_factory=list)
    """Cells that cannot be: a method that needs shots at k=0."""
    failed: list[str] = field(default_factory=list)
    """Cells that should be and are not, each with its reason."""


@dataclass(slots=True)
class _Seat:
    """A method in a unit, with the cells it owes."""

    method: Method
    choice: Choice
    paths: dict[Cell, tuple[Any, str]]
    run: CategoryRun | None = None
    seconds: float = 0.0
    decode: float = 0.0
    tower: float = 0.0
    metrics: float = 0.0
    """Seconds beside those of learning and scoring; of work that several seats share, this one's part."""
    error: str | None = None


@dataclass(slots=True)
class _Unit:
    target: Target
    data: Choice
    category: str
    seats: list[_Seat]

    @property
    def name(self) -> str:
        return f"{self.data.name}/{self.category}"


def run_benchmark(
    plan: Plan,
    store: Store,
    *,
    workers: int = 0,
    shard: tuple[int, int] = (0, 1),
    wait: bool = True,
    progress: Progress | None = None,
    jobs: Jobs | None = None,
) -> Outcome:
    """Compute what is missing of the plan's cells in the store's folder.

    shard: (i, n) takes every n-th category, counted through all data sets, from the i-th on (the first is 0).
    wait: until the categories that others work on are done; False leaves those to them.
    jobs: those of this plan and store from an earlier call, whose towers need not be loaded again.
    Wrong names, missing weights and unreadable data sets raise before anything is computed. A cell that fails later is
    named in the outcome.
    """
    outcome, jobs = Outcome(), jobs or Jobs(plan, store)
    jobs.check_guests()
    units = list(_units(plan, jobs, store, outcome, shard))
    todo = sum(len(unit.target.test(unit.category)) for unit in units)
    done = 0
    while units:
        waiting = []
        for unit in units:
            with store.claim(f"{unit.data.name}-{unit.category}") as lock:
                if lock is None:
                    waiting.append(unit)
                    continue
                _drop_found(unit, store, outcome)
                before = done
                if unit.seats:

                    def tell(count: int, name: str = unit.name, before: int = before) -> None:
                        if progress:
                            progress(before + count, todo, name)

                    try:
                        _fill(plan, unit, jobs, store, outcome, workers, lock, tell)
                    except DataError as error:  # an image that cannot be read: no method can be judged here
                        outcome.failed.append(f"{unit.name}: {error}")
                done = before + len(unit.target.test(unit.category))
        if len(waiting) == len(units):
            if not wait:
                break
            if progress:
                progress(done, todo, f"waiting for {len(waiting)} categories that other processes work on")
            time.sleep(min(5.0, store.stale / 4))
        units = waiting
    return outcome


def _units(plan: Plan, jobs: Jobs, store: Store, outcome: Outcome, shard: tuple[int, int]) -> list[_Unit]:
    """Everything that is asked for and not there, category by category; settings are checked on the way."""
    units, number = [], count()
    for data in plan.data:
        target = jobs.target(data)
        methods = [(choice, jobs.method(choice, data, target)) for choice in plan.methods]
        for category in target.categories():
            if next(number) % shard[1] != shard[0]:
                continue
            listing = target.listing(category)
            seats = []
            for choice, method in methods:
                paths = {}
                for cell in cells_of(plan.shots_for(choice.name), plan.seeds):
                    path, key = _place(store, method, data, target, category, listing, cell)
                    if store.has(path, key):
                        outcome.found += 1
                    else:
                        paths[cell] = (path, key)
                if paths:
                    seats.append(_Seat(method, choice, paths))
            if seats:
                units.append(_Unit(target, data, category, seats))
    return units


def cells_found(jobs: Jobs) -> list[dict[str, Any]]:
    """The cells of the jobs' very plan that are there: the folder may hold others, of other settings."""
    plan, store, found = jobs.plan, jobs.store, []
    for data in plan.data:
        target = jobs.target(data)
        methods = [(choice, jobs.method(choice, data, target)) for choice in plan.methods]
        for category in target.categories():
            listing = target.listing(category)
            for choice, method in methods:
                for cell in cells_of(plan.shots_for(choice.name), plan.seeds):
                    path, key = _place(store, method, data, target, category, listing, cell)
                    if store.has(path, key):
                        found.append(read_cell(path))
    return found


def _place(
    store: Store, method: Method, data: Choice, target: Target, category: str, listing: str, cell: Cell
) -> tuple[Any, str]:
    shots = _shots(target, category, cell)
    key = key_of(
        method.identity()
        | {"dataset": data.name, "category": category, "listing": listing, "k": cell.k, "seed": cell.seed}
        | {"shots": [sample.name for sample in shots]}
    )
    names = {"method": method.name, "dataset": data.name, "category": category}
    return store.path(**names, k=cell.k, seed=cell.seed, key=key), key


def _shots(target: Target, category: str, cell: Cell) -> list[Sample]:
    return target.drawn[cell.seed].get(category, [])[: cell.k] if cell.k else []


def _drop_found(unit: _Unit, store: Store, outcome: Outcome) -> None:
    """Leave out what another process has written since."""
    for seat in unit.seats:
        for cell, (path, key) in list(seat.paths.items()):
            if store.has(path, key):
                outcome.found += 1
                del seat.paths[cell]
    unit.seats = [seat for seat in unit.seats if seat.paths]


def _fill(
    plan: Plan,
    unit: _Unit,
    jobs: Jobs,
    store: Store,
    outcome: Outcome,
    workers: int,
    lock: Lock,
    tell: Callable[[int], None],
) -> None:
    """Compute and write the cells of a unit."""
    test, fit = unit.target.test(unit.category), unit.seats[0].method.settings["data"].get("fit", "squash")
    intake, masks = intake_of(plan.protocol, fit), masks_for(test, plan.protocol)
    for seat in unit.seats:
        with _guarded(seat):
            jobs.make_ready(seat.method, unit.target, unit.data, seat.choice)
    alive = [seat for seat in unit.seats if seat.error is None]
    groups = groups_of([seat.method.detector for seat in alive])
    for group in groups:
        members = [seat for seat in alive if seat.method.detector in group.detectors]
        _learn(plan, unit, group, members, masks, intake, fit, outcome)
    sizes = sorted({group.backbone.image_size for group in groups})
    for number, size in enumerate(sizes):
        of_size = [group for group in groups if group.backbone.image_size == size]
        seated = [seat for seat in alive if any(seat.method.detector in group.detectors for group in of_size)]
        seen, began = 0, time.perf_counter()
        for batch in image_loader(test, size, masks, plan.protocol, intake, plan.batch_size, workers, "raise"):
            for seat in seated:
                seat.decode += (time.perf_counter() - began) / len(seated)
            for group in of_size:
                _score(group, alive, batch)
            lock.touch()
            began = time.perf_counter()
            seen += len(batch.names)
            tell((number * len(test) + seen) // len(sizes))
    for seat in unit.seats:
        _write(plan, unit, seat, store, outcome, {sample.name: sample for sample in test})


def _learn(
    plan: Plan,
    unit: _Unit,
    group: Tapped,
    seats: list[_Seat],
    masks: Any,
    intake: Any,
    fit: Any,
    outcome: Outcome,
) -> None:
    """References of every draw; a draw that the method cannot learn from is noted and left out."""
    needed = {
        sample.name: sample
        for seat in seats
        for cell in seat.paths
        for sample in _shots(unit.target, unit.category, cell)
    }
    device, began = device_of(seats[0].method.detector), time.perf_counter()
    tokens = encode_support(group.encode, needed.values(), group.backbone.image_size, plan.batch_size, intake, device)
    tower = (time.perf_counter() - began) / len(seats)
    owed = sum(len(seat.paths) for seat in unit.seats)
    for seat in seats:
        detector, references = seat.method.detector, {}
        seat.tower += tower
        own = {name: group.own(one, detector) for name, one in tokens.items()}
        began = time.perf_counter()
        with _guarded(seat):
            for cell in list(seat.paths):
                try:
                    references |= _reference(unit, seat, cell, own)
                except NeedsSupportError as error:
                    outcome.skipped.append(f"{seat.method.name} {unit.name} k={cell.k}: {error}")
                    del seat.paths[cell]
            share = EXACT_BYTES * len(references) / max(owed, 1)
            seat.run = CategoryRun(
                detector if masks != "none" else detector.without_maps(),
                unit.data.name,
                unit.category,
                references,
                plan.protocol,
                masks,
                fit,
                share,
            )
        seat.seconds += time.perf_counter() - began


def _reference(unit: _Unit, seat: _Seat, cell: Cell, own: dict[str, Tokens]) -> dict[Cell, Reference]:
    shots = {cell: _shots(unit.target, unit.category, cell)}
    return references_of(seat.method.detector, unit.category, shots, own)


def _score(group: Tapped, seats: list[_Seat], batch: Batch) -> None:
    wanted = [
        seat
        for seat in seats
        if seat.method.detector in group.detectors and seat.error is None and seat.run is not None and seat.paths
    ]
    if not wanted or not batch.names:
        return
    with torch.inference_mode():
        began = time.perf_counter()
        tokens = group.encode(batch.images.to(device_of(wanted[0].method.detector)))
        tower = (time.perf_counter() - began) / len(wanted)
        for seat in wanted:
            seat.tower += tower
            began = time.perf_counter()
            with _guarded(seat):
                seat.run.update(batch, group.own(tokens, seat.method.detector))
            seat.seconds += time.perf_counter() - began


def _write(plan: Plan, unit: _Unit, seat: _Seat, store: Store, outcome: Outcome, samples: dict[str, Sample]) -> None:
    if seat.error is None and seat.run is not None:
        with _guarded(seat):
            began = time.perf_counter()
            rows, scores = seat.run.finish(samples)
            seat.metrics = time.perf_counter() - began
            by_draw = {Cell(row["k"], row["seed"]): row for row in rows}
            for cell, (path, key) in seat.paths.items():
                mine = [one for one in scores if (one["k"], one["seed"]) == (cell.k, cell.seed)]
                store.write(path, _record(plan, unit, seat, cell, key, by_draw[cell], mine))
                outcome.computed += 1
            return
    outcome.failed += [f"{seat.method.name} {unit.name} k={c.k} seed={c.seed}: {seat.error}" for c in seat.paths]


def _record(
    plan: Plan,
    unit: _Unit,
    seat: _Seat,
    cell: Cell,
    key: str,
    row: dict[str, Any],
    scores: list[dict[str, Any]],
) -> dict[str, Any]:
    """What a cell's file holds."""
    transductive = plan.protocol == "paper" and cell.k > 0 and seat.run.transductive
    return {
        **seat.method.identity(),
        "key": key,
        "league": seat.method.league(cell),
        "scores_are": "transductive" if transductive else "inductive",
        "dataset": unit.data.name,
        "category": unit.category,
        "k": cell.k,
        "seed": cell.seed,
        "shots": [sample.name for sample in _shots(unit.target, unit.category, cell)],
        "images": row["images"],
        "limit": plan.limit,
        "metrics": {name: value for name, value in row.items() if name.startswith(("image_", "pixel_"))},
        **({"metrics_error": row["metrics_error"]} if "metrics_error" in row else {}),
        "seconds": seat.seconds / max(len(seat.run.references), 1),
        "spent": _spent(seat),
        "scores": [{name: one[name] for name in ("image", "label", "defect", "score")} for one in scores],
        "support": _support(seat, cell),
        "machine": machine_facts(),
    }


def _spent(seat: _Seat) -> dict[str, float]:
    """Seconds of this cell: the seat's, in equal parts."""
    spent = {"decode": seat.decode, "tower": seat.tower, "score": seat.seconds, "metrics": seat.metrics}
    return {name: round(value / max(len(seat.run.references), 1), 4) for name, value in spent.items()}


def _support(seat: _Seat, cell: Cell) -> dict[str, Any]:
    """What the method says of its own shots: their scores when left out, and the spread to expect of normal ones."""
    scores = seat.run.references[cell].get("support_scores")
    spread = seat.method.detector.spread_beside(seat.run.references[cell])
    return {"scores": [] if scores is None else scores.double().flatten().tolist(), "expected_spread": spread}


@contextmanager
def _guarded(seat: _Seat) -> Iterator[None]:
    """What goes wrong with one method is its own affair: noted in its seat, the others go on."""
    try:
        yield
    except Exception as error:
        if _everybodys(error):
            raise
        seat.error = " ".join(str(error).split()) or type(error).__name__


def _everybodys(error: Exception) -> bool:
    """A full disk or a folder that may not be written."""
    return isinstance(error, OSError) or (isinstance(error, SowaError) and str(error).startswith("cannot write"))


def nothing_left(plan: Plan, outcome: Outcome) -> None:
    """Stop if not a single cell of the plan could be."""
    if outcome.skipped and not outcome.computed and not outcome.found:
        raise ConfigError(f"nothing to compute: {outcome.skipped[0]}; give shots of 1 or more")
