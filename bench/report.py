"""From samples to tables: medians over rounds, their spread, ratios, and whether a figure is kept.

Pure: samples in, text out. A ratio is taken within each round, between processes that ran one right
after the other, and then its median; what disturbs a whole round disturbs both of its sides.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from sys import stdlib_module_names
from typing import Any

from . import against, compare
from .contenders import CONTENDERS, FLOOR, KNOWN, OURS
from .scenarios import IMPORT, SCENARIOS
from .turns import Figure


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


def ratio(of_metric: dict[str, dict[int, float]], contender: str) -> Spread | None:
    """*contender* over the floor, round by round; None without one above 0."""
    other = of_metric.get(FLOOR, {})
    mine = of_metric.get(contender, {})
    return Spread.of(mine[each] / other[each] for each in mine if other.get(each, 0) > 0)


def verdicts(found: Found) -> list[Verdict]:
    """Every figure for which there are samples."""
    made = []
    for scenario in (*SCENARIOS.values(), IMPORT):
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
    threshold = against.threshold_of(about)
    made = against.changes(found, about)
    if made or "compare" in about:
        rows = table(against.HEADER, against.rows(made, threshold))
        parts.append(f"## Against before\n\n{compare.noise(made, threshold)}\n\n{rows}")
    # What this checkout knows, and over it what the record says of itself.
    titles = {each.name: each.title for each in CONTENDERS} | about.get("titles", {})
    scenarios = {
        each.name: {"title": each.title, "units": each.units}
        for each in (*SCENARIOS.values(), IMPORT)
    } | about.get("scenarios", {})
    parts.extend(
        f"## {each['title']}\n\n" + _contenders(found[name], each["units"], titles)
        for name, each in scenarios.items()
        if name in found
    )
    if OURS in modules and "known" in modules:
        parts.append(_modules(modules[OURS], modules["known"]))
    if skips:
        lines = [
            f"* {each.contender}, {each.scenario}, {each.loop}: {each.reason}" for each in skips
        ]
        parts.append("## Not measured\n\n" + "\n".join(lines))
    if failures:
        lines = [
            f"* {each.contender}, {each.scenario}, {each.loop}, round {each.round}: {each.sentence}"
            for each in failures
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
        units = IMPORT.units if each.scenario == IMPORT.name else SCENARIOS[each.scenario].units
        unit = units[each.metric]
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


def _contenders(loops: dict[str, Any], units: dict[str, str], titles: dict[str, str]) -> str:
    rows = []
    for loop, metrics in loops.items():
        for metric, unit in units.items():
            for contender, title in titles.items():
                of_metric = metrics.get(metric, {})
                spread = Spread.of(of_metric.get(contender, {}).values())
                if spread is not None:
                    span = f"{_value(spread.low, '')} to {_value(spread.high, unit)}"
                    times = _times(ratio(of_metric, contender))
                    value = _value(spread.median, unit)
                    where = "" if loop == "none" else loop
                    rows.append([metric, where, title, value, span, times])
    return table(["", "loop", "contender", "median", "spread", "x floor"], rows)


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
