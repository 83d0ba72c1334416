"""Context variables, and what a body in a thread can ask of its event loop."""

from __future__ import annotations

import functools
import threading
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.from_thread
import pytest

from tests.kernel.bodies import (
    UNIT,
    a_kernel,
    call,
    fine,
    statuses,
    submit,
)
from tests.kernel.bodies import anyio_backend as anyio_backend
from tests.support import Loop
from turnscope import (
    CallContext,
    Limits,
    ToolResult,
    Turn,
    check_cancelled,
    current_call,
    heartbeat,
    tool,
)

in_a_loop = pytest.mark.anyio

request_id: ContextVar[str] = ContextVar("request_id", default="none")

PLACES = pytest.mark.parametrize("place", ["inline", "thread"])


def reads() -> str:
    """Tell which request this is."""
    return request_id.get()


# Context variables


@in_a_loop
@PLACES
async def test_context_variables_are_those_of_the_submit(place: str) -> None:
    async with a_kernel() as kernel:
        request_id.set("before the turn")
        async with kernel.turn([tool(backend=place)(reads)]) as turn:
            for value in ("first", "second"):
                request_id.set(value)
                turn.submit(call("reads"))
            request_id.set("after")
    assert [result.value for result in turn.results] == ["first", "second"]


@in_a_loop
@PLACES
async def test_a_call_that_had_to_wait_has_the_variables_of_its_submit_too(place: str) -> None:
    async with a_kernel(limits=Limits(calls=1)) as kernel:
        async with kernel.turn([tool(backend=place)(reads)]) as turn:
            for value in "abc":
                request_id.set(value)
                turn.submit(call("reads"))
    assert [result.value for result in turn.results] == ["a", "b", "c"]


@in_a_loop
@PLACES
async def test_what_a_tool_sets_stays_in_its_call(place: str) -> None:
    def writes(value: str) -> str:
        request_id.set(value)
        return request_id.get()

    async with a_kernel() as kernel:
        request_id.set("host")
        async with kernel.turn([tool(backend=place)(writes), tool(backend=place)(reads)]) as turn:
            turn.submit(call("writes", value="mine"))
            turn.submit(call("reads"))
            await anyio.sleep(0)
        assert request_id.get() == "host"
        async with kernel.turn([tool(backend=place)(reads)]) as after:
            after.submit(call("reads"))
    assert [result.value for result in turn.results] == ["mine", "host"]
    assert after.results[0].value == "host"


@in_a_loop
async def test_a_nested_turn_sees_the_variables_of_the_body_that_opened_it() -> None:
    nested: list[Turn] = []

    @tool
    async def nests() -> None:
        request_id.set("of the body")
        async with kernel.turn([reads]) as turn:
            nested.append(turn)
            submit(turn, reads)

    async with a_kernel() as kernel:
        async with kernel.turn([nests]) as turn:
            submit(turn, nests)
    assert nested[0].results[0].value == "of the body"


@in_a_loop
async def test_the_host_of_a_nested_turn_is_still_its_own_call() -> None:
    @tool
    async def nests() -> bool:
        mine = current_call()
        async with kernel.turn([fine]) as turn:
            submit(turn, fine)
            inside = current_call() is mine
        return inside and current_call() is mine

    async with a_kernel() as kernel:
        async with kernel.turn([nests]) as turn:
            submit(turn, nests)
    assert turn.results[0].value is True


# In threads


async def in_thread(function: Any, **options: Any) -> ToolResult:
    """The result of *function* as a thread tool."""
    async with a_kernel() as kernel:
        with anyio.fail_after(30):
            async with kernel.turn([tool(backend="thread", **options)(function)]) as turn:
                turn.submit(call(function.__name__))
        return turn.results[0]


@in_a_loop
async def test_a_thread_body_finds_its_call() -> None:
    def looks(context: CallContext[Any]) -> bool:
        heartbeat()
        check_cancelled()
        return current_call() is context and not context.cancelling

    assert (await in_thread(looks)).value is True


@in_a_loop
async def test_a_thread_body_may_run_async_code_in_its_event_loop() -> None:
    loop_thread = threading.get_ident()

    async def where(n: int) -> tuple[int, int]:
        await anyio.sleep(UNIT / 5)
        return n, threading.get_ident()

    def asks() -> bool:
        assert threading.get_ident() != loop_thread
        assert anyio.from_thread.run(where, 7) == (7, loop_thread)
        return anyio.from_thread.run_sync(threading.get_ident) == loop_thread

    assert (await in_thread(asks)).value is True


@in_a_loop
async def test_an_exception_of_that_async_code_comes_back_to_the_thread() -> None:
    async def breaks() -> None:
        raise LookupError("in the loop")

    def asks() -> str:
        try:
            anyio.from_thread.run(breaks)
        except LookupError as exc:
            return str(exc)
        return "nothing"

    assert (await in_thread(asks)).value == "in the loop"


@in_a_loop
async def test_the_call_is_known_in_that_async_code_too() -> None:
    async def who() -> str:
        return current_call().call.name

    def asks() -> str:
        name: str = anyio.from_thread.run(who)
        return name

    assert (await in_thread(asks)).value == "asks"


@in_a_loop
async def test_from_thread_check_cancelled_is_quiet_while_nobody_asks() -> None:
    def looks() -> str:
        anyio.from_thread.check_cancelled()
        return "not cancelled"

    assert (await in_thread(looks)).value == "not cancelled"


@in_a_loop
async def test_a_coroutine_function_hidden_in_a_thread_tool_is_told_what_to_do() -> None:
    def hidden() -> Any:
        return fine()

    result = await in_thread(hidden)
    assert result.status == "failed"
    assert "inline" in str(result.content)


# In threads that are asked to end, in real time


def asked(any_loop: Loop, body: Any, **options: Any) -> ToolResult:
    """The result of a thread tool that is cancelled when it has begun, with grace of many units."""
    kept: list[ToolResult] = []
    begun = threading.Event()

    @functools.wraps(body)
    def begins() -> Any:
        begun.set()
        return body()

    async def main() -> None:
        async with a_kernel(grace=20) as kernel:
            with anyio.fail_after(30), anyio.CancelScope() as scope:
                async with kernel.turn([tool(**options)(begins)]) as turn:
                    turn.submit(call(body.__name__))
                    while not begun.is_set():
                        await anyio.sleep(0.001)
                    scope.cancel()
            assert scope.cancelled_caught
            assert statuses(turn) == ["cancelled"]
            kept.extend(turn.results)

    any_loop.run(main)
    return kept[0]


def test_check_cancelled_ends_a_thread(any_loop: Loop) -> None:
    pause = threading.Event()

    def polls() -> None:
        while True:
            pause.wait(UNIT / 20)
            check_cancelled()

    assert not asked(any_loop, polls).leaked


def test_anyios_own_check_cancelled_ends_a_thread(any_loop: Loop) -> None:
    pause = threading.Event()

    def polls() -> None:
        while True:
            pause.wait(UNIT / 20)
            anyio.from_thread.check_cancelled()

    assert not asked(any_loop, polls).leaked


def test_a_thread_may_look_at_cancelling_and_return(any_loop: Loop) -> None:
    pause = threading.Event()

    def polls() -> str:
        while not current_call().cancelling:
            pause.wait(UNIT / 20)
        return "stopped by itself"

    result = asked(any_loop, polls)
    assert result.value == "stopped by itself"
    assert "did finish" in str(result.content)


def test_a_thread_may_clean_up_with_async_code_after_the_ask(any_loop: Loop) -> None:
    notes: list[str] = []
    pause = threading.Event()

    async def cleans() -> None:
        await anyio.sleep(UNIT / 5)
        notes.append("cleaned")

    def polls() -> None:
        try:
            while True:
                pause.wait(UNIT / 20)
                check_cancelled()
        finally:
            anyio.from_thread.run(shielded)

    async def shielded() -> None:
        with anyio.CancelScope(shield=True):
            await cleans()

    assert not asked(any_loop, polls).leaked
    assert notes == ["cleaned"]


def test_async_code_that_a_thread_waits_for_is_cancelled_by_the_ask(any_loop: Loop) -> None:
    if any_loop.name == "trio":
        pytest.skip("trio runs what an abandonable thread asks for in a system task, out of reach")

    def waits() -> None:
        anyio.from_thread.run(anyio.sleep_forever)

    assert not asked(any_loop, waits).leaked
