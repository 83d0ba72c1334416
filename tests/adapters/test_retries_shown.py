"""What readers show of an attempt that failed: on a terminal, in a pipe, in a browser."""

from __future__ import annotations

import io
import json
from typing import Any

import anyio
import pytest
from rich.console import Console

from tests.kernel.agents import an_agent, asks, virtual_backend
from turnscope import Agent, Kernel, ModelError, Retry, fallback, tool
from turnscope.events import RunEvent, TextDelta
from turnscope.testing import ScriptedModel, Stream
from turnscope_adapters._json_lines import JsonLines
from turnscope_adapters._prose import CUT_OFF, LiveProse, PlainProse
from turnscope_adapters._record import Record
from turnscope_adapters._sse_form import form

pytestmark = pytest.mark.anyio
anyio_backend = virtual_backend

EXACT = Retry(initial=0.5, jitter=0)
BUSY = ModelError("busy: sk-hush", status=503)


@tool(idempotent=True, retry=EXACT)
async def fails() -> None:
    await anyio.sleep(0)
    raise OSError("no wire")


async def events_of(*script: Any) -> list[RunEvent]:
    agent = an_agent(*script, tools=[fails], retry=EXACT)
    async with Kernel() as kernel:
        async with kernel.start(agent, "go") as run:
            return [event async for event in run]


def cut(text: str) -> Stream:
    return Stream([(0, TextDelta(text)), (0.1, BUSY)])


@pytest.mark.parametrize(
    ("begun", "shown"),
    [
        ("Hel", f"Hel\n{CUT_OFF}Hello\n"),
        ("Hel\n", f"Hel\n{CUT_OFF}Hello\n"),
        ("", "Hello\n"),
    ],
)
async def test_text_that_is_void_is_marked_as_such(begun: str, shown: str) -> None:
    events = await events_of(cut(begun), "Hello")
    plain, live = io.StringIO(), io.StringIO()
    prose = PlainProse(plain, lambda: None)
    on_screen = LiveProse(Console(file=live, width=80))
    for event in events:
        prose.observe(event)
        on_screen.observe(event)
    assert plain.getvalue() == live.getvalue() == shown


async def test_an_answer_that_was_whole_is_not_marked() -> None:
    plain = io.StringIO()
    prose = PlainProse(plain, lambda: None)
    for event in await events_of(["Look:", *asks(fails)], BUSY, "Hello"):
        prose.observe(event)
    assert plain.getvalue() == "Look:\nHello\n"


async def test_json_lines_tell_of_each_failed_attempt() -> None:
    file = io.StringIO()
    lines = JsonLines(file, lambda: None)
    for event in await events_of(BUSY, asks(fails), "Hello"):
        lines.observe(event)
    told = [json.loads(line) for line in file.getvalue().splitlines()]
    retried = [each for each in told if each["type"].endswith("Retried")]
    assert [(each["type"], each["attempt"], each["delay"]) for each in retried] == [
        ("ModelRetried", 1, 0.5),
        ("CallRetried", 1, 0.5),
        ("CallRetried", 2, 1.0),
    ]
    assert retried[0]["error"] == {
        "type": "ModelError",
        "message": "busy: sk-hush",
        "status": 503,
    }


async def test_a_browser_is_told_and_of_errors_only_their_names() -> None:
    events = await events_of(BUSY, asks(fails), "Hello")
    told = [made for event in events if (made := form(event, ()))]
    retried = [(name, data) for name, data in told if name.endswith("_retried")]
    assert [name for name, _ in retried] == ["model_retried", "call_retried", "call_retried"]
    first, second = retried[0][1], retried[1][1]
    assert (first["attempt"], first["delay"], first["error"]) == (1, 0.5, "ModelError")
    assert (second["name"], second["error"]) == ("fails", "OSError")
    assert "sk-hush" not in json.dumps(told)
    shown = [made for event in events if (made := form(event, {"errors"}))]
    assert "sk-hush" in json.dumps(shown)


async def test_readers_are_told_which_model_is_asked_instead() -> None:
    busy, answers = ScriptedModel([BUSY]), ScriptedModel(["Hello"])
    lines = JsonLines(file := io.StringIO(), lambda: None)
    agent: Agent[Any, str] = Agent(model=fallback(busy, answers))
    async with Kernel() as kernel, kernel.start(agent, "go") as run:
        events = [event async for event in run]
    for event in events:
        lines.observe(event)
    told = [json.loads(line) for line in file.getvalue().splitlines()]
    line = next(each for each in told if each["type"] == "ModelFellBack")
    assert (line["model"], line["error"]["status"]) == ("ScriptedModel", 503)
    for show in ((), {"errors"}):
        name, data = next(
            made for event in events if (made := form(event, show)) and "fell" in made[0]
        )
        assert (name, data["error"]) == ("model_fell_back", "ModelError")
        assert ("sk-hush" in json.dumps(data)) == bool(show)


async def test_the_timeline_says_which_attempt_failed() -> None:
    record = Record([fails])
    seen = []
    for event in await events_of(asks(fails), "Hello"):
        record.observe(event)
        seen.append(record.rows[0].progress if record.rows else "")
    assert "attempt 1 failed: OSError" in seen
    assert "attempt 2 failed: OSError" in seen
