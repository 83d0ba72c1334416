"""`Task.cancel()` and its kin, which know nothing of scopes: asyncio's own ways to end a caller."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import anyio
import pytest

from tests.kernel.bodies import (
    UNIT,
    Bodies,
    a_kernel,
    elapse,
    fine,
    move_on_after,
    only_asyncio,
    statuses,
    submit,
    took,
)
from tests.kernel.bodies import anyio_backend as anyio_backend
from tests.kernel.test_ending import HOSTS, three_steps
from turnscope import Kernel, Turn

pytestmark = [pytest.mark.anyio, only_asyncio]


async def caller(
    kernel: Kernel, bodies: Bodies, turns: list[Turn], host: Callable[[Turn], Awaitable[None]]
) -> None:
    """Open a turn with a body that waits for ever; note in *turns* that it is open."""
    async with kernel.turn(bodies.tools()) as turn:
        turns.append(turn)
        submit(turn, bodies.tidy, fine)
        await host(turn)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("pause", [0.0, UNIT / 4], ids=["at once", "during cleanup"])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_task_cancelled_several_times_ends_once_and_joins_its_calls(
    times: int, pause: float, host: Callable[[Turn], Awaitable[None]]
) -> None:
    async with a_kernel() as kernel:
        bodies, turns = Bodies(), list[Turn]()
        counted: list[int] = []

        async def main() -> None:
            try:
                await caller(kernel, bodies, turns, host)
            finally:
                task = asyncio.current_task()
                assert task is not None
                counted.append(task.cancelling())

        task = asyncio.create_task(main())
        await bodies.begun.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(pause)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert counted == [times]
        assert statuses(turns[0]) == ["cancelled", "ok"]
        assert bodies.cleaned


async def test_the_message_of_the_cancellation_reaches_the_caller() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        task = asyncio.create_task(caller(kernel, bodies, [], HOSTS[1]))
        await bodies.begun.wait()
        task.cancel("shutting down")
        with pytest.raises(asyncio.CancelledError, match="shutting down"):
            await task


@pytest.mark.parametrize("host", HOSTS)
async def test_asyncio_timeout_raises_its_error_and_leaves_no_count(
    host: Callable[[Turn], Awaitable[None]],
) -> None:
    async with a_kernel() as kernel:
        bodies, turns = Bodies(), list[Turn]()

        async def main() -> int:
            start = anyio.current_time()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(UNIT):
                    await caller(kernel, bodies, turns, host)
            took(start, 2 * UNIT)
            await asyncio.sleep(0)  # a count left over would end this
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()

        assert await asyncio.create_task(main()) == 0
        assert statuses(turns[0]) == ["cancelled", "ok"]
        assert bodies.cleaned


@pytest.mark.parametrize("host", HOSTS)
async def test_wait_for_raises_its_timeout(host: Callable[[Turn], Awaitable[None]]) -> None:
    async with a_kernel() as kernel:
        bodies, turns = Bodies(), list[Turn]()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(caller(kernel, bodies, turns, host), UNIT)
        assert statuses(turns[0]) == ["cancelled", "ok"]
        assert bodies.cleaned


@pytest.mark.parametrize("host", HOSTS)
async def test_a_failing_sibling_in_an_asyncio_task_group(
    host: Callable[[Turn], Awaitable[None]],
) -> None:
    async with a_kernel() as kernel:
        bodies, turns = Bodies(), list[Turn]()
        error = LookupError("sibling")

        async def fails() -> None:
            await elapse(UNIT)
            raise error

        async def main() -> None:
            with pytest.raises(ExceptionGroup) as raised:
                async with asyncio.TaskGroup() as group:
                    group.create_task(caller(kernel, bodies, turns, host))
                    group.create_task(fails())
            assert raised.value.exceptions == (error,)

        await asyncio.create_task(main())
        assert statuses(turns[0]) == ["cancelled", "ok"]
        assert bodies.cleaned


async def test_a_native_cancel_and_a_scope_at_one_instant() -> None:
    async with a_kernel() as kernel:
        bodies, turns = Bodies(), list[Turn]()

        async def main() -> None:
            with move_on_after(UNIT):
                await caller(kernel, bodies, turns, HOSTS[1])
            await asyncio.sleep(10)

        task = asyncio.create_task(main())
        asyncio.get_running_loop().call_at(anyio.current_time() + UNIT, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert statuses(turns[0]) == ["cancelled", "ok"]
        assert bodies.cleaned


async def test_two_native_timeouts_at_one_instant() -> None:
    async with a_kernel() as kernel:
        bodies, turns = Bodies(), list[Turn]()

        async def main() -> int:
            end = anyio.current_time() + UNIT
            with pytest.raises(TimeoutError):
                async with asyncio.timeout_at(end):
                    async with asyncio.timeout_at(end):
                        await caller(kernel, bodies, turns, HOSTS[1])
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()

        assert await asyncio.create_task(main()) == 0
        assert statuses(turns[0]) == ["cancelled", "ok"]
        assert bodies.cleaned


async def test_a_task_cancelled_before_its_first_step_submits_nothing() -> None:
    async with a_kernel() as kernel:
        turns: list[Turn] = []
        task = asyncio.create_task(caller(kernel, Bodies(), turns, HOSTS[1]))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert turns == []


async def test_a_pending_cancel_at_the_first_await_starts_nothing() -> None:
    async with a_kernel() as kernel:
        bodies, turns = Bodies(), list[Turn]()

        async def main() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await caller(kernel, bodies, turns, HOSTS[1])

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(main())
        assert statuses(turns[0]) == ["not_started", "not_started"]
        assert bodies.notes == []


async def test_a_caller_that_uncancels_itself_goes_on() -> None:
    async with a_kernel() as kernel:
        bodies, turns = Bodies(), list[Turn]()

        async def main() -> str:
            try:
                await caller(kernel, bodies, turns, HOSTS[1])
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None and task.uncancel() == 0
            async with kernel.turn([fine]) as turn:
                submit(turn, fine)
            return statuses(turn)[0]

        task = asyncio.create_task(main())
        await bodies.begun.wait()
        task.cancel()
        assert await task == "ok"
        assert bodies.cleaned


async def test_an_error_of_the_block_wins_over_nothing_but_a_cancel_during_the_join_wins() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()

        async def main() -> None:
            async with kernel.turn(bodies.tools()) as turn:
                submit(turn, bodies.tidy)
                await bodies.begun.wait()
                raise LookupError("of the block")

        task = asyncio.create_task(main())
        await bodies.begun.wait()
        await elapse(UNIT / 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        assert isinstance(raised.value.__context__, LookupError)  # no error is lost
        assert bodies.cleaned


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_native_cancels_at_any_tick_give_one_result_and_whole_cleanup(times: int) -> None:
    seen: set[str] = set()
    async with a_kernel() as kernel:
        for ticks in range(30):
            log: list[str] = []
            turns: list[Turn] = []

            async def main(log: list[str] = log, turns: list[Turn] = turns) -> None:
                async with kernel.turn([steps := three_steps(log)]) as turn:
                    turns.append(turn)
                    submit(turn, steps)

            task = asyncio.create_task(main())
            await asyncio.sleep(0)
            for _ in range(ticks):
                await asyncio.sleep(0)
            cancelled = [task.cancel() for _ in range(times)]
            ended = (await asyncio.gather(task, return_exceptions=True))[0]
            (status,) = statuses(turns[0])
            assert isinstance(ended, asyncio.CancelledError) == cancelled[0]
            assert (
                log
                == {
                    "ok": ["begun", "finished"],
                    "cancelled": ["begun", "cleaned"],
                    "not_started": [],
                }[status]
            )
            seen.add(status)
    assert seen == {"ok", "cancelled", "not_started"}


async def test_a_native_cancel_waits_for_the_thread_of_a_body_in_the_event_loop() -> None:
    notes: list[str] = []
    begun, pause = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert pause.wait(5)
        notes.append("thread")

    async def reads() -> None:
        try:
            await anyio.to_thread.run_sync(work)
        finally:
            notes.append("body")

    async with a_kernel() as kernel:

        async def main() -> None:
            async with kernel.turn([reads]) as turn:
                submit(turn, reads)

        task = asyncio.create_task(main())
        while not begun.is_set():  # in no time: the clock stands still while the thread works
            await asyncio.sleep(0)
        task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert notes == []
        pause.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert notes == ["thread", "body"]
