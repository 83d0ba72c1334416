"""Who owns connections, and that nothing of a request outlives it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import Response

from tests.adapters.openai.asking import REQUEST, ask, eventually, told
from tests.adapters.openai.server import (
    DONE,
    GOOD,
    HEAD,
    HELLO,
    SECONDS,
    ChatServer,
    RawServer,
    Site,
    chunk,
    chunked,
    open_sockets,
)
from tests.support import LOOPS, UVLOOP, Loop
from turnscope import ModelError
from turnscope.events import TextDelta
from turnscope.testing import nothing_left
from turnscope_adapters.openai import OpenAIChat

LIBRARIES = [None, httpx2, httpx]
ENDLESS = [*HELLO, 60.0]
# The event loops on which one task can cancel another directly.
NATIVE = ["asyncio", UVLOOP]


async def patient(request: Request, site: Site) -> Response:
    """Never answers: holds the request until the client goes."""
    site.begun.set()
    while (await request.receive())["type"] != "http.disconnect":
        continue
    site.ended.set()
    return Response()


def places(server: ChatServer) -> dict[str, Site]:
    """Servers that keep a request waiting: before the answer, and in the middle of it."""
    return {"before": server.site(patient), "within": server.streaming(ENDLESS)}


class Clients:
    """One client of a library, or none; closed with the block."""

    def __init__(self, library: Any) -> None:
        self.client = library and library.AsyncClient()

    async def __aenter__(self) -> Any:
        return self.client

    async def __aexit__(self, *_: object) -> None:
        if self.client is not None:
            await self.client.aclose()


async def swallow(model: OpenAIChat) -> None:
    async with model.stream(REQUEST) as events:
        async for _ in events:
            pass


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("place", ["before", "within"])
def test_a_cancelled_request_leaves_nothing(
    place: str, library: Any, server: ChatServer, any_loop: Loop
) -> None:
    site = places(server)[place]

    async def main() -> None:
        async with Clients(library) as client:
            async with OpenAIChat("m", base_url=site.base_url, client=client) as model:
                async with nothing_left(within=1), anyio.create_task_group() as group:
                    group.start_soon(swallow, model)
                    await eventually(site.begun.is_set)
                    group.cancel_scope.cancel()
                # At once, though the pool is open: no connection is in use, so none is left.
                assert open_sockets(server.port) == 0
                assert await anyio.to_thread.run_sync(site.ended.wait, SECONDS)
        assert open_sockets(server.port) == 0

    any_loop.run(main)
    gc.collect()


@pytest.mark.parametrize(
    ("times", "library"),
    # httpx can lose the connection to a second cancel, until its client is closed.
    [(1, None), (2, None), (3, None), (1, httpx2), (2, httpx2), (3, httpx2), (1, httpx)],
)
@pytest.mark.parametrize("place", ["before", "within"])
@pytest.mark.parametrize("any_loop", NATIVE, indirect=True)
def test_a_natively_cancelled_request_leaves_nothing(
    place: str, times: int, library: Any, server: ChatServer, any_loop: Loop
) -> None:
    site = places(server)[place]

    async def main() -> None:
        async with Clients(library) as client:
            async with OpenAIChat("m", base_url=site.base_url, client=client) as model:
                task = asyncio.create_task(swallow(model))
                await eventually(site.begun.is_set)
                for _ in range(times):  # the second one comes in the middle of the first one's work
                    task.cancel()
                    await asyncio.sleep(0)
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await anyio.to_thread.run_sync(site.ended.wait, SECONDS)
                await eventually(lambda: open_sockets(server.port) == 0)
                assert asyncio.all_tasks() == {asyncio.current_task()}

    any_loop.run(main)
    gc.collect()


def test_a_request_may_be_cancelled_at_any_instant(server: ChatServer, any_loop: Loop) -> None:
    cancelled_at_any_instant(False, server, any_loop)


@pytest.mark.parametrize("any_loop", NATIVE, indirect=True)
def test_a_request_may_be_cancelled_natively_at_any_instant(
    server: ChatServer, any_loop: Loop
) -> None:
    cancelled_at_any_instant(True, server, any_loop)


def cancelled_at_any_instant(native: bool, server: ChatServer, any_loop: Loop) -> None:
    site = server.streaming([*GOOD[:-1], 0.001, DONE])

    async def main() -> None:
        async with OpenAIChat("m", base_url=site.base_url) as model:
            for instant in range(120):
                if native:
                    task = asyncio.create_task(swallow(model))
                    for _ in range(instant // 2):
                        await asyncio.sleep(0 if instant % 2 else 0.0001)
                    task.cancel()
                    await asyncio.wait([task])
                else:
                    with anyio.CancelScope() as scope:
                        async with anyio.create_task_group() as group:
                            group.start_soon(swallow, model)
                            for _ in range(instant // 2):
                                await anyio.sleep(0 if instant % 2 else 0.0001)
                            scope.cancel()
                # Whatever was cut, the pool still serves, and holds what is idle alone.
                if instant % 10 == 9:
                    assert told(await ask(model)).text == "Hello"
                    assert open_sockets(server.port) <= 1
        assert open_sockets(server.port) == 0

    any_loop.run(main)
    gc.collect()


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("how", ["break", "raise"])
def test_a_response_that_is_left_early_is_closed(
    how: str, library: Any, server: ChatServer, any_loop: Loop
) -> None:
    site = server.streaming(ENDLESS)

    async def main() -> None:
        async with (
            Clients(library) as client,
            OpenAIChat("m", base_url=site.base_url, client=client) as model,
        ):
            tasks = len(anyio.get_running_tasks())
            with pytest.raises(ZeroDivisionError):
                async with model.stream(REQUEST) as events:
                    assert await anext(events) == TextDelta("Hel")
                    if how == "raise":
                        raise ZeroDivisionError
                assert open_sockets(server.port) == 0
                raise ZeroDivisionError
            assert open_sockets(server.port) == 0
            assert len(anyio.get_running_tasks()) == tasks, "no task closes what was left behind"
            assert await anyio.to_thread.run_sync(site.ended.wait, SECONDS)

    any_loop.run(main)
    gc.collect()


@pytest.mark.parametrize("library", [httpx2, httpx])
@pytest.mark.parametrize("how", ["early", "oops", "torn"])
def test_a_response_of_any_transport_is_closed(how: str, library: Any, any_loop: Loop) -> None:
    closed: list[str] = []

    class Body(library.AsyncByteStream):  # type: ignore[misc]  # because the library is a parameter
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield HELLO[1].encode()
            if how == "torn":
                raise library.ReadError("torn")
            yield b"data: oops\n\n"

        async def aclose(self) -> None:
            closed.append(how)

    headers = {"content-type": "text/event-stream"}
    transport = library.MockTransport(
        lambda _: library.Response(200, headers=headers, stream=Body())
    )

    async def main() -> None:
        async with library.AsyncClient(transport=transport) as client:
            model = OpenAIChat("m", base_url="http://h/v1", client=client)
            if how == "early":
                async with model.stream(REQUEST) as events:
                    await anext(events)
            else:
                with pytest.raises(ModelError, match=how):
                    await ask(model)
            assert closed == [how]

    any_loop.run(main)


def test_a_response_that_is_never_read_is_closed(server: ChatServer, any_loop: Loop) -> None:
    site = server.streaming(ENDLESS)

    async def main() -> None:
        async with OpenAIChat("m", base_url=site.base_url) as model:
            async with model.stream(REQUEST):
                pass
            assert open_sockets(server.port) == 0

    any_loop.run(main)
    gc.collect()


def test_a_response_may_be_left_in_a_users_generator(server: ChatServer, any_loop: Loop) -> None:
    site = server.streaming(ENDLESS)

    async def texts(model: OpenAIChat) -> AsyncIterator[str]:
        async with model.stream(REQUEST) as events:
            async for event in events:
                yield type(event).__name__

    async def main() -> None:
        async with OpenAIChat("m", base_url=site.base_url) as model:
            generator = texts(model)
            assert await anext(generator) == "TextDelta"

            async def close_elsewhere() -> None:
                await generator.aclose()  # type: ignore[attr-defined]  # because it is a generator

            async with anyio.create_task_group() as group:
                group.start_soon(close_elsewhere)
            assert open_sockets(server.port) == 0

    any_loop.run(main)


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("library", LIBRARIES)
def test_connections_are_used_again(library: Any, server: ChatServer, any_loop: Loop) -> None:
    site = server.streaming(GOOD)

    async def main() -> None:
        async with Clients(library) as client:
            async with OpenAIChat("m", base_url=site.base_url, client=client) as model:
                for _ in range(3):
                    await ask(model)
                assert open_sockets(server.port) == 1
            assert open_sockets(server.port) == (0 if library is None else 1), "ours is closed"
            if client:
                assert not client.is_closed

    any_loop.run(main)
    assert len({received.port for received in site.received}) == 1
    assert open_sockets(server.port) == 0


def test_an_answer_that_does_not_end_after_its_last_event_costs_its_connection(
    any_loop: Loop,
) -> None:
    body = HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked("".join(GOOD))
    with RawServer(body, end="wait") as server:

        async def main() -> None:
            async with OpenAIChat("m", base_url=server.base_url) as model:
                with anyio.fail_after(SECONDS / 2):  # the server waits for longer
                    assert told(await ask(model)).text == "Hello"
                assert open_sockets(server.port) == 0

        any_loop.run(main)
        assert server.gone.wait(SECONDS)


def test_several_requests_run_at_once(server: ChatServer, any_loop: Loop) -> None:
    arrived: list[Request] = []
    all_there = asyncio.Event()  # none is answered before

    async def answer(request: Request, site: Site) -> Response:
        arrived.append(request)
        if len(arrived) == 20:
            all_there.set()
        await all_there.wait()
        return Response("".join(GOOD), media_type="text/event-stream")

    site = server.site(answer)

    async def main() -> None:
        async with OpenAIChat("m", base_url=site.base_url) as model:
            with anyio.fail_after(SECONDS):
                async with anyio.create_task_group() as group:
                    for _ in range(20):
                        group.start_soon(ask, model)
        assert open_sockets(server.port) == 0

    any_loop.run(main)
    assert len(site.received) == 20


@pytest.mark.usefixtures("unhurried")
def test_a_pool_is_shared_by_all_who_entered_and_closed_by_the_last(
    server: ChatServer, any_loop: Loop
) -> None:
    site = server.streaming(GOOD)

    async def main() -> None:
        model = OpenAIChat("m", base_url=site.base_url)
        async with model:
            await ask(model)
            async with model:
                await ask(model)
            assert open_sockets(server.port) == 1, "one has left, one is still there"
            await ask(model)
        assert open_sockets(server.port) == 0
        async with model:  # and once more
            await ask(model)
        assert open_sockets(server.port) == 0

    any_loop.run(main)
    assert len({received.port for received in site.received}) == 2


def test_a_request_outside_every_block_has_a_pool_of_its_own(
    server: ChatServer, any_loop: Loop
) -> None:
    site = server.streaming(GOOD)

    async def main() -> None:
        model = OpenAIChat("m", base_url=site.base_url)
        for _ in range(2):
            assert told(await ask(model)).text == "Hello"
            assert open_sockets(server.port) == 0

    any_loop.run(main)


def test_the_pool_outlives_the_block_until_its_last_request_has_ended(
    server: ChatServer, any_loop: Loop
) -> None:
    site = server.streaming([HELLO[1], 0.05, *GOOD])

    async def main() -> None:
        model = OpenAIChat("m", base_url=site.base_url)
        await model.__aenter__()
        async with model.stream(REQUEST) as events:
            await anext(events)
            await model.__aexit__(None, None, None)
            assert told([event async for event in events]).text == "Hello"
        assert open_sockets(server.port) == 0

    any_loop.run(main)


def test_one_model_serves_several_event_loops_one_after_the_other(server: ChatServer) -> None:
    site = server.streaming(GOOD)
    model = OpenAIChat("m", base_url=site.base_url)

    async def main() -> None:
        async with model:
            assert told(await ask(model)).text == "Hello"

    for name in LOOPS:
        Loop(name, virtual=False).run(main)
        assert open_sockets(server.port) == 0


@pytest.mark.usefixtures("unhurried")
def test_one_model_serves_several_event_loops_at_once(server: ChatServer) -> None:
    site = server.streaming(GOOD)
    model = OpenAIChat("m", base_url=site.base_url)
    together = threading.Barrier(2 * len(LOOPS))
    wrong: list[BaseException] = []

    def run(name: str) -> None:
        async def main() -> None:
            async with model:
                await anyio.to_thread.run_sync(together.wait, SECONDS)
                for _ in range(10):
                    assert told(await ask(model)).text == "Hello"
                await anyio.to_thread.run_sync(together.wait, SECONDS)
                assert told(await ask(model)).text == "Hello"

        try:
            Loop(name, virtual=False).run(main)
        except BaseException as exc:
            wrong.append(exc)

    threads = [threading.Thread(target=run, args=[name]) for name in [*LOOPS, *LOOPS]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * SECONDS)
    assert not wrong
    assert len({received.port for received in site.received}) == 2 * len(LOOPS), "a pool for each"
    assert open_sockets(server.port) == 0


def test_a_failure_leaves_the_pool_in_order(server: ChatServer, any_loop: Loop) -> None:
    bad, good = server.streaming([HELLO[1], chunk(finish="error"), 60.0]), server.streaming(GOOD)

    async def main() -> None:
        async with httpx2.AsyncClient(limits=httpx2.Limits(max_connections=1)) as client:
            for _ in range(3):
                with pytest.raises(ModelError):
                    await ask(OpenAIChat("m", base_url=bad.base_url, client=client))
                with anyio.fail_after(5):  # the one connection there may be is free
                    await ask(OpenAIChat("m", base_url=good.base_url, client=client))

    any_loop.run(main)


def test_a_cancel_gives_the_place_in_the_pool_back(server: ChatServer, any_loop: Loop) -> None:
    slow, good = server.streaming(ENDLESS), server.streaming(GOOD)

    async def main() -> None:
        async with httpx2.AsyncClient(limits=httpx2.Limits(max_connections=1)) as client:
            for _ in range(3):
                with anyio.move_on_after(0.05):
                    await ask(OpenAIChat("m", base_url=slow.base_url, client=client))
                with anyio.fail_after(5):
                    await ask(OpenAIChat("m", base_url=good.base_url, client=client))

    any_loop.run(main)
