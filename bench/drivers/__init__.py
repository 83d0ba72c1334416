"""What a contender is to the benchmark: one module here, with one function, ``session``.

To add one: write ``bench/drivers/NAME.py`` with ``session(tools)`` as in `Driver`, and name it in
``bench/contenders.py``. A driver is imported in the process under test alone, so it may import what
only its own environment has. It does the work as that contender's users would write it.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class Driver(Protocol):
    """A module of this package."""

    def session(self, tools: Sequence[Tool], /) -> AbstractAsyncContextManager[Session]:
        """Open the contender for *tools*; what it started has ended when the block is left."""
        ...
