"""Ways in which agent frameworks were seen to break, one by one, with an agent: here they do not.

`test_peers_break` has the same for the turns of one's own loop.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from tests.kernel.agents import an_agent, asks, contents, ends
from tests.kernel.bodies import (
    UNIT,
    Bodies,
    a_kernel,
    fine,
    idle,
    move_on_after,
    only_asyncio,
)
from turnscope import (
    Agent,
    Budget,
    BudgetExceeded,
    DeadlineExceeded,
    History,
    Limits,
    RunCancelled,
    ToolCall,
    ToolFailed,
    progress,
    tool,
)
from turnscope.abc import ModelRequest
from turnscope.testing import ScriptedModel

# On every event loop, trio among them: that is a row of its own.
pytestmark = pytest.mark.anyio


class Workers:
    """A tool that works for a minute, and how many of its bodies are alive."""

    def __init__(self) -> None:
        self.alive = 0
        self.begun = 0

    async def works(self) -> None:
        self.begun += 1
        self.alive += 1
        try:
            await anyio.sleep(60)
        finally:
            await anyio.sleep(UNIT / 2)
            self.alive -= 1


async def test_when_one_tool_raises_its_siblings_are_ended_before_the_run_raises() -> None:
    """Elsewhere: siblings go on as orphans, or are waited for to their very end."""

    @tool(on_error="raise")
    async def breaks() -> None:
        while workers.begun < 63:
            await anyio.sleep(UNIT / 50)
        raise LookupError("broken")

    workers = Workers()
    async with a_kernel() as kernel:
        start = anyio.current_time()
        agent = an_agent(asks(*[workers.works] * 63, breaks), tools=[workers.works, breaks])
        with pytest.raises(ToolFailed) as caught:
            await kernel.run(agent, "go")
        assert workers.alive == 0
        assert anyio.current_time() - start < 5
    assert isinstance(caught.value.__cause__, LookupError)  # bare: no group, no wrapping
    assert caught.value.history is not None
    assert ends(caught.value.history) == ["cancelled"] * 63 + ["failed"]


async def test_one_error_throws_no_siblings_result_away() -> None:
    """Elsewhere: one error kills 26 siblings, or their results."""

    async def works(n: int) -> int:
        await anyio.sleep(UNIT / 5)
        if n == 13:
            raise LookupError(n)
        return n

    calls = [ToolCall("", "works", {"n": n}) for n in range(27)]
    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(calls, "ok", tools=[works]), "go")
    expected = [str(n) for n in range(27)]
    expected[13] = "LookupError: 13"
    assert contents(result) == expected


@pytest.mark.parametrize("how", ["scope", "cancel", "deadline", "budget", "block"])
async def test_however_a_run_is_ended_its_tools_have_ended_and_its_history_is_whole(
    how: str,
) -> None:
    """Elsewhere: tools alive after the return, a cancel or a deadline swallowed, a dead
    conversation: the next request is refused.
    """
    workers = Workers()
    options: dict[str, Any] = {}
    if how == "deadline":
        options["timeout"] = 2 * UNIT
    if how == "budget":
        options["budget"] = Budget(seconds=2 * UNIT)
    async with a_kernel() as kernel:
        run = kernel.start(
            an_agent(asks(*[workers.works] * 16), tools=[workers.works]), "go", **options
        )

        async def runs() -> None:
            async with run:
                while workers.begun < 16:
                    await anyio.sleep(UNIT / 20)
                if how == "block":
                    return
                if how == "cancel":
                    run.cancel()
                await run.wait()

        start = anyio.current_time()
        if how == "scope":
            with move_on_after(2 * UNIT) as scope:
                await runs()
            assert scope.cancelled_caught
        elif how == "block":
            await runs()
        else:
            kind = {
                "cancel": RunCancelled,
                "deadline": DeadlineExceeded,
                "budget": BudgetExceeded,
            }[how]
            with pytest.raises(kind) as caught:
                await runs()
            assert caught.value.history == run.history
        assert anyio.current_time() - start < 5
        assert workers.alive == 0
        late = how in ("deadline", "budget")
        assert ends(run.history) == ["timed_out" if late else "cancelled"] * 16
        # Never as if it had not run.
        assert all("may or may not have happened" in content for content in contents(run))
        # And the conversation goes on, in another process if need be.
        stored = History.from_json(run.history.to_json())
        again = await kernel.run(an_agent("on"), "And now?", history=stored)
        assert again.output == "on"


async def test_a_kernel_and_an_agent_are_as_usable_after_a_cancel_as_before() -> None:
    """Elsewhere: poisoned for ever."""
    bodies = Bodies()
    agent = Agent(
        model=ScriptedModel(
            lambda r: "ok" if r.history.results else asks(bodies.tidy if slow else fine)
        ),
        tools=[bodies.tidy, fine],
    )
    async with a_kernel() as kernel:
        for _ in range(5):
            slow = True
            with move_on_after(UNIT / 5):
                await kernel.run(agent, "go")
            assert idle(kernel)
            slow = False
            assert (await kernel.run(agent, "go")).output == "ok"


async def test_results_are_sent_in_call_order() -> None:
    """Elsewhere: in order of completion."""

    async def works(n: int) -> int:
        await anyio.sleep((8 - n) * UNIT / 10)
        return n

    calls = [ToolCall(f"c{n}", "works", {"n": n}) for n in range(8)]
    model = ScriptedModel([calls, "ok"])
    async with a_kernel() as kernel:
        await kernel.run(Agent(model=model, tools=[works]), "go")
    sent = model.requests[1].history.results
    assert [result.id for result in sent] == [call.id for call in calls]
    assert [result.content for result in sent] == [str(n) for n in range(8)]


async def test_def_tools_run_beside_each_other_and_do_not_block_the_event_loop() -> None:
    """Elsewhere: on the loop's own thread, one after the other."""
    begun: list[int] = []
    ticked = threading.Event()

    def works() -> int:
        begun.append(threading.get_ident())
        assert ticked.wait(20)  # only if the loop goes on while all eight are at work
        return threading.get_ident()

    async def beats() -> None:
        while len(begun) < 8:
            await anyio.sleep(0.001)
        ticked.set()

    async with a_kernel() as kernel, anyio.create_task_group() as group:
        group.start_soon(beats)
        result = await kernel.run(an_agent(asks(*[works] * 8), "ok", tools=[works]), "go")
    assert len(set(contents(result))) == 8
    assert str(threading.get_ident()) not in contents(result)


async def test_a_def_tool_that_outlives_its_run_is_reported_and_holds_its_slot() -> None:
    """Elsewhere: the thread goes on, and nobody says so."""
    pause, begun = threading.Event(), threading.Event()

    def works() -> None:
        begun.set()
        assert pause.wait(20)

    async with a_kernel(grace=UNIT) as kernel:
        try:
            async with kernel.start(an_agent(asks(works), tools=[works]), "go") as run:
                while not begun.is_set():
                    await anyio.sleep(0.001)
            assert ends(run.history) == ["cancelled"]
            assert "still at work" in contents(run)[0]
            assert kernel.statistics().limiters["threads"].leaked == 1
        finally:
            pause.set()
        with anyio.fail_after(10):
            while not idle(kernel):
                await anyio.sleep(0.001)


async def test_a_tools_own_timeout_error_is_a_tool_error() -> None:
    """Elsewhere: reported as the framework's timeout."""

    @tool(timeout=5)
    async def works() -> None:
        raise TimeoutError("the database is slow")

    async with a_kernel() as kernel:
        agent = an_agent(asks(works), "ok", tools=[works])
        result = await kernel.run(agent, "go", timeout=5)
    assert ends(result.history) == ["failed"]
    assert contents(result) == ["TimeoutError: the database is slow"]


@only_asyncio
async def test_a_tool_that_raises_cancelled_error_is_a_tool_error() -> None:
    """Elsewhere: it ends the whole run."""

    async def works() -> None:
        raise asyncio.CancelledError

    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(asks(works, fine), "ok", tools=[works, fine]), "go")
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
    assert result.output == "ok"
    assert ends(result.history) == ["failed", "ok"]


async def test_calls_have_a_cap_over_all_runs_of_a_kernel() -> None:
    """Elsewhere: none, and 792 concurrent calls."""
    working = peak = 0

    async def works() -> None:
        nonlocal working, peak
        working += 1
        peak = max(peak, working)
        await anyio.sleep(UNIT / 50)
        working -= 1

    agent = Agent(
        model=ScriptedModel(lambda r: "ok" if r.history.results else asks(*[works] * 20)),
        tools=[works],
    )
    async with a_kernel(limits=Limits(calls=10)) as kernel:
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(kernel.run, agent, "go")
    assert peak == 10


async def test_a_run_has_a_deadline_that_a_swallower_cannot_defeat() -> None:
    """Elsewhere: none, or defeated by one tool that catches the cancellation."""
    async with a_kernel(grace=UNIT) as kernel:
        bodies = Bodies()
        tools = [bodies.stubborn, bodies.endless]
        start = anyio.current_time()
        with pytest.raises(DeadlineExceeded) as caught:
            await kernel.run(an_agent(asks(*tools), tools=tools), "go", timeout=UNIT)
        assert anyio.current_time() - start < 5
        assert caught.value.history is not None
        assert ends(caught.value.history) == ["timed_out"] * 2
        with move_on_after(UNIT) as scope:
            await kernel.run(an_agent(asks(*tools), tools=tools), "go")
        assert scope.cancelled_caught


def where(n: int) -> list[int]:
    """Say in which process this is."""
    return [os.getpid(), n]


async def test_cpu_work_of_an_agent_runs_in_a_process() -> None:
    """Elsewhere: in a thread, which it stops along with the event loop."""
    async with a_kernel() as kernel:
        cpu = tool(backend="process")(where)
        with anyio.fail_after(30):
            result = await kernel.run(an_agent(asks(cpu, n=7), "ok", tools=[cpu]), "go")
    assert contents(result)[0].endswith(",7]")
    assert contents(result) != [f"[{os.getpid()},7]"]


async def test_a_slow_reader_of_events_slows_no_tool() -> None:
    """Elsewhere: every tool waits for the consumer."""
    ended = anyio.Event()

    async def works() -> None:
        for n in range(50):
            progress(n)
            await anyio.sleep(0)
        ended.set()

    async with a_kernel() as kernel:
        async with kernel.start(an_agent(asks(works), "ok", tools=[works]), "go") as run:
            async for _ in run:
                with anyio.fail_after(10):
                    await ended.wait()  # before a second event is read
                break
            assert (await run.wait()).output == "ok"


async def test_agents_that_wait_for_agents_cannot_deadlock_over_slots() -> None:
    """Elsewhere: sub-agents hold the slot that their children need."""
    inner = Agent(
        model=ScriptedModel(lambda r: "ok" if r.history.results else asks(fine, fine)),
        tools=[fine],
    )
    calls = [ToolCall("", "inner", {"prompt": "x"}) for _ in range(3)]
    async with a_kernel(limits=Limits(calls=1, model_requests=1)) as kernel:
        with anyio.fail_after(10):
            agent = an_agent(calls, "done", tools=[inner.as_tool("inner", "")])
            result = await kernel.run(agent, "go")
    assert contents(result) == ["ok"] * 3


async def test_context_variables_reach_the_threads_of_a_run() -> None:
    """Elsewhere: trace parents are lost in threads."""
    trace: ContextVar[str] = ContextVar("trace", default="lost")

    def works() -> str:
        return trace.get()

    async with a_kernel() as kernel:
        trace.set("a trace")
        result = await kernel.run(an_agent(asks(works), "ok", tools=[works]), "go")
    assert contents(result) == ["a trace"]


async def test_repeated_and_missing_ids_lose_no_call_and_no_conversation() -> None:
    """Elsewhere: a server that repeats or omits ids makes the next request one that is refused."""

    async def works(n: int) -> int:
        return n

    names = ["", "same", "same", ""]

    def answer(request: ModelRequest) -> Any:
        if len(request.history.results) == 8:
            return "ok"
        return [ToolCall(name, "works", {"n": n}) for n, name in enumerate(names)]

    async with a_kernel() as kernel:
        agent = Agent(model=ScriptedModel(answer), tools=[works])
        result = await kernel.run(agent, "go")
    assert contents(result) == ["0", "1", "2", "3"] * 2
    assert ends(result.history) == ["ok"] * 8


async def test_what_was_finished_is_not_run_again_when_the_run_goes_on() -> None:
    """Elsewhere: resuming runs finished siblings again."""
    ran: list[int] = []

    async def works(n: int) -> int:
        ran.append(n)
        if n == 1:
            await anyio.sleep(60)
        return n

    calls = [ToolCall("", "works", {"n": n}) for n in range(3)]
    async with a_kernel() as kernel:
        with pytest.raises(DeadlineExceeded) as caught:
            await kernel.run(an_agent(calls, tools=[works]), "go", timeout=UNIT)
        result = await kernel.run(
            an_agent("I have two of three.", tools=[works]), None, history=caught.value.history
        )
    assert sorted(ran) == [0, 1, 2]
    assert ends(result.history) == ["ok", "timed_out", "ok"]
