"""A body that waits for a nested turn is parked: it lends its slots to what it waits for.

Without this, calls whose tools run turns of their own deadlock as soon as every slot is held by one
that waits for another. From its first nested turn to the end of its last a call holds no slots
(its thread, if it has one, only waits); then it takes them again, ahead of all who never held
one. Above: the attempt. Below: the ticket.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import anyio

from ._errors import LimiterLeaked
from ._limits import Ticket
from ._loop import Loop, join

if TYPE_CHECKING:
    from ._outcome import Cause


class Nested(Protocol):
    """A turn or a run inside a call's body."""

    @property
    def asked(self) -> bool:
        """Whether it is to end."""
        ...

    @property
    def done(self) -> anyio.Event:
        """Set when nothing of it runs any more."""
        ...

    def ask(self, cause: Cause, end: float = ...) -> None:
        """End by *end*, a clock value, which only ever moves earlier."""
        ...

    def close(self) -> None:
        """Told that its block is left."""
        ...


class Parking:
    """The nested turns of one call, and its way back to work."""

    __slots__ = ("_coming_back", "_refusal", "_ticket", "turns")

    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket
        self.turns: list[Nested] = []
        self._coming_back: anyio.Event | None = None
        self._refusal: LimiterLeaked | None = None

    def park(self, nested: Nested) -> None:
        """*nested* opens: with the first, give the slots back."""
        self.turns.append(nested)
        if self._coming_back is not None:
            self.go_without()
        elif len(self.turns) == 1:
            self._ticket.release()

    def ask(self, cause: Cause, end: float) -> None:
        """Ask the nested turns to end by *end*: one grace is for the whole tree."""
        for nested in tuple(self.turns):
            nested.ask(cause, end)

    def tighten(self, cause: Cause, end: float) -> None:
        """Have those nested turns that are ending anyway end by *end*, too.

        Their block has been left, and waits where no interrupt of the call reaches it.
        """
        for nested in tuple(self.turns):
            if nested.asked:
                nested.ask(cause, end)

    def go_without(self) -> None:
        """Stop waiting for slots: the call was asked to end, and shall not wait to clean up."""
        if self._coming_back is not None:
            self._ticket.leave()
            self._ticket.release()
            self._coming_back.set()

    async def come_back(self, loop: Loop) -> BaseException | None:
        """After the last nested turn: wait for the slots. Returns what the caller is to raise.

        That is a cancellation that came meanwhile, or LimiterLeaked if no slot may ever come.
        The wait is not cut short by a cancellation that is the body's own affair: the body goes
        on working after it, and must not without its slots.
        """
        self._coming_back = back = anyio.Event()
        self._refusal = None
        try:
            if self._ticket.take_again(self):
                return None
            stopped = await join(loop, back, lambda: None, None)
        except LimiterLeaked as exc:
            return exc
        except GeneratorExit:
            self._ticket.leave()
            raise
        finally:
            if self._coming_back is back:
                self._coming_back = None
        return stopped or self._refusal

    def admitted(self) -> None:
        """Told by the ticket that the slots are back."""
        if self._coming_back is not None:
            self._coming_back.set()

    def refused(self, exc: LimiterLeaked) -> None:
        """Told by the ticket that they may never come back."""
        self._refusal = exc
        self.admitted()
