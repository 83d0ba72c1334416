"""Servers for the tests of this folder, and what is left of them. Below: `odd_server`, run as it is."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import psutil

from turnscope import Kernel, Tool, ToolCall, ToolResult
from turnscope_adapters.mcp import MCPServer

HERE = Path(__file__).parent
SECONDS = 30
"""After which a wait is taken to hang: far more than any takes."""
PATIENT = 10 * SECONDS
"""A `grace` by which whoever waits for what is not to be waited for is seen to hang."""


@attrs.frozen
class Odd:
    """The odd server of one test; each start of it writes into one log."""

    log: Path

    def server(self, *habits: str, **options: Any) -> MCPServer:
        command = [sys.executable, "-S", "-E", str(HERE / "odd_server.py"), str(self.log), *habits]
        return MCPServer.stdio(command, **{"name": "odd", **options})

    @property
    def pid(self) -> int:
        """The id of the process, and of the group, that was started first."""
        return int(self.log.read_text().splitlines()[0])

    def received(self, method: str) -> list[dict[str, Any]]:
        """The messages of *method* that have come to the server."""
        if not self.log.exists():
            return []
        lines = self.log.read_text().splitlines(keepends=True)
        # The last one may not be whole yet.
        read = [json.loads(line) for line in lines if "{" in line and line.endswith("\n")]
        return [message for message in read if message.get("method") == method]

    async def started(self) -> None:
        """Wait until the server has begun to run."""
        await eventually(lambda: self.log.exists() and "\n" in self.log.read_text())

    async def wait_for(self, method: str) -> list[dict[str, Any]]:
        """Wait until messages of *method* have come."""
        await eventually(lambda: len(self.received(method)) > 0)
        return self.received(method)


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    with anyio.fail_after(SECONDS):
        while not holds():
            await anyio.sleep(0.01)


def left_of(pid: int) -> list[int]:
    """The processes of the group *pid* that do not end: what is killed takes a moment to."""
    end = time.monotonic() + SECONDS
    while (alive := group(pid)) and time.monotonic() < end:
        time.sleep(0.01)
    return alive


def group(pid: int) -> list[int]:
    """The processes of the group *pid* that are at work."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.Error, OSError):
            pass
    return found


def open_connections(port: int) -> list[Any]:
    """Our ends of connections to *port* on loopback that are open."""
    return [
        each
        for each in psutil.Process(os.getpid()).net_connections("tcp")
        if each.raddr and each.raddr.port == port and each.status == psutil.CONN_ESTABLISHED
    ]


# On trio, the official client leaves httpx2's generators to the garbage collector, which says so;
# the response that they read has been closed by then, which `open_connections` shows.
LEFT_TO_GC = "ignore:Async generator 'http(x|core)2:ResourceWarning"


async def results(
    tools: list[Tool[..., Any]], *calls: tuple[str, dict[str, Any]], **options: Any
) -> tuple[ToolResult, ...]:
    """What a turn of *calls* comes to."""
    async with Kernel(**options) as kernel, kernel.turn(tools, timeout=SECONDS) as turn:
        for index, (name, arguments) in enumerate(calls):
            turn.submit(ToolCall(f"c{index}", name, arguments))
    return turn.results


async def result(tools: list[Tool[..., Any]], name: str, /, **arguments: Any) -> ToolResult:
    """What one call comes to."""
    (one,) = await results(tools, (name, arguments))
    return one
