"""Broken plans; as in `bugs`, each with the property that finds it.

Above: the test that tries them. Below: `bugs`, which keeps them, and the properties of plans.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from tests.properties.graphs import graphs
from tests.properties.test_plans_in_one_turn import (
    WIRED,
    as_soon_as_can_be,
    circles_are_told,
    each_settles_once,
    failures_reach_descendants_only,
    given_as_data,
    needs_come_first_and_limits_hold,
)
from turnscope import ToolCall, _plan, _plan_tool, _plan_turn

from .bugs import planted

GOOD = ("ok",)


@planted(as_soon_as_can_be, graphs(hows=GOOD))
def a_barrier_between_levels(patch: pytest.MonkeyPatch) -> None:
    following = _plan.Order.next
    held: dict[int, tuple[set[str], list[Any]]] = {}

    def next_level(self: Any, name: str, *, ok: bool) -> list[Any]:
        level, come = held.setdefault(id(self), ({step.id for step in self.first}, []))
        come += following(self, name, ok=ok)
        level.discard(name)
        if level:
            return []
        held[id(self)] = ({step.id for step in come}, [])
        return come

    patch.setattr(_plan_tool.Order, "next", next_level)


@planted(given_as_data, graphs(hows=GOOD))
def what_was_filled_in_is_filled_in_again(patch: pytest.MonkeyPatch) -> None:
    once = _plan.filled
    patch.setattr(_plan_tool, "filled", lambda given, data: once(once(given, data), data))


@planted(given_as_data, graphs(hows=GOOD))
def a_reference_becomes_text(patch: pytest.MonkeyPatch) -> None:
    pointed = _plan._pointed
    patch.setattr(_plan, "_pointed", lambda reference, data: str(pointed(reference, data)))


@planted(given_as_data, graphs(hows=GOOD))
def a_literal_is_looked_into(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_plan, "LITERAL", "never")


@planted(failures_reach_descendants_only, graphs())
def what_needs_a_failed_step_runs(patch: pytest.MonkeyPatch) -> None:
    refuse = _plan_turn.PlanTurn.refuse

    def begin(self: Any, step: Any, status: Any, error: Any) -> int:
        if status != "not_started":
            return refuse(self, step, status, error)
        index: int = self.submit(ToolCall(step.id, step.tool, step.arguments))
        return index

    patch.setattr(_plan_turn.PlanTurn, "refuse", begin)


@planted(failures_reach_descendants_only, graphs())
def a_failed_step_ends_the_plan(patch: pytest.MonkeyPatch) -> None:
    commit = _plan_turn.Told.commit

    def committed(self: Any, index: int, result: Any) -> None:
        commit(self, index, result)
        if not result.ok:
            self.ask(self.cause)

    patch.setattr(_plan_turn.Told, "commit", committed)


@planted(each_settles_once, graphs())
def a_step_runs_twice(patch: pytest.MonkeyPatch) -> None:
    begin = _plan_turn.PlanTurn.begin

    def twice(self: Any, step: Any, call: ToolCall) -> int:
        self.submit(call)
        return begin(self, step, call)

    patch.setattr(_plan_turn.PlanTurn, "begin", twice)


@planted(each_settles_once, graphs())
def a_step_that_waits_for_two_comes_twice(patch: pytest.MonkeyPatch) -> None:
    def following(self: Any, name: str, *, ok: bool) -> list[Any]:
        return list(self._after.get(name, ()))

    patch.setattr(_plan_tool.Order, "next", following)


@planted(needs_come_first_and_limits_hold, graphs(hows=GOOD, calls=st.just(3.0)))
def after_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    read = _plan._step

    def step(number: int, written: Any, known: Any, problems: Any) -> Any:
        return read(number, {**written, "after": ()}, known, problems)

    patch.setattr(_plan, "_step", step)


@planted(circles_are_told, WIRED)
def a_circle_is_not_refused(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_plan, "_circle", lambda steps: [])


@planted(as_soon_as_can_be, graphs())
def what_settles_without_a_body_is_not_heard_of(patch: pytest.MonkeyPatch) -> None:
    told, plain = _plan_turn.Told.commit, _plan_turn.Supervisor.commit

    def committed(self: Any, index: int, result: Any) -> None:
        (plain if result.started_at is None else told)(self, index, result)

    patch.setattr(_plan_turn.Told, "commit", committed)
