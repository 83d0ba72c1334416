"""What is read out of a stream of chunks, however its bytes are cut and however its server counts."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.adapters.openai.asking import RECORDED, REQUEST, ask, canned, read, split, told
from tests.adapters.openai.server import DONE, HELLO, LAST_USAGE, USAGE, chunk, piece
from tests.support import Loop
from turnscope import ModelError, Usage
from turnscope.events import (
    CallDelta,
    CallSealed,
    ModelFinished,
    ReasoningDelta,
    TextDelta,
)
from turnscope_adapters._sse import EventReader

CALLS = [
    ("get_weather", {"city": "Paris", "unit": "C"}),
    ("get_weather", {"city": "Tokyo", "unit": "C"}),
    ("get_time", {}),
]
END = chunk(finish="tool_calls") + DONE


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_recorded_stream_is_read(path: Path, any_loop: Loop) -> None:
    found = told(read(any_loop, path.read_bytes()))
    assert [(name, json.loads(arguments)) for _, name, arguments in found.calls] == CALLS
    assert all(call_id for call_id, _, _ in found.calls)
    assert found.sealed == [0, 1, 2]
    assert found.finished.reason == "calls"
    assert (
        found.finished.usage
        == {
            "aimock.chat.sse": Usage(input_tokens=6, output_tokens=27),
            "llamaserver.chat.sse": Usage(input_tokens=888, output_tokens=10),
        }[path.name]
    )


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_recorded_stream_means_the_same_wherever_it_is_cut_in_two(
    path: Path, any_loop: Loop
) -> None:
    data = path.read_bytes()
    whole = read(any_loop, data)
    cuts = iter(range(len(data)))
    model = canned(lambda: split(data, [next(cuts)]))

    async def main() -> None:
        for _ in data:
            assert await ask(model) == whole

    any_loop.run(main)
    assert read(any_loop, data, range(len(data))) == whole, "and byte by byte"


@given(data=st.data())
def test_a_stream_means_the_same_however_it_is_cut(data: st.DataObject, any_loop: Loop) -> None:
    text = "".join(
        [
            chunk({"content": "naïve — 天気 🌦"}),
            ": keep-alive\n\n",
            chunk(piece(0, "a", "天", '{"città": "北京"}')),
            END,
        ]
    )
    text = text.replace("\n", data.draw(st.sampled_from(["\n", "\r\n", "\r"])))
    encoded = text.encode()
    cuts = data.draw(st.lists(st.integers(0, len(encoded)), max_size=20))
    found = read(any_loop, encoded, cuts)
    assert found == [
        TextDelta("naïve — 天気 🌦"),
        CallDelta(0, "a", "天", '{"città": "北京"}'),
        CallSealed(0),
        ModelFinished("calls"),
    ]


LINES = st.tuples(
    st.sampled_from(
        ["", "data", "data:", "data: a", "data:  b", "data:ü€🌦", ": no", "event: e", "id: 1"]
    ),
    st.sampled_from(["\n", "\r\n", "\r"]),
)


def by_the_book(text: str) -> list[tuple[str, str]]:
    """Server-sent events as the standard says, of a text that is all there."""
    events, name, data = [], "", []
    for line in [*re.split("\r\n|\r|\n", text.removeprefix("\ufeff")), ""]:
        if not line:
            if data:
                events.append((name, "\n".join(data)))
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
    return events


@given(
    lines=st.lists(LINES, max_size=12),
    bom=st.booleans(),
    cuts=st.lists(st.integers(0, 150), max_size=12),
)
@example(lines=[("data: a", "\r\n"), ("data: b", "\r\n"), ("", "\r\n")], bom=False, cuts=[8, 9, 17])
@example(lines=[("data: a", "\r\n"), ("data", "\n")], bom=False, cuts=[8, 8])
@example(lines=[("data: a", "\r"), ("", "\n"), ("data: b", "\r")], bom=True, cuts=[1, 11])
def test_events_are_those_of_the_standard(
    lines: list[tuple[str, str]], bom: bool, cuts: list[int]
) -> None:
    text = ("\ufeff" if bom else "") + "".join(line + end for line, end in lines)
    data = text.encode()
    reader = EventReader(10_000)
    found = [
        event
        for part in split(data, [cut for cut in cuts if cut <= len(data)])
        for event in reader.feed(part)
    ]
    found += reader.finish()
    assert [(event.name, event.data) for event in found] == by_the_book(text)


NAMES = st.sampled_from(["weather", "time", "search"])
VALUES = st.recursive(
    st.text(alphabet='ab{}"\\ü,: ', max_size=6) | st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xy"), inner),
    max_leaves=4,
)
ARGUMENTS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3).map(
    lambda value: json.dumps(value, ensure_ascii=False)
)


@st.composite
def servers(draw: st.DrawFn) -> tuple[list[tuple[str, str]], list[dict[str, Any]], dict[str, str]]:
    """Calls; their deltas, from a server that counts in a way of its own; and that way."""
    calls = draw(st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=4))
    index = draw(st.sampled_from(["each", "gaps", "constant", "missing"]))
    ids = draw(st.sampled_from(["each", "repeated", "constant", "missing", "empty"]))
    names = draw(st.sampled_from(["first", "repeated"]))
    told_apart = index in ("each", "gaps") or ids in ("each", "repeated")
    deltas = []
    for number, (name, arguments) in enumerate(calls):
        cuts = sorted(draw(st.lists(st.integers(1, len(arguments)), max_size=5)))
        places = [0, *cuts, len(arguments)]
        parts = [arguments[a:b] for a, b in itertools.pairwise(places)]
        if told_apart and draw(st.booleans()):
            parts = ["", *parts]
        for place, part in enumerate(parts):
            first = place == 0
            wire = {"each": number, "gaps": 3 * number + 1, "constant": 0, "missing": None}[index]
            call_id = {
                "each": f"id{number}" if first else None,
                "repeated": f"id{number}",
                "constant": "id",
                "missing": None,
                "empty": "",
            }[ids]
            deltas.append(
                piece(wire, call_id, name if first or names == "repeated" else None, part)
            )
    return calls, deltas, {"index": index, "ids": ids, "names": names}


@given(case=servers(), together=st.booleans())
def test_calls_are_told_apart_however_the_server_counts(
    case: tuple[list[tuple[str, str]], list[dict[str, Any]], dict[str, str]],
    together: bool,
    any_loop: Loop,
) -> None:
    calls, deltas, _ = case
    if together:  # all pieces in one chunk
        deltas = [{"tool_calls": [entry for delta in deltas for entry in delta["tool_calls"]]}]
    found = told(read(any_loop, "".join(map(chunk, deltas)) + END))
    assert [(name, arguments) for _, name, arguments in found.calls] == calls
    assert found.sealed == list(range(len(calls)))
    assert found.finished.reason == "calls"


def test_a_call_is_sealed_when_the_next_begins_and_not_when_its_json_is_whole(
    any_loop: Loop,
) -> None:
    pieces = [piece(0, "a", "f", "{}"), {"content": "and"}, piece(1, "b", "g", "{}")]
    assert read(any_loop, "".join(map(chunk, pieces)) + END) == [
        CallDelta(0, "a", "f", "{}"),
        TextDelta("and"),
        CallSealed(0),
        CallDelta(1, "b", "g", "{}"),
        CallSealed(1),
        ModelFinished("calls"),
    ]


def test_the_last_call_is_sealed_as_soon_as_the_server_gives_its_reason(any_loop: Loop) -> None:
    first = (chunk(piece(0, "a", "f", "{}")) + chunk(finish="tool_calls")).encode()
    model = canned(lambda: [first, None])  # the usage is still to come

    async def main() -> None:
        async with model.stream(REQUEST) as events:
            with anyio.fail_after(5):
                assert await anext(events) == CallDelta(0, "a", "f", "{}")
                assert await anext(events) == CallSealed(0)

    any_loop.run(main)


@pytest.mark.parametrize(
    "second",
    [
        piece(0, "b", "f", "{}"),
        piece(0, "b", "g", "{}"),
        piece(0, None, "g", "{}"),
        piece(0, None, "f", "{}"),
    ],
    ids=[
        "another id",
        "another id and name",
        "another name",
        "the same name, after whole arguments",
    ],
)
def test_a_call_may_begin_under_the_index_of_the_one_before(
    second: dict[str, Any], any_loop: Loop
) -> None:
    found = told(read(any_loop, chunk(piece(0, "a", "f", "{}")) + chunk(second) + END))
    assert len(found.calls) == 2
    assert found.sealed == [0, 1]


def test_another_name_begins_another_call_also_before_its_arguments(any_loop: Loop) -> None:
    pieces = [piece(0, None, "f", "{}"), piece(0, None, "g", ""), piece(0, None, None, "{}")]
    found = told(read(any_loop, "".join(map(chunk, pieces)) + END))
    assert found.calls == [(None, "f", "{}"), (None, "g", "{}")]


def test_an_id_that_changes_with_each_piece_makes_no_new_call(any_loop: Loop) -> None:
    pieces = [piece(0, "a", "f", "{"), piece(0, "b", None, "}")]
    found = told(read(any_loop, "".join(map(chunk, pieces)) + END))
    assert found.calls == [("a", "f", "{}")]


def test_arguments_that_are_no_text_become_json(any_loop: Loop) -> None:
    delta = piece(0, "a", "f")
    delta["tool_calls"][0]["function"]["arguments"] = {"city": "Köln"}
    found = told(read(any_loop, chunk(delta) + END))
    assert found.calls == [("a", "f", '{"city": "Köln"}')]


def test_the_calls_of_the_old_protocol_are_read(any_loop: Loop) -> None:
    pieces = [
        {"function_call": {"name": "f", "arguments": "{"}},
        {"function_call": {"arguments": "}"}},
    ]
    text = "".join(map(chunk, pieces)) + chunk(finish="function_call") + DONE
    found = told(read(any_loop, text))
    assert found.calls == [(None, "f", "{}")]
    assert found.finished.reason == "calls"


def test_a_server_that_goes_back_to_a_call_is_refused(any_loop: Loop) -> None:
    pieces = [piece(0, "a", "f", "{"), piece(1, "b", "g", "{}"), piece(0, None, None, "}")]
    with pytest.raises(ModelError, match="went on with the call of 'f'"):
        read(any_loop, "".join(map(chunk, pieces)) + END)
    unnumbered = [
        piece(None, "a", "f", "{"),
        piece(None, "b", "g", "{}"),
        piece(None, "a", None, "}"),
    ]
    with pytest.raises(ModelError, match="went on with the call of 'f'"):
        read(any_loop, "".join(map(chunk, unnumbered)) + END)
    # An empty piece says nothing, and some servers end with one.
    pieces[0], pieces[2] = piece(0, "a", "f", "{}"), piece(0, None, None, "")
    assert told(read(any_loop, "".join(map(chunk, pieces)) + END)).sealed == [0, 1]


CALL = piece(0, "a", "f", "{}")


@pytest.mark.parametrize(
    ("deltas", "finish", "reason", "sealed"),
    [
        ([{"content": "x"}], "stop", "stop", []),
        ([{"content": "x"}], "eos", "stop", []),
        ([CALL], "stop", "calls", [0]),
        ([CALL], "tool_calls", "calls", [0]),
        ([{"content": "x"}], "tool_calls", "stop", []),
        ([{"content": "x"}], "length", "length", []),
        ([CALL], "length", "length", []),
        ([{"content": "x"}], "content_filter", "filtered", []),
        ([{"refusal": "no"}], "stop", "refusal", []),
        ([{"content": "x"}], "refusal", "refusal", []),
    ],
)
def test_the_reason_for_the_end_is_told(
    deltas: list[dict[str, Any]], finish: str, reason: str, sealed: list[int], any_loop: Loop
) -> None:
    found = told(read(any_loop, "".join(map(chunk, deltas)) + chunk(finish=finish) + DONE))
    assert found.finished.reason == reason
    assert found.sealed == sealed


def test_the_text_of_a_refusal_is_text(any_loop: Loop) -> None:
    text = chunk({"refusal": "I will "}) + chunk({"refusal": "not."}) + chunk(finish="stop") + DONE
    assert told(read(any_loop, text)).text == "I will not."


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_apart_from_text(field: str, any_loop: Loop) -> None:
    text = chunk({field: "hm", "content": None}) + chunk({"content": "x", field: None})
    events = read(any_loop, text + chunk(finish="stop") + DONE)
    assert events == [ReasoningDelta("hm"), TextDelta("x"), ModelFinished("stop")]


def test_reasoning_that_comes_under_two_names_is_read_once(any_loop: Loop) -> None:
    text = chunk({"reasoning": "hm", "reasoning_content": "hm"}) + chunk(finish="stop") + DONE
    assert read(any_loop, text)[:-1] == [ReasoningDelta("hm")]


ALL = Usage(input_tokens=11, output_tokens=7, cached_tokens=3, reasoning_tokens=2)


@pytest.mark.parametrize(
    ("text", "usage"),
    [
        (chunk(finish="stop") + LAST_USAGE, ALL),
        (chunk(finish="stop", usage=USAGE), ALL),
        (
            chunk(usage={"prompt_tokens": 11, "completion_tokens": 1})
            + chunk(finish="stop", usage=USAGE),
            ALL,
        ),
        (chunk(finish="stop", usage=None), Usage()),
        (
            chunk(finish="stop", usage={"prompt_tokens": None, "completion_tokens": 4}),
            Usage(output_tokens=4),
        ),
        (
            chunk(finish="stop", usage={"prompt_tokens": 1, "prompt_tokens_details": None}),
            Usage(input_tokens=1),
        ),
        (chunk(finish="stop"), Usage()),
    ],
    ids=[
        "its own chunk",
        "with the reason",
        "in each chunk",
        "null",
        "a null in it",
        "no details",
        "none",
    ],
)
def test_the_usage_is_read_from_where_it_is(text: str, usage: Usage, any_loop: Loop) -> None:
    events = read(any_loop, "".join(HELLO) + text + DONE)
    assert events == [TextDelta("Hel"), TextDelta("lo"), ModelFinished("stop", usage)]


@pytest.mark.parametrize(
    "before",
    [
        chunk(choices=[]),
        chunk(choices=None),
        chunk({"role": "assistant", "content": None}),
        chunk({"role": "assistant", "content": "", "tool_calls": None, "function_call": None}),
        chunk(choices=[{"index": 0, "delta": None, "finish_reason": ""}]),
        "data:\n\n",
        ": OPENROUTER PROCESSING\n\n",
        "event: ping\n\n",
        chunk(choices=[{"index": 1, "delta": {"content": "another choice"}}]),
        chunk(choices=[{"index": 0, "delta": {}, "message": {"content": "all so far"}}]),
    ],
)
def test_what_says_nothing_is_passed_over(before: str, any_loop: Loop) -> None:
    events = read(any_loop, before + chunk({"content": "x"}) + before + chunk(finish="stop") + DONE)
    assert events == [TextDelta("x"), ModelFinished("stop")]


def test_text_that_comes_in_parts_is_read(any_loop: Loop) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "thinking"}, {"type": "text", "text": "b"}]
    events = read(any_loop, chunk({"content": parts}) + chunk(finish="stop") + DONE)
    assert events[0] == TextDelta("ab")


@pytest.mark.parametrize("end", ["", DONE.strip(), "data: [DONE]\n"])
def test_a_whole_answer_needs_no_done(end: str, any_loop: Loop) -> None:
    text = "".join(HELLO) + chunk(finish="stop").strip() + ("\n\n" + end if end else "")
    assert told(read(any_loop, text)).text == "Hello"


@pytest.mark.parametrize("end", ["", DONE])
def test_an_answer_without_a_reason_for_its_end_is_not_whole(end: str, any_loop: Loop) -> None:
    with pytest.raises(ModelError, match="ended before the response was complete"):
        read(any_loop, "".join(HELLO) + end)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ("data: {oops\n\n", "it is not JSON: {oops"),
        ("data: [1]\n\n", "list where an object belongs"),
        ("data: 7\n\n", "int where an object belongs"),
        ("data: " + "[" * 100_000 + "\n\n", "it has more than 100 levels"),
        (chunk(deep=json.loads("[" * 101 + "]" * 101)), "it has more than 100 levels"),
        (chunk(choices=5), "int where a list belongs"),
        (chunk(choices=[5]), "int where an object belongs"),
        (chunk({"content": 5}), "int where text belongs"),
        (chunk({"tool_calls": {}}), "dict where a list belongs"),
        (chunk(piece(0, "a", 5, "{}")), "int where text belongs"),
        (chunk(piece(0, "a", "f", [[]])), "list where an object belongs"),
        (chunk(usage=[1]), "list where an object belongs"),
    ],
)
def test_a_chunk_that_cannot_be_read_is_shown(event: str, words: str, any_loop: Loop) -> None:
    with pytest.raises(ModelError, match=re.escape(words)) as caught:
        read(any_loop, HELLO[1] + event + DONE)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("event", "status", "words"),
    [
        ('data: {"error": {"message": "overloaded", "code": 503}}\n\n', 503, "overloaded"),
        ('data: {"error": {"message": "slow down", "code": "429"}}\n\n', 429, "slow down"),
        ('data: {"error": "out of memory"}\n\n', None, "out of memory"),
        ('event: error\ndata: {"message": "no"}\n\n', None, "no"),
        ('data: {"object": "error", "message": "too long", "code": 400}\n\n', 400, "too long"),
        (chunk(error={"message": "died", "code": "server_error"}), None, "died"),
        (chunk(finish="error"), None, "'error'"),
    ],
)
def test_an_error_within_the_stream_is_raised(
    event: str, status: int | None, words: str, any_loop: Loop
) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        read(any_loop, HELLO[1] + event + chunk(finish="stop") + DONE)
    assert caught.value.status == status


def test_a_chunk_may_be_as_long_as_it_is_allowed_to_be(any_loop: Loop) -> None:
    long = chunk({"content": "x" * 1_000_000})
    assert told(read(any_loop, long + chunk(finish="stop") + DONE)).text == "x" * 1_000_000

    size = len(long.strip())
    data = (long + chunk(finish="stop") + DONE).encode()
    allowed = canned(lambda: split(data, range(0, len(data), 65_536)), longest_chunk=size)
    assert told(any_loop.run(ask, allowed)).finished.reason == "stop"
    refused = canned(lambda: split(data, range(0, len(data), 65_536)), longest_chunk=size - 1)
    with pytest.raises(ModelError, match="longest_chunk="):
        any_loop.run(ask, refused)


def test_an_answer_may_be_as_long_as_it_is_allowed_to_be(any_loop: Loop) -> None:
    data = ("".join(HELLO) + ": still at work\n" * 100 + chunk(finish="stop") + DONE).encode()
    pieces = split(data, range(0, len(data), 100))
    allowed = canned(lambda: pieces, longest_answer=len(data))
    assert told(any_loop.run(ask, allowed)).text == "Hello"
    refused = canned(lambda: pieces, longest_answer=len(data) - 200)
    with pytest.raises(ModelError, match=r"more than 2,\d+ bytes.*longest_answer="):
        any_loop.run(ask, refused)


@pytest.mark.parametrize("line", [b"x", b"data: x", b"data: x\n", b"x\n"])
def test_a_chunk_that_never_ends_is_not_kept(line: bytes) -> None:
    reader = EventReader(1_000)
    with pytest.raises(ModelError, match="1,000 bytes"):
        for _ in range(2_000):
            reader.feed(line)


def test_comments_may_come_for_ever() -> None:
    reader = EventReader(1_000)
    for _ in range(2_000):
        assert reader.feed(b": still at work\n") == []


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_recorded_stream_that_ends_anywhere_is_whole_or_an_error_that_may_pass(
    path: Path, any_loop: Loop
) -> None:
    data = path.read_bytes()
    finished = read(any_loop, data)[:-1]
    whole = 0
    for length in range(0, len(data), 7):
        try:
            events = read(any_loop, data[:length])
        except ModelError as exc:
            assert exc.transient
            assert not whole, "once it is whole, nothing that is missing makes it less"
        else:
            whole += 1
            assert events[:-1] == finished
            assert events[-1].reason == "calls"
    assert whole
