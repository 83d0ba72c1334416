"""A floor: ``asyncio.TaskGroup``, one task for each call, as the standard library offers it.

``def`` tools go to the event loop's own threads, which are as many as it likes; it knows no
processes, so those that compute go there too.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bench.tools import Call, Conversation, Tool

from .bare import play

Asynchronous = Callable[..., Coroutine[Any, Any, Any]]
Prepared = list[tuple[Asynchronous, dict[str, Any]]]


class Session:
    """The functions by name; the threads come with the first call, and are the event loop's."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._functions = {tool.name: _asynchronous(tool.fn) for tool in tools}

    def prepare(self, calls: Sequence[Call]) -> Prepared:
        """Look the functions up and read the arguments: a floor validates nothing."""
        return [(self._functions[call.name], json.loads(call.arguments)) for call in calls]

    async def turn(self, prepared: Prepared) -> Sequence[object]:
        """Run each call as a task."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fn(**kwargs)) for fn, kwargs in prepared]
        return [task.result() for task in tasks]

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


def _asynchronous(fn: Callable[..., Any]) -> Asynchronous:
    if inspect.iscoroutinefunction(fn):
        return fn

    async def in_a_thread(**kwargs: Any) -> Any:
        return await asyncio.to_thread(fn, **kwargs)

    return in_a_thread
