"""Broken runs whose answer has a type; as in `bugs`, each with the property that finds it.

Above: the test that tries them. Below: `bugs`, which keeps them, and the property.
"""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import strategies as st

from tests.properties.test_outputs import CASES, SCRIPTS, Case, answers_are_read_as_foretold
from turnscope import NotStarted, Status, _agent, _answering, _output, _prepare
from turnscope._routes import Offer

from .bugs import planted

LONG = st.builds(Case, script=SCRIPTS, by_tool=st.just(True), retries=st.just(3), turns=st.just(50))
"""Runs of an answer's tool that have several turns."""

Answering = _answering.Answering


@planted(answers_are_read_as_foretold, CASES)
def answers_that_do_not_fit_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    send_back = Answering._send_back

    def forget(self: Any, *arguments: Any) -> None:
        send_back(self, *arguments)
        self._attempts = 0

    patch.setattr(Answering, "_send_back", forget)


@planted(answers_are_read_as_foretold, CASES)
def one_answer_more_is_asked_for(patch: pytest.MonkeyPatch) -> None:
    made = Answering.__init__

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        made(self, *arguments, **options)
        self._attempts = -1

    patch.setattr(Answering, "__init__", init)


@planted(answers_are_read_as_foretold, CASES)
def the_last_of_several_answers_counts(patch: pytest.MonkeyPatch) -> None:
    settle = Answering._settle

    def again(self: Any, *arguments: Any, **options: Any) -> None:
        self._taken = False
        settle(self, *arguments, **options)

    patch.setattr(Answering, "_settle", again)


@planted(answers_are_read_as_foretold, LONG)
def an_old_answer_that_does_not_fit_is_held_against_later_turns(patch: pytest.MonkeyPatch) -> None:
    submit = Answering._submit

    def keep(self: Any, *arguments: Any) -> None:
        before = self._invalid
        submit(self, *arguments)
        self._invalid = self._invalid or before

    patch.setattr(Answering, "_submit", keep)


@planted(answers_are_read_as_foretold, CASES)
def the_model_is_not_told_what_is_wrong_with_its_text(patch: pytest.MonkeyPatch) -> None:
    read = Answering._read

    def say_nothing(self: Any, *arguments: Any) -> None:
        history = self.history
        read(self, *arguments)
        self.history = history

    patch.setattr(Answering, "_read", say_nothing)


@planted(answers_are_read_as_foretold, CASES)
def text_is_taken_for_the_call(patch: pytest.MonkeyPatch) -> None:
    read = Answering._read

    def anyhow(self: Any, *arguments: Any) -> None:
        by_tool, self._by_tool = self._by_tool, False
        read(self, *arguments)
        self._by_tool = by_tool

    patch.setattr(Answering, "_read", anyhow)


@planted(answers_are_read_as_foretold, CASES)
def a_refusal_is_an_answer_that_does_not_fit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_answering, "REFUSED", ())


@planted(answers_are_read_as_foretold, CASES)
def an_answer_stays_in_its_wrapping(patch: pytest.MonkeyPatch) -> None:
    answer_of = _output.answer_of
    patch.setattr(_agent, "answer_of", lambda *given: _unread(answer_of(*given)))


def _unread(answer: Any) -> Any:
    return None if answer is None else attrs.evolve(answer, wrapped=False)


@planted(answers_are_read_as_foretold, CASES)
def calls_beside_an_answer_do_not_run(patch: pytest.MonkeyPatch) -> None:
    submit = Offer.submit

    def refuse(self: Any, turn: Any, call: Any) -> int:
        if not any(each is not None and each.call.name == "final_answer" for each in turn.results):
            return submit(self, turn, call)
        index: int = turn.ready(call)
        self.refuse(turn, index, call, Status.NOT_STARTED, NotStarted("an answer was given"))
        return index

    patch.setattr(Offer, "submit", refuse)


@planted(answers_are_read_as_foretold, CASES)
def the_answer_is_a_call_like_any_other(patch: pytest.MonkeyPatch) -> None:
    prepare = _prepare.prepare

    def offered(kernel: Any, agent: Any, *arguments: Any, **options: Any) -> Any:
        tools = (*agent.tools, agent._answer.tool)
        patch.setattr(kernel, "_offer", lambda _, *more: type(kernel)._offer(kernel, tools, *more))
        return prepare(kernel, agent, *arguments, **options)

    patch.setattr(_prepare, "prepare", offered)
