"""What every scenario has in common: effort, figures, the port, and one checked turn.

Above: `scenarios`, which are these. Below: the tools and the checks.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, Protocol, TypeVar

from . import tools
from .checks import check_asked, check_ended, check_nothing_new, check_values, tasks
from .contenders import LOOPS
from .drivers import Session
from .tools import Call, Tool

T = TypeVar("T")

TICK: Final = 0.002
"""Seconds by which a loop's timer may be ahead of this clock: uvloop counts in milliseconds."""

Metrics = dict[str, float]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    rounds: int
    """Fresh processes for each contender and event loop."""
    seconds: float
    """Of measuring in each of them, after the warm-up; of one call, for those that compute."""


SMOKE: Final = Effort(rounds=1, seconds=0.001)
"""Shows that everything runs; with the small scenarios, and without figures."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A bound that turnscope must keep."""

    metric: str
    most: float
    ratio: bool = True
    """Whether *most* is a multiple of the floor's in the same run, or a value."""
    strive: float | None = None
    """What would be better still."""


class Scenario(Protocol):
    """One kind of work."""

    name: str
    title: str
    units: dict[str, str]
    """The unit of each metric, in the order in which they are shown."""
    figures: tuple[Figure, ...] = ()
    full: Effort
    quick: Effort | None
    """None where a quick run leaves it out."""
    cores: int | None = None
    """The CPUs to which the process is kept; None for all."""
    loops: tuple[str, ...] = LOOPS
    """The event loops that it makes sense on."""
    tools: tuple[Tool, ...]

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Give the median of each metric. Raises CheckFailed."""
        ...


def calls_of(tool: Tool, arguments: Sequence[Mapping[str, object]]) -> list[Call]:
    """One call of *tool* for each of *arguments*."""
    return [
        Call(f"call_{index}", tool.name, json.dumps(each)) for index, each in enumerate(arguments)
    ]


def one_each(chosen: Sequence[Tool]) -> list[Call]:
    """A turn's calls, one of each of *chosen*; each has its place as its argument."""
    return [Call(f"call_{n}", tool.name, json.dumps({"n": n})) for n, tool in enumerate(chosen)]


async def repeated(
    once: Callable[[], Awaitable[T]], effort: Effort, *, least: int = 3, warm: int = 2
) -> list[T]:
    """Do *once* for as long as *effort* says, after a warm-up: what it gave each time."""
    for _ in range(warm):
        await once()
    came: list[T] = []
    end = perf_counter() + effort.seconds
    while perf_counter() < end or len(came) < least:
        came.append(await once())
    return came


async def played(
    session: Session,
    talk: Any,
    expected: Sequence[object],
    *,
    first: bool = False,
    turns: int | None = None,
    by: Callable[[], Awaitable[Sequence[object]]] | None = None,
) -> float:
    """Play one run, or what stands *by* for it: its time in seconds.

    As in `timed`, and every body has ended, once; if it is of *turns* of one call, one by one.
    """
    tools.clear()
    before = tasks()
    started = perf_counter()
    values = await (session.run(talk) if by is None else by())
    taken = perf_counter() - started
    check_values(expected, values)
    check_ended(range(len(expected)))
    if turns is not None:
        check_asked(turns)
    if not first:
        await check_nothing_new(before)
    return taken


async def timed(
    session: Session, prepared: Any, expected: Sequence[object], *, first: bool = False
) -> float:
    """Run one turn: its time in seconds. The values and what is left over are checked after it.

    The *first* turn of a session may start what is long-lived, such as pools: it may leave tasks.
    """
    tools.clear()
    before = tasks()
    started = perf_counter()
    values = await session.turn(prepared)
    taken = perf_counter() - started
    check_values(expected, values)
    if not first:
        await check_nothing_new(before)
    return taken
