"""What is sent: the conversation, the tools and the settings, in the words of the Messages API."""

from __future__ import annotations

import base64
import itertools
import json
import re
from typing import Any

import httpx2
import pytest
from anthropic.types import MessageCreateParams
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.adapters.anthropic.messages import GOOD
from tests.adapters.openai.asking import ask
from tests.support import Loop
from turnscope import (
    AssistantMessage,
    Content,
    History,
    ModelError,
    Reasoning,
    ResultMessage,
    Status,
    ToolCall,
    UserMessage,
    tool,
)
from turnscope.abc import ModelRequest
from turnscope_adapters._anthropic_wire import request_body
from turnscope_adapters.anthropic import AnthropicMessages

PNG = b"\x89PNG\r\n\x1a\n"
PDF = b"%PDF-1.7"


@tool
async def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: where, in English
    """
    return city


@tool(description="")
async def nothing() -> None:
    return None


def body_of(request: ModelRequest, **settings: Any) -> dict[str, Any]:
    """The body of the request that a model with *settings* sends for *request*."""
    return json.loads(request_body("m", request, settings))


def messages_of(*messages: Any) -> list[dict[str, Any]]:
    return body_of(ModelRequest(history=History(messages)))["messages"]


def result(
    call_id: str, content: str | tuple[Content, ...], status: Status = Status.OK
) -> ResultMessage:
    return ResultMessage(id=call_id, name="weather", status=status, content=content)


def base64_source(media_type: str, data: bytes) -> dict[str, str]:
    return {
        "type": "base64",
        "media_type": media_type,
        "data": base64.b64encode(data).decode(),
    }


def signed(text: str, after: tuple[int, int] = (0, 0), signature: str = "sig") -> Reasoning:
    block = {"type": "thinking", "signature": signature}
    return Reasoning(text, {"anthropic": block, "after": list(after)})


CALLS = (ToolCall("c1", "weather", '{"city": "Köln"}'), ToolCall("c2", "weather", "{}"))
IMAGE = Content(media_type="image/png", data=PNG)
CONVERSATION = History(
    [
        UserMessage("Weather?"),
        AssistantMessage(text="Let me see.", calls=CALLS, reasoning=(signed("hm"),)),
        result("c1", "no such city", Status.FAILED),
        result(
            "c2",
            (
                Content(text="a map:"),
                Content(text="  "),
                IMAGE,
                Content(media_type="application/pdf", data=PDF),
                Content(media_type="application/zip", data=b"123"),
                Content(media_type="application/zip", url="https://h/x.zip"),
                Content(media_type="image/svg+xml", data=b"<svg/>"),
            ),
        ),
        AssistantMessage(text="It rains."),
        UserMessage(
            (
                Content(text="And here?"),
                Content(text=""),
                IMAGE,
                Content(media_type="image/tiff", url="https://h/x"),
                Content(media_type="text/csv; charset=utf-8", data="a,ü".encode()),
                Content(media_type="application/pdf", data=PDF),
                Content(media_type="application/pdf", url="https://h/x.pdf"),
            )
        ),
    ]
)
FULL = ModelRequest(
    history=CONVERSATION,
    instructions="Be brief.",
    tools=(weather, nothing),
    parallel_tool_calls=False,
    settings={"stop_sequences": ["END"], "thinking": {"type": "adaptive"}},
)


def test_a_conversation_is_sent_in_the_words_of_the_protocol() -> None:
    body = body_of(FULL)
    prompt, answer, results, last, again = body.pop("messages")
    assert prompt == {"role": "user", "content": "Weather?"}
    assert answer == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Köln"}},
            {"type": "tool_use", "id": "c2", "name": "weather", "input": {}},
        ],
    }
    assert results == {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "c1",
                "content": "no such city",
                "is_error": True,
            },
            {
                "type": "tool_result",
                "tool_use_id": "c2",
                "content": [
                    {"type": "text", "text": "a map:"},
                    {"type": "image", "source": base64_source("image/png", PNG)},
                    {"type": "document", "source": base64_source("application/pdf", PDF)},
                    {
                        "type": "text",
                        "text": "[application/zip of 3 bytes, which cannot be shown here]",
                    },
                    {"type": "text", "text": "[application/zip: https://h/x.zip]"},
                    {
                        "type": "text",
                        "text": "[image/svg+xml of 6 bytes, which cannot be shown here]",
                    },
                ],
            },
        ],
    }
    assert last == {"role": "assistant", "content": [{"type": "text", "text": "It rains."}]}
    assert again == {
        "role": "user",
        "content": [
            {"type": "text", "text": "And here?"},
            {"type": "image", "source": base64_source("image/png", PNG)},
            {"type": "image", "source": {"type": "url", "url": "https://h/x"}},
            {"type": "text", "text": "a,ü"},
            {"type": "document", "source": base64_source("application/pdf", PDF)},
            {"type": "document", "source": {"type": "url", "url": "https://h/x.pdf"}},
        ],
    }
    assert body == {
        "model": "m",
        "max_tokens": 16_384,
        "stream": True,
        "system": "Be brief.",
        "stop_sequences": ["END"],
        "thinking": {"type": "adaptive"},
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "tools": [
            {
                "name": "weather",
                "description": "Tell the weather.",
                "input_schema": weather.schema,
            },
            {"name": "nothing", "input_schema": nothing.schema},
        ],
    }


def test_a_model_sends_that_body_where_the_protocol_says(any_loop: Loop) -> None:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, text="".join(GOOD))

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    for base_url in ("http://h", "http://h/", "http://h/v1", "http://h/v1/"):
        model = AnthropicMessages(
            "m", base_url=base_url, client=client, api_key="k", settings={"max_tokens": 5}
        )
        any_loop.run(ask, model, FULL)
    assert {str(request.url) for request in asked} == {"http://h/v1/messages"}
    assert json.loads(asked[0].content) == body_of(FULL, max_tokens=5)
    assert asked[0].headers["content-type"] == "application/json"
    assert asked[0].headers["x-api-key"] == "k"
    assert asked[0].headers["anthropic-version"] == "2026-10-21"
    assert "authorization" not in asked[0].headers


# The package's own types.

PARAMETERS: TypeAdapter[Any] = TypeAdapter(MessageCreateParams)


def check(body: dict[str, Any]) -> None:
    """Raise ValueError unless *body* is what the official client would send.

    Lists of its types are iterables, which pydantic looks into only when they are read; and what
    is none of the parameters' types may be taken for one of an answer, which is no mapping.
    """

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: read(inner) for key, inner in value.items()}
        if isinstance(value, (str, bytes, int, float, type(None))):
            return value
        return [read(inner) for inner in value]

    if read(PARAMETERS.validate_python(body, extra="forbid")) != body:
        raise ValueError("there is something in it that only an answer may have")


def test_the_request_is_what_the_official_client_would_send() -> None:
    check(body_of(FULL))
    for break_it in (
        lambda body: body.pop("max_tokens"),
        lambda body: body.update(unknown=1),
        lambda body: body["messages"][1]["content"][0].pop("signature"),
        lambda body: body["messages"][1]["content"][2].update(input="{}"),
        lambda body: body["messages"][2]["content"][0].update(is_error="yes"),
        lambda body: body["messages"][2]["content"][1]["content"][1]["source"].update(
            media_type="image/bmp"
        ),
        lambda body: body["messages"][4]["content"][1].update(unknown=1),
    ):
        body = body_of(FULL)
        break_it(body)
        with pytest.raises(ValueError):
            check(body)


PARTS = st.one_of(
    st.text(max_size=5).map(lambda text: Content(text=text)),
    st.sampled_from(["image/png", "IMAGE/JPEG", "text/plain", "application/pdf"]).map(
        lambda kind: Content(media_type=kind, data=b"x")
    ),
    st.sampled_from(["image/webp", "application/pdf"]).map(
        lambda kind: Content(media_type=kind, url="https://h/x")
    ),
)
CONTENTS = st.one_of(
    st.text(min_size=1, max_size=5).filter(str.strip),
    st.lists(PARTS, max_size=3).map(lambda parts: (Content(text="x"), *parts)),
)
REASONING = st.one_of(
    st.builds(
        signed,
        st.text(max_size=3),
        st.tuples(st.integers(-2, 9), st.integers(-2, 4)),
        st.sampled_from(["sig", ""]),
    ),
    st.builds(
        lambda after: Reasoning(
            "", {"anthropic": {"type": "redacted_thinking", "data": "x"}, "after": after}
        ),
        st.lists(st.integers(0, 4), min_size=2, max_size=2),
    ),
    st.builds(
        Reasoning,
        st.text(max_size=3),
        st.sampled_from(
            [
                None,
                "opaque",
                {"type": "reasoning", "id": "rs_1", "encrypted_content": "x"},
                {"anthropic": "x", "after": [0, 0]},
                {"anthropic": {"type": "thinking", "signature": 5}, "after": [0, 0]},
                {"anthropic": {"type": "thinking", "signature": "s"}, "after": [0]},
                {"anthropic": {"type": "thinking", "signature": "s"}, "after": ["a", "b"]},
                {"anthropic": {"type": "thinking", "signature": "s"}},
            ]
        ),
    ),
)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Any conversation: turns with calls, prompts one after the other, thoughts of anybody."""
    messages: list[Any] = [UserMessage(draw(CONTENTS))]
    ids = iter(draw(st.permutations(["a", "b", "a.b", "a_b", "call|1", "天", "d", "e", "f"])))
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            messages.append(UserMessage(draw(CONTENTS)))
        calls = tuple(ToolCall(next(ids), "f", "{}") for _ in range(draw(st.integers(0, 3))))
        messages.append(
            AssistantMessage(
                text=draw(st.sampled_from(["", " ", "said"])) if calls else "said",
                calls=calls,
                reasoning=tuple(draw(st.lists(REASONING, max_size=3))),
            )
        )
        for call in calls:
            content = draw(st.one_of(st.just(""), CONTENTS))
            messages.append(result(call.id, content, draw(st.sampled_from([*Status]))))
    messages.append(UserMessage("go on"))
    return History(messages)


@given(history=histories())
def test_every_conversation_is_sent_as_the_api_wants_it(history: History) -> None:
    body = body_of(ModelRequest(history=history))
    check(body)
    messages = body["messages"]
    roles = [message["role"] for message in messages]
    assert roles[0] == roles[-1] == "user"
    assert ("user", "user") not in itertools.pairwise(roles), "what is asked is one message"
    awaited: list[str] = []
    taken: set[str] = set()
    said = 0
    for message in messages:
        blocks = message["content"]
        if isinstance(blocks, str):
            blocks = [{"type": "text", "text": blocks}]
        kinds = [block["type"] for block in blocks]
        assert all(block["text"].strip() for block in blocks if block["type"] == "text")
        if message["role"] == "user":
            results = [block for block in blocks if block["type"] == "tool_result"]
            assert blocks[: len(results)] == results, "results come first"
            assert [block["tool_use_id"] for block in results] == awaited
            awaited = []
            continue
        assert not awaited
        assert kinds[-1] in ("text", "tool_use"), "no answer ends with a thought"
        awaited = [block["id"] for block in blocks if block["type"] == "tool_use"]
        assert all(re.fullmatch("[a-zA-Z0-9_-]+", call_id) for call_id in awaited)
        assert taken.isdisjoint(awaited) and len({*awaited}) == len(awaited)
        taken.update(awaited)
        said += sum(len(block["text"]) for block in blocks if block["type"] == "text")
    texts = [message.text for message in history if isinstance(message, AssistantMessage)]
    assert said == sum(len(text) for text in texts if text.strip()), "nothing twice, nothing lost"


# Thoughts.


def test_thoughts_are_sent_back_in_their_places() -> None:
    redacted = {"anthropic": {"type": "redacted_thinking", "data": "ZGF0"}, "after": [2, 1]}
    answer = AssistantMessage(
        text="abcd",
        calls=CALLS,
        reasoning=(signed("one"), signed("two", (2, 0), "s2"), Reasoning("", redacted)),
    )
    blocks = messages_of(UserMessage("x"), answer, result("c1", "y"), result("c2", "z"))[1]
    assert [
        block.get("thinking") or block.get("data") or block.get("text") or block["id"]
        for block in blocks["content"]
    ] == ["one", "ab", "two", "c1", "ZGF0", "cd", "c2"]


@pytest.mark.parametrize(
    "reasoning",
    [
        Reasoning("of a chat"),
        Reasoning("of another", {"type": "reasoning", "encrypted_content": "x"}),
        signed("unsigned", signature=""),
        signed("cut, and so the last", (5, 0)),
    ],
)
def test_thoughts_that_the_api_would_refuse_are_left_out(reasoning: Reasoning) -> None:
    answer = AssistantMessage(text="fine.", reasoning=(reasoning,))
    content = messages_of(UserMessage("x"), answer, UserMessage("y"))[1]["content"]
    assert content == [{"type": "text", "text": "fine."}]


# Prompts and results.


def test_what_is_asked_after_results_comes_after_them_in_one_message() -> None:
    history = [
        UserMessage("a"),
        UserMessage("b"),
        AssistantMessage(calls=CALLS),
        result("c1", ""),
        result("c2", "y"),
        UserMessage("c"),
    ]
    first, _, last = messages_of(*history)
    assert first["content"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert last["content"] == [
        {"type": "tool_result", "tool_use_id": "c1"},
        {"type": "tool_result", "tool_use_id": "c2", "content": "y"},
        {"type": "text", "text": "c"},
    ]


@pytest.mark.parametrize("status", [*Status])
def test_every_result_that_is_not_ok_is_an_error(status: Status) -> None:
    history = [UserMessage("a"), AssistantMessage(calls=CALLS[:1]), result("c1", "x", status)]
    [sent] = messages_of(*history)[-1]["content"]
    assert sent.get("is_error", False) == (status is not Status.OK)


def test_ids_that_the_api_refuses_become_others_for_call_and_result_alike() -> None:
    calls = tuple(ToolCall(call_id, "f", "{}") for call_id in ("a_b", "a.b", "a|b", "ok"))
    results = [result(call.id, "x") for call in calls]
    _, answer, back = messages_of(UserMessage("x"), AssistantMessage(calls=calls), *results)
    sent = [block["id"] for block in answer["content"]]
    assert sent == ["a_b", "a_b-2", "a_b-3", "ok"]
    assert [block["tool_use_id"] for block in back["content"]] == sent


@pytest.mark.parametrize(
    "part",
    [
        Content(media_type="application/zip", data=b"x"),
        Content(media_type="image/bmp", data=b"x"),
        Content(media_type="audio/wav", data=b"x"),
        Content(media_type="text/plain", url="https://h/x.txt"),
    ],
)
def test_a_part_of_a_prompt_that_cannot_be_sent_is_refused(part: Content) -> None:
    with pytest.raises(ModelError, match=f"cannot carry a part of type '{part.media_type}'"):
        messages_of(UserMessage((part,)))


def test_half_a_surrogate_pair_does_not_stop_a_conversation() -> None:
    assert messages_of(UserMessage("a\ud83db"))[0]["content"] == "a?b"


# Settings.

PLAIN = ModelRequest(history=History([UserMessage("x")]))


@pytest.mark.parametrize("instructions", [None, "", "  \n"])
def test_a_request_without_tools_and_instructions_says_nothing_of_them(
    instructions: str | None,
) -> None:
    request = ModelRequest(
        history=PLAIN.history, instructions=instructions, parallel_tool_calls=False
    )
    assert body_of(request).keys() == {"model", "max_tokens", "messages", "stream"}


def test_calls_at_once_are_what_the_api_does_anyway() -> None:
    assert "tool_choice" not in body_of(ModelRequest(history=PLAIN.history, tools=(weather,)))


@pytest.mark.parametrize(
    ("of_request", "of_model", "sent"),
    [
        ({}, {"type": "any"}, {"type": "any", "disable_parallel_tool_use": True}),
        (
            {"type": "tool", "name": "weather"},
            {"type": "any"},
            {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        ),
        ({}, {"type": "none"}, {"type": "none"}),
        (
            {"type": "auto", "disable_parallel_tool_use": False},
            {},
            {"type": "auto", "disable_parallel_tool_use": False},
        ),
        (None, {"type": "any"}, None),
        ({}, "odd", "odd"),
    ],
)
def test_one_call_at_a_time_is_asked_for_within_the_choice_that_settings_make(
    of_request: Any, of_model: Any, sent: Any
) -> None:
    request = ModelRequest(
        history=PLAIN.history,
        tools=(weather,),
        parallel_tool_calls=False,
        settings={} if of_request == {} else {"tool_choice": of_request},
    )
    body = body_of(request, **({} if of_model == {} else {"tool_choice": of_model}))
    assert body.get("tool_choice") == sent


def test_settings_have_the_last_word() -> None:
    request = ModelRequest(
        history=PLAIN.history, settings={"max_tokens": 100, "metadata": None, "top_k": 1}
    )
    body = body_of(request, max_tokens=7, metadata={"user_id": "u"}, model="other")
    assert body.keys() == {"model", "max_tokens", "messages", "stream", "top_k"}
    assert (body["max_tokens"], body["model"]) == (100, "other")


@pytest.mark.parametrize("stream", [False, None])
def test_streaming_cannot_be_turned_off(stream: bool | None) -> None:
    with pytest.raises(ModelError, match="'stream'"):
        body_of(PLAIN, stream=stream)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"timeout": 0}, "timeout"),
        ({"longest_chunk": 0}, "longest_chunk"),
        ({"longest_answer": -1}, "longest_answer"),
        ({"base_url": "http://user:hush@h"}, "client="),
        ({"base_url": "localhost"}, "base_url is like"),
        ({"api_key": "two words"}, "api_key"),
        ({"version": ""}, "version"),
        ({"version": "a\r\nb: c"}, "version"),
        ({"name": ""}, "AnthropicMessages needs the name"),
    ],
)
def test_what_cannot_work_is_refused_at_once(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word) as caught:
        AnthropicMessages(**{"name": "m", **options})
    assert "hush" not in str(caught.value) and "two words" not in str(caught.value)
