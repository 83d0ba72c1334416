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

from bench.tools import Call, Conversation, Tool, lasts

from .bare import Stub, unheard, values_of

UNLIMITED = UsageLimits(request_limit=None)
# What is counted is not estimated: an estimate would read the whole history for each request.
USED = RequestUsage(input_tokens=1, output_tokens=1)

Talk = tuple[Agent[None, str], Conversation]


class Session:
    """An agent, made once; each run brings its own stub of a model."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._agent = Agent(
            tools=[
                pydantic_ai.Tool(tool.fn, timeout=tool.timeout, sequential=tool.key is not None)
                for tool in tools
            ]
        )

    def prepare(self, calls: Sequence[Call]) -> Talk:
        """Take the calls for the one answer of a conversation."""
        return self._agent, [calls]

    async def turn(self, prepared: Talk) -> Sequence[object]:
        """Run the agent."""
        return await self.run(prepared)

    def talk(self, conversation: Conversation) -> Talk:
        """Leave it as the model sends it."""
        return self._agent, conversation

    def nest(self, conversations: Sequence[Conversation]) -> Talk:
        """Make an agent for each but the innermost; its tool runs the next one."""
        agent = self._agent
        for conversation in reversed(conversations[1:]):
            agent = Agent(tools=[self._inner((agent, conversation))])
        return agent, conversations[0]

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

    def _inner(self, talk: Talk) -> Callable[[int], Awaitable[list[object]]]:
        async def inner(n: int) -> list[object]:
            return list(await self.run(talk))

        return inner


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
