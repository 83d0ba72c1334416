"""The one file of the kernel that knows which event loop runs, and the one that imports asyncio.

It does so inside functions, because asyncio took two fifths of the time in which turnscope was
imported, and who runs on trio does without. AnyIO carries everything else. What it cannot say is
said here: which driver a body needs, whether a task was cancelled by a stranger, and how to give
the kernel's task group a task of its own. Below: `_interrupt` and AnyIO. Above: `_attempt`,
`_turn`, `_kernel`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import anyio
import attrs

from ._awaited import AsyncioTraps
from ._interrupt import Interruptible, TrioTraps, drive_on_asyncio, drive_on_trio
from ._left_open import Blocks, blocks_on_asyncio, blocks_on_trio
from ._raised import unwrapped
from ._whole import whole

if TYPE_CHECKING:
    import asyncio

    from anyio import CancelScope
    from anyio.abc import AsyncBackend
    from anyio.lowlevel import EventLoopToken

T = TypeVar("T")

Task: TypeAlias = "asyncio.Task[Any]"


class Signal(Protocol):
    """What one task waits for, once. An AnyIO Event is one."""

    def set(self) -> None:
        """Have the task go on, if it waits still."""
        ...

    def wait(self) -> Awaitable[object]:
        """Give what the task awaits until then."""
        ...


@attrs.frozen(eq=False, repr=False)
class Loop:
    """What the kernel must know of the event loop that it was opened in."""

    token: EventLoopToken
    cancelled: type[BaseException]
    traps: TrioTraps | None
    """How trio resumes a coroutine; None on asyncio."""
    waits: AsyncioTraps | None
    """What a coroutine waits for on asyncio; None on trio."""
    thread: int
    now: Callable[[], float]
    """The loop's clock, in seconds."""
    clock: Callable[[], float]
    """For spans in seconds, in any thread, also while the loop is held up; virtual if `now` is."""
    signal: Callable[[], Signal]
    """Makes one."""
    blocks: Blocks
    """Finds what a body has left open."""
    anyio: type[AsyncBackend]
    """What AnyIO's own functions ask when they have found which loop runs. They look for it each
    time: 0.4 us, of the 16 that a call costs and the 65 of a turn."""

    @classmethod
    def running(cls) -> Loop:
        """Look at the loop of the current task."""
        from anyio.lowlevel import current_token  # here, because AnyIO loads it with its backend

        cancelled = anyio.get_cancelled_exc_class()
        if cancelled.__module__.partition(".")[0] == "asyncio":
            traps, waits, (now, clock) = None, _waits(cancelled), _clocks()
            blocks = blocks_on_asyncio(waits.running)
        else:
            traps, waits = TrioTraps.look(cancelled), None
            now = clock = traps.clock()
            blocks = blocks_on_trio(traps.running)
        token, thread = current_token(), threading.get_ident()
        backend = token.backend_class
        signal = _signals() if waits is not None else backend.create_event
        return cls(token, cancelled, traps, waits, thread, now, clock, signal, blocks, backend)

    @property
    def is_asyncio(self) -> bool:
        """Whether this is asyncio (uvloop too)."""
        return self.traps is None

    def in_nursery(self, beyond: int) -> bool:
        """Whether the running task is in more than *beyond* nurseries of trio's; on asyncio, no."""
        return self.traps is not None and self.traps.nurseries() > beyond

    def here(self) -> bool:
        """Whether the caller is in the thread of this loop."""
        return threading.get_ident() == self.thread

    def drive(self, body: Coroutine[Any, Any, T], call: Interruptible) -> Awaitable[T]:
        """What awaits *body* with one interrupt for it, told by *call*."""
        if self.waits is not None:
            return drive_on_asyncio(body, call, self.waits)
        assert self.traps is not None  # because there are two event loops
        return drive_on_trio(body, call, self.traps)

    def scope_for_many(self) -> AbstractContextManager[CancelScope | None]:
        """A scope that several waits may have, one after the other; None if each makes its own.

        To make one for each took an eighth of the instructions of a turn. On trio they do: should
        `_left_open` not know that trio, the end of the one around it mends what is left open.
        """
        return self.anyio.create_cancel_scope() if self.is_asyncio else nullcontext()

    def cancellation(self) -> BaseException:
        """A cancellation exception to raise in a body that has been asked to end."""
        if self.traps is None:
            return self.cancelled("the tool call was asked to end")
        return self.traps.cancellation()

    def task(self) -> Task | None:
        """The running task, where tasks can be cancelled by strangers: on asyncio."""
        if self.traps is not None:
            return None
        import asyncio

        return asyncio.current_task()


def _waits(cancelled: type[BaseException]) -> AsyncioTraps:
    import asyncio

    return AsyncioTraps(cancelled, asyncio.Future, asyncio.current_task, sent_by_scope)


@lru_cache(maxsize=1)
def _signals() -> Callable[[], Signal]:
    """On asyncio a future will do: an AnyIO Event is three objects, of 760 bytes, and two waits."""
    import asyncio

    class FutureSignal(asyncio.Future[None]):
        __slots__ = ()

        def set(self) -> None:
            if not self.done():  # else the wait for it was cancelled
                self.set_result(None)

        def wait(self) -> Awaitable[None]:
            return self

    return FutureSignal


def _clocks() -> tuple[Callable[[], float], Callable[[], float]]:
    """The clock of the running loop, one of asyncio's, and what measures spans in any thread."""
    import asyncio

    loop = asyncio.get_running_loop()
    # Python's own loops look at their clock each time. uvloop does so once for each round of the
    # loop: another thread would read when the loop was last free.
    spans = loop.time if isinstance(loop, asyncio.BaseEventLoop) else time.monotonic
    return loop.time, spans


def cancelled_by_stranger(task: Task | None) -> bool:
    """Whether somebody called *task*'s own ``cancel``, as `asyncio.run` does when it tears down.

    Only to be asked when no cancel scope of ours has cancelled *task*: AnyIO's scopes count too.
    """
    return task is not None and task.cancelling() > 0


def has_ended(task: anyio.TaskHandle[None] | None) -> bool:
    """Whether *task* has come to its end, and not by a first step that it was yet to take."""
    status = anyio.TaskHandle.Status
    return task is not None and task.status not in (status.PENDING, status.CANCELLING)


def scope_of(task: object) -> anyio.CancelScope | None:
    """The scope that AnyIO has put around *task*, a TaskHandle; None if it has none to show.

    An attempt takes it for the one around its body, or, if the call has a timeout, for the one
    that this cancels. One more would cost 2 us of the 18 of a call, on trio 4 us of 23.
    """
    scope: anyio.CancelScope | None = getattr(task, "_cancel_scope", None)
    return scope


def sent_by_scope(cancellation: BaseException) -> bool:
    """Whether *cancellation* names a scope of AnyIO's, as theirs do on asyncio."""
    return "cancel scope" in str(cancellation)


def sent_by(cancellation: BaseException, scope: anyio.CancelScope | None) -> bool:
    """Whether *cancellation* names *scope*, as AnyIO's do on asyncio.

    Of two scopes that are cancelled at one instant the first sends; only it takes what it sent.
    """
    return scope is not None and f"scope {id(scope):x}" in str(cancellation)


class Host:
    """A task that outlives the await that started it, and hosts *main*.

    On asyncio it is a task of its own, because a pytest or ASGI fixture enters and leaves its
    contexts in different tasks, where a task group would raise "Attempted to exit cancel scope in
    a different task". On trio it is a child of the opener, as trio wants it.
    """

    def __init__(self, loop: Loop, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._loop = loop
        self._main = main
        self._group = None if loop.is_asyncio else anyio.create_task_group()
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None
        self.done = anyio.Event()

    async def start(self, name: str) -> None:
        """Start the task, without waiting for anything but trio's nursery."""
        if self._group is None:
            import asyncio

            self._task = asyncio.get_running_loop().create_task(self._run(), name=name)
            self._task.add_done_callback(self._ended)
        else:
            await self._group.__aenter__()
            self._group.start_soon(self._run, name=name)

    @whole
    async def _run(self) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await self._main()
        except self._loop.cancelled:
            # By a stranger, after all was told to end; it did end.
            ...
        except BaseException as exc:
            self._error = exc
        finally:
            self.done.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._error = task.exception()  # Ctrl-C landed in its last lines
        self.done.set()  # also for one that is cancelled before its first step

    async def leave(self, stopped: BaseException | None) -> BaseException | None:
        """After `done`: leave trio's nursery, in the task that started.

        Returns *stopped*, what has ended the wait for it, or else *main*'s error.
        """
        if self._group is not None:
            await self._group.__aexit__(None, None, None)
        if stopped is not None or self._error is None:
            return stopped
        return unwrapped(self._error, self._loop.cancelled)


async def join(
    loop: Loop, done: anyio.Event, ask: Callable[[], None], raised: BaseException | None
) -> BaseException | None:
    """Wait for *done*, taking each exception of the wait as one more reason to *ask*.

    *raised* is what the block to be left has raised already. Returns what the caller is to raise
    in its stead, or None. Every exception counts, not only cancellations: on trio Ctrl-C may
    arrive as KeyboardInterrupt in this very await, and to let it out would leave the work behind.
    """
    first: BaseException | None = None
    while not done.is_set():
        try:
            if first is None and raised is None:
                await done.wait()
            else:
                # A native Task.cancel() pierces this shield: hence the loop.
                with anyio.CancelScope(shield=True):
                    await done.wait()
        except GeneratorExit:
            raise
        except BaseException as exc:
            if first is None or isinstance(exc, KeyboardInterrupt):
                first = exc
            ask()
    try:
        if isinstance(raised, loop.cancelled) and not isinstance(first, KeyboardInterrupt):
            return None
        return first
    finally:
        del first  # this frame is in its traceback: a cycle
