"""What is measured, and which figure it must reach; apart from who is measured.

A scenario takes a session, runs turns in it for as long as its `Effort` says, checks each of them
outside of the time that it takes, and returns the median of each metric. Above: `measure`, which
runs one scenario in a process of its own, and `report`. Below: the scenarios, by theme.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .agents import Agents, Crowd, Nested
from .conversations import Consumer, Long, Run, Streamed
from .drivers import Driver
from .endings import Cancel, CancelScope, CancelTimeout
from .failing import Hang, Raise
from .order import Conflict, Limited
from .overhead import Noop, Sleep
from .places import Cpu, Threads
from .turns import Effort, Figure, Metrics, Scenario


class Import:
    """A fresh interpreter imports the contender: measured by `imported`, not in a session."""

    name = "import"
    title = "Import, in a fresh interpreter, bytecode compiled"
    units: Final = {
        "import": "ms",
        "with agents": "ms",
        "modules": "",
        "first tool after it": "ms",
    }
    figures = (Figure("import", 120, ratio=False),)
    full = Effort(rounds=15, seconds=0)
    quick = Effort(rounds=3, seconds=0)


class Footprint:
    """What a contender brings along: measured by `footprint`, in a fresh interpreter."""

    name = "footprint"
    title = "What is installed, and what is in memory after the import"
    units: Final = {"distributions": "", "on disk": "KiB", "resident": "KiB"}
    figures: tuple[Figure, ...] = ()
    full = Effort(rounds=3, seconds=0)
    quick = Effort(rounds=1, seconds=0)


def _named(scenarios: Iterable[Scenario]) -> dict[str, Scenario]:
    return {each.name: each for each in scenarios}


SCENARIOS: Final = _named(
    [
        Noop({1: 20, 8: 10, 64: 3, 512: 1}),
        Sleep(32),
        Cancel(64),
        CancelScope(64),
        CancelTimeout(64),
        Raise(64),
        Hang(32, timeout=0.2),
        Threads(16),
        Cpu(),
        Conflict(64),
        Limited(512),
        Run(200),
        Long(2000),
        Streamed(),
        Consumer(turns=3, calls=8),
        Nested(),
        Agents(100, 1000),
        Crowd(10_000),
    ]
)
SMALL: Final = _named(
    [
        Noop({1: 1, 8: 1}),
        Sleep(4),
        Cancel(4),
        CancelScope(4),
        CancelTimeout(4),
        Raise(4),
        Hang(4, timeout=0.03),
        Threads(4),
        Cpu(),
        Conflict(8),
        Limited(32),
        Run(20),
        Long(40),
        Streamed(),
        Consumer(turns=2, calls=2),
        Nested(),
        Agents(5, 10),
        Crowd(10),
    ]
)
"""The same in small, to see that everything runs: its sizes are too small for figures."""
IMPORT: Final = Import()
FOOTPRINT: Final = Footprint()
EVERY: Final[dict[str, Scenario | Import | Footprint]] = {
    **SCENARIOS,
    IMPORT.name: IMPORT,
    FOOTPRINT.name: FOOTPRINT,
}


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
