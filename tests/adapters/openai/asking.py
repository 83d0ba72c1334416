"""What the tests of this folder ask, and how they read what comes back."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx2

from tests.support import Loop
from turnscope import History, UserMessage
from turnscope.abc import Model, ModelRequest
from turnscope.events import CallDelta, CallSealed, ModelEvent, ModelFinished, TextDelta
from turnscope_adapters.openai import OpenAIChat

STREAMS = Path(__file__).parents[2] / "data" / "streams"
RECORDED = sorted(STREAMS.glob("*.chat.sse"))
REQUEST = ModelRequest(history=History([UserMessage("Weather?")]))


async def ask(model: Model, request: ModelRequest = REQUEST) -> list[ModelEvent]:
    """All events of one response."""
    async with model.stream(request) as events:
        return [event async for event in events]


class _Pieces(httpx2.AsyncByteStream):
    def __init__(self, pieces: Iterable[bytes | None]) -> None:
        self._pieces = list(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if piece is None:
                await anyio.sleep_forever()
            else:
                yield piece


def canned(pieces: Callable[[], Iterable[bytes | None]], **options: Any) -> OpenAIChat:
    """A model without a network: each answer is what *pieces* gives; after None nothing comes."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, stream=_Pieces(pieces()))

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    return OpenAIChat("m", base_url="http://localhost/v1", client=client, **options)


def read(loop: Loop, text: str | bytes, cuts: Sequence[int] = ()) -> list[ModelEvent]:
    """The events of a response whose bytes are *text*, cut at *cuts*."""
    data = text.encode() if isinstance(text, str) else text
    return loop.run(ask, canned(lambda: split(data, cuts)))


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """*data* in pieces."""
    places = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


@attrs.frozen
class Told:
    """A response put together from its events, and checked for their order."""

    text: str
    calls: list[tuple[str | None, str | None, str]]
    """Of each call its id, its name and its arguments."""
    sealed: list[int]
    finished: ModelFinished


def told(events: Sequence[ModelEvent]) -> Told:
    """What *events* tell; asserts that they come in an order that makes sense."""
    calls: dict[int, list[Any]] = {}
    sealed: list[int] = []
    text = ""
    for place, event in enumerate(events):
        match event:
            case TextDelta():
                text += event.text
            case CallDelta():
                assert event.index not in sealed
                if event.index not in calls:
                    assert event.index == len(calls)
                    assert sealed == list(range(event.index)), "the calls before it are sealed"
                    calls[event.index] = [event.id, event.name, ""]
                calls[event.index][2] += event.arguments
            case CallSealed():
                assert event.index in calls and event.index not in sealed
                sealed.append(event.index)
            case ModelFinished():
                assert place == len(events) - 1
    finished = events[-1]
    assert isinstance(finished, ModelFinished)
    return Told(text, [tuple(call) for call in calls.values()], sealed, finished)


async def eventually(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for what another thread does; AssertionError if it does not."""
    with anyio.move_on_after(seconds):
        while not condition():
            await anyio.sleep(0.005)
    assert condition()


def sse_chunks(text: str) -> list[str]:
    """A recorded stream, one event to an item."""
    return [f"{event}\n\n" for event in re.split(r"\n\n", text) if event]
