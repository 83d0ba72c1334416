"""An agent in ten lines, with a model from a script: no key and no network."""

from __future__ import annotations

import anyio

import turnscope
from turnscope import Agent, ToolCall
from turnscope.testing import ScriptedModel


async def weather(city: str) -> str:
    """Tell today's weather."""
    return f"sunny in {city}"


SCRIPT = [
    [
        ToolCall("c1", "weather", {"city": "Beijing"}),
        ToolCall("c2", "weather", {"city": "Shanghai"}),
    ],
    lambda request: " and ".join(str(result.content) for result in request.history.results),
]
agent = Agent(model=ScriptedModel(SCRIPT), tools=[weather], instructions="Answer in one sentence.")

if __name__ == "__main__":
    result = anyio.run(turnscope.run, agent, "Weather in Beijing and Shanghai?")
    print(result.output)
