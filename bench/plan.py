"""What is measured, in which order: by whom, on which event loop, in which round.

Above: `run`, which does what is planned. Below: the contenders and the scenarios.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from . import compare, output
from .contenders import BEFORE, Contender
from .samples import Skip
from .scenarios import EVERY, FOOTPRINT, IMPORT, SMALL

if TYPE_CHECKING:
    from .processes import Bench

Jobs = Iterator[Callable[[], object]]


def plan(bench: Bench, asked: argparse.Namespace, chosen: Sequence[Contender]) -> Jobs:
    """Everything that is to be measured, in its order."""
    for name, scenario in EVERY.items():
        if name not in asked.scenario:
            continue
        effort = scenario.quick if asked.quick or bench.comparing else scenario.full
        if effort is None:
            print(f"{name}: not in a quick run", file=sys.stderr, flush=True)
            if bench.comparing:
                bench.skips.append(Skip(BEFORE, name, "all", "it takes too long for many rounds"))
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        taking = [contender for contender in chosen if contender.takes(name)]
        rounds = asked.rounds or effort.rounds
        if bench.comparing and asked.rounds is None:
            rounds = compare.rounds_for(output.comparisons(asked))
        if name == IMPORT.name:
            for contender in taking:
                bench.imported(contender, -1)
            bench.known()
        for round_ in range(rounds):
            # Each round begins with another contender: none is always the one after the rest.
            first = round_ % len(taking) if taking else 0
            turned = (*taking[first:], *taking[:first])
            if name in (IMPORT.name, FOOTPRINT.name):
                measure = bench.imported if name == IMPORT.name else bench.footprint
                yield from (partial(measure, contender, round_) for contender in turned)
                continue
            more = (str(rounds), str(effort.seconds))
            for loop in asked.loop:
                for contender in turned:
                    if loop in contender.loops and loop in scenario.loops:
                        yield partial(bench.measure, contender, name, loop, round_, *more)


def plan_in_small(bench: Bench, asked: argparse.Namespace, chosen: Sequence[Contender]) -> Jobs:
    """Everything once, to see that it runs: what takes longest comes first."""
    for contender in reversed(chosen):
        taken = [name for name in asked.scenario if contender.takes(name)]
        for loop in asked.loop:
            names = [name for name in taken if name in SMALL and loop in SMALL[name].loops]
            if names and loop in contender.loops:
                yield partial(bench.smoke, contender, loop, names)
        if FOOTPRINT.name in taken:
            yield partial(bench.footprint, contender, 0)
        if IMPORT.name in taken:
            yield lambda contender=contender: [bench.imported(contender, i) for i in (-1, 0)]
    if IMPORT.name in asked.scenario:
        yield bench.known
