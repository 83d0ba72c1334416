"""turnscope, as a loop of one's own uses it: one kernel for all turns, nobody listening.

The calls are made, validated and answered inside the time that is taken. The limits are on, and
high enough that none of the calls of a scenario waits, but where its tool asks for a limit.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio

import turnscope
from bench.tools import Call, Conversation, Tool, ask, lasts
from turnscope import Agent, Budget, Kernel, Limits, RunResult, ToolCall
from turnscope.abc import ModelRequest, Observer
from turnscope.events import CallDelta, CallSealed, ModelEvent, ModelFinished, TextDelta
from turnscope_backends import InlineBackend, ProcessBackend, ThreadBackend


class Session:
    """An open kernel, and the tools of its turns."""

    def __init__(self, kernel: Kernel, tools: Sequence[Tool]) -> None:
        self._kernel = kernel
        self._tools = [made(tool) for tool in tools]
        self._agent = Agent(tools=self._tools, budget=Budget(turns=10_000))

    def prepare(self, calls: Sequence[Call]) -> Sequence[Call]:
        """Leave them as the model sent them."""
        return calls

    async def turn(self, prepared: Sequence[Call]) -> Sequence[object]:
        """Run one turn; a call that is not ok stands for its own value."""
        async with self._kernel.turn(self._tools) as turn:
            for call in prepared:
                turn.submit(ToolCall(call.id, call.name, call.arguments))
        return [result.value if result.ok else result for result in turn.results]

    def talk(self, conversation: Conversation) -> Conversation:
        """Leave it as the model sends it."""
        return conversation

    async def run(self, talk: Conversation | Nest) -> Sequence[object]:
        """Run an agent on it; what its tools gave is read from the history."""
        if isinstance(talk, Nest):
            return await talk.run()
        return values_of(await self._kernel.run(self._agent, "Go.", model=Stub(talk)), int)

    async def listen(
        self, talk: Conversation, each: Callable[[], Awaitable[None]]
    ) -> Sequence[object]:
        """Read the events of a run."""
        async with self._kernel.start(self._agent, "Go.", model=Stub(talk)) as run:
            async for _ in run:
                await each()
            return values_of(await run.wait(), int)

    def nest(self, conversations: Sequence[Conversation]) -> Nest:
        """Make an agent of each conversation, and a tool of each agent but the outermost."""
        *outer, innermost = conversations
        nest = Nest(self._kernel, self._agent, innermost)
        for conversation in reversed(outer):
            agent = Agent(tools=[made(Tool(nest.inner, "inline"))])
            nest = Nest(self._kernel, agent, conversation, whole=False)
        return nest


class Nest:
    """An agent with its conversation; `inner` is the tool that runs it.

    whole: whether its tools' values are those that are asked for; else each of them is a list.
    """

    def __init__(
        self, kernel: Kernel, agent: Agent, conversation: Conversation, *, whole: bool = True
    ) -> None:
        self._kernel = kernel
        self._agent = agent
        self._conversation = conversation
        self._whole = whole

    async def run(self) -> list[object]:
        """Run it: the values of the innermost calls."""
        stub = Stub(self._conversation)
        result = await self._kernel.run(self._agent, "Go.", model=stub)
        values = values_of(result, json.loads)
        if self._whole:
            return values
        return [value for each in values for value in (each if isinstance(each, list) else [each])]

    async def inner(self, n: int) -> list[Any]:
        """Ask another agent."""
        return await self.run()


def made(tool: Tool) -> turnscope.Tool[..., Any]:
    """The tool with its options; its limit has a group of its name, in `kernel_for`."""
    return turnscope.tool(
        backend=tool.place,
        read_only=tool.read_only,
        timeout=tool.timeout,
        limit=None if tool.at_most is None else tool.name,
        writes=() if tool.key is None else tool.key,
        on_error="raise" if tool.fatal else "result",
    )(tool.fn)


def values_of(result: RunResult[Any], read: Callable[[str], Any]) -> list[object]:
    """What the tools gave, as the history has it; what is not ok stands for its own value."""
    return [
        read(each.content) if each.status == "ok" and isinstance(each.content, str) else each
        for each in result.history.results
    ]


class Stub:
    """Answers at once, with the calls of one turn after the other, and then with a word."""

    def __init__(self, talk: Conversation) -> None:
        self._turns = iter(talk)

    @asynccontextmanager
    async def stream(self, request: ModelRequest, /) -> AsyncGenerator[AsyncGenerator[ModelEvent]]:
        """Stream the next turn."""
        ask()
        yield self._events(next(self._turns, ()))

    async def _events(self, calls: Sequence[Call]) -> AsyncGenerator[ModelEvent]:
        start = anyio.current_time()
        for index, call in enumerate(calls):
            if call.at:
                await anyio.sleep_until(start + call.at)
            yield CallDelta(index, call.id, call.name, call.arguments)
            yield CallSealed(index)
        if streams := lasts(calls):
            await anyio.sleep_until(start + streams)
        if not calls:
            yield TextDelta("done")
        yield ModelFinished("calls" if calls else "stop")


@asynccontextmanager
async def session(tools: Sequence[Tool], /) -> AsyncGenerator[Session]:
    """Open a kernel without observers."""
    async with kernel_for(tools) as kernel:
        yield Session(kernel, tools)


def kernel_for(tools: Sequence[Tool], observers: Sequence[Observer] = ()) -> Kernel:
    """A kernel with the backends as instances: the benchmark also runs from a source tree."""
    processes: Any = ProcessBackend(warm=2 if any(t.place == "process" for t in tools) else 0)
    return Kernel(
        limits=Limits(
            calls=50_000,
            threads=64,
            groups={tool.name: tool.at_most for tool in tools if tool.at_most is not None},
        ),
        backends=[InlineBackend(), ThreadBackend(), processes],
        observers=observers,
    )
