"""Real servers on loopback: a client goes in mid-tool, and nothing is left of what it asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.adapters.command import gone
from tests.adapters.web.serving import COMMANDS, Service, serving, until
from tests.support import NEEDS_UVLOOP, Loop

on_each_server = pytest.mark.parametrize(
    ("kind", "any_loop"),
    [
        pytest.param(
            kind, loop, id=f"{kind}-{loop}", marks=[NEEDS_UVLOOP] if loop == "uvloop" else []
        )
        for kind, loop in COMMANDS
    ],
    indirect=True,
    scope="module",
)
PLACES = ["inline", "thread", "process", "upstream"]


@pytest.fixture(scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def warm(kind: str, any_loop: Loop) -> Iterator[tuple[Service, dict[str, Any]]]:
    """A service that has worked before, and its report at rest."""
    with serving(kind, any_loop.name) as service:
        yield service, service.warm_up()


def hold(service: Service, request: str, place: str) -> tuple[Any, psutil.Process | None]:
    """A client of *request*, when its run is held in *place*, and the worker process if any."""
    service.report()  # tells the pid, too
    opened = service.upstream.opened
    client = service.request(f"GET {request}?prompt={place}")
    worker = None
    if place == "upstream":
        until(lambda: service.upstream.opened > opened)
        until(lambda: len(service.upstream_sockets()) == 1)
    elif place == "process":
        worker = service.worker()
        assert worker.is_running()
    else:
        until(lambda: place in service.report()["at_work"])
    return client, worker


@on_each_server
@pytest.mark.parametrize(
    ("request_", "place"),
    [
        *((path, place) for path in ("/fastapi/ask", "/fastapi/stream") for place in PLACES),
        # Behind a middleware that reads and sends through streams of its own; and with no framework.
        *((path, "inline") for path in ("/wrapped/ask", "/wrapped/stream", "/bare/")),
    ],
)
def test_nothing_is_left_of_a_run_whose_client_has_gone(
    warm: tuple[Service, dict[str, Any]], request_: str, place: str
) -> None:
    service, rest = warm
    until(lambda: service.report() == rest)  # whatever was before, it has been told of by then
    service.seen.clear()
    before = len(service.log)
    client, worker = hold(service, request_, place)
    assert service.report()["runs"] == 1
    if "ask" not in request_:
        client.read_until(b"event: text" if place == "upstream" else b"event: call_started")
        client.read_until(b"\n:\n\n")  # it is kept alive
    client.leave()
    until(lambda: service.report() == rest)
    if worker is not None:
        until(lambda: gone(worker))
    if place == "upstream":
        until(lambda: service.upstream.open == 0)
        until(lambda: service.upstream_sockets() == [])
    expected = [] if place == "upstream" else ["cancelled"]
    assert service.seen == [*expected, *(["disconnected"] if "ask" in request_ else [])]
    assert "Traceback" not in service.log[before:]


@on_each_server
def test_who_stays_gets_the_answer(warm: tuple[Service, dict[str, Any]]) -> None:
    service, rest = warm
    for path in ("/fastapi/ask", "/starlette/ask", "/wrapped/ask"):
        status, body = service.get(f"{path}?prompt=fine")
        assert (status, json.loads(body)["output"]) == (200, "fine: done, done")
    for path in ("/fastapi/stream", "/starlette/stream", "/wrapped/stream", "/bare/"):
        status, body = service.get(f"{path}?prompt=fine")
        assert status == 200
        assert b"event: run_finished" in body
        assert body.endswith(b"0\r\n\r\n")  # the last chunk: the response has ended in good order
    until(lambda: service.report() == rest)


@on_each_server
def test_a_body_that_is_read_after_the_block_is_whole(
    warm: tuple[Service, dict[str, Any]],
) -> None:
    service, _ = warm
    body = b"0123456789" * 30_000  # more than a server reads ahead
    client = service.request("POST /starlette/ask?prompt=fine", body)
    answer = client.read().partition(b"\r\n\r\n")[2]
    assert json.loads(answer)["body"] == body.decode()


@on_each_server
def test_a_server_that_stops_ends_the_runs_that_are_under_way(kind: str, any_loop: Loop) -> None:
    with serving(kind, any_loop.name) as service:
        at_work, worker = hold(service, "/fastapi/stream", "process")
        waiting, _ = hold(service, "/fastapi/ask", "upstream")
        assert worker is not None
        children = psutil.Process(service.process.pid).children(recursive=True)
        service.terminate()
        if (kind, any_loop.name) == ("hypercorn", "asyncio") and sys.version_info >= (3, 12):
            # It waits for asyncio.Server.wait_closed() before it counts its graceful timeout, and
            # from 3.12 on that waits for every connection (pgjones/hypercorn#308).
            at_work.leave()
            waiting.leave()
        service.wait()
        assert "the lifespan has ended" in service.log
        until(lambda: all(gone(child) for child in [*children, worker]))
        until(lambda: service.upstream.open == 0)
        at_work.leave()
        waiting.leave()
