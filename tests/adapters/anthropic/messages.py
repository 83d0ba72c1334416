"""Messages streams, event by event, and models that read them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import anyio
import httpx2

from tests.adapters.openai.asking import STREAMS, ask, split
from tests.support import Loop
from turnscope.events import ModelEvent
from turnscope_adapters._anthropic_stream import MessageReader
from turnscope_adapters._server_words import Secret
from turnscope_adapters.anthropic import AnthropicMessages

RECORDED = sorted(STREAMS.glob("*.messages.sse"))


def event(kind: str, **fields: Any) -> str:
    """One event of a stream."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"


def start(**usage: Any) -> str:
    """The first event; with the server's first count of tokens."""
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0, **usage},
    }
    return event("message_start", message=message)


def begin(index: int, kind: str, **fields: Any) -> str:
    return event("content_block_start", index=index, content_block={"type": kind, **fields})


def delta(index: int, kind: str, **fields: Any) -> str:
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


def stop(index: int) -> str:
    return event("content_block_stop", index=index)


def text(index: int, *pieces: str) -> str:
    """A whole block of text."""
    parts = [delta(index, "text_delta", text=piece) for piece in pieces]
    return "".join([begin(index, "text", text=""), *parts, stop(index)])


def calling(index: int, call_id: str, name: str, *pieces: str) -> str:
    """A block of a call up to its end, which is `stop`."""
    parts = [delta(index, "input_json_delta", partial_json=piece) for piece in pieces]
    return begin(index, "tool_use", id=call_id, name=name, input={}) + "".join(parts)


def thinking(index: int, signature: str, *pieces: str) -> str:
    """A whole block of signed thinking."""
    parts = [delta(index, "thinking_delta", thinking=piece) for piece in pieces]
    signed = delta(index, "signature_delta", signature=signature)
    return "".join(
        [begin(index, "thinking", thinking="", signature=""), *parts, signed, stop(index)]
    )


def end(reason: str | None = "end_turn", **usage: Any) -> str:
    """The last two events."""
    told = event(
        "message_delta",
        delta={"stop_reason": reason, "stop_sequence": None},
        usage={"output_tokens": 0, **usage},
    )
    return told + STOP


STOP = event("message_stop")
PING = event("ping")
HELLO = [
    start(input_tokens=11, output_tokens=1),
    PING,
    begin(0, "text", text=""),
    delta(0, "text_delta", text="Hel"),
    delta(0, "text_delta", text="lo"),
]
GOOD = [*HELLO, stop(0), end(output_tokens=7)]


def failing(kind: str, message: str) -> str:
    """The event of an error within a stream."""
    return event("error", error={"type": kind, "message": message})


class _Pieces(httpx2.AsyncByteStream):
    def __init__(self, pieces: Iterable[bytes | None]) -> None:
        self._pieces = list(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if piece is None:
                await anyio.sleep_forever()
            else:
                yield piece


def canned(pieces: Callable[[], Iterable[bytes | None]], **options: Any) -> AnthropicMessages:
    """A model without a network: each answer is what *pieces* gives; after None nothing comes."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, stream=_Pieces(pieces()))

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    return AnthropicMessages("m", base_url="http://localhost", client=client, **options)


class _Heard:
    """The answer of a server, without a server, a client, and what they take in time."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)

    async def more(self) -> bytes | None:
        return next(self._pieces, None)

    async def linger(self) -> None: ...


async def heard(pieces: Iterable[bytes]) -> list[ModelEvent]:
    """The events of a response that comes in *pieces*: for tests of thousands of responses."""
    reader = MessageReader(Secret(None, ""))
    events = AnthropicMessages("m")._events(_Heard(pieces), reader)  # type: ignore[arg-type]  # because it stands in for an Answer
    return [each async for each in events]


def read(loop: Loop, stream: str | bytes, cuts: Sequence[int] = ()) -> list[ModelEvent]:
    """The events of a response whose bytes are *stream*, cut at *cuts*."""
    data = stream.encode() if isinstance(stream, str) else stream
    return loop.run(ask, canned(lambda: split(data, cuts)))
