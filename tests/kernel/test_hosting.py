"""Where a turn's block may stand: generators, fixtures, background tasks, a loop that ends."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.kernel.bodies import (
    UNIT,
    UVLOOP,
    Bodies,
    a_kernel,
    elapse,
    fine,
    idle,
    move_on_after,
    only_asyncio,
    statuses,
    submit,
)
from tests.kernel.bodies import anyio_backend as anyio_backend
from turnscope import Kernel, Turn, tool
from turnscope.testing import nothing_left

in_a_loop = pytest.mark.anyio


# Async generators, as every streaming endpoint is one


async def endpoint(kernel: Kernel, bodies: Bodies, turns: list[Turn]) -> AsyncGenerator[str]:
    """Yield inside of a turn's block, with a call under way."""
    async with kernel.turn(bodies.tools()) as turn:
        turns.append(turn)
        submit(turn, bodies.tidy)
        await bodies.begun.wait()
        yield "first"
        yield "second"


async def settled(kernel: Kernel) -> None:
    """Wait until the kernel has no turn open."""
    with anyio.fail_after(5):
        while not idle(kernel):
            await anyio.sleep(UNIT / 10)


@in_a_loop
async def test_a_generator_that_is_closed_cancels_its_calls() -> None:
    async with a_kernel() as kernel:
        bodies, turns = Bodies(), list[Turn]()
        async with aclosing(endpoint(kernel, bodies, turns)) as stream:
            assert await anext(stream) == "first"
        assert statuses(turns[0]) == ["cancelled"]
        assert bodies.cleaned


@in_a_loop
async def test_a_generator_may_be_closed_in_another_task() -> None:
    async with a_kernel() as kernel:
        bodies, turns = Bodies(), list[Turn]()
        stream = endpoint(kernel, bodies, turns)
        async with anyio.create_task_group() as group:
            group.start_soon(anext, stream)
        async with anyio.create_task_group() as group:
            group.start_soon(stream.aclose)
        assert statuses(turns[0]) == ["cancelled"]
        assert bodies.cleaned


@in_a_loop
async def test_a_generator_may_be_closed_in_a_task_that_is_cancelled() -> None:
    async with a_kernel() as kernel:
        bodies, turns = Bodies(), list[Turn]()
        stream = endpoint(kernel, bodies, turns)
        await anext(stream)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await stream.aclose()
        assert statuses(turns[0]) == ["cancelled"]
        assert bodies.cleaned


@in_a_loop
# trio warns of every generator that is left to the garbage collector: that is what is tested.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
async def test_a_generator_abandoned_at_its_yield_cancels_its_calls_and_raises_nothing() -> None:
    async with a_kernel() as kernel:
        bodies, turns = Bodies(), list[Turn]()
        stream = endpoint(kernel, bodies, turns)
        await anext(stream)
        del stream
        gc.collect()
        await settled(kernel)
        assert statuses(turns[0]) == ["cancelled"]
        assert bodies.cleaned


@in_a_loop
async def test_a_generator_may_be_driven_from_several_tasks_to_its_end() -> None:
    async def stream(kernel: Kernel, turns: list[Turn]) -> AsyncGenerator[str]:
        async with kernel.turn([fine]) as turn:
            turns.append(turn)
            submit(turn, fine)
            yield "first"
        yield statuses(turn)[0]

    async with a_kernel() as kernel:
        turns: list[Turn] = []
        seen: list[str] = []
        values = stream(kernel, turns)

        async def takes() -> None:
            seen.append(await anext(values))

        for _ in range(2):
            async with anyio.create_task_group() as group:
                group.start_soon(takes)
        await values.aclose()
        assert seen == ["first", "ok"]


@in_a_loop
async def test_an_abandoned_generator_does_not_disturb_the_kernels_other_turns() -> None:
    async def later() -> str:
        await anyio.sleep(4 * UNIT)
        return "later"

    async with a_kernel() as kernel:
        bodies, turns = Bodies(), list[Turn]()
        async with kernel.turn([later]) as turn:
            submit(turn, later)
            stream = endpoint(kernel, bodies, turns)
            await anext(stream)
            await stream.aclose()
        assert statuses(turn) == ["ok"]
        assert bodies.cleaned


# Tasks


@in_a_loop
@only_asyncio
async def test_a_kernel_may_be_opened_used_and_closed_in_three_tasks() -> None:
    async with nothing_left():
        kernel = Kernel()
        await asyncio.create_task(kernel.__aenter__())

        async def use() -> Turn:
            async with kernel.turn([fine]) as turn:
                submit(turn, fine)
            return turn

        assert statuses(await asyncio.create_task(use())) == ["ok"]
        await asyncio.create_task(kernel.__aexit__(None, None, None))


@in_a_loop
@only_asyncio
async def test_a_kernel_outlives_the_cancelled_task_that_opened_it() -> None:
    async with nothing_left():
        kernel = Kernel()

        async def opens() -> None:
            await kernel.__aenter__()
            await asyncio.sleep(10)

        task = asyncio.create_task(opens())
        await elapse(UNIT)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with kernel.turn([fine]) as turn:
            submit(turn, fine)
        assert statuses(turn) == ["ok"]
        await kernel.__aexit__(None, None, None)


@in_a_loop
async def test_many_tasks_use_one_kernel_and_one_cancelled_does_not_matter_to_the_rest() -> None:
    done: list[list[str]] = []

    async def agent(kernel: Kernel, units: int) -> None:
        async def works() -> str:
            await anyio.sleep(2 * UNIT if units > 1 else 60)
            return "done"

        with move_on_after(units * UNIT):
            async with kernel.turn([works]) as turn:
                submit(turn, works)
        done.append(statuses(turn))

    async with a_kernel() as kernel:
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(agent, kernel, 1 if number % 2 else 90)
    assert sorted(done) == [["cancelled"]] * 10 + [["ok"]] * 10


# asyncio.run tears down: it cancels every task at once, and runs them to their end


def run_in_asyncio(name: str, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """`asyncio.run`, in the flavour of the fixture."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if name == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


asyncio_runs = pytest.mark.parametrize("any_loop", ["asyncio", UVLOOP], indirect=True)


@asyncio_runs
@pytest.mark.parametrize("raises", [False, True], ids=["main returns", "main raises"])
@pytest.mark.parametrize("own_kernel", [False, True], ids=["kernel of main", "kernel of the task"])
def test_a_turn_open_in_another_task_when_main_ends(
    any_loop: Any, raises: bool, own_kernel: bool, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[Any] = []
    turns: list[Turn] = []

    async def background(kernel: Kernel, bodies: Bodies) -> None:
        async with kernel.turn(bodies.tools()) as turn:
            turns.append(turn)
            submit(turn, bodies.tidy)

    async def opens(bodies: Bodies) -> None:
        async with Kernel() as kernel:
            await background(kernel, bodies)

    async def main() -> str:
        bodies = Bodies()
        kept.append(bodies)
        if own_kernel:
            kept.append(asyncio.create_task(opens(bodies)))
        else:
            kernel = await Kernel().__aenter__()  # and never closed
            kept.append(asyncio.create_task(background(kernel, bodies)))
        await bodies.begun.wait()
        if raises:
            raise LookupError("main")
        return "returned"

    with caplog.at_level(logging.WARNING):
        if raises:
            with pytest.raises(LookupError, match="main"):
                run_in_asyncio(any_loop.name, main)
        else:
            assert run_in_asyncio(any_loop.name, main) == "returned"
    bodies, task = kept
    assert task.cancelled()
    assert statuses(turns[0]) == ["cancelled"]
    assert bodies.notes[0] == "cleaning"
    assert bodies.cleaned
    # asyncio logs what is lost: tasks destroyed while pending, exceptions never retrieved.
    assert caplog.records == []


@asyncio_runs
def test_main_leaves_its_kernel_while_another_task_has_a_turn_open(any_loop: Any) -> None:
    turns: list[Turn] = []

    async def background(kernel: Kernel, bodies: Bodies) -> None:
        async with kernel.turn(bodies.tools()) as turn:
            turns.append(turn)
            submit(turn, bodies.tidy)

    async def main() -> Bodies:
        bodies = Bodies()
        async with Kernel() as kernel:
            task = asyncio.create_task(background(kernel, bodies))
            await bodies.begun.wait()
        await task
        return bodies

    assert run_in_asyncio(any_loop.name, main).cleaned
    assert statuses(turns[0]) == ["cancelled"]


@asyncio_runs
def test_nested_turns_end_with_the_loop(any_loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    kept: list[Any] = []
    turns: list[Turn] = []

    async def background(bodies: Bodies) -> None:
        @tool
        async def outer() -> None:
            async with kernel.turn(bodies.tools()) as nested:
                turns.append(nested)
                submit(nested, bodies.tidy)

        async with Kernel() as kernel, kernel.turn([outer]) as turn:
            turns.append(turn)
            submit(turn, outer)

    async def main() -> Bodies:
        bodies = Bodies()
        kept.append(asyncio.create_task(background(bodies)))
        await bodies.begun.wait()
        return bodies

    with caplog.at_level(logging.WARNING):
        bodies = run_in_asyncio(any_loop.name, main)
    assert [statuses(turn) for turn in turns] == [["cancelled"]] * 2
    assert bodies.cleaned
    assert caplog.records == []


@asyncio_runs
def test_an_endless_swallower_cannot_keep_the_loop_from_ending(any_loop: Any) -> None:
    turns: list[Turn] = []
    kept: list[Any] = []

    async def background(bodies: Bodies) -> None:
        async with Kernel(grace=UNIT) as kernel, kernel.turn(bodies.tools()) as turn:
            turns.append(turn)
            submit(turn, bodies.endless)

    async def main() -> None:
        bodies = Bodies()
        kept.append(asyncio.create_task(background(bodies)))
        await bodies.begun.wait()

    run_in_asyncio(any_loop.name, main)
    assert statuses(turns[0]) == ["cancelled"]


# Fixtures


FIXTURE_TESTS = """
import asyncio
import pytest_asyncio, pytest
from turnscope import Kernel, ToolCall, tool

said = []

@tool
async def hello() -> str:
    await asyncio.sleep(0)
    said.append("hello")
    return "hello"

@tool
def thread() -> str:
    return "thread"

@pytest_asyncio.fixture{scope}
async def kernel():
    async with Kernel() as kernel:
        yield kernel

@pytest.mark.parametrize("n", range(3))
@pytest.mark.asyncio{scope_of_loop}
async def test_turn(kernel, n):
    async with kernel.turn([hello, thread]) as turn:
        turn.submit(ToolCall("c1", "hello"))
        turn.submit(ToolCall("c2", "thread"))
    assert [r.content for r in turn.results] == ["hello", "thread"]

@pytest.mark.asyncio{scope_of_loop}
async def test_cancelled(kernel):
    said.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            async with kernel.turn([hello]) as turn:
                turn.submit(ToolCall("c1", "hello"))
                while not said or kernel.statistics().limiters["calls"].lent:
                    await asyncio.sleep(0)
                timeout.reschedule(0)
                await asyncio.sleep(60)
    assert turn.results[0].ok
"""


@pytest.mark.skipif(
    importlib.util.find_spec("pytest_asyncio") is None,
    reason="pytest-asyncio is not installed, whose fixtures run in tasks of their own",
)
@pytest.mark.parametrize("scope", ["function", "module"])
def test_a_kernel_fixture_under_pytest_asyncio(tmp_path: Path, scope: str) -> None:
    (tmp_path / "test_it.py").write_text(
        FIXTURE_TESTS.replace(
            "{scope_of_loop}", "" if scope == "function" else '(loop_scope="module")'
        ).replace("{scope}", "" if scope == "function" else '(scope="module", loop_scope="module")')
    )
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "4 passed" in ran.stdout, ran.stdout + ran.stderr
    assert ran.returncode == 0
