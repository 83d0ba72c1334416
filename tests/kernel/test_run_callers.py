"""Who runs an agent, and how they leave: scopes and timeouts of each loop, native cancels, streams
that nobody reads to the end, a loop that is torn down.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from typing import Any

import anyio
import pytest

from tests.kernel.agents import an_agent, asks, ends
from tests.kernel.bodies import (
    UNIT,
    Bodies,
    a_kernel,
    anyio_backend,
    idle,
    is_real,
    move_on_after,
    only_asyncio,
    only_trio,
    took,
)
from turnscope import Agent, Kernel, Run, RunCancelled
from turnscope.events import CallStarted
from turnscope.testing import ScriptedModel, Stream, nothing_left

__all__ = ["anyio_backend"]

in_a_loop = pytest.mark.anyio


def waiting(bodies: Bodies) -> Agent[Any, str]:
    """An agent whose one call waits for ever."""
    return an_agent(asks(bodies.tidy), "never", tools=[bodies.tidy])


SILENT = Stream([(10_000, Exception("never"))])


# Scopes and timeouts.


@in_a_loop
@pytest.mark.parametrize("silent", [True, False], ids=["in the model", "in a tool"])
async def test_a_run_ends_with_the_scope_around_it(silent: bool) -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        agent = an_agent(SILENT) if silent else waiting(bodies)
        start = anyio.current_time()
        with move_on_after(UNIT) as scope:
            await kernel.run(agent, "go")
        assert scope.cancelled_caught
        took(start, UNIT if silent else 2 * UNIT)
        with pytest.raises(TimeoutError) as caught:
            with anyio.fail_after(UNIT):
                await kernel.run(agent.replace(model=ScriptedModel([SILENT])), "go")
        assert type(caught.value) is TimeoutError  # AnyIO's own, not the kernel's
        assert silent or bodies.cleaned
        assert kernel.statistics().runs == 0


@in_a_loop
async def test_a_run_in_a_scope_that_is_cancelled_already_sends_nothing_or_ends_at_once() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        start = anyio.current_time()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await kernel.run(waiting(bodies), "go")
        assert scope.cancelled_caught
        took(start, UNIT if bodies.notes else 0)
        assert idle(kernel)


@in_a_loop
async def test_a_sibling_in_the_callers_group_that_fails_ends_the_run_before_the_group_raises() -> (
    None
):
    async def fails(begun: anyio.Event) -> None:
        await begun.wait()
        raise LookupError("broken")

    async with a_kernel() as kernel:
        bodies = Bodies()
        with pytest.raises(ExceptionGroup) as caught:
            async with anyio.create_task_group() as group:
                group.start_soon(kernel.run, waiting(bodies), "go")
                group.start_soon(fails, bodies.begun)
        assert [type(each) for each in caught.value.exceptions] == [LookupError]
        assert bodies.cleaned


@in_a_loop
@only_asyncio
async def test_a_run_ends_with_asyncios_own_timeout() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        start = anyio.current_time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(UNIT):
                await kernel.run(waiting(bodies), "go")
        took(start, 2 * UNIT)
        assert bodies.cleaned
        bodies = Bodies()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(kernel.run(waiting(bodies), "go"), UNIT)
        assert bodies.cleaned
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0


@in_a_loop
@only_trio
async def test_a_run_ends_with_trios_own_scope() -> None:
    import trio

    async with a_kernel() as kernel:
        bodies = Bodies()
        start = anyio.current_time()
        with trio.move_on_after(UNIT) as scope:
            await kernel.run(waiting(bodies), "go")
        assert scope.cancelled_caught
        took(start, 2 * UNIT)
        assert bodies.cleaned
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(UNIT):
                await kernel.run(an_agent(SILENT), "go")


@in_a_loop
@only_asyncio
@pytest.mark.parametrize("silent", [True, False], ids=["in the model", "in a tool"])
@pytest.mark.parametrize("pause", [0.0, UNIT / 4], ids=["at once", "during cleanup"])
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_task_cancelled_several_times_ends_once_and_leaves_nothing(
    times: int, pause: float, silent: bool
) -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        runs: list[Run[Any]] = []

        async def main() -> None:
            run = kernel.start(an_agent(SILENT) if silent else waiting(bodies), "go")
            runs.append(run)
            async with run:
                if silent:
                    bodies.begun.set()
                await run.wait()

        task = asyncio.create_task(main())
        await bodies.begun.wait()
        for n in range(times):
            task.cancel(f"cancel {n}")
            await asyncio.sleep(pause)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert silent or bodies.cleaned
        assert ends(runs[0].history) == ([] if silent else ["cancelled"])
        assert kernel.statistics().runs == 0


@in_a_loop
@only_asyncio
async def test_a_run_of_a_task_that_is_cancelled_before_its_first_step_never_begins() -> None:
    async with a_kernel() as kernel:
        agent = an_agent("never")
        task = asyncio.create_task(kernel.run(agent, "go"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert isinstance(agent.model, ScriptedModel) and agent.model.requests == []


@in_a_loop
async def test_a_cancel_at_any_moment_leaves_a_history_that_can_be_sent() -> None:
    """Before the first request, in the first calls, in the second, after the end."""

    async def works() -> str:
        try:
            await anyio.sleep(2 * UNIT)
        finally:
            await anyio.sleep(UNIT / 10)
        return "worked"

    script = [asks(works, works), asks(works), "done"]
    seen = set()
    async with a_kernel() as kernel:
        for units in (0, 1, 2.05, 3, 6):
            run = kernel.start(an_agent(*script, tools=[works]), "go")
            with move_on_after(units * UNIT) as scope:
                async with run:
                    await run.wait()
            statuses = ends(run.history)
            seen.add(" ".join(statuses))
            if not scope.cancelled_caught:
                assert statuses == ["ok", "ok", "ok"]
            # And the conversation goes on.
            model = ScriptedModel(["on"])
            again = await kernel.run(Agent(model=model), "again", history=run.history)
            assert again.output == "on"
    if not is_real():  # there, a busy machine may be late for any of them
        # The first may find the calls begun: a model that answers at once, a run in one step.
        assert seen - {"", "not_started not_started"} == {
            "cancelled cancelled",
            "ok ok cancelled",
            "ok ok ok",
        }


# Generators, as every streaming endpoint is one.


async def endpoint(kernel: Kernel, agent: Agent[Any, Any], runs: list[Any]) -> AsyncGenerator[str]:
    """Yield inside of a run's block and inside of the loop over its events."""
    async with kernel.start(agent, "go") as run:
        runs.append(run)
        async for event in run:
            yield type(event).__name__


async def settled(kernel: Kernel) -> None:
    with anyio.fail_after(5):
        while kernel.statistics().runs:
            await anyio.sleep(UNIT / 10)


@in_a_loop
async def test_a_stream_that_is_closed_ends_its_run() -> None:
    async with a_kernel() as kernel:
        bodies, runs = Bodies(), list[Run[Any]]()
        async with aclosing(endpoint(kernel, waiting(bodies), runs)) as stream:
            async for name in stream:
                if name == "CallStarted":
                    await bodies.begun.wait()
                    break
        assert bodies.cleaned
        assert ends(runs[0].history) == ["cancelled"]


@in_a_loop
async def test_a_stream_that_is_abandoned_ends_its_run_and_raises_nowhere() -> None:
    """As when the client of a server-sent stream goes away: finalised elsewhere, by anybody."""
    async with a_kernel() as kernel:
        bodies, runs = Bodies(), list[Run[Any]]()

        async def reads() -> None:
            stream = endpoint(kernel, waiting(bodies), runs)
            async for name in stream:
                if name == "CallStarted":
                    await bodies.begun.wait()
                    # In another task than the one that it is finalised in.
                    kept.append(stream)
                    return

        kept: list[AsyncGenerator[str]] = []
        async with anyio.create_task_group() as group:
            group.start_soon(reads)
        on_trio = anyio.get_cancelled_exc_class() is not asyncio.CancelledError
        # Trio says that the endpoint's own generator was left half-way.
        with pytest.warns(ResourceWarning, match="endpoint") if on_trio else nullcontext():
            kept.clear()
            gc.collect()
        await settled(kernel)
        assert ends(runs[0].history) == ["cancelled"]


@in_a_loop
async def test_a_stream_may_be_closed_in_another_task_than_it_was_opened_in() -> None:
    async with a_kernel() as kernel:
        bodies, runs = Bodies(), list[Run[Any]]()
        stream = endpoint(kernel, waiting(bodies), runs)

        async def reads() -> None:
            async for name in stream:
                if name == "CallStarted":
                    return

        async with anyio.create_task_group() as group:
            group.start_soon(reads)
        async with anyio.create_task_group() as group:
            group.start_soon(stream.aclose)
        assert ends(runs[0].history) == ["cancelled"]
        assert kernel.statistics().runs == 0


@in_a_loop
async def test_a_stream_whose_reader_is_cancelled_ends_its_run() -> None:
    async with a_kernel() as kernel:
        bodies, runs = Bodies(), list[Run[Any]]()
        with move_on_after(UNIT) as scope:
            async with aclosing(endpoint(kernel, waiting(bodies), runs)) as stream:
                async for _ in stream:
                    ...
        assert scope.cancelled_caught
        assert bodies.cleaned
        assert ends(runs[0].history) == ["cancelled"]


@in_a_loop
async def test_the_block_may_be_left_in_the_loop_over_the_events() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()

        async def first(run: Run[Any]) -> str:
            async for event in run:
                if isinstance(event, CallStarted):
                    return event.call.name
            return ""

        async with kernel.start(waiting(bodies), "go") as run:
            assert await first(run) == "tidy"
            await bodies.begun.wait()
        assert bodies.cleaned


# The end of the loop, in loops of these tests' own.


def test_a_run_whose_loop_is_torn_down_cleans_up_and_leaves_a_whole_history() -> None:
    notes: list[Any] = []

    async def main() -> None:
        bodies = Bodies()

        async def serves() -> None:
            async with Kernel() as kernel:
                run = kernel.start(waiting(bodies), "go")
                try:
                    async with run:
                        await run.wait()
                finally:
                    notes.append(ends(run.history))
                    notes.append(bodies.cleaned)

        notes.append(asyncio.create_task(serves()))
        await bodies.begun.wait()

    asyncio.run(main())  # returns while the run goes on: every task is cancelled natively
    task, statuses, cleaned = notes
    assert task.cancelled()
    assert (statuses, cleaned) == (["cancelled"], True)


def test_a_kernel_that_outlives_the_main_task_ends_its_runs_with_the_loop() -> None:
    kept: list[Any] = []

    async def main() -> None:
        bodies = Bodies()
        kernel = Kernel()
        await kernel.__aenter__()  # as a start-up hook does, whose shut-down is never called
        run = kernel.start(waiting(bodies), "go")
        await run.__aenter__()
        kept.extend([kernel, run, bodies])
        await bodies.begun.wait()

    asyncio.run(main())
    _, run, bodies = kept
    assert bodies.cleaned
    assert ends(run.history) == ["cancelled"]


def test_runs_survive_nothing_of_a_kernel_that_was_closed_in_mid_request() -> None:
    async def main() -> None:
        async with nothing_left():
            kernel = Kernel()
            await kernel.__aenter__()
            async with kernel.start(an_agent(SILENT), "go") as run:
                await anyio.sleep(0)
                await kernel.__aexit__(None, None, None)
                with pytest.raises(RunCancelled, match="the kernel was closed"):
                    await run.wait()

    asyncio.run(main())


# AnyIO wraps a task's coroutine, and does not close it if the wrapper never took a step.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_run_whose_task_is_cancelled_before_its_first_step_comes_to_an_end_all_the_same() -> None:
    kept: list[Any] = []

    async def main() -> None:
        kernel = Kernel()
        await kernel.__aenter__()

        async def enters() -> None:
            run = kernel.start(an_agent("never"), "go")
            await run.__aenter__()  # awaits nothing: the loop ends in this very step
            kept.extend([kernel, run])

        kept.append(asyncio.create_task(enters()))

    asyncio.run(main())
    _, kernel, run = kept
    with pytest.raises(RunCancelled):
        run.wait().send(None)  # at once: it has ended
    assert kernel.statistics().runs == 0
    assert len(run.history) == 1
    del kernel, run
    kept.clear()
    gc.collect()
