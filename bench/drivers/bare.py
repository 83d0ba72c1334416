"""The loop of model and tools as it is written by hand: what the floors have in common.

It is no contender: `session` is in the drivers that use it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import anyio

from bench.tools import Call, Conversation, lasts


class Stub:
    """Stands for a model: streams the calls of turn after turn, then none."""

    def __init__(self, talk: Conversation) -> None:
        self._turns = iter(talk)

    @asynccontextmanager
    async def stream(self) -> AsyncGenerator[AsyncGenerator[Call]]:
        """Stream the next answer."""
        yield self._pieces(next(self._turns, ()))

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
