"""A record of a run that never was, as large as they come: 13 contenders in 20 scenarios.

Its numbers are made up in the order of what such a run has given. They are for tests, and to look at
how pictures of that size come out: ``python -m tests.bench.records FILE`` writes it.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from bench.contenders import FLOOR, OURS
from bench.record import Record, write
from bench.samples import Failure, Sample

TITLES = {
    "gather": "bare gather",
    FLOOR: "bare AnyIO task group",
    OURS: "turnscope",
    "turnscope_observed": "turnscope, observed",
    "turnscope_before": "turnscope, before",
    "bridgic": "bridgic",
    "pydantic_ai": "pydantic-ai",
    "langgraph_toolnode": "langgraph ToolNode",
    "langgraph_agent": "langgraph agent",
    "agentscope": "agentscope",
    "openai_agents": "openai-agents",
    "inspect_ai": "inspect_ai",
    "langgraph_prebuilt": "langgraph create_agent",
}
ON_TRIO = {FLOOR, OURS, "turnscope_observed", "turnscope_before", "inspect_ai"}
ON_ASYNCIO_ONLY = {"bridgic", "agentscope", "openai_agents"}

# In the order of TITLES; None: it does not take part; a sentence: it failed.
Values = list[float | str | None]
SCENARIOS: dict[str, tuple[str, str, str, Values]] = {
    "noop": (
        "A turn of no-op calls",
        "further call, to 512",
        "us",
        [6.6, 20, 33, 38, 36, 106, 119, 234, 624, 743, 707, 310, 630],
    ),
    "cancel": (
        "64 sleeping calls, cancelled",
        "until quiet",
        "us",
        [
            400,
            900,
            1700,
            1800,
            1750,
            "63 of 64 calls are alive after the cancelled turn",
            2500,
            2100,
            3900,
            "the turn swallowed the cancellation",
            2300,
            2600,
            3800,
        ],
    ),
    "threads": (
        "16 blocking `def` tools of 100 ms, beside a heartbeat of 1 ms",
        "stall",
        "ms",
        [1600, 14, 2.1, None, 2.2, 5.2, 5, 6, 7, 1604, 5.5, None, 7],
    ),
    "cpu": (
        "4 tools that compute, on 2 cores",
        "wall over ideal",
        "",
        [2, 0.99, 1.04, None, 1.05, 2, 2, 2, 1.9, 2.1, 1.9, None, 1.9],
    ),
    "run": (
        "A run: prompt, no-op call, answer; and one of 200 turns",
        "run of one call",
        "us",
        [16, 32, 170, 178, 172, 3488, 3489, 2386, 2903, 1886, 2181, 9000, 2890],
    ),
    "streamed": (
        "A turn with calls of 500 ms, whole after 100 to 400 ms of a stream of 1,000 ms",
        "wall",
        "ms",
        [1502, 1001, 1004, 1005, 1004, 1507, 1513, 1510, 1511, 1508, 1510, 1512, 1511],
    ),
    "agents": (
        "Agents at once in one process, each with 3 turns of 4 calls of 20 ms",
        "1000: wall",
        "ms",
        [385, 809, 1500, 1580, 1510, 11079, 15074, 13186, 20569, 11345, 31459, 18000, 20100],
    ),
}
MORE = (
    "sleep",
    "raise",
    "cancel_scope",
    "cancel_timeout",
    "hang",
    "agents_10000",
    "long",
    "conflict",
    "nested",
    "limits",
    "consumer",
    "footprint",
    "import",
)
WAITING = {"streamed", "cpu"}
"""Scenarios in which nobody is quicker than the clock, whatever the event loop."""


def record(seed: int = 0, rounds: int = 5) -> Record:
    """The same record for the same seed."""
    chance = random.Random(seed)
    scenarios = dict(SCENARIOS)
    for name in MORE:
        values: Values = [each * chance.uniform(3, 40) for each in range(1, len(TITLES) + 1)]
        values[4] = None
        values[7] = "3 tasks are alive after the turn, of which two hold what the next turn needs"
        scenarios[name] = (f"What `{name}` asks of a contender", "wall", "ms", values)
    about: dict[str, Any] = {
        "began": "2001-02-03T04:05:06Z",
        "seconds": 901.5,
        "command": ["python", "bench/run.py", "--json", "/somewhere/out.json"],
        "quick": False,
        "commit": "0123456789ab",
        "machine": {"system": "Linux-6.1", "processor": "Made up", "cpus": 2, "load": 0.1},
        "load at the end": None,
        "contenders": {
            name: {"python": "3.11.7", "anyio": "4.16.0", name.replace("_", "-"): "1.2.3"}
            for name in TITLES
        },
        "titles": dict(TITLES),
        "scenarios": {
            name: {"title": title, "units": {metric: unit, "other": "KiB"}, "headline": metric}
            for name, (title, metric, unit, _) in scenarios.items()
        },
    }
    made = Record(about, modules={OURS: ["anyio", "turnscope"], "known": ["anyio"]})
    for name, (_, metric, _, values) in scenarios.items():
        for contender, value in zip(TITLES, values, strict=True):
            for loop in ("none",) if name == "import" else loops(contender):
                if isinstance(value, str):
                    made.failures.append(Failure(contender, name, loop, 0, value))
                elif value is not None:
                    slower = {"uvloop": 0.8, "trio": 1.25}.get(loop, 1.0)
                    noise = 0.06
                    if name in WAITING:
                        slower, noise = 1.0, 0.003
                    for round_ in range(rounds):
                        came = value * slower * chance.lognormvariate(0, noise)
                        metrics = {metric: came, "other": 1.0}
                        made.samples.append(Sample(contender, name, loop, round_, metrics))
    return made


def loops(contender: str) -> tuple[str, ...]:
    """The event loops that *contender* runs on."""
    if contender in ON_ASYNCIO_ONLY:
        return ("asyncio",)
    return ("asyncio", "uvloop", "trio") if contender in ON_TRIO else ("asyncio", "uvloop")


if __name__ == "__main__":
    write(record(), Path(sys.argv[1]))
