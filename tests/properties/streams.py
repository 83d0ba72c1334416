"""Responses as data, and their performance: what streams when, which tools it calls, what befalls it.

A `Script` is performed twice, with tools that may start early and with none that may; spans have
fingerprints as in `generate`, so that no two instants coincide unless one is the cause of the
other. Above: the law of early start. Below: the public surface of turnscope.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Literal, TypeAlias

import anyio
import attrs
from hypothesis import strategies as st

from tests.support import Loop
from turnscope import (
    Agent,
    Budget,
    CallContext,
    History,
    Kernel,
    Limits,
    Retry,
    Run,
    RunResult,
    Tool,
    ToolCall,
    Usage,
)
from turnscope.events import (
    CallDelta,
    CallSealed,
    ModelEvent,
    ModelFinished,
    RunEvent,
    TextDelta,
)
from turnscope.testing import ScriptedModel, Stream, nothing_left

UNIT = 1 / 64
_FINGERPRINTS = random.Random(3).sample(range(1, 1 << 18), 500)

TOOLS = ("look", "again", "look_late", "write", "fatal")
"""read_only; idempotent with early=True; read_only with early=False; neither; read_only, and what
it raises ends the run."""
EARLY = ("look", "again", "fatal")
UNKNOWN = "nobody"


FAR = 1_000.0
"""Virtual seconds after which a run is stuck."""

ONCE_MORE = Retry(attempts=2, on=Exception, initial=0, jitter=0)


class Planned(Exception):
    """Raised on purpose."""


@attrs.frozen(kw_only=True)
class Asked:
    """One call of a response."""

    tool: str
    fits: bool
    """Whether its arguments do."""
    same: bool
    """Its arguments are those of every other such call: a response may ask for one thing twice."""
    span: float
    fails: bool
    cleanup: float
    after: float
    """How long after the one before it begins to stream, and how long it streams."""
    takes: float
    sealed: bool
    """Whether its end is told; else it is known only when the response is complete."""


@attrs.frozen(kw_only=True)
class Reply:
    """One response, and how it ends."""

    asked: tuple[Asked, ...]
    rest: float
    """From the last call's end to the end of the response."""
    end: Literal["calls", "length", "refusal", "filtered", "fails", "unfinished", "out of order"]
    tokens: int
    overlap: bool
    """A call begins to stream before the one in front of it has ended."""

    @property
    def breaks(self) -> bool:
        """Whether it is never complete."""
        return self.end in ("fails", "unfinished", "out of order")


Hit: TypeAlias = Literal["nothing", "move_on_after", "run.cancel", "timeout"]


@attrs.frozen(kw_only=True)
class Script:
    """What one run streams, call for call, and what happens to it."""

    replies: tuple[Reply, ...]
    hit: Hit = "nothing"
    after: float = math.inf
    calls: float = math.inf
    cap: float = math.inf
    parallel: bool = True
    budget: float = math.inf
    tokens: float = math.inf
    grace: float = 0.25
    retried: bool = False
    """A response that breaks is asked for once more, in the same turn."""
    shared: bool = False
    """The tools read and write one thing, and say what they saw of it."""


def text_of(reply: int, index: int, asked: Asked) -> str:
    """The arguments of a call."""
    if not asked.fits:
        return '{"where": 1'
    return json.dumps({"where": "the same" if asked.same else f"{reply}.{index}"})


def streamed(number: int, reply: Reply) -> Stream:
    """*reply* as a model streams it."""
    events: list[tuple[float, ModelEvent | BaseException]] = []
    begins = 0.0
    for index, asked in enumerate(reply.asked):
        begins += asked.after
        text = text_of(number, index, asked)
        half = len(text) // 2
        name = f"c{index}"  # the same ids in each response: the kernel makes them unique
        events.append((begins, CallDelta(index * 2 + 1, name, asked.tool, text[:half])))
        events.append((begins + asked.takes, CallDelta(index * 2 + 1, arguments=text[half:])))
        if asked.sealed:
            events.append((begins + asked.takes, CallSealed(index * 2 + 1)))
        if not reply.overlap:
            begins += asked.takes
    end = max((at for at, _ in events), default=0.0) + reply.rest
    events.sort(key=lambda event: event[0])
    events = list(_in_order(events))
    events.append((end, TextDelta("text")))
    if reply.end == "fails":
        events.append((end, Planned("cut off")))
    elif reply.end == "out of order":
        sealed = [event.index for _, event in events if isinstance(event, CallSealed)]
        events.append((end, CallDelta((sealed or [0])[-1] - 1, "late", "look", "{}")))
        events.append((end, ModelFinished("calls")) if sealed else (end, Planned("cut off")))
    elif reply.end != "unfinished":
        events.append((end, ModelFinished(reply.end, Usage(input_tokens=reply.tokens))))
    return Stream(events)


def _in_order(events: list[tuple[float, Any]]) -> Iterator[tuple[float, Any]]:
    """Those that a provider may send: none begins after a later one was sealed."""
    begun: set[int] = set()
    for at, event in events:
        if isinstance(event, CallDelta):
            begun.add(event.index)
        if not isinstance(event, CallSealed) or begun >= set(range(1, event.index, 2)):
            yield at, event


@attrs.define(eq=False)
class Performance:
    """What came of a script."""

    script: Script
    early: bool
    origin: float = 0.0
    events: list[tuple[int, RunEvent]] = attrs.Factory(list)
    """Each with the number of the reply that was asked for last."""
    begun: list[tuple[int, str]] = attrs.Factory(list)
    """The number of the reply and the id of each call whose body began."""
    version: int = 0
    """Of what the tools share: how often it was written."""
    working: int = 0
    most: int = 0
    """How many bodies worked at once."""
    requests: list[float] = attrs.Factory(list)
    run: Run[Any] | None = None
    result: RunResult[Any] | None = None
    error: BaseException | None = None

    @property
    def history(self) -> History:
        assert self.run is not None
        return self.run.history

    def observe(self, event: RunEvent) -> None:
        self.events.append((len(self.requests) - 1, event))

    def now(self) -> float:
        return anyio.current_time() - self.origin

    async def body(self, where: str, context: CallContext[Any]) -> str:
        asked, before = self._asked(context.call), self.version
        self.begun.append((len(self.requests) - 1, context.call.id))
        self.working += 1
        self.most = max(self.most, self.working)
        try:
            try:
                await anyio.sleep(asked.span)
            except anyio.get_cancelled_exc_class():
                await anyio.sleep(asked.cleanup)
                raise
        finally:
            self.working -= 1
        saw = ""
        if self.script.shared:
            saw = f" from {before} to {self.version}"
            if context.call.name == "write":  # and loses what another wrote meanwhile
                self.version = before + 1
        if asked.fails:
            raise Planned(where + saw)
        return f"{context.call.name} of {where}{saw}"

    def _asked(self, call: ToolCall) -> Asked:
        """What the script has for *call*, the one at work: of two that are the same, the first."""
        reply = self.script.replies[len(self.requests) - 1]
        for index, asked in enumerate(reply.asked):
            same = text_of(len(self.requests) - 1, index, asked) == call.arguments
            if asked.tool == call.name and same:
                return asked
        raise AssertionError(f"{call} was not asked for")

    def tools(self) -> list[Tool[..., Any]]:
        async def work(where: str, context: CallContext[Any]) -> str:
            return await self.body(where, context)

        early = None if self.early else False
        reads: Any = {"reads": "thing"} if self.script.shared else {}
        writes: Any = {"writes": "thing"} if self.script.shared else {}
        return [
            Tool(work, name="look", read_only=True, early=early, **reads),
            Tool(work, name="again", idempotent=True, early=self.early, **reads),
            Tool(work, name="look_late", read_only=True, early=False, **reads),
            Tool(work, name="write", **writes),
            Tool(work, name="fatal", read_only=True, early=early, on_error="raise", **reads),
        ]

    async def main(self) -> None:
        script, model = self.script, ScriptedModel(self._answer)
        agent = Agent(
            model=model,
            tools=self.tools(),
            max_parallel_calls=script.cap,
            parallel_tool_calls=script.parallel,
            budget=Budget(calls=script.budget, tokens=script.tokens),
            retry=ONCE_MORE if script.retried else None,
        )
        limits = Limits(calls=script.calls)
        async with Kernel(limits=limits, grace=script.grace, observers=[self]) as kernel:
            async with kernel.turn([_nothing]) as turn:
                turn.submit(ToolCall("", "_nothing"))  # the backend opens, and stays
            self.events.clear()
            self.origin = anyio.current_time()
            async with nothing_left(within=2**-20):
                await self._hit(kernel, agent)
            assert self.working == 0, "a body outlives its run"
            statistics = kernel.statistics()
            assert (statistics.runs, statistics.turns) == (0, 0)
            assert all(each.lent == each.waiting == 0 for each in statistics.limiters.values())
            assert not statistics.keys

    async def _hit(self, kernel: Kernel, agent: Agent[Any, str]) -> None:
        script = self.script
        timeout = script.after if script.hit == "timeout" else None
        with anyio.move_on_after(script.after if script.hit == "move_on_after" else math.inf):
            async with anyio.create_task_group() as group:
                async with kernel.start(agent, "go", timeout=timeout) as self.run:
                    if script.hit == "run.cancel":
                        group.start_soon(self._cancel, self.run)
                    try:
                        self.result = await self.run.wait()
                    except Exception as exc:
                        self.error = exc
                group.cancel_scope.cancel()

    async def _cancel(self, run: Run[Any]) -> None:
        await anyio.sleep(self.script.after)
        run.cancel("enough")

    def _answer(self, request: Any) -> Any:
        self.requests.append(self.now())
        number = len(self.requests) - 1
        if number < len(self.script.replies):
            return streamed(number, self.script.replies[number])
        return "done"


async def _nothing() -> None: ...


def perform(script: Script, loop: Loop, *, early: bool) -> Performance:
    """Perform *script* on *loop*, where tools start *early* or where none does."""
    performance = Performance(script, early)
    loop.run(_within, FAR, performance.main)
    return performance


async def _within(seconds: float, main: Callable[[], Awaitable[None]]) -> None:
    with anyio.move_on_after(seconds) as scope:
        await main()
    assert not scope.cancelled_caught, "stuck"


FREE: dict[str, Any] = {
    "calls": math.inf,
    "cap": math.inf,
    "parallel": True,
    "budget": math.inf,
    "tokens": math.inf,
}
"""The fields of scripts in which nothing is limited."""


@st.composite
def scripts(draw: st.DrawFn, **fixed: Any) -> Script:
    """Scripts of which *fixed* says some fields; a ``hit`` of True draws one.

    From a seed: drawn one by one, most spans are the shortest, and nothing happens in most scripts.
    """
    source = random.Random(draw(st.integers(0, 2**32 - 1)))
    prints = itertools.cycle(_FINGERPRINTS)
    failing = 4 if fixed.pop("fatal", False) else 0
    # Mostly what reads and what writes, so that results of the same call differ.
    mixed = ("look", "write", "again") * 3 if fixed.get("shared") else ("look", "look", "look")
    # Attempts that ask for the same, and whose calls take a while to end.
    often = 4 if fixed.get("retried") else 1

    def span(most: int = 32) -> float:
        return source.randint(1, most) * UNIT + next(prints) * 2.0**-26

    def chance(eighths: int) -> bool:
        return source.randrange(8) < eighths

    def asked() -> Asked:
        same = chance(often)
        tool = source.choice((*mixed, "again", *TOOLS, UNKNOWN))
        return Asked(
            tool=tool,
            fits=not chance(1),
            same=same,
            span=span(),
            # What two calls come to that are the same is the same.
            fails=not same and chance(failing if tool == "fatal" else 1),
            cleanup=span(24) if chance(often + 1) else 0.0,
            after=span(8),
            takes=span(8),
            sealed=chance(6),
        )

    ends: tuple[Any, ...] = ("length", "refusal", "filtered", "fails", "unfinished", "out of order")
    ends += ("fails",) * (often - 1) + ("calls",) * 5

    def reply() -> Reply:
        return Reply(
            asked=tuple(asked() for _ in range(source.randint(1, 5))),
            rest=span(source.choice((6, 32))),
            end=source.choice(ends),
            tokens=source.choice((0, 5, 10)),
            overlap=chance(2),
        )

    replies = tuple(reply() for _ in range(source.randint(1, 3)))
    if fixed.get("shared") and fixed.get("retried") and chance(4):
        # What was asked for, and answered, comes again behind a write.
        looks = tuple(attrs.evolve(asked(), tool="look", fits=True) for _ in range(2))
        write = attrs.evolve(asked(), tool="write", fits=True)
        replies = (
            attrs.evolve(reply(), asked=looks, end="fails", rest=span(64)),
            attrs.evolve(reply(), asked=(write, *looks), end="calls"),
        )
    drawn: dict[str, Any] = {
        "calls": source.choice((math.inf, math.inf, 1, 2)),
        "cap": source.choice((math.inf, math.inf, 1, 2)),
        "parallel": not chance(1),
        "budget": source.choice((math.inf, math.inf, 1, 3)),
        "tokens": source.choice((math.inf, math.inf, 5, 12)),
    }
    if fixed.pop("hit", False):
        hit = source.choice(("move_on_after", "run.cancel", "timeout"))
        drawn |= {"hit": hit, "after": span(90)}
    return Script(replies=replies, **{**drawn, **fixed})
