"""What every backend owes its callers, shown on each of those that come with turnscope.

The bodies are plain ``def`` functions, so that one body can run in all three places. A backend of
one's own passes this file by a line in BACKENDS.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from tests.contract import backend_tools as tools
from turnscope import Kernel, Limits, Status, Tool, ToolCall, ToolResult, Turn
from turnscope.abc import Backend
from turnscope_backends import InlineBackend, ProcessBackend, ThreadBackend

pytestmark = pytest.mark.anyio

BACKENDS: dict[str, type[Any]] = {
    "inline": InlineBackend,
    "thread": ThreadBackend,
    "process": ProcessBackend,
}
# A body in the event loop's own thread blocks the loop: it cannot be interrupted, nor overlap.
OFF_THE_LOOP = [name for name in BACKENDS if name != "inline"]


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def a_turn(backend: str, fn: Any, **options: Any) -> AsyncIterator[tuple[Kernel, Turn]]:
    """A kernel that found *backend* by its entry point, and a turn with *fn* in it."""
    with anyio.fail_after(60):
        async with Kernel(grace=10, limits=Limits(processes=2)) as kernel:
            tool = Tool(fn, backend=backend, **options)
            async with kernel.turn([tool]) as turn:
                yield kernel, turn


async def settled(backend: str, fn: Any, arguments: dict[str, Any], **options: Any) -> ToolResult:
    async with a_turn(backend, fn, **options) as (_, turn):
        turn.submit(ToolCall("c1", fn.__name__, arguments))
    (result,) = turn.results
    assert result.backend == backend
    return result


async def test_is_what_the_port_says(backend: str) -> None:
    made = BACKENDS[backend]()
    assert isinstance(made, Backend)
    assert made.name == backend


async def test_a_value_comes_back_as_it_is(backend: str) -> None:
    result = await settled(backend, tools.shape, {"values": [1, 2, 4], "name": "x"})
    assert result.status == Status.OK
    assert result.value == {"name": "x", "sum": 7, "half": 3.5, "none": None}
    assert result.content == '{"name":"x","sum":7,"half":3.5,"none":null}'


async def test_a_default_is_the_functions_own(backend: str) -> None:
    assert (await settled(backend, tools.add, {"a": 1})).value == 3


async def test_an_exception_comes_back_as_itself(backend: str) -> None:
    result = await settled(backend, tools.refuse, {"what": "this"})
    assert result.status == Status.FAILED
    assert isinstance(result.error, tools.Refused)
    assert result.error.what == "this"
    assert result.content == "Refused: this"
    assert not result.leaked


async def test_sys_exit_is_a_failure_of_the_call_alone(backend: str) -> None:
    async with a_turn(backend, tools.leave) as (_, turn):
        turn.submit(ToolCall("c1", "leave", {}))
    assert turn.results[0].status == Status.FAILED
    assert isinstance(turn.results[0].error, SystemExit)


async def test_a_timeout_of_the_tools_own_is_a_failure(backend: str) -> None:
    result = await settled(backend, tools.own_timeout, {}, timeout=30)
    assert result.status == Status.FAILED
    assert type(result.error) is TimeoutError


async def test_a_cancellation_of_the_tools_own_is_a_failure(backend: str) -> None:
    assert (await settled(backend, tools.give_up, {})).status == Status.FAILED


async def test_a_value_without_json_is_a_failure_that_names_its_type(backend: str) -> None:
    result = await settled(backend, tools.unserialisable, {})
    assert result.status == Status.FAILED
    assert "type" in str(result.content)


async def test_the_backend_can_be_used_again_after_a_failure(backend: str) -> None:
    with anyio.fail_after(60):
        async with Kernel() as kernel:
            offered = [Tool(fn, backend=backend) for fn in (tools.leave, tools.add)]
            for _ in range(3):
                async with kernel.turn(offered) as turn:
                    turn.submit(ToolCall("c1", "leave", {}))
                    turn.submit(ToolCall("c2", "add", {"a": 5}))
                assert [result.status for result in turn.results] == ["failed", "ok"]


@pytest.mark.parametrize("backend", OFF_THE_LOOP)
async def test_calls_overlap(backend: str, tmp_path: Path) -> None:
    async with a_turn(backend, tools.meet) as (_, turn):
        for me in ("a", "b"):
            turn.submit(ToolCall(me, "meet", {"folder": str(tmp_path), "me": me, "others": 1}))
    assert [result.value for result in turn.results] == ["a", "b"]


@pytest.mark.parametrize("backend", OFF_THE_LOOP)
async def test_the_event_loop_goes_on_meanwhile(backend: str, tmp_path: Path) -> None:
    async with a_turn(backend, tools.meet) as (_, turn):
        turn.submit(ToolCall("c1", "meet", {"folder": str(tmp_path), "me": "a", "others": 1}))
        await anyio.sleep(0.05)  # it is in the meeting, or on its way; the loop is here
        await anyio.to_thread.run_sync((tmp_path / "b").touch)
    assert turn.results[0].value == "a"


@pytest.mark.parametrize("backend", OFF_THE_LOOP)
async def test_a_timeout_interrupts_the_body_and_nothing_goes_on(backend: str) -> None:
    arguments = {"seconds": 30, "looking_up": backend == "thread"}
    start = time.monotonic()
    result = await settled(backend, tools.outlast, arguments, timeout=0.2)
    assert time.monotonic() - start < 20
    assert result.status == Status.TIMED_OUT
    assert not result.leaked
    assert "may or may not" in str(result.content)
    assert not at_work()


@pytest.mark.parametrize("backend", OFF_THE_LOOP)
async def test_a_cancelled_caller_leaves_nothing_at_work(backend: str, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with anyio.fail_after(60):
        async with Kernel(grace=10) as kernel:
            offered = [Tool(fn, backend=backend) for fn in (tools.outlast, tools.add)]
            async with kernel.turn(offered) as turn:  # the start of a worker is another matter
                turn.submit(ToolCall("c1", "add", {"a": 1}))
            with anyio.CancelScope() as scope:
                async with kernel.turn(offered) as turn:
                    looking_up = backend == "thread"
                    arguments = {"seconds": 30, "looking_up": looking_up, "begun": str(begun)}
                    turn.submit(ToolCall("c1", "outlast", arguments))
                    while not begun.exists():
                        await anyio.sleep(0.002)
                    scope.cancel()
            assert scope.cancelled_caught
            assert turn.results[0].status == Status.CANCELLED
            assert not turn.results[0].leaked
            assert not at_work()
            assert all(limiter.lent == 0 for limiter in kernel.statistics().limiters.values())


def at_work() -> list[int]:
    """The worker processes that use a processor; idle ones are kept for the next call."""
    children = psutil.Process().children()
    before = [used(child) for child in children]
    time.sleep(0.1)
    after = [used(child) for child in children]
    return [c.pid for c, was, now in zip(children, before, after, strict=True) if now > was]


def used(process: psutil.Process) -> float:
    """The seconds of a processor that it has used; less than none if it has ended."""
    try:
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            return sum(process.cpu_times()[:2])
    except psutil.NoSuchProcess:
        ...  # while it was looked at
    return -math.inf
