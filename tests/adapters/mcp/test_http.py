"""Servers over streamable HTTP: the official package's, and ones that break it."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx2
import pytest
from mcp.server import MCPServer as Official
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError as Told
from mcp.types import ToolAnnotations
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from tests.adapters.hosted import Hosted
from tests.adapters.mcp.serving import LEFT_TO_GC, PATIENT, SECONDS, eventually, result, results
from turnscope import Kernel, Status, ToolCall
from turnscope.events import CallProgress
from turnscope_adapters import _mcp_http
from turnscope_adapters.mcp import (
    MCPServer,
    ServerLost,
    ServerTimeout,
    ServerUnavailable,
    ToolError,
)

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(LEFT_TO_GC)]
KEY = "Bearer 0123456789"
TOOL = {"name": "ask", "inputSchema": {"type": "object"}}


class Site(Hosted):
    """Both kinds of server, under one address."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeping = threading.Event()
        self.cancelled = threading.Event()
        self.headers: list[dict[str, str]] = []
        self.elsewhere: list[str] = []
        self.told: list[str] = []
        self._calls: list[str] = []
        self.url = f"http://127.0.0.1:{self.port}"

    async def called(self, habit: str) -> None:
        """Wait for a call of the odd server of that *habit*, and forget it."""
        await eventually(lambda: habit in self._calls)
        self._calls.remove(habit)

    def app(self) -> Starlette:
        official = self._official().streamable_http_app()
        odd = Route("/odd/{habit}", self._odd, methods=["POST", "GET", "DELETE"])
        return Starlette(
            routes=[odd, Mount("/", official)], lifespan=official.router.lifespan_context
        )

    def _official(self) -> Official:
        server = Official("official")

        @server.tool(annotations=ToolAnnotations(read_only_hint=True))
        async def count(steps: int, ctx: Context) -> int:
            for step in range(1, steps + 1):
                await ctx.report_progress(step, steps)
            return steps

        @server.tool()
        async def sleep() -> str:
            self.sleeping.set()
            try:
                await anyio.sleep(600)
            except BaseException:
                self.cancelled.set()
                raise
            return "?"

        @server.tool()
        def fail() -> str:
            raise Told("nothing there")

        return server

    async def _odd(self, request: Request) -> Response:
        """A server of the protocol before the last, whose calls end as the path says."""
        habit = request.path_params["habit"]
        self.headers.append(dict(request.headers))
        if habit == "elsewhere":
            self.elsewhere.append(request.method)
        if request.method != "POST":
            return Response(status_code=405)
        message = await request.json()
        if message["method"] == "tools/call":
            self._calls.append(habit)
        match message["method"], habit:
            case "notifications/cancelled", "hangs":
                await self._stop.wait()  # hypercorn waits for handlers, from Python 3.12 on
            case _, "refuses":
                return JSONResponse({"error": "who are you?"}, 401)
            case _, "redirects":
                return RedirectResponse(f"http://localhost:{self.port}/odd/elsewhere", 307)
            case _, "silent":
                await self._stop.wait()  # hypercorn waits for handlers, from Python 3.12 on
            case "notifications/cancelled", _:
                self.told.append(habit)
                return Response(status_code=202)
            case _ if "id" not in message:
                return Response(status_code=202)
            case "initialize", _:
                about = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
                return self._answer(message, about | {"serverInfo": {"name": "o", "version": "1"}})
            case "tools/list", _:
                return self._answer(message, {"tools": [TOOL]})
            case "tools/call", "hangs" | "patient":
                await self._stop.wait()  # hypercorn waits for handlers, from Python 3.12 on
            case "tools/call", "huge":
                return self._answer(message, {"content": [{"type": "text", "text": "x" * 500_000}]})
            case "tools/call", "garbage":
                return Response("{not json", media_type="application/json")
            case "tools/call", "page":
                return Response("<p>", media_type="text/html")
            case "tools/call", "breaks":
                return JSONResponse({"message": "oh"}, 503)
            case "tools/call", "cut":
                return StreamingResponse(self._cut(), media_type="application/json")
            case "tools/call", "cut-stream":
                return StreamingResponse(self._cut(), media_type="text/event-stream")
        error = {"code": -32601, "message": "Method not found"}
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "error": error})

    async def _cut(self) -> AsyncIterator[bytes]:
        yield b"{"
        raise ConnectionAbortedError

    def _answer(self, message: dict[str, Any], result: dict[str, Any]) -> Response:
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": result})


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


async def test_the_official_server_is_asked_with_progress_and_errors(site: Site) -> None:
    seen: list[Any] = []

    class Watch:
        def observe(self, event: object) -> None:
            if isinstance(event, CallProgress):
                seen.append(event.value)

    async with MCPServer.http(f"{site.url}/mcp") as server:
        tools = await server.tools()
        assert next(tool for tool in tools if tool.name == "count").read_only
        calls = ("count", {"steps": 20}), ("fail", {})
        counted, failed = await results(tools, *calls, observers=[Watch()])
    assert counted.value == 20
    assert seen == [{"progress": step, "total": 20} for step in range(1, 21)]
    assert failed.status is Status.FAILED and "nothing there" in str(failed.content)


async def test_a_cancelled_call_stops_the_official_server(site: Site) -> None:
    site.sleeping.clear()
    site.cancelled.clear()
    async with MCPServer.http(f"{site.url}/mcp") as server, Kernel(grace=PATIENT) as kernel:
        tools = await server.tools()
        with anyio.fail_after(SECONDS):
            async with kernel.turn(tools) as turn:
                turn.submit(ToolCall("c", "sleep"))
                await eventually(site.sleeping.is_set)
                turn.cancel("enough")
        assert turn.results[0].status is Status.CANCELLED
        await eventually(site.cancelled.is_set)


async def test_no_server_at_all_is_told(site: Site) -> None:
    with socket.socket() as taken:  # and bound all the time, or somebody might be there by then
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/mcp"
        with pytest.raises(
            ServerUnavailable, match=r"'127\.0\.0\.1' did not start: it could not be reached"
        ):
            async with MCPServer.http(url):
                pass


async def test_a_server_that_never_answers_is_told_in_time(site: Site) -> None:
    with pytest.raises(ServerTimeout, match=r"within 0\.5 s"):
        async with MCPServer.http(f"{site.url}/odd/silent", start_timeout=0.5):
            pass


async def test_a_refusal_is_told_with_its_status_and_without_the_key(site: Site) -> None:
    server = MCPServer.http(f"{site.url}/odd/refuses", headers={"Authorization": KEY})
    with pytest.raises(ServerUnavailable, match="HTTP status 401") as raised:
        async with server:
            pass
    assert site.headers[-1]["authorization"] == KEY
    assert KEY not in repr(raised.value) + repr(server) + str(raised.value)


async def test_a_key_is_not_taken_to_another_host(site: Site) -> None:
    with pytest.raises(ServerUnavailable, match="not followed"):
        async with MCPServer.http(f"{site.url}/odd/redirects", headers={"Authorization": KEY}):
            pass
    assert site.elsewhere == []


@pytest.mark.parametrize(
    ("habit", "status", "said"),
    [
        ("huge", Status.FAILED, "more than 100,000 bytes"),
        ("garbage", Status.FAILED, "Failed to parse"),
        ("page", Status.FAILED, "text/html"),
        ("breaks", Status.FAILED, "HTTP status 503"),
        ("cut", Status.LOST, "lost"),
        ("cut-stream", Status.LOST, "lost"),
    ],
)
async def test_an_answer_that_is_none_ends_its_call_alone(
    site: Site, habit: str, status: Status, said: str
) -> None:
    url = f"{site.url}/odd/{habit}"
    async with MCPServer.http(url, longest_message=100_000) as server:
        tools = await server.tools()
        with anyio.fail_after(SECONDS):
            ended = await result(tools, "ask")
        assert ended.status is status and said in str(ended.content)
        assert isinstance(ended.error, (ToolError, ServerLost))
        assert [tool.name for tool in await server.tools()] == ["ask"]


async def test_a_server_that_takes_no_cancellation_holds_up_no_other_call(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_mcp_http, "_TELL_SECONDS", PATIENT)
    url = f"{site.url}/odd/hangs"
    async with MCPServer.http(url) as server, Kernel(grace=PATIENT) as kernel:
        tools = await server.tools()
        for _ in range(2):  # the first cancellation is still not taken when the second comes
            with anyio.fail_after(SECONDS):
                async with kernel.turn(tools) as turn:
                    turn.submit(ToolCall("c", "ask"))
                    await site.called("hangs")
                    turn.cancel("enough")
                assert turn.results[0].status is Status.CANCELLED
                assert len(await server.tools()) == 1


async def test_a_cancellation_just_before_the_end_is_told(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_mcp_http, "_FLUSH_SECONDS", SECONDS)
    site.told.clear()
    url = f"{site.url}/odd/patient"
    async with MCPServer.http(url, close_timeout=SECONDS) as server, Kernel() as kernel:
        async with kernel.turn(await server.tools()) as turn:
            turn.submit(ToolCall("c", "ask"))
            await site.called("patient")
            turn.cancel("enough")
    assert site.told == ["patient"]


async def test_a_client_of_ones_own_is_used_and_stays_open(site: Site) -> None:
    async with httpx2.AsyncClient(headers={"Authorization": KEY}) as client:
        async with MCPServer.http(f"{site.url}/odd/good", client=client) as server:
            assert len(await server.tools()) == 1
        assert site.headers[-1]["authorization"] == KEY
        assert not client.is_closed
    with pytest.raises(ValueError, match="put them on the client"):
        MCPServer.http(site.url, client=client, headers={})
