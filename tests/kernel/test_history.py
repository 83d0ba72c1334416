"""History: immutable, shared, storable, and never one that a provider would refuse."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnscope import (
    AssistantMessage,
    Content,
    History,
    Reasoning,
    ResultMessage,
    Status,
    ToolCall,
    UserMessage,
)


def call(call_id: str = "c1", arguments: Any = "{}") -> ToolCall:
    return ToolCall(call_id, "weather", arguments)


def result(call_id: str = "c1", content: Any = "sunny") -> ResultMessage:
    return ResultMessage(id=call_id, name="weather", status=Status.OK, content=content)


ASKED = UserMessage("Weather?")
CALLED = AssistantMessage(calls=(call(),))
SAID = AssistantMessage(text="Sunny.")

ALL = History(
    [
        UserMessage(
            (
                Content(text="What is it?"),
                Content(media_type="image/png", data=bytes(range(256))),
                Content(media_type="image/jpeg", url="https://example.org/cat.jpg"),
            )
        ),
        AssistantMessage(
            text="Let me see. \N{GRINNING FACE}",
            calls=(call("c1", '{"city": "Beijing"}'), call("c2")),
            reasoning=(
                Reasoning("Hm.", {"signature": "EqQB", "parts": [1, 2.5, None, True]}),
                Reasoning(""),
            ),
        ),
        result("c1", (Content(text="sunny"), Content(media_type="image/png", data=b""))),
        ResultMessage(id="c2", name="weather", status=Status.TIMED_OUT, content=""),
        SAID,
        UserMessage("Thanks.\n\x00\u2028"),
    ]
)


# A sequence.


def test_a_history_is_a_sequence_of_messages() -> None:
    history = History([ASKED, CALLED, result(), SAID])
    assert len(history) == 4
    assert list(history) == [ASKED, CALLED, result(), SAID]
    assert (history[0], history[-1], history[3]) == (ASKED, SAID, SAID)
    assert history[1:3] == (CALLED, result())
    assert history[::-1] == (SAID, result(), CALLED, ASKED)
    assert SAID in history and history.index(CALLED) == 1
    assert history.results == (result(),)
    for index in (4, -5):
        with pytest.raises(IndexError, match=f"message {index} of a history of 4"):
            history[index]
    assert not History()
    assert repr(history) == "<History of 4 messages>"


def test_a_history_cannot_be_changed() -> None:
    messages = [ASKED]
    history = History(messages)
    messages.append(SAID)
    assert len(history) == 1
    for change in ("append", "extend", "insert", "pop", "clear", "__setitem__", "__delitem__"):
        assert not hasattr(history, change)
    with pytest.raises(AttributeError):
        history.messages = []


def test_histories_of_equal_messages_are_equal() -> None:
    one, other = History([ASKED, SAID]), History(iter([UserMessage("Weather?"), SAID]))
    assert one == other and hash(one) == hash(other)
    assert one != History([ASKED])
    assert one != History([ASKED, AssistantMessage(text="Rain.")])
    assert one != [ASKED, SAID]


# Growing.


def test_growing_leaves_the_shorter_history_as_it_was() -> None:
    short = History([ASKED])
    long = short.grown([CALLED, result()])
    assert len(short) == 1 and list(short) == [ASKED]
    assert short[-1] == ASKED and short[:] == (ASKED,)
    with pytest.raises(IndexError):
        short[1]
    assert list(long) == [ASKED, CALLED, result()]
    assert short.results == ()
    assert long.grown([]) != short


def test_growing_copies_nothing() -> None:
    short = History([ASKED])
    long = short
    for _ in range(100):
        long = long.grown([SAID, ASKED])
    assert long._messages is short._messages


def test_a_history_that_grows_two_ways_is_two() -> None:
    short = History([ASKED])
    one = short.grown([CALLED, result()])
    other = short.grown([AssistantMessage(calls=(call("c1"),)), result("c1", "rain")])
    third = short.grown([SAID])
    assert one[2] == result() and other[2] == result("c1", "rain") and third[1] == SAID
    assert [len(each) for each in (short, one, other, third)] == [1, 3, 3, 2]
    assert other.knows("c1") and not third.knows("c1")
    assert one.grown([SAID])[:3] == one[:]


def test_a_history_that_grows_in_many_threads_at_once_is_never_mixed_up() -> None:
    start = History([ASKED])
    together = threading.Barrier(8)
    grown: dict[int, History] = {}

    def grow(who: int) -> None:
        together.wait(10)
        history = start
        for n in range(200):
            name = f"{who}-{n}"
            history = history.grown([AssistantMessage(calls=(call(name),)), result(name)])
        grown[who] = history

    threads = [threading.Thread(target=grow, args=(who,)) for who in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads take turns between any two steps
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert len(grown) == 8
    for who, history in grown.items():
        assert [each.id for each in history.results] == [f"{who}-{n}" for n in range(200)]
        assert all(history.knows(f"{who}-{n}") for n in range(200))
        assert History(history) == history
    assert len(start) == 1


def test_a_history_can_be_copied_and_sent_to_another_process() -> None:
    short = History([ASKED])
    long = short.grown([CALLED, result()])
    for made in (copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))):
        assert made(short) == short and len(made(short)) == 1
        assert made(long).grown([SAID])[:3] == long[:]
    assert list(long) == [ASKED, CALLED, result()]


# What is refused.


@pytest.mark.parametrize(
    ("messages", "kind", "said"),
    [
        ([ASKED, CALLED], ValueError, "the history ends without the result of the call 'c1'"),
        (
            [ASKED, CALLED, ASKED],
            ValueError,
            (
                "message 2 of the history is not the result of the call 'c1': the results of an "
                "answer's calls come directly after it, one for each, in call order"
            ),
        ),
        (
            [AssistantMessage(calls=(call("a"), call("b"))), result("b"), result("a")],
            ValueError,
            "message 1 of the history is not the result of the call 'a'",
        ),
        (
            [AssistantMessage(calls=(call("a"), call("b"))), result("a"), SAID],
            ValueError,
            "message 2 of the history is not the result of the call 'b'",
        ),
        (
            [ASKED, CALLED, result("c2")],
            ValueError,
            "message 2 of the history is not the result of the call 'c1'",
        ),
        (
            [ASKED, result()],
            ValueError,
            "message 1 of the history is a result, 'c1', of no call before it",
        ),
        (
            [CALLED, result(), result()],
            ValueError,
            "message 2 of the history is a result, 'c1', of no call before it",
        ),
        (
            [CALLED, result(), CALLED, result()],
            ValueError,
            "message 2 of the history has a call whose id is empty or taken: 'c1'",
        ),
        (
            [AssistantMessage(calls=(call("a"), call("a")))],
            ValueError,
            "has a call whose id is empty or taken: 'a'",
        ),
        (
            [AssistantMessage(calls=(call(""),))],
            ValueError,
            "has a call whose id is empty or taken: ''",
        ),
        (
            [ASKED, AssistantMessage()],
            ValueError,
            "message 1 of the history is an answer with neither text nor calls",
        ),
        ([UserMessage("")], ValueError, "message 0 of the history is an empty prompt"),
        ([UserMessage(())], ValueError, "message 0 of the history is an empty prompt"),
        (
            ["Weather?"],
            TypeError,
            (
                "message 0 of the history is a str, not a UserMessage, AssistantMessage or "
                "ResultMessage"
            ),
        ),
        (
            [ASKED, {"role": "user"}],
            TypeError,
            "message 1 of the history is a dict, not a UserMessage",
        ),
        *[
            (
                [AssistantMessage(calls=(call("a", arguments),))],
                ValueError,
                (
                    "message 0 of the history has a call, 'a', whose arguments are not the JSON text "
                    "of an object"
                ),
            )
            for arguments in ("", "[]", "null", "{", '{"n": NaN}', {"n": 1}, b"{}", "[" * 100_000)
        ],
    ],
)
def test_what_a_provider_would_refuse_is_refused_at_the_door(
    messages: list[Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind) as caught:
        History(messages)
    assert said in str(caught.value)


# JSON.


def test_a_conversation_is_stored_and_read_with_all_that_is_in_it() -> None:
    text = ALL.to_json()
    assert "\n" not in text
    again = History.from_json(text)
    assert again == ALL
    assert again.to_json() == text
    assert History.from_json(text.encode()) == ALL
    assert isinstance(again[0].content, tuple)
    assert again.results[1].status is Status.TIMED_OUT
    # The calls that come next know which ids are taken.
    assert again.knows("c1") and again.knows("c2") and not again.knows("c3")


def test_a_stored_conversation_says_its_version() -> None:
    assert json.loads(History().to_json()) == {"version": 1, "messages": []}
    assert json.loads(History([ASKED, CALLED, result()]).to_json()) == {
        "version": 1,
        "messages": [
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "text": "",
                "calls": [{"id": "c1", "name": "weather", "arguments": "{}"}],
            },
            {"role": "result", "id": "c1", "name": "weather", "status": "ok", "content": "sunny"},
        ],
    }


def test_only_the_messages_of_the_shorter_history_are_stored() -> None:
    short = History([ASKED])
    short.grown([SAID])
    assert History.from_json(short.to_json()) == short


TEXTS = st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PARTS = (
    st.builds(lambda text: Content(text=text), TEXTS)
    | st.builds(lambda data: Content(media_type="image/png", data=data), st.binary())
    | st.builds(lambda url: Content(media_type="image/png", url=url), TEXTS)
)
SAYING = TEXTS.filter(str.strip)  # a blank prompt or answer is refused
CONTENTS = TEXTS | st.lists(PARTS, max_size=3).map(tuple)


@st.composite
def histories(draw: st.DrawFn) -> History:
    messages: list[Any] = []
    number = 0
    for kind in draw(st.lists(st.sampled_from(["asked", "said", "called"]), max_size=6)):
        reasoning = tuple(draw(st.lists(st.builds(Reasoning, TEXTS, JSON), max_size=2)))
        if kind == "asked":
            asked = SAYING | st.tuples(st.builds(lambda text: Content(text=text), SAYING), PARTS)
            messages.append(UserMessage(draw(asked)))
        elif kind == "said":
            messages.append(AssistantMessage(text=draw(SAYING), reasoning=reasoning))
        else:
            ids = [f"c{number + n}" for n in range(draw(st.integers(1, 3)))]
            number += len(ids)
            arguments = json.dumps(draw(st.dictionaries(TEXTS, JSON, max_size=2)))
            calls = tuple(ToolCall(each, draw(TEXTS), arguments) for each in ids)
            messages.append(AssistantMessage(text=draw(TEXTS), calls=calls, reasoning=reasoning))
            messages.extend(
                ResultMessage(
                    id=each, name="t", status=draw(st.sampled_from(Status)), content=draw(CONTENTS)
                )
                for each in ids
            )
    return History(messages)


@given(histories())
def test_every_conversation_survives_storing(history: History) -> None:
    assert History.from_json(history.to_json()) == history


def message(**fields: Any) -> str:
    return json.dumps({"version": 1, "messages": [{"role": "user", "content": "Hi"}, fields]})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "this is not a stored history: it is no JSON"),
        ("{", "this is not a stored history: it is no JSON"),
        pytest.param("[" * 100_000, "this is not a stored history: it is no JSON", id="too deep"),
        (b"\xff\xfe\xff", "this is not a stored history: it is no JSON"),
        ("[]", "this is not a stored history: it has no 'messages'"),
        ("null", "this is not a stored history: it has no 'messages'"),
        ('{"version": 1}', "this is not a stored history: it has no 'messages'"),
        (
            '{"version": 2, "messages": []}',
            "this history is of version 2, and this turnscope reads version 1: a newer one may",
        ),
        ('{"messages": []}', "this history is of version None"),
        ('{"version": 1, "messages": {}}', "'messages' is a dict, not a list"),
        ('{"version": 1, "messages": [5]}', "message 0 of the stored history: it is a int, not an"),
        (message(), "message 1 of the stored history: it has no 'role'"),
        (message(role="system"), "its role is 'system', not user, assistant or result"),
        (message(role="user"), "message 1 of the stored history: it has no 'content'"),
        (message(role="user", content=5), "its content is a int, not a list"),
        (message(role="user", content=["a"]), "a part is a str, not an object"),
        (message(role="user", content=[{}]), "it has no 'media_type'"),
        (
            message(role="user", content=[{"media_type": "text/plain"}]),
            "a Content has exactly one of text=, data= and url=",
        ),
        (
            message(role="user", content=[{"media_type": "image/png", "data": "!"}]),
            "the data of a part is no base64",
        ),
        (
            message(role="user", content=[{"media_type": "image/png", "data": 5}]),
            "the data of a part is no base64",
        ),
        (
            message(role="user", content=[{"media_type": "text/plain", "text": 5}]),
            "its 'text' is a int, not a string",
        ),
        (message(role="assistant"), "it has no 'text'"),
        (message(role="assistant", text=5), "its 'text' is a int, not a string"),
        (message(role="assistant", text="", calls=5), "calls is a int, not a list"),
        (message(role="assistant", text="", calls=[5]), "a call is a int, not an object"),
        (message(role="assistant", text="", calls=[{"id": "a"}]), "it has no 'name'"),
        (
            message(role="assistant", text="", calls=[{"id": "a", "name": "b", "arguments": {}}]),
            "its 'arguments' is a dict, not a string",
        ),
        (message(role="assistant", text="a", reasoning=[5]), "a part of the reasoning is a int"),
        (message(role="assistant", text="a", reasoning=5), "reasoning is a int, not a list"),
        (
            message(role="result", id="c", name="t", status="fine", content=""),
            "'fine' is not a valid Status",
        ),
        (message(role="result", name="t", status="ok", content=""), "it has no 'id'"),
        (
            message(role="result", id="c", name="t", status="ok", content=""),
            "message 1 of the history is a result, 'c', of no call before it",
        ),
        (
            message(role="assistant", text="", calls=[{"id": "a", "name": "b", "arguments": "{}"}]),
            "the history ends without the result of the call 'a'",
        ),
    ],
)
def test_what_is_no_stored_conversation_is_refused_with_a_sentence(text: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        History.from_json(text)
    assert said in str(caught.value)


@given(JSON)
def test_reading_never_raises_anything_but_value_error(value: Any) -> None:
    for text in (
        json.dumps(value),
        json.dumps({"version": 1, "messages": value}),
        message(a=value),
    ):
        with contextlib.suppress(ValueError):
            History.from_json(text)


def test_what_is_no_json_cannot_be_stored() -> None:
    history = History([AssistantMessage(text="a", reasoning=(Reasoning("", object()),))])
    with pytest.raises(TypeError, match="not JSON serializable"):
        history.to_json()
    nan = History([AssistantMessage(text="a", reasoning=(Reasoning("", float("nan")),))])
    with pytest.raises(ValueError, match="JSON"):
        nan.to_json()
