"""A floor: ``asyncio.TaskGroup``, one task for each call, as the standard library offers it.

``def`` tools go to the event loop's own threads, which are as many as it likes; it knows no
processes, so those that compute go there too. The rest is that of `gather`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bench.tools import Conversation, Tool

from . import gather
from .by_hand import Asynchronous, Player, nested
from .gather import Prepared


class Session(gather.Session):
    """The functions by name; the threads come with the first call, and are the event loop's."""

    async def turn(self, prepared: Prepared) -> Sequence[object]:
        """Run each call as a task."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fn(**kwargs)) for fn, kwargs in prepared]
        return [task.result() for task in tasks]

    def nest(self, conversations: Sequence[Conversation]) -> Player:
        """Functions that call functions."""
        return nested(Session, self._tools, conversations)

    @staticmethod
    def _asynchronous(fn: Callable[..., Any]) -> Asynchronous:
        if inspect.iscoroutinefunction(fn):
            return fn

        async def in_a_thread(**kwargs: Any) -> Any:
            return await asyncio.to_thread(fn, **kwargs)

        return in_a_thread


@asynccontextmanager
async def session(tools: Sequence[Tool], /) -> AsyncGenerator[Session]:
    """Open nothing."""
    yield Session(tools)
