"""What happened, told alike by the machine and by the model, so that the two can be compared.

Instants are seconds since the caller began. Every span of a plan is a whole number of 2**-26
seconds, so clocks add them without rounding, and instants are compared with ``==``.
"""

from __future__ import annotations

import math
from typing import Any

import attrs


@attrs.define
class CallStory:
    status: str = "missing"
    value: Any = None
    started: float | None = None
    ended: float | None = None
    deadline: float | None = None
    """`CallContext.deadline`, as read when the body began."""
    notes: list[tuple[str, float]] = attrs.Factory(list)
    """What the body itself noted, and when: start, interrupt, cleaned, end."""

    def note(self, what: str, when: float) -> None:
        """Note it, once for each instant: a swallower sees a hundred enforcements in one."""
        if (what, when) not in self.notes:
            self.notes.append((what, when))

    def at(self, what: str) -> float | None:
        """When *what* was first noted, or None."""
        return next((when for other, when in self.notes if other == what), None)


@attrs.define
class Story:
    calls: dict[str, CallStory] = attrs.Factory(dict)
    tasks: dict[str, CallStory] = attrs.Factory(dict)
    """What was noted in the tasks that a body awaited: of ``0``, they are ``0.0``, ``0.1``, ..."""
    left: dict[str, float] = attrs.Factory(dict)
    """When the block of each turn was left; the outermost turn has the place ""."""
    raised: str | None = None
    """What left the outermost turn's block: the name of a failure, "cancelled", or None."""
    margin: float = math.inf
    """The model alone tells this: by how many seconds the closest of all races was decided."""

    def call(self, place: str) -> CallStory:
        return self.calls.setdefault(place, CallStory())

    def task(self, place: str) -> CallStory:
        return self.tasks.setdefault(place, CallStory())


def differences(told: Story, expected: Story) -> list[str]:
    """How *told* differs from *expected*, one line each."""
    lines = []
    if told.raised != expected.raised:
        lines.append(f"the caller saw {told.raised}, not {expected.raised}")
    for place in sorted(told.left.keys() | expected.left.keys()):
        one, other = told.left.get(place), expected.left.get(place)
        if one != other:
            lines.append(f"turn {place!r} was left at {one}, not {other}")
    for place in sorted(told.calls.keys() | expected.calls.keys()):
        one, other = told.call(place), expected.call(place)
        for field in attrs.fields(CallStory):
            mine, theirs = getattr(one, field.name), getattr(other, field.name)
            if mine != theirs:
                lines.append(f"call {place!r}: {field.name} {mine!r}, not {theirs!r}")
    for place in sorted(told.tasks.keys() | expected.tasks.keys()):
        noted, foretold = told.task(place).notes, expected.task(place).notes
        if noted != foretold:
            lines.append(f"task {place!r}: {noted!r}, not {foretold!r}")
    return lines


def assert_same(told: Story, expected: Story) -> None:
    """Raises AssertionError that lists every difference."""
    lines = differences(told, expected)
    assert not lines, "the kernel and the model differ:\n  " + "\n  ".join(lines)
