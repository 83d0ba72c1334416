"""Runs inside of runs: they share deadline, grace and slots, deadlock never, and end together."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.from_thread
import pytest

from tests.kernel.agents import an_agent, asks, contents, ends
from tests.kernel.bodies import (
    UNIT,
    Bodies,
    a_kernel,
    anyio_backend,
    call,
    fine,
    idle,
    move_on_after,
    took,
)
from turnscope import (
    Agent,
    CallContext,
    DeadlineExceeded,
    Kernel,
    LimiterLeaked,
    Limits,
    ModelError,
    Run,
    RunCancelled,
    ToolCall,
    ToolFailed,
    current_call,
    tool,
)
from turnscope.abc import ModelRequest
from turnscope.events import (
    CallSettled,
    ModelFinished,
    RunEvent,
    RunFinished,
    RunStarted,
    TextDelta,
    TextStreamed,
)
from turnscope.testing import ScriptedModel, Stream

__all__ = ["anyio_backend"]

pytestmark = pytest.mark.anyio

FOREVER = Stream([(math.inf, Exception("never"))])


def asking(inner: Agent[Any, Any], *more: Any, **fields: Any) -> Agent[Any, Any]:
    """An agent that asks *inner* once, and answers with what it said."""
    return an_agent(
        asks("inner", prompt="question"),
        lambda request: str(request.history.results[-1].content),
        tools=[inner.as_tool("inner", "Ask."), *more],
        **fields,
    )


# Each way in which a run can be nested.


async def test_an_agent_is_a_tool_of_another() -> None:
    inner = an_agent(asks(fine), lambda request: f"{request.history[0].content}: answered")
    async with a_kernel() as kernel:
        result = await kernel.run(asking(inner), "go")
    assert result.output == "question: answered"
    assert contents(result) == ["question: answered"]
    assert result.turns == 2


async def test_the_tool_of_an_agent_hands_on_the_deps_of_its_call() -> None:
    async def works(context: CallContext[str]) -> str:
        return context.deps

    inner = an_agent(
        asks(works), lambda request: str(request.history.results[-1].content), tools=[works]
    )
    async with a_kernel() as kernel:
        assert (await kernel.run(asking(inner), "go", deps="mine")).output == "mine"


async def test_the_tool_of_an_agent_runs_in_the_kernel_of_its_call_with_its_model() -> None:
    inner: Agent[Any, str] = Agent()
    seen: list[int] = []

    def answer(request: ModelRequest) -> Any:
        seen.append(len(request.tools))
        if request.tools and not request.history.results:
            return asks("inner", prompt="x")
        return "stood in"

    async with a_kernel(model=ScriptedModel(answer)) as kernel:
        outer = an_agent("never", tools=[inner.as_tool("inner", "")])
        assert (await kernel.run(outer, "go")).output == "stood in"
    assert seen == [1, 0, 1]


async def test_an_async_tool_runs_an_agent() -> None:
    async with a_kernel() as kernel:

        async def works() -> str:
            first = await kernel.run(an_agent("one"), "go")
            async with kernel.start(an_agent("two"), "go", history=first.history) as run:
                return (await run.wait()).output

        result = await kernel.run(an_agent(asks(works), "ok", tools=[works]), "go")
    assert contents(result) == ["two"]


async def test_a_tool_in_a_thread_runs_an_agent_through_from_thread() -> None:
    async with a_kernel(limits=Limits(calls=1, threads=1)) as kernel:

        def inside() -> str:
            return "from a thread"

        def works() -> str:
            inner = an_agent(asks(inside), "two", tools=[inside])
            result = anyio.from_thread.run(kernel.run, inner, "go")
            return f"{result.output} {result.history.results[0].content}"

        agent = an_agent(asks(works), "ok", tools=[works])
        with anyio.fail_after(30):
            result = await kernel.run(agent, "go")
    # The parent's thread only waits: it lends its slot to what it waits for.
    assert contents(result) == ["two from a thread"]


async def test_a_tool_in_a_thread_may_run_an_agent_with_tools_in_the_loop() -> None:
    async with a_kernel(limits=Limits(calls=1)) as kernel:

        def works() -> str:
            result = anyio.from_thread.run(kernel.run, an_agent(asks(fine), "two"), "go")
            return result.output

        with anyio.fail_after(30):
            result = await kernel.run(an_agent(asks(works), "ok", tools=[works]), "go")
    assert contents(result) == ["two"]


async def test_a_call_of_a_nested_turn_runs_an_agent() -> None:
    async with a_kernel(limits=Limits(calls=1)) as kernel:
        parents: list[tuple[str, ...]] = []

        async def deep() -> str:
            async with kernel.start(an_agent("deep"), "go") as run:
                async for event in run:
                    parents.append(event.parents)  # noqa: PERF401 because a list is shared
                return (await run.wait()).output

        async def works() -> str:
            async with kernel.turn([deep]) as turn:
                turn.submit(call("deep"))
            return str(turn.results[0].content)

        result = await kernel.run(an_agent(asks(works), "ok", tools=[works]), "go")
    assert contents(result) == ["deep"]
    assert {len(each) for each in parents} == {2}


async def test_instructions_may_run_an_agent() -> None:
    async with a_kernel(limits=Limits(calls=1, model_requests=1)) as kernel:

        async def said(_context: Any) -> str:
            return (await kernel.run(an_agent("Be brief."), "Style?")).output

        agent = an_agent("ok", instructions=said)
        with anyio.fail_after(30):
            await kernel.run(agent, "go")
    model = agent.model
    assert isinstance(model, ScriptedModel)
    assert model.requests[0].instructions == "Be brief."


async def test_a_model_may_run_an_agent() -> None:
    async with a_kernel(limits=Limits(calls=1, model_requests=1)) as kernel:

        async def answer(_request: ModelRequest) -> str:
            result = await kernel.run(an_agent(asks(fine), "inner"), "go")
            return f"{result.output} says so"

        with anyio.fail_after(30):
            result = await kernel.run(Agent(model=ScriptedModel(answer)), "go")
        assert result.output == "inner says so"
        assert idle(kernel)


async def test_a_run_in_a_model_ends_with_the_run_of_the_model() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()

        async def answer(_request: ModelRequest) -> str:
            inner = an_agent(asks(bodies.tidy), tools=[bodies.tidy])
            return (await kernel.run(inner, "go")).output

        async with kernel.start(Agent(model=ScriptedModel(answer)), "go") as run:
            await bodies.begun.wait()
            run.cancel()
            with pytest.raises(RunCancelled):
                await run.wait()
        assert bodies.cleaned
        assert kernel.statistics().runs == 0


# No nesting deadlocks.


@pytest.mark.parametrize("limits", [Limits(calls=1), Limits(calls=2, model_requests=1)])
async def test_a_nest_of_agents_needs_no_more_than_one_slot(limits: Limits) -> None:
    agent = an_agent(asks(fine), "bottom")
    for _ in range(5):
        agent = asking(agent)
    async with a_kernel(limits=limits) as kernel:
        with anyio.fail_after(30):
            assert (await kernel.run(agent, "go")).output == "bottom"


async def test_many_agents_whose_tools_are_agents_share_one_slot() -> None:
    async def works() -> str:
        await anyio.sleep(UNIT / 100)
        return "worked"

    inner: Agent[Any, str] = Agent(
        model=ScriptedModel(lambda r: "inner" if r.history.results else asks(works, works)),
        tools=[works],
    )
    outer: Agent[Any, str] = Agent(
        model=ScriptedModel(
            lambda r: (
                "outer"
                if r.history.results
                else [ToolCall("", "inner", {"prompt": "x"}) for _ in range(3)]
            )
        ),
        tools=[inner.as_tool("inner", "")],
    )
    outputs: list[str] = []
    async with a_kernel(limits=Limits(calls=1)) as kernel:

        async def one() -> None:
            outputs.append((await kernel.run(outer, "go")).output)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for _ in range(5):
                    group.start_soon(one)
    assert outputs == ["outer"] * 5


async def test_a_cap_of_one_call_at_a_time_lets_a_nested_run_work() -> None:
    inner = an_agent(asks(fine), "inner", parallel_tool_calls=False)
    async with a_kernel() as kernel:
        agent = asking(inner, parallel_tool_calls=False, max_parallel_calls=1)
        assert (await kernel.run(agent, "go")).output == "inner"


# Deadlines and grace are those of the tree.


async def test_a_nested_run_has_the_deadline_of_what_it_is_in() -> None:
    seen: list[float] = []

    async def works(context: CallContext[None]) -> str:
        seen.append(context.deadline)
        return "ok"

    async with a_kernel() as kernel:

        @tool(timeout=5)
        async def middle() -> str:
            agent = an_agent(asks(works), "ok", tools=[works])
            await kernel.run(agent, "go", timeout=60)
            with anyio.fail_after(2):
                await kernel.run(an_agent(asks(works), "ok", tools=[works]), "go")
            await kernel.run(an_agent(asks(works), "ok", tools=[works]), "go", timeout=1)
            return "ok"

        start = anyio.current_time()
        await kernel.run(an_agent(asks(middle), "ok", tools=[middle]), "go", timeout=30)
        spans = [round(deadline - start) for deadline in seen]
        assert spans == [5, 2, 1]
        seen.clear()
        await kernel.run(an_agent(asks(works), "ok", tools=[works]), "go", timeout=30)
        assert round(seen[0] - start) == 30


async def test_the_deadline_of_the_outermost_run_ends_the_innermost_call() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        inner = an_agent(asks(bodies.tidy), tools=[bodies.tidy])
        start = anyio.current_time()
        with pytest.raises(DeadlineExceeded) as caught:
            await kernel.run(asking(asking(inner)), "go", timeout=UNIT)
        took(start, 2 * UNIT)
        assert bodies.cleaned
        assert kernel.statistics().runs == 0
    assert caught.value.history is not None
    assert ends(caught.value.history) == ["timed_out"]


async def test_one_grace_is_for_the_whole_nest() -> None:
    async with a_kernel(grace=2 * UNIT) as kernel:
        bodies = Bodies()
        agent = an_agent(asks(bodies.endless), tools=[bodies.endless])
        for _ in range(3):
            agent = asking(agent)
        async with kernel.start(agent, "go") as run:
            await bodies.begun.wait()
            start = anyio.current_time()
            run.cancel()
            with pytest.raises(RunCancelled):
                await run.wait()
        took(start, 2 * UNIT)
        assert ends(run.history) == ["cancelled"]


async def test_a_call_that_was_interrupted_late_hands_on_what_is_left_of_grace() -> None:
    async with a_kernel(grace=2 * UNIT) as kernel:
        bodies, shielded = Bodies(), anyio.Event()
        inner = an_agent(asks(bodies.endless), tools=[bodies.endless])

        async def works() -> None:
            async with kernel.start(inner, "go") as run:
                await bodies.begun.wait()
                with anyio.CancelScope(shield=True):
                    shielded.set()
                    await anyio.sleep(UNIT)
                await run.wait()  # the interrupt comes here, when half of grace is over

        async with kernel.start(an_agent(asks(works), tools=[works]), "go") as run:
            await shielded.wait()
            start = anyio.current_time()
        took(start, 2 * UNIT)
        assert ends(run.history) == ["cancelled"]


async def test_the_timeout_of_the_tool_ends_the_agent_in_it_and_the_run_goes_on() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        inner = an_agent(asks(bodies.tidy), tools=[bodies.tidy])
        agent = an_agent(
            asks("inner", prompt="x"),
            "went on",
            tools=[inner.as_tool("inner", "", timeout=UNIT)],
        )
        result = await kernel.run(agent, "go")
        assert bodies.cleaned
    assert result.output == "went on"
    assert ends(result.history) == ["timed_out"]


async def test_nothing_of_a_nest_outlives_its_cancelled_caller() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        inner = an_agent(asks(bodies.tidy, fine), tools=[bodies.tidy, fine])
        run: Run[Any] = kernel.start(asking(asking(inner)), "go")
        with move_on_after(UNIT) as scope:
            async with run:
                await run.wait()
        assert scope.cancelled_caught
        assert bodies.cleaned
        assert ends(run.history) == ["cancelled"]
        assert kernel.statistics().runs == kernel.statistics().turns == 0


async def test_a_fatal_sibling_ends_the_nested_run_before_the_run_raises() -> None:
    @tool(on_error="raise")
    async def breaks() -> None:
        await anyio.sleep(UNIT)
        raise LookupError("broken")

    async with a_kernel() as kernel:
        bodies = Bodies()
        inner = an_agent(asks(bodies.tidy), tools=[bodies.tidy])
        agent = an_agent(
            [*asks("inner", prompt="x"), ToolCall("b", "breaks")],
            tools=[inner.as_tool("inner", ""), breaks],
        )
        with pytest.raises(ToolFailed) as caught:
            await kernel.run(agent, "go")
        assert bodies.cleaned
    assert caught.value.history is not None
    assert ends(caught.value.history) == ["cancelled", "failed"]


async def test_a_run_that_a_body_left_open_is_ended_with_its_call() -> None:
    kept: list[Any] = []
    async with a_kernel() as kernel:
        bodies = Bodies()

        async def opens() -> str:
            async def generator() -> AsyncGenerator[str]:
                agent = an_agent(asks(bodies.tidy), tools=[bodies.tidy])
                async with kernel.start(agent, "go"):
                    await bodies.begun.wait()
                    yield "open"

            values = generator()
            kept.append(values)
            return await anext(values)

        result = await kernel.run(an_agent(asks(opens), "ok", tools=[opens]), "go")
        assert result.output == "ok"
        assert bodies.cleaned
        assert kernel.statistics().runs == 0
        await kept.pop().aclose()


# Errors.


async def test_how_a_run_in_a_model_ended_is_not_how_the_run_of_the_model_ended() -> None:
    caught: list[RunCancelled] = []
    async with a_kernel() as kernel:

        async def answer(_request: ModelRequest) -> str:
            async with kernel.start(an_agent(FOREVER), "inner") as inner:
                inner.cancel("not needed")
                try:
                    return (await inner.wait()).output
                except RunCancelled as exc:
                    caught.append(exc)
                    raise

        with pytest.raises(ModelError, match="the model failed: RunCancelled") as failed:
            async with kernel.start(Agent(model=ScriptedModel(answer)), "outer"):
                await anyio.sleep(UNIT)  # nobody reads, so leaving the block says it
    assert failed.value.__cause__ is caught[0]
    inner_history, outer_history = caught[0].history, failed.value.history
    assert inner_history is not None and inner_history[0].content == "inner"
    assert outer_history is not None and outer_history[0].content == "outer"


async def test_what_a_nested_run_raises_is_a_failure_of_its_call() -> None:
    async with a_kernel() as kernel:
        agent = asking(an_agent(ModelError("overloaded", status=503), retry=None))
        result = await kernel.run(agent, "go")
        assert result.output == "ModelError: overloaded"
        inner = an_agent(ModelError("overloaded", status=503), retry=None)
        agent = an_agent(
            asks("inner", prompt="x"), tools=[inner.as_tool("inner", "", on_error="raise")]
        )
        with pytest.raises(ToolFailed, match="the tool 'inner' failed: ModelError") as caught:
            await kernel.run(agent, "go")
    cause = caught.value.__cause__
    assert isinstance(cause, ModelError) and cause.status == 503
    # Each error has the history of its own run.
    assert cause.history is not None and len(cause.history) == 1
    assert caught.value.history is not None and len(caught.value.history) == 3


async def test_ctrl_c_in_a_nested_run_ends_all_and_is_raised_bare() -> None:
    async def breaks() -> None:
        raise KeyboardInterrupt

    async with a_kernel() as kernel:
        agent = asking(asking(an_agent(asks(breaks), tools=[breaks])))
        with pytest.raises(KeyboardInterrupt):
            await kernel.run(agent, "go")
        assert kernel.statistics().runs == 0


# Events.


async def test_the_events_of_nested_runs_are_told_with_their_parents() -> None:
    told: list[RunEvent] = []
    async with a_kernel() as kernel:
        async with kernel.start(asking(asking(an_agent("bottom"))), "go") as run:
            async for event in run:
                told.append(event)  # noqa: PERF401 because a list is shared
        root = run.run_id
    started = [event for event in told if isinstance(event, RunStarted)]
    finished = [event for event in told if isinstance(event, RunFinished)]
    assert [event.parents for event in started] == [
        (),
        (root,),
        (root, started[1].run_id),
    ]
    assert [event.run_id for event in finished] == [event.run_id for event in started][::-1]
    assert [event.output for event in finished] == ["bottom"] * 3
    assert told[-1] is finished[-1]
    # A run has ended before the call that it is in has.
    places = [
        index for index, event in enumerate(told) if isinstance(event, (RunFinished, CallSettled))
    ]
    kinds = [type(told[index]).__name__ for index in places]
    assert kinds == ["RunFinished", "CallSettled", "RunFinished", "CallSettled", "RunFinished"]


async def test_the_texts_of_runs_side_by_side_are_never_mixed() -> None:
    def answer(request: ModelRequest) -> Stream:
        letters = str(request.history[0].content)
        events = [(UNIT / 10 * n, TextDelta(letter)) for n, letter in enumerate(letters)]
        return Stream([*events, (UNIT, ModelFinished())])

    inner: Agent[Any, str] = Agent(model=ScriptedModel(answer))
    calls = [ToolCall("", "inner", {"prompt": prompt}) for prompt in ("abc", "xyz")]
    agent = an_agent(calls, "done", tools=[inner.as_tool("inner", "")])
    texts: dict[str, str] = {}
    async with a_kernel() as kernel:
        async with kernel.start(agent, "go") as run:
            await run.wait()  # so that all of it is in the buffer
            async for event in run:
                if isinstance(event, TextStreamed):
                    texts[event.run_id] = texts.get(event.run_id, "") + event.text
    assert sorted(texts.values()) == ["abc", "done", "xyz"]


async def test_a_nested_run_has_a_reader_of_its_own_too() -> None:
    inner_events: list[str] = []
    async with a_kernel() as kernel:

        async def works() -> str:
            async with kernel.start(an_agent("inner"), "go") as run:
                async for event in run:
                    inner_events.append(type(event).__name__)  # noqa: PERF401 because a list is shared
            return "ok"

        async with kernel.start(an_agent(asks(works), "ok", tools=[works]), "go") as run:
            outer_events = [type(event).__name__ async for event in run if event.parents]
    assert inner_events == outer_events
    assert inner_events[0] == "RunStarted" and inner_events[-1] == "RunFinished"


async def test_another_kernel_in_a_tool_is_a_world_of_its_own() -> None:
    async with a_kernel(limits=Limits(calls=1)) as kernel:

        async def works() -> str:
            assert current_call().call.name == "works"
            async with Kernel(limits=Limits(calls=1)) as other:
                return (await other.run(an_agent(asks(fine), "other"), "go")).output

        result = await kernel.run(an_agent(asks(works), "ok", tools=[works]), "go")
    assert contents(result) == ["other"]


async def test_a_loop_in_a_tools_thread_runs_agents_in_a_kernel_of_its_own() -> None:
    import turnscope

    def works() -> str:
        time.sleep(0)
        return anyio.run(turnscope.run, an_agent(asks(fine), "own loop"), "go").output

    async with a_kernel() as kernel:
        with anyio.fail_after(30):
            result = await kernel.run(an_agent(asks(works), "ok", tools=[works]), "go")
    assert contents(result) == ["own loop"]


async def test_a_nested_run_in_a_models_stream_block_is_ended_with_it() -> None:
    bodies = Bodies()

    class Asks:
        """A model that asks an agent while its own stream is open."""

        def __init__(self, kernel: Kernel) -> None:
            self.kernel = kernel

        @asynccontextmanager
        async def stream(self, request: ModelRequest) -> AsyncGenerator[Any]:
            inner = an_agent(asks(bodies.tidy), tools=[bodies.tidy])
            async with self.kernel.start(inner, "go") as run:
                yield run  # no stream of ModelEvents: its first event is refused

    async with a_kernel() as kernel:
        with pytest.raises(ModelError, match="the model streamed a RunStarted, no ModelEvent"):
            await kernel.run(Agent(model=Asks(kernel)), "go")
        assert kernel.statistics().runs == 0


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("threads", "raise Limits(threads=...), or"),
        ("db", "raise Limits(groups={'db': ...}), or"),
        ("max_parallel_calls", "raise Agent(max_parallel_calls=...), or"),
    ],
)
def test_a_limit_that_is_all_leaks_says_where_it_is_set(name: str, setting: str) -> None:
    assert setting in str(LimiterLeaked(name, 1))
