"""The events of a call, a turn and a run are ordered, and whoever is told of them changes nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import groupby
from typing import Any

import attrs
from hypothesis import given

from tests.support import Loop
from turnscope.events import (
    CallEvent,
    CallProgress,
    CallReady,
    CallSettled,
    CallStarted,
    ModelAnswered,
    ModelStarted,
    RunEvent,
    RunFinished,
    RunStarted,
    TextStreamed,
    TurnFinished,
)

from .generate import plans, share
from .generate_talks import CALM, ENDS, chats
from .machine import Machine, run
from .plans import Plan
from .story import assert_same
from .talker import Talker, perform
from .talks import Chat

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


# The events of runs.

WITHIN = (ModelStarted, TextStreamed, ModelAnswered, CallEvent, TurnFinished)


def runs_are_ordered(chat: Chat, loop: Loop) -> None:
    talker = perform(chat, loop)
    times = [event.time for event in talker.events]
    assert times == sorted(times)
    _nests(talker)
    runs = defaultdict(list)
    for event in talker.events:
        runs[event.run_id].append(event)
    for run_id, events in runs.items():
        assert isinstance(events[0], RunStarted) and isinstance(events[-1], RunFinished)
        assert not any(isinstance(each, RunStarted | RunFinished) for each in events[1:-1])
        assert len({event.parents for event in events}) == 1
        turns = [(turn, list(of_turn)) for turn, of_turn in groupby(events[1:-1], lambda e: e.turn)]
        assert [turn for turn, _ in turns] == list(range(len(turns)))
        for turn, of_turn in turns:
            _is_a_turn(talker, f"{talker.prompts.get(run_id)}.{turn}", of_turn)
    for ending in talker.endings.values():
        own = ending.run.run_id
        _is_read_whole(talker, ending.read, own, ending.result is not None)
        if chat.reader == "text" and ending.result is not None:
            told = [event.text for event in talker.told(TextStreamed) if event.run_id == own]
            assert "".join(ending.texts) == "".join(told)


def _nests(talker: Talker) -> None:
    """A run in a tool starts after, and finishes before, those above it."""
    under_way: set[str] = set()
    for event in talker.events:
        if isinstance(event, RunStarted):
            under_way.add(event.run_id)
        assert under_way.issuperset((*event.parents, event.run_id)), event
        if isinstance(event, RunFinished):
            under_way.remove(event.run_id)


def _is_a_turn(talker: Talker, place: str, events: list[RunEvent]) -> None:
    if isinstance(events[0], TurnFinished) and len(events) == 1:
        return  # it was ended before its request began
    ranks = [[isinstance(each, kind) for kind in WITHIN].index(True) for each in events]
    assert ranks == sorted(ranks), events
    assert ranks[0] == 0 and ranks[-1] == 4 and ranks.count(0) == ranks.count(4) == 1
    finished = events[-1]
    assert isinstance(finished, TurnFinished)
    answer = talker.talks[place.rpartition(".")[0]].answers
    turn = int(place.rpartition(".")[2])
    if ranks.count(2):
        text = "".join(each.text for each in events if isinstance(each, TextStreamed))
        assert text == answer[turn].text
    ready = [each.call for each in events if isinstance(each, CallReady)]
    assert [each.index for each in events if isinstance(each, CallReady)] == list(range(len(ready)))
    assert [result.call for result in finished.results] == ready, "results are in call order"
    calls = defaultdict(list)
    for each in events:
        if isinstance(each, CallEvent):
            calls[each.index].append(ORDER.index(type(each)))
    for of_call in calls.values():
        assert of_call in ([0, 3], [0, 1, 3]), of_call


def _is_read_whole(talker: Talker, read: list[RunEvent], run_id: str, whole: bool) -> None:
    """A reader is told what an observer is; pieces of text may come as one."""
    if not read:
        return
    told = [event for event in talker.events if run_id in (*event.parents, event.run_id)]
    joined, also = _joined(read), _joined(told)
    assert joined == also if whole else joined[:-1] == also[: len(joined) - 1]


def _joined(events: list[RunEvent]) -> list[Any]:
    """Texts that follow each other are one, wherever they were cut."""
    found: list[Any] = []
    for event in events:
        if isinstance(event, TextStreamed):
            last = found[-1] if found else None
            if isinstance(last, tuple) and last[:2] == (event.run_id, event.turn):
                found[-1] = (*last[:2], last[2] + event.text)
            else:
                found.append((event.run_id, event.turn, event.text))
        else:
            found.append(event)
    return found


def nobody_slows_a_tool(chat: Chat, loop: Loop) -> None:
    """Neither a reader that takes its time, nor the stream of a model, of this run or another."""
    alone = perform(attrs.evolve(chat, reader="wait", pause=0.0), loop)
    slow = perform(attrs.evolve(chat, pause=4.0), loop)
    assert _instants(slow) == _instants(alone)
    answered = {(event.run_id, event.turn): event.time for event in alone.told(ModelAnswered)}
    for event in alone.told(CallStarted):
        assert event.time == answered[event.run_id, event.turn], "a call waited for nothing"
    for place, ask in alone.asks.items():
        if ask.tool == "work" and (start := alone.at(place, "start")) is not None:
            assert alone.at(place, "end") == start + ask.span, f"{place} was slowed"
    ends = {(event.run_id, event.turn): event.time for event in alone.told(TurnFinished)}
    for event in alone.told(ModelStarted):
        if event.turn:
            assert event.time == ends[event.run_id, event.turn - 1], "a turn waited for nothing"


def _instants(talker: Talker) -> list[Any]:
    return sorted(
        (
            type(event).__name__,
            talker.prompts.get(event.run_id, ""),
            event.turn,
            getattr(event, "index", -1),
            event.time - talker.origin,
        )
        for event in talker.events
    )


@share(0.3)
@given(chat=chats(hit=("nothing", *ENDS), then=1))
def test_the_events_of_a_run_are_ordered(virtual_loop: Loop, chat: Chat) -> None:
    runs_are_ordered(chat, virtual_loop)


@share(0.15)
@given(chat=chats(**CALM, nest=5, answers=2, readers=("events", "text")))
def test_a_slow_reader_or_stream_slows_no_tool(virtual_loop: Loop, chat: Chat) -> None:
    nobody_slows_a_tool(chat, virtual_loop)
