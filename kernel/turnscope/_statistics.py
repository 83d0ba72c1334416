"""What `Kernel.statistics()` gives: a look at limiters and keys, at one instant. Values only.

Above: the limiters and the queues, which fill them in. Below: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from ._record import Record


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LimiterStatistics(Record):
    """A look at one limiter."""

    capacity: float
    lent: int
    """Slots in use, leaked ones included."""
    waiting: int
    """Calls in its queue."""
    leaked: int
    """Slots held by calls that have settled, but whose thread is still at work."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CallName(Record):
    """Which call: its run and turn, its index there, and what the model called it."""

    run_id: str
    turn: int
    index: int
    id: str
    tool: str

    def __str__(self) -> str:
        return f"call {self.id!r} of {self.tool!r}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Claimant(Record):
    """A call that holds a key, or waits for it."""

    call: CallName
    writes: bool
    """Whether it is to have the key alone; those that read share it."""
    leaked: bool
    """Whether it has settled, and holds the key because its thread is still at work."""
    waits_for: tuple[CallName, ...]
    """The calls that have to end first, in the order in which they came; none if it holds it."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class KeyStatistics(Record):
    """A look at one key of ``@tool(reads=..., writes=...)``: who holds it, and who waits for whom.

    A call takes all of its keys at once, so it may wait here for one that holds another of them.
    """

    holders: tuple[Claimant, ...]
    waiters: tuple[Claimant, ...]
    """In the order in which they came."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class KernelStatistics(Record):
    """A look at a kernel: what is lent, and who waits."""

    runs: int
    """Runs that are under way."""
    turns: int
    """Turns that are open, those of runs included."""
    limiters: Mapping[str, LimiterStatistics]
    """By name: "calls", "threads", "processes", "model_requests" and each group of
    ``Limits(groups=...)``."""
    keys: Mapping[str, KeyStatistics] = attrs.field(factory=dict[str, KeyStatistics])
    """By their text, those that some call holds or waits for now. Where calls run alone in their
    turn, the turn is a key too: ``<turn 0 of RUN_ID>``."""
