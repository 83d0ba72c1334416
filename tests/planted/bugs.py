"""Broken kernels: each is the kernel with one mistake, which one law's property must find.

A patch goes through few seams, functions whose meaning is in the architecture: a limiter lends, an
attempt is told, an outcome is named, a turn's block joins. It wraps what is there where it can, so
that it does not depend on how the function does its work. A bug counts as caught only if the law's
own assertion fails, or in the way that `Bug.seen_as` names: a patch that no longer fits the kernel
is an AttributeError, and an error here.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
import pytest
from anyio import CancelScope, current_time
from hypothesis import strategies as st

from tests.properties.generate import QUIET, plans
from tests.properties.test_l1_one_outcome import one_outcome, settles_once
from tests.properties.test_l3_nothing_survives import leaks_are_reported, nothing_survives
from tests.properties.test_l4_bounded_cancel import bounded_cancel
from tests.properties.test_l5_limits_hold import (
    CALM,
    GROUPS,
    limits_hold,
    nesting_cannot_deadlock,
    queues_are_as_foretold,
    threads_count_until_they_end,
)
from tests.properties.test_l7_deadlines_compose import timeouts_begin_with_the_body
from tests.properties.test_l8_honest_order import observers_change_nothing
from tests.properties.test_l9_same_everywhere import (
    pure_calls,
    same_on_every_backend,
    same_on_trio,
)
from tests.properties.test_l10_no_lost_errors import ERRORS, no_lost_errors
from tests.properties.threads import LONG, Batch, ThreadPlan
from tests.support import Loop
from turnscope import (
    Status,
    _attempt,
    _block,
    _limits,
    _loop,
    _observers,
    _outcome,
    _parking,
    _routes,
    _supervisor,
    _view,
)
from turnscope_backends import ThreadBackend

Patch = Callable[[pytest.MonkeyPatch], None]

VIRTUAL = Loop("asyncio", virtual=True)
REAL = Loop("asyncio", virtual=False)

NATIVE = {"caller": ("native",)}
NESTED = {
    "nest": 6,
    "calls": 2,
    "host": 5,
    "turn_timeout": 4,
    "patient": 6,
    "swallow": 3,
    "fail": 0,
    "odd_call": 0,
    "timeout": 1,
}
WAITING = {"limits": GROUPS, "calls": 6, "patient": 0}


@attrs.frozen
class Bug:
    name: str
    law: Callable[[Any, Loop], None]
    drawn: st.SearchStrategy[Any]
    patch: Patch
    loop: Loop = VIRTUAL
    examples: int = 300
    seen_as: type[BaseException] = AssertionError


BUGS: list[Bug] = []


def planted(
    law: Callable[[Any, Loop], None], drawn: st.SearchStrategy[Any], **more: Any
) -> Callable[[Patch], Patch]:
    """Register a patch under its function's name, with the law that must catch it."""

    def register(patch: Patch) -> Patch:
        BUGS.append(Bug(patch.__name__, law, drawn, patch, **more))
        return patch

    return register


def outcome_becomes(
    patch: pytest.MonkeyPatch, change: Callable[[Any, BaseException | None, Any], None]
) -> None:
    """Give *change* (the call, what the body raised, what is made of it) the last word."""
    named = _outcome.of_body

    def of_body(call: Any, turn: Any, value: Any, error: Any, now: float) -> Any:
        made, fatal = named(call, turn, value, error, now)
        change(call, error, made)
        return made, fatal

    patch.setattr(_outcome, "of_body", of_body)


# One outcome.


@planted(one_outcome, plans())
def a_result_is_settled_twice(patch: pytest.MonkeyPatch) -> None:
    committed = _supervisor.Supervisor.commit

    def twice(self: Any, index: int, result: Any) -> None:
        committed(self, index, result)
        committed(self, index, result)

    patch.setattr(_supervisor.Supervisor, "commit", twice)


@planted(settles_once, plans(**WAITING), seen_as=RuntimeError)
def a_waiting_call_is_forgotten_when_its_turn_is_asked(patch: pytest.MonkeyPatch) -> None:
    committed = _supervisor.Supervisor.commit

    def commit(self: Any, index: int, result: Any) -> None:
        if result.status != Status.NOT_STARTED:
            committed(self, index, result)

    patch.setattr(_supervisor.Supervisor, "commit", commit)


# Nothing survives.


@planted(nothing_survives, plans(**NATIVE))
def the_join_waits_under_a_shield_in_the_callers_task(patch: pytest.MonkeyPatch) -> None:
    async def join(loop: Any, done: Any, ask: Any, raised: Any) -> BaseException | None:
        try:
            with CancelScope(shield=raised is not None):
                await done.wait()
        except loop.cancelled as exc:
            ask()
            with CancelScope(shield=True):
                await done.wait()
            return exc
        return None

    patch.setattr(_block, "join", join)


DEAF = Batch(plans=(ThreadPlan("deaf", LONG),) * 2, threads=1, ask=True)


@planted(leaks_are_reported, st.just(DEAF), loop=REAL, examples=1)
def a_leaked_thread_is_not_reported(patch: pytest.MonkeyPatch) -> None:
    frozen = _attempt.frozen

    def silent(made: Any, kind: Any) -> Any:
        made.leaked = False
        return frozen(made, kind)

    patch.setattr(_attempt, "frozen", silent)


# Bounded cancel.


@planted(bounded_cancel, plans(**NESTED))
def enforcement_is_not_tightened_in_a_nest(patch: pytest.MonkeyPatch) -> None:
    ask = _supervisor.Supervisor.ask

    def ask_once(self: Any, cause: Any, end: float = math.inf) -> None:
        if not self.asked:
            ask(self, cause, end)

    patch.setattr(_supervisor.Supervisor, "ask", ask_once)


@planted(bounded_cancel, plans(**NESTED))
def each_level_of_a_nest_has_a_grace_of_its_own(patch: pytest.MonkeyPatch) -> None:
    ask = _supervisor.Supervisor.ask

    def own_grace(self: Any, cause: Any, end: float = math.inf) -> None:
        ask(self, cause, math.inf)

    patch.setattr(_supervisor.Supervisor, "ask", own_grace)


@planted(
    bounded_cancel,
    plans(caller=("Ctrl-C",)),
    loop=Loop("trio", virtual=True),
    examples=30,
)
def the_join_catches_only_the_cancelled_class(patch: pytest.MonkeyPatch) -> None:
    async def join(loop: Any, done: Any, ask: Any, raised: Any) -> BaseException | None:
        first: BaseException | None = None
        while not done.is_set():
            try:
                with CancelScope(shield=not (first is None and raised is None)):
                    await done.wait()
            except loop.cancelled as exc:
                first = first or exc
                ask()
        return None if isinstance(raised, loop.cancelled) else first

    patch.setattr(_block, "join", join)


@planted(bounded_cancel, plans(swallow=3, fail=0))
def a_late_value_is_ok(patch: pytest.MonkeyPatch) -> None:
    def change(call: Any, error: BaseException | None, made: Any) -> None:
        if error is None and made.status in (Status.TIMED_OUT, Status.CANCELLED):
            made.status, made.error = Status.OK, None

    outcome_becomes(patch, change)


@planted(bounded_cancel, plans(cleanup=7))
def the_interrupt_comes_at_every_await(patch: pytest.MonkeyPatch) -> None:
    deliver, stepped = _attempt.Attempt.deliver, _attempt.Attempt.stepped

    def unshielded(self: Any, cancellation: BaseException) -> Any:
        delivered = deliver(self, cancellation)
        self.inner.shield = False
        return delivered

    def still_unshielded(self: Any) -> None:
        stepped(self)
        self.inner.shield = False

    patch.setattr(_attempt.Attempt, "deliver", unshielded)
    patch.setattr(_attempt.Attempt, "stepped", still_unshielded)


@planted(bounded_cancel, plans(cleanup=7))
def the_end_of_grace_is_not_set_after_the_step(patch: pytest.MonkeyPatch) -> None:
    stepped = _attempt.Attempt.stepped

    def without_end(self: Any) -> None:
        self.ends_at = math.inf
        stepped(self)

    patch.setattr(_attempt.Attempt, "stepped", without_end)


@planted(bounded_cancel, plans(caller=("move_on_after",)))
def the_callers_cancellation_is_swallowed_after_the_join(patch: pytest.MonkeyPatch) -> None:
    joined = _block.join

    async def join(loop: Any, done: Any, ask: Any, raised: Any) -> None:
        await joined(loop, done, ask, raised)

    patch.setattr(_block, "join", join)


@planted(bounded_cancel, plans(caller=("move_on_after",)))
def completed_results_become_cancelled(patch: pytest.MonkeyPatch) -> None:
    ask = _supervisor.Supervisor.ask

    def overwrite(self: Any, cause: Any, end: float = math.inf) -> None:
        self.results[:] = [r and attrs.evolve(r, status=cause.status) for r in self.results]
        ask(self, cause, end)

    patch.setattr(_supervisor.Supervisor, "ask", overwrite)


@planted(bounded_cancel, plans())
def the_interrupt_of_a_call_does_not_reach_its_nested_turns(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_parking.Parking, "ask", lambda self, cause, end: None)


# Limits hold.


def _queues_of(patch: pytest.MonkeyPatch, kind: type[OrderedDict[Any, None]]) -> None:
    made = _limits.Limiter.__init__

    def make(self: Any, name: str, capacity: float) -> None:
        made(self, name, capacity)
        self._queue = kind()

    patch.setattr(_limits.Limiter, "__init__", make)


class _LastFirst(OrderedDict[Any, None]):
    def popitem(self, last: bool = True) -> tuple[Any, None]:
        return super().popitem(last=not last)


@planted(limits_hold, plans(**WAITING))
def the_last_to_wait_goes_first(patch: pytest.MonkeyPatch) -> None:
    _queues_of(patch, _LastFirst)


@planted(queues_are_as_foretold, plans(**CALM, limits=GROUPS, calls=8, depth=0, steps=1))
def calls_is_the_first_limiter(patch: pytest.MonkeyPatch) -> None:
    route = _routes.Routes._route

    def calls_first(self: Any, tool: Any, cap: Any) -> Any:
        way = route(self, tool, cap)
        return attrs.evolve(way, limiters=way.limiters[::-1])

    patch.setattr(_routes.Routes, "_route", calls_first)


@planted(limits_hold, plans(**WAITING))
def a_limiter_lends_one_slot_too_many(patch: pytest.MonkeyPatch) -> None:
    made = _limits.Limiter.__init__
    patch.setattr(
        _limits.Limiter, "__init__", lambda self, name, capacity: made(self, name, capacity + 1)
    )


@planted(nesting_cannot_deadlock, plans(**CALM, limits=(None,), calls=3, nest=5))
def a_nested_turn_keeps_its_parents_slots(patch: pytest.MonkeyPatch) -> None:
    async def come_back(self: Any, loop: Any) -> None: ...

    patch.setattr(_parking.Parking, "park", lambda self, nested: self.turns.append(nested))
    patch.setattr(_parking.Parking, "come_back", come_back)


@planted(nesting_cannot_deadlock, plans(**CALM, limits=(None,), calls=3, nest=5))
def a_call_that_returns_queues_at_the_back(patch: pytest.MonkeyPatch) -> None:
    take = _limits.Limiter.take

    def at_the_back(self: Any, ticket: Any) -> bool:
        if ticket is not None:
            ticket.returning = False
        return take(self, ticket)

    patch.setattr(_limits.Limiter, "take", at_the_back)


@planted(nesting_cannot_deadlock, plans(**CALM, limits=(None,), calls=3, nest=5))
def a_call_that_returns_does_not_wait(patch: pytest.MonkeyPatch) -> None:
    async def come_back(self: Any, loop: Any) -> None: ...

    patch.setattr(_parking.Parking, "come_back", come_back)


@planted(threads_count_until_they_end, st.just(DEAF), loop=REAL, examples=1)
def a_slot_is_returned_before_its_thread_ends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_limits.Ticket, "leak", lambda self: self.release())
    patch.setattr(_limits.Ticket, "unleak", lambda self: None)


# Deadlines compose.


@planted(
    timeouts_begin_with_the_body,
    plans(**{**QUIET, "timeout": 5, "cleanup": 2}, limits=(None, "db"), calls=6, depth=0, steps=1),
)
def a_timeout_runs_from_the_submit(patch: pytest.MonkeyPatch) -> None:
    made, deadline = _attempt.Attempt.__init__, _view.View.timeout_deadline
    submitted: dict[int, float] = {}

    def make(self: Any, *args: Any) -> None:
        made(self, *args)
        submitted[id(self)] = current_time()

    def timeout_deadline(self: Any) -> float:
        started, self.started_at = self.started_at, submitted[id(self)]
        try:
            return deadline(self)
        finally:
            self.started_at = started

    patch.setattr(_attempt.Attempt, "__init__", make)
    patch.setattr(_view.View, "timeout_deadline", timeout_deadline)


# Honest order.


@planted(observers_change_nothing, plans())
def an_observer_that_fails_silences_the_others(patch: pytest.MonkeyPatch) -> None:
    def emit(self: Any, event: Any) -> None:
        with suppress(Exception):
            for observer in self._observers:
                observer.observe(event)

    patch.setattr(_observers.Observers, "tell", emit)


# Same everywhere.


@planted(same_on_trio, plans(cleanup=7))
def bodies_have_no_driver_on_trio(patch: pytest.MonkeyPatch) -> None:
    driven = _loop.Loop.drive

    def drive(self: Any, body: Any, call: Any) -> Any:
        return driven(self, body, call) if self.is_asyncio else body

    patch.setattr(_loop.Loop, "drive", drive)


@planted(same_on_trio, plans(**ERRORS))
def a_cancellation_of_the_tools_own_is_a_strangers_on_asyncio(patch: pytest.MonkeyPatch) -> None:
    stranger = _outcome.cancelled_by_stranger
    patch.setattr(
        _outcome, "cancelled_by_stranger", lambda task: task is not None or stranger(task)
    )


@planted(same_on_every_backend, pure_calls(), loop=REAL, examples=20)
def a_failure_in_a_thread_loses_its_type(patch: pytest.MonkeyPatch) -> None:
    call = ThreadBackend.call

    async def retold(self: Any, fn: Any, kwargs: Any, context: Any, /) -> Any:
        try:
            return await call(self, fn, kwargs, context)
        except Exception as exc:
            raise RuntimeError(str(exc)) from exc

    patch.setattr(ThreadBackend, "call", retold)


# No lost errors.


@planted(no_lost_errors, plans(**ERRORS))
def a_cancellation_of_the_tools_own_counts_as_an_ask(patch: pytest.MonkeyPatch) -> None:
    def change(call: Any, error: BaseException | None, made: Any) -> None:
        if isinstance(error, call.facts.loop.cancelled) and not call.told:
            call.turn.ask(_outcome.LEFT)
            made.status = Status.CANCELLED

    outcome_becomes(patch, change)


@planted(no_lost_errors, plans(**ERRORS))
def a_timeout_error_of_the_tools_own_counts_as_a_timeout(patch: pytest.MonkeyPatch) -> None:
    def change(call: Any, error: BaseException | None, made: Any) -> None:
        if isinstance(error, TimeoutError):
            made.status = Status.TIMED_OUT

    outcome_becomes(patch, change)


@planted(no_lost_errors, plans(**ERRORS))
def a_group_of_one_stays_a_group(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_outcome, "unwrapped", lambda exc, cancelled: exc)


@planted(no_lost_errors, plans(**ERRORS))
def a_cleanups_exception_is_dropped(patch: pytest.MonkeyPatch) -> None:
    def change(call: Any, error: BaseException | None, made: Any) -> None:
        if call.told and error is not None:
            made.error = call.cause.error(call.tool.name)

    outcome_becomes(patch, change)
