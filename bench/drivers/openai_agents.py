"""openai-agents: its ``Runner`` on an agent of its own, and a ``Model`` that streams what is asked.

It has no turn of its own: `turn` is a run whose model answers once with the calls, and then with a
word. Tracing is off, so that nothing leaves the process. A tool's cap on its calls is the run's; a
key is a cap of one, for then the calls run in their order.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from agents import (
    Agent,
    FunctionTool,
    Model,
    ModelResponse,
    RunConfig,
    RunItem,
    Runner,
    Usage,
    function_tool,
    set_tracing_disabled,
)
from agents.items import ToolCallOutputItem
from agents.run_config import ToolExecutionConfig
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
)

from bench.tools import Call, Conversation, Tool, lasts

from .bare import Stub, unheard, values_of
from .framework import Inner, Runs, cap

Item = ResponseFunctionToolCall | ResponseOutputMessage
Talk = tuple[list[Any], Conversation]


class Session(Runs[list[Any]]):
    """The tools and the settings of every run; each run has an agent with its own stub."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        set_tracing_disabled(True)
        super().__init__([function(tool) for tool in tools])
        self._config = RunConfig(
            tracing_disabled=True,
            tool_execution=ToolExecutionConfig(max_function_tool_concurrency=cap(tools)),
        )

    def of_one(self, inner: Inner) -> list[Any]:
        """Make *inner* a tool."""
        return [function_tool(inner)]

    async def run(self, talk: Talk) -> Sequence[object]:
        """Run an agent, streamed where the model streams; the values are those of its new items."""
        tools, conversation = talk
        if any(map(lasts, conversation)):
            return await self.listen(talk, unheard)
        agent = Agent("bench", tools=tools, model=Script(conversation))
        result = await Runner.run(agent, "Go.", max_turns=None, run_config=self._config)
        return values(result.new_items)

    async def listen(self, talk: Talk, each: Callable[[], Awaitable[None]]) -> Sequence[object]:
        """Iterate over the events of a streamed run."""
        tools, conversation = talk
        agent = Agent("bench", tools=tools, model=Script(conversation))
        result = Runner.run_streamed(agent, "Go.", max_turns=None, run_config=self._config)
        async for _ in result.stream_events():
            await each()
        return values(result.new_items)


class Script(Model):
    """The stub of a model that plays a conversation, whole or streamed."""

    def __init__(self, conversation: Conversation) -> None:
        self._stub = Stub(conversation)

    async def get_response(self, *about: Any, **more: Any) -> ModelResponse:
        """Give the next answer."""
        items = [item(call) for call in await self._stub.whole()]
        return ModelResponse(items or [word()], Usage(requests=1), "response")

    async def stream_response(self, *about: Any, **more: Any) -> AsyncGenerator[Any]:
        """Stream the next answer, a call as one piece."""
        items: list[Item] = []
        async with self._stub.stream() as pieces:
            async for call in pieces:
                items.append(item(call))
                for event in told(items):
                    yield event
        if not items:
            items.append(word())
            for event in told(items):
                yield event
        yield ResponseCompletedEvent(
            type="response.completed", response=response(items), sequence_number=2 * len(items)
        )


def function(tool: Tool) -> FunctionTool:
    """*tool* as this framework has it: what a failure of a fatal one says is not for the model."""
    if tool.fatal:
        return function_tool(tool.fn, timeout=tool.timeout, failure_error_function=None)
    return function_tool(tool.fn, timeout=tool.timeout)


def item(call: Call) -> ResponseFunctionToolCall:
    """*call* as the server sends it."""
    return ResponseFunctionToolCall(
        id=call.id,
        call_id=call.id,
        name=call.name,
        arguments=call.arguments,
        type="function_call",
    )


def word() -> ResponseOutputMessage:
    """The last answer."""
    text = ResponseOutputText(text="done", type="output_text", annotations=[])
    return ResponseOutputMessage(
        id="word", content=[text], role="assistant", status="completed", type="message"
    )


def told(items: Sequence[Item]) -> list[Any]:
    """The events by which a server tells of the last of *items*."""
    at = len(items) - 1
    about = {"item": items[at], "output_index": at}
    return [
        ResponseOutputItemAddedEvent(
            type="response.output_item.added", sequence_number=2 * at, **about
        ),
        ResponseOutputItemDoneEvent(
            type="response.output_item.done", sequence_number=2 * at + 1, **about
        ),
    ]


def response(items: Sequence[Item]) -> Response:
    """The whole answer, at the end of its stream."""
    return Response(
        id="response",
        created_at=0,
        model="stub",
        object="response",
        output=list(items),
        parallel_tool_calls=True,
        tool_choice="auto",
        tools=[],
    )


def values(items: Iterable[RunItem]) -> list[object]:
    """What the tools gave, in the order of the run's items; a failure's text stands for itself."""
    return [
        value
        for each in items
        if isinstance(each, ToolCallOutputItem)
        for value in values_of(each.output)
    ]


@asynccontextmanager
async def session(tools: Sequence[Tool], /) -> AsyncGenerator[Session]:
    """Open nothing: an agent holds nothing open."""
    yield Session(tools)
