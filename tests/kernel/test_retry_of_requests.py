"""Requests that are sent again: one turn, one answer, and readers who know what is void."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest

from tests.kernel.agents import an_agent, asks
from tests.kernel.agents import virtual_backend as virtual_backend
from tests.kernel.bodies import a_kernel
from turnscope import (
    Agent,
    Budget,
    DeadlineExceeded,
    Limits,
    ModelError,
    Retry,
    RunCancelled,
    Usage,
)
from turnscope.abc import ModelRequest
from turnscope.events import (
    CallDelta,
    CallReady,
    CallSealed,
    ModelAnswered,
    ModelEvent,
    ModelFinished,
    ModelRetried,
    ModelStarted,
    RunFinished,
    TextDelta,
    TextStreamed,
    TurnFinished,
)
from turnscope.testing import ScriptedModel, Stream

pytestmark = pytest.mark.anyio

EXACT = Retry(attempts=3, initial=0.5, jitter=0)


def busy(status: int | None = 503, **more: Any) -> ModelError:
    return ModelError("busy", status=status, **more)


CUT = Stream([(0.1, TextDelta("Hel")), (0.2, ModelError("the connection broke", transient=True))])


async def test_a_request_is_sent_again_after_exact_waits_and_is_one_turn() -> None:
    agent = an_agent(busy(), busy(429), "Hello", retry=EXACT, budget=Budget(turns=1))
    async with a_kernel() as kernel:
        start = anyio.current_time()
        result = await kernel.run(agent, "go")
        assert anyio.current_time() - start == pytest.approx(0.5 + 1.0)
    assert (result.output, result.turns) == ("Hello", 1)
    requests = agent.model.requests
    assert len(requests) == 3 and requests[0] is requests[1] is requests[2]


async def test_by_default_what_may_pass_is_tried_three_times() -> None:
    agent = an_agent(busy(), busy(), "Hello")
    async with a_kernel() as kernel:
        start = anyio.current_time()
        assert (await kernel.run(agent, "go")).output == "Hello"
        assert 1.5 <= anyio.current_time() - start <= 2.5
        with pytest.raises(ModelError):
            await kernel.run(an_agent(busy(), busy(), busy(), "Hello"), "go")


async def test_without_a_retry_nothing_is_sent_again() -> None:
    agent = an_agent(error := busy(), "Hello", retry=None)
    async with a_kernel() as kernel:
        with pytest.raises(ModelError) as caught:
            await kernel.run(agent, "go")
    assert caught.value is error
    assert len(agent.model.requests) == 1


@pytest.mark.parametrize("error", [busy(400), busy(401), busy(None), OSError("a mistake of ours")])
async def test_what_will_not_pass_is_not_sent_again(error: Exception) -> None:
    agent = an_agent(error, "Hello")
    async with a_kernel() as kernel:
        with pytest.raises(ModelError):
            await kernel.run(agent, "go")
    assert len(agent.model.requests) == 1


async def test_the_last_error_is_raised_and_has_those_before_it() -> None:
    errors = [busy(500), busy(502), busy(504)]
    async with a_kernel() as kernel:
        with pytest.raises(ModelError) as caught:
            await kernel.run(an_agent(*errors, retry=EXACT), "go")
    assert caught.value is errors[2]
    assert caught.value.failures == (errors[0], errors[1])
    assert caught.value.__notes__ == ["it was tried 3 times"]
    assert caught.value.history is not None and len(caught.value.history) == 1


async def test_instructions_that_fail_are_not_the_models_and_are_not_asked_again() -> None:
    asked = 0

    def instructions(_: Any) -> str:
        nonlocal asked
        asked += 1
        raise LookupError

    agent = an_agent("Hello", instructions=instructions, retry=Retry(on=Exception))
    async with a_kernel() as kernel:
        with pytest.raises(ModelError, match="instructions failed"):
            await kernel.run(agent, "go")
    assert (asked, agent.model.requests) == (1, [])


async def test_instructions_are_asked_once_for_all_attempts() -> None:
    asked = 0

    def instructions(_: Any) -> str:
        nonlocal asked
        asked += 1
        return f"asked {asked} times"

    agent = an_agent(busy(), "Hello", instructions=instructions, retry=EXACT)
    async with a_kernel() as kernel:
        await kernel.run(agent, "go")
    assert [each.instructions for each in agent.model.requests] == ["asked 1 times"] * 2


# Time.


async def test_a_server_that_says_when_is_not_asked_before() -> None:
    agent = an_agent(busy(429, retry_after=7), "Hello", retry=EXACT)
    async with a_kernel() as kernel:
        start = anyio.current_time()
        await kernel.run(agent, "go")
        assert anyio.current_time() - start == pytest.approx(7)


@pytest.mark.parametrize(
    ("seconds", "options", "retry", "why"),
    [
        (121, {}, EXACT, "asks for more than 120 s"),
        (7, {"timeout": 7}, EXACT, "the deadline would come"),
        (7, {"budget": Budget(seconds=7)}, EXACT, "the deadline would come"),
        (7, {}, Retry(total=7), "its time would be up"),
    ],
)
async def test_a_wait_that_leads_nowhere_is_not_begun(
    seconds: float, options: Any, retry: Retry, why: str
) -> None:
    agent = an_agent(error := busy(429, retry_after=seconds), "Hello", retry=retry)
    async with a_kernel() as kernel:
        start = anyio.current_time()
        with pytest.raises(ModelError) as caught:
            await kernel.run(agent, "go", **options)
        assert anyio.current_time() == start
    assert caught.value is error
    assert why in caught.value.__notes__[0]


async def test_total_ends_a_request_that_hangs_with_the_last_error() -> None:
    hangs = Stream([(100, ModelFinished())])
    agent = an_agent(first := busy(), hangs, retry=Retry(initial=0.5, jitter=0, total=3))
    async with a_kernel() as kernel:
        start = anyio.current_time()
        with pytest.raises(ModelError) as caught:
            await kernel.run(agent, "go")
        assert anyio.current_time() - start == pytest.approx(3)
    assert caught.value is first
    assert caught.value.__notes__ == ["the 3 s for all attempts were up in attempt 2"]
    assert [type(each) for each in caught.value.failures] == [DeadlineExceeded]


async def test_total_ends_a_first_attempt_too() -> None:
    agent = an_agent(Stream([(100, ModelFinished())]), retry=Retry(total=3))
    async with a_kernel() as kernel:
        with pytest.raises(ModelError, match="did not answer: the 3 s for all attempts") as caught:
            await kernel.run(agent, "go")
    assert [type(each) for each in caught.value.failures] == [DeadlineExceeded]


async def test_an_answer_at_the_last_moment_counts() -> None:
    @asynccontextmanager
    async def stream(_: ModelRequest) -> AsyncIterator[AsyncIterator[ModelEvent]]:
        async def events() -> AsyncIterator[ModelEvent]:
            with suppress(BaseException):  # the interrupt, which adapters should let through
                await anyio.sleep(100)
            yield TextDelta("Hello")
            yield ModelFinished()

        made = events()
        try:
            yield made
        finally:
            await made.aclose()

    model = ScriptedModel([])
    model.stream = stream  # type: ignore[method-assign, assignment]  # because it is shorter
    async with a_kernel() as kernel:
        result = await kernel.run(Agent(model=model, retry=Retry(total=3)), "go")
    assert result.output == "Hello"


async def test_a_cancel_ends_a_wait_at_once() -> None:
    agent = an_agent(busy(), "Hello", retry=Retry(initial=5, jitter=0))
    async with a_kernel() as kernel:
        start = anyio.current_time()
        async with kernel.start(agent, "go") as run:
            await anyio.sleep(1)
            run.cancel()
            with pytest.raises(RunCancelled) as caught:
                await run.wait()
            assert anyio.current_time() - start == pytest.approx(1)
            assert isinstance(caught.value.__cause__, ModelError)
    assert len(agent.model.requests) == 1


async def test_the_callers_cancellation_ends_a_wait_at_once() -> None:
    agent = an_agent(busy(), "Hello", retry=Retry(initial=5, jitter=0))
    async with a_kernel() as kernel, anyio.create_task_group() as group:
        start = anyio.current_time()
        group.start_soon(kernel.run, agent, "go")
        await anyio.sleep(1)
        group.cancel_scope.cancel()
    assert anyio.current_time() - start == pytest.approx(1)


async def test_a_request_that_fails_when_the_run_is_asked_is_not_sent_again() -> None:
    class Breaks:
        requests = 0

        @asynccontextmanager
        async def stream(self, _: ModelRequest) -> AsyncIterator[Any]:
            self.requests += 1
            try:
                await anyio.sleep(100)
                yield
            except BaseException as exc:
                raise busy() from exc

    model = Breaks()
    async with a_kernel() as kernel:
        start = anyio.current_time()
        with pytest.raises(DeadlineExceeded):
            await kernel.run(Agent(model=model), "go", timeout=1)
        assert anyio.current_time() - start == pytest.approx(1)
    assert model.requests == 1


# Slots.


async def test_who_waits_holds_no_slot_and_comes_back_last() -> None:
    order: list[str] = []

    def a_model(name: str, *script: Any) -> ScriptedModel:
        left = list(script)

        async def answer(_: ModelRequest) -> Any:
            order.append(name)
            await anyio.sleep(1)
            return left.pop(0)

        return ScriptedModel(answer)

    async with a_kernel(limits=Limits(model_requests=1)) as kernel:
        start = anyio.current_time()
        async with anyio.create_task_group() as group:
            models = [a_model("a", busy(), "Hello"), a_model("b", "Hello"), a_model("c", "Hello")]
            for model in models:
                agent = Agent(model=model, retry=EXACT)
                group.start_soon(kernel.run, agent, "go")
                await anyio.sleep(0.01)
        assert anyio.current_time() - start == pytest.approx(4)
    assert order == ["a", "b", "c", "a"]


# Events, and what is spent.


async def test_events_say_what_is_void() -> None:
    agent = an_agent(CUT, "Hello", retry=EXACT)
    async with a_kernel() as kernel:
        async with kernel.start(agent, "go") as run:
            events = [event async for event in run]
    kinds = [type(event) for event in events[1:]]
    assert kinds == [
        ModelStarted,
        TextStreamed,
        ModelRetried,
        TextStreamed,
        ModelAnswered,
        TurnFinished,
        RunFinished,
    ]
    retried = events[3]
    assert isinstance(retried, ModelRetried)
    assert (retried.attempt, retried.delay, str(retried.error)) == (1, 0.5, "the connection broke")
    assert retried.turn == 0


async def test_text_begins_anew_after_an_empty_line() -> None:
    agent = an_agent(CUT, "Hello", retry=EXACT)
    async with a_kernel() as kernel:
        async with kernel.start(agent, "go") as run:
            assert [text async for text in run.text()] == ["Hel", "\n\n", "Hello"]
        agent = an_agent(busy(), "Hello", retry=EXACT)
        async with kernel.start(agent, "go") as run:
            assert [text async for text in run.text()] == ["Hello"]
        agent = an_agent(["Look: ", *asks("fine")], busy(), "Hello", retry=EXACT)
        async with kernel.start(agent, "go") as run:
            assert [text async for text in run.text()] == ["Look: ", "Hello"]


async def test_calls_of_an_answer_that_was_cut_off_are_not_run() -> None:
    half = Stream(
        [(0, CallDelta(0, "c1", "fine", "{}")), (0, CallSealed(0)), (0.1, busy())],
    )
    agent = an_agent(half, "Hello", retry=EXACT)
    async with a_kernel() as kernel:
        async with kernel.start(agent, "go") as run:
            assert not [event async for event in run if isinstance(event, CallReady)]
            assert len((await run.wait()).history) == 2


def reporting(tokens: int) -> Stream:
    """A stream that breaks after it has told what it used."""
    return Stream([(0, ModelFinished(usage=Usage(input_tokens=tokens))), (0, busy())])


async def test_what_failed_attempts_have_used_counts() -> None:
    model = ScriptedModel([reporting(5), "Hello"], usage=Usage(input_tokens=7))
    async with a_kernel() as kernel:
        result = await kernel.run(Agent(model=model, retry=EXACT), "go")
    assert result.usage.tokens == 12


async def test_an_attempt_that_has_spent_the_budget_is_the_last() -> None:
    model = ScriptedModel([reporting(5), "Hello"])
    agent = Agent(model=model, retry=EXACT, budget=Budget(tokens=5))
    async with a_kernel() as kernel:
        with pytest.raises(ModelError) as caught:
            await kernel.run(agent, "go")
    assert "not tried again: the budget of 5 tokens is spent" in caught.value.__notes__[0]
    assert len(model.requests) == 1


async def test_attempts_without_end_end_with_the_run() -> None:
    agent = Agent(
        model=ScriptedModel(lambda _: busy()), retry=Retry(attempts=math.inf, maximum=2, jitter=0)
    )
    async with a_kernel() as kernel:
        start = anyio.current_time()
        with pytest.raises(ModelError, match="busy"):
            await kernel.run(agent, "go", timeout=60)
        assert anyio.current_time() - start == pytest.approx(0.5 + 1 + 29 * 2)
