"""Order in turns and runs: what a call is told that did not begin, and what statistics show."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.kernel.agents import an_agent, asks, ends
from tests.kernel.bodies import (
    UNIT,
    a_kernel,
    call,
    elapse,
    fine,
    is_real,
    statuses,
    took,
)
from tests.kernel.bodies import anyio_backend as anyio_backend
from tests.support import Loop
from turnscope import CallCancelled, Kernel, Limits, NotStarted, Retry, Tool, ToolCall, tool
from turnscope.events import CallSettled, RunEvent

pytestmark = pytest.mark.anyio

NOTES: list[str] = []
START = 0.5
"""Seconds within which a thread has begun, also on a busy machine."""


@pytest.fixture(autouse=True)
def _no_notes() -> None:
    NOTES.clear()


@tool(writes="file/{path}")
async def write(path: str, span: float = UNIT) -> str:
    """Note the beginning and the end."""
    NOTES.append(f"{path} begins")
    await anyio.sleep(span)
    NOTES.append(f"{path} ends")
    return path


@tool(reads="file/{path}")
async def read(path: Path) -> str:
    NOTES.append(f"{path} read")
    await anyio.sleep(UNIT)
    return str(path)


@tool(exclusive=True)
async def alone(span: float = UNIT) -> None:
    NOTES.append("alone begins")
    await anyio.sleep(span)
    NOTES.append("alone ends")


def edit(path: str, id: str = "w", **more: Any) -> ToolCall:
    return ToolCall(id, "write", {"path": path, **more})


async def test_calls_that_write_one_file_run_in_call_order_by_whatever_name() -> None:
    start = anyio.current_time()
    names = ["a", "./a", "b/../a", str(Path.cwd() / "a")]
    async with a_kernel() as kernel, kernel.turn([write, read]) as turn:
        for name in names:
            turn.submit(edit(name))
        turn.submit(edit("other"))
        turn.submit(ToolCall("r", "read", {"path": "a"}))
        turn.submit(ToolCall("r", "read", {"path": "a"}))
    assert statuses(turn) == ["ok"] * 7
    took(start, 5 * UNIT)
    ordered = [note for note in NOTES if "other" not in note]
    pairs = [f"{name} {what}" for name in names for what in ("begins", "ends")]
    assert ordered == [*pairs, "a read", "a read"]
    assert set(NOTES[:2]) == {"a begins", "other begins"}


async def test_runs_and_turns_on_one_file_are_safe_together() -> None:
    async with a_kernel() as kernel:
        agent = an_agent([edit("a"), edit("b")], "done", tools=[write])
        async with anyio.create_task_group() as group:
            group.start_soon(kernel.run, agent, "go")
            group.start_soon(
                kernel.run, agent.replace(model=an_agent([edit("a")], "ok").model), "go"
            )
            async with kernel.turn([write]) as turn:
                turn.submit(edit("a"))
    assert [note for note in NOTES if note[0] == "a"] == ["a begins", "a ends"] * 3


async def test_an_exclusive_call_runs_alone_in_its_turn_and_in_no_other() -> None:
    start = anyio.current_time()
    async with a_kernel() as kernel:
        async with kernel.turn([alone, fine, write]) as turn, kernel.turn([alone]) as other:
            turn.submit(edit("a"))
            turn.submit(edit("b"))
            turn.submit(call("alone"))
            turn.submit(edit("a"))
            turn.submit(call("fine"))
            other.submit(call("alone", span=2 * UNIT))
            assert {str(claim.call) for claim in holders(kernel, "<turn")} == {
                "call 'w' of 'write'",
                "call 'c-alone' of 'alone'",
            }
    assert statuses(turn) == ["ok"] * 5
    took(start, 3 * UNIT)


def holders(kernel: Kernel, prefix: str) -> list[Any]:
    looks = kernel.statistics().keys.items()
    return [claim for key, look in looks if key.startswith(prefix) for claim in look.holders]


async def test_statistics_show_who_holds_a_key_and_who_waits_for_whom() -> None:
    async with a_kernel() as kernel:
        async with kernel.turn([write, read]) as turn:
            turn.submit(edit("a/x", "one"))
            turn.submit(ToolCall("two", "read", {"path": "a"}))
            turn.submit(edit("a/y", "three"))
            keys = kernel.statistics().keys
            assert set(keys) == {"file/a/x", "file/a", "file/a/y"}
            (holder,), (waiter,) = keys["file/a/x"].holders, keys["file/a"].waiters
            assert (holder.call.id, holder.call.tool, holder.writes) == ("one", "write", True)
            assert (waiter.call.index, waiter.writes, waiter.leaked) == (1, False, False)
            assert waiter.waits_for == (holder.call,)
            assert keys["file/a/y"].waiters[0].waits_for == (waiter.call,)
            assert keys["file/a"].holders == () == keys["file/a/x"].waiters
        assert kernel.statistics().keys == {}


async def test_a_deadline_that_comes_while_a_call_waits_names_the_holder() -> None:
    async with a_kernel() as kernel:
        async with kernel.turn([write]) as other:
            other.submit(edit("a", "holder", span=(9 if is_real() else 3) * UNIT))
            async with kernel.turn([write], timeout=UNIT) as turn:
                turn.submit(edit("./a"))
            (result,) = turn.results
            assert result.status == "not_started" and isinstance(result.error, NotStarted)
            assert result.content == (
                "the call was not started: the deadline of its turn, while it waited for 'file/a', "
                "which call 'holder' of 'write' holds"
            )
    assert NOTES == ["a begins", "a ends"]


async def test_a_cancelled_turn_leaves_the_queues_to_the_others() -> None:
    start, long = anyio.current_time(), (6 if is_real() else 2) * UNIT
    async with a_kernel() as kernel:
        async with kernel.turn([write]) as first, kernel.turn([write]) as last:
            async with kernel.turn([write]) as between:
                first.submit(edit("a", span=long))
                between.submit(edit("a"))
                between.submit(edit("b", span=long))
                last.submit(edit("a"))
                await elapse(UNIT / 2)
                between.cancel("enough")
            assert statuses(between) == ["not_started", "cancelled"]
            assert isinstance(between.results[1].error, CallCancelled)
            assert "enough, while it waited for 'file/a'" in str(between.results[0].content)
    assert statuses(first) == statuses(last) == ["ok"]
    took(start, long + UNIT)


async def test_a_call_that_was_granted_its_keys_begins_in_the_context_of_its_submit() -> None:
    from contextvars import ContextVar

    where: ContextVar[str] = ContextVar("where", default="nowhere")
    seen: list[str] = []

    @tool(writes="x")
    async def look() -> None:
        await anyio.sleep(UNIT)
        seen.append(where.get())

    async with a_kernel(limits=Limits(calls=1)) as kernel:
        async with kernel.turn([look]) as turn:
            for place in ("here", "there", "elsewhere"):
                where.set(place)
                turn.submit(call("look"))
    assert seen == ["here", "there", "elsewhere"]


async def test_a_nested_call_goes_ahead_and_does_not_wait_for_its_parent() -> None:
    async with a_kernel() as kernel:

        @tool(writes="file/{path}")
        async def parent(path: str) -> str:
            await anyio.sleep(UNIT)
            async with kernel.turn([write]) as nested:
                nested.submit(edit(f"{path}/x"))
                nested.submit(edit(path))
            return ",".join(statuses(nested))

        async with kernel.turn([parent, write]) as turn:
            turn.submit(call("parent", path="a"))
            turn.submit(edit("a/y"))
    assert statuses(turn) == ["ok", "ok"]
    assert turn.results[0].value == "ok,ok"
    assert [
        f"{name} {what}" for name in ("a/x", "a", "a/y") for what in ("begins", "ends")
    ] == NOTES


async def test_a_circle_is_refused_at_once_and_told_by_its_names() -> None:
    start = anyio.current_time()
    async with a_kernel() as kernel:

        @tool(writes="row/{mine}")
        async def parent(mine: str, other: str, after: float) -> str:
            await anyio.sleep(after)
            async with kernel.turn([child]) as nested:
                nested.submit(ToolCall(f"of {mine}", "child", {"row": other}))
            (result,) = nested.results
            return str(result.status) if result.ok else f"{result.status} {result.content}"

        @tool(writes="row/{row}")
        async def child(row: str) -> None: ...

        async with kernel.turn([parent, child]) as turn:
            turn.submit(call("parent", mine="a", other="b", after=UNIT))
            turn.submit(call("parent", mine="b", other="a", after=2 * UNIT))
    took(start, 2 * UNIT)
    assert statuses(turn) == ["ok", "ok"]
    assert turn.results[0].value == "ok"
    refused = turn.results[1].value
    assert refused.startswith("not_started the call was not started: its keys would close a circle")
    assert "waits for its own call 'of a' of 'child'" in refused


def broken(path: str) -> str:
    raise KeyError(path)


def exits(path: str) -> str:
    raise SystemExit(2)


@pytest.mark.parametrize(
    ("fn", "words", "cause"),
    [
        (broken, "reads and writes cannot be made out of them: KeyError: 'a'", KeyError),
        (exits, "cannot be made out of them: SystemExit: 2", SystemExit),
        (lambda path: None, "the keys by <lambda> are texts, not NoneType", TypeError),
        (lambda path: [path, 7], "are texts, not int", TypeError),
        (lambda path: "", "is empty: give a name", type(None)),
    ],
)
async def test_keys_that_cannot_be_made_settle_their_call_alone(
    fn: Callable[..., Any], words: str, cause: type
) -> None:
    async def work(path: str) -> None:
        raise AssertionError("it must not begin")

    async with a_kernel() as kernel:
        async with kernel.turn([Tool(work, writes=fn), write]) as turn:
            turn.submit(call("work", path="a"))
            turn.submit(edit("a"))
    assert statuses(turn) == ["invalid", "ok"]
    result = turn.results[0]
    assert words in str(result.content)
    assert result.error is not None
    assert isinstance(result.error.__cause__, cause)


async def test_a_function_of_the_arguments_may_cancel_the_turn() -> None:
    def cancels(path: str) -> str:
        turn.cancel("seen enough")
        return path

    async def never(path: str) -> None: ...

    async with a_kernel() as kernel:
        async with kernel.turn([write, Tool(never, writes=cancels)]) as other:
            other.submit(edit("/", span=2 * UNIT))
            async with kernel.turn([write, Tool(never, writes=cancels)]) as turn:
                turn.submit(call("never", path="file/a"))
                turn.submit(edit("a"))
    assert statuses(turn) == ["not_started", "not_started"]


async def test_an_empty_value_is_refused_before_the_call_begins() -> None:
    async with a_kernel() as kernel, kernel.turn([write]) as turn:
        turn.submit(edit(""))
    assert statuses(turn) == ["invalid"]
    assert "- path: must not be empty" in str(turn.results[0].content)
    assert NOTES == []


async def test_one_call_at_a_time_waits_for_a_call_that_is_parked_too() -> None:
    order: list[str] = []

    async def short() -> None:
        order.append("short")

    async with a_kernel() as kernel:

        @tool
        async def parent() -> None:
            async with kernel.turn([fine, write]) as nested:
                nested.submit(edit("a"))
            order.append("parent")

        agent = an_agent(asks(parent, short), "ok", tools=[parent, short])
        await kernel.run(agent.replace(parallel_tool_calls=False), "go")
    assert order == ["parent", "short"]


async def test_what_an_observer_does_while_keys_are_given_back_harms_nobody() -> None:
    class Cancels:
        turn: Any = None

        def observe(self, event: RunEvent) -> None:
            if isinstance(event, CallSettled) and self.turn is not None:
                turn, self.turn = self.turn, None
                turn.cancel("seen enough")

    observer = Cancels()
    async with Kernel(observers=[observer]) as kernel:
        async with kernel.turn([write]) as turn:
            for _ in range(4):
                turn.submit(edit("a"))
            observer.turn = turn
        assert [str(each.status) for each in turn.results] == ["ok"] + ["not_started"] * 3
        assert kernel.statistics().keys == {}


async def test_who_declares_nothing_waits_for_nobody() -> None:
    everybody, count = anyio.Event(), 0

    async def meets() -> None:
        nonlocal count
        count += 1
        if count == 20:
            everybody.set()
        await everybody.wait()

    async with a_kernel(limits=Limits(calls=math.inf)) as kernel:
        async with kernel.turn([meets, write], timeout=30) as turn:
            turn.submit(edit("/"))
            for _ in range(20):
                turn.submit(call("meets"))
            assert list(kernel.statistics().keys) == ["file"]
    assert statuses(turn) == ["ok"] * 21


def test_what_a_leaked_thread_submits_does_not_wait_for_its_own_key(any_loop: Loop) -> None:
    """It would never end, and its key would be held for ever."""
    told: list[str] = []
    go = threading.Event()

    async def main() -> None:
        async with Kernel(grace=0.02) as kernel:

            async def nested() -> None:
                async with kernel.turn([Tool(touch, writes="k")]) as turn:
                    turn.submit(ToolCall("t", "touch"))
                told.append(str(turn.results[0].content))

            async def touch() -> None: ...

            def stuck() -> None:
                go.wait(20)
                anyio.from_thread.run(nested)

            async with kernel.turn([Tool(stuck, writes="k", timeout=START)]) as turn:
                turn.submit(ToolCall("s", "stuck"))
            assert turn.results[0].leaked
            go.set()
            with anyio.fail_after(20):
                while kernel.statistics().keys:
                    await anyio.sleep(0.005)

    try:
        any_loop.run(main)
    finally:
        go.set()
    assert "circle of waiting" in told[0]


def test_a_leak_that_runs_alone_keeps_nobody_of_its_turn_waiting(any_loop: Loop) -> None:
    free = threading.Event()

    def stuck() -> None:
        free.wait(20)

    async def main() -> None:
        async with Kernel(grace=0.02) as kernel:
            with anyio.fail_after(10):
                tools = [Tool(stuck, exclusive=True, timeout=START), fine]
                async with kernel.turn(tools) as turn:
                    turn.submit(call("stuck"))
                    turn.submit(call("fine"))
            first, second = turn.results
            assert (first.status, second.status) == ("timed_out", "not_started")
            assert "could only wait for call 'c-stuck' of 'stuck'" in str(second.content)
            async with kernel.turn(tools) as turn:  # another is none of its affair
                turn.submit(call("fine"))
            assert turn.results[0].ok

    try:
        any_loop.run(main)
    finally:
        free.set()


async def test_a_run_tells_the_model_why_a_call_did_not_begin() -> None:
    async with a_kernel() as kernel:
        async with kernel.turn([write]) as other:
            other.submit(edit("a", "holder", span=(6 if is_real() else 2) * UNIT))
            agent = an_agent([edit("a")], "done", tools=[write])
            async with kernel.start(agent, "go") as run:
                await elapse(UNIT)
                run.cancel()
        assert ends(run.history) == ["not_started"]
        assert "which call 'holder' of 'write' holds" in str(run.history.results[0].content)


async def test_a_call_that_is_tried_again_keeps_its_keys_while_it_waits() -> None:
    wait = (6 if is_real() else 2) * UNIT

    @tool(idempotent=True, writes="k", retry=Retry(attempts=2, initial=wait, jitter=0))
    async def flaky() -> None:
        NOTES.append("flaky")
        if NOTES.count("flaky") == 1:
            raise OSError("it may pass")

    @tool(writes="k")
    async def after() -> None:
        NOTES.append("after")

    async with a_kernel(limits=Limits(calls=1)) as kernel:
        async with kernel.turn([flaky, after, fine]) as turn:
            for name in ("flaky", "after", "fine"):
                turn.submit(call(name))
            await anyio.sleep(UNIT)
            look = kernel.statistics()
            assert look.limiters["calls"].lent == 0  # the slot is given back, and was fine's
            assert [claim.call.tool for claim in look.keys["k"].holders] == ["flaky"]
            assert [claim.call.tool for claim in look.keys["k"].waiters] == ["after"]
    assert NOTES == ["flaky", "flaky", "after"]
    assert statuses(turn) == ["ok"] * 3
