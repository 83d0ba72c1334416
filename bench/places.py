"""Work that does not belong into the event loop: it blocks, or it computes.

Above: `scenarios`. Below: the tools and the checks.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Any, Final

import anyio

from . import tools
from .checks import CheckFailed, check_ended
from .cores import cpus
from .drivers import Session
from .turns import Effort, Figure, Metrics, Scenario, calls_of, repeated, timed


class Threads(Scenario):
    """*n* ``def`` tools that sleep for 100 ms, and an event loop that should not notice."""

    name = "threads"
    TICK: Final = 0.001
    units: Final = {
        "wall": "ms",
        "stall": "ms",
        "first turn: wall": "ms",
        "first turn: stall": "ms",
    }
    figures = (Figure("wall", 115, ratio=False), Figure("stall", 5, ratio=False))
    full = Effort(rounds=3, seconds=1.2)
    quick = Effort(rounds=1, seconds=0.3)
    tools = (tools.BLOCK_TOOL,)

    def __init__(self, n: int) -> None:
        self.n = n
        self.title = f"{n} blocking `def` tools of 100 ms, beside a heartbeat of 1 ms"

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure the first turn, whose threads are new, and then the others."""
        prepared = session.prepare(calls_of(tools.BLOCK_TOOL, [{"n": i} for i in range(self.n)]))
        first = await self._turn(session, prepared, first=True)
        turns = await repeated(lambda: self._turn(session, prepared), effort, least=2, warm=0)
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
            taken = await timed(session, prepared, range(self.n), first=first)
            # A loop that was blocked to the very end has not ticked since.
            late = max(late, perf_counter() - last - self.TICK)
            group.cancel_scope.cancel()
        check_ended(range(self.n))
        if taken < tools.BLOCK:
            raise CheckFailed(f"tools that sleep for {tools.BLOCK} s were done in {taken:.3f} s")
        return taken, late


class Cpu(Scenario):
    """4 tools that compute in pure Python, on two cores: only processes help."""

    name = "cpu"
    title = "4 computing tools of 0.3 s, on 2 cores"
    n = 4
    cores = 2
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
        arguments = [{"seed": seed, "rounds": rounds} for seed in range(self.n)]
        prepared = session.prepare(calls_of(tools.BURN_TOOL, arguments))
        before = [_alone(seed, rounds) for seed in range(self.n)]
        expected = [value for value, _ in before]
        # The warm-up is as long as the rest, so that every worker is up and has worked.
        await timed(session, prepared, expected, first=True)
        wall = await timed(session, prepared, expected)
        after = [_alone(seed, rounds) for seed in range(self.n)]
        together = sum(seconds for _, seconds in before + after) / 2
        return {
            "wall over ideal": wall / (together / min(cpus(), self.n)),
            "wall": wall * 1e3,
            "one call alone": together / self.n * 1e3,
        }


def _alone(seed: int, rounds: int) -> tuple[int, float]:
    started = perf_counter()
    value = tools.burn(seed, rounds)
    return value, perf_counter() - started
