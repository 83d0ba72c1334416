"""This commit against another one: from what was measured to the rows of a table.

Above: `report`, which prints them, and `output`, which makes an exit code of them. Below:
`compare`, which judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from . import compare
from .contenders import BEFORE, OURS

HEADER: Final = ("", "loop", "x before", "interval", "seen from", "so")

# scenario -> loop -> metric -> contender -> value of each round
Found = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Mapping[int, float]]]]]


def threshold_of(about: Mapping[str, Any]) -> float:
    """What counts as a change in the run that *about* is of."""
    threshold: float = about.get("compare", {}).get("threshold", compare.THRESHOLD)
    return threshold


def changes(found: Found, about: Mapping[str, Any]) -> list[compare.Change]:
    """Each metric over that of the other commit, judged; empty if none was measured."""
    pairs = {}
    for name, loops in found.items():
        units = about.get("scenarios", {}).get(name, {}).get("units", {})
        for loop, metrics in loops.items():
            for metric, of_metric in metrics.items():
                if units.get(metric, "").startswith("of "):
                    continue  # so many of what should be: less is not quicker
                now, before = of_metric.get(OURS, {}), of_metric.get(BEFORE, {})
                if rounds := now.keys() & before.keys():
                    pairs[name, metric, loop] = [
                        now[each] / before[each]
                        for each in sorted(rounds)
                        # Else there is no ratio: a stall that was not seen, for one.
                        if now[each] > 0 and before[each] > 0
                    ]
    return compare.changes(pairs, threshold_of(about))


def rows(made: Sequence[compare.Change], threshold: float) -> list[list[str]]:
    """One for each metric and event loop."""
    return [
        [
            f"{each.scenario}: {each.metric}",
            "" if each.loop == "none" else each.loop,
            f"{each.ratio:.2f} ({each.ratios[0]:.2f} to {each.ratios[-1]:.2f})"
            if each.ratios
            else "",
            f"{each.low:.3f} to {each.high:.3f}" if each.low > 0 else "too few rounds",
            f"{each.seen_from(threshold):.2f}" if each.low > 0 else "",
            each.word,
        ]
        for each in made
    ]
