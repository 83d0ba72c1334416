"""The servers of these tests speak the protocol: the official client reads in them what we read."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from tests.adapters.openai.asking import ask, sse_chunks, told
from tests.adapters.openai.server import ChatServer
from tests.adapters.openai.test_official_client import official
from tests.adapters.responses.test_requests import ANSWER
from tests.adapters.responses.wire import CREATED, HELLO, RECORDED, USAGE, call, ended, message
from tests.support import Loop
from turnscope import ModelError
from turnscope.events import CallDelta, ModelFinished, TextDelta
from turnscope_adapters.openai import OpenAIResponses

OURS: dict[str, list[str]] = {
    "text": HELLO,
    "all": ANSWER,
    "cut": [*HELLO[:-1], ended("incomplete", incomplete_details={"reason": "max_output_tokens"})],
    "refusal": [CREATED, *message(0, "I will ", "not.", kind="refusal"), ended(usage=USAGE)],
    "calls": [CREATED, *call(0, "a", "f", '{"x": ', "1}"), *call(1, "b", "g", "{}"), ended()],
}
STREAMS = {**{path.name: sse_chunks(path.read_text()) for path in RECORDED}, **OURS}


@pytest.mark.parametrize("name", OURS)
def test_our_events_are_those_of_the_official_types(name: str) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for text in OURS[name]:
        adapter.validate_python(json.loads(text.partition("data: ")[2]), strict=True)


@pytest.mark.parametrize("name", STREAMS)
def test_the_official_client_iterates_over_what_we_read(
    name: str, server: ChatServer, any_loop: Loop
) -> None:
    site = server.streaming(STREAMS[name])
    ours = any_loop.run(ask, OpenAIResponses("m", base_url=site.base_url))
    text, calls, usage = "", [], None
    with official(site.base_url) as client:
        for event in client.responses.create(model="m", input="x", stream=True):
            if event.type in ("response.output_text.delta", "response.refusal.delta"):
                text += event.delta
            elif event.type == "response.output_item.done" and event.item.type == "function_call":
                calls.append((event.item.call_id, event.item.name, event.item.arguments))
            elif event.type in ("response.completed", "response.incomplete"):
                usage = event.response.usage
    found: dict[int, list[Any]] = {}
    for each in ours:
        if isinstance(each, CallDelta):
            found.setdefault(each.index, [each.id, each.name, ""])[2] += each.arguments
    assert [tuple(each) for each in found.values()] == calls
    finished = ours[-1]
    assert isinstance(finished, ModelFinished)
    assert "".join(each.text for each in ours if isinstance(each, TextDelta)) == text
    assert finished.usage.input_tokens == (usage.input_tokens if usage else 0)


@pytest.mark.parametrize("name", ["text", "refusal", "calls", "aimock.responses.sse"])
def test_the_official_stream_helper_comes_to_what_we_read(
    name: str, server: ChatServer, any_loop: Loop
) -> None:
    site = server.streaming(STREAMS[name])
    ours = told(any_loop.run(ask, OpenAIResponses("m", base_url=site.base_url)))
    with official(site.base_url) as client, client.responses.stream(model="m", input="x") as stream:
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert ours.text == ("".join(texts) or ours.text)
    assert bool(texts) == (name in ("text", "aimock.responses.sse"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, openai.AuthenticationError), (429, openai.RateLimitError)],
)
def test_the_official_client_is_refused_where_we_are(
    status: int, kind: type[openai.APIStatusError], server: ChatServer, any_loop: Loop
) -> None:
    body = json.dumps({"error": {"message": "because"}})
    site = server.refusing(status, body, **{"content-type": "application/json"})
    with pytest.raises(ModelError, match="because") as ours:
        any_loop.run(ask, OpenAIResponses("m", base_url=site.base_url))
    with official(site.base_url) as client, pytest.raises(kind, match="because"):
        client.responses.create(model="m", input="x", stream=True)
    assert ours.value.status == status


def test_the_request_is_read_by_a_server_of_the_protocol(
    server: ChatServer, any_loop: Loop
) -> None:
    """Both clients ask the same, of the same path, with the same key."""
    site = server.streaming(HELLO)
    any_loop.run(ask, OpenAIResponses("m", base_url=site.base_url, api_key="k"))
    with official(site.base_url) as client:
        prompt: Any = [{"role": "user", "content": "Weather?"}]
        list(
            client.responses.create(
                model="m",
                input=prompt,
                stream=True,
                store=False,
                include=["reasoning.encrypted_content"],
            )
        )
    ours, theirs = site.received
    assert ours.body == theirs.body
    assert ours.headers["authorization"] == theirs.headers["authorization"]
