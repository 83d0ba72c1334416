"""Cancelling always cancels, discards no completed work, and is over within one grace."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import attrs
import pytest
from hypothesis import given

from tests.support import Loop
from turnscope.events import CallSettled, RunFinished, RunStarted

from .generate import foretold, plans, share, shields_itself
from .generate_talks import ENDS, chats
from .machine import Machine, run
from .plans import Plan, every_call
from .retries import Trials, performed, trials
from .story import assert_same
from .talker import Talker, perform
from .talks import Answer, Ask, Chat, Hit, How, Talk
from .test_l2_valid_history import histories_are_valid


def bounded_cancel(plan: Plan, loop: Loop) -> None:
    expected = foretold(plan)
    machine = run(plan, loop)
    asked = plan.caller.after
    if asked < expected.left[""]:
        _was_raised_again(machine)
        for place, story in expected.calls.items():
            if story.status == "ok" and story.ended < asked:
                told = machine.story.call(place)
                assert (told.status, told.value) == ("ok", place), f"{place!r} had completed"
        if not (shields_itself(plan) or _block_shields_itself(plan)):
            assert machine.story.left[""] <= asked + plan.grace
    assert_same(machine.story, expected)


def _was_raised_again(machine: Machine) -> None:
    """The caller got its own cancellation back, whatever came of the calls."""
    interrupted = machine.story.raised
    if interrupted == "KeyboardInterrupt":  # a tool's Ctrl-C goes first
        return
    if interrupted == "host" and machine.plan.caller.how != "native":
        return  # the failure of the block is on its way out
    assert interrupted == "cancelled", f"the caller was cancelled, and saw {interrupted}"
    how, beyond = machine.plan.caller.how, machine.beyond
    if how in ("scope", "move_on_after"):
        assert beyond is None
        assert machine.scope is not None and machine.scope.cancelled_caught
    elif how == "native":
        assert isinstance(beyond, asyncio.CancelledError)
    else:
        assert type(beyond) is TimeoutError


def _block_shields_itself(plan: Plan) -> bool:
    blocks = [plan.turn]
    for _, call in every_call(plan.turn):
        blocks += [step.turn for step in call.body.steps if hasattr(step, "turn")]
    return any(getattr(op, "shield", False) for block in blocks for op in block.ops)


RUNS = {"fatal": 0, "broken": 0, "budget": 0, "odd": 0, "nest": 6, "swallow": 3, "pause": 0}

RAISED = {
    "timeout": "DeadlineExceeded",
    "deadline": "DeadlineExceeded",
    "seconds": "BudgetExceeded",
    "run.cancel": "RunCancelled",
    "kernel": "RunCancelled",
    "raise": "Planned",
    "break": "",
    "Ctrl-C": "KeyboardInterrupt",
}
"""The others are cancellations."""


def a_tree_of_runs_ends_within_one_grace(chat: Chat, loop: Loop) -> None:
    # That nothing is left once the run is, and that no body takes another step, is what `talker`
    # asserts in every chat.
    talker = perform(chat, loop)
    hit, ending = chat.hit, talker.endings["t0"]
    asked = talker.reached
    if asked == math.inf and hit.how != "break" and hit.event is None:
        asked = hit.after
    finished = {event.run_id: event.time - talker.origin for event in talker.told(RunFinished)}
    assert {event.run_id for event in talker.told(RunStarted)} == finished.keys()
    for event in talker.told(RunFinished):
        for parent in event.parents:
            assert finished[event.run_id] <= finished[parent], "a run outlived its parent"
    end = finished[ending.run.run_id]
    assert all(when <= end for _, _, when in talker.notes), "a body outlived its run"
    assert end <= ending.left
    if end > asked:
        assert ending.left <= asked + chat.grace, "the whole tree has one grace"
        assert ending.result is None, "a run that was cancelled has no output"
        assert ending.end == RAISED.get(hit.how, _cancelled(loop)), ending.error
        _keeps_what_had_completed(talker, asked)
    histories_are_valid(talker)


def _cancelled(loop: Loop) -> str:
    return "Cancelled" if loop.name == "trio" else "CancelledError"


def _keeps_what_had_completed(talker: Talker, asked: float) -> None:
    for event in talker.told(CallSettled):
        if event.time - talker.origin < asked:
            assert event.result.status in ("ok", "failed", "invalid"), event.result


TASKS: dict[str, Any] = {
    "tasks": 7,
    "nest": 1,
    "steps": 1,
    "calls": 2,
    "cleanup": 7,
    "fail": 1,
    "odd_call": 0,
    "timeout": 1,
    "turn_timeout": 1,
    "host": 1,
    "caller": ("scope", "move_on_after", "native", "asyncio.timeout"),
}
"""The odds of plans in which bodies have tasks of their own work, and await them."""


@share(0.8)
@given(plan=plans(caller=("scope", "move_on_after", "fail_after"), swallow=3))
def test_a_cancelled_turn_ends_within_one_grace(virtual_loop: Loop, plan: Plan) -> None:
    bounded_cancel(plan, virtual_loop)


@share(0.8)
@given(plan=plans(caller=("native", "asyncio.timeout"), swallow=2))
def test_native_cancels_end_a_turn_within_one_grace_too(plan: Plan) -> None:
    bounded_cancel(plan, Loop("asyncio", virtual=True))


@share(0.8)
@given(plan=plans(**TASKS))
def test_tasks_that_a_body_awaits_end_with_it_within_one_grace(plan: Plan) -> None:
    bounded_cancel(plan, Loop("asyncio", virtual=True))


@share(0.4)
@given(plan=plans(caller=("Ctrl-C",)))
def test_ctrl_c_in_the_callers_own_await_ends_a_turn_likewise(plan: Plan) -> None:
    bounded_cancel(plan, Loop("trio", virtual=True))


@share(0.6)
@given(plan=plans(nest=6, calls=2, host=4, patient=5, fail=0, odd_call=0))
def test_one_grace_is_for_the_whole_tree_of_turns(virtual_loop: Loop, plan: Plan) -> None:
    bounded_cancel(plan, virtual_loop)


@share(0.4)
@given(chat=chats(**RUNS, hit=ENDS, readers=("wait", "events")))
def test_a_run_and_those_in_its_tools_end_within_one_grace(virtual_loop: Loop, chat: Chat) -> None:
    a_tree_of_runs_ends_within_one_grace(chat, virtual_loop)


@share(0.3)
@given(chat=chats(**RUNS, hit=("native", "asyncio.timeout"), readers=("wait", "events")))
def test_native_cancels_end_a_tree_of_runs_within_one_grace_too(chat: Chat) -> None:
    a_tree_of_runs_ends_within_one_grace(chat, Loop("asyncio", virtual=True))


@share(0.2)
@given(chat=chats(**RUNS, hit=("Ctrl-C",), readers=("wait", "events")))
def test_ctrl_c_in_the_callers_own_await_ends_a_tree_of_runs_likewise(chat: Chat) -> None:
    a_tree_of_runs_ends_within_one_grace(chat, Loop("trio", virtual=True))


RICH = Chat(
    first=Talk(
        (
            Answer(
                text="two words",
                span=1.0,
                asks=(
                    Ask(id="a", span=0.5, cleanup=0.125),
                    Ask(id="a", span=1.25, fails=True),
                    Ask(id="", tool="nobody"),
                    Ask(
                        tool="agent",
                        talk=Talk(
                            (
                                Answer(
                                    span=0.25, asks=(Ask(id="a", span=0.75, swallows=math.inf),)
                                ),
                                Answer(text="ok", span=0.375, cleanup=9.0),
                            )
                        ),
                    ),
                ),
            ),
            Answer(text="ok", span=0.25, swallows=True),
        )
    ),
    grace=0.0625,
)


def ends_at_any_event(how: How, loop: Loop) -> None:
    for number in range(len(perform(RICH, loop).events)):
        chat = attrs.evolve(RICH, hit=Hit(how=how, event=number))
        a_tree_of_runs_ends_within_one_grace(chat, loop)


@pytest.mark.parametrize("how", ["run.cancel", "move_on_after"])
def test_a_cancel_in_the_step_of_any_event_ends_a_tree_of_runs(
    virtual_loop: Loop, how: How
) -> None:
    ends_at_any_event(how, virtual_loop)


def test_a_native_cancel_in_the_step_of_any_event_ends_a_tree_of_runs() -> None:
    ends_at_any_event("native", Loop("asyncio", virtual=True))


# What is tried again.


def a_wait_ends_at_once(plan: Trials, loop: Loop) -> None:
    """A call ends at the ask, its timeout or its total, or as soon after as its body is clean."""
    did = performed(plan, loop)
    asked = min(plan.cancel, plan.deadline)
    for index, call in enumerate(plan.calls):
        attempts = [each for each in did.attempts if each[0] == index]
        own = min(call.timeout, call.total if call.safe else math.inf)
        end = min(asked, attempts[0][1] + own) if attempts else asked
        assert all(begin < end for _, begin, _ in attempts), "it began after its end"
        at_work = any(begin < end < over for _, begin, over in attempts)
        bound = end + (call.cleanup if at_work else 0)
        assert did.settled[index] <= bound, f"call {index} settled at {did.settled[index]}"
    assert did.left <= max(asked + 2.0, *did.settled)


@given(plan=trials(ends=True))
def test_a_cancel_ends_a_wait_for_another_attempt_at_once(plan: Trials, virtual_loop: Loop) -> None:
    a_wait_ends_at_once(plan, virtual_loop)
