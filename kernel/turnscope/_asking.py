"""The end of a turn's calls: ask, interrupt once, enforce.

What a turn knows of its deadline, of why it was asked and until when its calls may clean up; and
its way to tell each of them. Above: the supervisor, which is this with a task. Below: the attempt.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from . import _outcome
from ._errors import NotStarted
from ._loop import has_ended, sent_by

if TYPE_CHECKING:
    from anyio import CancelScope, TaskHandle

    from ._attempt import Attempt
    from ._facts import TurnFacts
    from ._loop import Task
    from ._outcome import Cause


_NONE_YET: Final = object()


class Asking(ABC):
    """The calls of one turn that have not settled, as far as their end is concerned."""

    __slots__ = (
        "_all_asked",
        "_unsettled",
        "_words",
        "asked",
        "asked_at",
        "cause",
        "deadline",
        "enforce_at",
        "facts",
        "fatal",
        "grace",
        "handle",
        "scope",
        "task",
    )

    def __init__(self, facts: TurnFacts, deadline: float, grace: float) -> None:
        self.facts = facts
        self.deadline = deadline
        self.grace = grace
        self.scope: CancelScope | None = None
        """That of the task group in which the calls run, once they may. One more, around the
        group, would cost 2 us of the 65 of a turn, on trio 4 of 85."""
        self.task: Task | None = None
        """The one that holds the group."""
        self.handle: TaskHandle[None] | None = None
        """The same, unless it is a run's."""
        self.asked = False
        self.asked_at = math.inf
        self.enforce_at = math.inf
        self.cause: Cause = _outcome.LEFT
        self.fatal: BaseException | None = None
        """What the turn raises in its caller after all has settled, if anything."""
        self._unsettled: dict[Attempt, None] = {}
        """In call order. A set of five takes 500 bytes more."""
        self._all_asked = False
        self._words: object = _NONE_YET
        """What its scope's cancellations say, once one has come: the same object in each."""

    @abstractmethod
    def finish(self) -> None:
        """Nothing of the turn runs any more: say so."""

    def is_asked(self) -> bool:
        """Whether the calls are to end; the first to look after the deadline asks."""
        if self.asked or self.deadline == math.inf:
            return self.asked
        # By the clock, which may be ahead of the timer that is going to cancel the scope.
        if self.facts.loop.now() >= self.deadline:
            self.ask(_outcome.TURN_DEADLINE)
        return self.asked

    def sent(self, cancellation: BaseException) -> bool:
        """Whether its scope has sent *cancellation*, as far as words tell: on asyncio."""
        if not (args := cancellation.args):
            return False
        # To read them again for each call is a twentieth of the time in which 64 are cancelled.
        if args[0] is self._words:
            return True
        if not sent_by(cancellation, self.scope):
            return False
        self._words = args[0]
        return True

    def ask(self, cause: Cause, end: float = math.inf) -> None:
        """Ask every call to end by *end*, a clock value, at most ``grace`` from now.

        The end only ever moves earlier, also for calls that were interrupted before: one grace is
        for the whole tree of turns.
        """
        if has_ended(self.handle):
            self.finish()  # Ctrl-C landed in it, on asyncio: who waits for it asks once more
        if self._all_asked:
            if end < self.enforce_at:
                self._tighten(end)
            return
        if not self.asked:
            now = self.facts.loop.now()
            if now >= self.deadline:
                now, cause = self.deadline, _outcome.TURN_DEADLINE
            end = min(end, now + self.grace)
            self.asked, self.asked_at, self.cause, self.enforce_at = True, now, cause, end
        self._settle_waiting()
        self._tighten(min(end, self.enforce_at))
        if self.scope is not None:
            self.scope.cancel()
        # Last: should Ctrl-C land above, the next to ask does it all again.
        self._all_asked = True

    def _tighten(self, end: float) -> None:
        self.enforce_at = end
        for attempt in tuple(self._unsettled):
            attempt.ask(end)

    def _settle_waiting(self) -> None:
        waiting = [each for each in self._unsettled if each.started_at is None and each.waits]
        # Who holds what they wait for is known as long as nobody has settled.
        reasons = [self.not_started(attempt) for attempt in waiting]
        for attempt in waiting:
            # All leave before any slot is given back: it might go to one of them.
            attempt.leave_queue()
        for attempt, reason in zip(waiting, reasons, strict=True):
            attempt.settle_unstarted(reason)

    def not_started(self, attempt: Attempt | None = None) -> NotStarted:
        """The reason for a call that an ask finds not started."""
        claim = None if attempt is None else attempt.claim
        return NotStarted(self.cause.reason + ("" if claim is None else claim.wait_in_words()))

    def stop(self, fatal: BaseException) -> None:
        """Ask every call to end, and raise *fatal* in the caller after it."""
        if self.fatal is None or isinstance(fatal, KeyboardInterrupt):
            self.fatal = fatal
        self.ask(_outcome.SIBLING_FAILED)
