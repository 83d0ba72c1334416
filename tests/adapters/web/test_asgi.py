"""`turnscope_adapters.asgi` against the ASGI protocol itself: no server, no framework."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from starlette.requests import Request
from starlette.responses import Response

from tests.support import Loop
from turnscope import (
    Agent,
    Budget,
    BudgetExceeded,
    Kernel,
    ModelError,
    RunCancelled,
    ToolCall,
    progress,
    tool,
)
from turnscope.events import ModelFinished, ReasoningDelta, TextDelta
from turnscope.testing import ScriptedModel, Stream
from turnscope_adapters.asgi import SSE, ClientDisconnected, cancel_on_disconnect, no_answer

Message = MutableMapping[str, Any]
SCOPE = {"type": "http", "method": "POST", "headers": [], "path": "/", "query_string": b""}


class Wire:
    """A client, as an application sees one: what it sends, when it goes, what it gets."""

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)
        self.received: list[Message] = []
        self._gone = anyio.Event()
        self.broken = False
        self.hears: Callable[[bytes], Awaitable[object]] | None = None

    def leave(self) -> None:
        self._gone.set()

    async def receive(self) -> Message:
        await checkpoint()
        if self.messages:
            return self.messages.pop(0)
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await checkpoint()
        if self.broken:
            raise BrokenPipeError
        self.received.append(message)
        if self.hears is not None and message["type"] == "http.response.body":
            await self.hears(message["body"])

    async def serve(self, app: Any, **scope: Any) -> None:
        await app({**SCOPE, **scope}, self.receive, self.send)

    @property
    def text(self) -> str:
        return b"".join(each.get("body", b"") for each in self.received).decode()

    @property
    def told(self) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for block in self.text.split("\n\n"):
            lines = [line.split(": ", 1) for line in block.split("\n") if not line.startswith(":")]
            fields = dict(line for line in lines if len(line) == 2)
            if fields:
                found.append((fields["event"], json.loads(fields["data"])))
        return found

    @property
    def complete(self) -> bool:
        return bool(self.received) and self.received[-1].get("more_body") is False


def part(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


# A block for plain handlers.


@pytest.mark.anyio
async def test_a_disconnect_cancels_the_block_and_is_raised_as_one() -> None:
    wire = Wire(part(b""))
    cancelled = False
    with anyio.fail_after(60):
        with pytest.raises(ClientDisconnected):
            async with cancel_on_disconnect(wire) as client:
                assert not client.gone
                wire.leave()
                try:
                    await anyio.sleep_forever()
                except anyio.get_cancelled_exc_class():
                    cancelled = True
                    raise
    assert cancelled and client.gone


@pytest.mark.anyio
async def test_a_block_that_ends_is_left_as_it_is_and_nobody_listens_any_more() -> None:
    wire = Wire(part(b""))
    async with cancel_on_disconnect(wire.receive) as client:
        await checkpoint()
    wire.leave()
    assert await client.receive() == part(b"")
    assert await client.receive() == {"type": "http.disconnect"}
    assert not client.gone


@pytest.mark.anyio
async def test_a_block_that_comes_to_its_end_all_the_same_counts() -> None:
    wire = Wire()
    async with cancel_on_disconnect(wire) as client:
        wire.leave()
        with anyio.CancelScope(shield=True):
            while not client.gone:
                await checkpoint()
    assert client.gone
    await checkpoint()  # what is left of the cancellation would come here


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error", [KeyError("k"), KeyboardInterrupt(), ExceptionGroup("g", [KeyError()])]
)
async def test_what_the_block_raises_comes_bare(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        async with cancel_on_disconnect(Wire()):
            await checkpoint()
            raise error
    assert caught.value is error


@pytest.mark.anyio
async def test_an_error_of_the_cleanup_comes_before_the_disconnect() -> None:
    wire = Wire()
    with pytest.raises(KeyError):
        async with cancel_on_disconnect(wire):
            wire.leave()
            try:
                await anyio.sleep_forever()
            finally:
                raise KeyError("cleanup")


@pytest.mark.anyio
async def test_the_callers_own_cancellation_stays_its_own() -> None:
    with anyio.move_on_after(0.01) as scope:
        async with cancel_on_disconnect(Wire()):
            await anyio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_an_error_of_the_server_is_raised_bare() -> None:
    async def receive() -> Message:
        raise LookupError("no such connection")

    with pytest.raises(LookupError):
        async with cancel_on_disconnect(receive):
            await anyio.sleep_forever()


@pytest.mark.anyio
@pytest.mark.parametrize("when", ["before", "in", "after"])
async def test_the_body_of_a_request_is_whole_whenever_it_is_read(when: str) -> None:
    wire = Wire(part(b"one ", True), part(b"two ", True), part(b"three"))
    request = Request(SCOPE, wire.receive)
    body = b""
    with anyio.fail_after(60):
        if when == "before":
            body = await request.body()
        async with cancel_on_disconnect(request):
            while wire.messages:
                await checkpoint()
            if when == "in":
                body = await request.body()
        if when == "after":
            body = await request.body()
    assert body == b"one two three"


@pytest.mark.anyio
async def test_a_body_that_still_comes_is_read_in_the_block() -> None:
    wire = Wire(part(b"one ", True))
    request = SimpleNamespace(receive=wire.receive)  # of no framework in particular
    got: list[Message] = []
    async with cancel_on_disconnect(request) as client:
        got += [await client.receive()]
        async with anyio.create_task_group() as group:

            async def read() -> None:
                got.append(await client.receive())

            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
    assert got == [part(b"one ", True)]
    wire.messages.append(part(b"two"))
    assert await client.receive() == part(b"two")


@pytest.mark.anyio
async def test_who_has_gone_is_gone_for_every_reader() -> None:
    wire = Wire()
    wire.leave()
    with pytest.raises(ClientDisconnected):
        async with cancel_on_disconnect(wire) as client:
            await anyio.sleep_forever()
    assert [await client.receive() for _ in range(3)] == [{"type": "http.disconnect"}] * 3


@pytest.mark.anyio
async def test_no_answer_is_one_that_says_nothing() -> None:
    wire = Wire()
    await wire.serve(await no_answer(object(), ClientDisconnected()))
    assert wire.received[0]["status"] == 499
    assert wire.complete and wire.text == ""


# The response.


@tool
async def secret(word: str) -> str:
    progress(f"half of {word}")
    return f"heard {word}"


@tool
async def hold() -> None:
    await anyio.sleep_forever()


def scripted() -> ScriptedModel:
    thoughts = [(0, ReasoningDelta("hm")), (0, TextDelta("one\ntwo\ud800")), (0, ModelFinished())]
    return ScriptedModel([[ToolCall("c1", "secret", {"word": "xyzzy"})], Stream(thoughts)])


@asynccontextmanager
async def kernel_of(model: ScriptedModel) -> AsyncGenerator[Kernel]:
    with anyio.fail_after(60):
        async with Kernel(model=model) as kernel:
            yield kernel
            assert kernel.statistics().runs == kernel.statistics().turns == 0


agent = Agent(tools=[secret, hold])


@pytest.mark.anyio
async def test_a_run_is_streamed_without_what_was_said_to_tools_and_by_them() -> None:
    wire = Wire(part(b"a body that nobody reads"))
    async with kernel_of(scripted()) as kernel:
        await wire.serve(SSE(kernel.start(agent, "Go")))
    assert [name for name, _ in wire.told] == [
        "run_started",
        "model_started",
        "model_answered",
        "call_ready",
        "call_started",
        "call_settled",
        "turn_finished",
        "model_started",
        "text",
        "model_answered",
        "turn_finished",
        "run_finished",
    ]
    told = dict(wire.told)
    run = told["run_started"]["run"]
    assert told["call_settled"] == {
        "run": run,
        "turn": 0,
        "index": 0,
        "id": "c1",
        "name": "secret",
        "status": "ok",
    }
    assert told["text"] == {"run": run, "turn": 1, "text": "one\ntwo?"}
    assert told["run_finished"]["output"] == "one\ntwo\ufffd"
    assert "xyzzy" not in wire.text and "hm" not in wire.text
    assert dict(wire.received[0]["headers"])[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert wire.complete


@pytest.mark.anyio
async def test_what_is_asked_for_is_shown() -> None:
    wire = Wire()
    async with kernel_of(scripted()) as kernel:
        show = ["arguments", "results", "progress", "reasoning"]
        await wire.serve(SSE(kernel.start(agent, "Go"), show=show))
    told = dict(wire.told)
    assert told["call_ready"]["arguments"] == {"word": "xyzzy"}
    assert told["call_progress"]["value"] == "half of xyzzy"
    assert told["call_settled"]["content"] == "heard xyzzy"
    assert told["reasoning"]["text"] == "hm"


@pytest.mark.anyio
@pytest.mark.parametrize("shown", [False, True])
async def test_the_runs_in_tools_are_shown_if_asked_for(shown: bool) -> None:
    wire = Wire()
    below = Agent(model=ScriptedModel(["inner"])).as_tool("below", "Ask below.")
    above = ScriptedModel([[ToolCall("c1", "below", {"prompt": "?"})], "outer"])
    async with anyio.create_task_group(), Kernel() as kernel:
        run = kernel.start(Agent(model=above, tools=[below]), "Go")
        await wire.serve(SSE(run, show=["nested"] if shown else []))
    texts = [
        (data["text"], len(data.get("parents", []))) for name, data in wire.told if name == "text"
    ]
    assert texts == ([("inner", 1)] if shown else []) + [("outer", 0)]
    assert [name for name, data in wire.told if "parents" not in data][-1] == "run_finished"


@pytest.mark.anyio
@pytest.mark.parametrize("shown", [False, True])
async def test_a_run_that_fails_is_told_and_raised_to_the_server(shown: bool) -> None:
    wire = Wire()
    after: list[Any] = []
    async with kernel_of(ScriptedModel([ValueError("the password is swordfish")])) as kernel:
        run = kernel.start(agent, "Go")

        async def background() -> None:
            after.append(len(run.history))

        with pytest.raises(ModelError, match="swordfish"):
            await wire.serve(SSE(run, show=["errors"] if shown else [], background=background))
    name, data = wire.told[-1]
    assert (name, data["error"]) == ("run_failed", "ModelError")
    assert ("swordfish" in wire.text) is shown
    assert wire.complete
    assert after == [1]


@pytest.mark.anyio
async def test_a_budget_that_is_spent_ends_the_stream_in_good_order() -> None:
    wire = Wire()
    async with kernel_of(scripted()) as kernel:
        with pytest.raises(BudgetExceeded):
            await wire.serve(SSE(kernel.start(agent, "Go", budget=Budget(turns=1))))
    assert wire.told[-1][1]["error"] == "BudgetExceeded"
    assert wire.complete


@pytest.mark.anyio
async def test_a_run_that_was_cancelled_is_told_to_the_client_alone() -> None:
    wire = Wire()
    async with kernel_of(ScriptedModel([[ToolCall("c1", "hold")]])) as kernel:
        run = kernel.start(agent, "Go")

        async def cancel(body: bytes) -> None:
            if b"call_started" in body:
                run.cancel()

        wire.hears = cancel
        await wire.serve(SSE(run))
        with pytest.raises(RunCancelled):
            await run.wait()
    assert wire.told[-1][1]["error"] == "RunCancelled"
    assert wire.complete


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["disconnect", "a send that fails"])
async def test_a_client_that_goes_ends_the_run(how: str) -> None:
    wire = Wire(part(b""))
    after: list[Any] = []
    async with kernel_of(ScriptedModel([[ToolCall("c1", "hold")]])) as kernel:
        run = kernel.start(agent, "Go")

        async def background() -> None:
            after.append((kernel.statistics().runs, run.history[-1].status))

        async def leave(body: bytes) -> None:
            if b"call_started" in body:
                if how == "disconnect":
                    wire.leave()
                else:
                    wire.broken = True

        wire.hears = leave
        await wire.serve(SSE(run, keep_alive=0.01, background=background))
    assert after == [(0, "cancelled")]
    assert not wire.complete


@pytest.mark.anyio
async def test_a_response_that_the_server_cancels_ends_the_run_and_is_cancelled() -> None:
    wire = Wire()
    after: list[Any] = []
    async with kernel_of(ScriptedModel([[ToolCall("c1", "hold")]])) as kernel:

        async def background() -> None:
            after.append("no")

        with anyio.CancelScope() as scope:

            async def cancel(body: bytes) -> None:
                if b"call_started" in body:
                    scope.cancel()

            wire.hears = cancel
            await wire.serve(SSE(kernel.start(agent, "Go"), background=background))
        assert scope.cancelled_caught
        assert kernel.statistics().runs == 0
    assert after == []


def test_a_silent_run_is_kept_alive(virtual_loop: Loop) -> None:
    wire_text = ""

    async def main() -> None:
        nonlocal wire_text
        wire = Wire()
        slow = ScriptedModel([Stream([(35.0, TextDelta("late")), (35.0, ModelFinished())])])
        async with Kernel(model=slow) as kernel:
            await wire.serve(SSE(kernel.start(agent, "Go"), keep_alive=10))
        assert wire.told[-1][0] == "run_finished"
        wire_text = wire.text

    virtual_loop.run(main)
    assert wire_text.count("\n\n:\n\n:\n\n:\n\nevent: text\n") == 1
    assert wire_text.count("\n:\n") == 3


@pytest.mark.anyio
async def test_head_gets_the_headers_and_starts_nothing() -> None:
    wire = Wire()
    model = scripted()
    after: list[Any] = []

    async def background() -> None:
        after.append("no")

    async with kernel_of(model) as kernel:
        await wire.serve(SSE(kernel.start(agent, "Go"), background=background), method="HEAD")
    assert wire.received[0]["status"] == 200
    assert wire.complete and wire.text == ""
    assert model.requests == after == []


@pytest.mark.anyio
async def test_a_run_that_cannot_begin_is_an_error_before_the_response() -> None:
    wire = Wire()
    after: list[Any] = []

    async def background() -> None:
        after.append("no")

    async with kernel_of(scripted()) as kernel:
        run = kernel.start(agent, "Go")
    with pytest.raises(RuntimeError, match="this kernel is closed"):
        await wire.serve(SSE(run, background=background))
    assert wire.received == after == []


@pytest.mark.anyio
async def test_what_the_response_cannot_be_is_refused() -> None:
    async with kernel_of(scripted()) as kernel:
        run = kernel.start(agent, "Go")
        with pytest.raises(ValueError, match="there are arguments, errors"):
            SSE(run, show=["everything"])
        with pytest.raises(ValueError, match="above 0"):
            SSE(run, keep_alive=0)
        with pytest.raises(RuntimeError, match="websocket"):
            await Wire().serve(SSE(run), type="websocket")


@pytest.mark.anyio
async def test_the_response_is_one_of_starlettes() -> None:
    async with kernel_of(scripted()) as kernel:
        response = SSE(kernel.start(agent, "Go"), headers={"X-Mine": "1"})
        assert isinstance(response, Response)
        response.headers["x-more"] = "2"
        response.set_cookie("a", "b")
        wire = Wire()
        await wire.serve(response)
    headers = dict(wire.received[0]["headers"])
    assert (headers[b"x-mine"], headers[b"x-more"]) == (b"1", b"2")
    assert b"set-cookie" in headers


WITHOUT = """
import sys
sys.modules["starlette"] = sys.modules["starlette.responses"] = None
import anyio
from turnscope import Agent, Kernel
from turnscope.testing import ScriptedModel
from turnscope_adapters.asgi import SSE

async def main():
    async def receive():
        await anyio.sleep_forever()
    async def send(message):
        print(message.get("status", ""), message.get("body", b"").decode(), end="")
    async with Kernel(model=ScriptedModel(["Hello"])) as kernel:
        await SSE(kernel.start(Agent(), "Hi"))({"type": "http", "method": "GET"}, receive, send)

anyio.run(main)
"""


def test_without_starlette_it_is_an_application_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert '"text":"Hello"' in done.stdout
    assert "event: run_finished" in done.stdout
