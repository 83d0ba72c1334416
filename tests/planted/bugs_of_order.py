"""Broken kernels whose mistake is in the order of calls; as in `bugs`, each with the law that finds it.

Above: the test that tries them. Below: `bugs`, which keeps them, and the law of call order.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from tests.properties.orders import scenes
from tests.properties.test_l6_call_order_serializability import (
    NESTED,
    as_early_as_can_be,
    leaks_keep_their_keys,
    nesting_is_at_the_parents_place,
    nothing_hangs,
    readers_overlap,
    serializable,
    waiting_costs_no_slot,
)
from turnscope import _attempt, _guards, _resources, _routes, _supervisor

from .bugs import REAL, planted

TANGLED = {**NESTED, "covered": False, "undeclared": 0}


def claims_become(patch: pytest.MonkeyPatch, change: Any) -> None:
    """Give *change* the keys that a call reads and writes, before they are claimed."""
    claim = _guards.Guard.claim

    def changed(self: Any, attempt: Any, turn: Any, reads: Any, writes: Any) -> Any:
        return claim(self, attempt, turn, *change(reads, writes))

    patch.setattr(_guards.Guard, "claim", changed)


@planted(serializable, scenes())
def what_is_declared_is_not_read(patch: pytest.MonkeyPatch) -> None:
    claims_become(patch, lambda reads, writes: ([], []))


@planted(serializable, scenes())
def readers_are_not_kept_from_what_is_written(patch: pytest.MonkeyPatch) -> None:
    claims_become(patch, lambda reads, writes: ([], writes))


@planted(as_early_as_can_be, scenes())
def readers_are_exclusive(patch: pytest.MonkeyPatch) -> None:
    claims_become(patch, lambda reads, writes: ([], [*reads, *writes]))


@planted(readers_overlap, st.integers(2, 4), examples=1)
def one_reader_at_a_time(patch: pytest.MonkeyPatch) -> None:
    claims_become(patch, lambda reads, writes: ([], [*reads, *writes]))


@planted(serializable, scenes())
def ancestors_do_not_conflict(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_resources, "places_of", lambda key: (key,))


@planted(as_early_as_can_be, scenes())
def all_keys_are_one(patch: pytest.MonkeyPatch) -> None:
    claims_become(patch, lambda reads, writes: (["x"] * bool(reads), ["x"] * bool(writes)))


@planted(serializable, scenes(batches=1, alone=3))
def a_call_that_runs_alone_does_not(patch: pytest.MonkeyPatch) -> None:
    made = _guards.Guard
    patch.setattr(
        _guards, "Guard", lambda queues, keys, in_turn, alone: made(queues, keys, False, False)
    )


@planted(as_early_as_can_be, scenes(one_by_one=8))
def one_call_at_a_time_is_a_limit_and_no_order(patch: pytest.MonkeyPatch) -> None:
    offer = _routes.Routes._offer
    patch.setattr(
        _routes.Routes, "_offer", lambda self, tools, cap, alone=False: offer(self, tools, cap)
    )


@planted(serializable, scenes())
def a_call_overtakes_those_that_wait(patch: pytest.MonkeyPatch) -> None:
    """As with locks that are taken by whoever comes when they are free."""
    conflicts = _resources.Index.conflicts
    join = _resources.Claim.join

    def overtake(self: Any, asker: Any = None) -> Any:
        with pytest.MonkeyPatch.context() as during:
            held = lambda index, claim: {  # noqa: E731 because it is shorter than its def
                other: None for other in conflicts(index, claim) if other.held
            }
            during.setattr(_resources.Index, "conflicts", held)
            return join(self, asker)

    patch.setattr(_resources.Claim, "join", overtake)


@planted(serializable, scenes(ends=0))
def keys_are_taken_one_after_the_other(patch: pytest.MonkeyPatch) -> None:
    """The second when the first is its own: so it stands behind those that came meanwhile."""
    claim, go_on = _guards.Guard.claim, _supervisor.Supervisor.go_on
    settle = _attempt.Attempt._settle_claim
    more: dict[Any, Any] = {}

    def first(self: Any, attempt: Any, turn: Any, reads: Any, writes: Any) -> Any:
        if reads and writes:
            more[attempt] = claim(self, attempt, turn, [], writes)
            return claim(self, attempt, turn, reads, [])
        return claim(self, attempt, turn, reads, writes)

    def then(attempt: Any) -> bool:
        second = more.get(attempt)
        if second is not None and not second.position:
            second.join()
        return second is None or second.held

    def wait(self: Any, attempt: Any, *, leads: bool = False) -> None:
        if then(attempt):
            go_on(self, attempt, leads=leads)

    def give_back(self: Any, held: Any, *, leaked: bool) -> None:
        second = more.pop(self, None)
        settle(self, held, leaked=leaked)
        if second is not None:
            second.release()

    patch.setattr(_guards.Guard, "claim", first)
    patch.setattr(_supervisor.Supervisor, "go_on", wait)
    patch.setattr(_attempt.Attempt, "_settle_claim", give_back)


@planted(nothing_hangs, scenes(**TANGLED))
def a_circle_of_waiting_is_not_looked_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_resources.Claim, "_refusal", lambda self, ahead, behind, goals: None)


@planted(nothing_hangs, scenes(**TANGLED))
def a_circle_is_looked_for_among_those_that_hold_keys(patch: pytest.MonkeyPatch) -> None:
    refusal = _resources.Claim._refusal

    def look(self: Any, ahead: Any, behind: Any, goals: Any) -> Any:
        with pytest.MonkeyPatch.context() as during:
            during.setattr(_resources.Claim, "blockers", lambda self: [])
            return refusal(self, ahead, behind, goals)

    patch.setattr(_resources.Claim, "_refusal", look)


@planted(nothing_hangs, scenes(**TANGLED))
def a_circle_through_nested_calls_is_not_seen(patch: pytest.MonkeyPatch) -> None:
    join = _resources.Claim.join

    def forgotten(self: Any, asker: Any = None) -> Any:
        refusal = join(self, asker)
        if self.parent is not None:
            self.parent._children = None
        return refusal

    patch.setattr(_resources.Claim, "join", forgotten)


@planted(nesting_is_at_the_parents_place, scenes(**NESTED))
def a_nested_call_stands_at_the_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_resources.Claim, "_place", lambda self: ())


@planted(nesting_is_at_the_parents_place, scenes(**NESTED))
def a_nested_call_conflicts_with_its_parent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_guards, "claim_above", lambda turn: None)


@planted(serializable, scenes(**NESTED, ends=0))
def a_call_that_nests_gives_its_keys_back(patch: pytest.MonkeyPatch) -> None:
    host = _attempt.Attempt.host

    def give_back(self: Any, nested: Any) -> None:
        if self.claim is not None:
            self.claim.release()
        host(self, nested)

    patch.setattr(_attempt.Attempt, "host", give_back)


@planted(as_early_as_can_be, scenes(ends=6))
def a_call_that_is_cancelled_while_it_waits_stays_in_the_queues(patch: pytest.MonkeyPatch) -> None:
    release = _resources.Claim.release
    patch.setattr(_resources.Claim, "release", lambda self: self.held and release(self))


@planted(leaks_keep_their_keys, st.just(1), loop=REAL, examples=1)
def a_leaked_thread_gives_its_keys_back(patch: pytest.MonkeyPatch) -> None:
    settle = _attempt.Attempt._settle_claim
    patch.setattr(
        _attempt.Attempt,
        "_settle_claim",
        lambda self, claim, *, leaked: settle(self, claim, leaked=False),
    )


@planted(waiting_costs_no_slot, st.integers(1, 3), examples=1)
def slots_are_taken_before_keys(patch: pytest.MonkeyPatch) -> None:
    take = _supervisor.Supervisor.take

    def slots_first(self: Any, attempt: Any, *, leads: bool = False) -> None:
        if attempt.claim is not None:
            attempt.ticket.advance()
        take(self, attempt, leads=leads)

    patch.setattr(_supervisor.Supervisor, "take", slots_first)
