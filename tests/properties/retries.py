"""Calls and requests that fail and are tried again: drawn as data, foretold, and performed.

Times are whole seconds plus a power of two for each attempt that is its own, so that no two things
happen at one instant by chance. Above: the laws. Below: the public surface.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from typing import Any

import anyio
import attrs
from hypothesis import strategies as st

from tests.support import Loop
from turnscope import (
    Agent,
    History,
    Kernel,
    Limits,
    ModelError,
    Retry,
    RunCancelled,
    ToolCall,
    ToolResult,
    tool,
)
from turnscope.events import CallRetried, ModelRetried, RunEvent, TextDelta
from turnscope.testing import ScriptedModel, Stream, nothing_left

GRACE = 3.0


@attrs.frozen(kw_only=True)
class Tried:
    """One call: how long each attempt takes, and how many fail."""

    spans: tuple[float, ...]
    """Of each attempt; as many as there may be."""
    fails: int
    """How many fail before one succeeds."""
    initial: int = 1
    timeout: float = math.inf
    total: float = math.inf
    """Of its Retry."""
    cleanup: float = 0.0
    """How long a body cleans up after its interrupt."""
    breaks: bool = False
    """Whether it makes a failure of its interrupt."""
    safe: bool = True
    """Whether it is idempotent, and has a Retry."""


@attrs.frozen(kw_only=True)
class Trials:
    """The calls of one turn, submitted at once, in a kernel with so many slots."""

    calls: tuple[Tried, ...]
    slots: int
    cancel: float = math.inf
    """When the turn is cancelled."""
    deadline: float = math.inf
    """Of the turn."""


@attrs.define
class Did:
    """What happened, in seconds from the start."""

    attempts: list[tuple[int, float, float]] = attrs.Factory(list)
    """Of each attempt its call, its begin and its end, by their begin."""
    results: tuple[ToolResult, ...] = ()
    settled: list[float] = attrs.Factory(list)
    left: float = math.inf
    retried: Counter[int] = attrs.Factory(Counter)
    most: int = 0
    """How many bodies were at work at once."""


@st.composite
def trials(draw: st.DrawFn, *, ends: bool = False) -> Trials:
    """Some calls; if something *ends* them, they have timeouts, and a cancel or a deadline too."""
    own = iter(2.0**-n for n in range(1, 40))
    calls = []
    for _ in range(draw(st.integers(1, 4))):
        timed = ends and draw(st.booleans())
        most = draw(st.integers(1, 3))
        calls.append(
            Tried(
                spans=tuple(draw(st.integers(0, 3)) + next(own) for _ in range(most)),
                fails=draw(st.integers(0, most)),
                initial=draw(st.integers(0, 2)),
                timeout=draw(st.integers(1, 6)) + next(own) if timed else math.inf,
                total=draw(st.integers(1, 6)) + next(own) if timed else math.inf,
                cleanup=draw(st.sampled_from([0.0, 0.5, 2.0])) if ends else 0.0,
                breaks=ends and draw(st.booleans()),
                safe=draw(st.integers(0, 4)) > 0,
            )
        )
    made = Trials(calls=tuple(calls), slots=draw(st.integers(1, 3)))
    if ends:
        at = draw(st.integers(0, 8)) + next(own)
        made = attrs.evolve(made, **{draw(st.sampled_from(["cancel", "deadline"])): at})
    return made


def foretold(plan: Trials) -> list[tuple[int, float, float]]:
    """Each attempt of a turn that nothing ends: one queue, one step after the other."""
    queue = deque((index, 0) for index in range(len(plan.calls)))
    free, now, order = plan.slots, 0.0, 0
    coming: list[tuple[float, int, str, int, int]] = []
    told = []
    while queue or coming:
        while queue and free:
            index, attempt = queue.popleft()
            free -= 1
            end = now + plan.calls[index].spans[attempt]
            told.append((index, now, end))
            heapq.heappush(coming, (end, order := order + 1, "end", index, attempt))
        now, _, what, index, attempt = heapq.heappop(coming)
        if what == "back":
            queue.append((index, attempt))
            continue
        free += 1
        call = plan.calls[index]
        if call.safe and attempt < call.fails and attempt + 1 < len(call.spans):
            back = now + call.initial * 2**attempt
            heapq.heappush(coming, (back, order := order + 1, "back", index, attempt + 1))
    return told


def performed(plan: Trials, loop: Loop) -> Did:
    """Run *plan* in a kernel; what is left at its end is an error."""
    did, working = Did(), set[int]()

    def a_tool(index: int, call: Tried) -> Any:
        tries = 0

        async def body() -> int:
            nonlocal tries
            tries += 1
            here = len(did.attempts)
            did.attempts.append((index, anyio.current_time() - start, math.inf))
            assert index not in working, "one call has two bodies at work"
            working.add(index)
            did.most = max(did.most, len(working))
            try:
                await anyio.sleep(call.spans[tries - 1])
            except anyio.get_cancelled_exc_class():
                await anyio.sleep(call.cleanup)
                if call.breaks:
                    raise OSError("broken by its interrupt") from None
                raise
            finally:
                working.discard(index)
                did.attempts[here] = (*did.attempts[here][:2], anyio.current_time() - start)
            if tries <= call.fails:
                raise OSError(f"no {tries}")
            return tries

        retry = Retry(
            attempts=len(call.spans),
            initial=call.initial,
            maximum=100,
            jitter=0,
            total=None if call.total == math.inf else call.total,
        )
        options: Any = {"idempotent": True, "retry": retry} if call.safe else {}
        timeout = None if call.timeout == math.inf else call.timeout
        return tool(name=f"t{index}", timeout=timeout, **options)(body)

    class Watch:
        def observe(self, event: RunEvent, /) -> None:
            if isinstance(event, CallRetried):
                did.retried[event.index] += 1

    async def main() -> None:
        nonlocal start
        tools = [a_tool(index, call) for index, call in enumerate(plan.calls)]
        limits = Limits(calls=plan.slots)
        async with (
            nothing_left(),
            Kernel(limits=limits, grace=GRACE, observers=[Watch()]) as kernel,
        ):
            start = anyio.current_time()
            deadline = start + plan.deadline
            async with kernel.turn(tools, deadline=deadline) as turn:
                for index in range(len(tools)):
                    turn.submit(ToolCall(f"c{index}", f"t{index}", {}))
                if plan.cancel != math.inf:
                    await anyio.sleep(plan.cancel)
                    turn.cancel()
            did.left = anyio.current_time() - start
            did.results = turn.results
            did.settled = [result.ended_at - start for result in turn.results]
            look = kernel.statistics().limiters["calls"]
            assert (look.lent, look.waiting) == (0, 0), "slots that did not come back"

    start = 0.0
    loop.run(main)
    return did


# Requests.


@attrs.frozen(kw_only=True)
class Reply:
    """One attempt at a request."""

    fails: bool = False
    text: str = ""
    """What is streamed before it fails or ends."""
    span: float = 0.0
    calls: int = 0
    """How many calls it asks for, if it does not fail."""


@attrs.frozen(kw_only=True)
class Talks:
    """What a model answers, attempt after attempt; the last one is an answer."""

    replies: tuple[Reply, ...]
    attempts: int
    cancel: float = math.inf


@attrs.define
class Talked:
    history: History = attrs.Factory(History)
    turns: int = 0
    requests: int = 0
    retried: int = 0
    error: BaseException | None = None
    ended: float = math.inf


@st.composite
def retried_talks(draw: st.DrawFn) -> Talks:
    own = iter(2.0**-n for n in range(1, 40))
    replies = tuple(
        Reply(
            fails=draw(st.booleans()),
            text=draw(st.sampled_from(["", "Hel"])),
            span=draw(st.integers(0, 2)) + next(own),
            calls=draw(st.integers(0, 2)),
        )
        for _ in range(draw(st.integers(0, 6)))
    )
    cancel = draw(st.integers(0, 12)) + next(own) if draw(st.booleans()) else math.inf
    return Talks(
        replies=(*replies, Reply(text="done")), attempts=draw(st.integers(1, 4)), cancel=cancel
    )


def talked(plan: Talks, loop: Loop) -> Talked:
    """Run *plan* with an agent."""
    did, left = Talked(), list(plan.replies)

    async def work() -> str:
        await anyio.sleep(1)
        return "worked"

    def answer(_: Any) -> Any:
        reply = left.pop(0)
        did.requests += 1
        if reply.fails:
            return Stream(
                [(0, TextDelta(reply.text)), (reply.span, ModelError("busy", status=503))]
            )
        # Two calls of one id, as some servers send them.
        calls = [ToolCall("c", "work", {}) for _ in range(reply.calls)]
        return [reply.text or "x", *calls]

    async def main() -> None:
        retry = Retry(attempts=plan.attempts, initial=1, maximum=100, jitter=0)
        agent = Agent(model=ScriptedModel(answer), tools=[work], retry=retry)
        async with nothing_left(), Kernel(grace=GRACE) as kernel:
            start = anyio.current_time()
            async with kernel.start(agent, "go") as run, anyio.create_task_group() as group:

                async def cancels() -> None:
                    await anyio.sleep(plan.cancel)
                    run.cancel()

                if plan.cancel != math.inf:
                    group.start_soon(cancels)
                try:
                    async for event in run:
                        did.retried += isinstance(event, ModelRetried)
                    did.turns = (await run.wait()).turns
                except (ModelError, RunCancelled) as exc:
                    did.error = exc
                did.ended = anyio.current_time() - start
                group.cancel_scope.cancel()
            did.history = run.history

    loop.run(main)
    return did
