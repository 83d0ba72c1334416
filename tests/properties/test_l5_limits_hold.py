"""No limiter is ever exceeded; nesting never deadlocks; who waits goes first in, first out."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict, deque

from hypothesis import given, settings

from tests.support import Loop
from turnscope.events import (
    CallSettled,
    CallStarted,
    ModelAnswered,
    ModelStarted,
    RunFinished,
    TurnEvent,
)

from . import generate_talks
from .generate import QUIET, plans, share
from .generate_talks import ENDS, chats
from .machine import Machine, run
from .plans import Pause, Plan, Sleep, Submit
from .retries import Trials, foretold, performed, trials
from .talker import perform
from .talks import Chat
from .threads import Batch, batches, run_batch

GROUPS = (None, "db", "web")
CALM = {**QUIET, "cleanup": 2}


def watch(machine: Machine) -> None:
    """What must hold at every instant; asked in each step that a body takes."""
    plan = machine.plan
    for limiter, capacity in {"calls": plan.calls, **dict(plan.groups)}.items():
        working = machine.working[limiter]
        assert working <= capacity, f"{working} calls work under {limiter}, which allows {capacity}"
    for name, limiter in machine.kernels[0].statistics().limiters.items():
        assert limiter.lent <= limiter.capacity, name
        idle = limiter.capacity - limiter.lent
        assert not (idle and limiter.waiting), f"{limiter.waiting} wait for {name}: {idle} are free"


def limits_hold(plan: Plan, loop: Loop) -> None:
    machine = run(plan, loop, audit=watch)
    # First in, first out, among the calls that pass the same limiters.
    began = {place: instant for instant, place in machine.began}
    queues = defaultdict(list)
    for place, submitted, _ in machine.results():
        if place in began:
            queues[submitted.plan.limit].append((submitted.order, began[place]))
    for limit, calls in queues.items():
        starts = [start for _, start in sorted(calls)]
        assert starts == sorted(starts), f"calls under {limit} overtook others: {starts}"


def nesting_cannot_deadlock(plan: Plan, loop: Loop) -> None:
    """Nothing happens to these: all complete, and a call that returns goes first."""
    machine = run(plan, loop, audit=watch)
    for place, _, result in machine.results():
        assert result.ok, f"{place!r}: {result}"
    for place, could, did in machine.parked:
        overtook = [other for start, other in machine.began if could < start < did]
        assert not overtook, f"{overtook} began while {place!r} waited to return"


def queues_are_as_foretold(plan: Plan, loop: Loop) -> None:
    machine = run(plan, loop, audit=watch)
    told = {place: machine.story.call(place).started for place, _, _ in machine.results()}
    assert told == queued(plan)


def queued(plan: Plan) -> dict[str, float]:
    """When each call of a flat turn begins: all submits and ends, gone through in order."""
    free = {"calls": plan.calls, **dict(plan.groups)}
    waiting: dict[str, deque[str]] = defaultdict(deque)
    routes, spans, began = {}, {}, {}
    happenings: list[tuple[float, int, str]] = []
    now = 0.0
    for op in plan.turn.ops:
        if isinstance(op, Pause):
            now += op.span
        elif isinstance(op, Submit):
            place = str(len(routes))
            # `calls` comes last: who waits for a group holds no slot that others could use.
            routes[place] = [*([op.call.limit] if op.call.limit else []), "calls"]
            steps = (step.span for step in op.call.body.steps if isinstance(step, Sleep))
            spans[place] = math.fsum([*steps, *op.call.body.cleanup])
            happenings.append((now, len(routes), place))
    heapq.heapify(happenings)
    passed: dict[str, int] = defaultdict(int)

    def advance(place: str, now: float) -> None:
        for limiter in routes[place][passed[place] :]:
            if free[limiter] <= 0:
                waiting[limiter].append(place)
                return
            free[limiter] -= 1
            passed[place] += 1
        began[place] = now
        heapq.heappush(happenings, (now + spans[place], 0, place))

    while happenings:
        now, is_submit, place = heapq.heappop(happenings)
        if is_submit:
            advance(place, now)
            continue
        for limiter in reversed(routes[place]):
            free[limiter] += 1
            if waiting[limiter]:
                advance(waiting[limiter].popleft(), now)
    return began


def threads_count_until_they_end(batch: Batch, loop: Loop) -> None:
    run = run_batch(batch, loop)
    assert run.most <= batch.threads, f"{run.most} threads worked, where {batch.threads} may"


def nested_runs_cannot_deadlock(chat: Chat, loop: Loop) -> None:
    """Nothing happens to these: all complete, however few calls and requests may be at work."""
    # That no more bodies and requests are at work than may be, `talker` asserts in every chat.
    talker = perform(chat, loop)
    for ending in talker.endings.values():
        assert ending.result is not None, ending.error
    for event in talker.told(CallSettled):
        assert event.result.ok, event.result
    begun = sum(place in talker.asks for place, what, _ in talker.notes if what == "start")
    assert begun == sum(ask.tool == "work" for ask in talker.asks.values())


def budgets_hold(chat: Chat, loop: Loop) -> None:
    """A run in a tool spends the budget of each run above it, too."""
    talker = perform(chat, loop)
    spent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    level = {}

    def left(event: TurnEvent, what: str) -> bool:
        runs = (*event.parents, event.run_id)
        return all(spent[each][what] < getattr(level[each], what) for each in runs)

    for event in talker.events:
        runs = (*event.parents, event.run_id)
        level[event.run_id] = chat.levels[len(event.parents)]
        tokens = 0
        if isinstance(event, ModelStarted):
            assert left(event, "turns") and left(event, "tokens"), event
        elif isinstance(event, CallStarted):
            assert left(event, "tokens"), event
        elif isinstance(event, ModelAnswered):
            tokens = event.usage.tokens
        for each in runs:
            spent[each]["turns"] += isinstance(event, ModelStarted)
            spent[each]["calls"] += isinstance(event, CallStarted)
            spent[each]["tokens"] += tokens
        assert all(spent[each]["calls"] <= level[each].calls for each in runs), event
        if isinstance(event, RunFinished):
            void = talker.void[talker.prompts.get(event.run_id, "")]  # spent, and for nothing
            for each in runs:
                spent[each]["tokens"] += void
            assert event.usage.tokens == spent[event.run_id]["tokens"], "its usage is the tree's"
            if type(event.error).__name__ == "BudgetExceeded":
                assert not all(left(event, what) for what in ("turns", "calls", "tokens")), event


@share(0.6)
@given(plan=plans(limits=GROUPS, calls=6, patient=0))
def test_no_limiter_is_exceeded_whatever_happens(virtual_loop: Loop, plan: Plan) -> None:
    limits_hold(plan, virtual_loop)


@share(0.6)
@given(plan=plans(**CALM, limits=(None,), calls=3, nest=5))
def test_nested_turns_cannot_deadlock_and_return_first(virtual_loop: Loop, plan: Plan) -> None:
    nesting_cannot_deadlock(plan, virtual_loop)


@share(0.6)
@given(plan=plans(**CALM, limits=GROUPS, calls=8, depth=0, steps=1))
def test_calls_begin_when_a_queue_lets_them(virtual_loop: Loop, plan: Plan) -> None:
    queues_are_as_foretold(plan, virtual_loop)


@settings(max_examples=5)
@given(batch=batches())
def test_a_thread_counts_until_it_has_really_ended(any_loop: Loop, batch: Batch) -> None:
    threads_count_until_they_end(batch, any_loop)


@share(0.2)
@given(chat=chats(**generate_talks.CALM, limits=1, nest=6, then=1))
def test_nested_runs_cannot_deadlock(virtual_loop: Loop, chat: Chat) -> None:
    nested_runs_cannot_deadlock(chat, virtual_loop)


@share(0.2)
@given(chat=chats(limits=1, nest=5, hit=ENDS))
def test_no_limiter_is_exceeded_by_runs_that_are_ended(virtual_loop: Loop, chat: Chat) -> None:
    perform(chat, virtual_loop)


@share(0.3)
@given(chat=chats(budget=8, nest=6, fails=1, odd=1))
def test_a_run_spends_the_budget_of_those_above_it(virtual_loop: Loop, chat: Chat) -> None:
    budgets_hold(chat, virtual_loop)


# What is tried again.


def waits_hold_no_slot(plan: Trials, loop: Loop) -> None:
    """Each attempt begins and ends as foretold: who waits lends its slot, and comes back last."""
    did = performed(plan, loop)
    assert did.most <= plan.slots
    assert sorted(did.attempts) == sorted(foretold(plan))


@given(plan=trials())
def test_who_waits_for_another_attempt_holds_no_slot(plan: Trials, virtual_loop: Loop) -> None:
    waits_hold_no_slot(plan, virtual_loop)


@given(plan=trials(ends=True))
def test_limits_hold_for_what_is_tried_again(plan: Trials, virtual_loop: Loop) -> None:
    assert performed(plan, virtual_loop).most <= plan.slots
