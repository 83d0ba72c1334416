"""A plan in one turn: what the model may write, what it is told, and how its steps are calls."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import anyio
import pytest

from tests.kernel.agents import an_agent, ends
from tests.kernel.bodies import UNIT, Bodies, a_kernel, anyio_backend, fine, took
from turnscope import (
    Budget,
    CallContext,
    Content,
    Limits,
    Tool,
    ToolCall,
    ToolFailed,
    ToolResult,
    current_call,
    plan_tool,
    tool,
)
from turnscope._plan_results import PlanResults
from turnscope.events import CallSettled, RunEvent

__all__ = ["anyio_backend"]

anyio_test = pytest.mark.anyio


def step(id: str, name: str, /, *after: str, **arguments: Any) -> dict[str, Any]:
    """A step as a model writes it."""
    return {"id": id, "tool": name, "arguments": arguments, "after": list(after)}


def a_plan(*steps: dict[str, Any]) -> ToolCall:
    return ToolCall("p", "plan", json.dumps({"steps": steps}))


def told(result: ToolResult) -> dict[str, tuple[str, Any]]:
    """What the model reads of each step."""
    assert isinstance(result.content, str)
    return {each["id"]: (each["status"], each["content"]) for each in json.loads(result.content)}


async def carried_out(tools: Any, *steps: dict[str, Any], **options: Any) -> ToolResult:
    """The result of one plan, in a turn of its own."""
    plan, call = plan_tool(tools), a_plan(*steps)
    async with a_kernel(**options) as kernel, kernel.turn([plan]) as turn:
        turn.submit(call)
    return turn.results[0]


async def give(value: Any) -> Any:
    """Give back what is given."""
    return value


async def length(of: list[int]) -> int:
    return len(of)


async def breaks() -> str:
    raise ValueError("broken")


# What a plan tool is.


def test_a_plan_tool_says_what_it_can_call_and_how() -> None:
    @tool(read_only=True)
    def look(path: str) -> str:
        """Look at a file.

        Args:
            path: where it is
        """
        return path

    made = plan_tool([look, length], name="batch", description="Make many calls.", max_steps=7)
    assert (made.name, made.description, made.backend) == ("batch", "Make many calls.", "inline")
    steps = made.schema["properties"]["steps"]
    assert steps["description"] == "From 1 to 7 steps."
    fields = steps["items"]["properties"]
    assert fields["tool"]["enum"] == ["look", "length"]
    for word in ("Look at a file.", "where it is", '{"$ref": "id/path"}', '{"$literal": ...}'):
        assert word in fields["arguments"]["description"]
    assert steps["items"]["additionalProperties"] is made.schema["additionalProperties"] is False


def test_a_plan_does_to_the_world_what_its_tools_may_do() -> None:
    look, set_it = Tool(give, read_only=True, name="look"), Tool(give, idempotent=True, name="set")
    delete, alone = Tool(fine, destructive=True), Tool(fine, exclusive=True, name="alone")
    assert plan_tool([look]).read_only
    assert not plan_tool([look]).early  # what it spends of a budget cannot be taken back
    assert not plan_tool([look, set_it]).read_only
    assert not plan_tool([set_it]).idempotent  # steps that each are need not be so together
    assert plan_tool([look, delete]).destructive
    assert not plan_tool([look]).destructive
    assert plan_tool([look, alone]).exclusive
    assert not plan_tool([look]).exclusive


def test_a_plan_tool_that_cannot_work_is_refused() -> None:
    with pytest.raises(ValueError, match="a plan cannot call itself"):
        plan_tool([Tool(fine, name="plan")])
    with pytest.raises(ValueError, match="a plan cannot call itself"):
        plan_tool([plan_tool([fine])])
    with pytest.raises(ValueError, match="two tools are named 'fine'"):
        plan_tool([fine, Tool(give, name="fine")])
    with pytest.raises(ValueError, match="needs tools to call"):
        plan_tool([])
    for wrong in (0, 2.5, math.inf):
        with pytest.raises(ValueError, match="a whole number from 1 up"):
            plan_tool([fine], max_steps=wrong)  # type: ignore[arg-type]  # wrong on purpose


@anyio_test
async def test_a_plan_runs_in_a_call_of_a_kernel_only() -> None:
    with pytest.raises(RuntimeError, match="a plan runs in a call of a kernel; elsewhere, submit"):
        await plan_tool([fine])(steps=[step("a", "fine")])


# What a model may get wrong.


@anyio_test
@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ([], "steps: is empty; give at least one step"),
        ([step(str(n), "give", value=n) for n in range(51)], "51 are too many; make a plan of at"),
        (
            [step("a", "giv", value=1)],
            "steps[0].tool: expected 'give' or 'length', was given 'giv'",
        ),
        ([step("a", "give", value=1)] * 2, "steps[1].id: 'a' is the id of steps[0] too"),
        ([step("a/b", "give", value=1)], "steps[0].id: 'a/b' cannot be referred to"),
        ([step("", "give", value=1)], "steps[0].id: '' cannot be referred to"),
        ([step("first", "give", "frist", value=1)], "after[0]: there is no step 'frist'; did you"),
        ([step("a", "give", value={"$ref": "z/0"})], "arguments.value: there is no step 'z'; the"),
        ([step("a", "give", value=[{"$ref": "a"}])], "value[0]: step 'a' cannot wait for itself"),
        ([step("a", "give", "a", value=1)], "steps[0].after[0]: step 'a' cannot wait for itself"),
        ([step("a", "give", value={"$ref": 1})], 'value: a reference is {"$ref": "step/path"}'),
        ([step("a", "give", value={"$ref": "b", "x": 1})], "$ref has nothing else in it; to give"),
        ([step("a", "give", value={"$literal": 0, "x": 1})], "$literal has nothing else in it"),
        (
            [step("a", "give", value=1), step("b", "give", value={"$ref": "a/~2"})],
            "in 'a/~2' a '~' is neither ~0, for '~', nor ~1, for '/'",
        ),
        (
            [step("a", "give", "b", value=1), step("b", "give", value={"$ref": "a"})],
            "'a' waits for 'b' waits for 'a', in a circle",
        ),
        ([{"id": "a"}], "steps[0].tool: "),
        ([{"id": "a", "tool": "give", "args": {}}], "steps[0].args: "),
    ],
)
async def test_a_plan_that_cannot_be_carried_out_is_told_before_anything_starts(
    steps: list[Any], sentence: str
) -> None:
    ran: list[Any] = []

    async def noted(value: Any) -> None:
        ran.append(value)

    result = await carried_out([Tool(noted, name="give"), length], *steps)
    assert (result.status, ran, result.started_at) == ("invalid", [], None)
    assert sentence in str(result.content)


@anyio_test
@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        (
            "a/x",
            "'a/x' points to nothing: 'a' is an object with the keys 'list', 'text', without 'x'",
        ),
        ("a/list/2", "'a/list' is a list of length 2, without '2'"),
        ("a/list/-", "'a/list' is a list of length 2, without '-'"),
        ("a/list/0/0", "'a/list/0' is the value 1, without '0'"),
        ("a/text/0", "'a/text' is a text, 'abc', without '0'"),
        ("a/list/1/k", "'a/list/1' is an object without keys, without 'k'"),
    ],
)
async def test_a_reference_to_nothing_is_told_what_there_was(reference: str, sentence: str) -> None:
    value = {"list": [1, {}], "text": "abc"}
    result = await carried_out(
        [give], step("a", "give", value=value), step("b", "give", value={"$ref": reference})
    )
    status, content = told(result)["b"]
    assert result.ok
    assert status == "invalid"
    assert sentence in content


@anyio_test
async def test_a_value_of_the_wrong_type_is_told_for_its_step() -> None:
    result = await carried_out(
        [give, length],
        step("a", "give", value="abc"),
        step("b", "length", of={"$ref": "a"}),
        {"id": "c", "tool": "length", "arguments": {"$ref": "a"}},
        step("d", "length", of=[1]),
    )
    read = told(result)
    assert [status for status, _ in read.values()] == ["ok", "invalid", "invalid", "ok"]
    assert "of: " in read["b"][1]
    assert "the arguments are an object, and {'$ref': 'a'} gives a str" in read["c"][1]


# What a plan gives.


@anyio_test
async def test_each_step_is_shown_with_its_value_and_code_gets_the_results() -> None:
    result = await carried_out(
        [give, length, breaks],
        step("n", "length", of={"$ref": "l"}),
        step("l", "give", value=[1, 2, 3]),
        step("x", "breaks"),
        step("y", "give", "x", value=1),
        step("z", "give", value={"$ref": "y"}),
        {"id": "w", "tool": "give", "arguments": {"$ref": "o"}},
        step("o", "give", value={"value": {"a": None}}),
    )
    assert told(result) == {
        "n": ("ok", 3),
        "l": ("ok", [1, 2, 3]),
        "x": ("failed", "ValueError: broken"),
        "y": ("not_started", "the call was not started: it needs step 'x', which failed"),
        "z": ("not_started", "the call was not started: it needs step 'y', which was not started"),
        "w": ("ok", {"a": None}),
        "o": ("ok", {"value": {"a": None}}),
    }
    results = result.value
    assert isinstance(results, PlanResults)
    assert list(results) == ["n", "l", "x", "y", "z", "w", "o"]
    assert len(results) == 7
    assert results["n"].value == 3
    assert results["n"].call == ToolCall("n", "length", {"of": [1, 2, 3]})
    assert isinstance(results["x"].error, ValueError)
    assert repr(results).startswith("<PlanResults 'n': ok, 'l': ok, 'x': failed")


@anyio_test
async def test_what_a_step_does_to_its_arguments_is_no_concern_of_another() -> None:
    async def spoil(value: Any) -> int:
        value["list"].append("spoilt")
        return len(value["list"])

    result = await carried_out(
        [give, spoil],
        step("a", "give", value={"list": []}),
        step("b", "spoil", value={"$ref": "a"}),
        step("c", "spoil", "b", value={"$ref": "a"}),
    )
    assert told(result) == {"a": ("ok", {"list": []}), "b": ("ok", 1), "c": ("ok", 1)}


@anyio_test
async def test_parts_of_content_are_shown_and_may_be_referred_to() -> None:
    async def text() -> Content:
        return Content(text="hello")

    async def parts() -> list[Content]:
        return [
            Content(text="seen"),
            Content(media_type="image/png", data=b"123"),
            Content(media_type="image/png", url="https://example.org/x.png"),
        ]

    result = await carried_out(
        [text, parts, give],
        step("t", "text"),
        step("p", "parts"),
        step("g", "give", value=[{"$ref": "t"}, {"$ref": "p/0/text"}]),
    )
    assert told(result) == {
        "t": ("ok", "hello"),
        "p": (
            "ok",
            [
                {"media_type": "text/plain", "text": "seen"},
                {"media_type": "image/png", "bytes": 3},
                {"media_type": "image/png", "url": "https://example.org/x.png"},
            ],
        ),
        "g": ("ok", ["hello", "seen"]),
    }


@anyio_test
async def test_a_long_result_is_cut_where_it_is_long_and_every_step_is_seen() -> None:
    result = await carried_out(
        [give, length],
        step("a", "give", value=list(range(1000))),
        step("b", "give", value="\n" * 5000),
        step("c", "give", value=[1, 2]),
        step("d", "length", of={"$ref": "a"}),
        limits=Limits(result_characters=1000),
    )
    read = told(result)
    assert len(str(result.content)) <= 1000
    assert read["c"] == ("ok", [1, 2])
    assert read["d"] == ("ok", 1000), "a reference is to the whole value"
    assert read["a"][1].startswith("[0,1,2,")
    assert read["a"][1].endswith("of 3,891 characters are shown]")
    assert read["b"][1].endswith("of 5,000 characters are shown]")


# Steps are calls.


@anyio_test
async def test_steps_get_the_deps_of_the_plan_and_are_told_as_nested() -> None:
    events: list[RunEvent] = []

    class Watching:
        def observe(self, event: RunEvent) -> None:
            events.append(event)

    async def works(context: CallContext[str]) -> str:
        return f"{context.deps} {context.call.id}"

    plan = plan_tool([works, breaks])
    async with a_kernel(observers=[Watching()]) as kernel:
        async with kernel.turn([plan], deps="given") as turn:
            turn.submit(a_plan(step("a", "works"), step("b", "works", "x"), step("x", "breaks")))
    assert told(turn.results[0])["a"] == ("ok", "given a")
    settled = [event for event in events if isinstance(event, CallSettled)][:4]
    outer = settled[-1]
    assert (outer.call.name, outer.parents) == ("plan", ())
    assert {event.call.id for event in settled[:3]} == {"a", "b", "x"}
    assert {event.parents for event in settled[:3]} == {(outer.run_id,)}
    assert len({event.run_id for event in settled[:3]}) == 1


@anyio_test
async def test_steps_of_threads_and_of_the_event_loop_work_together() -> None:
    def thread(value: list[int]) -> int:
        return sum(value)

    result = await carried_out(
        [give, thread],
        step("a", "give", value=[1, 2]),
        step("b", "thread", value={"$ref": "a"}),
        step("c", "give", value={"$ref": "b"}),
        limits=Limits(calls=1, threads=1),
    )
    assert told(result)["c"] == ("ok", 3)


@anyio_test
async def test_steps_that_write_one_thing_do_not_overlap() -> None:
    at_work = most = 0

    async def edit(path: str) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await anyio.sleep(UNIT)
        at_work -= 1

    start = anyio.current_time()
    result = await carried_out(
        [Tool(edit, writes="file/{path}")], *(step(str(n), "edit", path="x") for n in range(3))
    )
    assert result.ok
    assert most == 1
    took(start, 3 * UNIT)


@anyio_test
async def test_a_step_at_its_timeout_ends_those_that_need_it_and_no_others() -> None:
    slow = Tool(anyio.sleep_forever, name="slow", timeout=UNIT, description="", schema={})
    result = await carried_out(
        [slow, give],
        step("s", "slow"),
        step("n", "give", "s", value=1),
        step("g", "give", value=2),
    )
    read = told(result)
    assert (read["s"][0], read["g"]) == ("timed_out", ("ok", 2))
    assert read["n"][1].endswith("it needs step 's', which timed out")


@anyio_test
async def test_a_plan_at_its_deadline_interrupts_what_runs_and_starts_no_more() -> None:
    bodies = Bodies()
    plan = plan_tool([bodies.tidy, give], timeout=2 * UNIT)
    async with a_kernel() as kernel, kernel.turn([plan]) as turn:
        start = anyio.current_time()
        turn.submit(a_plan(step("a", "tidy"), step("b", "give", "a", value=1)))
    took(start, 3 * UNIT)  # with the cleanup of the step
    assert [result.status for result in turn.results] == ["timed_out"]
    assert bodies.notes[:1] == ["cleaning"]


@anyio_test
async def test_a_plan_that_is_cancelled_leaves_nothing_and_settles_as_any_call() -> None:
    bodies = Bodies()
    plan = plan_tool([bodies.tidy, give])
    async with a_kernel() as kernel:
        with anyio.CancelScope() as scope:
            async with kernel.turn([plan]) as turn:
                turn.submit(a_plan(step("a", "tidy"), step("b", "give", "a", value=1)))
                await bodies.begun.wait()
                scope.cancel()
                await anyio.sleep_forever()
        assert kernel.statistics().turns == 0
    assert scope.cancelled_caught
    assert [result.status for result in turn.results] == ["cancelled"]


@anyio_test
async def test_a_step_that_may_not_fail_ends_the_turn_of_its_plan() -> None:
    async def breaks() -> str:
        await anyio.sleep(UNIT)
        raise ValueError("broken")

    bodies = Bodies()
    plan = plan_tool([Tool(breaks, on_error="raise"), bodies.tidy, give])
    steps = [step("t", "tidy"), step("b", "breaks"), step("g", "give", "b", value=1)]
    async with a_kernel() as kernel:
        with pytest.raises(ValueError, match=r"^broken$") as caught:
            async with kernel.turn([plan, bodies.tidy]) as turn:
                turn.submit(ToolCall("o", "tidy"))
                turn.submit(a_plan(*steps))
        assert [result.status for result in turn.results] == ["cancelled", "failed"]
        assert turn.results[1].error is caught.value
        assert bodies.notes.count("cleaning") == 2
        agent = an_agent([a_plan(*steps)], "never", tools=[plan])
        with pytest.raises(
            ToolFailed, match="the tool 'plan' failed: ValueError: broken"
        ) as failed:
            await kernel.run(agent, "go")
    assert isinstance(failed.value.__cause__, ValueError)
    assert failed.value.history is not None
    assert ends(failed.value.history) == ["failed"]


@anyio_test
async def test_a_step_that_fails_as_any_tool_may_ends_nothing() -> None:
    result = await carried_out([breaks], step("b", "breaks"))
    assert result.ok
    assert told(result) == {"b": ("failed", "ValueError: broken")}


@anyio_test
async def test_a_tool_that_runs_alone_in_its_turn_does_so_in_a_plan_too() -> None:
    at_work: list[str] = []

    async def works(name: str) -> list[str]:
        at_work.append(name)
        await anyio.sleep(UNIT)
        seen = list(at_work)
        at_work.remove(name)
        return seen

    alone = Tool(works, name="alone", exclusive=True)
    plan = plan_tool([works, alone])
    async with a_kernel() as kernel, kernel.turn([plan, works]) as turn:
        turn.submit(ToolCall("c", "works", {"name": "sibling"}))
        turn.submit(a_plan(step("a", "alone", name="alone"), step("b", "works", name="step")))
    assert told(turn.results[1]) == {"a": ("ok", ["alone"]), "b": ("ok", ["step"])}


# In a run.


@anyio_test
async def test_a_model_gets_a_plan_done_in_one_turn() -> None:
    agent = an_agent(
        [a_plan(step("a", "give", value=[1, 2]), step("b", "length", of={"$ref": "a"}))],
        lambda request: request.history.results[-1].content,
        tools=[plan_tool([give, length])],
    )
    async with a_kernel() as kernel:
        result = await kernel.run(agent, "go")
    assert json.loads(result.output)[1] == {"id": "b", "status": "ok", "content": 2}
    assert result.turns == 2


@anyio_test
async def test_steps_spend_the_calls_of_a_budget() -> None:
    steps = [step("a", "give", value=1), step("b", "give", "a", value=2), step("c", "give", "b")]
    agent = an_agent([a_plan(*steps)], "done", tools=[plan_tool([give])], budget=Budget(calls=2))
    async with a_kernel() as kernel:
        result = await kernel.run(agent, "go")
    read = told_by_text(str(result.history.results[-1].content))
    assert read["a"] == ("ok", 1)
    assert read["b"][0] == "not_started"
    assert "the budget of 2 calls is spent" in read["b"][1]
    assert read["c"][1].endswith("it needs step 'b', which was not started")


def told_by_text(text: str) -> dict[str, tuple[str, Any]]:
    return {each["id"]: (each["status"], each["content"]) for each in json.loads(text)}


@anyio_test
@pytest.mark.parametrize(
    ("fields", "most"),
    [({"max_parallel_calls": 2}, 2), ({"parallel_tool_calls": False}, 1), ({}, 4)],
)
async def test_steps_are_calls_of_the_run_to_its_cap(fields: dict[str, Any], most: int) -> None:
    at_work = seen = 0

    async def works() -> None:
        nonlocal at_work, seen
        at_work += 1
        seen = max(seen, at_work)
        await anyio.sleep(UNIT)
        at_work -= 1

    steps = [step(str(number), "works") for number in range(4)]
    agent = an_agent([a_plan(*steps)], "done", tools=[plan_tool([works])], **fields)
    async with a_kernel() as kernel:
        result = await kernel.run(agent, "go")
    assert ends(result.history) == ["ok"]
    assert seen == most


@anyio_test
async def test_a_plan_may_be_a_step_of_another() -> None:
    inner = plan_tool([give], name="inner")
    result = await carried_out(
        [inner, give],
        step(
            "i",
            "inner",
            steps={
                "$literal": [step("x", "give", value={"$ref": "y"}), step("y", "give", value=7)]
            },
        ),
        step("o", "give", value={"$ref": "i/0/content"}),
        limits=Limits(calls=1),
    )
    assert told(result)["o"] == ("ok", 7)


@anyio_test
async def test_a_plan_of_many_steps_does_not_take_long() -> None:
    steps = [step("0", "give", value=0)]
    steps += [step(str(n), "give", value={"$ref": str(n - 1)}) for n in range(1, 400)]
    plan, call = plan_tool([give], max_steps=400), a_plan(*steps)
    async with a_kernel() as kernel:
        began = time.perf_counter()
        async with kernel.turn([plan]) as turn:
            turn.submit(call)
        assert time.perf_counter() - began < 10
    assert told(turn.results[0])["399"] == ("ok", 0)


@anyio_test
async def test_a_step_sees_its_own_call_and_none_of_another() -> None:
    async def named() -> str:
        return current_call().call.id

    result = await carried_out([named], step("a", "named"), step("b", "named", "a"))
    assert told(result) == {"a": ("ok", "a"), "b": ("ok", "b")}


@anyio_test
async def test_a_number_too_long_to_be_read_is_given_on_as_text() -> None:
    async def huge() -> int:
        return 10**5000

    result = await carried_out(
        [huge, give], step("h", "huge"), step("g", "give", value={"$ref": "h"})
    )
    assert told(result)["g"] == ("ok", "1" + "0" * 5000)


@anyio_test
async def test_what_is_nested_too_deep_spoils_its_own_step_only() -> None:
    def nested(value: Any, depth: int) -> Any:
        for _ in range(depth):
            value = [value]
        return value

    async def deep() -> Any:
        return nested(1, 200)

    plan = plan_tool([deep, give])
    deeper = step("e", "give", value=nested({"$ref": "d"}, 450))
    steps = [step("d", "deep"), deeper, step("n", "give", "e", value=1), step("g", "give", value=2)]
    async with a_kernel() as kernel, kernel.turn([plan]) as turn:
        turn.submit(ToolCall("p", "plan", {"steps": steps}))
    read = told(turn.results[0])
    assert read["e"][0] in ("invalid", "failed"), "by how deep this Python goes"
    assert read["n"][0] == "not_started"
    assert read["g"] == ("ok", 2)
