"""One of the two bodies of a hedged call: an attempt whose result is for the race alone.

It has slots of its own, an interrupt, a grace, and the turns that it nests. Keys, timeouts and what
is made of a failure are the call's. Above: the race. Below: the attempt.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from . import _outcome
from ._attempt import Attempt
from ._calls import Status, UnfrozenResult
from ._errors import CallCancelled, NotStarted
from ._holds import Release
from ._turn_events import CallHedged

if TYPE_CHECKING:
    from ._calls import ToolResult
    from ._hedging import Race
    from ._places import ToolRoute
    from ._resources import Claim
    from ._supervisor import Supervisor

_LOST: Final = _outcome.Cause(Status.CANCELLED, "the other attempt at it has decided the call")


class Leg(Attempt):
    """One of the two bodies of a call."""

    __slots__ = ("_of", "_race", "_release", "leaking", "lost", "number", "withdrawn")

    provisional = True
    """So it has a scope by which it alone is interrupted."""

    def __init__(self, race: Race, turn: Supervisor, of: Attempt, route: ToolRoute) -> None:
        super().__init__(turn, of.index, of.call, of.tool, route, {})
        self._race = race
        self._of = of
        self._release: Release | None = None
        self.number = 1
        """Which body of the call it is."""
        self.withdrawn: _outcome.Cause | None = None
        self.leaking = False
        """Whether it has ended, and its thread has not."""
        self.lost: CallCancelled | None = None
        """What tells of its interrupt, if there is more to it than that."""

    # What its body sees.

    @property
    def attempt(self) -> int:
        return self.number

    @property
    def deadline(self) -> float:
        return self._of.deadline

    def heartbeat(self) -> None:
        self._of.heartbeat()

    # Its life: the call's timeouts are the call's, which ends it.

    def timeout_deadline(self) -> float:
        return math.inf

    def own_deadline(self) -> float:
        return math.inf

    async def while_heard(
        self, turn: Supervisor, work: Callable[[Supervisor], Awaitable[None]]
    ) -> None:
        await work(turn)

    def begin(self, turn: Supervisor) -> Coroutine[Any, Any, Any]:
        """Say that the second begins; returns the body."""
        if self._race.begins(self) and self.facts.observed:
            self.facts.tell_of(CallHedged, self.index, self._call, attempt=self.number)
        return self.once()

    def withdraw(self) -> None:
        """End it, if it has not ended: as at a timeout. In one step."""
        if self.turn is None or self.withdrawn is not None:
            return
        self.withdrawn = _LOST
        if self.waits:
            self.leave_queue()
            self.settle_unstarted(NotStarted(_LOST.reason))
        elif self.own is not None:
            self.own.deadline = self.facts.loop.now()
            self.own.cancel()
        else:  # its body has not begun; nor ever would, had Ctrl-C ended its task before
            if self.inner is not None:
                self.inner.cancel()
            self.settle_unstarted(NotStarted(_LOST.reason))

    def _came_to(self, turn: Supervisor, value: Any, error: BaseException | None) -> None:
        # As it is: what it means is for the call, which alone may ask `on_error`.
        status = Status.OK if error is None else Status.FAILED
        now = self.facts.loop.now()
        self._settle(turn, UnfrozenResult(status, "", value, error), None, now)

    def is_unsettled(self, turn: Supervisor) -> bool:
        return not self._race.knows(self)

    def _hand_over(self, turn: Supervisor, result: ToolResult, fatal: BaseException | None) -> None:
        self.leaking = result.leaked
        if result.leaked and self.told:
            self.lost = CallCancelled(_LOST.reason)
        try:
            self._race.ended(self, result)
        finally:
            turn.released(self, None)  # what is fatal is so by the call, which raises it

    def _settle_claim(self, claim: Claim, *, leaked: bool) -> None:
        """The keys are the call's."""

    def lost_over(self, error: BaseException | None) -> CallCancelled | None:
        """What tells of its interrupt, if that has come over an *error*, or its thread has leaked.

        As for any call that is interrupted. It becomes the cause, or what the thread will raise.
        """
        if error is not None:
            self.lost = self.lost or CallCancelled(_LOST.reason)
            self.lost.__cause__ = error
        return self.lost

    def linger(self, release: Release) -> None:
        """Told that the call settles, and is to hear by *release* when its thread has ended."""
        self._release = release

    def _really_ended(self, error: BaseException | None, late: BaseException | None) -> None:
        self.leaking = False
        self.ticket.unleak()
        kept = self.lost or error
        if kept is not None and late is not None and kept.__cause__ is None:
            kept.__cause__ = late
        if self._release is not None:
            self._release(error=late)
