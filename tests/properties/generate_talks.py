"""Draws chats: conversations, nested agents, streams, and the accidents that befall them.

As in `generate`, every span has a fingerprint of its own, so that no two instants coincide unless
one is the cause of the other. Above: the laws. Below: `talks`.
"""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import attrs
from hypothesis import strategies as st

from .talks import Answer, Ask, Chat, Hit, How, Level, Talk

UNIT = 1 / 64
_FINGERPRINTS = random.Random(2).sample(range(1, 1 << 18), 2_000)

TEXTS = ("", "ok", "two words", "  ", "héllo 🌍", "cut \ud83d", "\ud83d\ude00")
IDS = ("", "c0", "c1", "c0-1", "call-1", "c\udc00")
NOBODY = ("nobody", "no body!", "é" * 70, "?")
BAD = ("{bad", "[1]", "null", '{"a": NaN}', "", "  ", '{"there": 1}', '{"there": "\ud83d"}', '"x"')
ENDS: tuple[How, ...] = (
    "move_on_after",
    "fail_after",
    "run.cancel",
    "timeout",
    "deadline",
    "seconds",
    "break",
    "raise",
    "kernel",
)


@attrs.frozen(kw_only=True)
class Odds:
    """What may occur in a chat. Numbers are the chance in eight."""

    answers: int = 3
    asks: int = 3
    depth: int = 2
    nest: int = 3
    odd: int = 2
    """Ids, names, arguments, texts and reasons that no provider would send."""
    fails: int = 2
    fatal: int = 1
    broken: int = 1
    """The model fails."""
    swallow: int = 1
    cleanup: int = 3
    budget: int = 2
    then: int = 0
    hit: tuple[How, ...] = ("nothing",)
    at_event: int = 3
    """The hit comes in the step of an event."""
    readers: tuple[str, ...] = ("wait", "events", "text")
    pause: int = 2
    limits: int = 0


class _Source:
    def __init__(self, draw: st.DrawFn, odds: Odds) -> None:
        self.draw, self.odds = draw, odds
        self._prints = itertools.cycle(_FINGERPRINTS)
        self.limited = False

    def span(self, most: int = 40) -> float:
        return self.draw(st.integers(1, most)) * UNIT + next(self._prints) * 2.0**-26

    def chance(self, eighths: float) -> bool:
        return eighths > 0 and self.draw(st.integers(0, 7)) >= 8 - eighths

    def one_of(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def talk(self, depth: int) -> Talk:
        answers = self.one_of(1, 2, 2) if depth else self.draw(st.integers(1, self.odds.answers))
        return Talk(tuple(self.answer(depth, last=n == answers - 1) for n in range(answers)))

    def answer(self, depth: int, *, last: bool) -> Answer:
        odds = self.odds
        asks: list[Ask] = []
        if not last:
            most = odds.asks if depth == 0 else 2
            for _ in range(self.draw(st.integers(1, most))):
                # Two agents that spend from one budget in the same tick: that is a tie.
                alone = self.limited and any(ask.talk for ask in asks)
                asks.append(self.ask(depth, nest=not alone))
        odd = self.chance(odds.odd)
        reason: Any = "calls" if asks else "stop"
        if odd:
            reason = self.one_of(reason, reason, "length", "refusal" if last else "length")
        answer = Answer(
            text=self.one_of(*TEXTS) if odd else ("ok" if last else ""),
            asks=tuple(asks),
            reason=reason,
            tokens=self.one_of(0, 5, 10),
            span=self.span(),
            cut=self.draw(st.integers(0, 99)),
            cleanup=self.span(24) if self.chance(odds.cleanup) else 0.0,
            swallows=self.chance(odds.swallow),
        )
        if self.chance(odds.broken):
            fails_at = self.draw(st.integers(-1, 6))
            answer = attrs.evolve(answer, fails_at=fails_at)
            if fails_at == 6:
                answer = attrs.evolve(answer, fails_at=None, unfinished=True)
        return answer

    def ask(self, depth: int, *, nest: bool) -> Ask:
        odds = self.odds
        ask = Ask(
            id=f"c{next(self._prints)}",
            span=self.span(),
            cleanup=self.span(24) if self.chance(odds.cleanup) else 0.0,
            fails=self.chance(odds.fails),
        )
        if self.chance(odds.odd):
            ask = attrs.evolve(ask, id=self.one_of(*IDS))
        if self.chance(odds.odd / 2):
            what = self.one_of("tool", "arguments")
            values = {"tool": NOBODY, "arguments": BAD}[what]
            ask = attrs.evolve(ask, **{what: self.one_of(*values)})
        if ask.tool == "work" and ask.fits:
            if nest and depth < odds.depth and self.chance(odds.nest):
                return attrs.evolve(ask, tool="agent", talk=self.talk(depth + 1))
            if (depth == 0 or not self.limited) and self.chance(odds.fatal):
                return attrs.evolve(ask, tool="fatal")
            if self.chance(odds.swallow):
                ask = attrs.evolve(ask, swallows=self.one_of(1, 3, math.inf))
        return ask

    def level(self) -> Level:
        odds = self.odds
        level = Level(cap=self.one_of(1, 2, math.inf) if odds.limits else math.inf)
        if self.limited:
            level = attrs.evolve(
                level,
                turns=self.one_of(50, 1, 2, 3),
                calls=self.one_of(math.inf, 1, 2, 4),
                tokens=self.one_of(math.inf, 5, 12, 20),
            )
        return level

    def hit(self) -> Hit:
        how = self.one_of(*self.odds.hit)
        if how == "nothing":
            return Hit()
        if how == "break":
            return Hit(how=how, after=self.draw(st.integers(0, 12)))
        if how in ("run.cancel", "native", "move_on_after") and self.chance(self.odds.at_event):
            return Hit(how=how, event=self.draw(st.integers(0, 30)))
        again = self.span(8) if how == "native" and self.chance(4) else None
        return Hit(how=how, after=self.span(90), again=again)

    def chat(self) -> Chat:
        odds = self.odds
        self.limited = self.chance(odds.budget)
        hit = self.hit()
        first = self.talk(0)
        reader = "events" if hit.how == "break" else self.one_of(*odds.readers)
        return Chat(
            first=first,
            then=tuple(self.talk(1) for _ in range(2 if self.chance(odds.then) else 0)),
            stored=bool(odds.then) and self.chance(4),
            levels=tuple(self.level() for _ in range(3)),
            hit=hit,
            reader=reader,
            pause=self.span(20) if reader != "wait" and self.chance(odds.pause) else 0.0,
            grace=self.span(24),
            calls=self.one_of(1, 2, 3) if odds.limits else math.inf,
            requests=self.one_of(1, 2, math.inf) if odds.limits else math.inf,
        )


@st.composite
def chats(draw: st.DrawFn, **odds: Any) -> Chat:
    """Chats within the given `Odds`."""
    return _Source(draw, Odds(**odds)).chat()


CALM: dict[str, Any] = {
    "odd": 0,
    "fails": 0,
    "fatal": 0,
    "broken": 0,
    "swallow": 0,
    "cleanup": 0,
    "budget": 0,
    "pause": 0,
    "at_event": 0,
}
"""The odds of chats to which nothing happens."""
