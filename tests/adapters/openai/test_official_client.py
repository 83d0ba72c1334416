"""The servers of these tests speak the protocol: the official client reads in them what we read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import openai
import pytest

from tests.adapters.openai.asking import RECORDED, ask, sse_chunks, told
from tests.adapters.openai.server import (
    DONE,
    GOOD,
    HELLO,
    LAST_USAGE,
    ChatServer,
    chunk,
    piece,
)
from tests.support import Loop
from turnscope import ModelError
from turnscope_adapters.openai import OpenAIChat

MESSAGES: Any = [{"role": "user", "content": "Weather?"}]
REASONS = {"stop": "stop", "tool_calls": "calls", "length": "length", "content_filter": "filtered"}

STREAMS: dict[str, Sequence[str]] = {
    **{path.name: sse_chunks(path.read_text()) for path in RECORDED},
    "text": GOOD,
    "cut": [*HELLO, chunk(finish="length"), LAST_USAGE, DONE],
    "filtered": [*HELLO, chunk(finish="content_filter"), DONE],
    "refusal": [
        chunk({"refusal": "I will "}),
        chunk({"refusal": "not."}),
        chunk(finish="stop"),
        DONE,
    ],
    "calls": [
        chunk({"role": "assistant", "content": None}),
        chunk(piece(0, "a", "f", "")),
        chunk(piece(0, None, None, '{"x": ')),
        chunk(piece(0, None, None, "1}")),
        chunk(piece(1, "b", "g", "{}")),
        chunk(finish="tool_calls"),
        LAST_USAGE,
        DONE,
    ],
}


def official(base_url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=base_url, api_key="k", max_retries=0)


def test_the_official_client_iterates_over_what_we_read(server: ChatServer, any_loop: Loop) -> None:
    for name, stream in STREAMS.items():
        site = server.streaming(stream)
        ours = told(any_loop.run(ask, OpenAIChat("m", base_url=site.base_url)))
        text, calls, reason, usage = "", {}, None, None
        with official(site.base_url) as client:
            chunks = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            for part in chunks:
                usage = part.usage or usage
                for choice in part.choices:
                    text += (choice.delta.content or "") + (choice.delta.refusal or "")
                    reason = choice.finish_reason or reason
                    for call in choice.delta.tool_calls or ():
                        entry = calls.setdefault(call.index, [None, None, ""])
                        assert call.function is not None
                        entry[0] = entry[0] or call.id
                        entry[1] = entry[1] or call.function.name
                        entry[2] += call.function.arguments or ""
        assert ours.text == text, name
        assert ours.calls == [tuple(call) for call in calls.values()], name
        assert reason is not None
        assert ours.finished.reason == ("refusal" if name == "refusal" else REASONS[reason]), name
        assert ours.finished.usage.input_tokens == (usage.prompt_tokens if usage else 0), name
        assert ours.finished.usage.output_tokens == (usage.completion_tokens if usage else 0), name


@pytest.mark.parametrize("name", STREAMS)
def test_the_official_stream_helper_comes_to_what_we_read(
    name: str, server: ChatServer, any_loop: Loop
) -> None:
    site = server.streaming(STREAMS[name])
    ours = told(any_loop.run(ask, OpenAIChat("m", base_url=site.base_url)))
    with official(site.base_url) as client:
        try:
            with client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
                message = stream.get_final_completion().choices[0].message
        except openai.LengthFinishReasonError as exc:
            assert ours.finished.reason == "length"
            message = exc.completion.choices[0].message
        except openai.ContentFilterFinishReasonError:
            assert ours.finished.reason == "filtered"
            return
    assert ours.text == (message.content or "") + (message.refusal or "")
    assert ours.calls == [
        (call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()
    ]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
def test_the_official_client_is_refused_where_we_are(
    status: int, kind: type[openai.APIStatusError], server: ChatServer, any_loop: Loop
) -> None:
    site = server.refusing(
        status,
        json.dumps({"error": {"message": "because"}}),
        **{"content-type": "application/json"},
    )
    with pytest.raises(ModelError, match="because") as ours:
        any_loop.run(ask, OpenAIChat("m", base_url=site.base_url))
    with official(site.base_url) as client, pytest.raises(kind, match="because"):
        client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    assert ours.value.status == status


def test_an_error_within_the_stream_is_one_for_the_official_client_too(
    server: ChatServer, any_loop: Loop
) -> None:
    site = server.streaming([*HELLO, 'data: {"error": {"message": "died"}}\n\n'])
    with pytest.raises(ModelError, match="died"):
        any_loop.run(ask, OpenAIChat("m", base_url=site.base_url))
    with official(site.base_url) as client, pytest.raises(openai.APIError, match="died"):
        list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))


def test_the_request_is_read_by_a_server_of_the_protocol(
    server: ChatServer, any_loop: Loop
) -> None:
    """Both clients ask the same, but for what only one of them says."""
    site = server.streaming(GOOD)
    any_loop.run(ask, OpenAIChat("m", base_url=site.base_url, api_key="k"))
    with official(site.base_url) as client:
        options = {"include_usage": True}
        list(
            client.chat.completions.create(
                model="m",
                messages=MESSAGES,
                stream=True,
                stream_options=options,
            )
        )
    ours, theirs = site.received
    assert ours.body == theirs.body
    assert ours.headers["authorization"] == theirs.headers["authorization"]
