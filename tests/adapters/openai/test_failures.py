"""What a server, or the way to it, does wrong: one ModelError, with the server's own words."""

from __future__ import annotations

import gc
import gzip
import logging
import socket
import traceback
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from tests.adapters.openai.asking import REQUEST, ask, told
from tests.adapters.openai.server import (
    DONE,
    GOOD,
    HEAD,
    HELLO,
    ChatServer,
    RawServer,
    chunk,
    chunked,
    open_sockets,
)
from tests.support import Loop
from turnscope import ModelError
from turnscope_adapters.openai import OpenAIChat

LIBRARIES = [None, httpx2, httpx]


def failure(loop: Loop, base_url: str, library: Any = None, **options: Any) -> ModelError:
    """The error of one request; asserts that it leaves no connection."""

    async def main() -> ModelError:
        client = None if library is None else library.AsyncClient()
        try:
            async with OpenAIChat("m", base_url=base_url, client=client, **options) as model:
                with pytest.raises(ModelError) as caught, anyio.fail_after(4):
                    await ask(model)
        finally:
            if client is not None:
                await client.aclose()
        return caught.value

    error = loop.run(main)
    assert open_sockets(httpx2.URL(base_url).port or 80) == 0
    assert len(str(error)) < 700
    return error


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, '{"error": {"message": "Incorrect API key", "code": "x"}}', "Incorrect API key"),
        (404, '{"error": {"message": "no such model"}}', "no such model"),
        (429, '{"error": "slow down"}', "slow down"),
        (400, '{"detail": [{"loc": ["body"], "msg": "Field required"}]}', "Field required"),
        (400, '[{"error": {"message": "in a list", "status": "INVALID"}}]', "in a list"),
        (500, "oops\r\n\x1b[31mred", "oops [31mred"),
        (
            502,
            "<html><style>x{}</style><title>502</title>\n<p>Bad <b>gateway</b>",
            "502 Bad gateway",
        ),
        (503, "", "(nothing)"),
        (500, "x" * 100_000, "x" * 500 + "..."),
        (500, "[" * 100_000, "[[["),
    ],
)
def test_a_refusal_has_the_status_and_the_words(
    status: int, body: str, words: str, server: ChatServer, any_loop: Loop
) -> None:
    error = failure(any_loop, server.refusing(status, body).base_url, api_key="k")
    assert error.status == status
    assert words in str(error)
    assert f"127.0.0.1:{server.port} answered {status}" in str(error)
    assert error.retry_after is None


def test_a_refusal_that_never_ends_is_read_as_far_as_it_matters(any_loop: Loop) -> None:
    with RawServer(b"HTTP/1.1 500 no\r\n\r\n" + b"x" * 70_000, end="wait") as server:
        error = failure(any_loop, server.base_url)
    assert error.status == 500


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1),
        (
            {
                "retry-after": formatdate(1_000_030, usegmt=True),
                "date": formatdate(1_000_000, usegmt=True),
            },
            30,
        ),
        ({"retry-after": formatdate(1_000_000, usegmt=True)}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
    ],
)
def test_the_server_says_when_to_ask_again(
    headers: dict[str, str], seconds: float | None, any_loop: Loop
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = f"HTTP/1.1 429 Too Many Requests\r\n{lines}content-length: 2\r\n\r\nno"
    with RawServer(answer.encode()) as server:
        error = failure(any_loop, server.base_url)
    assert error.status == 429
    assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        ("text/html; charset=utf-8", "<h1>Sign in</h1>", "text/html where a stream .*Sign in"),
        ("application/json", '{"choices": []}', "application/json where a stream"),
        ("application/json", '{"error": {"message": "bad model"}}', "bad model"),
    ],
)
def test_an_answer_that_is_no_stream_is_refused(
    kind: str, body: str, words: str, server: ChatServer, any_loop: Loop
) -> None:
    site = server.refusing(200, body, **{"content-type": kind})
    with pytest.raises(ModelError, match=words):
        raise failure(any_loop, site.base_url)


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream"])
def test_a_stream_under_another_name_is_read(kind: str, server: ChatServer, any_loop: Loop) -> None:
    site = server.streaming(GOOD, **{"content-type": kind})
    assert told(any_loop.run(ask, OpenAIChat("m", base_url=site.base_url))).text == "Hello"


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(
    status: int, library: Any, server: ChatServer, any_loop: Loop
) -> None:
    with RawServer() as elsewhere:
        site = server.refusing(status, "", location=elsewhere.base_url)
        client = library and library.AsyncClient(follow_redirects=True)

        async def main() -> None:
            async with OpenAIChat("m", base_url=site.base_url, client=client, api_key="k") as model:
                with pytest.raises(ModelError, match=elsewhere.base_url) as caught:
                    await ask(model)
            assert caught.value.status == status
            if client:
                await client.aclose()

        any_loop.run(main)
        assert elsewhere.requests == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_nobody_there_is_an_error_that_says_so(library: Any, any_loop: Loop) -> None:
    with socket.socket() as taken:  # and bound all the time, or somebody might be there by then
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        error = failure(any_loop, url, library)
    assert "could not be reached" in str(error)
    assert error.status is None
    assert isinstance(error.__cause__, (library or httpx2).ConnectError)


PART = HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked(HELLO[1])
WHOLE = PART + chunked(chunk(finish="stop"))


@pytest.mark.parametrize("end", ["close", "reset", "wait"])
def test_a_connection_that_fails_after_a_whole_answer_costs_nothing(
    end: str, any_loop: Loop
) -> None:
    with RawServer(WHOLE, end=end) as server:
        # The answer has to begin within it, too.
        model = OpenAIChat("m", base_url=server.base_url, timeout=1)
        assert told(any_loop.run(ask, model)).text == "Hel"


def test_a_server_that_dies_within_its_answer_is_an_error(
    server: ChatServer, any_loop: Loop
) -> None:
    error = failure(any_loop, server.streaming([*HELLO, -1]).base_url)
    assert "broke" in str(error)


def test_the_timeout_is_for_silence_and_not_for_the_whole_answer(
    server: ChatServer, any_loop: Loop
) -> None:
    slow = [part for event in GOOD for part in (event, 0.25)]
    model = OpenAIChat("m", base_url=server.streaming(slow).base_url, timeout=1)
    assert told(any_loop.run(ask, model)).text == "Hello"


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_compressed_stream_is_read_though_it_was_not_asked_for(
    library: Any, any_loop: Loop
) -> None:
    head = HEAD + b"content-encoding: gzip\r\n\r\n"
    with RawServer(head + gzip.compress("".join(GOOD).encode())) as server:

        async def main() -> None:
            client = library and library.AsyncClient()
            model = OpenAIChat("m", base_url=server.base_url, client=client)
            assert told(await ask(model)).text == "Hello"
            if client:
                await client.aclose()

        any_loop.run(main)
        assert b"accept-encoding: identity" in server.requests[0].lower()


# The libraries leave generators to the garbage collector when they cannot decompress; trio warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stream_that_cannot_be_decompressed_is_an_error(any_loop: Loop) -> None:
    with RawServer(HEAD + b"content-encoding: gzip\r\n\r\nnot gzip at all") as server:
        assert "broke" in str(failure(any_loop, server.base_url))
        gc.collect()


# The key.

KEY = "sk-proj-hush-0123456789"


def echoes() -> dict[str, Callable[[ChatServer], Any]]:
    """Servers that send the key back, each in another place."""
    said = f"Bearer {KEY} is wrong"
    quoted = f'{{"error": {{"message": "{said}"}}}}'
    return {
        "message": lambda server: server.refusing(401, quoted),
        "page": lambda server: server.refusing(500, f"<p>{said}"),
        "at the cut": lambda server: server.refusing(500, "x" * 490 + KEY),
        "json": lambda server: server.refusing(200, quoted, **{"content-type": "application/json"}),
        "location": lambda server: server.refusing(307, "", location=f"http://h/?{KEY}"),
        "stream": lambda server: server.streaming([f"data: {quoted}\n\n"]),
        "chunk": lambda server: server.streaming([f"data: {said}\n\n"]),
        "finish": lambda server: server.streaming([f"event: error\ndata: {said}\n\n"]),
        "reason": lambda _: RawServer(f"HTTP/1.1 401 {said}\r\ncontent-length: 0\r\n\r\n".encode()),
        "header": lambda _: RawServer(f"HTTP/1.1 200 OK\r\n{said}\r\n\r\n".encode()),
        "status": lambda _: RawServer(f"{said}\r\n\r\n".encode()),
    }


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("place", echoes())
@pytest.mark.parametrize("given_as", ["parameter", "environment"])
def test_the_key_is_in_no_error_and_in_no_log(
    place: str,
    library: Any,
    given_as: str,
    server: ChatServer,
    any_loop: Loop,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = echoes()[place](server)
    if given_as == "environment":
        monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")  # as it comes out of a file
        error = failure(any_loop, site.base_url, library)
    else:
        # The libraries' own logs repeat a server's headers at level DEBUG, and the words beside the
        # status at INFO.
        in_head = {"location": logging.INFO, "header": logging.INFO, "status": logging.INFO}
        caplog.set_level({**in_head, "reason": logging.WARNING}.get(place, logging.DEBUG))
        error = failure(any_loop, site.base_url, library, api_key=KEY)
    # First that it was sent, and came back.
    if isinstance(site, RawServer):
        assert f"Bearer {KEY}\r\n".encode() in site.requests[0]
    else:
        assert site.received[0].headers["authorization"] == f"Bearer {KEY}"
    for text in (str(error), repr(error), caplog.text):
        assert KEY not in text
    below: BaseException | None = error
    while below is not None:
        assert KEY not in f"{below} {below!r} {below.args!r}"
        below = below.__cause__ or below.__context__


def test_the_key_is_in_no_variable_that_a_traceback_would_show(
    server: ChatServer, any_loop: Loop
) -> None:
    pages = [server.refusing(500, "no").base_url, server.streaming([*HELLO, -1]).base_url]
    with RawServer(PART, end="reset") as raw:
        for base_url in (*pages, raw.base_url, "http://127.0.0.1:1/v1"):
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


def test_the_key_is_in_no_repr(server: ChatServer, any_loop: Loop) -> None:
    model = OpenAIChat("m", api_key=KEY, base_url="http://127.0.0.1:1/v1?key=hush")
    assert repr(model) == "<OpenAIChat 'm', at 127.0.0.1:1>"
    assert KEY not in str(vars(model))


@pytest.mark.parametrize("key", ["a b", "a\nb", "schlüssel", "a\x00b"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(
    key: str, server: ChatServer, any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="api_key is no key") as caught:
        OpenAIChat("m", api_key=key)
    assert key not in str(caught.value)
    if "\x00" not in key:  # which no environment can hold
        monkeypatch.setenv("OPENAI_API_KEY", key)
        model = OpenAIChat("m", base_url=server.streaming(GOOD).base_url)
        with pytest.raises(ValueError, match="OPENAI_API_KEY is no key") as caught:
            any_loop.run(ask, model)
        assert key not in str(caught.value)


def test_openai_itself_is_not_asked_without_a_key(any_loop: Loop) -> None:
    with pytest.raises(ModelError, match="set OPENAI_API_KEY"):
        any_loop.run(ask, OpenAIChat("m"))


def test_a_server_of_ones_own_needs_no_key(server: ChatServer, any_loop: Loop) -> None:
    site = server.streaming(GOOD)
    any_loop.run(ask, OpenAIChat("m", base_url=site.base_url))
    assert "authorization" not in site.received[0].headers
    error = failure(any_loop, server.refusing(401, "who?").base_url)
    assert "no key was sent" in str(error)


def test_the_environment_is_read_with_each_request(
    server: ChatServer, any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = server.streaming(GOOD)
    model = OpenAIChat("m", base_url=site.base_url)
    for key in ("first", "second"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        any_loop.run(ask, model, REQUEST)
    sent = [received.headers["authorization"] for received in site.received]
    assert sent == ["Bearer first", "Bearer second"]
    any_loop.run(ask, OpenAIChat("m", base_url=site.base_url, api_key="mine"))
    assert site.received[-1].headers["authorization"] == "Bearer mine"


@pytest.mark.parametrize("library", [httpx2, httpx])
def test_a_client_of_ones_own_may_bring_its_own_key(
    library: Any, server: ChatServer, any_loop: Loop
) -> None:
    site = server.streaming(GOOD)

    async def main() -> None:
        async with library.AsyncClient(headers={"authorization": "Basic x"}) as client:
            await ask(OpenAIChat("m", base_url=site.base_url, client=client))
            await ask(OpenAIChat("m", base_url=site.base_url, client=client, api_key="k"))

    any_loop.run(main)
    sent = [received.headers["authorization"] for received in site.received]
    assert sent == ["Basic x", "Bearer k"]


def test_an_empty_key_in_the_environment_is_none(
    server: ChatServer, any_loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    site = server.streaming([*HELLO, chunk(finish="stop"), DONE])
    any_loop.run(ask, OpenAIChat("m", base_url=site.base_url))
    assert "authorization" not in site.received[0].headers
