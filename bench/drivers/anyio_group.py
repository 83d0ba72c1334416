"""The floor of every ratio: a bare AnyIO task group, one task for each call, values kept in order.

``def`` tools go to AnyIO's threads, those that compute to its worker processes. No validation, no
results but values, no errors but the group's; limits, keys and timeouts only where a tool asks for
them, and by AnyIO's own means.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
from anyio import CapacityLimiter, Lock, to_process, to_thread

from bench.cores import cpus
from bench.tools import Call, Conversation, Tool, lasts

from .bare import Stub, play
from .by_hand import Player, heard, nested

Task = Callable[[list[Any], int, dict[str, Any]], Awaitable[None]]
Prepared = list[tuple[Task, dict[str, Any], str | None]]
Chain = list[tuple[Task, int, dict[str, Any]]]


class Session:
    """The tasks by tool name, and the limiters of threads and processes."""

    def __init__(self, tools: Sequence[Tool], cpus: int) -> None:
        self._threads = CapacityLimiter(64)
        self._processes = CapacityLimiter(cpus)
        self._tools = tools
        self._locks = {tool.key: Lock(fast_acquire=True) for tool in tools}
        places = {"inline": self._inline, "thread": self._thread, "process": self._process}
        self._tasks = {tool.name: guarded(tool, places[tool.place](tool.fn)) for tool in tools}
        self._keys = {tool.name: tool.key for tool in tools}

    def prepare(self, calls: Sequence[Call]) -> Prepared:
        """Look the functions up and read the arguments: a floor validates nothing."""
        return [
            (self._tasks[call.name], json.loads(call.arguments), self._keys[call.name])
            for call in calls
        ]

    async def turn(self, prepared: Prepared) -> Sequence[object]:
        """Run each call as a task; those on one key in one, for Trio's tasks begin in no order."""
        values: list[Any] = [None] * len(prepared)
        chains: dict[str, Chain] = {}
        async with anyio.create_task_group() as group:
            for index, (task, kwargs, key) in enumerate(prepared):
                if key is None:
                    group.start_soon(task, values, index, kwargs)
                else:
                    if key not in chains:
                        chains[key] = []
                        group.start_soon(self._chain, values, key, chains[key])
                    chains[key].append((task, index, kwargs))
        return values

    def talk(self, conversation: Conversation) -> Conversation:
        """Leave it as the model sends it."""
        return conversation

    async def run(self, talk: Conversation | Player) -> Sequence[object]:
        """Play the conversation by hand; start calls that come one by one as they come."""
        if callable(talk):
            return await talk()
        if any(map(lasts, talk)):
            return await self._as_they_come(talk)
        return await play(talk, self._answer)

    async def listen(
        self, talk: Conversation, each: Callable[[], Awaitable[None]]
    ) -> Sequence[object]:
        """Play it, and put events where another task reads them."""
        return await heard(talk, self._answer, each)

    def nest(self, conversations: Sequence[Conversation]) -> Player:
        """Functions that call functions."""
        return nested(lambda tools: Session(tools, 1), self._tools, conversations)

    async def _answer(self, calls: Sequence[Call]) -> Sequence[object]:
        return await self.turn(self.prepare(calls))

    async def _chain(self, values: list[Any], key: str, chain: Chain) -> None:
        for task, index, kwargs in chain:
            async with self._locks[key]:
                await task(values, index, kwargs)

    async def _as_they_come(self, talk: Conversation) -> Sequence[object]:
        history: list[object] = []
        model = Stub(talk)
        while True:
            values: list[Any] = []
            async with anyio.create_task_group() as group, model.stream() as pieces:
                async for call in pieces:
                    values.append(None)
                    for task, kwargs, _ in self.prepare([call]):
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


def guarded(tool: Tool, task: Task) -> Task:
    """*task* with the limit and the timeout that *tool* asks for.

    A call that times out gives the exception as its value.
    """
    if tool.timeout is not None:
        task = _timed(task, tool.timeout)
    if tool.at_most is not None:
        task = _within(task, CapacityLimiter(tool.at_most))
    return task


def _timed(task: Task, seconds: float) -> Task:
    async def timed(values: list[Any], index: int, kwargs: dict[str, Any]) -> None:
        try:
            with anyio.fail_after(seconds):
                await task(values, index, kwargs)
        except TimeoutError as exc:
            values[index] = exc

    return timed


def _within(task: Task, limiter: CapacityLimiter) -> Task:
    async def within(values: list[Any], index: int, kwargs: dict[str, Any]) -> None:
        async with limiter:
            await task(values, index, kwargs)

    return within
