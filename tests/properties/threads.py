"""Batches of ``def`` tools in real threads and real time, some of which never look up.

Above: the laws that speak of threads. Below: the public surface of turnscope. Instants are seconds
on the machine's clock since the turn was opened; what decides lies 20 ms apart, or more.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Literal

import anyio
import attrs
from hypothesis import strategies as st

from tests.support import Loop
from turnscope import Kernel, Limits, Tool, ToolCall, ToolResult, check_cancelled

GRACE = 0.2
ASK = 0.1
SHORT, LATE, LONG = 0.02, ASK + 0.04, ASK + GRACE + 0.12
"""Ends before the ask; ends after it, in time; ends after the grace."""


@attrs.frozen
class ThreadPlan:
    kind: Literal["polls", "deaf"]
    span: float


@attrs.frozen
class Batch:
    """One turn of threads: what they do, how many may work at once, whether they are asked."""

    plans: tuple[ThreadPlan, ...]
    threads: int
    ask: bool


@attrs.define
class ThreadBody:
    plan: ThreadPlan
    started: float | None = None
    ended: float | None = None


@attrs.define
class ThreadRun:
    bodies: list[ThreadBody]
    most: int = 0
    """The greatest number of bodies that worked at one instant."""
    left: float = 0.0
    leaked: int = 0
    lent_after: int = 0
    lent_at_last: int = 0
    leaked_at_last: int = 0
    results: tuple[ToolResult, ...] = ()
    second: list[float] = attrs.Factory(list)
    """When the bodies of a second turn began, which found the leaks of the first."""


def batches(**fixed: Any) -> st.SearchStrategy[Batch]:
    bodies = st.builds(
        ThreadPlan, st.sampled_from(("polls", "deaf")), st.sampled_from((SHORT, LATE, LONG))
    )
    return st.builds(
        Batch,
        plans=st.lists(bodies, min_size=1, max_size=5).map(tuple),
        threads=st.integers(1, 3),
        **{"ask": st.booleans(), **fixed},
    )


def run_batch(batch: Batch, loop: Loop) -> ThreadRun:
    """Run the batch, then a second turn while its leaks last, then wait until all has ended."""
    bodies = [ThreadBody(plan) for plan in batch.plans]
    run = ThreadRun(bodies)
    lock = threading.Lock()
    working = 0

    def body(index: int) -> str:
        nonlocal working
        mine = bodies[index]
        with lock:
            working += 1
            run.most = max(run.most, working)
        mine.started = time.monotonic() - origin
        try:
            until = time.monotonic() + mine.plan.span
            while time.monotonic() < until:
                if mine.plan.kind == "polls":
                    check_cancelled()
                time.sleep(0.002)
        finally:
            with lock:
                working -= 1
            mine.ended = time.monotonic() - origin
        return f"value {index}"

    def quick(index: int) -> None:
        nonlocal working
        with lock:
            working += 1
            run.most = max(run.most, working)
        run.second.append(time.monotonic() - origin)
        time.sleep(0.01)
        with lock:
            working -= 1

    async def main() -> None:
        nonlocal origin
        tools = [Tool(body), Tool(quick)]
        async with Kernel(limits=Limits(threads=batch.threads), grace=GRACE) as kernel:
            async with kernel.turn(tools) as turn:  # the backend opens with the first turn
                turn.submit(ToolCall("", "quick", {"index": 0}))
            run.second.clear()
            run.most = 0
            origin = time.monotonic()
            with anyio.move_on_after(ASK if batch.ask else 30):
                async with kernel.turn(tools) as turn:
                    for index in range(len(bodies)):
                        turn.submit(ToolCall(f"c{index}", "body", {"index": index}))
            run.left = time.monotonic() - origin
            run.results = turn.results
            threads = kernel.statistics().limiters["threads"]
            run.leaked, run.lent_after = threads.leaked, threads.lent
            async with kernel.turn(tools) as turn:
                for index in range(2):
                    turn.submit(ToolCall("", "quick", {"index": index}))
            with anyio.move_on_after(5):
                while kernel.statistics().limiters["threads"].lent:
                    await anyio.sleep(0.01)
            last = kernel.statistics().limiters["threads"]
            run.lent_at_last, run.leaked_at_last = last.lent, last.leaked

    origin = 0.0
    loop.run(main)
    return run
