"""What a run costs: a loop of model and tools, short, long, streamed, and listened to.

Every contender plays the same conversations with a stub in the place of the model, which answers at
once: what is left is the contender's own. Above: `scenarios`. Below: the tools and the checks.
"""

from __future__ import annotations

import json
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any, Final

import anyio

from . import tools
from .checks import CheckFailed
from .drivers import Listening, Session
from .tools import Call, Conversation
from .turns import TICK, Effort, Figure, Metrics, Scenario, played, repeated

WINDOW: Final = 10
"""How many turns stand for one."""


def conversation(tool: tools.Tool, turns: int, calls: int, first: int = 0) -> Conversation:
    """*turns* answers of *calls* calls each; their arguments count from *first*."""
    numbers = iter(range(first, first + turns * calls))
    return [
        [
            Call(f"call_{n}", tool.name, json.dumps({"n": n}))
            for n in (next(numbers) for _ in range(calls))
        ]
        for _ in range(turns)
    ]


class Run(Scenario):
    """A run with one call, and a run of *turns* turns."""

    name = "run"
    figures = (
        Figure("run of one call", 8),
        Figure("turn 200 over turn 10", 1.1, ratio=False),
    )
    full = Effort(rounds=5, seconds=0.8)
    quick = Effort(rounds=1, seconds=0.3)
    tools = (tools.STAMP,)

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.title = f"A run: prompt, no-op call, answer; and one of {turns} turns"
        self.units = {"run of one call": "us", **_units(turns)}

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure short runs, and between them long ones, whose tool notes when it begins."""
        short = session.talk(conversation(tools.STAMP, 1, 1))
        long = session.talk(conversation(tools.STAMP, self.turns, 1))
        await played(session, short, range(1), first=True)
        for _ in range(5):  # warm-up
            await played(session, short, range(1), turns=1)
        taken: list[float] = []

        async def lap() -> tuple[float, float]:
            taken.extend([await played(session, short, range(1), turns=1) for _ in range(20)])
            return await _spans(session, long, self.turns)

        spans = await repeated(lap, effort, warm=0)
        return {"run of one call": median(taken) * 1e6, **_growth(self.turns, spans)}


class Long(Scenario):
    """A run of *turns* turns of one call: what a turn costs when so many were before it."""

    name = "long"
    full = Effort(rounds=3, seconds=1.0)
    quick = Effort(rounds=1, seconds=0.0)
    tools = (tools.STAMP,)

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.title = f"A run of {turns:,} turns of one no-op call"
        self.units = _units(turns)

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure runs, after a short one that is not measured."""
        short = session.talk(conversation(tools.STAMP, 2 * WINDOW, 1))
        long = session.talk(conversation(tools.STAMP, self.turns, 1))
        await played(session, short, range(2 * WINDOW), first=True)
        spans = await repeated(lambda: _spans(session, long, self.turns), effort, least=1, warm=0)
        return _growth(self.turns, spans)


async def _spans(session: Session, talk: Any, turns: int) -> tuple[float, float]:
    """Play *talk*: seconds of its turns around the 10th, and of those to the last."""
    await played(session, talk, range(turns), turns=turns)
    spans = [after - before for before, after in pairwise(tools.stamps)]
    return median(spans[9 - WINDOW // 2 : 9 + WINDOW // 2]), median(spans[-WINDOW:])


def _units(turns: int) -> dict[str, str]:
    return {"turn 10": "us", f"turn {turns}": "us", f"turn {turns} over turn 10": ""}


def _growth(turns: int, spans: list[tuple[float, float]]) -> Metrics:
    early, late = (median(each) for each in zip(*spans, strict=True))
    return {
        "turn 10": early * 1e6,
        f"turn {turns}": late * 1e6,
        f"turn {turns} over turn 10": late / early,
    }


class Streamed(Scenario):
    """A run whose model streams for a while, and whose calls are whole long before its end."""

    name = "streamed"
    title = "A turn with calls of 500 ms, whole after 100 to 400 ms of a stream of 1,000 ms"
    AT: Final = (0.1, 0.2, 0.3, 0.4)
    """Seconds into the stream."""
    units: Final = {"wall": "ms"}
    figures = (Figure("wall", 1020, ratio=False),)
    full = Effort(rounds=3, seconds=2.0)
    quick = Effort(rounds=1, seconds=0.0)
    tools = (tools.LOOK_TOOL,)

    async def measure(self, session: Session, effort: Effort) -> Metrics:
        """Measure runs; who starts a call before it is whole, or ends too soon, has cheated."""
        answer = [
            Call(f"call_{n}", tools.LOOK_TOOL.name, json.dumps({"n": n}), at)
            for n, at in enumerate(self.AT)
        ]
        talk = session.talk([answer])
        await self._run(session, talk, first=True)  # which may load what is used late
        taken = await repeated(lambda: self._run(session, talk), effort, least=1, warm=0)
        return {"wall": median(taken) * 1e3}

    async def _run(self, session: Session, talk: Any, *, first: bool = False) -> float:
        started = perf_counter()
        taken = await played(session, talk, range(len(self.AT)), first=first)
        if taken < tools.STREAM - TICK:
            raise CheckFailed(f"a stream of {tools.STREAM} s was read in {taken:.3f} s")
        for began, at in zip(sorted(tools.stamps), self.AT, strict=True):
            if began - started < at - TICK:
                raise CheckFailed(f"a call that was whole at {at} s began at {began - started:.3f}")
        return taken


class Consumer(Scenario):
    """A run whose events somebody reads, who takes 10 ms for each: do the tools wait for it?

    The ideal is that of nobody listening: the model answers at once, so the tools of the last turn
    should end when each turn before it has taken as long as its tools. How long the run takes until
    the last event is read says how many events there are, and no more.
    """

    name = "consumer"
    units: Final = {
        "tools late": "ms",
        "tools late, nobody listens": "ms",
        "run, to the last event": "ms",
    }
    full = Effort(rounds=3, seconds=1.0)
    quick = Effort(rounds=1, seconds=0.0)
    tools = (tools.SERVE_TOOL,)

    def __init__(self, turns: int, calls: int, seconds: float = 0.01) -> None:
        self.turns = turns
        self.calls = calls
        self.seconds = seconds
        self.title = (
            f"{turns} turns of {calls} calls of {tools.PAUSE * 1e3:g} ms, and somebody who takes"
            f" {seconds * 1e3:g} ms for each event"
        )

    async def measure(self, session: Listening, effort: Effort) -> Metrics:
        """Measure runs, in turn with and without the consumer."""
        talk = session.talk(conversation(tools.SERVE_TOOL, self.turns, self.calls))
        await self._alone(session, talk, first=True)

        async def both() -> tuple[float, float, float]:
            return *await self._heard(session, talk), await self._alone(session, talk)

        late, wall, alone = zip(*await repeated(both, effort, least=1, warm=0), strict=True)
        return {
            "tools late": median(late) * 1e3,
            "tools late, nobody listens": median(alone) * 1e3,
            "run, to the last event": median(wall) * 1e3,
        }

    async def _alone(self, session: Session, talk: Any, *, first: bool = False) -> float:
        started = perf_counter()
        await played(session, talk, range(self.turns * self.calls), first=first)
        return self._late(started)

    async def _heard(self, session: Listening, talk: Any) -> tuple[float, float]:
        """One run with the consumer: by how much the tools were late, and how long it took."""
        heard = 0

        async def each() -> None:
            nonlocal heard
            await anyio.sleep(self.seconds)
            heard += 1

        started = perf_counter()
        await played(
            session, talk, range(self.turns * self.calls), by=lambda: session.listen(talk, each)
        )
        taken = perf_counter() - started
        if heard < self.turns:
            raise CheckFailed(f"{heard} events were told, in {self.turns} turns")
        if taken < heard * (self.seconds - TICK):
            raise CheckFailed(f"{heard} events were told in {taken:.3f} s: not one after the other")
        return self._late(started), taken

    def _late(self, started: float) -> float:
        late = max(ended for _, _, ended in tools.spans) - started - self.turns * tools.PAUSE
        if late < -self.turns * TICK:
            raise CheckFailed(f"the tools ended {-late:.3f} s before their turns can be over")
        return late
