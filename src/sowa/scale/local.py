"""Workers of this machine: this process itself, or processes of their own, each replaced when it is lost."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from sowa.errors import SowaError
from sowa.scale.blocks import Block
from sowa.scale.turns import ATTEMPTS, Failed, Lost, Turns
from sowa.scale.work import Done, Job, Scorer

__all__ = ["in_processes", "in_this_process"]

Event = Done | Failed | Lost


def in_this_process(blocks: Sequence[Block], job: Job) -> Iterator[Event]:
    """One block after the other."""
    scorer, turns = Scorer(job), Turns(blocks)
    while turns:
        block = turns.next()
        try:
            yield scorer(block)
        except OSError as error:
            again = turns.again(block, " ".join(str(error).split()))
            if isinstance(again, Failed):
                yield again


def in_processes(blocks: Sequence[Block], job: Job, workers: int) -> Iterator[Event]:
    """`workers` processes, a block each at a time. One that is lost is replaced and its block begun again.

    SowaError where workers end before they have loaded the detector, or where one says it cannot work.
    """
    turns, never_ready = Turns(blocks), 0
    crew = [_Worker(job) for _ in range(min(workers, len(turns)))]
    try:
        while turns or any(worker.block for worker in crew):
            for pipe in wait([worker.pipe for worker in crew]):
                worker = next(one for one in crew if one.pipe is pipe)
                kind, value = worker.said()
                block, worker.block = worker.block, None
                if kind == "stop":
                    raise SowaError(value)
                if kind == "done":
                    yield value
                elif block is not None:
                    again = turns.again(block, value)
                    if kind == "lost" or isinstance(again, Failed):
                        yield again
                if kind == "ready":
                    never_ready = 0
                if kind == "lost":
                    never_ready += not worker.ready
                    if never_ready >= ATTEMPTS:
                        raise SowaError(f"workers end before they have loaded the detector ({value}): is memory short?")
                    worker.end()
                    crew[crew.index(worker)] = _Worker(job)
                else:
                    worker.ready = True
            _hand_out(turns, crew)
    finally:
        for worker in crew:
            worker.end()


def _hand_out(turns: Turns, crew: "Sequence[_Worker]") -> None:
    for worker in crew:
        if turns and worker.ready and worker.block is None:
            worker.give(turns.next())


class _Worker:
    """A process and what it is at."""

    def __init__(self, job: Job):
        # Not forked: threads of torch do not survive it.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, job), daemon=True)
        self.process.start()
        theirs.close()  # only then does the end of the process end the pipe
        self.block: Block | None = None
        self.ready = False

    def give(self, block: Block) -> None:
        self.block = block
        with suppress(OSError):  # it is gone, and the pipe says so when it is read
            self.pipe.send(block)

    def said(self) -> tuple[str, Any]:
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5)
            code = self.process.exitcode
            how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
            return "lost", f"its worker was lost ({how}), {ATTEMPTS} times"

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection, job: Job) -> None:
    """Until the other end of the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's affair, who ends this process
    try:
        scorer = Scorer(job)
        pipe.send(("ready", os.getpid()))
        while True:
            block = pipe.recv()
            try:
                pipe.send(("done", scorer(block)))
            except OSError as error:
                pipe.send(("failed", " ".join(str(error).split())))
    except (EOFError, BrokenPipeError):
        return
    except SowaError as error:
        pipe.send(("stop", str(error)))
