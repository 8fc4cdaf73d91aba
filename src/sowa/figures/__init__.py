"""Pictures of verdicts and of the mechanism. Every heat map is on a fixed scale, never on its image's own.

Sheets are PNG, at most 1800 px wide, and appear on disk complete or not at all. Matplotlib is loaded when one is drawn.
"""

from sowa.figures.grid import GridRow, method_grid
from sowa.figures.heat import overlay
from sowa.figures.mechanism import MechanismRow, mechanism_figure
from sowa.figures.plots import contact_sheet, curves
from sowa.figures.verdicts import VerdictRow, verdict_panel, verdict_sheet

__all__ = [
    "GridRow",
    "MechanismRow",
    "VerdictRow",
    "contact_sheet",
    "curves",
    "mechanism_figure",
    "method_grid",
    "overlay",
    "verdict_panel",
    "verdict_sheet",
]
