"""Calls of which a slow one gets a second body: drawn as data, foretold, and performed.

Times are whole seconds plus a power of two for each that is its own, so that no two things happen
at one instant by chance. Above: the laws. Below: the public surface.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, deque
from typing import Any

import anyio
import attrs
from hypothesis import strategies as st

from tests.support import Loop
from turnscope import CallContext, Kernel, Limits, ToolCall, ToolResult, tool
from turnscope.events import CallHedged, CallSettled, CallStarted, RunEvent
from turnscope.testing import nothing_left

GRACE = 3.0


@attrs.frozen(kw_only=True)
class Two:
    """One call: what its first body does, and its second, if it comes to that."""

    spans: tuple[float, float]
    fails: tuple[bool, bool]
    cleanups: tuple[float, float] = (0.0, 0.0)
    """How long each cleans up after its interrupt."""
    breaks: tuple[bool, bool] = (False, False)
    """Whether it then makes a failure of that."""
    hedge: float | None
    timeout: float = math.inf
    nests: float = 0.0
    """How long a call takes that each body makes in a turn of its own, before its work."""


@attrs.frozen(kw_only=True)
class Hedges:
    """The calls of one turn, submitted at once, in a kernel with so many slots."""

    calls: tuple[Two, ...]
    slots: int
    cancel: float = math.inf
    """When the turn is cancelled."""
    deadline: float = math.inf
    """Of the turn."""


@attrs.frozen
class Body:
    """One body that has begun, in seconds from the start."""

    call: int
    number: int
    began: float
    ended: float


@attrs.define
class Did:
    """What happened."""

    bodies: list[Body] = attrs.Factory(list)
    returned: dict[int, list[tuple[float, int]]] = attrs.Factory(dict)
    """When bodies of a call returned, by themselves, and which."""
    raised: dict[int, list[Exception]] = attrs.Factory(dict)
    """What the bodies of a call have raised, of their own."""
    results: tuple[ToolResult, ...] = ()
    told: Counter[tuple[str, int]] = attrs.Factory(Counter)
    """How often each event of a call came."""
    settled: list[float] = attrs.Factory(list)
    most: int = 0
    """How many bodies were at work at once."""


@st.composite
def hedges(draw: st.DrawFn, *, ends: bool = False, nests: bool = False) -> Hedges:
    """Some calls; if something *ends* them, some have timeouts, and there is a cancel too.

    If it *nests*, some of the bodies make a call first.
    """
    own = iter(2.0**-n for n in range(1, 50))
    flags = st.tuples(st.booleans(), st.booleans())
    cleanup = st.sampled_from([0.0, 0.5, 2.0])
    calls = tuple(
        Two(
            spans=(draw(st.integers(0, 6)) + next(own), draw(st.integers(0, 4)) + next(own)),
            fails=draw(flags),
            cleanups=draw(st.tuples(cleanup, cleanup)),
            breaks=draw(flags),
            hedge=draw(st.integers(0, 3)) + next(own) if draw(st.integers(0, 4)) else None,
            timeout=draw(st.integers(1, 8)) + next(own)
            if ends and draw(st.booleans())
            else math.inf,
            nests=draw(st.integers(1, 2)) + next(own) if nests and draw(st.booleans()) else 0.0,
        )
        for _ in range(draw(st.integers(1, 4)))
    )
    made = Hedges(calls=calls, slots=draw(st.integers(1, 4)))
    if ends:
        at = draw(st.integers(0, 9)) + next(own)
        made = attrs.evolve(made, **{draw(st.sampled_from(["cancel", "deadline"])): at})
    return made


def foretold(plan: Hedges) -> tuple[list[Body], dict[int, tuple[float, int | None]]]:
    """Each body of a turn that nothing ends; and when each call settles, with whose value."""
    queue = deque((index, 1) for index in range(len(plan.calls)))
    free, now = plan.slots, 0.0
    coming: list[tuple[float, str, int, int]] = []
    at_work: dict[tuple[int, int], float] = {}
    decided: dict[int, int | None] = {}
    bodies: list[Body] = []
    settled: dict[int, tuple[float, int | None]] = {}
    while queue or coming:
        while queue and free:
            index, number = queue.popleft()
            call = plan.calls[index]
            free -= 1
            at_work[index, number] = now
            heapq.heappush(coming, (now + call.spans[number - 1], "done", index, number))
            if number == 1 and call.hedge is not None:
                heapq.heappush(coming, (now + call.hedge, "hedge", index, 2))
        now, what, index, number = heapq.heappop(coming)
        call, other = plan.calls[index], (index, 3 - number)
        if what == "hedge":
            if index not in decided:
                queue.append((index, 2))
            continue
        if (index, number) not in at_work or (what == "done" and index in decided):
            continue  # it was interrupted meanwhile
        bodies.append(Body(index, number, at_work.pop((index, number)), now))
        free += 1
        failed = call.fails[number - 1]
        if what == "done" and not (failed and other in at_work):
            decided[index] = None if failed else number
            if other in queue:
                queue.remove(other)
            if other in at_work:
                end = now + call.cleanups[other[1] - 1]
                heapq.heappush(coming, (end, "interrupted", *other))
        if index in decided and other not in at_work:
            settled[index] = now, decided[index]
    return bodies, settled


def performed(plan: Hedges, loop: Loop) -> Did:
    """Run *plan* in a kernel; what is left at its end is an error."""
    did, working = Did(), set[tuple[int, int]]()
    inner_calls = ((-1, number) for number in itertools.count())

    def a_tool(index: int, call: Two) -> Any:
        async def body(context: CallContext) -> int:
            number = context.attempt
            began = anyio.current_time() - start
            assert (index, number) not in working, "one body twice"
            working.add((index, number))
            did.most = max(did.most, len(working))
            raised = did.raised.setdefault(index, [])
            try:
                if call.nests:
                    working.discard((index, number))  # parked
                    async with kernel.turn([inner]) as turn:
                        turn.submit(ToolCall("n", "inner", {"span": call.nests}))
                    if not context.cancelling:  # else it goes on without its slots, to clean up
                        working.add((index, number))
                        did.most = max(did.most, len(working))
                await anyio.sleep(call.spans[number - 1])
                if call.fails[number - 1]:
                    raised.append(OSError(f"no {number}"))
                    raise raised[-1]
                now = anyio.current_time() - start
                did.returned.setdefault(index, []).append((now, number))
                return number
            except anyio.get_cancelled_exc_class():
                await anyio.sleep(call.cleanups[number - 1])
                if call.breaks[number - 1]:
                    raised.append(OSError(f"broken {number}"))
                    raise raised[-1] from None
                raise
            finally:
                working.discard((index, number))
                did.bodies.append(Body(index, number, began, anyio.current_time() - start))

        async def inner(span: float) -> None:
            here = next(inner_calls)
            working.add(here)
            did.most = max(did.most, len(working))
            try:
                await anyio.sleep(span)
            finally:
                working.discard(here)

        options: Any = {"idempotent": True, "hedge": call.hedge} if call.hedge is not None else {}
        timeout = None if call.timeout == math.inf else call.timeout
        return tool(name=f"t{index}", timeout=timeout, **options)(body)

    class Watch:
        def observe(self, event: RunEvent, /) -> None:
            kinds = CallStarted | CallHedged | CallSettled
            if isinstance(event, kinds) and event.call.name != "inner":
                did.told[type(event).__name__, event.index] += 1

    async def main() -> None:
        nonlocal start, kernel
        tools = [a_tool(index, call) for index, call in enumerate(plan.calls)]
        kernel = Kernel(limits=Limits(calls=plan.slots), grace=GRACE, observers=[Watch()])
        async with nothing_left(), kernel:
            start = anyio.current_time()
            async with kernel.turn(tools, deadline=start + plan.deadline) as turn:
                for index in range(len(tools)):
                    turn.submit(ToolCall(f"c{index}", f"t{index}", {}))
                if plan.cancel != math.inf:
                    await anyio.sleep(plan.cancel)
                    turn.cancel()
            assert not working
            did.results = turn.results
            did.settled = [result.ended_at - start for result in turn.results]
            look = kernel.statistics().limiters["calls"]
            assert (look.lent, look.waiting) == (0, 0), "slots that did not come back"

    start = 0.0
    kernel: Kernel
    loop.run(main)
    return did


def as_foretold(plan: Hedges, loop: Loop) -> Did:
    """Run *plan*, which nothing ends: all is as the model has it."""
    did = performed(plan, loop)
    bodies, settled = foretold(plan)
    assert did.most <= plan.slots, f"{did.most} bodies were at work where {plan.slots} may be"
    key = attrs.astuple
    assert sorted(did.bodies, key=key) == sorted(bodies, key=key)
    for index, result in enumerate(did.results):
        when, winner = settled[index]
        assert did.settled[index] == when
        assert (result.status, result.value) == ("failed" if winner is None else "ok", winner)
    return did
