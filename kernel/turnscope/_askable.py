"""A call as it is asked to end: one interrupt, a shield for the cleanup, and a time to end.

The turn tells it that it has been asked; the driver asks it of each cancellation on its way to the
body. Above: the attempt, which is this with a life. Below: the view, and what is nested in a call.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import anyio

from . import _outcome
from ._calls import ToolCall
from ._interrupt import PATIENCE
from ._loop import cancelled_by_stranger, sent_by, sent_by_scope
from ._parking import Parking
from ._view import View

if TYPE_CHECKING:
    from ._supervisor import Supervisor
    from ._tools import Tool


class Askable(View):
    """One call, as far as its end is concerned. Its members without an underscore are public."""

    __slots__ = (
        "_enforced",
        "_parking",
        "_unwinding",
        "cause",
        "dropped",
        "ends_at",
        "inner",
        "nurseries",
        "stubborn",
        "told",
        "watch",
    )

    def __init__(self, turn: Supervisor, index: int, call: ToolCall, tool: Tool[..., Any]) -> None:
        # Not by `super`, here and above: 850 instructions each time (callgrind, 3.11).
        View.__init__(self, turn, index, call, tool)
        self.inner: anyio.CancelScope | None = None
        """The scope around the body: shielded at the interrupt, cancelled to enforce."""
        self.nurseries = 0
        """How many nurseries around the body are not its own, in its task."""
        self.told = False
        """Whether the interrupt was delivered."""
        self.ends_at = math.inf
        """Until when the body may clean up, a clock value, once it was interrupted."""
        self.watch = False
        """Whether the body's scope is to change after a step of the body."""
        self._unwinding = self.stubborn = self.dropped = False
        self.cause: _outcome.Cause | None = None
        self._enforced = 0
        self._parking: Parking | None = None

    def deliver(self, cancellation: BaseException) -> None:
        """Told that *cancellation* is about to reach the body."""
        turn, inner = self.turn, self.inner
        assert turn is not None and inner is not None  # because the body runs
        if turn.asked and not self.told and turn.sent(cancellation):
            # On asyncio its own words say whose it is. With what else went for it, this short way
            # saves 6 % of the instructions from a cancel until 64 calls are quiet.
            inner.shield = True
            self._tell(turn)
        elif inner.cancel_called:  # enforced
            self._enforced += 1
            if self._enforced == PATIENCE + 1:
                self.stubborn = True
        elif not self.told:
            # In the turn's own task, scopes of the body's own have cancelled it too.
            by_body = self.nurseries > 0 and sent_by_scope(cancellation)
            if not self.due() and not by_body and cancelled_by_stranger(turn.task):
                turn.ask(_outcome.LOOP_ENDS)
            if self.due():
                self._interrupt(turn, inner, cancellation)

    def _interrupt(
        self, turn: Supervisor, inner: anyio.CancelScope, cancellation: BaseException
    ) -> None:
        if self.facts.loop.in_nursery(self.nurseries):
            # A nursery takes a cancellation that no parent of it has sent: shielded, the body would
            # go on after it as if the children had done their work. So not before it is left.
            self._unwinding = True
            self._tell(turn)
            return
        inner.shield = True
        ours = self.facts.loop.is_asyncio and sent_by(cancellation, self.own)
        if ours or anyio.current_effective_deadline() != -math.inf:
            self._tell(turn)
        else:
            # With the shield up, only a scope of the body's own is cancelled here, say by a timer
            # at the same instant. It takes this one; ours comes next, or, if the body never leaves
            # that scope, when patience is out.
            self.watch = True
            self._enforced += self.facts.loop.now() >= turn.enforce_at
            if self._enforced > PATIENCE:
                self._enforced = 0
                self._tell(turn)

    def stepped(self) -> None:
        """Told that the body has taken a step, and waits again."""
        inner = self.inner
        if inner is None:
            return
        if self.ends_at < inner.deadline:
            inner.deadline = self.ends_at
        if not (self._unwinding and self.facts.loop.in_nursery(self.nurseries)):
            inner.shield = self.told
            self.watch = self._unwinding = False

    def due(self) -> bool:
        """Whether the body is to be interrupted, and has not been."""
        if self.told or self.turn is None:
            return False
        timed_out = self.own is not None and self.own.cancel_called
        return timed_out or self.turn.is_asked()

    def drop(self) -> None:
        """Told that the coroutine is being closed: nothing can be awaited any more."""
        self.dropped = True

    def _tell(self, turn: Supervisor) -> None:
        """The interrupt: from here the body is shielded, and has until the end of grace."""
        # The timer for that end waits for the body's next step, which most bodies do not take:
        # of 64 cancelled calls it was a fifth of the time.
        self.told = self.asked = self.watch = True
        own, end = self.own, turn.enforce_at
        if own is not None and own.cancel_called and own.deadline <= turn.asked_at:
            self.cause = _outcome.timeout_of(self, own.deadline)
            end = min(end, self.facts.loop.now() + turn.grace)
        else:
            self.cause = turn.cause
        self.ends_at = end
        if self._parking is not None:
            self._parking.go_without()
            self._parking.ask(_outcome.PARENT_ENDS, end)

    def ask(self, end: float) -> None:
        """Told by the turn that it has been asked, or that its end is now *end*, and earlier."""
        self.asked = True
        parking, inner = self._parking, self.inner
        if parking is not None:
            parking.go_without()
            parking.tighten(_outcome.PARENT_ENDS, end)
        # An interrupt that could not reach the body yet, for a shield of its own, is still to come.
        if self.told and inner is not None and end < self.ends_at:
            self.ends_at = end
            if not self.watch:
                inner.deadline = end
            if parking is not None:
                parking.ask(_outcome.PARENT_ENDS, end)
