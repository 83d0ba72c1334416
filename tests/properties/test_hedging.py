"""A call with two bodies is one call: one outcome, two slots, and nothing of the loser is left."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given

from tests.support import Loop

from .generate import share
from .hedges import GRACE, Did, Hedges, as_foretold, hedges, performed
from .test_l10_no_lost_errors import everything_in


def ends_of(plan: Hedges, did: Did) -> list[float]:
    """When something ends each call: its timeout, the cancel, the deadline."""
    asked = min(plan.cancel, plan.deadline)
    began = {body.call: body.began for body in did.bodies if body.number == 1}
    return [
        min(asked, began.get(index, math.inf) + call.timeout)
        for index, call in enumerate(plan.calls)
    ]


def one_outcome_of_two(plan: Hedges, loop: Loop) -> None:
    """The first to return in time decides, whatever comes of the other, and nobody else does."""
    did = performed(plan, loop)
    bodies = Counter((body.call, body.number) for body in did.bodies)
    assert set(bodies.values()) <= {1}
    for index, (result, end) in enumerate(zip(did.results, ends_of(plan, did), strict=True)):
        assert result.call.id == f"c{index}"
        assert did.told["CallSettled", index] == 1
        assert did.told["CallStarted", index] == bodies[index, 1] == (result.started_at is not None)
        assert did.told["CallHedged", index] == bodies[index, 2]
        in_time = [number for when, number in did.returned.get(index, []) if when < end]
        if in_time:
            assert (result.status, result.value) == ("ok", in_time[0])
        else:
            assert not result.ok
        if not bodies[index, 1]:
            assert result.status == "not_started"
        elif end == math.inf and not in_time:
            assert result.status == "failed"


def no_body_outlives_its_call(plan: Hedges, loop: Loop) -> None:
    did = performed(plan, loop)
    for body in did.bodies:
        assert body.ended <= did.settled[body.call], f"{body} ended after its call had settled"


def losers_end_in_time(plan: Hedges, loop: Loop) -> None:
    """A body ends as soon as it is clean after the other has won, or after the end of the call."""
    did = performed(plan, loop)
    for body in did.bodies:
        end = ends_of(plan, did)[body.call]
        wins = [when for when, number in did.returned.get(body.call, []) if number != body.number]
        end = min([end, *wins])
        assert body.began <= end, f"{body} began after {end}"
        if body.ended > end:
            cleanup = plan.calls[body.call].cleanups[body.number - 1]
            assert body.ended == end + cleanup <= end + GRACE, f"{body}, to end at {end}"


def both_bodies_count(plan: Hedges, loop: Loop) -> None:
    did = performed(plan, loop)
    assert did.most <= plan.slots, f"{did.most} bodies were at work where {plan.slots} may be"


def no_error_of_two_is_lost(plan: Hedges, loop: Loop) -> None:
    did = performed(plan, loop)
    for index, result in enumerate(did.results):
        reachable = {
            id(e) for each in (result.error, *result.failures) for e in everything_in(each)
        }
        for raised in did.raised.get(index, []):
            assert id(raised) in reachable, f"{raised!r} of call {index} is lost: {result}"


def two_bodies_go_as_foretold(plan: Hedges, loop: Loop) -> None:
    """Begins, ends, order in the queue and who wins: all as a small sequential model has it."""
    as_foretold(plan, loop)


@given(plan=hedges())
def test_two_bodies_go_as_foretold(plan: Hedges, virtual_loop: Loop) -> None:
    two_bodies_go_as_foretold(plan, virtual_loop)


@given(plan=hedges(ends=True))
def test_a_call_with_two_bodies_has_one_outcome(plan: Hedges, virtual_loop: Loop) -> None:
    one_outcome_of_two(plan, virtual_loop)


@share(0.6)
@given(plan=hedges(ends=True))
def test_no_body_outlives_its_call(plan: Hedges, virtual_loop: Loop) -> None:
    no_body_outlives_its_call(plan, virtual_loop)


@share(0.6)
@given(plan=hedges(ends=True))
def test_losers_end_as_soon_as_they_are_clean(plan: Hedges, virtual_loop: Loop) -> None:
    losers_end_in_time(plan, virtual_loop)


def nesting_in_two_bodies_cannot_deadlock(plan: Hedges, loop: Loop) -> None:
    """However few slots there are: each body lends its own to what it nests, and comes back."""
    did = performed(plan, loop)
    assert did.most <= plan.slots, f"{did.most} bodies were at work where {plan.slots} may be"
    for index, result in enumerate(did.results):
        returned = did.returned.get(index, [])
        expected = ("ok", returned[0][1]) if returned else ("failed", None)
        assert (result.status, result.value) == expected


@share(0.6)
@given(plan=hedges(nests=True))
def test_nesting_in_two_bodies_cannot_deadlock(plan: Hedges, virtual_loop: Loop) -> None:
    nesting_in_two_bodies_cannot_deadlock(plan, virtual_loop)


@share(0.6)
@given(plan=hedges(ends=True, nests=True))
def test_limits_count_both_bodies_and_what_they_nest(plan: Hedges, virtual_loop: Loop) -> None:
    both_bodies_count(plan, virtual_loop)


@share(0.6)
@given(plan=hedges(ends=True, nests=True))
def test_two_bodies_that_nest_have_one_outcome(plan: Hedges, virtual_loop: Loop) -> None:
    one_outcome_of_two(plan, virtual_loop)


@share(0.6)
@given(plan=hedges(ends=True))
def test_limits_count_both_bodies(plan: Hedges, virtual_loop: Loop) -> None:
    both_bodies_count(plan, virtual_loop)


@share(0.6)
@given(plan=hedges(ends=True))
def test_no_error_of_two_bodies_is_lost(plan: Hedges, virtual_loop: Loop) -> None:
    no_error_of_two_is_lost(plan, virtual_loop)
