"""langgraph as langchain's ``create_agent`` builds it: each call is a task of the graph.

It has no turn of its own: `turn` is a run whose model answers once with the calls, and then with a
word. The rest is that of `langgraph_toolnode`. A tool's cap on its calls is the run's; a key is a
cap of one, for then the calls run in their order.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from langchain.agents import create_agent
from langchain_core.tools import StructuredTool

from bench.tools import Call, Tool

from . import langgraph_toolnode as toolnode
from .framework import cap
from .langgraph_toolnode import Graph, Script, Talk


class Session(toolnode.Session):
    """An agent, made once; each run brings what its model answers."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        at_most = cap(tools)
        super().__init__(tools, **({} if at_most is None else {"max_concurrency": at_most}))

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
