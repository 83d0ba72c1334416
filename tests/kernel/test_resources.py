"""The queues by themselves: who holds, who waits for whom, and that nobody waits for ever."""

from __future__ import annotations

import itertools
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnscope import CallName
from turnscope._index import Index, overlap, places_of
from turnscope._resources import Claim, Queues

KEYS = ("", "a", "b", "a/x", "a/y", "a/x/1", "b/z", "ab")
keys = st.frozensets(st.sampled_from(KEYS), max_size=3)


@attrs.define(eq=False)
class Call:
    """Whoever claims; it notes what it is told."""

    id: str
    told: list[str] = attrs.Factory(list)

    @property
    def name(self) -> CallName:
        return CallName(run_id="r", turn=0, index=0, id=self.id, tool="t")

    def granted(self) -> None:
        self.told.append("granted")

    def shut_out(self, reason: str) -> None:
        self.told.append(reason)


def claim(queues: Queues, id: str, reads: Any = (), writes: Any = (), **more: Any) -> Claim:
    """A claim that has joined, and has not been refused."""
    made = Claim(queues, Call(id), reads, writes, **more)
    assert made.join() is None
    return made


def told(claim: Claim) -> list[str]:
    assert isinstance(claim.holder, Call)
    return claim.holder.told


def conflicting(one: Claim, other: Claim) -> bool:
    """By looking at each pair of keys."""
    pairs = [(a, b) for a in one.writes for b in (*other.writes, *other.reads)]
    pairs += [(a, b) for a in one.reads for b in other.writes]
    return any(overlap(a, b) for a, b in pairs)


@given(st.lists(st.tuples(keys, keys), max_size=9))
def test_the_index_finds_whom_a_scan_of_all_pairs_finds(sets: list[Any]) -> None:
    index: Index[Claim] = Index()
    claims: list[Claim] = []
    for reads, writes in sets:
        made = Claim(Queues(), Call(""), reads, writes)
        assert set(index.conflicts(made)) == {each for each in claims if conflicting(made, each)}
        index.add(made)
        claims.append(made)
    for made in claims:
        index.remove(made)
        assert made not in index.conflicts(made)
    assert len(index) == 0


def test_the_places_of_a_key_are_its_ancestors_from_the_root() -> None:
    assert places_of("a/b") == ("", "a", "a/b")
    assert places_of("") == ("",)


@attrs.define
class World:
    """Queues with claims that come and go, drawn one step after the other."""

    data: st.DataObject
    queues: Queues = attrs.Factory(Queues)
    live: list[Claim] = attrs.Factory(list)
    refused: int = 0

    def step(self, nested: bool) -> None:
        """Let one thing happen: a call is submitted, or one in a call, or one ends, or is cancelled."""
        running = [each for each in self.live if each.held]
        ends = [each for each in running if not self.children(each)]
        waiting = [each for each in self.live if not each.held]
        what = self.data.draw(st.sampled_from(["submit", "nest", "end", "end", "cancel"]))
        if what == "submit" or (what == "nest" and nested and running):
            parent = self.data.draw(st.sampled_from(running)) if what == "nest" else None
            made = Claim(
                self.queues,
                Call(str(len(self.live))),
                self.data.draw(keys),
                self.data.draw(keys),
                parent=parent,
            )
            refusal = made.join()
            assert refusal is None or parent is not None
            if refusal is None:
                self.live.append(made)
            else:
                assert "circle" in refusal
                self.refused += 1
        elif what == "end" and ends:
            self.leave(self.data.draw(st.sampled_from(ends)))
        elif what == "cancel" and waiting:
            self.leave(self.data.draw(st.sampled_from(waiting)))

    def leave(self, claim: Claim) -> None:
        self.live.remove(claim)
        claim.release()

    def children(self, claim: Claim) -> list[Claim]:
        return [each for each in self.live if each.parent is claim]

    def related(self, one: Claim, other: Claim) -> bool:
        return one in other._above() or other in one._above()

    def check(self) -> None:
        for one, other in itertools.combinations(self.live, 2):
            if self.related(one, other) or not conflicting(one, other):
                continue
            assert not (one.held and other.held), "two that conflict hold their keys"
            first, last = sorted((one, other), key=lambda claim: claim.position)
            if one.parent is None and other.parent is None:
                assert first.held or not last.held, "one has overtaken another"
        for each in self.live:
            assert each.held == (not each.blockers()), "one waits for nobody, or was forgotten"
            assert each._waits == len(each.blockers())
            assert (told(each) == ["granted"]) <= each.held
        # Somebody can always end, if nobody is submitted any more: so nobody waits for ever.
        if self.live:
            assert any(each.held and not self.children(each) for each in self.live), "a deadlock"


@given(st.data(), st.integers(1, 40), st.booleans())
def test_never_two_conflicting_holders_and_never_a_deadlock(
    data: st.DataObject, steps: int, nested: bool
) -> None:
    world = World(data)
    for _ in range(steps):
        world.step(nested)
        world.check()
    while world.live:
        world.leave(next(each for each in world.live if each.held and not world.children(each)))
        world.check()
    assert len(world.queues.index) == 0
    assert world.queues.statistics() == {}


def test_a_writer_waits_for_readers_and_readers_after_it_wait_for_it() -> None:
    queues = Queues()
    one, two = claim(queues, "1", ["a"]), claim(queues, "2", ["a/x"])
    writer, after = claim(queues, "w", (), ["a"]), claim(queues, "3", ["a"])
    assert [each.held for each in (one, two, writer, after)] == [True, True, False, False]
    one.release()
    assert not writer.held
    two.release()
    assert writer.held and not after.held
    assert told(writer) == ["granted"]
    writer.release()
    assert after.held


def test_a_nested_claim_goes_ahead_of_those_that_wait_and_came_after_its_parent() -> None:
    queues = Queues()
    before = claim(queues, "0", (), ["c"])
    parent = claim(queues, "p", (), ["a"])
    after = claim(queues, "1", (), ["a", "c"])
    nested = claim(queues, "n", (), ["a/x"], parent=parent)
    second = claim(queues, "m", (), ["c"], parent=parent)
    assert nested.held and not second.held
    assert [each.holder for each in after.blockers()] == [
        each.holder for each in (before, parent, nested, second)
    ]


def test_a_circle_is_refused_by_the_names_of_those_in_it() -> None:
    queues = Queues()
    one, two = claim(queues, "p1", (), ["a"]), claim(queues, "p2", (), ["b"])
    claim(queues, "n1", (), ["b"], parent=one)
    refused = Claim(queues, Call("n2"), (), ["a/x"], parent=two)
    assert refused.join() == (
        "its keys would close a circle of waiting: it would wait for 'a/x', which call 'p1' of 't' "
        "holds, which waits for its own call 'n1' of 't', which waits for 'b', which call 'p2' of "
        "'t' holds, in which this call was made"
    )
    refused.release()
    assert not refused.held
    assert set(queues.statistics()) == {"a", "b"}


def test_a_circle_over_two_kernels_is_refused_too() -> None:
    one, two = Queues(), Queues()
    first, second = claim(one, "p1", (), ["a"]), claim(two, "p2", (), ["a"])
    claim(two, "n1", (), ["a"], parent=first)
    refused = Claim(one, Call("n2"), (), ["a"], parent=second)
    assert "circle" in (refused.join() or "")


def test_one_that_waits_for_ever_in_front_of_others_is_refused() -> None:
    queues = Queues()
    parent = claim(queues, "p", ["z"])
    claim(queues, "h", (), ["x"])
    waits = claim(queues, "w", (), ["x", "y"])
    other = claim(queues, "q", (), ["a"])
    claim(queues, "n", (), ["y"], parent=other)  # behind w
    refused = Claim(queues, Call("m"), (), ["a", "y"], parent=parent)
    assert (refused.join() or "").endswith(
        "which call 'w' of 't' waits for ahead of it, which would wait for this one"
    )
    assert not waits.held


def test_what_a_leaked_call_submits_does_not_wait_for_it() -> None:
    queues = Queues()
    leaked = claim(queues, "l", (), ["a"])
    leaked.leak()
    refused = Claim(queues, Call("n"), ["a"], ())
    assert "in which this call was made" in (refused.join(leaked) or "")
    claim(queues, "m", ["b"])


def test_a_leak_that_runs_alone_in_its_turn_shuts_out_those_of_its_turn() -> None:
    queues, turn = Queues(), object()
    leaks = claim(queues, "l", turn=turn, alone=True)
    waits = claim(queues, "w", ["a"], turn=turn)
    stranger = claim(queues, "s", ["a"], turn=object())
    assert not waits.held
    leaks.leak()
    (reason,) = told(waits)
    assert "could only wait for call 'l' of 't'" in reason
    assert told(stranger) == [] and stranger.held
    late = Claim(queues, Call("late"), turn=turn, reads=(), writes=())
    assert "could only wait for call 'l'" in (late.join() or "")


@pytest.mark.parametrize("order", [1, -1])
def test_a_thousand_that_wait_for_one_key_leave_in_any_order(order: int) -> None:
    queues = Queues()
    claims = [claim(queues, str(number), (), ["a"]) for number in range(1000)]
    assert [each.held for each in claims] == [True] + [False] * 999
    for each in claims[::order]:
        each.release()
    assert len(queues.index) == 0


def test_calls_that_end_as_they_are_told_wake_each_other_without_recursion() -> None:
    class Quick(Call):
        def granted(self) -> None:
            mine.pop(self.id).release()

    queues = Queues()
    first = claim(queues, "first", (), ["a"])
    mine: dict[str, Claim] = {}
    for number in map(str, range(600)):
        mine[number] = Claim(queues, Quick(number), (), ["a"])
        assert mine[number].join() is None
    first.release()
    assert (len(mine), len(queues.index)) == (0, 0)
