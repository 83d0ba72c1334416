"""A call is interrupted at the earliest of its timeout, its turn's, those above, the caller's."""

from __future__ import annotations

import math

from hypothesis import given

from tests.support import Loop

from .generate import foretold, plans, share
from .generate_talks import CALM, chats
from .machine import run
from .plans import Beat, Plan
from .talker import perform
from .talks import Chat

BOUNDED = {
    "timeout": 4,
    "turn_timeout": 4,
    "host": 1,
    "fail": 1,
    "caller": ("nothing", "move_on_after", "fail_after"),
}


def deadlines_compose(plan: Plan, loop: Loop) -> None:
    expected = foretold(plan)
    machine = run(plan, loop)
    for place, story in expected.calls.items():
        told = machine.story.call(place)
        assert told.deadline == story.deadline, f"{place!r} was told another deadline"
        assert told.at("interrupt") == story.at("interrupt"), f"{place!r} was interrupted"
        assert told.status == story.status, place
    assert machine.story.left == expected.left


def timeouts_begin_with_the_body(plan: Plan, loop: Loop) -> None:
    """Where calls wait for slots, so that the model does not know when bodies begin."""
    machine = run(plan, loop)
    deadline = math.inf if plan.turn.timeout is None else plan.turn.timeout
    for place, submitted, result in machine.results():
        call, story = submitted.plan, machine.story.call(place)
        if result.status != "timed_out" or any(isinstance(s, Beat) for s in call.body.steps):
            continue
        assert story.started is not None
        own = [span for span in (call.timeout, call.idle_timeout) if span is not None]
        assert story.at("interrupt") == min([deadline, *(story.started + span for span in own)])


@share(0.8)
@given(plan=plans(**BOUNDED))
def test_the_earliest_deadline_interrupts_a_call(virtual_loop: Loop, plan: Plan) -> None:
    deadlines_compose(plan, virtual_loop)


@share(0.5)
@given(
    plan=plans(
        limits=(None, "db"),
        calls=6,
        depth=0,
        timeout=5,
        shield=0,
        fail=0,
        host=0,
        caller=("nothing",),
    )
)
def test_a_timeout_does_not_run_while_its_call_waits(virtual_loop: Loop, plan: Plan) -> None:
    timeouts_begin_with_the_body(plan, virtual_loop)


BOUNDS = ("timeout", "deadline", "seconds", "move_on_after", "fail_after")


def nested_runs_share_the_deadline(chat: Chat, loop: Loop) -> None:
    talker = perform(chat, loop)
    own = chat.hit.after
    for place, deadline in talker.deadlines.items():
        assert deadline == own, f"{place} was told {deadline}, not {own}"


@share(0.2)
@given(chat=chats(**CALM, hit=BOUNDS, nest=6, readers=("wait",)))
def test_runs_in_tools_share_the_deadline_of_the_run_above(virtual_loop: Loop, chat: Chat) -> None:
    nested_runs_share_the_deadline(chat, virtual_loop)
