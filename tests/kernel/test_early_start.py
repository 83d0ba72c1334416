"""Calls that start while the model streams: which, when, and what becomes of them if it goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any, Literal

import anyio
import pytest

from tests.kernel.agents import an_agent, ends
from tests.kernel.bodies import (
    UNIT,
    a_kernel,
    anyio_backend,
    elapse,
    move_on_after,
    took,
)
from tests.support import Loop
from turnscope import (
    Agent,
    Budget,
    Kernel,
    Limits,
    ModelError,
    Retry,
    RunCancelled,
    Status,
    Tool,
    ToolCall,
    ToolFailed,
    Usage,
    tool,
)
from turnscope.events import (
    CallDelta,
    CallDiscarded,
    CallEvent,
    CallReady,
    CallSealed,
    CallSettled,
    CallStarted,
    FinishReason,
    ModelAnswered,
    ModelEvent,
    ModelFinished,
    RunEvent,
    TextDelta,
)
from turnscope.testing import ScriptedModel, Stream

__all__ = ["anyio_backend"]

pytestmark = pytest.mark.anyio

started: list[str] = []
ended: list[str] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    started.clear()
    ended.clear()


async def _work(name: str, span: float = 5 * UNIT) -> str:
    started.append(name)
    try:
        await anyio.sleep(span)
    finally:
        ended.append(name)
    return name


@tool(read_only=True)
async def look(name: str, span: float = 5 * UNIT) -> str:
    return await _work(name, span)


@tool
async def write(name: str, span: float = 5 * UNIT) -> str:
    return await _work(name, span)


@tool(read_only=True, on_error="raise")
async def fatal(name: str) -> str:
    await anyio.sleep(UNIT)
    raise LookupError(name)


class Told:
    """An observer that keeps what it is told of calls and answers."""

    def __init__(self) -> None:
        self.events: list[RunEvent] = []

    def observe(self, event: RunEvent) -> None:
        if not (isinstance(event, CallEvent) and event.call.name == "fine"):  # of `a_kernel`
            self.events.append(event)

    @property
    def calls(self) -> list[tuple[str, int]]:
        return [(type(e).__name__, e.index) for e in self.events if isinstance(e, CallEvent)]

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def one_by_one(
    *calls: tuple[Tool[..., Any] | str, str],
    end: ModelEvent | BaseException | FinishReason = "calls",
    at: float = 10 * UNIT,
) -> Stream:
    """Each call whole and sealed one unit after the other; the end of it all comes *at* last."""
    events: list[tuple[float, Any]] = []
    for n, (each, arguments) in enumerate(calls):
        name = each if isinstance(each, str) else each.name
        events.append(((n + 1) * UNIT, CallDelta(n, f"c{n}", name, arguments)))
        events.append(((n + 1) * UNIT, CallSealed(n)))
    events.append((at, ModelFinished(end) if isinstance(end, str) else end))
    return Stream(events)


def named(*names: str) -> list[tuple[Tool[..., Any], str]]:
    """Calls of `look`."""
    return [(look, f'{{"name": "{name}"}}') for name in names]


WRITE = (write, '{"name": "w"}')


# What starts early.


async def test_the_streamed_turn_takes_as_long_as_its_stream() -> None:
    agent = an_agent(one_by_one(*named("a", "b", "c", "d")), "done", tools=[look])
    async with a_kernel() as kernel:
        start = anyio.current_time()
        result = await kernel.run(agent, "go")
        took(start, 10 * UNIT)
    assert [message.content for message in result.history.results] == ["a", "b", "c", "d"]


async def test_a_call_that_writes_waits_for_the_response_and_others_do_not_wait_for_it() -> None:
    told = Told()
    calls = [*named("a"), WRITE, *named("b")]
    async with a_kernel(observers=[told]) as kernel:
        result = await kernel.run(an_agent(one_by_one(*calls), "done", tools=[look, write]), "go")
    assert [message.content for message in result.history.results] == ["a", "w", "b"]
    assert started == ["a", "b", "w"]
    kinds = [(type(event), getattr(event, "index", None)) for event in told.events]
    answer = kinds.index((ModelAnswered, None))
    assert kinds.index((CallSettled, 2)) < answer < kinds.index((CallReady, 1))


async def test_no_call_starts_before_every_earlier_one_is_sealed() -> None:
    events: list[tuple[float, Any]] = [
        (UNIT, CallDelta(0, "c0", "look", '{"name": "a"')),
        (UNIT, CallDelta(1, "c1", "look", '{"name": "b"}')),
        (UNIT, CallSealed(1)),
        (4 * UNIT, CallDelta(0, arguments="}")),
        (6 * UNIT, CallSealed(0)),
        (20 * UNIT, ModelFinished("calls")),
    ]
    told = Told()
    async with a_kernel(observers=[told]) as kernel:
        start = anyio.current_time()
        await kernel.run(an_agent(Stream(events), "done", tools=[look]), "go")
    assert told.calls[:2] == [("CallReady", 0), ("CallReady", 1)]
    for event in told.of(CallStarted):
        assert start + 5.5 * UNIT < event.time < start + 12 * UNIT


@pytest.mark.parametrize(
    ("options", "early"),
    [
        ({}, False),
        ({"read_only": True}, True),
        ({"idempotent": True}, False),
        ({"idempotent": True, "early": True}, True),
        ({"read_only": True, "early": False}, False),
        ({"early": False}, False),
    ],
)
async def test_a_tool_says_whether_its_calls_start_early(
    options: dict[str, Any], early: bool
) -> None:
    made = Tool(_work, name="work", **options)
    assert made.early is early
    stream = one_by_one((made, '{"name": "a", "span": 0}'))
    told = Told()
    async with a_kernel(observers=[told]) as kernel:
        await kernel.run(an_agent(stream, "done", tools=[made]), "go")
    kinds = [type(event) for event in told.events]
    assert (kinds.index(CallSettled) < kinds.index(ModelAnswered)) is early


def test_a_tool_that_does_harm_cannot_start_early() -> None:
    with pytest.raises(ValueError, match=r"tool '_work': early=True .* read_only=True or idem"):
        Tool(_work, early=True)
    with pytest.raises(ValueError, match="or drop it"):
        tool(early=True, destructive=True)(_work)


async def test_an_agent_that_wants_one_call_at_a_time_starts_none_early() -> None:
    agent = an_agent(
        one_by_one(WRITE, *named("a", "b")), "x", tools=[look, write], parallel_tool_calls=False
    )
    async with a_kernel() as kernel:
        start = anyio.current_time()
        await kernel.run(agent, "go")
        took(start, 25 * UNIT)
    assert started == ended == ["w", "a", "b"]


async def test_a_model_that_streams_faster_than_calls_start_loses_none() -> None:
    calls = [ToolCall(f"c{n}", "look", {"name": str(n), "span": UNIT}) for n in range(50)]
    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(calls, "done", tools=[look]), "go")
    assert [message.content for message in result.history.results] == [str(n) for n in range(50)]
    assert sorted(started) == sorted(str(n) for n in range(50))


async def test_limits_hold_for_calls_that_start_early() -> None:
    agent = an_agent(
        one_by_one(*named("a", "b", "c"), at=30 * UNIT), "x", tools=[look], max_parallel_calls=1
    )
    async with a_kernel(limits=Limits(calls=2)) as kernel:
        start = anyio.current_time()
        await kernel.run(agent, "go")
        took(start, 30 * UNIT)
    assert started == ended == ["a", "b", "c"]


async def test_ids_are_those_that_calls_have_in_the_history() -> None:
    stream = Stream(
        [
            *[(0, e) for n in range(3) for e in (CallDelta(n, "same", "look", '{"name": "a"}'),)],
            *[(UNIT, CallSealed(n)) for n in range(3)],
            (8 * UNIT, ModelFinished("calls")),
        ]
    )
    told = Told()
    async with a_kernel(observers=[told]) as kernel:
        result = await kernel.run(an_agent(stream, stream, "done", tools=[look]), "go")
    ids = [message.id for message in result.history.results]
    assert len(set(ids)) == 6
    assert [event.call.id for event in told.of(CallReady)] == ids


async def test_a_call_that_starts_early_sees_the_callers_context_not_the_models() -> None:
    var: ContextVar[str] = ContextVar("var", default="nobody's")

    @tool(read_only=True)
    async def read() -> str:
        return var.get()

    class Model:
        @asynccontextmanager
        async def stream(self, request: Any) -> Any:
            var.set("the model's")
            async with ScriptedModel([one_by_one((read, "{}"))]).stream(request) as events:
                yield events

    async with a_kernel() as kernel:
        var.set("the caller's")
        agent = Agent(model=Model(), tools=[read], budget=Budget(turns=1))
        run = kernel.start(agent, "go")
        with suppress(Exception):
            async with run:
                await run.wait()
    assert [message.content for message in run.history.results] == ["the caller's"]


async def test_what_is_refused_is_refused_when_the_response_is_complete() -> None:
    told = Told()
    calls: list[Any] = [("nobody", "{}"), (look, '{"nme": 1}'), *named("a")]
    async with a_kernel(observers=[told]) as kernel:
        result = await kernel.run(an_agent(one_by_one(*calls), "done", tools=[look]), "go")
    assert ends(result.history) == ["invalid", "invalid", "ok"]
    assert told.calls[:3] == [("CallReady", 2), ("CallStarted", 2), ("CallSettled", 2)]


# What goes wrong.


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (RuntimeError("reset"), "failed before it was complete"),
        (CallSealed(7), "failed before it was complete"),
        (CallDelta(1, arguments="more"), "failed before it was complete"),
        ("refusal", "a refusal"),
        ("filtered", "a refusal"),
    ],
)
async def test_calls_of_a_response_that_does_not_count_are_ended_and_discarded(
    end: Any, reason: str
) -> None:
    told = Told()
    stream = one_by_one(*named("a", "b"), WRITE, end=end, at=6.5 * UNIT)
    async with a_kernel(observers=[told]) as kernel:
        run = kernel.start(an_agent(stream, tools=[look, write]), "go")
        with suppress(ModelError):
            async with run:
                await run.wait()
    assert not run.history.results
    assert started == ["a", "b"]
    assert sorted(ended) == ["a", "b"]
    statuses = {event.index: event.result.status for event in told.of(CallSettled)}
    assert statuses == {0: Status.OK, 1: Status.CANCELLED}
    discarded = told.of(CallDiscarded)
    assert sorted(event.index for event in discarded) == [0, 1]
    assert all(reason in event.reason for event in discarded)
    for index in (0, 1):
        kinds = [kind for kind, each in told.calls if each == index]
        assert kinds == ["CallReady", "CallStarted", "CallSettled", "CallDiscarded"]


async def test_a_call_that_begins_before_one_that_has_started_is_a_model_error() -> None:
    stream = Stream(
        [
            (0, CallDelta(3, "c3", "look", '{"name": "a"}')),
            (0, CallSealed(3)),
            (UNIT, CallDelta(1, "c1", "look", '{"name": "b"}')),
            (UNIT, ModelFinished("calls")),
        ]
    )
    async with a_kernel() as kernel:
        with pytest.raises(ModelError, match="began a call, 1, after it had ended a later one, 3"):
            await kernel.run(an_agent(stream, tools=[look]), "go")
    assert started == ended == ["a"]


async def test_an_answer_that_was_cut_keeps_the_calls_that_were_sealed() -> None:
    stream = Stream(
        [
            (0, CallDelta(0, "c0", "look", '{"name": "a"}')),
            (0, CallSealed(0)),
            (UNIT, CallDelta(1, "c1", "look", '{"name": "b')),
            (2 * UNIT, ModelFinished("length")),
        ]
    )
    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(stream, "done", tools=[look]), "go")
    assert ends(result.history) == ["ok", "invalid"]
    assert started == ["a"]


async def test_a_call_that_may_not_fail_ends_the_turn_while_the_model_streams() -> None:
    told = Told()
    stream = one_by_one(*named("a"), (fatal, '{"name": "b"}'), at=100 * UNIT)
    async with a_kernel(observers=[told]) as kernel:
        start = anyio.current_time()
        with pytest.raises(ToolFailed) as caught:
            await kernel.run(an_agent(stream, tools=[look, fatal]), "go")
        took(start, 3 * UNIT)
    assert caught.value.result.call.id == "c1"
    assert isinstance(caught.value.__cause__, LookupError)
    assert len(caught.value.history or ()) == 1
    assert ended == ["a"]
    assert sorted(event.index for event in told.of(CallDiscarded)) == [0, 1]


async def test_a_call_that_may_not_fail_ends_nothing_once_it_is_discarded() -> None:
    @tool(read_only=True, on_error="raise")
    async def stubborn() -> None:
        try:
            await anyio.sleep(50 * UNIT)
        except BaseException as exc:
            raise LookupError from exc

    stream = one_by_one((stubborn, "{}"), end="refusal", at=2 * UNIT)
    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(stream, tools=[stubborn]), "go")
    assert result.reason == "refusal"


async def test_ctrl_c_in_a_call_that_started_early_is_raised_bare() -> None:
    @tool(read_only=True)
    async def pressed() -> None:
        raise KeyboardInterrupt

    stream = one_by_one(*named("a"), (pressed, "{}"))
    async with a_kernel() as kernel:
        with pytest.raises(KeyboardInterrupt):
            await kernel.run(an_agent(stream, tools=[look, pressed]), "go")
    assert started == ended == ["a"]


@pytest.mark.parametrize("how", ["cancel", "timeout", "scope"])
async def test_a_run_that_is_ended_in_mid_stream_ends_its_calls_and_keeps_nothing(
    how: Literal["cancel", "timeout", "scope"],
) -> None:
    told = Told()
    agent = an_agent(one_by_one(*named("a", "b"), WRITE, at=100 * UNIT), tools=[look, write])
    async with a_kernel(observers=[told]) as kernel:
        start = anyio.current_time()
        run = kernel.start(agent, "go", timeout=4 * UNIT if how == "timeout" else None)
        with move_on_after(4 * UNIT if how == "scope" else 1_000), suppress(Exception):
            async with run:
                if how == "cancel":
                    await elapse(4 * UNIT)
                    run.cancel("enough")
                await run.wait()
        took(start, 4 * UNIT)
    assert len(run.history) == 1
    assert sorted(ended) == ["a", "b"]
    assert sorted(event.index for event in told.of(CallDiscarded)) == [0, 1]


async def test_a_call_that_waits_for_its_slot_is_discarded_without_having_started() -> None:
    told = Told()
    stream = one_by_one(*named("a", "b", "c"), end="refusal", at=4 * UNIT)
    async with a_kernel(observers=[told], limits=Limits(calls=1)) as kernel:
        await kernel.run(an_agent(stream, tools=[look]), "go")
    statuses = [(event.index, event.result.status) for event in told.of(CallSettled)]
    assert sorted(statuses) == [(0, "cancelled"), (1, "not_started"), (2, "not_started")]
    assert started == ["a"]


async def test_a_discarded_call_may_clean_up_within_grace_and_no_longer() -> None:
    done: list[str] = []

    @tool(read_only=True, timeout=100)
    async def tidy(span: float) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(span)
            done.append("tidied")

    calls: list[Any] = [(tidy, f'{{"span": {UNIT}}}'), (tidy, f'{{"span": {99 * UNIT}}}')]
    async with a_kernel(grace=2 * UNIT) as kernel:
        start = anyio.current_time()
        await kernel.run(
            an_agent(one_by_one(*calls, end="refusal", at=3 * UNIT), tools=[tidy]), "go"
        )
        took(start, 5 * UNIT)
    assert done == ["tidied"]


async def test_a_run_in_a_call_that_is_discarded_ends_with_it() -> None:
    inner = an_agent([ToolCall("c", "look", {"name": "inner", "span": 99 * UNIT})], tools=[look])
    helper = inner.as_tool("helper", "Help.", idempotent=True, early=True)
    stream = one_by_one((helper, '{"prompt": "x"}'), end=OSError("reset"), at=3 * UNIT)
    async with a_kernel() as kernel:
        with pytest.raises(ModelError, match="reset"):
            await kernel.run(an_agent(stream, tools=[helper]), "go")
    assert started == ended == ["inner"]


def test_a_discarded_thread_that_cannot_be_stopped_is_told_as_leaked(any_loop: Loop) -> None:
    told = Told()
    free = threading.Event()

    @tool(read_only=True)
    def sleep() -> None:
        free.wait(20)

    async def main() -> None:
        async with Kernel(observers=[told], grace=0.05) as kernel:
            stream = one_by_one((sleep, "{}"), end="refusal", at=6 * UNIT)
            await kernel.run(an_agent(stream, tools=[sleep]), "go")
            assert kernel.statistics().limiters["threads"].leaked == 1
            free.set()
            while kernel.statistics().limiters["threads"].leaked:
                await anyio.sleep(0.01)

    any_loop.run(main)
    (settled,) = told.of(CallSettled)
    assert settled.result.leaked
    assert len(told.of(CallDiscarded)) == 1


# Budgets.


async def test_calls_beyond_the_budget_do_not_start_early() -> None:
    told = Told()
    stream = one_by_one(*named("a", "b", "c"))
    async with a_kernel(observers=[told]) as kernel:
        run = kernel.start(an_agent(stream, tools=[look], budget=Budget(calls=2)), "go")
        with suppress(Exception):
            async with run:
                await run.wait()
    assert ends(run.history) == ["ok", "ok", "not_started"]
    assert started == ["a", "b"]
    assert not told.of(CallDiscarded)


async def test_a_response_that_spends_the_budget_of_tokens_has_its_calls_discarded() -> None:
    told = Told()
    finished = ModelFinished("calls", Usage(input_tokens=10))
    stream = one_by_one(*named("a", "b"), WRITE, end=finished, at=6.5 * UNIT)
    async with a_kernel(observers=[told]) as kernel:
        agent = an_agent(stream, tools=[look, write], budget=Budget(tokens=5))
        run = kernel.start(agent, "go")
        with suppress(Exception):
            async with run:
                await run.wait()
    assert ends(run.history) == ["not_started"] * 3
    assert sorted(ended) == ["a", "b"]
    for index in (0, 1):
        assert [kind for kind, each in told.calls if each == index] == [
            *("CallReady", "CallStarted", "CallSettled", "CallDiscarded"),
            *("CallReady", "CallSettled"),
        ]


# More than one attempt at the request.


ONCE_MORE = Retry(attempts=2, on=ModelError, initial=0, jitter=0)


async def answered_after(first: Stream, then: Stream) -> tuple[Sequence[Any], Told]:
    told = Told()
    async with a_kernel(observers=[told]) as kernel:
        agent = an_agent(first, then, "done", tools=[look, write], retry=ONCE_MORE)
        result = await kernel.run(agent, "go")
    return [(each.id, each.content) for each in result.history.results], told


BROKEN = ModelError("cut off")


async def test_a_retried_response_that_asks_for_the_same_gets_the_result_that_there_is() -> None:
    results, told = await answered_after(
        one_by_one(*named("a", "b", "c"), end=BROKEN, at=7.5 * UNIT),
        # The same, written otherwise, in another order; and what had not finished.
        one_by_one((look, '{ "name":"b"}'), *named("c", "a", "d")),
    )
    assert results == [("c0", "b"), ("c1", "c"), ("c2", "a"), ("c3", "d")]
    assert sorted(started) == ["a", "b", "c", "c", "d"]
    first, second = told.calls[: 4 * 3], told.calls[4 * 3 :]
    assert [each for each in first if each[0] == "CallDiscarded"] == [
        ("CallDiscarded", n) for n in range(3)
    ]
    assert [each for each in second if each[1] == 0] == [("CallReady", 0), ("CallSettled", 0)]
    settled = [event.result for event in told.of(CallSettled) if event.result.call.id == "c2"][-1]
    assert (settled.value, settled.call.id) == ("a", "c2")


async def test_a_result_is_used_once_for_each_time_that_it_was_asked_for() -> None:
    results, _ = await answered_after(
        one_by_one(*named("a"), end=BROKEN, at=8 * UNIT), one_by_one(*named("a", "a"))
    )
    assert [content for _, content in results] == ["a", "a"]
    assert started == ["a", "a"]


async def test_a_retried_response_that_asks_for_less_or_for_else_has_the_rest_discarded() -> None:
    results, told = await answered_after(
        one_by_one(*named("a", "b"), end=BROKEN, at=8 * UNIT), one_by_one(WRITE)
    )
    assert results == [("c0", "w")]
    assert len(told.of(CallDiscarded)) == 2


async def test_another_attempt_begins_when_the_calls_of_the_one_before_have_ended() -> None:
    _, told = await answered_after(
        one_by_one(*named("a", "b"), end=BROKEN, at=3 * UNIT), one_by_one(*named("c"))
    )
    assert told.calls.index(("CallReady", 0)) == 0
    assert [kind for kind, _ in told.calls[4:8]] == ["CallSettled", "CallDiscarded"] * 2
    assert told.calls[8:] == [("CallReady", 0), ("CallStarted", 0), ("CallSettled", 0)]


async def test_text_may_stream_on_while_calls_work_and_nobody_reads() -> None:
    texts = [((n + 1) * UNIT, TextDelta("x")) for n in range(9)]
    stream = Stream(sorted([*one_by_one(*named("a")).events, *texts], key=lambda each: each[0]))
    async with a_kernel() as kernel:
        start = anyio.current_time()
        async with kernel.start(an_agent(stream, "done", tools=[look]), "go") as run:
            await anyio.sleep(10.5 * UNIT)  # and then reads all of it
            with anyio.fail_after(100 * UNIT):  # in real time it may have been late
                while ended != ["a"]:
                    await anyio.sleep(UNIT)
            assert "".join([text async for text in run.text()]) == "x" * 9 + "done"
        took(start, 10.5 * UNIT)


async def test_a_run_that_is_cancelled_by_its_tool_keeps_nothing_of_the_response() -> None:
    async with a_kernel() as kernel:

        @tool(read_only=True)
        async def end_it() -> None:
            run.cancel("the tool says so")
            await anyio.sleep_forever()

        stream = one_by_one((end_it, "{}"), at=100 * UNIT)
        run = kernel.start(an_agent(stream, tools=[end_it]), "go")
        with pytest.raises(RunCancelled, match="the tool says so"):
            async with run:
                await run.wait()
    assert len(run.history) == 1


async def test_a_model_that_swallows_the_cancel_and_answers_has_its_calls_counted() -> None:
    class Model:
        @asynccontextmanager
        async def stream(self, request: Any) -> Any:
            yield self._events()

        async def _events(self) -> Any:
            for index, (each, arguments) in enumerate([*named("a"), WRITE]):
                yield CallDelta(index, f"c{index}", each.name, arguments)
                yield CallSealed(index)
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                yield CallDelta(2, "c2", "look", '{"name": "late"}')
                yield CallSealed(2)
                yield ModelFinished("calls")

    told = Told()
    async with a_kernel(observers=[told]) as kernel:
        agent = Agent(model=Model(), tools=[look, write])
        async with kernel.start(agent, "go") as run:
            await elapse(UNIT)
            run.cancel()
            with pytest.raises(RunCancelled):
                await run.wait()
    assert ends(run.history) == ["cancelled", "not_started", "not_started"]
    assert started == ended == ["a"]
    assert not told.of(CallDiscarded)


async def test_a_call_whose_backend_is_still_opening_is_discarded_without_having_started() -> None:
    class Slow:
        name = "slow"

        async def __aenter__(self) -> Any:
            await anyio.sleep(20 * UNIT)
            return self

        async def __aexit__(self, *error: object) -> None: ...

        def check(self, fn: Any) -> None: ...

        async def call(self, fn: Any, kwargs: Any, context: Any) -> Any:
            return await fn(**kwargs)

    there = Tool(_work, name="there", backend="slow", read_only=True)
    told = Told()
    async with a_kernel(observers=[told], backends=[Slow()]) as kernel:
        start = anyio.current_time()
        stream = one_by_one((there, '{"name": "a"}'), end="refusal", at=2 * UNIT)
        await kernel.run(an_agent(stream, tools=[there]), "go")
        took(start, 2 * UNIT)
    assert [event.result.status for event in told.of(CallSettled)] == ["not_started"]
    assert len(told.of(CallDiscarded)) == 1
    assert started == []
