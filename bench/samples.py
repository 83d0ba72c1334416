"""What was measured, put in order: medians over rounds, their spread, ratios, kept figures.

Pure. A ratio is taken within each round, and then its median: what disturbs a whole round disturbs
both of its sides. Above: `report`, `record` and the pictures. Below: contenders and scenarios.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Final

from .contenders import CONTENDERS, FLOOR, OURS
from .scenarios import EVERY
from .turns import Figure

PEERS: Final = frozenset(each.name for each in CONTENDERS if each.peer)


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

    @property
    def cell(self) -> tuple[str, str, str]:
        """What was not measured."""
        return self.contender, self.scenario, self.loop


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
    ours: Spread | None
    floor: Spread | None
    ratio: Spread | None
    must_be: str
    word: str


# scenario -> loop -> metric -> contender -> value of each round
Found = dict[str, dict[str, dict[str, dict[str, dict[int, float]]]]]


def summary(
    samples: Iterable[Sample], failures: Iterable[Failure] = (), skips: Iterable[Skip] = ()
) -> Found:
    """Put samples in their places. Who failed in a round, or was left out, has none there."""
    without = {each.cell for each in (*failures, *skips)}
    found: Found = defaultdict(
        lambda: defaultdict(lambda: defaultdict(lambda: defaultdict(dict[int, float])))
    )
    for sample in samples:
        if (sample.contender, sample.scenario, sample.loop) in without:
            continue
        for metric, value in sample.metrics.items():
            of_metric = found[sample.scenario][sample.loop][metric]
            of_metric[sample.contender][sample.round] = value
    return found


def ratio(of_metric: dict[str, dict[int, float]], contender: str) -> Spread | None:
    """*contender* over the floor, round by round; None without one above 0."""
    other = of_metric.get(FLOOR, {})
    mine = of_metric.get(contender, {})
    return Spread.of(mine[each] / other[each] for each in mine if other.get(each, 0) > 0)


def verdicts(found: Found, failures: Iterable[Failure] = ()) -> list[Verdict]:
    """Every figure for which there are samples, or would be if no check had failed."""
    refused = {fail.cell for fail in failures}
    made = []
    for scenario in EVERY.values():
        for figure in scenario.figures:
            loops = found.get(scenario.name, {})
            failed = [loop for who, name, loop in refused if (who, name) == (OURS, scenario.name)]
            for loop in dict.fromkeys((*loops, *sorted(failed))):
                of_metric = loops.get(loop, {}).get(figure.metric, {})
                ours = Spread.of(of_metric.get(OURS, {}).values())
                times = ratio(of_metric, OURS)
                if ours is None and loop not in failed:
                    continue
                unit = scenario.units[figure.metric]
                floor = Spread.of(of_metric.get(FLOOR, {}).values())
                must_be = f"<= {figure.most:g}{' x floor' if figure.ratio else f' {unit}'}".rstrip()
                word = _word(figure, times if figure.ratio else ours)
                if loop in failed:
                    word = "FAIL: a check failed"
                elif figure.ratio and (FLOOR, scenario.name, loop) in refused:
                    word = "no floor that passed its check"
                made.append(
                    Verdict(scenario.name, figure.metric, loop, ours, floor, times, must_be, word)
                )
    return made


def _word(figure: Figure, value: Spread | None) -> str:
    if value is None:
        return "no floor in this run"
    word = "FAIL" if value.median > figure.most else "pass"
    if value.low <= figure.most < value.high:
        return f"{word}, not in every round"
    if word == "pass" and figure.strive is not None and value.median > figure.strive:
        return f"pass (short of {figure.strive:g})"
    return word


def errors(failures: Iterable[Failure]) -> list[Failure]:
    """Those that say that this is no benchmark: what a checker finds of a peer is a result."""
    return [each for each in failures if each.contender not in PEERS]
