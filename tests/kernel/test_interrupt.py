"""The one interrupt finds a body wherever it is, and its cleanup runs whole, on every event loop.

In real time: a body that is busy from checkpoint to checkpoint leaves virtual time no room to pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import CancelScope

from tests.kernel.bodies import (
    UNIT,
    a_kernel,
    move_on_after,
    statuses,
    submit,
)
from turnscope import Tool

pytestmark = pytest.mark.anyio


async def interrupted(body: Callable[[], Any], notes: list[str], *, by_timeout: bool) -> None:
    """Assert that *body*, cancelled after one unit, notes "cleaned" long before grace is over."""
    async with a_kernel(grace=20 * UNIT) as kernel:
        wrapped = Tool(body, name="body", timeout=UNIT if by_timeout else None)
        start = anyio.current_time()
        with move_on_after(math.inf if by_timeout else UNIT):
            async with kernel.turn([wrapped]) as turn:
                submit(turn, wrapped)
        assert anyio.current_time() - start < 20 * UNIT
        assert statuses(turn) == ["timed_out" if by_timeout else "cancelled"]
        assert notes == ["cleaned"]


by_both = pytest.mark.parametrize("by_timeout", [False, True], ids=["scope", "timeout"])


@by_both
async def test_a_busy_body_is_interrupted_at_its_checkpoint(by_timeout: bool) -> None:
    notes: list[str] = []

    async def body() -> None:
        try:
            while True:
                await anyio.sleep(0)
        finally:
            await anyio.sleep(UNIT / 5)
            notes.append("cleaned")

    await interrupted(body, notes, by_timeout=by_timeout)


@by_both
async def test_a_body_busy_with_a_channel_is_interrupted(by_timeout: bool) -> None:
    notes: list[str] = []

    async def body() -> None:
        sender, receiver = anyio.create_memory_object_stream[int](1)
        try:
            while True:
                await sender.send(1)
                await receiver.receive()
        finally:
            await anyio.sleep(UNIT / 5)
            sender.close()
            receiver.close()
            notes.append("cleaned")

    await interrupted(body, notes, by_timeout=by_timeout)


@by_both
async def test_cleanup_may_begin_with_a_checkpoint(by_timeout: bool) -> None:
    notes: list[str] = []

    async def body() -> None:
        lock = anyio.Lock()
        try:
            while True:
                await anyio.sleep(0)
        finally:
            async with lock:
                await anyio.lowlevel.checkpoint_if_cancelled()
                await anyio.to_thread.run_sync(notes.append, "cleaned")

    await interrupted(body, notes, by_timeout=by_timeout)


@by_both
async def test_a_timer_in_a_section_that_the_body_shields_is_not_the_interrupt(
    by_timeout: bool,
) -> None:
    notes: list[str] = []

    async def body() -> None:
        with CancelScope(shield=True):
            with move_on_after(2 * UNIT):
                await anyio.sleep_forever()
        try:
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(UNIT / 5)
            notes.append("cleaned")

    await interrupted(body, notes, by_timeout=by_timeout)


@by_both
async def test_a_sleep_in_a_section_that_the_body_shields_is_not_the_interrupt(
    by_timeout: bool,
) -> None:
    notes: list[str] = []

    async def body() -> None:
        with CancelScope(shield=True):
            await anyio.sleep(2 * UNIT)
        try:
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(UNIT / 5)
            notes.append("cleaned")

    await interrupted(body, notes, by_timeout=by_timeout)


@by_both
async def test_cleanup_after_a_task_group_of_its_own_is_whole(by_timeout: bool) -> None:
    notes: list[str] = []

    async def body() -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)
        finally:
            await anyio.sleep(UNIT / 5)
            notes.append("cleaned")

    await interrupted(body, notes, by_timeout=by_timeout)


@by_both
async def test_cleanup_around_a_task_group_that_is_still_busy_is_whole(by_timeout: bool) -> None:
    notes: list[str] = []

    async def body() -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)
                await anyio.sleep_forever()
        finally:
            await anyio.sleep(UNIT / 5)
            notes.append("cleaned")

    await interrupted(body, notes, by_timeout=by_timeout)


async def test_a_body_gets_exactly_one_interrupt_until_grace_is_over() -> None:
    interrupts: list[float] = []

    async def counts() -> str:
        for _ in range(3):
            try:
                await anyio.sleep(10 * UNIT)
            except anyio.get_cancelled_exc_class():
                interrupts.append(anyio.current_time())
        return "late"

    async with a_kernel(grace=4 * UNIT) as kernel:
        start = anyio.current_time()
        with move_on_after(UNIT):
            async with kernel.turn([counts]) as turn:
                submit(turn, counts)
        # One at the ask, one when grace is over, and that one again at each await.
        assert len(interrupts) == 3
        assert UNIT * 0.99 <= interrupts[0] - start < 3 * UNIT
        assert interrupts[1] - interrupts[0] >= 3.9 * UNIT
    assert statuses(turn) == ["cancelled"]


async def test_what_a_body_shields_is_not_cut_by_the_interrupt() -> None:
    notes: list[str] = []

    async def pays() -> str:
        with CancelScope(shield=True):
            await anyio.sleep(2 * UNIT)
            notes.append("paid")
        await anyio.sleep_forever()
        return "never"

    async with a_kernel() as kernel:
        with move_on_after(UNIT):
            async with kernel.turn([pays]) as turn:
                submit(turn, pays)
        assert notes == ["paid"]
        assert statuses(turn) == ["cancelled"]


@by_both
async def test_an_interrupted_task_group_does_not_look_finished(by_timeout: bool) -> None:
    notes: list[str] = []

    async def body() -> str:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)
                await anyio.sleep_forever()
            notes.append("went on after the group")
            return "all has been done"
        finally:
            notes.append("cleaned")

    await interrupted(body, notes, by_timeout=by_timeout)


@by_both
async def test_an_interrupted_wait_for_a_task_group_does_not_look_finished(
    by_timeout: bool,
) -> None:
    notes: list[str] = []

    async def body() -> str:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep_forever)
            notes.append("went on after the group")
            return "all has been done"
        finally:
            notes.append("cleaned")

    await interrupted(body, notes, by_timeout=by_timeout)


@by_both
async def test_a_timer_of_the_bodys_own_at_the_same_instant_keeps_the_cleanup_whole(
    by_timeout: bool,
) -> None:
    notes: list[str] = []

    async def body() -> None:
        try:
            with move_on_after(UNIT):
                await anyio.sleep_forever()
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(UNIT / 5)
            notes.append("cleaned")

    await interrupted(body, notes, by_timeout=by_timeout)
