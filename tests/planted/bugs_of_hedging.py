"""Broken kernels whose mistake is in what two bodies of a call are to one another.

Above: the test that tries them. Below: `bugs`, which keeps them, and the laws.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.properties.hedges import hedges
from tests.properties.test_hedging import (
    both_bodies_count,
    losers_end_in_time,
    nesting_in_two_bodies_cannot_deadlock,
    no_body_outlives_its_call,
    no_error_of_two_is_lost,
    one_outcome_of_two,
    two_bodies_go_as_foretold,
)
from turnscope import _hedging, _leg
from turnscope._limits import Ticket

from .bugs import planted

Race = _hedging.Race


@planted(no_body_outlives_its_call, hedges(ends=True))
def the_loser_survives_its_call(patch: pytest.MonkeyPatch) -> None:
    decide = Race.decide

    def decided(self: Any) -> None:
        decide(self)
        self.over.set()

    patch.setattr(Race, "decide", decided)


@planted(losers_end_in_time, hedges(ends=True))
def the_loser_is_not_interrupted(patch: pytest.MonkeyPatch) -> None:
    withdraw = _leg.Leg.withdraw

    def withdrawn(self: Any) -> None:
        if self.waits or self._of.told:
            withdraw(self)

    patch.setattr(_leg.Leg, "withdraw", withdrawn)


@planted(both_bodies_count, hedges(ends=True))
def the_second_body_takes_no_slot(patch: pytest.MonkeyPatch) -> None:
    take = Race._take

    def taken(self: Any, turn: Any, leg: Any) -> None:
        if self._legs:
            leg.ticket = Ticket((), leg, nested=False)
        take(self, turn, leg)

    patch.setattr(Race, "_take", taken)


@planted(two_bodies_go_as_foretold, hedges())
def the_second_body_comes_ahead_of_those_who_wait(patch: pytest.MonkeyPatch) -> None:
    take = Race._take

    def taken(self: Any, turn: Any, leg: Any) -> None:
        leg.ticket.returning = bool(self._legs)
        take(self, turn, leg)

    patch.setattr(Race, "_take", taken)


@planted(two_bodies_go_as_foretold, hedges())
def a_second_body_that_waits_is_begun_for_a_call_that_is_decided(
    patch: pytest.MonkeyPatch,
) -> None:
    withdraw = _leg.Leg.withdraw

    def withdrawn(self: Any) -> None:
        if not self.waits or self._of.told:
            withdraw(self)

    patch.setattr(_leg.Leg, "withdraw", withdrawn)


@planted(two_bodies_go_as_foretold, hedges())
def the_failure_of_one_decides_over_the_other(patch: pytest.MonkeyPatch) -> None:
    open_after = Race._open_after

    def never(self: Any, leg: Any, result: Any) -> bool:
        open_after(self, leg, result)
        return False

    patch.setattr(Race, "_open_after", never)


@planted(one_outcome_of_two, hedges(ends=True))
def the_interrupt_of_the_loser_is_taken_for_the_calls(patch: pytest.MonkeyPatch) -> None:
    withdraw = _leg.Leg.withdraw

    def withdrawn(self: Any) -> None:
        withdraw(self)
        if self.withdrawn is not None and not self.waits and not self._of.told:
            self._race._tries.won = False
            self._of.told, self._of.cause = True, self.withdrawn

    patch.setattr(_leg.Leg, "withdraw", withdrawn)


@planted(one_outcome_of_two, hedges(ends=True))
def a_value_is_late_because_the_loser_was_slow(patch: pytest.MonkeyPatch) -> None:
    open_after = Race._open_after

    def forgotten(self: Any, leg: Any, result: Any) -> bool:
        is_open = open_after(self, leg, result)
        self._tries.won = False
        return is_open

    patch.setattr(Race, "_open_after", forgotten)


@planted(no_error_of_two_is_lost, hedges(ends=True))
def what_the_loser_raised_is_lost(patch: pytest.MonkeyPatch) -> None:
    closed = Race._closed

    def forgotten(self: Any, stopped: Any) -> Any:
        try:
            return closed(self, stopped)
        finally:
            self._tries.failures.clear()

    patch.setattr(Race, "_closed", forgotten)


@planted(nesting_in_two_bodies_cannot_deadlock, hedges(nests=True))
def a_second_body_returns_from_what_it_nests_without_its_slots(patch: pytest.MonkeyPatch) -> None:
    unhost = _leg.Leg.unhost

    async def unhosted(self: Any, nested: Any) -> Any:
        if self.number == 1:
            return await unhost(self, nested)
        self._parking.turns.remove(nested)
        return None

    patch.setattr(_leg.Leg, "unhost", unhosted)
