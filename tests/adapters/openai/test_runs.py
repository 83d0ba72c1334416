"""A whole run against a server: the kernel's side of the adapter's promises."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tests.adapters.openai.asking import RECORDED, eventually, sse_chunks
from tests.adapters.openai.server import GOOD, HELLO, SECONDS, ChatServer, Site, open_sockets
from tests.support import Loop
from turnscope import Agent, Kernel, ModelError, tool
from turnscope.testing import nothing_left
from turnscope_adapters.openai import OpenAIChat


@tool
async def get_weather(city: str, unit: str) -> str:
    """Tell the weather."""
    return f"rain in {city}"


@tool
async def get_time() -> str:
    """Tell the time."""
    return "noon"


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_run_calls_what_the_server_asked_for(
    path: Path, server: ChatServer, any_loop: Loop
) -> None:
    answers = iter([sse_chunks(path.read_text()), GOOD])

    async def stream(events: list[str]) -> AsyncIterator[str]:
        for event in events:
            yield event

    async def handler(request: Request, site: Site) -> Response:
        return StreamingResponse(stream(list(next(answers))), media_type="text/event-stream")

    site = server.site(handler)
    agent: Agent[Any, Any] = Agent(
        model=OpenAIChat("m", base_url=site.base_url), tools=[get_weather, get_time]
    )

    async def main() -> None:
        async with Kernel() as kernel:
            result = await kernel.run(agent, "Weather?")
            assert open_sockets(server.port) == 1, "one connection for both requests"
        assert open_sockets(server.port) == 0
        assert result.output == "Hello"
        results = [message.content for message in result.history.results]
        assert results == ["rain in Paris", "rain in Tokyo", "noon"]
        assert result.usage.output_tokens > 7

    any_loop.run(main)
    first, second = (received.body["messages"] for received in site.received)
    assert [message["role"] for message in second[len(first) :]] == ["assistant", *["tool"] * 3]


def test_a_cancelled_run_leaves_no_request(server: ChatServer, any_loop: Loop) -> None:
    site = server.streaming([*HELLO, 60.0])
    agent: Agent[Any, Any] = Agent(model=OpenAIChat("m", base_url=site.base_url))

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


def test_the_error_of_a_run_has_what_the_server_said(server: ChatServer, any_loop: Loop) -> None:
    site = server.refusing(429, '{"error": {"message": "slow down"}}', **{"retry-after": "3"})
    agent: Agent[Any, Any] = Agent(model=OpenAIChat("m", base_url=site.base_url), retry=None)

    async def main() -> None:
        async with Kernel() as kernel:
            with pytest.raises(ModelError, match="slow down") as caught:
                await kernel.run(agent, "Weather?")
        assert (caught.value.status, caught.value.retry_after) == (429, 3)
        assert caught.value.history is not None

    any_loop.run(main)
