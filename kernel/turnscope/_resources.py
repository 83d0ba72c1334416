"""Conflict order: a call waits for those before it that want what it wants. Pure: nothing awaits.

A call's `Claim` takes its place in the queues of all its keys in one step, so calls that conflict
go on in the order in which they were submitted. Readers share, a writer has its key alone. The
claim of a nested call stands at its parent's place, ahead of all that came after the parent, and
does not conflict with those above it; one that would close a circle of waiting is refused. Waiting
costs no task: who leaves tells those who may go on.

No pairs are kept. Of two that conflict, one waits for the other: for who holds its keys; and among
those that wait, for who stands first. So each only counts how many it waits for.

Above: the attempt and the turn. Below: the index, and values.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable
from typing import Protocol

from ._index import Index, Places, places_of
from ._queue_words import circle_in_words, claimant, left_to, link
from ._statistics import CallName, KeyStatistics


class Holder(Protocol):
    """The call that a claim is for."""

    @property
    def name(self) -> CallName:
        """Which call it is."""
        ...

    def granted(self) -> None:
        """Told that the keys it waited for are its own."""
        ...

    def shut_out(self, reason: str, /) -> None:
        """Told that it would wait for a leak of its own turn alone; its claim still stands."""
        ...


class Claim:
    """What one call reads and writes, from the step of its submit until it has really ended."""

    __slots__ = (
        "_children",
        "_queues",
        "_waits",
        "alone",
        "held",
        "holder",
        "leaked",
        "parent",
        "passed",
        "position",
        "reads",
        "refusal",
        "turn",
        "writes",
    )

    def __init__(
        self,
        queues: Queues,
        holder: Holder,
        reads: Iterable[str],
        writes: Iterable[str],
        *,
        turn: object = None,
        alone: bool = False,
        parent: Claim | None = None,
    ) -> None:
        self._queues = queues
        self.holder: Holder | None = holder
        """None once it has left the queues."""
        self.writes: tuple[Places, ...] = tuple(map(places_of, writes))
        self.reads: tuple[Places, ...] = tuple(map(places_of, reads))
        self.turn = turn
        """What stands for the turn, if calls run alone in it: a key that all of them have."""
        self.alone = alone
        if alone:
            self.writes = (*self.writes, (turn,))
        elif turn is not None:
            self.reads = (*self.reads, (turn,))
        self.parent = parent
        """The claim of the nearest call above that has one."""
        self.position: tuple[int, ...] = ()
        self.held = False
        """Whether it has all of its keys, alone or shared."""
        self.passed = False
        """Whether its call has gone on to the limiters."""
        self.refusal: str | None = None
        """Why it must not join, if it was refused."""
        self.leaked = False
        self._waits = 0
        self._children: dict[Claim, None] | None = None

    # In the queues.

    def join(self, asker: Claim | None = None) -> str | None:
        """Take a place in the queues of all keys: it is `held` now, or its holder is told later.

        Returns why it must not, if it would wait for ever: for those above it, or for *asker*, a
        leaked call in which it was submitted; or, alone in its turn, for a leak.
        """
        queues = self._queues
        above = self._above()
        self.position = (*self._place(), next(queues.count))
        ahead: list[Claim] = []
        behind: list[Claim] = []
        for other in queues.index.conflicts(self):
            if other not in above:
                first = other.held or other.position < self.position
                (ahead if first else behind).append(other)
        if ahead:
            refusal = self._refusal(ahead, behind, above if asker is None else (*above, asker))
            if refusal is not None:
                self.position = ()
                return refusal
        for other in behind:
            other._waits += 1
        self._waits = len(ahead)
        self.held = not ahead
        queues.index.add(self)
        if self.parent is not None:
            if self.parent._children is None:
                self.parent._children = {}
            self.parent._children[self] = None
        return None

    def release(self) -> None:
        """Leave the queues, holding or waiting; who may go on now is told."""
        if self.holder is None:
            return
        self.holder = None
        if not self.position:
            return
        queues = self._queues
        queues.index.remove(self)
        if self.parent is not None and self.parent._children is not None:
            self.parent._children.pop(self, None)
        woken: list[Claim] = []
        for other in queues.index.conflicts(self):
            if other._waits_for(self):
                other._waits -= 1
                if not other._waits:
                    other.held = True
                    woken.append(other)
        if woken:
            woken.sort(key=lambda claim: claim.position)
            queues.wake(woken)

    def leak(self) -> None:
        """Keep the keys although the call has settled, until `release`.

        Who could only go on after it in its own turn is told, because nobody else frees that.
        """
        self.leaked = True
        if self.turn is not None:
            readers, writers = self._queues.index.at(self.turn)
            waiting = [each for each in (*readers, *writers) if not each.held]
            for other in sorted(waiting, key=lambda claim: claim.position):
                if other.holder is not None and self.meets_in_turn(other):
                    other.holder.shut_out(left_to(self))

    def wait_in_words(self) -> str:
        """What it waits for, and who has it, for a sentence about a call that did not begin."""
        if self.held or not self.position:
            return ""
        found = self._queues.index.conflicts(self)
        # One that holds it, if there is one: a thousand may wait for the same.
        ahead = (other for other in found if other.held and self._waits_for(other))
        first = next(ahead, None) or next(iter(self.blockers()), None)
        return "" if first is None else f", while it waited for {link(self, first)}"

    # Who waits for whom.

    def blockers(self) -> list[Claim]:
        """The claims that it waits for, in the order of their places."""
        found = [other for other in self._queues.index.conflicts(self) if self._waits_for(other)]
        return sorted(found, key=lambda claim: claim.position)

    def _waits_for(self, other: Claim) -> bool:
        """Whether this one, which conflicts with *other*, waits for it."""
        if self.held or not (other.held or other.position < self.position):
            return False
        return other not in self._above() and self not in other._above()

    def meets_in_turn(self, other: Claim) -> bool:
        """Whether the two are of one turn, in which one of them runs alone."""
        return self.turn is not None and self.turn is other.turn and (self.alone or other.alone)

    def _above(self) -> Collection[Claim]:
        if self.parent is None:
            return ()
        found = [self.parent]
        while (above := found[-1].parent) is not None:
            found.append(above)
        return found

    def _place(self) -> tuple[int, ...]:
        """The place of the nearest claim above in the same queues: those of its kernel."""
        for above in self._above():
            if above._queues is self._queues:
                return above.position
        return ()

    def _refusal(
        self, ahead: list[Claim], behind: list[Claim], goals: Collection[Claim]
    ) -> str | None:
        """Why it must not wait for those *ahead*, and have those *behind* wait for it, if so."""
        for other in ahead:
            if other.leaked and self.meets_in_turn(other):
                return left_to(other)
        if not goals:  # nothing that is under way waits for it
            return None
        came: dict[Claim, Claim] = dict.fromkeys(ahead, self)
        queue = deque(ahead)
        while queue:
            claim = queue.popleft()
            if claim in goals:
                return circle_in_words(self, came, claim, "in which this call was made")
            # A call that runs may wait for those that it has made itself.
            for further in claim._children or () if claim.held else claim.blockers():
                if further not in came:
                    came[further] = claim
                    queue.append(further)
        for claim in behind:
            if claim in came:
                return circle_in_words(self, came, claim, "which would wait for this one")
        return None


class Queues:
    """The queues of one kernel, by key."""

    __slots__ = ("_serving", "_woken", "count", "index")

    def __init__(self) -> None:
        self.index: Index[Claim] = Index()
        self.count = itertools.count()
        self._woken: deque[Claim] = deque()
        self._serving = False

    def wake(self, claims: Iterable[Claim]) -> None:
        """Tell the holders of *claims* that these are held."""
        self._woken.extend(claims)
        if self._serving:
            return
        # A loop, because a call that is told may run and end in that step, and so wake others.
        self._serving = True
        try:
            while self._woken:
                holder = self._woken.popleft().holder
                if holder is not None:
                    holder.granted()
        finally:
            self._serving = False

    def statistics(self) -> dict[str, KeyStatistics]:
        """A look at each key, by its text."""
        looks: dict[str, KeyStatistics] = {}
        for place in self.index.taken():
            readers, writers = self.index.at(place)
            claims = {**dict.fromkeys(readers, False), **dict.fromkeys(writers, True)}
            ordered = sorted(claims, key=lambda claim: claim.position)
            name = str(place) or "/"
            if not isinstance(place, str) and (holder := ordered[0].holder) is not None:
                name = f"<turn {holder.name.turn} of {holder.name.run_id}>"
            looks[name] = KeyStatistics(
                holders=tuple(claimant(c, writes=claims[c]) for c in ordered if c.held),
                waiters=tuple(claimant(c, writes=claims[c]) for c in ordered if not c.held),
            )
        return looks
