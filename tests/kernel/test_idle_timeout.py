"""What is heard of a call counts from when it was sent, not from when the event loop looks at it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import anyio
import pytest
import trio.lowlevel
from anyio import from_thread
from anyio.lowlevel import current_token
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import Loop
from turnscope import Kernel, ToolCall, current_call, heartbeat, progress, tool


@pytest.mark.anyio
@pytest.mark.parametrize("beat", [heartbeat, lambda: progress("still here")], ids=["beat", "word"])
async def test_a_held_up_event_loop_does_not_time_out_a_thread_that_beats(beat: Any) -> None:
    begun, held_up = threading.Event(), threading.Event()

    @tool(idle_timeout=0.4)
    def beats() -> str:
        begun.set()
        until = time.monotonic() + 30
        while not held_up.is_set() and time.monotonic() < until:
            beat()
            time.sleep(0.01)
        return "in time"

    async with Kernel() as kernel:
        async with kernel.turn([beats]) as turn:
            turn.submit(ToolCall("b", "beats"))
            while not begun.is_set():
                await anyio.sleep(0.001)
            await anyio.sleep(0.1)
            time.sleep(0.8)  # the timer of the idle timeout comes due meanwhile, and is stale
            await anyio.sleep(0.1)
            held_up.set()
        assert turn.results[0].value == "in time", turn.results[0].content
        assert turn.results[0].ok


def pass_at_once(span: float) -> None:
    """Let *span* virtual seconds pass, in which the event loop comes to nothing."""
    if current_token().backend_class.__name__ == "TrioBackend":
        clock: Any = trio.lowlevel.current_clock()
        clock.jump(span)
    else:
        loop: Any = asyncio.get_running_loop()
        loop._jump(span)


IDLE = 1.0
SPANS = (0.25, 0.625, 0.875, 1.125)


@settings(max_examples=60)
@given(
    waits=st.lists(
        st.lists(st.sampled_from(SPANS), max_size=3) | st.sampled_from(SPANS), max_size=5
    )
)
def test_a_gap_between_two_beats_decides_and_not_when_the_loop_looks(
    virtual_loop: Loop, waits: list[list[float] | float]
) -> None:
    """*waits*: a span in which the loop works, or spans in which it is held up; a beat after each.

    The gaps are never as long as the idle timeout, so there are no ties.
    """

    def held_up(spans: list[float], beat: Any) -> None:
        for span in spans:
            pass_at_once(span)
            thread = threading.Thread(target=beat)
            thread.start()
            thread.join()

    @tool(idle_timeout=IDLE)
    def beats() -> str:
        context = current_call()
        for wait in waits:
            context.check_cancelled()  # because, once interrupted, asyncio sleeps on regardless
            if isinstance(wait, float):
                from_thread.run(anyio.sleep, wait)
                heartbeat()
            else:
                from_thread.run_sync(held_up, wait, context.heartbeat)
        return "in time"

    async def main() -> None:
        async with Kernel() as kernel:
            async with kernel.turn([beats]) as turn:
                turn.submit(ToolCall("b", "beats"))
            (result,) = turn.results
            gaps = [gap for wait in waits for gap in (wait if isinstance(wait, list) else [wait])]
            expected = "timed_out" if any(gap > IDLE for gap in gaps) else "ok"
            assert result.status == expected, result.content
            assert expected == "ok" or "its idle timeout: 1 s" in str(result.content)

    virtual_loop.run(main)


def test_an_idle_timeout_interrupts_at_its_instant_after_the_last_beat(virtual_loop: Loop) -> None:
    told: list[float] = []

    @tool(idle_timeout=0.3)
    async def beats() -> None:
        context = current_call()
        started = anyio.current_time()
        for _ in range(5):
            await anyio.sleep(0.2)
            context.heartbeat()
            told.append(context.deadline - started)
        await anyio.sleep_forever()

    async def main() -> None:
        async with Kernel() as kernel:
            async with kernel.turn([beats]) as turn:
                turn.submit(ToolCall("b", "beats"))
            (result,) = turn.results
            assert result.status == "timed_out"
            assert result.started_at is not None
            assert result.ended_at - result.started_at == pytest.approx(1.3)

    virtual_loop.run(main)
    assert told == pytest.approx([0.5, 0.7, 0.9, 1.1, 1.3])
