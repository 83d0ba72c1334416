"""turnscope, as a loop of one's own uses it: one kernel for all turns, nobody listening.

The calls are made, validated and answered inside the time that is taken. The limits are on, and
high enough that none of the calls of a scenario waits: the floors have none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import turnscope
from bench.tools import Call, Tool
from turnscope import Kernel, Limits, ToolCall
from turnscope.abc import Observer
from turnscope_backends import InlineBackend, ProcessBackend, ThreadBackend


class Session:
    """An open kernel, and the tools of its turns."""

    def __init__(self, kernel: Kernel, tools: Sequence[Tool]) -> None:
        self._kernel = kernel
        self._tools = [turnscope.tool(backend=tool.place)(tool.fn) for tool in tools]

    def prepare(self, calls: Sequence[Call]) -> Sequence[Call]:
        """Leave them as the model sent them."""
        return calls

    async def turn(self, prepared: Sequence[Call]) -> Sequence[object]:
        """Run one turn; a call that is not ok stands for its own value."""
        async with self._kernel.turn(self._tools) as turn:
            for call in prepared:
                turn.submit(ToolCall(call.id, call.name, call.arguments))
        return [result.value if result.ok else result for result in turn.results]


@asynccontextmanager
async def session(tools: Sequence[Tool], /) -> AsyncGenerator[Session]:
    """Open a kernel without observers."""
    async with kernel_for(tools) as kernel:
        yield Session(kernel, tools)


def kernel_for(tools: Sequence[Tool], observers: Sequence[Observer] = ()) -> Kernel:
    """A kernel with the backends as instances: the benchmark also runs from a source tree."""
    processes: Any = ProcessBackend(warm=2 if any(t.place == "process" for t in tools) else 0)
    return Kernel(
        limits=Limits(calls=1024, threads=64),
        backends=[InlineBackend(), ThreadBackend(), processes],
        observers=observers,
    )
