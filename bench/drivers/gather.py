"""A floor: ``asyncio.gather`` over the calls, as most hand-written loops do it.

It knows no places: a ``def`` tool runs in the event loop, and blocks it.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bench.tools import Call, Conversation, Tool

from .bare import play

Prepared = list[tuple[Callable[..., Awaitable[Any]], dict[str, Any]]]


class Session:
    """The functions by name; nothing is long-lived."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._functions = {tool.name: _asynchronous(tool.fn) for tool in tools}

    def prepare(self, calls: Sequence[Call]) -> Prepared:
        """Look the functions up and read the arguments: a floor validates nothing."""
        return [(self._functions[call.name], json.loads(call.arguments)) for call in calls]

    async def turn(self, prepared: Prepared) -> Sequence[object]:
        """Gather the calls."""
        return await asyncio.gather(*[fn(**kwargs) for fn, kwargs in prepared])

    def talk(self, conversation: Conversation) -> Conversation:
        """Leave it as the model sends it."""
        return conversation

    async def run(self, talk: Conversation) -> Sequence[object]:
        """Play the conversation by hand."""
        return await play(talk, lambda calls: self.turn(self.prepare(calls)))


@asynccontextmanager
async def session(tools: Sequence[Tool], /) -> AsyncGenerator[Session]:
    """Open nothing."""
    yield Session(tools)


def _asynchronous(fn: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    if inspect.iscoroutinefunction(fn):
        return fn

    async def in_the_loop(**kwargs: Any) -> Any:
        return fn(**kwargs)

    return in_the_loop
