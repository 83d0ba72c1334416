"""Faults on the wire between the adapter and the official server over HTTP: each ends its call."""

from __future__ import annotations

import time
from collections.abc import Iterator

import anyio
import pytest

from tests.adapters.mcp.serving import LEFT_TO_GC, SECONDS, eventually, open_connections, result
from tests.adapters.mcp.test_http import Site, _no_proxies
from tests.adapters.openai.server import HEAD, chunked
from tests.adapters.wire import Endless, Fault, Wire
from turnscope import Kernel, Status, ToolCall
from turnscope_adapters.mcp import MCPServer, ServerTimeout, ServerUnavailable

__all__ = ["_no_proxies"]

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(LEFT_TO_GC)]

LONGEST = 100_000
HEAD_END = b"\r\n\r\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
# A whole answer leaves its connection to the next request, unless it says that it closes: a request
# that meets the close on its way is lost, and rightly so.
CLOSING = b"connection: close\r\n" + CHUNKED
LINE = b"x" * 65_536
GARBAGE = bytes(range(256)) * 50

# Those that say that nothing more will come: they end the call by themselves.
BROKEN = {
    "closed": Fault(),
    "closed in the head": Fault(b"HTTP/1.1"),
    "closed after the head": Fault(HEAD_END),
    "reset": Fault(end="reset"),
    "reset after the head": Fault(HEAD_END, end="reset"),
    "another protocol": Fault(then=[b"SSH-2.0-OpenSSH_9\r\n"]),
    "garbage for a head": Fault(then=[GARBAGE], end="wait"),
    "garbage for a body": Fault(then=[JSON_HEAD + CLOSING, chunked(GARBAGE), b"0\r\n\r\n"]),
    "garbage for a stream": Fault(then=[HEAD + CLOSING, chunked(GARBAGE), b"0\r\n\r\n"]),
    "an endless header": Fault(then=Endless(LINE, HEAD + b"x: ")),
    "a long line": Fault(then=[HEAD + CHUNKED, chunked(b"data: " + b"x" * 10_000_000)], end="wait"),
    "an endless line": Fault(then=Endless(chunked(LINE), HEAD + CHUNKED)),
    "an endless body": Fault(then=Endless(chunked(LINE), JSON_HEAD + CHUNKED)),
}
# Those after which something might still come: their call waits until its own time is up.
SILENT = {
    "stalled": Fault(end="wait"),
    "stalled in the head": Fault(b"HTTP/1.1", end="wait"),
    "stalled after the head": Fault(HEAD_END, end="wait"),
    "slow": Fault(None, pause=0.1),
    "endless preliminaries": Fault(then=Endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)),
    "endless comments": Fault(then=Endless(chunked(b": x\n" * 1_000), HEAD + CHUNKED)),
}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_ends_its_call_alone(name: str, site: Site) -> None:
    with Wire(site.port) as wire:
        url = f"http://127.0.0.1:{wire.port}/mcp"
        async with MCPServer.http(url, longest_message=LONGEST) as server:
            tools = await server.tools()
            wire.fault = BROKEN[name]
            with anyio.fail_after(SECONDS):
                ended = await result(tools, "count", steps=1)
            assert ended.status in (Status.LOST, Status.FAILED)
            wire.fault = None
            assert (await result(tools, "count", steps=1)).value == 1
            assert wire.begun.is_set()
        await eventually(lambda: open_connections(wire.port) == [])
        assert wire.sent < 20_000_000, "it was not read on and on"


@pytest.mark.parametrize("name", SILENT)
async def test_a_silent_answer_ends_with_the_time_of_its_call(name: str, site: Site) -> None:
    with Wire(site.port) as wire:
        url = f"http://127.0.0.1:{wire.port}/mcp"
        async with MCPServer.http(url, longest_message=LONGEST) as server, Kernel() as kernel:
            tools = await server.tools()
            wire.fault = SILENT[name]
            started = time.monotonic()
            async with kernel.turn(tools, timeout=0.4) as turn:
                turn.submit(ToolCall("c", "count", {"steps": 1}))
            assert turn.results[0].status is Status.TIMED_OUT
            assert time.monotonic() - started < SECONDS
            wire.fault = None
            assert (await result(tools, "count", steps=1)).value == 1
        await eventually(lambda: open_connections(wire.port) == [])


@pytest.mark.parametrize("name", ["closed", "garbage for a head", "an endless header"])
async def test_a_server_that_breaks_at_the_start_is_unavailable(name: str, site: Site) -> None:
    with Wire(site.port, BROKEN[name]) as wire:
        with anyio.fail_after(SECONDS), pytest.raises(ServerUnavailable):
            async with MCPServer.http(f"http://127.0.0.1:{wire.port}/mcp"):
                pass
        assert open_connections(wire.port) == []


@pytest.mark.parametrize("name", SILENT)
async def test_a_server_that_is_silent_at_the_start_is_told_in_time(name: str, site: Site) -> None:
    with Wire(site.port, SILENT[name]) as wire:
        with anyio.fail_after(SECONDS), pytest.raises(ServerTimeout, match=r"within 0\.4 s"):
            async with MCPServer.http(f"http://127.0.0.1:{wire.port}/mcp", start_timeout=0.4):
                pass
        assert open_connections(wire.port) == []
