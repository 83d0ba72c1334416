"""Turns and runs whose calls read and write: as data, performed by a kernel, foretold by a model.

A body looks at all that its keys cover, works, and writes its name where it may write. Above: the
law of call order. Below: the public surface of turnscope. Spans have fingerprints of their own, so
that no two instants coincide unless one is the cause of the other.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import Any, Literal

import anyio
import attrs
from hypothesis import strategies as st

from tests.support import Loop
from turnscope import (
    Agent,
    CallContext,
    DeadlineExceeded,
    Kernel,
    Limits,
    Tool,
    ToolCall,
    ToolResult,
)
from turnscope.testing import ScriptedModel, nothing_left

FAR = 10_000.0
"""Virtual seconds after which a batch is stuck."""
UNIT = 1 / 64
KEYS = ("a", "b", "a/x", "a/y", "a/x/1", "b/z", "ab", "/")
LEAVES = ("a/x/1", "a/x/2", "a/y", "b/z", "ab")
_FINGERPRINTS = random.Random(2).sample(range(1, 1 << 18), 500)


def covers(key: str, leaf: str) -> bool:
    return key in ("/", leaf) or leaf.startswith(key + "/")


def overlap(one: str, other: str) -> bool:
    return covers(one, other) or covers(other, one)


@attrs.frozen(kw_only=True)
class Job:
    """One call: what it declares, how long it works, how it ends, what it nests half-way."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    span: float
    fails: bool = False
    alone: bool = False
    nested: tuple[Job, ...] = ()

    def conflicts(self, other: Job) -> bool:
        """Whether they share a key that one of them writes."""
        mine = [(key, True) for key in self.writes] + [(key, False) for key in self.reads]
        its = [(key, True) for key in other.writes] + [(key, False) for key in other.reads]
        return any((w or v) and overlap(k, j) for k, w in mine for j, v in its)


@attrs.frozen(kw_only=True)
class Batch:
    """The calls of one turn, of a turn of one's own or of a run, and what ends it early."""

    jobs: tuple[Job, ...]
    after: float
    kind: Literal["turn", "run"] = "turn"
    ends: Literal["cancel", "timeout"] = "timeout"
    within: float = math.inf
    one_by_one: bool = False
    """``parallel_tool_calls=False``, for a run."""


@attrs.frozen(kw_only=True)
class Scene:
    batches: tuple[Batch, ...]
    calls: float = math.inf
    """The capacity of the kernel."""


# Drawing.


@attrs.frozen(kw_only=True)
class Odds:
    """Numbers are the chance in eight."""

    batches: int = 3
    jobs: int = 5
    depth: int = 0
    covered: bool = True
    """A nested call wants what its parent has."""
    fails: int = 2
    alone: int = 1
    one_by_one: int = 1
    ends: int = 2
    limited: int = 0
    undeclared: int = 1


@st.composite
def _scenes(draw: st.DrawFn, odds: Odds) -> Scene:
    prints = itertools.cycle(_FINGERPRINTS)

    def span(most: int = 40) -> float:
        return draw(st.integers(1, most)) * UNIT + next(prints) * 2.0**-26

    def chance(eighths: int) -> bool:
        return eighths > 0 and draw(st.integers(0, 7)) >= 8 - eighths

    def keys(within: tuple[str, ...] = ("/",)) -> tuple[str, ...]:
        choice = [key for key in KEYS if any(covers(each, key) for each in within)]
        return tuple(draw(st.lists(st.sampled_from(choice), max_size=2))) if choice else ()

    def job(depth: int, above: Job | None = None) -> Job:
        covered = above is not None and odds.covered
        made = Job(span=span(), fails=chance(odds.fails))
        if not chance(odds.undeclared):
            writes = keys(above.writes) if covered and above else keys()
            reads = keys((*above.reads, *above.writes)) if covered and above else keys()
            made = attrs.evolve(made, reads=reads, writes=writes)
        if depth and chance(5):
            inner = [job(depth - 1, made) for _ in range(draw(st.integers(1, 2)))]
            made = attrs.evolve(made, nested=tuple(inner))
        return attrs.evolve(made, alone=above is None and chance(odds.alone))

    batches = []
    for _ in range(draw(st.integers(1, odds.batches))):
        kind = draw(st.sampled_from(("turn", "run")))
        batches.append(
            Batch(
                jobs=tuple(job(odds.depth) for _ in range(draw(st.integers(1, odds.jobs)))),
                after=span(20),
                kind=kind,
                ends=draw(st.sampled_from(("cancel", "timeout"))),
                within=span(80) if chance(odds.ends) else math.inf,
                one_by_one=kind == "run" and chance(odds.one_by_one),
            )
        )
    calls = draw(st.integers(1, 3)) if chance(odds.limited) else math.inf
    return Scene(batches=tuple(batches), calls=calls)


def scenes(**odds: Any) -> st.SearchStrategy[Scene]:
    return _scenes(Odds(**odds))


# Performing.


@attrs.define(eq=False)
class Story:
    """What became of one call."""

    place: str
    job: Job
    batch: int
    above: Story | None = None
    submitted: float = 0.0
    order: int = 0
    """Its place among all submits."""
    began: float | None = None
    ended: float = math.inf
    status: str = ""
    content: str = ""
    seen: dict[str, tuple[str, ...]] = attrs.Factory(dict)
    """What it found where its keys reach."""

    def ancestors(self) -> Iterator[Story]:
        above = self.above
        while above is not None:
            yield above
            above = above.above

    def related(self, other: Story) -> bool:
        return other in self.ancestors() or self in other.ancestors()


@attrs.define(eq=False)
class Performance:
    """One run of one scene."""

    scene: Scene
    stories: dict[str, Story] = attrs.Factory(dict)
    state: dict[str, list[str]] = attrs.Factory(lambda: {leaf: [] for leaf in LEAVES})
    working: list[Story] = attrs.Factory(list)
    most: int = 0
    violation: AssertionError | None = None
    origin: float = 0.0
    kernel: Any = None

    def now(self) -> float:
        return anyio.current_time() - self.origin

    def look(self, keys: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        return {
            leaf: tuple(names)
            for leaf, names in self.state.items()
            if any(covers(key, leaf) for key in keys)
        }

    def write(self, story: Story) -> None:
        for leaf in LEAVES:
            if any(covers(key, leaf) for key in story.job.writes):
                self.state[leaf].append(story.place)

    def submitting(self, place: str, job: Job, batch: int, above: Story | None) -> ToolCall:
        self.stories[place] = Story(
            place, job, batch, above, submitted=self.now(), order=len(self.stories)
        )
        name = "alone" if job.alone else "work"
        arguments = {"place": place, "reads": list(job.reads), "writes": list(job.writes)}
        return ToolCall(place, name, arguments)

    async def body(self, place: str) -> str:
        story = self.stories[place]
        job = story.job
        story.began = self.now()
        story.seen = self.look((*job.reads, *job.writes))
        self.audit(story)
        self.working.append(story)
        self.most = max(self.most, len(self.working))
        try:
            await anyio.sleep(job.span / 2 if job.nested else job.span)
            if job.nested:
                await self.nest(story)
                await anyio.sleep(job.span / 2)
            if job.fails:
                raise ValueError(place)
            return place
        finally:
            self.working.remove(story)
            if not job.nested and self.look((*job.reads, *job.writes)) != story.seen:
                self.complain(f"{place} saw what it covers change under it")
            self.write(story)

    async def nest(self, story: Story) -> None:
        turn = self.kernel.turn(self.tools(story.job.nested), deps=self)
        try:
            async with turn:
                for index, job in enumerate(story.job.nested):
                    turn.submit(self.submitting(f"{story.place}.{index}", job, story.batch, story))
        finally:
            self.settled(turn.results)

    def audit(self, story: Story) -> None:
        """No two that conflict work at once."""
        for other in self.working:
            if not story.related(other) and conflict(story, other):
                self.complain(f"{story.place} and {other.place} work at once")

    def complain(self, what: str) -> None:
        # Kept, because in a body it would become a result.
        self.violation = self.violation or AssertionError(what)

    def settled(self, results: tuple[ToolResult, ...]) -> None:
        for result in results:
            story = self.stories[result.call.id]
            story.status, story.content = str(result.status), str(result.content)
            story.ended = result.ended_at - self.origin

    def tools(self, jobs: tuple[Job, ...]) -> list[Tool[..., Any]]:
        return [WORK, ALONE] if any(job.alone for job in jobs) else [WORK]

    async def perform(self, number: int, batch: Batch) -> None:
        await anyio.sleep(batch.after)
        calls = [(f"{number}.{index}", job) for index, job in enumerate(batch.jobs)]

        def submitting() -> list[ToolCall]:
            return [self.submitting(place, job, number, None) for place, job in calls]

        if batch.kind == "run":
            bound: dict[str, Any] = {}
            if batch.within < math.inf:
                bound["timeout"] = batch.within
            agent = Agent(
                model=ScriptedModel([lambda request: submitting(), "done"]),
                tools=self.tools(batch.jobs),
                parallel_tool_calls=not batch.one_by_one,
            )
            results: list[ToolResult] = []
            try:
                async with self.kernel.start(agent, "go", deps=self, **bound) as run:
                    async for event in run:
                        result = getattr(event, "result", None)
                        if result is not None and not event.parents:
                            results.append(result)
                    await run.wait()
            except DeadlineExceeded:
                pass
            self.settled(tuple(results))
            return
        timeout = batch.within if batch.ends == "timeout" and batch.within < math.inf else None
        tools = self.tools(batch.jobs)
        async with self.kernel.turn(tools, deps=self, timeout=timeout) as turn:
            for call in submitting():
                turn.submit(call)
            if timeout is None and batch.within < math.inf:
                await anyio.sleep(batch.within)
                turn.cancel()
        self.settled(turn.results)

    async def main(self) -> None:
        async with Kernel(limits=Limits(calls=self.scene.calls)) as self.kernel:
            with anyio.fail_after(FAR):
                async with self.kernel.turn([WORK]) as turn:  # the backend opens with the first
                    turn.submit(ToolCall("", "unknown"))
                self.origin = anyio.current_time()
                async with nothing_left(), anyio.create_task_group() as group:
                    for number, batch in enumerate(self.scene.batches):
                        group.start_soon(self.perform, number, batch)
            look = self.kernel.statistics()
            assert not look.keys, f"keys are left: {look.keys}"
            limiter = look.limiters["calls"]
            assert (limiter.lent, limiter.waiting) == (0, 0), limiter


async def _work(place: str, reads: list[str], writes: list[str], context: CallContext[Any]) -> str:
    return await context.deps.body(place)


def _tool(name: str, *, exclusive: bool) -> Tool[..., Any]:
    return Tool(
        _work,
        name=name,
        reads=lambda reads: reads,
        writes=lambda writes: writes,
        exclusive=exclusive,
    )


WORK, ALONE = _tool("work", exclusive=False), _tool("alone", exclusive=True)


def performed(scene: Scene, loop: Loop) -> Performance:
    """Perform *scene*; raises AssertionError if it gets stuck, or two worked at once that must
    not."""
    performance = Performance(scene)
    try:
        loop.run(performance.main)
    except TimeoutError as exc:
        raise AssertionError(f"stuck: {performance.kernel.statistics().keys}") from exc
    if performance.violation is not None:
        raise performance.violation
    return performance


def conflict(one: Story, other: Story) -> bool:
    """Whether two calls may not overlap."""
    in_turn = one.batch == other.batch and one.above is other.above is None
    return one.job.conflicts(other.job) or (in_turn and (one.job.alone or other.job.alone))


# Foretelling.


def foretold(performance: Performance) -> dict[str, tuple[float | None, float]]:
    """When each call begins and settles, without nesting and with room for all, by its place.

    A call begins when the last of those that were submitted before it, and conflict with it, has
    settled; or never, if its turn is ended first.
    """
    told: dict[str, tuple[float | None, float]] = {}
    before: list[Story] = []
    for story in sorted(performance.stories.values(), key=lambda story: story.order):
        batch = performance.scene.batches[story.batch]
        end = batch.after + batch.within
        waits_for = [
            other
            for other in before
            if conflict(story, other) or (batch.one_by_one and other.batch == story.batch)
        ]
        begin = max([story.submitted, *(told[other.place][1] for other in waits_for)])
        before.append(story)
        told[story.place] = (
            (None, end) if begin >= end else (begin, min(begin + story.job.span, end))
        )
    return told


def one_by_one(performance: Performance, order: list[Story]) -> Performance:
    """The calls of *order*, one after the other, in a world of their own; and so what they nest."""
    serial = Performance(performance.scene)

    def run(story: Story) -> None:
        keys = (*story.job.reads, *story.job.writes)
        serial.stories[story.place] = attrs.evolve(story, seen=serial.look(keys))
        for nested in performance.stories.values():
            if nested.above is story and nested.began is not None:
                run(nested)
        serial.write(story)

    for story in order:
        run(story)
    return serial
