"""Which packages are here, which extras, and under which licences, from what pip has written down."""

from collections.abc import Iterator
from importlib import metadata
from typing import Any

__all__ = ["PACKAGE", "dependencies", "extras", "missing", "versions"]

PACKAGE = "sowa"
SHOWN = ("sowa", "torch", "torchvision", "lightning", "timm", "open-clip-torch", "numpy", "pillow", "safetensors")
FOR_WORK_ON_IT = ("test", "dev")
"""Extras that change nothing for a user."""


def versions() -> dict[str, str | None]:
    """Name -> version of the packages that results depend on; None where one is not installed."""
    return {name: _version(name) for name in SHOWN}


def extras() -> dict[str, dict[str, Any]]:
    """Extra -> `present`, what is `missing` of it, and how to `get` it."""
    found: dict[str, list[str]] = {}
    for requirement, extra in _requirements(PACKAGE):
        if extra and extra not in FOR_WORK_ON_IT:
            found.setdefault(extra, [])
            if not _fits(requirement):
                found[extra].append(str(requirement).partition(";")[0].strip())
    return {
        extra: {"present": not lacking, "missing": lacking, "get": f"pip install '{PACKAGE}[{extra}]'"}
        for extra, lacking in sorted(found.items())
    }


def missing() -> list[str]:
    """What the package needs and does not find in the version it needs."""
    return [
        f"{str(requirement).partition(';')[0].strip()} (found: {_version(requirement.name) or 'none'})"
        for requirement, extra in _requirements(PACKAGE)
        if not extra and not _fits(requirement)
    ]


def dependencies() -> list[dict[str, str]]:
    """Every installed package that this one needs, directly or not, extras that are present included: its name, version
    and licence as it states it."""
    seen: dict[str, dict[str, str]] = {}
    waiting = [PACKAGE]
    while waiting:
        for requirement, extra in _requirements(waiting.pop()):
            name = requirement.name.lower().replace("_", "-")
            if name in seen or name == PACKAGE or extra in FOR_WORK_ON_IT:
                continue
            try:
                about = metadata.distribution(requirement.name)
            except metadata.PackageNotFoundError:
                continue
            seen[name] = {"name": about.metadata["Name"], "version": about.version, "licence": licence_stated(about)}
            waiting.append(requirement.name)
    return [seen[name] for name in sorted(seen)]


def licence_stated(about: metadata.Distribution) -> str:
    """In a few words: the expression, else the classifiers, else the first line of the text; `not stated` without."""
    facts = about.metadata
    if expression := facts.get("License-Expression"):
        return expression.strip()
    marks = [mark for mark in facts.get_all("Classifier") or () if mark.startswith("License ::")]
    named = [mark.rpartition("::")[2].strip() for mark in marks if mark.count("::") > 1 or "OSI" not in mark]
    if named:
        return ", ".join(dict.fromkeys(named))
    lines = [line.strip() for line in (facts.get("License") or "").splitlines() if line.strip()]
    return lines[0][:80] if lines else "not stated"


def _requirements(name: str) -> Iterator[tuple[Any, str]]:
    """(requirement, extra) of an installed package; those of other systems and Pythons are left out.

    Of another package's extras none are followed: which of them were asked for is written nowhere.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.name.lower() == PACKAGE:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement, ""
        elif name == PACKAGE:
            known = metadata.metadata(name).get_all("Provides-Extra") or []
            yield from ((requirement, extra) for extra in known if requirement.marker.evaluate({"extra": extra}))


def _fits(requirement: Any) -> bool:
    version = _version(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
