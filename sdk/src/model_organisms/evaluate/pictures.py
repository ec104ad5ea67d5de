"""Draws curves as PNG, from values alone and without a display; what the values are, its callers know.

The same values give the same bytes, as long as matplotlib and its fonts are the same.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model_organisms.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_WIDTH, _HEIGHT, _DPI = 5.0, 3.6, 110
"""Inches of a panel, and dots an inch."""
_ACROSS = 2


@dataclass(frozen=True, slots=True)
class Line:
    """One curve."""

    x: Sequence[float]
    y: Sequence[float]
    label: str = ""
    dashed: bool = False
    """A control's."""
    low: Sequence[float] = ()
    """Lower ends of intervals, one a point, and the upper likewise; a band is drawn between."""
    high: Sequence[float] = ()
    dots: bool = True


@dataclass(frozen=True, slots=True)
class Panel:
    """One set of axes."""

    title: str
    x: str
    """What is along the axis, with its unit."""
    y: str
    lines: Sequence[Line]
    marks: Sequence[float] = field(default=())
    """Upright lines."""
    diagonal: bool = False
    """A line from (0, 0) to (1, 1), on which a detector by chance lies."""


def draw(panels: Sequence[Panel], *, title: str = "") -> bytes:
    """Draw panels, two in a row.

    Args:
        panels: What to draw.
        title: Above them.

    Returns:
        A PNG file.

    Raises:
        InvalidArgument: There is nothing to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not panels:
        raise InvalidArgument("There is nothing to draw; give at least one panel.")
    across = min(_ACROSS, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(_WIDTH * across, _HEIGHT * down), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)  # pyplot would choose a backend for the whole process
    if title:
        figure.suptitle(title)
    for at, panel in enumerate(panels, 1):
        _panel(figure.add_subplot(down, across, at), panel)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _panel(axes: Axes, panel: Panel) -> None:
    for line in panel.lines:
        style, marker = ("--" if line.dashed else "-"), ("o" if line.dots else "")
        (drawn,) = axes.plot(line.x, line.y, style, marker=marker, markersize=3, linewidth=1.2, label=line.label)
        if line.low and line.high and len(line.x) == 1:  # a band would have no width
            axes.vlines(line.x, line.low, line.high, color=drawn.get_color(), linewidth=0.8)
        elif line.low and line.high:
            axes.fill_between(line.x, line.low, line.high, color=drawn.get_color(), alpha=0.15, linewidth=0)
    for mark in panel.marks:
        axes.axvline(mark, color="0.5", linewidth=0.8, linestyle=":")
    if panel.diagonal:
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel(panel.x, fontsize=8)
    axes.set_ylabel(panel.y, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(visible=True, linewidth=0.3)
    if any(line.label for line in panel.lines):
        axes.legend(fontsize=7)
