"""Calls that start while the model still streams, and come to count only if the response does.

From its seal a call is taken in: it has its index, its id and checked arguments. One of a tool
that starts early is let go at once, the others when the response is complete. Until then nothing of
them is in the turn's results: what a response asked for that failed, or by which nobody stands,
leaves no trace but its events. Above: the conductor, which says what a response came to, and the
request, which streams it. Below: the attempt and the offer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs

from . import _outcome
from ._attempt import Attempt
from ._calls import Status, ToolCall, ToolResult
from ._errors import InvalidArguments, NotStarted, UnknownTool
from ._whole import whole
from .events import CallDiscarded, CallReady, CallSettled

if TYPE_CHECKING:
    from ._assemble import Assembler
    from ._budget import Ledger
    from ._outcome import Cause
    from ._places import Route
    from ._routes import Offer
    from ._supervisor import Supervisor
    from ._tools import Tool

FAILED: Final = _outcome.Cause(
    Status.CANCELLED, "the response that asked for it failed before it was complete"
)
REFUSED: Final = _outcome.Cause(
    Status.CANCELLED, "the response that asked for it turned out to be a refusal"
)


class Sealed(Attempt):
    """A call that was taken in before its response was complete."""

    __slots__ = ("_ended", "_then", "provisional", "ready", "result", "withdrawn")

    def __init__(
        self,
        turn: Supervisor,
        index: int,
        call: ToolCall,
        tool: Tool[..., Any],
        route: Route,
        kwargs: dict[str, Any],
    ) -> None:
        super().__init__(turn, index, call, tool, route, kwargs)
        self.provisional = True
        self.ready = False
        """Whether it was let go, and its events have begun."""
        self.result: ToolResult | None = None
        self.withdrawn: Cause | None = None
        self._then: Callable[[], None] | None = None
        self._ended: anyio.Event | None = None

    @property
    def waits(self) -> bool:
        # One that is held has begun nothing, and is not told of an ask: it is dropped after it.
        return self.ready and super().waits

    def granted(self) -> None:
        if self.ready and self.withdrawn is None:  # else it goes on when it is let go, or never
            super().granted()

    def withdraw(
        self, cause: Cause, then: Callable[[], None] | None = None, *, waiting: bool
    ) -> None:
        """Have it count for nothing: end it, if it has not ended. In one step.

        *then* is called when it has. One that was *waiting* is out of its queue already.
        """
        turn, self.withdrawn, self._then = self.turn, cause, then
        if turn is None:
            self._discarded()
        elif not self.ready:  # nobody has heard of it
            self._leave()
            self._discarded()
            turn.released(self, None)
        elif waiting:
            self.settle_unstarted(NotStarted(cause.reason))
        elif self.own is not None:
            # As at a timeout: the same interrupt, and the same grace.
            self.own.deadline = self.facts.loop.now()
            self.own.cancel()
        elif self.inner is not None:  # its body has not begun: `run` sees to the rest
            self.inner.cancel()

    def use(self, known: ToolResult) -> None:
        """Settle with what the same call came to in an attempt at the request that failed."""
        turn = self.turn
        assert turn is not None  # because it was only just let go
        self._leave()
        self._come_to(turn, attrs.evolve(known, call=self._call), None)

    def _leave(self) -> None:
        """Leave all queues, with no body ever begun."""
        self.turn = None
        self.give_back()
        if self.claim is not None:
            self._settle_claim(self.claim, leaked=False)

    async def ended(self) -> None:
        """Wait until it has settled."""
        if self.turn is not None:
            self._ended = self._ended or self.facts.loop.anyio.create_event()
            await self._ended.wait()

    def is_unsettled(self, turn: Supervisor) -> bool:
        # Once it counts its result is the turn's too, unless Ctrl-C landed between the two.
        return self.result is None or not (self.provisional or turn.results[self.index])

    def _hand_over(self, turn: Supervisor, result: ToolResult, fatal: BaseException | None) -> None:
        self._come_to(turn, result, fatal)

    def _come_to(self, turn: Supervisor, result: ToolResult, fatal: BaseException | None) -> None:
        self.result = result
        if self.withdrawn is not None and not isinstance(fatal, KeyboardInterrupt):
            fatal = None  # it counts for nothing, so it ends nothing
        try:
            if not self.provisional:
                turn.commit(self.index, result)
            elif self.ready:
                if self.facts.observed:
                    self.facts.tell_of(CallSettled, self.index, self._call, result=result)
                if self.withdrawn is not None:
                    self._discarded()
        finally:
            turn.released(self, fatal)
            if self._ended is not None:
                self._ended.set()

    def _discarded(self) -> None:
        if self.ready and self.facts.observed:
            assert self.withdrawn is not None  # because it was withdrawn
            reason = self.withdrawn.reason
            self.facts.tell_of(CallDiscarded, self.index, self._call, reason=reason)
        then, self._then = self._then, None  # it holds what holds this: a cycle
        if then is not None:
            then()


class Early:
    """The calls of one turn that are taken in at their seal; made only where tools start early.

    A request may be attempted several times: `begin` before each attempt, and after one that has
    failed `drop` and `joined`, so that all events of its calls come before those of the next.
    """

    __slots__ = ("_context", "_finished", "_ledger", "_offer", "_taken", "_turn")

    def __init__(self, turn: Supervisor, offer: Offer, ledger: Ledger, context: Context) -> None:
        self._turn = turn
        self._offer = offer
        self._ledger = ledger
        self._context = context
        self._taken: list[Sealed | None] = []
        """By index; None for one that is refused if the response comes to its end."""
        self._finished: list[ToolResult] = []
        """What calls of attempts that failed came to by themselves: not to be run again."""

    def begin(self) -> None:
        """An attempt at the request begins: its calls are counted from 0."""
        self._taken.clear()

    @whole
    def sealed(self, assembler: Assembler, taken: Callable[[str], bool]) -> None:
        """Take in the calls that are whole now; start those that may. Never waits, nor raises.

        In call order: so ids, indexes and places in queues are those that they would have if all
        began when the response was complete.
        """
        for call in assembler.whole(taken):
            self._context.run(self._take, call)

    def _take(self, call: ToolCall) -> None:
        index = len(self._taken)
        attempt = self._made(index, call)
        self._taken.append(attempt)
        if attempt is None or not attempt.tool.early or self._turn.is_asked():
            return
        # What the budget has left may be spent elsewhere until the response is complete: then the
        # call is discarded after all.
        if self._ledger.has_calls(index + 1):
            self._let_go(attempt)

    def _made(self, index: int, call: ToolCall) -> Sealed | None:
        try:
            attempt = self._offer.attempt(Sealed, self._turn, index, call)
        except (InvalidArguments, UnknownTool):
            return None
        self._turn.hold(attempt)
        return attempt

    def _let_go(self, attempt: Sealed) -> None:
        attempt.ready = True
        if attempt.facts.observed:
            attempt.facts.tell_of(CallReady, attempt.index, attempt.call)
        if self._turn.is_asked():
            attempt.settle_unstarted(self._turn.not_started())
        elif self._finished and (known := self._known(attempt)) is not None:
            attempt.use(known)
        else:
            self._turn.let_go(attempt)

    def _known(self, attempt: Sealed) -> ToolResult | None:
        """Take out the result of the same call in an attempt that failed, if there is one.

        None for a call that waits for what another does before it: it may come to something else.
        """
        if attempt.claim is not None and not attempt.claim.held:
            return None
        same = _plain(attempt.call)
        for place, result in enumerate(self._finished):
            if _plain(result.call) == same:
                return self._finished.pop(place)
        return None

    # The end of the response.

    def count(self, call: ToolCall) -> bool:
        """The next call of the complete response counts; False if it must be refused, and was not.

        One that was held is let go.
        """
        results = self._turn.results
        index = len(results)
        attempt = self._taken[index] if index < len(self._taken) else self._made(index, call)
        if attempt is None:
            return False
        attempt.provisional = False
        results.append(attempt.result)
        if not attempt.ready:
            self._let_go(attempt)
        return True

    def refuse(self, call: ToolCall, status: Status, error: InvalidArguments | NotStarted) -> None:
        """Refuse the next call of the complete response; one that has started is ended first."""
        results = self._turn.results
        index = len(results)
        results.append(None)
        attempt = self._taken[index] if index < len(self._taken) else None

        def refuse() -> None:
            if self._turn.facts.observed:
                self._turn.facts.tell_of(CallReady, index, call)
            self._offer.refuse(self._turn, index, call, status, error)

        if attempt is None:
            refuse()
        else:
            cause = _outcome.Cause(Status.CANCELLED, str(error))
            waiting = attempt.waits
            attempt.leave_queue()
            attempt.withdraw(cause, refuse, waiting=waiting)

    @whole
    def drop(self, cause: Cause) -> None:
        """End what does not count, and have it discarded."""
        dropped = [each for each in self._attempts() if each.provisional and not each.withdrawn]
        waiting = [each for each in dropped if each.waits]
        for attempt in dropped:
            # Before any key is given back, which might go to one of them.
            attempt.withdrawn = cause
        for attempt in waiting:
            # All leave before any slot is given back: it might go to one of them.
            attempt.leave_queue()
        for attempt in dropped:
            result = attempt.result
            if result is not None and result.status in (Status.OK, Status.FAILED):
                self._finished.append(result)
            attempt.withdraw(cause, waiting=attempt in waiting)

    async def joined(self) -> None:
        """Wait, after `drop`, until what it ended has settled: within grace."""
        for attempt in self._attempts():
            await attempt.ended()

    @property
    def results(self) -> list[ToolResult]:
        """What those that were taken in have come to, whether they count or not."""
        return [each.result for each in self._attempts() if each.result is not None]

    def _attempts(self) -> Iterator[Sealed]:
        return (attempt for attempt in self._taken if attempt is not None)


def _plain(call: ToolCall) -> tuple[str, str]:
    """What makes two calls the same: the tool, and the arguments, however they are written."""
    return call.name, json.dumps(json.loads(str(call.arguments)), sort_keys=True)
