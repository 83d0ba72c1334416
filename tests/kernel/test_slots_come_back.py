"""Slots come back, whatever happens on the way: the accounts of the limiters are right at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from tests.kernel.agents import an_agent, asks, ends
from tests.kernel.bodies import fine
from tests.support import Loop
from turnscope import Kernel, Limits, Status, Tool, ToolCall, tool
from turnscope.events import CallSettled, RunEvent

pytestmark = pytest.mark.anyio


def lent(kernel: Kernel) -> dict[str, tuple[int, int, int]]:
    limiters = kernel.statistics().limiters
    return {name: (each.lent, each.waiting, each.leaked) for name, each in limiters.items()}


NOTHING = (0, 0, 0)


def test_a_timeout_ends_the_wait_for_ones_slots(virtual_loop: Loop) -> None:
    @tool
    async def other() -> str:
        await anyio.sleep(4)
        return "other"

    @tool
    async def short() -> None:
        await anyio.sleep(0.1)

    async def main() -> None:
        async with Kernel(limits=Limits(calls=1), grace=0.3) as kernel:

            @tool(timeout=0.5)
            async def parent() -> None:
                async with kernel.turn([short]) as turn:
                    turn.submit(ToolCall("n", "short"))

            start = anyio.current_time()
            async with kernel.turn([parent, other]) as turn:
                turn.submit(ToolCall("p", "parent"))
                await anyio.sleep(0.05)  # behind the nested call, and ahead of what comes back
                turn.submit(ToolCall("o", "other"))
            first, second = turn.results
            assert (first.status, second.status) == ("timed_out", "ok")
            # When the nested call ended the other one took the slot, and would have kept it for 4 s.
            assert first.ended_at - start == pytest.approx(0.5)
            assert set(lent(kernel).values()) == {NOTHING}

    virtual_loop.run(main)


async def test_a_call_that_leaks_while_it_waits_for_its_slots_waits_no_more() -> None:
    free = threading.Event()
    try:
        with anyio.fail_after(30):
            async with Kernel(limits=Limits(calls=1), grace=0.1) as kernel:

                @tool
                async def holds() -> None:
                    await anyio.sleep(1)

                async def nested() -> None:
                    async with kernel.turn([holds]) as turn:
                        turn.submit(ToolCall("n", "unknown"))
                    await anyio.sleep(0)

                @tool(timeout=0.3)
                def leaks() -> None:
                    anyio.from_thread.run(nested)
                    free.wait(20)

                async with kernel.turn([leaks, holds]) as turn:
                    turn.submit(ToolCall("l", "leaks"))
                    turn.submit(ToolCall("h", "holds"))
                assert turn.results[0].status == Status.TIMED_OUT
                free.set()
                while kernel.statistics().limiters["threads"].leaked:
                    await anyio.sleep(0.01)
                assert set(lent(kernel).values()) == {NOTHING}
                async with kernel.turn([holds]) as turn:  # and there is a slot for this
                    turn.submit(ToolCall("h", "holds"))
                assert turn.results[0].ok
    finally:
        free.set()


@pytest.mark.parametrize("inner", ["asyncio", "trio"])
async def test_a_thread_tool_may_run_an_event_loop_and_a_kernel_of_its_own(inner: str) -> None:
    async def add(a: int) -> int:
        await anyio.sleep(0.01)
        return a + 1

    async def turn_of_its_own() -> int:
        async with Kernel() as kernel, kernel.turn([add]) as turn:
            turn.submit(ToolCall("n", "add", {"a": 1}))
        return int(turn.results[0].value)

    def runs_a_loop() -> int:
        return anyio.run(turn_of_its_own, backend=inner)

    with anyio.fail_after(30):
        async with Kernel(limits=Limits(threads=1)) as kernel:
            async with kernel.turn([runs_a_loop]) as turn:
                for number in range(3):
                    turn.submit(ToolCall(str(number), "runs_a_loop"))
            assert [result.value for result in turn.results] == [2, 2, 2]
            assert set(lent(kernel).values()) == {NOTHING}


async def test_a_thread_that_cannot_be_started_takes_no_slot(
    monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str
) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("trio keeps its own threads and starts them by a private name")

    def add(a: int) -> int:
        return a + 1

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with Kernel(limits=Limits(threads=1)) as kernel:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            async with kernel.turn([add]) as turn:
                turn.submit(ToolCall("c", "add", {"a": 1}))
        (result,) = turn.results
        assert (result.status, result.leaked) == ("failed", False)
        assert "can't start new thread" in str(result.content)
        assert set(lent(kernel).values()) == {NOTHING}
        async with kernel.turn([add]) as turn:
            turn.submit(ToolCall("c", "add", {"a": 1}))
        assert turn.results[0].value == 2


async def test_a_thousand_waiters_are_turned_away_one_by_one() -> None:
    free = threading.Event()

    @tool(timeout=0.1)
    def leaks() -> None:
        free.wait(30)

    @tool(limit="group")
    async def holds_the_group() -> None:
        await anyio.sleep(0.5)

    @tool(limit="group")
    def waits() -> None: ...

    try:
        with anyio.fail_after(60):
            limits = Limits(threads=1, groups={"group": 1})
            async with Kernel(limits=limits, grace=0.05) as kernel:

                @tool
                async def parent() -> list[str]:
                    async with kernel.turn([holds_the_group, leaks, waits]) as turn:
                        turn.submit(ToolCall("h", "holds_the_group"))
                        turn.submit(ToolCall("l", "leaks"))
                        for number in range(1000):
                            turn.submit(ToolCall(str(number), "waits"))
                    return [str(result.status) for result in turn.results]

                async with kernel.turn([parent]) as turn:
                    turn.submit(ToolCall("p", "parent"))
                # When the group's slot comes back, each in turn finds all threads leaked.
                assert turn.results[0].value == ["ok", "timed_out"] + ["not_started"] * 1000
    finally:
        free.set()


@pytest.mark.parametrize(
    "on_error",
    [
        lambda exc: Unprintable(),
        lambda exc: (_ for _ in ()).throw(SystemExit(2)),
        lambda exc: {}[exc],
    ],
    ids=["unprintable", "exits", "raises"],
)
async def test_an_on_error_that_misbehaves_fails_its_call_alone(
    on_error: Callable[[Exception], Any],
) -> None:
    async def fails() -> None:
        raise ValueError("first")

    async def fine() -> str:
        await anyio.sleep(0.01)
        return "fine"

    async with Kernel() as kernel:
        async with kernel.turn([Tool(fails, on_error=on_error), fine]) as turn:
            turn.submit(ToolCall("a", "fails"))
            turn.submit(ToolCall("b", "fine"))
        assert [result.status for result in turn.results] == ["failed", "ok"]
        error = turn.results[0].error
        assert error is not None
        assert isinstance(error.__cause__, ValueError)
        assert set(lent(kernel).values()) == {NOTHING}
        async with kernel.turn([fine]) as turn:  # the kernel is as it was
            turn.submit(ToolCall("b", "fine"))
        assert turn.results[0].ok


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


async def test_a_backend_that_never_opens_does_not_keep_the_kernel_from_closing() -> None:
    class Stuck:
        name = "stuck"

        def check(self, fn: Callable[..., object], /) -> None: ...

        async def call(self, fn: Any, kwargs: Any, context: Any, /) -> Any:
            return None

        async def __aenter__(self) -> None:
            await anyio.sleep(10)  # not for ever, so that a kernel that waits for it fails here

        async def __aexit__(self, *exc_info: object) -> None: ...

    async def waits() -> None: ...

    start = anyio.current_time()
    async with Kernel(backends=[Stuck()]) as kernel:
        async with kernel.turn([Tool(waits, backend="stuck")], timeout=0.05) as turn:
            turn.submit(ToolCall("c", "waits"))
        assert turn.results[0].status == Status.NOT_STARTED
    assert anyio.current_time() - start < 9


async def test_an_observer_may_cancel_a_turn_while_slots_are_given_back() -> None:
    free = threading.Event()

    class Cancels:
        turn: Any = None

        def observe(self, event: RunEvent) -> None:
            if isinstance(event, CallSettled) and self.turn is not None and not event.result.ok:
                turn, self.turn = self.turn, None
                turn.cancel("an observer has seen enough")

    observer = Cancels()

    @tool(timeout=0.1)
    def leaks() -> None:
        free.wait(30)

    try:
        with anyio.fail_after(30):
            limits = Limits(threads=1)
            async with Kernel(limits=limits, grace=0.1, observers=[observer]) as kernel:

                @tool
                async def parent() -> None:
                    async with kernel.turn([leaks]) as turn:
                        observer.turn = turn
                        for number in range(6):
                            turn.submit(ToolCall(str(number), "leaks"))

                async with kernel.turn([parent]) as turn:
                    turn.submit(ToolCall("p", "parent"))
                free.set()
                while kernel.statistics().limiters["threads"].leaked:
                    await anyio.sleep(0.01)
                assert set(lent(kernel).values()) == {NOTHING}
    finally:
        free.set()


async def test_a_turn_that_a_body_leaves_open_ends_with_the_body() -> None:
    worked: list[float] = []
    kept: list[Any] = []

    async def works() -> None:
        try:
            await anyio.sleep(30)
        finally:
            await anyio.sleep(0.1)  # its turn is waited for, too
            worked.append(time.monotonic())

    with anyio.fail_after(20):
        async with Kernel(grace=0.5) as kernel:

            async def stands_inside() -> Any:
                async with kernel.turn([works]) as turn:
                    turn.submit(ToolCall("w", "works"))
                    yield

            async def opens() -> str:
                kept.append(stands_inside())
                await anext(kept[0])
                await anyio.sleep(0.05)
                return "done"

            async with kernel.turn([opens]) as turn:
                turn.submit(ToolCall("o", "opens"))
            assert turn.results[0].ok
            assert len(worked) == 1
            assert kernel.statistics().turns == 0
            assert set(lent(kernel).values()) == {NOTHING}
            await kept[0].aclose()


async def test_equal_objects_are_tools_of_their_own() -> None:
    class Search:
        def __init__(self, user: str) -> None:
            self.user = user

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Search)

        def __hash__(self) -> int:
            return 1

        async def __call__(self) -> str:
            return self.user

    async with Kernel() as kernel:
        for user in ("alice", "bob"):
            async with kernel.turn([Search(user)]) as turn:
                turn.submit(ToolCall("s", "Search"))
            assert turn.results[0].value == user


def test_a_call_without_a_name_is_refused_where_it_is_made() -> None:
    with pytest.raises(TypeError, match="name of a tool"):
        ToolCall("c", None, "{}")  # type: ignore[arg-type]  # because that is tested


def test_what_leaked_from_a_loop_that_is_gone_stops_no_virtual_clock(any_loop: Loop) -> None:
    from turnscope._holds import Holds, outstanding

    before = outstanding()
    ended: list[object] = []

    async def leak() -> Callable[[], None]:
        holds = Holds(anyio.lowlevel.current_token())
        release = holds.take()
        assert outstanding() == before + 1
        assert holds.settle(ended.append)
        return release

    release = any_loop.run(leak)
    assert outstanding() == before
    release()  # nobody is there to hear it
    assert (outstanding(), ended) == (before, [])


def test_a_run_of_one_call_at_a_time_does_not_wait_for_its_own_leak(any_loop: Loop) -> None:
    released = threading.Event()

    @tool(timeout=0.05)
    def stuck() -> str:
        released.wait(30)
        return "late"

    async def main() -> None:
        script = [asks(stuck, fine), "done"]
        agent = an_agent(*script, tools=[stuck, fine], parallel_tool_calls=False)
        with anyio.fail_after(20):
            async with Kernel(grace=0.05) as kernel:
                result = await kernel.run(agent, "go")
        assert ends(result.history) == ["timed_out", "not_started"]
        refused = str(result.history.results[-1].content)
        assert "held by leaked threads" in refused and "Agent(max_parallel_calls=...)" in refused

    try:
        anyio.run(main, **any_loop)
    finally:
        released.set()
