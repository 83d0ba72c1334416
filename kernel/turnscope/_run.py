"""A run's face: a block in the caller's task, which only asks, waits and reads events.

As with a turn, nothing of ours is open in the caller's task between two statements; what goes on is
in `_conductor`. Above: the kernel. Below: the conductor and the feed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, cast

import attrs

from . import _outcome
from ._agent import Output
from ._block import leave
from ._calls import Status
from ._conductor import Conductor
from ._errors import RunCancelled
from ._feed import Feed
from ._history import History
from ._messages import Usage
from ._whole import whole
from .events import (
    FinishReason,
    ModelRetried,
    OutputRetried,
    RunEvent,
    TextStreamed,
    TurnFinished,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@attrs.frozen(kw_only=True, eq=False)
class RunResult(Generic[Output]):
    """What a run came to."""

    output: Output
    """What ``Agent(output=Type)`` asks for; by default the text of the answer without calls."""
    history: History
    """The whole conversation, that answer included: hand it to the next run, or store it."""
    usage: Usage
    """Of all requests of the run, and of the runs in its tools."""
    turns: int
    """How many responses it took."""
    reason: FinishReason
    """Why the answer ended: "length" if it was cut, "refusal" or "filtered" if it was refused."""


class Run(Generic[Output]):
    """One agent at work on one prompt; made by ``kernel.start(agent, prompt)``.

    ::

        async with kernel.start(agent, "Weather in Beijing?") as run:
            async for event in run:             # or: async for text in run.text()
                ...
            result = await run.wait()

    Leaving the block cancels what is not done, and joins it within the kernel's ``grace``. A run
    that failed raises from ``async for``, from `wait`, and, if it was read by neither, on leaving.
    An external cancellation is raised again as it came; `history` is valid after it.
    """

    __slots__ = ("__weakref__", "_feed", "_inside", "_open_inside", "_told")

    def __init__(self, open_inside: Callable[..., Any], *, listen: bool) -> None:
        # Any, because the surface that is verified from outside ends here.
        self._open_inside: Callable[[Feed | None], Conductor] | None = open_inside
        self._feed = Feed() if listen else None
        self._inside: Conductor | None = None
        self._told = False
        """Whether the error has reached somebody."""

    @whole
    async def __aenter__(self) -> Run[Output]:
        # As for a turn, nothing is awaited here.
        # Not kept: what it closes over is 1 KiB for each run that is under way.
        open_inside, self._open_inside = self._open_inside, None
        if open_inside is None:
            raise RuntimeError("a run is entered once; ask kernel.start() for another")
        self._inside = open_inside(self._feed)
        return self

    @whole
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        inside = self._in()
        ask = partial(inside.ask, _outcome.RUN_LEFT)
        if inside.done.is_set():
            inside.finish()  # again, for Ctrl-C may have landed there
        else:
            ask()
        try:
            await leave(
                inside.kernel, inside, inside.parent, ask=ask, raised=exc, fatal=self._untold
            )
        finally:
            del inside, ask  # this frame is in the traceback of what it raises: a cycle

    def _untold(self) -> BaseException | None:
        error = self._in().error
        if isinstance(error, KeyboardInterrupt):
            return error
        return None if self._told or isinstance(error, RunCancelled) else error

    async def wait(self) -> RunResult[Output]:
        """Wait for the run to end; any task may, and more than one.

        Raises, with a valid ``.history``: `ModelError` if the model, or a function that gives the
        instructions, failed; `DeadlineExceeded` and `BudgetExceeded`; `OutputInvalid` and
        `OutputRefused` if the model gave no output of the agent's type; `ToolFailed`, from the
        tool's exception, for a tool with ``on_error="raise"``; `RunCancelled` if the run was ended
        by `cancel`, its block or its kernel. And KeyboardInterrupt, bare.
        """
        inside = self._in()
        if not inside.done.is_set():
            await inside.done.wait()
        if inside.error is not None:
            raise self._telling(inside.error)
        return RunResult(
            output=cast("Output", inside.output),
            history=inside.history,
            usage=inside.ledger.usage,
            turns=inside.turns,
            reason=inside.reason,
        )

    def _telling(self, error: BaseException) -> BaseException:
        self._told = True
        return error

    def __aiter__(self) -> Run[Output]:
        return self

    async def __anext__(self) -> RunEvent:
        """The next event of the run and of the runs in its tools; after the last, its error."""
        if self._feed is None:
            raise RuntimeError("kernel.run() has no events to read; use kernel.start()")
        inside = self._in()
        event = await self._feed.get()
        if event is not None:
            return event
        if inside.error is not None:
            raise self._telling(inside.error)
        raise StopAsyncIteration

    def text(self) -> AsyncIterator[str]:
        """The text of the run's answers, as it comes; raises what ``async for`` over the run does.

        It reads the run's events, and drops the others. To stop reading ends nothing. If an answer
        is cut off or does not fit, and is asked for again, its text comes anew after an empty line:
        who can take back what was shown reads the events, and does so at
        `turnscope.events.ModelRetried` and `turnscope.events.OutputRetried`.
        """
        return _Text(self, self.run_id)

    def cancel(self, reason: str = "it was asked to end") -> None:
        """Ask the run to end, as leaving the block does; returns at once.

        Calls that have started get one interrupt and the kernel's ``grace`` to clean up. Raises
        RuntimeError before the block, and in any thread but the event loop's.
        """
        inside = self._in()
        if not inside.facts.loop.here():
            raise RuntimeError(
                "a run is cancelled in its event loop's thread: from another thread, use "
                "anyio.from_thread.run_sync(run.cancel)"
            )
        inside.ask(_outcome.Cause(Status.CANCELLED, reason))

    @property
    def run_id(self) -> str:
        """The name of the run in its events."""
        return self._in().facts.run_id

    @property
    def history(self) -> History:
        """The conversation so far, in whole turns; to be read at any time, also after the block."""
        return self._in().history

    @property
    def usage(self) -> Usage:
        """What the run, and the runs in its tools, have used so far."""
        return self._in().ledger.usage

    def _in(self) -> Conductor:
        if self._inside is None:
            raise RuntimeError("a run begins with `async with kernel.start(...) as run:`")
        return self._inside


class _Text(AsyncIterator[str]):
    """The text among the events of one run.

    No generator: one that is left half-way wants to be closed, and trio warns if it is not.
    """

    __slots__ = ("_begun", "_ended", "_run", "_run_id")

    def __init__(self, run: Run[Any], run_id: str) -> None:
        self._run = run
        self._run_id = run_id
        self._begun = False
        """Whether there was text of this turn's answer."""
        self._ended = False
        """Whether there was text of the last turn's."""

    async def __anext__(self) -> str:
        while True:
            event = await self._run.__anext__()
            if event.run_id != self._run_id:
                continue
            if isinstance(event, TextStreamed):
                self._begun = True
                return event.text
            if isinstance(event, ModelRetried) and self._begun:
                self._begun = False
                return "\n\n"
            if isinstance(event, OutputRetried) and self._ended:
                self._ended = False
                return "\n\n"
            if isinstance(event, TurnFinished):
                self._begun, self._ended = False, self._begun
