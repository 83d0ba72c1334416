"""langgraph as langchain's ``create_agent`` builds it: each call is a task of the graph.

It has no turn of its own: `turn` is a run whose model answers once with the calls, and then with a
word. The rest is that of `langgraph_toolnode`. A tool's cap on its calls is the run's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from langchain.agents import create_agent
from langchain_core.tools import StructuredTool

from bench.tools import Call, Tool

from . import langgraph_toolnode as toolnode
from .langgraph_toolnode import Graph, Script, Talk


class Session(toolnode.Session):
    """An agent, made once; each run brings what its model answers."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        caps = [tool.at_most for tool in tools if tool.at_most is not None]
        super().__init__(tools, **({"max_concurrency": min(caps)} if caps else {}))

    def graph(self, tools: Sequence[StructuredTool]) -> Graph:
        """The loop of model and tools."""
        return create_agent(Script(), tools)

    def prepare(self, calls: Sequence[Call]) -> Talk:
        """Take the calls for the one answer of a conversation."""
        return self.talk([calls])

    async def turn(self, prepared: Talk) -> Sequence[object]:
        """Run the agent."""
        return await self.run(prepared)


@asynccontextmanager
async def session(tools: Sequence[Tool], /) -> AsyncGenerator[Session]:
    """Open nothing: an agent holds nothing open."""
    yield Session(tools)
