"""The attempts at one call, and what is between them: slots given back, a wait, slots taken again.

All of it is the body that the driver sees. So an interrupt comes once, whether an attempt is at
work or the call waits for the next; the timeout covers it all, and the call settles once. Above:
the attempt. Below: the ticket, and what is worth trying again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyio import Event, sleep, sleep_forever

from . import _outcome
from ._errors import LimiterLeaked, ModelError
from ._loop import cancelled_by_stranger
from ._retry import LONGEST_RETRY_AFTER, Retry, seconds_before_next

if TYPE_CHECKING:
    from ._attempt import Attempt


class Tries:
    """The attempts at one call that have failed; it waits for the slots of the next."""

    __slots__ = ("_back", "count", "failures", "why_no_more")

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        """What they raised, but for the last attempt's, which is the call's error."""
        self.count = 1
        """Of the attempts that have begun, or are to begin."""
        self.why_no_more = ""
        """Why there is no other attempt, if not because there were enough."""
        self._back: Event | None = None

    @property
    def said(self) -> str:
        """What a reader of the last failure shall know of the others; empty if there is nothing."""
        times = f"tried {self.count} times" if self.count > 1 else ""
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

    async def take_slots(self, call: Attempt) -> bool:
        """Queue for the slots of another attempt, behind all who wait; False if none may come."""
        self._back = Event()
        call.ticket = call.ticket_for(self)
        try:
            if not call.ticket.advance():
                await self._back.wait()
        except LimiterLeaked as exc:
            self.refused(exc)
        return not self.why_no_more

    def give_up(self) -> Exception:
        """The last failure, which is the call's error after all."""
        self.count -= 1
        return self.failures.pop()


async def retried(call: Attempt, retry: Retry) -> Any:
    """The body of *call*: attempts, until one succeeds or its failure is not to be tried again."""
    # No turn in here: the turn holds the result, whose error's traceback holds this frame.
    while True:
        try:
            return await call.once()
        except BaseException as exc:
            if call.dropped or (delay := _delay(call, retry, exc)) is None:
                raise
        await _between(call, delay)


def _delay(call: Attempt, retry: Retry, exc: BaseException) -> float | None:
    """Seconds until the next attempt, after one that raised *exc*; None if there is none."""
    turn, loop = call.turn, call.facts.loop
    assert turn is not None  # because the body runs
    # By what was asked and delivered: a body may make any exception of its interrupt.
    if call.told or turn.is_asked() or call.due() or cancelled_by_stranger(loop.task()):
        return None
    failure = _outcome.unwrapped(exc, loop.cancelled)
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


async def _between(call: Attempt, delay: float) -> None:
    """Give the slots back, wait, and take them again; all of it ends with an interrupt."""
    tries, loop = call.tries, call.facts.loop
    assert tries is not None  # because an attempt has failed
    call.suspend()
    try:
        await sleep(delay)
        taken = await tries.take_slots(call)
        if call.is_over():
            await sleep_forever()  # the interrupt is on its way, and no attempt shall begin
    except loop.cancelled as exc:
        if exc.__context__ is None:
            exc.__context__ = tries.failures[-1]  # the cause of what its result says
        raise
    if not taken:
        raise tries.give_up()
    call.resume()
