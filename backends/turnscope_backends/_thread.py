"""The backend of ``def`` tools: each body runs in a thread, with the context variables of its call.

A thread cannot be stopped from outside. When its call is interrupted, this backend lets the body
know (`turnscope.check_cancelled`) and waits for it until the kernel's grace is over; then it leaves
the thread behind, and the hold on the call tells the kernel when the thread has really ended.

On trio that is ``anyio.to_thread``, whose threads are daemons there. On asyncio AnyIO's worker
threads are not: a leaked one that slept for 6 s kept the process from ending for 6.1 s (trio: 0.35
s). So there the threads are our own, in `_daemons`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, TypeVar

from anyio import CancelScope, CapacityLimiter, get_cancelled_exc_class, to_thread
from anyio.lowlevel import current_token

from turnscope import CallContext

from ._daemons import DaemonThreads, Work

T = TypeVar("T")


class ThreadBackend:
    """Runs each body in a thread of its own for the time of the call; threads are used again."""

    name = "thread"

    def __init__(self) -> None:
        self._daemons: DaemonThreads | None = None
        self._unlimited: CapacityLimiter
        self._stack = ExitStack()

    async def __aenter__(self) -> ThreadBackend:
        if get_cancelled_exc_class().__module__.partition(".")[0] == "asyncio":
            self._daemons = self._stack.enter_context(DaemonThreads(current_token()))
        else:
            # Capacity is the kernel's: AnyIO's own limiter would count a second time.
            self._unlimited = CapacityLimiter(math.inf)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._stack.close()

    def check(self, fn: Callable[..., object], /) -> None:
        """Raises TypeError for an async function, which needs an event loop."""
        if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(
                f"{getattr(fn, '__qualname__', fn)} is async and cannot run in a thread: use "
                "backend='inline' (the default for async def), or make it a def"
            )

    async def call(
        self, fn: Callable[..., T], kwargs: Mapping[str, Any], context: CallContext[Any], /
    ) -> T:
        """Run ``fn(**kwargs)`` in a thread and wait for it, as long as the kernel lets us."""
        work: Work[T] = Work(fn, kwargs, context.hold())
        cancelled = get_cancelled_exc_class()
        with CancelScope() as scope:
            try:
                if self._daemons is not None:
                    self._daemons.start(work, scope)
                    await work.done.wait()
                else:
                    await to_thread.run_sync(
                        work.run_and_report, abandon_on_cancel=True, limiter=self._unlimited
                    )
            except BaseException as exc:
                # Nothing has begun: cancelled before that, or no thread could be started.
                if work.revoke() or not isinstance(exc, cancelled):
                    raise
                # The interrupt. AnyIO's from_thread functions learn of it by this scope; whatever
                # is awaited below it, the kernel shields until the end of grace.
                scope.cancel()
        # A second cancellation is the end of grace: the thread is left behind, with its hold.
        if not work.done.is_set():
            await work.done.wait()
        return work.outcome()
