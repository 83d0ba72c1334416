"""The attempts at one call, and what is between them: slots given back, a wait, slots taken again.

All of it is the body that the driver sees. So an interrupt comes once, whether an attempt is at
work or the call waits for the next; the timeout covers it all, and the call settles once. Above:
the attempt, which is this with a life. Below: the end of a call, the ticket, and what is worth
trying again.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Coroutine
from typing import Any

import anyio

from . import _raised
from ._askable import Askable
from ._errors import BudgetExceeded, LimiterLeaked, ModelError
from ._left_open import mend
from ._limits import Holder, Ticket
from ._loop import cancelled_by_stranger
from ._places import Route
from ._retry import LONGEST_RETRY_AFTER, Retry, covers, seconds_before_next


class Tries:
    """The attempts at one call that have failed; it waits for the slots of the next."""

    __slots__ = ("_back", "count", "failures", "hedged", "why_no_more", "won")

    def __init__(self) -> None:
        self.failures: list[BaseException] = []
        """What they raised, but for the last attempt's, which is the call's error."""
        self.count = 1
        """Of the attempts that have begun, or are to begin."""
        self.hedged = 0
        """In how many of these a second body has begun."""
        self.won = False
        """Whether one of two bodies has returned in time, while the other has yet to end."""
        self.why_no_more = ""
        """Why there is no other attempt, if not because there were enough."""
        self._back: anyio.Event | None = None

    @property
    def bodies(self) -> int:
        """How many bodies have begun, or are to begin."""
        return self.count + self.hedged

    @property
    def said(self) -> str:
        """What a reader of the last failure shall know of the others; empty if there is nothing."""
        times = f"tried {self.bodies} times" if self.bodies > 1 else ""
        if not self.why_no_more:
            return times
        return f"{f'{times}, and not' if times else 'not tried'} again: {self.why_no_more}"

    def admitted(self) -> None:
        """Told by the ticket that every limiter has lent a slot."""
        if self._back is not None:
            self._back.set()

    def refused(self, exc: LimiterLeaked) -> None:
        """Told by the ticket that it would wait for leaks alone."""
        self.why_no_more = str(exc)
        self.admitted()

    async def take_slots(self, call: Retried) -> bool:
        """Queue for the slots of another attempt, behind all who wait; False if none may come."""
        self._back = anyio.Event()
        call.ticket = call.ticket_for(self)
        try:
            if not call.ticket.advance():
                await self._back.wait()
        except LimiterLeaked as exc:
            self.refused(exc)
        return not self.why_no_more

    def give_up(self) -> BaseException:
        """The last failure, which is the call's error after all."""
        self.count -= 1
        return self.failures.pop()


class Retried(Askable):
    """One call, as far as its attempts are concerned."""

    __slots__ = ("_held", "_ticket", "route", "tries")

    route: Route
    _ticket: Ticket | None
    _held: int
    """How many of its limiters have lent it a slot without a ticket."""
    tries: Tries | None
    """What has failed of it, if it may be tried again."""

    @abstractmethod
    def once(self) -> Coroutine[Any, Any, Any]:
        """One attempt at the body."""

    @property
    def attempt(self) -> int:
        return 1 if self.tries is None else self.tries.count

    @property
    def at_work(self) -> bool:
        """Whether something of a body that has ended goes on: a thread, or a nested turn."""
        if self._parking is not None and self._parking.turns:
            return True
        return self._holds is not None and self._holds.held

    @abstractmethod
    def admitted(self) -> None:
        """Told by the ticket that every limiter has lent a slot."""

    @abstractmethod
    def refused(self, exc: LimiterLeaked, /) -> None:
        """Told by the ticket that it would wait for leaks alone."""

    @property
    def ticket(self) -> Ticket:
        """Its way through its limiters."""
        # Made for who needs it: most calls pass their limiters at once, and keep what they were
        # lent until they settle. It was one of the six objects that a call has beyond a task's.
        if self._ticket is None:
            self._ticket = Ticket(
                self.route.limiters, self, nested=self._is_nested(), held=self._held
            )
        return self._ticket

    @ticket.setter
    def ticket(self, ticket: Ticket) -> None:
        self._ticket = ticket

    def pass_limiters(self) -> bool:
        """As `Ticket.advance`, without one if each limiter lends a slot now."""
        if self._ticket is None:
            for limiter in self.route.limiters[self._held :]:
                if not limiter.take(None):
                    break
                self._held += 1
            else:
                return True
        return self.ticket.advance()

    def leave_queue(self) -> None:
        """As `Ticket.leave`."""
        if self._ticket is not None:
            self._ticket.leave()

    def give_back(self) -> None:
        """As `Ticket.drop`."""
        if self._ticket is not None:
            self._ticket.drop()
            return
        while self._held:
            self._held -= 1
            self.route.limiters[self._held].give()

    def _is_nested(self) -> bool:
        return self.turn is not None and self.turn.parent is not None

    def ticket_for(self, holder: Holder) -> Ticket:
        """Another way through the limiters; *holder* is told when it may pass them all."""
        return Ticket(self.route.limiters, holder, nested=self._is_nested())

    def is_over(self) -> bool:
        """Whether an interrupt is due: what begins now would be cut at once."""
        over = self.facts.loop.now() >= self.timeout_deadline()
        return over or self.turn is None or self.turn.is_asked()

    def covered(self, retry: Retry, failure: Exception) -> bool:
        """Whether *failure* is to be tried again."""
        return covers(retry, failure, of_model=False)

    def spent(self) -> BudgetExceeded | None:
        """What is spent that another attempt would need."""
        return None

    def tell_retry(self, attempt: int, error: Exception, delay: float) -> None:
        """Say that *attempt* has failed of *error*, and that another comes in *delay* seconds."""
        if self.facts.observed:
            more = {"attempt": attempt, "error": error, "delay": delay}
            self.facts.tell_of(self.facts.kinds.CallRetried, self.index, self._call, **more)

    def suspend(self) -> None:
        self.give_back()
        self._parking = None  # it is for the ticket, and the next attempt has another
        super().suspend()


async def retried(call: Retried, retry: Retry) -> Any:
    """The body of *call*: attempts, until one succeeds or its failure is not to be tried again."""
    # No turn in here: the turn holds the result, whose error's traceback holds this frame.
    while True:
        try:
            return await call.once()
        except BaseException as exc:
            if call.dropped:
                raise
            # What an attempt has left open would be around the next one, and have its deadlines.
            mend(call.facts.loop.blocks, call, call.call.name)
            if (delay := _delay(call, retry, exc)) is None:
                raise
        await _between(call, delay)


def _delay(call: Retried, retry: Retry, exc: BaseException) -> float | None:
    """Seconds until the next attempt, after one that raised *exc*; None if there is none."""
    turn, loop = call.turn, call.facts.loop
    assert turn is not None  # because the body runs
    # By what was asked and delivered: a body may make any exception of its interrupt.
    if call.told or turn.is_asked() or call.due() or cancelled_by_stranger(loop.task()):
        return None
    failure = _raised.unwrapped(exc, loop.cancelled)
    if not isinstance(failure, Exception) or not call.covered(retry, failure):
        return None
    if call.tries is None:
        call.tries = Tries()
    tries, number = call.tries, call.attempt
    if number >= retry.attempts:
        return None
    asked_for = failure.retry_after if isinstance(failure, ModelError) else None
    delay = seconds_before_next(retry, number, asked_for)
    if delay is None:
        tries.why_no_more = f"the server asks for more than {LONGEST_RETRY_AFTER:g} s"
    elif (now := loop.now()) + delay >= call.timeout_deadline():
        tries.why_no_more = "its time would be up before the next attempt"
        delay = None
    elif now + delay >= call.facts.deadline:
        tries.why_no_more = "the deadline would come before the next attempt"
        delay = None
    elif call.at_work:
        # Two bodies of one call at once is more than `idempotent` promises.
        tries.why_no_more = "something of the attempt is still at work"
        delay = None
    elif (spent := call.spent()) is not None:
        tries.why_no_more = str(spent)
        delay = None
    if delay is not None:
        call.tell_retry(number, failure, delay)
        tries.failures.append(failure)
        tries.count += 1
    return delay


async def _between(call: Retried, delay: float) -> None:
    """Give the slots back, wait, and take them again; all of it ends with an interrupt."""
    tries, loop = call.tries, call.facts.loop
    assert tries is not None  # because an attempt has failed
    call.suspend()
    try:
        await anyio.sleep(delay)
        taken = await tries.take_slots(call)
        if call.is_over():
            await anyio.sleep_forever()  # the interrupt is on its way, and no attempt shall begin
    except loop.cancelled as exc:
        if exc.__context__ is None:
            exc.__context__ = tries.failures[-1]  # the cause of what its result says
        raise
    if not taken:
        raise tries.give_up()
    call.resume()
