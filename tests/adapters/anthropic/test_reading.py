"""What is read out of a Messages stream, however its bytes are cut."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.adapters.anthropic.messages import (
    GOOD,
    HELLO,
    PING,
    RECORDED,
    STOP,
    begin,
    calling,
    canned,
    delta,
    end,
    event,
    failing,
    heard,
    read,
    start,
    stop,
    text,
    thinking,
)
from tests.adapters.openai.asking import REQUEST, split, told
from tests.support import Loop
from turnscope import ModelError, Usage
from turnscope.events import CallDelta, CallSealed, ModelFinished, ReasoningDelta, TextDelta

CALLS = [
    ("get_weather", {"city": "Paris", "unit": "C"}),
    ("get_weather", {"city": "Tokyo", "unit": "C"}),
    ("get_time", {}),
]
USAGES = {
    "aimock.messages.sse": Usage(),
    "llamaserver.messages.sse": Usage(input_tokens=888, output_tokens=10, cached_tokens=887),
}
# Everything that a stream may have in it.
RICH = "".join(
    [
        start(input_tokens=3),
        thinking(0, "c2ln+/==", "naïve — ", "天気 🌦"),
        begin(1, "redacted_thinking", data="ZGF0YQ=="),
        stop(1),
        PING,
        text(2, "Je vais ", "voir…"),
        calling(3, "toolu_a", "weather", '{"città": "北', '京"}'),
        stop(3),
        calling(4, "toolu_b", "time"),
        stop(4),
        end("tool_use", output_tokens=9),
    ]
)


def kept(block: dict[str, Any], text: int = 0, calls: int = 0) -> dict[str, Any]:
    return {"anthropic": block, "after": [text, calls]}


RICH_EVENTS = [
    ReasoningDelta("naïve — "),
    ReasoningDelta("天気 🌦"),
    ReasoningDelta("", kept({"type": "thinking", "signature": "c2ln+/=="})),
    ReasoningDelta("", kept({"type": "redacted_thinking", "data": "ZGF0YQ=="})),
    TextDelta("Je vais "),
    TextDelta("voir…"),
    CallDelta(0, "toolu_a", "weather", ""),
    CallDelta(0, arguments='{"città": "北'),
    CallDelta(0, arguments='京"}'),
    CallSealed(0),
    CallDelta(1, "toolu_b", "time", ""),
    CallSealed(1),
    ModelFinished("calls", Usage(input_tokens=3, output_tokens=9)),
]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_recorded_stream_is_read(path: Path, any_loop: Loop) -> None:
    found = told(read(any_loop, path.read_bytes()))
    assert [(name, json.loads(arguments)) for _, name, arguments in found.calls] == CALLS
    assert all(call_id for call_id, _, _ in found.calls)
    assert found.sealed == [0, 1, 2]
    assert found.finished == ModelFinished("calls", USAGES[path.name])
    assert found.text == ("Let me look both up." if path.name.startswith("aimock") else "")


def test_both_recorded_streams_are_there() -> None:
    assert [path.name for path in RECORDED] == sorted(USAGES)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_recorded_stream_that_comes_byte_by_byte_means_the_same(
    path: Path, any_loop: Loop
) -> None:
    data = path.read_bytes()
    assert read(any_loop, data, range(len(data))) == read(any_loop, data)


# Every place there is; on one event loop, since what follows has some of them on each.
ONE_LOOP = Loop("asyncio", virtual=False)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_recorded_stream_means_the_same_wherever_it_is_cut_in_two(path: Path) -> None:
    data = path.read_bytes()
    whole = read(ONE_LOOP, data)

    async def main() -> None:
        for cut in range(len(data)):
            assert await heard(split(data, [cut])) == whole

    ONE_LOOP.run(main)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_recorded_stream_that_ends_anywhere_is_whole_or_one_error(path: Path) -> None:
    data = path.read_bytes()
    whole = read(ONE_LOOP, data)
    told_why = data.index(b'"stop_reason":"tool_use"')

    async def main() -> None:
        for length in range(len(data)):
            try:
                events = await heard([data[:length]])
            except ModelError as exc:
                assert exc.transient, "asked again, it may be whole"
                assert length < data.index(b"event: message_stop")
            else:
                assert events == whole
                assert length > told_why

    ONE_LOOP.run(main)


@given(
    cuts=st.lists(st.integers(0, len(RICH.encode())), max_size=20),
    line=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_a_stream_means_the_same_however_it_is_cut(
    cuts: list[int], line: str, any_loop: Loop
) -> None:
    data = RICH.replace("\n", line).encode()
    assert read(any_loop, data, cuts) == RICH_EVENTS


@given(length=st.integers(0, len(RICH.encode()) - 1), cuts=st.lists(st.integers(0, 400)))
def test_a_stream_that_ends_anywhere_gives_its_events_or_one_error(
    length: int, cuts: list[int], any_loop: Loop
) -> None:
    data = RICH.encode()[:length]
    model = canned(lambda: split(data, [cut for cut in cuts if cut <= length]))

    async def main() -> None:
        found: list[Any] = []
        try:
            async with model.stream(REQUEST) as events:
                async for each in events:
                    found.append(each)  # noqa: PERF401  # because a comprehension that raises keeps nothing
        except ModelError as exc:
            assert exc.transient
            assert not any(isinstance(each, ModelFinished) for each in found)
        else:
            assert found == RICH_EVENTS
        # What was read before the error is what would have been read without it: a call that
        # started early is one that the whole response has.
        assert found == RICH_EVENTS[: len(found)]

    any_loop.run(main)


# Calls.


async def first(model: Any, count: int) -> list[Any]:
    """The first *count* events of a response whose rest does not come."""
    async with model.stream(REQUEST) as events:
        with anyio.fail_after(5):
            return [await anext(events) for _ in range(count)]


@pytest.mark.parametrize("after", [stop(0), begin(1, "text", text=""), begin(1, "tool_use")])
def test_a_call_is_sealed_when_its_block_stops_or_the_next_begins(
    after: str, any_loop: Loop
) -> None:
    stream = start() + calling(0, "a", "f", "{}") + after
    events = any_loop.run(first, canned(lambda: [stream.encode(), None]), 3)
    assert events == [CallDelta(0, "a", "f", ""), CallDelta(0, arguments="{}"), CallSealed(0)]


def test_a_call_is_not_sealed_because_its_json_is_whole(any_loop: Loop) -> None:
    stream = start() + calling(0, "a", "f", "{}", " ") + stop(0) + end("tool_use")
    kinds = [type(each) for each in read(any_loop, stream)]
    assert kinds == [CallDelta, CallDelta, CallDelta, CallSealed, ModelFinished]


@pytest.mark.parametrize("after", [calling(1, "b", "g"), end("tool_use")[: -len(STOP)]])
def test_a_call_without_arguments_is_sealed_when_it_cannot_have_been_cut(
    after: str, any_loop: Loop
) -> None:
    stream = start() + calling(0, "a", "f", "") + stop(0)
    events = any_loop.run(first, canned(lambda: [(stream + after).encode(), None]), 2)
    assert events == [CallDelta(0, "a", "f", ""), CallSealed(0)]


@pytest.mark.parametrize(
    ("pieces", "sealed"), [([], []), ([""], []), (['{"path": "/'], [0]), (["{}"], [0])]
)
def test_a_call_that_may_have_been_cut_before_its_arguments_is_not_sealed(
    pieces: list[str], sealed: list[int], any_loop: Loop
) -> None:
    stream = start() + calling(0, "a", "f", *pieces) + stop(0) + end("max_tokens")
    found = told(read(any_loop, stream))
    assert (found.sealed, found.finished.reason) == (sealed, "length")


def test_arguments_may_come_whole_with_the_beginning_of_a_call(any_loop: Loop) -> None:
    whole = begin(0, "tool_use", id="a", name="f", input={"città": "Köln"})
    found = told(read(any_loop, start() + whole + stop(0) + end("tool_use")))
    assert found.calls == [("a", "f", '{"città": "Köln"}')]
    assert found.sealed == [0]
    pieces = delta(0, "input_json_delta", partial_json='{"x": 1}')
    found = told(read(any_loop, start() + whole + pieces + stop(0) + end("tool_use")))
    assert found.calls == [("a", "f", '{"x": 1}')], "pieces are what counts"


def test_blocks_may_all_stop_at_the_end(any_loop: Loop) -> None:
    """As llama-server's do."""
    stream = start() + calling(0, "a", "f", "{}") + calling(1, "b", "g", "{}")
    found = told(read(any_loop, stream + stop(0) + stop(1) + end("tool_use")))
    assert found.calls == [("a", "f", "{}"), ("b", "g", "{}")]
    assert found.sealed == [0, 1]


def test_a_server_that_goes_back_to_a_call_is_refused(any_loop: Loop) -> None:
    stream = start() + calling(0, "a", "f", "{") + calling(1, "b", "g", "{}")
    more = delta(0, "input_json_delta", partial_json="}")
    with pytest.raises(ModelError, match="went on with the call of 'f'"):
        read(any_loop, stream + more + end("tool_use"))
    nothing = delta(0, "input_json_delta", partial_json="")
    assert told(read(any_loop, stream + nothing + end("tool_use"))).sealed == [0, 1]


def test_ids_and_indexes_may_repeat(any_loop: Loop) -> None:
    stream = "".join(calling(0, "same", name, "{}") + stop(0) for name in ("f", "g"))
    found = told(read(any_loop, start() + stream + end("tool_use")))
    assert found.calls == [("same", "f", "{}"), ("same", "g", "{}")]


def test_a_missing_id_is_none(any_loop: Loop) -> None:
    stream = start() + begin(0, "tool_use", name="f") + stop(0) + end("tool_use")
    assert told(read(any_loop, stream)).calls == [(None, "f", "")]


# Thoughts, and what is passed over.


def test_thinking_is_kept_with_its_signature_and_its_place(any_loop: Loop) -> None:
    stream = "".join(
        [
            start(),
            thinking(0, "s1", "first"),
            text(1, "ab"),
            thinking(2, "s2", ""),  # shown to nobody, and signed all the same
            calling(3, "a", "f", "{}"),
            stop(3),
            begin(4, "thinking", thinking="thi", signature="s0"),
            delta(4, "thinking_delta", thinking="rd"),
            stop(4),
            calling(5, "b", "g", "{}"),
            end("tool_use"),
        ]
    )
    found = [each for each in read(any_loop, stream) if isinstance(each, ReasoningDelta)]
    assert found == [
        ReasoningDelta("first"),
        ReasoningDelta("", kept({"type": "thinking", "signature": "s1"})),
        ReasoningDelta("", kept({"type": "thinking", "signature": "s2"}, text=2)),
        ReasoningDelta("thi"),
        ReasoningDelta("rd"),
        ReasoningDelta("", kept({"type": "thinking", "signature": "s0"}, text=2, calls=1)),
    ]


@pytest.mark.parametrize("after", [stop(0), text(1, "x"), end("max_tokens")])
def test_a_thought_without_a_signature_ends_all_the_same(after: str, any_loop: Loop) -> None:
    opened = begin(0, "thinking") + delta(0, "thinking_delta", thinking="hm")
    events = read(any_loop, start() + opened + after + end())
    assert events[:2] == [
        ReasoningDelta("hm"),
        ReasoningDelta("", kept({"type": "thinking", "signature": ""})),
    ]


@pytest.mark.parametrize(
    "between",
    [
        PING,
        "event: ping\ndata: pong\n\n",
        ": keep-alive\n\n",
        event("something_new", field=[1]),
        begin(7, "server_tool_use", id="s", name="web_search", input={})
        + delta(7, "input_json_delta", partial_json='{"query": "x"}')
        + stop(7),
        begin(7, "web_search_tool_result", tool_use_id="s", content=[]) + stop(7),
        stop(9),
    ],
)
def test_what_is_not_known_is_passed_over(between: str, any_loop: Loop) -> None:
    stream = start() + between + text(0, "x") + between + end()
    assert read(any_loop, stream) == [TextDelta("x"), ModelFinished("stop")]


@pytest.mark.parametrize(
    "piece",
    [
        delta(0, "citations_delta", citation={"type": "char_location"}),
        delta(0, "something_new", text="y"),
        delta(0, "input_json_delta", partial_json="{}"),
        delta(0, "text_delta", text=None),
    ],
)
def test_pieces_that_are_not_of_their_block_are_passed_over(piece: str, any_loop: Loop) -> None:
    stream = start() + begin(0, "text", text="x") + piece + stop(0) + end()
    assert read(any_loop, stream) == [TextDelta("x"), ModelFinished("stop")]


# The end.


@pytest.mark.parametrize(
    ("blocks", "given", "reason"),
    [
        (text(0, "x"), "end_turn", "stop"),
        (text(0, "x"), "stop_sequence", "stop"),
        (text(0, "x"), "something_new", "stop"),
        (text(0, "x"), None, "stop"),
        (text(0, "x"), "tool_use", "stop"),
        (calling(0, "a", "f", "{}"), "tool_use", "calls"),
        (calling(0, "a", "f", "{}"), "end_turn", "calls"),
        (text(0, "x"), "max_tokens", "length"),
        (text(0, "x"), "model_context_window_exceeded", "length"),
        (text(0, "x"), "refusal", "refusal"),
        ("", "refusal", "refusal"),
    ],
)
def test_the_reason_for_the_end_is_told(
    blocks: str, given: str | None, reason: str, any_loop: Loop
) -> None:
    assert told(read(any_loop, start() + blocks + end(given))).finished.reason == reason


def test_the_last_call_of_a_refusal_is_not_sealed(any_loop: Loop) -> None:
    found = told(read(any_loop, start() + calling(0, "a", "f", "{}") + end("refusal")))
    assert (found.sealed, found.finished.reason) == ([], "refusal")


def test_a_paused_answer_is_an_error_that_says_so(any_loop: Loop) -> None:
    with pytest.raises(ModelError, match="pause_turn") as caught:
        read(any_loop, start() + text(0, "x") + end("pause_turn"))
    assert not caught.value.transient


@pytest.mark.parametrize("ending", ["", "event: message_stop", "event: message_stop\ndata: {}"])
def test_an_answer_whose_reason_was_told_needs_no_message_stop(ending: str, any_loop: Loop) -> None:
    stream = "".join(GOOD)[: -len(STOP)] + ending
    assert told(read(any_loop, stream)).text == "Hello"


def test_a_stream_that_ends_before_its_reason_is_an_error_that_may_pass(any_loop: Loop) -> None:
    with pytest.raises(ModelError, match="ended before the response was complete") as caught:
        read(any_loop, "".join(HELLO) + stop(0))
    assert caught.value.transient


def test_nothing_after_the_last_event_is_read(any_loop: Loop) -> None:
    assert told(read(any_loop, "".join(GOOD) + "data: oops\n\n" + "".join(GOOD))).text == "Hello"


@pytest.mark.parametrize(
    ("first", "last", "usage"),
    [
        ({"input_tokens": 5, "output_tokens": 1}, {"output_tokens": 7}, (5, 7, 0, 0)),
        (
            {"input_tokens": 5, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 100},
            {"output_tokens": 7},
            (125, 7, 100, 0),
        ),
        (
            {"input_tokens": 5},
            {"input_tokens": 6, "cache_read_input_tokens": 2, "output_tokens": 7},
            (8, 7, 2, 0),
        ),
        ({"cache_read_input_tokens": None}, {"input_tokens": None}, (0, 0, 0, 0)),
        ({}, {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}}, (0, 9, 0, 4)),
        ({"server_tool_use": {"web_search_requests": 3}, "service_tier": "x"}, {}, (0, 0, 0, 0)),
    ],
)
def test_the_usage_is_what_was_counted_last(
    first: dict[str, Any], last: dict[str, Any], usage: tuple[int, int, int, int], any_loop: Loop
) -> None:
    found = told(read(any_loop, start(**first) + text(0, "x") + end(**last))).finished.usage
    assert usage == (
        found.input_tokens,
        found.output_tokens,
        found.cached_tokens,
        found.reasoning_tokens,
    )


def test_a_stream_needs_neither_its_first_event_nor_a_usage(any_loop: Loop) -> None:
    told_why = event("message_delta", delta={"stop_reason": "end_turn"})
    assert read(any_loop, text(0, "x") + told_why) == [TextDelta("x"), ModelFinished("stop")]
    unnamed = (text(0, "x") + told_why).replace("event: ", "id: ")
    assert read(any_loop, unnamed) == [TextDelta("x"), ModelFinished("stop")]


# What is wrong.


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("data: {oops\n\n", "it is not JSON: {oops"),
        ("event: message_delta\ndata: [1]\n\n", "list where an object belongs"),
        ("data: " + "[" * 100_000 + "\n\n", "it has more than 100 levels"),
        (event("x", deep=json.loads("[" * 101 + "]" * 101)), "it has more than 100 levels"),
        (event("content_block_start", content_block={"type": "text"}), "without an index"),
        (event("content_block_start", index=0), "a block without a type"),
        (begin(0, "tool_use", name=5), "int where text belongs"),
        (begin(0, "tool_use", name="f", input=[1]), "list where an object belongs"),
        (begin(0, "text", text="") + event("content_block_delta", index=0), "without a type"),
        (delta(3, "text_delta", text="x"), "a block that has not begun"),
        (event("content_block_delta", delta={"type": "text_delta"}), "without an index"),
        (event("content_block_stop"), "without an index"),
        (text(0, "x").replace('"x"', "7"), "int where text belongs"),
        (event("message_delta", delta=7), "int where an object belongs"),
        (event("message_start", message={"usage": "much"}), "str where an object belongs"),
    ],
)
def test_an_event_that_cannot_be_read_is_shown(wrong: str, words: str, any_loop: Loop) -> None:
    with pytest.raises(ModelError, match=re.escape(words)) as caught:
        read(any_loop, start() + wrong + end())
    assert "cannot be read" in str(caught.value)
    assert not caught.value.transient
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("levels", [50, 97])
def test_an_event_of_many_values_is_not_deep(levels: int, any_loop: Loop) -> None:
    deep = json.loads("[" * levels + "]" * levels)
    stream = start() + event("x", wide=[{}] * 1_000, deep=deep) + text(0, "x") + end()
    assert told(read(any_loop, stream)).text == "x"


@pytest.mark.parametrize(
    ("wrong", "status", "transient", "words"),
    [
        (failing("overloaded_error", "Overloaded"), 529, True, "Overloaded"),
        (failing("rate_limit_error", "slow down"), 429, True, "slow down"),
        (failing("api_error", "oops"), 500, True, "oops"),
        (failing("timeout_error", "too slow"), 504, True, "too slow"),
        (failing("invalid_request_error", "bad"), 400, False, "bad"),
        (failing("authentication_error", "who?"), 401, False, "who?"),
        (failing("something_new", "hm"), None, False, "hm"),
        (event("error", error="in one word"), None, False, "in one word"),
        ('event: error\ndata: {"message": "no"}\n\n', None, False, "no"),
        ('data: {"error": {"type": "overloaded_error"}}\n\n', 529, True, "overloaded_error"),
        ('data: {"error": {"message": "a gateway", "code": 502}}\n\n', 502, True, "a gateway"),
    ],
)
@pytest.mark.parametrize("before", [[], HELLO])
def test_an_error_within_the_stream_is_raised(
    before: list[str],
    wrong: str,
    status: int | None,
    transient: bool,
    words: str,
    any_loop: Loop,
) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        read(any_loop, "".join(before) + wrong + end())
    assert (caught.value.status, caught.value.transient) == (status, transient)


def test_many_blocks_that_never_stop_cost_no_more_than_others(any_loop: Loop) -> None:
    stream = "".join(begin(index, "text", text="x") for index in range(20_000))
    began = time.monotonic()
    assert len(told(read(any_loop, start() + stream + end())).text) == 20_000
    assert time.monotonic() - began < 20, "with work for each pair of them, it is minutes"
