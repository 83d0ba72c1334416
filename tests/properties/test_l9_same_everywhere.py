"""The same turn gives the same statuses, values, order and instants on every event loop."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import Loop
from turnscope import Kernel, Tool, ToolCall

from . import pure
from .generate import foretold, plans, share
from .machine import Machine, run
from .plans import Plan
from .story import assert_same

PureCalls: TypeAlias = "list[tuple[Callable[[int], Any], int]]"

ASYNCIO, TRIO = Loop("asyncio", virtual=True), Loop("trio", virtual=True)


def told(machine: Machine) -> list[tuple[Any, ...]]:
    """What the results of a run say, but for texts of exceptions, and the name of one class."""
    return [
        (
            place,
            r.call,
            r.status,
            r.value,
            type(r.error).__name__.replace("CancelledError", "Cancelled"),
            r.backend,
            r.leaked,
        )
        for place, _, r in sorted(machine.results())
    ]


def same_on_trio(plan: Plan, loop: Loop) -> Machine:
    """The same plan on *loop* and on trio."""
    one, other = run(plan, loop), run(plan, TRIO)
    assert_same(one.story, other.story)
    assert told(one) == told(other)
    return one


def same_on_every_backend(calls: PureCalls, loop: Loop) -> None:
    async def main() -> dict[str, list[Any]]:
        found = {}
        async with Kernel() as kernel:
            for backend in ("inline", "thread", "process"):
                tools = [Tool(fn, backend=backend) for fn in pure.FUNCTIONS]
                async with kernel.turn(tools) as turn:
                    for index, (fn, n) in enumerate(calls):
                        turn.submit(ToolCall(f"c{index}", fn.__name__, {"n": n}))
                found[backend] = [
                    (r.call.id, r.status, r.content, r.value, repr(r.error)) for r in turn.results
                ]
        return found

    found = loop.run(main)
    assert found["inline"] == found["thread"] == found["process"]


def pure_calls() -> st.SearchStrategy[PureCalls]:
    call = st.tuples(st.sampled_from(pure.FUNCTIONS), st.integers(-1, 30))
    return st.lists(call, min_size=1, max_size=5)


@share(0.6)
@given(plan=plans())
def test_asyncio_and_trio_tell_the_same_story(plan: Plan) -> None:
    expected = foretold(plan)
    assert_same(same_on_trio(plan, ASYNCIO).story, expected)


@share(0.3)
@given(plan=plans(limits=(None, "db", "web"), calls=6, patient=0, fatal=0, depth=0, steps=1))
def test_they_tell_the_same_story_where_calls_wait(plan: Plan) -> None:
    same_on_trio(plan, ASYNCIO)


# Real time: what races must lie further apart than a loaded machine is late.
APART = 0.06


def has_room(plan: Plan) -> bool:
    story = foretold(plan)
    return story.left[""] < 1 and story.margin > APART


@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed")
@settings(max_examples=6)
@given(plan=plans(calls=3, depth=1, fatal=0, swallow=0, shield=0, timeout=1).filter(has_room))
def test_uvloop_gives_the_same_statuses_and_values_in_real_time(plan: Plan) -> None:
    machine, expected = run(plan, Loop("uvloop", virtual=False), far=60.0), foretold(plan)
    for place, story in expected.calls.items():
        told = machine.story.call(place)
        assert (told.status, told.value) == (story.status, story.value), place
    assert machine.story.raised == expected.raised


@settings(max_examples=10)
@given(calls=pure_calls())
def test_pure_functions_give_the_same_on_every_backend(any_loop: Loop, calls: PureCalls) -> None:
    same_on_every_backend(calls, any_loop)
