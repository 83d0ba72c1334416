"""Results: what the model reads, what the caller finds, for each way in which a call can settle."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from typing import Any

import anyio
import attrs
import pytest

from tests.kernel.bodies import (
    UNIT,
    Bodies,
    a_kernel,
    call,
    fine,
    is_real,
    move_on_after,
    statuses,
    submit,
)
from tests.kernel.bodies import anyio_backend as anyio_backend
from tests.support import Loop
from turnscope import (
    CallCancelled,
    Content,
    DeadlineExceeded,
    InvalidArguments,
    Kernel,
    Limits,
    NotSerialisable,
    NotStarted,
    Status,
    ToolResult,
    UnknownTool,
    tool,
)
from turnscope.testing import check_results

in_a_loop = pytest.mark.anyio


async def answer(value: Any, **options: Any) -> ToolResult:
    """The result of a tool that returns *value*."""

    async def gives() -> Any:
        return value

    async with a_kernel(**options) as kernel:
        async with kernel.turn([gives]) as turn:
            submit(turn, gives)
    (result,) = turn.results
    check_results([result.call], [result])
    return result


# ok


@attrs.frozen
class Point:
    """A value that is no JSON by itself."""

    x: int
    y: int


class Colour(enum.StrEnum):
    """An enumeration of texts."""

    RED = "red"


@in_a_loop
@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("text", "text"),
        ("", ""),
        ("naïve ☃", "naïve ☃"),
        (Colour.RED, "red"),
        (None, "null"),
        (True, "true"),
        (3, "3"),
        (1.5, "1.5"),
        ([1, "a"], '[1,"a"]'),
        ((), "[]"),
        ([], "[]"),
        ({"a": None}, '{"a":null}'),
        (Point(1, 2), '{"x":1,"y":2}'),
        ([Point(1, 2)], '[{"x":1,"y":2}]'),
    ],
    ids=repr,
)
async def test_a_value_becomes_text_for_the_model_and_is_kept_as_it_is(
    value: Any, content: str
) -> None:
    result = await answer(value)
    assert result.status is Status.OK and result.ok
    assert result.content == content
    assert result.value is value
    assert result.error is None


PICTURE = Content(media_type="image/png", data=b"\x89PNG")
WORDS = Content(text="a picture")


@in_a_loop
@pytest.mark.parametrize(
    ("value", "content"),
    [(PICTURE, (PICTURE,)), ([WORDS, PICTURE], (WORDS, PICTURE)), ((WORDS,), (WORDS,))],
    ids=["one", "list", "tuple"],
)
async def test_content_parts_reach_the_model_as_they_are(
    value: Any, content: tuple[Content, ...]
) -> None:
    assert (await answer(value)).content == content


@in_a_loop
async def test_an_ok_result_tells_when_and_where() -> None:
    before = anyio.current_time()

    async def slow() -> None:
        await anyio.sleep(UNIT)

    async with a_kernel() as kernel:
        async with kernel.turn([slow]) as turn:
            asked = call("slow")
            turn.submit(asked)
        (result,) = turn.results
        assert result.call is asked
        assert result.backend == "inline" and not result.leaked
        assert result.started_at is not None
        assert before <= result.started_at <= result.ended_at - UNIT * 0.9
        assert result.ended_at <= anyio.current_time()


@in_a_loop
async def test_results_stand_in_call_order_and_not_in_order_of_completion() -> None:
    async def slow(units: int) -> int:
        await anyio.sleep(units * UNIT)
        completed.append(units)
        return units

    completed: list[int] = []
    async with a_kernel() as kernel:
        async with kernel.turn([slow]) as turn:
            for units in (3, 1, 2):
                turn.submit(call("slow", units=units))
    assert [result.value for result in turn.results] == [3, 1, 2]
    assert completed == [1, 2, 3]
    ends = [result.ended_at for result in turn.results]
    # uvloop's clock stands still within a round, in which several may end if the machine is late.
    assert ends[1] <= ends[2] <= ends[0]
    assert is_real() or len(set(ends)) == 3


@in_a_loop
async def test_long_content_is_cut_and_says_so_and_the_value_is_whole() -> None:
    result = await answer("x" * 1_234, limits=Limits(result_characters=1_000))
    assert str(result.content).startswith("x" * 1_000 + "\n")
    assert "1,000 of 1,234 characters" in str(result.content)
    assert result.value == "x" * 1_234


@in_a_loop
async def test_content_at_the_limit_is_not_cut() -> None:
    result = await answer("x" * 1_000, limits=Limits(result_characters=1_000))
    assert result.content == "x" * 1_000


@in_a_loop
async def test_a_long_error_is_cut_too() -> None:
    async def breaks() -> None:
        raise ValueError("x" * 5_000)

    async with a_kernel(limits=Limits(result_characters=100)) as kernel:
        async with kernel.turn([breaks]) as turn:
            submit(turn, breaks)
    assert len(str(turn.results[0].content)) < 200
    assert "are shown" in str(turn.results[0].content)


# failed


class Opaque:
    """A value that has no JSON form."""


@in_a_loop
@pytest.mark.parametrize(
    ("value", "named"),
    [(Opaque(), "Opaque"), ({"a": [Opaque()]}, "Opaque"), (threading.Lock(), "lock"), (print, "")],
    ids=["object", "inside", "lock", "function"],
)
async def test_a_value_that_cannot_be_text_is_a_failure_that_names_its_type(
    value: Any, named: str
) -> None:
    result = await answer(value)
    assert result.status == "failed"
    assert isinstance(result.error, NotSerialisable)
    assert named in str(result.content) and named in result.error.type_name
    assert "gives" in str(result.content)
    assert result.value is value  # the work was done: its value is not thrown away


@in_a_loop
async def test_a_value_that_refers_to_itself_is_a_failure() -> None:
    value: list[Any] = []
    value.append(value)
    result = await answer(value)
    assert result.status == "failed"
    assert isinstance(result.error, NotSerialisable)


@in_a_loop
async def test_an_exception_with_a_broken_text_is_still_told() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async def breaks() -> None:
        raise BrokenError

    async with a_kernel() as kernel:
        async with kernel.turn([breaks]) as turn:
            submit(turn, breaks)
    assert turn.results[0].content == "BrokenError"


# invalid


@in_a_loop
async def test_an_invalid_call_names_its_problems_and_has_no_start() -> None:
    async def takes(n: int) -> None: ...

    async with a_kernel() as kernel:
        async with kernel.turn([takes]) as turn:
            turn.submit(call("takes", n="many"))
            turn.submit(call("nobody"))
    bad, unknown = turn.results
    assert statuses(turn) == ["invalid", "invalid"]
    assert isinstance(bad.error, InvalidArguments) and len(bad.error.problems) == 1
    assert "n" in bad.error.problems[0]
    assert isinstance(unknown.error, UnknownTool) and unknown.error.known == ("takes",)
    assert (bad.backend, unknown.backend) == ("inline", None)
    assert bad.started_at is None and unknown.started_at is None


# timed_out, cancelled


UNKNOWN = "may or may not have happened"


@in_a_loop
async def test_an_interrupted_call_says_that_its_effects_are_unknown() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        timed = tool(name="timed", timeout=UNIT)(bodies.tidy)
        with move_on_after(3 * UNIT):
            async with kernel.turn([timed, bodies.endless]) as turn:
                submit(turn, timed, bodies.endless)
    timed_out, cancelled = turn.results
    assert statuses(turn) == ["timed_out", "cancelled"]
    assert isinstance(timed_out.error, DeadlineExceeded)
    assert isinstance(timed_out.error, TimeoutError)
    assert f"its timeout of {UNIT:g} s" in str(timed_out.content)
    assert isinstance(cancelled.error, CallCancelled)
    for result in turn.results:
        assert UNKNOWN in str(result.content)
        assert result.started_at is not None
        assert result.value is None


@in_a_loop
async def test_a_late_value_is_kept_and_the_model_is_told_that_the_call_did_finish() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        with move_on_after(UNIT):
            async with kernel.turn(bodies.tools()) as turn:
                submit(turn, bodies.stubborn)
    (result,) = turn.results
    assert result.status == "cancelled"
    assert result.value == "late"
    assert "The call did finish, too late to count, and returned: late" in str(result.content)
    assert UNKNOWN not in str(result.content)


@in_a_loop
async def test_a_late_value_that_cannot_be_text_is_kept_all_the_same() -> None:
    value = Opaque()

    async def late() -> Opaque:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return value

    async with a_kernel() as kernel:
        with move_on_after(UNIT):
            async with kernel.turn([late]) as turn:
                submit(turn, late)
    (result,) = turn.results
    assert result.status == "cancelled"
    assert result.value is value
    assert "did finish" in str(result.content)


@in_a_loop
async def test_late_content_parts_are_kept_as_a_value() -> None:
    async def late() -> Content:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return PICTURE

    async with a_kernel() as kernel:
        async with kernel.turn([tool(timeout=UNIT)(late)]) as turn:
            turn.submit(call("late"))
    (result,) = turn.results
    assert result.status == "timed_out"
    assert result.value is PICTURE
    assert "did finish" in str(result.content)


# not_started


async def by_exception(kernel: Kernel, bodies: Bodies) -> list[ToolResult]:
    with pytest.raises(LookupError):
        async with kernel.turn(bodies.tools()) as turn:
            submit(turn, bodies.tidy, fine)
            await bodies.begun.wait()
            raise LookupError
    return list(turn.results)


async def by_deadline(kernel: Kernel, bodies: Bodies) -> list[ToolResult]:
    async with kernel.turn(bodies.tools(), timeout=UNIT) as turn:
        submit(turn, bodies.tidy, fine)
    return list(turn.results)


async def by_sibling(kernel: Kernel, bodies: Bodies) -> list[ToolResult]:
    @tool(on_error="raise", name="tidy")
    async def breaks() -> None:
        bodies.notes[:] = ["cleaning", "cleaned"]
        raise LookupError

    with pytest.raises(LookupError):
        async with kernel.turn([breaks, fine]) as turn:
            turn.submit(call("tidy"))
            submit(turn, fine)
    return list(turn.results)


async def by_reason(kernel: Kernel, bodies: Bodies) -> list[ToolResult]:
    async with kernel.turn(bodies.tools()) as turn:
        submit(turn, bodies.tidy, fine)
        await bodies.begun.wait()
        turn.cancel("enough was found")
    return list(turn.results)


@in_a_loop
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (by_exception, "its turn was left by an exception or a cancellation"),
        (by_deadline, "the deadline of its turn"),
        (by_sibling, "another call of the turn failed"),
        (by_reason, "enough was found"),
    ],
)
async def test_a_call_that_never_began_says_why_and_that_nothing_happened(
    how: Callable[..., Any], reason: str
) -> None:
    async with a_kernel(limits=Limits(calls=1)) as kernel:
        _, waiter = await how(kernel, Bodies())
    assert waiter.status == "not_started"
    assert isinstance(waiter.error, NotStarted)
    assert reason in str(waiter.error)
    assert reason in str(waiter.content)
    assert "not started" in str(waiter.content)
    assert UNKNOWN not in str(waiter.content)
    assert waiter.started_at is None and not waiter.leaked


# leaked


def test_a_leak_is_on_the_result_and_what_the_thread_raised_is_not_lost(any_loop: Loop) -> None:
    pause = threading.Event()
    late = OSError("late")

    def works() -> None:
        assert pause.wait(10)
        raise late

    async def main() -> None:
        async with a_kernel(grace=0) as kernel:
            try:
                with anyio.fail_after(5):
                    async with kernel.turn([tool(timeout=UNIT)(works)]) as turn:
                        turn.submit(call("works"))
            finally:
                pause.set()
            (result,) = turn.results
            assert result.status == "timed_out"
            assert result.leaked
            assert "could not be stopped and is still at work" in str(result.content)
            with anyio.fail_after(5):
                while kernel.statistics().limiters["threads"].leaked:
                    await anyio.sleep(0.001)
            assert result.error is not None and result.error.__cause__ is late

    any_loop.run(main)


# Results as values


def test_results_are_frozen_and_told_apart_by_identity() -> None:
    one, two = (
        ToolResult(call=call("fine"), status=Status.OK, content="fine", started_at=0.0)
        for _ in range(2)
    )
    assert one != two
    with pytest.raises(attrs.exceptions.FrozenError):
        one.content = "other"  # type: ignore[misc]  # because that is tested
