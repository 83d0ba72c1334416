"""inspect_ai: `turn` is its ``execute_tools``, a run is ``Model.generate_loop``.

Its agents need the sample of an evaluation about them; these two, of which they are made, do not. A
``ModelAPI`` of ours stands in the model's place. Tools must be asynchronous, and may run beside
others, as their author says by ``parallel``; not those with a key: its only order is a barrier. A
cap is its ``concurrency``, which its users write into a tool.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any

from inspect_ai.log._transcript import Transcript, init_transcript
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageTool,
    ChatMessageUser,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    execute_tools,
    get_model,
    modelapi,
)
from inspect_ai.tool import ToolCall, ToolDef
from inspect_ai.util import concurrency

from bench.tools import Call, Conversation, Tool

from .bare import Stub, values_of

USAGE = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
# Each run has a model of its own; what one model may be asked at once should never count.
CONFIG = GenerateConfig(max_connections=10_000)

Talk = tuple[Sequence[ToolDef], Conversation]


class Session:
    """The tools; each run has its own stub of a model."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        os.environ["INSPECT_DISPLAY"] = "none"
        self._tools = [
            definition(capped(tool), tool.name, ("n",), parallel=tool.key is None) for tool in tools
        ]

    def prepare(self, calls: Sequence[Call]) -> list[ChatMessage]:
        """Make the message of a model that holds *calls*: its models read the arguments."""
        return [ChatMessageUser(content="Go."), message(calls)]

    async def turn(self, prepared: list[ChatMessage]) -> Sequence[object]:
        """Execute the calls of the message."""
        init_transcript(Transcript())
        return values((await execute_tools(prepared, self._tools)).messages)

    def talk(self, conversation: Conversation) -> Talk:
        """Leave it as the model sends it."""
        return self._tools, conversation

    def nest(self, conversations: Sequence[Conversation]) -> Talk:
        """Give each but the innermost a tool that runs the next one."""
        tools: Sequence[ToolDef] = self._tools
        for conversation in reversed(conversations[1:]):
            tools = [definition(self._inner((tools, conversation)), "inner", ("n",))]
        return tools, conversations[0]

    async def run(self, talk: Talk) -> Sequence[object]:
        """Loop over model and tools; the values are those of the messages."""
        init_transcript(Transcript())
        return await self._run(talk)

    async def _run(self, talk: Talk) -> Sequence[object]:
        tools, conversation = talk
        model = get_model("script/stub", config=CONFIG, memoize=False, conversation=conversation)
        messages, _ = await model.generate_loop("Go.", tools)
        return values(messages)

    def _inner(self, talk: Talk) -> Callable[[int], Awaitable[str]]:
        async def inner(n: int) -> str:
            return json.dumps(await self._run(talk))

        return inner


@modelapi(name="script")
class Script(ModelAPI):
    """The stub of a model that plays a conversation; it is never asked to stream."""

    def __init__(self, model_name: str, *, conversation: Conversation, **about: Any) -> None:
        super().__init__(model_name, config=CONFIG)
        self._stub = Stub(conversation)

    async def generate(self, *about: Any, **more: Any) -> ModelOutput:
        """Give the next answer."""
        output = ModelOutput.from_message(message(await self._stub.whole()))
        output.usage = USAGE
        return output


def definition(
    fn: Callable[..., Any], name: str, parameters: Iterable[str], *, parallel: bool = True
) -> ToolDef:
    """*fn* as a tool; the framework asks for a description of each parameter."""
    about = dict.fromkeys(parameters, "a number")
    return ToolDef(fn, name, "Do the work.", about, parallel=parallel)


def capped(tool: Tool) -> Callable[..., Any]:
    """The function of *tool*, of which so many calls run at once as it says."""
    if tool.at_most is None:
        return tool.fn

    @wraps(tool.fn)
    async def within(*args: Any, **kwargs: Any) -> Any:
        async with concurrency(tool.name, tool.at_most):
            return await tool.fn(*args, **kwargs)

    return within


def message(calls: Sequence[Call]) -> ChatMessageAssistant:
    """What a model answers: *calls*, or a word."""
    asked = [ToolCall(each.id, each.name, json.loads(each.arguments)) for each in calls]
    return ChatMessageAssistant(
        content="" if asked else "done", tool_calls=asked or None, source="generate"
    )


def values(messages: Iterable[ChatMessage]) -> list[object]:
    """What the tools gave, in the order of the messages; a failure stands for itself."""
    return [
        value
        for each in messages
        if isinstance(each, ChatMessageTool)
        for value in (values_of(each.text) if each.error is None else [each])
    ]


@asynccontextmanager
async def session(tools: Sequence[Tool], /) -> AsyncGenerator[Session]:
    """Open nothing: an agent holds nothing open."""
    yield Session(tools)
