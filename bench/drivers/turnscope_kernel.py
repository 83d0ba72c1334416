"""turnscope, as a loop of one's own uses it: one kernel for all turns, nobody listening.

The calls are made, validated and answered inside the time that is taken. The limits are on, and
high enough that none of the calls of a scenario waits: the floors have none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio

import turnscope
from bench.tools import Call, Conversation, Tool, lasts
from turnscope import Agent, Budget, Kernel, Limits, ToolCall
from turnscope.abc import ModelRequest, Observer
from turnscope.events import CallDelta, CallSealed, ModelEvent, ModelFinished, TextDelta
from turnscope_backends import InlineBackend, ProcessBackend, ThreadBackend


class Session:
    """An open kernel, and the tools of its turns."""

    def __init__(self, kernel: Kernel, tools: Sequence[Tool]) -> None:
        self._kernel = kernel
        self._tools = [
            turnscope.tool(backend=tool.place, read_only=tool.read_only)(tool.fn) for tool in tools
        ]
        self._agent = Agent(tools=self._tools, budget=Budget(turns=1000))

    def prepare(self, calls: Sequence[Call]) -> Sequence[Call]:
        """Leave them as the model sent them."""
        return calls

    async def turn(self, prepared: Sequence[Call]) -> Sequence[object]:
        """Run one turn; a call that is not ok stands for its own value."""
        async with self._kernel.turn(self._tools) as turn:
            for call in prepared:
                turn.submit(ToolCall(call.id, call.name, call.arguments))
        return [result.value if result.ok else result for result in turn.results]

    def talk(self, conversation: Conversation) -> Conversation:
        """Leave it as the model sends it."""
        return conversation

    async def run(self, talk: Conversation) -> Sequence[object]:
        """Run an agent on it; what its tools gave is read from the history."""
        result = await self._kernel.run(self._agent, "Go.", model=Stub(talk))
        return [
            int(each.content) if each.status == "ok" and isinstance(each.content, str) else each
            for each in result.history.results
        ]


class Stub:
    """Answers at once, with the calls of one turn after the other, and then with a word."""

    def __init__(self, talk: Conversation) -> None:
        self._turns = iter(talk)

    @asynccontextmanager
    async def stream(self, request: ModelRequest, /) -> AsyncGenerator[AsyncGenerator[ModelEvent]]:
        """Stream the next turn."""
        yield self._events(next(self._turns, ()))

    async def _events(self, calls: Sequence[Call]) -> AsyncGenerator[ModelEvent]:
        start = anyio.current_time()
        for index, call in enumerate(calls):
            if call.at:
                await anyio.sleep_until(start + call.at)
            yield CallDelta(index, call.id, call.name, call.arguments)
            yield CallSealed(index)
        if streams := lasts(calls):
            await anyio.sleep_until(start + streams)
        if not calls:
            yield TextDelta("done")
        yield ModelFinished("calls" if calls else "stop")


@asynccontextmanager
async def session(tools: Sequence[Tool], /) -> AsyncGenerator[Session]:
    """Open a kernel without observers."""
    async with kernel_for(tools) as kernel:
        yield Session(kernel, tools)


def kernel_for(tools: Sequence[Tool], observers: Sequence[Observer] = ()) -> Kernel:
    """A kernel with the backends as instances: the benchmark also runs from a source tree."""
    processes: Any = ProcessBackend(warm=2 if any(t.place == "process" for t in tools) else 0)
    return Kernel(
        limits=Limits(calls=10_000, threads=64),
        backends=[InlineBackend(), ThreadBackend(), processes],
        observers=observers,
    )
