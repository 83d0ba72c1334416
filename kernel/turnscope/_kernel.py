"""The kernel: the one long-lived object, which owns what turns share.

It owns the task group, the limiters, the backends and the observers. It is opened once in a
service, and every turn runs in it. Above: the user. Below: every other room.
"""

from __future__ import annotations

import itertools
import logging
import math
import secrets
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final

import attrs
from anyio import Event, create_task_group
from anyio.abc import TaskGroup

from . import _outcome
from ._limits import Limiter, LimiterStatistics, Limits
from ._loop import Host, Loop, join
from ._places import Places, Route
from ._supervisor import Supervisor
from ._tools import Tool, as_tool
from ._turn import Turn, by_name
from .abc import Backend, Observer
from .events import RunEvent

logger: Final = logging.getLogger("turnscope")


@attrs.frozen(kw_only=True)
class KernelStatistics:
    """A look at a kernel: what is lent, and who waits."""

    turns: int
    """Turns that are open."""
    limiters: Mapping[str, LimiterStatistics]
    """By name: "calls", "threads", "processes" and each group of ``Limits(groups=...)``."""


class Kernel:
    """Runs the calls of turns; open one for the life of a service, or around one agent's work.

    ::

        async with Kernel(limits=Limits(calls=64, threads=40), grace=1.0) as kernel:
            async with kernel.turn([weather], timeout=60) as turn:
                turn.submit(ToolCall("c1", "weather", '{"city": "Beijing"}'))

    limits: how many calls may work at once, over all turns.
    grace: seconds that an interrupted call has to clean up, one span for a whole tree of turns.
    backends: instances that stand in for, or add to, those found by entry points.
    observers: are told of every event.

    Leaving the block asks every turn that is open to end, joins it within grace, and closes the
    backends. On asyncio the block may be entered and left in different tasks, as fixtures and
    start-up hooks do. Raises TypeError or ValueError for arguments that cannot work.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        grace: float = 1.0,
        backends: Iterable[Backend] = (),
        observers: Iterable[Observer] = (),
    ) -> None:
        if not 0 <= grace < math.inf:
            raise ValueError(f"Kernel(grace={grace!r}): grace is a span in seconds, 0 or more")
        self.limits: Limits = Limits() if limits is None else limits
        self.grace: float = grace
        self._observers = tuple(observers)
        for observer in self._observers:
            if not isinstance(observer, Observer):
                raise TypeError(f"{observer!r} is no observer: it has no method observe(event)")
        self._observed = bool(self._observers)
        """Whether anybody is told of events: without, none are made."""
        self._silenced: set[int] = set()
        self._places = Places(backends)
        self._calls = Limiter("calls", self.limits.calls)
        self._of_backend = {
            "thread": Limiter("threads", self.limits.threads),
            "process": Limiter("processes", self.limits.processes),
        }
        self._groups = {name: Limiter(name, n) for name, n in self.limits.groups.items()}
        self._turns: dict[Supervisor, None] = {}
        self._ids = itertools.count(1)
        self._prefix = secrets.token_hex(3)
        self._state = "new"
        self._loop: Loop
        self._host: Host
        self._turn_group: TaskGroup
        self._host_group: TaskGroup
        self._ready: Event
        self._closing: Event
        self._all_left: Event

    async def __aenter__(self) -> Kernel:
        if self._state != "new":
            raise RuntimeError("a kernel is opened once; make another Kernel")
        self._state = "open"
        self._loop = Loop.running()
        self._ready, self._closing, self._all_left = Event(), Event(), Event()
        self._host = Host(self._loop, self._main)
        await self._host.start("turnscope kernel")
        try:
            await self._ready.wait()
        except BaseException as exc:
            await self._leave(exc)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stopped = await self._leave(exc)
        if stopped is not None:
            raise stopped

    async def _leave(self, exc: BaseException | None) -> BaseException | None:
        self._close()
        stopped = await join(self._loop, self._host.done, self._close, exc)
        failed = await self._host.leave()
        return stopped or (
            None if failed is None else _outcome.unwrapped(failed, self._loop.cancelled)
        )

    def turn(
        self,
        tools: Iterable[Tool[..., Any] | Callable[..., Any]],
        *,
        deps: Any = None,
        timeout: float | None = None,
        deadline: float = math.inf,
    ) -> Turn:
        """Make a turn, to be entered with ``async with``, for calls of *tools*.

        tools: Tools, or plain functions, which become Tools with the default options.
        deps: anything; tools get it as ``CallContext.deps``.
        timeout: seconds from entering the block, after which its calls are settled.
        deadline: a value of the event loop's clock, for the same; the earlier one counts.

        Raises TypeError or ValueError, before any work, for a tool that its backend can never
        run, two tools of one name, an unknown backend or limit group; RuntimeError if the kernel
        is not open.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"kernel.turn(timeout={timeout!r}): a span in seconds, 0 or more")
        if deadline != deadline:
            raise ValueError("kernel.turn(deadline=nan): a value of the event loop's clock")
        self._check_open("kernel.turn()")
        named = by_name(as_tool(fn) for fn in tools)
        routes = {name: self._route(tool) for name, tool in named.items()}
        for route in routes.values():
            if not route.place.ready:
                route.place.open(self._host_group, self._all_left)
        return Turn(self, named, routes, deps=deps, timeout=timeout, deadline=deadline)

    def statistics(self) -> KernelStatistics:
        """Look at the kernel's turns and limiters, as they are now."""
        limiters = (*self._groups.values(), *self._of_backend.values(), self._calls)
        return KernelStatistics(
            turns=len(self._turns),
            limiters={limiter.name: limiter.statistics() for limiter in limiters},
        )

    def _route(self, tool: Tool[..., Any]) -> Route:
        place = self._places.find(tool.backend)
        place.check(tool)
        limiters: list[Limiter] = []
        if tool.limit is not None:
            if tool.limit not in self._groups:
                known = ", ".join(self._groups) or "none"
                raise ValueError(
                    f"tool {tool.name!r} counts in the limit group {tool.limit!r}, which this "
                    f"kernel lacks (it has: {known}): add it to Kernel(limits=Limits(groups=...))"
                )
            limiters.append(self._groups[tool.limit])
        if place.name in self._of_backend:
            limiters.append(self._of_backend[place.name])
        limiters.append(self._calls)
        return Route(place, tuple(limiters), tool.parameters)

    # What turns ask of their kernel.

    def _check_open(self, what: str) -> None:
        """Raise RuntimeError unless *what* may be asked now, here."""
        if self._state != "open":
            state = "closed" if self._state == "closed" else "not open"
            raise RuntimeError(
                f"{what}: this kernel is {state}; use `async with Kernel() as kernel:`"
            )
        if not self._loop.here():
            raise RuntimeError(
                f"{what} was called outside of the kernel's event loop: from another thread, use "
                "anyio.from_thread.run"
            )

    def _new_id(self) -> str:
        """A name that no other run or turn has, here or in another process."""
        return f"{self._prefix}-{next(self._ids)}"

    def _supervise(self, turn: Supervisor) -> None:
        """Take *turn* in: start its task in the kernel's task group."""
        self._turns[turn] = None
        self._turn_group.start_soon(turn.run, name=f"turn {turn.facts.run_id}")

    def _left(self, turn: Supervisor) -> None:
        """Told that nothing of *turn* runs any more."""
        self._turns.pop(turn, None)

    def _emit(self, event: RunEvent) -> None:
        """Tell every observer; one that raises is logged once and told on."""
        for observer in self._observers:
            try:
                observer.observe(event)
            except Exception:
                if id(observer) not in self._silenced:
                    self._silenced.add(id(observer))
                    logger.exception(
                        "observer %s failed; its further failures are not logged",
                        type(observer).__name__,
                    )

    # The kernel's own task.

    async def _main(self) -> None:
        async with create_task_group() as self._host_group:
            try:
                async with create_task_group() as self._turn_group:
                    self._ready.set()
                    await self._until_closing()
            finally:
                # A turn whose task was cancelled natively before its first step is still here.
                for turn in tuple(self._turns):
                    turn.finish()
                # Every turn has been joined: the backends have nothing left to run.
                self._all_left.set()
                self._places.give_up()

    async def _until_closing(self) -> None:
        while not self._closing.is_set():
            try:
                await self._closing.wait()
            except GeneratorExit:
                raise
            except BaseException:
                # Only a stranger can cancel this task: asyncio.run, when it tears down.
                self._close()

    def _close(self) -> None:
        if self._state == "open":
            self._state = "closed"
            for turn in tuple(self._turns):
                turn.ask(_outcome.KERNEL_CLOSED)
                turn.close()
            self._closing.set()
