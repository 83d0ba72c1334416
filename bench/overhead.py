"""What a turn costs beyond its tools: with tools that do nothing, and with tools that wait.

Above: `scenarios`. Below: the tools and the checks.
"""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import Any, Final

from . import tools
from .checks import CheckFailed, check_ended
from .drivers import Session
from .turns import TICK, Effort, Figure, Metrics, Scenario, calls_of, one_each, repeated, timed


class Noop(Scenario):
    """Turns of 1, 8, 64 and 512 calls that do nothing: what a contender itself costs.

    laps: how many turns of each size make one lap: the sizes are interleaved too. One of them is 1.
    """

    name = "noop"
    title = "A turn of no-op calls"
    figures = (
        Figure("turn of 1", 8),
        Figure("further call, to 512", 2, strive=1.5),
        Figure("further call, to 64", 2, strive=1.5),
        Figure("further call, to 8", 2, strive=1.5),
    )
    full = Effort(rounds=5, seconds=1.2)
    quick = Effort(rounds=1, seconds=0.3)
    tools = (tools.NOOP,)

    def __init__(self, laps: dict[int, int]) -> None:
        self.laps = laps
        self.units = {
            **{f"turn of {n}": "us" for n in laps},
            **{f"further call, to {n}": "us" for n in laps if n > 1},
        }

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure laps; a further call is (t(n) - t(1)) / (n - 1)."""
        taken: dict[int, list[float]] = {n: [] for n in self.laps}
        work = {}
        for n in self.laps:
            work[n] = session.prepare(calls_of(tools.NOOP, [{"n": i} for i in range(n)])), range(n)
        await timed(session, *work[1], first=True)
        for n in self.laps:  # warm-up
            for _ in range(5):
                await self._turn(session, *work[n])
        end = perf_counter() + effort.seconds
        while perf_counter() < end or len(taken[max(taken)]) < 3:
            for n, times in self.laps.items():
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


class Sleep(Scenario):
    """A turn of *n* tools that wait for 50 ms: what comes on top."""

    name = "sleep"
    units: Final = {"beyond ideal": "ms"}
    full = Effort(rounds=3, seconds=0.7)
    quick = Effort(rounds=1, seconds=0.2)
    tools = (tools.REST_TOOL, tools.PAUSE_TOOL)

    def __init__(self, n: int) -> None:
        self.n = n
        self.title = f"{n} tools that sleep for {tools.REST * 1e3:g} ms"

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure turns, and take off what one tool takes."""
        # Here every second call ends before the one in front of it: their values must not.
        mixed = session.prepare(one_each([self.tools[i % 2] for i in range(self.n)]))
        await self._turn(session, mixed, first=True)
        prepared = session.prepare(one_each([tools.REST_TOOL] * self.n))
        taken = await repeated(lambda: self._turn(session, prepared), effort, warm=1)
        return {"beyond ideal": (median(taken) - tools.REST) * 1e3}

    async def _turn(self, session: Session, prepared: Any, *, first: bool = False) -> float:
        taken = await timed(session, prepared, range(self.n), first=first)
        check_ended(range(self.n))
        if taken < tools.REST - TICK:
            raise CheckFailed(f"tools that sleep for {tools.REST} s were done in {taken:.3f} s")
        return taken
