"""A limit of model requests that finds itself, with a server that takes so many and no more."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from tests.kernel.agents import virtual_backend as virtual_backend
from tests.kernel.bodies import a_kernel
from turnscope import (
    AdaptiveLimit,
    Agent,
    Kernel,
    LimiterLeaked,
    Limits,
    ModelError,
    ModelsFailed,
    Retry,
    fallback,
)
from turnscope._adaptive import pushes_back
from turnscope._limits import Limiter, Ticket
from turnscope.abc import ModelRequest
from turnscope.events import ModelEvent, ModelFinished, TextDelta
from turnscope.testing import ScriptedModel

in_a_loop = pytest.mark.anyio


class Narrow:
    """A server that takes *room* requests at once, and refuses those beyond it."""

    def __init__(self, room: int, status: int = 429) -> None:
        self.room = room
        self.working = self.peak = self.refused = 0
        self._status = status

    @asynccontextmanager
    async def stream(self, request: ModelRequest, /) -> Any:
        if self.working >= self.room:
            self.refused += 1
            await anyio.sleep(0.1)
            raise ModelError("too many", status=self._status)
        self.working += 1
        self.peak = max(self.peak, self.working)
        try:
            await anyio.sleep(1)
            yield self._events()
        finally:
            self.working -= 1

    async def _events(self) -> AsyncIterator[ModelEvent]:
        yield TextDelta("ok")
        yield ModelFinished()


def allowed(kernel: Kernel) -> float:
    return kernel.statistics().limiters["model_requests"].capacity


async def ask(kernel: Kernel, model: Any, times: int, **options: Any) -> None:
    agent: Agent[Any, str] = Agent(model=model, **options)
    async with anyio.create_task_group() as group:
        for _ in range(times):
            group.start_soon(kernel.run, agent, "go")


@in_a_loop
@pytest.mark.parametrize("status", [429, 529])
async def test_it_finds_how_many_a_server_takes_and_follows_it(status: int) -> None:
    server = Narrow(8, status)
    retry = Retry(attempts=math.inf, initial=0.5, jitter=0)
    async with a_kernel(limits=Limits(model_requests=AdaptiveLimit(32))) as kernel:
        await ask(kernel, server, 120, retry=retry)
        assert server.peak == 8
        assert 4 <= allowed(kernel) <= 9
        assert server.refused < 60, "24 of the first 32, and then a few at a time"
        server.room, server.peak = 20, 0
        await ask(kernel, server, 300, retry=retry)
        assert server.peak == 20, "it grows when there is more room"
        server.room = 3
        await ask(kernel, server, 50, retry=retry)
        assert 1 <= allowed(kernel) <= 4


@in_a_loop
async def test_it_is_halved_once_for_all_that_were_under_way_and_never_below_one() -> None:
    server = Narrow(0)
    async with a_kernel(limits=Limits(model_requests=AdaptiveLimit(8, at_most=8))) as kernel:

        async def refused(times: int) -> None:
            async with anyio.create_task_group() as group:
                for _ in range(times):
                    group.start_soon(one)

        async def one() -> None:
            with pytest.raises(ModelError):
                await kernel.run(Agent(model=server, retry=None), "go")

        seen = []
        for _ in range(5):
            await refused(1)
            seen.append(allowed(kernel))
        assert seen == [4, 2, 1, 1, 1]
        server.room = 99
        await ask(kernel, server, 50)
        assert allowed(kernel) == 8
        server.room = 0
        await refused(8)
        assert allowed(kernel) == 4


@in_a_loop
async def test_other_failures_and_requests_that_were_alone_change_nothing() -> None:
    async with a_kernel(limits=Limits(model_requests=AdaptiveLimit(4))) as kernel:
        for status in (400, 500, 503, None):
            model = ScriptedModel([ModelError("no", status=status)])
            with pytest.raises(ModelError):
                await kernel.run(Agent(model=model, retry=None), "go")
        for _ in range(20):
            await ask(kernel, Narrow(1), 1)
        assert allowed(kernel) == 4


@in_a_loop
async def test_it_grows_no_further_than_it_may() -> None:
    limit = AdaptiveLimit(2, at_most=3)
    async with a_kernel(limits=Limits(model_requests=limit)) as kernel:
        server = Narrow(99)
        await ask(kernel, server, 40)
        assert (allowed(kernel), server.peak) == (3, 3)


@in_a_loop
async def test_a_fallback_of_which_one_pushed_back_counts_as_pushed_back() -> None:
    models = fallback(*[ScriptedModel([ModelError("no", status=code)]) for code in (429, 503)])
    async with a_kernel(limits=Limits(model_requests=AdaptiveLimit(4))) as kernel:
        with pytest.raises(ModelsFailed):
            await kernel.run(Agent(model=models, retry=None), "go")
        assert allowed(kernel) == 2


def test_what_pushes_back() -> None:
    assert pushes_back(ModelError("", status=429)) and pushes_back(ModelError("", status=529))
    assert not pushes_back(ModelError("", status=503)) and not pushes_back(OSError())


def test_who_waits_is_let_in_by_a_limit_that_has_grown() -> None:
    class Waits:
        let_in = False

        def admitted(self) -> None:
            self.let_in = True

        def refused(self, exc: LimiterLeaked, /) -> None:
            raise AssertionError("nothing leaks here") from exc

    limiter = Limiter("model_requests", AdaptiveLimit(1))
    first, second, third = (Waits() for _ in range(3))
    tickets = [Ticket((limiter,), each, nested=False) for each in (first, second, third)]
    assert [ticket.advance() for ticket in tickets] == [True, False, False]
    assert limiter.window is not None
    limiter.window.answered(0, in_full=True)
    limiter.follow(limiter.window)
    assert (limiter.capacity, limiter.lent, second.let_in, third.let_in) == (2, 2, True, False)
    limiter.window.refused(0)
    limiter.follow(limiter.window)
    tickets[0].release()
    assert (limiter.capacity, limiter.lent, third.let_in) == (1, 1, False), "one too many worked"
    tickets[1].release()
    assert (limiter.lent, third.let_in) == (1, True)


@pytest.mark.parametrize(
    ("start", "at_most"), [(0, 5), (-1, 5), (2.5, 5), (math.inf, math.inf), (6, 5), (1, "5")]
)
def test_what_cannot_be_a_limit_is_refused(start: Any, at_most: Any) -> None:
    with pytest.raises(ValueError, match=r"AdaptiveLimit\(start="):
        AdaptiveLimit(start, at_most)
    with pytest.raises(ValueError, match="model_requests=0"):
        Limits(model_requests=0)
