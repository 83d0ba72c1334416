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
from .by_hand import Asynchronous, Player, guarded, heard, nested

Prepared = list[tuple[Asynchronous, dict[str, Any]]]


class Session:
    """The functions by name; nothing is long-lived."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        locks: dict[str, asyncio.Lock] = {}
        self._tools = tools
        self._functions = {
            tool.name: guarded(tool, self._asynchronous(tool.fn), locks) for tool in tools
        }

    def prepare(self, calls: Sequence[Call]) -> Prepared:
        """Look the functions up and read the arguments: a floor validates nothing."""
        return [(self._functions[call.name], json.loads(call.arguments)) for call in calls]

    async def turn(self, prepared: Prepared) -> Sequence[object]:
        """Gather the calls."""
        return await asyncio.gather(*[fn(**kwargs) for fn, kwargs in prepared])

    def talk(self, conversation: Conversation) -> Conversation:
        """Leave it as the model sends it."""
        return conversation

    async def run(self, talk: Conversation | Player) -> Sequence[object]:
        """Play the conversation by hand."""
        return await (talk() if callable(talk) else play(talk, self._answer))

    async def listen(
        self, talk: Conversation, each: Callable[[], Awaitable[None]]
    ) -> Sequence[object]:
        """Play it, and put events where another task reads them."""
        return await heard(talk, self._answer, each)

    def nest(self, conversations: Sequence[Conversation]) -> Player:
        """Functions that call functions."""
        return nested(Session, self._tools, conversations)

    async def _answer(self, calls: Sequence[Call]) -> Sequence[object]:
        return await self.turn(self.prepare(calls))

    @staticmethod
    def _asynchronous(fn: Callable[..., Any]) -> Asynchronous:
        if inspect.iscoroutinefunction(fn):
            return fn

        async def in_the_loop(**kwargs: Any) -> Any:
            return fn(**kwargs)

        return in_the_loop


@asynccontextmanager
async def session(tools: Sequence[Tool], /) -> AsyncGenerator[Session]:
    """Open nothing."""
    yield Session(tools)
