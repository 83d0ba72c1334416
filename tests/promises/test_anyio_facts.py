"""Facts of the event loops that bite an agent's author: turnscope keeps its promise there."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio import CancelScope

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
from turnscope import Kernel, Limits, Turn, tool
from turnscope._loop import scope_of
from turnscope.testing import nothing_left

pytestmark = pytest.mark.anyio

# A plain @pytest.mark.anyio test runs in real time here: threads and native cancellations do.


@only_asyncio
async def test_a_native_cancel_orphans_no_thread_and_gives_no_slot_back_too_early() -> None:
    """`Task.cancel()` of an `await to_thread.run_sync()` returns at once, and the token with it."""
    begun, pause = threading.Event(), threading.Event()

    def works() -> None:
        begun.set()
        assert pause.wait(10)

    async with a_kernel(grace=UNIT, limits=Limits(threads=1)) as kernel:
        turns: list[Turn] = []

        async def host() -> None:
            async with kernel.turn([works]) as turn:
                turns.append(turn)
                submit(turn, works)

        task = asyncio.create_task(host())
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        try:
            assert turns[0].results[0].leaked  # reported, not silently lost
            assert kernel.statistics().limiters["threads"].lent == 1
        finally:
            pause.set()
        with anyio.fail_after(5):
            while not idle(kernel):
                await anyio.sleep(0.001)


async def test_an_ordinary_finally_may_await_under_a_cancelled_scope() -> None:
    """In AnyIO's cancelled scope every await raises again, so such a cleanup dies at its first."""
    async with a_kernel() as kernel:
        bodies = Bodies()
        with CancelScope() as scope:
            async with kernel.turn(bodies.tools()) as turn:
                submit(turn, bodies.tidy)
                await bodies.begun.wait()
                scope.cancel()
        assert bodies.cleaned
        assert statuses(turn) == ["cancelled"]


@only_asyncio
async def test_a_second_native_cancel_of_the_caller_does_not_cut_the_cleanup_of_its_calls() -> None:
    """A second native cancel pierces even a shield in the caller's own task."""
    async with a_kernel() as kernel:
        bodies, turns = Bodies(), list[Turn]()

        async def host() -> None:
            async with kernel.turn(bodies.tools()) as turn:
                turns.append(turn)
                submit(turn, bodies.tidy)

        task = asyncio.create_task(host())
        await bodies.begun.wait()
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(UNIT / 4)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert bodies.cleaned
        assert statuses(turns[0]) == ["cancelled"]


async def test_a_tools_own_timeout_error_is_told_apart_from_its_timeout() -> None:
    """Both may be the same class: what was cancelled decides."""

    async def own() -> None:
        raise TimeoutError("of the tool")

    async with a_kernel() as kernel:
        bodies = Bodies()
        timed = tool(name="timed", timeout=UNIT)(bodies.tidy)
        async with kernel.turn([tool(timeout=60)(own), timed]) as turn:
            submit(turn, own, timed)
    assert statuses(turn) == ["failed", "timed_out"]


async def test_a_tool_that_swallows_its_cancellation_cannot_be_a_success() -> None:
    """Re-cancelled at each await, a swallower may return a value as if nothing had been."""
    async with a_kernel() as kernel:
        bodies = Bodies()
        timed = tool(name="timed", timeout=UNIT)(bodies.stubborn)
        async with kernel.turn([timed]) as turn:
            submit(turn, timed)
        assert statuses(turn) == ["timed_out"]
        assert turn.results[0].value == "late"
        bodies.begun = anyio.Event()
        with CancelScope() as scope:
            async with kernel.turn(bodies.tools()) as turn:
                submit(turn, bodies.stubborn)
                await bodies.begun.wait()
                scope.cancel()
        assert scope.cancelled_caught
        assert bodies.notes == ["swallowed"] * 2  # one interrupt each, not one per await


async def test_one_error_is_never_wrapped_in_a_group_of_one() -> None:
    """A task group raises an ExceptionGroup even for a single error."""
    error = LookupError("one")

    @tool(on_error="raise")
    async def breaks() -> None:
        async with anyio.create_task_group() as group:
            await anyio.sleep(0)
            group.start_soon(anyio.sleep, 0)
            raise error

    async with a_kernel() as kernel:
        with pytest.raises(LookupError) as raised:
            async with kernel.turn([breaks]) as turn:
                submit(turn, breaks)
        assert raised.value is error
        assert turn.results[0].error is error


def worker() -> int:
    """Say which process this is."""
    return os.getpid()


def burn(path: str) -> int:
    """Count for ever in a process, and leave a mark."""
    Path(path).write_text(str(os.getpid()))
    n = 0
    while True:
        n += 1


async def test_a_process_that_counts_for_ever_is_killed_at_its_timeout(tmp_path: Path) -> None:
    """Left uncancellable, a worker process blocks its caller until it ends."""
    mark = tmp_path / "mark"
    warm, slow = tool(backend="process")(worker), tool(backend="process", timeout=2.0)(burn)
    async with a_kernel(grace=UNIT) as kernel:
        with anyio.fail_after(60):
            # A busy machine may take longer to start a worker than the timeout lets it.
            async with kernel.turn([warm]) as turn:
                turn.submit(call("worker"))
            async with kernel.turn([slow]) as turn:
                turn.submit(call("burn", path=str(mark)))
        assert statuses(turn) == ["timed_out"]
        pid = int(mark.read_text())
        with anyio.fail_after(5):
            while Path(f"/proc/{pid}").exists():
                await anyio.sleep(0.01)


async def test_the_event_loop_goes_on_while_a_cancelled_turn_waits_for_its_threads() -> None:
    """A thread pool's own `with` block, in a coroutine, blocks the whole loop on a cancel."""
    begun, pause = threading.Event(), threading.Event()
    late = 0.0

    def works() -> None:
        begun.set()
        assert pause.wait(20)

    async def ticks() -> None:
        nonlocal late
        for _ in range(20):
            before = time.monotonic()
            await anyio.sleep(UNIT / 10)
            late = max(late, time.monotonic() - before - UNIT / 10)
        pause.set()

    async with a_kernel(grace=30) as kernel:
        async with anyio.create_task_group() as group:
            with CancelScope() as scope:
                async with kernel.turn([works]) as turn:
                    submit(turn, works)
                    while not begun.is_set():
                        await anyio.sleep(0.001)
                    group.start_soon(ticks)
                    scope.cancel()
            assert pause.is_set()  # so the ticks went on all the time
    assert late < 5
    assert statuses(turn) == ["cancelled"]


async def test_a_tool_that_raises_a_cancellation_fails_alone() -> None:
    """In a task group such a child ends quietly, and cancels the whole group."""

    async def quits() -> None:
        if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
            raise asyncio.CancelledError("by itself")
        import trio

        raise trio.Cancelled._create(source="explicit")

    async def later() -> str:
        await anyio.sleep(UNIT)
        return "later"

    async with a_kernel() as kernel:
        async with kernel.turn([quits, later]) as turn:
            submit(turn, quits, later)
    assert statuses(turn) == ["failed", "ok"]


async def test_an_uncontended_limit_costs_no_step_of_the_event_loop() -> None:
    """Each use of an event, a limiter or a stream costs a step, unless it is taken at once."""

    async def begins() -> None:
        begun.set()

    async with a_kernel(limits=Limits(groups={"db": 4})) as kernel:
        plain, limited = tool(name="plain")(begins), tool(name="limited", limit="db")(begins)
        steps: dict[str, list[int]] = {"plain": [], "limited": []}
        async with kernel.turn([plain, limited]) as turn:
            await anyio.sleep(UNIT / 10)  # the turn's own task is there by now
            for each in [plain, limited] * 30:
                begun = anyio.Event()
                submit(turn, each)
                count = 0
                while not begun.is_set():
                    count += 1
                    await anyio.lowlevel.checkpoint()
                steps[each.name].append(count)
    # The fewest, because trio runs the tasks of one step in random order.
    assert min(steps["plain"]) == min(steps["limited"])


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
async def test_a_turn_may_stand_open_across_a_yield() -> None:
    """A task group there ends in "Attempted to exit cancel scope in a different task"."""
    turns: list[Turn] = []

    async def stream(kernel: Kernel, bodies: Bodies) -> AsyncGenerator[int, None]:
        async with kernel.turn(bodies.tools()) as turn:
            turns.append(turn)
            submit(turn, bodies.tidy)
            await bodies.begun.wait()
            yield 1

    async with a_kernel() as kernel:
        bodies = Bodies()
        values = stream(kernel, bodies)
        await anext(values)
        async with anyio.create_task_group() as group:
            group.start_soon(values.aclose)
        assert statuses(turns[0]) == ["cancelled"]
        assert bodies.cleaned


async def test_the_interrupt_cuts_no_shield_and_orphans_no_thread_of_an_async_body() -> None:
    """A native cancel as the interrupt would cut a body's own shield, and leave its thread."""
    begun: list[str] = []
    notes: list[str] = []

    def works() -> None:
        begun.append("thread")
        time.sleep(3 * UNIT)
        notes.append("thread")

    async def threads() -> None:
        await anyio.to_thread.run_sync(works)
        notes.append("body")

    async def shields() -> None:
        with CancelScope(shield=True):
            begun.append("shield")
            await anyio.sleep(2 * UNIT)
            notes.append("shielded")

    async with a_kernel() as kernel:
        with CancelScope() as scope:
            async with kernel.turn([threads, shields]) as turn:
                submit(turn, threads, shields)
                while len(begun) < 2:
                    await anyio.sleep(0.001)
                scope.cancel()
        assert sorted(notes) == ["body", "shielded", "thread"]
    assert statuses(turn) == ["ok", "ok"]  # they came to their ends before any interrupt


async def test_a_body_that_cancels_its_own_turn_and_returns_ends_nobody_else() -> None:
    """`uncancel()` does not clear a pending native cancel, and AnyIO would cancel the group."""

    @tool
    async def stops() -> str:
        turns[0].cancel()
        return "stopped"

    turns: list[Turn] = []
    async with a_kernel() as kernel:
        bodies = Bodies()
        with anyio.fail_after(5):
            async with kernel.turn([fine]) as other:
                async with kernel.turn([stops, *bodies.tools()]) as turn:
                    turns.append(turn)
                    submit(turn, bodies.tidy)
                    await bodies.begun.wait()
                    submit(turn, stops)
                submit(other, fine)
        assert statuses(turn) == ["cancelled", "ok"]
        assert statuses(other) == ["ok"]
        assert bodies.cleaned


# Clocks and threads


async def test_a_timeout_given_as_a_deadline_is_seen_at_once() -> None:
    """`deadline=30`, meant as 30 seconds, lies in the past."""
    async with a_kernel() as kernel:
        start = anyio.current_time()
        async with kernel.turn([fine], deadline=30) as turn:
            submit(turn, fine)
        if start > 30 + UNIT:
            assert statuses(turn) == ["not_started"]
        async with kernel.turn([fine], timeout=30, deadline=math.inf) as turn:
            submit(turn, fine)
        assert statuses(turn) == ["ok"]


def test_a_kernel_leaves_its_loop_no_task_thread_or_process(any_loop: Loop) -> None:
    def works() -> int:
        return os.getpid()

    async def main() -> None:
        async with nothing_left():
            async with Kernel() as kernel, kernel.turn([works, fine]) as turn:
                submit(turn, works, fine)
            assert statuses(turn) == ["ok", "ok"]

    any_loop.run(main)


async def test_cancelling_many_calls_takes_no_longer_than_the_slowest_cleanup() -> None:
    begun = 0

    async def cleans() -> None:
        nonlocal begun
        begun += 1
        try:
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(2 * UNIT)

    async with a_kernel() as kernel:
        start = anyio.current_time()
        with CancelScope() as scope:
            async with kernel.turn([cleans]) as turn:
                submit(turn, *[cleans] * 64)
                while begun < 64:
                    await anyio.sleep(0.001)
                scope.cancel()
        assert scope.cancelled_caught
        assert statuses(turn) == ["cancelled"] * 64
        assert anyio.current_time() - start < 64 * 2 * UNIT / 2


async def test_a_tasks_handle_shows_the_scope_around_it() -> None:
    """Each task of a group is in a scope of its own: a call takes it for its own, being there."""

    async def works() -> None:
        scope.shield = True
        group.cancel_scope.cancel()
        await anyio.sleep(UNIT / 10)
        seen.append("shielded")
        scope.deadline = anyio.current_time() + UNIT / 10
        try:
            await anyio.sleep(5)
        except anyio.get_cancelled_exc_class():
            seen.append("enforced")
            raise

    seen: list[str] = []
    async with anyio.create_task_group() as group:
        found = scope_of(group.create_task(works()))
        assert found is not None
        scope = found
    assert seen == ["shielded", "enforced"]


@pytest.mark.parametrize("timeout", [None, UNIT], ids=["scope", "timeout"])
async def test_without_that_scope_a_call_is_interrupted_all_the_same(
    monkeypatch: pytest.MonkeyPatch, timeout: float | None
) -> None:
    """An AnyIO that hides it costs a call some microseconds, and nothing else."""
    monkeypatch.setattr("turnscope._supervisor.scope_of", lambda task: None)
    bodies = Bodies()
    tidy, stubborn = (tool(timeout=timeout)(body) for body in (bodies.tidy, bodies.stubborn))
    async with a_kernel(grace=50 * UNIT) as kernel:
        with move_on_after(math.inf if timeout else UNIT):
            async with kernel.turn([tidy, stubborn, fine]) as turn:
                submit(turn, tidy, stubborn, fine)
    expected = "timed_out" if timeout else "cancelled"
    assert statuses(turn) == [expected, expected, "ok"]
    assert bodies.cleaned
