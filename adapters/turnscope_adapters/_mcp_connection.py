"""One connection to a tool server: opened, used and closed in one task, asked from any.

The official client opens task groups where it is entered. Here that is a task of the connection's
own, so that nothing of it can cancel the code that uses the server. Above: `mcp`, which owns the
task. Below: `_mcp_stdio` and `_mcp_http`, the ways to a server; `_mcp_results`, its answers.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Protocol, cast

import anyio
import attrs
import mcp_types as types
from anyio.abc import TaskStatus
from mcp.client import Client
from mcp.client._transport import Transport, TransportStreams
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from turnscope import CallContext, current_call

from ._mcp_errors import (
    ServerError,
    ServerLost,
    ServerTimeout,
    ServerUnavailable,
    ToolError,
    closed,
)
from ._mcp_results import parts_of, value_of, words_of

_MOST_PAGES: Final = 100


class Wire(Protocol):
    """A way to a server."""

    @property
    def lasting(self) -> bool:
        """Whether it is one connection for all; else each request has its own."""
        ...

    @property
    def broken(self) -> str | None:
        """Why no more can come from it, after "it"; None as long as it can."""
        ...

    @property
    def last_words(self) -> str:
        """The end of what it wrote to standard error."""
        ...

    def open(
        self, heard: Callable[[SessionMessage], None]
    ) -> AbstractAsyncContextManager[TransportStreams]:
        """The streams of messages; *heard* is told of each that comes in before the client is."""
        ...


@attrs.define(eq=False)
class Connection:
    """A connection to the server *name* along *wire*; spans are in seconds."""

    name: str
    wire: Wire
    start_timeout: float
    close_timeout: float
    failure: ServerError | None = None
    """Why it could not be opened."""
    _client: Client | None = None
    _closing: anyio.Event = attrs.field(factory=anyio.Event)
    _progress: dict[str, CallContext[Any]] = attrs.field(factory=dict[str, CallContext[Any]])
    _tokens: itertools.count[int] = attrs.field(factory=itertools.count)
    _thread: int = attrs.field(factory=threading.get_ident)

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Open it, say so, and keep it until `close`.

        If it cannot be opened, that is said as well: `failure` is why. Never raises an Exception.
        """
        end = anyio.current_time() + self.start_timeout
        opened = False
        with anyio.CancelScope(deadline=end) as scope:
            try:
                about = types.Implementation(name="turnscope", version=_version())
                transport: Transport = self.wire.open(self._heard)
                # No cache: whoever asks for the tools wants those of now.
                async with Client(transport, client_info=about, cache=None) as self._client:
                    opened = True
                    scope.deadline = math.inf
                    task_status.started()
                    try:
                        await self._closing.wait()
                    finally:
                        self.close()
                    scope.deadline = anyio.current_time() + self.close_timeout
            except Exception as exc:
                # Once it was open, its calls have been told.
                if not opened:
                    self.failure = self._not_started(exc)
            finally:
                self._client = None
        if not opened:
            if self.failure is None:
                self.failure = ServerTimeout(
                    f"the server {self.name!r} did not start within {self.start_timeout:g} s; if "
                    f"it is only slow, raise start_timeout={self._said_last()}",
                    server=self.name,
                )
            task_status.started()

    def close(self) -> None:
        """Have `run` close it."""
        self._closing.set()

    async def tools(self) -> list[types.Tool]:
        """The tools that the server has now, each name once.

        Raises ServerTimeout if it does not say so in time, ServerUnavailable if it is not there,
        and ServerError if it refuses or cannot be understood.
        """
        found: dict[str, types.Tool] = {}
        cursor: str | None = None
        client = self._open()
        if client.server_capabilities.tools is None:
            return []
        with anyio.move_on_after(self.start_timeout):
            try:
                for _ in range(_MOST_PAGES):
                    page = await client.list_tools(cursor=cursor)
                    for tool in page.tools:
                        found.setdefault(tool.name, tool)
                    cursor = page.next_cursor
                    if cursor is None:
                        return list(found.values())
            except (MCPError, ValidationError, RuntimeError) as exc:
                raise self._refused(exc, "to list its tools") from exc
            raise ServerError(
                f"the server {self.name!r} lists its tools on more than {_MOST_PAGES} pages",
                server=self.name,
            )
        raise ServerTimeout(
            f"the server {self.name!r} did not list its tools within {self.start_timeout:g} s",
            server=self.name,
        )

    async def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """What the server's tool *name* gives for *arguments*.

        A cancellation is sent on to the server, and not waited for. Raises ToolError if the tool
        failed, or the server refused; ServerUnavailable if it is not there; ServerLost if it has
        gone meanwhile; ServerError if its answer cannot be understood.
        """
        client = self._open()
        token = f"turnscope-{next(self._tokens)}"
        with suppress(RuntimeError):  # called as a function, outside of any kernel: nobody to tell
            self._progress[token] = current_call()
        try:
            # Not the client's own callback: it is run in tasks of its own, which may come after
            # one another in any order, and after the answer.
            meta = cast("types.RequestParamsMeta", {"progress_token": token})
            result = await client.call_tool(name, dict(arguments), meta=meta)
            if not result.is_error:
                return value_of(result)
            parts = parts_of(result.content)
        except MCPError as exc:
            if self._is_gone(exc):
                raise self._lost(exc) from exc
            raise ToolError(exc.message, server=self.name, code=exc.code) from exc
        except (ValidationError, ValueError, RuntimeError) as exc:
            raise self._refused(exc, f"to call {name!r}") from exc
        finally:
            self._progress.pop(token, None)
        said = words_of(parts) or "the tool failed, and the server did not say why"
        raise ToolError(said, server=self.name, content=parts)

    def _heard(self, item: SessionMessage) -> None:
        """Report progress, in the order in which it came and before the answer is read."""
        message = item.message
        if not isinstance(message, types.JSONRPCNotification):
            return
        if message.method != "notifications/progress" or message.params is None:
            return
        context = self._progress.get(str(message.params.get("progressToken")))
        if context is not None:
            known = ("progress", "total", "message")
            context.progress({key: message.params[key] for key in known if key in message.params})

    def _open(self) -> Client:
        if threading.get_ident() != self._thread:
            raise RuntimeError(
                f"the server {self.name!r} was opened in another thread's event loop; open it in "
                "the one that uses it"
            )
        if self._client is None:
            raise closed(self.name)
        if self.wire.broken is not None:
            raise ServerUnavailable(
                f"the server {self.name!r} {self.wire.broken} before this call, and is not started "
                "again by itself",
                server=self.name,
                last_words=self.wire.last_words,
            )
        return self._client

    def _is_gone(self, exc: MCPError) -> bool:
        """Whether *exc* is the end of the connection; a server may use the same code for others."""
        holds = self.wire.lasting and self.wire.broken is None and not self._closing.is_set()
        return exc.code == types.CONNECTION_CLOSED and not holds

    def _lost(self, exc: MCPError) -> ServerLost:
        closed = "was closed" if self._closing.is_set() else f"was lost: {exc.message},"
        how = self.wire.broken or closed
        return ServerLost(
            f"the server {self.name!r} {how} under the call",
            server=self.name,
            last_words=self.wire.last_words,
        )

    def _refused(self, exc: Exception, what: str) -> ServerError:
        """The error of a request whose answer was none."""
        if isinstance(exc, MCPError):
            if self._is_gone(exc):
                return self._lost(exc)
            return ServerError(
                f"the server {self.name!r} refused {what}: {exc.message}", server=self.name
            )
        # Not what pydantic says of it, which repeats the answer.
        said = "" if isinstance(exc, ValidationError) else f": {exc}"
        return ServerError(
            f"the server {self.name!r}, asked {what}, answered what breaks the protocol{said}",
            server=self.name,
        )

    def _not_started(self, exc: Exception) -> ServerError:
        while isinstance(exc, ExceptionGroup):
            exc = cast("ExceptionGroup[Exception]", exc).exceptions[0]
        if isinstance(exc, ServerError):
            return exc
        how = self.wire.broken
        if how is None and isinstance(exc, MCPError):
            how = f"did not start: {exc.message}"
        error = ServerUnavailable(
            f"the server {self.name!r} {how or f'did not start: {_described(exc)}'}"
            f"{self._said_last()}",
            server=self.name,
            last_words=self.wire.last_words,
        )
        error.__cause__ = exc
        return error

    def _said_last(self) -> str:
        words = self.wire.last_words
        return f"; it wrote last: {words[-500:]}" if words else ""


def _version() -> str:
    try:
        return version("turnscope")
    except PackageNotFoundError:  # a source tree that is not installed
        return "0"


def _described(exc: Exception) -> str:
    if isinstance(exc, ValidationError):
        return "its answer breaks the protocol"
    return f"{type(exc).__name__}: {exc}"
