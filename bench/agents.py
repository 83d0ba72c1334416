"""Agents: many at once, and agents that ask agents.

Above: `scenarios`. Below: the tools and the checks.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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


@dataclass(frozen=True, slots=True)
class Took:
    """What agents took, and nothing of what was done for them before and after."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds."""
    memory: int
    """Bytes: the peak of what they allocated; 0 if that was not traced."""
    resident: int | None
    """Bytes: the peak of the resident set, above what it was; None if the system does not tell."""


def _above(resident: int | None) -> int | None:
    peak = memory.peak()
    return None if resident is None or peak is None else max(0, peak - resident)


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
    full = Effort(rounds=3, seconds=5)
    quick: Effort | None = Effort(rounds=1, seconds=3)
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
        """Measure each size: its time, as often as fits, and in a pass of its own its memory."""
        metrics: Metrics = {}
        await self._all(session, 10, first=True)  # warm-up
        for n in self.sizes:
            # Once in a process was a toss: the machine's pace may change by a half within seconds.
            took = await repeated(partial(self._all, session, n), effort, least=1, warm=0)
            metrics[f"{n}: wall"] = median(each.wall for each in took) * 1e3
            metrics[f"{n}: CPU"] = median(each.cpu for each in took) * 1e3
            traced = await self._all(session, n, traced=True)
            metrics[f"{n}: memory per agent"] = traced.memory / n / 1024
        return metrics

    async def _all(
        self, session: Session, n: int, *, first: bool = False, traced: bool = False
    ) -> Took:
        """Run *n* agents; what they are asked is there before, what came is looked at after."""
        each = self.TURNS * self.CALLS
        prepared = [
            session.talk(conversation(tools.PAUSE_TOOL, self.TURNS, self.CALLS, first=i * each))
            for i in range(n)
        ]
        came: list[Sequence[object]] = [()] * n
        tools.clear()
        before = tasks()

        async def agent(i: int) -> None:
            came[i] = await session.run(prepared[i])

        gc.collect()
        if traced:
            tracemalloc.start()
        resident = memory.resident()
        cpu, started = process_time(), perf_counter()
        try:
            async with anyio.create_task_group() as group:
                for i in range(n):
                    group.start_soon(agent, i)
            wall, cpu = perf_counter() - started, process_time() - cpu
            peak = tracemalloc.get_traced_memory()[1]  # 0 if it does not trace
        finally:
            tracemalloc.stop()
        took = Took(wall, cpu, peak, _above(resident))
        check_values(range(n * each), [value for values in came for value in values])
        check_ended(range(n * each))
        if not first:
            await check_nothing_new(before)
        if wall < self.TURNS * (tools.PAUSE - TICK):
            raise CheckFailed(f"{self.TURNS} turns of {tools.PAUSE} s were done in {wall:.3f} s")
        return took


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
        took = await self._all(session, n)
        metrics = {f"{n}: wall": took.wall * 1e3, f"{n}: CPU": took.cpu * 1e3}
        if took.resident is not None:
            metrics[f"{n}: resident per agent"] = took.resident / n / 1024
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
