"""What OpenAI's two protocols have in common: a name, a server, a key, and one request at a time.

Above: `openai`, whose classes say which path and which words. Below: `_http` sends the request,
`_sse` takes the answer apart. It keeps no state but its connections, logs nothing, and asks once:
trying again is for those who know what it may cost.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, ClassVar, Final, Protocol, Self

from turnscope import ModelError
from turnscope.abc import ModelRequest
from turnscope.events import ModelEvent

from ._http import Address, Answer, HTTPClient, Pools, posted
from ._server_words import Secret
from ._sse import EventReader, ServerEvent

_BASE_URL: Final = "https://api.openai.com/v1"


class Reader(Protocol):
    """Takes the events of one response, gives ModelEvents."""

    @property
    def complete(self) -> bool:
        """Whether the response is whole, whatever may follow."""
        ...

    @property
    def done(self) -> bool:
        """Whether the server has said that nothing follows."""
        ...

    def read(self, event: ServerEvent, /) -> list[ModelEvent]:
        """What *event* adds to the response; raises ModelError if it cannot be read."""
        ...

    def finish(self) -> list[ModelEvent]:
        """What the end of the stream adds; raises ModelError if the response was not complete."""
        ...


class OpenAIModel:
    """One protocol of OpenAI's; a subclass says which."""

    _path: ClassVar[str]

    def __init__(
        self,
        name: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        client: HTTPClient | None = None,
        timeout: float | None = 600.0,
        settings: Mapping[str, Any] | None = None,
        longest_chunk: int = 10_000_000,
    ) -> None:
        if not name:
            kind = type(self).__name__
            raise ValueError(f"{kind} needs the name of a model, as the server calls it")
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout is a span in seconds above 0, or None, not {timeout!r}")
        if not longest_chunk > 0:
            raise ValueError(f"longest_chunk is a number of bytes above 0, not {longest_chunk!r}")
        self.name: str = name
        """What the server calls the model."""
        self._given = None if api_key is None else Secret(api_key, "api_key")
        self._address = None if base_url is None else Address.under(base_url, self._path)
        self._timeout = timeout
        self._settings = dict(settings or {})
        self._longest_chunk = longest_chunk
        self._has_client = client is not None
        self._pools = Pools(client)

    def __repr__(self) -> str:
        where = "" if self._address is None else f", at {self._address.host}"
        return f"<{type(self).__name__} {self.name!r}{where}>"

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
        secret, address = self._secret(), self._where()
        if not secret and not self._has_client and address.host == "api.openai.com":
            raise ModelError("OpenAI needs a key: set OPENAI_API_KEY, or pass api_key=")
        body = self._body(request, address)
        client = self._pools.enter()
        try:
            async with posted(client, address, body, secret, self._timeout) as answer:
                reader = self._reader(secret, address)
                async with aclosing(self._events(answer, reader)) as events:
                    yield events
        finally:
            await self._pools.leave()

    def _body(self, request: ModelRequest, address: Address) -> bytes:
        raise NotImplementedError

    def _reader(self, secret: Secret, address: Address) -> Reader:
        raise NotImplementedError

    async def _events(self, answer: Answer, reader: Reader) -> AsyncGenerator[ModelEvent]:
        events = EventReader(self._longest_chunk)
        while not reader.done:
            try:
                received = await answer.more()
            except ModelError:
                if reader.complete:
                    break  # only the usage can be missing, and the answer is worth more
                raise
            ended = received is None
            for event in events.finish() if received is None else events.feed(received):
                for made in reader.read(event):
                    yield made
            if ended:
                break
        if reader.done:
            await answer.linger()
        for made in reader.finish():
            yield made

    def _secret(self) -> Secret:
        if self._given is not None:
            return self._given
        return Secret(os.environ.get("OPENAI_API_KEY"), "OPENAI_API_KEY")

    def _where(self) -> Address:
        if self._address is not None:
            return self._address
        return Address.under(os.environ.get("OPENAI_BASE_URL") or _BASE_URL, self._path)
