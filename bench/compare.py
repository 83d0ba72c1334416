"""Two commits in one run: how much each metric has changed, and how much would have been seen.

Pure: numbers in, verdicts out. The two commits are neighbours in each round, so whatever disturbs
the machine for longer than a moment disturbs both: each round gives one ratio, now over before, and
what is asked for is the median of these.

The interval is the classical one for a median, from order statistics (W. R. Thompson 1936; H. A.
David and H. N. Nagaraja, *Order Statistics*, 3rd ed., section 7.1). Of n rounds sorted by ratio,
the (k+1)th is above the true median only if at most k rounds came out below it, and each does so
with probability 1/2; so that chance is P(Binomial(n, 1/2) <= k), exactly, whatever the noise is:
no normality, no symmetry, no resampling, and up to k rounds may be as wrong as they like. (Ratios
or their logarithms: the order is the same.) What it needs is that rounds are independent.

Many metrics are compared at once, and one of them will always look bad. Each bound is taken at the
level `ALPHA` / number of comparisons (Bonferroni), which holds however they depend on each other:
if nothing has changed, the chance that *any* interval of the run lies wholly above 1 is at most
`ALPHA`, and the chance that one lies above 1 + threshold, which is what fails, is smaller still.
Too few rounds have no such bound at all: then nothing is claimed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

ALPHA: Final = 0.05
"""The chance, at most, that a run of equal commits has an interval that is wholly above 1."""
THRESHOLD: Final = 0.05
"""A change by less than this part is nobody's concern, however surely it is seen."""
SHORT: Final = 12
"""Rounds that a comparison takes at the least, unless it is told another number."""

REGRESSION: Final = "REGRESSION"
FASTER: Final = "faster"
SAME: Final = "no regression"
UNCLEAR: Final = "unclear"


@dataclass(frozen=True, slots=True)
class Change:
    """One metric on one event loop, now over before."""

    scenario: str
    metric: str
    loop: str
    ratios: tuple[float, ...]
    """One for each round that has both; sorted."""
    low: float
    high: float
    """The interval: 0 and infinity if there are too few rounds for one."""
    word: str

    @property
    def ratio(self) -> float:
        """The median; 1 if there are no rounds."""
        return median(self.ratios) if self.ratios else 1.0

    def seen_from(self, threshold: float) -> float:
        """The smallest ratio that this run would have called a regression, its noise given."""
        return (1 + threshold) * self.ratio / self.low if self.low > 0 else math.inf


def tolerated(rounds: int, level: float) -> int | None:
    """The largest k for which P(Binomial(rounds, 1/2) <= k) <= *level*; None if there is none."""
    below, found = 0, None
    for k in range(rounds + 1):
        below += math.comb(rounds, k)
        if below > level * 2**rounds:
            break
        found = k
    return found


def interval(values: Sequence[float], level: float) -> tuple[float, float]:
    """Bounds of the median of positive *values*; each is on the wrong side at most at *level*."""
    ordered = sorted(values)
    k = tolerated(len(ordered), level)
    return (0.0, math.inf) if k is None else (ordered[k], ordered[-1 - k])


def least_rounds(comparisons: int, spare: int = 0) -> int:
    """The rounds from which there are intervals, *spare* rounds of which may be wrong."""
    rounds = 1
    while (k := tolerated(rounds, ALPHA / max(1, comparisons))) is None or k < spare:
        rounds += 1
    return rounds


def rounds_for(comparisons: int) -> int:
    """As many rounds as a comparison should have: one may be spoilt, and it still tells."""
    return max(SHORT, least_rounds(comparisons, spare=1))


def changes(
    pairs: Mapping[tuple[str, str, str], Sequence[float]], threshold: float = THRESHOLD
) -> list[Change]:
    """Judge the ratios of each (scenario, metric, loop), all of them as one family."""
    level = ALPHA / max(1, len(pairs))
    made = []
    for cell, ratios in pairs.items():
        low, high = interval(ratios, level)
        made.append(Change(*cell, tuple(sorted(ratios)), low, high, _word(low, high, threshold)))
    return made


def _word(low: float, high: float, threshold: float) -> str:
    if low > 1 + threshold:
        return REGRESSION
    if high < 1 / (1 + threshold):
        return FASTER
    return SAME if high <= 1 + threshold else UNCLEAR


def regressions(made: Sequence[Change]) -> list[Change]:
    """Those that fail a run."""
    return [change for change in made if change.word == REGRESSION]


def noise(made: Sequence[Change], threshold: float = THRESHOLD) -> str:
    """What the run as a whole can and cannot say, in Markdown."""
    if not made:
        return "Nothing was measured on both sides."
    claim = (
        f"{len(made)} comparisons; if nothing has changed, the chance that any interval lies "
        f"wholly above 1 is at most {ALPHA:.0%}. A regression is one wholly above "
        f"{1 + threshold:g}."
    )
    lines = [claim]
    seen = sorted(change.seen_from(threshold) for change in made if change.low > 0)
    if seen:
        half = seen[(len(made) - 1) // 2] if len(seen) > (len(made) - 1) // 2 else math.inf
        blind = sum(from_ >= 1.5 for from_ in seen) + len(made) - len(seen)
        lines.append(
            f"With this run's noise a slow-down of {_part(seen[0])} would have been seen in the "
            f"quietest metric, of {_part(half)} in half of them; {blind} would have missed 50%."
        )
    few = [change for change in made if change.low == 0]
    if few:
        lines.append(
            f"{len(few)} have too few rounds for an interval: {least_rounds(len(made))} are needed."
        )
    return "\n".join(lines)


def _part(ratio: float) -> str:
    return f"{ratio - 1:.1%}" if math.isfinite(ratio) else "any size"
