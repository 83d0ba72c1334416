"""What every scenario has in common: effort, figures, the port, and one checked turn.

Above: `scenarios`, which are these. Below: the tools and the checks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

from . import tools
from .checks import check_nothing_new, check_values, tasks
from .drivers import Session
from .tools import Call, Tool

Metrics = dict[str, float]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    rounds: int
    """Fresh processes for each contender and event loop."""
    seconds: float
    """Of measuring in each of them, after the warm-up; of one call, for those that compute."""


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
    figures: tuple[Figure, ...]
    full: Effort
    quick: Effort
    cores: int | None
    """The CPUs to which the process is kept; None for all."""
    tools: tuple[Tool, ...]

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Give the median of each metric. Raises CheckFailed."""
        ...


def calls_of(tool: Tool, arguments: Sequence[dict[str, int]]) -> list[Call]:
    """One call of *tool* for each of *arguments*."""
    return [
        Call(f"call_{index}", tool.name, json.dumps(each)) for index, each in enumerate(arguments)
    ]


async def timed(
    session: Session, prepared: Any, expected: Sequence[object], *, first: bool = False
) -> float:
    """Run one turn: its time in seconds. The values and what is left over are checked after it.

    The *first* turn of a session may start what is long-lived, such as pools: it may leave tasks.
    """
    tools.begun.clear()
    tools.ended.clear()
    before = tasks()
    started = perf_counter()
    values = await session.turn(prepared)
    taken = perf_counter() - started
    check_values(expected, values)
    if not first:
        await check_nothing_new(before)
    return taken
