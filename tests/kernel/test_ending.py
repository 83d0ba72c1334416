"""How a turn ends on every event loop: who asks, what the caller sees, how each call settles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio import CancelScope

from tests.kernel.bodies import (
    UNIT,
    Bodies,
    a_kernel,
    call,
    elapse,
    fine,
    is_real,
    move_on_after,
    only_trio,
    slack,
    statuses,
    submit,
    took,
)
from tests.kernel.bodies import anyio_backend as anyio_backend
from turnscope import (
    CallCancelled,
    DeadlineExceeded,
    Kernel,
    NotStarted,
    Status,
    Tool,
    ToolCall,
    Turn,
    check_cancelled,
    current_call,
    tool,
)
from turnscope.testing import nothing_left

pytestmark = pytest.mark.anyio


# Nobody asks


async def test_leaving_the_block_waits_for_every_call() -> None:
    async def slow(units: int) -> int:
        await anyio.sleep(units * UNIT)
        return units

    async with a_kernel() as kernel:
        start = anyio.current_time()
        async with kernel.turn([slow]) as turn:
            for units in (2, 1, 3):
                turn.submit(call("slow", units=units))
        took(start, 3 * UNIT)
    assert [result.value for result in turn.results] == [2, 1, 3]


async def test_a_call_starts_at_its_submit_and_not_when_the_block_is_left() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        async with kernel.turn(bodies.tools()) as turn:
            submit(turn, bodies.tidy)
            await bodies.begun.wait()
            turn.cancel()
    assert statuses(turn) == ["cancelled"]


async def test_a_turn_without_calls_leaves_at_once() -> None:
    async with a_kernel() as kernel:
        start = anyio.current_time()
        async with kernel.turn([]) as turn:
            ...
        took(start, 0)
    assert turn.results == ()


async def test_an_ordinary_failure_is_a_result_and_its_siblings_go_on() -> None:
    async def breaks() -> None:
        raise LookupError("no such city")

    async def later() -> str:
        await anyio.sleep(UNIT)
        return "later"

    async with a_kernel() as kernel:
        async with kernel.turn([breaks, later]) as turn:
            submit(turn, breaks, later)
    assert statuses(turn) == ["failed", "ok"]
    assert isinstance(turn.results[0].error, LookupError)


async def test_a_fatal_tool_ends_its_turn_and_is_raised_bare() -> None:
    error = LookupError("fatal")

    @tool(on_error="raise")
    async def breaks() -> None:
        await elapse(UNIT)
        raise error

    async with a_kernel() as kernel:
        bodies = Bodies()
        with pytest.raises(LookupError) as raised:
            async with kernel.turn([breaks, *bodies.tools()]) as turn:
                submit(turn, bodies.tidy, breaks, fine)
        assert raised.value is error
        assert statuses(turn) == ["cancelled", "failed", "ok"]
        assert bodies.cleaned


async def test_a_fatal_tool_is_raised_on_leaving_and_does_not_interrupt_the_host() -> None:
    @tool(on_error="raise")
    async def breaks() -> None:
        raise LookupError("fatal")

    async with a_kernel() as kernel:
        reached = False
        with pytest.raises(LookupError):
            async with kernel.turn([breaks]) as turn:
                submit(turn, breaks)
                await anyio.sleep(UNIT)
                reached = True
        assert reached
        assert statuses(turn) == ["failed"]


async def test_of_two_fatal_tools_the_first_is_raised_and_both_are_results() -> None:
    @tool(on_error="raise")
    async def breaks(units: float) -> None:
        with CancelScope(shield=True):
            await anyio.sleep(units * UNIT)
        raise LookupError(str(units))

    async with a_kernel() as kernel:
        with pytest.raises(LookupError, match="1") as raised:
            async with kernel.turn([breaks]) as turn:
                turn.submit(call("breaks", units=1.5))
                turn.submit(call("breaks", units=1.0))
        errors = [result.error for result in turn.results]
        assert raised.value is errors[1]
        assert str(errors[0]) == "1.5"
        assert statuses(turn) == ["failed", "failed"]  # it shielded itself: no interrupt came


# The host asks


async def test_an_exception_in_the_block_asks_the_calls_and_is_raised_as_it_is() -> None:
    error = RuntimeError("of the block")
    async with a_kernel() as kernel:
        bodies = Bodies()
        with pytest.raises(RuntimeError) as raised:
            async with kernel.turn(bodies.tools()) as turn:
                submit(turn, bodies.tidy, fine)
                await elapse(UNIT)
                raise error
        assert raised.value is error
        assert statuses(turn) == ["cancelled", "ok"]
        assert bodies.cleaned


async def test_leaving_the_block_early_waits_and_does_not_ask() -> None:
    async def host(kernel: Kernel) -> Turn:
        async with kernel.turn([fine]) as turn:
            submit(turn, fine)
            return turn

    async with a_kernel() as kernel:
        assert statuses(await host(kernel)) == ["ok"]


async def test_turn_cancel_interrupts_the_calls_and_lets_the_host_go_on() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        async with kernel.turn(bodies.tools()) as turn:
            submit(turn, bodies.tidy)
            await bodies.begun.wait()
            turn.cancel("the user pressed stop")
            await anyio.sleep(3 * UNIT)
            assert bodies.cleaned
            submit(turn, fine)
        assert statuses(turn) == ["cancelled", "not_started"]
        cancelled, unstarted = turn.results
        assert isinstance(cancelled.error, CallCancelled)
        assert isinstance(unstarted.error, NotStarted)
        assert "the user pressed stop" in str(cancelled.content)
        assert "the user pressed stop" in str(unstarted.content)


async def test_a_turn_may_be_cancelled_while_its_host_waits_at_the_end_of_the_block() -> None:
    async def stops(turn: Turn, bodies: Bodies) -> None:
        await bodies.begun.wait()
        turn.cancel("the user pressed stop")

    async with a_kernel() as kernel:
        bodies = Bodies()
        with anyio.fail_after(20 * UNIT):
            async with anyio.create_task_group() as group:
                async with kernel.turn(bodies.tools()) as turn:
                    group.start_soon(stops, turn, bodies)
                    submit(turn, bodies.tidy)
        assert statuses(turn) == ["cancelled"]
        assert "the user pressed stop" in str(turn.results[0].content)
        assert bodies.cleaned


# Scopes of the caller


async def cancelled_while_leaving(turn: Turn) -> None: ...


async def cancelled_in_the_block(turn: Turn) -> None:
    await anyio.sleep_forever()


HOSTS = [cancelled_in_the_block, cancelled_while_leaving]


@pytest.mark.parametrize("host", HOSTS)
async def test_a_cancelled_caller_finds_its_calls_cancelled_and_cleaned_up(
    host: Callable[[Turn], Any],
) -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        start = anyio.current_time()
        with move_on_after(UNIT) as scope:
            async with kernel.turn(bodies.tools()) as turn:
                submit(turn, fine, bodies.tidy)
                await host(turn)
        took(start, 2 * UNIT)
        assert scope.cancelled_caught
        assert statuses(turn) == ["ok", "cancelled"]
        assert bodies.cleaned


@pytest.mark.parametrize("host", HOSTS)
async def test_fail_after_raises_its_timeout_to_the_caller(host: Callable[[Turn], Any]) -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        with pytest.raises(TimeoutError):
            with anyio.fail_after(UNIT):
                async with kernel.turn(bodies.tools()) as turn:
                    submit(turn, bodies.tidy, fine)
                    await host(turn)
        assert statuses(turn) == ["cancelled", "ok"]
        assert bodies.cleaned


@only_trio
@pytest.mark.parametrize("host", HOSTS)
async def test_a_scope_of_trio_itself_is_like_any_scope(host: Callable[[Turn], Any]) -> None:
    import trio

    async with a_kernel() as kernel:
        bodies = Bodies()
        with trio.move_on_after(UNIT) as scope:
            async with kernel.turn(bodies.tools()) as turn:
                submit(turn, bodies.tidy)
                await host(turn)
        assert scope.cancelled_caught
        assert statuses(turn) == ["cancelled"]
        assert bodies.cleaned


@pytest.mark.parametrize("host", HOSTS)
async def test_a_failing_sibling_in_the_callers_task_group_cancels_the_calls(
    host: Callable[[Turn], Any],
) -> None:
    turns: list[Turn] = []

    async def caller(kernel: Kernel, bodies: Bodies) -> None:
        async with kernel.turn(bodies.tools()) as turn:
            turns.append(turn)
            submit(turn, bodies.tidy, fine)
            await host(turn)

    async with a_kernel() as kernel:
        bodies = Bodies()
        error = LookupError("sibling")
        with pytest.raises(ExceptionGroup) as raised:
            async with anyio.create_task_group() as group:
                group.start_soon(caller, kernel, bodies)
                await elapse(UNIT)
                raise error
        assert raised.value.exceptions == (error,)
        assert statuses(turns[0]) == ["cancelled", "ok"]
        assert bodies.cleaned


@only_trio
async def test_a_failing_sibling_in_a_nursery_cancels_the_calls() -> None:
    import trio

    turns: list[Turn] = []

    async def caller(kernel: Kernel, bodies: Bodies) -> None:
        async with kernel.turn(bodies.tools()) as turn:
            turns.append(turn)
            submit(turn, bodies.tidy, fine)

    async with a_kernel() as kernel:
        bodies = Bodies()
        error = LookupError("sibling")
        with pytest.raises(ExceptionGroup) as raised:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(caller, kernel, bodies)
                await trio.sleep(UNIT)
                raise error
        assert raised.value.exceptions == (error,)
        assert statuses(turns[0]) == ["cancelled", "ok"]
        assert bodies.cleaned


async def test_a_shielded_caller_is_not_disturbed() -> None:
    async def slow() -> str:
        await anyio.sleep(2 * UNIT)
        return "whole"

    async with a_kernel() as kernel:
        with move_on_after(UNIT):
            with CancelScope(shield=True):
                async with kernel.turn([slow]) as turn:
                    submit(turn, slow)
        assert statuses(turn) == ["ok"]


async def test_two_nested_scopes_that_end_at_one_instant_are_one_cancellation() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        with move_on_after(UNIT) as outer:
            with move_on_after(UNIT):
                async with kernel.turn(bodies.tools()) as turn:
                    submit(turn, bodies.tidy)
            await anyio.sleep_forever()
        assert outer.cancelled_caught
        assert statuses(turn) == ["cancelled"]
        assert bodies.cleaned


async def test_a_scope_and_a_failing_sibling_at_one_instant() -> None:
    turns: list[Turn] = []

    async def caller(kernel: Kernel, bodies: Bodies) -> None:
        with move_on_after(UNIT):
            async with kernel.turn(bodies.tools()) as turn:
                turns.append(turn)
                submit(turn, bodies.tidy)

    async with a_kernel() as kernel:
        bodies = Bodies()
        with pytest.raises(ExceptionGroup) as raised:
            async with anyio.create_task_group() as group:
                group.start_soon(caller, kernel, bodies)
                await elapse(UNIT)
                raise LookupError("sibling")
        assert [type(error) for error in raised.value.exceptions] == [LookupError]
        assert statuses(turns[0]) == ["cancelled"]
        assert bodies.cleaned


async def test_the_calls_own_timeout_and_the_callers_scope_at_one_instant() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        tidy = tool(timeout=UNIT)(bodies.tidy)
        with move_on_after(UNIT) as scope:
            async with kernel.turn([tidy]) as turn:
                submit(turn, tidy)
        assert scope.cancelled_caught
        assert statuses(turn)[0] in ("cancelled", "timed_out")  # a tie: either is true
        assert bodies.cleaned


async def test_a_second_cancellation_during_the_cleanup_changes_nothing() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        with move_on_after(1.5 * UNIT) as outer:
            with move_on_after(UNIT) as inner:
                async with kernel.turn(bodies.tools()) as turn:
                    submit(turn, bodies.tidy)
            await anyio.sleep_forever()
        assert inner.cancel_called and outer.cancelled_caught
        assert statuses(turn) == ["cancelled"]
        assert bodies.cleaned


# Before the start, around completion


async def test_a_caller_cancelled_before_it_submits_starts_nothing() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        with CancelScope() as scope:
            scope.cancel()
            async with kernel.turn(bodies.tools()) as turn:
                submit(turn, bodies.tidy, fine)
        assert scope.cancelled_caught
        assert statuses(turn) == ["not_started", "not_started"]
        assert not bodies.begun.is_set()
        assert bodies.notes == []


async def test_a_block_that_raises_before_its_calls_have_begun_starts_nothing() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        with pytest.raises(LookupError):
            async with kernel.turn(bodies.tools()) as turn:
                submit(turn, bodies.tidy, fine)
                raise LookupError
        assert statuses(turn) == ["not_started", "not_started"]
        assert bodies.notes == []


def three_steps(log: list[str]) -> Tool[..., Any]:
    """A tool of three awaits, with two more for its cleanup."""

    @tool
    async def steps() -> str:
        log.append("begun")
        try:
            for _ in range(3):
                await anyio.sleep(0)
        except BaseException:
            await anyio.sleep(0)
            await anyio.sleep(0)
            log.append("cleaned")
            raise
        log.append("finished")
        return "value"

    return steps


async def test_a_cancel_at_any_tick_gives_one_result_and_whole_cleanup() -> None:
    seen: list[tuple[str, bool, bool]] = []

    async def host(kernel: Kernel, steps: Tool[..., Any], turns: list[Turn]) -> None:
        async with kernel.turn([steps]) as turn:
            turns.append(turn)
            submit(turn, steps)

    async with a_kernel() as kernel:
        for ticks in range(30):
            log: list[str] = []
            turns: list[Turn] = []
            with CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    if ticks == 0:
                        scope.cancel()
                    group.start_soon(stop_after, ticks, scope)
                    await host(kernel, three_steps(log), turns)
                    group.cancel_scope.cancel()
            (status,) = statuses(turns[0])
            assert (
                log
                == {
                    "ok": ["begun", "finished"],
                    "cancelled": ["begun", "cleaned"],
                    "not_started": [],
                }[status]
            )
            seen.append(status)
    # From before the start to after the end, else the sweep has missed what it is for.
    assert {"ok", "cancelled", "not_started"} == set(seen)


async def stop_after(ticks: int, scope: CancelScope) -> None:
    """Cancel *scope* after so many steps of the event loop."""
    for _ in range(ticks):
        await anyio.sleep(0)
    scope.cancel()


# What swallows, lies or cancels itself


async def test_a_tool_that_swallows_its_cancellation_makes_no_success_of_it() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        with move_on_after(UNIT) as scope:
            async with kernel.turn(bodies.tools()) as turn:
                submit(turn, bodies.stubborn)
        assert scope.cancelled_caught
        (result,) = turn.results
        assert statuses(turn) == ["cancelled"]
        assert result.value == "late"
        assert "did finish" in str(result.content)


async def test_an_endless_swallower_is_ended_when_grace_is_over() -> None:
    async with a_kernel(grace=2 * UNIT) as kernel:
        bodies = Bodies()
        start = anyio.current_time()
        with move_on_after(UNIT) as scope:
            async with kernel.turn(bodies.tools()) as turn:
                submit(turn, bodies.endless, fine)
        took(start, 3 * UNIT)
        assert scope.cancelled_caught
        assert statuses(turn) == ["cancelled", "ok"]


async def test_a_tool_that_raises_a_cancellation_by_itself_has_failed() -> None:
    async def quits() -> None:
        with CancelScope() as scope:
            scope.cancel()
            try:
                await anyio.sleep(1)
            except BaseException as exc:
                kept = exc
        raise kept

    async def later() -> str:
        await anyio.sleep(UNIT)
        return "later"

    async with a_kernel() as kernel:
        async with kernel.turn([quits, later]) as turn:
            submit(turn, quits, later)
    assert statuses(turn) == ["failed", "ok"]
    assert isinstance(turn.results[0].error, BaseException)


async def test_a_tools_own_scope_is_its_own_affair() -> None:
    async def gives_up() -> str:
        with move_on_after(UNIT):
            await anyio.sleep_forever()
        return "gave up"

    async with a_kernel() as kernel:
        async with kernel.turn([gives_up]) as turn:
            submit(turn, gives_up)
    assert turn.results[0].value == "gave up"


async def test_sys_exit_in_a_tool_is_a_failure_of_that_call_alone() -> None:
    async def leaves() -> None:
        raise SystemExit(3)

    async with a_kernel() as kernel:
        async with kernel.turn([leaves, fine]) as turn:
            submit(turn, leaves, fine)
    assert statuses(turn) == ["failed", "ok"]
    assert isinstance(turn.results[0].error, SystemExit)


async def test_a_keyboard_interrupt_in_a_tool_asks_its_siblings_and_is_raised_bare() -> None:
    interrupt = KeyboardInterrupt()

    async def pressed() -> None:
        await elapse(UNIT)
        raise interrupt

    async with a_kernel() as kernel:
        bodies = Bodies()
        with pytest.raises(KeyboardInterrupt) as raised:
            async with kernel.turn([pressed, *bodies.tools()]) as turn:
                submit(turn, bodies.tidy, pressed)
        assert raised.value is interrupt
        assert statuses(turn) == ["cancelled", "failed"]
        assert bodies.cleaned


async def test_a_failing_cleanup_is_told_in_the_result() -> None:
    async def breaks_late() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise OSError("disk full")

    async with a_kernel() as kernel:
        with move_on_after(UNIT) as scope:
            async with kernel.turn([breaks_late]) as turn:
                submit(turn, breaks_late)
        assert scope.cancelled_caught
        (result,) = turn.results
        assert statuses(turn) == ["cancelled"]
        assert isinstance(result.error, OSError)
        assert "disk full" in str(result.content)


async def test_the_callers_cancellation_comes_before_a_fatal_failure_of_the_cleanup() -> None:
    @tool(on_error="raise")
    async def breaks_late() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise OSError("disk full")

    async with a_kernel() as kernel:
        with move_on_after(UNIT) as scope:
            async with kernel.turn([breaks_late]) as turn:
                submit(turn, breaks_late)
        assert scope.cancelled_caught
        assert isinstance(turn.results[0].error, OSError)


# Timeouts and deadlines


async def test_a_timeout_interrupts_its_call_and_no_other() -> None:
    long = 10 * UNIT if is_real() else 4 * UNIT

    async def later() -> str:
        await anyio.sleep(long)
        return "later"

    async with a_kernel() as kernel:
        bodies = Bodies()
        tidy = tool(timeout=UNIT)(bodies.tidy)
        async with kernel.turn([tidy, later]) as turn:
            submit(turn, tidy, later)
    assert statuses(turn) == ["timed_out", "ok"]
    assert isinstance(turn.results[0].error, DeadlineExceeded)
    assert turn.results[0].ended_at - (turn.results[0].started_at or 0) < long
    assert bodies.cleaned


async def test_a_tools_own_timeout_error_is_a_failure_and_no_timeout() -> None:
    async def impatient() -> None:
        with anyio.fail_after(UNIT):
            await anyio.sleep_forever()

    async with a_kernel() as kernel:
        async with kernel.turn([tool(timeout=5 * UNIT)(impatient)], timeout=9 * UNIT) as turn:
            turn.submit(call("impatient"))
    assert statuses(turn) == ["failed"]
    assert type(turn.results[0].error) is TimeoutError


async def test_a_value_after_the_deadline_is_late_and_kept() -> None:
    async def blocks() -> str:
        with CancelScope(shield=True):
            await anyio.sleep(2 * UNIT)
        return "late"

    async with a_kernel() as kernel:
        async with kernel.turn([tool(timeout=UNIT)(blocks)]) as turn:
            turn.submit(call("blocks"))
    (result,) = turn.results
    assert statuses(turn) == ["timed_out"]
    assert result.value == "late"
    assert "did finish" in str(result.content) and "late" in str(result.content)


async def test_a_value_returned_before_an_ask_was_delivered_is_ok() -> None:
    async with a_kernel() as kernel:

        @tool
        async def stops_its_turn() -> str:
            turns[0].cancel()
            return "value"

        turns: list[Turn] = []
        async with kernel.turn([stops_its_turn]) as turn:
            turns.append(turn)
            submit(turn, stops_its_turn)
            await anyio.sleep(UNIT)
    assert statuses(turn) == ["ok"]


async def test_idle_timeout_is_put_off_by_progress_and_then_interrupts() -> None:
    async def beats() -> None:
        for _ in range(3):
            await anyio.sleep(0.8 * UNIT)
            current_call().heartbeat()
        await anyio.sleep_forever()

    async with a_kernel() as kernel:
        start = anyio.current_time()
        async with kernel.turn([tool(idle_timeout=UNIT)(beats)]) as turn:
            turn.submit(call("beats"))
        took(start, (3 * 0.8 + 1) * UNIT)
    assert statuses(turn) == ["timed_out"]
    assert "idle" in str(turn.results[0].content)


async def test_heartbeats_do_not_put_off_the_timeout() -> None:
    async def beats() -> None:
        while True:
            await anyio.sleep(UNIT / 2)
            current_call().heartbeat()

    # In real time a beat may be late, and that is silence.
    idle = 5 * UNIT if is_real() else UNIT
    async with a_kernel() as kernel:
        start = anyio.current_time()
        async with kernel.turn([tool(idle_timeout=idle, timeout=2.2 * idle)(beats)]) as turn:
            turn.submit(call("beats"))
        took(start, 2.2 * idle)
    assert statuses(turn) == ["timed_out"]


async def test_a_turns_deadline_settles_its_calls_and_lets_the_host_go_on() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        async with kernel.turn(bodies.tools(), timeout=UNIT) as turn:
            submit(turn, bodies.tidy)
            await anyio.sleep(4 * UNIT)
            submit(turn, fine)
            host = "went on"
        assert host == "went on"
        assert statuses(turn) == ["timed_out", "not_started"]
        assert "deadline" in str(turn.results[1].content)
        assert bodies.cleaned


async def test_a_deadline_in_the_past_starts_nothing() -> None:
    async with a_kernel() as kernel:
        async with kernel.turn([fine], deadline=anyio.current_time() - UNIT) as turn:
            submit(turn, fine)
    assert statuses(turn) == ["not_started"]


async def test_a_calls_deadline_is_the_earliest_of_all_around_it() -> None:
    seen: list[float] = []

    async def looks() -> None:
        seen.append(current_call().deadline - anyio.current_time())

    async with a_kernel() as kernel:
        for own, turns, callers, earliest in [(1, 2, 3, 1), (3, 1, 2, 1), (2, 3, 1, 1)]:
            timed = tool(name="looks", timeout=own * 100 * UNIT)(looks)
            with anyio.fail_after(callers * 100 * UNIT):
                async with kernel.turn([timed], timeout=turns * 100 * UNIT) as turn:
                    turn.submit(call("looks"))
            assert seen.pop() == pytest.approx(earliest * 100 * UNIT, abs=slack(UNIT))
        async with kernel.turn([looks]) as turn:
            submit(turn, looks)
        assert seen.pop() == math.inf


async def test_check_cancelled_raises_only_after_the_ask() -> None:
    notes: list[str] = []

    async def asks_itself() -> None:
        check_cancelled()
        assert not current_call().cancelling
        notes.append("before")
        with CancelScope(shield=True):
            await anyio.sleep(2 * UNIT)
        assert current_call().cancelling
        notes.append("after")
        check_cancelled()
        notes.append("never")

    async with a_kernel() as kernel:
        with move_on_after(UNIT):
            async with kernel.turn([asks_itself]) as turn:
                submit(turn, asks_itself)
    assert notes == ["before", "after"]
    assert statuses(turn) == ["cancelled"]


# The kernel's and the turn's own doors


async def test_a_kernel_that_closes_ends_the_turns_that_are_open_in_other_tasks() -> None:
    turns: list[Turn] = []

    async def host(kernel: Kernel, bodies: Bodies) -> None:
        async with kernel.turn(bodies.tools()) as turn:
            turns.append(turn)
            submit(turn, bodies.tidy)

    async with nothing_left():
        bodies = Bodies()
        async with anyio.create_task_group() as group:
            async with Kernel() as kernel:
                group.start_soon(host, kernel, bodies)
                await bodies.begun.wait()
        assert statuses(turns[0]) == ["cancelled"]
        assert "kernel was closed" in str(turns[0].results[0].content)
        assert bodies.cleaned


async def test_a_cancelled_kernel_block_cancels_what_it_runs() -> None:
    async with nothing_left():
        bodies = Bodies()
        with move_on_after(UNIT) as scope:
            async with Kernel() as kernel, kernel.turn(bodies.tools()) as turn:
                submit(turn, bodies.tidy)
        assert scope.cancelled_caught
        assert statuses(turn) == ["cancelled"]
        assert bodies.cleaned


@pytest.mark.parametrize("ticks", range(6))
async def test_a_kernel_cancelled_while_it_opens_leaves_nothing(ticks: int) -> None:
    async with nothing_left():
        with CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(stop_after, ticks, scope)
                async with Kernel() as kernel, kernel.turn([fine]) as turn:
                    submit(turn, fine)
                    await anyio.sleep_forever()
        assert scope.cancelled_caught


async def test_a_closed_kernel_says_so() -> None:
    async with Kernel() as kernel:
        turn = kernel.turn([fine])
    with pytest.raises(RuntimeError, match="closed"):
        kernel.turn([fine])
    with pytest.raises(RuntimeError, match="closed"):
        async with turn:
            ...
    with pytest.raises(RuntimeError, match="opened once"):
        await kernel.__aenter__()


async def test_a_kernel_that_was_never_opened_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with Kernel"):
        Kernel().turn([fine])


async def test_a_turn_is_entered_once_and_takes_calls_only_in_its_block() -> None:
    async with a_kernel() as kernel:
        turn = kernel.turn([fine])
        with pytest.raises(RuntimeError, match="async with"):
            submit(turn, fine)
        with pytest.raises(RuntimeError, match="async with"):
            turn.cancel()
        async with turn:
            submit(turn, fine)
            with pytest.raises(RuntimeError, match="not settled"):
                _ = turn.results
        with pytest.raises(RuntimeError, match="ended"):
            submit(turn, fine)
        with pytest.raises(RuntimeError, match="ended"):
            turn.cancel()
        with pytest.raises(RuntimeError, match="once"):
            async with turn:
                ...


async def test_a_call_is_submitted_in_the_event_loops_thread_only() -> None:
    async with a_kernel() as kernel:
        async with kernel.turn([fine]) as turn:
            with pytest.raises(RuntimeError, match="from_thread"):
                await anyio.to_thread.run_sync(submit, turn, fine)
            with pytest.raises(RuntimeError, match="from_thread"):
                await anyio.to_thread.run_sync(kernel.turn, [fine])
            assert (
                await anyio.to_thread.run_sync(
                    lambda: anyio.from_thread.run_sync(turn.submit, call("fine"))
                )
                == 0
            )
    assert statuses(turn) == ["ok"]


async def test_submit_takes_only_tool_calls_and_gives_the_index() -> None:
    async with a_kernel() as kernel:
        async with kernel.turn([fine]) as turn:
            with pytest.raises(TypeError, match="ToolCall"):
                turn.submit({"name": "fine"})  # type: ignore[arg-type]  # because that is tested
            assert [turn.submit(ToolCall("", "fine")) for _ in range(3)] == [0, 1, 2]
    assert statuses(turn) == ["ok"] * 3


async def test_bad_arguments_to_kernel_and_turn_are_refused() -> None:
    for grace in (-1, math.inf, math.nan):
        with pytest.raises(ValueError, match="grace"):
            Kernel(grace=grace)
    with pytest.raises(TypeError, match="observe"):
        Kernel(observers=[object()])  # type: ignore[list-item]  # because that is tested
    async with a_kernel() as kernel:
        with pytest.raises(ValueError, match="timeout"):
            kernel.turn([fine], timeout=-1)
        with pytest.raises(ValueError, match="timeout"):
            kernel.turn([fine], timeout=math.nan)
        with pytest.raises(ValueError, match="deadline"):
            kernel.turn([fine], deadline=math.nan)


def test_the_statuses_are_their_texts() -> None:
    assert Status.OK == "ok"
    assert f"{Status.NOT_STARTED}" == "not_started"
