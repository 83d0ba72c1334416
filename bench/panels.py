"""What a picture of a record shows, decided before anything is drawn: one panel for each scenario.

Pure. A contender whose work a checker refused on an event loop has no place there, but a mark with
the reason; one that the scenario was not asked of is not in its panel. Above: `plots`, which draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .contenders import FLOOR, LOOPS, OURS
from .record import Record, shown
from .samples import Spread, summary

HEADLINES: Final[Mapping[str, tuple[str, str]]] = {
    "noop": ("further call, to 512", "each further call of a turn of 512"),
    "cancel": ("until quiet", "from the cancel until all is quiet"),
    "threads": ("stall", "longest stall of the event loop"),
    "cpu": ("wall", "the turn"),
    "run": ("run of one call", "a run of one call"),
    "streamed": ("wall", "the run, of which the stream is 1,000 ms"),
    "agents": ("1000: wall", "1,000 agents, wall time"),
    "import": ("with agents", "import time, with what agents take"),
    "sleep": ("beyond ideal", "time beyond that of one call"),
    "long": ("turn 2000", "the 2,000th turn of a run"),
    "agents_10000": ("10000: wall", "10,000 agents, wall time"),
    "footprint": ("on disk", "size of what is installed"),
    "nested": ("outer run", "the outermost of three nested runs"),
    "cancel_scope": ("until quiet", "from the deadline until all is quiet"),
    "cancel_timeout": ("until quiet", "from the deadline until all is quiet"),
    "raise": ("until raised", "from the exception until the turn has raised"),
    "hang": ("wall", "the turn, of which the timeout is 200 ms"),
    "conflict": ("wall over ideal", "time over that of the calls on the key"),
    "limits": ("wall over ideal", "time over that of 8 calls always at work"),
    "consumer": ("tools late", "by how much the last tool ends late"),
}
"""The metric by which a scenario is shown, and what its axis says; else its first, by its name."""
OVERVIEW: Final = ("noop", "run", "agents", "cancel", "streamed", "threads")
"""The scenarios of the small picture."""
DECADE: Final = 10.0


@dataclass(slots=True)
class Row:
    """One contender in one panel."""

    name: str
    title: str
    spreads: dict[str, Spread] = field(default_factory=dict)
    """By event loop."""
    failed: dict[str, str] = field(default_factory=dict)
    """By event loop: what its checker said."""

    @property
    def rank(self) -> Spread | None:
        """What it is sorted by: its time on the first event loop that it has one on."""
        return next(iter(self.spreads.values()), None)

    @property
    def mark(self) -> str:
        """What is written at its row if it failed; the loops are named if it did so on some."""
        sentences = list(dict.fromkeys(self.failed.values()))
        if not sentences:
            return ""
        where = f" on {', '.join(self.failed)}" if self.spreads else ""
        return f"failed{where}: {sentences[0]}"


@dataclass(frozen=True, slots=True)
class Panel:
    """One scenario, shown by one metric."""

    scenario: str
    title: str
    caption: str
    """What the axis shows, without its unit."""
    unit: str
    rows: tuple[Row, ...]
    """The fastest first; those that failed everywhere last."""
    floors: Mapping[str, float]
    """By event loop: the median of the floor."""

    @property
    def values(self) -> list[float]:
        """All that the axis must hold."""
        return [
            value
            for row in self.rows
            for each in row.spreads.values()
            for value in (each.low, each.median, each.high)
        ]

    @property
    def log(self) -> bool:
        """Whether the medians span more than a decade, so that a linear axis would hide most."""
        medians = [each.median for row in self.rows for each in row.spreads.values()]
        return min(self.values, default=0) > 0 and max(medians) / min(medians) > DECADE

    @property
    def label(self) -> str:
        """The text of the axis."""
        unit = self.unit.replace("us", "µs") or ("ratio" if " over " in self.caption else "number")
        return f"{self.caption} ({unit}{', log scale' if self.log else ''})"


def headline(scenario: str, units: Mapping[str, str]) -> str:
    """The metric by which *scenario* is shown."""
    chosen, _ = HEADLINES.get(scenario, ("", ""))
    return chosen if chosen in units else next(iter(units))


def panels(record: Record, only: Sequence[str] | None = None) -> list[Panel]:
    """One panel for each scenario that somebody was measured in, or of *only*, in their order."""
    known: Mapping[str, Any] = record.about["scenarios"]
    return [
        panel
        for name in (known if only is None else only)
        if name in known and (panel := _panel(record, name, known[name])).rows
    ]


def _panel(record: Record, name: str, about: Mapping[str, Any]) -> Panel:
    metric = about["headline"]
    by_loop = summary(record.samples, record.failures, record.skips).get(name, {})
    refused = {
        (each.contender, each.loop): each.sentence
        for each in reversed(record.failures)  # the first of them is kept
        if each.scenario == name
    }
    loops = sorted({*by_loop, *(loop for _, loop in refused)}, key=_place)
    rows = []
    for contender, title in record.about["titles"].items():
        row = Row(contender, title)
        for loop in loops:
            values = by_loop.get(loop, {}).get(metric, {}).get(contender, {})
            spread = Spread.of(values.values())
            if (contender, loop) in refused:
                row.failed[loop] = refused[contender, loop]
            elif spread is not None:
                row.spreads[loop] = spread
        if row.spreads or row.failed:
            rows.append(row)
    rows.sort(key=lambda row: math.inf if row.rank is None else row.rank.median)
    of_floor = next((row.spreads for row in rows if row.name == FLOOR), {})
    floors = {loop: spread.median for loop, spread in of_floor.items()}
    known_as, caption = HEADLINES.get(name, ("", ""))
    return Panel(
        name,
        about["title"].replace("`", ""),
        caption if known_as == metric else metric,
        about["units"][metric],
        tuple(rows),
        floors,
    )


def _place(loop: str) -> int:
    return LOOPS.index(loop) if loop in LOOPS else len(LOOPS)


def heading(record: Record) -> list[str]:
    """Where, with what, when and how it was measured: a line for each."""
    about = record.about
    machine = about["machine"]
    ours = about["contenders"].get(OURS) or next(iter(about["contenders"].values()), {})
    commit = f", commit {about['commit']}" if about["commit"] else ""
    packages = dict.fromkeys(
        f"{name}\N{NO-BREAK SPACE}{version}"
        for versions in about["contenders"].values()
        for name, version in versions.items()
        if version and name != "python"
    )
    quick = ", quick: few rounds, much noise" if about["quick"] else ""
    more = about.get("more", ())
    place = f"{machine['processor']}, {machine['cpus']} CPUs, {machine['system']}"
    return [
        f"{place}, Python {ours.get('python', 'unknown')}",
        f"{', '.join(packages)}{commit}",
        f"{about['began'][:10]}{quick}: {shown(about['command'])}",
        *(f"{each['began'][:10]}, more rounds: {shown(each['command'])}" for each in more),
    ]
