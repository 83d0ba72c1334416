"""A call that started early and came to count for nothing, as the terminal and a stream tell of it."""

from __future__ import annotations

import io
import json
from typing import Any

import anyio
import pytest
from rich.console import Console

from tests.support import Loop
from turnscope import Agent, Kernel, tool
from turnscope.events import CallDelta, CallSealed, ModelFinished
from turnscope.testing import ScriptedModel, Stream
from turnscope_adapters._json_lines import JsonLines
from turnscope_adapters._record import Record
from turnscope_adapters._timeline import Timeline
from turnscope_adapters.asgi import SSE


@tool(read_only=True)
async def look() -> str:
    await anyio.sleep(0.01)
    return "seen"


REFUSED = Stream(
    [(0, CallDelta(0, "c0", "look", "{}")), (0, CallSealed(0)), (0.1, ModelFinished("refusal"))]
)


def refused(loop: Loop, *observers: Any) -> None:
    async def main() -> None:
        async with Kernel(observers=observers) as kernel:
            await kernel.run(Agent(model=ScriptedModel([REFUSED]), tools=[look]), "go")

    loop.run(main)


def test_the_timeline_shows_that_a_call_was_discarded(virtual_loop: Loop) -> None:
    record = Record([look])
    refused(virtual_loop, record)
    assert record.statuses == {"discarded": 1}
    out = io.StringIO()
    Console(file=out, width=100).print(Timeline(record, "").final())
    assert "discarded" in out.getvalue()


def test_json_lines_say_why_a_call_was_discarded(virtual_loop: Loop) -> None:
    out = io.StringIO()
    refused(virtual_loop, JsonLines(out, lambda: None))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    (line,) = [line for line in lines if line["type"] == "CallDiscarded"]
    assert "refusal" in line["reason"]
    assert line["index"] == 0


@pytest.mark.anyio
async def test_an_event_stream_says_why_a_call_was_discarded() -> None:
    async with Kernel() as kernel:
        run = kernel.start(Agent(model=ScriptedModel([REFUSED]), tools=[look]), "go")
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await SSE(run)({"type": "http", "method": "GET"}, anyio.sleep_forever, send)
    body = b"".join(message.get("body", b"") for message in sent).decode()
    assert body.index("event: call_settled") < body.index("event: call_discarded")
    assert "turned out to be a refusal" in body
