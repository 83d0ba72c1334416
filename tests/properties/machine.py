"""Runs a plan in real kernels on a given event loop, and writes down what happened.

The bodies are instrumented: they note when they start, are interrupted, have cleaned up and end.
Every exception that is raised on purpose is kept, for the law that none gets lost. Above: the laws.
Below: `plans`, `perform`, `story`, and the public surface of turnscope.
"""

from __future__ import annotations

import asyncio
import math
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, TypeAlias

import anyio
import attrs
from anyio import CancelScope

from tests.support import Loop
from turnscope import CallContext, Kernel, Limits, Tool, ToolCall, ToolResult, Turn
from turnscope.events import RunEvent
from turnscope.testing import nothing_left

from .perform import perform, perform_turn
from .plans import CallPlan, Plan, Tasks, TurnPlan
from .story import Story

FAR = 100_000.0
"""Virtual seconds after which a plan is stuck."""

Audit = Callable[["Machine"], None]


@attrs.define(eq=False)
class Submitted:
    """One call as it went in."""

    place: str
    plan: CallPlan
    call: ToolCall
    instant: float
    order: int
    """Its place among all submits of the plan."""


@attrs.define(eq=False)
class Machine:
    """One run of one plan."""

    plan: Plan
    audit: Audit = lambda machine: None
    """Called in each step that a body takes, to assert what must hold at every instant."""
    observers: tuple[Any, ...] = ()
    far: float = FAR

    story: Story = attrs.Factory(Story)
    turns: dict[str, Turn] = attrs.Factory(dict)
    submitted: dict[str, list[Submitted]] = attrs.Factory(dict)
    """By the place of the turn."""
    raised: list[tuple[str, BaseException]] = attrs.Factory(list)
    """Every exception raised on purpose, with the place of the body or block that raised it."""
    outcome: BaseException | None = None
    """What left the outermost turn's block."""
    beyond: BaseException | None = None
    """What left the scope that bounds the caller."""
    scope: CancelScope | None = None
    events: list[RunEvent] = attrs.Factory(list)
    working: Counter[str] = attrs.Factory(Counter)
    """Bodies at work by the limiters they count in: parked ones, and those resumed without, not."""
    began: list[tuple[float, str]] = attrs.Factory(list)
    """The starts of bodies, in their order."""
    parked: list[tuple[str, float, float]] = attrs.Factory(list)
    """Calls that came back from their nested turns: the place, when they could, when they did."""
    kernels: tuple[Kernel, ...] = ()
    origin: float = 0.0
    count: int = 0
    violation: AssertionError | None = None
    """The first that the audit found; raised after the run: in a body it would be a result."""

    def look(self) -> None:
        try:
            self.audit(self)
        except AssertionError as exc:
            self.violation = self.violation or exc

    def observe(self, event: RunEvent) -> None:
        self.events.append(event)

    def now(self) -> float:
        return anyio.current_time() - self.origin

    def plan_of(self, place: str) -> CallPlan:
        prefix, _, index = place.rpartition(":")
        return self.submitted[f"{prefix}:" if prefix else ""][int(index)].plan

    async def body(self, place: str, context: CallContext[Any]) -> str:
        """The body of every tool: what the plan says for *place*."""
        plan = self.plan_of(place)
        world = _World(self, place, context)
        world.limiters = ("calls",) if plan.limit is None else (plan.limit, "calls")
        deadline = context.deadline - self.origin
        self.story.call(place).deadline = deadline if deadline < self.far else math.inf
        self.began.append((self.now(), place))
        world.count(+1)
        try:
            await perform(plan.body, world)
        finally:
            if world.counts:
                world.count(-1)
        return place

    def results(self) -> Iterator[tuple[str, Submitted, ToolResult]]:
        """Every call with its result, after the run: its place, what was submitted, the result."""
        for prefix, calls in self.submitted.items():
            for submitted, result in zip(calls, self.turns[prefix].results, strict=True):
                yield f"{prefix}{submitted.place}", submitted, result

    async def main(self) -> None:
        plan = self.plan
        limits = Limits(
            calls=plan.calls,
            threads=math.inf,
            processes=1,
            groups=dict(plan.groups),
        )
        observers = (*self.observers, self)
        async with (
            Kernel(limits=limits, grace=plan.grace, observers=observers) as kernel,
            Kernel(
                limits=Limits(calls=math.inf), grace=plan.patience, observers=observers
            ) as patient,
        ):
            self.kernels = (kernel, patient)
            for each in self.kernels:  # backends open with their first turn, and stay
                with anyio.fail_after(self.far):
                    async with each.turn([_nothing]) as turn:
                        turn.submit(ToolCall("", "_nothing"))
            self.events.clear()
            self.origin = anyio.current_time()
            with anyio.fail_after(self.far):
                async with nothing_left(within=2**-20):
                    await self._caller()
                for each in self.kernels:
                    statistics = each.statistics()
                    assert statistics.turns == 0, "a turn is still open after its block"
                    for name, limiter in statistics.limiters.items():
                        state = (limiter.lent, limiter.waiting, limiter.leaked)
                        assert state == (0, 0, 0), f"{name} is left with {limiter}"
            before = attrs.asdict(self.story)
            await anyio.sleep(self.far / 1_000)
            assert attrs.asdict(self.story) == before, "a body went on after its turn was left"
        for place, _, result in self.results():
            story = self.story.call(place)
            story.status, story.value = str(result.status), result.value
            story.ended = result.ended_at - self.origin
            if result.started_at is not None:
                story.started = result.started_at - self.origin

    async def _caller(self) -> None:
        how, after = self.plan.caller.how, self.plan.caller.after
        if how == "native":
            task = asyncio.create_task(self._outermost())
            for span in (after, *self.plan.caller.again):
                await asyncio.wait([task], timeout=span)
                if not task.done():
                    task.cancel()
            await asyncio.wait([task])
            self.beyond = asyncio.CancelledError() if task.cancelled() else task.exception()
            return
        try:
            if how == "asyncio.timeout":
                async with asyncio.timeout(after):
                    await self._outermost()
            elif how == "Ctrl-C":
                async with anyio.create_task_group() as group:
                    group.start_soon(self._press_later, after)
                    with _bare(self):
                        await self._outermost()
                    group.cancel_scope.cancel()
            elif how == "scope":
                async with anyio.create_task_group() as group:
                    group.start_soon(self._cancel_later, group.cancel_scope, after)
                    self.scope = group.cancel_scope
                    with _bare(self):
                        await self._outermost()
                    group.cancel_scope.cancel()
            else:
                with self._bounds(how, after) as self.scope:
                    await self._outermost()
        except BaseException as exc:
            self.beyond = exc

    def _bounds(self, how: str, after: float) -> AbstractContextManager[CancelScope | None]:
        if how == "nothing":
            return nullcontext()
        return anyio.move_on_after(after) if how == "move_on_after" else anyio.fail_after(after)

    async def _cancel_later(self, scope: CancelScope, after: float) -> None:
        await anyio.sleep(after)
        scope.cancel()

    async def _press_later(self, after: float) -> None:
        import trio

        await anyio.sleep(after)

        @trio.lowlevel.enable_ki_protection  # so it is not raised here, but in the main task
        def press() -> None:
            signal.raise_signal(signal.SIGINT)

        press()

    async def _outermost(self) -> None:
        try:
            await perform_turn(self.plan.turn, _World(self, "", None))
        except BaseException as exc:
            self.outcome = exc
            self.story.raised = name_of(exc)
            raise


@contextmanager
def _bare(machine: Machine) -> Iterator[None]:
    # A task group would wrap it; what is under test is what left the turn.
    try:
        yield
    except anyio.get_cancelled_exc_class():
        raise
    except BaseException as exc:
        machine.beyond = exc


def name_of(exc: BaseException) -> str:
    """The name that plans and the model have for *exc*."""
    if isinstance(exc, anyio.get_cancelled_exc_class()):
        return "cancelled"
    return getattr(exc, "planned", None) or (exc.args[0] if exc.args else type(exc).__name__)


async def _nothing() -> None: ...


@lru_cache(maxsize=4096)
def _tool(
    timeout: float | None, idle_timeout: float | None, limit: str | None, fatal: bool
) -> Tool[..., Any]:
    """One tool for each set of options: making one takes as long as running a turn."""

    async def body(where: str, context: CallContext[Machine]) -> str:
        return await context.deps.body(where, context)

    return Tool(
        body,
        name=f"tool-{hash((timeout, idle_timeout, limit, fatal)) & 0xFFFFFFFFFF:x}",
        timeout=timeout,
        idle_timeout=idle_timeout,
        limit=limit,
        on_error="raise" if fatal else "result",
    )


def tool_of(call: CallPlan) -> Tool[..., Any]:
    return _tool(call.timeout, call.idle_timeout, call.limit, call.fatal)


class _World:
    """What `perform` acts upon."""

    def __init__(self, machine: Machine, place: str, context: CallContext[Any] | None) -> None:
        self.machine, self.place, self.context = machine, place, context
        self.cancelled = anyio.get_cancelled_exc_class()
        self.turns = 0
        self.awaited = 0
        """How many tasks it has begun."""
        self.counts = False
        """Whether it is at work, and so counts in its limiters."""

    async def sleep(self, span: float, shield: bool = False) -> None:
        if shield:
            with CancelScope(shield=True):
                await anyio.sleep(span)
        else:
            await anyio.sleep(span)

    async def fail(self, how: str) -> None:
        raised = self.machine.raised
        if how == "task group":
            async with anyio.create_task_group() as group:
                group.start_soon(_fails, self)
        elif how == "cancellation":
            raise _cancellation(self.cancelled)
        exc = failure(how, self.place)
        raised.append((self.place, exc))
        raise exc

    def beat(self, progress: bool) -> None:
        assert self.context is not None
        if progress:
            self.context.progress(self.machine.now())
        else:
            self.context.heartbeat()

    def enter_a_scope(self) -> None:
        CancelScope().__enter__()  # as by a generator that is not read to its end

    def note(self, what: str) -> None:
        self.machine.story.call(self.place).note(what, self.machine.now())
        self.machine.look()

    async def tasks(self, step: Tasks) -> None:
        worlds = [_TaskWorld(self) for _ in step.bodies]
        each = [perform(body, world) for body, world in zip(step.bodies, worlds, strict=True)]
        await AWAITS[step.how](each)

    def count(self, change: int) -> None:
        """Begin to work, or end."""
        self.counts = change > 0
        for limiter in self.limiters:
            self.machine.working[limiter] += change

    limiters: tuple[str, ...] = ()

    @asynccontextmanager
    async def turn(self, plan: TurnPlan) -> AsyncIterator[_Turn]:
        machine = self.machine
        place = f"{self.place}/{self.turns}:" if self.place else ""
        self.turns += 1
        kernel = machine.kernels[plan.patient]
        bound = {} if plan.timeout is None else {"timeout": plan.timeout}
        if bound and plan.by_deadline:
            bound = {"deadline": anyio.current_time() + plan.timeout}
        tools = {tool_of(call).name: tool_of(call) for call in plan.calls()}
        if self.counts:
            self.count(-1)
        turn = kernel.turn(tools.values(), deps=machine, **bound)
        machine.turns[place], machine.submitted[place] = turn, []
        block_left = 0.0
        try:
            async with turn:
                try:
                    yield _Turn(machine, turn, place)
                finally:
                    block_left = machine.now()
        finally:
            machine.story.left[place] = machine.now()
            if self.context is not None and not self.context.cancelling:
                self.count(+1)
                ends = (result.ended_at - machine.origin for result in turn.results)
                machine.parked.append((self.place, max([block_left, *ends]), machine.now()))
            machine.look()


class _TaskWorld(_World):
    """What a task that a body awaits can do."""

    def __init__(self, of: _World) -> None:
        super().__init__(of.machine, f"{of.place}.{of.awaited}", of.context)
        of.awaited += 1

    def note(self, what: str) -> None:
        self.machine.story.task(self.place).note(what, self.machine.now())
        self.machine.look()

    def count(self, change: int) -> None:
        """It works in its body's place."""


Works: TypeAlias = "list[Coroutine[Any, Any, None]]"


async def _by_task(works: Works) -> None:
    (work,) = works
    await asyncio.create_task(work)


async def _by_task_in_a_task(works: Works) -> None:
    await asyncio.create_task(_by_task(works))


async def _by_gather(works: Works) -> None:
    _raise_first(await asyncio.gather(*works, return_exceptions=True))


async def _by_gather_in_a_gather(works: Works) -> None:
    await _by_gather([_by_gather(works)])


def _raise_first(results: list[BaseException | None]) -> None:
    for result in results:
        if result is not None:
            raise result


async def _by_task_group(works: Works) -> None:
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)


async def _by_wait_for(works: Works) -> None:
    (work,) = works
    await asyncio.wait_for(work, FAR)


async def _by_shield(works: Works) -> None:
    (work,) = works
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


AWAITS = {
    "task": _by_task,
    "task in a task": _by_task_in_a_task,
    "gather": _by_gather,
    "gather in a gather": _by_gather_in_a_gather,
    "TaskGroup": _by_task_group,
    "wait_for": _by_wait_for,
    "shield": _by_shield,
}


async def _fails(world: _World) -> None:
    exc = failure("child", world.place)
    world.machine.raised.append((world.place, exc))
    raise exc


class _Turn:
    def __init__(self, machine: Machine, turn: Turn, place: str) -> None:
        self.machine, self.turn, self.place = machine, turn, place

    def submit(self, plan: CallPlan) -> None:
        calls = self.machine.submitted[self.place]
        index = len(calls)
        tool = tool_of(plan)
        where: Any = f"{self.place}{index}"
        name = "nobody" if plan.asked_for == "unknown tool" else tool.name
        arguments = {"there": 1} if plan.asked_for == "bad arguments" else {"where": where}
        # Ids repeat: models repeat them.
        call = ToolCall(f"c{index // 2}", name, arguments)
        calls.append(Submitted(str(index), plan, call, self.machine.now(), self.machine.count))
        self.machine.count += 1
        assert self.turn.submit(call) == index

    def cancel(self) -> None:
        self.turn.cancel()


def _cancellation(cancelled: type[BaseException]) -> BaseException:
    if issubclass(cancelled, asyncio.CancelledError):
        return cancelled("raised by the tool itself")
    return cancelled._create(source="explicit")  # trio lets nobody else make one


def failure(how: str, place: str) -> BaseException:
    """A fresh exception for the name *how*."""
    if how == "group of one":
        exc: BaseException = ExceptionGroup(how, [ValueError(how, place)])
    elif how == "group of two":
        exc = ExceptionGroup(how, [ValueError(how, place), KeyError(how, place)])
    elif how == "group in a group":
        inner = ExceptionGroup(how, [TypeError(how, place), KeyError(how, place)])
        exc = ExceptionGroup(how, [ExceptionGroup(how, [inner])])
    else:
        kinds: dict[str, type[BaseException]] = {
            "TimeoutError": TimeoutError,
            "SystemExit": SystemExit,
            "GeneratorExit": GeneratorExit,
            "KeyboardInterrupt": KeyboardInterrupt,
        }
        exc = kinds.get(how, ValueError)(how, place)
    return exc


def run(plan: Plan, loop: Loop, **options: Any) -> Machine:
    """Run *plan* on *loop*; raises AssertionError if something is left, or it gets stuck."""
    machine = Machine(plan, **options)
    try:
        loop.run(machine.main)
    except TimeoutError as exc:
        raise AssertionError(f"stuck: {machine.kernels[0].statistics()}") from exc
    if machine.violation is not None:
        raise machine.violation
    return machine
