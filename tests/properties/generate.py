"""Draws plans: turns, bodies and the accidents that befall them.

Every span has a fingerprint of its own in its low bits, so that no two instants of a plan coincide
unless one is the cause of the other; and it is a whole number of 2**-26 seconds, so that clocks
that start at 1,000,000 add spans without rounding. Above: the laws. Below: `plans`.
"""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import attrs
from hypothesis import assume, settings
from hypothesis import strategies as st

from .model import Tie, expected
from .plans import (
    Beat,
    Body,
    Caller,
    CallPlan,
    Cancel,
    End,
    Fail,
    How,
    Nest,
    Op,
    Pause,
    Plan,
    Sleep,
    Step,
    Submit,
    Tasks,
    TurnPlan,
    every_call,
)
from .story import Story

UNIT = 1 / 64
_FINGERPRINTS = random.Random(1).sample(range(1, 1 << 18), 2_000)

ORDINARY: tuple[End, ...] = ("ValueError", "TimeoutError")
ENDS: tuple[End, ...] = (
    *ORDINARY,
    "SystemExit",
    "GeneratorExit",
    "cancellation",
    "group of one",
    "group of two",
    "group in a group",
    "task group",
)

SEVERAL: tuple[How, ...] = ("gather", "gather in a gather", "TaskGroup")
ONE: tuple[How, ...] = ("task", "task in a task", "wait_for", "shield")
PLAIN: tuple[How, ...] = ("TaskGroup", "wait_for", "shield")
"""What these make of a task that fails, swallows or nests is their own: so there it does not."""


@attrs.frozen(kw_only=True)
class Odds:
    """What may occur in a plan. Numbers are the chance in eight."""

    calls: int = 4
    steps: int = 0
    """The fewest steps of a body."""
    depth: int = 2
    nest: int = 3
    tasks: int = 0
    """A body awaits tasks of its own, as it only can on asyncio."""
    fail: int = 2
    ends: tuple[End, ...] = ENDS
    fatal: int = 1
    swallow: int = 1
    shield: int = 1
    cleanup: int = 4
    cleanup_raises: int = 1
    leave: int = 1
    """A body leaves cancel scopes open."""
    timeout: int = 2
    odd_call: int = 1
    turn_timeout: int = 2
    patient: int = 3
    host: int = 2
    """The block cancels its turn, or raises."""
    caller: tuple[str, ...] = ("nothing", "scope", "move_on_after", "fail_after")
    limits: tuple[str | None, ...] = ()
    """The groups that calls may count in; not empty, it makes every limiter small."""


class _Source:
    def __init__(self, draw: st.DrawFn, odds: Odds) -> None:
        self.draw, self.odds = draw, odds
        self._prints = itertools.cycle(_FINGERPRINTS)

    def span(self, most: int = 40) -> float:
        return self.draw(st.integers(1, most)) * UNIT + next(self._prints) * 2.0**-26

    def chance(self, eighths: int) -> bool:
        return eighths > 0 and self.draw(st.integers(0, 7)) >= 8 - eighths

    def one_of(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def turn(self, depth: int) -> TurnPlan:
        odds = self.odds
        ops: list[Op] = []
        fewest = 1 if depth or odds.tasks else 0
        for _ in range(self.draw(st.integers(fewest, odds.calls if not depth else 2))):
            ops.append(Submit(self.call(depth)))
            if self.chance(2):
                ops += self.pause()
        if self.chance(odds.host):
            if self.chance(6):
                ops += self.pause()
            if self.chance(4):
                ops.append(Fail())
            else:
                ops.append(Cancel())
                if self.chance(4):
                    ops += self.pause()
                if self.chance(4):
                    ops.append(Submit(self.call(depth)))
        return TurnPlan(
            ops=tuple(ops),
            timeout=self.span(60) if self.chance(odds.turn_timeout) else None,
            by_deadline=self.chance(4),
            patient=depth > 0 and self.chance(odds.patient),
        )

    def pause(self) -> list[Op]:
        # After a shielded pause an unshielded one, which takes the cancellation that may be due:
        # what else the block did in that instant would be a tie.
        if self.chance(self.odds.shield):
            return [Pause(self.span(20), shield=True), Pause(self.span(4))]
        return [Pause(self.span(20))]

    def call(self, depth: int) -> CallPlan:
        odds = self.odds
        asked_for = "well"
        if self.chance(odds.odd_call):
            asked_for = self.one_of("unknown tool", "bad arguments")
        body = self.body(depth)
        fatal = body.end in ("return", *ORDINARY, "group of one") and self.chance(odds.fatal)
        if fatal or body.end == "KeyboardInterrupt":
            # In one instant with its own start its siblings might start or not: that is a tie.
            body = attrs.evolve(body, steps=(Sleep(self.span()), *body.steps))
        idle = any(isinstance(step, Beat) for step in body.steps) or self.chance(odds.timeout)
        return CallPlan(
            body=body,
            timeout=self.span(60) if self.chance(odds.timeout) else None,
            idle_timeout=self.span(30) if idle and odds.timeout else None,
            limit=self.one_of(*odds.limits) if odds.limits else None,
            fatal=fatal,
            asked_for=asked_for,
        )

    def body(self, depth: int) -> Body:
        odds = self.odds
        steps: list[Step] = []
        for _ in range(self.draw(st.integers(odds.steps, 3))):
            if depth < odds.depth and self.chance(odds.nest):
                if steps and isinstance(steps[-1], Sleep) and steps[-1].shield:
                    steps.append(Sleep(self.span(4)))  # as in `pause`
                steps.append(Nest(self.turn(depth + 1)))
            elif self.chance(odds.tasks):
                steps.append(self.tasks(depth))
            elif odds.timeout and self.chance(1):
                steps.append(Beat(progress=self.chance(4)))
            else:
                steps.append(self.sleep())
        end: End = "return"
        if self.chance(odds.fail):
            end = self.one_of(*odds.ends)
        cleanup = [self.span(24) for _ in range(self.draw(st.integers(0, 2)))]
        return Body(
            steps=tuple(steps),
            end=end,
            cleanup=tuple(cleanup) if self.chance(odds.cleanup) else (),
            cleanup_raises=self.chance(odds.cleanup_raises),
            cleanup_in_group=self.chance(4),
            leaves=self.one_of(1, 2) if self.chance(odds.leave) else 0,
        )

    def tasks(self, depth: int) -> Tasks:
        how = self.one_of(*SEVERAL, *ONE)
        number = self.draw(st.integers(1, 3)) if how in SEVERAL else 1
        return Tasks(how, tuple(self.task(depth, plain=how in PLAIN) for _ in range(number)))

    def task(self, depth: int, *, plain: bool) -> Body:
        odds = self.odds
        # What a task does first is to wait, long: one that is interrupted before its first step
        # takes none, and those that end by themselves show less.
        if plain:
            steps: tuple[Step, ...] = (Sleep(self.span(120)),)
        else:
            steps = (self.sleep(120, patience=3),)
            if depth < odds.depth and self.chance(odds.nest):
                steps += (Nest(self.turn(depth + 1)),)
            elif depth < odds.depth and self.chance(odds.tasks // 2):
                steps += (self.tasks(depth + 1),)
        fails = not plain and self.chance(odds.fail)
        cleanup = [self.span(12) for _ in range(self.draw(st.integers(1, 2)))]
        return Body(
            steps=steps,
            end=self.one_of(*ORDINARY, "cancellation") if fails else "return",
            cleanup=tuple(cleanup) if self.chance(odds.cleanup) else (),
            cleanup_raises=not plain and self.chance(odds.cleanup_raises),
        )

    def sleep(self, most: int = 40, patience: float = math.inf) -> Sleep:
        if self.chance(self.odds.shield):
            return Sleep(self.span(20), shield=True)
        if self.chance(self.odds.swallow):
            swallows = self.one_of(1, 2, 3, patience)
            return Sleep(self.span(most), swallows=swallows, again=self.chance(4))
        return Sleep(self.span(most))

    def caller(self) -> Caller:
        how = self.one_of(*self.odds.caller)
        if how == "nothing":
            return Caller()
        again = ()
        if how == "native":
            again = tuple(self.span(8) for _ in range(self.draw(st.integers(0, 2))))
        return Caller(how, self.span(60), again)

    def plan(self) -> Plan:
        return Plan(
            turn=self.turn(0),
            caller=self.caller(),
            grace=self.span(24),
            patience=256 * UNIT + self.span(24),
            calls=self.draw(st.integers(1, 3)) if self.odds.limits else math.inf,
            groups=(
                ("db", self.draw(st.integers(1, 2)) if self.odds.limits else math.inf),
                ("web", self.draw(st.integers(1, 3)) if self.odds.limits else math.inf),
            ),
        )


@st.composite
def plans(draw: st.DrawFn, **odds: Any) -> Plan:
    """Plans within the given `Odds`."""
    return _Source(draw, Odds(**odds)).plan()


QUIET: dict[str, Any] = {
    "fail": 0,
    "fatal": 0,
    "swallow": 0,
    "shield": 0,
    "cleanup_raises": 0,
    "timeout": 0,
    "odd_call": 0,
    "turn_timeout": 0,
    "host": 0,
    "patient": 0,
    "caller": ("nothing",),
}
"""The odds of plans to which nothing happens."""


def share(part: float) -> settings:
    """That part of the examples of the profile in use: laws with slower examples take fewer."""
    return settings(max_examples=max(2, round(settings().max_examples * part)))


def foretold(plan: Plan) -> Story:
    """What the model expects of *plan*; a plan with ties is no example."""
    try:
        return expected(plan)
    except Tie:
        assume(False)
        raise


def shields_itself(plan: Plan) -> bool:
    """Whether any body of *plan* has a section that nobody can interrupt."""
    bodies = [call.body for _, call in every_call(plan.turn)]
    return any(isinstance(s, Sleep) and s.shield for body in bodies for s in body.steps)
