"""Work that does not belong into the event loop: it blocks, or it computes.

Above: `scenarios`. Below: the tools and the checks.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapreplace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
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
    """4 tools that compute in pure Python, on two cores: only processes help.

    The ideal is made of what the bodies themselves say, in the same turn. Calls alone, at another
    moment, say as much about that moment: on a machine that others share, the same loop was seen to
    take 0.17 s of CPU time on one core and 0.24 s on the other, side by side.
    """

    name = "cpu"
    title = "4 computing tools of 0.3 s, on 2 cores"
    n = 4
    cores = 2
    TURNS: Final = 3
    units: Final = {
        "wall over ideal": "",
        "wall": "ms",
        "wall over calls alone": "",
        "one call alone": "ms",
    }
    figures = (Figure("wall over ideal", 1.15, ratio=False),)
    full = Effort(rounds=3, seconds=0.3)
    quick = Effort(rounds=1, seconds=0.1)
    tools = (tools.BURN_TOOL,)

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure warm turns; the calls alone are timed before and after them."""
        with TemporaryDirectory() as folder:
            return await self._measure(session, effort, Path(folder) / "ledger")

    async def _measure(self, session: Session, effort: Effort, ledger: Path) -> Metrics:
        rounds = 1000
        while (alone := _alone(0, rounds, ledger)[1]) < effort.seconds / 4:
            rounds *= 2
        rounds = max(1, round(rounds * effort.seconds / alone))
        arguments = [
            {"seed": seed, "rounds": rounds, "ledger": str(ledger)} for seed in range(self.n)
        ]
        prepared = session.prepare(calls_of(tools.BURN_TOOL, arguments))
        before = [_alone(seed, rounds, ledger) for seed in range(self.n)]
        expected = [value for value, _ in before]
        # The warm-up is as long as the rest, so that every worker is up and has worked.
        await self._turn(session, prepared, expected, ledger, first=True)
        turns = [await self._turn(session, prepared, expected, ledger) for _ in range(self.TURNS)]
        after = [_alone(seed, rounds, ledger) for seed in range(self.n)]
        together = sum(seconds for _, seconds in before + after) / 2
        wall = median(taken for taken, _ in turns)
        return {
            "wall over ideal": median(taken / ideal for taken, ideal in turns),
            "wall": wall * 1e3,
            "wall over calls alone": wall / (together / min(cpus(), self.n)),
            "one call alone": together / self.n * 1e3,
        }

    async def _turn(
        self,
        session: Session,
        prepared: Any,
        expected: list[int],
        ledger: Path,
        *,
        first: bool = False,
    ) -> tuple[float, float]:
        """One turn: its time, and the least that its bodies could have been done in, in seconds."""
        ledger.write_text("")
        taken = await timed(session, prepared, expected, first=first)
        bodies = [line.split() for line in ledger.read_text().splitlines()]
        if sorted(int(seed) for seed, _, _ in bodies) != list(range(self.n)):
            raise CheckFailed(f"{len(bodies)} bodies ended, for {self.n} calls")
        in_order = sorted((float(began), float(used)) for _, began, used in bodies)
        return taken, shared([used for _, used in in_order], min(cpus(), self.n))


def shared(works: Iterable[float], cores: int) -> float:
    """When the last of *works* ends, if each goes to the first of *cores* that is free, at once."""
    free = [0.0] * cores
    for work in works:
        heapreplace(free, free[0] + work)
    return max(free)


def _alone(seed: int, rounds: int, ledger: Path) -> tuple[int, float]:
    started = perf_counter()
    value = tools.burn(seed, rounds, str(ledger))
    return value, perf_counter() - started
