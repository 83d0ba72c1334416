"""An agent behind HTTP: when the client goes, what was done for it ends. For any ASGI server.

Two ways in, for two kinds of endpoints. `cancel_on_disconnect` is for the handler that answers
once; `SSE` is the response that streams a run. Both call ``receive()`` themselves, because else
nobody does while a handler is at work: no server cancels a handler of Starlette or FastAPI, and
from version 2.4 of the ASGI specification Starlette learns of a disconnect only by a ``send`` that
fails, which a long silent tool never comes to.

Nothing here needs a framework: these are objects of the ASGI protocol, for asyncio and trio. Where
Starlette is installed, `SSE` is one of its responses too, as FastAPI wants it. Above: your
service. Below: `_disconnect`, `_sse_form`, and a kernel that your service opens once, in its
lifespan.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, TypeAlias

from anyio import move_on_after

from turnscope import Run
from turnscope.events import RunFinished

from . import _sse_form
from ._disconnect import Client as Client
from ._disconnect import ClientDisconnected as ClientDisconnected
from ._disconnect import HasReceive, Receive, listen
from ._sse_form import Shown as Shown

__all__ = ["SSE", "Client", "ClientDisconnected", "Shown", "cancel_on_disconnect", "no_answer"]

Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

if TYPE_CHECKING:

    class _Response:
        """What `SSE` extends: nothing that type checkers need to know."""

else:
    try:
        from starlette.responses import Response as _Response
    except ImportError:
        _Response = object


def cancel_on_disconnect(request: HasReceive | Receive) -> AbstractAsyncContextManager[Client]:
    """Cancel the code in the block when the client disconnects, and raise `ClientDisconnected`.

    ::

        @app.post("/ask")
        async def ask(request: Request, question: Question) -> str:
            async with cancel_on_disconnect(request):
                result = await kernel.run(agent, question.text)
            return result.output

    request: a Request of Starlette or FastAPI, any other object with ``receive``, or the
    ``receive`` of the ASGI application.

    The block is left by one of these: what it raises itself, bare; the cancellation of somebody
    else, as it came; `ClientDisconnected`, if the block was cut short. A block that has come to its
    end all the same is not: what it did counts. To have disconnects answered with nothing, and not
    logged as failures, hand `no_answer` to the framework.

    A body that is not read yet is not lost: what comes of it during the block is kept in memory.
    Starlette's and FastAPI's Request reads it as ever, in the block and after it. With other
    frameworks, and behind Starlette's BaseHTTPMiddleware (which may drop a piece of a body that is
    still coming when the block ends), read the body before the block, or from the `Client` that
    the block is given.

    The block is a scope in the caller's task: it may not stand in a generator around its ``yield``.
    To stream, use `SSE`. Raises what ``receive`` raises.
    """
    return listen(request, keeps=True)


async def no_answer(_request: object, _exc: Exception) -> NoAnswer:
    """Answer `ClientDisconnected` with status 499, which nobody reads but the access log::

    app = FastAPI(exception_handlers={ClientDisconnected: no_answer})
    """
    return NoAnswer()


class NoAnswer:
    """An ASGI application that answers with nothing."""

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Send status 499, as nginx names a client that has gone, and no body."""
        await _send(send, {"type": "http.response.start", "status": 499, "headers": []})
        await _send(send, {"type": "http.response.body", "body": b"", "more_body": False})


class SSE(_Response):
    """Streams a run to the client as server-sent events, and ends it when the client goes.

    ::

        @app.get("/ask")
        async def ask(question: str) -> SSE:
            return SSE(kernel.start(agent, question))

    run: what ``kernel.start`` gives, not entered. What cannot be run is so refused in the handler.
    show: what is sent beside the plain course of the run, see below.
    keep_alive: seconds of silence after which a comment is sent, so that no proxy closes the
    connection; ``math.inf`` for never.
    headers: to be sent in addition.
    background: awaited when nothing of the run is left, however it ended, also after a disconnect;
    ``run.history`` is valid there. Not if the server cancels the response, as it does when it
    stops.

    A response of Starlette and FastAPI, to be returned by a handler; elsewhere an ASGI application,
    to be awaited with scope, receive and send. One object answers one request.

    Each event has a name and one object of JSON, which always has ``run`` and ``turn``::

        run_started
        model_started
        text            text
        model_retried   attempt, delay, error: the name of the exception's class. The text of this
                        turn so far is void: take it back, the answer comes anew
        model_fell_back model: who is asked instead; error
        model_answered  reason, usage
        call_ready      index, id, name
        call_started    index, id, name
        call_retried    index, id, name, attempt, delay, error
        call_settled    index, id, name, status
        call_discarded  index, id, name, reason
        turn_finished   statuses
        run_finished    output, usage
        run_failed      error: the name of the exception's class

    The last one is always ``run_finished`` or ``run_failed`` (of the run that has no ``parents``),
    unless the connection breaks. Further events and keys may come: skip what you do not know. With
    *show*, there are also::

        "arguments"     call_ready: arguments
        "results"       call_settled: content, as the model reads it
        "progress"      call_progress  index, id, name, value
        "reasoning"     reasoning      text
        "errors"        run_failed, model_retried, model_fell_back, call_retried: message
        "nested"        all of this of the runs in its tools, with ``parents``, the outermost first

    A browser's EventSource asks again when a stream ends, which would start another run: have the
    page close it at ``run_finished`` and ``run_failed``.

    A client that has gone cancels the run, which is joined within the kernel's ``grace``; the
    response then ends without a word. A run that fails is told to the client, the response ends in
    good order, and the error is raised to the server, which logs it. A run that was cancelled, by
    ``run.cancel`` or a kernel that closes, is told to the client only. HEAD gets the headers, and
    starts nothing.

    A server that stops waits for its responses first: give it a limit
    (``--timeout-graceful-shutdown`` of uvicorn, which has none by default; hypercorn 0.18 has 3
    seconds, but on asyncio from Python 3.12 on it waits for open connections without a limit).

    Raises ValueError for what *show* or *keep_alive* cannot be.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        run: Run[Any],
        *,
        show: Iterable[Shown] = (),
        keep_alive: float = 15.0,
        headers: Mapping[str, str] | None = None,
        background: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.run = run
        self._show: frozenset[str] = frozenset(show)
        if not self._show <= _sse_form.SHOWN:
            known = ", ".join(sorted(_sse_form.SHOWN))
            raise ValueError(f"SSE(show={sorted(self._show)}): there are {known}")
        if not keep_alive > 0:
            raise ValueError(f"SSE(keep_alive={keep_alive!r}): seconds, above 0, or math.inf")
        self._keep_alive = keep_alive
        self._begun = False
        # From here on what a response of Starlette has: middleware and FastAPI use them.
        self.status_code = 200
        self.background = background
        sent = {
            "content-type": f"{self.media_type}; charset=utf-8",
            "cache-control": "no-store",
            "x-accel-buffering": "no",  # nginx would keep events back until it has enough of them
            **{name.lower(): value for name, value in (headers or {}).items()},
        }
        self.raw_headers: list[tuple[bytes, bytes]] = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()
        ]

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Be the response, until the run has ended or the client has gone."""
        if scope["type"] != "http":
            raise RuntimeError(f"SSE is a response to HTTP, not to {scope['type']!r}")
        if scope["method"] == "HEAD":
            await self._start(send)
            await self._end(send)
            return
        try:
            await self._stream(receive, send)
        except ClientDisconnected:
            await self._after()
        except Exception:
            await self._after()
            raise
        else:
            await self._after()

    async def _stream(self, receive: Receive, send: Send) -> None:
        # The run outside, so that nothing cancels its join; the listener inside, because a server
        # calls a response that has ended a disconnect too.
        async with self.run as run:
            self._begun = True
            await self._start(send)
            async with listen(receive, keeps=False):
                await self._tell(run, send)
            await self._end(send)

    async def _tell(self, run: Run[Any], send: Send) -> None:
        """Send the events of *run*, to its last."""
        while True:
            event = None
            with move_on_after(self._keep_alive):
                event = await anext(run)
            body = _sse_form.KEEP_ALIVE
            if event is not None:
                shown = _sse_form.encoded(event, self._show)
                if shown is None:
                    continue
                body = shown
            await _send(send, {"type": "http.response.body", "body": body, "more_body": True})
            if isinstance(event, RunFinished) and event.run_id == run.run_id:
                return

    async def _start(self, send: Send) -> None:
        await _send(
            send,
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            },
        )

    async def _end(self, send: Send) -> None:
        await _send(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _after(self) -> None:
        if self._begun and self.background is not None:
            await self.background()


async def _send(send: Send, message: MutableMapping[str, Any]) -> None:
    """Send *message*; raises ClientDisconnected if there is nobody to send it to."""
    try:
        await send(message)
    except OSError as exc:
        raise ClientDisconnected from exc
