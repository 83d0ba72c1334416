"""agentscope: an ``Agent`` for each run, one ``Toolkit`` for all, and a chat model that is asked.

It has no turn of its own: `turn` is a run whose model answers once with the calls, and then with a
word. An agent swallows cancellations unless it is told to raise them, as it is here. Tools are
allowed beforehand, since nobody is there to confirm them; one with a key is not for concurrent use.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from agentscope.agent import Agent, ReActConfig
from agentscope.credential import CredentialBase
from agentscope.formatter import OpenAIChatFormatter
from agentscope.message import (
    Msg,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    ToolResultState,
    UserMsg,
)
from agentscope.model import ChatModelBase, ChatResponse
from agentscope.permission import PermissionBehavior, PermissionDecision
from agentscope.tool import FunctionTool, Toolkit

from bench.tools import Call, Conversation, Tool, lasts

from .bare import Stub, unheard, values_of
from .framework import Inner, Runs

ALLOWED = PermissionDecision(PermissionBehavior.ALLOW, "It does no harm.")

Talk = tuple[Toolkit, Conversation]


class Session(Runs[Toolkit]):
    """The toolkit; each run has an agent of its own, which is what holds a conversation here."""

    def __init__(self, tools: Sequence[Tool]) -> None:
        super().__init__(
            Toolkit(
                [
                    FunctionTool(tool.fn, is_concurrency_safe=tool.key is None, permission=ALLOWED)
                    for tool in tools
                ]
            )
        )

    def of_one(self, inner: Inner) -> Toolkit:
        """Make a toolkit of *inner*."""
        return Toolkit([FunctionTool(inner, permission=ALLOWED)])

    async def run(self, talk: Talk) -> Sequence[object]:
        """Let an agent reply, streamed where the model streams; the values are in its context."""
        if any(map(lasts, talk[1])):
            return await self.listen(talk, unheard)
        agent = made(talk)
        await agent.reply(UserMsg("user", "Go."))
        return values(agent.state.context)

    async def listen(self, talk: Talk, each: Callable[[], Awaitable[None]]) -> Sequence[object]:
        """Iterate over the events of a reply."""
        agent = made(talk, stream=True)
        async for _ in agent.reply_stream(UserMsg("user", "Go.")):
            await each()
        return values(agent.state.context)


class Script(ChatModelBase):
    """The stub of a model that plays a conversation, whole or streamed."""

    def __init__(self, conversation: Conversation, stream: bool) -> None:
        # A context that is never full: nothing is compressed.
        super().__init__(
            CredentialBase(), "stub", self.Parameters(), stream=stream, context_size=10**9
        )
        self.formatter = OpenAIChatFormatter()  # asked for the media that the model can read
        self._stub = Stub(conversation)

    async def _call_api(self, *about: Any, **more: Any) -> Any:
        if self.stream:
            return self._pieces()
        blocks = [block(call) for call in await self._stub.whole()]
        return ChatResponse(blocks or [TextBlock(text="done")], is_last=True)

    async def _pieces(self) -> AsyncGenerator[ChatResponse]:
        came = False
        async with self._stub.stream() as pieces:
            async for call in pieces:
                came = True
                yield ChatResponse([block(call)], is_last=False)
        if not came:
            yield ChatResponse([TextBlock(text="done")], is_last=False)


def made(talk: Talk, *, stream: bool = False) -> Agent:
    """An agent for *talk*, which may take as many turns as it likes."""
    toolkit, conversation = talk
    config = ReActConfig(max_iters=10_000, interruption_raise_cancelled_error=True)
    model = Script(conversation, stream)
    return Agent("bench", "Call the tools.", model, toolkit, react_config=config)


def block(call: Call) -> ToolCallBlock:
    """*call* as the server sends it."""
    return ToolCallBlock(id=call.id, name=call.name, input=call.arguments)


def values(messages: Iterable[Msg]) -> list[object]:
    """What the tools gave, in the order of the messages; a failure stands for itself."""
    return [
        value
        for message in messages
        for each in message.content
        if isinstance(each, ToolResultBlock)
        for value in (values_of(text(each)) if each.state == ToolResultState.SUCCESS else [each])
    ]


def text(result: ToolResultBlock) -> str:
    """The text of *result*."""
    if isinstance(result.output, str):
        return result.output
    return "".join(each.text for each in result.output if isinstance(each, TextBlock))


@asynccontextmanager
async def session(tools: Sequence[Tool], /) -> AsyncGenerator[Session]:
    """Open nothing: a toolkit of functions holds nothing open."""
    yield Session(tools)
