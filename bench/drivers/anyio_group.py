"""The floor of every ratio: a bare AnyIO task group, one task for each call, values kept in order.

``def`` tools go to AnyIO's threads, those that compute to its worker processes. No validation, no
limits across turns, no results but values, no errors but the group's.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
from anyio import CapacityLimiter, to_process, to_thread

from bench.cores import cpus
from bench.tools import Call, Conversation, Tool, lasts

from .bare import Stub, play

Task = Callable[[list[Any], int, dict[str, Any]], Any]
Prepared = list[tuple[Task, dict[str, Any]]]


class Session:
    """The tasks by tool name, and the limiters of threads and processes."""

    def __init__(self, tools: Sequence[Tool], cpus: int) -> None:
        self._threads = CapacityLimiter(64)
        self._processes = CapacityLimiter(cpus)
        places = {"inline": self._inline, "thread": self._thread, "process": self._process}
        self._tasks: dict[str, Task] = {tool.name: places[tool.place](tool.fn) for tool in tools}

    def prepare(self, calls: Sequence[Call]) -> Prepared:
        """Look the functions up and read the arguments: a floor validates nothing."""
        return [(self._tasks[call.name], json.loads(call.arguments)) for call in calls]

    async def turn(self, prepared: Prepared) -> Sequence[object]:
        """Run each call as a task."""
        values: list[Any] = [None] * len(prepared)
        async with anyio.create_task_group() as group:
            for index, (task, kwargs) in enumerate(prepared):
                group.start_soon(task, values, index, kwargs)
        return values

    def talk(self, conversation: Conversation) -> Conversation:
        """Leave it as the model sends it."""
        return conversation

    async def run(self, talk: Conversation) -> Sequence[object]:
        """Play the conversation by hand; start calls that come one by one as they come."""
        if any(map(lasts, talk)):
            return await self._as_they_come(talk)
        return await play(talk, lambda calls: self.turn(self.prepare(calls)))

    async def _as_they_come(self, talk: Conversation) -> Sequence[object]:
        history: list[object] = []
        model = Stub(talk)
        while True:
            values: list[Any] = []
            async with anyio.create_task_group() as group, model.stream() as pieces:
                async for call in pieces:
                    values.append(None)
                    for task, kwargs in self.prepare([call]):
                        group.start_soon(task, values, len(values) - 1, kwargs)
            if not values:
                return history
            history.extend(values)

    def _inline(self, fn: Callable[..., Any]) -> Task:
        async def task(values: list[Any], index: int, kwargs: dict[str, Any]) -> None:
            values[index] = await fn(**kwargs)

        return task

    def _thread(self, fn: Callable[..., Any]) -> Task:
        async def task(values: list[Any], index: int, kwargs: dict[str, Any]) -> None:
            work = partial(fn, **kwargs)
            values[index] = await to_thread.run_sync(work, limiter=self._threads)

        return task

    def _process(self, fn: Callable[..., Any]) -> Task:
        async def task(values: list[Any], index: int, kwargs: dict[str, Any]) -> None:
            work = partial(fn, **kwargs)
            values[index] = await to_process.run_sync(
                work, cancellable=True, limiter=self._processes
            )

        return task


@asynccontextmanager
async def session(tools: Sequence[Tool], /) -> AsyncGenerator[Session]:
    """Open nothing: AnyIO's threads and processes come with the first call."""
    yield Session(tools, cpus())
