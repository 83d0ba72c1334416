"""Draws a record: small multiples, one for each scenario, as SVG and PNG, the same bytes each time.

The only module that imports matplotlib. Everything is placed by hand, in inches: a panel is as high
as its rows, and nothing depends on how an engine of layouts feels. Below: `panels`, which decides
what there is to be seen.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from .contenders import OURS
from .panels import OVERVIEW, Panel, Row, heading, panels
from .record import Record
from .samples import Spread

# Okabe and Ito's colours, told apart by all eyes; and a shape for each, told apart in print.
LOOKS: Final = {"asyncio": ("#0072B2", "o"), "uvloop": ("#D55E00", "s"), "trio": ("#009E73", "^")}
OTHER: Final = ("#444444", "D")
INK: Final = "#222222"
FAINT: Final = "#777777"
RED: Final = "#A00020"

# Inches.
LABEL, AXIS, VALUE, GAP = 1.62, 2.45, 0.72, 0.22
WIDTH: Final = LABEL + AXIS + VALUE + GAP
ROW: Final = 0.22
ABOVE, BELOW = 0.46, 0.62
MARGIN: Final = 0.2
LINE: Final = 0.17
SHIFT: Final = 0.27
"""How far apart the event loops of one row are, in rows."""
SHORT, PARTLY = 64, 34
"""Letters of a failure that there is room for, in a row of its own and in one with marks."""

NOTE: Final = (
    "Fastest first, by the number at the right: the median on asyncio, or on the first event loop "
    "that there is. Who failed a check is not ranked; who cannot do the work is not shown."
)
SETTINGS: Final = {
    # The first comes with matplotlib; an SVG's reader may have the second, which is as wide.
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 7.5,
    "svg.fonttype": "none",  # text stays text: it can be searched, and read aloud
    "svg.hashsalt": "turnscope",  # the ids in the file would else be random
    "text.parse_math": False,  # a contender may be called anything
    "axes.linewidth": 0.6,
}


def draw(record: Record, folder: Path) -> list[Path]:
    """Write ``bench`` and ``overview``, each as SVG and PNG, to *folder*; returns the files."""
    made: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context():
        mpl.rcdefaults()  # not what its user has chosen for pictures of their own
        mpl.rcParams.update(SETTINGS)
        for name, only in (("bench", None), ("overview", OVERVIEW)):
            if shown := panels(record, only):
                figure = _figure(shown, heading(record))
                made += [_save(figure, folder / f"{name}.{kind}") for kind in ("svg", "png")]
    return made


def _save(figure: Figure, path: Path) -> Path:
    # When, and by which matplotlib, it was drawn would make each file another.
    nothing = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
    figure.savefig(path, format=path.suffix[1:], dpi=130, metadata=nothing)
    return path


@dataclass(frozen=True, slots=True)
class Grid:
    """Where each panel is, in inches from the left and from the top."""

    columns: int
    heights: tuple[float, ...]
    """Of each line of panels: that of its highest."""

    @classmethod
    def of(cls, shown: Sequence[Panel]) -> Grid:
        """As square as a page is: up to four columns."""
        n = len(shown)
        columns = next(c for c, most in ((1, 1), (2, 4), (3, 9), (4, n)) if n <= most)
        lines = [shown[at : at + columns] for at in range(0, n, columns)]
        return cls(columns, tuple(max(map(_height, line)) for line in lines))


def _height(panel: Panel) -> float:
    return ABOVE + ROW * len(panel.rows) + BELOW


def _figure(shown: Sequence[Panel], about: Sequence[str]) -> Figure:
    grid = Grid.of(shown)
    width = 2 * MARGIN + max(grid.columns, 2) * WIDTH
    letters = int((width - 2 * MARGIN) * 72 / (SETTINGS["font.size"] * 0.56))
    lines = [line for each in (*about, NOTE) for line in _wrap(each, letters)]
    head = MARGIN + 0.34 + LINE * len(lines) + 0.36
    height = head + sum(grid.heights) + MARGIN
    figure = Figure(figsize=(width, height), facecolor="white")

    def down(inches: float) -> float:
        return 1 - inches / height

    left = MARGIN / width
    title = "The same work by turnscope and by others: further left is better"
    figure.text(left, down(MARGIN), title, size=13, weight="bold", va="top", color=INK)
    for at, line in enumerate(lines):
        figure.text(left, down(MARGIN + 0.34 + LINE * at), line, va="top", color=FAINT)
    _legend(figure, shown, left, down(head - 0.1))
    at = head
    for line, line_height in enumerate(grid.heights):
        for column, panel in enumerate(shown[line * grid.columns : (line + 1) * grid.columns]):
            rows = ROW * len(panel.rows)
            x = MARGIN + column * WIDTH + LABEL
            bounds = (x / width, down(at + ABOVE + rows), AXIS / width, rows / height)
            _panel(figure.add_axes(bounds), panel)
        at += line_height
    return figure


def _legend(figure: Figure, shown: Sequence[Panel], x: float, y: float) -> None:
    loops = {loop for panel in shown for row in panel.rows for loop in row.spreads}
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=5, linewidth=1.2, label=loop)
        for loop, (colour, marker) in LOOKS.items()
        if loop in loops
    ]
    if loops - set(LOOKS):
        colour, marker = OTHER
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=4, label="no loop"))
    floor = "median of the bare AnyIO task group, for each event loop"
    handles.append(Line2D([], [], color=FAINT, linestyle="--", linewidth=0.9, label=floor))
    spread = "the line through a mark: lowest to highest round"
    handles.append(Line2D([], [], color="none", label=spread))
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(x, y),
        borderaxespad=0,
        ncols=len(handles),
        frameon=False,
        fontsize=8,
    )


def _panel(axes: Any, panel: Panel) -> None:
    axes.set_title(
        "\n".join(_clip(panel.title, 2 * 52, 52)),
        x=-LABEL / AXIS,
        ha="left",
        size=8.5,
        weight="bold",
        color=INK,
    )
    axes.set_ylim(len(panel.rows) - 0.5, -0.5)  # the first row on top
    axes.set_yticks([])
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel(panel.label, color=INK, labelpad=2)
    _scale(axes, panel)
    for loop, value in panel.floors.items():
        axes.axvline(
            value,
            color=_look(loop)[0],
            linestyle="--",
            linewidth=0.8,
            alpha=0.75,
            zorder=1,
            gid=f"floor-{panel.scenario}-{loop}",
        )
    for at, row in enumerate(panel.rows):
        _row(axes, panel, row, at)
    _marks(axes, panel)


def _row(axes: Any, panel: Panel, row: Row, at: int) -> None:
    ours = row.name == OURS
    across = axes.get_yaxis_transform()  # x in parts of the axis, y in rows
    if at % 2 == 0 or ours:
        axes.axhspan(at - 0.5, at + 0.5, color="#FFE9A8" if ours else "#F4F4F4", lw=0, zorder=0)
    axes.text(
        -0.03,
        at,
        row.title,
        transform=across,
        ha="right",
        va="center",
        weight="bold" if ours else "normal",
        color=INK if row.spreads else RED,
    )
    if row.rank is not None:
        text = _number(row.rank.median, panel.unit)
        colour = _look(next(iter(row.spreads)))[0]
        weight = "bold" if ours else "normal"
        axes.text(1.03, at, text, transform=across, va="center", color=colour, weight=weight)
    if row.mark:
        # Of a row with marks it takes the side on which there is more room.
        values = [_part_of(axes, each.median) for each in row.spreads.values()]
        right = bool(values) and sum(values) / len(values) < 0.5
        behind = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6}
        axes.text(
            0.99 if right else 0.02,
            at,
            _clip(row.mark, PARTLY if values else SHORT, SHORT)[0],
            transform=across,
            ha="right" if right else "left",
            va="center",
            size=6.8,
            color=RED,
            bbox=behind,
            zorder=5,
        )


def _part_of(axes: Any, value: float) -> float:
    """Where *value* is on the axis: 0 at its left end, 1 at its right one."""
    x, _ = axes.transAxes.inverted().transform(axes.transData.transform((value, 0)))
    return float(x)


def _marks(axes: Any, panel: Panel) -> None:
    """A mark for each median, with a line through it for its spread."""
    places: dict[str, list[tuple[float, Spread]]] = {}
    for at, row in enumerate(panel.rows):
        for place, (loop, spread) in enumerate(row.spreads.items()):
            y = at + (place - (len(row.spreads) - 1) / 2) * SHIFT
            places.setdefault(loop, []).append((y, spread))
    for loop, marks in places.items():
        colour, marker = _look(loop)
        ys = [y for y, _ in marks]
        lows, highs = [each.low for _, each in marks], [each.high for _, each in marks]
        axes.hlines(ys, lows, highs, color=colour, linewidth=1.1, zorder=3)
        medians = [each.median for _, each in marks]
        axes.plot(medians, ys, color=colour, linestyle="", marker=marker, markersize=3.6, zorder=4)


def _scale(axes: Any, panel: Panel) -> None:
    """A logarithmic axis where values span more than a decade, else one from 0."""
    values = panel.values
    if not values:
        axes.set_xlim(0, 1)
        axes.set_xticks([])
        return
    if panel.log:
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 1.3, max(values) * 1.3)
        steps = (1, 3) if max(values) / min(values) < 300 else (1,)
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=steps, numticks=12))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(min(0, *values), max(values) * 1.08 or 1)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.tick_params(axis="x", labelsize=7, color=FAINT, labelcolor=INK, length=2.5)
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.5, zorder=0)


def _look(loop: str) -> tuple[str, str]:
    return LOOKS.get(loop, OTHER)


def _number(value: float, unit: str) -> str:
    shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{shown} {unit.replace('us', 'µs')}".rstrip()


def _clip(text: str, most: int, width: int) -> list[str]:
    """*text* in lines of *width*, at most *most* letters of it, whole words."""
    if len(text) > most:
        text = f"{textwrap.shorten(text, most - 1, placeholder='')}…"
    return _wrap(text, width)


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)
