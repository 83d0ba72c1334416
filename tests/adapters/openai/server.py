"""Real servers on loopback that speak what models are asked in, well or badly.

They run in threads of their own, so that what they have open is not mistaken for what the adapter
left: `ChatServer` is a `Hosted` one; `RawServer` sends any bytes at all, also such as no
HTTP library would.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import attrs
import psutil
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.adapters.hosted import Hosted

SECONDS = 10
"""After which a wait is taken to hang: far more than any takes."""


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> str:
    """One event of a stream; `usage=` and the like stand beside the choices."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}],
        **more,
    }
    return f"data: {json.dumps(body)}\n\n"


def piece(
    index: int | None = 0,
    call_id: str | None = None,
    name: str | None = None,
    arguments: str | None = None,
) -> dict[str, Any]:
    """The delta of one piece of a call; what is None is not there."""
    function = {"name": name, "arguments": arguments}
    body: dict[str, Any] = {"index": index, "id": call_id}
    if call_id is not None:
        body["type"] = "function"
    body["function"] = {field: value for field, value in function.items() if value is not None}
    return {"tool_calls": [{field: value for field, value in body.items() if value is not None}]}


USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
LAST_USAGE = chunk(choices=[], usage=USAGE)
DONE = "data: [DONE]\n\n"
HELLO = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Hel"}),
    chunk({"content": "lo"}),
]
GOOD = [*HELLO, chunk(finish="stop"), LAST_USAGE, DONE]


@attrs.frozen
class Received:
    """A request as it came in."""

    headers: dict[str, str]
    body: dict[str, Any]
    port: int
    """The client's, which tells its connections apart."""


@attrs.define(eq=False)
class Site:
    """One base URL, and what came in there."""

    base_url: str
    received: list[Received] = attrs.field(factory=list)
    begun: threading.Event = attrs.field(factory=threading.Event)
    """An answer has been begun."""
    ended: threading.Event = attrs.field(factory=threading.Event)
    """An answer has ended, or was cut because the client went away."""


Handler = Callable[[Request, Site], Awaitable[Response]]


class ChatServer(Hosted):
    """A base URL for each test, at which its own handler answers."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count()
        self._sites: dict[str, tuple[Site, Handler]] = {}

    def app(self) -> Starlette:
        path = "/{site}/v1/{api:path}"
        return Starlette(routes=[Route(path, self._answer, methods=["POST"])])

    async def _answer(self, request: Request) -> Response:
        site, handler = self._sites[request.path_params["site"]]
        assert request.client is not None
        body = json.loads(await request.body())
        site.received.append(Received(dict(request.headers), body, request.client.port))
        return await handler(request, site)

    def site(self, handler: Handler) -> Site:
        """A new base URL at which *handler* answers."""
        name = f"site{next(self._numbers)}"
        site = Site(f"http://127.0.0.1:{self.port}/{name}/v1")
        self._sites[name] = site, handler
        return site

    def streaming(self, events: Iterable[str | float], **headers: str) -> Site:
        """A site that answers with *events*; a number is a pause, in seconds, and -1 a cut."""
        events = list(events)

        async def stream(site: Site) -> AsyncIterator[str]:
            try:
                for event in events:
                    if isinstance(event, str):
                        yield event
                        site.begun.set()
                    elif event < 0:
                        raise ConnectionAbortedError
                    else:
                        await asyncio.sleep(event)
            finally:
                site.ended.set()

        async def handler(request: Request, site: Site) -> Response:
            headers.setdefault("content-type", "text/event-stream")
            return StreamingResponse(stream(site), headers=headers)

        return self.site(handler)

    def refusing(self, status: int, body: str, **headers: str) -> Site:
        """A site that answers with *status* and *body*."""

        async def handler(request: Request, site: Site) -> Response:
            return Response(body, status, headers)

        return self.site(handler)


class RawServer:
    """Reads each request to its end and sends the same bytes, in the pieces given.

    What comes last says how it ends: "close", "reset", or "wait" for the client to go.
    """

    def __init__(self, *pieces: bytes, end: str = "close") -> None:
        self._pieces, self._end = pieces, end
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.gone = threading.Event()
        """A client has closed its connection, after the bytes were sent."""
        self.requests: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=[connection], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        # A client may go at any time; what is raised here would be blamed on whatever test runs.
        with connection, contextlib.suppress(OSError):
            connection.settimeout(SECONDS)
            received = b""
            while b"\r\n\r\n" not in received:
                received += self._more(connection)
            head, _, body = received.partition(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            while len(body) < length:
                body += self._more(connection)
            self.requests.append(head + b"\r\n\r\n" + body)
            for part in self._pieces:
                connection.sendall(part)
            if self._end == "reset":
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            elif self._end == "wait":
                with contextlib.suppress(ConnectionResetError):
                    connection.recv(1)
                self.gone.set()

    def _more(self, connection: socket.socket) -> bytes:
        if not (received := connection.recv(65_536)):
            raise ConnectionError("the client has left before its request was whole")
        return received


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


def chunked(text: str | bytes) -> bytes:
    """*text* as one chunk of a chunked body."""
    data = text.encode() if isinstance(text, str) else text
    return b"%x\r\n%s\r\n" % (len(data), data)


def open_sockets(port: int) -> int:
    """How many connections of this process to *port* are open at the client's end."""
    return sum(
        bool(connection.raddr)
        and connection.raddr.port == port
        and connection.status != "TIME_WAIT"
        for connection in psutil.Process().net_connections("tcp")
    )
