"""Who waits for whom, in words: for results of calls that did not begin, for statistics. Pure.

Above: the queues. Below: the index, which knows what overlaps.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ._index import overlap
from ._statistics import Claimant

if TYPE_CHECKING:
    from ._resources import Claim


def who(claim: Claim) -> str:
    """The call that *claim* is for."""
    return "a call" if claim.holder is None else str(claim.holder.name)


def link(claim: Claim, other: Claim) -> str:
    """*other*, with the key for which *claim* waits for it."""
    if claim.meets_in_turn(other):
        alone = "the one that waits" if claim.alone else "that one"
        return f"{who(other)}, because {alone} runs alone in their turn"
    held = "holds" if other.held else "waits for ahead of it"
    leaked = ", although it has settled: its thread is still at work" if other.leaked else ""
    return f"{_shared(claim, other)!r}, which {who(other)} {held}{leaked}"


def _shared(claim: Claim, other: Claim) -> str:
    for key in claim.writes:
        if any(overlap(key, its) for its in (*other.writes, *other.reads)):
            return str(key[-1]) or "/"
    shared = (key for key in claim.reads if any(overlap(key, its) for its in other.writes))
    return str(next(shared)[-1]) or "/"


def circle_in_words(claim: Claim, came: Mapping[Claim, Claim], last: Claim, end: str) -> str:
    """Why *claim* must not wait: the way from it to *last*, by where each *came* from."""
    chain = [last]
    while chain[-1] is not claim:
        chain.append(came[chain[-1]])
    chain.reverse()
    links = [
        f"its own {who(second)}" if first.held else link(first, second)
        for first, second in itertools.pairwise(chain)
    ]
    way = ", which waits for ".join(links)
    return f"its keys would close a circle of waiting: it would wait for {way}, {end}"


def left_to(leak: Claim) -> str:
    """Why a call must not wait for *leak*, beside which nothing of its turn may run."""
    return (
        f"it could only wait for {who(leak)}, which runs apart from all others of its turn, and "
        "whose thread could not be stopped and is still at work; have the tool look at "
        "check_cancelled()"
    )


def claimant(claim: Claim, *, writes: bool) -> Claimant:
    """*claim*, as one sees it at one of its keys."""
    assert claim.holder is not None  # because it is in the queues
    blockers = (other.holder for other in claim.blockers())
    return Claimant(
        call=claim.holder.name,
        writes=writes,
        leaked=claim.leaked,
        waits_for=tuple(holder.name for holder in blockers if holder is not None),
    )
