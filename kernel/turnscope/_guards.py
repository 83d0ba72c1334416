"""From what a tool declares to the claim of one of its calls.

A turn in which some calls run alone has a key of its own, which all of its calls claim. Above: the
routes, which have a guard for each tool that needs one. Below: the keys and their queues.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from ._resources import Claim, Queues

if TYPE_CHECKING:
    from ._attempt import Attempt
    from ._keys import Declared
    from ._supervisor import Supervisor


@attrs.frozen(eq=False, repr=False)
class Guard:
    """What the calls of one tool claim, in the queues of one kernel."""

    queues: Queues
    declared: Declared | None
    in_turn: bool
    """Whether calls of this turn run alone, this tool's or others'."""
    alone: bool
    """Whether this tool's do."""

    def keys(self, arguments: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """The keys that a call with *arguments* reads, and those that it writes.

        Raises InvalidArguments for *arguments* of which no keys can be made.
        """
        return ([], []) if self.declared is None else self.declared.of(arguments)

    def claim(
        self, attempt: Attempt, turn: Supervisor, reads: list[str], writes: list[str]
    ) -> Claim | None:
        """What *attempt* claims, before it joins the queues; None if that is nothing."""
        if not (reads or writes or self.in_turn):
            return None
        return Claim(
            self.queues,
            attempt,
            reads,
            writes,
            turn=turn if self.in_turn else None,
            alone=self.alone,
            parent=claim_above(turn),
        )


def claim_above(turn: Supervisor) -> Claim | None:
    """The claim of the nearest call above *turn* that has one."""
    above = turn.parent
    while above is not None:
        if above.claim is not None:
            return above.claim
        above = None if above.turn is None else above.turn.parent
    return None
