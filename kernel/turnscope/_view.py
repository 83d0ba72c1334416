"""What a body sees of its call, at work: the implementation of `CallContext`.

It outlives the call: a leaked thread may still ask it, and is told that the call has ended. Above:
the attempt, which is a view with a life. Below: the face in `_context`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio

from ._calls import ToolCall
from ._context import CallContext
from ._holds import Holds, Release, post

if TYPE_CHECKING:
    from ._facts import TurnFacts
    from ._outcome import Cause
    from ._statistics import CallName
    from ._supervisor import Supervisor
    from ._tools import Tool


class View(CallContext[Any]):
    """The context of one call. Its members without an underscore are the attempt's too."""

    __slots__ = (
        "_began",
        "_call",
        "_heard",
        "_holds",
        "asked",
        "facts",
        "index",
        "own",
        "started_at",
        "tool",
        "turn",
    )

    def __init__(self, turn: Supervisor, index: int, call: ToolCall, tool: Tool[..., Any]) -> None:
        self.turn: Supervisor | None = turn
        """None once the call has ended: results, errors and their tracebacks then make no cycle."""
        self.facts: TurnFacts = turn.facts
        self.index = index
        self._call = call
        self.tool = tool
        self.asked = False
        self.own: anyio.CancelScope | None = None
        """The scope that the call's own timeouts cancel."""
        self.started_at: float | None = None
        self._holds: Holds | None = None
        # When the body began and when it was last heard of, for a call with an idle timeout only:
        # both on the clock that threads can read, of which only the spans mean something.
        self._began: float
        self._heard: float

    withdrawn: Cause | None = None
    """Why the call shall not count, by itself; of those that start early only."""

    @property
    def deps(self) -> Any:
        return self.facts.deps

    @property
    def call(self) -> ToolCall:
        return self._call

    @property
    def run_id(self) -> str:
        return self.facts.run_id

    @property
    def name(self) -> CallName:
        """Which call this is, for those who ask who holds a key."""
        from ._statistics import CallName  # here, because few calls wait for one another

        facts, call = self.facts, self._call
        return CallName(
            run_id=facts.run_id, turn=facts.number, index=self.index, id=call.id, tool=call.name
        )

    @property
    def deadline(self) -> float:
        return min(self.own_deadline(), self.facts.deadline)

    @property
    def cancelling(self) -> bool:
        return self.asked

    def check_cancelled(self) -> None:
        if self.asked:
            raise self.facts.loop.cancellation()

    def progress(self, value: object) -> None:
        self.heartbeat()
        if self.facts.observed:
            if self.facts.loop.here():
                self._report(value)
            else:
                post(self.facts.loop.token, self._report, value)

    def heartbeat(self) -> None:
        # Dated here and now: an event loop that is held up would hear of it too late. And by the
        # same clock it may be too late already, whether or not that loop has seen so.
        idle = self.tool.idle_timeout
        if idle is not None and self._heard < (now := self.facts.loop.clock()) < self._heard + idle:
            self._heard = now

    def suspend(self) -> None:
        """No body is at work, until `resume`: its silence does not count."""
        if self.tool.idle_timeout is not None:
            self._heard = math.inf

    def resume(self) -> None:
        """A body is about to begin."""
        if self.tool.idle_timeout is not None:
            self._heard = self.facts.loop.clock()

    def hold(self) -> Release:
        if self._holds is None:
            self._holds = Holds(self.facts.loop.token)
        return self._holds.take()

    def timeout_deadline(self) -> float:
        """When the call's timeout, or its retries' total, interrupts it, whatever is heard."""
        started = self.started_at
        return math.inf if started is None else started + self.tool.longest

    def own_deadline(self) -> float:
        """When the call's own timeouts interrupt it, if nothing is heard of it from now on."""
        own, idle, started = self.own, self.tool.idle_timeout, self.started_at
        if own is None:
            return math.inf
        if idle is None or started is None:
            return own.deadline
        return min(own.deadline, started + (self._heard - self._began) + idle)

    async def while_heard(
        self, turn: Supervisor, work: Callable[[Supervisor], Awaitable[None]]
    ) -> None:
        """Await ``work(turn)``, and cancel `own` when the call has been silent for too long."""
        self._began = self._heard = self.facts.loop.clock()
        listening = turn.beside(self._listen(), name=f"idle timeout of {self._call.id}")
        try:
            await work(turn)
        finally:
            listening.cancel()

    async def _listen(self) -> None:
        """Cancel `own` when nothing has been heard of the call for its idle timeout.

        By the clock, not by the timer alone, which an event loop that is held up looks at late: a
        call that was heard of meanwhile goes on. A scope's own timer could not be taken back.
        """
        own, idle, clock = self.own, self.tool.idle_timeout, self.facts.loop.clock
        assert own is not None and idle is not None  # because this was started for it
        while True:
            # Rounded as the timer rounds it, or a virtual clock would stand one step before it.
            left = self._heard + idle - clock()
            if left <= 0:
                break
            await anyio.sleep(min(left, idle))  # infinite, while the call is suspended
        own.deadline = self.own_deadline()
        own.cancel()

    def _report(self, value: object) -> None:
        turn = self.turn
        if turn is not None and self.index >= 0:  # a model request is no call
            self.facts.tell_of(self.facts.kinds.CallProgress, self.index, self._call, value=value)
