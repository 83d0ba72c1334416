"""Several models as one: who is asked when, what is told of it, and what is raised in the end."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from tests.kernel.agents import asks
from tests.kernel.agents import virtual_backend as virtual_backend
from tests.kernel.bodies import a_kernel, fine
from tests.support import Loop
from turnscope import Agent, Kernel, ModelError, ModelsFailed, Retry, fallback, tool
from turnscope.abc import ModelRequest
from turnscope.events import (
    CallDelta,
    CallDiscarded,
    CallSealed,
    ModelEvent,
    ModelFellBack,
    ModelFinished,
    ModelRetried,
    ModelStarted,
    TextDelta,
    TextStreamed,
)
from turnscope.testing import ScriptedModel, Stream

in_a_loop = pytest.mark.anyio
EXACT = Retry(attempts=2, initial=0.5, jitter=0)


class Named(ScriptedModel):
    """A scripted model with a name, which wants to be opened before it is asked."""

    def __init__(self, name: str, *script: Any) -> None:
        super().__init__(script)
        self.name = name
        self.opened = 0

    async def __aenter__(self) -> Named:
        self.opened += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.opened -= 1

    @asynccontextmanager
    async def stream(self, request: ModelRequest, /) -> Any:
        assert self.opened
        async with super().stream(request) as events:
            yield events


def busy(status: int | None = 503, **more: Any) -> ModelError:
    return ModelError(f"busy {status}", status=status, **more)


def agent(*models: Any, **options: Any) -> Agent[Any, Any]:
    options.setdefault("retry", None)
    on = options.pop("on", None)
    return Agent(model=fallback(*models, on=on), tools=[fine], **options)


@in_a_loop
@pytest.mark.parametrize(
    "error",
    [
        busy(429),
        busy(503),
        busy(529),
        busy(402),
        busy(429, transient=False),
        busy(500, transient=False),
        ModelError("no connection", transient=True),
    ],
    ids=str,
)
async def test_the_next_model_is_asked_at_once_and_events_say_so(error: ModelError) -> None:
    first, second = Named("one", error), Named("two", "Hello")
    async with a_kernel() as kernel:
        start = anyio.current_time()
        async with kernel.start(agent(first, second), "go") as run:
            told = [event async for event in run]
            result = await run.wait()
        assert anyio.current_time() == start
        assert (first.opened, second.opened) == (1, 1)
    assert (first.opened, second.opened) == (0, 0)
    assert (result.output, result.turns) == ("Hello", 1)
    fell = [event for event in told if isinstance(event, ModelFellBack)]
    assert [(event.model, event.error) for event in fell] == [("two", error)]
    kinds = [type(event) for event in told]
    assert kinds.index(ModelStarted) < kinds.index(ModelFellBack) < kinds.index(TextStreamed)
    assert first.requests == second.requests


@in_a_loop
@pytest.mark.parametrize(
    "error", [busy(400), busy(401), busy(404), busy(None), ValueError("a mistake")], ids=str
)
async def test_what_would_fail_anywhere_or_is_a_mistake_is_raised_as_it_is(
    error: Exception,
) -> None:
    first, second = Named("one", error), Named("two")
    async with a_kernel() as kernel:
        with pytest.raises(ModelError) as caught:
            await kernel.run(agent(first, second), "go")
    assert error in (caught.value, caught.value.__cause__)
    assert not isinstance(caught.value, ModelsFailed)
    assert not second.requests


@in_a_loop
async def test_the_failures_may_be_declared() -> None:
    for on in (ValueError, (OSError, ValueError), lambda exc: "mistake" in str(exc)):
        async with a_kernel() as kernel:
            models = Named("one", ValueError("a mistake")), Named("two", "Hello")
            assert (await kernel.run(agent(*models, on=on), "go")).output == "Hello"
            with pytest.raises(ModelError, match="busy"):
                await kernel.run(agent(Named("one", busy()), Named("two"), on=on), "go")


@in_a_loop
async def test_nobody_else_answers_once_something_has_come() -> None:
    """A call is at work by then: it is dropped, and the request comes anew, from the first."""
    worked: list[int] = []

    @tool(read_only=True)
    async def look(n: int) -> int:
        worked.append(n)
        return n

    asked = [CallDelta(0, "c", "look", '{"n": 1}'), CallSealed(0)]
    cut = Stream([(0.1, asked[0]), (0.1, asked[1]), (0.5, busy())])
    first, second = Named("one", cut, "Hello"), Named("two")
    one = agent(first, second, retry=EXACT).replace(tools=[look])
    async with a_kernel() as kernel:
        async with kernel.start(one, "go") as run:
            told = [event async for event in run]
            assert (await run.wait()).output == "Hello"
    assert worked == [1]
    assert not second.requests
    kinds = [type(event) for event in told]
    assert ModelFellBack not in kinds
    assert ModelRetried in kinds and CallDiscarded in kinds


@in_a_loop
async def test_if_all_fail_the_error_has_what_each_raised() -> None:
    errors = [busy(503, retry_after=9), busy(429, retry_after=4), busy(400)]
    models = [Named(str(number), error) for number, error in enumerate(errors)]
    async with a_kernel() as kernel:
        with pytest.raises(ModelsFailed) as caught:
            await kernel.run(agent(*models), "go")
    raised = caught.value
    assert raised.errors == tuple(errors)
    assert raised.__cause__ is errors[-1]
    assert (raised.status, raised.retry_after, raised.transient) == (400, 4, True)
    assert all(f"- {number}: ModelError: busy" in str(raised) for number in range(3))
    assert raised.history is not None


@pytest.mark.parametrize(
    ("errors", "transient", "retry_after"),
    [
        ([busy(400), busy(401)], False, None),
        ([busy(503), busy(429, retry_after=3)], True, None),
        ([busy(400, retry_after=1), busy(429, retry_after=3)], True, 3),
        ([ValueError("x"), busy(429, retry_after=3)], True, 3),
    ],
)
def test_they_may_pass_if_one_may_and_after_as_long_as_all_of_those_ask(
    errors: list[Exception], transient: bool, retry_after: float | None
) -> None:
    raised = ModelsFailed([("m", error) for error in errors])
    assert (raised.transient, raised.retry_after) == (transient, retry_after)


@in_a_loop
async def test_the_agent_asks_all_of_them_anew_after_its_wait() -> None:
    first, second = Named("one", busy(), "Hello"), Named("two", busy())
    async with a_kernel() as kernel:
        start = anyio.current_time()
        result = await kernel.run(agent(first, second, retry=EXACT), "go")
        assert anyio.current_time() - start == pytest.approx(0.5)
    assert result.output == "Hello"
    assert (len(first.requests), len(second.requests)) == (2, 1)


@in_a_loop
async def test_each_request_begins_with_the_first() -> None:
    first = Named("one", busy(), "Hello")
    second = Named("two", asks(fine))
    async with a_kernel() as kernel:
        assert (await kernel.run(agent(first, second), "go")).output == "Hello"
    assert (len(first.requests), len(second.requests)) == (2, 1)


@in_a_loop
async def test_a_fallback_may_fall_back_on_another() -> None:
    inner = fallback(Named("one", busy()), Named("two", busy()))
    async with a_kernel() as kernel:
        result = await kernel.run(agent(inner, Named("three", "Hello")), "go")
    assert result.output == "Hello"


@in_a_loop
async def test_a_cancel_is_no_failure_and_closes_the_one_that_is_asked() -> None:
    first = Named("one", Stream([(0.1, TextDelta("Hel")), (math.inf, ModelFinished())]))
    second = Named("two")
    async with a_kernel() as kernel:
        with anyio.move_on_after(1) as scope:
            await kernel.run(agent(first, second), "go")
        assert scope.cancelled_caught
    assert not second.requests


def test_two_kernels_may_share_one(virtual_loop: Loop) -> None:
    first, second = Named("one", busy(), busy()), Named("two", "a", "b")
    one = agent(first, second)

    async def main() -> None:
        async with Kernel() as outer:
            async with Kernel() as inner:
                assert (await inner.run(one, "go")).output == "a"
                assert (await outer.run(one, "go")).output == "b"
                assert first.opened == 2
            assert first.opened == 1
        assert first.opened == 0

    virtual_loop.run(main)


@pytest.mark.parametrize(
    ("models", "on", "kind", "words"),
    [
        ((ScriptedModel([]),), None, ValueError, "at least two"),
        ((ScriptedModel([]), "nobody:x"), None, ValueError, "no model is named"),
        ((ScriptedModel([]), ScriptedModel), None, TypeError, "is no model"),
        ((ScriptedModel([]), ScriptedModel([])), 5, TypeError, "fallback(on=5)"),
        ((ScriptedModel([]), ScriptedModel([])), KeyboardInterrupt, TypeError, "never tried"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    models: tuple[Any, ...], on: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        fallback(*models, on=on)
    assert words in str(caught.value)


@in_a_loop
async def test_an_error_after_a_fallback_is_told_with_the_one_before() -> None:
    async def broken() -> AsyncIterator[ModelEvent]:
        yield TextDelta("Hel")
        raise busy(502)

    class Broken:
        @asynccontextmanager
        async def stream(self, request: ModelRequest, /) -> Any:
            yield broken()

    async with a_kernel() as kernel:
        with pytest.raises(ModelsFailed) as caught:
            await kernel.run(agent(Named("one", busy(503)), Broken()), "go")
    assert [getattr(error, "status", None) for error in caught.value.errors] == [503, 502]
