"""What must not overlap: calls that need one thing for themselves, and more calls than may work.

Above: `scenarios`. Below: the tools and the checks.
"""

from __future__ import annotations

from statistics import median
from typing import Any, Final

from . import tools
from .checks import CheckFailed, check_ended
from .drivers import Session
from .tools import Tool
from .turns import Effort, Metrics, Scenario, one_each, repeated, timed

Span = tuple[int, float, float]


class Conflict(Scenario):
    """A turn of *n* calls of 2 ms, of which every second needs one file for itself."""

    name = "conflict"
    units: Final = {"wall over ideal": "", "wall": "ms"}
    full = Effort(rounds=3, seconds=0.6)
    quick = Effort(rounds=1, seconds=0.2)
    tools = (tools.EDIT_TOOL, tools.PEEK_TOOL)

    def __init__(self, n: int) -> None:
        self.n = n
        self.title = f"{n} calls of {tools.EDIT * 1e3:g} ms, every second of them on one key"

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure turns; the ideal is the time of the calls on the key, one after the other."""
        prepared = session.prepare(one_each([self.tools[i % 2] for i in range(self.n)]))
        await self._turn(session, prepared, first=True)
        wall = median(await repeated(lambda: self._turn(session, prepared), effort, warm=1))
        return {"wall over ideal": wall / (self.n / 2 * tools.EDIT), "wall": wall * 1e3}

    async def _turn(self, session: Session, prepared: Any, *, first: bool = False) -> float:
        taken = await timed(session, prepared, range(self.n), first=first)
        check_ended(range(self.n))
        keyed = [span for span in tools.spans if span[0] % 2 == 0]
        if together(keyed) > 1:
            raise CheckFailed("calls on one key overlap")
        order = [n for n, *_ in sorted(keyed, key=lambda span: span[1])]
        if order != sorted(order):
            raise CheckFailed(f"calls on one key began in the order {order}")
        return taken  # who lets nothing overlap is slow, not wrong


class Limited(Scenario):
    """A turn of *n* calls of 1 ms, of which 8 may work at once."""

    name = "limits"
    units: Final = {"wall over ideal": "", "wall": "ms"}
    full = Effort(rounds=3, seconds=0.6)
    quick = Effort(rounds=1, seconds=0.2)

    def __init__(self, n: int, at_most: int = 8) -> None:
        self.n = n
        self.at_most = at_most
        self.title = f"{n} calls of {tools.STEP * 1e3:g} ms, {at_most} at once"
        self._tool = Tool(tools.step, "inline", at_most=at_most)
        self.tools = (self._tool,)

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure turns; the ideal is the time of the calls, if all slots are always taken."""
        prepared = session.prepare(one_each([self._tool] * self.n))
        await self._turn(session, prepared, first=True)
        wall = median(await repeated(lambda: self._turn(session, prepared), effort, warm=1))
        ideal = self.n / self.at_most * tools.STEP
        return {"wall over ideal": wall / ideal, "wall": wall * 1e3}

    async def _turn(self, session: Session, prepared: Any, *, first: bool = False) -> float:
        taken = await timed(session, prepared, range(self.n), first=first)
        check_ended(range(self.n))
        if (most := together(tools.spans)) > self.at_most:
            raise CheckFailed(f"{most} calls worked at once, where {self.at_most} may")
        return taken


def together(spans: list[Span]) -> int:
    """How many of *spans* there were at once, at the most."""
    # A span that ends where another begins comes first, and does not overlap it.
    edges = sorted(edge for _, began, ended in spans for edge in ((began, 1), (ended, -1)))
    most = now = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return most
