"""Events of the Responses API as servers send them, and how the tests of this folder read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import httpx2

from tests.adapters.openai.asking import REQUEST, STREAMS, _Pieces, ask, split
from tests.support import Loop
from turnscope.abc import ModelRequest
from turnscope.events import ModelEvent
from turnscope_adapters.openai import OpenAIResponses

RECORDED = sorted(STREAMS.glob("*.responses.sse"))
USAGE = {
    "input_tokens": 11,
    "output_tokens": 7,
    "total_tokens": 18,
    "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 2},
}


def event(kind: str, **body: Any) -> str:
    """One event of a stream."""
    data = {"type": kind, "sequence_number": 0, **body}
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def response(status: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "model": "m",
        "status": status,
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        **more,
    }


def ended(status: str = "completed", **more: Any) -> str:
    """The last event."""
    return event(f"response.{status}", response=response(status, **more))


def added(place: int, item: dict[str, Any]) -> str:
    return event("response.output_item.added", output_index=place, item=item)


def done(place: int, item: dict[str, Any]) -> str:
    return event("response.output_item.done", output_index=place, item=item)


def thought(place: int, item_id: str, summary: str, **more: Any) -> list[str]:
    """An item of reasoning, whole."""
    item: dict[str, Any] = {"type": "reasoning", "id": item_id, "summary": []}
    where = {"item_id": item_id, "output_index": place, "summary_index": 0}
    part = {"type": "summary_text", "text": summary}
    whole = {**item, "summary": [part], "encrypted_content": f"secret of {item_id}", **more}
    return [
        added(place, item),
        event(
            "response.reasoning_summary_part.added",
            **where,
            part={"type": "summary_text", "text": ""},
        ),
        event("response.reasoning_summary_text.delta", **where, delta=summary),
        event("response.reasoning_summary_text.done", **where, text=summary),
        event("response.reasoning_summary_part.done", **where, part=part),
        done(place, whole),
    ]


def message(place: int, *pieces: str, kind: str = "output_text", **more: Any) -> list[str]:
    """An item of text, or of a refusal, whole."""
    name = "refusal" if kind == "refusal" else "text"
    item_id, text = f"msg_{place}", "".join(pieces)
    item = {"type": "message", "id": item_id, "role": "assistant", **more}
    where = {"item_id": item_id, "output_index": place, "content_index": 0}
    logs: dict[str, Any] = {} if name == "refusal" else {"logprobs": []}
    notes: dict[str, Any] = {} if name == "refusal" else {"annotations": []}
    return [
        added(place, {**item, "status": "in_progress", "content": []}),
        event("response.content_part.added", **where, part={"type": kind, name: "", **notes}),
        *[event(f"response.{kind}.delta", **where, delta=piece, **logs) for piece in pieces],
        event(f"response.{kind}.done", **where, **{name: text}, **logs),
        event("response.content_part.done", **where, part={"type": kind, name: text, **notes}),
        done(
            place,
            {
                **item,
                "status": "completed",
                "content": [{"type": kind, name: text, **notes}],
            },
        ),
    ]


def call(
    place: int, call_id: str, name: str, *pieces: str, item_id: str | None = None
) -> list[str]:
    """The item of a call, whole."""
    item_id = item_id or f"fc_{place}"
    item = {"type": "function_call", "id": item_id, "call_id": call_id, "name": name}
    where = {"item_id": item_id, "output_index": place}
    whole = "".join(pieces)
    kind = "response.function_call_arguments"
    return [
        added(place, {**item, "status": "in_progress", "arguments": ""}),
        *[event(f"{kind}.delta", **where, delta=piece) for piece in pieces],
        event(f"{kind}.done", **where, arguments=whole, name=name),
        done(place, {**item, "status": "completed", "arguments": whole}),
    ]


CREATED = event("response.created", response=response("in_progress"))
HELLO = [CREATED, *message(0, "Hel", "lo"), ended(usage=USAGE)]


def canned(pieces: Callable[[], Iterable[bytes | None]], **options: Any) -> OpenAIResponses:
    """A model without a network: each answer is what *pieces* gives; after None nothing comes."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, stream=_Pieces(pieces()))

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    return OpenAIResponses("m", base_url="http://host/v1", client=client, **options)


def read(
    loop: Loop, text: str | bytes | Sequence[str], cuts: Sequence[int] = ()
) -> list[ModelEvent]:
    """The events of a response whose bytes are *text*, cut at *cuts*."""
    text = text if isinstance(text, (str, bytes)) else "".join(text)
    data = text.encode() if isinstance(text, str) else text
    return loop.run(ask, canned(lambda: split(data, cuts)))


def sent(
    loop: Loop,
    request: ModelRequest = REQUEST,
    *,
    name: str = "m",
    host: str = "host",
    **options: Any,
) -> dict[str, Any]:
    """The body of the request that is sent for *request*."""
    bodies: list[dict[str, Any]] = []

    def answer(asked: httpx2.Request) -> httpx2.Response:
        assert asked.url.path == "/v1/responses"
        bodies.append(json.loads(asked.content))
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, text="".join(HELLO))

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    model = OpenAIResponses(name, base_url=f"http://{host}/v1", client=client, **options)
    loop.run(ask, model, request)
    return bodies[0]
