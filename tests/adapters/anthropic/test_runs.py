"""Whole runs against a server: the kernel's side of the adapter's promises."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tests.adapters.anthropic.messages import (
    GOOD,
    HELLO,
    RECORDED,
    begin,
    calling,
    end,
    failing,
    start,
    stop,
    text,
    thinking,
)
from tests.adapters.command import run as command
from tests.adapters.openai.asking import eventually, sse_chunks
from tests.adapters.openai.server import SECONDS, ChatServer, Site, open_sockets
from tests.support import Loop
from turnscope import Agent, History, Kernel, ModelError, Retry, tool
from turnscope.events import CallStarted, ModelAnswered, ModelRetried, ReasoningStreamed
from turnscope.testing import nothing_left
from turnscope_adapters.anthropic import AnthropicMessages


@tool
async def get_weather(city: str, unit: str) -> str:
    """Tell the weather."""
    return f"rain in {city}"


@tool
async def get_time() -> str:
    """Tell the time."""
    return "noon"


def answering(server: ChatServer, *answers: Sequence[str]) -> Site:
    """A site that gives one answer after the other."""
    left = [list(answer) for answer in answers]

    async def stream(events: Sequence[str]) -> AsyncIterator[str]:
        for each in events:
            yield each

    async def handler(_: Request, site: Site) -> Response:
        return StreamingResponse(stream(left.pop(0)), media_type="text/event-stream")

    return server.site(handler)


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_run_calls_what_the_server_asked_for(
    path: Path, server: ChatServer, any_loop: Loop
) -> None:
    site = answering(server, sse_chunks(path.read_text()), GOOD)
    agent: Agent[Any, Any] = Agent(
        model=AnthropicMessages("m", base_url=site.base_url), tools=[get_weather, get_time]
    )

    async def main() -> None:
        async with nothing_left(), Kernel() as kernel:
            result = await kernel.run(agent, "Weather?")
            assert open_sockets(server.port) == 1, "one connection for both requests"
        assert open_sockets(server.port) == 0
        assert result.output == "Hello"
        results = [message.content for message in result.history.results]
        assert results == ["rain in Paris", "rain in Tokyo", "noon"]
        assert result.usage.output_tokens >= 7

    any_loop.run(main)
    first, second = (received.body["messages"] for received in site.received)
    answer, results = second[len(first) :]
    asked = [block["id"] for block in answer["content"] if block["type"] == "tool_use"]
    assert [block["tool_use_id"] for block in results["content"]] == asked
    assert len(asked) == 3


def test_calls_start_while_the_model_streams_and_overlap(
    server: ChatServer, any_loop: Loop
) -> None:
    inside: list[str] = []

    @tool(read_only=True)
    async def look(key: str) -> str:
        inside.append(key)
        while len(inside) < 2:  # no call ends before both have begun
            await anyio.sleep(0.005)
        return key

    calls = [start()]
    for index, key in enumerate("ab"):
        calls += [calling(index, f"toolu_{key}", "look", '{"key": ', f'"{key}"}}'), stop(index)]

    async def stream() -> AsyncIterator[str]:
        for each in calls:
            yield each
        with anyio.fail_after(SECONDS):  # the answer ends only when both calls work
            while len(inside) < 2:
                await anyio.sleep(0.005)
        yield end("tool_use")

    async def handler(_: Request, site: Site) -> Response:
        if len(site.received) == 1:
            return StreamingResponse(stream(), media_type="text/event-stream")
        return Response("".join(GOOD), media_type="text/event-stream")

    site = server.site(handler)
    agent = Agent(model=AnthropicMessages("m", base_url=site.base_url), tools=[look])

    async def main() -> None:
        async with nothing_left(), Kernel() as kernel:
            with anyio.fail_after(SECONDS):
                async with kernel.start(agent, "look") as run:
                    kinds = [type(event) async for event in run]
                    result = await run.wait()
        assert [message.content for message in result.history.results] == ["a", "b"]
        assert kinds.index(CallStarted) < kinds.index(ModelAnswered)

    any_loop.run(main)


def test_thinking_goes_back_as_it_came_also_through_a_stored_history(
    server: ChatServer, any_loop: Loop
) -> None:
    thoughtful = [
        start(),
        thinking(0, "EqQBCgIYAhIM+/==", "The user wants ", "the time…"),
        begin(1, "redacted_thinking", data="EmwKAhgBEgy3va3pzix/=="),
        stop(1),
        text(2, "Let me look."),
        thinking(3, "s2", ""),
        calling(4, "toolu_1", "get_time"),
        stop(4),
        end("tool_use"),
    ]
    last = [start(), thinking(0, "s3", "noon then"), text(1, "Noon."), end()]
    site = answering(server, thoughtful, last, GOOD)
    agent = Agent(
        model=AnthropicMessages("m", base_url=site.base_url),
        tools=[get_time],
        settings={"thinking": {"type": "adaptive"}},
    )

    async def main() -> None:
        async with Kernel() as kernel:
            async with kernel.start(agent, "What time is it?") as run:
                seen = [event.text async for event in run if isinstance(event, ReasoningStreamed)]
                result = await run.wait()
            assert "".join(seen) == "The user wants the time…noon then"
            stored = History.from_json(result.history.to_json())
            assert stored == result.history
            await kernel.run(agent, "Sure?", history=stored)

    any_loop.run(main)
    _, second, third = (received.body["messages"] for received in site.received)
    answer = {
        "role": "assistant",
        "content": [
            {
                "type": "thinking",
                "thinking": "The user wants the time…",
                "signature": "EqQBCgIYAhIM+/==",
            },
            {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix/=="},
            {"type": "text", "text": "Let me look."},
            {"type": "thinking", "thinking": "", "signature": "s2"},
            {"type": "tool_use", "id": "toolu_1", "name": "get_time", "input": {}},
        ],
    }
    assert second[1] == answer
    assert third[1] == answer
    assert third[3]["content"] == [
        {"type": "thinking", "thinking": "noon then", "signature": "s3"},
        {"type": "text", "text": "Noon."},
    ]
    assert third[4] == {"role": "user", "content": "Sure?"}


def test_a_failed_call_is_told_to_the_model_as_an_error(server: ChatServer, any_loop: Loop) -> None:
    asked = [start(), calling(0, "a", "get_tim", "{}"), stop(0), end("tool_use")]
    site = answering(server, asked, GOOD)
    agent = Agent(model=AnthropicMessages("m", base_url=site.base_url), tools=[get_time])

    async def main() -> None:
        async with Kernel() as kernel:
            await kernel.run(agent, "go")

    any_loop.run(main)
    [result] = site.received[1].body["messages"][2]["content"]
    assert result["is_error"] is True
    assert "did you mean 'get_time'?" in result["content"]


def test_a_call_that_was_cut_before_its_arguments_is_not_run(
    server: ChatServer, any_loop: Loop
) -> None:
    ran: list[str] = []

    @tool(read_only=True)
    async def clear(folder: str = "/") -> str:
        ran.append(folder)
        return "cleared"

    cut = [start(), calling(0, "a", "clear", ""), stop(0), end("max_tokens")]
    site = answering(server, cut, GOOD)
    agent = Agent(model=AnthropicMessages("m", base_url=site.base_url), tools=[clear])

    async def main() -> None:
        async with Kernel() as kernel:
            await kernel.run(agent, "go")

    any_loop.run(main)
    assert not ran
    [result] = site.received[1].body["messages"][2]["content"]
    assert "cut at the limit of tokens" in result["content"]


def test_a_server_that_is_overloaded_within_its_answer_is_asked_again(
    server: ChatServer, any_loop: Loop
) -> None:
    site = answering(server, [*HELLO, failing("overloaded_error", "Overloaded")], GOOD)
    agent = Agent(
        model=AnthropicMessages("m", base_url=site.base_url), retry=Retry(initial=0.01, jitter=0)
    )

    async def main() -> None:
        async with Kernel() as kernel:
            async with kernel.start(agent, "hello?") as run:
                errors = [event.error async for event in run if isinstance(event, ModelRetried)]
                assert (await run.wait()).output == "Hello"
        [error] = errors
        assert isinstance(error, ModelError) and error.status == 529

    any_loop.run(main)


def test_a_cancelled_run_leaves_no_request(server: ChatServer, any_loop: Loop) -> None:
    site = server.streaming([*HELLO, 60.0])
    agent: Agent[Any, Any] = Agent(model=AnthropicMessages("m", base_url=site.base_url))

    async def main() -> None:
        async with nothing_left(), Kernel() as kernel:
            async with anyio.create_task_group() as group:
                group.start_soon(kernel.run, agent, "Weather?")
                await eventually(site.begun.is_set)
                group.cancel_scope.cancel()
            assert open_sockets(server.port) == 0
            assert await anyio.to_thread.run_sync(site.ended.wait, SECONDS)

    any_loop.run(main)
    gc.collect()


@pytest.mark.parametrize("make", [lambda name: f"anthropic:{name}", AnthropicMessages])
def test_a_model_may_be_named(
    make: Callable[[str], Any], server: ChatServer, any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = server.streaming(GOOD)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", site.base_url)

    async def main() -> None:
        async with Kernel() as kernel:
            assert (await kernel.run(Agent(model=make("small/one")), "hello?")).output == "Hello"

    any_loop.run(main)
    assert site.received[0].body["model"] == "small/one"


def test_a_name_at_a_terminal_asks_the_server_of_the_environment(server: ChatServer) -> None:
    site = server.streaming(GOOD)
    key = "sk-ant-test-0123456789"
    done = command(
        *("run", "Hi", "--model", "anthropic:m", "--instructions", "Be brief."),
        env={
            "NO_PROXY": "127.0.0.1",
            "ANTHROPIC_BASE_URL": site.base_url,
            "ANTHROPIC_API_KEY": key,
        },
    )
    assert (done.returncode, done.stdout) == (0, "Hello\n")
    assert "11 tokens in, 7 out" in done.stderr
    [received] = site.received
    assert (received.body["model"], received.body["system"]) == ("m", "Be brief.")
    assert received.headers["x-api-key"] == key
    assert key not in done.stdout + done.stderr
