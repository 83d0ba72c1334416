"""ScriptedModel and Stream: every kind of answer, at its time, and what was asked."""

from __future__ import annotations

import json
import math
from typing import Any

import anyio
import pytest

from tests.kernel.agents import virtual_backend
from tests.kernel.bodies import UNIT, a_kernel, fine, took
from turnscope import Agent, History, ModelError, ToolCall, Usage, UserMessage
from turnscope.abc import Model, ModelRequest
from turnscope.events import (
    CallDelta,
    CallSealed,
    ModelEvent,
    ModelFinished,
    ReasoningDelta,
    TextDelta,
)
from turnscope.testing import ScriptedModel, Stream

__all__ = ["virtual_backend"]

pytestmark = pytest.mark.anyio

REQUEST = ModelRequest(history=History([UserMessage("Hi")]))


async def streamed(model: ScriptedModel, request: ModelRequest = REQUEST) -> list[ModelEvent]:
    async with model.stream(request) as events:
        return [event async for event in events]


async def test_a_scripted_model_is_a_model() -> None:
    assert isinstance(ScriptedModel([]), Model)


async def test_a_text_is_streamed_as_an_answer() -> None:
    model = ScriptedModel(["Hello.", ""], usage=Usage(output_tokens=2))
    assert await streamed(model) == [
        TextDelta("Hello."),
        ModelFinished("stop", Usage(output_tokens=2)),
    ]
    assert await streamed(model) == [
        TextDelta(""),
        ModelFinished("stop", Usage(output_tokens=2)),
    ]


async def test_texts_and_calls_are_streamed_in_their_order() -> None:
    model = ScriptedModel(
        [
            ToolCall("a", "f"),
            ["Look: ", ToolCall("a", "f", {"n": 1}), "and ", ToolCall("", "g", b'{"m":2}')],
            (),
        ]
    )
    assert await streamed(model) == [
        CallDelta(0, "a", "f", "{}"),
        CallSealed(0),
        ModelFinished("calls"),
    ]
    assert await streamed(model) == [
        TextDelta("Look: "),
        CallDelta(0, "a", "f", '{"n": 1}'),
        CallSealed(0),
        TextDelta("and "),
        CallDelta(1, "", "g", '{"m":2}'),
        CallSealed(1),
        ModelFinished("calls"),
    ]
    assert await streamed(model) == [ModelFinished("stop")]


async def test_a_stream_comes_at_its_times_and_nothing_is_added_to_it() -> None:
    events = [ReasoningDelta("Hm."), TextDelta("a"), TextDelta("b")]
    times = [UNIT, UNIT, 3 * UNIT]
    model = ScriptedModel([Stream(zip(times, events, strict=True))])
    start = anyio.current_time()
    seen = []
    async with model.stream(REQUEST) as stream:
        async for event in stream:
            took(start, times[len(seen)])
            seen.append(event)
    assert seen == events


async def test_an_exception_is_raised_in_its_place() -> None:
    model = ScriptedModel(
        [Stream([(0, TextDelta("a")), (UNIT, OSError("cut off"))]), LookupError("at once")]
    )
    seen = []
    with pytest.raises(OSError, match="cut off"):
        async with model.stream(REQUEST) as events:
            async for event in events:
                seen.append(event)  # noqa: PERF401 because what came before the error counts
    assert seen == [TextDelta("a")]
    with pytest.raises(LookupError, match="at once"):
        await streamed(model)


async def test_functions_of_the_request_give_answers_async_or_not() -> None:
    def said(request: ModelRequest) -> str:
        return str(request.history[0].content)

    async def awaited(request: ModelRequest) -> Any:
        await anyio.sleep(UNIT)
        return Stream([(0, TextDelta(f"after {UNIT}")), (0, ModelFinished())])

    model = ScriptedModel([said, awaited, lambda _: ValueError("no")])
    assert (await streamed(model))[0] == TextDelta("Hi")
    assert (await streamed(model))[0] == TextDelta(f"after {UNIT}")
    with pytest.raises(ValueError, match="no"):
        await streamed(model)


async def test_one_function_answers_all_requests() -> None:
    model = ScriptedModel(lambda request: f"{len(request.history)}")
    for _ in range(3):
        assert (await streamed(model))[0] == TextDelta("1")
    assert model.requests == [REQUEST] * 3


async def test_a_request_beyond_the_script_says_how_long_the_script_is() -> None:
    model = ScriptedModel(["one"])
    await streamed(model)
    with pytest.raises(ModelError, match="the script has 1 answers, and this is request 2: add"):
        await streamed(model)
    assert len(model.requests) == 2


async def test_what_was_asked_is_kept_as_it_was() -> None:
    model = ScriptedModel([[ToolCall("a", "fine")], "ok"])
    async with a_kernel() as kernel:
        result = await kernel.run(Agent(model=model, tools=[fine]), "Hi")
    assert [len(request.history) for request in model.requests] == [1, 3]
    assert model.requests[1].history[:] == result.history[:3]


@pytest.mark.parametrize("answer", [None, 5, b"text", {"a": 1}, [None], ["a", 5], object()])
async def test_what_is_no_answer_is_refused_with_what_is_one(answer: Any) -> None:
    model = ScriptedModel(lambda _: answer)
    with pytest.raises(TypeError, match="a scripted answer is"):
        await streamed(model)


async def test_a_script_is_a_list() -> None:
    with pytest.raises(TypeError, match=r"a list of answers: ScriptedModel\(\[text\]\)"):
        ScriptedModel("answer")


@pytest.mark.parametrize("times", [[-1], [1, 0], [math.nan], [0, math.nan]])
async def test_the_times_of_a_stream_never_go_back(times: list[float]) -> None:
    with pytest.raises(ValueError, match="seconds from the start of the stream"):
        Stream([(time, TextDelta("a")) for time in times])


async def test_to_leave_a_stream_early_leaves_nothing_open() -> None:
    model = ScriptedModel([Stream([(0, TextDelta("a")), (60, ModelFinished())])])
    async with model.stream(REQUEST) as events:
        async for event in events:
            assert event == TextDelta("a")
            break
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_arguments_of_a_mapping_become_json() -> None:
    model = ScriptedModel([ToolCall("a", "f", {"city": "Zürich", "n": [1, None]})])
    (delta, *_) = await streamed(model)
    assert isinstance(delta, CallDelta)
    assert json.loads(delta.arguments) == {"city": "Zürich", "n": [1, None]}
