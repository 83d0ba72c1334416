"""The kernel: the one long-lived object, which owns what runs and turns share.

It owns the task group, the limiters, the backends, the models and the observers. Above: the user.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio

from . import _outcome
from ._block import seconds_of
from ._facts import Names
from ._limits import Limiter, Limits
from ._loop import Host, Loop, join
from ._models import Models
from ._observers import Observers
from ._places import Route
from ._routes import Offer, Routes
from ._supervisor import Supervisor
from ._tools import Tool
from ._turn import Turn
from ._whole import whole
from .abc import Backend, Model, Observer

if TYPE_CHECKING:
    from anyio.abc import TaskGroup
    from typing_extensions import Unpack  # of a generic TypedDict, as Pyright and mypy read it

    from ._agent import Agent, Output
    from ._budget import Budget
    from ._calls import Content
    from ._conductor import Conductor
    from ._context import Deps
    from ._history import History
    from ._prepare import RunOptions
    from ._run import Run, RunResult
    from ._statistics import KernelStatistics


class Kernel:
    """Runs agents, and turns of your own loop; open one for the life of a service.

    ::

        async with Kernel(limits=Limits(calls=64, threads=40), grace=1.0) as kernel:
            result = await kernel.run(agent, "Weather in Beijing?", timeout=60)
            async with kernel.turn([weather], timeout=60) as turn:
                turn.submit(ToolCall("c1", "weather", '{"city": "Beijing"}'))

    limits: how many calls may work at once, over all runs and turns.
    grace: seconds that an interrupted call has to clean up, one span for a whole tree of runs.
    backends: instances that stand in for, or add to, those found by entry points.
    observers: are told of every event.
    model: stands in for every agent's, as the tests of a whole service want it.

    Leaving the block asks every run and turn that is open to end, joins it within grace, and closes
    the backends and models. On asyncio the block may be entered and left in different tasks, as
    fixtures and start-up hooks do. Raises TypeError or ValueError for arguments that cannot work.

    A second Ctrl-C on asyncio strikes whatever runs just then: calls settle, but cleanup may be cut
    short, and a task of AnyIO's own may never end.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        grace: float = 1.0,
        backends: Iterable[Backend] = (),
        observers: Iterable[Observer] = (),
        model: Model | str | None = None,
    ) -> None:
        if not 0 <= grace < math.inf:
            raise ValueError(f"Kernel(grace={grace!r}): grace is a span in seconds, 0 or more")
        self.limits: Limits = Limits() if limits is None else limits
        self.grace: float = grace
        self._observers = Observers(observers)
        self._routes, self._models = Routes(self.limits, backends), Models(model)
        self._turns: dict[Supervisor, None] = {}
        self._runs: dict[Conductor, None] = {}
        self._names = Names()
        self._state = "not open"
        self._loop: Loop
        self._host: Host
        self._turn_group: TaskGroup
        self._host_group: TaskGroup
        self._ready: anyio.Event
        self._closing: anyio.Event
        self._all_left: anyio.Event

    @whole
    async def __aenter__(self) -> Kernel:
        if self._state != "not open":
            raise RuntimeError("a kernel is opened once; make another Kernel")
        self._state = "open"
        self._loop = Loop.running()
        self._ready, self._closing, self._all_left = anyio.Event(), anyio.Event(), anyio.Event()
        self._host = Host(self._loop, self._main)
        await self._host.start("turnscope kernel")
        try:
            await self._ready.wait()
        except BaseException as exc:
            await self._leave(exc)
            raise
        return self

    @whole
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
        return await self._host.leave(stopped)

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
        seconds_of("kernel.turn", timeout, deadline)
        self._check_open("kernel.turn()")
        return Turn(self, self._offer(tools), deps=deps, timeout=timeout, deadline=deadline)

    def start(
        self,
        agent: Agent[Deps, Output],
        prompt: str | Sequence[Content] | None,
        *,
        deps: Deps | None = None,
        history: History | None = None,
        model: Model | str | None = None,
        settings: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        deadline: float = math.inf,
        budget: Budget | None = None,
    ) -> Run[Output]:
        """Make a run, to be entered with ``async with``, whose events can be read.

        prompt: text, a sequence of Content, or None to go on from *history*.
        deps: anything; tools get it as ``CallContext.deps``, instructions as ``RunContext.deps``.
        history: the conversation so far, such as an earlier result's.
        model: stands in for the kernel's, which stands in for the agent's.
        settings: the provider's own options, over the agent's.
        timeout: seconds from entering the block, after which the run is ended.
        deadline: a value of the event loop's clock, for the same; the earlier one counts.
        budget: in place of the agent's.

        Raises TypeError or ValueError, before any work, for a prompt or a history that no model
        takes, a missing or unknown model, and what `turn` refuses in tools; RuntimeError if the
        kernel is not open.
        """
        from ._prepare import prepare  # here, and below: who only opens turns does without

        return prepare(
            self,
            agent,
            prompt,
            deps=deps,
            history=history,
            model=model,
            settings=settings,
            timeout=timeout,
            deadline=deadline,
            budget=budget,
            listen=True,
        )

    async def run(
        self,
        agent: Agent[Deps, Output],
        prompt: str | Sequence[Content] | None,
        **options: Unpack[RunOptions[Deps]],
    ) -> RunResult[Output]:
        """Run *agent* on *prompt* until it answers.

        As `start`, with its options, in one await: a cancellation of the caller ends the run,
        joins it within grace and is raised again. Raises what `start` and `Run.wait` raise.
        """
        from ._prepare import prepare

        run: Run[Output] = prepare(self, agent, prompt, listen=False, **options)
        async with run:
            return await run.wait()

    def statistics(self) -> KernelStatistics:
        """Look at the kernel's turns, limiters and keys, as they are now."""
        return self._routes.statistics(runs=len(self._runs), turns=len(self._turns))

    # What turns and runs ask of their kernel.

    def _offer(
        self,
        tools: Iterable[Tool[..., Any] | Callable[..., Any]],
        cap: Limiter | None = None,
        alone: bool = False,
    ) -> Offer:
        """What a turn or a run with *tools* may call."""
        return self._routes.offer(tools, self._host_group, self._all_left, cap, alone)

    def _way_to(self, model: Model) -> Route:
        """The way of a request to *model*, whose opening begins if it needs one."""
        return self._routes.way_to(self._models.guest(model, self._host_group, self._all_left))

    def _check_open(self, what: str) -> None:
        """Raise RuntimeError unless *what* may be asked now, here."""
        if self._state != "open":
            raise RuntimeError(
                f"{what}: this kernel is {self._state}; use `async with Kernel() as kernel:`"
            )
        if not self._loop.here():
            raise RuntimeError(
                f"{what} was called outside of the kernel's event loop: from another thread, use "
                "anyio.from_thread.run"
            )

    def _supervise(self, turn: Supervisor, *, in_a_run: bool = False) -> None:
        """Take *turn* in, and start its task in the kernel's task group, if no run is its task."""
        self._turns[turn] = None
        if not in_a_run:
            turn.handle = self._turn_group.create_task(turn.run(), name=f"turn {turn.facts.run_id}")

    def _conduct(self, run: Conductor) -> None:
        """Take *run* in: start its task in the kernel's task group."""
        self._runs[run] = None
        name = f"run {run.facts.run_id}"
        run.handle = self._turn_group.create_task(run.run(), name=name, context=run.context)

    def _run_left(self, run: Conductor) -> None:
        """Told that nothing of *run* runs any more."""
        self._runs.pop(run, None)

    def _left(self, turn: Supervisor) -> None:
        """Told that nothing of *turn* runs any more."""
        self._turns.pop(turn, None)

    # The kernel's own task.

    async def _main(self) -> None:
        async with anyio.create_task_group() as self._host_group:
            try:
                async with anyio.create_task_group() as self._turn_group:
                    self._ready.set()
                    await self._until_closing()
            finally:
                # A turn whose task was cancelled natively before its first step is still here.
                left: list[Supervisor | Conductor] = [*self._turns, *self._runs]
                for inside in left:
                    inside.finish()
                # Every turn has been joined: the backends have nothing left to run.
                self._all_left.set()
                self._routes.give_up()
                self._models.give_up()

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
        self._state = "closed"
        # By the event, which is set last: should Ctrl-C land here, the next to come goes through.
        if not self._closing.is_set():
            for run in tuple(self._runs):
                run.ask(_outcome.KERNEL_CLOSED)
            for turn in tuple(self._turns):
                turn.ask(_outcome.KERNEL_CLOSED)
                turn.close()
            self._closing.set()
