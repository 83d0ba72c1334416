"""What the tests of turns share: bodies that misbehave, a kernel that must come out whole, a clock.

`anyio_backend`, imported into a test module, puts its `@pytest.mark.anyio` tests into virtual time
on asyncio and trio; uvloop has real time only, so spans are short and `took` knows the difference.
Threads stop virtual time: what waits for a leak uses `any_loop` instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from anyio import CancelScope

from tests.support import LOOPS, UVLOOP, VIRTUAL
from turnscope import Kernel, Tool, ToolCall, Turn
from turnscope.testing import check_results, nothing_left, virtual_time

UNIT = 0.2
"""Seconds: the span that tests count in; on uvloop real ones, and a busy machine may take 50 ms of it."""

ROUNDS = 100
"""Of the event loop: more than any test needs from a timer to what it is about."""

only_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio", UVLOOP], indirect=True)
"""For what only asyncio has: `Task.cancel()` and its kin."""

only_trio = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
"""For what only trio has: nurseries and its own scopes."""


@pytest.fixture(params=["asyncio", UVLOOP, "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Virtual time where there is one, real time on uvloop."""
    name = request.param
    if name not in VIRTUAL:
        return LOOPS[name]
    options = virtual_time(name)
    return options["backend"], options["backend_options"]


def on_trio() -> bool:
    """Whether trio runs."""
    return anyio.get_cancelled_exc_class() is trio.Cancelled


def is_real() -> bool:
    """Whether this loop's clock is the machine's."""
    if on_trio():
        return not isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock)
    loop = asyncio.get_running_loop()
    return type(loop).__module__ != "turnscope.testing"


@contextmanager
def move_on_after(span: float) -> Iterator[CancelScope]:
    """As AnyIO's; in asyncio's real time it cancels when what else is due by then has happened.

    A process that is not run for a while finds several timers over at once. AnyIO's deadline would
    then be past before what the others are to bring about, the first step of a body, say, is done.
    """
    if not is_real() or on_trio():
        with anyio.move_on_after(span) as scope:
            yield scope
        return
    loop = asyncio.get_running_loop()

    def look(rounds: int) -> None:
        if rounds:
            loop.call_soon(look, rounds - 1)
        elif open_still:
            scope.cancel()

    open_still = True
    with CancelScope() as scope:
        timer = loop.call_later(span, look, ROUNDS)
        try:
            yield scope
        finally:
            open_still = False
            timer.cancel()


async def elapse(span: float) -> None:
    """Sleep *span* seconds, and until all that was due by then has come, as `move_on_after`."""
    await anyio.sleep(span)
    for _ in range(ROUNDS if is_real() else 0):
        await anyio.sleep(0)


def slack(virtual: float) -> float:
    """By how many seconds something may be late: *virtual* where the clock is; two on a machine."""
    return 2.0 if is_real() else virtual


def took(start: float, span: float) -> None:
    """Assert that *span* seconds have passed since *start*, and hardly more."""
    passed = anyio.current_time() - start
    latest = span + slack(UNIT / 50)
    assert span - UNIT / 50 <= passed <= latest, f"took {passed:.4f} s, not {span:.4f} s"


def call(name: str, /, **arguments: Any) -> ToolCall:
    """A call of the tool *name*."""
    return ToolCall(f"c-{name}", name, arguments)


def submit(turn: Turn, *functions: Callable[..., Any]) -> None:
    """Submit a call without arguments of each."""
    for function in functions:
        turn.submit(call(getattr(function, "name", None) or function.__name__))


def statuses(turn: Turn) -> list[str]:
    """How the calls of a turn settled, in call order."""
    check_results([result.call for result in turn.results], turn.results)
    return [str(result.status) for result in turn.results]


def idle(kernel: Kernel) -> bool:
    """Whether the kernel lends nothing, has nobody waiting and no turn open."""
    look = kernel.statistics()
    return look.turns == 0 and not any(
        limiter.lent or limiter.waiting or limiter.leaked for limiter in look.limiters.values()
    )


async def fine() -> str:
    """Succeed after one await."""
    await anyio.sleep(0)
    return "fine"


# Made here, because pydantic is imported with the first tool, and that takes longer than a unit.
Tool(fine)


@asynccontextmanager
async def a_kernel(**options: Any) -> AsyncGenerator[Kernel]:
    """A kernel that must be idle and usable at the end of the block, and leave nothing."""
    async with nothing_left():
        async with Kernel(**options) as kernel:
            yield kernel
            assert idle(kernel), kernel.statistics()
            async with kernel.turn([fine]) as turn:
                submit(turn, fine)
            assert statuses(turn) == ["ok"]


class Bodies:
    """Tools that note what happens to them."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.begun = anyio.Event()

    async def tidy(self) -> str:
        """Wait for ever; clean up with two awaits when interrupted."""
        self.begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.notes.append("cleaning")
            await anyio.sleep(UNIT / 2)
            await anyio.sleep(UNIT / 2)
            self.notes.append("cleaned")
        return "never"

    async def stubborn(self) -> str:
        """Swallow one interrupt, and return."""
        self.begun.set()
        try:
            await anyio.sleep_forever()
        except BaseException:
            self.notes.append("swallowed")
        return "late"

    async def endless(self) -> str:
        """Swallow every interrupt, and wait again."""
        self.begun.set()
        while True:
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                self.notes.append("swallowed")

    def tools(self) -> list[Callable[..., Coroutine[Any, Any, str]]]:
        """All of them, for `kernel.turn`."""
        return [self.tidy, self.stubborn, self.endless, fine]

    @property
    def cleaned(self) -> bool:
        """Whether `tidy` ran its cleanup once, and whole."""
        return self.notes.count("cleaning") == self.notes.count("cleaned") == 1
