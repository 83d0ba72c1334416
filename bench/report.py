"""From samples to tables, in Markdown.

Pure: samples in, text out. Above: `output`. Below: `samples`, and `against` for another commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import median
from sys import stdlib_module_names
from typing import Any, Final

from . import against, compare
from .contenders import CONTENDERS, KNOWN, OURS
from .record import shown
from .samples import Failure, Found, Skip, Spread, Verdict, errors, ratio, verdicts
from .scenarios import EVERY

FLOORS: Final = frozenset(each.name for each in CONTENDERS if each.floor)


def report(
    about: dict[str, Any],
    found: Found,
    failures: Sequence[Failure],
    skips: Sequence[Skip],
    modules: dict[str, list[str]],
) -> str:
    """Everything as Markdown."""
    parts = [_head(about)]
    if kept := verdicts(found, failures):
        parts.append("## Figures\n\n" + _figures(kept))
    threshold = against.threshold_of(about)
    made = against.changes(found, about)
    if made or "compare" in about:
        rows = table(against.HEADER, against.rows(made, threshold))
        parts.append(f"## Against before\n\n{compare.noise(made, threshold)}\n\n{rows}")
    # What this checkout knows, and over it what the record says of itself.
    titles = {each.name: each.title for each in CONTENDERS} | about.get("titles", {})
    scenarios = {
        each.name: {"title": each.title, "units": each.units} for each in EVERY.values()
    } | about.get("scenarios", {})
    for name, each in scenarios.items():
        refused = [fail for fail in failures if fail.scenario == name]
        if name in found or refused:
            rows = _contenders(found.get(name, {}), each["units"], titles, refused)
            parts.append(f"## {each['title']}\n\n{rows}")
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
    lines += [
        f"And from {each['began']}, `{shown(each['command'])}`: load {each['load']} before, "
        f"{each['load at the end']} after; {each['seconds']} s."
        for each in about.get("more", ())
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
                "" if each.ours is None else _value(each.ours.median, unit),
                _times(each.ratio),
                each.must_be,
                each.word,
            ]
        )
    return table(["figure", "loop", "floor", "turnscope", "x floor", "must be", "so"], rows)


def _contenders(
    loops: Mapping[str, Any],
    units: Mapping[str, str],
    titles: Mapping[str, str],
    refused: Sequence[Failure],
) -> str:
    """Who took how long: on each event loop in the order of the first metric; last, who failed.

    Who failed in one round has no figures for that event loop, whatever the others say.
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
                        [
                            metric,
                            where,
                            _title(titles, name),
                            value,
                            span,
                            _times(ratio(of_metric, name)),
                        ]
                    )
        rows += [
            ["", where, _title(titles, name), f"failed: {sentence}", "", ""]
            for (at, name), sentence in failed.items()
            if at == loop
        ]
    return table(["", "loop", "contender", "median", "spread", "x floor"], rows)


def _title(titles: Mapping[str, str], name: str) -> str:
    return f"{titles[name]} (floor)" if name in FLOORS else titles[name]


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
