"""Ways in which agent frameworks were seen to break, one by one: here they do not."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import anyio
import pytest

from tests.kernel.bodies import (
    UNIT,
    Bodies,
    a_kernel,
    call,
    fine,
    idle,
    move_on_after,
    only_asyncio,
    statuses,
    submit,
)
from tests.support import Loop
from turnscope import Limits, ToolCall, Turn, tool
from turnscope.testing import nothing_left

# On every event loop, trio among them: that is a row of its own.
pytestmark = pytest.mark.anyio


async def test_when_one_tool_raises_its_siblings_are_ended_before_the_turn_raises() -> None:
    """Elsewhere: siblings go on as orphans, or are waited for to their very end."""

    @tool(on_error="raise")
    async def breaks() -> None:
        while alive < 63:
            await anyio.sleep(UNIT / 50)
        raise LookupError("broken")

    alive = 0

    async def works() -> None:
        nonlocal alive
        alive += 1
        try:
            await anyio.sleep(60)
        finally:
            await anyio.sleep(UNIT / 2)
            alive -= 1

    async with a_kernel() as kernel:
        start = anyio.current_time()
        with pytest.raises(LookupError):
            async with kernel.turn([breaks, works]) as turn:
                submit(turn, *[works] * 63, breaks)
        assert alive == 0
        assert anyio.current_time() - start < 5
    assert statuses(turn) == ["cancelled"] * 63 + ["failed"]


async def test_when_one_tool_fails_no_siblings_result_is_thrown_away() -> None:
    """Elsewhere: one error kills 26 siblings, or their results."""

    async def works(n: int) -> int:
        await anyio.sleep(UNIT / 5)
        if n == 13:
            raise LookupError
        return n

    async with a_kernel() as kernel:
        async with kernel.turn([works]) as turn:
            for n in range(27):
                turn.submit(call("works", n=n))
    assert [result.value for result in turn.results] == [n if n != 13 else None for n in range(27)]


async def test_after_an_outer_cancel_every_tool_has_ended_and_every_call_has_a_result() -> None:
    """Elsewhere: returns in 1 ms with its tools alive; one of 64 cancelled; swallowed."""
    working = 0

    async def works() -> None:
        nonlocal working
        working += 1
        try:
            await anyio.sleep(60)
        finally:
            working -= 1

    async with a_kernel() as kernel:
        with anyio.CancelScope() as scope:
            async with kernel.turn([works]) as turn:
                submit(turn, *[works] * 64)
                while working < 64:
                    await anyio.sleep(UNIT / 50)
                scope.cancel()
        assert scope.cancelled_caught
        assert working == 0
    assert statuses(turn) == ["cancelled"] * 64


async def test_a_started_call_is_never_reported_as_not_run() -> None:
    """Elsewhere: "interrupted" is told to the model as "not run"."""
    async with a_kernel(limits=Limits(calls=1)) as kernel:
        bodies = Bodies()
        with anyio.CancelScope() as scope:
            async with kernel.turn(bodies.tools()) as turn:
                submit(turn, bodies.tidy, fine)
                await bodies.begun.wait()
                scope.cancel()
    assert statuses(turn) == ["cancelled", "not_started"]
    assert "may or may not have happened" in str(turn.results[0].content)
    assert "not started" in str(turn.results[1].content)


async def test_a_kernel_is_as_usable_after_a_cancel_as_before() -> None:
    """Elsewhere: poisoned for ever."""
    async with a_kernel() as kernel:
        for _ in range(5):
            bodies = Bodies()
            with move_on_after(UNIT / 5):
                async with kernel.turn(bodies.tools()) as turn:
                    submit(turn, *[bodies.tidy] * 8)
            assert idle(kernel)
            async with kernel.turn([fine]) as turn:
                submit(turn, *[fine] * 8)
            assert statuses(turn) == ["ok"] * 8


async def test_results_stand_in_call_order() -> None:
    """Elsewhere: in order of completion."""

    async def works(n: int) -> int:
        await anyio.sleep((8 - n) * UNIT / 10)
        return n

    async with a_kernel() as kernel:
        async with kernel.turn([works]) as turn:
            for n in range(8):
                turn.submit(call("works", n=n))
    assert [result.value for result in turn.results] == list(range(8))


async def test_def_tools_run_beside_each_other_and_do_not_block_the_event_loop() -> None:
    """Elsewhere: on the loop's own thread, one after the other."""
    together = threading.Barrier(8)
    ticks = 0

    def works() -> int:
        together.wait(10)  # ends only if all eight are there
        time.sleep(2 * UNIT)
        return threading.get_ident()

    async def beats() -> None:
        nonlocal ticks
        while True:
            await anyio.sleep(UNIT / 10)
            ticks += 1

    async with a_kernel() as kernel, anyio.create_task_group() as group:
        group.start_soon(beats)
        async with kernel.turn([works]) as turn:
            submit(turn, *[works] * 8)
        assert len({result.value for result in turn.results}) == 8
        assert threading.get_ident() not in {result.value for result in turn.results}
        assert ticks >= 2
        group.cancel_scope.cancel()


async def test_a_def_tool_that_outlives_its_cancel_is_reported_and_holds_its_slot() -> None:
    """Elsewhere: the thread goes on, and nobody says so."""
    begun, pause = threading.Event(), threading.Event()

    def works() -> None:
        begun.set()
        assert pause.wait(20)

    async with a_kernel(grace=UNIT) as kernel:
        try:
            with anyio.CancelScope() as scope:
                async with kernel.turn([works]) as turn:
                    submit(turn, works)
                    while not begun.is_set():
                        await anyio.sleep(0.001)
                    scope.cancel()
            (result,) = turn.results
            assert result.leaked
            assert "still at work" in str(result.content)
            assert kernel.statistics().limiters["threads"].leaked == 1
        finally:
            pause.set()
        with anyio.fail_after(5):
            while not idle(kernel):
                await anyio.sleep(0.001)


async def test_a_tools_own_timeout_error_is_a_tool_error() -> None:
    """Elsewhere: reported as the framework's timeout."""

    async def works() -> None:
        raise TimeoutError("the database is slow")

    async with a_kernel() as kernel:
        async with kernel.turn([tool(timeout=5)(works)], timeout=5) as turn:
            submit(turn, works)
    assert statuses(turn) == ["failed"]
    assert turn.results[0].content == "TimeoutError: the database is slow"


@only_asyncio
async def test_a_tool_that_raises_cancelled_error_is_a_tool_error() -> None:
    """Elsewhere: it ends the whole run."""

    async def works() -> None:
        raise asyncio.CancelledError

    async def awaits_a_cancelled_future() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with a_kernel() as kernel:
        async with kernel.turn([works, awaits_a_cancelled_future, fine]) as turn:
            submit(turn, works, awaits_a_cancelled_future, fine)
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
    assert statuses(turn) == ["failed", "failed", "ok"]


async def test_calls_have_a_cap_over_all_turns_of_a_kernel() -> None:
    """Elsewhere: none, and 792 concurrent calls."""
    working = peak = 0

    async def works() -> None:
        nonlocal working, peak
        working += 1
        peak = max(peak, working)
        await anyio.sleep(UNIT / 50)
        working -= 1

    async with a_kernel(limits=Limits(calls=10)) as kernel, anyio.create_task_group() as group:

        async def agent() -> None:
            async with kernel.turn([works]) as turn:
                submit(turn, *[works] * 20)
            assert statuses(turn) == ["ok"] * 20

        for _ in range(10):
            group.start_soon(agent)
    assert peak == 10


async def test_a_turn_has_a_deadline() -> None:
    """Elsewhere: none, or only between steps."""
    async with a_kernel() as kernel:
        bodies = Bodies()
        start = anyio.current_time()
        async with kernel.turn(bodies.tools(), timeout=UNIT) as turn:
            submit(turn, fine, *[bodies.tidy] * 4)
        assert anyio.current_time() - start < 5
    assert statuses(turn) == ["ok"] + ["timed_out"] * 4


def factorise(n: int) -> list[int]:
    """Find the prime factors of *n*, and say where."""
    found, divisor = [], 2
    while n > 1:
        while n % divisor == 0:
            found.append(divisor)
            n //= divisor
        divisor += 1
    return [os.getpid(), *found]


async def test_cpu_work_runs_in_a_process() -> None:
    """Elsewhere: in a thread, which it stops along with the event loop."""
    async with a_kernel() as kernel:
        with anyio.fail_after(30):
            async with kernel.turn([tool(backend="process")(factorise)]) as turn:
                turn.submit(call("factorise", n=91))
    (pid, *factors) = turn.results[0].value
    assert factors == [7, 13]
    assert pid != os.getpid()
    assert turn.results[0].backend == "process"


async def test_a_hung_tool_holds_up_neither_its_siblings_nor_its_turn() -> None:
    """Elsewhere: a timeout that waits for cleanup, or gives it no time, or never fires."""
    async with a_kernel(grace=UNIT) as kernel:
        bodies = Bodies()
        hung = tool(name="hung", timeout=UNIT)(bodies.endless)
        start = anyio.current_time()
        async with kernel.turn([hung, fine]) as turn:
            submit(turn, *[fine] * 31, hung)
        assert anyio.current_time() - start < 5
    assert statuses(turn) == ["ok"] * 31 + ["timed_out"]


async def test_calls_that_wait_for_calls_cannot_deadlock_over_slots() -> None:
    """Elsewhere: sub-agents hold the slot that their children need."""

    @tool
    async def parent() -> int:
        async with kernel.turn([fine]) as nested:
            submit(nested, fine, fine)
        return len(nested.results)

    async with a_kernel(limits=Limits(calls=1)) as kernel:
        with anyio.fail_after(10):
            async with kernel.turn([parent]) as turn:
                submit(turn, parent, parent, parent)
    assert [result.value for result in turn.results] == [2, 2, 2]


async def test_repeated_and_missing_ids_lose_no_call() -> None:
    """Elsewhere: servers that repeat or omit ids lose calls."""

    async def works(n: int) -> int:
        return n

    async with a_kernel() as kernel:
        async with kernel.turn([works]) as turn:
            for n, name in enumerate(["", "same", "same", ""]):
                turn.submit(ToolCall(name, "works", {"n": n}))
    assert [result.value for result in turn.results] == [0, 1, 2, 3]
    assert [result.call.id for result in turn.results] == ["", "same", "same", ""]


def test_a_cancelled_turn_leaves_nothing_in_the_whole_process(any_loop: Loop) -> None:
    """Elsewhere: 64 calls alive, 256 tasks."""

    async def works() -> None:
        await anyio.sleep(60)

    async def main() -> list[Turn]:
        turns: list[Turn] = []
        async with nothing_left():
            async with a_kernel() as kernel:
                for _ in range(3):
                    with move_on_after(UNIT / 2):
                        async with kernel.turn([works, factorise]) as turn:
                            turns.append(turn)
                            submit(turn, *[works] * 64)
        return turns

    assert [len(turn.results) for turn in any_loop.run(main)] == [64] * 3
