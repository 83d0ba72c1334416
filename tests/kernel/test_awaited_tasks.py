"""A body that awaits other tasks, as by `asyncio.gather`: they get the one interrupt in its place.

On asyncio alone: a task that awaits another hands its cancellations down, and AnyIO sends one in
each round of the event loop. On trio a task cannot be awaited.
"""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from tests.kernel.bodies import (
    UNIT,
    a_kernel,
    elapse,
    move_on_after,
    only_asyncio,
    statuses,
    submit,
    took,
)
from tests.kernel.bodies import anyio_backend as anyio_backend
from turnscope import Tool

pytestmark = [pytest.mark.anyio, only_asyncio]

Child = Callable[[], Awaitable[Any]]


async def by_task(child: Child) -> Any:
    return await asyncio.ensure_future(child())


async def by_gather(child: Child) -> Any:
    return await asyncio.gather(child(), child())


async def by_gathers(child: Child) -> Any:
    return await asyncio.gather(by_gather(child), by_task(child))


async def within_a_scope(child: Child) -> Any:
    with anyio.move_on_after(60):
        return await by_task(child)


async def in_a_generator(child: Child) -> Any:
    async def parts() -> Any:
        yield await by_task(child)

    return [part async for part in parts()]


each_way = pytest.mark.parametrize(
    "awaits", [by_task, by_gather, by_gathers, within_a_scope, in_a_generator]
)


class Children:
    """What the tasks note that a body awaits."""

    def __init__(self) -> None:
        self.begun = 0
        self.notes: list[str] = []

    async def tidy(self) -> None:
        """Clean up with two awaits."""
        self.begun += 1
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(UNIT / 4)
            await asyncio.sleep(UNIT / 4)
            self.notes.append("cleaned")

    async def long(self) -> None:
        """Clean up for ever."""
        self.begun += 1
        try:
            await asyncio.sleep(60)
        finally:
            try:
                await asyncio.sleep(60)
            finally:
                self.notes.append("cut")

    async def deaf(self) -> str:
        """Swallow the interrupt, and return."""
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(UNIT / 4)
        return "anyway"


def body_of(
    awaits: Callable[[Child], Awaitable[Any]], child: Child, **options: Any
) -> Tool[..., Any]:
    async def body() -> Any:
        return await awaits(child)

    return Tool(body, **options)


@each_way
async def test_an_ask_lets_them_clean_up(awaits: Any) -> None:
    children = Children()
    async with a_kernel(grace=20 * UNIT) as kernel:
        body = body_of(awaits, children.tidy)
        start = anyio.current_time()
        with move_on_after(UNIT):
            async with kernel.turn([body]) as turn:
                submit(turn, body)
        took(start, 1.5 * UNIT)
    assert statuses(turn) == ["cancelled"]
    assert children.notes == ["cleaned"] * children.begun


@each_way
async def test_a_timeout_lets_them_clean_up(awaits: Any) -> None:
    children = Children()
    async with a_kernel(grace=20 * UNIT) as kernel:
        body = body_of(awaits, children.tidy, timeout=UNIT)
        start = anyio.current_time()
        async with kernel.turn([body]) as turn:
            submit(turn, body)
        took(start, 1.5 * UNIT)
    assert statuses(turn) == ["timed_out"]
    assert children.notes == ["cleaned"] * children.begun


async def test_a_native_cancel_lets_them_clean_up_and_is_raised_again() -> None:
    children = Children()
    async with a_kernel(grace=20 * UNIT) as kernel:
        body = body_of(by_gather, children.tidy)

        async def caller() -> None:
            async with kernel.turn([body]) as turn:
                submit(turn, body)

        task = asyncio.create_task(caller())
        await elapse(UNIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert children.notes == ["cleaned", "cleaned"]


@each_way
async def test_the_end_of_grace_cuts_their_cleanup(awaits: Any) -> None:
    children = Children()
    async with a_kernel(grace=UNIT) as kernel:
        body = body_of(awaits, children.long, timeout=UNIT)
        start = anyio.current_time()
        async with kernel.turn([body]) as turn:
            submit(turn, body)
        took(start, 2 * UNIT)
    assert statuses(turn) == ["timed_out"]
    assert children.notes == ["cut"] * children.begun


async def test_what_they_return_in_spite_of_it_is_too_late_and_kept() -> None:
    async with a_kernel(grace=20 * UNIT) as kernel:
        body = body_of(by_task, Children().deaf, timeout=UNIT)
        async with kernel.turn([body]) as turn:
            submit(turn, body)
    assert statuses(turn) == ["timed_out"]
    assert turn.results[0].value == "anyway"


async def test_a_task_that_swallows_every_cancel_ends_with_the_patience() -> None:
    async def endless() -> None:
        while not over.is_set():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    over = asyncio.Event()
    async with a_kernel(grace=UNIT) as kernel:
        body = body_of(by_task, endless, timeout=UNIT)
        async with kernel.turn([body]) as turn:
            submit(turn, body)
        assert statuses(turn) == ["timed_out"]
        # It is the body's own, and nobody but the body could end it.
        over.set()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if "endless" in repr(task):
                task.cancel()
        await anyio.sleep(UNIT / 4)


async def test_a_scope_of_the_bodys_own_cancels_them_and_the_body_goes_on() -> None:
    notes: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            notes.append("cancelled")

    async def body() -> str:
        with move_on_after(UNIT):
            await asyncio.ensure_future(child())
        await anyio.sleep(UNIT)
        return "went on"

    async with a_kernel() as kernel, kernel.turn([body]) as turn:
        submit(turn, body)
    assert statuses(turn) == ["ok"]
    assert turn.results[0].value == "went on"
    assert notes == ["cancelled"]


async def test_results_and_errors_come_through_as_ever() -> None:
    async def gives() -> int:
        await anyio.sleep(UNIT / 10)
        return 7

    async def fails() -> int:
        await anyio.sleep(UNIT / 10)
        raise ValueError("no")

    async def both() -> list[Any]:
        return await asyncio.gather(gives(), fails(), return_exceptions=True)

    tools = [
        Tool(lambda: by_gather(gives), name="gathered", backend="inline"),
        body_of(by_task, fails),
        Tool(both),
    ]
    async with a_kernel() as kernel, kernel.turn(tools) as turn:
        submit(turn, *tools)
    gathered, failed, mixed = turn.results
    assert gathered.value == [7, 7]
    assert isinstance(failed.error, ValueError)
    assert mixed.value is None or mixed.value[0] == 7


async def test_one_that_ends_just_as_the_interrupt_comes_does_not_hide_it() -> None:
    notes: list[str] = []

    async def body() -> None:
        task = asyncio.ensure_future(ends.wait())
        await task
        notes.append("went on")
        await anyio.sleep_forever()

    ends = asyncio.Event()
    async with a_kernel(grace=20 * UNIT) as kernel:
        start = anyio.current_time()
        with anyio.move_on_after(math.inf) as scope:
            async with kernel.turn([body]) as turn:
                submit(turn, body)
                await elapse(UNIT)
                ends.set()
                await asyncio.sleep(0)
                scope.cancel()
        took(start, UNIT)
    assert statuses(turn) == ["cancelled"]


async def test_what_one_raises_as_it_is_cut_is_not_lost_to_the_next_cancellation() -> None:
    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            try:
                await asyncio.sleep(60)
            finally:
                raise ValueError("no")

    async with a_kernel(grace=UNIT) as kernel:
        body = body_of(by_task, child, timeout=UNIT)
        async with kernel.turn([body]) as turn:
            submit(turn, body)
    assert statuses(turn) == ["timed_out"]
    assert str(turn.results[0].error) == "no"


async def test_a_task_that_awaits_itself_is_told_so() -> None:
    async def body() -> None:
        task = asyncio.current_task()
        assert task is not None
        await task

    async with a_kernel() as kernel, kernel.turn([body]) as turn:
        submit(turn, body)
    assert statuses(turn) == ["failed"]
    assert "cannot await on itself" in str(turn.results[0].error)


async def test_a_future_of_another_event_loop_is_refused_as_ever() -> None:
    other = asyncio.new_event_loop()
    foreign = Foreign(loop=other)

    async def body() -> None:
        await foreign

    try:
        async with a_kernel() as kernel, kernel.turn([body]) as turn:
            submit(turn, body)
    finally:
        other.close()
    assert statuses(turn) == ["failed"]
    assert "attached to a different loop" in str(turn.results[0].error)


class Foreign(asyncio.Future[None]):
    """A future of a type of its own, as a task is."""


async def test_a_gather_that_is_about_to_end_as_the_interrupt_comes_leaves_no_word(
    anyio_backend: Any,
) -> None:
    # Its task has failed, and it is told so in the round of the loop in which the body is to be
    # interrupted: it can no longer be cancelled, and has not ended. A task would wait for it, and
    # so see what it raises; which else is logged as never retrieved.
    said: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: said.append(about["message"]))

    async def fails() -> None:
        await asyncio.sleep(0)
        turn.cancel()
        raise LookupError

    async def gathers() -> None:
        await asyncio.gather(fails())

    async with a_kernel() as kernel:
        async with kernel.turn([gathers]) as turn:
            submit(turn, gathers)
        assert statuses(turn) == ["cancelled"]
    gc.collect()
    assert said == []
