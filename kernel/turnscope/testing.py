"""For the tests of those who use turnscope: a scripted model, virtual clocks, checkers of promises.

`ScriptedModel` answers as it is told, without a network. `virtual_time` makes hours of sleeping
pass in milliseconds, on asyncio and trio, without jumping over a thread or a process that is at
work. `nothing_left` and `check_results` state two of the kernel's promises, so that a test can hold
its own tools to them. Above: tests. Below: `_scripted`, `_checkers`, and `_holds` for the count of
real work. It runs no turn and knows nothing of kernels.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import selectors
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, TypeVar, TypeVarTuple

import anyio
from anyio import CapacityLimiter, to_process

from ._checkers import awaits, check_results, has_job, nothing_left
from ._holds import outstanding
from ._scripted import ScriptedModel, Stream

if TYPE_CHECKING:
    from trio.testing import MockClock

__all__ = [
    "ScriptedModel",
    "Stream",
    "VirtualTime",
    "check_results",
    "nothing_left",
    "virtual_time",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_START: Final = 1_000_000.0
_REAL_STEP: Final = 0.001
_TRIO_THRESHOLD: Final = 0.0005


class VirtualTime(TypedDict):
    """What `virtual_time` returns: keyword arguments of `anyio.run`."""

    backend: Literal["asyncio", "trio"]
    backend_options: dict[str, Any]


def virtual_time(backend: Literal["asyncio", "trio"]) -> VirtualTime:
    """Run a test in no time: its clock jumps to the next timer whenever nothing else can happen.

    >>> anyio.run(main, **virtual_time("trio"))

    With AnyIO's pytest plugin, give the fixture ``anyio_backend`` the values as a tuple::

        @pytest.fixture(params=["asyncio", "trio"])
        def anyio_backend(request):
            return tuple(virtual_time(request.param).values())

    The clock begins at 1,000,000 seconds, so that a timeout given for a deadline is seen to lie in
    the past. Each call gives a new clock. Timers of one instant fire in no promised order.

    Virtual time stands still, and real time passes, while a thread or a process is at work:

    * a thread or process call of a kernel, until its worker has really ended;
    * `anyio.to_thread.run_sync`. If abandoned by a cancellation: on asyncio until the thread ends,
      on trio until the cancellation;
    * ``loop.run_in_executor``, `asyncio.to_thread` and name look-ups, while they are awaited;
    * `anyio.to_process.run_sync` with its default limiter.

    A thread that waits in `anyio.from_thread.run` is not at work: what it asks for may sleep.
    Connections within the test (loopback, pipes, signals) work, since the clock looks for them
    before it jumps. What it cannot see is jumped over: threads that you start yourself, other
    machines, `anyio.run_process`, and process calls with a limiter of their own. Put such work in
    ``anyio.to_thread.run_sync``, or test it in real time. And a thread that waits for something
    that only virtual time will bring waits for ever.

    uvloop has no virtual clock: it reads the machine's. Raises ValueError for "uvloop" or any other
    name, and ModuleNotFoundError for "trio" where trio is not installed.
    """
    if backend == "asyncio":
        return {"backend": backend, "backend_options": {"loop_factory": _VirtualLoop}}
    if backend == "trio":
        return {"backend": backend, "backend_options": {"clock": _trio_clock()}}
    raise ValueError(
        f'virtual_time knows "asyncio" and "trio", not {backend!r}; uvloop has no virtual clock: '
        'run the test on "asyncio", or in real time'
    )


# A thread that waits in `anyio.from_thread.run` counts as at work, yet goes on only when the event
# loop does what it asks: to wait for it would be to wait for ever. So these two count what threads
# have asked for and not been answered. They look at the tasks that do it, because a thread's own
# stack shows no difference between waiting and being about to go on. The names are not public: were
# they to change, time would stand still where a thread asks, and a test would say so.


def _asked_on_asyncio(loop: asyncio.AbstractEventLoop) -> int:
    return sum(
        getattr(task.get_coro(), "__qualname__", "").endswith(
            "run_async_from_thread.<locals>.task_wrapper"
        )
        for task in asyncio.all_tasks(loop)
    )


def _asked_on_trio(file: str) -> int:
    # In the task that waits for the thread, or, if that may abandon it, in one of its own.
    return sum(
        each.__qualname__ in ("Run.run", "Run.run_system") and each.cr_code.co_filename == file
        for task in anyio.get_running_tasks()
        for each in awaits(task.coro)
        if inspect.iscoroutine(each)
    )


class _VirtualSelector(selectors.DefaultSelector):
    """Waits for events like its parent, but lets virtual time pass where that would only sleep."""

    def __init__(self, at_work: Callable[[], bool], jump: Callable[[float], None]) -> None:
        super().__init__()
        self._at_work = at_work
        self._jump = jump

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)  # without a timer, what comes, comes from outside
        if self._at_work():
            return super().select(_REAL_STEP)
        # Looked for last: a worker posts its wake-up before it stops counting.
        ready = super().select(0)
        if not ready:
            self._jump(timeout)
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop, with a virtual clock and a count of the real work that it waits for."""

    def __init__(self) -> None:
        self._now = _START
        self._executing: set[asyncio.Future[Any]] = set()
        self._closing_executor = False
        self._process_limiter: CapacityLimiter | None = None
        self._never: list[asyncio.TimerHandle] = []
        super().__init__(_VirtualSelector(self._at_work, self._jump))
        self._jump(0)

    def time(self) -> float:
        return self._now

    def _jump(self, span: float) -> None:
        # Rounding may leave the timer one step of a float away; the next jump is that step.
        self._now += span
        # asyncio calls a timer due if it is less than this away: by its own figure, made for a
        # clock that moves by itself, a timer of this very instant is never due from 10^7 s on.
        self._clock_resolution = math.ulp(self._now)

    def _at_work(self) -> bool:
        limiter = self._process_limiter
        if self._executing or self._closing_executor or (limiter and limiter.borrowed_tokens):
            return True
        threads = sum(
            has_job(thread) and getattr(thread, "loop", self) is self
            for thread in threading.enumerate()
        )
        # The sum, because on asyncio a kernel's threads are its own.
        at_work = outstanding() + threads
        return at_work > 0 and at_work > _asked_on_asyncio(self)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        if when != math.inf:
            return super().call_at(when, callback, *args, context=context)
        # asyncio looks at such a timer once a day, and idle days would pass without end.
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        # Kept, because a sleeping task may be reachable by nothing but its timer.
        while self._never and self._never[-1].cancelled():
            self._never.pop()
        self._never.append(handle)
        return handle

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._executing.add(future)
        future.add_done_callback(self._executing.discard)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        # It joins the executor's threads under a timer, which must not be jumped to.
        self._closing_executor = True
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._closing_executor = False

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
        # A worker process is started in a task, where the limiter of its calls can be looked up;
        # the selector runs in none.
        if self._process_limiter is None and to_process.__name__ in args:
            self._process_limiter = to_process.current_default_process_limiter()
        return await super().subprocess_exec(*args, **kwargs)


def _trio_clock() -> MockClock:
    try:
        import trio.testing
    except ModuleNotFoundError as exc:
        raise ModuleNotFoundError(
            'virtual_time("trio") needs trio: pip install turnscope[trio]', name="trio"
        ) from exc

    file = trio.from_thread.run.__code__.co_filename
    clock = trio.testing.MockClock(autojump_threshold=_TRIO_THRESHOLD)
    clock.jump(_START)

    def autojump() -> None:
        # The greater, because on trio a kernel's threads are trio's, and count in both.
        at_work = max(outstanding(), trio.testing.active_thread_count())
        if at_work > 0 and at_work > _asked_on_trio(file):
            return
        if to_process.current_default_process_limiter().borrowed_tokens:
            return
        span = trio.lowlevel.current_statistics().seconds_to_next_deadline
        if 0 < span < math.inf:
            clock.jump(span)

    # MockClock is final and has no other way in: the instance's own attribute goes first.
    vars(clock)["_autojump"] = autojump
    return clock
