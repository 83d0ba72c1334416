"""Chat Completions as the servers that people run speak it: one answer of each, and a run with it.

The streams are made after what llama.cpp, llama-cpp-python, vLLM, Ollama and LiteLLM send, each with
what it does in a way of its own. What is asked for is the same each time.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tests.adapters.openai.asking import read, told
from tests.adapters.openai.server import DONE, GOOD, ChatServer, Site, chunk, piece
from tests.adapters.openai.test_runs import get_time, get_weather
from tests.support import Loop
from turnscope import Agent, Kernel, Usage
from turnscope.events import ReasoningDelta
from turnscope_adapters.openai import OpenAIChat

PARIS = '{"city": "Paris", "unit": "C"}'
TOKYO = '{"city": "Tokyo", "unit": "C"}'
WANTED = [("get_weather", PARIS), ("get_weather", TOKYO), ("get_time", "{}")]
COUNTED = {"prompt_tokens": 11, "completion_tokens": 7}


def calls(*deltas: dict[str, Any]) -> dict[str, Any]:
    """Several pieces in one delta."""
    return {"tool_calls": [entry for delta in deltas for entry in delta["tool_calls"]]}


def as_object(delta: dict[str, Any]) -> dict[str, Any]:
    """*delta* with its arguments as an object, not as text."""
    for entry in delta["tool_calls"]:
        entry["function"]["arguments"] = json.loads(entry["function"]["arguments"])
    return delta


SERVERS: dict[str, list[str]] = {
    # Null content first, the reason with an empty delta, the usage with the reason.
    "llama.cpp": [
        chunk({"role": "assistant", "content": None}),
        chunk({"reasoning_content": "hm"}),
        chunk(piece(0, "a", "get_weather", '{"city": ')),
        chunk(piece(0, None, None, '"Paris", "unit": "C"}')),
        chunk(piece(1, "b", "get_weather", TOKYO)),
        chunk(piece(2, "c", "get_time", "{")),
        chunk(piece(2, None, None, "}")),
        chunk({}, finish="tool_calls", usage=COUNTED, timings={"predicted_n": 7}),
        DONE,
    ],
    # The name and the id in every piece, and no usage.
    "llama-cpp-python": [
        chunk({"role": "assistant", "content": None, "tool_calls": None}),
        *[
            chunk(piece(number, f"call__{number}", name, part))
            for number, (name, whole) in enumerate(WANTED)
            for part in (whole[:1], whole[1:])
        ],
        chunk(finish="tool_calls"),
        DONE,
    ],
    # Empty lists and empty text everywhere; the name before the arguments; usage in each chunk.
    "vLLM": [
        chunk({"role": "assistant", "content": ""}, usage={"prompt_tokens": 11}),
        chunk({"reasoning_content": "h", "tool_calls": []}),
        chunk({"reasoning_content": "m", "content": None, "tool_calls": []}),
        *[
            text
            for number, (name, whole) in enumerate(WANTED)
            for text in (
                chunk(piece(number, f"chatcmpl-tool-{number}", name, "")),
                chunk(piece(number, None, None, whole)),
            )
        ],
        chunk({"content": ""}, finish="tool_calls", stop_reason=None),
        chunk(choices=[], usage=COUNTED),
        DONE,
    ],
    # Every call whole, in one chunk, under one index, and the reason of an answer without calls.
    "Ollama": [
        chunk({"role": "assistant", "content": "", "reasoning": "hm"}),
        chunk(
            calls(*[piece(0, f"call_{name}", name, arguments) for name, arguments in WANTED]),
        ),
        chunk({"role": "assistant", "content": ""}, finish="stop"),
        DONE,
    ],
    # The same as an older one, without ids.
    "Ollama, older": [
        *[
            chunk({"role": "assistant", "content": "", **piece(0, "", name, arguments)})
            for name, arguments in WANTED
        ],
        chunk({"role": "assistant", "content": ""}, finish="stop"),
        DONE,
    ],
    # Chunks that say nothing before and after, no indexes, arguments that are objects.
    "LiteLLM": [
        ": ping\n\n",
        chunk(choices=[], prompt_filter_results=[]),
        chunk({"role": "assistant", "content": None, "function_call": None, "tool_calls": None}),
        *[
            chunk(as_object(piece(None, f"id{number}", name, arguments)))
            for number, (name, arguments) in enumerate(WANTED)
        ],
        chunk({"content": None}, finish="tool_calls"),
        chunk(choices=[], usage=COUNTED),
        DONE,
    ],
    # A stream of one chunk, which has the message of an answer in it, and nothing at the end.
    "a proxy that does not stream": [
        chunk(
            choices=[
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": None,
                        **calls(
                            *[piece(None, "same", name, arguments) for name, arguments in WANTED]
                        ),
                    },
                    "finish_reason": "stop",
                }
            ],
            usage=COUNTED,
        ),
    ],
}
SILENT = {"llama-cpp-python", "Ollama", "Ollama, older"}
"""Those that report no usage here."""


@pytest.mark.parametrize("name", SERVERS)
def test_an_answer_is_read_as_its_server_means_it(name: str, any_loop: Loop) -> None:
    events = read(any_loop, "".join(SERVERS[name]))
    found = told(events)
    assert [(tool, json.loads(arguments)) for _, tool, arguments in found.calls] == [
        (tool, json.loads(arguments)) for tool, arguments in WANTED
    ]
    assert found.sealed == [0, 1, 2]
    assert (found.text, found.finished.reason) == ("", "calls")
    used = Usage() if name in SILENT else Usage(input_tokens=11, output_tokens=7)
    assert found.finished.usage == used
    thoughts = "".join(each.text for each in events if isinstance(each, ReasoningDelta))
    assert thoughts == ("hm" if name in ("llama.cpp", "vLLM", "Ollama") else "")


@pytest.mark.parametrize("name", SERVERS)
def test_a_run_goes_on_with_ids_of_its_own_where_the_server_has_none(
    name: str, server: ChatServer, any_loop: Loop
) -> None:
    answers = iter([SERVERS[name], SERVERS[name], GOOD])

    async def stream(events: list[str]) -> AsyncIterator[str]:
        for event in events:
            yield event

    async def handler(request: Request, site: Site) -> Response:
        return StreamingResponse(stream(next(answers)), media_type="text/event-stream")

    site = server.site(handler)
    agent: Agent[Any, Any] = Agent(
        model=OpenAIChat("m", base_url=site.base_url), tools=[get_weather, get_time]
    )

    async def main() -> None:
        async with Kernel() as kernel:
            result = await kernel.run(agent, "Weather?")
        assert result.output == "Hello"
        results = [message.content for message in result.history.results]
        assert results == ["rain in Paris", "rain in Tokyo", "noon"] * 2

    any_loop.run(main)
    messages = site.received[2].body["messages"]
    asked = [call["id"] for message in messages for call in message.get("tool_calls", ())]
    answered = [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    assert asked == answered and len(set(asked)) == 6 and all(asked)
