"""The loop of model and tools as it is written by hand, and what stubs of models have in common.

It is no contender: `session` is in the drivers that use it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import anyio

from bench.tools import Call, Conversation, ask, lasts


class Stub:
    """Stands for a model: streams the calls of turn after turn, then none."""

    def __init__(self, talk: Conversation) -> None:
        self._turns = iter(talk)

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[AsyncGenerator[Call]]:
        """Stream the next answer."""
        ask()
        yield self._pieces(next(self._turns, ()))

    async def whole(self) -> Sequence[Call]:
        """Give the next answer at once, when the model would have streamed all of it."""
        ask()
        calls = next(self._turns, ())
        if streams := lasts(calls):
            await anyio.sleep(streams)
        return calls

    async def _pieces(self, calls: Sequence[Call]) -> AsyncGenerator[Call]:
        start = anyio.current_time()
        for call in calls:
            if call.at:
                await anyio.sleep_until(start + call.at)
            yield call
        if streams := lasts(calls):
            await anyio.sleep_until(start + streams)


async def play(
    talk: Conversation, turn: Callable[[Sequence[Call]], Awaitable[Sequence[object]]]
) -> Sequence[object]:
    """Read each answer of the model, run its calls by *turn*, keep what came; until it has none."""
    history: list[object] = []
    model = Stub(talk)
    while True:
        async with model.stream() as pieces:
            calls = [call async for call in pieces]
        if not calls:
            return history
        history.extend(await turn(calls))


def values_of(content: object) -> list[object]:
    """The values in what a framework keeps of a call: its own, or those of the calls below it.

    What is no JSON, such as an error's text, stands for itself: it is no call's value.
    """
    if isinstance(content, str):
        try:
            content = json.loads(content)
        except ValueError:
            return [content]
    return content if isinstance(content, list) else [content]


async def unheard() -> None:
    """Take no notice of an event."""
