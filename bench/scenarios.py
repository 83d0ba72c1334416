"""What is measured, and which figure it must reach; apart from who is measured.

A scenario takes a session, runs turns in it for as long as its `Effort` says, checks each of them
outside of the time that it takes, and returns the median of each metric. Above: `measure`, which
runs one scenario in a process of its own, and `report`. Below: the tools and the checks.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Any, Final

import anyio

from . import tools
from .checks import CheckFailed, alive, check_ended, check_nothing_new, tasks
from .conversations import Agents, Run, Streamed
from .cores import cpus
from .drivers import Driver, Session
from .turns import Effort, Figure, Metrics, Scenario, calls_of, timed

PATIENCE: Final = 10.0
"""Seconds within which the calls of a turn must have begun."""


class Noop:
    """Turns of 1, 8, 64 and 512 calls that do nothing: what a contender itself costs."""

    name = "noop"
    title = "A turn of no-op calls"
    SIZES: Final = {1: 20, 8: 10, 64: 3, 512: 1}
    """How many turns of each size make one lap: the sizes are interleaved too."""
    units: Final = {
        **{f"turn of {n}": "us" for n in SIZES},
        **{f"further call, to {n}": "us" for n in SIZES if n > 1},
    }
    figures = (
        Figure("turn of 1", 8),
        Figure("further call, to 512", 2, strive=1.5),
        Figure("further call, to 64", 2, strive=1.5),
        Figure("further call, to 8", 2, strive=1.5),
    )
    full = Effort(rounds=7, seconds=1.5)
    quick = Effort(rounds=2, seconds=0.3)
    cores: int | None = None
    tools = (tools.NOOP,)

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure laps; a further call is (t(n) - t(1)) / (n - 1)."""
        taken: dict[int, list[float]] = {n: [] for n in self.SIZES}
        work = {}
        for n in self.SIZES:
            work[n] = session.prepare(calls_of(tools.NOOP, [{"n": i} for i in range(n)])), range(n)
        await timed(session, *work[1], first=True)
        for n in self.SIZES:  # warm-up
            for _ in range(5):
                await self._turn(session, *work[n])
        end = perf_counter() + effort.seconds
        while perf_counter() < end or len(taken[512]) < 3:
            for n, times in self.SIZES.items():
                for _ in range(times):
                    taken[n].append(await self._turn(session, *work[n]))
        of = {n: median(times) * 1e6 for n, times in taken.items()}
        metrics = {f"turn of {n}": of[n] for n in of}
        metrics |= {f"further call, to {n}": (of[n] - of[1]) / (n - 1) for n in of if n > 1}
        return metrics

    async def _turn(self, session: Session, prepared: Any, expected: range) -> float:
        taken = await timed(session, prepared, expected)
        check_ended(expected)
        return taken


class Cancel:
    """A turn of 64 sleeping calls, cancelled from outside: how long until it is quiet."""

    name = "cancel"
    title = "64 sleeping calls, cancelled"
    N: Final = 64
    units: Final = {"until quiet": "us"}
    figures = (Figure("until quiet", 3, strive=2),)
    full = Effort(rounds=7, seconds=1.0)
    quick = Effort(rounds=2, seconds=0.3)
    cores: int | None = None
    tools = (tools.NAP_TOOL,)

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure turns, each from the cancel to the return."""
        prepared = session.prepare(calls_of(tools.NAP_TOOL, [{"n": i} for i in range(self.N)]))
        await self._turn(session, prepared, first=True)
        for _ in range(2):  # warm-up
            await self._turn(session, prepared)
        taken = []
        end = perf_counter() + effort.seconds
        while perf_counter() < end or len(taken) < 3:
            taken.append(await self._turn(session, prepared))
        return {"until quiet": median(taken) * 1e6}

    async def _turn(self, session: Session, prepared: Any, *, first: bool = False) -> float:
        tools.begun.clear()
        tools.ended.clear()
        before = tasks()
        returned = False

        async def turn() -> None:
            nonlocal returned
            await session.turn(prepared)
            returned = True

        async with anyio.create_task_group() as caller:
            caller.start_soon(turn)
            with anyio.move_on_after(PATIENCE):
                while len(tools.begun) < self.N and not returned:
                    await anyio.sleep(0)
                await anyio.wait_all_tasks_blocked()
            early, in_time = returned, len(tools.begun)
            started = perf_counter()
            caller.cancel_scope.cancel()
        taken = perf_counter() - started
        if early or in_time < self.N:
            raise CheckFailed(f"{in_time} of {self.N} calls had begun before the cancel")
        if alive():
            raise CheckFailed(f"{alive()} of {self.N} calls are alive after the cancelled turn")
        if returned:
            raise CheckFailed("the turn swallowed the cancellation")
        if not first:
            await check_nothing_new(before)
        return taken


class Threads:
    """16 ``def`` tools that sleep for 100 ms, and an event loop that should not notice."""

    name = "threads"
    title = "16 blocking `def` tools of 100 ms, beside a heartbeat of 1 ms"
    N: Final = 16
    TICK: Final = 0.001
    units: Final = {
        "wall": "ms",
        "stall": "ms",
        "first turn: wall": "ms",
        "first turn: stall": "ms",
    }
    figures = (Figure("wall", 115, ratio=False), Figure("stall", 5, ratio=False))
    full = Effort(rounds=5, seconds=1.5)
    quick = Effort(rounds=1, seconds=0.3)
    cores: int | None = None
    tools = (tools.BLOCK_TOOL,)

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure the first turn, whose threads are new, and then the others."""
        prepared = session.prepare(calls_of(tools.BLOCK_TOOL, [{"n": i} for i in range(self.N)]))
        first = await self._turn(session, prepared, first=True)
        turns = []
        end = perf_counter() + effort.seconds
        while perf_counter() < end or len(turns) < 2:
            turns.append(await self._turn(session, prepared))
        walls, stalls = zip(*turns, strict=True)
        return {
            "wall": median(walls) * 1e3,
            "stall": median(stalls) * 1e3,
            "first turn: wall": first[0] * 1e3,
            "first turn: stall": first[1] * 1e3,
        }

    async def _turn(
        self, session: Session, prepared: Any, *, first: bool = False
    ) -> tuple[float, float]:
        """One turn: its time, and the longest time by which a tick came late, in seconds."""
        late = 0.0
        last = 0.0

        async def heartbeat() -> None:
            nonlocal late, last
            last = perf_counter()
            while True:
                await anyio.sleep(self.TICK)
                now = perf_counter()
                late, last = max(late, now - last - self.TICK), now

        async with anyio.create_task_group() as group:
            group.start_soon(heartbeat)
            await anyio.sleep(5 * self.TICK)
            late = 0.0
            taken = await timed(session, prepared, range(self.N), first=first)
            # A loop that was blocked to the very end has not ticked since.
            late = max(late, perf_counter() - last - self.TICK)
            group.cancel_scope.cancel()
        check_ended(range(self.N))
        if taken < tools.BLOCK:
            raise CheckFailed(f"tools that sleep for {tools.BLOCK} s were done in {taken:.3f} s")
        return taken, late


class Cpu:
    """4 tools that compute in pure Python, on two cores: only processes help."""

    name = "cpu"
    title = "4 computing tools of 0.3 s, on 2 cores"
    N: Final = 4
    cores: int | None = 2
    units: Final = {"wall over ideal": "", "wall": "ms", "one call alone": "ms"}
    figures = (Figure("wall over ideal", 1.15, ratio=False),)
    full = Effort(rounds=3, seconds=0.3)
    quick = Effort(rounds=1, seconds=0.1)
    tools = (tools.BURN_TOOL,)

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure one warm turn; the ideal is the time of the calls alone, shared by the cores.

        The calls alone are timed before and after, because a shared machine's speed changes.
        """
        rounds = 1000
        while (alone := _alone(0, rounds)[1]) < effort.seconds / 4:
            rounds *= 2
        rounds = max(1, round(rounds * effort.seconds / alone))
        arguments = [{"seed": seed, "rounds": rounds} for seed in range(self.N)]
        prepared = session.prepare(calls_of(tools.BURN_TOOL, arguments))
        before = [_alone(seed, rounds) for seed in range(self.N)]
        expected = [value for value, _ in before]
        # The warm-up is as long as the rest, so that every worker is up and has worked.
        await timed(session, prepared, expected, first=True)
        wall = await timed(session, prepared, expected)
        after = [_alone(seed, rounds) for seed in range(self.N)]
        together = sum(seconds for _, seconds in before + after) / 2
        return {
            "wall over ideal": wall / (together / min(cpus(), self.N)),
            "wall": wall * 1e3,
            "one call alone": together / self.N * 1e3,
        }


def _alone(seed: int, rounds: int) -> tuple[int, float]:
    started = perf_counter()
    value = tools.burn(seed, rounds)
    return value, perf_counter() - started


class Import:
    """A fresh interpreter imports the contender: measured by `imported`, not in a session."""

    name = "import"
    title = "Import, in a fresh interpreter, bytecode compiled"
    units: Final = {"import": "ms", "modules": "", "first tool after it": "ms"}
    figures = (Figure("import", 120, ratio=False),)
    full = Effort(rounds=15, seconds=0)
    quick = Effort(rounds=3, seconds=0)


SCENARIOS: Final[dict[str, Scenario]] = {
    each.name: each for each in (Noop(), Cancel(), Threads(), Cpu(), Run(), Streamed(), Agents())
}
IMPORT: Final = Import()


async def run(scenario: Scenario, driver: Driver, effort: Effort) -> Metrics:
    """Open *driver* for *scenario*, measure, and close it. Raises CheckFailed, bare."""
    try:
        async with driver.session(scenario.tools) as session:
            return await scenario.measure(session, effort)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None
