"""AnyIO's worker processes, and a count of those that are idle.

It keeps clear of two weak spots. A call that is cancelled while AnyIO starts a worker for it leaves
that process behind: so workers are started by tasks that nobody cancels, and a call goes to AnyIO
only when an idle worker is certain. And AnyIO does not tell which are idle: so `Pool` counts, one
for an event loop, because AnyIO has one for an event loop. Two things escape it: a program that
uses ``anyio.to_process`` itself in the same event loop takes idle workers away, and a worker may be
killed while idle. Then a call may start its own, and a cancellation in that tenth of a second
leaves it behind. Above: `_process`. Below: ``anyio.to_process``. It knows nothing of tools.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

import anyio
import attrs
from anyio import CapacityLimiter, to_process
from anyio.abc import TaskGroup
from anyio.lowlevel import RunVar

from . import _worker

T = TypeVar("T")
Args = TypeVarTuple("Args")

START: Final = 60.0
"""Seconds for a worker to start and import the main script. Not less than 20: for so long AnyIO
may wait for the first sign of life, and only after it is a start cancelled without a trace."""

NOTICED: Final = 0.2
"""Seconds after which the event loop has noticed that a process has ended."""

KEPT: Final = 240.0
"""Seconds for which an idle worker is counted on; AnyIO ends those that were idle for 300."""

GUARD: Final = 'put what the main script does under `if __name__ == "__main__":`'


class _Unlimited(CapacityLimiter):
    """No limit (capacity is the kernel's) and, unlike a limiter of infinity, no checkpoint.

    So AnyIO takes an idle worker in the very step in which it is counted as taken.
    """

    __slots__ = ()

    def __new__(cls) -> _Unlimited:
        return object.__new__(cls)

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_exc_info: object) -> None:
        return None


_unlimited: Final = _Unlimited()


@attrs.define(eq=False)
class _Waiter:
    woken: anyio.Event = attrs.field(factory=anyio.Event)
    error: Exception | None = None


class Pool:
    """What is known of the workers. Law: never more waiters than starts under way."""

    def __init__(self) -> None:
        self._idle: list[float] = []  # since when each is; AnyIO takes the last one first
        self._starting = 0
        self._waiting: deque[_Waiter] = deque()

    @classmethod
    def of_this_event_loop(cls) -> Pool:
        """The one pool of the running event loop."""
        pool = _pools.get(None)
        if pool is None:
            pool = cls()
            _pools.set(pool)
        return pool

    async def run(self, group: TaskGroup, fn: Callable[[*Args], T], *args: *Args) -> T:
        """Run ``fn(*args)`` in an idle worker; *group* starts one if there is none.

        A cancellation kills the worker. Raises BrokenWorkerProcess if the worker dies by itself,
        RuntimeError if none can be started.
        """
        while not self._take():
            await self._wait(group)
        value = await to_process.run_sync(fn, *args, cancellable=True, limiter=_unlimited)
        self._put()
        return value

    def start_soon(self, group: TaskGroup) -> None:
        """Start a worker in the background; *group* cannot be left before it has started."""
        self._starting += 1
        group.start_soon(self._start, name="start a worker process")

    def _take(self) -> bool:
        expired = anyio.current_time() - KEPT
        self._idle = [since for since in self._idle if since > expired]
        if not self._idle:
            return False
        del self._idle[-1]
        return True

    def _put(self) -> None:
        self._idle.append(anyio.current_time())
        if self._waiting:
            self._waiting.popleft().woken.set()

    async def _wait(self, group: TaskGroup) -> None:
        waiter = _Waiter()
        self._waiting.append(waiter)
        if self._starting < len(self._waiting):
            self.start_soon(group)
        try:
            await waiter.woken.wait()
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        if waiter.error is not None:
            raise waiter.error

    async def _start(self) -> None:
        problem: BaseException = TimeoutError(f"not ready after {START:g} seconds")
        ready = False
        try:
            with anyio.move_on_after(START, shield=True):
                # AnyIO prefers an idle worker to a new one: then no call may count on that one.
                self._take()
                await to_process.run_sync(_worker.ready, limiter=_unlimited)
                self._put()
                ready = True
        except (Exception, KeyboardInterrupt) as exc:
            # A terminal's Ctrl-C goes to the workers too, and AnyIO raises here what one of them
            # raised while it was importing. It is the start that failed, not this program.
            problem = exc.__cause__ or exc
        finally:
            self._starting -= 1
            # Only those for whom no other start is left. A failed warm-up with nobody waiting says
            # nothing: the first call tries again, and tells.
            while len(self._waiting) > self._starting:
                waiter = self._waiting.popleft()
                waiter.error = RuntimeError(
                    f"no worker process could be started: {problem!r}. Each worker imports the "
                    f"program's main script, so {GUARD}"
                )
                waiter.error.__cause__ = problem
                waiter.woken.set()
        if not ready:
            # AnyIO leaves a worker that died as it started to the event loop, which must not close
            # before it has taken notice: asyncio would complain of an open transport.
            with anyio.CancelScope(shield=True):
                await anyio.sleep(NOTICED)


_pools: Final = RunVar[Pool]("turnscope_backends.processes")
