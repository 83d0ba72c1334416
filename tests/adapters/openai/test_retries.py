"""What a server does wrong for a while: asked again, the run goes on as if nothing had happened."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tests.adapters.openai.server import (
    DONE,
    GOOD,
    HEAD,
    HELLO,
    LAST_USAGE,
    ChatServer,
    RawServer,
    Site,
    chunk,
    chunked,
    open_sockets,
    piece,
)
from tests.support import Loop
from turnscope import Agent, Kernel, Limits, ModelError, Retry, RunResult
from turnscope.events import CallReady, ModelRetried, ModelStarted, RunEvent, TextStreamed
from turnscope_adapters.openai import OpenAIChat

SOON = Retry(initial=0.01, jitter=0)


def in_turn(server: ChatServer, *answers: Callable[[], Response]) -> Site:
    """A site that gives each answer once, and the last one from then on."""
    left = list(answers)

    async def handler(_: Request, site: Site) -> Response:
        return (left.pop(0) if len(left) > 1 else left[0])()

    return server.site(handler)


def refused(status: int, **headers: str) -> Callable[[], Response]:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: Response('{"error": {"message": "not now"}}', status, headers)


def streamed(*events: str) -> Callable[[], Response]:
    """The events, and, if no DONE is among them, a connection that breaks."""

    async def stream() -> Any:
        for event in events:
            yield event
        if DONE not in events:
            await anyio.sleep(0.05)  # else the client may see the break before the text
            raise ConnectionAbortedError

    return lambda: StreamingResponse(stream(), media_type="text/event-stream")


def run(
    loop: Loop, base_url: str, retry: Retry | None = SOON, **fields: Any
) -> tuple[list[RunEvent], RunResult[str], float]:
    """What a run tells and comes to, and how long it took; no connection is left."""

    async def main() -> Any:
        agent = Agent(model=OpenAIChat("m", base_url=base_url), retry=retry, **fields)
        async with Kernel() as kernel:
            with anyio.fail_after(10):
                start = anyio.current_time()
                async with kernel.start(agent, "hello?") as running:
                    events = [event async for event in running]
                    return events, await running.wait(), anyio.current_time() - start

    told = loop.run(main)
    assert open_sockets(int(base_url.split(":")[2].split("/")[0])) == 0
    return told


def retried(events: list[RunEvent]) -> list[ModelRetried]:
    return [event for event in events if isinstance(event, ModelRetried)]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503, 529])
def test_a_refusal_that_passes_is_not_seen(status: int, server: ChatServer, any_loop: Loop) -> None:
    site = in_turn(server, refused(status), refused(status), streamed(*GOOD))
    events, result, _ = run(any_loop, site.base_url)
    assert (result.output, result.turns) == ("Hello", 1)
    assert [each.error.status for each in retried(events)] == [status, status]  # type: ignore[attr-defined]  # because they are ModelErrors
    assert len([each for each in events if isinstance(each, ModelStarted)]) == 1
    bodies = [received.body for received in site.received]
    assert bodies == [bodies[0]] * 3


@pytest.mark.parametrize("header", ["retry_after", "retry_after_ms"])
def test_a_server_is_given_the_time_that_it_asks_for(
    header: str, server: ChatServer, any_loop: Loop
) -> None:
    value = "0.3" if header == "retry_after" else "300"
    site = in_turn(server, refused(429, **{header: value}), streamed(*GOOD))
    events, result, took = run(any_loop, site.base_url)
    assert result.output == "Hello"
    assert [each.delay for each in retried(events)] == [pytest.approx(0.3)]
    assert 0.3 <= took < 3


def test_a_server_that_asks_for_too_much_time_is_not_waited_for(
    server: ChatServer, any_loop: Loop
) -> None:
    site = in_turn(server, refused(429, retry_after="3600"), streamed(*GOOD))
    with pytest.raises(ModelError) as caught:
        run(any_loop, site.base_url)
    assert (caught.value.status, caught.value.retry_after) == (429, 3600)
    assert len(site.received) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_that_stays_is_the_end(status: int, server: ChatServer, any_loop: Loop) -> None:
    site = in_turn(server, refused(status), streamed(*GOOD))
    with pytest.raises(ModelError):
        run(any_loop, site.base_url)
    assert len(site.received) == 1


@pytest.mark.parametrize(("status", "said", "requests"), [(429, "false", 1), (400, "true", 2)])
def test_a_server_that_says_whether_to_ask_again_is_believed(
    status: int, said: str, requests: int, server: ChatServer, any_loop: Loop
) -> None:
    site = in_turn(server, refused(status, x_should_retry=said), streamed(*GOOD))
    if requests == 1:
        with pytest.raises(ModelError):
            run(any_loop, site.base_url)
    else:
        assert run(any_loop, site.base_url)[1].output == "Hello"
    assert len(site.received) == requests


def test_an_answer_that_breaks_off_is_asked_for_again(server: ChatServer, any_loop: Loop) -> None:
    site = in_turn(server, streamed(*HELLO), streamed(*GOOD))
    events, result, _ = run(any_loop, site.base_url)
    assert result.output == "Hello"
    kinds = [type(event) for event in events if isinstance(event, (TextStreamed, ModelRetried))]
    void = kinds.index(ModelRetried)
    texts = [event for event in events if isinstance(event, TextStreamed)]
    assert "".join(each.text for each in texts[:void]) == "Hello"
    assert "".join(each.text for each in texts[void:]) == "Hello"
    assert result.history[-1].text == "Hello"  # type: ignore[union-attr]  # because it is the answer


def test_calls_of_an_answer_that_breaks_off_are_not_run(server: ChatServer, any_loop: Loop) -> None:
    ran: list[str] = []

    async def look(key: str) -> str:
        ran.append(key)
        return "seen"

    def calls(key: str) -> list[str]:
        return [chunk(piece(0, "c1", "look", f'{{"key": "{key}"}}'))]

    site = in_turn(
        server,
        streamed(*calls("void")),
        streamed(*calls("valid"), chunk(finish="tool_calls"), LAST_USAGE, DONE),
        streamed(*GOOD),
    )
    events, result, _ = run(any_loop, site.base_url, tools=[look])
    assert (result.output, result.turns, ran) == ("Hello", 2, ["valid"])
    assert len([each for each in events if isinstance(each, CallReady)]) == 1


@contextmanager
def broken(kind: str) -> Iterator[str]:
    part = HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked(HELLO[1])
    pieces = {"at once": [], "within": [part], "silent end": [HEAD + b"\r\n" + HELLO[1].encode()]}
    with RawServer(*pieces[kind], end="close") as server:
        yield server.base_url
        assert len(server.requests) == 3


@pytest.mark.parametrize("kind", ["at once", "within", "silent end"])
def test_a_connection_that_always_breaks_is_tried_three_times(kind: str, any_loop: Loop) -> None:
    with broken(kind) as base_url, pytest.raises(ModelError) as caught:
        run(any_loop, base_url)
    assert [type(each) for each in caught.value.failures] == [ModelError, ModelError]
    assert caught.value.__notes__ == ["it was tried 3 times"]


def test_without_a_retry_the_first_refusal_is_the_end(server: ChatServer, any_loop: Loop) -> None:
    site = in_turn(server, refused(503), streamed(*GOOD))
    with pytest.raises(ModelError):
        run(any_loop, site.base_url, retry=None)
    assert len(site.received) == 1


def test_a_cancel_in_a_wait_leaves_nothing(server: ChatServer, any_loop: Loop) -> None:
    site = in_turn(server, refused(429, retry_after="60"), streamed(*GOOD))

    async def main() -> None:
        agent = Agent(model=OpenAIChat("m", base_url=site.base_url))
        async with Kernel() as kernel:
            start = anyio.current_time()
            async with kernel.start(agent, "hello?") as running:
                async for event in running:
                    if isinstance(event, ModelRetried):
                        break
            assert anyio.current_time() - start < 5

    any_loop.run(main)
    assert len(site.received) == 1
    assert open_sockets(server.port) == 0


def test_runs_that_are_refused_together_come_through_one_slot(
    server: ChatServer, any_loop: Loop
) -> None:
    count = itertools.count()

    async def handler(_: Request, site: Site) -> Response:
        return (refused(503) if next(count) < 4 else streamed(*GOOD))()

    site = server.site(handler)

    async def main() -> None:
        agent = Agent(model=OpenAIChat("m", base_url=site.base_url), retry=SOON)
        async with Kernel(limits=Limits(model_requests=1)) as kernel:
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(kernel.run, agent, "hello?")
            assert kernel.statistics().limiters["model_requests"].lent == 0

    any_loop.run(main)
    assert len(site.received) == 8
