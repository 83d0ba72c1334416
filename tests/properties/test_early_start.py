"""Every history that early start produces is one that some schedule without it could produce."""

from __future__ import annotations

import math

import attrs
from hypothesis import given

from tests.support import Loop
from turnscope import History, ToolResult
from turnscope.events import (
    CallDiscarded,
    CallEvent,
    CallProgress,
    CallReady,
    CallSealed,
    CallSettled,
    CallStarted,
    ModelAnswered,
    TurnFinished,
)

from .generate import share
from .provider import accepted
from .streams import EARLY, FREE, Performance, Reply, Script, perform, scripts, streamed
from .test_l2_valid_history import UNSETTLED

ORDER = (CallReady, CallStarted, CallProgress, CallSettled, CallDiscarded)


def same_history(script: Script, loop: Loop) -> None:
    """Tools whose results do not depend on when they ran: it is the very same."""
    early, late = perform(script, loop, early=True), perform(script, loop, early=False)
    each_call_is_told_whole(early)
    nothing_starts_too_early(early)
    assert early.history == late.history
    assert type(early.error) is type(late.error), early.error
    if early.result is not None and late.result is not None:
        assert early.result.output == late.result.output
        assert early.result.reason == late.result.reason
        assert early.result.usage == late.result.usage


def cut_short(script: Script, loop: Loop) -> None:
    """Wherever it is ended: whole turns of the one that is not, and none that was not complete."""
    early = perform(script, loop, early=True)
    each_call_is_told_whole(early)
    nothing_starts_too_early(early)
    accepted(early.history.to_json())
    assert History(early.history) == early.history
    uncut = perform(_unhit(script), loop, early=False).history
    assert len(early.history) <= len(uncut)
    last = max((n for n, each in enumerate(early.history) if hasattr(each, "calls")), default=0)
    for number, (mine, other) in enumerate(zip(early.history, uncut, strict=False)):
        if mine == other:
            continue
        assert number > last, f"message {number} is another: {mine}, not {other}"
        assert (mine.id, mine.name) == (other.id, other.name)  # type: ignore[union-attr]  # because they are results
        assert mine.status in UNSETTLED, mine  # type: ignore[union-attr]  # because, likewise
    if script.hit == "nothing" and early.error is not None:
        assert getattr(early.error, "history", None) == early.history


def _unhit(script: Script) -> Script:
    return attrs.evolve(script, hit="nothing", after=math.inf)


def each_call_is_told_whole(performance: Performance) -> None:
    """Ready, started, settled, and then discarded or in the results of its turn; once."""
    script = performance.script
    assert performance.most <= min(script.calls, script.cap if script.parallel else 1)
    assert len(set(performance.begun)) == len(performance.begun), "a call ran twice"
    told: dict[int, list[CallEvent]] = {}
    counted: dict[int, ToolResult] = {}
    answered = False
    started = 0
    for _, event in performance.events:
        if isinstance(event, ModelAnswered):
            answered = True
        elif isinstance(event, TurnFinished):
            assert not told, f"{told} did not come to an end"
            assert event.results == tuple(counted[index] for index in sorted(counted))
            assert sorted(counted) == list(range(len(counted)))
            assert answered or not counted, "a response that was never complete left results"
            counted, answered = {}, False
        elif isinstance(event, CallReady):
            assert event.index not in told, "two calls under one index"
            assert event.index not in counted, "a call that counts is replaced"
            told[event.index] = [event]
        elif isinstance(event, CallDiscarded):
            assert counted.pop(event.index).call is event.call
            assert event.reason
        elif isinstance(event, CallEvent):
            events = told.get(event.index, [])
            assert events, "told of before it was ready"
            assert event.call is events[0].call
            assert ORDER.index(type(event)) > ORDER.index(type(events[-1]))
            events.append(event)
            started += isinstance(event, CallStarted)
            if isinstance(event, CallSettled):
                counted[event.index] = event.result
                del told[event.index]
    assert not told
    assert started == len(performance.begun)


def nothing_starts_too_early(performance: Performance) -> None:
    """Nothing before it is sealed and all before it are; what may start early does so at once."""
    script = performance.script
    unbounded = script.calls == script.cap == math.inf and script.parallel
    unspent = script.budget == script.tokens == math.inf
    for number, event in performance.events:
        if not isinstance(event, CallStarted):
            continue
        reply = script.replies[number]
        since = performance.requests[number] + performance.origin
        sealed, complete = seals(number, reply)
        may_be_early = event.call.name in EARLY and script.parallel
        due = max(sealed[: event.index + 1]) if may_be_early else complete
        assert event.time >= since + due, f"{event.call} started before its time"
        if unbounded and unspent and not script.shared:
            assert event.time == since + min(due, complete), f"{event.call} waited for nothing"


def seals(number: int, reply: Reply) -> tuple[list[float], float]:
    """When each call is sealed, and when the response is complete: seconds."""
    events = streamed(number, reply).events
    complete = events[-1][0]
    at = {event.index: at for at, event in events if isinstance(event, CallSealed)}
    return [at.get(n * 2 + 1, complete) for n in range(len(reply.asked))], complete


@share(0.5)
@given(script=scripts())
def test_a_run_with_early_start_leaves_the_history_of_one_without(
    virtual_loop: Loop, script: Script
) -> None:
    same_history(script, virtual_loop)


@share(0.5)
@given(script=scripts(retried=True))
def test_a_request_that_is_attempted_again_leaves_the_history_of_one_without(
    virtual_loop: Loop, script: Script
) -> None:
    same_history(script, virtual_loop)


@share(0.5)
@given(script=scripts(shared=True))
def test_calls_that_conflict_see_the_same_with_early_start_as_without(
    virtual_loop: Loop, script: Script
) -> None:
    same_history(script, virtual_loop)


@share(0.5)
@given(script=scripts(shared=True, retried=True, **FREE))
def test_calls_that_conflict_see_the_same_where_a_request_is_attempted_again(
    virtual_loop: Loop, script: Script
) -> None:
    same_history(script, virtual_loop)


@share(0.3)
@given(script=scripts(shared=True, hit=True, retried=True, fatal=True))
def test_calls_that_conflict_leave_whole_turns_and_free_keys_wherever_they_are_ended(
    virtual_loop: Loop, script: Script
) -> None:
    cut_short(script, virtual_loop)


@share(0.5)
@given(script=scripts(hit=True))
def test_a_run_that_is_ended_while_its_model_streams_leaves_whole_turns(
    virtual_loop: Loop, script: Script
) -> None:
    cut_short(script, virtual_loop)


@share(0.3)
@given(script=scripts(hit=True, retried=True, fatal=True))
def test_a_call_that_ends_the_turn_or_a_cancel_leaves_whole_turns(
    virtual_loop: Loop, script: Script
) -> None:
    cut_short(script, virtual_loop)


@share(0.3)
@given(script=scripts(fatal=True))
def test_a_call_that_ends_its_turn_while_the_model_streams_leaves_whole_turns(
    virtual_loop: Loop, script: Script
) -> None:
    cut_short(script, virtual_loop)
