"""Answers that have a type: how they are asked for, read and sent back, and what they end with."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypedDict

import anyio
import attrs
import pydantic
import pytest

from tests.kernel.agents import an_agent, ends
from tests.kernel.agents import virtual_backend as virtual_backend
from tests.kernel.bodies import fine
from tests.properties.provider import accepted
from turnscope import (
    Agent,
    Budget,
    BudgetExceeded,
    DeadlineExceeded,
    History,
    Kernel,
    Limits,
    ModelError,
    OutputInvalid,
    OutputRefused,
    Retry,
    ToolCall,
    ToolFailed,
    UserMessage,
    fallback,
    tool,
)
from turnscope.abc import Model, ModelRequest, OutputSchema
from turnscope.events import (
    CallDelta,
    CallReady,
    CallSealed,
    CallSettled,
    CallStarted,
    ModelFinished,
    OutputRetried,
    RunFinished,
    TextDelta,
)
from turnscope.testing import ScriptedModel, Stream

pytestmark = pytest.mark.anyio


@attrs.frozen
class City:
    """A city."""

    name: str
    people: int = 0


@dataclasses.dataclass
class Point:
    x: float
    y: float


class Pair(TypedDict):
    left: int
    right: int


class Person(pydantic.BaseModel):
    name: Annotated[str, pydantic.Field(min_length=2)]
    homes: list[str] = []


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def final(*, call_id: str = "f", **arguments: Any) -> ToolCall:
    return ToolCall(call_id, "final_answer", arguments)


def native(*script: Any, **fields: Any) -> Agent[Any, Any]:
    """An agent whose model is held to a schema."""
    return Agent(model=ScriptedModel(script, takes_output=True), **fields)


def requests(agent: Agent[Any, Any]) -> Sequence[ModelRequest]:
    assert isinstance(agent.model, ScriptedModel)
    return agent.model.requests


CASES: list[tuple[Any, Any, Any]] = [
    (City, {"name": "Rome"}, City("Rome")),
    (Point, {"x": 1, "y": 2.5}, Point(1, 2.5)),
    (Pair, {"left": 1, "right": 2}, {"left": 1, "right": 2}),
    (Person, {"name": "Ada"}, Person(name="Ada")),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (int, {"value": 3}, 3),
    (bool, {"value": False}, False),
    (int | None, {"value": None}, None),
    (list[City], {"value": [{"name": "Rome"}]}, [City("Rome")]),
    (Literal["yes", "no"], {"value": "no"}, "no"),
    (Colour, {"value": "red"}, Colour.RED),
    (City | Point, {"value": {"x": 1, "y": 2}}, Point(1, 2)),
    (Annotated[str, pydantic.Field(max_length=5)], {"value": "short"}, "short"),
]


@pytest.mark.parametrize(("kind", "given", "output"), CASES, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("by_tool", [True, False], ids=["by tool", "native"])
async def test_an_answer_of_any_type_is_read(
    kind: Any, given: Any, output: Any, by_tool: bool
) -> None:
    answer: Any = [final(**given)] if by_tool else json.dumps(given)
    agent: Agent[Any, Any] = Agent(
        model=ScriptedModel([answer], takes_output=not by_tool), output=kind
    )
    async with Kernel() as kernel:
        result = await kernel.run(agent, "go")
    assert result.output == output and type(result.output) is type(output)
    assert (result.turns, result.reason) == (1, "stop")
    (request,) = requests(agent)
    if by_tool:
        assert request.output is None
        schema = request.tools[-1].schema
    else:
        assert request.output is not None and not request.tools
        schema = request.output.schema
    assert schema["type"] == "object" and set(given) <= set(schema.get("properties", given))
    accepted(result.history.to_json())


async def test_plain_text_is_as_it_was() -> None:
    agent = an_agent("hello", output=str)
    async with Kernel() as kernel:
        assert (await kernel.run(agent, "go")).output == "hello"
    (request,) = requests(agent)
    assert request.output is None and request.tools == agent.tools


# What does not fit.


async def test_a_bad_call_gets_the_sentences_of_bad_arguments_and_the_next_one_counts() -> None:
    agent = an_agent([final(name=3)], [final(name="Rome")], "beyond", tools=(), output=City)
    async with Kernel() as kernel:
        result = await kernel.run(agent, "go")
    assert result.output == City("Rome")
    assert ends(result.history) == ["invalid", "ok"]
    said = result.history.results[0].content
    assert "correct them and call again" in said
    assert "name: expected a string, was given 3 (int)" in said


async def test_bad_text_is_sent_back_as_a_prompt_with_what_is_wrong() -> None:
    agent = native("Rome", '{"name": null}', '{"name": "Rome"}', output=City)
    async with Kernel() as kernel:
        result = await kernel.run(agent, "go")
    assert result.output == City("Rome") and result.turns == 3
    first, second = (request.history[-1] for request in requests(agent)[1:])
    assert isinstance(first, UserMessage) and "not valid JSON" in str(first.content)
    assert isinstance(second, UserMessage)
    assert "name: expected a string, was given null" in str(second.content)
    accepted(result.history.to_json())


async def test_text_in_place_of_the_call_is_sent_back() -> None:
    agent = an_agent("Rome", [final(name="Rome")], tools=(), output=City)
    async with Kernel() as kernel:
        assert (await kernel.run(agent, "go")).output == City("Rome")
    asked = requests(agent)[1].history[-1]
    assert isinstance(asked, UserMessage) and "call 'final_answer'" in str(asked.content)


@pytest.mark.parametrize("by_tool", [True, False], ids=["by tool", "native"])
async def test_an_answer_of_nothing_is_sent_back(by_tool: bool) -> None:
    model = ScriptedModel(["", "  ", "\n"], takes_output=not by_tool)
    agent = Agent(model=model, output=Person, output_retries=1)
    async with Kernel() as kernel:
        with pytest.raises(OutputInvalid) as caught:
            await kernel.run(agent, "go")
    assert caught.value.problems == ("it is empty",)
    assert caught.value.history is not None
    accepted(caught.value.history.to_json())


@pytest.mark.parametrize("retries", [0, 1, 4])
@pytest.mark.parametrize("by_tool", [True, False], ids=["by tool", "native"])
async def test_the_limit_raises_with_a_history_to_go_on_from(retries: int, by_tool: bool) -> None:
    bad = [final(value="x")] if by_tool else '{"value": "x"}'
    model = ScriptedModel([bad] * (retries + 1), takes_output=not by_tool)
    agent = Agent(model=model, output=int, output_retries=retries)
    async with Kernel() as kernel:
        with pytest.raises(OutputInvalid, match="expected an integer") as caught:
            await kernel.run(agent, "go")
        error = caught.value
        assert error.problems == ("value: expected an integer, was given 'x' (str)",)
        assert json.loads(error.answer) == {"value": "x"}
        assert error.attempt == retries + 1 == len(model.requests)
        assert error.__cause__ is not None  # what pydantic, or a validator of the user's, raised
        assert error.history is not None
        accepted(error.history.to_json())
        good: Any = [final(value=4)] if by_tool else '{"value": 4}'
        for prompt in (None, "Once more."):
            again = agent.replace(model=ScriptedModel([good], takes_output=not by_tool))
            stored = History.from_json(error.history.to_json())
            result = await kernel.run(again, prompt, history=stored)
            assert result.output == 4
            accepted(result.history.to_json())


async def test_a_validator_of_the_users_says_what_is_wrong() -> None:
    class Even(pydantic.BaseModel):
        n: int

        @pydantic.field_validator("n")
        @classmethod
        def even(cls, n: int) -> int:
            if n % 2:
                raise ValueError("it is odd")
            return n

    agent = an_agent([final(n=1)], [final(n=2)], tools=(), output=Even)
    async with Kernel() as kernel:
        result = await kernel.run(agent, "go")
    assert result.output.n == 2
    assert "n: it is odd" in str(result.history.results[0].content)


@pytest.mark.parametrize("by_tool", [True, False], ids=["by tool", "native"])
async def test_an_answer_that_is_cut_is_asked_for_anew_shorter(by_tool: bool) -> None:
    cut: list[Any] = [TextDelta('{"value": [1, 2')]
    if by_tool:
        cut = [CallDelta(0, "c", "final_answer", '{"value": [1, 2')]
    stream = Stream([(0.0, event) for event in [*cut, ModelFinished("length")]])
    good: Any = [final(value=[1])] if by_tool else '{"value": [1]}'
    model = ScriptedModel([stream, good], takes_output=not by_tool)
    async with Kernel() as kernel:
        result = await kernel.run(Agent(model=model, output=list[int]), "go")
    assert result.output == [1]
    assert "cut at the limit of tokens" in str(model.requests[1].history[-1].content)  # type: ignore[union-attr]  # because it is no answer
    accepted(result.history.to_json())


@pytest.mark.parametrize("reason", ["refusal", "filtered"])
@pytest.mark.parametrize("by_tool", [True, False], ids=["by tool", "native"])
async def test_a_refusal_is_an_error_of_its_own(reason: Any, by_tool: bool) -> None:
    refusing = Stream([(0, TextDelta("I will not.")), (0, ModelFinished(reason))])
    model = ScriptedModel([refusing], takes_output=not by_tool)
    async with Kernel() as kernel:
        with pytest.raises(OutputRefused, match="I will not") as caught:
            await kernel.run(Agent(model=model, output=City), "go")
    assert (caught.value.reason, caught.value.text) == (reason, "I will not.")
    assert len(model.requests) == 1
    assert caught.value.history is not None
    accepted(caught.value.history.to_json())


async def test_an_answer_that_was_cut_off_and_tried_again_is_no_bad_answer() -> None:
    broken = Stream([(0, TextDelta('{"val')), (0, ModelError("gone", transient=True))])
    model = ScriptedModel([broken, '{"value": 1}'], takes_output=True)
    agent = Agent(model=model, output=int, output_retries=0, retry=Retry(attempts=2))
    async with Kernel() as kernel:
        assert (await kernel.run(agent, "go")).output == 1


# The call of the answer among others.


async def test_calls_beside_the_answer_run_and_settle_before_the_run_ends() -> None:
    ended: list[str] = []

    @tool
    async def slow(name: str) -> str:
        await anyio.sleep(3)
        ended.append(name)
        return name

    turn = [
        ToolCall("a", "slow", {"name": "a"}),
        final(value=1),
        ToolCall("b", "slow", {"name": "b"}),
    ]
    agent = an_agent(turn, tools=[slow], output=int)
    async with Kernel() as kernel:
        start = anyio.current_time()
        result = await kernel.run(agent, "go")
        assert anyio.current_time() - start == 3
    assert result.output == 1 and sorted(ended) == ["a", "b"]
    assert [each.name for each in result.history.results] == ["slow", "final_answer", "slow"]
    assert ends(result.history) == ["ok", "ok", "ok"]


async def test_of_several_answers_the_first_that_fits_counts() -> None:
    agent = an_agent([final(value="x"), final(value=1), final(value=2)], tools=(), output=int)
    async with Kernel() as kernel:
        result = await kernel.run(agent, "go")
    assert result.output == 1
    assert ends(result.history) == ["invalid", "ok", "not_started"]


async def test_the_answer_takes_no_slot_and_none_of_the_budget_of_calls() -> None:
    agent = an_agent(
        [ToolCall("a", "fine", {}), final(value=1)],
        output=int,
        max_parallel_calls=1,
        budget=Budget(calls=1, tokens=1),
    )
    async with Kernel(limits=Limits(calls=1)) as kernel:
        assert (await kernel.run(agent, "go")).output == 1


async def test_beside_a_call_that_the_budget_refuses_the_answer_does_not_count() -> None:
    agent = an_agent(
        [ToolCall("a", "fine", {}), ToolCall("b", "fine", {}), final(value=1)],
        output=int,
        budget=Budget(calls=1),
    )
    async with Kernel() as kernel:
        with pytest.raises(BudgetExceeded) as caught:
            await kernel.run(agent, "go")
    assert caught.value.history is not None
    assert ends(caught.value.history) == ["ok", "not_started", "ok"]


async def test_a_fatal_tool_beside_the_answer_is_what_the_run_raises() -> None:
    @tool(on_error="raise")
    async def broken() -> None:
        raise OSError

    agent = an_agent([final(value=1), ToolCall("a", "broken", {})], tools=[broken], output=int)
    async with Kernel() as kernel:
        with pytest.raises(ToolFailed):
            async with kernel.start(agent, "go") as run:
                async for event in run:
                    last = event
    assert isinstance(last, RunFinished) and last.output is None


async def test_early_start_never_begins_the_answer_and_keeps_the_order_of_calls() -> None:
    @tool(read_only=True)
    async def look(name: str) -> str:
        return name

    arguments = ('{"name": "a"}', '{"value": 7}', '{"name": "b"}')
    calls = zip(range(3), ("look", "final_answer", "look"), arguments, strict=True)
    stream = Stream(
        [
            (float(index), event)
            for index, name, text in calls
            for event in (CallDelta(index, f"c{index}", name, text), CallSealed(index))
        ]
        + [(5.0, ModelFinished("calls"))]
    )
    agent = an_agent(stream, tools=[look], output=int)
    async with Kernel() as kernel:
        async with kernel.start(agent, "go") as run:
            start = anyio.current_time()
            seen = [(event, event.time - start) async for event in run]
        result = await run.wait()
    assert result.output == 7
    assert [each.content for each in result.history.results][::2] == ["a", "b"]
    started = {event.index: after for event, after in seen if isinstance(event, CallStarted)}
    assert started == {0: 0.0, 2: 2.0}, "the others start early, the answer never does"
    settled = {event.index: after for event, after in seen if isinstance(event, CallSettled)}
    assert settled[1] == 5.0, "nothing is known of it before the response is complete"
    ready = [event.index for event, _ in seen if isinstance(event, CallReady)]
    assert sorted(ready) == [0, 1, 2]


async def test_an_answer_of_a_response_that_fails_does_not_count() -> None:
    stream = Stream(
        [
            (0, CallDelta(0, "f", "final_answer", '{"value": 1}')),
            (0, CallSealed(0)),
            (0, ModelError("gone")),
        ]
    )
    async with Kernel() as kernel:
        with pytest.raises(ModelError, match="gone"):
            await kernel.run(an_agent(stream, output=int), "go")


async def test_the_tool_of_the_answer_has_a_name_that_no_other_tool_has() -> None:
    @tool
    async def final_answer() -> str:
        return "the user's own"

    second = ToolCall("f", "final_answer_2", {"value": 1})
    agent = an_agent(
        [ToolCall("a", "final_answer", {})], [second], tools=[final_answer], output=int
    )
    async with Kernel() as kernel:
        result = await kernel.run(agent, "go")
    assert result.output == 1
    assert next(each.content for each in result.history.results) == "the user's own"
    names = [each.name for each in requests(agent)[0].tools]
    assert names == ["final_answer", "final_answer_2"]


async def test_the_model_is_told_that_the_call_ends_the_work() -> None:
    agent = an_agent([final(value=1)], output=int)
    async with Kernel() as kernel:
        await kernel.run(agent, "go")
    assert "ends the work" in requests(agent)[0].tools[-1].description


async def test_a_name_that_is_nearly_the_answers_is_told_of_it() -> None:
    agent = an_agent([ToolCall("a", "final_anser", {})], [final(value=1)], output=int)
    async with Kernel() as kernel:
        result = await kernel.run(agent, "go")
    assert result.history.results[0].content == (
        "no tool named 'final_anser'; did you mean 'final_answer'?"
    )


async def test_calls_come_before_a_native_answer_as_ever() -> None:
    agent = native([ToolCall("a", "fine", {})], '{"value": 1}', tools=[fine], output=int)
    async with Kernel() as kernel:
        result = await kernel.run(agent, "go")
    assert result.output == 1 and ends(result.history) == ["ok"]
    assert [request.output is None for request in requests(agent)] == [False, False]


# What bounds a run.


async def test_answers_that_do_not_fit_spend_the_budget_of_turns() -> None:
    agent = native("a", "b", "c", output=int, output_retries=9, budget=Budget(turns=2))
    async with Kernel() as kernel:
        with pytest.raises(BudgetExceeded) as caught:
            await kernel.run(agent, "go")
    assert caught.value.history is not None
    accepted(caught.value.history.to_json())


async def test_a_deadline_ends_the_asking() -> None:
    def slow(request: ModelRequest) -> Stream:
        return Stream([(1.0, TextDelta("no")), (1.0, ModelFinished())])

    model = ScriptedModel(slow, takes_output=True)
    agent = Agent(model=model, output=int, output_retries=99)
    async with Kernel() as kernel:
        with pytest.raises(DeadlineExceeded):
            await kernel.run(agent, "go", timeout=3.5)
    assert len(model.requests) == 4


# What is told.


@pytest.mark.parametrize("by_tool", [True, False], ids=["by tool", "native"])
async def test_events_say_what_was_sent_back(by_tool: bool) -> None:
    bad, good = ([final(value=each)] for each in ("x", 1))
    script: list[Any] = [bad, good] if by_tool else ['{"value": "x"}', '{"value": 1}']
    agent = Agent(model=ScriptedModel(script, takes_output=not by_tool), output=int)
    async with Kernel() as kernel, kernel.start(agent, "go") as run:
        events = [event async for event in run]
    (retried,) = [event for event in events if isinstance(event, OutputRetried)]
    assert (retried.turn, retried.attempt) == (0, 1)
    assert isinstance(retried.error, OutputInvalid) and "an integer" in str(retried.error)
    names = [type(event).__name__ for event in events]
    assert names[names.index("OutputRetried") - 1] == "TurnFinished"
    assert isinstance(events[-1], RunFinished) and events[-1].output == 1


async def test_the_text_of_a_native_answer_is_streamed_and_a_second_one_set_apart() -> None:
    agent = native("no", '{"value": 1}', output=int)
    async with Kernel() as kernel, kernel.start(agent, "go") as run:
        texts = [text async for text in run.text()]
    assert "".join(texts) == 'no\n\n{"value": 1}'


# Models, agents, conversations.


async def test_a_fallback_has_a_mode_of_its_own_only_if_all_of_its_models_have() -> None:
    def model(takes: bool, *script: Any) -> ScriptedModel:
        return ScriptedModel(script, takes_output=takes)

    down = ModelError("down", transient=True)
    for first, second, by_tool in ((True, True, False), (True, False, True), (False, True, True)):
        good: Any = [final(value=1)] if by_tool else '{"value": 1}'
        models: Model = fallback(model(first, down), model(second, good))
        async with Kernel() as kernel:
            assert (await kernel.run(Agent(model=models, output=int), "go")).output == 1


async def test_a_model_that_knows_nothing_of_outputs_is_asked_by_the_tool() -> None:
    scripted = ScriptedModel([[final(value=1)]])

    class Bare:
        def stream(self, request: ModelRequest) -> Any:
            return scripted.stream(request)

    async with Kernel() as kernel:
        assert (await kernel.run(Agent(model=Bare(), output=int), "go")).output == 1


async def test_a_model_is_asked_about_the_very_schema() -> None:
    asked: list[OutputSchema] = []

    class Choosy(ScriptedModel):
        def takes_output(self, output: OutputSchema, /) -> bool:
            asked.append(output)
            return output.name == "City"

    async with Kernel() as kernel:
        one = Agent(model=Choosy(['{"name": "Rome"}']), output=City)
        assert (await kernel.run(one, "go")).output == City("Rome")
        other = Agent(model=Choosy([[final(value=1)]]), output=int)
        assert (await kernel.run(other, "go")).output == 1
    assert [each.name for each in asked] == ["City", "int"]


async def test_a_nested_agents_answer_is_json_for_the_one_above() -> None:
    inner = an_agent([final(name="Rome", people=3)], tools=(), output=City)
    outer = an_agent(
        [ToolCall("a", "ask", {"prompt": "Where?"})],
        lambda request: str(request.history.results[-1].content),
        tools=[inner.as_tool("ask", "Ask.")],
    )
    async with Kernel() as kernel:
        result = await kernel.run(outer, "go")
    assert json.loads(result.output) == {"name": "Rome", "people": 3}


async def test_a_conversation_that_ended_with_the_answers_call_goes_on() -> None:
    agent = an_agent([final(value=1)], tools=(), output=int)
    async with Kernel() as kernel:
        stored = (await kernel.run(agent, "One?")).history.to_json()
        again = agent.replace(model=ScriptedModel([[final(value=2)]]))
        result = await kernel.run(again, "Two?", history=History.from_json(stored))
        assert result.output == 2
        text = await kernel.run(an_agent("three"), "Three?", history=result.history)
    assert text.output == "three"
    accepted(text.history.to_json())


async def test_a_runs_output_may_be_none_and_ends_it() -> None:
    agent = native('{"value": null}', "beyond", output=int | None)
    async with Kernel() as kernel:
        result = await kernel.run(agent, "go")
    assert result.output is None and result.turns == 1


# What cannot work.


@pytest.mark.parametrize(
    "kind",
    [None, "City", {"type": "object"}, object(), anyio.Event, lambda: 3],
    ids=["None", "a text", "a schema", "an object", "an event", "a function"],
)
def test_what_is_no_type_of_an_answer_is_refused(kind: Any) -> None:
    with pytest.raises(TypeError, match="output="):
        Agent(output=kind)


@pytest.mark.parametrize("retries", [-1, 1.5, True, None])
def test_a_number_of_retries_that_is_none_is_refused(retries: Any) -> None:
    with pytest.raises(ValueError, match="output_retries"):
        Agent(output_retries=retries)


def test_agents_with_outputs_are_values() -> None:
    one, other = Agent(output=City), Agent(output=City)
    assert one == other and hash(one) == hash(other) and one != Agent(output=Point)
    assert one.replace(output=str)._answer is None
    assert "answer" not in repr(one)
