"""Whenever control leaves the kernel, the history is one that a provider accepts as it stands."""

from __future__ import annotations

import math
from typing import Any

import attrs
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support import Loop
from turnscope import AssistantMessage, History, ModelError, RunCancelled
from turnscope._assemble import Assembler
from turnscope.events import ModelAnswered

from .foretell import foretell
from .generate import share
from .generate_talks import BAD, ENDS, IDS, NOBODY, TEXTS, chats
from .provider import accepted, is_object
from .retries import Talks, retried_talks, talked
from .talker import Ending, Talker, perform, pieces_of
from .talks import Answer, Ask, Chat

UNSETTLED = {"cancelled", "timed_out", "not_started"}
"""What a call may have come to that its run did not wait for."""


def valid_history(chat: Chat, loop: Loop) -> None:
    histories_are_valid(perform(chat, loop))


def histories_are_valid(talker: Talker) -> None:
    for ending in talker.endings.values():
        _is_the_one_everybody_got(ending)
        _is_foretold(talker, ending)
    for history, messages in talker.seen.values():
        assert history[:] == messages, "a history changed after it was handed out"
        stored = history.to_json()
        accepted(stored)
        assert History.from_json(stored) == history
        assert History(messages) == history, "what a run leaves, the next one takes"
    _grows_by_whole_turns(talker)


def _is_the_one_everybody_got(ending: Ending) -> None:
    if ending.result is not None:
        assert ending.result.history == ending.run.history
    told = getattr(ending.error, "history", None)
    if ending.end in ("BudgetExceeded", "ModelError", "ToolFailed", "DeadlineExceeded"):
        assert told is not None, ending.error
    assert told is None or told == ending.run.history


def _is_foretold(talker: Talker, ending: Ending) -> None:
    """It is what it would be if one thing happened after the other, up to some whole turn."""
    talk = talker.talks[ending.where]
    told = foretell(talker.chat, talk)
    base = 0 if ending.base is None else len(ending.base)
    messages = accepted(ending.run.history.to_json())
    if ending.base is not None:
        assert messages[:base] == accepted(ending.base.to_json())
    assert messages[base] == {"role": "user", "content": ending.where}
    ids = {call["id"] for message in messages[:base] for call in message.get("calls", [])}
    left = messages[base + 1 :]
    whole = told.turns[: _answered(talker, ending)]
    assert len(whole) == _answered(talker, ending), "it went on after its end"
    for turn, (answer, calls) in enumerate(whole):
        if not (answer.text.strip() or calls):
            continue  # nothing that could be sent
        assert left, "a turn was lost"
        message, results, left = left[0], left[1 : len(calls) + 1], left[len(calls) + 1 :]
        assert message["role"] == "assistant"
        assert message["text"].strip() == _encodable(answer.text).strip()
        asked = message.get("calls", [])
        for index, (call, result, (ask, status)) in enumerate(
            zip(asked, results, calls, strict=True)
        ):
            place = f"{ending.where}.{turn}.{index}"
            _is_what_was_asked(call, ask, ids)
            if result["status"] != status:
                cut = turn == len(whole) - 1 and (told.cut or talker.chat.hit.how != "nothing")
                assert cut and result["status"] in UNSETTLED, (place, result, status)
                noted = {what for where, what, _ in talker.notes if where == place}
                assert "interrupt" in noted or "end" not in noted, f"{place} had completed"
            if result["status"] == "ok" and ask.tool != "agent":
                assert result["content"] == place
    assert not left, f"there is more than was asked for: {left}"
    if ending.result is not None:
        assert (len(whole), "") == (len(told.turns), told.end)
        assert ending.result.turns == len(whole)
        assert ending.result.output == _encodable(told.output)
    elif ending.where != "t0" or talker.chat.hit.how == "nothing":
        assert (len(whole), ending.end) == (len(told.turns), told.end), ending.error


def _answered(talker: Talker, ending: Ending) -> int:
    return sum(talker.prompts[event.run_id] == ending.where for event in talker.told(ModelAnswered))


def _encodable(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _is_what_was_asked(call: dict[str, Any], ask: Ask, ids: set[str]) -> None:
    if ask.id.isascii() and ask.id and ask.id not in ids:
        assert call["id"] == ask.id, "an id that can be kept is kept"
    ids.add(call["id"])
    if ask.tool in ("work", "fatal", "agent", "nobody"):
        assert call["name"] == ask.tool
    if ask.arguments is not None and ask.arguments.isascii() and is_object(ask.arguments):
        assert call["arguments"] == ask.arguments


def _grows_by_whole_turns(talker: Talker) -> None:
    """Each that was seen of a run is a beginning of the one that it left."""
    for where, history in talker.requests:
        top = where.partition(".")[0]
        if top == where:
            final = talker.endings[where].run.history
            assert history[:] == final[: len(history)]
    requests: dict[str, History] = {}
    for where, history in talker.requests:
        before = requests.get(where, history)
        assert history[: len(before)] == before[:], where
        requests[where] = history


@share(0.4)
@given(chat=chats(then=3, odd=4))
def test_a_run_leaves_a_history_that_a_provider_accepts(virtual_loop: Loop, chat: Chat) -> None:
    valid_history(chat, virtual_loop)


@share(0.4)
@given(chat=chats(hit=ENDS, then=1))
def test_a_run_that_is_ended_leaves_whole_turns(virtual_loop: Loop, chat: Chat) -> None:
    valid_history(chat, virtual_loop)


@share(0.3)
@given(chat=chats(hit=("native", "asyncio.timeout"), then=1))
def test_a_run_that_is_cancelled_natively_leaves_whole_turns(chat: Chat) -> None:
    valid_history(chat, Loop("asyncio", virtual=True))


SPLITS = st.tuples(
    st.builds(
        Answer,
        text=st.sampled_from(TEXTS),
        asks=st.lists(
            st.builds(
                Ask,
                id=st.sampled_from(IDS),
                tool=st.sampled_from(("work", *NOBODY)),
                arguments=st.sampled_from((None, *BAD)),
            ),
            max_size=4,
        ).map(tuple),
        reason=st.sampled_from(("stop", "calls", "length", "refusal", "filtered")),
    ),
    st.integers(0, 999),
    st.integers(0, 999),
)


def same_however_it_is_cut(split: tuple[Answer, int, int], loop: Loop | None = None) -> None:
    answer, *seeds = split
    # Of one that the length limit cut before any arguments came, only a seal says that it has none.
    assume(
        answer.reason != "length"
        or all(ask.arguments is None or ask.arguments.strip() for ask in answer.asks)
    )
    responses = []
    for seed in seeds:
        assembler = Assembler()
        for event in pieces_of("t", attrs.evolve(answer, cut=seed)):
            assembler.feed(event)
        responses.append(assembler.finish(lambda name: name == "c0"))
    assert responses[0] == responses[1]
    message = responses[0].message
    assert message.text == _encodable(answer.text)
    refused = answer.reason in ("refusal", "filtered")
    assert len(message.calls) == (0 if refused else len(answer.asks))


@given(split=SPLITS)
def test_a_response_is_the_same_however_its_stream_is_cut(split: tuple[Answer, int, int]) -> None:
    same_however_it_is_cut(split)


# What is sent again.


def histories_know_nothing_of_failed_attempts(plan: Talks, loop: Loop) -> None:
    did = talked(plan, loop)
    accepted(did.history.to_json())
    answers = [each for each in did.history if isinstance(each, AssistantMessage)]
    # By the script: failures in a row, up to as many as there may be, and the answer after them.
    turns, row, requests, fails = 0, 0, 0, False
    for reply in plan.replies:
        requests += 1
        row = row + 1 if reply.fails else 0
        turns += not reply.fails
        fails = row == plan.attempts
        if fails or (not reply.fails and not reply.calls):
            break
    if plan.cancel == math.inf or not isinstance(did.error, RunCancelled):
        assert len(answers) == turns, "a failed attempt is no turn"
        assert did.requests == requests
        assert isinstance(did.error, ModelError) == fails
        assert did.retried == requests - turns - fails
        assert fails or did.turns == turns
    else:
        # Of calls that were asked to end nothing has to clean up.
        assert did.ended == plan.cancel
        assert did.requests <= requests
        assert len(answers) <= turns


@given(plan=retried_talks())
def test_failed_attempts_leave_nothing_in_the_history(plan: Talks, virtual_loop: Loop) -> None:
    histories_know_nothing_of_failed_attempts(plan, virtual_loop)
