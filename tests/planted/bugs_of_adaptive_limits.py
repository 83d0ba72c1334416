"""Broken limits that should find themselves; as in `bugs`, each with the property that finds it.

Above: the test that tries them. Below: `bugs`, which keeps them, and the property.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.properties.test_adaptive_limit import CASES, the_rule_is_followed
from turnscope import _adaptive, _limits, _request

from .bugs import planted


@planted(the_rule_is_followed, CASES)
def each_refusal_of_one_moment_halves_the_limit(patch: pytest.MonkeyPatch) -> None:
    refused = _adaptive.Window.refused
    patch.setattr(_adaptive.Window, "refused", lambda self, epoch: refused(self, self.epoch))


@planted(the_rule_is_followed, CASES)
def answers_from_before_a_refusal_count(patch: pytest.MonkeyPatch) -> None:
    answered = _adaptive.Window.answered

    def always(self: Any, epoch: int, *, in_full: bool) -> None:
        answered(self, self.epoch, in_full=in_full)

    patch.setattr(_adaptive.Window, "answered", always)


@planted(the_rule_is_followed, CASES)
def a_limit_that_nobody_needs_grows(patch: pytest.MonkeyPatch) -> None:
    answered = _adaptive.Window.answered

    def grow(self: Any, epoch: int, *, in_full: bool) -> None:
        answered(self, epoch, in_full=True)

    patch.setattr(_adaptive.Window, "answered", grow)


@planted(the_rule_is_followed, CASES)
def refusals_are_not_heard(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_request, "pushes_back", lambda failure: False)


@planted(the_rule_is_followed, CASES)
def what_comes_back_goes_to_the_next_although_the_limit_was_halved(
    patch: pytest.MonkeyPatch,
) -> None:
    serve = _limits.Limiter._serve

    def serve_one_more(self: Any) -> None:
        self.capacity += 1
        serve(self)
        self.capacity -= 1

    patch.setattr(_limits.Limiter, "_serve", serve_one_more)


@planted(the_rule_is_followed, CASES)
def only_one_who_waits_is_let_in_when_the_limit_has_grown(patch: pytest.MonkeyPatch) -> None:
    def serve_one(self: Any) -> None:
        if self.lent < self.capacity and self._queue:
            ticket, _ = self._queue.popitem(last=False)
            self.lent += 1
            ticket.granted()

    patch.setattr(_limits.Limiter, "_serve", serve_one)
    patch.setattr(
        _limits.Limiter, "follow", lambda self, window: setattr(self, "capacity", window.capacity)
    )
