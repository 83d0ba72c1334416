"""Cancelling always cancels, discards no completed work, and is over within one grace."""

from __future__ import annotations

import asyncio

from hypothesis import given

from tests.support import Loop

from .generate import foretold, plans, share, shields_itself
from .machine import Machine, run
from .plans import Plan, every_call
from .story import assert_same


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


@share(0.8)
@given(plan=plans(caller=("scope", "move_on_after", "fail_after"), swallow=3))
def test_a_cancelled_turn_ends_within_one_grace(virtual_loop: Loop, plan: Plan) -> None:
    bounded_cancel(plan, virtual_loop)


@share(0.8)
@given(plan=plans(caller=("native", "asyncio.timeout"), swallow=2))
def test_native_cancels_end_a_turn_within_one_grace_too(plan: Plan) -> None:
    bounded_cancel(plan, Loop("asyncio", virtual=True))


@share(0.4)
@given(plan=plans(caller=("Ctrl-C",)))
def test_ctrl_c_in_the_callers_own_await_ends_a_turn_likewise(plan: Plan) -> None:
    bounded_cancel(plan, Loop("trio", virtual=True))


@share(0.6)
@given(plan=plans(nest=6, calls=2, host=4, patient=5, fail=0, odd_call=0))
def test_one_grace_is_for_the_whole_tree_of_turns(virtual_loop: Loop, plan: Plan) -> None:
    bounded_cancel(plan, virtual_loop)
