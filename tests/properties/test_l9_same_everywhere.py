"""The same turn gives the same statuses, values, order and instants on every event loop."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import Loop
from turnscope import Kernel, Tool, ToolCall

from . import pure
from .generate import foretold, plans, share
from .generate_talks import ENDS, chats
from .machine import Machine, run
from .plans import Plan
from .story import assert_same
from .talker import Talker, perform
from .talks import Chat

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


def told_of_runs(talker: Talker) -> dict[str, Any]:
    """All that can be seen of the runs of a chat, but for texts of exceptions."""
    return {
        "notes": sorted(talker.notes),
        "deadlines": talker.deadlines,
        "left": {where: ending.left for where, ending in talker.endings.items()},
        "ends": {
            where: ending.end.removesuffix("Error") for where, ending in talker.endings.items()
        },
        "histories": {where: ending.run.history for where, ending in talker.endings.items()},
        "usage": {where: ending.run.usage for where, ending in talker.endings.items()},
        "texts": {where: "".join(ending.texts) for where, ending in talker.endings.items()},
        # Not their order: the calls of one tick start in any.
        "events": Counter(
            (type(event).__name__, talker.prompts.get(event.run_id), event.turn, event.time)
            for event in talker.events
        ),
    }


def runs_are_the_same_everywhere(chat: Chat, loop: Loop) -> None:
    one, other = told_of_runs(perform(chat, ASYNCIO)), told_of_runs(perform(chat, TRIO))
    for what, told in one.items():
        assert told == other[what], what


# What comes at the n-th event is a tie: which of one tick's comes first is nobody's promise.
AT_INSTANTS = {"at_event": 0, "hit": ("nothing", *(how for how in ENDS if how != "break"))}


@share(0.3)
@given(chat=chats(**AT_INSTANTS, then=1, odd=1))
def test_runs_tell_the_same_story_on_asyncio_and_trio(chat: Chat) -> None:
    runs_are_the_same_everywhere(chat, ASYNCIO)


@share(0.15)
@given(chat=chats(**AT_INSTANTS, limits=1, depth=0))
def test_runs_whose_calls_wait_tell_the_same_story(chat: Chat) -> None:
    runs_are_the_same_everywhere(chat, ASYNCIO)


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


@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed")
@settings(max_examples=10)
@given(chat=chats(fatal=0, then=2, budget=1))
def test_uvloop_leaves_the_same_histories_in_real_time(chat: Chat) -> None:
    options = {"far": 60.0, "scale": 1 / 64}
    talker = perform(chat, Loop("uvloop", virtual=False), **options)
    expected = perform(chat, ASYNCIO)
    for where, ending in talker.endings.items():
        assert ending.run.history == expected.endings[where].run.history
        assert ending.end == expected.endings[where].end


@settings(max_examples=10)
@given(calls=pure_calls())
def test_pure_functions_give_the_same_on_every_backend(any_loop: Loop, calls: PureCalls) -> None:
    same_on_every_backend(calls, any_loop)
