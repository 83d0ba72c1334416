"""`OpenAIChat`: a model behind OpenAI's Chat Completions, or any server that speaks it.

Above: an Agent, or the name ``openai:NAME``. Below: `_openai_wire` makes the request, `_http` sends
it, `_sse` and `_openai_stream` read the response. It keeps no state but its connections, logs
nothing, and asks once: trying again is for those who know what it may cost.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Final

from turnscope import ModelError
from turnscope.abc import ModelRequest
from turnscope.events import ModelEvent

from ._http import Address, Answer, HTTPClient, Pools, posted
from ._openai_stream import ChatReader
from ._openai_wire import request_body
from ._server_words import Secret
from ._sse import EventReader

__all__ = ["HTTPClient", "OpenAIChat"]

_BASE_URL: Final = "https://api.openai.com/v1"
_PATH: Final = "/chat/completions"


class OpenAIChat:
    """A model behind OpenAI's Chat Completions, or any server that speaks it::

        OpenAIChat("gpt-5")
        OpenAIChat("qwen3", base_url="http://localhost:8080/v1")

    *name* is what the server calls the model. *base_url* is the server's, else the environment's
    OPENAI_BASE_URL, else OpenAI's. *api_key* is the key, else the environment's OPENAI_API_KEY; a
    server other than OpenAI's may do without. The environment is read with each request.

    *timeout* is how many seconds the server may be silent: before it answers, and between two
    chunks of its answer; None waits for ever. (It has 10 of them to accept a connection.)
    *settings* are sent with every request as they are, such as ``{"temperature": 0}``; one that is
    None takes out a field that would be sent, such as ``{"stream_options": None}`` for a server
    that does not know it, which then reports no usage. *longest_chunk* is how many bytes one chunk
    of an answer may have.

    *client* is an `httpx2.AsyncClient` or `httpx.AsyncClient` of your own, for proxies,
    certificates, headers and hooks: the key and *timeout* still come from here, redirects are not
    followed, and closing it is yours. Without one, there is a pool of connections for each event
    loop, closed when the last ``async with`` of the model and the last of its requests end there.
    A kernel enters the model by itself; a request outside every ``async with`` works, and opens a
    pool for itself.

    Requests raise `turnscope.ModelError` with the HTTP status, the server's words and what it
    says of when to ask again. The key is in none of them, and in no repr.

    Raises ValueError for a *base_url* that is no URL or has a password in it, for an *api_key* that
    cannot be sent, and for a *timeout* or *longest_chunk* that is not above 0.
    """

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
            raise ValueError("OpenAIChat needs the name of a model, as the server calls it")
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout is a span in seconds above 0, or None, not {timeout!r}")
        if not longest_chunk > 0:
            raise ValueError(f"longest_chunk is a number of bytes above 0, not {longest_chunk!r}")
        self.name: str = name
        """What the server calls the model."""
        self._given = None if api_key is None else Secret(api_key, "api_key")
        self._address = None if base_url is None else Address.under(base_url, _PATH)
        self._timeout = timeout
        self._settings = dict(settings or {})
        self._longest_chunk = longest_chunk
        self._has_client = client is not None
        self._pools = Pools(client)

    def __repr__(self) -> str:
        where = "" if self._address is None else f", at {self._address.host}"
        return f"<OpenAIChat {self.name!r}{where}>"

    async def __aenter__(self) -> OpenAIChat:
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
        body = request_body(self.name, request, self._settings)
        client = self._pools.enter()
        try:
            async with posted(client, address, body, secret, self._timeout) as answer:
                async with aclosing(self._events(answer, secret)) as events:
                    yield events
        finally:
            await self._pools.leave()

    async def _events(self, answer: Answer, secret: Secret) -> AsyncGenerator[ModelEvent]:
        reader, chat = EventReader(self._longest_chunk), ChatReader(secret)
        while not chat.done:
            try:
                received = await answer.more()
            except ModelError:
                if chat.complete:
                    break  # only the usage can be missing, and the answer is worth more
                raise
            ended = received is None
            for event in reader.finish() if received is None else reader.feed(received):
                for made in chat.read(event):
                    yield made
            if ended:
                break
        if chat.done:
            await answer.linger()
        for made in chat.finish():
            yield made

    def _secret(self) -> Secret:
        if self._given is not None:
            return self._given
        return Secret(os.environ.get("OPENAI_API_KEY"), "OPENAI_API_KEY")

    def _where(self) -> Address:
        if self._address is not None:
            return self._address
        return Address.under(os.environ.get("OPENAI_BASE_URL") or _BASE_URL, _PATH)
