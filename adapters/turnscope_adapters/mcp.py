"""`MCPServer`: the tools of a Model Context Protocol server, as Tools.

Above: an Agent's or a turn's tools. Below: `_mcp_connection` keeps the connection, in a task of its
own; `_mcp_tools` makes the Tools; all else of MCP is the official client's, of the extra ``mcp``,
which is imported with the first server.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import PurePath
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio

from turnscope import Tool

from ._mcp_errors import (
    ServerError,
    ServerLost,
    ServerTimeout,
    ServerUnavailable,
    ToolError,
    closed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

    from ._mcp_connection import Connection, Wire
    from ._mcp_tools import ToolOptions

__all__ = [
    "MCPServer",
    "ServerError",
    "ServerLost",
    "ServerTimeout",
    "ServerUnavailable",
    "ToolError",
]


class MCPServer:
    """A tool server, started or connected to in its ``async with``::

        async with MCPServer.stdio(["uvx", "mcp-server-time"]) as server:
            agent = Agent(model="openai:gpt-5", tools=await server.tools())
            async with Kernel() as kernel:
                await kernel.run(agent, "What time is it in Beijing?")

    Made by `stdio` or `http`. The block is to be entered and left in one task, and outside of the
    kernel's, which then has no call left when the server ends. Whatever the server does, its
    connection lives in a task of its own: if it fails, calls fail, and the block goes on. It is not
    started again by itself; the block may be entered again when it has been left.

    A call that is cancelled is told to the server, and ends without waiting for it. What the
    server reports of a call is the call's progress: ``{"progress": 3, "total": 10, "message":
    "..."}``, with what was sent of these. One under which the server ended settles `lost`. Nothing
    of calls and answers is logged here; the official client has loggers of its own, under ``mcp``,
    and may show there what it could not read.
    """

    def __init__(
        self, name: str, wire: Callable[[], Wire], options: ToolOptions, spans: tuple[float, float]
    ) -> None:
        self.name: str = name
        """What errors call it."""
        self._wire = wire
        self._options = options
        self._spans = spans
        self._connection: Connection | None = None
        self._stack: AsyncExitStack | None = None

    @classmethod
    def stdio(
        cls,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stderr: IO[bytes] | IO[str] | int | None = None,
        name: str | None = None,
        prefix: str = "",
        timeout: float | None = None,
        idle_timeout: float | None = None,
        limit: str | None = None,
        trusted: bool = True,
        start_timeout: float = 30.0,
        close_timeout: float = 2.0,
        longest_message: int = 10_000_000,
    ) -> MCPServer:
        """A server that is started for the block: *command* is its program and arguments.

        The program leads a process group of its own, which ends with the block: its input is
        closed, after *close_timeout* seconds the group gets SIGTERM, and a second later SIGKILL.
        Only what has left the group by itself can survive.

        *env* is added to HOME, PATH and the few other variables that the server inherits. *stderr*
        is a file, or ``subprocess.DEVNULL``, for what it writes to standard error; by default the
        end of that is kept for `ServerUnavailable.last_words`. What it prints on standard output
        and is no message is passed over.

        *name* is for errors; by default the program's. *prefix* is put before the names of its
        tools, such as ``"git_"``, where several servers have tools of one name. *timeout*,
        *idle_timeout* and *limit* are those of all its tools, as `tool` takes them: without a
        timeout a call waits for as long as its turn. *trusted* is whether to believe its hints: of
        a tool that says it only reads, calls may start early.

        *start_timeout* is how many seconds it has to start, and to list its tools;
        *longest_message* how many bytes one of its messages may have: after a longer one the
        connection is closed.

        Raises ImportError without the extra ``mcp``, TypeError if *command* is one text,
        ValueError for an empty command and for a span that is not above 0, and RuntimeError on
        Windows, which has no process groups to end.
        """
        if isinstance(command, str):
            raise TypeError("command is a program and its arguments; write shlex.split(command)")
        if not command:
            raise ValueError("command is a program and its arguments, and has none")
        if sys.platform == "win32":
            raise RuntimeError("servers can be started on POSIX alone; use MCPServer.http")
        _check_extra()
        _check(start_timeout, close_timeout, longest_message)
        from ._mcp_process import Command
        from ._mcp_stdio import StdioWire
        from ._mcp_tools import ToolOptions

        words = tuple(command)
        called = name or PurePath(words[0]).name
        start = Command(words=words, env=dict(env or {}), cwd=cwd, stderr=stderr)

        def wire() -> Wire:
            return StdioWire(
                command=start, name=called, patience=close_timeout, longest=longest_message
            )

        options = ToolOptions(
            prefix=prefix, timeout=timeout, idle_timeout=idle_timeout, limit=limit, trusted=trusted
        )
        return cls(called, wire, options, (start_timeout, close_timeout))

    @classmethod
    def http(
        cls,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        client: httpx2.AsyncClient | None = None,
        name: str | None = None,
        prefix: str = "",
        timeout: float | None = None,
        idle_timeout: float | None = None,
        limit: str | None = None,
        trusted: bool = True,
        start_timeout: float = 30.0,
        close_timeout: float = 2.0,
        longest_message: int = 10_000_000,
    ) -> MCPServer:
        """A server that is there already, at *url*, and speaks streamable HTTP.

        *headers* go with every request, such as ``{"Authorization": "Bearer ..."}``; they are in no
        repr, error or log, and no redirect takes them to another host. *client* is an
        `httpx2.AsyncClient` of your own, for proxies, certificates and authentication; closing it
        is yours, and so are its timeouts and headers. Without one, a connection may be silent for
        300 s.

        *close_timeout* is how many seconds the server has to be told of the end. The others are
        those of `stdio`; *name* is by default the host.

        Raises ImportError without the extra ``mcp``, and ValueError for a *url* that is no HTTP
        URL or has a password in it, for *headers* beside a *client*, and for a span that is not
        above 0.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url is that of a server: http://HOST/PATH or https://HOST/PATH")
        if parts.username or parts.password:
            raise ValueError("url has a user or a password in it: pass headers= or client=")
        if client is not None and headers is not None:
            raise ValueError("headers= is for requests without client=; put them on the client")
        _check_extra()
        _check(start_timeout, close_timeout, longest_message)
        from ._mcp_http import HTTPWire
        from ._mcp_tools import ToolOptions

        sent = dict(headers or {})

        def wire() -> Wire:
            return HTTPWire(url=url, headers=sent, client=client, longest=longest_message)

        options = ToolOptions(
            prefix=prefix, timeout=timeout, idle_timeout=idle_timeout, limit=limit, trusted=trusted
        )
        return cls(name or parts.hostname, wire, options, (start_timeout, close_timeout))

    def __repr__(self) -> str:
        state = "closed" if self._stack is None else "open"
        return f"<MCPServer {self.name!r} {state}>"

    async def __aenter__(self) -> MCPServer:
        """Start the server, or connect to it.

        Raises ServerUnavailable if it cannot be started or reached, or ends at once; ServerTimeout
        if it does not answer in time. Nothing of it is then left.
        """
        if self._connection is not None:
            raise RuntimeError(f"the server {self.name!r} is open already")
        from ._mcp_connection import Connection

        self._connection = connection = Connection(self.name, self._wire(), *self._spans)
        try:
            async with AsyncExitStack() as stack:
                group = await stack.enter_async_context(anyio.create_task_group())
                await group.start(connection.run)
                if connection.failure is None:
                    self._stack = stack.pop_all()
                    return self
            raise connection.failure
        finally:
            if self._stack is None:
                self._connection = None

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        connection, stack = self._connection, self._stack
        assert connection is not None and stack is not None
        connection.close()
        try:
            # Without *exc*: what ended the block is not the connection's, and stays bare.
            await stack.__aexit__(None, None, None)
        finally:
            self._connection = self._stack = None

    async def tools(self) -> list[Tool[..., Any]]:
        """Ask the server for its tools, as they are now.

        A server may change them while it runs; each call of this gives the new list, and makes new
        Tools. Old ones still ask the server for the name that they had: one that it has no more
        gets a failed result with the server's words. Those of a closed server fail likewise, until
        it is open again.

        A tool whose name models do not take gets ``_`` for each character that is the matter; one
        whose schema cannot be used is left out, with a warning to the logger ``turnscope``.

        Raises ServerUnavailable outside of the block and when the server has ended, ServerTimeout
        if it does not answer within ``start_timeout``, ServerError if it refuses.
        """
        connection = self._connection
        if connection is None:
            raise closed(self.name)
        from ._mcp_tools import tools_of

        return tools_of(await connection.tools(), self._options, self.name, self._call)

    async def _call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        if self._connection is None:
            raise closed(self.name)
        return await self._connection.call(name, arguments)


def _check_extra() -> None:
    if find_spec("mcp") is None:
        raise ImportError("mcp is not installed: pip install 'turnscope[mcp]'", name="mcp")


def _check(start_timeout: float, close_timeout: float, longest_message: int) -> None:
    if not start_timeout > 0:
        raise ValueError(f"start_timeout is a span in seconds above 0, not {start_timeout!r}")
    if not close_timeout > 0:
        raise ValueError(f"close_timeout is a span in seconds above 0, not {close_timeout!r}")
    if not longest_message > 0:
        raise ValueError(f"longest_message is a number of bytes above 0, not {longest_message!r}")
