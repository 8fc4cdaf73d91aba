"""One self-contained HTML page about what was predicted or evaluated. `write_report` makes it; loads no torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sowa.report.page import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    if name == "write_report":
        from sowa.report.page import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
