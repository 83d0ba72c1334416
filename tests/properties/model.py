"""The sequential model: what a plan must come to, by the laws, if no limiter makes anybody wait.

It runs no task. A body is performed alone, from its start to its end, in a world whose clock is a
number; its turn's asks are known by then, as far as they can matter to it, because whatever asks
was planned or happened earlier. Two turns need a second look: one in which a call fails fatally,
and one whose block is interrupted while it waits for its calls.

The rules, which are the laws in other words:

* an ask comes with an end, at most `grace` later; the end of a nested turn's ask is that of the
  call that hosts it (one grace for the whole tree);
* a body is interrupted at the first await outside of its own shields at which its turn has been
  asked, or its own timeout has come, and then not again before the earliest of the ends;
* from that end on, every unshielded await fails.

Above: the laws. Below: `plans`, `perform`, `story`. It imports nothing of turnscope.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import attrs

from .perform import perform, perform_turn
from .plans import CallPlan, Plan, TurnPlan
from .story import Story

PATIENCE = 1_000


class Tie(Exception):
    """Two instants of the plan coincide, so that more than one story is right."""


class Cancelled(BaseException):
    """The model's cancellation."""


class Failure(BaseException):
    """Something that a body, a cleanup or a block raises; `name` says which."""

    def __init__(self, name: str) -> None:
        self.name = name


@attrs.frozen(order=True)
class Ask:
    instant: float
    end: float
    status: str


def expected(plan: Plan) -> Story:
    """The story of *plan*. Raises Tie if it has no single one."""
    story = Story()
    caller = _Caller(plan, story)
    try:
        _run(perform_turn(plan.turn, caller))
    except Cancelled:
        story.raised = "cancelled"
    except Failure as failure:
        story.raised = failure.name
    story.margin = caller.margin
    if caller.margin < 1e-6:
        raise Tie
    return story


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("the model awaited something")


class _World(ABC):
    """What `perform` acts upon."""

    cancelled = Cancelled

    def __init__(self, plan: Plan, story: Story, now: float) -> None:
        self.plan, self.story, self.now = plan, story, now
        self.margin = math.inf
        self.place = ""
        self.turns = 0

    async def sleep(self, span: float, shield: bool = False) -> None:
        until = self.now + span
        if not (shield and self.shields_hold) and self.before(
            at := self.next_cancellation(), until
        ):
            self.now = max(self.now, at)
            self.deliver()
        self.now = until

    shields_hold = True

    def before(self, one: float, other: float) -> bool:
        """Whether *one* is before *other*; by how little is noted."""
        # Noted, and looked at in the end: raised here, the cleanup of a plan would take its place.
        if one != math.inf:
            self.margin = min(self.margin, abs(one - other))
        return one < other

    async def fail(self, how: str) -> None:
        # A task group is left by an await: a cancellation that is due comes along with the failure.
        if how == "task group" and self.next_cancellation() <= self.now:
            self.margin = 0.0
        if how == "cancellation":
            raise Cancelled
        raise Failure("child" if how == "task group" else how)

    def beat(self, progress: bool) -> None:  # noqa: B027  # because only bodies beat
        """Hear of the body."""

    def note(self, what: str) -> None:  # noqa: B027  # because only bodies note
        """Keep what the body saw."""

    @abstractmethod
    def next_cancellation(self) -> float:
        """The instant at which an unshielded await would fail, perhaps in the past."""

    def deliver(self) -> None:
        """A cancellation reaches this body now."""
        raise Cancelled

    def forwarded(self) -> list[Ask]:
        """What the turns in this body are asked because it is interrupted, if it is."""
        return []

    def to_come(self) -> list[Ask]:
        """The asks after this instant of one who has not been interrupted."""
        return []

    @abstractmethod
    def deadline(self) -> float:
        """The earliest deadline that a body in here would be told."""

    @asynccontextmanager
    async def turn(self, plan: TurnPlan) -> AsyncIterator[_Turn]:
        place = f"{self.place}/{self.turns}:" if self.place else ""
        self.turns += 1
        turn = _Turn(plan, self, place)
        raised: BaseException | None = None
        try:
            yield turn
        except (Cancelled, Failure) as exc:
            raised = exc
            turn.ask(self.now, "cancelled")
        stopped: BaseException | None = None
        left, fatal = turn.play()
        open_wait = raised is None or (isinstance(raised, Failure) and not self.shields_hold)
        if open_wait and self.before(at := max(self.now, self.next_cancellation()), left):
            self.now = at
            try:
                self.deliver()
            except (Cancelled, Failure) as exc:
                stopped = exc
                turn.ask(self.now, "cancelled")
            left, fatal = turn.play()
        elif not open_wait and (later := self.to_come()):
            # No interrupt reaches this wait, but its end does those who are ending anyway.
            for ask in later:
                end = min(ask.end, ask.instant + turn.grace)
                turn.asks.append(Ask(ask.instant, end, "cancelled"))
            left, fatal = turn.play()
        for body in turn.bodies:
            self.story.calls |= body.story.calls
            self.story.left |= body.story.left
            self.margin = min(self.margin, body.margin)
        self.now = self.story.left[place] = left
        if fatal is not None and fatal.name == "KeyboardInterrupt":
            raise fatal
        if stopped is not None:
            raise stopped
        if raised is not None:
            raise raised
        if fatal is not None:
            raise fatal


class _Caller(_World):
    """The task that opens the outermost turn."""

    def __init__(self, plan: Plan, story: Story) -> None:
        super().__init__(plan, story, 0.0)
        # asyncio's own cancellations pierce the shields of AnyIO, as Ctrl-C on trio does.
        self.shields_hold = plan.caller.how not in ("native", "asyncio.timeout", "Ctrl-C")

    def deliver(self) -> None:
        raise Failure("KeyboardInterrupt") if self.plan.caller.how == "Ctrl-C" else Cancelled

    def next_cancellation(self) -> float:
        return self.plan.caller.after

    def deadline(self) -> float:
        bounded = self.plan.caller.how in ("move_on_after", "fail_after")
        return self.plan.caller.after if bounded else math.inf


class _Turn:
    def __init__(self, plan: TurnPlan, host: _World, place: str) -> None:
        self.plan, self.host, self.place = plan, host, place
        self.grace = host.plan.patience if plan.patient else host.plan.grace
        self.entered = host.now
        timeout = math.inf if plan.timeout is None else plan.timeout
        self.deadline = host.now + timeout
        self.facts_deadline = min(self.deadline, host.deadline())
        self.asks = [Ask(max(host.now, self.deadline), self.deadline + self.grace, "timed_out")]
        self.submitted: list[tuple[CallPlan, float, bool]] = []
        self.bodies: list[_Body] = []

    def submit(self, call: CallPlan) -> None:
        now = self.host.now
        asked = bool(self.host.forwarded()) or any(ask.instant <= now for ask in self.asks)
        self.submitted.append((call, now, asked))

    def cancel(self) -> None:
        self.ask(self.host.now, "cancelled")

    def ask(self, instant: float, status: str) -> None:
        self.asks.append(Ask(instant, instant + self.grace, status))

    def play(self) -> tuple[float, Failure | None]:
        """Perform the calls, once more if one fails fatally; when the block is left, and how."""
        asks = list(self.asks)
        for ask in self.host.forwarded():
            instant = max(ask.instant, self.entered)
            asks.append(Ask(instant, min(ask.end, instant + self.grace), "cancelled"))
        bodies = [self._body(index, asks) for index in range(len(self.submitted))]
        if fatal := min((body.now for body in bodies if body.fatal), default=None):
            asks.append(Ask(fatal, fatal + self.grace, "cancelled"))
            bodies = [
                body if body.now <= fatal else self._body(index, asks)
                for index, body in enumerate(bodies)
            ]
        self.bodies = bodies
        left = max([self.host.now, *(body.now for body in bodies)])
        failures = [b.fatal for b in sorted(bodies, key=lambda body: body.now) if b.fatal]
        interrupts = [failure for failure in failures if failure.name == "KeyboardInterrupt"]
        return left, (interrupts[-1:] or failures[:1] or [None])[0]

    def _body(self, index: int, asks: list[Ask]) -> _Body:
        call, now, asked = self.submitted[index]
        body = _Body(self, call, f"{self.place}{index}", sorted(asks), now)
        # A fatal failure had asked by then, too, although it was not known when the call came.
        body.run(asked or any(ask.instant < now for ask in asks))
        return body


class _Body(_World):
    """One call, from its submit to its one result."""

    def __init__(
        self, turn: _Turn, call: CallPlan, place: str, asks: list[Ask], now: float
    ) -> None:
        super().__init__(turn.host.plan, Story(), now)
        self.owner, self.call, self.place, self.asks = turn, call, place, asks
        self.began = now
        self.own = math.inf
        self.told: float | None = None
        self.status = ""
        self.end = math.inf
        self.enforced = 0
        self.fatal: Failure | None = None

    def run(self, asked: bool) -> None:
        story = self.story.call(self.place)
        story.ended = self.now
        if self.asks[0].instant != self.now:
            self.before(self.asks[0].instant, self.now)
        if self.call.asked_for != "well" and not asked:
            story.status = "invalid"  # in the step that submits it
            return
        if (
            self.asks[0].instant <= self.now
        ):  # in one instant with its submit, it had no time to start
            story.status = "not_started"
            return
        story.started = self.now
        self.own = self._own_deadline()
        story.deadline = self.deadline()
        try:
            _run(perform(self.call.body, self))
        except Cancelled:
            story.status = self._of_cancellation()
        except Failure as failure:
            story.status = "failed" if self.told is None else self.status
            fatal = self.call.fatal and self.told is None
            if fatal or failure.name == "KeyboardInterrupt":
                self.fatal = failure
        else:
            story.status, story.value = self._of_value(), self.place
        story.ended = self.now

    def _own_deadline(self) -> float:
        hard = math.inf if self.call.timeout is None else self.began + self.call.timeout
        idle = self.call.idle_timeout
        return hard if idle is None else min(hard, self.now + idle)

    def deadline(self) -> float:
        return min(self.own, self.owner.facts_deadline)

    def beat(self, progress: bool) -> None:
        if self.call.idle_timeout is not None and self.own > self.now:
            self.own = self._own_deadline()

    def note(self, what: str) -> None:
        self.story.call(self.place).note(what, self.now)

    def next_cancellation(self) -> float:
        if self.told is None:
            return min(self.own, self.asks[0].instant)
        # An end that moves earlier counts from the instant at which it was moved.
        return min([self.end, *(max(a.end, a.instant) for a in self.asks if a.instant > self.told)])

    def deliver(self) -> None:
        if self.told is not None:
            self.enforced += 1
            if self.enforced > PATIENCE:
                raise Failure("GeneratorExit")
            raise Cancelled
        self.told = self.now
        asked = [ask for ask in self.asks if ask.instant <= self.now]
        self.end = min((ask.end for ask in asked), default=math.inf)
        if self.own <= self.now and not (asked and asked[0].instant < self.own):
            self.status = "timed_out"
            self.end = min(self.end, self.now + self.owner.grace)
        else:
            self.status = asked[0].status
        raise Cancelled

    def forwarded(self) -> list[Ask]:
        if self.told is None:
            return []
        later = [ask for ask in self.asks if ask.instant > self.told]
        return [Ask(self.told, self.end, "cancelled"), *later]

    def to_come(self) -> list[Ask]:
        return [ask for ask in self.asks if self.told is None and ask.instant > self.now]

    def _of_cancellation(self) -> str:
        if self.told is not None:
            return self.status
        if self.own <= self.now:
            return "timed_out"
        return self.asks[0].status if self.asks[0].instant <= self.now else "failed"

    def _of_value(self) -> str:
        if self.told is not None:
            return self.status
        late = self.own <= self.now or self.owner.deadline <= self.now
        return "timed_out" if late else "ok"
