"""A plan in one turn: the model asks once for calls of which some need the results of others.

``{"$ref": "found/0/id"}`` in the arguments of a step is what the step ``found`` returned there, with
its type. Each step starts as soon as those that it needs are done.
"""

from __future__ import annotations

import json

import anyio

from turnscope import Agent, Kernel, RunResult, ToolCall, plan_tool, tool
from turnscope.abc import ModelRequest
from turnscope.testing import ScriptedModel

PRICES = {7: 12.5, 9: 30.0}


@tool(read_only=True)
async def search(text: str) -> list[dict[str, object]]:
    """Search the catalogue: the ids and names of articles."""
    names = {7: "red lamp", 9: "red chair"}
    return [{"id": id, "name": name} for id, name in names.items() if text in name]


@tool(read_only=True)
async def price(id: int) -> float:
    """The price of an article."""
    return PRICES[id]


@tool(read_only=True)
async def total(prices: list[float]) -> float:
    """Add prices up."""
    return sum(prices)


STEPS = [
    {"id": "found", "tool": "search", "arguments": {"text": "red"}},
    {"id": "one", "tool": "price", "arguments": {"id": {"$ref": "found/0/id"}}},
    {"id": "other", "tool": "price", "arguments": {"id": {"$ref": "found/1/id"}}},
    {"id": "sum", "tool": "total", "arguments": {"prices": [{"$ref": "one"}, {"$ref": "other"}]}},
]


def answer(request: ModelRequest) -> str:
    steps = json.loads(str(request.history.results[-1].content))
    return f"They cost {steps[-1]['content']}."


async def main() -> RunResult[str]:
    model = ScriptedModel([[ToolCall("c1", "plan", {"steps": STEPS})], answer])  # or a real one
    agent = Agent(model=model, tools=[search, price, plan_tool([search, price, total])])
    async with Kernel() as kernel:
        return await kernel.run(agent, "What do the red things cost together?")


if __name__ == "__main__":
    print(anyio.run(main).output)
