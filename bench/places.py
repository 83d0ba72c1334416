"""Work that does not belong into the event loop: it blocks, or it computes.

Above: `scenarios`. Below: the tools and the checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapreplace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import anyio

from . import tools
from .checks import CheckFailed, Unseen, check_ended
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


@dataclass(frozen=True, slots=True)
class Computed:
    """A turn of bodies that compute, or the same bodies alone; all in seconds."""

    wall: float
    ideal: float
    """When the last would have ended if each had gone to the first core that was free, at once."""
    used: float
    """The CPU time of all of them."""


class Cpu(Scenario):
    """4 tools that compute in pure Python, on two cores: only processes help.

    What is lost between the bodies is told from the same turn, by what they say of themselves.
    Calls alone, at another moment, say as much about that moment: on a machine that others share,
    the same loop was seen to take 0.17 s of CPU time on one core and 0.24 s on the other, side by
    side. They alone show what the bodies themselves lose, as to a tracer.
    """

    name = "cpu"
    title = "4 tools that compute, on 2 cores"
    n = 4
    cores = 2
    TURNS: Final = 3
    PACE: Final = 8_000_000
    """How many rounds make a second, more or less: it is not measured, so that all do the same."""
    units: Final = {
        "wall": "ms",
        "wall over ideal": "",
        "wall over calls alone": "",
        "bodies over calls alone": "",
    }
    figures = (Figure("wall over ideal", 1.15, ratio=False),)
    full = Effort(rounds=3, seconds=0.3)
    quick = Effort(rounds=1, seconds=0.1)
    tools = (tools.BURN_TOOL,)

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure warm turns, and before each of them the same calls alone, one after the other."""
        rounds = round(self.PACE * effort.seconds)
        # Who works on after a turn may yet write there.
        with TemporaryDirectory(ignore_cleanup_errors=True) as ledger:
            # The first turn is as long as the rest, so that every worker is up and has worked.
            _, *turns = [
                await self._turn(session, turn, rounds, ledger) for turn in range(self.TURNS + 1)
            ]
            _told(range((self.TURNS + 1) * self.n), ledger)  # also what came after its turn
        cores = min(cpus(), self.n)
        return {
            "wall": median(together.wall for together, _ in turns) * 1e3,
            "wall over ideal": median(together.wall / together.ideal for together, _ in turns),
            "wall over calls alone": median(
                together.wall / (alone.wall / cores) for together, alone in turns
            ),
            "bodies over calls alone": median(
                together.used / alone.used for together, alone in turns
            ),
        }

    async def _turn(
        self, session: Session, turn: int, rounds: int, ledger: str
    ) -> tuple[Computed, Computed]:
        """One turn, and the same calls alone. Each turn has seeds of its own."""
        seeds = range(turn * self.n, (turn + 1) * self.n)
        with TemporaryDirectory() as of_those_alone:
            started = perf_counter()
            expected = [tools.burn(seed, rounds, of_those_alone) for seed in seeds]
            alone = _computed(perf_counter() - started, seeds, of_those_alone)
        arguments = [{"seed": seed, "rounds": rounds, "ledger": ledger} for seed in seeds]
        prepared = session.prepare(calls_of(tools.BURN_TOOL, arguments))
        wall = await timed(session, prepared, expected, first=turn == 0)
        return _computed(wall, seeds, ledger), alone


def _told(seeds: Sequence[int], ledger: str) -> list[float]:
    """The CPU time of each body of *seeds*, in the order in which they began.

    Raises CheckFailed unless each has run to its end, once.
    """
    files = [Path(ledger, str(seed)) for seed in seeds]
    told = [file.read_text().splitlines() if file.exists() else [] for file in files]
    if any(len(lines) != 1 for lines in told):
        raise CheckFailed(f"{sum(map(len, told))} bodies ended, for {len(seeds)} calls")
    return [used for _, used in sorted(tuple(map(float, line.split())) for (line,) in told)]


def _computed(wall: float, seeds: Sequence[int], ledger: str) -> Computed:
    """What the bodies of *seeds* say in *ledger*. Raises CheckFailed if that cannot be."""
    works = _told(seeds, ledger)
    cores = min(cpus(), len(works))
    if not sum(works):
        raise Unseen("the clock of CPU time is too coarse for such short bodies")
    if wall < 0.9 * sum(works) / cores:  # 0.9: it is another clock
        raise CheckFailed(f"{sum(works):.3f} s of work on {cores} cores were done in {wall:.3f} s")
    return Computed(wall, shared(works, cores), sum(works))


def shared(works: Iterable[float], cores: int) -> float:
    """When the last of *works* ends, if in their order each goes to the first core that is free."""
    free = [0.0] * cores
    for work in works:
        heapreplace(free, free[0] + work)
    return max(free)
