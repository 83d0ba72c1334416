"""Grace: one span for a whole tree of turns, whose end only ever moves earlier."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from anyio import CancelScope

from tests.kernel.bodies import (
    UNIT,
    Bodies,
    a_kernel,
    call,
    fine,
    move_on_after,
    statuses,
    submit,
    took,
)
from tests.kernel.bodies import anyio_backend as anyio_backend
from tests.support import Loop
from turnscope import Kernel, Turn, check_cancelled, tool
from turnscope.testing import nothing_left

pytestmark = pytest.mark.anyio

Body = Callable[[], Coroutine[Any, Any, Any]]


def nest(kernel: Kernel, body: Body, depth: int, turns: list[Turn]) -> Body:
    """*body* inside so many turns, each in a call of the one around it; the turns go to *turns*."""
    if depth == 0:
        return body
    inner = nest(kernel, body, depth - 1, turns)

    async def nests() -> str:
        async with kernel.turn([tool(name="inner")(inner)]) as turn:
            turns.append(turn)
            turn.submit(call("inner"))
        return "nested"

    return nests


async def test_cleanup_that_needs_less_than_grace_is_not_hurried() -> None:
    async with a_kernel(grace=5 * UNIT) as kernel:
        bodies = Bodies()
        with CancelScope() as scope:
            async with kernel.turn(bodies.tools()) as turn:
                submit(turn, bodies.tidy)
                await bodies.begun.wait()
                start = anyio.current_time()
                scope.cancel()
        took(start, UNIT)  # not the whole of grace
        assert bodies.cleaned


async def test_cleanup_that_needs_more_than_grace_is_cut_when_grace_is_over() -> None:
    notes: list[str] = []

    async def slow() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            notes.append("cleaning")
            await anyio.sleep(10 * UNIT)
            notes.append("cleaned")

    async with a_kernel(grace=2 * UNIT) as kernel:
        start = anyio.current_time()
        with move_on_after(UNIT):
            async with kernel.turn([slow]) as turn:
                submit(turn, slow)
        took(start, 3 * UNIT)
    assert notes == ["cleaning"]
    assert statuses(turn) == ["cancelled"]


async def test_without_grace_cleanup_is_cut_at_its_first_await() -> None:
    async with a_kernel(grace=0) as kernel:
        bodies = Bodies()
        start = anyio.current_time()
        with move_on_after(UNIT):
            async with kernel.turn(bodies.tools()) as turn:
                submit(turn, bodies.tidy, bodies.stubborn)
        took(start, UNIT)
        assert sorted(bodies.notes) == ["cleaning", "swallowed"]
        assert statuses(turn) == ["cancelled", "cancelled"]


async def test_a_call_at_its_timeout_has_grace_too() -> None:
    async with a_kernel(grace=2 * UNIT) as kernel:
        bodies = Bodies()
        start = anyio.current_time()
        async with kernel.turn([tool(timeout=UNIT)(bodies.endless)]) as turn:
            turn.submit(call("endless"))
        took(start, 3 * UNIT)
        assert statuses(turn) == ["timed_out"]


async def test_a_turn_at_its_deadline_has_grace_too() -> None:
    async with a_kernel(grace=2 * UNIT) as kernel:
        bodies = Bodies()
        start = anyio.current_time()
        async with kernel.turn(bodies.tools(), timeout=UNIT) as turn:
            submit(turn, bodies.endless)
        took(start, 3 * UNIT)
        assert statuses(turn) == ["timed_out"]


async def test_what_a_body_shields_is_waited_for_beyond_grace() -> None:
    async def pays() -> str:
        with CancelScope(shield=True):
            await anyio.sleep(5 * UNIT)
        return "paid"

    async with a_kernel(grace=UNIT) as kernel:
        start = anyio.current_time()
        with move_on_after(UNIT):
            async with kernel.turn([pays]) as turn:
                submit(turn, pays)
        took(start, 5 * UNIT)  # nothing survives, and nobody can end it: it is joined
    assert turn.results[0].value == "paid"


@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_a_tree_of_turns_ends_within_one_grace(depth: int) -> None:
    async with a_kernel(grace=3 * UNIT) as kernel:
        bodies, turns = Bodies(), list[Turn]()
        outer = tool(name="outer")(nest(kernel, bodies.endless, depth, turns))
        start = anyio.current_time()
        with move_on_after(UNIT) as scope:
            async with kernel.turn([outer]) as turn:
                submit(turn, outer)
        took(start, 4 * UNIT)
        assert scope.cancelled_caught
        assert [statuses(each) for each in (turn, *turns)] == [["cancelled"]] * (depth + 1)


@pytest.mark.parametrize("depth", [1, 2, 3])
async def test_cleanup_at_the_bottom_of_a_tree_runs_whole(depth: int) -> None:
    async with a_kernel() as kernel:
        bodies, turns = Bodies(), list[Turn]()
        outer = tool(name="outer")(nest(kernel, bodies.tidy, depth, turns))
        start = anyio.current_time()
        with move_on_after(UNIT):
            async with kernel.turn([outer]) as turn:
                submit(turn, outer)
        took(start, 2 * UNIT)
        assert bodies.cleaned
        assert [statuses(each) for each in (turn, *turns)] == [["cancelled"]] * (depth + 1)


async def test_the_timeout_of_a_call_interrupts_the_turns_that_it_hosts() -> None:
    async with a_kernel(grace=3 * UNIT) as kernel:
        bodies, turns = Bodies(), list[Turn]()
        outer = tool(name="outer", timeout=UNIT)(nest(kernel, bodies.endless, 2, turns))
        start = anyio.current_time()
        async with kernel.turn([outer, fine]) as turn:
            submit(turn, outer, fine)
        took(start, 4 * UNIT)
        assert statuses(turn) == ["timed_out", "ok"]
        assert [statuses(each) for each in turns] == [["cancelled"]] * 2


async def test_a_turn_that_opens_in_the_cleanup_has_what_is_left_of_grace() -> None:
    async with a_kernel(grace=3 * UNIT) as kernel:
        bodies, turns = Bodies(), list[Turn]()

        @tool
        async def outer() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                await anyio.sleep(UNIT)
                async with kernel.turn(bodies.tools()) as turn:
                    turns.append(turn)
                    submit(turn, bodies.endless)

        start = anyio.current_time()
        with move_on_after(UNIT):
            async with kernel.turn([outer]) as turn:
                submit(turn, outer)
        took(start, 2 * UNIT)
        assert statuses(turn) == ["cancelled"]
        # The call that hosts it has been asked already, so nothing new begins.
        assert statuses(turns[0]) == ["not_started"]


async def test_a_second_ask_does_not_give_a_second_grace() -> None:
    async with a_kernel(grace=3 * UNIT) as kernel:
        bodies = Bodies()
        start = anyio.current_time()
        with move_on_after(2 * UNIT):
            async with kernel.turn([tool(timeout=UNIT)(bodies.endless)]) as turn:
                turn.submit(call("endless"))
        took(start, 4 * UNIT)  # from the timeout, not from the scope
        assert statuses(turn) == ["timed_out"]


async def test_an_outer_grace_that_ends_earlier_hurries_a_call_interrupted_before() -> None:
    async with nothing_left(), Kernel(grace=UNIT) as hasty, Kernel(grace=50 * UNIT) as patient:
        bodies, turns = Bodies(), list[Turn]()

        @tool
        async def outer() -> None:
            async with patient.turn([tool(timeout=UNIT)(bodies.endless)]) as turn:
                turns.append(turn)
                turn.submit(call("endless"))

        start = anyio.current_time()
        with move_on_after(3 * UNIT):
            async with hasty.turn([outer]) as turn:
                submit(turn, outer)
        took(start, 4 * UNIT)
        assert statuses(turns[0]) == ["timed_out"]
        assert statuses(turn) == ["cancelled"]


async def test_an_earlier_end_reaches_what_an_interrupted_call_still_hosts() -> None:
    async with nothing_left(), Kernel(grace=UNIT) as hasty, Kernel(grace=50 * UNIT) as patient:
        bodies, turns = Bodies(), list[Turn]()
        middle = tool(name="middle", timeout=UNIT)(nest(patient, bodies.endless, 1, turns))

        @tool
        async def outer() -> None:
            async with patient.turn([middle]) as turn:
                turns.append(turn)
                turn.submit(call("middle"))

        start = anyio.current_time()
        with move_on_after(3 * UNIT):
            async with hasty.turn([outer]) as turn:
                submit(turn, outer)
        took(start, 4 * UNIT)
        assert [statuses(each) for each in turns] == [["timed_out"], ["cancelled"]]
        assert statuses(turn) == ["cancelled"]


async def test_an_inner_grace_that_is_shorter_is_kept() -> None:
    async with nothing_left(), Kernel(grace=50 * UNIT) as patient, Kernel(grace=UNIT) as hasty:
        bodies, turns = Bodies(), list[Turn]()

        @tool
        async def outer() -> None:
            async with hasty.turn(bodies.tools()) as turn:
                turns.append(turn)
                submit(turn, bodies.endless)

        start = anyio.current_time()
        with move_on_after(2 * UNIT):
            async with patient.turn([outer]) as turn:
                submit(turn, outer)
        took(start, 3 * UNIT)
        assert statuses(turns[0]) == ["cancelled"]


# Threads, in real time: virtual time stands still while one is at work


def test_a_thread_that_looks_up_within_grace_ends_unleaked(any_loop: Loop) -> None:
    begun = threading.Event()

    def polls() -> None:
        begun.set()
        while True:
            check_cancelled()
            pause.wait(UNIT / 20)

    pause = threading.Event()

    async def main() -> None:
        async with a_kernel() as kernel:
            with anyio.fail_after(20), anyio.CancelScope() as scope:
                async with kernel.turn([polls]) as turn:
                    submit(turn, polls)
                    while not begun.is_set():
                        await anyio.sleep(0.001)
                    scope.cancel()
            assert scope.cancelled_caught
            assert statuses(turn) == ["cancelled"]
            assert not turn.results[0].leaked

    any_loop.run(main)


def test_a_thread_that_returns_within_grace_is_late_and_unleaked(any_loop: Loop) -> None:
    begun, pause = threading.Event(), threading.Event()

    def works() -> str:
        begun.set()
        assert pause.wait(20)
        return "late"

    async def main() -> None:
        async with a_kernel(grace=20) as kernel:
            async with anyio.create_task_group() as group:

                async def frees() -> None:
                    await anyio.sleep(2 * UNIT)
                    pause.set()

                with anyio.fail_after(20), anyio.CancelScope() as scope:
                    async with kernel.turn([works]) as turn:
                        submit(turn, works)
                        while not begun.is_set():
                            await anyio.sleep(0.001)
                        group.start_soon(frees)
                        scope.cancel()
            (result,) = turn.results
            assert statuses(turn) == ["cancelled"]
            assert result.value == "late" and not result.leaked

    any_loop.run(main)


def test_a_thread_that_outlives_grace_is_reported_as_leaked(any_loop: Loop) -> None:
    begun, pause = threading.Event(), threading.Event()

    def works() -> str:
        begun.set()
        assert pause.wait(20)
        return "too late"

    async def main() -> None:
        async with a_kernel(grace=UNIT) as kernel:
            try:
                with anyio.fail_after(15), anyio.CancelScope() as scope:
                    async with kernel.turn([works]) as turn:
                        submit(turn, works)
                        while not begun.is_set():
                            await anyio.sleep(0.001)
                        start = anyio.current_time()
                        scope.cancel()
                passed = anyio.current_time() - start
                assert scope.cancelled_caught
                assert UNIT - 0.01 <= passed < 10
                (result,) = turn.results
                assert statuses(turn) == ["cancelled"]
                assert result.leaked and result.value is None
                assert "still at work" in str(result.content)
                assert kernel.statistics().limiters["threads"].leaked == 1
            finally:
                pause.set()
            with anyio.fail_after(5):
                while kernel.statistics().limiters["threads"].leaked:
                    await anyio.sleep(0.001)

    any_loop.run(main)


async def test_a_turn_of_another_kernel_that_is_ending_ends_with_the_call_around_it() -> None:
    async def tidies_for_long() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(50 * UNIT)

    async def nests() -> None:
        async with patient.turn([tidies_for_long]) as nested:
            submit(nested, tidies_for_long)
            await anyio.sleep(UNIT)
            scope.deadline = anyio.current_time() + UNIT
            raise ValueError("the block waits shielded from here")

    async with a_kernel(grace=UNIT) as kernel, Kernel(grace=100 * UNIT) as patient:
        start = anyio.current_time()
        with CancelScope() as scope:
            async with kernel.turn([nests]) as turn:
                submit(turn, nests)
        took(start, 3 * UNIT)
    assert statuses(turn) == ["failed"]
