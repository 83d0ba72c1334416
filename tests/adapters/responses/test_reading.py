"""What is read out of a Responses stream, however it is cut and however its server names things."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.adapters.openai.asking import REQUEST, split, told
from tests.adapters.responses.wire import (
    CREATED,
    HELLO,
    RECORDED,
    USAGE,
    added,
    call,
    canned,
    done,
    ended,
    event,
    message,
    read,
    response,
    thought,
)
from tests.support import Loop
from turnscope import ModelError, Usage
from turnscope.events import (
    CallDelta,
    CallSealed,
    ModelEvent,
    ModelFinished,
    ReasoningDelta,
    TextDelta,
)
from turnscope_adapters._responses_stream import ResponsesReader
from turnscope_adapters._server_words import Secret
from turnscope_adapters._sse import EventReader

CALLS = [
    ("get_weather", {"city": "Paris", "unit": "C"}),
    ("get_weather", {"city": "Tokyo", "unit": "C"}),
    ("get_time", {}),
]
ALL = Usage(input_tokens=11, output_tokens=7, cached_tokens=3, reasoning_tokens=2)


def together(text: str | bytes, loop: Loop, cuts: Any = ()) -> Any:
    """The calls of a stream, whichever grew first; `told` wants them one after the other."""
    calls: dict[int, list[Any]] = {}
    sealed = []
    for found in read(loop, text, cuts):
        if isinstance(found, CallDelta):
            assert found.index not in sealed
            entry = calls.setdefault(found.index, [found.id, found.name, ""])
            entry[2] += found.arguments
        elif isinstance(found, CallSealed):
            sealed.append(found.index)
    assert sorted(sealed) == sorted(calls)
    return [tuple(each) for each in calls.values()]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_recorded_stream_is_read(path: Path, any_loop: Loop) -> None:
    calls = together(path.read_bytes(), any_loop)
    assert [(name, json.loads(arguments)) for _, name, arguments in calls] == CALLS
    assert all(call_id.startswith("call_") for call_id, _, _ in calls)
    finished = read(any_loop, path.read_bytes())[-1]
    used = {
        "aimock.responses.sse": Usage(),
        "llamaserver.responses.sse": Usage(input_tokens=888, output_tokens=10, cached_tokens=887),
    }
    assert finished == ModelFinished("calls", used[path.name])


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_recorded_stream_means_the_same_wherever_it_is_cut_in_two(path: Path) -> None:
    def events(pieces: list[bytes]) -> list[ModelEvent]:
        events, reader = EventReader(10_000), ResponsesReader(Secret(None, ""), "host")
        told = [each for piece in pieces for each in events.feed(piece)] + events.finish()
        return [made for each in told for made in reader.read(each)] + reader.finish()

    data = path.read_bytes()
    whole = events([data])
    for cut in range(len(data)):
        assert events(split(data, [cut])) == whole


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_a_recorded_stream_may_come_byte_by_byte(path: Path, any_loop: Loop) -> None:
    data = path.read_bytes()
    assert read(any_loop, data, range(len(data))) == read(any_loop, data)


@given(data=st.data())
def test_a_recorded_stream_means_the_same_or_fails_however_it_is_cut_off(
    data: st.DataObject, any_loop: Loop
) -> None:
    recorded = data.draw(st.sampled_from(RECORDED)).read_bytes()
    whole = read(any_loop, recorded)
    end = data.draw(st.integers(0, len(recorded)))
    cuts = data.draw(st.lists(st.integers(0, end), max_size=20))
    try:
        found = read(any_loop, recorded[:end], cuts)
    except ModelError as exc:
        assert exc.transient or "cannot be read" in str(exc)
    else:
        assert found == whole


@st.composite
def servers(draw: st.DrawFn) -> tuple[list[tuple[str, str]], str]:
    """Calls, and the stream of a server that names and repeats things in a way of its own."""
    values = st.dictionaries(st.sampled_from("abc"), st.text(max_size=5), max_size=3)
    arguments = values.map(lambda value: json.dumps(value, ensure_ascii=False))
    calls = draw(
        st.lists(st.tuples(st.sampled_from(["f", "g"]), arguments), min_size=1, max_size=4)
    )
    places = draw(st.sampled_from(["each", "gaps", "constant", "missing"]))
    ids = draw(st.sampled_from(["each", "constant", "missing", "another each time"]))
    call_ids = draw(st.sampled_from(["each", "each", "constant", "missing"]))
    says = draw(
        st.sampled_from(
            [
                ("added", "delta", "arguments", "done"),
                ("added", "delta", "arguments"),
                ("added", "delta", "done"),
                ("added", "done"),
                ("done",),
                ("full", "done"),
                ("full", "delta", "done"),
                ("full",),
            ]
        )
    )
    # By what could a reader tell one from the next, if nothing marks its beginning?
    if (
        says == ("done",)
        and places not in ("each", "gaps")
        and call_ids != "each"
        and ids != "each"
    ):
        says = ("added", "done")
    telling = places in ("each", "gaps") or ids == "each"
    mixed = draw(st.booleans()) and telling and "added" in says and len(says) > 2
    numbers = itertools.count()
    streams: list[list[str]] = []
    for number, (name, whole) in enumerate(calls):

        def where(number: int = number) -> dict[str, Any]:
            place = {"each": number, "gaps": 3 * number + 1, "constant": 0, "missing": None}[places]
            item_id = {
                "each": f"fc_{number}",
                "constant": "fc",
                "missing": None,
                "another each time": f"fc_{next(numbers)}",
            }[ids]
            given = {"output_index": place, "item_id": item_id}
            return {field: value for field, value in given.items() if value is not None}

        def item(whole: str, number: int = number, name: str = name) -> dict[str, Any]:
            about = where(number)
            call_id = {"each": f"call_{number}", "constant": "call", "missing": None}[call_ids]
            given = {
                "type": "function_call",
                "id": about.pop("item_id", None),
                "call_id": call_id,
                "name": name,
                "arguments": whole,
            }
            given = {field: value for field, value in given.items() if value is not None}
            return {**about, "item": given}

        cuts = sorted(draw(st.lists(st.integers(1, len(whole)), max_size=3)))
        pieces = [whole[a:b] for a, b in itertools.pairwise([0, *cuts, len(whole)])]
        stream: list[str] = []
        for said in says:
            match said:
                case "added" | "full":
                    given = item(whole if said == "full" else "")
                    stream.append(event("response.output_item.added", **given))
                case "delta":
                    kind = "response.function_call_arguments.delta"
                    stream += [event(kind, **where(), delta=piece) for piece in pieces]
                case "arguments":
                    kind = "response.function_call_arguments.done"
                    stream.append(event(kind, **where(), arguments=whole))
                case _:
                    stream.append(event("response.output_item.done", **item(whole)))
        streams.append(stream)
    if not mixed:
        return calls, "".join(itertools.chain(*streams)) + ended()
    begun, text = [stream.pop(0) for stream in streams], ""
    while any(streams):
        text += draw(st.sampled_from([stream for stream in streams if stream])).pop(0)
    return calls, "".join(begun) + text + ended()


@given(case=servers())
def test_calls_are_told_apart_however_the_server_names_them(
    case: tuple[list[tuple[str, str]], str], any_loop: Loop
) -> None:
    calls, text = case
    assert [(name, arguments) for _, name, arguments in together(text, any_loop)] == calls


def test_a_call_is_sealed_as_soon_as_its_arguments_are_done(any_loop: Loop) -> None:
    first = call(0, "a", "f", '{"x":', " 1}")
    data = "".join(first[:-1]).encode()  # without the end of the item
    model = canned(lambda: [data, None])

    async def main() -> None:
        async with model.stream(REQUEST) as events:
            with anyio.fail_after(5):
                assert await anext(events) == CallDelta(0, "a", "f")
                assert await anext(events) == CallDelta(0, arguments='{"x":')
                assert await anext(events) == CallDelta(0, arguments=" 1}")
                assert await anext(events) == CallSealed(0)

    any_loop.run(main)


def test_text_reasoning_and_calls_come_in_order(any_loop: Loop) -> None:
    stream = [
        CREATED,
        *thought(0, "rs_0", "hm"),
        *message(1, "Let me ", "see."),
        *thought(2, "rs_2", "so"),
        *call(3, "a", "f", "{}"),
        ended(usage=USAGE),
    ]
    first, again = (
        {
            "type": "reasoning",
            "id": f"rs_{place}",
            "summary": [{"type": "summary_text", "text": text}],
            "encrypted_content": f"secret of rs_{place}",
        }
        for place, text in ((0, "hm"), (2, "so"))
    )
    about = {"api": "openai-responses", "host": "host"}
    assert read(any_loop, stream) == [
        ReasoningDelta("hm"),
        ReasoningDelta("", {**about, "after": [0, 0], "item": first}),
        TextDelta("Let me "),
        TextDelta("see."),
        ReasoningDelta("so"),
        ReasoningDelta("", {**about, "after": [11, 0], "item": again}),
        CallDelta(0, "a", "f"),
        CallDelta(0, arguments="{}"),
        CallSealed(0),
        ModelFinished("calls", ALL),
    ]


def test_parts_of_a_summary_are_told_apart(any_loop: Loop) -> None:
    parts = [
        event("response.reasoning_summary_text.delta", item_id="r", summary_index=n, delta=text)
        for n, text in ((0, "a"), (0, "b"), (1, "c"))
    ]
    item = {"type": "reasoning", "id": "r", "summary": []}
    events = read(any_loop, [added(0, item), *parts, ended()])
    assert [each.text for each in events if isinstance(each, ReasoningDelta)] == [
        "a",
        "b",
        "\n\n",
        "c",
    ]


def test_reasoning_in_plain_text_is_read_streamed_or_whole(any_loop: Loop) -> None:
    item = {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": None}
    whole = {**item, "content": [{"type": "reasoning_text", "text": "hm"}]}
    delta = event("response.reasoning_text.delta", item_id="r", content_index=0, delta="hm")
    for middle in ([delta], []):
        events = read(any_loop, [added(0, item), *middle, done(0, whole), ended()])
        thoughts = [each for each in events if isinstance(each, ReasoningDelta)]
        assert "".join(each.text for each in thoughts) == "hm"
        assert "encrypted_content" not in thoughts[-1].opaque["item"], "null says nothing"


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        ([*message(0, "x"), ended()], "stop"),
        ([*call(0, "a", "f", "{}"), ended()], "calls"),
        ([*message(0, "I will ", "not.", kind="refusal"), ended()], "refusal"),
        ([*message(0, "x"), ended("incomplete")], "length"),
        (
            [
                *message(0, "x"),
                ended("incomplete", incomplete_details={"reason": "max_output_tokens"}),
            ],
            "length",
        ),
        (
            [
                *message(0, "x"),
                ended("incomplete", incomplete_details={"reason": "content_filter"}),
            ],
            "filtered",
        ),
        (
            [*message(0, "x"), event("response.completed", response=response("incomplete"))],
            "length",
        ),
    ],
)
def test_the_reason_for_the_end_is_told(stream: list[str], reason: str, any_loop: Loop) -> None:
    assert told(read(any_loop, stream)).finished.reason == reason


def test_the_text_of_a_refusal_is_text(any_loop: Loop) -> None:
    stream = [*message(0, "I will ", "not.", kind="refusal"), ended()]
    assert told(read(any_loop, stream)).text == "I will not."


def test_a_call_that_was_cut_is_not_sealed(any_loop: Loop) -> None:
    whole = call(0, "a", "f", "{}")
    begun = call(1, "b", "f", '{"x')[:2]
    cut = {"type": "function_call", "id": "fc_1", "call_id": "b", "name": "f", "arguments": '{"x'}
    for end in ([], [done(1, {**cut, "status": "incomplete"})]):
        found = told(read(any_loop, [*whole, *begun, *end, ended("incomplete")]))
        assert found.calls == [("a", "f", "{}"), ("b", "f", '{"x')]
        assert found.sealed == [0]


@pytest.mark.parametrize("kept", [["completed"], ["added", "completed"]])
def test_what_a_server_says_in_the_end_alone_is_read(kept: list[str], any_loop: Loop) -> None:
    text = {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "Hello"}]}
    asked = {"type": "function_call", "call_id": "a", "name": "f", "arguments": {"x": 1}}
    stream = [ended(output=[text, asked])]
    if "added" in kept:
        stream.insert(0, added(0, {**text, "content": []}))
    found = told(read(any_loop, stream))
    assert (found.text, found.calls) == ("Hello", [("a", "f", '{"x": 1}')])
    assert (found.sealed, found.finished.reason) == ([0], "calls")


def test_text_is_not_read_twice(any_loop: Loop) -> None:
    item = {"type": "message", "id": "m", "content": [{"type": "output_text", "text": "Hello"}]}
    delta = event("response.output_text.delta", item_id="m", output_index=0, delta="Hello")
    for stream in ([delta, done(0, item)], [done(0, item)], [delta, done(0, item), done(0, item)]):
        assert told(read(any_loop, [*stream, ended(output=[item])])).text == "Hello"


def test_arguments_that_are_said_twice_may_be_written_otherwise(any_loop: Loop) -> None:
    begun = call(0, "a", "f", '{"x": ', "1}")[:3]
    item = {"type": "function_call", "id": "fc_0", "call_id": "a", "name": "f"}
    found = told(read(any_loop, [*begun, done(0, {**item, "arguments": '{"x":1}'}), ended()]))
    assert found.calls == [("a", "f", '{"x": 1}')]
    found = told(read(any_loop, [*begun, done(0, {**item, "arguments": ""}), ended()]))
    assert found.calls == [("a", "f", '{"x": 1}')]
    found = told(read(any_loop, [*begun[:2], done(0, {**item, "arguments": '{"x": 1}'}), ended()]))
    assert found.calls == [("a", "f", '{"x": 1}')], "what is missing is added"
    with pytest.raises(ModelError, match="not the arguments that were streamed"):
        read(any_loop, [*begun, done(0, {**item, "arguments": '{"x": 2}'}), ended()])


def test_more_of_a_call_that_is_done_is_refused(any_loop: Loop) -> None:
    kind = "response.function_call_arguments.delta"
    for piece, refused in ((" ", False), ("}", True)):
        stream = [
            *call(0, "a", "f", "{}"),
            event(kind, item_id="fc_0", output_index=0, delta=piece),
            ended(),
        ]
        if refused:
            with pytest.raises(ModelError, match="went on with a call"):
                read(any_loop, stream)
        else:
            assert told(read(any_loop, stream)).calls == [("a", "f", "{}")]


@pytest.mark.parametrize(
    "before",
    [
        "data:\n\n",
        ": keep-alive\n\n",
        "event: ping\ndata: {}\n\n",
        event("response.in_progress", response=response("in_progress")),
        event("response.queued"),
        event("response.web_search_call.searching", item_id="ws"),
        event("response.output_text.annotation.added", annotation={"type": "url_citation"}),
        event("something.new", of=[1]),
        event("response.output_text.delta", item_id="msg_9", delta=""),
    ],
)
def test_what_says_nothing_is_passed_over(before: str, any_loop: Loop) -> None:
    events = read(any_loop, [before, *message(0, "x"), before, ended()])
    assert events == [TextDelta("x"), ModelFinished("stop")]


def test_the_kind_of_an_event_may_be_its_name_alone(any_loop: Loop) -> None:
    stream = re.sub(r'"type": "response\.[a-z_.]*", ', "", "".join(HELLO))
    assert told(read(any_loop, stream)).text == "Hello"


@pytest.mark.parametrize("end", ["", "data: [DONE]\n\n"])
def test_an_answer_without_its_last_event_is_not_whole(end: str, any_loop: Loop) -> None:
    with pytest.raises(ModelError, match="ended before the response was complete") as caught:
        read(any_loop, "".join(HELLO[:-1]) + end)
    assert caught.value.transient


def test_nothing_is_read_after_the_last_event(any_loop: Loop) -> None:
    stream = [*HELLO, "data: {oops\n\n", "data: [DONE]\n\n"]
    assert told(read(any_loop, stream)).text == "Hello"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: {oops\n\n", "it is not JSON: {oops"),
        ("data: [1]\n\n", "list where an object belongs"),
        ("data: " + "[" * 100_000 + "\n\n", "it has more than 100 levels"),
        (event("response.output_text.delta", delta=5), "int where text belongs"),
        (event("response.output_item.added", item=[5]), "list where an object belongs"),
        (event("response.output_item.done", item={"type": 5}), "int where text belongs"),
        (event("response.completed", response=5), "int where an object belongs"),
        (ended(usage=[1]), "list where an object belongs"),
        (ended(output=5), "int where a list belongs"),
        (
            event("response.function_call_arguments.delta", item_id="x", delta="{"),
            "a call that has not begun",
        ),
        (done(0, {"type": "message", "content": {}}), "dict where a list belongs"),
    ],
)
def test_a_chunk_that_cannot_be_read_is_shown(text: str, words: str, any_loop: Loop) -> None:
    with pytest.raises(ModelError, match=re.escape(words)) as caught:
        read(any_loop, [CREATED, text, ended()])
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("text", "status", "transient", "words"),
    [
        (event("error", code="server_error", message="died", param=None), 500, True, "died"),
        (event("error", code="429", message="slow down"), 429, True, "slow down"),
        (
            event("error", error={"type": "invalid_request_error", "message": "no"}),
            None,
            False,
            "no",
        ),
        ('data: {"error": {"message": "overloaded", "code": 503}}\n\n', 503, True, "overloaded"),
        ('event: error\ndata: {"message": "no"}\n\n', None, False, "no"),
        (event("error"), None, False, "error"),
        (
            ended("failed", error={"code": "rate_limit_exceeded", "message": "wait"}),
            429,
            True,
            "wait",
        ),
        (
            ended("failed", error={"code": "insufficient_quota", "message": "pay"}),
            429,
            False,
            "pay",
        ),
        (ended("failed", error={"code": "invalid_prompt", "message": "no"}), None, False, "no"),
        (ended("failed", error=None), None, False, "the response was failed"),
        (ended("cancelled"), None, False, "the response was cancelled"),
        (ended("completed", error={"code": "server_error", "message": "x"}), 500, True, "x"),
        (event("response.completed", response=response("failed")), None, False, "was failed"),
    ],
)
def test_an_error_within_the_stream_is_raised(
    text: str, status: int | None, transient: bool, words: str, any_loop: Loop
) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        read(any_loop, [CREATED, *message(0, "x"), text, ended()])
    assert (caught.value.status, caught.value.transient) == (status, transient)


@pytest.mark.parametrize("kind", ["custom_tool_call", "computer_call", "mcp_approval_request"])
def test_a_call_that_nobody_here_can_answer_is_refused(kind: str, any_loop: Loop) -> None:
    for make in (added, done):
        with pytest.raises(ModelError, match=f"made a {kind}"):
            read(any_loop, [make(0, {"type": kind, "id": "x", "name": "y"}), ended()])
