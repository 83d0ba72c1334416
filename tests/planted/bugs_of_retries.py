"""Broken kernels whose mistake is in what is tried again; each with the law that finds it.

Above: the test that tries them. Below: `bugs`, which keeps them, and the laws.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from tests.properties.retries import retried_talks, trials
from tests.properties.test_l1_one_outcome import tried_again_settles_once
from tests.properties.test_l2_valid_history import histories_know_nothing_of_failed_attempts
from tests.properties.test_l4_bounded_cancel import a_wait_ends_at_once
from tests.properties.test_l5_limits_hold import waits_hold_no_slot
from turnscope import Retry, _attempt, _request, _retrying, _view

from .bugs import planted


@planted(waits_hold_no_slot, trials())
def a_slot_is_kept_while_its_call_waits(patch: pytest.MonkeyPatch) -> None:
    async def take_slots(self: Any, call: Any) -> bool:
        return True

    patch.setattr(_attempt.Attempt, "suspend", _view.View.suspend)
    patch.setattr(_retrying.Tries, "take_slots", take_slots)


@planted(waits_hold_no_slot, trials())
def another_attempt_comes_ahead_of_those_who_wait(patch: pytest.MonkeyPatch) -> None:
    def again(call: Any, holder: Any) -> Any:
        call.ticket.returning = True
        call.ticket._holder = holder
        return call.ticket

    patch.setattr(_attempt.Attempt, "ticket_for", again)


@planted(waits_hold_no_slot, trials())
def another_attempt_takes_no_slot(patch: pytest.MonkeyPatch) -> None:
    async def take_slots(self: Any, call: Any) -> bool:
        return True

    patch.setattr(_retrying.Tries, "take_slots", take_slots)


@planted(waits_hold_no_slot, trials())
def the_waits_do_not_grow(patch: pytest.MonkeyPatch) -> None:
    seconds = _retrying.seconds_before_next
    patch.setattr(
        _retrying, "seconds_before_next", lambda retry, _, after: seconds(retry, 1, after)
    )


def _tries_again_when_told(patch: pytest.MonkeyPatch) -> None:
    delay = _retrying._delay

    def any_failure(call: Any, retry: Retry, exc: Any) -> float | None:
        if not call.told or call.attempt >= retry.attempts:
            return delay(call, retry, exc)
        call.tries = call.tries or _retrying.Tries()
        call.tries.failures.append(exc)
        call.tries.count += 1
        return 0.0

    patch.setattr(_retrying, "_delay", any_failure)


@planted(a_wait_ends_at_once, trials(ends=True))
def a_cancelled_call_is_tried_again(patch: pytest.MonkeyPatch) -> None:
    _tries_again_when_told(patch)


@planted(tried_again_settles_once, trials(ends=True))
def an_interrupt_counts_as_a_failure(patch: pytest.MonkeyPatch) -> None:
    _tries_again_when_told(patch)


def _waits_with(patch: pytest.MonkeyPatch, sleep: Callable[[float], Awaitable[None]]) -> None:
    """Have what is tried again, and nothing else, wait with *sleep*."""
    forever = anyio.sleep_forever
    ours = SimpleNamespace(Event=anyio.Event, sleep=sleep, sleep_forever=forever)
    patch.setattr(_retrying, "anyio", ours)


@planted(a_wait_ends_at_once, trials(ends=True))
def an_ask_does_not_end_the_wait(patch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(seconds)

    _waits_with(patch, sleep)


@planted(a_wait_ends_at_once, trials(ends=True))
def an_attempt_begins_after_the_ask(patch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        try:
            await anyio.sleep(seconds)
        except anyio.get_cancelled_exc_class():
            ...

    _waits_with(patch, sleep)
    patch.setattr(_attempt.Attempt, "is_over", lambda self: False)


@planted(a_wait_ends_at_once, trials(ends=True))
def the_total_is_ignored(patch: pytest.MonkeyPatch) -> None:
    def timeout_deadline(self: Any) -> float:
        timeout = self.tool.timeout
        return float("inf") if timeout is None else self.started_at + timeout

    patch.setattr(_view.View, "timeout_deadline", timeout_deadline)


@planted(a_wait_ends_at_once, trials(ends=True))
def each_attempt_has_a_timeout_of_its_own(patch: pytest.MonkeyPatch) -> None:
    once = _attempt.Attempt.once

    def anew(self: Any) -> Any:
        if self.own is not None and not self.own.cancel_called:
            self.own.deadline = self.facts.loop.now() + self.tool.longest
        return once(self)

    patch.setattr(_attempt.Attempt, "once", anew)


@planted(tried_again_settles_once, trials())
def a_tool_that_may_not_run_twice_is_tried_again(patch: pytest.MonkeyPatch) -> None:
    begin = _attempt.Attempt.begin

    def begins(self: Any, turn: Any) -> Any:
        if self.tool.retry is None:
            begin(self, turn).close()
            return _retrying.retried(self, Retry(jitter=0))
        return begin(self, turn)

    patch.setattr(_attempt.Attempt, "begin", begins)


@planted(histories_know_nothing_of_failed_attempts, retried_talks())
def a_failed_attempt_counts_as_a_turn(patch: pytest.MonkeyPatch) -> None:
    tell = _request.Request.tell_retry

    def counted(self: Any, *args: Any) -> None:
        self._conductor.turns += 1
        tell(self, *args)

    patch.setattr(_request.Request, "tell_retry", counted)


@planted(histories_know_nothing_of_failed_attempts, retried_talks())
def there_is_one_attempt_too_many(patch: pytest.MonkeyPatch) -> None:
    attempt = _attempt.Attempt.attempt.fget
    assert attempt is not None
    patch.setattr(_attempt.Attempt, "attempt", property(lambda self: max(1, attempt(self) - 1)))
