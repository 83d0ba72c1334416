"""From a model's events to whole calls: cut anywhere, with ids repeated, missing or late."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnscope import AssistantMessage, History, ModelError, Reasoning, ToolCall, Usage
from turnscope._assemble import Assembler, Response
from turnscope.events import (
    CallDelta,
    CallSealed,
    ModelEvent,
    ModelFinished,
    ReasoningDelta,
    TextDelta,
)


def assembled(*events: ModelEvent, taken: frozenset[str] = frozenset()) -> Response:
    assembler = Assembler()
    for event in events:
        assembler.feed(event)
    return assembler.finish(taken.__contains__)


DONE = ModelFinished("calls")
NOTHING: Any = None
NO_NUMBER = Usage(output_tokens=NOTHING)


def test_the_pieces_of_a_call_become_one() -> None:
    usage = Usage(input_tokens=1)
    response = assembled(
        TextDelta("Let "),
        TextDelta("me see."),
        CallDelta(0, "c1", "weather", ""),
        CallDelta(0, arguments='{"city": "Bei'),
        CallDelta(0, arguments='jing"}'),
        CallSealed(0),
        ModelFinished("calls", usage),
    )
    call = ToolCall("c1", "weather", '{"city": "Beijing"}')
    assert response.calls == (call,)
    assert response.message == AssistantMessage(text="Let me see.", calls=(call,))
    assert (response.reason, response.usage) == ("calls", usage)


def test_calls_are_in_the_order_of_their_index_which_may_have_gaps() -> None:
    response = assembled(
        CallDelta(5, "b", "second"), CallDelta(0, "a", "first"), CallDelta(9, "c", "third"), DONE
    )
    assert [call.name for call in response.calls] == ["first", "second", "third"]


def test_the_first_id_and_the_first_name_count() -> None:
    response = assembled(
        CallDelta(0, None, None, "{"),
        CallDelta(0, "a", "weather"),
        CallDelta(0, "z", "other", "}"),
        DONE,
    )
    assert response.calls == (ToolCall("a", "weather", "{}"),)


@pytest.mark.parametrize("arguments", ["", " ", "\n"])
def test_no_arguments_are_an_empty_object(arguments: str) -> None:
    assert assembled(CallDelta(0, "a", "f", arguments), DONE).calls[0].arguments == "{}"


def test_ids_that_are_missing_repeated_or_taken_are_made_anew_and_told_apart() -> None:
    ids = ["", None, "a", "a", "a-1", "old", "call", "call-1"]
    response = assembled(
        *[CallDelta(n, each, "f") for n, each in enumerate(ids)], DONE, taken=frozenset({"old"})
    )
    made = [call.id for call in response.calls]
    assert len(set(made)) == len(made) and all(made)
    assert made[2] == "a"  # the first to come keeps it
    assert "old" not in made
    assert [call.id for call in response.message.calls] == made


def test_what_no_provider_takes_back_is_mended_in_the_message_and_kept_in_the_call() -> None:
    given = [
        ("find the weather!", "{}"),
        ("f" * 100, "{}"),
        ("f", "not json"),
        ("f", "[1]"),
        ("f", '{"n": NaN}'),
        ("f", "x" * 5_000),
    ]
    events = [CallDelta(n, f"c{n}", name, text) for n, (name, text) in enumerate(given)]
    response = assembled(*events, DONE)
    assert [(call.name, call.arguments) for call in response.calls] == given
    sent = response.message.calls
    assert [call.name for call in sent] == ["find_the_weather_", "f" * 64, "f", "f", "f", "f"]
    for (_, text), call in zip(given[2:], sent[2:], strict=True):
        assert json.loads(str(call.arguments)) == {"INVALID_JSON": text[:1_000]}
    assert sent[0].arguments == "{}"


def test_reasoning_comes_in_parts_that_end_with_what_goes_back() -> None:
    response = assembled(
        ReasoningDelta("Let "),
        ReasoningDelta("me ", {"signature": 1}),
        ReasoningDelta("", "redacted"),
        TextDelta("a"),
        ReasoningDelta("think."),
        ModelFinished(),
    )
    assert response.message.reasoning == (
        Reasoning("Let me ", {"signature": 1}),
        Reasoning("", "redacted"),
        Reasoning("think."),
    )


@pytest.mark.parametrize("reason", ["refusal", "filtered"])
def test_the_calls_of_an_answer_that_nobody_stands_by_are_dropped(reason: Any) -> None:
    response = assembled(TextDelta("No."), CallDelta(0, "a", "f"), ModelFinished(reason))
    assert response.calls == response.message.calls == ()
    assert (response.message.text, response.reason) == ("No.", reason)


def test_a_surrogate_that_was_cut_in_two_is_whole_again_and_a_lone_one_is_replaced() -> None:
    response = assembled(
        ReasoningDelta("\ud83d"),
        ReasoningDelta("\ude00"),
        TextDelta("a\ud83d"),
        TextDelta("\ude00b\ud83d"),
        CallDelta(0, "c\ud83d", "f", '{"a": "\ud83d'),
        CallDelta(0, arguments='\ude00\udc80"}'),
        DONE,
    )
    assert response.message.text == "a\N{GRINNING FACE}b\N{REPLACEMENT CHARACTER}"
    assert response.message.reasoning[0].text == "\N{GRINNING FACE}"
    arguments = json.loads(str(response.calls[0].arguments))
    assert arguments == {"a": "\N{GRINNING FACE}\N{REPLACEMENT CHARACTER}"}
    for text in (response.calls[0].id, response.message.text, str(response.calls[0].arguments)):
        text.encode()


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "the model's stream ended before the response was complete"),
        ([TextDelta("a")], "the model's stream ended before the response was complete"),
        ([ModelFinished(), TextDelta("")], "the model streamed TextDelta after ModelFinished"),
        ([ModelFinished(), ModelFinished()], "streamed ModelFinished after ModelFinished"),
        ([CallDelta(3, "a"), DONE], "the model asked for a call, 3, without a tool's name"),
        ([CallSealed(1)], "the model ended a call, 1, that it had not begun"),
        (
            [CallDelta(0, "a", "f"), CallSealed(0), CallDelta(0, arguments="{}")],
            "the model streamed more of call 0 after its end",
        ),
        ([ModelFinished("stop", NO_NUMBER)], "the model reported (0, None, 0, 0) tokens"),
        (["text"], "the model streamed a str, no ModelEvent"),
        ([None], "the model streamed a NoneType, no ModelEvent"),
    ],
)
def test_events_that_make_no_response_are_a_model_error(events: list[Any], said: str) -> None:
    with pytest.raises(ModelError) as caught:
        assembled(*events)
    assert said in str(caught.value)


def test_a_call_may_be_ended_twice() -> None:
    events = (CallDelta(0, "a", "f"), CallSealed(0), CallSealed(0), DONE)
    assert assembled(*events).calls == (ToolCall("a", "f", "{}"),)


CALLS = st.lists(
    st.tuples(
        st.sampled_from(["", "a", "b", "a-1", "call-1"]),
        st.text(min_size=1, max_size=8),
        st.text(max_size=20) | st.dictionaries(st.text(), st.integers()).map(json.dumps),
    ),
    max_size=5,
)


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@given(st.data(), st.text(max_size=20), CALLS)
def test_a_stream_is_the_same_response_wherever_it_is_cut(
    data: st.DataObject, text: str, calls: list[tuple[str, str, str]]
) -> None:
    whole: list[ModelEvent] = [TextDelta(text)]
    pieces: list[ModelEvent] = [TextDelta(each) for each in data.draw(cut(text))]
    for n, (call_id, name, arguments) in enumerate(calls):
        whole.append(CallDelta(n, call_id, name, arguments))
        pieces.append(CallDelta(n, call_id, name))
        pieces.extend(CallDelta(n, arguments=each) for each in data.draw(cut(arguments)))
        pieces.append(CallSealed(n))
    response = assembled(*whole, DONE)
    assert assembled(*pieces, DONE) == response
    # And it may enter any history, unless it says nothing.
    if response.message.calls:
        with pytest.raises(ValueError, match="ends without the result"):
            History([response.message])
    elif text.strip():
        assert len(History([response.message])) == 1


def test_a_call_that_was_cut_before_its_arguments_is_not_one_without_any() -> None:
    begun = CallDelta(0, "c1", "delete")
    assert [call.arguments for call in assembled(begun, ModelFinished("length")).calls] == [""]
    for whole in ((begun, DONE), (begun, CallSealed(0), ModelFinished("length"))):
        assert [call.arguments for call in assembled(*whole).calls] == ["{}"]
