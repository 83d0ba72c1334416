"""One call, one result: from its turn at the limiters to the moment it settles.

An attempt is a task in its turn's task group, with one cancel scope around the body (two, if the
call has a timeout). By `_view` it is also the `CallContext` that the body sees, and by `_askable`
it ends when it is asked; `_outcome` names what the body came to. Settling is one synchronous step:
no number of cancellations can split it. Above: the turn.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any

from . import _outcome
from ._askable import Askable
from ._calls import Status, ToolCall, ToolResult
from ._context import current
from ._errors import LimiterLeaked, NotStarted
from ._limits import Ticket
from ._parking import Nested, Parking
from ._places import Route, ToolRoute
from .events import CallStarted

if TYPE_CHECKING:
    from ._supervisor import Supervisor
    from ._tools import Tool


class Attempt(Askable):
    """The one attempt at a call; slotted, and free of cycles once it has ended."""

    __slots__ = (
        "kwargs",
        "route",
        "submitted_in",
        "ticket",
    )

    provisional = False
    """Whether it may yet be withdrawn, by itself: one that started early, until it counts."""

    def __init__(
        self,
        turn: Supervisor,
        index: int,
        call: ToolCall,
        tool: Tool[..., Any],
        route: Route,
        kwargs: dict[str, Any],
    ) -> None:
        super().__init__(turn, index, call, tool)
        self.kwargs = kwargs
        self.route = route
        self.submitted_in: Context | None = None
        """The context of the submit, for a call that does not start in it."""
        self.ticket = Ticket(route.limiters, self, nested=turn.parent is not None)

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
            tool = self.tool
            timed = self.provisional or tool.timeout is not None or tool.idle_timeout is not None
            work = self._timed if timed else self._work
            if turn.is_asked():
                self.settle_unstarted(turn.not_started())
            elif self.withdrawn is not None:
                self.settle_unstarted(NotStarted(self.withdrawn.reason))
            elif self.inner is None:
                with self.facts.loop.anyio.create_cancel_scope() as self.inner:
                    await work(turn)
            else:
                await work(turn)
        except BaseException as exc:
            # Not of the body, whose exceptions `_work` takes: its place could not be opened, the
            # turn ended meanwhile, or Ctrl-C landed between two statements of ours.
            if self.dropped or isinstance(exc, GeneratorExit):
                raise
            # By the result, not by `self.turn`: Ctrl-C may have landed in `_settle`.
            if self.is_unsettled(turn):
                self._settle(turn, _outcome.without_body(self, turn, exc), self.facts.loop.now())
            elif isinstance(exc, KeyboardInterrupt):
                turn.stop(exc)

    async def _timed(self, turn: Supervisor) -> None:
        self.own, self.started_at = self.inner, self.facts.loop.now()
        assert self.own is not None  # because `run` sees to it
        self.own.deadline = self.timeout_deadline()
        with self.facts.loop.anyio.create_cancel_scope() as self.inner:
            if self.tool.idle_timeout is None:
                await self._work(turn)
            else:
                await self.while_heard(turn, self._work)

    async def _work(self, turn: Supervisor) -> None:
        loop = self.facts.loop
        value: Any = None
        error: BaseException | None = None
        if self.started_at is None:
            self.started_at = loop.now()
        try:
            value = await loop.drive(self.begin(turn), self)
        except BaseException as exc:
            if self.dropped:
                raise
            error = exc
        try:
            now = loop.now()
            self._settle(turn, _outcome.of_body(self, turn, value, error, now), now)
        finally:
            del error, turn  # a frame of the error's own traceback holds them: a cycle

    def begin(self, turn: Supervisor) -> Coroutine[Any, Any, Any]:
        """Say that the body begins; returns it."""
        route = self.route
        assert isinstance(route, ToolRoute)  # because the one that is not overrides this
        if (context := route.parameters.context) is not None:
            self.kwargs[context] = self
        if self.facts.observed:
            self.facts.tell_of(CallStarted, self.index, self._call, backend=route.place.name)
        return route.backend.call(self.tool.body, self.kwargs, self)

    # Settling.

    def is_unsettled(self, turn: Supervisor) -> bool:
        """Whether *turn* has no result of it yet."""
        return turn.results[self.index] is None

    def settle_unstarted(self, reason: NotStarted) -> None:
        """Settle a call whose body never began. In one step."""
        if self.turn is not None:
            outcome = _outcome.Outcome(Status.NOT_STARTED, str(reason), error=reason)
            self._settle(self.turn, outcome, self.facts.loop.now())

    def abandon(self) -> None:
        """Settle a call whose task has ended without settling it. In one step."""
        turn, loop = self.turn, self.facts.loop
        if turn is not None:
            outcome = _outcome.without_body(self, turn, loop.cancellation())
            self._settle(turn, outcome, loop.now())

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
        if self._parking is not None:
            # A block that was left open inside the body, in a generator that is kept, say.
            turn.adopt(self._parking.turns)
        try:
            self._hand_over(turn, result, outcome)
        finally:
            if not leaked:
                self.ticket.drop()

    def _hand_over(self, turn: Supervisor, result: ToolResult, outcome: _outcome.Outcome) -> None:
        turn.settled(self, result, fatal=outcome.fatal)

    def _really_ended(self, error: BaseException | None, late: BaseException | None) -> None:
        """A leaked thread has ended: its slots are free, and what it raised is not lost."""
        self.ticket.unleak()
        if error is not None and late is not None and error.__cause__ is None:
            error.__cause__ = late

    # Nested turns.

    def host(self, nested: Nested) -> None:
        """A turn opens inside the body."""
        if self._parking is None:
            self._parking = Parking(self.ticket)
        self._parking.park(nested)
        if self.told and self.inner is not None:
            nested.ask(_outcome.PARENT_ENDS, self.inner.deadline)

    async def unhost(self, nested: Nested) -> BaseException | None:
        """A turn inside the body has ended; returns what its block is to raise.

        After the last, wait for the slots; a call that has been asked to end resumes without.
        """
        parking = self._parking
        assert parking is not None  # because nested was hosted
        parking.turns.remove(nested)
        if parking.turns or self.asked or self.turn is None or self.turn.is_asked():
            return None
        return await parking.come_back(self.facts.loop)
