"""Capacity: how many calls may work at once, and who is next. Pure: nothing here awaits.

A call's `Ticket` passes its limiters one after the other: its group's, its backend's, and the
kernel's ``calls`` last (with ``calls`` first, inline calls were seen to wait 24 s behind thread
calls). Waiting costs no task: a limiter that gets a slot back lends it to the next ticket in the
same step, and a ticket that has passed them all tells its holder. The order within each limiter is
first in, first out; a call that gave its slots back for a nested turn returns ahead of those.

Before all of these come keys: `_resources`. Above: the attempt and the turn. Below: values.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from ._adaptive import AdaptiveLimit, Window
from ._errors import LimiterLeaked
from ._record import Record

if TYPE_CHECKING:
    from ._statistics import LimiterStatistics


def _cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity to ask for
        return os.cpu_count() or 1


def is_capacity(value: object) -> bool:
    """Whether *value* is a whole number from 1 up, or ``math.inf``."""
    if not isinstance(value, (int, float)) or not value >= 1:
        return False
    return value == math.inf or value == int(value)


def _positive(owner: object, attribute: attrs.Attribute[Any], value: float) -> None:
    if not is_capacity(value):
        raise ValueError(
            f"Limits({attribute.name}={value!r}): a capacity is a whole number from 1 up, or "
            "math.inf"
        )


def _requests(owner: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, AdaptiveLimit):
        _positive(owner, attribute, value)


def _groups(owner: object, attribute: attrs.Attribute[Any], value: Mapping[str, float]) -> None:
    if not isinstance(value, Mapping):
        raise TypeError("Limits(groups=...) is a mapping of groups to capacities, as {'db': 4}")
    for name, capacity in value.items():
        if name in RESERVED:
            raise ValueError(f"a limit group cannot be named {name!r}: that is a limit of its own")
        if not is_capacity(capacity):
            raise ValueError(
                f"Limits(groups={{{name!r}: {capacity!r}}}): a capacity is a whole number from 1 "
                "up, or math.inf"
            )


RESERVED: Final = frozenset({"calls", "threads", "processes", "model_requests"})


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Limits(Record):
    """How many calls of one kernel may work at once, over all of its turns.

    Raises ValueError for a capacity that is not a whole number from 1 up, or ``math.inf``.
    """

    calls: float = attrs.field(default=100, validator=_positive)
    """All calls, wherever they run."""
    threads: float = attrs.field(default=40, validator=_positive)
    """Calls in threads; a leaked thread counts until it really ends. 40 is AnyIO's default too."""
    processes: float = attrs.field(factory=_cpus, validator=_positive)
    """Calls in worker processes; by default one for each CPU that this process may use."""
    model_requests: float | AdaptiveLimit = attrs.field(default=math.inf, validator=_requests)
    """Requests to models, by all runs; or an `AdaptiveLimit`, which finds out how many."""
    groups: Mapping[str, float] = attrs.field(factory=dict[str, float], validator=_groups)
    """Limits of your own, by name: ``{"db": 4}`` for tools with ``limit="db"``."""
    result_characters: float = attrs.field(default=100_000, validator=_positive)
    """How long the content of one result may be, in characters, before it is cut and says so."""


class Limiter:
    """One capacity with its queue."""

    own = False
    """Whether it is one run's alone, so that nobody but this run's calls ever frees it."""
    __slots__ = ("_queue", "_returning", "_serving", "capacity", "leaked", "lent", "name", "window")

    def __init__(self, name: str, capacity: float | AdaptiveLimit) -> None:
        self.name = name
        self.window: Window | None = None
        """What changes its capacity, if anything does: tell it, and then `follow`."""
        if isinstance(capacity, AdaptiveLimit):
            self.window, capacity = Window(capacity), capacity.start
        self.capacity: float = capacity
        self.lent = 0
        self.leaked = 0
        # Ordered dicts, because a waiter may leave from the middle, ten thousand at a time.
        self._queue: OrderedDict[Ticket, None] = OrderedDict()
        self._returning: OrderedDict[Ticket, None] = OrderedDict()
        self._serving = False

    def statistics(self) -> LimiterStatistics:
        """Look at it."""
        from ._statistics import LimiterStatistics  # here, because few programs look

        waiting, leaked = len(self._queue) + len(self._returning), self.leaked
        return LimiterStatistics(
            capacity=self.capacity, lent=self.lent, waiting=waiting, leaked=leaked
        )

    def take(self, ticket: Ticket | None) -> bool:
        """Lend a slot now, if one is free and nobody is ahead; else *ticket*, if any, queues."""
        returning = ticket is not None and ticket.returning
        ahead = self._returning if returning else self._queue or self._returning
        if self.lent < self.capacity and not ahead:
            self.lent += 1
            return True
        if ticket is not None:
            (self._returning if returning else self._queue)[ticket] = None
        return False

    def give(self) -> None:
        """Take a slot back, and lend it to the next in line."""
        self.lent -= 1
        if self._queue or self._returning:
            self._serve()

    def follow(self, window: Window) -> None:
        """Have the capacity that *window* has come to, and lend what is new of it."""
        self.capacity = window.capacity
        self._serve()

    def _serve(self) -> None:
        if self._serving:
            return
        # A loop, because who is next may be turned away further on, and so give its slot back.
        self._serving = True
        try:
            while self.lent < self.capacity and (queue := self._returning or self._queue):
                ticket, _ = queue.popitem(last=False)
                self.lent += 1
                ticket.granted()
        finally:
            self._serving = False

    def leave(self, ticket: Ticket) -> None:
        """Take *ticket* out of the queue."""
        (self._returning if ticket.returning else self._queue).pop(ticket, None)

    @property
    def stuck(self) -> bool:
        """Whether every slot is held by a leak, so that none may ever come back."""
        return self.leaked >= self.capacity

    def leak(self, *, taken: bool) -> None:
        """Note that a call has settled and works on; turn away who could wait for leaks alone.

        If it had not *taken* a slot, one more is lent, if need be beyond the capacity.
        """
        self.lent += not taken
        self.leaked += 1
        if self.stuck:
            for queue in (self._returning, self._queue):
                for ticket in [ticket for ticket in queue if ticket.nested or self.own]:
                    if ticket in queue:  # else who was told of the one before has taken it out
                        del queue[ticket]
                        ticket.refused(self)

    def unleak(self) -> None:
        """Note that a leak has really ended."""
        self.leaked -= 1
        self.give()


class Holder(Protocol):
    """Whoever waits with a ticket."""

    def admitted(self) -> None:
        """Told that every limiter has lent a slot."""
        ...

    def refused(self, exc: LimiterLeaked, /) -> None:
        """Told that the ticket could wait for leaks alone; it holds nothing and waits no more."""
        ...


class Ticket:
    """One call's way through its limiters."""

    __slots__ = ("_held", "_holder", "_leaked", "_limiters", "nested", "returning", "waits_for")

    def __init__(
        self, limiters: tuple[Limiter, ...], holder: Holder, *, nested: bool, held: int = 0
    ) -> None:
        self._limiters = limiters
        self._holder: Holder | None = holder
        self._held = held
        self._leaked: int = 0
        self.nested = nested
        """Whether a call submitted it: such a one must not wait for what may never come."""
        self.returning = False
        self.waits_for: Limiter | None = None

    def advance(self) -> bool:
        """Pass as many limiters as lend a slot now; True if that was the last of them.

        If not, the ticket stands in a queue, and its holder is told later. Raises LimiterLeaked
        if a *nested* ticket, or one at a limiter of its own run, would wait for leaks alone.
        """
        for limiter in self._limiters[self._held :]:
            if (self.nested or limiter.own) and limiter.stuck:
                self.release()
                raise LimiterLeaked(limiter.name, limiter.capacity)
            if not limiter.take(self):
                self.waits_for = limiter
                return False
            self._held += 1
        return True

    def granted(self) -> None:
        """Told by the limiter that it waits for: the slot is its own."""
        self._held += 1
        self.waits_for = None
        try:
            passed = self.advance()
        except LimiterLeaked as exc:
            if self._holder is not None:
                self._holder.refused(exc)
        else:
            if passed and self._holder is not None:
                self._holder.admitted()

    def refused(self, limiter: Limiter) -> None:
        """Told by the limiter that it waits for: no slot may ever come; it is out of the queue."""
        self.waits_for = None
        self.release()
        if self._holder is not None:
            self._holder.refused(LimiterLeaked(limiter.name, limiter.capacity))

    def leave(self) -> None:
        """Leave the queue, keeping what is held: `release` gives that back."""
        if self.waits_for is not None:
            self.waits_for.leave(self)
            self.waits_for = None

    def drop(self) -> None:
        """Have no more to do with any limiter, nor with the holder."""
        self._holder = None
        if self.waits_for is not None:
            self.leave()
        self.release()

    def release(self) -> None:
        """Give every slot back, the last taken first."""
        held, self._held = self._held, 0
        while held:
            held -= 1
            self._limiters[held].give()

    def leak(self) -> None:
        """Keep the slots although the call has settled, until `unleak`.

        A call that leaks while it was parked has none to keep: its thread counts all the same.
        """
        self.leave()
        held, self._held = self._held, 0
        self._leaked = len(self._limiters)
        for place, limiter in enumerate(self._limiters):
            limiter.leak(taken=place < held)

    def unleak(self) -> None:
        """Give back what was leaked: the work has really ended."""
        leaked, self._leaked = self._leaked, 0
        self._holder = None
        for limiter in reversed(self._limiters[:leaked]):
            limiter.unleak()

    def take_again(self, holder: Holder) -> bool:
        """After `release`: as `advance`, ahead of all who never held a slot; *holder* is told."""
        self._holder = holder
        self.nested = True  # a parked call that could wait for ever would hang its whole turn
        self.returning = True
        return self.advance()
