"""What a body leaves open, by a generator that it does not read to its end, breaks nothing else."""

from __future__ import annotations

import gc
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import anyio
import pytest

from tests.kernel.agents import an_agent, asks, ends
from tests.kernel.bodies import UNIT, a_kernel, anyio_backend, fine, statuses, submit, took
from turnscope import Agent, History, Kernel, ModelError, Retry, Status, Tool, _left_open, tool
from turnscope.abc import ModelRequest
from turnscope.events import CallDelta, ModelEvent, ModelFinished, TextDelta

__all__ = ["anyio_backend"]

pytestmark = pytest.mark.anyio

MANY = 1_000 * UNIT


class Generators:
    """Generators that are kept, so that nobody closes them while the test runs."""

    def __init__(self) -> None:
        self.kept: list[AsyncGenerator[int]] = []
        self.ended: list[str] = []

    def keep(self, generator: AsyncGenerator[int]) -> AsyncGenerator[int]:
        self.kept.append(generator)
        return generator

    async def in_scopes(self) -> AsyncGenerator[int]:
        with anyio.move_on_after(MANY), anyio.CancelScope():
            yield 1

    async def in_a_group(self) -> AsyncGenerator[int]:
        async with anyio.create_task_group() as group:
            group.start_soon(self._sleeper, group)
            yield 2

    async def _sleeper(self, group: Any) -> None:
        try:
            group.start_soon(anyio.sleep_forever)
            await anyio.sleep_forever()
        finally:
            self.ended.append("sleeper")
            with anyio.CancelScope(shield=True):
                await anyio.sleep(UNIT)

    async def scopes(self) -> int:
        """Leave two scopes open."""
        async for number in self.keep(self.in_scopes()):
            return number
        return 0

    async def group(self) -> int:
        """Leave a task group open, in which a task runs."""
        async for number in self.keep(self.in_a_group()):
            await anyio.sleep(UNIT)
            return number
        return 0

    async def both(self) -> int:
        """Leave two scopes and a group open, and work on in them."""
        return await self.scopes() + await self.group()

    async def fails(self) -> int:
        """Fail with two scopes open."""
        raise LookupError(str(await self.scopes()))

    async def waits(self) -> int:
        """Wait for ever with two scopes open."""
        await self.scopes()
        await anyio.sleep_forever()
        return 0

    async def group_in_time(self) -> int:
        """Leave a task group open inside of a block with a deadline, which ends before it."""
        with anyio.fail_after(MANY):
            return await self.group()

    async def group_in_a_group(self) -> int:
        """Leave a task group open inside of another, which is to end before it."""
        async with anyio.create_task_group():
            return await self.group()


@pytest.fixture
async def generators() -> AsyncGenerator[Generators]:
    made = Generators()
    yield made
    for each in made.kept:
        with suppress(Exception, BaseExceptionGroup):  # its blocks were left before, and it says so
            await each.aclose()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of turnscope's."""
    return [each.getMessage() for each in caplog.records if each.name == "turnscope"]


async def slow() -> str:
    """Take longer than those that leave something open."""
    await anyio.sleep(2 * UNIT)
    return "slow"


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "timeout": {"timeout": MANY},
    "idle timeout": {"idle_timeout": MANY},
    "retry": {"read_only": True, "retry": Retry(on=OSError)},
    "keys": {"writes": "file"},
    "exclusive": {"exclusive": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(("name", "value", "left"), [("scopes", 1, 2), ("both", 3, 3)])
async def test_a_call_that_leaves_blocks_open_is_a_call_like_others(
    options: dict[str, Any],
    name: str,
    value: int,
    left: int,
    generators: Generators,
    caplog: pytest.LogCaptureFixture,
) -> None:
    leaves = Tool(getattr(generators, name), **options)
    async with a_kernel() as kernel, kernel.turn([leaves, slow]) as turn:
        submit(turn, leaves, slow, leaves, slow)
    assert statuses(turn) == ["ok"] * 4
    assert [result.value for result in turn.results] == [value, "slow"] * 2
    about = f"{name!r} ended with cancel scopes or task groups open ({left})"
    assert [text.startswith(about) for text in said(caplog)] == [True, True]


async def test_what_runs_in_a_group_that_is_left_open_is_cancelled(generators: Generators) -> None:
    async with a_kernel() as kernel, kernel.turn([generators.group, slow]) as turn:
        submit(turn, generators.group, slow)
    assert [result.value for result in turn.results] == [2, "slow"]
    assert generators.ended == ["sleeper"]


@pytest.mark.parametrize("name", ["group_in_time", "group_in_a_group"])
async def test_a_body_that_cannot_leave_its_own_blocks_fails_alone(
    name: str, generators: Generators
) -> None:
    body = getattr(generators, name)
    async with a_kernel() as kernel, kernel.turn([body, slow]) as turn:
        submit(turn, body, slow)
    assert statuses(turn) == ["failed", "ok"]
    assert generators.ended == ["sleeper"]


async def test_an_attempt_does_not_run_in_what_the_one_before_left_open(
    generators: Generators, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[float] = []

    async def short() -> AsyncGenerator[int]:
        with anyio.move_on_after(UNIT):
            yield 1

    @tool(read_only=True, retry=Retry(attempts=2, initial=2 * UNIT, jitter=0))
    async def unlucky() -> str:
        attempts.append(anyio.current_time())
        async for _ in generators.keep(short()):
            if len(attempts) == 1:
                raise OSError("once")
            break
        return "lucky"

    async with a_kernel() as kernel, kernel.turn([unlucky]) as turn:
        submit(turn, unlucky)
    assert [result.value for result in turn.results] == ["lucky"]
    took(attempts[0], 2 * UNIT)
    assert len(said(caplog)) == len(attempts) == 2


async def test_an_error_is_kept_although_blocks_are_left_open(generators: Generators) -> None:
    async with a_kernel() as kernel, kernel.turn([generators.fails, slow]) as turn:
        submit(turn, generators.fails, slow)
    assert statuses(turn) == ["failed", "ok"]
    assert isinstance(turn.results[0].error, LookupError)


@pytest.mark.parametrize("options", [{}, {"timeout": UNIT}], ids=["cancelled", "timed out"])
async def test_an_interrupted_call_may_leave_blocks_open(
    options: dict[str, Any], generators: Generators
) -> None:
    waits = Tool(generators.waits, **options)
    async with a_kernel() as kernel, kernel.turn([waits, fine]) as turn:
        submit(turn, waits, fine)
        await anyio.sleep(2 * UNIT)
        turn.cancel()
    expected = Status.TIMED_OUT if options else Status.CANCELLED
    assert [result.status for result in turn.results] == [expected, Status.OK]


async def test_runs_go_on_after_calls_that_left_blocks_open(generators: Generators) -> None:
    early = tool(generators.both, read_only=True)
    agents = [
        an_agent(asks(early, slow), asks(early, slow), "done", tools=[early, slow])
        for _ in range(3)
    ]
    async with a_kernel() as kernel:
        histories: list[History] = []

        async def one(agent: Agent[Any, str]) -> None:
            histories.append((await kernel.run(agent, "go")).history)

        async with anyio.create_task_group() as group:
            for agent in agents:
                group.start_soon(one, agent)
    assert [ends(history) for history in histories] == [["ok"] * 4] * 3


class LeavesScopesOpen:
    """A model whose generators are abandoned inside of a block with a deadline.

    It calls a tool twice and is done; or *fails* at once.
    """

    def __init__(self, *, fails: bool) -> None:
        self.asked = 0
        self.fails = fails
        self.kept: list[object] = []

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncGenerator[ModelEvent]]:
        self.asked += 1
        yield self._outer()

    async def _outer(self) -> AsyncGenerator[ModelEvent]:
        inner = self._inner()
        self.kept.append(inner)
        async for event in inner:
            yield event
            if self.fails:
                raise ModelError("the server is on fire", status=500, transient=False)
            if isinstance(event, ModelFinished):
                break

    async def _inner(self) -> AsyncGenerator[ModelEvent]:
        with anyio.move_on_after(MANY):
            if self.asked < 3:
                yield CallDelta(0, "c", "fine", "{}")
            else:
                yield TextDelta("done")
            yield ModelFinished()
            await anyio.sleep(UNIT)


async def test_a_scope_that_a_model_leaves_open_does_not_break_the_run() -> None:
    async with a_kernel() as kernel:
        agent = Agent(model=LeavesScopesOpen(fails=False), tools=[tool(fine)])
        result = await kernel.run(agent, "go")
    assert (result.output, result.turns) == ("done", 3)


async def test_a_scope_that_a_model_leaves_open_does_not_hide_why_it_failed() -> None:
    async with a_kernel() as kernel:
        agent = Agent(model=LeavesScopesOpen(fails=True), tools=[tool(fine)])
        with pytest.raises(ModelError, match="the server is on fire") as caught:
            await kernel.run(agent, "go")
        assert (await kernel.run(an_agent("done"), "go")).output == "done"
    assert caught.value.history is not None and len(caught.value.history) == 1


class LeavesGroupsOpen:
    """A model whose generators are abandoned inside of a task group, in which a task runs."""

    def __init__(self, generators: Generators) -> None:
        self.generators = generators
        self.asked = 0

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncGenerator[ModelEvent]]:
        self.asked += 1
        yield self._events()

    async def _events(self) -> AsyncGenerator[ModelEvent]:
        await self.generators.group()
        if self.asked < 4:
            yield CallDelta(0, "c", "drops", "{}")
        else:
            yield TextDelta("done")
        yield ModelFinished()


async def test_another_call_may_close_the_generator(generators: Generators) -> None:
    async def closes() -> None:
        """Close it while a task of its group still ends."""
        await anyio.sleep(1.5 * UNIT)
        await generators.kept[0].aclose()

    async with a_kernel() as kernel, kernel.turn([generators.group, closes, slow]) as turn:
        submit(turn, generators.group, closes, slow)
    assert statuses(turn) == ["ok", "failed", "ok"]
    assert isinstance(turn.results[1].error, RuntimeError)  # the block was left before


async def test_a_run_survives_the_end_of_what_its_model_left_open(generators: Generators) -> None:
    @tool
    async def drops() -> str:
        """Drop the generators on trio, which closes them in a task of its own."""
        # On asyncio AnyIO's test runner takes what the loop is told of that for a failed test.
        if not anyio.get_cancelled_exc_class().__module__.startswith("asyncio"):
            generators.kept.clear()
            gc.collect()
        await anyio.sleep(UNIT)
        return "dropped"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trio tells of each generator that it cannot close
        async with a_kernel() as kernel:
            agent = Agent(model=LeavesGroupsOpen(generators), tools=[drops])
            result = await kernel.run(agent, "go")
    assert (result.output, result.turns) == ("done", 4)
    assert ends(result.history) == ["ok"] * 3
    assert generators.ended == ["sleeper"] * 4


async def test_kernels_know_how_this_event_loop_is_made() -> None:
    """Or all of the above would pass by luck, with nothing found and nothing broken."""
    async with Kernel() as kernel:
        assert not isinstance(kernel._loop.blocks, _left_open._Unknown)


async def test_nothing_is_found_in_an_event_loop_that_is_made_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_left_open.anyio, "CancelScope", object)
    on_asyncio = anyio.get_cancelled_exc_class().__module__.startswith("asyncio")
    look = _left_open.blocks_on_asyncio if on_asyncio else _left_open.blocks_on_trio
    assert look(object).inside(cast("Any", None)) == ()
