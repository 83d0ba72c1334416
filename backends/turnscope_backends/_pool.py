"""The worker processes of one backend: which are idle, which are starting, who waits for one.

They are not AnyIO's, which kills idle ones twice at the end of the event loop and thereby makes
asyncio complain on the standard error of a program that has done nothing wrong. And
``anyio.to_process`` leaves a worker behind if it is cancelled while starting it, and does not tell
which are idle. Above: `_process`. Below: `_child`, which is one of them. It knows nothing of tools.
"""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any, Final

import anyio
import attrs

from . import _parcels
from ._child import Child

START: Final = 60.0
"""Seconds for a worker to start and import the main script."""

KEPT: Final = 300.0
"""Seconds after which an idle worker may end."""

_CLOSED: Final = "the ProcessBackend was closed"

GUARD: Final = 'put what the main script does under `if __name__ == "__main__":`'


@attrs.define(eq=False)
class _Waiter:
    woken: anyio.Event = attrs.field(factory=anyio.Event)
    error: Exception | None = None


class Pool:
    """Workers, from the time it is entered until it is left. Law: no more waiters than starts.

    A start belongs to no call: one that is cancelled leaves the worker to the next.
    """

    def __init__(self) -> None:
        self._group = anyio.create_task_group()
        self._open = False
        self._idle: deque[tuple[Child, float]] = deque()  # since when each is; the last is used
        self._starting: set[anyio.CancelScope] = set()
        self._waiting: deque[_Waiter] = deque()

    async def __aenter__(self) -> Pool:
        await self._group.__aenter__()
        self._open = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """End idle workers, kill those that are starting, and wait until all have ended.

        A cancellation kills the idle ones, too. A worker that is at work ends after its call.
        """
        self._open = False
        for start in self._starting:
            start.cancel()
        while self._idle:
            self._end_soon(self._idle.pop()[0])
        await self._group.__aexit__(None, None, None)

    async def run(self, request: tuple[str, str, bytes, bytes | None]) -> _parcels.Outcome:
        """Have an idle worker carry out *request*; one is started if there is none.

        A cancellation kills the worker. Raises `_child.Broken` if the worker dies by itself,
        RuntimeError if none can be started.
        """
        while (child := self._take()) is None:
            await self._wait()
        outcome = _parcels.Outcome(*await child.ask(request))
        if self._open and child.usable:
            self._put(child)
        else:
            await child.end()
        return outcome

    def start_soon(self) -> None:
        """Start a worker in the background."""
        scope = anyio.CancelScope(deadline=anyio.current_time() + START)
        self._starting.add(scope)
        self._group.start_soon(self._start, scope, name="start a worker process")

    def _take(self) -> Child | None:
        taken = None
        while self._idle and taken is None:
            child, _ = self._idle.pop()
            if child.usable:
                taken = child
            else:
                self._end_soon(child)
        old = anyio.current_time() - KEPT
        while self._idle and self._idle[0][1] < old:
            self._end_soon(self._idle.popleft()[0])
        return taken

    def _end_soon(self, child: Child) -> None:
        self._group.start_soon(child.end, name="end a worker process")

    def _put(self, child: Child) -> None:
        self._idle.append((child, anyio.current_time()))
        if self._waiting:
            self._waiting.popleft().woken.set()

    async def _wait(self) -> None:
        if not self._open:
            raise RuntimeError("the ProcessBackend was closed under this call")
        waiter = _Waiter()
        self._waiting.append(waiter)
        if len(self._starting) < len(self._waiting):
            self.start_soon()
        try:
            await waiter.woken.wait()
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        if waiter.error is not None:
            raise waiter.error

    async def _start(self, scope: anyio.CancelScope) -> None:
        problem: BaseException | None = RuntimeError(_CLOSED)
        try:
            with scope:
                problem = await self._started()
            if scope.cancelled_caught and self._open:
                problem = TimeoutError(f"not ready after {START:g} seconds")
        except Exception as exc:
            problem = exc
        finally:
            self._starting.remove(scope)
            # Only those for whom no other start is left. A failed warm-up with nobody waiting says
            # nothing: the first call tries again, and tells.
            while len(self._waiting) > len(self._starting):
                waiter = self._waiting.popleft()
                waiter.error = RuntimeError(
                    f"no worker process could be started: {problem!r}. Each worker imports the "
                    f"program's main script, so {GUARD}"
                )
                waiter.error.__cause__ = problem
                waiter.woken.set()

    async def _started(self) -> BaseException | None:
        """Start a worker and make it idle; returns what its main script raised there."""
        child = await Child.start()
        first: tuple[Any, ...] = _parcels.first()
        outcome = _parcels.Outcome(*await child.ask(first))
        # The answer may have come in the very step in which the pool was left.
        if outcome.ok and child.usable and self._open:
            self._put(child)
            return None
        await child.kill()
        return _parcels.exception(outcome) if self._open else RuntimeError(_CLOSED)
