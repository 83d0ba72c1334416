"""Turns as data: what the caller does, what each body does, and what happens to them from outside.

A plan is performed twice, by one interpreter (`perform`): by the kernel, in `machine`, and by a
small sequential model, in `model`. It holds no function and no clock. Spans are in seconds.
Above: `generate`, which draws plans; the laws. Below: nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, TypeAlias

import attrs

End: TypeAlias = Literal[
    "return",
    "ValueError",
    "TimeoutError",
    "SystemExit",
    "GeneratorExit",
    "KeyboardInterrupt",
    "cancellation",  # raises the event loop's own cancellation class, unasked
    "group of one",
    "group of two",
    "group in a group",
    "task group",  # a child of a task group of its own fails
]


How: TypeAlias = Literal[
    "task",
    "task in a task",
    "gather",  # return_exceptions=True, so that it waits for all; then the first is raised
    "gather in a gather",
    "TaskGroup",
    "wait_for",
    "shield",  # and if it is interrupted, awaited all the same
]


@attrs.frozen
class Sleep:
    """Sleep, and perhaps swallow cancellations: begin again after each, or do with the first."""

    span: float
    shield: bool = False
    swallows: float = 0
    again: bool = True


@attrs.frozen
class Beat:
    """A heartbeat, or progress, which is one too."""

    progress: bool = False


@attrs.frozen
class Nest:
    """Open a turn of its own, and wait for it."""

    turn: TurnPlan


@attrs.frozen
class Tasks:
    """Have tasks of its own do what these bodies say, and await them; on asyncio alone."""

    how: How
    bodies: tuple[Body, ...]


Step: TypeAlias = Sleep | Beat | Nest | Tasks


@attrs.frozen
class Body:
    """``try: steps; end; finally: sleep through the cleanup; perhaps raise``."""

    steps: tuple[Step, ...] = ()
    end: End = "return"
    cleanup: tuple[float, ...] = ()
    cleanup_raises: bool = False
    cleanup_in_group: bool = False
    """The cleanup's failure is that of a child of a task group."""
    leaves: int = 0
    """How many cancel scopes it enters before its first step, and never leaves."""


@attrs.frozen(kw_only=True)
class CallPlan:
    body: Body = Body()
    timeout: float | None = None
    idle_timeout: float | None = None
    limit: str | None = None
    fatal: bool = False
    """``on_error="raise"``."""
    asked_for: Literal["well", "unknown tool", "bad arguments"] = "well"


@attrs.frozen
class Submit:
    call: CallPlan


@attrs.frozen
class Pause:
    span: float
    shield: bool = False


@attrs.frozen
class Cancel:
    """``turn.cancel()``."""


@attrs.frozen
class Fail:
    """The block of the turn raises."""


Op: TypeAlias = Submit | Pause | Cancel | Fail


@attrs.frozen
class TurnPlan:
    """One turn: what its block does, then what bounds it."""

    ops: tuple[Op, ...]
    timeout: float | None = None
    by_deadline: bool = False
    """The timeout is given as a clock value."""
    patient: bool = False
    """It is opened in a second kernel, whose grace is longer."""

    def calls(self) -> Iterator[CallPlan]:
        """The calls of this turn, in call order."""
        return (op.call for op in self.ops if isinstance(op, Submit))


@attrs.frozen
class Caller:
    """What happens to the task that opens the outermost turn, and when."""

    how: Literal[
        "nothing",
        "scope",
        "move_on_after",
        "fail_after",
        "native",  # Task.cancel(), on asyncio
        "asyncio.timeout",
        "Ctrl-C",  # on trio, where it may come at any await of the main task
    ] = "nothing"
    after: float = math.inf
    again: tuple[float, ...] = ()
    """Spans to further native cancels."""


@attrs.frozen(kw_only=True)
class Plan:
    turn: TurnPlan
    caller: Caller = Caller()
    grace: float = 0.25
    patience: float = 4.0
    """The grace of the second kernel."""
    calls: float = math.inf
    groups: tuple[tuple[str, float], ...] = ()


def every_call(turn: TurnPlan, prefix: str = "") -> Iterator[tuple[str, CallPlan]]:
    """All calls of *turn*, nested ones included, with the places by which stories name them."""
    for index, call in enumerate(turn.calls()):
        place = f"{prefix}{index}"
        yield place, call
        yield from _nested_in(call.body, place)


def _nested_in(body: Body, place: str) -> Iterator[tuple[str, CallPlan]]:
    turns = tasks = 0
    for step in body.steps:
        if isinstance(step, Nest):
            yield from every_call(step.turn, f"{place}/{turns}:")
            turns += 1
        elif isinstance(step, Tasks):
            for each in step.bodies:
                yield from _nested_in(each, f"{place}.{tasks}")
                tasks += 1
