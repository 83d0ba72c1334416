"""Messages to and from a server over streamable HTTP: the official transport, with bounds.

In the official one a request that finds no server ends the connection and all its calls, a refusal
loses its status, an answer may be of any size, and a cancellation that is not taken holds up all
that follows. `_Client` stands between it and HTTP, and mends these. Above: `_mcp_connection`.
Below: httpx2, and the `mcp` package.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, cast

import anyio
import attrs
import httpx2
import mcp_types as types
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp.client._transport import ReadStream, TransportStreams, WriteStream
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

_CONNECT_SECONDS: Final = 30.0
_SILENCE_SECONDS: Final = 300.0
"""What a connection may be silent: after that its peer has gone without a word."""
_TELL_SECONDS: Final = 5.0
_FLUSH_SECONDS: Final = 0.5


@attrs.define(kw_only=True, eq=False)
class HTTPWire:
    """The way to a server at a URL."""

    url: str = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(repr=False)
    client: httpx2.AsyncClient | None
    longest: int
    """Bytes that one message may have."""
    lasting: bool = False
    broken: str | None = None
    last_words: str = ""

    @asynccontextmanager
    async def open(
        self, heard: Callable[[SessionMessage], None]
    ) -> AsyncGenerator[TransportStreams]:
        """Be ready to ask; *heard* is told of each message before the client is."""
        async with AsyncExitStack() as stack:
            client = self.client
            if client is None:
                silence = httpx2.Timeout(_CONNECT_SECONDS, read=_SILENCE_SECONDS)
                # A compressed answer could be a thousand times larger than what is counted.
                headers = {"accept-encoding": "identity", **self.headers}
                client = httpx2.AsyncClient(headers=headers, timeout=silence)
                await stack.enter_async_context(client)
            telling = await stack.enter_async_context(anyio.create_task_group())
            guarded = _Client(client, self.longest, telling)
            incoming, posted = await stack.enter_async_context(
                streamable_http_client(
                    self.url,
                    http_client=cast("httpx2.AsyncClient", guarded),
                    max_sse_event_size=self.longest,
                )
            )
            # Without a bound: a call that is cancelled must not wait until the server takes it.
            outgoing, messages = anyio.create_memory_object_stream[SessionMessage](math.inf)
            written = anyio.Event()
            async with anyio.create_task_group() as group, outgoing, messages:
                group.start_soon(_pump, messages, posted, written)
                try:
                    yield _Heard(incoming, heard), outgoing
                finally:
                    outgoing.close()
                    with anyio.move_on_after(_FLUSH_SECONDS):
                        await written.wait()
                        await guarded.told()
                    group.cancel_scope.cancel()
                    telling.cancel_scope.cancel()


async def _pump(
    messages: MemoryObjectReceiveStream[SessionMessage],
    posted: WriteStream[SessionMessage],
    written: anyio.Event,
) -> None:
    try:
        async for each in messages:
            await posted.send(each)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass
    finally:
        written.set()


class _Heard(ReadStream[SessionMessage | Exception]):
    """What comes in, after *heard* has been told of it."""

    def __init__(
        self,
        inner: ReadStream[SessionMessage | Exception],
        heard: Callable[[SessionMessage], None],
    ) -> None:
        self._inner, self._heard = inner, heard

    async def receive(self) -> SessionMessage | Exception:
        item = await self._inner.receive()
        if isinstance(item, SessionMessage):
            self._heard(item)
        return item

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> _Heard:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> _Heard:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.aclose()


class _Client:
    """What the official transport asks of a client; every failure of a request is an answer."""

    def __init__(self, client: httpx2.AsyncClient, longest: int, telling: TaskGroup) -> None:
        self._client, self._longest, self._telling = client, longest, telling
        self._untold: set[anyio.Event] = set()
        self.build_request = client.build_request
        self.max_redirects = client.max_redirects

    async def send(
        self, request: httpx2.Request, *, stream: bool, follow_redirects: bool
    ) -> httpx2.Response:
        if request.method != "POST":  # their failures the transport knows
            return await self._client.send(
                request, stream=stream, follow_redirects=follow_redirects
            )
        message = json.loads(request.content)
        asked = message.get("id")
        if message.get("method") == "notifications/cancelled":
            self._telling.start_soon(self._tell, request)
            return httpx2.Response(HTTPStatus.ACCEPTED, request=request)
        try:
            response = await self._client.send(
                request, stream=True, follow_redirects=follow_redirects
            )
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            status = response.status_code
            if status == HTTPStatus.ACCEPTED or response.has_redirect_location:
                return response
            if status < HTTPStatus.BAD_REQUEST and kind == "text/event-stream":
                return response
            try:
                body = await _whole(response.aiter_bytes(), self._longest)
            finally:
                with anyio.CancelScope(shield=True):
                    await response.aclose()
        except httpx2.HTTPError as exc:
            said = f"it could not be reached: {str(exc) or type(exc).__name__}"
            return _answer(request, asked, types.CONNECTION_CLOSED, said)
        except _TooLong:
            said = f"it sent a message of more than {self._longest:,} bytes"
            return _answer(request, asked, types.PARSE_ERROR, said)
        if status >= HTTPStatus.BAD_REQUEST and b'"jsonrpc"' not in body:
            if status == HTTPStatus.NOT_FOUND and "mcp-session-id" in request.headers:
                said = "it has ended the session (HTTP status 404): open the MCPServer anew"
            else:
                said = f"HTTP status {status} {response.reason_phrase}".strip()
            return _answer(request, asked, types.INTERNAL_ERROR, said)
        kept = ("content-type", "mcp-session-id")
        headers = {name: response.headers[name] for name in kept if name in response.headers}
        return httpx2.Response(status, headers=headers, content=body, request=request)

    async def _tell(self, request: httpx2.Request) -> None:
        """Send it beside all else, and do not mind what becomes of it."""
        self._untold.add(told := anyio.Event())
        try:
            # RuntimeError: the client was handed in, and closed meanwhile.
            with anyio.move_on_after(_TELL_SECONDS), suppress(httpx2.HTTPError, RuntimeError):
                await self._client.send(request, follow_redirects=False)
        finally:
            told.set()
            self._untold.discard(told)

    async def told(self) -> None:
        """Wait until all is sent that is still to be told."""
        for each in list(self._untold):
            await each.wait()


class _TooLong(Exception):
    pass


async def _whole(chunks: AsyncIterator[bytes], longest: int) -> bytes:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > longest:
            raise _TooLong
    return bytes(body)


def _answer(request: httpx2.Request, asked: Any, code: int, said: str) -> httpx2.Response:
    """An answer as a server would have given it; nothing to a notification, which has none."""
    if asked is None:
        return httpx2.Response(HTTPStatus.ACCEPTED, request=request)
    error = {"jsonrpc": "2.0", "id": asked, "error": {"code": code, "message": said}}
    return httpx2.Response(HTTPStatus.BAD_GATEWAY, json=error, request=request)
