"""How a turn ends that does not just end: it is cancelled, in one of three ways.

What is timed is how long it takes until the turn is left and quiet, with bodies that have nothing
to clean up. A second pass, which is not timed, counts how many cleanups run to their end. Above:
`scenarios` and `failing`. Below: the tools and the checks.
"""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, Final

import anyio

from . import tools
from .checks import CheckFailed, alive, check_nothing_new, tasks
from .contenders import ASYNCIO
from .drivers import Session
from .tools import Tool
from .turns import Effort, Figure, Metrics, Scenario, one_each, repeated

PATIENCE: Final = 10.0
"""Seconds within which the calls of a turn must have begun."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of one turn."""

    seconds: float
    """From what ended it until it was left."""
    in_time: int
    """How many calls had begun before."""
    complaint: str
    """What is wrong with how it was left; empty if nothing is."""


class Ending(Scenario):
    """A turn of *n* calls that sleep until something ends it."""

    title: str
    what: str
    """What ends it, in a word."""
    metric = "until quiet"
    full = Effort(rounds=3, seconds=0.5)
    quick = Effort(rounds=1, seconds=0.2)
    tools: tuple[Tool, ...] = (tools.NAP_TOOL, tools.TIDY_TOOL)

    def __init__(self, n: int) -> None:
        self.n = n
        self.title = self.title.format(n=n)
        sleepers = self.turn_of(tools.TIDY_TOOL).count(tools.TIDY_TOOL)
        self.units = {self.metric: "us", "cleanups run": f"of {sleepers}"}

    def turn_of(self, sleeper: Tool) -> list[Tool]:
        """The tool of each call."""
        return [sleeper] * self.n

    @abstractmethod
    async def ended(self, session: Session, prepared: Any) -> Ended:
        """Run one turn, and end it once all calls sleep."""

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure turns; then count the cleanups, of which the worst turn tells."""
        naps = session.prepare(one_each(self.turn_of(tools.NAP_TOOL)))
        await self._turn(session, naps, first=True)
        taken = await repeated(lambda: self._turn(session, naps), effort)
        tidy = session.prepare(one_each(self.turn_of(tools.TIDY_TOOL)))
        cleanups = []
        for _ in range(3):
            await self._turn(session, tidy)
            cleanups.append(len(tools.cleaned))
        return {self.metric: median(taken) * 1e6, "cleanups run": float(min(cleanups))}

    async def _turn(self, session: Session, prepared: Any, *, first: bool = False) -> float:
        tools.clear()
        before = tasks()
        came = await self.ended(session, prepared)
        if came.in_time < self.n:
            raise CheckFailed(f"{came.in_time} of {self.n} calls had begun before the {self.what}")
        if alive():
            raise CheckFailed(f"{alive()} of {self.n} calls are alive after the {self.what}")
        if came.complaint:
            raise CheckFailed(came.complaint)
        if not first:
            await check_nothing_new(before)
        return came.seconds

    async def begun(self, over: Callable[[], bool]) -> int:
        """Wait until all calls sleep, or the turn is over, or patience is: how many have begun."""
        with anyio.move_on_after(PATIENCE):
            while len(tools.begun) < self.n and not over():
                await anyio.sleep(0)
            await anyio.wait_all_tasks_blocked()
        return len(tools.begun)


class Cancel(Ending):
    """The task group in which somebody runs the turn is cancelled."""

    name = "cancel"
    title = "{n} sleeping calls, cancelled"
    what = "cancel"
    figures = (Figure("until quiet", 3, strive=2),)
    full = Effort(rounds=5, seconds=0.7)
    quick = Effort(rounds=1, seconds=0.3)

    async def ended(self, session: Session, prepared: Any) -> Ended:
        """Cancel from the group's own task: the turn is in another."""
        returned = False

        async def turn() -> None:
            nonlocal returned
            await session.turn(prepared)
            returned = True

        async with anyio.create_task_group() as caller:
            caller.start_soon(turn)
            in_time = await self.begun(lambda: returned)
            started = perf_counter()
            caller.cancel_scope.cancel()
        taken = perf_counter() - started
        return Ended(taken, in_time, "the turn swallowed the cancellation" if returned else "")


class CancelScope(Ending):
    """The turn stands under ``anyio.move_on_after``, in the caller's own task.

    The deadline is moved to now, once all calls sleep: a timer's coarseness is nobody's merit.
    """

    name = "cancel_scope"
    title = "{n} sleeping calls under `anyio.move_on_after`"
    what = "deadline"

    def block(self) -> AbstractAsyncContextManager[Callable[[], None]]:
        """What the turn stands under; it gives a function that moves the deadline to now."""
        return _scope()

    async def ended(self, session: Session, prepared: Any) -> Ended:
        """Let another task move the deadline: the turn is in this one."""
        returned = False
        in_time = 0
        started = 0.0

        async def watch(expire: Callable[[], None]) -> None:
            nonlocal in_time, started
            in_time = await self.begun(lambda: returned)
            started = perf_counter()
            if not returned:
                expire()

        async with anyio.create_task_group() as group:
            async with self.block() as expire:
                group.start_soon(watch, expire)
                await session.turn(prepared)
                returned = True
            left = perf_counter()
        complaint = "the turn swallowed the cancellation: it defeated the deadline"
        return Ended(left - started, in_time, complaint if returned else "")


class CancelTimeout(CancelScope):
    """The turn stands under ``asyncio.timeout``: a native cancellation, which comes once."""

    name = "cancel_timeout"
    title = "{n} sleeping calls under `asyncio.timeout`"
    loops = ASYNCIO

    def block(self) -> AbstractAsyncContextManager[Callable[[], None]]:
        """As in `CancelScope`."""
        return _timeout()


@asynccontextmanager
async def _scope() -> AsyncGenerator[Callable[[], None]]:
    with anyio.move_on_after(math.inf) as scope:

        def expire() -> None:
            scope.deadline = anyio.current_time()

        yield expire


@asynccontextmanager
async def _timeout() -> AsyncGenerator[Callable[[], None]]:
    clock = asyncio.get_running_loop().time
    block = asyncio.timeout(None)
    try:
        async with block:
            yield lambda: block.reschedule(clock())
    except TimeoutError:
        if not block.expired():  # the turn's own
            raise
