"""What a server that nobody here wrote answers, in all three protocols: text, thought, whole runs."""

from __future__ import annotations

import gc
from typing import Any

import anyio
import pytest

from tests.adapters.aimock.serving import MODELS, NEEDS_AIMOCK, SECONDS, AIMock
from tests.adapters.openai.asking import ask, told
from tests.adapters.openai.server import open_sockets
from tests.support import Loop
from turnscope import Agent, Kernel, Status, tool
from turnscope.abc import Model
from turnscope.events import (
    CallSettled,
    CallStarted,
    ModelAnswered,
    ReasoningStreamed,
    TextDelta,
)
from turnscope.testing import nothing_left
from turnscope_adapters._http_model import HTTPModel
from turnscope_adapters.anthropic import AnthropicMessages
from turnscope_adapters.openai import OpenAIChat

pytestmark = NEEDS_AIMOCK
each_kind = pytest.mark.parametrize("kind", MODELS)

TEXT = "Rain in Paris, and the sun shines in Tokyo."
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "input_tokens": 11, "output_tokens": 7}


def run(loop: Loop, aimock: AIMock, model: Model, *tools: Any) -> Any:
    """The result of a run, and its events; asserts that it leaves no task and no connection."""
    agent: Agent[Any, Any] = Agent(model=model, tools=list(tools))

    async def main() -> Any:
        async with nothing_left(), Kernel() as kernel:
            with anyio.fail_after(SECONDS):
                async with kernel.start(agent, "Weather?") as started:
                    events = [event async for event in started]
                    result = await started.wait()
        assert open_sockets(aimock.port) == 0
        return result, events

    ended = loop.run(main)
    gc.collect(1)  # the young: to look at all takes longer than the test
    return ended


@each_kind
def test_text_comes_in_pieces_and_with_its_usage(
    kind: type[HTTPModel], aimock: AIMock, any_loop: Loop
) -> None:
    name = aimock.scenario({"response": {"content": TEXT, "usage": USAGE}, "chunkSize": 5})
    events = any_loop.run(ask, aimock.model(kind, name))
    assert len([event for event in events if isinstance(event, TextDelta)]) == 9
    answer = told(events)
    assert answer.text == TEXT
    assert answer.finished.reason == "stop"
    assert (answer.finished.usage.input_tokens, answer.finished.usage.output_tokens) == (11, 7)


# aimock has no Responses that are incomplete.
@pytest.mark.parametrize("kind", [OpenAIChat, AnthropicMessages])
def test_a_text_that_was_cut_for_its_length_says_so(
    kind: type[HTTPModel], aimock: AIMock, any_loop: Loop
) -> None:
    name = aimock.scenario({"response": {"content": TEXT, "finishReason": "length"}})
    assert told(any_loop.run(ask, aimock.model(kind, name))).finished.reason == "length"


@each_kind
def test_a_run_has_its_calls_overlap_and_sends_their_results_back_in_order(
    kind: type[HTTPModel], aimock: AIMock, any_loop: Loop
) -> None:
    cities = ["Paris", "Tokyo", "Lima"]
    name = aimock.scenario(
        {"match": {"hasToolResult": False}, "response": {"toolCalls": calling(*cities)}},
        {"match": {"hasToolResult": True}, "response": {"content": TEXT}},
    )
    inside: set[str] = set()
    done: list[str] = []

    @tool
    async def weather(city: str) -> str:
        """Tell the weather."""
        inside.add(city)
        while len(inside) < len(cities) or len(done) < len(cities) - 1 - cities.index(city):
            await anyio.sleep(0.005)  # none ends before all have begun, and the last ends first
        done.append(city)
        return f"rain in {city}"

    result, _ = run(any_loop, aimock, aimock.model(kind, name), weather)
    assert result.output == TEXT
    assert done == cities[::-1]
    rain = [f"rain in {city}" for city in cities]
    assert [message.content for message in result.history.results] == rain
    first, second = aimock.requests(name)
    (shown,) = first["tools"]
    assert shown["function"]["name"] == "weather"
    assert shown["function"]["parameters"]["properties"]["city"]["type"] == "string"
    back = [each for each in second["messages"] if each["role"] == "tool"]
    assert [each["content"] for each in back] == rain
    assert [each["tool_call_id"] for each in back] == asked(second)
    assert len(set(asked(second))) == 3


def calling(*cities: str) -> list[dict[str, Any]]:
    return [{"name": "weather", "arguments": {"city": city}} for city in cities]


def asked(request: dict[str, Any]) -> list[str]:
    """The ids of the calls in the conversation that *request* sends."""
    return [call["id"] for each in request["messages"] for call in each.get("tool_calls") or []]


@each_kind
def test_a_call_starts_while_the_server_still_streams(
    kind: type[HTTPModel], aimock: AIMock, any_loop: Loop
) -> None:
    name = aimock.scenario(
        {
            "match": {"hasToolResult": False},
            "response": {"toolCalls": calling("Paris", "Tokyo")},
            "latency": 100,  # ms before each piece: of Chat's there are three after the first call
        },
        {"match": {"hasToolResult": True}, "response": {"content": TEXT}},
    )

    @tool(read_only=True)
    async def weather(city: str) -> str:
        return f"rain in {city}"

    _, events = run(any_loop, aimock, aimock.model(kind, name), weather)
    kinds = [type(event) for event in events]
    assert kinds.index(CallStarted) < kinds.index(ModelAnswered)


@each_kind
def test_calls_that_cannot_be_carried_out_are_told_and_the_run_goes_on(
    kind: type[HTTPModel], aimock: AIMock, any_loop: Loop
) -> None:
    calls = [
        {"name": "weather", "arguments": {"town": "Paris"}},
        {"name": "weather", "arguments": "[1]"},
        {"name": "wether", "arguments": {"city": "Paris"}},
        *calling("Tokyo"),
    ]
    name = aimock.scenario(
        {"match": {"hasToolResult": False}, "response": {"toolCalls": calls}},
        {"match": {"hasToolResult": True}, "response": {"content": TEXT}},
    )

    @tool
    async def weather(city: str) -> str:
        return f"rain in {city}"

    result, events = run(any_loop, aimock, aimock.model(kind, name), weather)
    settled = {event.call.id: event.result for event in events if isinstance(event, CallSettled)}
    assert [settled[message.id].status for message in result.history.results] == [
        Status.INVALID,
        Status.INVALID,
        Status.INVALID,
        Status.OK,
    ]
    assert result.output == TEXT
    _, second = aimock.requests(name)
    assert len(asked(second)) == 4


@each_kind
def test_thought_is_told_and_goes_back_where_the_server_asks_for_it(
    kind: type[HTTPModel], aimock: AIMock, any_loop: Loop
) -> None:
    thinks = {"reasoning": "It may rain.", "toolCalls": calling("Paris")}
    name = aimock.scenario(
        {"match": {"hasToolResult": False}, "response": thinks},
        {"match": {"hasToolResult": True}, "response": {"content": TEXT}},
    )
    # aimock then refuses a conversation in which a call follows no signed thought, as Anthropic.
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    settings = thinking if kind is AnthropicMessages else {}

    @tool
    async def weather(city: str) -> str:
        return f"rain in {city}"

    model = aimock.model(kind, name, settings=settings)
    result, events = run(any_loop, aimock, model, weather)
    thought = [event.text for event in events if isinstance(event, ReasoningStreamed)]
    assert "".join(thought) == "It may rain."
    assert result.output == TEXT
