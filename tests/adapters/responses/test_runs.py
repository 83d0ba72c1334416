"""A whole run against a server: parallel calls, early start, and what is left of a cancelled one."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tests.adapters.openai.asking import eventually, sse_chunks
from tests.adapters.openai.server import SECONDS, ChatServer, Site, open_sockets
from tests.adapters.openai.test_runs import get_time, get_weather
from tests.adapters.responses.wire import CREATED, HELLO, RECORDED, added, call, ended, thought
from tests.support import Loop
from turnscope import Agent, Kernel, ModelError, tool
from turnscope.testing import nothing_left
from turnscope_adapters.openai import OpenAIResponses


def answering(server: ChatServer, *answers: list[str]) -> Site:
    """A site that gives each of *answers* in turn."""
    left = iter(answers)

    async def stream(events: list[str]) -> AsyncIterator[str]:
        for event in events:
            yield event

    async def handler(request: Request, site: Site) -> Response:
        return StreamingResponse(stream(next(left)), media_type="text/event-stream")

    return server.site(handler)


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_run_calls_what_the_server_asked_for(
    path: Path, server: ChatServer, any_loop: Loop
) -> None:
    site = answering(server, sse_chunks(path.read_text()), HELLO)
    agent: Agent[Any, Any] = Agent(
        model=OpenAIResponses("m", base_url=site.base_url), tools=[get_weather, get_time]
    )

    async def main() -> None:
        async with Kernel() as kernel:
            result = await kernel.run(agent, "Weather?")
            assert open_sockets(server.port) == 1, "one connection for both requests"
        assert open_sockets(server.port) == 0
        assert result.output == "Hello"
        results = [message.content for message in result.history.results]
        assert results == ["rain in Paris", "rain in Tokyo", "noon"]

    any_loop.run(main)
    second = site.received[1].body["input"]
    kinds = [item.get("type") for item in second if "type" in item]
    assert kinds == ["function_call"] * 3 + ["function_call_output"] * 3
    ids = [item["call_id"] for item in second if "type" in item]
    assert ids[:3] == ids[3:] and len(set(ids)) == 3


def test_calls_start_together_while_the_server_still_streams(
    server: ChatServer, any_loop: Loop
) -> None:
    at_work: set[str] = set()
    both = anyio.Event()

    @tool(read_only=True)
    async def meet(name: str) -> str:
        """Wait for the other call."""
        at_work.add(name)
        if len(at_work) == 2:
            both.set()
        await both.wait()
        return name

    async def stream(site: Site) -> AsyncIterator[str]:
        if len(site.received) > 1:
            for event in HELLO:
                yield event
            return
        # Neither item is done: the arguments are, and that is enough.
        for event in (
            CREATED,
            *thought(0, "rs_0", "hm"),
            *call(1, "a", "meet", '{"name": "a"}')[:-1],
            *call(2, "b", "meet", '{"name": "b"}')[:-1],
        ):
            yield event
        while len(at_work) < 2:
            await _pause()
        yield ended()

    async def handler(request: Request, site: Site) -> Response:
        return StreamingResponse(stream(site), media_type="text/event-stream")

    site = server.site(handler)
    agent: Agent[Any, Any] = Agent(model=OpenAIResponses("m", base_url=site.base_url), tools=[meet])

    async def main() -> None:
        nonlocal both
        both = anyio.Event()
        at_work.clear()
        with anyio.fail_after(SECONDS):
            async with nothing_left(), Kernel() as kernel:
                result = await kernel.run(agent, "go")
        assert [message.content for message in result.history.results] == ["a", "b"]

    any_loop.run(main)
    kinds = [item.get("type", item.get("role")) for item in site.received[1].body["input"]]
    assert kinds == [
        "user",
        "reasoning",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
    ]


async def _pause() -> None:
    import asyncio  # the server's loop, whatever the client's is

    await asyncio.sleep(0.005)


def test_a_call_of_an_answer_that_fails_is_not_in_the_history(
    server: ChatServer, any_loop: Loop
) -> None:
    failed = ended("failed", error={"code": "server_error", "message": "died"})
    site = answering(server, [*call(0, "a", "get_time", "{}"), failed], HELLO)
    agent: Agent[Any, Any] = Agent(
        model=OpenAIResponses("m", base_url=site.base_url), tools=[get_time], retry=None
    )

    async def main() -> None:
        async with Kernel() as kernel:
            with pytest.raises(ModelError, match="died") as caught:
                await kernel.run(agent, "go")
            assert caught.value.history is not None
            assert not caught.value.history.results
            result = await kernel.run(agent, None, history=caught.value.history)
            assert result.output == "Hello"

    any_loop.run(main)


def test_ids_that_repeat_are_made_unique_for_the_next_request(
    server: ChatServer, any_loop: Loop
) -> None:
    twice = [*call(0, "x", "get_time", "{}"), *call(1, "x", "get_time", "{}"), ended()]
    site = answering(server, twice, HELLO)
    agent: Agent[Any, Any] = Agent(
        model=OpenAIResponses("m", base_url=site.base_url), tools=[get_time]
    )

    async def main() -> None:
        async with Kernel() as kernel:
            await kernel.run(agent, "go")

    any_loop.run(main)
    items = [item for item in site.received[1].body["input"] if "call_id" in item]
    assert [item["call_id"] for item in items] == ["x", "x-1", "x", "x-1"]


def test_a_cancelled_run_leaves_no_request(server: ChatServer, any_loop: Loop) -> None:
    begun = added(0, {"type": "message", "id": "m", "content": []})
    site = server.streaming([CREATED, begun, 60.0])
    agent: Agent[Any, Any] = Agent(model=OpenAIResponses("m", base_url=site.base_url))

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
