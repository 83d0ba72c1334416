"""A task that reads what the server has to say, and cancels a block when the client has gone.

ASGI tells an application of a disconnect in one way that is reliable: ``receive()`` returns
``http.disconnect``. Nobody calls it while a handler is at work, unless a task does. Above: `asgi`.
Below: AnyIO. It knows the ASGI protocol, and no framework.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeAlias

from anyio import CancelScope, Event, create_task_group, get_cancelled_exc_class

from turnscope import TurnscopeError

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]


class HasReceive(Protocol):
    """A request of Starlette, FastAPI, or another framework on ASGI."""

    @property
    def receive(self) -> Receive:
        """The ASGI application's ``receive``."""
        ...


class ClientDisconnected(TurnscopeError):
    """The client has gone, and what was done for it was cancelled: nobody reads an answer."""

    def __init__(self) -> None:
        super().__init__("the client has disconnected; what was done for it was cancelled")


class Client:
    """The other end of one request, while somebody listens to it."""

    def __init__(self, receive: Receive, *, keeps: bool) -> None:
        self.gone: bool = False
        """Whether the client has disconnected."""
        self._receive = receive
        self._keeps = keeps
        self._kept: deque[Message] = deque()
        self._more = Event()
        self._listening = False
        self._failed: BaseException | None = None

    async def receive(self) -> Message:
        """What the application's ``receive`` gives: first what was read meanwhile, in order.

        For who reads the request's body in the block: ``Request(request.scope, client.receive)``.
        """
        while True:
            if self._kept:
                return self._kept.popleft()
            if self.gone:  # again and again: some servers say it once
                return {"type": "http.disconnect"}
            if not self._listening:
                return await self._receive()
            await self._more.wait()

    async def _listen(self, scope: CancelScope) -> None:
        """Cancel *scope* when the client has gone."""
        self._listening = True
        try:
            while not self.gone:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    self.gone = True
                    scope.cancel("the client has disconnected")
                elif self._keeps:
                    self._kept.append(message)
                self._wake()
        except get_cancelled_exc_class():
            raise
        except BaseException as exc:
            self._failed = exc
            scope.cancel("receive() failed")
        finally:
            self._listening = False
            self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._more = Event()


@asynccontextmanager
async def listen(receive: Receive | HasReceive, *, keeps: bool) -> AsyncGenerator[Client]:
    """As `cancel_on_disconnect`; *keeps*: whether the body that is read meanwhile is kept."""
    call = receive if callable(receive) else receive.receive
    client = Client(call, keeps=keeps)
    # Starlette's body(), json(), form() and stream() read from this attribute. Without it, or in a
    # framework that has none, a body is read before the block, as the docstring says.
    if keeps and getattr(receive, "_receive", None) == call:
        setattr(receive, "_receive", client.receive)  # noqa: B010  # because a Protocol has no such attribute
    raised: BaseException | None = None
    scope = CancelScope()
    async with create_task_group() as group:
        group.start_soon(client._listen, scope, name="listens for a disconnect")
        try:
            with scope:
                yield client
        except get_cancelled_exc_class():
            raise
        except BaseException as exc:
            raised = exc  # past the group, which would put it into an ExceptionGroup
        finally:
            group.cancel_scope.cancel()
    try:
        raised = raised or client._failed
        if raised is not None:
            raise raised
        if scope.cancelled_caught:
            raise ClientDisconnected
    finally:
        del raised  # this frame is in its traceback: a cycle
