"""One call, one result: from its place in the queues to the moment it settles.

An attempt is a task in its turn's task group, with one cancel scope around the body (two, if the
call has a timeout). By `_view` it is also the `CallContext` that the body sees, by `_askable` it
ends when it is asked, and by `_retrying` its body is tried again; `_outcome` names what the body
came to. Settling is one synchronous step: no number of cancellations can split it. Above: the turn.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from . import _outcome
from ._calls import Status, ToolCall, ToolResult, UnfrozenResult
from ._context import current
from ._errors import LimiterLeaked, NotStarted
from ._left_open import mend
from ._parking import Nested, Parking
from ._places import Route, ToolRoute
from ._record import frozen
from ._retrying import Retried, retried
from ._whole import whole

if TYPE_CHECKING:
    from ._resources import Claim
    from ._supervisor import Supervisor
    from ._tools import Tool

_HANDED_OVER: Final[dict[str, Any]] = {}


class Attempt(Retried):
    """One call, whose body may be tried again; slotted, and free of cycles once it has ended."""

    __slots__ = ("claim", "kwargs", "submitted_in")

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
        Retried.__init__(self, turn, index, call, tool)
        self.route, self.tries = route, None
        self.kwargs = kwargs
        self.submitted_in: Context | None = None
        """The context of the submit, for a call that does not start in it."""
        self.claim: Claim | None = None
        """What it reads and writes, if its tool declares that."""
        self._ticket, self._held = None, 0

    # Before the body.

    @property
    def waits(self) -> bool:
        """Whether it waits for its keys or its slots, and has not begun."""
        if self.claim is not None and not self.claim.passed:
            return True
        in_queue = self._ticket is not None and self._ticket.waits_for is not None
        return in_queue and self.started_at is None

    def granted(self) -> None:
        """Told by the claim that its keys are its own."""
        if self.turn is not None and not self.turn.asked:  # else the ask is about to settle it
            self.turn.go_on(self)

    def shut_out(self, reason: str) -> None:
        """Told by the claim that it could wait for a leak of its own turn alone."""
        if self.turn is None:
            return
        for limiter in self.route.limiters:
            if limiter.own and limiter.stuck:
                self.turn.turned_away(self, LimiterLeaked(limiter.name, limiter.capacity))
                return
        self.settle_unstarted(NotStarted(reason))

    def admitted(self) -> None:
        """Told by the ticket that every limiter has lent a slot."""
        if self.turn is not None:
            self.turn.start(self)

    def refused(self, exc: LimiterLeaked) -> None:
        """Told by the ticket that it would wait for leaks alone."""
        if self.turn is not None:
            self.turn.turned_away(self, exc)

    @whole
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
            timed = self.provisional or self.tool.timed
            if turn.is_asked():
                self.settle_unstarted(turn.not_started())
            elif self.withdrawn is not None:
                self.settle_unstarted(NotStarted(self.withdrawn.reason))
            elif self.inner is None:
                with self.facts.loop.anyio.create_cancel_scope() as self.inner:
                    await (self._timed(turn) if timed else self._work(turn))
            elif timed:
                await self._timed(turn)
            else:
                # As `_work`, without its coroutine, which is one in eight that a call has.
                value = error = None
                self.started_at = self.facts.loop.now()
                try:
                    value = await self.facts.loop.drive(self.begin(turn), self)
                except BaseException as exc:
                    if self.dropped:
                        raise
                    # Without this frame, which knows the turn that will know the error: a cycle.
                    came = exc.__traceback__
                    error = exc.with_traceback(None if came is None else came.tb_next)
                    del came
                mend(self.facts.loop.blocks, self, self._call.name)
                self._came_to(turn, value, error)
        except BaseException as exc:
            # Not of the body, whose exceptions `_work` takes: its place could not be opened, the
            # turn ended meanwhile, or Ctrl-C landed between two statements of ours.
            if self.dropped or isinstance(exc, GeneratorExit):
                raise
            # By the result, not by `self.turn`: Ctrl-C may have landed in `_settle`.
            if self.is_unsettled(turn):
                self._settle(turn, *_outcome.without_body(self, turn, exc), self.facts.loop.now())
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
            mend(loop.blocks, self, self._call.name)
            self._came_to(turn, value, error)
        finally:
            del error, turn  # a frame of the error's own traceback holds them: a cycle

    def _came_to(self, turn: Supervisor, value: Any, error: BaseException | None) -> None:
        """Settle by what the body returned or raised. In one step."""
        now = self.facts.loop.now()
        made, fatal = _outcome.of_body(self, turn, value, error, now)
        self._settle(turn, made, fatal, now)

    def begin(self, turn: Supervisor) -> Coroutine[Any, Any, Any]:
        """Say that the body begins; returns it."""
        if self.facts.observed:
            kind, where = self.facts.kinds.CallStarted, self.route.place.name
            self.facts.tell_of(kind, self.index, self._call, backend=where)
        return self.once() if self.tool.retry is None else retried(self, self.tool.retry)

    def once(self) -> Coroutine[Any, Any, Any]:
        """One attempt at the body."""
        route = self.route
        assert isinstance(route, ToolRoute)  # because the one that is not overrides this
        kwargs = self.kwargs
        if self.tries is not None:  # the body before may have changed what it was given
            kwargs = route.parameters.validate(self.tool.name, self._call.arguments)
        # Handed over: the body has them now, and they are as large as the rest of an attempt.
        self.kwargs = _HANDED_OVER
        if (context := route.parameters.context) is not None:
            kwargs[context] = self
        return route.backend.call(self.tool.body, kwargs, self)

    # Settling.

    def is_unsettled(self, turn: Supervisor) -> bool:
        """Whether *turn* has no result of it yet."""
        return turn.results[self.index] is None

    def settle_unstarted(self, reason: NotStarted) -> None:
        """Settle a call whose body never began. In one step."""
        if self.turn is not None:
            made = UnfrozenResult(Status.NOT_STARTED, str(reason), error=reason)
            self._settle(self.turn, made, None, self.facts.loop.now())

    def abandon(self) -> None:
        """Settle a call whose task has ended without settling it. In one step."""
        turn, loop = self.turn, self.facts.loop
        if turn is not None:
            self._settle(turn, *_outcome.without_body(self, turn, loop.cancellation()), loop.now())

    def _settle(
        self, turn: Supervisor, made: UnfrozenResult, fatal: BaseException | None, now: float
    ) -> None:
        made.call, made.backend = self._call, self.route.place.name
        made.started_at, made.ended_at = self.started_at, now
        if self.tries is not None and self.tries.failures:
            made.failures = tuple(self.tries.failures)
            self.tries.failures.clear()  # their tracebacks hold this call: a cycle
        leaked = self._holds is not None and self._holds.settle(
            partial(self._really_ended, made.error)  # no lambda: its cells would be for every call
        )
        if leaked:
            self.ticket.leak()
            made.leaked, made.content = True, _outcome.with_leak(made.content)
        self.turn = None
        if self._parking is not None:
            # A block that was left open inside the body, in a generator that is kept, say.
            turn.adopt(self._parking.turns)
        try:
            self._hand_over(turn, frozen(made, ToolResult), fatal)
        finally:
            try:
                if not leaked:
                    self.give_back()
            finally:
                if self.claim is not None:
                    self._settle_claim(self.claim, leaked=leaked)

    def _settle_claim(self, claim: Claim, *, leaked: bool) -> None:
        if leaked:
            claim.leak()
        else:
            self.claim = None
            claim.release()

    def _hand_over(self, turn: Supervisor, result: ToolResult, fatal: BaseException | None) -> None:
        try:
            turn.commit(self.index, result)
        finally:
            turn.released(self, fatal)

    def _really_ended(self, error: BaseException | None, late: BaseException | None) -> None:
        """A leaked thread has ended: slots and keys are free, and what it raised is not lost."""
        self.ticket.unleak()
        if self.claim is not None:
            self._settle_claim(self.claim, leaked=False)
        if error is not None and late is not None and error.__cause__ is None:
            error.__cause__ = late

    # Nested turns.

    def host(self, nested: Nested) -> None:
        """A turn opens inside the body."""
        if self._parking is None:
            self._parking = Parking(self.ticket)
        self._parking.park(nested)
        if self.told:
            nested.ask(_outcome.PARENT_ENDS, self.ends_at)

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


def leaked_here() -> Claim | None:
    """The claim of the call in whose body this is, if it has settled and its thread goes on.

    What is submitted there is nested in nothing; but that thread may wait for it.
    """
    call = current.get()
    return call.claim if isinstance(call, Attempt) and call.turn is None else None
