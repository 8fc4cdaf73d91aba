"""The commands `sowa doctor`, `sowa list` and `sowa licenses`: about this machine, the tables, and what may be used."""

import json
import os
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

__all__ = ["doctor", "licenses", "list_names"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
GIGABYTE = 1 << 30


def doctor(
    as_json: AsJson = False,
    quick: Annotated[bool, typer.Option("--quick", help="Without the self-test: nothing heavy is loaded.")] = False,
) -> None:
    """Look at this machine: what is installed, cached and reachable, and whether it works. Exit code 1: it does not."""
    from sowa.about.doctor import examine

    facts = examine(with_test=not quick, say=None if as_json else lambda line: typer.echo(line, err=True))
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        typer.echo("\n".join(_told(facts)))
    raise typer.Exit(0 if facts["usable"] else 1)


def list_names(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="backbones, models, datasets or layouts.")],
    as_json: AsJson = False,
) -> None:
    """List what can be asked for by name, one line each."""
    from sowa.about.tables import listing

    rows = listing(what)
    typer.echo(json.dumps(rows, indent=2) if as_json else "\n".join(_columns(rows)))


def licenses(as_json: AsJson = False) -> None:
    """Licences of this package, of weights, of data sets, and of the packages it is built on."""
    from sowa.about.licences import all_licences

    found = all_licences()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for section, rows in found.items():
        keys = (
            ("name", "version", "licence", "about") if section != "data sets" else ("name", "licence", "about", "page")
        )
        typer.echo(f"{section}\n")
        lines = _columns([{key: str(row[key]) for key in keys if row.get(key)} for row in rows], heads=False)
        typer.echo("\n".join(f"  {line}" for line in lines) + "\n")
    typer.echo("What to cite for a data set: sowa licenses --json, or sowa data get NAME.")


def _columns(rows: Sequence[dict[str, str]], *, heads: bool = True) -> list[str]:
    """Rows as lines; every column but the last is as wide as its longest value."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    shown = [dict(zip(keys, keys, strict=True))] * heads + list(rows)
    widths = {key: max(len(row.get(key, "")) for row in shown) for key in keys[:-1]}
    return ["  ".join(f"{row.get(key, ''):{widths.get(key, 0)}}" for key in keys).rstrip() for row in shown]


# -------------------------------------------------------------------------------------------------------------- doctor


def _told(facts: dict[str, Any]) -> list[str]:
    """The facts as lines, problems and advice last."""
    lines = [
        ("sowa", facts["packages"].get("sowa") or "run from its source"),
        ("python", f"{facts['python']} on {facts['platform']}"),
        ("packages", _pairs((k, v or "missing") for k, v in facts["packages"].items() if k != "sowa")),
        *_extras(facts["extras"]),
        *_machine(facts),
        ("cache", _cache(facts["cache"])),
        *_weights(facts["weights"]),
        ("model hub", facts["network"]["hub"]),
        ("package index", facts["network"]["index"]),
        *([("environment", _pairs(facts["variables"].items(), "="))] if facts["variables"] else []),
        *([("self-test", _test(facts["self_test"]))] if "self_test" in facts else []),
    ]
    told = [f"{head:14} {words}" for head, words in lines]
    told += ["", *(f"problem: {line}" for line in facts["problems"])] if facts["problems"] else []
    told += ["", *(f"advice: {line}" for line in facts["advice"])] if facts["advice"] else []
    return [*told, "", "usable" if facts["usable"] else "not usable as it is"]


def _pairs(items: Iterable[tuple[str, str]], sign: str = " ") -> str:
    return ", ".join(f"{key}{sign}{value}" for key, value in items)


def _extras(extras: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    present = [name for name, one in extras.items() if one["present"]]
    lines = [("extras", ", ".join(present) or "none")]
    return lines + [("", f"not here: {name}; {one['get']}") for name, one in extras.items() if not one["present"]]


def _machine(facts: dict[str, Any]) -> list[tuple[str, str]]:
    cpu, memory, test = facts["processor"], facts["memory"], facts.get("self_test", {})
    has = [name for name, there in cpu["features"].items() if there]
    cores = f"{cpu['cores']} cores, " if cpu["cores"] else ""
    limit = f", limited to {cpu['limit']:.3g}" if cpu["limit"] else ""
    lines = [
        ("processor", f"{cpu['name'] or cpu['architecture']}: {cores}{cpu['threads']} threads{limit}"),
        (
            "",
            f"features: {', '.join(has) or 'none of those that matter'}" if cpu["features"] else "features: not known",
        ),
        ("memory", _memory(memory)),
    ]
    if "gpus" in test:
        gpu = ", ".join(test["gpus"]) or ("Apple GPU (mps)" if test["mps"] else "none that torch can use")
        lines.append(("gpu", gpu))
    return lines


def _memory(memory: dict[str, int | None]) -> str:
    if memory["total"] is None:
        return "not known"
    words = f"{memory['total'] / GIGABYTE:.1f} GB"
    words += "" if memory["available"] is None else f", {memory['available'] / GIGABYTE:.1f} GB free"
    return words + ("" if memory["limit"] is None else f", limited to {memory['limit'] / GIGABYTE:.1f} GB")


def _cache(cache: dict[str, Any]) -> str:
    free = "" if cache["free"] is None else f", {cache['free'] / GIGABYTE:.1f} GB free"
    state = "" if cache["exists"] else " (nothing in it yet)"
    return f"{cache['path']}{state}{free}{'' if cache['writable'] else ', cannot be written'}"


def _weights(weights: dict[str, str | None]) -> list[tuple[str, str]]:
    lines = []
    for name, place in weights.items():
        if place != "drawn":
            words = f"{name}: {os.path.basename(place)}" if place else f"{name}: not in the cache"
            lines.append(("weights" if not lines else "", words))
    return lines


def _test(test: dict[str, Any]) -> str:
    if not test.get("ok"):
        return f"failed: {test.get('error') or 'the painted defect was not found'}"
    return f"ok, {test['seconds']:.1f} s (libraries loaded in {test['loaded_seconds']:.1f} s)"
