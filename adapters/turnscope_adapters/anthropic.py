"""`AnthropicMessages`: a model behind Anthropic's Messages API, or any server that speaks it.

Above: an Agent, or the name ``anthropic:NAME``. Below: `_anthropic_wire` makes the request,
`_anthropic_stream` reads the response, and `_http_model` does what all models over HTTP do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from turnscope.abc import ModelRequest

from ._address import API, Address
from ._anthropic_stream import MessageReader
from ._anthropic_wire import request_body
from ._http import HTTPClient
from ._http_model import HTTPModel, Reader
from ._server_words import Secret
from ._strict import ANTHROPIC, Dialect

__all__ = ["AnthropicMessages", "HTTPClient"]


class AnthropicMessages(HTTPModel):
    """A model behind Anthropic's Messages API, or any server that speaks it::

        AnthropicMessages("claude-opus-5")
        AnthropicMessages("qwen3", base_url="http://localhost:8080")

    *name* is what the server calls the model. *base_url* is the server's, with or without ``/v1``,
    else the environment's ANTHROPIC_BASE_URL, else Anthropic's. *api_key* is the key, else the
    environment's ANTHROPIC_API_KEY, and is sent as ``x-api-key``; a server other than Anthropic's
    may do without. The environment is read with each request.

    *version* is the version of the API that is asked for. That of 2026-10-21 refuses the settings
    ``temperature``, ``top_p`` and ``top_k``; ``version="2023-06-01"`` has them, for models that do.

    *timeout* is how many seconds the server may be silent: before it answers, and between two
    chunks of its answer; None waits for ever. (It has 10 of them to accept a connection.)
    *settings* are sent with every request as they are, such as ``{"thinking": {"type":
    "adaptive"}}``; one that is None takes out a field that would be sent. The API wants a
    ``max_tokens``: it is 16,384 where settings say no other. *longest_chunk* is how many bytes one
    chunk of an answer may have, *longest_answer* all of them together.

    *native_output* says whether the server holds an answer to a schema (``output_config``), for
    ``Agent(output=Type)``: by default Anthropic's own alone does. Of a server or an older model
    that does not, the answer is asked for as the call of a tool.

    *client* is an `httpx2.AsyncClient` or `httpx.AsyncClient` of your own, for proxies,
    certificates, hooks and headers, such as ``anthropic-beta``: the key and *timeout* still come
    from here, redirects are not followed, and closing it is yours. Without one, there is a pool of
    connections for each event loop, closed when the last ``async with`` of the model and the last
    of its requests end there. A kernel enters the model by itself; a request outside every ``async
    with`` works, and opens a pool for itself.

    What the model thinks, signed or encrypted, is kept in the history as the server sent it, and
    sent back in its place. Of tools that run at the server nothing is kept, so a response that
    they pause (``pause_turn``) cannot be gone on with, and fails.

    Requests raise `turnscope.ModelError` with the HTTP status, the server's words and what it
    says of when to ask again. The key is in none of them, and in no repr.

    Raises ValueError for a *base_url* that is no URL or has a password in it, for an *api_key* or a
    *version* that cannot be sent, and for a *timeout*, *longest_chunk* or *longest_answer* that is
    not above 0.
    """

    provider: ClassVar[str] = "anthropic"
    _api: ClassVar[API] = API(
        maker="Anthropic",
        base_url="https://api.anthropic.com",
        path="/v1/messages",
        key_variable="ANTHROPIC_API_KEY",
        url_variable="ANTHROPIC_BASE_URL",
        key_header="x-api-key",
        key_form="{}",
    )
    _dialect: ClassVar[Dialect] = ANTHROPIC

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
        version: str = "2026-10-21",
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
            native_output=native_output,
            longest_chunk=longest_chunk,
            longest_answer=longest_answer,
        )
        if not version or not all("!" <= character <= "~" for character in version):
            raise ValueError(f"version is like '2026-10-21', not {version!r}")
        self._version = version

    def _headers(self) -> Mapping[str, str]:
        return {"anthropic-version": self._version}

    def _body(self, request: ModelRequest, address: Address) -> bytes:
        return request_body(self.name, request, self._settings)

    def _reader(self, secret: Secret, address: Address) -> Reader:
        return MessageReader(secret)
