"""Tools of which a slow body gets a second one beside it: one call, one result, two bodies."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from tests.kernel.bodies import (
    UNIT,
    a_kernel,
    call,
    elapse,
    idle,
    is_real,
    only_asyncio,
    slack,
    statuses,
    submit,
    took,
)
from tests.kernel.bodies import anyio_backend as anyio_backend
from tests.support import Loop
from turnscope import (
    CallCancelled,
    CallContext,
    Kernel,
    Limits,
    Retry,
    ToolCall,
    ToolResult,
    current_call,
    heartbeat,
    tool,
)
from turnscope.events import CallEvent, CallHedged, CallRetried, RunEvent
from turnscope.testing import nothing_left

from .agents import an_agent, asks

pytestmark = pytest.mark.anyio

HEDGE = 2 * UNIT


class Watch:
    """Keeps what it is told of calls named *body*."""

    def __init__(self) -> None:
        self.events: list[CallEvent] = []

    def observe(self, event: RunEvent, /) -> None:
        if isinstance(event, CallEvent) and event.call.name == "body":
            self.events.append(event)

    @property
    def told(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


def a_tool(body: Callable[..., Any], **options: Any) -> Any:
    return tool(name="body", **{"idempotent": True, "hedge": HEDGE, **options})(body)


async def result_of(kernel: Kernel, body: Any, **options: Any) -> ToolResult:
    async with kernel.turn([body], **options) as turn:
        turn.submit(call("body"))
    return turn.results[0]


def slow_first(span: float = 20.0) -> Callable[..., Any]:
    """A body whose first takes *span* units, and whose others take one."""

    async def body() -> int:
        number = current_call().attempt
        await anyio.sleep(UNIT * (span if number == 1 else 1))
        return number

    return body


# What may be hedged.


def test_what_may_not_run_twice_is_not_hedged() -> None:
    with pytest.raises(ValueError, match="Say idempotent=True, or read_only=True"):

        @tool(hedge=1)
        async def pay() -> None: ...


@pytest.mark.parametrize("hedge", [0, -1.0, float("nan")])
def test_a_hedge_is_a_span_above_nothing(hedge: float) -> None:
    with pytest.raises(ValueError, match="hedge is a span in seconds above 0"):

        @tool(read_only=True, hedge=hedge)
        async def look() -> None: ...


def test_a_tool_shows_its_hedge() -> None:
    @tool(read_only=True, hedge=1.5)
    async def look() -> None: ...

    assert look.hedge == 1.5


# The race.


async def test_a_quick_call_has_one_body_and_no_event_of_another() -> None:
    watch = Watch()
    async with a_kernel(observers=[watch]) as kernel:
        start = anyio.current_time()
        result = await result_of(kernel, a_tool(slow_first(1)))
        took(start, UNIT)
    assert (result.status, result.value, result.failures) == ("ok", 1, ())
    assert watch.told == ["CallReady", "CallStarted", "CallSettled"]


async def test_the_second_of_a_slow_call_wins_and_the_first_is_interrupted() -> None:
    watch, cleaned = Watch(), list[int]()

    async def body(context: CallContext) -> int:
        try:
            await anyio.sleep(UNIT * (20 if context.attempt == 1 else 1))
            return context.attempt
        except anyio.get_cancelled_exc_class():
            assert context.cancelling
            await anyio.sleep(UNIT)
            cleaned.append(context.attempt)
            raise

    async with a_kernel(observers=[watch]) as kernel:
        start = anyio.current_time()
        result = await result_of(kernel, a_tool(body))
        took(start, HEDGE + UNIT + UNIT)
        assert (result.status, result.value, cleaned) == ("ok", 2, [1])
        assert (result.error, result.failures, result.leaked) == (None, (), False)
        assert result.started_at is not None
        assert result.started_at == pytest.approx(start, abs=slack(UNIT / 2))
    assert watch.told == ["CallReady", "CallStarted", "CallHedged", "CallSettled"]
    hedged = watch.events[2]
    assert isinstance(hedged, CallHedged) and hedged.attempt == 2


async def test_the_first_may_win_after_all() -> None:
    async def body() -> int:
        number = current_call().attempt
        await anyio.sleep(HEDGE + (UNIT if number == 1 else 20 * UNIT))
        return number

    async with a_kernel() as kernel:
        start = anyio.current_time()
        assert (await result_of(kernel, a_tool(body))).value == 1
        took(start, HEDGE + UNIT)


async def test_a_failure_before_the_second_has_begun_is_final() -> None:
    began = list[int]()

    async def body() -> None:
        began.append(current_call().attempt)
        await anyio.sleep(UNIT)
        raise OSError("no wire")

    async with a_kernel() as kernel:
        start = anyio.current_time()
        result = await result_of(kernel, a_tool(body))
        took(start, UNIT)
    assert (result.status, result.content, began) == ("failed", "OSError: no wire", [1])


@pytest.mark.parametrize("failing", [1, 2])
async def test_if_one_fails_the_other_decides_and_the_failure_is_kept(failing: int) -> None:
    error = OSError("no wire")

    async def body() -> int:
        number = current_call().attempt
        await anyio.sleep(HEDGE + UNIT if number == failing else 8 * UNIT)
        if number == failing:
            raise error
        return number

    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body, on_error="raise"))
    assert (result.status, result.value, result.failures) == ("ok", 3 - failing, (error,))


async def test_if_both_fail_both_errors_are_there_and_on_error_is_asked_once() -> None:
    asked = list[Exception]()

    async def body() -> None:
        await anyio.sleep(4 * UNIT)
        raise OSError(f"no {current_call().attempt}")

    def said(exc: Exception) -> str:
        asked.append(exc)
        return f"sorry: {exc}"

    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body))
        assert result.content == "OSError: no 2 (tried 2 times)"
        assert [str(e) for e in (*result.failures, result.error)] == ["no 1", "no 2"]
        result = await result_of(kernel, a_tool(body, on_error=said))
    assert (result.content, asked) == ("sorry: no 2", [result.error])


async def test_a_failure_that_ends_the_turn_does_so_only_if_it_decides() -> None:
    async def body() -> None:
        await anyio.sleep(4 * UNIT)
        raise OSError(f"no {current_call().attempt}")

    async with a_kernel() as kernel:
        with pytest.raises(OSError, match="no 2"):
            await result_of(kernel, a_tool(body, on_error="raise"))


@pytest.mark.parametrize("beyond", [SystemExit, "cancelled"])
async def test_what_is_no_exception_is_final_at_once(beyond: Any) -> None:
    async def body() -> None:
        if current_call().attempt == 2:
            await anyio.sleep(20 * UNIT)
        await anyio.sleep(HEDGE + UNIT)
        if beyond is SystemExit:
            raise SystemExit(3)
        raise anyio.get_cancelled_exc_class()() if _asyncio() else SystemExit(3)

    async with a_kernel() as kernel:
        start = anyio.current_time()
        result = await result_of(kernel, a_tool(body))
        took(start, HEDGE + UNIT)
    assert result.status == "failed"


def _asyncio() -> bool:
    return "asyncio" in anyio.get_cancelled_exc_class().__module__


async def test_bodies_share_neither_arguments_nor_context_variables() -> None:
    seen = list[list[str]]()

    async def body(names: list[str]) -> int:
        number = current_call().attempt
        seen.append(list(names))
        names.append("changed")
        await anyio.sleep(UNIT * (20 if number == 1 else 1))
        assert current_call().attempt == number
        return number

    async with a_kernel() as kernel, kernel.turn([a_tool(body)]) as turn:
        turn.submit(ToolCall("c", "body", {"names": ["a"]}))
    assert turn.results[0].value == 2
    assert seen == [["a"], ["a"]]


# Limits.


async def test_the_second_waits_for_a_slot_and_never_begins_if_none_comes() -> None:
    watch = Watch()
    async with a_kernel(limits=Limits(calls=1), observers=[watch]) as kernel:
        start = anyio.current_time()
        assert (await result_of(kernel, a_tool(slow_first(6)))).value == 1
        took(start, 6 * UNIT)
    assert "CallHedged" not in watch.told


async def test_the_winner_gives_its_slot_back_at_once_and_the_loser_when_it_has_ended() -> None:
    began = dict[str, float]()

    async def body() -> int:
        number = current_call().attempt
        try:
            await anyio.sleep(UNIT * (20 if number == 1 else 1))
        except anyio.get_cancelled_exc_class():
            await anyio.sleep(UNIT)
            raise
        return number

    async def after() -> None:
        began[current_call().call.id] = anyio.current_time() - start
        await anyio.sleep(4 * UNIT)

    async with a_kernel(limits=Limits(calls=2)) as kernel:
        async with kernel.turn([a_tool(body), after]) as turn:
            start = anyio.current_time()
            turn.submit(call("body"))
            await anyio.sleep(HEDGE + UNIT / 2)
            turn.submit(ToolCall("a", "after", {}))
            turn.submit(ToolCall("b", "after", {}))
        assert statuses(turn) == ["ok", "ok", "ok"]
    assert began["a"] == pytest.approx(HEDGE + UNIT, abs=slack(UNIT / 2))
    assert began["b"] == pytest.approx(HEDGE + 2 * UNIT, abs=slack(UNIT / 2))


async def test_each_body_lends_its_own_slot_to_what_it_nests() -> None:
    async def inner() -> None:
        await anyio.sleep(UNIT)

    async def body() -> int:
        number = current_call().attempt
        async with kernel.turn([inner]) as nested:
            submit(nested, inner)
        assert statuses(nested) == ["ok"]
        await anyio.sleep(UNIT * (20 if number == 1 else 1))
        return number

    for slots in (1, 2):
        async with a_kernel(limits=Limits(calls=slots)) as kernel:
            result = await result_of(kernel, a_tool(body))
            assert (result.status, result.value) == ("ok", slots)


async def test_keys_are_the_calls_and_are_kept_until_the_loser_has_ended() -> None:
    free = list[float]()

    async def body() -> int:
        number = current_call().attempt
        async with kernel.turn([inner]) as nested:  # at its parent's place
            submit(nested, inner)
        assert statuses(nested) == ["ok"]
        try:
            await anyio.sleep(UNIT * (20 if number == 1 else 1))
        except anyio.get_cancelled_exc_class():
            await anyio.sleep(UNIT)
            raise
        return number

    @tool(writes="k")
    async def inner() -> None: ...

    @tool(writes="k")
    async def after() -> None:
        free.append(anyio.current_time() - start)

    async with a_kernel() as kernel:
        async with kernel.turn([a_tool(body, writes="k"), after]) as turn:
            start = anyio.current_time()
            submit(turn, a_tool(body), after)
        assert statuses(turn) == ["ok", "ok"]
        assert turn.results[0].value == 2
        assert kernel.statistics().keys == {}
    (when,) = free
    assert HEDGE + 1.5 * UNIT <= when <= HEDGE + 2 * UNIT + slack(UNIT / 2)


# Ends.


@pytest.mark.parametrize("how", ["timeout", "deadline", "cancel"])
async def test_what_ends_a_call_interrupts_both_bodies_once_each(how: str) -> None:
    told, cleaned = list[int](), list[int]()

    async def body(context: CallContext) -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            told.append(context.attempt)
            await anyio.sleep(UNIT)
            cleaned.append(context.attempt)
            raise

    options: dict[str, Any] = {"timeout": 4 * UNIT} if how == "timeout" else {}
    async with a_kernel() as kernel:
        start = anyio.current_time()
        deadline = start + 4 * UNIT if how == "deadline" else float("inf")
        async with kernel.turn([a_tool(body, **options)], deadline=deadline) as turn:
            turn.submit(call("body"))
            if how == "cancel":
                await elapse(4 * UNIT)
                turn.cancel()
        took(start, 5 * UNIT)
        assert statuses(turn) == ["cancelled" if how == "cancel" else "timed_out"]
    assert sorted(told) == sorted(cleaned) == [1, 2]


@pytest.mark.parametrize("how", ["timeout", "deadline", "cancel", "idle"])
async def test_a_value_stays_ok_whatever_ends_the_call_while_the_loser_cleans_up(how: str) -> None:
    # In real time the value may be late.
    cleanup, end = (10 * UNIT, HEDGE + 6 * UNIT) if is_real() else (4 * UNIT, HEDGE + 2 * UNIT)

    async def body(context: CallContext) -> int:
        try:
            await anyio.sleep(UNIT * (20 if context.attempt == 1 else 1))
        except anyio.get_cancelled_exc_class():
            await anyio.sleep(cleanup)
            raise
        return context.attempt

    options: dict[str, Any] = {
        "timeout": {"timeout": end},
        "idle": {"idle_timeout": end},
    }.get(how, {})
    async with a_kernel(grace=2 * cleanup) as kernel:
        start = anyio.current_time()
        deadline = start + end if how == "deadline" else float("inf")
        async with kernel.turn([a_tool(body, **options)], deadline=deadline) as turn:
            turn.submit(call("body"))
            if how == "cancel":
                await elapse(end)
                turn.cancel()
        took(start, HEDGE + UNIT + cleanup)
    assert [(each.status, each.value) for each in turn.results] == [("ok", 2)]


async def test_bodies_that_swallow_are_enforced_and_the_call_is_over_after_grace() -> None:
    async def body() -> None:
        while True:
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                ...

    async with a_kernel(grace=UNIT) as kernel:
        start = anyio.current_time()
        result = await result_of(kernel, a_tool(body), timeout=4 * UNIT)
        took(start, 5 * UNIT)
    assert result.status == "timed_out"


async def test_a_loser_that_swallows_changes_nothing() -> None:
    async def body() -> int:
        number = current_call().attempt
        try:
            await anyio.sleep(UNIT * (20 if number == 1 else 1))
        except anyio.get_cancelled_exc_class():
            return 0
        return number

    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body))
    assert (result.status, result.value) == ("ok", 2)


async def test_what_the_cleanup_of_a_loser_raises_is_kept() -> None:
    error = OSError("cannot clean")

    async def body() -> int:
        number = current_call().attempt
        try:
            await anyio.sleep(UNIT * (20 if number == 1 else 1))
        except anyio.get_cancelled_exc_class():
            raise error from None
        return number

    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body))
    assert (result.status, result.failures) == ("ok", (error,))


async def test_a_body_that_is_heard_of_keeps_the_other_going() -> None:
    async def body() -> int:
        number = current_call().attempt
        if number == 1:
            await anyio.sleep(8 * UNIT)
        for _ in range(20):
            await anyio.sleep(UNIT)
            heartbeat()
        return number

    async with a_kernel() as kernel:
        result = await result_of(kernel, a_tool(body, idle_timeout=(7 if is_real() else 4) * UNIT))
    assert (result.status, result.value) == ("ok", 2)


@only_asyncio
async def test_native_cancels_of_the_caller_end_both_bodies() -> None:
    cleaned = list[int]()

    async def body(context: CallContext) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(UNIT)
            cleaned.append(context.attempt)

    async with a_kernel() as kernel:
        start = anyio.current_time()
        task = asyncio.ensure_future(result_of(kernel, a_tool(body)))
        await elapse(HEDGE + UNIT)
        task.cancel()
        await elapse(UNIT / 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        took(start, HEDGE + 2 * UNIT)
    assert sorted(cleaned) == [1, 2]


async def test_a_call_that_is_about_to_be_hedged_is_not_once_its_turn_is_asked() -> None:
    watch = Watch()
    async with a_kernel(observers=[watch]) as kernel:
        async with kernel.turn([a_tool(slow_first())]) as turn:
            turn.submit(call("body"))
            await anyio.sleep(UNIT)
            turn.cancel()
        assert statuses(turn) == ["cancelled"]
    assert watch.told == ["CallReady", "CallStarted", "CallSettled"]


# With what else a tool may say.


async def test_each_attempt_of_a_retry_is_hedged_anew() -> None:
    watch, began = Watch(), list[int]()

    async def body() -> int:
        number = current_call().attempt
        began.append(number)
        await anyio.sleep({3: 12, 4: 1}.get(number, 4) * UNIT)
        if number < 4:
            raise OSError(f"no {number}")
        return number

    retry = Retry(attempts=2, initial=UNIT, jitter=0)
    async with a_kernel(observers=[watch]) as kernel:
        start = anyio.current_time()
        result = await result_of(kernel, a_tool(body, retry=retry))
        took(start, HEDGE + 4 * UNIT + UNIT + HEDGE + UNIT)
    assert (result.status, result.value, began) == ("ok", 4, [1, 2, 3, 4])
    assert [str(each) for each in result.failures] == ["no 1", "no 2"]
    assert watch.told[2:5] == ["CallHedged", "CallRetried", "CallHedged"]
    retried = watch.events[3]
    assert isinstance(retried, CallRetried) and str(retried.error) == "no 2"


async def test_calls_that_start_early_are_hedged_too() -> None:
    async with a_kernel() as kernel:
        hedged = a_tool(slow_first(), read_only=True)
        result = await kernel.run(an_agent(asks(hedged), "done", tools=[hedged]), "go")
    assert (result.output, result.history.results[0].content) == ("done", "2")


async def test_a_call_leaves_no_cycle_behind() -> None:
    async def body() -> None:
        await anyio.sleep(3 * UNIT)
        raise OSError("no wire")

    hedged = a_tool(body)
    async with a_kernel() as kernel:
        await result_of(kernel, hedged)
        gc.collect()
        gc.disable()
        try:
            result = await result_of(kernel, hedged)
            assert result.status == "failed"
            del result
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            kept = [each for each in gc.garbage if "turnscope" in type(each).__module__]
            # From Python 3.12 on a frame in a traceback keeps those that called it.
            assert kept == [] or sys.version_info >= (3, 12)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()


# In threads and processes.


def test_a_loser_in_a_thread_that_does_not_look_up_is_a_leak(any_loop: Loop) -> None:
    go_on = threading.Event()

    def body() -> int:
        number = current_call().attempt
        if number == 1:
            go_on.wait(10)
            raise OSError("came too late")
        return number

    async def main() -> None:
        async with nothing_left(), Kernel(grace=0.1) as kernel:
            start = time.monotonic()
            result = await result_of(kernel, a_tool(body, hedge=0.1, writes="k"))
            assert time.monotonic() - start < 8, "it has waited for the thread"
            assert (result.status, result.value, result.leaked) == ("ok", 2, True)
            (lost,) = result.failures
            assert isinstance(lost, CallCancelled)
            threads = kernel.statistics().limiters["threads"]
            assert (threads.lent, threads.leaked) == (1, 1)
            assert len(kernel.statistics().keys["k"].holders) == 1
            go_on.set()
            while not idle(kernel) or kernel.statistics().keys:
                await anyio.sleep(0.01)
            assert isinstance(lost.__cause__, OSError)

    any_loop.run(main)


def test_a_loser_in_a_thread_that_looks_up_is_none(any_loop: Loop) -> None:
    def body(context: CallContext) -> int:
        while context.attempt == 1:
            context.check_cancelled()
            time.sleep(0.005)
        return context.attempt

    async def main() -> None:
        async with a_kernel() as kernel:
            result = await result_of(kernel, a_tool(body, hedge=0.05))
        assert (result.status, result.value, result.leaked) == ("ok", 2, False)

    any_loop.run(main)


FIRST_IS_SLOW = """
import os, time
def body(path: str) -> int:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return os.getpid()
    time.sleep(60)
"""


def test_a_loser_in_a_process_is_killed_and_harms_nobody(
    any_loop: Loop, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hedged_in_a_process.py").write_text(FIRST_IS_SLOW)
    monkeypatch.syspath_prepend(str(tmp_path))
    import hedged_in_a_process  # type: ignore[import-not-found]  # because it was made just now

    hedged = a_tool(hedged_in_a_process.body, backend="process", hedge=0.2)

    async def main() -> None:
        async with Kernel(limits=Limits(processes=2)) as kernel:
            for name in ("one", "two"):
                async with kernel.turn([hedged]) as turn:
                    turn.submit(ToolCall("c", "body", {"path": str(tmp_path / name)}))
                (result,) = turn.results
                assert (result.status, result.leaked) == ("ok", False)
            assert idle(kernel)

    any_loop.run(main)
    sys.modules.pop("hedged_in_a_process", None)
