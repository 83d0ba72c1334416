"""What a contender is to the benchmark: one module here, with one function, ``session``.

To add one: write ``bench/drivers/NAME.py`` with ``session(tools)`` as in `Driver`, and name it in
``bench/contenders.py``. A driver is imported in the process under test alone, so it may import what
only its own environment has. It does the work as that contender's users would write it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from bench.tools import Call, Conversation, Tool


class Session(Protocol):
    """A contender, ready for turns: what is long-lived (a client, a pool, a kernel) is open."""

    def prepare(self, calls: Sequence[Call]) -> Any:
        """Put *calls* into the contender's own words, before the clock starts.

        What its users have in hand anyway: not the reading of arguments, if the contender reads
        them in its turn.
        """
        ...

    async def turn(self, prepared: Any) -> Sequence[object]:
        """Run the calls of one turn, and return their values in call order. This is timed.

        A cancellation goes through; a failed call is anything but its value.
        """
        ...

    def talk(self, conversation: Conversation) -> Any:
        """Put *conversation* into the contender's own words, before the clock starts."""
        ...

    async def run(self, talk: Any) -> Sequence[object]:
        """Play it with a stub of a model that answers at once, and return the values of all calls.

        This is timed. The values come in call order, from what the contender keeps of the talk.
        """
        ...


class Nesting(Session, Protocol):
    """A session that can make a tool of an agent."""

    def nest(self, conversations: Sequence[Conversation]) -> Any:
        """Put agents into one another, the outermost first, before the clock starts.

        Each plays its conversation, in which all but the innermost call a tool named ``inner``,
        with one argument ``n``: that runs the next agent. `run` takes what comes of it, and gives
        the values of the innermost calls.
        """
        ...


class Listening(Session, Protocol):
    """A session whose runs can be followed while they go on."""

    async def listen(self, talk: Any, each: Callable[[], Awaitable[None]]) -> Sequence[object]:
        """As `run`, but await *each* for every event that the contender tells of the run."""
        ...


class Driver(Protocol):
    """A module of this package."""

    def session(self, tools: Sequence[Tool], /) -> AbstractAsyncContextManager[Session]:
        """Open the contender for *tools*; what it started has ended when the block is left.

        It does what a `Tool` asks for beyond its place, as far as the contender offers that.
        """
        ...
