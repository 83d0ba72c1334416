"""What all models over HTTP have in common: options, keys, connections, the loop that reads.

Above: `openai`, `anthropic`, which say how a request of theirs is written and its answer read.
Below: `_http` sends and receives, `_sse` finds the events. It keeps no state but its connections,
logs nothing, and asks once: trying again is for those who know what it may cost.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self
from urllib.parse import urlsplit

from turnscope import ModelError
from turnscope.abc import ModelRequest, OutputSchema
from turnscope.events import ModelEvent

from ._address import API, Address
from ._http import Answer, HTTPClient, Pools, posted
from ._server_words import Secret
from ._sse import EventReader, ServerEvent
from ._strict import Dialect, strict


class Reader(Protocol):
    """Takes the events of one response, gives ModelEvents, `finish` the last of them.

    Both raise ModelError for what is no response.
    """

    @property
    def done(self) -> bool:
        """Whether the server has said that nothing follows."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the response is whole, though more may follow that it can do without."""
        ...

    def read(self, event: ServerEvent) -> list[ModelEvent]:
        """What *event* adds to the response."""
        ...

    def finish(self) -> list[ModelEvent]:
        """What the end of the stream adds to it."""
        ...


class HTTPModel(ABC):
    """A model behind an API that answers a POST with server-sent events.

    Raises ValueError for an empty *name*, for a *base_url* that is no URL or has a password in it,
    for an *api_key* that cannot be sent, and for a *timeout* (seconds), *longest_chunk* or
    *longest_answer* (bytes) that is not above 0.
    """

    provider: ClassVar[str]
    """Whose API it speaks, by the word of OpenTelemetry's conventions; also with other servers."""

    _api: ClassVar[API]
    _dialect: ClassVar[Dialect]

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        client: HTTPClient | None = None,
        timeout: float | None = 600.0,
        settings: Mapping[str, Any] | None = None,
        native_output: bool | None = None,
        longest_chunk: int = 10_000_000,
        longest_answer: int = 100_000_000,
    ) -> None:
        if not name:
            raise ValueError(
                f"{type(self).__name__} needs the name of a model, as the server calls it"
            )
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout is a span in seconds above 0, or None, not {timeout!r}")
        for option, size in ("longest_chunk", longest_chunk), ("longest_answer", longest_answer):
            if not size > 0:
                raise ValueError(f"{option} is a number of bytes above 0, not {size!r}")
        self.name: str = name
        """What the server calls the model."""
        self._given = None if api_key is None else Secret(api_key, "api_key")
        self._address = None if base_url is None else Address.under(base_url, self._api.path)
        self._timeout = timeout
        self._settings = dict(settings or {})
        self._native_output = native_output
        self._longest_chunk = longest_chunk
        self._longest_answer = longest_answer
        self._has_client = client is not None
        self._pools = Pools(client)

    def __repr__(self) -> str:
        where = "" if self._address is None else f", at {self._address.host}"
        return f"<{type(self).__name__} {self.name!r}{where}>"

    def takes_output(self, output: OutputSchema, /) -> bool:
        """Whether the server holds answers to *output*: if it does so at all, and the schema has
        a form for it."""
        native = self._native_output
        if native is None:
            native = self._where().host == urlsplit(self._api.base_url).hostname
        return native and strict(output, self._dialect) is not None

    async def __aenter__(self) -> Self:
        """Keep connections open, in this event loop, from here to the end of the block."""
        self._pools.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        await self._pools.leave()

    @asynccontextmanager
    async def stream(self, request: ModelRequest, /) -> AsyncGenerator[AsyncIterator[ModelEvent]]:
        """Send *request*; in the block, iterate over the response, to its ModelFinished.

        When the block is left, in whatever way, the connection has been closed, or is free for the
        next request.
        """
        api, secret, address = self._api, self._secret(), self._where()
        if not secret and not self._has_client and address.host == urlsplit(api.base_url).hostname:
            raise ModelError(f"{api.maker} needs a key: set {api.key_variable}, or pass api_key=")
        body = self._body(request, address)
        client = self._pools.enter()
        try:
            async with posted(
                client,
                api,
                address,
                body,
                secret,
                headers=self._headers(),
                timeout=self._timeout,
                longest=self._longest_answer,
            ) as answer:
                reader = self._reader(secret, address)
                async with aclosing(self._events(answer, reader)) as events:
                    yield events
        finally:
            await self._pools.leave()

    async def _events(self, answer: Answer, response: Reader) -> AsyncGenerator[ModelEvent]:
        events = EventReader(self._longest_chunk)
        while not response.done:
            try:
                received = await answer.more()
            except ModelError:
                if response.complete:
                    break  # what is missing it can do without, and it is worth more
                raise
            if received is None:
                for made in self._last(events, response):
                    yield made
                break
            for event in events.feed(received):
                for made in response.read(event):
                    yield made
        if response.done:
            await answer.linger()
        for made in response.finish():
            yield made

    @staticmethod
    def _last(events: EventReader, response: Reader) -> list[ModelEvent]:
        """What an event adds that the stream has ended in; it may have been cut there."""
        made: list[ModelEvent] = []
        for event in events.finish():
            try:
                made.extend(response.read(event))
            except ModelError as exc:
                if not response.complete:
                    exc.transient = exc.transient or exc.status is None
                    raise
        return made

    def _secret(self) -> Secret:
        if self._given is not None:
            return self._given
        variable = self._api.key_variable
        return Secret(os.environ.get(variable), variable)

    def _where(self) -> Address:
        if self._address is not None:
            return self._address
        base_url = os.environ.get(self._api.url_variable) or self._api.base_url
        return Address.under(base_url, self._api.path)

    # What each API has of its own.

    def _headers(self) -> Mapping[str, str]:
        """The headers of a request, beside those that all have."""
        return {}

    @abstractmethod
    def _body(self, request: ModelRequest, address: Address) -> bytes:
        """The JSON that asks the server at *address* what *request* does."""

    @abstractmethod
    def _reader(self, secret: Secret, address: Address) -> Reader:
        """What reads one response of the server at *address*."""
