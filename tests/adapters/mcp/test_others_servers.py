"""Servers that nobody here wrote: two of PyPI, two of npm, over both transports."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from tests.adapters.mcp.serving import LEFT_TO_GC, PATIENT, SECONDS, result, results
from turnscope import Kernel, Status, ToolCall
from turnscope.events import CallProgress
from turnscope_adapters.mcp import MCPServer

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(LEFT_TO_GC)]


def of_pypi(name: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(name.replace("-", "_")) is None
    return pytest.mark.skipif(missing, reason=f"{name} is not installed: pip install {name}")


def of_npm(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        shutil.which(f"mcp-{name}") is None,
        reason=f"mcp-{name} is not on PATH: npm install --global @modelcontextprotocol/{name}",
    )


@of_pypi("mcp-server-time")
async def test_the_time_server_converts_and_refuses() -> None:
    async with MCPServer.stdio([sys.executable, "-m", "mcp_server_time"]) as server:
        tools = await server.tools()
        span = {"source_timezone": "Asia/Tokyo", "time": "09:00"}
        good, bad = await results(
            tools,
            ("convert_time", {**span, "target_timezone": "UTC"}),
            ("convert_time", {**span, "target_timezone": "Nowhere/City"}),
        )
    assert good.ok and "T00:00:00+00:00" in str(good.content)
    assert bad.status is Status.FAILED and "Nowhere/City" in str(bad.content)


@of_pypi("mcp-server-git")
async def test_the_git_server_works_on_a_repository(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "new.txt").write_text("new\n")
    command = [sys.executable, "-m", "mcp_server_git", "--repository", str(tmp_path)]
    async with MCPServer.stdio(command, prefix="repo_") as server:
        tools = {tool.name: tool for tool in await server.tools()}
        assert tools["repo_git_status"].read_only and not tools["repo_git_add"].read_only
        some = list(tools.values())
        added = await result(some, "repo_git_add", repo_path=str(tmp_path), files=["new.txt"])
        assert added.ok
        status = await result(some, "repo_git_status", repo_path=str(tmp_path))
    assert "new file:   new.txt" in str(status.content)


@of_npm("server-filesystem")
async def test_the_filesystem_server_reads_and_stays_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("inside\n")
    async with MCPServer.stdio(["mcp-server-filesystem", str(tmp_path)]) as server:
        tools = await server.tools()
        assert next(tool for tool in tools if tool.name == "read_text_file").read_only
        inside, outside = await results(
            tools,
            ("read_text_file", {"path": str(tmp_path / "a.txt")}),
            ("read_text_file", {"path": "/etc/hostname"}),
        )
    assert inside.ok and "inside" in str(inside.content)
    assert outside.status is Status.FAILED and "denied" in str(outside.content)


async def _everything(server: MCPServer) -> None:
    """What `server-everything` has for each thing that a client must know."""
    seen: list[float] = []

    class Watch:
        def observe(self, event: object) -> None:
            if isinstance(event, CallProgress):
                seen.append(event.value["progress"])

    tools = await server.tools()
    echo, image, data, link, long = await results(
        tools,
        ("echo", {"message": "hi"}),
        ("get-tiny-image", {}),
        ("get-structured-content", {"location": "New York"}),
        ("get-resource-reference", {"resourceType": "Text", "resourceId": 1}),
        ("trigger-long-running-operation", {"duration": 0.5, "steps": 5}),
        observers=[Watch()],
    )
    assert echo.value == "Echo: hi"
    assert any(part.media_type == "image/png" and part.data for part in image.content)
    assert set(data.value) == {"temperature", "conditions", "humidity"}
    assert any("demo://resource" in (part.text or "") for part in link.content)
    assert long.ok and seen == [1, 2, 3, 4, 5]

    about = {"duration": PATIENT, "steps": 3}
    with anyio.fail_after(SECONDS):
        async with Kernel(grace=PATIENT) as kernel, kernel.turn(tools, timeout=0.5) as turn:
            turn.submit(ToolCall("c", "trigger-long-running-operation", about))
    assert turn.results[0].status is Status.TIMED_OUT
    assert (await result(tools, "echo", message="on")).ok


@of_npm("server-everything")
async def test_everything_works_over_standard_input_and_output() -> None:
    async with MCPServer.stdio(["mcp-server-everything"]) as server:
        await _everything(server)


@pytest.fixture(scope="module")
def everything() -> Iterator[str]:
    """The URL of a `server-everything` over HTTP, in a process of its own.

    It listens on all interfaces, and takes no word on that; it is asked on loopback.
    """
    with socket.socket() as kept:
        # Bound all the time, or the port might be another's by then. Both that reuse addresses, and
        # this one that does not listen: so the server can bind it as well.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        port = kept.getsockname()[1]
        process = subprocess.Popen(
            ["mcp-server-everything", "streamableHttp"],
            env={**os.environ, "PORT": str(port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            assert process.stderr is not None
            assert any(b"listening on port" in line for line in process.stderr)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@of_npm("server-everything")
async def test_everything_works_over_http(everything: str) -> None:
    async with MCPServer.http(everything) as server:
        await _everything(server)


@of_npm("server-everything")
async def test_servers_of_both_kinds_share_a_turn(everything: str) -> None:
    with anyio.fail_after(SECONDS):
        async with (
            MCPServer.http(everything, prefix="far_") as far,
            MCPServer.stdio(["mcp-server-everything"], prefix="near_") as near,
        ):
            tools = [*await far.tools(), *await near.tools()]
            both = await results(
                tools, ("far_echo", {"message": "1"}), ("near_echo", {"message": "2"})
            )
    assert [each.value for each in both] == ["Echo: 1", "Echo: 2"]
