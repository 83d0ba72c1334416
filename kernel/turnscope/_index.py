"""Who shares a key with whom, without looking at everybody: an index of keys and their ancestors.

Each place, a key or an ancestor of one along ``/``, knows who reads or writes exactly there, and
who does so somewhere below. So finding what conflicts costs the depth of one's own keys, and the
conflicts. Pure. Above: the queues. Below: nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from typing import Generic, Protocol, TypeAlias, TypeVar

Places: TypeAlias = tuple[Hashable, ...]
"""A key with its ancestors, from the top; the key itself is the last."""


@lru_cache(maxsize=4096)
def places_of(key: str) -> Places:
    """The places of *key*: of ``file/a`` they are the root, ``file`` and ``file/a``."""
    parts = key.split("/") if key else []
    return tuple("/".join(parts[:count]) for count in range(len(parts) + 1))


def overlap(one: Places, other: Places) -> bool:
    """Whether two keys are one, or one is an ancestor of the other."""
    return one[-1] in other or other[-1] in one


class Member(Protocol):
    """What stands in the index."""

    @property
    def reads(self) -> tuple[Places, ...]:
        """The keys that it shares with others that read them."""
        ...

    @property
    def writes(self) -> tuple[Places, ...]:
        """The keys that it is to have alone."""
        ...


M = TypeVar("M", bound=Member)


class _Place(Generic[M]):
    """Who is at one place, in the order in which they came, and who is below it."""

    __slots__ = ("readers", "readers_below", "writers", "writers_below")

    def __init__(self) -> None:
        self.readers: dict[M, None] = {}
        self.writers: dict[M, None] = {}
        self.readers_below: dict[M, None] = {}
        self.writers_below: dict[M, None] = {}

    def empty(self) -> bool:
        return not (self.readers or self.writers or self.readers_below or self.writers_below)


class Index(Generic[M]):
    """Everybody who reads or writes something, by place."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: dict[Hashable, _Place[M]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, member: M) -> None:
        """Put *member* in, under each of its keys."""
        for key in member.reads:
            for place in key[:-1]:
                self._at(place).readers_below[member] = None
            self._at(key[-1]).readers[member] = None
        for key in member.writes:
            for place in key[:-1]:
                self._at(place).writers_below[member] = None
            self._at(key[-1]).writers[member] = None

    def _at(self, place: Hashable) -> _Place[M]:
        found = self._places.get(place)
        if found is None:
            found = self._places[place] = _Place()
        return found

    def remove(self, member: M) -> None:
        """Take *member* out, from under all of its keys."""
        for key in (*member.reads, *member.writes):
            for place in key:
                found = self._places.get(place)
                if found is not None:
                    found.readers.pop(member, None)
                    found.writers.pop(member, None)
                    found.readers_below.pop(member, None)
                    found.writers_below.pop(member, None)
                    if found.empty():
                        del self._places[place]

    def conflicts(self, member: M) -> dict[M, None]:
        """All who share a key with *member*, or an ancestor of one, that one of them writes.

        *member* itself is not among them.
        """
        found: dict[M, None] = {}
        for key in member.reads:
            self._gather(key, found, writes=False)
        for key in member.writes:
            self._gather(key, found, writes=True)
        found.pop(member, None)
        return found

    def _gather(self, key: Places, found: dict[M, None], *, writes: bool) -> None:
        for place in key:
            here = self._places.get(place)
            if here is not None:
                found.update(here.writers)
                if writes:
                    found.update(here.readers)
        here = self._places.get(key[-1])
        if here is not None:
            found.update(here.writers_below)
            if writes:
                found.update(here.readers_below)

    def at(self, place: Hashable) -> tuple[tuple[M, ...], tuple[M, ...]]:
        """Who reads, and who writes, exactly at *place*."""
        found = self._places.get(place)
        return ((), ()) if found is None else (tuple(found.readers), tuple(found.writers))

    def taken(self) -> list[Hashable]:
        """The places that are somebody's key, and not only an ancestor of one."""
        return [place for place, at in self._places.items() if at.readers or at.writers]
