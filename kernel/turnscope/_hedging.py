"""A second body for a call whose first is slow: the first to succeed wins, the other is ended.

To its turn a hedged call is one like any other: its body is the race in here. So its timeouts, its
keys, its retries and its one result are as ever, and the race begins anew with each retry. It is
over when nothing of either body runs any more. It stands between the call and its backend: tools
without it pay nothing. Above: the routes. Below: the leg, which is one body.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from . import _raised
from ._calls import Status, ToolResult
from ._errors import WorkerLost
from ._interrupt import Expelled
from ._leg import Leg
from ._limits import Ticket
from ._loop import join
from ._retrying import Tries
from ._whole import whole

if TYPE_CHECKING:
    from ._attempt import Attempt
    from ._places import ToolRoute
    from ._supervisor import Supervisor


class Race:
    """The two bodies at one attempt of a call."""

    __slots__ = (
        "_call",
        "_decided",
        "_ended",
        "_known",
        "_legs",
        "_timer",
        "_tries",
        "over",
        "won",
    )

    def __init__(self, call: Attempt, tries: Tries) -> None:
        self._call = call
        self._tries = tries
        self._legs: list[Leg] = []
        self._ended: dict[Leg, ToolResult] = {}
        """What each came to, in the order of their ends."""
        self._known: set[Leg] = set()
        self._decided = False
        """Whether what the call comes to no longer depends on who still runs."""
        self._timer: anyio.TaskHandle[None] | None = None
        self.won: ToolResult | None = None
        """Of the first that returned."""
        self.over = anyio.Event()
        """Set when both have ended."""

    def start(self, turn: Supervisor, route: ToolRoute, kwargs: dict[str, Any]) -> None:
        """Start the first body now, with *kwargs*, and the second if it has not ended in time."""
        first, second = Leg(self, turn, self._call, route), Leg(self, turn, self._call, route)
        # The slots of the call are the first's, which gives them back as soon as it has ended.
        first.ticket, self._call.ticket = self._call.ticket, Ticket((), self._call, nested=False)
        first.kwargs = kwargs
        second.tries = Tries()  # so its arguments are made anew
        for leg in (first, second):
            # Apart: a variable that one body sets is not seen by the other.
            leg.submitted_in = copy_context()
        self._take(turn, first)
        turn.start(first)
        after = self._call.tool.hedge
        assert after is not None  # because the call is hedged
        if not self._decided:
            name = f"hedge of {self._call.call.id}"
            self._timer = turn.beside(self._hedge(turn, second, after), name=name)

    def _take(self, turn: Supervisor, leg: Leg) -> None:
        self._legs.append(leg)
        turn.hold(leg)
        leg.claim = self._call.claim  # after it: the call has joined the queues already

    @whole
    async def _hedge(self, turn: Supervisor, second: Leg, after: float) -> None:
        await anyio.sleep(after)
        if not (self._decided or self._call.told or self._call.due()):
            self._take(turn, second)
            turn.go_on(second)

    def begins(self, leg: Leg) -> bool:
        """Told that the body of *leg* begins; True if it is the second."""
        hedges = leg is not self._legs[0]
        self._tries.hedged += hedges
        leg.number = self._tries.bodies
        return hedges

    def knows(self, leg: Leg) -> bool:
        """Whether *leg* has ended."""
        return leg in self._known or self.over.is_set()

    def ended(self, leg: Leg, result: ToolResult) -> None:
        """Told that *leg* has come to its end. In one step."""
        self._ended[leg] = result
        if not self._decided and not self._open_after(leg, result):
            self.decide()
        if all(each.turn is None for each in self._legs):
            self.decide()
        # Last: should Ctrl-C land in here, the leg tells it again.
        self._known.add(leg)

    def _open_after(self, leg: Leg, result: ToolResult) -> bool:
        """Whether it is for the other to decide, now that *leg* came to *result*."""
        if result.status is Status.OK:
            self.won = result
            call, turn, now = self._call, self._call.turn, self._call.facts.loop.now()
            told = leg.told or call.told
            if not told and turn is not None and now < min(call.own_deadline(), turn.deadline):
                self._tries.won = True
            return False
        others = [each for each in self._legs if each is not leg and each.turn is not None]
        if leg.started_at is None:
            return bool(others)
        error = result.error
        assert error is not None  # because it is not ok
        failed = _raised.unwrapped(error, leg.facts.loop.cancelled)
        # What is beyond Exception, as Ctrl-C, is no failure that another attempt makes good.
        return (
            isinstance(failed, Exception)
            and not leg.told
            and any(each.started_at is not None for each in others)
        )

    def decide(self) -> None:
        """End who still runs: it can no longer win. In one step."""
        self._decided = True
        if self._timer is not None:
            self._timer.cancel()
        for leg in tuple(self._legs):
            leg.withdraw()
        if all(each.turn is None for each in self._legs):
            self.over.set()

    def result(self, stopped: BaseException | None) -> Any:
        """What the call's body returns, after the race, or raises; *stopped* has ended the wait."""
        raised, won = self._closed(stopped), self.won
        del stopped
        if raised is None:
            assert won is not None  # because nothing was raised
            return won.value
        try:
            raise raised
        finally:
            del raised  # this frame is in its traceback: a cycle

    def _closed(self, stopped: BaseException | None) -> BaseException | None:
        """What the body raises, if anything; all else that was raised goes with the failures."""
        cancelled = self._call.facts.loop.cancelled
        raised = {leg: _error_of(leg, result) for leg, result in self._ended.items()}
        # An error's traceback holds its leg, which holds this: a cycle.
        self._ended.clear()
        self._legs.clear()
        self._known.clear()
        final = self._final([stopped, *raised.values()])
        for leg, error in raised.items():
            kept: BaseException | None = None
            if isinstance(error, (cancelled, Expelled)) or (
                isinstance(error, WorkerLost) and leg.told
            ):
                over = None if error is final else _raised.beneath(error, cancelled)
                kept = leg.lost_over(over)
            elif error is not final:
                kept = error
            if kept is not None:
                self._tries.failures.append(kept)
            if leg.leaking:
                leg.linger(self._call.hold())
        return final

    def _final(self, raised: Iterable[BaseException | None]) -> BaseException | None:
        cancellation = self._call.facts.loop.cancelled, Expelled
        errors = [error for error in raised if error is not None]
        beyond = [error for error in errors if not isinstance(error, (Exception, *cancellation))]
        if self.won is not None:
            # Work that has been done is kept, but for Ctrl-C, which may be in a group.
            return next((error for error in beyond if not isinstance(error, SystemExit)), None)
        return (beyond or errors[-1:] or [self._call.facts.loop.cancellation()])[0]


def _error_of(leg: Leg, result: ToolResult) -> BaseException | None:
    """What the body of *leg* has raised, if it has begun."""
    if result.error is None or leg.started_at is None:
        return None
    return _raised.unwrapped(result.error, leg.facts.loop.cancelled)


@attrs.frozen(eq=False)
class Hedging:
    """Stands in for a backend, for the calls of a tool that is hedged."""

    _route: ToolRoute
    """Where each of the bodies runs."""

    @whole
    async def call(self, _fn: object, kwargs: Mapping[str, Any], call: Attempt, /) -> Any:
        """Run the body of *call*, and if need be a second one."""
        turn = call.turn
        assert turn is not None  # because its body runs
        call.tries = call.tries or Tries()
        race = Race(call, call.tries)
        race.start(turn, self._route, dict(kwargs))
        del turn  # as in `retried`
        return race.result(await join(call.facts.loop, race.over, race.decide, None))
