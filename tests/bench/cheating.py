"""Contenders that are honest or cheat, for the tests of the checkers: the AnyIO floor, with a twist."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from bench.drivers import anyio_group
from bench.drivers.anyio_group import Prepared
from bench.drivers.by_hand import Player, nested
from bench.scenarios import SMALL, run
from bench.tools import Conversation, Tool
from bench.turns import SMOKE, Metrics
from tests.support import Loop

Turn = Callable[["Session", Prepared], Any]


class Session(anyio_group.Session):
    """The floor, with a place for tasks that outlive their turn; its turn is honest or a cheat."""

    def __init__(self, tools: Sequence[Tool], turn: Turn, group: Any) -> None:
        super().__init__(tools, cpus=1)
        self.group = group
        self.known: Sequence[Any] = []
        self._turn = turn

    async def turn(self, prepared: Prepared) -> Sequence[object]:
        return await self._turn(self, prepared)

    async def honest(self, prepared: Prepared) -> list[object]:
        return list(await super().turn(prepared))

    def nest(self, conversations: Sequence[Conversation]) -> Player:
        """In one another; it is the innermost that cheats."""

        def make(tools: Sequence[Tool]) -> Session:
            return Session(tools, honest if tools[0].name == "inner" else self._turn, self.group)

        return nested(make, self._tools, conversations)

    def _process(self, fn: Callable[..., Any]) -> Any:
        """Here and now: no checker asks where it was."""

        async def task(values: list[Any], index: int, kwargs: dict[str, Any]) -> None:
            values[index] = fn(**kwargs)

        return task


async def honest(session: Session, calls: Prepared) -> Sequence[object]:
    return await session.honest(calls)


def measured(
    loop: Loop,
    scenario: str,
    turn: Turn = honest,
    *,
    kind: type[Session] = Session,
    **ignored: Any,
) -> Metrics:
    """Run the small *scenario* with sessions of *kind* whose turns are *turn*.

    ignored: what all tools ask for instead of what they do: ``key=None``.
    """
    chosen = SMALL[scenario]
    if loop.name not in chosen.loops:
        # `asyncio.timeout` on trio: the scenario itself names the loops that it is of.
        pytest.skip(f"{scenario} makes no sense on {loop.name}")

    @asynccontextmanager
    async def session(tools: Sequence[Tool]) -> AsyncGenerator[Session]:
        async with anyio.create_task_group() as group:
            yield kind([replace(tool, **ignored) for tool in tools], turn, group)
            group.cancel_scope.cancel()

    metrics: Metrics = loop.run(run, chosen, SimpleNamespace(session=session), SMOKE)
    return metrics


# Cheats that any turn may try. Each takes the honest way as far as it can.


async def skips_all(session: Session, calls: Prepared) -> Sequence[object]:
    return list(range(len(calls)))


async def skips_one(session: Session, calls: Prepared) -> Sequence[object]:
    # The value of a call that did not run can be guessed, all but that of one that computes.
    return [*await session.honest(calls[:-1]), len(calls) - 1]


async def runs_one_twice(session: Session, calls: Prepared) -> Sequence[object]:
    values = await session.honest(calls)
    await session.honest(calls[:1])
    return values


async def drops_a_result(session: Session, calls: Prepared) -> Sequence[object]:
    return (await session.honest(calls))[:-1]


async def gives_completion_order(session: Session, calls: Prepared) -> Sequence[object]:
    return await session.honest(calls[::-1])


async def gives_floats(session: Session, calls: Prepared) -> Sequence[object]:
    return [float(str(value)) for value in await session.honest(calls)]


async def leaves_a_task(session: Session, calls: Prepared) -> Sequence[object]:
    session.group.start_soon(anyio.sleep_forever)
    return await session.honest(calls)


async def works_on_after_the_turn(session: Session, calls: Prepared) -> Sequence[object]:
    session.group.start_soon(session.honest, calls)
    return list(range(len(calls)))


ANY_TURN = [
    skips_all,
    skips_one,
    drops_a_result,
    gives_completion_order,
    gives_floats,
    leaves_a_task,
    works_on_after_the_turn,
]
"""What a turn of several calls may try."""
