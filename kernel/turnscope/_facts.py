"""What is known of a turn from the moment that its block is opened, and its name.

Above: the supervisor and its calls; `_block` makes them. Below: the events.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from ._budget import Ledger
    from ._calls import ToolCall
    from ._loop import Loop
    from .events import RunEvent


class Names:
    """Names for runs and turns that no other has, here or in another process."""

    def __init__(self) -> None:
        self._prefix = os.urandom(3).hex()  # as `secrets` does, whose import takes 7 ms
        self._numbers = itertools.count(1)

    def new(self) -> str:
        """The next of them."""
        return f"{self._prefix}-{next(self._numbers)}"


# Not frozen, since nobody outside sees one, and there is one for each turn: attrs sets each field
# of a frozen class by a call, 17,000 instructions in place of 8,000 (callgrind, Python 3.11).
@attrs.define(kw_only=True, eq=False, repr=False)
class TurnFacts:
    """What the calls of a turn may know of it, also after they have ended."""

    run_id: str
    parents: tuple[str, ...]
    number: int
    deps: Any
    deadline: float
    """The earliest deadline that stood when the block was opened, the caller's scopes included."""
    loop: Loop
    observed: bool
    """Whether anybody is told of events: without, none are made."""
    kinds: Any
    """The room `_turn_events`, where *observed*. Who tells takes the classes from here: to import
    them at each event was a tenth of the instructions of an observed call."""
    tell: Callable[[RunEvent], None]
    """Tells all who are."""
    result_characters: float
    ledger: Ledger | None
    """Of the innermost run, if there is one: what runs in the calls spend too."""

    def at(self, number: int) -> TurnFacts:
        """The facts of another turn of the same run."""
        # By name, because attrs.evolve takes 4 us, of the 90 of a turn.
        return TurnFacts(
            run_id=self.run_id,
            parents=self.parents,
            number=number,
            deps=self.deps,
            deadline=self.deadline,
            loop=self.loop,
            observed=self.observed,
            kinds=self.kinds,
            tell=self.tell,
            result_characters=self.result_characters,
            ledger=self.ledger,
        )

    def event(self) -> dict[str, Any]:
        """What every event of the turn says."""
        return {
            "run_id": self.run_id,
            "parents": self.parents,
            "turn": self.number,
            "time": self.loop.now(),
        }

    def tell_of(
        self, kind: Callable[..., RunEvent], index: int, call: ToolCall, **more: Any
    ) -> None:
        """Tell of an event of *call*; to be asked only when somebody is told."""
        # Not by `event`: the dict that it makes and spreads is 1 us of an observed call.
        self.tell(
            kind(
                run_id=self.run_id,
                parents=self.parents,
                turn=self.number,
                time=self.loop.now(),
                index=index,
                call=call,
                **more,
            )
        )
