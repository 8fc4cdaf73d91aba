"""Under which licences all of it may be used: the package, weights, data sets, and what it is built on."""

from importlib import metadata
from typing import Any

from sowa.about.installed import PACKAGE, dependencies, licence_stated
from sowa.about.tables import listing
from sowa.backbones.licences import LICENCES
from sowa.data.sources import SOURCES

__all__ = ["all_licences"]

OWN = "Apache-2.0"


def all_licences() -> dict[str, list[dict[str, Any]]]:
    """Section -> rows with `name` and `licence`."""
    try:
        own = metadata.distribution(PACKAGE)
        package = {"name": PACKAGE, "version": own.version, "licence": licence_stated(own)}
    except metadata.PackageNotFoundError:  # run from its source
        package = {"name": PACKAGE, "licence": OWN}
    weights = [{"name": row["name"], "licence": row["licence"], "about": row["about"]} for row in listing("backbones")]
    weights += [
        {"name": f"{backbone} ({begins}...)", "licence": licence}
        for (backbone, begins), licence in LICENCES.items()
        if begins and licence not in {row["licence"] for row in weights}
    ]
    data = [
        {"name": name, "licence": source.licence, "about": source.title, "page": source.page, "cite": list(source.cite)}
        for name, source in SOURCES.items()
    ]
    return {"package": [package], "weights": weights, "data sets": data, "dependencies": dependencies()}
