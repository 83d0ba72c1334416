"""One call, one result: from its turn at the limiters to the moment it settles.

An attempt is a task in its turn's task group, with one cancel scope around the body (two, if the
call has a timeout). It is also the `CallContext` that the body sees. `_interrupt` tells it of each
cancellation on its way to the body; `_outcome` names what the body came to. Settling is one
synchronous step: no number of cancellations can split it. Above: the turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from anyio import CancelScope

from . import _outcome
from ._calls import Status, ToolCall, ToolResult
from ._context import CallContext, current
from ._errors import LimiterLeaked, NotStarted
from ._holds import Holds, Release, post
from ._interrupt import PATIENCE, drive
from ._limits import Ticket
from ._loop import cancelled_by_stranger
from ._parking import Parking
from .events import CallProgress, CallStarted

if TYPE_CHECKING:
    from ._places import Route
    from ._supervisor import Supervisor, TurnFacts
    from ._tools import Tool


class Attempt(CallContext[Any]):
    """The one attempt at a call; slotted, and free of cycles once it has ended."""

    __slots__ = (
        "_call",
        "_enforced",
        "_holds",
        "_parking",
        "asked",
        "cause",
        "dropped",
        "facts",
        "index",
        "inner",
        "kwargs",
        "own",
        "route",
        "started_at",
        "submitted_in",
        "ticket",
        "told",
        "tool",
        "turn",
    )

    def __init__(
        self,
        turn: Supervisor,
        index: int,
        call: ToolCall,
        tool: Tool[..., Any],
        route: Route,
        kwargs: dict[str, Any],
    ) -> None:
        self.turn: Supervisor | None = turn
        """None once the call has ended: results, errors and their tracebacks then make no cycle."""
        self.facts: TurnFacts = turn.facts
        self.index = index
        self._call = call
        self.tool = tool
        self.kwargs = kwargs
        self.route = route
        self.submitted_in = copy_context()
        self.ticket = Ticket(route.limiters, self, nested=turn.parent is not None)
        self.asked = False
        self.told = False
        self.dropped = False
        self.cause: _outcome.Cause | None = None
        self.own: CancelScope | None = None
        self.inner: CancelScope | None = None
        self.started_at: float | None = None
        self._enforced = 0
        self._holds: Holds | None = None
        self._parking: Parking | None = None

    # The face that the body sees.

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
    def deadline(self) -> float:
        own = math.inf if self.own is None else self.own.deadline
        return min(own, self.facts.deadline)

    @property
    def cancelling(self) -> bool:
        return self.asked

    def check_cancelled(self) -> None:
        if self.asked:
            raise self.facts.loop.cancellation()

    def progress(self, value: object) -> None:
        self._in_the_loop(self._progress, value)

    def heartbeat(self) -> None:
        self._in_the_loop(self._beat)

    def hold(self) -> Release:
        if self._holds is None:
            self._holds = Holds(self.facts.loop.token)
        return self._holds.take()

    def _in_the_loop(self, fn: Callable[..., object], *args: object) -> None:
        if self.facts.loop.here():
            fn(*args)
        else:
            post(self.facts.loop.token, fn, *args)

    def _beat(self) -> None:
        own = self.own
        if own is not None and self.tool.idle_timeout is not None and not own.cancel_called:
            own.deadline = self._next_deadline()

    def _next_deadline(self) -> float:
        """When the call's own timeouts interrupt it, if nothing is heard of it from now on."""
        started, timeout, idle = self.started_at, self.tool.timeout, self.tool.idle_timeout
        hard = math.inf if timeout is None or started is None else started + timeout
        return hard if idle is None else min(hard, self.facts.loop.now() + idle)

    def _progress(self, value: object) -> None:
        self._beat()
        turn = self.turn
        if turn is not None and self.facts.observed:
            turn.tell(
                CallProgress(index=self.index, call=self._call, value=value, **self.facts.event())
            )

    # Before the body.

    def admitted(self) -> None:
        """Told by the ticket that every limiter has lent a slot."""
        if self.turn is not None:
            self.turn.start(self)

    def refused(self, exc: LimiterLeaked) -> None:
        """Told by the ticket that it would wait for leaks alone."""
        if self.turn is not None:
            self.turn.turned_away(self, exc)

    async def run(self) -> None:
        """Be the task of this call: run the body, settle, give back what was borrowed."""
        current.set(self)
        turn = self.turn
        if turn is None:  # it settled between its start and its first step
            return
        try:
            place = self.route.place
            if not place.ready:
                await place.opened()
            if turn.is_asked():
                self.settle_unstarted(turn.not_started())
            elif self.tool.timeout is None and self.tool.idle_timeout is None:
                await self._work(turn)
            else:
                self.started_at = self.facts.loop.now()
                with CancelScope(deadline=self._next_deadline()) as self.own:
                    await self._work(turn)
        except BaseException as exc:
            # Not of the body, whose exceptions `_work` takes: its place could not be opened, or
            # the turn ended meanwhile.
            if self.dropped or isinstance(exc, GeneratorExit):
                raise
            if self.turn is not None:
                if isinstance(exc, self.facts.loop.cancelled):
                    reason = turn.not_started() if turn.is_asked() else _outcome.interrupted()
                else:
                    reason = NotStarted(f"its backend could not be opened: {exc!r}")
                    reason.__cause__ = exc
                self.settle_unstarted(reason)

    async def _work(self, turn: Supervisor) -> None:
        loop = self.facts.loop
        value: Any = None
        error: BaseException | None = None
        with CancelScope() as self.inner:
            if self.started_at is None:
                self.started_at = loop.now()
            kwargs = self.kwargs
            if (context := self.tool.parameters.context) is not None:
                kwargs[context] = self
            if self.facts.observed:
                backend = self.route.place.name
                turn.tell(
                    CallStarted(
                        index=self.index, call=self._call, backend=backend, **self.facts.event()
                    )
                )
            try:
                body = self.route.place.backend.call(self.tool.body, kwargs, self)
                value = await drive(body, self, loop.cancelled, loop.carrier)
            except BaseException as exc:
                if self.dropped:
                    raise
                error = exc
        try:
            now = loop.now()
            self._settle(turn, _outcome.of_body(self, turn, value, error, now), now)
        finally:
            del error  # a frame of its own traceback holds it: a cycle

    # The driver's questions.

    def deliver(self, cancellation: BaseException) -> BaseException:
        """Told that *cancellation* is about to reach the body; returns what shall reach it."""
        turn, inner = self.turn, self.inner
        assert turn is not None and inner is not None  # because the body runs
        if self.told:
            if inner.cancel_called:
                self._enforced += 1
                if self._enforced > PATIENCE:
                    return GeneratorExit("cancellation was swallowed without end")
            return cancellation
        timed_out = self.own is not None and self.own.cancel_called
        if not timed_out and not turn.is_asked() and cancelled_by_stranger(turn.task):
            turn.ask(_outcome.LOOP_ENDS)
        if timed_out or turn.asked:
            self._tell(turn, inner, timed_out=timed_out)
        return cancellation

    def drop(self) -> None:
        """Told that the coroutine is being closed: nothing can be awaited any more."""
        self.dropped = True

    def _tell(self, turn: Supervisor, inner: CancelScope, *, timed_out: bool) -> None:
        """The interrupt: from here the body is shielded, and has until the end of grace."""
        self.told = self.asked = True
        own = self.own
        if timed_out and own is not None and not (turn.asked and turn.asked_at < own.deadline):
            self.cause = _outcome.timeout_of(self, own.deadline)
            end = min(self.facts.loop.now() + turn.grace, turn.enforce_at)
        else:
            self.cause = turn.cause
            end = turn.enforce_at
        inner.shield = True
        inner.deadline = end
        if self._parking is not None:
            self._parking.ask(_outcome.PARENT_ENDS, end)

    def ask(self, end: float) -> None:
        """Told by the turn that it has been asked, or that its end is now *end*, and earlier."""
        self.asked = True
        parking, inner = self._parking, self.inner
        if parking is not None:
            parking.go_without()
        if self.told and inner is not None and end < inner.deadline:
            inner.deadline = end
            if parking is not None:
                parking.ask(_outcome.PARENT_ENDS, end)

    # Settling.

    def settle_unstarted(self, reason: NotStarted) -> None:
        """Settle a call whose body never began. In one step."""
        turn = self.turn
        if turn is None:
            return
        outcome = _outcome.Outcome(Status.NOT_STARTED, str(reason), error=reason)
        self._settle(turn, outcome, self.facts.loop.now())

    def _settle(self, turn: Supervisor, outcome: _outcome.Outcome, now: float) -> None:
        error = outcome.error
        leaked = self._holds is not None and self._holds.settle(
            lambda late: self._really_ended(error, late)
        )
        content = outcome.content
        if leaked:
            self.ticket.leak()
            content = _outcome.with_leak(content)
        result = ToolResult(
            call=self._call,
            status=outcome.status,
            content=content,
            value=outcome.value,
            error=error,
            started_at=self.started_at,
            ended_at=now,
            backend=self.route.place.name,
            leaked=leaked,
        )
        self.turn = None
        turn.settled(self, result, fatal=outcome.fatal)
        if not leaked:
            self.ticket.leave()
            self.ticket.release()

    def _really_ended(self, error: BaseException | None, late: BaseException | None) -> None:
        """A leaked thread has ended: its slots are free, and what it raised is not lost."""
        self.ticket.unleak()
        if error is not None and late is not None and error.__cause__ is None:
            error.__cause__ = late

    # Nested turns.

    def host(self, nested: Supervisor) -> None:
        """A turn opens inside the body."""
        if self._parking is None:
            self._parking = Parking(self.ticket)
        self._parking.park(nested)
        if self.told and self.inner is not None:
            nested.ask(_outcome.PARENT_ENDS, self.inner.deadline)

    async def unhost(self, nested: Supervisor) -> BaseException | None:
        """A turn inside the body has ended; returns what its block is to raise.

        After the last, wait for the slots; a call that has been asked to end resumes without.
        """
        parking = self._parking
        assert parking is not None  # because nested was hosted
        parking.turns.remove(nested)
        if parking.turns or self.asked or self.turn is None or self.turn.is_asked():
            return None
        return await parking.come_back(self.facts.loop)
