"""What the floors do by hand beyond a turn: what a tool asks for, agents as tools, events.

It is no contender: `session` is in the drivers that use it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio

from bench.tools import Call, Conversation, Tool

from . import Session
from .bare import play

Asynchronous = Callable[..., Awaitable[Any]]
Turn = Callable[[Sequence[Call]], Awaitable[Sequence[object]]]
Player = Callable[[], Awaitable[Sequence[object]]]


def guarded(tool: Tool, fn: Asynchronous, locks: dict[str, asyncio.Lock]) -> Asynchronous:
    """*fn* with the key, the limit and the timeout that *tool* asks for, by asyncio's own means.

    Its tasks begin in call order, and its locks are first in, first out: so is the key. A call that
    times out gives the exception as its value.
    """
    if tool.timeout is not None:
        fn = _timed(fn, tool.timeout)
    if tool.at_most is not None:
        fn = _within(fn, asyncio.Semaphore(tool.at_most))
    if tool.key is not None:
        fn = _within(fn, locks.setdefault(tool.key, asyncio.Lock()))
    return fn


def _timed(fn: Asynchronous, seconds: float) -> Asynchronous:
    async def timed(**kwargs: Any) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await fn(**kwargs)
        except TimeoutError as exc:
            return exc

    return timed


def _within(fn: Asynchronous, turnstile: asyncio.Lock | asyncio.Semaphore) -> Asynchronous:
    async def within(**kwargs: Any) -> Any:
        async with turnstile:
            return await fn(**kwargs)

    return within


def nested(
    make: Callable[[Sequence[Tool]], Session],
    tools: Sequence[Tool],
    conversations: Sequence[Conversation],
) -> Player:
    """What plays *conversations* in one another, and gives the values of the innermost calls.

    make: a session for tools. Each conversation but the innermost calls `inner`, which plays the
    next one.
    """
    outer, *deeper = conversations
    if not deeper:
        innermost = make(tools)
        return lambda: innermost.run(innermost.talk(outer))
    below = nested(make, tools, deeper)

    async def inner(n: int) -> Sequence[object]:
        return await below()

    session: Any = make([Tool(inner, "inline")])
    talk = session.talk(outer)

    async def play_it() -> Sequence[object]:
        return [value for values in await session.run(talk) for value in values]

    return play_it


async def heard(
    talk: Conversation, turn: Turn, each: Callable[[], Awaitable[None]]
) -> Sequence[object]:
    """Play *talk* as `play` does, and await *each* for the begin and the end of each turn's calls.

    The events wait in a stream without a bound: nobody waits for who reads them.
    """
    send, receive = anyio.create_memory_object_stream[int](math.inf)
    values: list[object] = []

    async def told(calls: Sequence[Call]) -> Sequence[object]:
        for _ in calls:
            send.send_nowait(0)
        came = await turn(calls)
        for _ in calls:
            send.send_nowait(1)
        return came

    async def run() -> None:
        with send:
            values.extend(await play(talk, told))

    with receive:
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            async for _ in receive:
                await each()
    return values
