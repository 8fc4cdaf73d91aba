"""All benchmarks of speed and memory, one after the other, into one page.

    python benchmarks/run.py [--quick] [--only NAME,NAME] [--out docs/performance]

`make bench` and `make bench-quick` call this. Each script of `SCRIPTS` runs in a process of its own, in this order;
its JSON stays in OUT/NAME.json and its ratios go into OUT/README.md, with the seconds of each script and of all, the
date and what kind of machine it was; what stands on that page before "The last run" is written by hand and kept. A
script that fails is named on the page with its last line, keeps its older JSON, and does not stop the others; the exit
code is then 1. `--quick` is for a glance: it writes to runs/bench-quick unless `--out` says otherwise.

How a script joins: add a row to `SCRIPTS`. The contract is

    python benchmarks/NAME.py --json PATH [--quick]

which writes `{"name": NAME, "rows": [{...}, ...], "ratios": {"what_to_what": 1.23, ...}, "hardware": machine_facts()}`
to PATH. Rows hold what was measured, ratios the few numbers that mean something on another machine: compare within one
run, alternate the sides, take medians. `--quick` must end within half a minute or so on two cores. A script that does
not know `--quick` or writes another form is given `arguments` and `quick_arguments` here; its JSON is kept as it is.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from sowa.backbones.precision import native_bf16
from sowa.metrics import write_json
from sowa.training.record import machine_facts

HERE = Path(__file__).parent
HEADING = "## The last run"
"""Of what is written anew on the page."""
LIMIT = 1200
"""Seconds after which a script is given up."""


class Script(NamedTuple):
    about: str
    arguments: tuple[str, ...] = ()
    quick_arguments: tuple[str, ...] = ("--quick",)
    glance: bool = True
    """False: says little in half a minute; `--quick` leaves it out unless `--only` names it."""


SCRIPTS: dict[str, Script] = {
    "startup": Script("Cold processes: help, import, first prediction."),
    "engine": Script("SOWA on ViT-L/14 at 336 px against the plain eager composition and the processor's peak."),
    "stream": Script(
        "Files to results on the offline backbone at 224 px.", ("--model", "sowa_plus,sowa", "--count", "64")
    ),
    "drift": Script("Scores and maps in bfloat16 and in int8 against float32.", ("--draws", "3"), glance=False),
    "memory_bank": Script("The search of a large memory bank: blocks, coreset, approximate index."),
    "metrics": Script(
        "Exact pixel metrics against a loop of 200 thresholds.", (), ("--images", "40", "--repeats", "3")
    ),
    "token_cache": Script(
        "Cached tokens against computing them: ViT-L/14 at 336 px, with --quick a tiny backbone.", ("--images", "8")
    ),
    "train_step": Script("A training step on cached tokens: ViT-L/14 at 336 px, with --quick a tiny backbone."),
    "protocol": Script("The paper's auxiliary protocol, timed on a part: ViT-L/14, with --quick a tiny backbone."),
    "decode": Script(
        "Decoding that scales while it decodes against plain Pillow.", (), ("--rounds", "1"), glance=False
    ),
    "flat_memory": Script("Memory of a long stream.", ("--count", "3000"), ("--count", "1000")),
}


def run_one(name: str, script: Script, path: Path, *, quick: bool) -> tuple[str | None, float]:
    """(last line of its error or None, seconds). The JSON appears whole or the older one stays."""
    beside = path.with_name(f".{path.name}.new")
    words = [*script.arguments, *(script.quick_arguments if quick else ())]
    command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(beside), *words]
    began = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
        error = None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no answer"])[-1]
    except subprocess.TimeoutExpired:
        error = f"not done after {LIMIT} seconds"
    if error is None and not beside.exists():
        error = "wrote no JSON"
    if error is None:
        beside.replace(path)
    beside.unlink(missing_ok=True)
    return error, time.perf_counter() - began


def ratios_of(content: Any) -> dict[str, float]:
    """Its ratios; of an older script, what it calls a ratio."""
    if isinstance(content, Mapping) and isinstance(content.get("ratios"), Mapping):
        return dict(content["ratios"])
    rows = content if isinstance(content, list) else [content]
    found = {}
    for number, row in enumerate(rows, start=1):
        named = "_".join(str(row[key]).strip(".") for key in ("format", "width") if key in row) or str(number)
        label = f"_{named}" if len(rows) > 1 else ""
        found |= {f"{key}{label}": value for key, value in row.items() if key == "ratio" or "_to_" in key}
    return found


def machine() -> dict[str, Any]:
    facts = machine_facts()
    return {"cores": facts["cores"], "native_bf16": native_bf16(), "versions": facts["versions"]}


def page(results: Mapping[str, Any], errors: Mapping[str, str], seconds: Mapping[str, float], command: str) -> str:
    """The tables of ratios, below their heading."""
    facts = machine()
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    kind = f"{facts['cores']} cores, {'with' if facts['native_bf16'] else 'without'} bfloat16 products of its own"
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    took = f" {sum(seconds.values()) / 60:.1f} minutes." if seconds else ""
    lines = [HEADING, "", f"`{command}`, {date}.{took} {kind}; {versions}.", ""]
    for name, script in SCRIPTS.items():
        if name not in results and name not in errors:
            continue
        took = f" ({seconds[name]:.0f} s)" if name in seconds else ""
        lines += [f"### {name}{took}", "", script.about, ""]
        if name in errors:
            lines += [f"Failed: {errors[name]}", ""]
            continue
        lines += ["| ratio | value |", "|---|---|"]
        lines += [f"| {key} | {value:.3g} |" for key, value in ratios_of(results[name]).items()]
        lines.append("")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="minutes instead of half an hour")
    parser.add_argument("--only", help="names by comma; the others keep their older numbers on the page")
    parser.add_argument("--out", type=Path, help="folder of the page (docs/performance, quick: runs/bench-quick)")
    parser.add_argument("--page", action="store_true", help="measure nothing: write the page from the JSON at hand")
    options = parser.parse_args(argv)
    out = options.out or Path("runs/bench-quick" if options.quick else "docs/performance")
    out.mkdir(parents=True, exist_ok=True)
    glance = [name for name, script in SCRIPTS.items() if script.glance]
    chosen = options.only.split(",") if options.only else glance if options.quick else list(SCRIPTS)
    if unknown := [name for name in chosen if name not in SCRIPTS]:
        parser.error(f"no benchmark '{unknown[0]}': choose from {', '.join(SCRIPTS)}")
    errors, seconds = {}, {}
    for name in () if options.page else chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        error, seconds[name] = run_one(name, SCRIPTS[name], out / f"{name}.json", quick=options.quick)
        if error is not None:
            errors[name] = error
        print(f"{name}: {error or 'done'} ({seconds[name]:.0f} s)", file=sys.stderr, flush=True)
    results = {
        name: json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        for name in SCRIPTS
        if name not in errors and (out / f"{name}.json").exists()
    }
    words = ["make bench-quick" if options.quick else "make bench"]
    command = words[0] if not options.only else f"python benchmarks/run.py --only {options.only}"
    if options.page:
        command = "python benchmarks/run.py --page (the JSON that was at hand)"
    place = out / "README.md"
    words_by_hand = place.read_text(encoding="utf-8").partition(HEADING)[0] if place.exists() else ""
    place.write_text(words_by_hand + page(results, errors, seconds, command), encoding="utf-8")
    write_json(
        out / "machine.json", machine() | {"seconds": seconds, "total_seconds": sum(seconds.values()), "failed": errors}
    )
    print(f"wrote {out / 'README.md'}, {sum(seconds.values()):.0f} s in all")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
