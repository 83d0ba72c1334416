"""The events of one call are ordered, and whoever is told of them changes nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from hypothesis import given

from tests.support import Loop
from turnscope.events import (
    CallEvent,
    CallProgress,
    CallReady,
    CallSettled,
    CallStarted,
    TurnFinished,
)

from .generate import plans, share
from .machine import Machine, run
from .plans import Plan
from .story import assert_same

ORDER = (CallReady, CallStarted, CallProgress, CallSettled)


def honest_order(plan: Plan, loop: Loop) -> None:
    machine = run(plan, loop)
    times = [event.time for event in machine.events]
    assert times == sorted(times)
    of_calls = defaultdict(list)
    finished = {}
    for event in machine.events:
        assert event.run_id not in finished, "an event came after its turn had finished"
        if isinstance(event, CallEvent):
            of_calls[event.run_id, event.index].append(event)
        elif isinstance(event, TurnFinished):
            finished[event.run_id] = event.results
    results = {id(result): place for place, _, result in machine.results()}
    assert sorted(id(result) for turn in finished.values() for result in turn) == sorted(results)
    for events in of_calls.values():
        ranks = [ORDER.index(type(event)) for event in events]
        assert ranks == sorted(ranks), ranks
        assert ranks[0] == 0 and ranks[-1] == 3 and ranks.count(0) == ranks.count(3) == 1
        result = events[-1].result
        assert ranks.count(1) == (result.started_at is not None)
        assert all(event.call is result.call for event in events)
        beats = [beat for beat in events if isinstance(beat, CallProgress)]
        assert [beat.value for beat in beats] == [beat.time - machine.origin for beat in beats]


def happened(machine: Machine) -> Counter[tuple[str, float]]:
    # Not their order: the calls of one tick start in any.
    return Counter((type(event).__name__, event.time - machine.origin) for event in machine.events)


class Failing:
    """An observer that raises each time."""

    def __init__(self) -> None:
        self.seen = 0

    def observe(self, event: Any) -> None:
        self.seen += 1
        raise RuntimeError("an observer's own trouble")


@share(0.5)
@given(plan=plans(timeout=5))
def test_the_events_of_a_call_are_ordered(virtual_loop: Loop, plan: Plan) -> None:
    honest_order(plan, virtual_loop)


def observers_change_nothing(plan: Plan, loop: Loop) -> None:
    alone = run(plan, loop)
    failing = Failing()
    watched = run(plan, loop, observers=(failing,))
    assert_same(watched.story, alone.story)
    assert happened(watched) == happened(alone)
    assert failing.seen >= len(watched.events), "an observer that failed is told of the rest"


@share(0.3)
@given(plan=plans(timeout=5))
def test_a_failing_observer_changes_nothing(virtual_loop: Loop, plan: Plan) -> None:
    observers_change_nothing(plan, virtual_loop)
