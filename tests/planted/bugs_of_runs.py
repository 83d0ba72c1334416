"""Broken kernels whose mistake is in what a run does; as in `bugs`, each with the law that finds it.

Above: the test that tries them. Below: `bugs`, which keeps them, and the laws.
"""

from __future__ import annotations

from typing import Any

import anyio
import attrs
import pytest

from tests.properties.generate_talks import CALM, ENDS, chats
from tests.properties.test_l2_valid_history import SPLITS, same_however_it_is_cut, valid_history
from tests.properties.test_l4_bounded_cancel import RUNS, a_tree_of_runs_ends_within_one_grace
from tests.properties.test_l5_limits_hold import budgets_hold, nested_runs_cannot_deadlock
from tests.properties.test_l7_deadlines_compose import BOUNDS, nested_runs_share_the_deadline
from tests.properties.test_l8_honest_order import nobody_slows_a_tool, runs_are_ordered
from tests.properties.test_l9_same_everywhere import runs_are_the_same_everywhere
from turnscope import (
    History,
    ResultMessage,
    _assemble,
    _conductor,
    _endings,
    _feed,
    _parking,
    _prepare,
    _request,
    _run,
)
from turnscope.events import TextDelta

from .bugs import planted


def history_grows_by(patch: pytest.MonkeyPatch, change: Any) -> None:
    """Give *change* the results of a turn, as they enter the history."""
    grown = History.grown

    def grow(self: Any, messages: Any) -> History:
        results = [each for each in messages if isinstance(each, ResultMessage)]
        others = [each for each in messages if not isinstance(each, ResultMessage)]
        return grown(self, [*others, *change(results)])

    patch.setattr(History, "grown", grow)


# Valid history.


@planted(valid_history, chats())
def the_last_result_is_lost(patch: pytest.MonkeyPatch) -> None:
    history_grows_by(patch, lambda results: results[:-1])


@planted(valid_history, chats())
def results_enter_in_another_order(patch: pytest.MonkeyPatch) -> None:
    history_grows_by(patch, lambda results: results[::-1])


@planted(valid_history, chats())
def one_result_stands_for_all(patch: pytest.MonkeyPatch) -> None:
    def first(results: list[ResultMessage]) -> list[ResultMessage]:
        return [attrs.evolve(results[0], id=each.id, name=each.name) for each in results]

    history_grows_by(patch, first)


@planted(valid_history, chats(odd=5))
def an_id_is_used_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_assemble, "_own_id", lambda given, ids, taken: given or "call")


@planted(valid_history, chats(odd=5, then=4))
def ids_are_unique_in_one_response_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(History, "knows", lambda self, call_id: False)


@planted(valid_history, chats(odd=4))
def arguments_go_back_as_they_came(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_assemble, "_sendable", lambda call: call)


@planted(valid_history, chats(hit=ENDS))
def a_cancelled_turn_leaves_its_answer_without_results(patch: pytest.MonkeyPatch) -> None:
    commit = _conductor.Conductor._commit

    def half(self: Any, turn: Any) -> None:
        if turn.asked and self._response is not None:
            self.history = self.history.grown([self._response.message])
            self._response = None
        commit(self, turn)

    patch.setattr(_conductor.Conductor, "_commit", half)


@planted(valid_history, chats())
def an_answer_is_seen_before_its_results(patch: pytest.MonkeyPatch) -> None:
    answered, commit = _conductor.Conductor.answered, _conductor.Conductor._commit
    whole: dict[int, History] = {}

    def early(self: Any, turn: Any, response: Any, error: Any) -> None:
        if response is not None and response.message.calls:
            whole[id(self)] = self.history
            self.history = self.history.grown([response.message])
        answered(self, turn, response, error)

    def late(self: Any, turn: Any) -> None:
        self.history = whole.pop(id(self), self.history)
        commit(self, turn)

    patch.setattr(_conductor.Conductor, "answered", early)
    patch.setattr(_conductor.Conductor, "_commit", late)


@planted(valid_history, chats(hit=ENDS))
def a_cancelled_turn_is_forgotten_with_what_it_did(patch: pytest.MonkeyPatch) -> None:
    commit = _conductor.Conductor._commit

    def forget(self: Any, turn: Any) -> None:
        if turn.asked:
            self._response = None
        commit(self, turn)

    patch.setattr(_conductor.Conductor, "_commit", forget)


@planted(valid_history, chats(then=8))
def two_that_go_on_from_one_history_share_it(patch: pytest.MonkeyPatch) -> None:
    def grow(self: Any, messages: Any) -> History:
        history = object.__new__(History)
        history._messages, history._ids = self._messages, self._ids
        history._messages[self._length :] = messages
        history._length = self._length + len(messages)
        return history

    patch.setattr(History, "grown", grow)


@planted(valid_history, chats(budget=8))
def an_error_tells_no_history(patch: pytest.MonkeyPatch) -> None:
    finish = _conductor.Conductor.finish

    def silent(self: Any) -> None:
        finish(self)
        if hasattr(self.error, "history"):
            self.error.history = None

    patch.setattr(_conductor.Conductor, "finish", silent)


@planted(same_however_it_is_cut, SPLITS)
def white_space_between_pieces_is_dropped(patch: pytest.MonkeyPatch) -> None:
    feed = _assemble.Assembler.feed

    def strip(self: Any, event: Any) -> None:
        feed(self, TextDelta(event.text.strip()) if isinstance(event, TextDelta) else event)

    patch.setattr(_assemble.Assembler, "feed", strip)


# Bounded cancel.


@planted(a_tree_of_runs_ends_within_one_grace, chats(**RUNS, hit=ENDS, readers=("wait",)))
def a_run_outlives_the_one_above(patch: pytest.MonkeyPatch) -> None:
    leave = _run.leave

    async def walk_off(kernel: Any, inside: Any, parent: Any, **more: Any) -> None:
        if parent is None:
            await leave(kernel, inside, parent, **more)
        else:
            await parent.unhost(inside)

    async def wait(self: Any) -> Any:
        inside = self._in()
        await inside.done.wait()
        return await waited(self)

    waited = _run.Run.wait
    patch.setattr(_run.Run, "wait", wait)
    patch.setattr(_run, "leave", walk_off)
    patch.setattr(_run.Conductor, "ask", _unless_nested(_conductor.Conductor.ask))


@planted(a_tree_of_runs_ends_within_one_grace, chats(**RUNS, hit=ENDS, readers=("wait",)))
def a_run_in_a_tool_is_not_asked_to_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_conductor.Conductor, "ask", _unless_nested(_conductor.Conductor.ask))


def _unless_nested(ask: Any) -> Any:
    def unless(self: Any, *args: Any) -> None:
        if self.parent is None:
            ask(self, *args)

    return unless


@planted(
    a_tree_of_runs_ends_within_one_grace,
    chats(**{**RUNS, "swallow": 7, "answers": 1}, hit=("run.cancel", "kernel"), at_event=0),
)
def an_answer_that_comes_after_the_cancel_counts(patch: pytest.MonkeyPatch) -> None:
    commit = _conductor.Conductor._commit

    def late(self: Any, turn: Any) -> None:
        response = self._response
        commit(self, turn)
        if response is not None and not response.calls:
            self.over, self.output, self.error = True, response.message.text, None

    patch.setattr(_conductor.Conductor, "_commit", late)


# Limits hold.


@planted(nested_runs_cannot_deadlock, chats(**CALM, limits=1, nest=6))
def a_run_in_a_tool_keeps_the_slots_of_its_call(patch: pytest.MonkeyPatch) -> None:
    async def come_back(self: Any, loop: Any) -> None: ...

    patch.setattr(_parking.Parking, "park", lambda self, nested: self.turns.append(nested))
    patch.setattr(_parking.Parking, "come_back", come_back)


@planted(nested_runs_cannot_deadlock, chats(**CALM, limits=1, nest=6))
def a_run_has_no_cap_of_its_own(patch: pytest.MonkeyPatch) -> None:
    made = _prepare.Cap
    patch.setattr(_prepare, "Cap", lambda name, capacity: made(name, capacity + 1))


@planted(budgets_hold, chats(budget=8, nest=6))
def a_run_in_a_tool_spends_its_own_budget_only(patch: pytest.MonkeyPatch) -> None:
    made = _prepare.Ledger
    patch.setattr(_prepare, "Ledger", lambda budget, above: made(budget, None))


# Deadlines compose.


@planted(nested_runs_share_the_deadline, chats(**CALM, hit=BOUNDS, nest=6, readers=("wait",)))
def a_run_in_a_tool_does_not_know_the_deadline(patch: pytest.MonkeyPatch) -> None:
    here = _prepare.facts_here

    def facts_here(kernel: Any, parent: Any, deps: Any, deadline: float, ledger: Any) -> Any:
        facts = here(kernel, parent, deps, deadline, ledger)
        return facts if parent is None else attrs.evolve(facts, deadline=deadline)

    patch.setattr(_prepare, "facts_here", facts_here)


# Honest order.


@planted(nobody_slows_a_tool, chats(**CALM, readers=("events", "text")))
def a_run_waits_for_its_reader(patch: pytest.MonkeyPatch) -> None:
    once = _request.Request.once

    async def wait(self: Any) -> None:
        await once(self)
        feed = self._conductor._feed
        for _ in range(100):  # or else for ever, where nobody reads
            if feed is not None and feed._events:
                await anyio.sleep(1 / 64)

    patch.setattr(_request.Request, "once", wait)


@planted(runs_are_ordered, chats(odd=8, readers=("events",), pause=8))
def text_that_comes_while_nobody_reads_is_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_feed._Pieces, "take", lambda self, more: True)


@planted(runs_are_ordered, chats())
def a_run_says_that_it_has_finished_before_its_last_turn(patch: pytest.MonkeyPatch) -> None:
    finish = _conductor.Conductor.finish
    patch.setattr(_conductor.Conductor, "answered", _first(finish, _conductor.Conductor.answered))


def _first(finish: Any, answered: Any) -> Any:
    def early(self: Any, turn: Any, response: Any, error: Any) -> None:
        answered(self, turn, response, error)
        if response is not None and not response.calls:
            self._turn = None
            self.output = response.message.text
            finish(self)

    return early


# Same everywhere.


@planted(runs_are_the_same_everywhere, chats())
def a_result_says_on_which_event_loop_it_was_made(patch: pytest.MonkeyPatch) -> None:
    made = _endings.storable
    cancelled = anyio.get_cancelled_exc_class
    patch.setattr(_endings, "storable", lambda text: f"{made(text)} {cancelled().__name__}")
