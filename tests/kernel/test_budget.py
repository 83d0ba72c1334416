"""Budgets: turns, calls, tokens and seconds, and the tree of who has spent what."""

from __future__ import annotations

import math
from typing import Any

import anyio
import pytest

from tests.kernel.agents import an_agent, asks, contents, ends, virtual_backend
from tests.kernel.bodies import UNIT, Bodies, a_kernel, fine, took
from turnscope import Agent, Budget, BudgetExceeded, DeadlineExceeded, Kernel, ToolCall, Usage
from turnscope.testing import ScriptedModel

__all__ = ["virtual_backend"]


@pytest.mark.parametrize("field", ["turns", "calls", "tokens", "seconds"])
@pytest.mark.parametrize("value", [0, -1, math.nan, None, "5"])
def test_a_budget_is_above_zero(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"Budget\({field}=.*\): a budget is a number above 0"):
        Budget(**{field: value})


def test_without_more_a_run_may_take_50_turns() -> None:
    assert Budget() == Budget(turns=50, calls=math.inf, tokens=math.inf, seconds=math.inf)


async def spent(kernel: Kernel, agent: Agent[Any, Any], **options: Any) -> BudgetExceeded:
    """What the budget says; the history that it carries can be sent, and gone on from."""
    with pytest.raises(BudgetExceeded) as caught, anyio.fail_after(60):
        await kernel.run(agent, "go", **options)
    history = caught.value.history
    assert history is not None
    ends(history)
    again = await kernel.run(an_agent("on"), None if len(history) > 1 else "again", history=history)
    assert again.output == "on"
    return caught.value


@pytest.mark.anyio
async def test_a_run_takes_no_more_turns_than_its_budget() -> None:
    model = ScriptedModel(lambda _: asks(fine))
    async with a_kernel() as kernel:
        agent = Agent(model=model, tools=[fine], budget=Budget(turns=3))
        error = await spent(kernel, agent)
        assert (error.what, error.limit, len(model.requests)) == ("turns", 3, 3)
        assert ends(error.history) == ["ok"] * 3
        assert "the budget of 3 turns is spent; raise Budget(turns=...)" in str(error)
        # An answer in the last turn is in time.
        result = await kernel.run(an_agent(asks(fine), "ok"), "go", budget=Budget(turns=2))
        assert result.turns == 2


@pytest.mark.anyio
async def test_a_model_that_never_ends_is_ended_after_50_turns() -> None:
    model = ScriptedModel(lambda _: asks(fine))
    async with a_kernel() as kernel:
        await spent(kernel, Agent(model=model, tools=[fine]))
    assert len(model.requests) == 50


@pytest.mark.anyio
async def test_calls_beyond_the_budget_are_not_started_and_end_the_run() -> None:
    begun = 0

    async def works() -> None:
        nonlocal begun
        begun += 1

    async with a_kernel() as kernel:
        agent = an_agent(asks(works, works), asks(works, works, works), tools=[works])
        error = await spent(kernel, agent, budget=Budget(calls=3))
    assert (error.what, error.limit, begun) == ("calls", 3, 3)
    assert error.history is not None
    assert ends(error.history) == ["ok", "ok", "ok", "not_started", "not_started"]
    assert "the budget of 3 calls is spent" in str(error.history.results[-1].content)


@pytest.mark.anyio
async def test_calls_that_just_fit_are_no_reason_to_end() -> None:
    async with a_kernel() as kernel:
        result = await kernel.run(an_agent(asks(fine, fine), "ok"), "go", budget=Budget(calls=2))
    assert result.output == "ok"


@pytest.mark.anyio
async def test_the_response_that_spends_the_tokens_has_its_calls_not_started() -> None:
    model = ScriptedModel(lambda _: asks(fine), usage=Usage(input_tokens=6, output_tokens=4))
    async with a_kernel() as kernel:
        agent = Agent(model=model, tools=[fine], budget=Budget(tokens=25))
        error = await spent(kernel, agent)
    assert (error.what, len(model.requests)) == ("tokens", 3)
    assert error.history is not None
    assert ends(error.history) == ["ok", "ok", "not_started"]


@pytest.mark.anyio
async def test_an_answer_that_spends_the_tokens_is_an_answer() -> None:
    model = ScriptedModel(["a long one"], usage=Usage(output_tokens=100))
    async with a_kernel() as kernel:
        result = await kernel.run(Agent(model=model), "go", budget=Budget(tokens=50))
    assert (result.output, result.usage.tokens) == ("a long one", 100)


@pytest.mark.anyio
async def test_the_seconds_end_a_run_as_a_deadline_does_and_say_so() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        agent = an_agent(asks(bodies.tidy), tools=[bodies.tidy], budget=Budget(seconds=UNIT))
        start = anyio.current_time()
        error = await spent(kernel, agent)
        took(start, 2 * UNIT)
        assert bodies.cleaned
        assert (error.what, error.limit) == ("seconds", UNIT)
        # The earlier one counts, and gives its name.
        with pytest.raises(DeadlineExceeded):
            await kernel.run(an_agent(asks(Bodies().tidy), tools=[Bodies().tidy]), "go", timeout=0)


@pytest.mark.anyio
async def test_the_budget_of_a_run_stands_in_for_the_agents() -> None:
    async with a_kernel() as kernel:
        agent = an_agent(asks(fine), "ok", budget=Budget(turns=1))
        result = await kernel.run(agent, "go", budget=Budget(turns=2))
    assert result.output == "ok"


# The tree.


def nested(inner: Agent[Any, Any], *script: Any, **fields: Any) -> Agent[Any, Any]:
    """An agent that asks *inner*, as often as its script says."""
    return an_agent(*script, tools=[inner.as_tool("inner", ""), fine], **fields)


@pytest.mark.anyio
async def test_a_run_in_a_tool_spends_the_turns_of_the_run_above() -> None:
    inner = Agent(model=ScriptedModel(lambda _: asks(fine)), tools=[fine])
    async with a_kernel() as kernel:
        agent = nested(inner, asks("inner", prompt="x"), "never", budget=Budget(turns=4))
        error = await spent(kernel, agent)
    assert (error.what, error.limit) == ("turns", 4)
    assert error.history is not None
    assert ends(error.history) == ["failed"]  # one turn of its own, three of inner's
    assert "BudgetExceeded: the budget of 4 turns is spent" in str(error.history.results[0].content)
    assert len(inner.model.requests) == 3


@pytest.mark.anyio
async def test_a_run_in_a_tool_that_spends_its_own_budget_only_fails_its_call() -> None:
    inner = Agent(model=ScriptedModel(lambda _: asks(fine)), tools=[fine], budget=Budget(turns=2))
    async with a_kernel() as kernel:
        result = await kernel.run(nested(inner, asks("inner", prompt="x"), "so be it"), "go")
    assert result.output == "so be it"
    assert "the budget of 2 turns is spent" in contents(result)[0]


@pytest.mark.anyio
async def test_siblings_in_one_tree_spend_one_budget_of_calls() -> None:
    async def works() -> None:
        await anyio.sleep(UNIT / 10)

    inner = Agent(
        model=ScriptedModel(lambda r: asks(works, works) if len(r.history) == 1 else "ok"),
        tools=[works],
    )
    calls = [ToolCall("", "inner", {"prompt": "x"}) for _ in range(3)]
    async with a_kernel() as kernel:
        # Three calls of its own, and two in each of the first two.
        agent = nested(inner, calls, "one failed", asks(fine), budget=Budget(calls=7))
        result = await kernel.run(agent, "go")
        assert result.output == "one failed"  # it needed no more, so it has its answer
        assert sorted(ends(result.history)) == ["failed", "ok", "ok"]
        agent = nested(inner, calls, asks(fine), budget=Budget(calls=7))
        error = await spent(kernel, agent)
    assert (error.what, error.limit) == ("calls", 7)
    assert error.history is not None
    assert ends(error.history)[-1] == "not_started"


@pytest.mark.anyio
async def test_usage_counts_the_runs_in_tools_and_so_do_the_tokens() -> None:
    usage = Usage(input_tokens=3, output_tokens=2, cached_tokens=1, reasoning_tokens=1)
    inner = Agent(model=ScriptedModel(lambda _: "ok", usage=usage))
    script = [asks("inner", prompt="x"), asks("inner", prompt="y"), "ok"]
    async with a_kernel() as kernel:
        result = await kernel.run(nested(inner, *script), "go")
        assert result.usage == usage + usage
        assert result.usage.tokens == 10
        error = await spent(kernel, nested(inner, *script), budget=Budget(tokens=5))
    assert (error.what, error.limit) == ("tokens", 5)


@pytest.mark.anyio
async def test_a_run_in_a_tool_has_no_more_seconds_than_are_left_above() -> None:
    async with a_kernel() as kernel:
        bodies = Bodies()
        inner = an_agent(asks(bodies.tidy), tools=[bodies.tidy], budget=Budget(seconds=60))
        agent = nested(inner, asks("inner", prompt="x"), budget=Budget(seconds=UNIT))
        start = anyio.current_time()
        error = await spent(kernel, agent)
        took(start, 2 * UNIT)
        assert bodies.cleaned
    assert (error.what, error.limit) == ("seconds", UNIT)


@pytest.mark.anyio
async def test_two_runs_side_by_side_have_a_budget_each() -> None:
    agent = Agent(
        model=ScriptedModel(lambda r: "ok" if r.history.results else asks(fine)),
        tools=[fine],
        budget=Budget(turns=2, calls=1),
    )
    async with a_kernel() as kernel:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(kernel.run, agent, "go")
        assert kernel.statistics().runs == 0
