"""Requests whose answer is read as it comes: who owns the connections, and what failures mean.

A pool of connections belongs to one event loop, so there is one for each that uses a model, opened
with its first use and closed with its last. A response is closed whatever ends the block that it
is read in. Failures become ModelError here, at the seam, from httpx2 and httpx alike: the two have
the same names. Above: `_http_model`. Below: `_address`, `_server_words`. It knows nothing of chat.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio
import attrs
from anyio import CancelScope
from anyio.lowlevel import EventLoopToken, current_token

from turnscope import ModelError

from ._address import API, Address
from ._server_words import Secret, retry_after, shown, words_of

try:
    import httpx2
except ModuleNotFoundError as exc:  # pragma: no cover  # because the tests install every extra
    raise ModuleNotFoundError(
        "models over HTTP need httpx2: pip install 'turnscope[openai]' or 'turnscope[anthropic]'",
        name=exc.name,
    ) from exc

if TYPE_CHECKING:
    import ssl

_LONGEST_REFUSAL: Final = 65_536
"""Bytes that are read of an answer that is no stream: enough for any message."""
_LINGER: Final = 0.1
"""Seconds that an answer may take to end after its last event; then its connection is closed."""
_CONNECT: Final = 10.0
"""Seconds within which a server that is there accepts a connection."""
# As many as a process can well have open: how many requests a kernel makes at once is for its
# limits to say.
_LIMITS: Final = httpx2.Limits(max_connections=1_000, max_keepalive_connections=100)

_HEADERS: Final = {
    "Content-Type": "application/json",
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",  # compressed, a stream comes late: whole blocks at a time
}


class HTTPResponse(Protocol):
    """What is used of a response, of httpx2 or of httpx."""

    @property
    def status_code(self) -> int: ...
    @property
    def reason_phrase(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    def aiter_bytes(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class HTTPClient(Protocol):
    """What is used of a client: `httpx2.AsyncClient` and `httpx.AsyncClient` have it."""

    def build_request(
        self,
        method: str,
        url: str,
        *,
        content: bytes,
        headers: dict[str, str],
        timeout: tuple[float | None, float | None, float | None, float | None],
    ) -> Any:
        """A request."""
        ...

    async def send(
        self, request: Any, /, *, stream: bool, auth: Any = ..., follow_redirects: bool
    ) -> Any:
        """Its response, of which only the headers have been read."""
        ...


@cache
def _tls() -> ssl.SSLContext:
    """Made once: it takes 16 ms, in which the event loop stands still."""
    return httpx2.create_ssl_context()


@attrs.define(eq=False)
class _Pool:
    client: httpx2.AsyncClient
    users: int = 0


class Pools:
    """The connections of a model: one pool for each event loop, or the client that was handed in.

    The client that was handed in is its owner's to close.
    """

    def __init__(self, client: HTTPClient | None = None) -> None:
        self._client = client
        self._pools: dict[EventLoopToken, _Pool] = {}

    def enter(self) -> HTTPClient:
        """Count one more user in this event loop, and return what it may use."""
        if self._client is not None:
            return self._client
        token = current_token()
        if token not in self._pools:
            client = httpx2.AsyncClient(verify=_tls(), limits=_LIMITS)
            self._pools[token] = _Pool(client)
        pool = self._pools[token]
        pool.users += 1
        return pool.client

    async def leave(self) -> None:
        """Count one less; the last one closes the pool."""
        if self._client is not None:
            return
        token = current_token()
        pool = self._pools[token]
        pool.users -= 1
        if not pool.users:
            del self._pools[token]
            with CancelScope(shield=True):
                await pool.client.aclose()


@attrs.define(eq=False)
class Answer:
    """A response that has begun: `more` reads it."""

    _response: HTTPResponse
    _chunks: AsyncIterator[bytes]
    _host: str
    _secret: Secret
    _longest: int
    """How many bytes it may have."""
    _size: int = 0

    async def more(self) -> bytes | None:
        """The next bytes, None at the end.

        Raises ModelError if the connection fails, and if there are too many: what has been read
        of an answer is kept until its end.
        """
        try:
            received = await anext(self._chunks, None)
        except _failures() as exc:
            raise _broken(exc, self._host, self._secret) from exc
        self._size += len(received or b"")
        if self._size > self._longest:
            raise ModelError(
                f"{self._host} sent an answer of more than {self._longest:,} bytes; if that is no "
                "mistake, raise longest_answer="
            )
        return received

    async def linger(self) -> None:
        """Read to the end, if it is near: then the connection can be used again."""
        with anyio.move_on_after(_LINGER), suppress(ModelError):
            while await self.more() is not None:
                continue

    async def aclose(self) -> None:
        """Close the response, and the generators that it is read by.

        httpx and httpx2 read by generators in generators, and close the outermost: the others are
        left to the garbage collector, which gives each a task of its own on asyncio, and a warning
        on trio. A cancellation, unlike a close, goes through all of them.
        """
        with CancelScope(shield=True) as scope:
            scope.cancel()
            with suppress(StopAsyncIteration, *_failures()):
                for _ in range(_LONGEST_REFUSAL):  # what had been received comes without an await
                    await anext(self._chunks)
        with CancelScope(shield=True):
            await self._response.aclose()

    async def check(self, key_variable: str) -> None:
        """Raise ModelError unless this is the beginning of a stream of events.

        *key_variable* is where a key is looked for that none was sent of.
        """
        status, headers = self._response.status_code, self._response.headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if 200 <= status < 300 and kind not in ("text/html", "application/json"):
            return
        words = words_of((await self._beginning()).decode("utf-8", "replace"), self._secret)
        if 200 <= status < 300:
            raise ModelError(
                f"{self._host} answered with {kind} where a stream of events was asked for, so "
                f"base_url may be wrong: {words or '(nothing)'}",
                status=status,
            )
        if 300 <= status < 400:
            words = shown(headers.get("location", ""), self._secret)
            words = (
                f"it points to {words}, where the key is not sent: set base_url to what is meant"
            )
        elif status == 401 and not self._secret:
            words += f" (no key was sent: set {key_variable}, or pass api_key=)"
        reason = shown(self._response.reason_phrase, self._secret)
        raise ModelError(
            f"{self._host} answered {f'{status} {reason}'.strip()}: {words or '(nothing)'}",
            status=status,
            retry_after=retry_after(headers, time.time()),
            # Of OpenAI's and Anthropic's, and of some who speak their protocols; their own clients
            # obey it too.
            transient={"true": True, "false": False}.get(headers.get("x-should-retry", "")),
        )

    async def _beginning(self) -> bytes:
        received = b""
        with suppress(ModelError):  # what came before the connection broke is better than nothing
            while len(received) < _LONGEST_REFUSAL and (chunk := await self.more()) is not None:
                received += chunk
        return received[:_LONGEST_REFUSAL]


@asynccontextmanager
async def posted(
    client: HTTPClient,
    api: API,
    to: Address,
    body: bytes,
    secret: Secret,
    *,
    headers: Mapping[str, str],
    timeout: float | None,
    longest: int,
) -> AsyncGenerator[Answer]:
    """Post *body*, JSON, and read the stream of events that comes back; closed with the block.

    *timeout* is how many seconds the server may be silent, *longest* how many bytes it may send.
    Raises ModelError if it cannot be reached or refuses.
    """
    connect = _CONNECT if timeout is None else min(timeout, _CONNECT)
    try:
        request = client.build_request(
            "POST",
            to.url,
            content=body,
            headers={**_HEADERS, **headers},
            timeout=(connect, timeout, timeout, None),  # connect, read, write, pool
        )
        # A redirect could take the key, and the conversation, to anybody.
        options: dict[str, Any] = {}
        if secret:
            options["auth"] = secret.signing(api.key_header, api.key_form)
        response = await client.send(request, stream=True, follow_redirects=False, **options)
    except _failures() as exc:
        raise _broken(exc, to.host, secret) from exc
    answer = Answer(response, aiter(response.aiter_bytes()), to.host, secret, longest)
    async with aclosing(answer):
        await answer.check(api.key_variable)
        yield answer


def _failures() -> tuple[type[Exception], ...]:
    """What httpx2 raises, and httpx, if a client of it can be about."""
    modules = [sys.modules[name] for name in ("httpx2", "httpx") if name in sys.modules]
    names = ("HTTPError", "StreamError", "InvalidURL")
    return tuple(getattr(module, name) for module in modules for name in names)


def _broken(exc: Exception, host: str, secret: Secret) -> ModelError:
    """The error that *exc* is to those who do not know httpx."""
    secret.hide(exc)
    kinds = {kind.__name__ for kind in type(exc).__mro__}
    words = shown(str(exc), secret) or type(exc).__name__
    if "ConnectTimeout" in kinds:
        said = f"{host} could not be reached in time; is it there, and base_url right?"
    elif "TimeoutException" in kinds:
        said = f"{host} was silent for too long; raise timeout= if it is only slow"
    elif kinds & {"ConnectError", "UnsupportedProtocol", "InvalidURL", "ProxyError"}:
        said = f"{host} could not be reached: {words}; is it there, and base_url right?"
    else:
        said = f"the connection to {host} broke: {words}"
    lasting = kinds & {"UnsupportedProtocol", "InvalidURL", "DecodingError"}
    return ModelError(said, transient=not lasting)
