"""bridgic: a ``ReCentAutoma`` for each run, and a model that is asked for goals and for tools.

It has no turn of its own: `turn` is a run whose model asks once for the calls, and then says that
the goal is reached. The values are those in the messages of the last request, which asks for the
answer. The memory is never so long that it is compressed; the threads are those of the session.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from bridgic.core.agentic.recent import ReCentAutoma, ReCentMemoryConfig
from bridgic.core.agentic.tool_specs import FunctionToolSpec
from bridgic.core.model import BaseLlm
from bridgic.core.model.protocols import StructuredOutput, ToolSelection
from bridgic.core.model.types import Message, Response, Role, ToolCall, ToolResultBlock

from bench.tools import Call, Conversation, Tool

from .bare import Stub, values_of
from .framework import Inner, Runs

Talk = tuple[Sequence[FunctionToolSpec], Conversation]


class Session(Runs[Sequence[FunctionToolSpec]]):
    """The tools and the threads; each run has an agent of its own, which holds one conversation."""

    def __init__(self, tools: Sequence[Tool], threads: ThreadPoolExecutor) -> None:
        super().__init__([FunctionToolSpec.from_raw(tool.fn) for tool in tools])
        self._threads = threads

    def of_one(self, inner: Inner) -> Sequence[FunctionToolSpec]:
        """Make *inner* a tool."""
        return [FunctionToolSpec.from_raw(inner)]

    async def run(self, talk: Talk) -> Sequence[object]:
        """Run an agent for a goal."""
        tools, conversation = talk
        model = Script(conversation)
        memory = ReCentMemoryConfig(model, max_node_size=10**9, max_token_size=10**9)
        agent = ReCentAutoma(model, list(tools), memory_config=memory, thread_pool=self._threads)
        await agent.arun(goal="Go.")
        return values(model.last)


class Script(BaseLlm, StructuredOutput, ToolSelection):
    """The stub of a model that plays a conversation; it is asked asynchronously alone."""

    def __init__(self, conversation: Conversation) -> None:
        self._left = len(conversation)
        self._stub = Stub(conversation)
        self.last: Sequence[Message] = ()
        """The messages of the last request."""

    async def astructured_output(self, messages: Any, constraint: Any, **more: Any) -> Any:
        """Say whether the goal is reached: whether no turn is left."""
        return constraint.model(brief_thinking="", goal_achieved=not self._left)

    async def aselect_tool(
        self, messages: Any, tools: Any, **more: Any
    ) -> tuple[list[ToolCall], str | None]:
        """Ask for the calls of the next turn."""
        self._left -= 1
        return [asked(call) for call in await self._stub.whole()], None

    async def achat(self, messages: list[Message], **more: Any) -> Response:
        """Answer with a word."""
        self.last = messages
        await self._stub.whole()  # which has no calls left, and notes that it was asked
        return Response(message=Message.from_text("done", Role.AI))

    def _unasked(self, *about: Any, **more: Any) -> Any:
        # The base class wants these; a peer that asked for one would fail by this, not be guessed.
        raise NotImplementedError("it is asked asynchronously alone, and never stored")

    structured_output = select_tool = chat = stream = astream = _unasked
    dump_to_dict = load_from_dict = _unasked


def asked(call: Call) -> ToolCall:
    """*call* as this framework's models give it: they read the arguments."""
    return ToolCall(id=call.id, name=call.name, arguments=json.loads(call.arguments))


def values(messages: Iterable[Message]) -> list[object]:
    """What the tools gave, in the order of the messages."""
    return [
        value
        for message in messages
        for each in message.blocks
        if isinstance(each, ToolResultBlock)
        for value in values_of(each.content)
    ]


@asynccontextmanager
async def session(tools: Sequence[Tool], /) -> AsyncGenerator[Session]:
    """Open the threads; they come with the first ``def`` tool."""
    with ThreadPoolExecutor() as threads:
        yield Session(tools, threads)
