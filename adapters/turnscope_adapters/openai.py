"""`OpenAIChat`: a model behind OpenAI's Chat Completions, or any server that speaks it.

Above: an Agent, or the name ``openai:NAME``. Below: `_openai_wire` makes the request,
`_openai_stream` reads the response, and `_http_model` does what all models over HTTP do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from turnscope.abc import ModelRequest

from ._address import API, Address
from ._http import HTTPClient
from ._http_model import HTTPModel, Reader
from ._openai_stream import ChatReader
from ._openai_wire import request_body
from ._server_words import Secret

__all__ = ["HTTPClient", "OpenAIChat"]


class OpenAIChat(HTTPModel):
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
    of an answer may have, *longest_answer* all of them together.

    *client* is an `httpx2.AsyncClient` or `httpx.AsyncClient` of your own, for proxies,
    certificates, headers and hooks: the key and *timeout* still come from here, redirects are not
    followed, and closing it is yours. Without one, there is a pool of connections for each event
    loop, closed when the last ``async with`` of the model and the last of its requests end there.
    A kernel enters the model by itself; a request outside every ``async with`` works, and opens a
    pool for itself.

    Requests raise `turnscope.ModelError` with the HTTP status, the server's words and what it
    says of when to ask again. The key is in none of them, and in no repr.

    Raises ValueError for a *base_url* that is no URL or has a password in it, for an *api_key* that
    cannot be sent, and for a *timeout*, *longest_chunk* or *longest_answer* that is not above 0.
    """

    _api: ClassVar[API] = API(
        maker="OpenAI",
        base_url="https://api.openai.com/v1",
        path="/chat/completions",
        key_variable="OPENAI_API_KEY",
        url_variable="OPENAI_BASE_URL",
    )

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
        longest_answer: int = 100_000_000,
    ) -> None:
        super().__init__(
            name,
            base_url=base_url,
            api_key=api_key,
            client=client,
            timeout=timeout,
            settings=settings,
            longest_chunk=longest_chunk,
            longest_answer=longest_answer,
        )

    def _body(self, request: ModelRequest, address: Address) -> bytes:
        return request_body(self.name, request, self._settings)

    def _reader(self, secret: Secret, address: Address) -> Reader:
        return ChatReader(secret)
