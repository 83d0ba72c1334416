"""Agents: many at once, and agents that ask agents.

Above: `scenarios`. Below: the tools and the checks.
"""

from __future__ import annotations

import gc
import tracemalloc
from statistics import median
from time import perf_counter, process_time
from typing import Final

import anyio

from . import memory, tools
from .checks import CheckFailed, check_ended, check_nothing_new, check_values, tasks
from .conversations import conversation
from .drivers import Nesting, Session
from .tools import Call, Tool
from .turns import TICK, Effort, Figure, Metrics, Scenario, played, repeated


class Agents(Scenario):
    """Many agents at once, each with 3 turns of 4 calls of 20 ms.

    sizes: how many, one size after the other.
    """

    name = "agents"
    title = "Agents at once in one process, each with 3 turns of 4 calls of 20 ms"
    TURNS: Final = 3
    CALLS: Final = 4
    figures: tuple[Figure, ...] = (
        Figure("1000: wall", 2),
        Figure("1000: memory per agent", 50, ratio=False),
    )
    full = Effort(rounds=3, seconds=0)
    quick: Effort | None = Effort(rounds=1, seconds=0)
    tools: tuple[Tool, ...] = (tools.PAUSE_TOOL,)

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.units = {
            unit: of
            for n in sizes
            for unit, of in {
                f"{n}: wall": "ms",
                f"{n}: CPU": "ms",
                f"{n}: memory per agent": "KiB",
            }.items()
        }

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure each size twice: its time, and, apart from it, the peak of its memory."""
        metrics: Metrics = {}
        await self._all(session, 10, first=True)  # warm-up
        for n in self.sizes:
            cpu = process_time()
            wall = await self._all(session, n)
            metrics[f"{n}: wall"] = wall * 1e3
            metrics[f"{n}: CPU"] = (process_time() - cpu) * 1e3
            metrics[f"{n}: memory per agent"] = await self._memory(session, n) / 1024
        return metrics

    async def _memory(self, session: Session, n: int) -> float:
        """The peak in bytes, above what was there before, for each of *n* agents."""
        gc.collect()
        tracemalloc.start()
        try:
            base = tracemalloc.get_traced_memory()[0]
            await self._all(session, n)
            return (tracemalloc.get_traced_memory()[1] - base) / n
        finally:
            tracemalloc.stop()

    async def _all(self, session: Session, n: int, *, first: bool = False) -> float:
        each = self.TURNS * self.CALLS
        prepared = [
            session.talk(conversation(tools.PAUSE_TOOL, self.TURNS, self.CALLS, first=i * each))
            for i in range(n)
        ]
        came: list[list[object]] = [[]] * n
        tools.clear()
        before = tasks()

        async def agent(i: int) -> None:
            came[i] = list(await session.run(prepared[i]))

        started = perf_counter()
        async with anyio.create_task_group() as group:
            for i in range(n):
                group.start_soon(agent, i)
        taken = perf_counter() - started
        check_values(range(n * each), [value for values in came for value in values])
        check_ended(range(n * each))
        if not first:
            await check_nothing_new(before)
        if taken < self.TURNS * (tools.PAUSE - TICK):
            raise CheckFailed(f"{self.TURNS} turns of {tools.PAUSE} s were done in {taken:.3f} s")
        return taken


class Crowd(Agents):
    """So many agents that the tracing of memory would take minutes: it asks the system instead."""

    name = "agents_10000"
    figures = ()
    full = Effort(rounds=1, seconds=0)
    quick = None

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.title = f"{n:,} agents at once in one process, each with 3 turns of 4 calls of 20 ms"
        self.units = {f"{n}: wall": "ms", f"{n}: CPU": "ms", f"{n}: resident per agent": "KiB"}

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure once; its memory is the peak of the resident set above what was there before."""
        (n,) = self.sizes
        await self._all(session, 10, first=True)  # warm-up
        gc.collect()
        base = memory.resident()
        cpu = process_time()
        wall = await self._all(session, n)
        metrics = {f"{n}: wall": wall * 1e3, f"{n}: CPU": (process_time() - cpu) * 1e3}
        if base is not None and (peak := memory.peak()) is not None:
            metrics[f"{n}: resident per agent"] = max(0, peak - base) / n / 1024
        return metrics


class Nested(Scenario):
    """An agent whose tool is an agent whose tool is an agent: one call for each of them."""

    name = "nested"
    title = "Agents three deep, with one call each"
    units: Final = {"outer run": "us"}
    full = Effort(rounds=3, seconds=0.7)
    quick = Effort(rounds=1, seconds=0.2)
    tools = (tools.NOOP,)

    async def measure(self, session: Nesting, effort: Effort) -> Metrics:
        """Measure runs of the outermost."""
        asks = [[Call("call_0", "inner", '{"n": 0}')]]
        talk = session.nest([asks, asks, conversation(tools.NOOP, 1, 1)])
        await played(session, talk, range(1), first=True)
        taken = await repeated(lambda: played(session, talk, range(1)), effort, warm=5)
        return {"outer run": median(taken) * 1e6}
