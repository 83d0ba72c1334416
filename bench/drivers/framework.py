"""What drivers of other frameworks have in common: runs, and no turn of their own.

A turn is then a run whose model answers once with the calls, and then with a word; agents as tools
are tools that run the next agent. It is no contender: `session` is in the drivers that use it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from bench.tools import Call, Conversation, Tool

T = TypeVar("T")
"""What a framework keeps its tools in."""

Inner: TypeAlias = Callable[[int], Awaitable[list[object]]]


def cap(tools: Sequence[Tool]) -> int | None:
    """How many calls of a run may work at once, where that is all that a framework can be told."""
    caps = (1 if tool.key is not None else tool.at_most for tool in tools)
    return min((each for each in caps if each is not None), default=None)


class Runs(ABC, Generic[T]):
    """A session whose every run has tools and a stub of a model."""

    def __init__(self, tools: T) -> None:
        self._tools = tools

    @abstractmethod
    async def run(self, talk: tuple[T, Conversation]) -> Sequence[object]:
        """Run an agent; returns what its tools gave."""

    @abstractmethod
    def of_one(self, inner: Inner) -> T:
        """Keep *inner*, and no other tool, as the framework keeps its tools."""

    def prepare(self, calls: Sequence[Call]) -> tuple[T, Conversation]:
        """Take the calls for the one answer of a conversation."""
        return self.talk([calls])

    async def turn(self, prepared: tuple[T, Conversation]) -> Sequence[object]:
        """Run an agent."""
        return await self.run(prepared)

    def talk(self, conversation: Conversation) -> tuple[T, Conversation]:
        """Leave it as the model sends it."""
        return self._tools, conversation

    def nest(self, conversations: Sequence[Conversation]) -> tuple[T, Conversation]:
        """Give each but the innermost a tool that runs the next one."""
        tools = self._tools
        for conversation in reversed(conversations[1:]):
            tools = self.of_one(self._running((tools, conversation)))
        return tools, conversations[0]

    def _running(self, talk: tuple[T, Conversation]) -> Inner:
        async def inner(n: int) -> list[object]:
            return list(await self.run(talk))

        return inner
