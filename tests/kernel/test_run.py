"""The run: turn after turn until an answer, what it gives, and how it ends otherwise."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

import turnscope
from tests.kernel.agents import an_agent, asks, contents, ends
from tests.kernel.bodies import (
    UNIT,
    Bodies,
    a_kernel,
    anyio_backend,
    elapse,
    fine,
    idle,
    is_real,
    move_on_after,
    took,
)
from turnscope import (
    Agent,
    AssistantMessage,
    BudgetExceeded,
    CallContext,
    Content,
    DeadlineExceeded,
    History,
    Kernel,
    Limits,
    ModelError,
    ResultMessage,
    RunCancelled,
    Status,
    ToolCall,
    ToolFailed,
    Usage,
    UserMessage,
    progress,
    tool,
)
from turnscope._request import Request
from turnscope.abc import ModelRequest
from turnscope.events import (
    CallDelta,
    CallProgress,
    CallReady,
    CallSettled,
    CallStarted,
    ModelAnswered,
    ModelEvent,
    ModelFinished,
    ModelStarted,
    ReasoningDelta,
    ReasoningStreamed,
    RunEvent,
    RunFinished,
    RunStarted,
    TextDelta,
    TextStreamed,
    TurnEvent,
    TurnFinished,
)
from turnscope.testing import ScriptedModel, Stream, nothing_left

__all__ = ["anyio_backend"]

pytestmark = pytest.mark.anyio

SLOW = Stream(
    [(0, TextDelta("I ")), (600 * UNIT, TextDelta("think")), (601 * UNIT, ModelFinished())]
)
"""An answer that takes a minute."""


# The loop and its results.


async def test_an_answer_without_calls_is_the_output() -> None:
    async with a_kernel() as kernel:
        result = await kernel.run(an_agent("Hello."), "Hi")
    assert (result.output, result.turns, result.reason) == ("Hello.", 1, "stop")
    assert result.history[:] == (UserMessage("Hi"), AssistantMessage(text="Hello."))


async def test_calls_are_run_and_their_results_sent_until_the_model_answers() -> None:
    async def double(n: int) -> int:
        return 2 * n

    model = ScriptedModel(
        [
            ["Let me see.", ToolCall("a", "double", {"n": 1}), ToolCall("b", "double", {"n": 2})],
            lambda request: [
                ToolCall("c", "double", json.dumps({"n": int(request.history[-1].content)}))
            ],
            lambda request: f"It is {request.history.results[-1].content}.",
        ],
        usage=Usage(input_tokens=10, output_tokens=2),
    )
    async with a_kernel() as kernel:
        result = await kernel.run(Agent(model=model, tools=[double]), "4 times 2?")
    assert (result.output, result.turns) == ("It is 8.", 3)
    assert result.usage == Usage(input_tokens=30, output_tokens=6)
    assert contents(result) == ["2", "4", "8"]
    assert [len(request.history) for request in model.requests] == [1, 4, 6]
    assert [type(message) for message in result.history] == [
        UserMessage,
        AssistantMessage,
        ResultMessage,
        ResultMessage,
        AssistantMessage,
        ResultMessage,
        AssistantMessage,
    ]
    assert result.history[1].text == "Let me see."


async def test_the_request_says_what_the_agent_says() -> None:
    agent = an_agent(
        "ok", instructions="Be brief.", settings={"temperature": 0}, parallel_tool_calls=False
    )
    model = agent.model
    assert isinstance(model, ScriptedModel)
    async with a_kernel() as kernel:
        await kernel.run(agent, "Hi", settings={"top_p": 1})
    (request,) = model.requests
    assert request.instructions == "Be brief."
    assert request.tools == agent.tools
    assert request.settings == {"temperature": 0, "top_p": 1}
    assert request.parallel_tool_calls is False


async def test_the_settings_of_a_run_go_over_those_of_the_agent() -> None:
    agent = an_agent("ok", settings={"temperature": 0, "seed": 1})
    model = agent.model
    assert isinstance(model, ScriptedModel)
    async with a_kernel() as kernel:
        await kernel.run(agent, "Hi", settings={"temperature": 1})
    assert model.requests[0].settings == {"temperature": 1, "seed": 1}
    assert agent.settings == {"temperature": 0, "seed": 1}


async def test_a_prompt_may_have_parts_that_are_not_text() -> None:
    image = Content(media_type="image/png", data=b"\x89PNG")
    async with a_kernel() as kernel:
        result = await kernel.run(an_agent("A cat."), [Content(text="What is it?"), image])
    assert result.history[0] == UserMessage((Content(text="What is it?"), image))


async def test_a_surrogate_in_a_prompt_an_answer_or_a_result_kills_no_conversation() -> None:
    async def works(text: str) -> str:
        return f"{text}\udc80"

    script = [["\ud83d", *asks(works, text="\ud83d")], "\ud83d"]
    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(*script, tools=[works]), "caf\udce9")
    result.history.to_json().encode()  # to be sent, and to be kept in a file
    assert result.history[0] == UserMessage("caf\N{REPLACEMENT CHARACTER}")
    assert result.history[-1].text == "\N{REPLACEMENT CHARACTER}"
    assert len(contents(result)) == 1


async def test_a_conversation_goes_on_from_its_history() -> None:
    async with a_kernel() as kernel:
        first = await kernel.run(an_agent(asks(fine), "one"), "1")
        stored = History.from_json(first.history.to_json())
        second = await kernel.run(an_agent(asks(fine), "two"), "2", history=stored)
    assert second.history[: len(first.history)] == first.history[:]
    calls = [c.id for m in second.history if isinstance(m, AssistantMessage) for c in m.calls]
    assert len(set(calls)) == 2  # the second model gave the id of the first again
    assert ends(second.history) == ["ok", "ok"]


async def test_a_run_without_a_prompt_goes_on_where_the_history_stopped() -> None:
    async with a_kernel() as kernel:
        with pytest.raises(BudgetExceeded) as caught:
            await kernel.run(an_agent(asks(fine), "never"), "Hi", budget=turnscope.Budget(turns=1))
        history = caught.value.history
        assert history is not None
        result = await kernel.run(an_agent("done"), None, history=history)
    assert result.output == "done"
    assert result.history[:-1] == history[:]


async def test_results_enter_the_history_in_call_order() -> None:
    async def works(n: int) -> int:
        await anyio.sleep((5 - n) * UNIT / 10)
        return n

    calls = [ToolCall(f"c{n}", "works", {"n": n}) for n in range(5)]
    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(calls, "ok", tools=[works]), "go")
    assert contents(result) == ["0", "1", "2", "3", "4"]
    assert [r.id for r in result.history.results] == ["c0", "c1", "c2", "c3", "c4"]


async def test_repeated_and_missing_ids_run_like_any_others_and_are_unique_in_the_history() -> None:
    seen: list[str] = []

    async def works(context: CallContext[None]) -> str:
        seen.append(context.call.id)
        return context.call.id

    calls = [ToolCall(each, "works") for each in ("x", "x", "", "", "x-1")]
    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(calls, calls, "ok", tools=[works]), "go")
    ids = [r.id for r in result.history.results]
    assert len(set(ids)) == 10 and all(ids)
    assert ids[0] == "x"
    assert contents(result) == ids  # each call knows itself by the id of the history
    assert ends(result.history) == ["ok"] * 10


async def test_what_a_model_got_wrong_is_answered_and_the_run_goes_on() -> None:
    async def works(n: int) -> int:
        return n

    calls = [
        ToolCall("a", "no such tool!", "{}"),
        ToolCall("b", "works", '{"n": "many"}'),
        ToolCall("c", "works", "{broken"),
        ToolCall("d", "works", '{"n": 1}'),
    ]
    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(calls, "ok", tools=[works]), "go")
    assert ends(result.history) == ["invalid", "invalid", "invalid", "ok"]
    answer = result.history[1]
    assert isinstance(answer, AssistantMessage)
    # As every provider takes them back.
    assert [call.name for call in answer.calls] == ["no_such_tool_", "works", "works", "works"]
    assert json.loads(answer.calls[2].arguments) == {"INVALID_JSON": "{broken"}


@pytest.mark.parametrize("arguments", ['{"text": "once upon', ""])
async def test_an_answer_that_was_cut_in_its_arguments_says_so_to_the_model(arguments: str) -> None:
    cut = Stream([(0, CallDelta(0, "c", "works", arguments)), (0, ModelFinished("length"))])

    async def works(text: str = "") -> str:
        return text

    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(cut, "sorry", tools=[works]), "go")
    assert ends(result.history) == ["invalid"]
    assert "cut at the limit of tokens" in contents(result)[0]


@pytest.mark.parametrize("reason", ["length", "refusal", "filtered"])
async def test_an_answer_that_ended_otherwise_is_the_output_and_says_why(reason: Any) -> None:
    stream = Stream([(0, TextDelta("I will")), (0, ModelFinished(reason))])
    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(stream), "go")
    assert (result.output, result.reason) == ("I will", reason)


async def test_the_calls_of_a_refused_answer_are_not_run() -> None:
    stream = Stream([(0, CallDelta(0, "c", "fine", "{}")), (0, ModelFinished("refusal"))])
    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(stream), "go")
        assert (result.output, result.reason, result.turns) == ("", "refusal", 1)
        # Nothing was said, so nothing is kept that a provider would not take.
        assert result.history[:] == (UserMessage("go"),)
        again = await kernel.run(an_agent("ok"), None, history=result.history)
    assert again.output == "ok"


async def test_a_late_value_counts_as_late_and_is_told_to_the_model() -> None:
    @tool(timeout=UNIT)
    async def late() -> str:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return "after all"
        return "never"

    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(asks(late), "ok", tools=[late]), "go")
    assert ends(result.history) == ["timed_out"]
    assert "after all" in contents(result)[0]


# deps, context, instructions.


async def test_tools_and_instructions_get_the_deps_of_their_run() -> None:
    async def works(context: CallContext[str]) -> str:
        return context.deps

    agent: Agent[str, str] = Agent(
        model=ScriptedModel(lambda r: asks(works) if len(r.history) == 1 else r.instructions),
        tools=[works],
        instructions=lambda context: f"for {context.deps}",
    )
    async with a_kernel() as kernel:
        results: dict[str, Any] = {}

        async def one(name: str) -> None:
            results[name] = await kernel.run(agent, "go", deps=name)

        async with anyio.create_task_group() as group:
            for name in ("ann", "bob"):
                group.start_soon(one, name)
    for name, result in results.items():
        assert contents(result) == [name]
        assert result.output == f"for {name}"


async def test_the_callers_context_variables_reach_tools_instructions_and_the_model() -> None:
    who: ContextVar[str] = ContextVar("who", default="nobody")
    seen: list[str] = []

    async def inline() -> str:
        seen.append(f"inline {who.get()}")
        who.set("changed")
        return who.get()

    def thread() -> str:
        seen.append(f"thread {who.get()}")
        return who.get()

    def said(_context: Any) -> str:
        seen.append(f"instructions {who.get()}")
        return ""

    def answer(request: ModelRequest) -> Any:
        seen.append(f"model {who.get()}")
        return asks(inline, thread) if len(request.history) == 1 else "ok"

    agent = Agent(model=ScriptedModel(answer), tools=[inline, thread], instructions=said)
    async with a_kernel() as kernel:
        who.set("ann")
        await kernel.run(agent, "go")
        assert who.get() == "ann"
    assert sorted(seen) == sorted(
        ["instructions ann", "model ann"] * 2 + ["inline ann", "thread ann"]
    )


async def test_instructions_are_asked_before_each_request() -> None:
    contexts: list[Any] = []

    async def said(context: turnscope.RunContext[None]) -> str:
        await anyio.sleep(UNIT / 10)
        contexts.append(context)
        return f"turn {context.turn}"

    agent = an_agent(asks(fine), "ok", instructions=said)
    model = agent.model
    assert isinstance(model, ScriptedModel)
    async with a_kernel() as kernel:
        async with kernel.start(agent, "go", timeout=60) as run:
            await run.wait()
    assert [request.instructions for request in model.requests] == ["turn 0", "turn 1"]
    assert [len(context.history) for context in contexts] == [1, 3]
    assert {context.run_id for context in contexts} == {run.run_id}
    assert contexts[0].deadline == contexts[1].deadline < 10**12


async def test_instructions_that_fail_end_the_run_and_are_named() -> None:
    def said(_context: Any) -> str:
        raise LookupError("no such user")

    async with a_kernel() as kernel:
        with pytest.raises(
            ModelError, match="the agent's instructions failed: LookupError: no"
        ) as e:
            await kernel.run(an_agent("never", instructions=said), "go")
    assert isinstance(e.value.__cause__, LookupError)
    assert e.value.history is not None and e.value.history[:] == (UserMessage("go"),)


async def test_instructions_that_give_no_text_end_the_run() -> None:
    async with a_kernel() as kernel:
        with pytest.raises(ModelError, match="the agent's instructions gave int, not text"):
            await kernel.run(an_agent("never", instructions=lambda _: 5), "go")
        # None is none.
        await kernel.run(an_agent("ok", instructions=lambda _: None), "go")


# Limits of one agent.


async def test_no_more_calls_of_a_run_work_at_once_than_the_agent_allows() -> None:
    working = peak = 0
    begun: list[int] = []

    async def works(n: int) -> None:
        nonlocal working, peak
        begun.append(n)
        working += 1
        peak = max(peak, working)
        await anyio.sleep(UNIT / 10)
        working -= 1

    calls = [ToolCall("", "works", {"n": n}) for n in range(7)]
    async with a_kernel() as kernel:
        agent = an_agent(calls, "ok", tools=[works], max_parallel_calls=3)
        result = await kernel.run(agent, "go")
        assert peak == 3
        assert sorted(begun[:3]) == [0, 1, 2]
        assert begun[-1] == 6
        # The cap is of one run: two runs have two.
        peak = 0
        agent = Agent(
            model=ScriptedModel(lambda r: calls if len(r.history) == 1 else "ok"),
            tools=[works],
            max_parallel_calls=3,
        )
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(kernel.run, agent, "go")
        assert peak == 6
    assert ends(result.history) == ["ok"] * 7


async def test_an_agent_without_parallel_calls_runs_them_one_by_one_in_call_order() -> None:
    order: list[str] = []

    async def works(n: int) -> None:
        order.append(f"{n} begins")
        await anyio.sleep((3 - n) * UNIT / 10)
        order.append(f"{n} ends")

    calls = [ToolCall("", "works", {"n": n}) for n in range(3)]
    async with a_kernel() as kernel:
        agent = an_agent(calls, "ok", tools=[works], parallel_tool_calls=False)
        await kernel.run(agent, "go")
    assert order == [f"{n} {what}" for n in range(3) for what in ("begins", "ends")]


async def test_requests_to_models_have_a_limit_over_all_runs() -> None:
    working = peak = 0

    async def answer(_request: ModelRequest) -> str:
        nonlocal working, peak
        working += 1
        peak = max(peak, working)
        await anyio.sleep(UNIT / 10)
        working -= 1
        return "ok"

    async with a_kernel(limits=Limits(model_requests=2)) as kernel:
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(kernel.run, Agent(model=ScriptedModel(answer)), "go")
        assert kernel.statistics().limiters["model_requests"].capacity == 2
    assert peak == 2


# Events.


async def events_of(kernel: Kernel, agent: Agent[Any, Any], **options: Any) -> list[RunEvent]:
    async with kernel.start(agent, "go", **options) as run:
        return [event async for event in run]


async def test_the_events_of_a_run_tell_all_of_it_in_order() -> None:
    async def works() -> str:
        progress("half")
        return "done"

    script = Stream(
        [
            (0, ReasoningDelta("Hm.")),
            (0, TextDelta("Look: ")),
            (0, CallDelta(0, "c", "works", "{}")),
            (0, ModelFinished("calls", Usage(input_tokens=1))),
        ]
    )
    async with a_kernel() as kernel:
        told = await events_of(kernel, an_agent(script, "ok", tools=[works]))
    assert [type(event) for event in told] == [
        RunStarted,
        ModelStarted,
        ReasoningStreamed,
        TextStreamed,
        ModelAnswered,
        CallReady,
        CallStarted,
        CallProgress,
        CallSettled,
        TurnFinished,
        ModelStarted,
        TextStreamed,
        ModelAnswered,
        TurnFinished,
        RunFinished,
    ]
    assert [event.turn for event in told] == [0] * 10 + [1] * 5
    assert len({event.run_id for event in told}) == 1
    assert {event.parents for event in told} == {()}
    times = [event.time for event in told]
    assert times == sorted(times)
    assert told[4].reason == "calls" and told[4].usage.input_tokens == 1
    assert told[-1].output == "ok" and told[-1].error is None
    assert told[-1].usage.input_tokens == 1


async def test_text_that_nobody_has_read_yet_comes_as_one() -> None:
    deltas = [(UNIT / 10, TextDelta(letter)) for letter in "abc"]
    stream = Stream([*deltas, (2 * UNIT, TextDelta("d")), (2 * UNIT, ModelFinished())])
    async with a_kernel() as kernel:
        async with kernel.start(an_agent(stream), "go") as run:
            await anyio.sleep(UNIT)
            texts = [text async for text in run.text()]
    assert texts == ["abc", "d"]


async def test_the_text_of_a_run_is_that_of_its_own_answers() -> None:
    inner = an_agent("inner").as_tool("inner", "")
    agent = an_agent(["Well, ", *asks("inner", prompt="x")], "done", tools=[inner])
    async with a_kernel() as kernel:
        async with kernel.start(agent, "go") as run:
            texts = [text async for text in run.text()]
            assert (await run.wait()).output == "done"
    assert "".join(texts) == "Well, done"


# trio warns of a generator that is left half-way; a warning is an error here, but one that the
# garbage collector meets is only printed, unless pytest looks.
async def test_to_stop_reading_the_text_ends_nothing_and_leaves_nothing() -> None:
    async with a_kernel() as kernel:
        stream = Stream([(0, TextDelta("a")), (UNIT, TextDelta("b")), (2 * UNIT, ModelFinished())])
        async with kernel.start(an_agent(stream), "go") as run:
            async for text in run.text():
                assert text == "a"
                break
            gc.collect()
            await anyio.sleep(0)
            assert (await run.wait()).output == "ab"


async def test_a_slow_reader_slows_no_tool() -> None:
    async with a_kernel() as kernel:
        start = anyio.current_time()
        ended = 0.0

        async def works() -> None:
            nonlocal ended
            for _ in range(100):
                progress("more")
            await anyio.sleep(UNIT)
            ended = anyio.current_time()

        async with kernel.start(an_agent(asks(works), "ok", tools=[works]), "go") as run:
            count = 0
            async for _ in run:
                count += 1
                if count == 20:
                    await anyio.sleep(3 * UNIT)
        assert count > 100
        took(start + (anyio.current_time() - ended), UNIT)


async def test_two_readers_share_the_events() -> None:
    async with a_kernel() as kernel:
        told: list[RunEvent] = []

        async def read(run: Any) -> None:
            async for event in run:
                told.append(event)
                await anyio.sleep(0)

        async with kernel.start(an_agent(asks(fine), "ok"), "go") as run:
            async with anyio.create_task_group() as group:
                group.start_soon(read, run)
                group.start_soon(read, run)
    assert len(told) == len({id(event) for event in told}) == 12


async def test_a_failed_run_raises_from_its_events_after_the_last() -> None:
    last: RunEvent | None = None
    async with a_kernel() as kernel:
        with pytest.raises(ModelError, match="no such model"):
            async with kernel.start(an_agent(ModelError("no such model")), "go") as run:
                async for last in run:
                    assert not isinstance(last, TextStreamed)
    assert isinstance(last, RunFinished)
    assert isinstance(last.error, ModelError)
    assert last.output is None


async def test_a_failed_run_that_nobody_read_raises_when_its_block_is_left() -> None:
    async with a_kernel() as kernel:
        with pytest.raises(ModelError, match="no such model"):
            async with kernel.start(an_agent(ModelError("no such model")), "go"):
                await anyio.sleep(UNIT)


async def test_an_error_that_the_block_has_seen_is_not_raised_again() -> None:
    async with a_kernel() as kernel:
        async with kernel.start(an_agent(ModelError("no such model")), "go") as run:
            with pytest.raises(ModelError):
                await run.wait()
            with pytest.raises(ModelError):
                await run.wait()


async def test_the_blocks_own_error_comes_first() -> None:
    async with a_kernel() as kernel:
        with pytest.raises(KeyError, match="mine"):
            async with kernel.start(an_agent(ModelError("no such model")), "go"):
                await elapse(UNIT)
                raise KeyError("mine")


async def test_a_run_that_nobody_reads_makes_no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    from turnscope import _conductor, _request, _turn_events

    made: list[str] = []

    def counted(kind: type[TurnEvent]) -> Any:
        def make(**fields: Any) -> TurnEvent:
            made.append(kind.__name__)
            return kind(**fields)

        return make

    for module in (_conductor, _request, _turn_events):
        for name, value in vars(module).copy().items():
            if isinstance(value, type) and issubclass(value, TurnEvent):
                monkeypatch.setattr(module, name, counted(value))
    async with Kernel() as kernel:
        assert (await kernel.run(an_agent(asks(fine), "ok"), "go")).output == "ok"
        assert made == []
        async with kernel.start(an_agent(asks(fine), "ok"), "go") as run:
            await run.wait()
    assert {"RunStarted", "TextStreamed", "CallSettled", "RunFinished"} <= set(made)


async def test_observers_are_told_of_runs_without_readers_and_beside_readers() -> None:
    class Notes:
        def __init__(self) -> None:
            self.told: list[RunEvent] = []

        def observe(self, event: RunEvent) -> None:
            self.told.append(event)

    notes = Notes()
    async with Kernel(observers=[notes]) as kernel:
        await kernel.run(an_agent("ok"), "go")
        assert [type(event) for event in notes.told] == [
            RunStarted,
            ModelStarted,
            TextStreamed,
            ModelAnswered,
            TurnFinished,
            RunFinished,
        ]
        notes.told.clear()
        read = await events_of(kernel, an_agent("ok"))
        assert read == notes.told


async def test_an_observer_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def observe(self, event: RunEvent) -> None:
            raise ValueError("no disk")

    async with Kernel(observers=[Broken()]) as kernel:
        result = await kernel.run(an_agent(asks(fine), "ok"), "secret")
    assert result.output == "ok"
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text


async def test_a_run_of_kernel_run_has_no_events_to_read() -> None:
    async with a_kernel() as kernel:
        async with kernel.start(an_agent("ok"), "go") as run:
            pass
        with pytest.raises(RuntimeError, match="entered once"):
            await run.__aenter__()
        with pytest.raises(RuntimeError, match="a run begins with"):
            kernel.start(an_agent("ok"), "go").cancel()


# Errors, and the history that they carry.


async def test_a_model_that_fails_is_the_cause_of_a_model_error() -> None:
    async with a_kernel() as kernel:
        with pytest.raises(ModelError, match="the model failed: ValueError: no") as caught:
            await kernel.run(an_agent(asks(fine), ValueError("no")), "go")
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.history is not None
    assert ends(caught.value.history) == ["ok"]


async def test_a_model_error_arrives_as_it_was_raised() -> None:
    error = ModelError("too many requests", status=429, retry_after=3)
    async with a_kernel() as kernel:
        with pytest.raises(ModelError) as caught:
            await kernel.run(an_agent(error, retry=None), "go")
    assert caught.value is error
    assert (error.status, error.retry_after) == (429, 3)
    assert error.history is not None and len(error.history) == 1


async def test_a_group_of_one_is_no_cause() -> None:
    async with a_kernel() as kernel:
        group = ExceptionGroup("", [ExceptionGroup("", [OSError("cut off")])])
        with pytest.raises(ModelError, match="the model failed: OSError: cut off") as caught:
            await kernel.run(an_agent(group), "go")
    assert isinstance(caught.value.__cause__, OSError)


async def test_of_a_response_that_fails_half_way_nothing_enters_the_history() -> None:
    stream = Stream(
        [
            (0, TextDelta("I will")),
            (0, CallDelta(0, "c", "fine", "{}")),
            (UNIT, ConnectionError("cut off")),
        ]
    )
    async with a_kernel() as kernel:
        with pytest.raises(ModelError, match="cut off") as caught:
            await kernel.run(an_agent(asks(fine), stream), "go")
    assert caught.value.history is not None
    assert ends(caught.value.history) == ["ok"]
    assert len(caught.value.history) == 3


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        ([], "ended before the response was complete"),
        ([(0, TextDelta("a"))], "ended before the response was complete"),
        ([(0, ModelFinished()), (0, TextDelta("a"))], "streamed TextDelta after ModelFinished"),
        ([(0, CallDelta(0, "c")), (0, ModelFinished())], "a call, 0, without a tool's name"),
        (
            [(0, CallDelta(0, "c", "fine")), (0, ModelFinished()), (0, CallDelta(1))],
            "streamed CallDelta after ModelFinished",
        ),
    ],
)
async def test_a_stream_that_makes_no_response_is_a_model_error(stream: Any, said: str) -> None:
    async with a_kernel() as kernel:
        with pytest.raises(ModelError, match=said):
            await kernel.run(an_agent(Stream(stream)), "go")


async def test_a_usage_without_numbers_is_a_model_error_and_no_hang() -> None:
    nothing: Any = None
    stream = Stream([(0, ModelFinished("stop", Usage(output_tokens=nothing)))])
    async with a_kernel() as kernel:
        with pytest.raises(ModelError, match="which are no numbers"), anyio.fail_after(9):
            await kernel.run(an_agent(stream), "go")


async def test_a_request_that_has_ended_is_not_kept_while_its_calls_run() -> None:
    kept: list[Request] = []

    async def looks(context: CallContext[None]) -> None:
        await anyio.sleep(UNIT)
        gc.collect()
        requests = [each for each in gc.get_objects() if isinstance(each, Request)]
        kept.extend(each for each in requests if each.facts.run_id == context.run_id)

    async with a_kernel() as kernel:
        await kernel.run(an_agent(asks(looks), "done", tools=[tool(looks)]), "go")
    assert kept == []


async def test_a_fatal_tool_ends_the_run_after_its_siblings_were_awaited() -> None:
    @tool(on_error="raise")
    async def breaks() -> None:
        await anyio.sleep(UNIT)
        raise LookupError("broken")

    async with a_kernel() as kernel:
        bodies = Bodies()
        agent = an_agent(
            asks(bodies.tidy, breaks, fine), "never", tools=[breaks, bodies.tidy, fine]
        )
        with pytest.raises(ToolFailed, match="the tool 'breaks' failed: LookupError") as caught:
            await kernel.run(agent, "go")
        assert bodies.cleaned
    error = caught.value
    assert isinstance(error.__cause__, LookupError)
    assert error.result.call.name == "breaks"
    assert error.result.error is error.__cause__
    assert error.history is not None
    assert ends(error.history) == ["cancelled", "failed", "ok"]


async def test_ctrl_c_in_a_tool_is_raised_bare_and_the_history_is_whole() -> None:
    async def breaks() -> None:
        await anyio.sleep(UNIT)
        raise KeyboardInterrupt

    async with a_kernel() as kernel:
        bodies = Bodies()
        agent = an_agent(asks(bodies.tidy, breaks), "never", tools=[breaks, bodies.tidy])
        run = kernel.start(agent, "go")
        with pytest.raises(KeyboardInterrupt) as caught:
            async with run:
                await run.wait()
        assert type(caught.value) is KeyboardInterrupt
        assert ends(run.history) == ["cancelled", "failed"]
        assert bodies.cleaned


async def test_ctrl_c_in_a_model_is_raised_bare() -> None:
    async with a_kernel() as kernel:
        run = kernel.start(an_agent(KeyboardInterrupt()), "go")
        with pytest.raises(KeyboardInterrupt):
            async with run:
                await run.wait()
        assert len(run.history) == 1


async def test_a_tool_that_exits_the_program_has_failed() -> None:
    async def leaves() -> None:
        raise SystemExit(3)

    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(asks(leaves), "ok", tools=[leaves]), "go")
    assert ends(result.history) == ["failed"]


# Deadlines.


async def test_a_run_ends_at_its_timeout_with_a_history_that_says_so() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        agent = an_agent(asks(bodies.tidy, fine), "never", tools=[bodies.tidy, fine])
        start = anyio.current_time()
        with pytest.raises(DeadlineExceeded, match="the run was ended by its deadline") as caught:
            await kernel.run(agent, "go", timeout=2 * UNIT)
        took(start, 3 * UNIT)  # of which a unit is tidy's cleanup
        assert bodies.cleaned
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.history is not None
    assert ends(caught.value.history) == ["timed_out", "ok"]


async def test_a_run_ends_at_a_deadline_of_the_clock_whichever_is_earlier() -> None:
    async with a_kernel() as kernel:
        start = anyio.current_time()
        with pytest.raises(DeadlineExceeded):
            await kernel.run(an_agent(SLOW), "go", timeout=60, deadline=start + UNIT)
        took(start, UNIT)
        with pytest.raises(DeadlineExceeded):
            await kernel.run(an_agent("never"), "go", deadline=start)
        with pytest.raises(DeadlineExceeded) as caught:
            await kernel.run(an_agent("never"), "go", timeout=0)
    assert caught.value.history is not None and len(caught.value.history) == 1


async def test_a_model_that_is_silent_is_ended_by_the_deadline() -> None:
    async with a_kernel() as kernel:
        start = anyio.current_time()
        with pytest.raises(DeadlineExceeded):
            await kernel.run(an_agent(SLOW), "go", timeout=UNIT)
        took(start, UNIT)


async def test_the_deadline_of_a_run_holds_over_all_of_its_turns() -> None:
    async def works() -> None:
        await anyio.sleep(UNIT)

    async with a_kernel() as kernel:
        start = anyio.current_time()
        agent = Agent(model=ScriptedModel(lambda _: asks(works)), tools=[works])
        with pytest.raises(DeadlineExceeded) as caught:
            await kernel.run(agent, "go", timeout=3.5 * UNIT)
        took(start, 3.5 * UNIT)
    assert caught.value.history is not None
    *earlier, last = ends(caught.value.history)
    assert last == "timed_out" and set(earlier) == {"ok"}
    assert is_real() or len(earlier) == 3


async def test_a_tools_own_timeout_error_is_its_failure_and_a_models_is_its_cause() -> None:
    async def works() -> None:
        raise TimeoutError("the database is slow")

    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(asks(works), "ok", tools=[works]), "go", timeout=60)
        assert ends(result.history) == ["failed"]
        assert contents(result) == ["TimeoutError: the database is slow"]
        with pytest.raises(ModelError) as caught:
            await kernel.run(an_agent(TimeoutError("the server is slow")), "go", timeout=60)
        assert isinstance(caught.value.__cause__, TimeoutError)


# Cancelling: by the run, its block, its kernel.


async def test_a_cancelled_run_raises_run_cancelled_with_the_reason() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        agent = an_agent(asks(bodies.tidy), "never", tools=[bodies.tidy])
        async with kernel.start(agent, "go") as run:
            await bodies.begun.wait()
            run.cancel("the user is gone")
            with pytest.raises(RunCancelled, match="the user is gone") as caught:
                await run.wait()
            assert bodies.cleaned
        assert ends(run.history) == ["cancelled"]
        assert caught.value.history == run.history
        run.cancel("again")  # of no effect any more


async def test_every_task_that_waits_is_told_how_the_run_ended() -> None:
    async with a_kernel() as kernel:
        told: list[str] = []

        async def waits(run: Any) -> None:
            with pytest.raises(RunCancelled):
                await run.wait()
            told.append("cancelled")

        async with kernel.start(an_agent(SLOW), "go") as run:
            async with anyio.create_task_group() as group:
                for _ in range(3):
                    group.start_soon(waits, run)
                await elapse(UNIT)
                run.cancel()
    assert told == ["cancelled"] * 3


async def test_to_give_up_a_wait_is_not_to_give_up_the_run() -> None:
    stream = Stream([(2 * UNIT, TextDelta("late")), (2 * UNIT, ModelFinished())])
    async with a_kernel() as kernel:
        async with kernel.start(an_agent(stream), "go") as run:
            with move_on_after(UNIT) as scope:
                await run.wait()
            assert scope.cancelled_caught
            assert (await run.wait()).output == "late"


async def test_a_swallower_cannot_make_a_cancelled_run_a_success() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        agent = an_agent(asks(bodies.stubborn), "never", tools=[bodies.stubborn])
        async with kernel.start(agent, "go") as run:
            await bodies.begun.wait()
            run.cancel()
            with pytest.raises(RunCancelled):
                await run.wait()
        assert ends(run.history) == ["cancelled"]
        assert "late" in contents(run)[0]


async def test_a_model_that_swallows_the_interrupt_is_ended_with_grace() -> None:
    class Stubborn:
        @asynccontextmanager
        async def stream(self, request: ModelRequest) -> AsyncGenerator[Any]:
            async def events() -> AsyncGenerator[ModelEvent]:
                while True:
                    try:
                        await anyio.sleep_forever()
                    except anyio.get_cancelled_exc_class():
                        yield TextDelta("no")

            async with aclosing(events()) as streamed:
                yield streamed

    async with a_kernel(grace=UNIT) as kernel:
        async with kernel.start(Agent(model=Stubborn()), "go") as run:
            await anyio.sleep(UNIT)
            start = anyio.current_time()
            run.cancel()
            with pytest.raises(RunCancelled):
                await run.wait()
            took(start, UNIT)


async def test_a_model_may_clean_up_with_awaits_when_its_run_is_cancelled() -> None:
    notes: list[str] = []

    class Tidy:
        @asynccontextmanager
        async def stream(self, request: ModelRequest) -> AsyncGenerator[Any]:
            async def events() -> AsyncGenerator[ModelEvent]:
                yield TextDelta("a")
                await anyio.sleep_forever()

            try:
                async with aclosing(events()) as streamed:
                    yield streamed
            finally:
                await anyio.sleep(UNIT)
                notes.append("closed")

    async with a_kernel() as kernel:
        with move_on_after(UNIT) as scope:
            await kernel.run(Agent(model=Tidy()), "go")
        assert scope.cancelled_caught
        assert notes == ["closed"]


async def test_a_model_whose_cleanup_fails_is_the_cause_of_the_cancelled_runs_error() -> None:
    class Broken:
        @asynccontextmanager
        async def stream(self, request: ModelRequest) -> AsyncGenerator[Any]:
            async def events() -> AsyncGenerator[ModelEvent]:
                await anyio.sleep_forever()
                yield TextDelta("never")

            try:
                async with aclosing(events()) as streamed:
                    yield streamed
            finally:
                raise OSError("the socket is gone")

    async with a_kernel() as kernel:
        async with kernel.start(Agent(model=Broken()), "go") as run:
            await elapse(UNIT)
            run.cancel()
            with pytest.raises(RunCancelled) as cancelled:
                await run.wait()
        assert isinstance(cancelled.value.__cause__, OSError)
        with pytest.raises(DeadlineExceeded) as late:
            await kernel.run(Agent(model=Broken()), "go", timeout=UNIT)
        assert isinstance(late.value.__cause__, OSError)


async def test_leaving_the_block_early_ends_the_run_and_raises_nothing() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        agent = an_agent(asks(bodies.tidy), "never", tools=[bodies.tidy])
        async with kernel.start(agent, "go") as run:
            async for event in run:
                if isinstance(event, CallStarted):
                    break
        assert bodies.cleaned
        assert ends(run.history) == ["cancelled"]
        assert kernel.statistics().runs == 0
        with pytest.raises(RunCancelled, match="its run was left before"):
            await run.wait()


async def test_leaving_the_block_at_once_sends_nothing() -> None:
    async with a_kernel() as kernel:
        agent = an_agent("never")
        async with kernel.start(agent, "go") as run:
            pass
        assert isinstance(agent.model, ScriptedModel)
        assert agent.model.requests == []
        assert run.history[:] == (UserMessage("go"),)


async def test_a_kernel_that_is_closed_ends_its_runs() -> None:
    async with nothing_left():
        bodies = Bodies()
        agent = an_agent(asks(bodies.tidy), "never", tools=[bodies.tidy])
        said: list[str] = []

        async def one(kernel: Kernel, opened: anyio.Event) -> None:
            async with kernel.start(agent, "go") as run:
                opened.set()
                with pytest.raises(RunCancelled, match="the kernel was closed") as caught:
                    await run.wait()
                said.append(str(caught.value))
            assert ends(run.history) == ["cancelled"]

        async with anyio.create_task_group() as group:
            async with Kernel() as kernel:
                opened = anyio.Event()
                group.start_soon(one, kernel, opened)
                await bodies.begun.wait()
            assert bodies.cleaned
        assert len(said) == 1


async def test_a_closed_kernel_starts_nothing() -> None:
    agent = an_agent("never")
    kernel = Kernel()
    with pytest.raises(RuntimeError, match="this kernel is not open"):
        await kernel.run(agent, "go")
    async with kernel:
        made = kernel.start(agent, "go")
    for start in (lambda: kernel.start(agent, "go"), made.__aenter__):
        with pytest.raises(RuntimeError, match="this kernel is closed"):
            started = start()
            if not isinstance(started, turnscope.Run):
                await started
    assert isinstance(agent.model, ScriptedModel) and agent.model.requests == []


async def test_a_run_is_started_and_cancelled_in_the_loops_own_thread_only() -> None:
    async with a_kernel() as kernel:
        async with kernel.start(an_agent(SLOW), "go") as run:

            def elsewhere() -> None:
                with pytest.raises(RuntimeError, match="from another thread, use"):
                    kernel.start(an_agent("ok"), "go")
                with pytest.raises(RuntimeError, match=r"anyio.from_thread.run_sync\(run.cancel\)"):
                    run.cancel()

            await anyio.to_thread.run_sync(elsewhere)


async def test_the_door_for_one_run_opens_a_kernel_and_closes_it() -> None:
    async with nothing_left():
        result = await turnscope.run(an_agent(asks(fine), "ok"), "go")
        assert result.output == "ok"
        with pytest.raises(ModelError):
            await turnscope.run(an_agent(ValueError()), "go")


# What is refused before any work.


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"prompt": ""}, ValueError, "the prompt is empty"),
        ({"prompt": []}, ValueError, "the prompt is empty"),
        ({"prompt": 5}, TypeError, "a prompt is a str, a sequence of Content, or None"),
        ({"prompt": ["text"]}, TypeError, r"write Content\(text=...\) for text"),
        ({"prompt": None}, ValueError, "there is nothing to answer"),
        (
            {
                "prompt": None,
                "history": History([UserMessage("a"), AssistantMessage(text="b")]),
            },
            ValueError,
            "ends with the model's answer: give a prompt",
        ),
        ({"history": [UserMessage("a")]}, TypeError, "history= is a History, not list"),
        ({"timeout": -1}, ValueError, "a span in seconds, 0 or more"),
        ({"timeout": float("nan")}, ValueError, "a span in seconds, 0 or more"),
        ({"deadline": float("nan")}, ValueError, "a value of the event loop's clock"),
        ({"budget": 5}, TypeError, r"budget=5: a Budget, as Budget\(turns=10\)"),
        ({"model": 5}, TypeError, "5 is no model"),
        ({"model": ScriptedModel}, TypeError, "is no model"),
        ({"model": "nobody:x"}, ValueError, "no model is named 'nobody:x'"),
        ({"model": "nothing"}, ValueError, "no model is named 'nothing'"),
        ({"model": ""}, ValueError, "no model is named ''"),
        ({"agent": fine}, TypeError, "a run is of an Agent, not of function"),
        ({"agent": Agent()}, ValueError, "this agent has no model: give it one"),
        (
            {"agent": Agent(model="a:b", tools=[tool(limit="db")(fine)])},
            ValueError,
            "no model is named 'a:b'",
        ),
        (
            {"agent": an_agent("x", tools=[tool(limit="db")(fine)])},
            ValueError,
            "counts in the limit group 'db', which this kernel lacks",
        ),
    ],
)
async def test_what_cannot_work_is_refused_before_any_request(
    arguments: dict[str, Any], kind: type[Exception], said: str
) -> None:
    model = ScriptedModel(["never"])
    given = {"agent": Agent(model=model), "prompt": "go", **arguments}
    async with a_kernel() as kernel:
        with pytest.raises(kind, match=said):
            kernel.start(**given)
        with pytest.raises(kind, match=said):
            await kernel.run(**given)
        assert kernel.statistics().runs == 0
    assert model.requests == []


# Two runs.


async def test_many_runs_share_a_kernel_and_an_agent() -> None:
    async def works(n: int) -> int:
        await anyio.sleep(UNIT / 10)
        return n

    def answer(request: ModelRequest) -> Any:
        if len(request.history) > 1:
            return str(request.history.results[0].content)
        prompt = request.history[0]
        assert isinstance(prompt, UserMessage)
        return asks(works, n=int(str(prompt.content)))

    agent = Agent(model=ScriptedModel(answer), tools=[works])
    outputs: dict[int, str] = {}
    async with a_kernel() as kernel:

        async def one(n: int) -> None:
            outputs[n] = (await kernel.run(agent, str(n))).output

        async with anyio.create_task_group() as group:
            for n in range(50):
                group.start_soon(one, n)
        assert kernel.statistics().runs == 0
        assert idle(kernel)
    assert outputs == {n: str(n) for n in range(50)}


async def test_a_conversation_that_is_continued_twice_at_once_is_two_conversations() -> None:
    async with a_kernel() as kernel:
        first = await kernel.run(an_agent(asks(fine), "one"), "1")
        results: dict[str, History] = {}

        async def one(name: str) -> None:
            agent = an_agent(asks(fine), name)
            results[name] = (await kernel.run(agent, name, history=first.history)).history

        async with anyio.create_task_group() as group:
            group.start_soon(one, "a")
            group.start_soon(one, "b")
    for name, history in results.items():
        assert history[: len(first.history)] == first.history[:]
        assert [m.content for m in history if isinstance(m, UserMessage)] == ["1", name]
        assert ends(history) == ["ok", "ok"]
    assert len(first.history) == 4


# Threads.


async def test_a_def_tool_runs_in_a_thread_of_its_own() -> None:
    def works() -> str:
        return threading.current_thread().name

    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(asks(works), "ok", tools=[works]), "go")
    assert contents(result) != [threading.current_thread().name]
    assert result.history.results[0].status is Status.OK
