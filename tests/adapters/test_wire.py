"""Faults on the wire between each model and an honest server: one typed error, and no remains."""

from __future__ import annotations

import gc
from typing import Any

import anyio
import httpx
import pytest

from tests.adapters.anthropic.conftest import _no_keys as _no_keys_of_anthropic
from tests.adapters.anthropic.messages import GOOD as MESSAGES
from tests.adapters.openai.asking import ask, told
from tests.adapters.openai.conftest import _no_keys as _no_keys_of_openai
from tests.adapters.openai.conftest import server
from tests.adapters.openai.server import GOOD as CHAT
from tests.adapters.openai.server import HEAD, ChatServer, chunked, open_sockets
from tests.adapters.responses.wire import HELLO as RESPONSES
from tests.adapters.wire import SECONDS, Endless, Fault, Wire
from tests.support import Loop
from turnscope import Agent, DeadlineExceeded, Kernel, ModelError
from turnscope.testing import nothing_left
from turnscope_adapters._http_model import HTTPModel
from turnscope_adapters.anthropic import AnthropicMessages
from turnscope_adapters.openai import OpenAIChat, OpenAIResponses

__all__ = ["_no_keys_of_anthropic", "_no_keys_of_openai", "server"]

KEY = "sk-hush-0123456789"
HONEST: dict[type[HTTPModel], list[str]] = {
    OpenAIChat: CHAT,
    OpenAIResponses: RESPONSES,
    AnthropicMessages: MESSAGES,
}
MODELS = [*HONEST]
# What lies below is the same for all: so one of them is enough for the other library.
CLIENTS = [*((kind, None) for kind in MODELS), (OpenAIChat, httpx)]

SILENCE = "silent for too long; raise timeout="
BROKE = "connection to 127.0.0.1:.* broke"
CUT = "ended before the response was complete"
HEAD_END, TEXT = b"\r\n\r\n", b"Hel"
PLACES = {"before": b"", "in the head": b"HTTP/1.1", "after the head": HEAD_END, "in a line": TEXT}
GARBAGE = bytes(range(256)) * 50
MUCH = 65_536
COMMENT = b": " + b"x" * 100 + b"\n"
# Sent is also what nobody has read: Linux lets the client's socket hold 32 MB, and 24 MB were seen. Who
# reads on gets 13 MB a second even of the slowest, an endless event.
TAKEN_AT_MOST = 50_000_000


FAULTS: dict[str, tuple[Fault, str, bool]] = {
    **{
        f"stalled, {at}": (Fault(PLACES[at], end="wait"), SILENCE, True)
        for at in ("before", "in the head", "in a line")
    },
    **{f"closed, {at}": (Fault(place), BROKE, True) for at, place in PLACES.items()},
    **{
        f"reset, {at}": (Fault(PLACES[at], end="reset"), BROKE, True)
        for at in ("before", "in a line")
    },
    "cut in good order": (Fault(HEAD_END, [b"0\r\n\r\n"]), CUT, True),
    "cut within an event": (
        Fault(HEAD_END, [chunked(b'data: {"a'), b"0\r\n\r\n"]),
        "is not JSON",
        True,
    ),
    "shorter than announced": (
        Fault(then=[HEAD + b"content-length: 1000\r\n\r\n: hello\n"]),
        BROKE,
        True,
    ),
    "announced as empty": (Fault(then=[HEAD + b"content-length: 0\r\n\r\n"]), CUT, True),
    "empty, of no length": (Fault(then=[HEAD + b"\r\n"]), CUT, True),
    "another protocol": (Fault(then=[b"SSH-2.0-OpenSSH_9\r\n"]), BROKE, True),
    "garbage for a head": (Fault(then=[GARBAGE], end="wait"), BROKE, True),
    "garbage for a chunk": (Fault(HEAD_END, [b"zz\r\n"], "wait"), BROKE, True),
    "garbage in a line": (Fault(TEXT, [GARBAGE], "wait"), BROKE, True),
    "garbage for a body": (Fault(HEAD_END, [chunked(GARBAGE), b"0\r\n\r\n"]), CUT, True),
    "garbage for an event": (
        Fault(HEAD_END, [chunked(b"data: \xff\xfe\x00\n\n")], "wait"),
        "is not JSON",
        False,
    ),
    "deep": (
        Fault(HEAD_END, [chunked(b"data: " + b"[" * 100_000 + b"\n\n")], "wait"),
        "more than 100 levels",
        False,
    ),
    "a long header": (
        Fault(then=[HEAD + b"x: " + b"y" * 200_000 + b"\r\n\r\n"], end="wait"),
        BROKE,
        True,
    ),
    "an endless header": (Fault(then=Endless(b"y" * MUCH, HEAD + b"x: ")), BROKE, True),
    "endless headers": (Fault(then=Endless(b"x: y\r\n" * 1_000, HEAD)), BROKE, True),
    "an endless chunk size": (
        Fault(then=Endless(b"y" * MUCH, HEAD + b"transfer-encoding: chunked\r\n\r\n5;")),
        BROKE,
        True,
    ),
    "a line of 10 MB": (
        Fault(HEAD_END, [chunked(b"data: " + b"x" * 10_000_000)], "wait"),
        "more than 10,000,000 bytes.*longest_chunk=",
        False,
    ),
    "an endless line": (
        Fault(HEAD_END, Endless(chunked(b"x" * MUCH))),
        "more than 1,000,000 bytes.*longest_chunk=",
        False,
    ),
    "an endless event": (
        Fault(HEAD_END, Endless(chunked(b"data: x\n" * 8_000))),
        "more than 1,000,000 bytes.*longest_chunk=",
        False,
    ),
    "endless comments": (
        Fault(HEAD_END, Endless(chunked(COMMENT * 500))),
        "more than 2,000,000 bytes.*longest_answer=",
        False,
    ),
}


def options_for(fault: str) -> dict[str, Any]:
    """Bounds of silence and size that the fault comes to soon, and what is no fault never does."""
    # The connection has to be made within it too, also on a machine that stands still for a while.
    silence = 0.8 if "stalled" in fault else SECONDS
    sizes = {"longest_chunk": 1_000_000, "longest_answer": 2_000_000}
    return {"timeout": silence, **(sizes if "endless" in fault else {})}


def failure(
    loop: Loop, wire: Wire, path: str, kind: type[HTTPModel], library: Any, **options: Any
) -> ModelError:
    """The error of one request through *wire*; asserts that it leaves nothing open."""

    async def main() -> ModelError:
        client = None if library is None else library.AsyncClient()
        model = kind(
            "m",
            base_url=f"http://127.0.0.1:{wire.port}{path}",
            api_key=KEY,
            client=client,
            **options,
        )
        async with nothing_left():
            async with model:
                with pytest.raises(ModelError) as caught, anyio.fail_after(SECONDS):
                    await ask(model)
            if client is not None:  # which may keep a connection whose answer ended in good order
                await client.aclose()
        assert open_sockets(wire.port) == 0
        return caught.value

    error = loop.run(main)
    wire.quiet()
    gc.collect(1)  # the young: to look at all takes longer than the test
    return error


def path_of(base_url: str) -> str:
    return f"/{base_url.split('/', 3)[3]}"


@pytest.mark.parametrize(("kind", "library"), CLIENTS)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_error_in_time_and_leaves_nothing(
    name: str, kind: type[HTTPModel], library: Any, server: ChatServer, any_loop: Loop
) -> None:
    fault, words, transient = FAULTS[name]
    site = server.streaming(HONEST[kind])
    with Wire(server.port, fault) as wire:
        options = options_for(name)
        error = failure(any_loop, wire, path_of(site.base_url), kind, library, **options)
        # A server that has not begun to answer within the timeout is as silent as one that stalls.
        assert wire.begun.is_set() or "stalled" in name
    with pytest.raises(ModelError, match=words):
        raise error
    assert (error.status, error.transient) == (None, transient)
    assert KEY not in f"{error} {error!r} {error.__cause__!r}"
    assert len(str(error)) < 700
    assert wire.sent < TAKEN_AT_MOST, "it was not read on and on"
    assert len(site.received) == 1


@pytest.mark.parametrize("kind", MODELS)
def test_an_honest_answer_passes_through_slow_or_not(
    kind: type[HTTPModel], server: ChatServer, any_loop: Loop
) -> None:
    site = server.streaming(HONEST[kind])
    slow = Fault(None, pause=0.001, step=20)
    for fault in (None, slow):
        with Wire(server.port, fault) as wire:
            model = kind("m", base_url=f"http://127.0.0.1:{wire.port}{path_of(site.base_url)}")
            assert told(any_loop.run(ask, model)).text == "Hello"


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    "fault",
    [
        Fault(None, pause=0.05),
        Fault(HEAD_END, end="wait"),
        Fault(then=Endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)),
        Fault(HEAD_END, Endless(chunked(COMMENT * 500))),
    ],
    ids=["slow", "stalled", "endless preliminaries", "endless comments"],
)
def test_a_run_ends_at_its_deadline_whatever_the_wire_does(
    fault: Fault, kind: type[HTTPModel], server: ChatServer, any_loop: Loop
) -> None:
    site = server.streaming(HONEST[kind])
    with Wire(server.port, fault) as wire:
        base_url = f"http://127.0.0.1:{wire.port}{path_of(site.base_url)}"
        agent: Agent[Any, Any] = Agent(model=kind("m", base_url=base_url, longest_answer=10**12))

        async def main() -> None:
            async with nothing_left(), Kernel() as kernel:
                with anyio.fail_after(SECONDS), pytest.raises(DeadlineExceeded):
                    await kernel.run(agent, "Weather?", timeout=0.3)
                assert open_sockets(wire.port) == 0

        any_loop.run(main)
        wire.quiet()
    gc.collect(1)
