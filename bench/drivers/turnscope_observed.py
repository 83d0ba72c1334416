"""turnscope with somebody listening: as `turnscope_kernel`, with one observer of all events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from bench.checks import CheckFailed
from bench.tools import Tool
from turnscope.events import CallEvent, RunEvent, TurnFinished

from .turnscope_kernel import Session, kernel_for


class Listener:
    """Counts what it is told: three events for a call."""

    def __init__(self) -> None:
        self.events = 0
        self.calls = 0
        self.turns = 0

    def observe(self, event: RunEvent, /) -> None:
        """Count *event*."""
        if isinstance(event, CallEvent):
            self.events += 1
        elif type(event) is TurnFinished:
            self.turns += 1
            self.calls += len(event.results)


@asynccontextmanager
async def session(tools: Sequence[Tool], /) -> AsyncGenerator[Session]:
    """Open a kernel with a `Listener`, and look afterwards that it heard of everything."""
    listener = Listener()
    async with kernel_for(tools, [listener]) as kernel:
        yield Session(kernel, tools)
    if not listener.calls or listener.events != 3 * listener.calls:
        raise CheckFailed(
            f"{listener.events} events for {listener.calls} calls in {listener.turns} turns: "
            "three for each call were due"
        )
