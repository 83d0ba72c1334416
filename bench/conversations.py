"""What a whole run costs: a loop of model and tools, alone, for long, and a thousand at once.

Every contender plays the same conversations with a stub in the place of the model, which answers at
once: what is left is the contender's own. Above: `scenarios`. Below: the tools and the checks.
"""

from __future__ import annotations

import gc
import json
import tracemalloc
from itertools import pairwise
from statistics import median
from time import perf_counter, process_time
from typing import Any, Final

import anyio

from . import tools
from .checks import CheckFailed, check_ended, check_nothing_new, check_values, tasks
from .drivers import Session
from .tools import Call, Conversation
from .turns import Effort, Figure, Metrics


def conversation(tool: tools.Tool, turns: int, calls: int, first: int = 0) -> Conversation:
    """*turns* answers of *calls* calls each; their arguments count from *first*."""
    numbers = iter(range(first, first + turns * calls))
    return [
        [
            Call(f"call_{n}", tool.name, json.dumps({"n": n}))
            for n in (next(numbers) for _ in range(calls))
        ]
        for _ in range(turns)
    ]


class Run:
    """A run with one call, and a run of 200 turns."""

    name = "run"
    title = "A run: prompt, no-op call, answer; and one of 200 turns"
    LONG: Final = 200
    WINDOW: Final = 10
    units: Final = {
        "run of one call": "us",
        "turn 10": "us",
        "turn 200": "us",
        "turn 200 over turn 10": "",
    }
    figures = (
        Figure("run of one call", 8),
        Figure("turn 200 over turn 10", 1.1, ratio=False),
    )
    full = Effort(rounds=7, seconds=1.0)
    quick = Effort(rounds=2, seconds=0.3)
    cores: int | None = None
    tools = (tools.STAMP,)

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure short runs, and between them long ones, whose tool notes when it begins."""
        short = session.talk(conversation(tools.STAMP, 1, 1))
        long = session.talk(conversation(tools.STAMP, self.LONG, 1))
        await self._run(session, short, 1, first=True)
        for _ in range(5):  # warm-up
            await self._run(session, short, 1)
        taken: list[float] = []
        early: list[float] = []
        late: list[float] = []
        end = perf_counter() + effort.seconds
        while perf_counter() < end or len(early) < 3:
            taken += [await self._run(session, short, 1) for _ in range(20)]
            await self._run(session, long, self.LONG)
            spans = [after - before for before, after in pairwise(tools.stamps)]
            early.append(median(spans[9 - self.WINDOW // 2 : 9 + self.WINDOW // 2]))
            late.append(median(spans[-self.WINDOW :]))
        return {
            "run of one call": median(taken) * 1e6,
            "turn 10": median(early) * 1e6,
            "turn 200": median(late) * 1e6,
            "turn 200 over turn 10": median(late) / median(early),
        }

    async def _run(self, session: Session, prepared: Any, n: int, *, first: bool = False) -> float:
        tools.stamps.clear()
        tools.ended.clear()
        before = tasks()
        started = perf_counter()
        values = await session.run(prepared)
        taken = perf_counter() - started
        check_values(range(n), values)
        check_ended(range(n))
        if not first:
            await check_nothing_new(before)
        return taken


class Streamed:
    """A run whose model streams for a while, and whose calls are whole long before its end."""

    name = "streamed"
    title = "A turn with calls of 500 ms, whole after 100 to 400 ms of a stream of 1,000 ms"
    AT: Final = (0.1, 0.2, 0.3, 0.4)
    """Seconds into the stream."""
    units: Final = {"wall": "ms"}
    figures = (Figure("wall", 1020, ratio=False),)
    full = Effort(rounds=5, seconds=3.0)
    quick = Effort(rounds=1, seconds=0.0)
    cores: int | None = None
    tools = (tools.LOOK_TOOL,)

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure runs; who starts a call before it is whole, or ends too soon, has cheated."""
        answer = [
            Call(f"call_{n}", tools.LOOK_TOOL.name, json.dumps({"n": n}), at)
            for n, at in enumerate(self.AT)
        ]
        talk = session.talk([answer])
        taken: list[float] = []
        end = perf_counter() + effort.seconds
        while perf_counter() < end or not taken:
            taken.append(await self._run(session, talk, first=not taken))
        return {"wall": median(taken) * 1e3}

    async def _run(self, session: Session, talk: Any, *, first: bool) -> float:
        tools.stamps.clear()
        tools.ended.clear()
        before = tasks()
        started = perf_counter()
        values = await session.run(talk)
        taken = perf_counter() - started
        expected = range(len(self.AT))
        check_values(expected, values)
        check_ended(expected)
        if not first:
            await check_nothing_new(before)
        if taken < tools.STREAM:
            raise CheckFailed(f"a stream of {tools.STREAM} s was read in {taken:.3f} s")
        for began, at in zip(sorted(tools.stamps), self.AT, strict=True):
            # A loop's timer may be a tick ahead of this clock.
            if began - started < at - 0.002:
                raise CheckFailed(f"a call that was whole at {at} s began at {began - started:.3f}")
        return taken


class Agents:
    """100 and 1,000 agents at once, each with 3 turns of 4 calls of 20 ms."""

    name = "agents"
    title = "Agents at once in one process, each with 3 turns of 4 calls of 20 ms"
    SIZES: Final = (100, 1000)
    TURNS: Final = 3
    CALLS: Final = 4
    units: Final = {
        unit: of
        for n in SIZES
        for unit, of in {
            f"{n}: wall": "ms",
            f"{n}: CPU": "ms",
            f"{n}: memory per agent": "KiB",
        }.items()
    }
    figures = (
        Figure("1000: wall", 2),
        Figure("1000: memory per agent", 50, ratio=False),
    )
    full = Effort(rounds=3, seconds=0)
    quick = Effort(rounds=1, seconds=0)
    cores: int | None = None
    tools = (tools.PAUSE_TOOL,)

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure each size twice: its time, and, apart from it, the peak of its memory."""
        metrics: Metrics = {}
        await self._all(session, 10)  # warm-up
        for n in self.SIZES:
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

    async def _all(self, session: Session, n: int) -> float:
        each = self.TURNS * self.CALLS
        prepared = [
            session.talk(conversation(tools.PAUSE_TOOL, self.TURNS, self.CALLS, first=i * each))
            for i in range(n)
        ]
        came: list[list[object]] = [[]] * n
        tools.ended.clear()

        async def agent(i: int) -> None:
            came[i] = list(await session.run(prepared[i]))

        started = perf_counter()
        async with anyio.create_task_group() as group:
            for i in range(n):
                group.start_soon(agent, i)
        taken = perf_counter() - started
        check_values(range(n * each), [value for values in came for value in values])
        check_ended(range(n * each))
        if taken < self.TURNS * tools.PAUSE:
            raise CheckFailed(f"{self.TURNS} turns of {tools.PAUSE} s were done in {taken:.3f} s")
        return taken
