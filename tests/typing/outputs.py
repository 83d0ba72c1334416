"""What an agent's ``output`` makes of the types of its runs: read by mypy and pyright, never run."""

from __future__ import annotations

from typing import Any, Literal, assert_type

import attrs

import turnscope
from turnscope import Agent, Kernel, Run, RunResult


@attrs.frozen
class City:
    name: str


async def text(kernel: Kernel) -> None:
    agent = Agent()
    assert_type(agent, Agent[Any, str])
    assert_type((await kernel.run(agent, "go")).output, str)


async def a_class(kernel: Kernel) -> None:
    agent = Agent(output=City)
    assert_type(agent, Agent[Any, City])
    assert_type(await kernel.run(agent, "go"), RunResult[City])
    assert_type((await turnscope.run(agent, "go")).output.name, str)
    async with kernel.start(agent, "go") as run:
        assert_type(run, Run[City])
        assert_type((await run.wait()).output, City)


async def forms_that_are_no_class(kernel: Kernel) -> None:
    assert_type((await kernel.run(Agent(output=int | City), "go")).output, int | City)
    assert_type((await kernel.run(Agent(output=City | None), "go")).output, City | None)
    assert_type((await kernel.run(Agent(output=list[City]), "go")).output, list[City])
    yes_or_no = Agent(output=Literal["yes", "no"])
    assert_type((await kernel.run(yes_or_no, "go")).output, Literal["yes", "no"])


def a_copy(agent: Agent[None, City]) -> None:
    assert_type(agent.replace(instructions="Be brief."), Agent[None, City])
    assert_type(agent.replace(output=int), Agent[None, int])
