"""langgraph's ``ToolNode``: a turn is the node alone, a run the graph of model and tools about it.

The node gathers the calls of a message itself. In the model's place is a chat model that streams
what is asked; tracing is off, so that nothing leaves the process.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import StructuredTool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.runtime import Runtime

from bench.tools import Call, Conversation, Tool, lasts

from .bare import Stub, unheard, values_of

Graph = CompiledStateGraph[Any, Any, Any, Any]
Talk = tuple[Graph, Conversation]

stub: ContextVar[Stub] = ContextVar("stub")
"""What the model of this run answers: a graph is made once, and its model with it."""
# Outside of a graph a node is told by hand what it runs in.
ALONE: dict[str, Any] = {"configurable": {"__pregel_runtime": Runtime()}}


class Session:
    """A graph, made once; each run brings what its model answers."""

    def __init__(self, tools: Sequence[Tool], **config: Any) -> None:
        self._config = {"recursion_limit": 10_000, **config}
        os.environ["LANGSMITH_TRACING"] = os.environ["LANGCHAIN_TRACING_V2"] = "false"
        self._tools = [structured(tool.fn) for tool in tools]
        self._node = ToolNode(self._tools)
        self._graph = self.graph(self._tools)

    def graph(self, tools: Sequence[StructuredTool]) -> Graph:
        """The loop of model and tools."""
        model = Script()

        async def answer(state: MessagesState) -> dict[str, Any]:
            return {"messages": [await model.ainvoke(state["messages"])]}

        graph = StateGraph(MessagesState)
        graph.add_node("model", answer)
        graph.add_node("tools", ToolNode(tools))
        graph.add_edge(START, "model")
        graph.add_conditional_edges("model", tools_condition)
        graph.add_edge("tools", "model")
        return graph.compile()

    def prepare(self, calls: Sequence[Call]) -> Any:
        """Make the message of a model that holds *calls*: langchain's models read the arguments."""
        return {"messages": [message(calls)]}

    async def turn(self, prepared: Any) -> Sequence[object]:
        """Invoke the node."""
        state = await self._node.ainvoke(prepared, ALONE)
        return values(state["messages"])

    def talk(self, conversation: Conversation) -> Talk:
        """Leave it as the model sends it."""
        return self._graph, conversation

    def nest(self, conversations: Sequence[Conversation]) -> Talk:
        """Make a graph for each but the innermost; its tool runs the next one."""
        graph = self._graph
        for conversation in reversed(conversations[1:]):
            graph = self.graph([structured(self._inner((graph, conversation)))])
        return graph, conversations[0]

    async def run(self, talk: Talk) -> Sequence[object]:
        """Invoke the graph, streamed where the model streams."""
        graph, conversation = talk
        if any(map(lasts, conversation)):
            return await self.listen(talk, unheard)
        stub.set(Stub(conversation))
        state = await graph.ainvoke({"messages": [HumanMessage("Go.")]}, self._config)
        return values(state["messages"])

    async def listen(self, talk: Talk, each: Callable[[], Awaitable[None]]) -> Sequence[object]:
        """Iterate over the messages of a run, token by token, and over its states."""
        graph, conversation = talk
        stub.set(Stub(conversation))
        came: Sequence[BaseMessage] = ()
        start = {"messages": [HumanMessage("Go.")]}
        async for mode, piece in graph.astream(
            start, self._config, stream_mode=["messages", "values"]
        ):
            if mode == "values":
                came = piece["messages"]
            await each()
        return values(came)

    def _inner(self, talk: Talk) -> Callable[[int], Awaitable[list[object]]]:
        async def inner(n: int) -> list[object]:
            """Ask the agent below."""
            return list(await self.run(talk))

        return inner


class Script(BaseChatModel):
    """A chat model that answers what `stub` says, whole or streamed."""

    @property
    def _llm_type(self) -> str:
        return "script"

    def bind_tools(self, tools: Sequence[Any], **settings: Any) -> Script:
        """Take the tools, whose names the script knows."""
        return self

    def _generate(self, messages: Any, stop: Any = None, manager: Any = None, **more: Any) -> Any:
        # The base class wants it; only a synchronous graph would ask.
        raise NotImplementedError("it is asked asynchronously alone")

    async def _agenerate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any
    ) -> ChatResult:
        calls = await stub.get().whole()
        return ChatResult(generations=[ChatGeneration(message=message(calls))])

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **more: Any
    ) -> AsyncGenerator[ChatGenerationChunk]:
        index = 0
        async with stub.get().stream() as pieces:
            async for call in pieces:
                chunk = tool_call_chunk(
                    name=call.name, args=call.arguments, id=call.id, index=index
                )
                index += 1
                yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[chunk]))
        if not index:
            yield ChatGenerationChunk(message=AIMessageChunk("done"))


def structured(fn: Callable[..., Any]) -> StructuredTool:
    """*fn* as a tool: on the event loop if it is asynchronous, else in a thread."""
    if inspect.iscoroutinefunction(fn):
        return StructuredTool.from_function(coroutine=fn)
    return StructuredTool.from_function(fn)


def message(calls: Sequence[Call]) -> AIMessage:
    """What a model answers: *calls*, or a word."""
    asked = [
        tool_call(name=each.name, args=json.loads(each.arguments), id=each.id) for each in calls
    ]
    return AIMessage("" if asked else "done", tool_calls=asked)


def values(messages: Iterable[BaseMessage]) -> list[object]:
    """What the tools gave, in the order of the messages; a failure stands for itself."""
    return [
        value
        for each in messages
        if isinstance(each, ToolMessage)
        for value in (values_of(each.content) if each.status == "success" else [each])
    ]


@asynccontextmanager
async def session(tools: Sequence[Tool], /) -> AsyncGenerator[Session]:
    """Open nothing: a graph holds nothing open."""
    yield Session(tools)
