"""The coroutine driver: a body gets one interrupt, then time to clean up, then enforcement.

AnyIO's cancellation is level-triggered: in a cancelled scope *every* await raises, so that an
ordinary ``finally: await cleanup()`` dies at its first await. Authors do not write tools that way.
This driver stands between the event loop and a body. When it sees the first cancellation about to
reach the body, it has the call shield the body's scope and set that scope's deadline, and only
then resumes the body: the interrupt arrives, the cleanup runs as written, and AnyIO's own timer
enforces the end. asyncio throws a cancellation into a coroutine, trio sends it in as an
`outcome.Error`; a canary test guards that reading of both. Above: the attempt. Below: nothing.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, Final, Protocol, TypeVar

from ._loop import Carrier

T = TypeVar("T")

PATIENCE: Final = 100
"""How many enforcing cancellations a body may swallow before it is ended by GeneratorExit.

A body that cleans up in nested blocks takes one for each block, and never so many. One that
catches cancellations in an endless loop would otherwise spin for ever, at full speed.
"""


class Interruptible(Protocol):
    """What the driver tells a call."""

    def deliver(self, cancellation: BaseException) -> BaseException:
        """Told that *cancellation* is about to reach the body; returns what shall reach it."""
        ...

    def drop(self) -> None:
        """Told that the coroutine itself is being closed: nothing can be awaited any more."""
        ...


@coroutine
def drive(
    body: Coroutine[Any, Any, T],
    call: Interruptible,
    cancelled: type[BaseException],
    carrier: type[Carrier] | None,
) -> Generator[Any, Any, T]:
    """Await *body*, telling *call* of each cancellation before *body* sees it.

    Raises what *body* raises; returns what it returns.
    """
    send = body.send
    try:
        trap = send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # because StopIteration is not generic
    while True:
        try:
            sent = yield trap
        except GeneratorExit:
            call.drop()
            body.close()
            raise
        except BaseException as exc:
            delivered = call.deliver(exc) if isinstance(exc, cancelled) else exc
            try:
                trap = body.throw(delivered)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # because, as above
            finally:
                del delivered  # an exception held by a frame of its own traceback is a cycle
        else:
            try:
                if carrier is not None and type(sent) is carrier:
                    trap = _resume_on_trio(body, call, cancelled, sent)
                else:
                    trap = send(sent)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # because, as above
            finally:
                sent = None


def _resume_on_trio(
    body: Coroutine[Any, Any, Any],
    call: Interruptible,
    cancelled: type[BaseException],
    sent: Carrier,
) -> Any:
    error = sent.error
    try:
        if isinstance(error, cancelled):
            delivered = call.deliver(error)
            if delivered is not error:
                return body.throw(delivered)
        return body.send(sent)
    finally:
        del error
