"""The servers of these tests speak the protocol: the official client reads in them what we read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anthropic
import pytest

from tests.adapters.anthropic.messages import (
    GOOD,
    HELLO,
    PING,
    RECORDED,
    begin,
    calling,
    end,
    failing,
    start,
    stop,
    text,
    thinking,
)
from tests.adapters.openai.asking import ask, sse_chunks, told
from tests.adapters.openai.server import ChatServer
from tests.support import Loop
from turnscope import ModelError
from turnscope.events import ReasoningDelta
from turnscope_adapters.anthropic import AnthropicMessages

MESSAGES: Any = [{"role": "user", "content": "Weather?"}]
REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "calls",
    "max_tokens": "length",
    "refusal": "refusal",
}
STREAMS: dict[str, Sequence[str]] = {
    **{path.name: sse_chunks(path.read_text()) for path in RECORDED},
    "text": GOOD,
    "cut": [start(), text(0, "Hel"), end("max_tokens")],
    "stopped": [start(), text(0, "Hel"), end("stop_sequence")],
    "refusal": [start(), text(0, "I will not."), end("refusal")],
    "thoughts": [
        start(input_tokens=3),
        thinking(0, "sig", "hm, ", "so"),
        begin(1, "redacted_thinking", data="ZGF0YQ=="),
        stop(1),
        text(2, "Let me", " see."),
        PING,
        calling(3, "a", "f", "", '{"x": ', "1}"),
        stop(3),
        calling(4, "b", "g", ""),
        stop(4),
        end("tool_use", output_tokens=5, cache_read_input_tokens=2),
    ],
}


def official(base_url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=base_url.removesuffix("/v1"), api_key="k", max_retries=0)


@pytest.mark.parametrize("name", STREAMS)
def test_the_official_stream_helper_comes_to_what_we_read(
    name: str, server: ChatServer, any_loop: Loop
) -> None:
    site = server.streaming(STREAMS[name])
    events = any_loop.run(ask, AnthropicMessages("m", base_url=site.base_url))
    ours = told(events)
    with official(site.base_url) as client:
        with client.messages.stream(model="m", max_tokens=5, messages=MESSAGES) as stream:
            message = stream.get_final_message()
    blocks = [block.to_dict() for block in message.content]
    said = [block["text"] for block in blocks if block["type"] == "text"]
    assert ours.text == "".join(map(str, said))
    assert [(call_id, name, json.loads(given or "{}")) for call_id, name, given in ours.calls] == [
        (block["id"], block["name"], block.get("input") or {})
        for block in blocks
        if block["type"] == "tool_use"
    ]
    thoughts = [block for block in blocks if "thinking" in str(block["type"])]
    kept = [each.opaque["anthropic"] for each in events if getattr(each, "opaque", None)]
    thought = "".join(each.text for each in events if isinstance(each, ReasoningDelta))
    assert thought == "".join(str(block.pop("thinking", "")) for block in thoughts)
    assert kept == thoughts, "but for the text, each is as it came"
    assert message.stop_reason is not None
    assert ours.finished.reason == REASONS[message.stop_reason]
    usage = message.usage
    cached = usage.cache_read_input_tokens or 0
    assert ours.finished.usage.input_tokens == usage.input_tokens + cached
    assert ours.finished.usage.output_tokens == usage.output_tokens


def test_the_official_client_iterates_over_our_streams(server: ChatServer) -> None:
    """Strictly: its own validation of each event is on."""
    for name in ("text", "thoughts", "aimock.messages.sse"):
        site = server.streaming(STREAMS[name])
        client = anthropic.Anthropic(
            base_url=site.base_url.removesuffix("/v1"),
            api_key="k",
            max_retries=0,
            _strict_response_validation=True,
        )
        with client:
            kinds = [
                event.type
                for event in client.messages.create(
                    model="m", max_tokens=5, messages=MESSAGES, stream=True
                )
            ]
        assert (kinds[0], kinds[-1]) == ("message_start", "message_stop"), name


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (404, anthropic.NotFoundError),
        (429, anthropic.RateLimitError),
        (529, anthropic.APIStatusError),
    ],
)
def test_the_official_client_is_refused_where_we_are(
    status: int, kind: type[anthropic.APIStatusError], server: ChatServer, any_loop: Loop
) -> None:
    body = json.dumps({"type": "error", "error": {"type": "x", "message": "because"}})
    site = server.refusing(status, body, **{"content-type": "application/json"})
    with pytest.raises(ModelError, match="because") as ours:
        any_loop.run(ask, AnthropicMessages("m", base_url=site.base_url))
    with official(site.base_url) as client, pytest.raises(kind, match="because") as theirs:
        client.messages.create(model="m", max_tokens=5, messages=MESSAGES, stream=True)
    assert ours.value.status == theirs.value.status_code == status


def test_an_error_within_the_stream_is_one_for_the_official_client_too(
    server: ChatServer, any_loop: Loop
) -> None:
    site = server.streaming([*HELLO, failing("overloaded_error", "Overloaded")])
    with pytest.raises(ModelError, match="Overloaded"):
        any_loop.run(ask, AnthropicMessages("m", base_url=site.base_url))
    with official(site.base_url) as client, pytest.raises(anthropic.APIError, match="Overloaded"):
        list(client.messages.create(model="m", max_tokens=5, messages=MESSAGES, stream=True))


def test_the_request_is_read_by_a_server_of_the_protocol(
    server: ChatServer, any_loop: Loop
) -> None:
    """Both clients ask the same, but for the header that has the key: the API takes either."""
    site = server.streaming(GOOD)
    any_loop.run(ask, AnthropicMessages("m", base_url=site.base_url, api_key="k"))
    with official(site.base_url) as client:
        list(client.messages.create(model="m", max_tokens=16_384, messages=MESSAGES, stream=True))
    ours, theirs = site.received
    assert ours.body == theirs.body
    assert ours.headers["anthropic-version"] == theirs.headers["anthropic-version"]
    assert ours.headers["x-api-key"] == theirs.headers["authorization"].removeprefix("Bearer ")
