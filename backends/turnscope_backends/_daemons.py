"""Daemon threads for asyncio, in which AnyIO's ``from_thread`` functions work as in its own.

Above: `_thread`, which has the reason why they are daemons. It relies on two thread-locals of
AnyIO, ``current_token`` and ``current_cancel_scope``, and on the function by which AnyIO says that
a context is outside of its loop: there is no public way. Tests guard them.
"""

from __future__ import annotations

import inspect
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import copy_context
from types import TracebackType
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from anyio import CancelScope, Event
from anyio._core import _eventloop
from anyio._core._eventloop import threadlocals
from anyio.lowlevel import EventLoopToken

T = TypeVar("T")

IDLE_SECONDS: Final = 10.0
"""How long a thread waits for its next work before it ends; AnyIO's worker threads do the same."""


class _Let(Protocol):
    def __call__(
        self, then: Callable[[], object] | None = None, error: BaseException | None = None
    ) -> None: ...


class Work(Generic[T]):
    """One body to be run in a thread, and what it came to."""

    def __init__(self, fn: Callable[..., T], kwargs: Mapping[str, Any], let_go: _Let) -> None:
        self.done = Event()
        self._context = copy_context()
        # As in AnyIO's own threads: the body may run an event loop of its own.
        outside: Any = getattr(_eventloop, "set_current_async_library", None)
        if outside is not None:
            self._context.run(outside, None)
        self._fn = fn
        self._kwargs = kwargs
        self._let_go = let_go
        self._value: T
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._begun = self._revoked = False

    def run(self) -> None:
        """Run the body, in the calling thread."""
        with self._lock:
            if self._revoked:
                return
            self._begun = True
        try:
            value = self._context.run(self._fn, **self._kwargs)
            if inspect.iscoroutine(value):
                value.close()
                raise TypeError(
                    f"{getattr(self._fn, '__qualname__', self._fn)} returned a coroutine in a "
                    "thread, where no event loop runs it: use backend='inline'"
                )
            self._value = value
        except BaseException as exc:
            self._error = exc

    def report(self) -> None:
        """Say that the body has really ended: free its slots, and wake who waits."""
        self._let_go(self.done.set, self._error)

    def run_and_report(self) -> None:
        """Do both, for a thread that has no more to do."""
        self.run()
        self.report()

    def revoke(self) -> bool:
        """Take the work back if no thread has begun it; whether that could be done."""
        with self._lock:
            if not self._begun:
                self._revoked = True
        if self._revoked:
            self._let_go()
        return self._revoked

    def outcome(self) -> T:
        """What the body returned; raises what it raised."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # else this frame, and so the traceback, holds the exception
        return self._value


_Inbox: TypeAlias = "queue.SimpleQueue[tuple[Work[Any], CancelScope] | None]"


class DaemonThreads:
    """Threads for the work of one event loop; the last to become idle is used first."""

    def __init__(self, token: EventLoopToken) -> None:
        self._token = token
        self._lock = threading.Lock()
        self._idle: deque[_Inbox] = deque()
        self._closed = False

    def __enter__(self) -> DaemonThreads:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._closed = True
            for inbox in self._idle:
                inbox.put(None)
            self._idle.clear()

    def start(self, work: Work[Any], scope: CancelScope) -> None:
        """Have a thread do *work*; AnyIO's functions see *scope* as the scope it is in."""
        with self._lock:
            if self._idle:
                self._idle.pop().put((work, scope))
                return
        inbox: _Inbox = queue.SimpleQueue()
        inbox.put((work, scope))
        threading.Thread(
            target=self._serve, args=(inbox,), name="turnscope worker thread", daemon=True
        ).start()

    def _serve(self, inbox: _Inbox) -> None:
        threadlocals.current_token = self._token
        while True:
            try:
                item = inbox.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if inbox in self._idle:
                        self._idle.remove(inbox)
                        return
                continue  # it was taken from the idle ones just now, for work that is on its way
            if item is None:
                return
            work, threadlocals.current_cancel_scope = item
            work.run()
            del threadlocals.current_cancel_scope, item
            # Idle before the report: the event loop's answer to it may be the next call.
            with self._lock:
                closed = self._closed
                if not closed:
                    self._idle.append(inbox)
            work.report()
            del work
            if closed:
                return
