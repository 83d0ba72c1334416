"""Performs a chat in a real kernel on a given event loop, and writes down what happened.

The model and the bodies are instrumented: they note when they start, are interrupted and end. Every
history that anybody can get hold of is kept with the messages that it had then. Above: the laws.
Below: `talks`, and the public surface of turnscope.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import anyio
import attrs

from tests.support import Loop
from turnscope import (
    Agent,
    Budget,
    CallContext,
    History,
    Kernel,
    Limits,
    Run,
    RunContext,
    RunResult,
    Tool,
    ToolCall,
    Usage,
    UserMessage,
)
from turnscope.abc import ModelRequest
from turnscope.events import (
    CallDelta,
    CallSealed,
    ModelEvent,
    ModelFinished,
    RunEvent,
    TextDelta,
)
from turnscope.testing import nothing_left

from .talks import Answer, Ask, Chat, Hit, Talk, every_ask, every_talk

E = TypeVar("E", bound=RunEvent)

FAR = 100_000.0
"""Virtual seconds after which a chat is stuck."""


class Planned(Exception):
    """Raised on purpose."""


@attrs.define(eq=False)
class Ending:
    """How one run was left."""

    where: str
    run: Run[str]
    base: History | None
    """What it went on from."""
    error: BaseException | None = None
    result: RunResult[str] | None = None
    left: float = math.inf
    read: list[RunEvent] = attrs.Factory(list)
    """What its reader was given."""
    texts: list[str] = attrs.Factory(list)

    @property
    def end(self) -> str:
        """The class of what it raised; "" if it has a result."""
        return type(self.error).__name__ if self.error else ""


@attrs.define(eq=False)
class Talker:
    """One performance of one chat."""

    chat: Chat
    far: float = FAR
    scale: float = 1.0
    """Of all spans."""

    endings: dict[str, Ending] = attrs.Factory(dict)
    notes: list[tuple[str, str, float]] = attrs.Factory(list)
    """Place, what, when: of the requests and of the bodies."""
    events: list[RunEvent] = attrs.Factory(list)
    """What an observer was told."""
    prompts: dict[str, str] = attrs.Factory(dict)
    """The prompt of each run that had a request, by its id."""
    requests: list[tuple[str, History]] = attrs.Factory(list)
    seen: dict[int, tuple[History, tuple[Any, ...]]] = attrs.Factory(dict)
    """Every history that there was, with its messages as they were then."""
    deadlines: dict[str, float] = attrs.Factory(dict)
    """`CallContext.deadline`, as the bodies read it."""
    working: Counter[str] = attrs.Factory(Counter)
    """Bodies at work, by run; those of the tool "agent" are parked, and do not count."""
    void: Counter[str] = attrs.Factory(Counter)
    """The tokens of answers that failed when they had reported them, by prompt."""
    open: int = 0
    """Requests that are under way."""
    violation: str = ""
    strike: Callable[[], object] = lambda: None
    """What cancels the first run, in the way of the hit."""
    kernel: Kernel = attrs.field(init=False)
    origin: float = 0.0
    asks: dict[str, Ask] = attrs.Factory(dict)
    talks: dict[str, Talk] = attrs.Factory(dict)
    reached: float = math.inf
    """When the hit took place."""

    # What it is told.

    def now(self) -> float:
        return anyio.current_time() - self.origin

    def note(self, place: str, what: str) -> None:
        # Once for each instant: a swallower sees a hundred enforcements in one.
        if (note := (place, what, self.now())) not in self.notes[-8:]:
            self.notes.append(note)
        for ending in self.endings.values():
            self.keep(ending.run.history)

    def keep(self, history: History) -> History:
        if id(history) not in self.seen:
            self.seen[id(history)] = (history, tuple(history))
        return history

    def observe(self, event: RunEvent) -> None:
        self.events.append(event)
        if self.chat.hit.event == len(self.events) - 1:
            self._reach()
            self.strike()
        for ending in self.endings.values():
            self.keep(ending.run.history)

    def told(self, kind: type[E]) -> Iterator[E]:
        """The events of one kind, in their order."""
        return (event for event in self.events if isinstance(event, kind))

    def at(self, place: str, what: str) -> float | None:
        """When *what* was first noted at *place*, or None."""
        return next((when for p, w, when in self.notes if (p, w) == (place, what)), None)

    # The model.

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[ModelEvent]]:
        messages = self.keep(request.history)[:]
        last = max(n for n, message in enumerate(messages) if isinstance(message, UserMessage))
        where = str(messages[last].content)
        turn = sum(hasattr(message, "calls") for message in messages[last:])
        self.requests.append((where, request.history))
        answers = self.talks[where].answers
        if turn >= len(answers):
            raise Planned("there is no answer")
        answer, place = answers[turn], f"{where}.{turn}"
        self.note(place, "request")
        if answer.fails_at == -1:
            raise Planned("no connection")
        events = self._pieces(place, answer)
        self.open += 1
        if self.open > self.chat.requests:
            self.violation = f"{self.open} requests, of {self.chat.requests}"
        try:
            yield events
        except anyio.get_cancelled_exc_class():
            self.note(place, "interrupt")
            await anyio.sleep(answer.cleanup * self.scale)
            raise
        finally:
            await events.aclose()
            self.open -= 1
            self.note(place, "end")

    async def _pieces(self, place: str, answer: Answer) -> Any:
        pieces = list(pieces_of(place, answer))
        start = anyio.current_time()
        for number, piece in enumerate(pieces):
            if number == answer.fails_at:
                raise Planned("cut off")
            # Eighths are exact.
            part = 8 if number == len(pieces) - 1 else number * 8 // len(pieces)
            try:
                await anyio.sleep_until(start + answer.span * part / 8 * self.scale)
            except anyio.get_cancelled_exc_class():
                if not answer.swallows:
                    raise
            if not (answer.unfinished and isinstance(piece, ModelFinished)):
                yield piece
        if answer.fails_at is not None:
            if not answer.unfinished:
                self.void[place.rpartition(".")[0]] += answer.tokens
            raise Planned("cut off at the end")

    def instruct(self, context: RunContext[Any]) -> str:
        asked = [message for message in context.history if isinstance(message, UserMessage)]
        self.prompts[context.run_id] = str(asked[-1].content)
        return "as the chat says"

    # The tools.

    async def body(self, where: str, context: CallContext[Any]) -> str:
        ask = self.asks[where]
        self.note(where, "start")
        self.deadlines[where] = context.deadline - self.origin
        self._count(context.run_id, +1)
        try:
            await self._work(where, ask)
        finally:
            self._count(context.run_id, -1)
            self.note(where, "end")
        if ask.fails:
            raise Planned(where)
        return where

    async def _work(self, where: str, ask: Ask) -> None:
        cancelled = anyio.get_cancelled_exc_class()
        try:
            await anyio.sleep(ask.span * self.scale)
        except cancelled:
            self.note(where, "interrupt")
            swallows = ask.swallows
            while True:
                try:
                    await anyio.sleep(ask.cleanup * self.scale)
                    break
                except cancelled:
                    if swallows <= 0:
                        raise
                    swallows -= 1
            if ask.swallows <= 0:
                raise

    def _count(self, run_id: str, change: int) -> None:
        self.working[run_id] += change
        if change > 0:
            depth = self.prompts[run_id].count(".") // 2
            if self.working[run_id] > self.chat.levels[depth].cap:
                self.violation = f"{self.working} under {self.chat.levels[depth]}"
            if self.working.total() > self.chat.calls:
                self.violation = f"{self.working} under {self.chat.calls} calls"

    def agents(self) -> Agent[Any, str]:
        """The agent of the first level, which has that of the next as a tool, and so on."""
        tools: list[Tool[..., Any]] = []
        agent: Agent[Any, str] | None = None
        for level in reversed(self.chat.levels):
            agent = Agent(
                model=self,
                tools=[_WORK, _FATAL, *tools],
                instructions=self.instruct,
                max_parallel_calls=level.cap,
                budget=Budget(turns=level.turns, calls=level.calls, tokens=level.tokens),
            )
            tools = [agent.as_tool("agent", "Asks another agent.")]
        assert agent is not None
        return agent

    # The runs.

    async def main(self) -> None:
        chat = self.chat
        self.talks = dict(every_talk(chat))
        for number, talk in enumerate((chat.first, *chat.then)):
            self.asks |= every_ask(talk, f"t{number}")
        limits = Limits(calls=chat.calls, model_requests=chat.requests)
        async with nothing_left(within=2**-20):
            with anyio.fail_after(self.far):
                async with anyio.create_task_group() as group:
                    async with Kernel(
                        limits=limits, grace=chat.grace, observers=[self]
                    ) as self.kernel:
                        async with self.kernel.turn([_nothing]) as turn:
                            turn.submit(ToolCall("", "_nothing"))  # the backend opens, and stays
                        self.events.clear()
                        self.origin = anyio.current_time()
                        if chat.hit.how == "kernel":
                            group.start_soon(self._converse, "t0", None)
                            await anyio.sleep(chat.hit.after)
                            self.reached = self.now()
                        else:
                            async with nothing_left(within=2**-20):
                                await self._first()
                            await self._go_on()
                            self._all_quiet()
        before = list(self.notes)
        if math.isfinite(self.far):
            await anyio.sleep(self.far / 1_000)
        assert self.notes == before, "a body went on after its run was left"

    async def _go_on(self) -> None:
        first = self.endings["t0"].run.history
        try:
            again = History.from_json(first.to_json()) if self.chat.stored else first
        except ValueError as exc:
            raise AssertionError(f"what a run leaves, the next one takes: {exc}") from exc
        async with anyio.create_task_group() as group:
            for number in range(1, len(self.chat.then) + 1):
                group.start_soon(self._converse, f"t{number}", again)

    def _all_quiet(self) -> None:
        statistics = self.kernel.statistics()
        assert (statistics.runs, statistics.turns) == (0, 0), statistics
        for name, limiter in statistics.limiters.items():
            state = (limiter.lent, limiter.waiting, limiter.leaked)
            assert state == (0, 0, 0), f"{name} is left with {limiter}"

    async def _first(self) -> None:
        hit = self.chat.hit
        if hit.how == "native":
            await self._natively(hit)
        elif hit.how == "asyncio.timeout":
            with suppress(TimeoutError):
                async with asyncio.timeout(hit.after):
                    await self._converse("t0", None)
        elif hit.how == "move_on_after":
            with anyio.move_on_after(hit.after) as scope:
                self.strike = scope.cancel
                await self._converse("t0", None)
        elif hit.how == "fail_after":
            with suppress(TimeoutError):
                with anyio.fail_after(hit.after):
                    await self._converse("t0", None)
        elif hit.how == "Ctrl-C":
            async with anyio.create_task_group() as group:
                group.start_soon(self._press_later)
                with suppress(KeyboardInterrupt):
                    await self._converse("t0", None)
                group.cancel_scope.cancel()
        elif hit.how == "run.cancel":
            self.strike = lambda: self.endings["t0"].run.cancel("enough")
            async with anyio.create_task_group() as group:
                group.start_soon(self._cancel_later)
                await self._converse("t0", None)
                group.cancel_scope.cancel()
        else:
            await self._converse("t0", None)
        self.strike = lambda: None

    async def _natively(self, hit: Hit) -> None:
        task = asyncio.create_task(self._converse("t0", None))
        self.strike = task.cancel
        for span in (hit.after, hit.again):
            if span is not None:
                await asyncio.wait([task], timeout=None if span == math.inf else span)
                if not task.done():
                    self._reach()
                    task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None

    def _reach(self) -> None:
        self.reached = min(self.reached, self.now())

    async def _cancel_later(self) -> None:
        if self.chat.hit.event is None:
            await anyio.sleep(self.chat.hit.after)
            self._reach()
            self.strike()

    async def _press_later(self) -> None:
        import trio

        await anyio.sleep(self.chat.hit.after)
        self._reach()

        @trio.lowlevel.enable_ki_protection  # so it is not raised here, but in the main task
        def press() -> None:
            signal.raise_signal(signal.SIGINT)

        press()

    async def _converse(self, where: str, history: History | None) -> None:
        hit = self.chat.hit if where == "t0" else Hit()
        agent = self.agents()
        bounds: dict[str, Any] = {}
        if hit.how == "timeout":
            bounds["timeout"] = hit.after
        elif hit.how == "deadline":
            bounds["deadline"] = anyio.current_time() + hit.after
        elif hit.how == "seconds":
            bounds["budget"] = attrs.evolve(agent.budget, seconds=hit.after)
        run = self.kernel.start(agent, where, deps=self, history=history, **bounds)
        if history is not None:
            self.keep(history)
        ending = Ending(where, run, history)
        try:
            async with run:
                self.endings[where] = ending
                if hit.how == "raise":
                    await anyio.sleep(hit.after)
                    self._reach()
                    raise Planned("the block fails")
                if not await self._read(ending, hit):
                    self._reach()
                    return
                ending.result = await run.wait()
        except BaseException as exc:
            ending.error = exc
            if isinstance(exc, anyio.get_cancelled_exc_class()) or not isinstance(exc, Exception):
                raise
        finally:
            ending.left = self.now()

    async def _read(self, ending: Ending, hit: Hit) -> bool:
        """Whether it was read to its end."""
        if self.chat.reader == "text":
            async for text in ending.run.text():
                ending.texts.append(text)
                await anyio.sleep(self.chat.pause * self.scale)
        elif self.chat.reader == "events":
            async for event in ending.run:
                ending.read.append(event)
                self.keep(ending.run.history)
                if hit.how == "break" and len(ending.read) > hit.after:
                    return False
                if self.chat.pause:
                    await anyio.sleep(self.chat.pause * self.scale)
        return True


def pieces_of(where: str, answer: Answer) -> Iterator[ModelEvent]:
    """The events of *answer*, cut and woven as its seed says."""
    chance = random.Random(answer.cut)
    strands: list[list[ModelEvent]] = [[TextDelta(each) for each in cut(answer.text, chance)]]
    for index, ask in enumerate(answer.asks):
        arguments = ask.arguments
        if arguments is None:
            key = "prompt" if ask.tool == "agent" else "where"
            arguments = json.dumps({key: f"{where}.{index}"})
        first, *more = cut(arguments, chance) or [""]
        number = index * 2 + 1  # call order is that of the numbers, which may have gaps
        name = ask.id or chance.choice([None, ""])
        strand: list[ModelEvent] = [CallDelta(number, name, ask.tool, first)]
        strand += [CallDelta(number, chance.choice([None, name]), None, each) for each in more]
        if chance.random() < 0.5:
            strand.append(CallSealed(number))
        strands.append(strand)
    begun: set[int] = set()
    while strands := [strand for strand in strands if strand]:
        event = (strands[0] if chance.random() < 0.5 else chance.choice(strands)).pop(0)
        if isinstance(event, CallDelta):
            begun.add(event.index)
        # None may begin after a later one was sealed: then this one's end is not told.
        if not isinstance(event, CallSealed) or begun >= set(range(1, event.index, 2)):
            yield event
    yield ModelFinished(answer.reason, Usage(input_tokens=answer.tokens))


def cut(text: str, chance: random.Random) -> list[str]:
    """*text* in pieces."""
    places = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(4)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


async def _work(where: str, context: CallContext[Talker]) -> str:
    return await context.deps.body(where, context)


async def _nothing() -> None: ...


_WORK = Tool(_work, name="work")
_FATAL = Tool(_work, name="fatal", on_error="raise")


def perform(chat: Chat, loop: Loop, **options: Any) -> Talker:
    """Perform *chat* on *loop*; raises AssertionError if something is left, or it gets stuck."""
    talker = Talker(chat, **options)
    try:
        loop.run(talker.main)
    except BaseException as exc:
        while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
            exc = exc.exceptions[0]
        if isinstance(exc, TimeoutError):
            raise AssertionError(f"stuck: {talker.kernel.statistics()}") from exc
        raise exc  # of the task groups of the main task
    assert not talker.violation, talker.violation
    return talker
