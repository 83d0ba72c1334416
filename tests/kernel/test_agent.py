"""Agent: what it takes, what it refuses, and that nobody can change one."""

from __future__ import annotations

import math
import threading
from typing import Any

import attrs
import pytest

from tests.kernel.agents import an_agent
from tests.kernel.bodies import a_kernel, anyio_backend, fine
from turnscope import Agent, Budget, Tool, tool
from turnscope.testing import ScriptedModel

__all__ = ["anyio_backend"]


def test_an_agent_of_nothing_is_one_to_which_others_bring_a_model() -> None:
    agent = Agent()
    assert agent == Agent()
    assert (agent.model, agent.tools, agent.instructions) == (None, (), None)
    assert (agent.settings, agent.budget) == ({}, Budget(turns=50))
    assert (agent.max_parallel_calls, agent.parallel_tool_calls) == (math.inf, True)


def test_plain_functions_become_tools() -> None:
    made = tool(timeout=5)(fine)
    agent = Agent(tools=(each for each in [made, lambda_tool]))
    assert agent.tools[0] is made
    assert [each.name for each in agent.tools] == ["fine", "lambda_tool"]
    assert all(isinstance(each, Tool) for each in agent.tools)


def lambda_tool() -> None:
    """Do nothing."""


def test_an_agent_is_frozen() -> None:
    agent = an_agent("x")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        agent.instructions = "changed"
    with pytest.raises(AttributeError):
        del agent.model


def test_nobody_changes_an_agent_through_what_it_was_made_of() -> None:
    settings = {"temperature": 0}
    tools: list[Any] = [fine]
    agent = Agent(tools=tools, settings=settings)
    settings["temperature"] = 1
    tools.clear()
    assert agent.settings == {"temperature": 0}
    assert len(agent.tools) == 1


def test_an_agent_can_be_a_key() -> None:
    model = ScriptedModel(["x"])
    one, same, other = (
        Agent(model=model, settings={"a": 1}),
        Agent(model=model, settings={"a": 1}),
        Agent(model=model, settings={"a": 2}),
    )
    assert {one: 1, same: 2, other: 3} == {one: 2, other: 3}


def test_replace_makes_a_changed_copy() -> None:
    agent = Agent(instructions="Be brief.", tools=[fine])
    changed = agent.replace(instructions="Be long.", max_parallel_calls=2)
    assert (changed.instructions, changed.max_parallel_calls) == ("Be long.", 2)
    assert changed.tools == agent.tools
    assert agent.instructions == "Be brief."
    with pytest.raises(ValueError, match="max_parallel_calls=0"):
        agent.replace(max_parallel_calls=0)
    with pytest.raises(TypeError, match="tool"):
        agent.replace(tool=fine)


@pytest.mark.parametrize(
    ("field", "value", "kind", "said"),
    [
        ("model", 5, TypeError, r"a model is an object with stream\(request\)"),
        ("model", ScriptedModel, TypeError, r"a model is an object with stream\(request\)"),
        ("tools", 5, TypeError, r"a list of tools, also of one: tools=\[...\]"),
        ("tools", fine, TypeError, r"a list of tools, also of one: tools=\[...\]"),
        ("tools", Tool(fine), TypeError, r"a list of tools, also of one: tools=\[...\]"),
        ("tools", "fine", TypeError, r"a list of tools, also of one: tools=\[...\]"),
        ("tools", [5], TypeError, "a tool is made from a callable, not from int"),
        ("tools", [fine, Tool(fine)], ValueError, "two tools are named 'fine'"),
        ("instructions", 5, TypeError, "text, a function of the RunContext"),
        ("settings", None, TypeError, "a mapping of the provider's options"),
        ("settings", [("a", 1)], TypeError, "a mapping of the provider's options"),
        ("max_parallel_calls", 0, ValueError, "a whole number from 1 up"),
        ("max_parallel_calls", 1.5, ValueError, "a whole number from 1 up"),
        ("max_parallel_calls", -math.inf, ValueError, "a whole number from 1 up"),
        ("max_parallel_calls", math.nan, ValueError, "a whole number from 1 up"),
        ("max_parallel_calls", None, ValueError, "a whole number from 1 up"),
        ("parallel_tool_calls", "no", TypeError, "True or False"),
        ("budget", 5, TypeError, r"a Budget, as Budget\(turns=10\)"),
        ("budget", None, TypeError, r"a Budget, as Budget\(turns=10\)"),
    ],
)
def test_what_cannot_work_is_refused_when_the_agent_is_made(
    field: str, value: object, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        Agent(**{field: value})
    assert "fine" in str(caught.value) or field in str(caught.value) or "int" in str(caught.value)


def test_an_agent_is_made_of_keywords() -> None:
    with pytest.raises(TypeError, match="positional"):
        Agent(ScriptedModel(["x"]))
    with pytest.raises(TypeError, match="temperature"):
        Agent(temperature=0)


def test_the_tool_of_an_agent_asks_for_a_prompt_and_takes_a_tools_options() -> None:
    made = an_agent("x").as_tool("helper", "Ask the helper.", timeout=5, read_only=True)
    assert (made.name, made.description) == ("helper", "Ask the helper.")
    assert made.schema["properties"] == {"prompt": {"type": "string"}}
    assert made.schema["required"] == ["prompt"]
    assert (made.timeout, made.read_only) == (5, True)
    with pytest.raises(TypeError, match="colour"):
        an_agent("x").as_tool("helper", "", colour="red")


@pytest.mark.anyio
async def test_the_tool_of_an_agent_runs_in_a_call_of_a_kernel_only() -> None:
    made = an_agent("x").as_tool("helper", "Ask the helper.")
    with pytest.raises(RuntimeError, match=r"elsewhere, use kernel.run\(agent, prompt\)"):
        await made("hello", None)
    async with a_kernel():
        with pytest.raises(RuntimeError, match="an agent's tool runs in a call of a kernel"):
            await made("hello", None)


def test_one_agent_serves_threads_with_kernels_of_their_own() -> None:
    import anyio

    import turnscope

    agent: Agent[Any, str] = Agent(model=ScriptedModel(lambda _: "ok"), tools=[fine])
    outputs: list[str] = []

    def one() -> None:
        outputs.append(anyio.run(turnscope.run, agent, "go").output)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outputs == ["ok"] * 4
