"""What a server, or the way to it, does wrong: one ModelError, with nothing left open; the key."""

from __future__ import annotations

import logging
import socket
import traceback
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from tests.adapters.anthropic.messages import (
    GOOD,
    HELLO,
    STOP,
    begin,
    delta,
    end,
    failing,
    start,
    text,
)
from tests.adapters.openai.asking import ask, told
from tests.adapters.openai.server import HEAD, ChatServer, RawServer, chunked, open_sockets
from tests.support import Loop
from turnscope import ModelError
from turnscope.testing import nothing_left
from turnscope_adapters.anthropic import AnthropicMessages

# One of each kind: what is the same for all models over HTTP is tested with all, in `openai`.
LIBRARIES = [None, httpx]


def failure(loop: Loop, base_url: str, library: Any = None, **options: Any) -> ModelError:
    """The error of one request; asserts that it leaves no connection and no task."""

    async def main() -> ModelError:
        client = None if library is None else library.AsyncClient()
        try:
            async with nothing_left(within=1):
                async with AnthropicMessages(
                    "m", base_url=base_url, client=client, **options
                ) as model:
                    with pytest.raises(ModelError) as caught, anyio.fail_after(8):
                        await ask(model)
        finally:
            if client is not None:
                await client.aclose()
        return caught.value

    error = loop.run(main)
    assert open_sockets(httpx2.URL(base_url).port or 80) == 0
    assert len(str(error)) < 700
    return error


def refusal(kind: str, message: str) -> str:
    return f'{{"type": "error", "error": {{"type": "{kind}", "message": "{message}"}}}}'


@pytest.mark.parametrize(
    ("status", "kind", "transient"),
    [
        (400, "invalid_request_error", False),
        (401, "authentication_error", False),
        (403, "permission_error", False),
        (404, "not_found_error", False),
        (413, "request_too_large", False),
        (429, "rate_limit_error", True),
        (500, "api_error", True),
        (529, "overloaded_error", True),
    ],
)
def test_a_refusal_has_the_status_the_words_and_when_to_ask_again(
    status: int, kind: str, transient: bool, server: ChatServer, any_loop: Loop
) -> None:
    body = refusal(kind, "because")
    site = server.refusing(status, body, **{"content-type": "application/json", "retry-after": "7"})
    error = failure(any_loop, site.base_url, api_key="k")
    assert (error.status, error.retry_after, error.transient) == (status, 7, transient)
    assert f"127.0.0.1:{server.port} answered {status}" in str(error)
    assert "because" in str(error)


def test_a_server_that_says_not_to_ask_again_is_believed(
    server: ChatServer, any_loop: Loop
) -> None:
    site = server.refusing(429, refusal("x", "spent"), **{"x-should-retry": "false"})
    assert not failure(any_loop, site.base_url).transient


# The wire; what it can do to any model is in `test_wire`.

PART = HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked("".join(HELLO))


def test_nobody_there_is_an_error_that_says_so(any_loop: Loop) -> None:
    with socket.socket() as taken:  # and bound all the time, or somebody might be there by then
        taken.bind(("127.0.0.1", 0))
        error = failure(any_loop, f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert "could not be reached" in str(error) and error.transient


def test_a_slow_server_is_waited_for_as_long_as_it_says_anything(
    server: ChatServer, any_loop: Loop
) -> None:
    slow = [part for each in GOOD for part in (each, 0.25)]
    model = AnthropicMessages("m", base_url=server.streaming(slow).base_url, timeout=1)
    assert told(any_loop.run(ask, model)).text == "Hello"


@pytest.mark.parametrize("ends", ["close", "reset", "wait"])
def test_a_connection_that_fails_after_the_reason_was_told_costs_nothing(
    ends: str, any_loop: Loop
) -> None:
    whole = start() + text(0, "Hel") + end()[: -len(STOP)]
    with RawServer(HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked(whole), end=ends) as raw:
        # The answer has to begin within it, too.
        model = AnthropicMessages("m", base_url=raw.base_url, timeout=1)
        assert told(any_loop.run(ask, model)).text == "Hel"


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_redirect_is_not_followed(library: Any, server: ChatServer, any_loop: Loop) -> None:
    with RawServer() as elsewhere:
        site = server.refusing(307, "", location=elsewhere.base_url)
        client = library and library.AsyncClient(follow_redirects=True)

        async def main() -> None:
            model = AnthropicMessages("m", base_url=site.base_url, client=client, api_key="k")
            with pytest.raises(ModelError, match=elsewhere.base_url) as caught:
                await ask(model)
            assert caught.value.status == 307
            if client:
                await client.aclose()

        any_loop.run(main)
        assert elsewhere.requests == []


# The key.

KEY = "sk-ant-api03-hush-0123456789"


def echoes() -> dict[str, Callable[[ChatServer], Any]]:
    """Servers that send the key back, each in another place."""
    said = f"x-api-key: {KEY} is wrong"
    return {
        "message": lambda server: server.refusing(401, refusal("authentication_error", said)),
        "page": lambda server: server.refusing(500, f"<p>{said}"),
        "location": lambda server: server.refusing(307, "", location=f"http://h/?{KEY}"),
        "stream": lambda server: server.streaming([failing("api_error", said)]),
        "chunk": lambda server: server.streaming([f"data: {said}\n\n"]),
        "name": lambda server: server.streaming(
            [
                begin(0, "tool_use", name=KEY),
                begin(1, "text"),
                delta(0, "input_json_delta", partial_json="more"),
            ]
        ),
        "reason": lambda _: RawServer(f"HTTP/1.1 401 {said}\r\ncontent-length: 0\r\n\r\n".encode()),
        "header": lambda _: RawServer(f"HTTP/1.1 200 OK\r\n {said}\r\n\r\n".encode()),
        "status": lambda _: RawServer(f"{said}\r\n\r\n".encode()),
    }


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("place", echoes())
def test_the_key_is_in_no_error_and_in_no_log(
    place: str,
    library: Any,
    server: ChatServer,
    any_loop: Loop,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = echoes()[place](server)
    # The libraries' own logs repeat a server's headers at level DEBUG, and the words beside the
    # status at INFO.
    in_head = {"location": logging.INFO, "header": logging.INFO, "status": logging.INFO}
    caplog.set_level({**in_head, "reason": logging.WARNING}.get(place, logging.DEBUG))
    if library is None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", f"{KEY}\n")  # as it comes out of a file
        error = failure(any_loop, site.base_url, library)
    else:
        error = failure(any_loop, site.base_url, library, api_key=KEY)
    # First that it was sent, and came back.
    if isinstance(site, RawServer):
        assert f"x-api-key: {KEY}\r\n".encode() in site.requests[0].lower()
    else:
        assert site.received[0].headers["x-api-key"] == KEY
    for said in (str(error), repr(error), caplog.text):
        assert KEY not in said
    below: BaseException | None = error
    while below is not None:
        assert KEY not in f"{below} {below!r} {below.args!r}"
        below = below.__cause__ or below.__context__


def test_the_key_is_in_no_variable_that_a_traceback_would_show(
    server: ChatServer, any_loop: Loop
) -> None:
    pages = [server.refusing(500, "no").base_url, server.streaming([*HELLO, -1]).base_url]
    with RawServer(PART, end="reset") as raw:
        for base_url in (*pages, raw.base_url, "http://127.0.0.1:1"):
            error = failure(any_loop, base_url, api_key=KEY)
            shown = traceback.TracebackException.from_exception(error, capture_locals=True)
            frames = [
                frame
                for part in (shown, shown.__cause__)
                for frame in (part.stack if part else ())
                if "site-packages" in frame.filename or "turnscope_adapters" in frame.filename
            ]
            assert frames
            assert not [frame for frame in frames if KEY in str(frame.locals)]


def test_the_key_is_in_no_repr() -> None:
    model = AnthropicMessages("m", api_key=KEY, base_url="http://127.0.0.1:1?key=hush")
    assert repr(model) == "<AnthropicMessages 'm', at 127.0.0.1:1>"
    assert KEY not in str(vars(model))


@pytest.mark.parametrize("base_url", [None, "https://api.anthropic.com/v1"])
def test_anthropic_itself_is_not_asked_without_a_key(base_url: str | None, any_loop: Loop) -> None:
    with pytest.raises(ModelError, match="Anthropic needs a key: set ANTHROPIC_API_KEY"):
        any_loop.run(ask, AnthropicMessages("m", base_url=base_url))


def test_a_server_of_ones_own_needs_no_key(server: ChatServer, any_loop: Loop) -> None:
    site = server.streaming(GOOD)
    any_loop.run(ask, AnthropicMessages("m", base_url=site.base_url))
    assert "x-api-key" not in site.received[0].headers
    error = failure(any_loop, server.refusing(401, "who?").base_url)
    assert "no key was sent: set ANTHROPIC_API_KEY" in str(error)


def test_the_environment_is_read_with_each_request(
    server: ChatServer, any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = server.streaming(GOOD)
    model = AnthropicMessages("m", version="2023-06-01")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", site.base_url)
    for key in ("first", "second"):
        monkeypatch.setenv("ANTHROPIC_API_KEY", key)
        any_loop.run(ask, model)
    any_loop.run(ask, AnthropicMessages("m", api_key="mine"))
    sent = [received.headers["x-api-key"] for received in site.received]
    assert sent == ["first", "second", "mine"]
    versions = [received.headers["anthropic-version"] for received in site.received]
    assert versions == ["2023-06-01", "2023-06-01", "2026-10-21"]


@pytest.mark.parametrize("library", [httpx2, httpx])
def test_a_client_of_ones_own_may_bring_its_own_key_and_betas(
    library: Any, server: ChatServer, any_loop: Loop
) -> None:
    site = server.streaming(GOOD)
    headers = {"x-api-key": "its own", "anthropic-beta": "new-2026-01-01"}

    async def main() -> None:
        async with library.AsyncClient(headers=headers) as client:
            await ask(AnthropicMessages("m", base_url=site.base_url, client=client))
            await ask(AnthropicMessages("m", base_url=site.base_url, client=client, api_key="k"))

    any_loop.run(main)
    assert [received.headers["x-api-key"] for received in site.received] == ["its own", "k"]
    assert {received.headers["anthropic-beta"] for received in site.received} == {"new-2026-01-01"}
