"""The key, which servers send back: in no error of the Responses API, and at no other host.

What a server or the wire can do to any model is in `openai/test_failures.py` and `test_wire.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.adapters.openai.asking import ask
from tests.adapters.openai.server import ChatServer, RawServer
from tests.adapters.responses.wire import CREATED, added, ended, event
from tests.support import Loop
from turnscope import ModelError
from turnscope_adapters.openai import OpenAIResponses

KEY = "sk-proj-hush-0123456789"
SAID = f"Bearer {KEY} is wrong"


def echoes() -> dict[str, Callable[[ChatServer], Any]]:
    """Servers that send the key back, each in another place."""
    error = {"code": "invalid_api_key", "message": SAID}
    mine = {"type": "function_call", "id": KEY, "call_id": KEY, "name": KEY}
    return {
        "message": lambda server: server.refusing(401, f'{{"error": {{"message": "{SAID}"}}}}'),
        "location": lambda server: server.refusing(307, "", location=f"http://h/?{KEY}"),
        "error": lambda server: server.streaming([CREATED, event("error", **error)]),
        "failed": lambda server: server.streaming([CREATED, ended("failed", error=error)]),
        "chunk": lambda server: server.streaming([f"data: {SAID}\n\n"]),
        "item": lambda server: server.streaming(
            [CREATED, added(0, {**mine, "type": "custom_tool_call"}), ended()]
        ),
    }


@pytest.mark.parametrize("place", echoes())
def test_the_key_is_in_no_error_and_in_no_log(
    place: str, server: ChatServer, any_loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    site = echoes()[place](server)
    # The libraries' own logs repeat a server's headers at level DEBUG.
    caplog.set_level(logging.INFO if place == "location" else logging.DEBUG)
    model = OpenAIResponses("m", base_url=site.base_url, api_key=KEY)
    with pytest.raises(ModelError) as caught:
        any_loop.run(ask, model)
    assert site.received[0].headers["authorization"] == f"Bearer {KEY}"
    for text in (str(caught.value), repr(caught.value), caplog.text, repr(model)):
        assert KEY not in text
    below: BaseException | None = caught.value
    while below is not None:
        assert KEY not in f"{below} {below!r} {below.args!r}"
        below = below.__cause__ or below.__context__


@pytest.mark.parametrize("library", [None, httpx])
def test_a_redirect_is_not_followed(library: Any, server: ChatServer, any_loop: Loop) -> None:
    with RawServer() as elsewhere:
        site = server.refusing(307, "", location=elsewhere.base_url)
        client = library and library.AsyncClient(follow_redirects=True)

        async def main() -> None:
            model = OpenAIResponses("m", base_url=site.base_url, client=client, api_key=KEY)
            with pytest.raises(ModelError, match=elsewhere.base_url) as caught:
                await ask(model)
            assert caught.value.status == 307
            if client:
                await client.aclose()

        any_loop.run(main)
        assert elsewhere.requests == []
