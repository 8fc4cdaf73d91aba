"""`python -m tests.parity [--method NAME] FILE...`: golden numbers against this implementation.

Prints the largest absolute error per tensor. Exit code 0: all inside tolerance; 1: something is past it; 2: a file
cannot be read.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from tests.parity.reader import Golden, UnreadableError
from tests.parity.report import Row

METHODS = (
    "sowa",
    "metrics",
    "kernels",
    "prompts",
    "clip_taps",
    "winclip",
    "april_gan",
    "spade",
    "padim",
    "patchcore",
    "promptad",
    "inctrl",
)
"""Each is checked by `check(golden)` in tests/parity/golden_<method>.py."""


def method_of(path: Path, given: str | None) -> str:
    """The method named on the command line, else the one whose name begins the file's stem."""
    if given is not None:
        return given
    for name in sorted(METHODS, key=len, reverse=True):
        if path.stem.startswith(name):
            return name
    raise UnreadableError(f"{path}: no method begins the file's name: give --method, one of {', '.join(METHODS)}")


def check_file(path: Path, method: str | None) -> list[Row]:
    """All rows of one file; `UnreadableError` where the file does not hold what its format promises."""
    name = method_of(path, method)
    golden = Golden(path)
    try:
        return import_module(f"tests.parity.golden_{name}").check(golden)
    except UnreadableError:
        raise
    except Exception as error:  # a file of the wrong shape fails anywhere inside; all of it means "cannot be read"
        text = " ".join(str(error).split())
        raise UnreadableError(
            f"{path}: does not fit the format of '{name}' ({type(error).__name__}: {text})"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=sorted(METHODS), help="default: the one whose name begins the file's stem")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    code = 0
    for path in options.files:
        try:
            rows = check_file(path, options.method)
        except UnreadableError as error:
            print(f"{error}", file=sys.stderr)
            code = 2
            continue
        bad = [row for row in rows if not row.good]
        print(f"{path}: {len(rows)} tensors, {len(bad)} past tolerance")
        for row in rows:
            print(f"  {'ok ' if row.good else 'BAD'} {row.error:10.3e}  (allowed {row.tolerance:.1e})  {row.name}")
        if bad:
            code = max(code, 1)
    return code


if __name__ == "__main__":
    sys.exit(main())
