"""What readers show of a second body: on a terminal, in a pipe, in a browser."""

from __future__ import annotations

import io
import json

import anyio
import pytest

from tests.kernel.agents import an_agent, asks, virtual_backend
from turnscope import Kernel, current_call, tool
from turnscope.events import CallHedged, RunEvent
from turnscope_adapters._json_lines import JsonLines
from turnscope_adapters._record import Record
from turnscope_adapters._sse_form import form

pytestmark = pytest.mark.anyio
anyio_backend = virtual_backend


@tool(idempotent=True, hedge=0.5)
async def slow() -> str:
    await anyio.sleep(9 if current_call().attempt == 1 else 1)
    return "done"


async def events_of_a_hedged_call() -> list[RunEvent]:
    agent = an_agent(asks(slow), "Hello", tools=[slow])
    async with Kernel() as kernel:
        async with kernel.start(agent, "go") as run:
            return [event async for event in run]


async def test_json_lines_tell_of_a_second_body() -> None:
    file = io.StringIO()
    lines = JsonLines(file, lambda: None)
    for event in await events_of_a_hedged_call():
        lines.observe(event)
    told = [json.loads(line) for line in file.getvalue().splitlines()]
    (hedged,) = (each for each in told if each["type"] == "CallHedged")
    assert (hedged["call"]["name"], hedged["attempt"]) == ("slow", 2)


async def test_a_browser_is_told_of_a_second_body() -> None:
    told = [made for event in await events_of_a_hedged_call() if (made := form(event, ()))]
    (hedged,) = (data for name, data in told if name == "call_hedged")
    assert (hedged["name"], hedged["attempt"]) == ("slow", 2)


async def test_the_timeline_says_that_a_second_body_begins() -> None:
    record = Record([slow])
    for event in await events_of_a_hedged_call():
        record.observe(event)
        if isinstance(event, CallHedged):
            assert record.rows[0].progress == "slow: attempt 2 begins beside it"
    assert record.statuses == {"ok": 1}
