"""Broken kernels that start calls too early, or keep of them what does not count; as in `bugs`.

Above: the test that tries them. Below: `bugs`, which keeps them, and the law.
"""

from __future__ import annotations

from heapq import heapify
from typing import Any

import attrs
import pytest

from tests.properties.streams import FREE, scripts
from tests.properties.test_early_start import cut_short, same_history
from turnscope import _assemble, _attempt, _early, _supervisor
from turnscope._early import Early

from .bugs import planted


@planted(same_history, scripts())
def a_call_starts_before_an_earlier_one_is_sealed(patch: pytest.MonkeyPatch) -> None:
    def whole(self: Any, taken: Any) -> list[Any]:
        sealed = [index for index in sorted(self._begun) if self._calls[index].sealed]
        self._begun = [index for index in self._begun if index not in sealed]
        heapify(self._begun)
        return [self._make(index, taken) for index in sealed]

    patch.setattr(_assemble.Assembler, "whole", whole)


@planted(same_history, scripts())
def a_call_starts_before_its_own_seal(patch: pytest.MonkeyPatch) -> None:
    grow = _assemble.Assembler._grow

    def sealing(self: Any, delta: Any) -> None:
        grow(self, delta)
        self._calls[delta.index].sealed = "}" in delta.arguments

    patch.setattr(_assemble.Assembler, "_grow", sealing)


@planted(same_history, scripts())
def a_tool_that_writes_starts_early(patch: pytest.MonkeyPatch) -> None:
    take = Early._take

    def at_once(self: Any, call: Any) -> None:
        take(self, call)
        attempt = self._taken[-1]
        if attempt is not None and not attempt.ready:
            self._let_go(attempt)

    patch.setattr(Early, "_take", at_once)


@planted(same_history, scripts())
def a_call_that_started_early_counts_after_a_refusal(patch: pytest.MonkeyPatch) -> None:
    finish = _assemble.Assembler.finish

    def stand_by_them(self: Any, taken: Any) -> Any:
        response, made = finish(self, taken), tuple(self._made)
        if response.reason not in _assemble.REFUSED:
            return response
        message = attrs.evolve(response.message, calls=made)
        return attrs.evolve(response, calls=made, message=message)

    patch.setattr(_assemble.Assembler, "finish", stand_by_them)


@planted(same_history, scripts())
def a_call_that_started_early_runs_again(patch: pytest.MonkeyPatch) -> None:
    count = Early.count

    def anew(self: Any, call: Any) -> bool:
        attempt = next((a for a in self._taken if a and a.call is call), None)
        if attempt is not None and attempt.ready:
            self._taken[attempt.index] = self._made(attempt.index, call)
        return count(self, call)

    patch.setattr(Early, "count", anew)


@planted(same_history, scripts())
def a_call_that_started_early_outlives_its_response(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Early, "drop", lambda self, cause: None)


@planted(cut_short, scripts(hit=True))
def a_call_is_not_discarded_when_its_run_is_ended(patch: pytest.MonkeyPatch) -> None:
    drop = Early.drop

    def unless_asked(self: Any, cause: Any) -> None:
        if not self._turn.asked:
            drop(self, cause)

    patch.setattr(Early, "drop", unless_asked)


@planted(same_history, scripts(budget=1))
def a_call_that_started_early_counts_beyond_the_budget(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Early, "refuse", lambda self, call, status, error: self.count(call))


@planted(same_history, scripts(retried=True, **FREE))
def a_result_is_used_for_other_arguments(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_early, "_plain", lambda call: call.name)


@planted(same_history, scripts(retried=True, **FREE))
def another_attempt_begins_beside_the_calls_of_the_one_before(patch: pytest.MonkeyPatch) -> None:
    async def joined(self: Any) -> None: ...

    patch.setattr(Early, "joined", joined)


@planted(same_history, scripts(shared=True))
def a_call_that_is_held_has_no_place_in_the_queues(patch: pytest.MonkeyPatch) -> None:
    hold, let_go = _supervisor.Supervisor.hold, _supervisor.Supervisor.let_go

    def without_place(self: Any, attempt: Any) -> None:
        self._unsettled[attempt] = None

    def line_up(self: Any, attempt: Any, *, leads: bool = False) -> None:
        hold(self, attempt)
        let_go(self, attempt, leads=leads)

    patch.setattr(_supervisor.Supervisor, "hold", without_place)
    patch.setattr(_supervisor.Supervisor, "let_go", line_up)


@planted(same_history, scripts(shared=True))
def a_call_that_is_held_starts_when_its_keys_are_free(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_early.Sealed, "granted", _attempt.Attempt.granted)


@planted(same_history, scripts(shared=True, retried=True, **FREE))
def a_result_is_used_ahead_of_what_changes_it(patch: pytest.MonkeyPatch) -> None:
    known = Early._known

    def anyhow(self: Any, attempt: Any) -> Any:
        claim, attempt.claim = attempt.claim, None
        try:
            return known(self, attempt)
        finally:
            attempt.claim = claim

    patch.setattr(Early, "_known", anyhow)


@planted(same_history, scripts(shared=True))
def a_call_that_is_dropped_keeps_its_keys(patch: pytest.MonkeyPatch) -> None:
    def leave(self: Any) -> None:
        self.turn = None
        self.ticket.drop()

    patch.setattr(_early.Sealed, "_leave", leave)
