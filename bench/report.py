"""From samples to tables: medians over rounds, their spread, ratios, and whether a figure is kept.

Pure: samples in, text out. A ratio is taken within each round, between processes that ran one right
after the other, and then its median; what disturbs a whole round disturbs both of its sides.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from sys import stdlib_module_names
from typing import Any, Final

from .contenders import BEFORE, CONTENDERS, FLOOR, KNOWN, OURS
from .scenarios import EVERY
from .turns import Figure

PEERS: Final = frozenset(each.name for each in CONTENDERS if each.peer)
TITLES: Final = {
    each.name: f"{each.title} (floor)" if each.floor else each.title for each in CONTENDERS
}


@dataclass(frozen=True, slots=True)
class Sample:
    """The metrics of one process."""

    contender: str
    scenario: str
    loop: str
    round: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Failure:
    """A process whose work a checker refused, or that broke."""

    contender: str
    scenario: str
    loop: str
    round: int
    sentence: str

    @property
    def cell(self) -> tuple[str, str, str]:
        """What was measured."""
        return self.contender, self.scenario, self.loop


@dataclass(frozen=True, slots=True)
class Skip:
    """What could not be measured here, and why."""

    contender: str
    scenario: str
    loop: str
    reason: str


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, and what they spanned."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Of *values*; None if there are none."""
        them = sorted(values)
        return cls(median(them), them[0], them[-1]) if them else None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure on one event loop."""

    scenario: str
    metric: str
    loop: str
    ours: Spread
    floor: Spread | None
    ratio: Spread | None
    must_be: str
    word: str


# scenario -> loop -> metric -> contender -> value of each round
Found = dict[str, dict[str, dict[str, dict[str, dict[int, float]]]]]


def summary(samples: Iterable[Sample]) -> Found:
    """Put samples in their places."""
    found: Found = defaultdict(
        lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(dict[int, float])))
    )
    for sample in samples:
        for metric, value in sample.metrics.items():
            of_metric = found[sample.scenario][sample.loop][metric]
            of_metric[sample.contender][sample.round] = value
    return found


def ratio(of_metric: dict[str, dict[int, float]], contender: str, to: str = FLOOR) -> Spread | None:
    """*contender* over another, the floor, round by round; None without one above 0."""
    other = of_metric.get(to, {})
    mine = of_metric.get(contender, {})
    return Spread.of(mine[each] / other[each] for each in mine if other.get(each, 0) > 0)


def verdicts(found: Found) -> list[Verdict]:
    """Every figure for which there are samples."""
    made = []
    for scenario in EVERY.values():
        for figure in scenario.figures:
            for loop, metrics in found.get(scenario.name, {}).items():
                of_metric = metrics.get(figure.metric, {})
                ours = Spread.of(of_metric.get(OURS, {}).values())
                times = ratio(of_metric, OURS)
                if ours is None:
                    continue
                unit = scenario.units[figure.metric]
                floor = Spread.of(of_metric.get(FLOOR, {}).values())
                must_be = f"<= {figure.most:g}{' x floor' if figure.ratio else f' {unit}'}".rstrip()
                value = (None if times is None else times.median) if figure.ratio else ours.median
                word = _word(figure, value)
                made.append(
                    Verdict(scenario.name, figure.metric, loop, ours, floor, times, must_be, word)
                )
    return made


def _word(figure: Figure, value: float | None) -> str:
    if value is None:
        return "no floor in this run"
    if value > figure.most:
        return "FAIL"
    if figure.strive is not None and value > figure.strive:
        return f"pass (short of {figure.strive:g})"
    return "pass"


def errors(failures: Iterable[Failure]) -> list[Failure]:
    """Those that say that this is no benchmark: what a checker finds of a peer is a result."""
    return [each for each in failures if each.contender not in PEERS]


def report(
    about: dict[str, Any],
    found: Found,
    failures: Sequence[Failure],
    skips: Sequence[Skip],
    modules: dict[str, list[str]],
) -> str:
    """Everything as Markdown."""
    parts = [_head(about)]
    if kept := verdicts(found):
        parts.append("## Figures\n\n" + _figures(kept))
    if changes := _changes(found):
        parts.append("## Against before\n\n" + changes)
    for scenario in EVERY.values():
        refused = [
            each for each in failures if each.scenario == scenario.name and each.contender in PEERS
        ]
        if scenario.name in found or refused:
            rows = _contenders(found.get(scenario.name, {}), scenario.units, refused)
            parts.append(f"## {scenario.title}\n\n{rows}")
    if OURS in modules and "known" in modules:
        parts.append(_modules(modules[OURS], modules["known"]))
    if skips:
        lines = [
            f"* {each.contender}, {each.scenario}, {each.loop}: {each.reason}" for each in skips
        ]
        parts.append("## Not measured\n\n" + "\n".join(lines))
    if wrong := errors(failures):
        lines = [
            f"* {each.contender}, {each.scenario}, {each.loop}, round {each.round}: {each.sentence}"
            for each in wrong
        ]
        parts.append("## CHECKS FAILED\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _head(about: dict[str, Any]) -> str:
    machine = about["machine"]
    lines = [
        f"# Benchmark, {about['began']}{', quick' if about['quick'] else ''}",
        "",
        f"{machine['processor']}, {machine['cpus']} CPUs, {machine['system']}.",
        f"Load {machine['load']} before, {about['load at the end']} after; {about['seconds']} s.",
    ]
    for name, versions in about["contenders"].items():
        known = ", ".join(f"{each} {version}" for each, version in versions.items() if version)
        lines.append(f"* {name}: {known}")
    return "\n".join(lines)


def _figures(kept: Sequence[Verdict]) -> str:
    rows = []
    for each in kept:
        unit = EVERY[each.scenario].units[each.metric]
        rows.append(
            [
                f"{each.scenario}: {each.metric}",
                "" if each.loop == "none" else each.loop,
                "" if each.floor is None else _value(each.floor.median, unit),
                _value(each.ours.median, unit),
                _times(each.ratio),
                each.must_be,
                each.word,
            ]
        )
    return table(["figure", "loop", "floor", "turnscope", "x floor", "must be", "so"], rows)


def _changes(found: Found) -> str:
    """Each metric over that of another commit; empty if none was measured."""
    rows = []
    for scenario in EVERY.values():
        for loop, metrics in found.get(scenario.name, {}).items():
            for metric in scenario.units:
                times = ratio(metrics.get(metric, {}), OURS, BEFORE)
                if times is not None:
                    where = "" if loop == "none" else loop
                    rows.append([f"{scenario.name}: {metric}", where, _times(times)])
    return table(["", "loop", "x before"], rows) if rows else ""


def _contenders(loops: Mapping[str, Any], units: dict[str, str], refused: Sequence[Failure]) -> str:
    """Who took how long: on each event loop in the order of the first metric; last, who failed.

    A peer that failed in one round has no figures for that event loop, whatever the others say.
    """
    failed = {(each.loop, each.contender): each.sentence for each in reversed(refused)}
    rows = []
    for loop in dict.fromkeys((*loops, *(each.loop for each in refused))):
        where = "" if loop == "none" else loop
        metrics = loops.get(loop, {})
        without = {name for at, name in failed if at == loop}
        ranks = ranking(metrics.get(next(iter(units)), {}), without)
        for metric, unit in units.items():
            of_metric = metrics.get(metric, {})
            for name in ranks:
                spread = Spread.of(of_metric.get(name, {}).values())
                if spread is not None:
                    span = f"{_value(spread.low, '')} to {_value(spread.high, unit)}"
                    value = _value(spread.median, unit)
                    rows.append(
                        [metric, where, TITLES[name], value, span, _times(ratio(of_metric, name))]
                    )
        rows += [
            ["", where, TITLES[name], f"failed: {sentence}", "", ""]
            for (at, name), sentence in failed.items()
            if at == loop
        ]
    return table(["", "loop", "contender", "median", "spread", "x floor"], rows)


def ranking(of_metric: Mapping[str, dict[int, float]], without: Collection[str]) -> list[str]:
    """The contenders by their medians, the lowest first."""
    medians = {
        name: median(values.values()) for name, values in of_metric.items() if name not in without
    }
    return sorted(medians, key=medians.__getitem__)


def _modules(ours: Sequence[str], known: Sequence[str]) -> str:
    """What the import of turnscope brings that what it is built on does not."""
    more = Counter(name.partition(".")[0] for name in sorted(set(ours) - set(known)))
    own = {name: count for name, count in more.items() if name not in stdlib_module_names}
    standard = {name: count for name, count in more.items() if name in stdlib_module_names}
    lines = []
    for title, counts in (("packages", own), ("standard library", standard)):
        names = [
            name if count == 1 else f"{name} ({count})" for name, count in sorted(counts.items())
        ]
        lines.append(f"* {title}: {', '.join(names) or 'none'}")
    return f"Modules beyond those of `{KNOWN}`:\n\n" + "\n".join(lines)


def _value(value: float, unit: str) -> str:
    shown = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{shown} {unit}".rstrip()


def _times(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{spread.median:.2f} ({spread.low:.2f} to {spread.high:.2f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of one width, to be read as it stands."""
    widths = [max(len(row[at]) for row in (header, *rows)) for at in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )
