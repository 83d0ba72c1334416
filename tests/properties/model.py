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
from .plans import Body, CallPlan, Plan, Sleep, Tasks, TurnPlan
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
        self.awaited = 0

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

    async def tasks(self, step: Tasks) -> None:
        """Have tasks do this, and wait for them all; only bodies have any."""
        raise NotImplementedError

    def beat(self, progress: bool) -> None:  # noqa: B027  # because only bodies beat
        """Hear of the body."""

    def note(self, what: str) -> None:  # noqa: B027  # because only bodies note
        """Keep what the body saw."""

    def enter_a_scope(self) -> None:  # noqa: B027  # because it is to change nothing
        """Enter one that is never left."""

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
            self.story.tasks |= body.story.tasks
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
        self.hear(self.now)
        raise Cancelled

    def hear(self, now: float) -> None:
        """Be told *now* that it is to end, and why."""
        self.told = now
        asked = [ask for ask in self.asks if ask.instant <= now]
        self.end = min((ask.end for ask in asked), default=math.inf)
        if self.own <= now and not (asked and asked[0].instant < self.own):
            self.status = "timed_out"
            self.end = min(self.end, now + self.owner.grace)
        else:
            self.status = asked[0].status

    @property
    def interrupted(self) -> bool:
        """Whether its one interrupt has come."""
        return self.told is not None

    async def tasks(self, step: Tasks) -> None:
        _await(self, self, step)

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


class _Task(_World):
    """One task that a body awaits, from its start to its end."""

    # It is cancelled by Task.cancel(), which pierces the shields of AnyIO.
    shields_hold = False

    def __init__(self, body: _Body, of: _Body | _Task) -> None:
        super().__init__(body.plan, body.story, of.now)
        self.body = body
        self.place = f"{of.place}.{of.awaited}"
        of.awaited += 1
        self.interrupted = of.interrupted
        """Whether the one interrupt has come to it, or will not."""
        self.handed = self.enforced = False
        self.raised: Cancelled | Failure | None = None

    def run(self, plan: Body) -> None:
        try:
            _run(perform(plan, self))
        except (Cancelled, Failure) as exc:
            self.raised = exc

    async def tasks(self, step: Tasks) -> None:
        _await(self.body, self, step)

    def next_cancellation(self) -> float:
        told = self.body.told
        if self.interrupted:
            return math.inf if told is None else self.body.next_cancellation()
        return self.body.next_cancellation() if told is None else told

    def deliver(self) -> None:
        if self.body.told is None:
            self.body.hear(self.now)
        self.enforced = self.interrupted
        self.interrupted = self.handed = True
        raise Cancelled

    def note(self, what: str) -> None:
        self.story.task(self.place).note(what, self.now)

    def deadline(self) -> float:
        return self.body.deadline()

    def forwarded(self) -> list[Ask]:
        # The body may have been told later than this, in what another task of it does.
        told = self.body.told
        return [] if told is None or told > self.now else self.body.forwarded()


def _await(body: _Body, of: _Body | _Task, step: Tasks) -> None:
    """Perform each task alone, and wait for the last; *of* is the body, or a task that has some."""
    kept = _is_kept(body, of, step)
    tasks = [_Task(body, of) for _ in step.bodies]
    for task, plan in zip(tasks, step.bodies, strict=True):
        task.run(plan)
    of.now = max(task.now for task in tasks)
    of.margin = min([of.margin, *(task.margin for task in tasks)])
    handed = any(task.handed for task in tasks)
    if isinstance(of, _Task) and handed:
        of.interrupted = of.handed = True
        of.enforced |= any(task.enforced for task in tasks)
    # These hand down the first cancellation alone: a `wait_for` on some Pythons.
    if step.how in ("TaskGroup", "wait_for") and any(task.enforced for task in tasks):
        of.margin = 0.0
    # These have been asked to end, so that is what they raise.
    if handed and step.how in ("gather", "gather in a gather", "TaskGroup"):
        raise Cancelled
    for task in tasks:
        if task.raised is not None:
            raise task.raised
    if kept:
        raise Cancelled


def _is_kept(body: _Body, of: _Body | _Task, step: Tasks) -> bool:
    """Whether *of* takes its interrupt itself, as it awaits what shields its task from that."""
    if step.how != "shield" or of.interrupted:
        return False
    (kept,) = step.bodies
    spans = [each.span for each in kept.steps if isinstance(each, Sleep)]
    at = body.next_cancellation() if body.told is None else body.told
    if not of.before(at, of.now + sum(spans) + sum(kept.cleanup)):
        return False
    if body.told is None:
        body.hear(max(at, of.now))
    if isinstance(of, _Task):
        of.interrupted = of.handed = True
    return True
