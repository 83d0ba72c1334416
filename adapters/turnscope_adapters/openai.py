"""`OpenAIChat` and `OpenAIResponses`: models behind OpenAI's protocols, or servers that speak them.

Above: an Agent, or the names ``openai:NAME`` and ``openai-responses:NAME``. Below: `_http_model`
does what all models over HTTP do; `_openai_wire` and `_openai_stream` know the words of Chat
Completions, `_responses_wire` and `_responses_stream` those of the Responses API.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from turnscope.abc import ModelRequest

from . import _openai_wire, _responses_wire
from ._address import API, Address
from ._http import HTTPClient
from ._http_model import HTTPModel
from ._openai_stream import ChatReader
from ._responses_stream import ResponsesReader
from ._server_words import Secret
from ._strict import OPENAI, Dialect

__all__ = ["HTTPClient", "OpenAIChat", "OpenAIResponses"]


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

    *native_output* says whether the server holds an answer to a schema (``response_format``), for
    ``Agent(output=Type)``: by default OpenAI's own alone does. Of a server or an older model that
    does not, the answer is asked for as the call of a tool.

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

    provider: ClassVar[str] = "openai"
    _api: ClassVar[API] = API(
        maker="OpenAI",
        base_url="https://api.openai.com/v1",
        path="/chat/completions",
        key_variable="OPENAI_API_KEY",
        url_variable="OPENAI_BASE_URL",
    )
    _dialect: ClassVar[Dialect] = OPENAI

    def _body(self, request: ModelRequest, address: Address) -> bytes:
        return _openai_wire.request_body(self.name, request, self._settings)

    def _reader(self, secret: Secret, address: Address) -> ChatReader:
        return ChatReader(secret)


class OpenAIResponses(HTTPModel):
    """A model behind OpenAI's Responses API, or any server that speaks it::

        OpenAIResponses("gpt-5", settings={"reasoning": {"effort": "low", "summary": "auto"}})

    The parameters, the errors and the connections are those of `OpenAIChat`. The server is asked to
    store nothing (``store: false``), and the whole conversation is sent with each request. What a
    model has thought comes encrypted (``include: ["reasoning.encrypted_content"]``, not asked of
    models that are known by name to have no reasoning; ``{"include": None}`` leaves it out for
    others), is kept in the history beside what it says of it in plain text, and is sent back in its
    place: to the host that it came from, and to no other. So are the items of tools that the server
    runs by itself, which come in through ``settings={"tools": [...]}`` if the agent has none.

    A tool's schema is sent as it is, with ``strict`` false. Images, PDF and office files may stand
    in prompts and in results. Calls that a client other than this must answer, such as those of
    ``custom`` tools, raise `turnscope.ModelError`.
    """

    provider: ClassVar[str] = "openai"
    _api: ClassVar[API] = attrs.evolve(OpenAIChat._api, path="/responses")
    _dialect: ClassVar[Dialect] = OPENAI

    def _body(self, request: ModelRequest, address: Address) -> bytes:
        return _responses_wire.request_body(self.name, address.host, request, self._settings)

    def _reader(self, secret: Secret, address: Address) -> ResponsesReader:
        return ResponsesReader(secret, address.host)
