"""pydantic-ai: an agent of its own for the tools, and its ``FunctionModel`` in the model's place.

It has no turn of its own: `turn` is a run whose model answers once with the calls, and then with a
word. Nothing is instrumented, and nothing leaves the process. A tool with a key is ``sequential``:
the one order that this framework knows is a barrier.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pydantic_ai
from pydantic_ai import Agent, AgentRunResultEvent, UsageLimits
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.usage import RequestUsage

from bench.tools import Conversation, Tool, lasts

from .bare import Stub, unheard, values_of
from .framework import Inner, Runs

UNLIMITED = UsageLimits(request_limit=None)
# What is counted is not estimated: an estimate would read the whole history for each request.
USED = RequestUsage(input_tokens=1, output_tokens=1)

Talk = tuple[Agent[None, str], Conversation]


class Session(Runs[Agent[None, str]]):
    """An agent, made once; each run brings its own stub of a model."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        super().__init__(
            Agent(
                tools=[
                    pydantic_ai.Tool(tool.fn, timeout=tool.timeout, sequential=tool.key is not None)
                    for tool in tools
                ]
            )
        )

    def of_one(self, inner: Inner) -> Agent[None, str]:
        """Make an agent that has *inner*."""
        return Agent(tools=[inner])

    async def run(self, talk: Talk) -> Sequence[object]:
        """Run the agent, streamed where the model streams; the values are those of its messages."""
        agent, conversation = talk
        if any(map(lasts, conversation)):
            return await self.listen(talk, unheard)
        result = await agent.run("Go.", model=model(conversation), usage_limits=UNLIMITED)
        return values(result.all_messages())

    async def listen(self, talk: Talk, each: Callable[[], Awaitable[None]]) -> Sequence[object]:
        """Iterate over the events of a run."""
        agent, conversation = talk
        came: list[ModelMessage] = []
        streamed = agent.run_stream_events("Go.", model=model(conversation), usage_limits=UNLIMITED)
        async with streamed as events:
            async for event in events:
                if isinstance(event, AgentRunResultEvent):
                    came = event.result.all_messages()
                await each()
        return values(came)


def model(conversation: Conversation) -> FunctionModel:
    """The stub of a model that plays *conversation*, whole or streamed."""
    stub = Stub(conversation)

    async def whole(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        calls = await stub.whole()
        parts = [ToolCallPart(call.name, call.arguments, call.id) for call in calls]
        return ModelResponse(parts or [TextPart("done")], usage=USED)

    async def streamed(messages: list[ModelMessage], info: AgentInfo) -> AsyncGenerator[Any]:
        async with stub.stream() as pieces:
            index = -1
            async for call in pieces:
                index += 1
                yield {index: DeltaToolCall(call.name, call.arguments, tool_call_id=call.id)}
        if index < 0:
            yield "done"

    return FunctionModel(whole, stream_function=streamed)


def values(messages: Iterable[ModelMessage]) -> list[object]:
    """What the tools gave, in the order of the messages; a failure stands for itself."""
    came: list[object] = []
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolReturnPart):
                came.extend(values_of(part.content) if part.outcome == "success" else [part])
    return came


@asynccontextmanager
async def session(tools: Sequence[Tool], /) -> AsyncGenerator[Session]:
    """Open nothing: an agent holds nothing open."""
    yield Session(tools)
