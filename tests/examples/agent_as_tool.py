"""An agent as another's tool: it shares the deadline, the grace, the slots and the budget."""

from __future__ import annotations

import anyio

from turnscope import Agent, Budget, Kernel, RunResult, ToolCall
from turnscope.testing import ScriptedModel


async def search(query: str) -> str:
    """Search the archive."""
    await anyio.sleep(0.01)
    return f"three letters about {query}"


def team() -> Agent:
    """A writer who asks a researcher; both would have a real model."""
    researcher = Agent(
        model=ScriptedModel(
            lambda request: (
                f"Found {request.history.results[-1].content}."
                if request.history.results
                else ToolCall("", "search", {"query": str(request.history[0].content)})
            )
        ),
        tools=[search],
        instructions="Answer with what the archive says.",
    )
    return Agent(
        model=ScriptedModel(
            [
                [
                    ToolCall("a", "research", {"prompt": "tea"}),
                    ToolCall("b", "research", {"prompt": "silk"}),
                ],
                lambda request: " ".join(str(result.content) for result in request.history.results),
            ]
        ),
        tools=[researcher.as_tool("research", "Ask the researcher.", timeout=20)],
        budget=Budget(turns=20, calls=10),
    )


async def main() -> RunResult[str]:
    async with Kernel() as kernel:
        return await kernel.run(team(), "Write about tea and silk.", timeout=60)


if __name__ == "__main__":
    print(anyio.run(main).output)
