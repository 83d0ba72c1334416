"""The service under test: every kind of endpoint, a tool that holds for each placement, a report.

It is started by a real server, in a process of its own. What a request shall do is its prompt:
the name of a tool to hold in, "upstream" for a model request that is held, or "fine".
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from asyncio import all_tasks
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import sniffio
import trio
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

from turnscope import Agent, Kernel, ToolCall, check_cancelled, tool
from turnscope.abc import ModelRequest
from turnscope.events import CallSettled, ModelEvent, RunEvent, TextDelta
from turnscope.testing import ScriptedModel
from turnscope_adapters.asgi import SSE, ClientDisconnected, cancel_on_disconnect, no_answer

at_work: list[str] = []
"""The tools, of the event loop and of threads, in whose bodies somebody is."""
ended: list[str] = []
"""How calls have settled, and which plain handlers were cancelled, since it was last asked."""


@tool
async def inline() -> str:
    at_work.append("inline")
    try:
        await anyio.sleep_forever()
    finally:
        await anyio.sleep(0)  # a cleanup that awaits
        at_work.remove("inline")


@tool
def thread() -> str:
    at_work.append("thread")
    try:
        while True:
            check_cancelled()
            time.sleep(0.01)
    finally:
        at_work.remove("thread")


@tool(backend="process")
def process(seconds: float) -> str:
    if seconds:
        Path(os.environ["WORKER_FILE"]).write_text(f"{os.getpid()}\n")
    time.sleep(seconds)
    return "done"


@tool
def quick() -> str:
    return "done"


class TestModel:
    """Does as the prompt says; an upstream request is a stream over HTTP that is held open."""

    def __init__(self) -> None:
        self._scripted = ScriptedModel(self._answer)
        self._client: httpx2.AsyncClient

    async def __aenter__(self) -> TestModel:
        self._client = httpx2.AsyncClient(timeout=None, trust_env=False)
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._client.__aexit__(*exc_info)

    def stream(self, request: ModelRequest, /) -> Any:
        if request.history[0].content == "upstream":
            return self._upstream()
        return self._scripted.stream(request)

    @asynccontextmanager
    async def _upstream(self) -> AsyncGenerator[AsyncIterator[ModelEvent]]:
        async with self._client.stream("GET", os.environ["UPSTREAM"]) as response:

            async def events() -> AsyncGenerator[ModelEvent]:
                async for line in response.aiter_lines():
                    yield TextDelta(line)

            yield events()

    def _answer(self, request: ModelRequest) -> Any:
        prompt = str(request.history[0].content)
        if request.history.results:
            return "fine: " + ", ".join(str(each.content) for each in request.history.results)
        if prompt == "fine":
            return [ToolCall("1", "quick"), ToolCall("2", "process", {"seconds": 0})]
        return [ToolCall("1", prompt, {"seconds": 60} if prompt == "process" else {})]


class Settled:
    def observe(self, event: RunEvent, /) -> None:
        if isinstance(event, CallSettled):
            ended.append(str(event.result.status))


agent = Agent(tools=[inline, thread, process, quick])
kernel = Kernel(model=TestModel(), observers=[Settled()], grace=10.0)


def run_of(request: Request) -> SSE:
    return SSE(kernel.start(agent, request.query_params["prompt"]), keep_alive=0.1)


async def ask(request: Request) -> JSONResponse:
    try:
        async with cancel_on_disconnect(request):
            result = await kernel.run(agent, request.query_params["prompt"])
    except ClientDisconnected:
        ended.append("disconnected")
        raise
    return JSONResponse({"output": result.output, "body": (await request.body()).decode()})


async def stream(request: Request) -> SSE:
    return run_of(request)


def threads_at_work() -> int:
    """Threads in which this file's code runs; an idle one waits for the next call, or its end."""
    count = 0
    for number, frame in sys._current_frames().items():
        files = {each.f_code.co_filename for each, _ in traceback.walk_stack(frame)}
        count += number != threading.get_ident() and __file__ in files
    return count


def trio_tasks() -> Iterator[trio.lowlevel.Task]:
    """Every task there is."""
    root = trio.lowlevel.current_root_task()
    tasks = [root] if root else []
    while tasks:
        task = tasks.pop()
        yield task
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]


async def report(_request: Request) -> JSONResponse:
    """What there is, in numbers that go back to what they were when a run is gone."""
    statistics = kernel.statistics()
    if sniffio.current_async_library() == "trio":
        # Hypercorn cancels a connection's watch for idleness when a request comes, and starts the
        # request: whether the watch is still there in the report is for trio's scheduler to toss.
        tasks = sum(not each.name.endswith("._idle_timeout") for each in trio_tasks())
    else:
        tasks = len(all_tasks())
    rest = {
        "runs": statistics.runs,
        "turns": statistics.turns,
        "lent": {name: each.lent for name, each in statistics.limiters.items()},
        "leaked": {name: each.leaked for name, each in statistics.limiters.items()},
        "at_work": list(at_work),
        "tasks": tasks,
        "threads": threads_at_work(),
    }
    told = list(ended)
    ended.clear()
    return JSONResponse({"rest": rest, "ended": told, "pid": os.getpid()})


@asynccontextmanager
async def lifespan(_app: object) -> AsyncGenerator[None]:
    async with kernel:
        yield
    print("the lifespan has ended", flush=True)


async def passes(request: Request, call_next: Any) -> Any:
    return await call_next(request)


app = FastAPI(lifespan=lifespan, exception_handlers={ClientDisconnected: no_answer})
app.get("/fastapi/ask")(ask)
app.get("/fastapi/stream")(stream)
app.add_route("/report", report)
for path, more in {
    "/starlette": [],
    "/wrapped": [Middleware(BaseHTTPMiddleware, dispatch=passes)],
}.items():
    inner = Starlette(middleware=more, exception_handlers={ClientDisconnected: no_answer})
    inner.router.add_route("/ask", ask, methods=["GET", "POST"])
    inner.router.add_route("/stream", stream)
    app.mount(path, inner)


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """The response as an application of its own, without a framework."""
    prompt = scope["query_string"].decode().removeprefix("prompt=")
    await SSE(kernel.start(agent, prompt), keep_alive=0.1)(scope, receive, send)


app.mount("/bare", bare)
