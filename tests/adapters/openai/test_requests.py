"""What is sent: the conversation, the tools and the settings, in the protocol's own words."""

from __future__ import annotations

import base64
import json
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any

import httpx2
import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from tests.adapters.openai.asking import ask
from tests.adapters.openai.server import GOOD
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
from turnscope_adapters.openai import OpenAIChat

PNG = b"\x89PNG\r\n\x1a\n"
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


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


def sent(loop: Loop, request: ModelRequest, **options: Any) -> dict[str, Any]:
    """The body of the request that is sent for *request*."""
    bodies: list[dict[str, Any]] = []

    def answer(asked: httpx2.Request) -> httpx2.Response:
        assert asked.headers["content-type"] == "application/json"
        bodies.append(json.loads(asked.content))
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, text="".join(GOOD))

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    loop.run(ask, OpenAIChat("m", base_url="http://h/v1", client=client, **options), request)
    return bodies[0]


def result(call_id: str, content: str | tuple[Content, ...]) -> ResultMessage:
    return ResultMessage(id=call_id, name="weather", status=Status.OK, content=content)


CALLS = (ToolCall("c1", "weather", '{"city": "Köln"}'), ToolCall("c2", "weather", "{}"))
CONVERSATION = History(
    [
        UserMessage("Weather?"),
        AssistantMessage(text="", calls=CALLS, reasoning=(Reasoning("hm"),)),
        result("c1", "rain"),
        result(
            "c2",
            (
                Content(text="a map:"),
                Content(media_type="image/png", data=PNG),
                Content(media_type="application/zip", data=b"123"),
                Content(media_type="application/zip", url="https://h/x.zip"),
            ),
        ),
        AssistantMessage(text="It rains."),
        UserMessage(
            (
                Content(text="And here?"),
                Content(media_type="image/png", data=PNG),
                Content(media_type="image/jpeg", url="https://h/x.jpg"),
                Content(media_type="text/csv", data="a,ü".encode()),
                Content(media_type="audio/wav", data=b"RIFF"),
                Content(media_type="application/pdf", data=b"%PDF"),
            )
        ),
    ]
)
FULL = ModelRequest(
    history=CONVERSATION,
    instructions="Be brief.",
    tools=(weather, nothing),
    parallel_tool_calls=False,
    settings={"temperature": 0},
)


def test_a_conversation_is_sent_in_the_words_of_the_protocol(any_loop: Loop) -> None:
    body = sent(any_loop, FULL)
    system, prompt, answer, first, second, shown, last, again = body.pop("messages")
    assert system == {"role": "system", "content": "Be brief."}
    assert prompt == {"role": "user", "content": "Weather?"}
    assert answer == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Köln"}'},
            },
            {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
        ],
    }
    assert first == {"role": "tool", "tool_call_id": "c1", "content": "rain"}
    assert second == {
        "role": "tool",
        "tool_call_id": "c2",
        "content": "a map:\n"
        "[image/png of 8 bytes: in the message after the results]\n"
        "[application/zip of 3 bytes, which cannot be shown here]\n"
        "[application/zip: https://h/x.zip]",
    }
    assert shown == {
        "role": "user",
        "content": [
            {"type": "text", "text": "Of the result of call c2:"},
            {"type": "image_url", "image_url": {"url": PNG_URL}},
        ],
    }
    assert last == {"role": "assistant", "content": "It rains."}
    assert again == {
        "role": "user",
        "content": [
            {"type": "text", "text": "And here?"},
            {"type": "image_url", "image_url": {"url": PNG_URL}},
            {"type": "image_url", "image_url": {"url": "https://h/x.jpg"}},
            {"type": "text", "text": "a,ü"},
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
            {
                "type": "file",
                "file": {
                    "filename": "file.pdf",
                    "file_data": "data:application/pdf;base64,JVBERg==",
                },
            },
        ],
    }
    assert body == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "parallel_tool_calls": False,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "Tell the weather.",
                    "parameters": weather.schema,
                },
            },
            {"type": "function", "function": {"name": "nothing", "parameters": nothing.schema}},
        ],
    }


def fits(value: object, kind: Any) -> bool:
    """Whether *value* is what the annotation *kind* says, with no field that it does not know."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin in (typing.Required, typing.NotRequired, typing.Annotated):
        return fits(value, inner[0])
    if origin is typing.Literal:
        return value in inner
    if hasattr(kind, "__required_keys__"):
        fields = typing.get_type_hints(kind)
        return (
            isinstance(value, dict)
            and kind.__required_keys__ <= value.keys() <= fields.keys()
            and all(fits(item, fields[field]) for field, item in value.items())
        )
    if kind is float:
        return isinstance(value, (int, float))
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, inner[1]) for item in value.values())
    if origin in (list, Iterable, Sequence):
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    return kind in (object, Any) or isinstance(value, type(None) if kind is None else kind)


def test_the_request_is_what_the_official_client_would_send(any_loop: Loop) -> None:
    body = sent(any_loop, FULL)
    assert fits(body, CompletionCreateParamsStreaming)
    for place in (body, body["messages"][1], body["messages"][-1]["content"][1]["image_url"]):
        place["unknown"] = 1
        assert not fits(body, CompletionCreateParamsStreaming)
        del place["unknown"]
    assert fits(body, CompletionCreateParamsStreaming)


def test_images_of_the_last_results_come_after_all_of_them(any_loop: Loop) -> None:
    image = Content(media_type="image/png", data=PNG)
    history = History(
        [
            UserMessage("x"),
            AssistantMessage(calls=CALLS),
            result("c1", (image,)),
            result("c2", (image,)),
        ]
    )
    messages = sent(any_loop, ModelRequest(history=history))["messages"]
    assert [message["role"] for message in messages] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "user",
    ]
    assert [part["type"] for part in messages[-1]["content"]] == ["text", "image_url"] * 2


@pytest.mark.parametrize(
    "part",
    [
        Content(media_type="application/zip", data=b"x"),
        Content(media_type="application/pdf", url="https://h/x.pdf"),
        Content(url="https://h/x.png"),
    ],
)
def test_a_part_of_a_prompt_that_cannot_be_sent_is_refused(part: Content, any_loop: Loop) -> None:
    with pytest.raises(ModelError, match=f"cannot carry a part of type '{part.media_type}'"):
        sent(any_loop, ModelRequest(history=History([UserMessage((part,))])))


PLAIN = ModelRequest(history=History([UserMessage("x")]))


def test_a_request_without_tools_says_nothing_of_them(any_loop: Loop) -> None:
    request = ModelRequest(history=PLAIN.history, parallel_tool_calls=False)
    assert sent(any_loop, request).keys() == {"model", "messages", "stream", "stream_options"}


def test_calls_at_once_are_what_servers_do_anyway(any_loop: Loop) -> None:
    body = sent(any_loop, ModelRequest(history=PLAIN.history, tools=(weather,)))
    assert "parallel_tool_calls" not in body


def test_settings_have_the_last_word(any_loop: Loop) -> None:
    settings = {"temperature": 1, "seed": 7, "stream_options": None, "model": "other"}
    request = ModelRequest(history=PLAIN.history, settings={"temperature": 0, "seed": None})
    body = sent(any_loop, request, settings=settings)
    assert body["temperature"] == 0
    assert body["model"] == "other"
    assert body.keys() == {"model", "messages", "stream", "temperature"}


@pytest.mark.parametrize("stream", [False, None])
def test_streaming_cannot_be_turned_off(stream: bool | None, any_loop: Loop) -> None:
    with pytest.raises(ModelError, match="'stream'"):
        sent(any_loop, PLAIN, settings={"stream": stream})


def test_half_a_surrogate_pair_does_not_stop_a_conversation(any_loop: Loop) -> None:
    request = ModelRequest(history=History([UserMessage("a\ud83db")]))
    assert sent(any_loop, request)["messages"][0]["content"] == "a?b"


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://h/v1", "http://h/v1/chat/completions"),
        ("http://h/v1/", "http://h/v1/chat/completions"),
        ("https://h:8/a/b?api-version=1", "https://h:8/a/b/chat/completions?api-version=1"),
        ("http://[::1]:8", "http://[::1]:8/chat/completions"),
    ],
)
@pytest.mark.parametrize("given_as", ["parameter", "environment"])
def test_the_base_url_says_where(
    base_url: str, url: str, given_as: str, any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        return httpx2.Response(200, text="".join(GOOD), headers={"content-type": "text/plain"})

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    if given_as == "parameter":
        model = OpenAIChat("m", base_url=base_url, client=client)
    else:
        model = OpenAIChat("m", client=client)
        monkeypatch.setenv("OPENAI_BASE_URL", base_url)  # after the model: it may be a global
    any_loop.run(ask, model)
    assert asked == [url]


@pytest.mark.parametrize(
    "base_url",
    ["localhost:8080/v1", "ftp://h/v1", "http:///v1", "http://h:x/v1", "", "http://[::1"],
)
def test_a_base_url_that_is_none_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url is like"):
        OpenAIChat("m", base_url=base_url)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"longest_chunk": 0}, "longest_chunk"),
        ({"longest_answer": 0}, "longest_answer"),
        ({"base_url": "http://user:hush@h/v1"}, "client="),
        ({"api_key": "two words"}, "api_key"),
        ({"name": ""}, "name"),
    ],
)
def test_what_cannot_work_is_refused_at_once(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word) as caught:
        OpenAIChat(**{"name": "m", **options})
    assert "hush" not in str(caught.value) and "two words" not in str(caught.value)
